"""The definition of `Selective`: one step at a time."""

import torch

from recurra.ops.selective import Selective
from recurra.ops.steps import by_step, restart
from recurra.shapes import Float, Tensor


def declines(record: Selective, state: Tensor) -> str | None:
    """Never: this is the definition the others are measured against."""
    return None


def scan(record: Selective, state: Float[Tensor, "B D N"]) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B D N"]]:
    resets = by_step(record.reset, record.x.shape[1])
    inputs = (x.unbind(1) for x in (record.x, record.step, record.write, record.query))
    reads = []
    for x, step, write, query, begins in zip(*inputs, resets, strict=True):
        if begins is not None:
            state = restart(begins, state)
        decay = (step[..., None] * record.rate).exp()
        state = decay * state + (step * x)[..., None] * write[:, None]
        reads.append((state * query[:, None]).sum(-1))
    return torch.stack(reads, 1), state
