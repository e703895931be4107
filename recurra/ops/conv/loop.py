"""The definition of `ShortConv`: one step at a time, over the past and the present input."""

import torch
from torch.nn import functional as F

from recurra.ops.conv import ShortConv
from recurra.ops.steps import by_step, restart
from recurra.shapes import Float, Tensor


def declines(record: ShortConv, state: Tensor) -> str | None:
    """Never: this is the definition the others are measured against."""
    return None


def scan(record: ShortConv, state: Float[Tensor, "B J D"]) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B J D"]]:
    steps, taps = record.x.shape[1], record.weight.t()
    resets = by_step(record.reset, steps)
    valids = by_step(record.valid, steps)
    reads = []
    for x, begins, happens in zip(record.x.unbind(1), resets, valids, strict=True):
        past = state if begins is None else restart(begins, state)
        window = torch.cat([past, x[:, None]], 1)
        read = (window * taps).sum(1)
        read = read if record.bias is None else read + record.bias
        read = F.silu(read) if record.silu else read
        new = window[:, 1:]
        if happens is not None:
            new = torch.where(happens[:, None, None], new, state)
            read = torch.where(happens[:, None], read, 0)
        state = new
        reads.append(read)
    return torch.stack(reads, 1), state
