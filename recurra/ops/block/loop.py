"""The definition of `Block`: one step at a time. Costs P^2 products a block and step."""

import torch

from recurra.ops.block import Block, apply
from recurra.ops.steps import by_step, restart
from recurra.shapes import Float, Tensor


def declines(record: Block, state: Tensor) -> str | None:
    """Never: this is the definition the others are measured against."""
    return None


def scan(record: Block, state: Float[Tensor, "B *F P"]) -> tuple[Float[Tensor, "B T *F P"], Float[Tensor, "B *F P"]]:
    matrix, drive, reset = record
    steps = drive.shape[1]
    resets = by_step(reset, steps)
    matrices = matrix.unbind(1) if record.varies else [matrix] * steps
    reads = []
    for a, b, begins in zip(matrices, drive.unbind(1), resets, strict=True):
        if begins is not None:
            state = restart(begins, state)
        state = apply(a, state) + b
        reads.append(state)
    return torch.stack(reads, 1), state
