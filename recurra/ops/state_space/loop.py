"""The definition of `StateSpace`: one step at a time."""

import torch

from recurra.ops.state_space import StateSpace
from recurra.ops.steps import by_step, restart
from recurra.shapes import Float, Inexact, Tensor


def declines(record: StateSpace, state: Tensor) -> str | None:
    """Never: this is the definition the others are measured against."""
    return None


def scan(
    record: StateSpace, state: Inexact[Tensor, "B D N"]
) -> tuple[Float[Tensor, "B T D"], Inexact[Tensor, "B D N"]]:
    steps = record.x.shape[1]
    decay = record.log_decay.exp()
    resets = by_step(record.reset, steps)
    valids = by_step(record.valid, steps)
    reads = []
    for x, begins, happens in zip(record.x.unbind(1), resets, valids, strict=True):
        before = state if begins is None else restart(begins, state)
        new = decay * before + x[..., None]
        read = (record.read * new).sum(-1)
        read = read.real if read.is_complex() else read
        read = read if record.skip is None else read + record.skip * x
        if happens is not None:
            new = torch.where(happens[:, None, None], new, state)
            read = read.masked_fill(~happens[:, None], 0)
        state = new
        reads.append(read)
    return torch.stack(reads, 1), state
