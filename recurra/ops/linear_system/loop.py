"""The definition of `LinearSystem`: one step at a time. Costs N^2 products a feature and step."""

import torch

from recurra.ops.block import apply
from recurra.ops.linear_system import LinearSystem
from recurra.ops.steps import by_step, restart
from recurra.shapes import Float, Tensor


def declines(record: LinearSystem, state: Tensor) -> str | None:
    """Never: this is the definition the others are measured against."""
    return None


def scan(
    record: LinearSystem, state: Float[Tensor, "B D N"]
) -> tuple[Float[Tensor, "B T D M"], Float[Tensor, "B D N"]]:
    steps = record.x.shape[1]
    resets = by_step(record.reset, steps)
    valids = by_step(record.valid, steps)
    reads = []
    for x, begins, happens in zip(record.x.unbind(1), resets, valids, strict=True):
        before = state if begins is None else restart(begins, state)
        new = apply(record.matrix, before) + record.write * x[..., None]
        read = apply(record.read, new)
        if happens is not None:
            new = torch.where(happens[:, None, None], new, state)
            read = read.masked_fill(~happens[:, None, None], 0)
        state = new
        reads.append(read)
    return torch.stack(reads, 1), state
