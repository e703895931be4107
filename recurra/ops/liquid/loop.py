"""The definition of `Liquid`: one step at a time."""

import torch

from recurra.ops.liquid import Liquid
from recurra.ops.steps import by_step, restart
from recurra.shapes import Float, Inexact, Tensor


def declines(record: Liquid, state: Tensor) -> str | None:
    """Never: this is the definition the others are measured against."""
    return None


def scan(record: Liquid, state: Inexact[Tensor, "B D N"]) -> tuple[Float[Tensor, "B T D"], Inexact[Tensor, "B D N"]]:
    _, decay, write, limit, weight, *_ = record
    steps = record.x.shape[1]
    resets = by_step(record.reset, steps)
    valids = by_step(record.valid, steps)
    reads = []
    for x, begins, happens in zip(record.x[..., None].unbind(1), resets, valids, strict=True):
        before = state if begins is None else restart(begins, state)
        new = (decay + write * (limit * (x / limit).tanh())) * before + write * x
        read = (weight * new).sum(-1)
        read = read.real if read.is_complex() else read
        if happens is not None:
            new = torch.where(happens[:, None, None], new, state)
            read = read.masked_fill(~happens[:, None], 0)
        state = new
        reads.append(read)
    return torch.stack(reads, 1), state
