"""The definition of `Address`: one step at a time, exact, on any device."""

import torch

from recurra.ops.address import Address
from recurra.ops.steps import by_step, restart
from recurra.shapes import Float, Tensor


def declines(record: Address, state: Tensor) -> str | None:
    """Never: this is the definition the others are measured against."""
    return None


def scan(record: Address, state: Float[Tensor, "B H K V"]) -> tuple[Float[Tensor, "B T H K"], Float[Tensor, "B H K V"]]:
    *inputs, reset = record
    reads = []
    resets = by_step(reset, record.write.shape[1])
    for query, key, write, log_decay, begins in zip(*(x.unbind(1) for x in inputs), resets, strict=True):
        if begins is not None:
            state = restart(begins, state)
        state = log_decay.exp()[..., None] * state + write[..., None] * key[..., None, :]
        reads.append((state * query[..., None, :]).sum(-1))
    return torch.stack(reads, 1), state
