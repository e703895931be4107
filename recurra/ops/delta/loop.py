"""The definition of `Delta` and `LowRank`: one step at a time, exact, on any device."""

import torch

from recurra.ops.delta import Delta, LowRank
from recurra.ops.steps import by_step, restart
from recurra.shapes import Float, Tensor


def declines(record: Delta | LowRank, state: Tensor) -> str | None:
    """Never: this is the definition the others are measured against."""
    return None


def _recall(state: Float[Tensor, "B H K V"], key: Float[Tensor, "B H K"]) -> Float[Tensor, "B H V"]:
    return (key[..., None] * state).sum(-2)


def _write(key: Float[Tensor, "B H K"], value: Float[Tensor, "B H V"]) -> Float[Tensor, "B H K V"]:
    return key[..., None] * value[..., None, :]


def scan(
    record: Delta | LowRank, state: Float[Tensor, "B H K V"]
) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B H K V"]]:
    steps = record.key.shape[1]
    decays = by_step(record.log_decay, steps)
    resets = by_step(record.reset, steps)
    low_rank = isinstance(record, LowRank)
    own = (record.probe, record.answer) if low_rank else (record.erase, record.erase)
    inputs = (x.unbind(1) for x in (record.query, record.key, record.value, *own))
    reads = []
    for query, key, value, first, second, log_decay, begins in zip(*inputs, decays, resets, strict=True):
        if begins is not None:
            state = restart(begins, state)
        before = state
        if log_decay is not None:
            state = (log_decay if log_decay.ndim == 3 else log_decay[..., None]).exp()[..., None] * state
        if low_rank:
            state = state + _write(second, _recall(before, first)) + _write(key, value)
        else:
            state = state + _write(key, value - _recall(state, first))
        reads.append(_recall(state, query))
    return torch.stack(reads, 1), state
