"""The definition of `Outer`: one step at a time, exact, on any device."""

import torch

from recurra.ops.outer import Outer
from recurra.ops.steps import by_step, restart
from recurra.shapes import Float, Tensor


def declines(record: Outer, state: Tensor) -> str | None:
    """Never: this is the definition the others are measured against."""
    return None


def scan(record: Outer, state: Float[Tensor, "B H K V"]) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B H K V"]]:
    steps = record.key.shape[1]
    decays = by_step(record.log_decay, steps)
    resets = by_step(record.reset, steps)
    inputs = (x.unbind(1) for x in (record.query, record.key, record.value))
    reads = []
    for query, key, value, log_decay, begins in zip(*inputs, decays, resets, strict=True):
        if begins is not None:
            state = restart(begins, state)
        before, write = state, key[..., None] * value[..., None, :]
        if log_decay is not None:
            state = (log_decay if log_decay.ndim == 3 else log_decay[..., None]).exp()[..., None] * state
        state = state + write
        memory = state
        if record.before:
            memory = before if record.bonus is None else before + record.bonus[..., None] * write
        reads.append((query[..., None] * memory).sum(-2))
    return torch.stack(reads, 1), state
