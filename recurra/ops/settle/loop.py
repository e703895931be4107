"""The definition of `Settle`: one step at a time."""

import torch
from torch.nn import functional as F

from recurra.ops.settle import Settle
from recurra.ops.steps import by_step, restart
from recurra.shapes import Float, Tensor

State = tuple[Float[Tensor, "B D"], Float[Tensor, "B DD"]]


def declines(record: Settle, state: State) -> str | None:
    """Never: this is the definition the others are measured against."""
    return None


def scan(record: Settle, state: State) -> tuple[Float[Tensor, "B T D"], State]:
    steps, (gain, bias) = record.drive.shape[1], record.norm
    resets = by_step(record.reset, steps)
    valids = by_step(record.valid, steps)
    reads = []
    for drive, begins, happens in zip(record.drive.unbind(1), resets, valids, strict=True):
        h, fast = state if begins is None else (restart(begins, part) for part in state)
        fast = record.decay * fast.unflatten(1, (len(gain), -1)) + record.rate * h[:, :, None] * h[:, None]
        sustained = drive + F.linear(h, record.recurrent)
        h = F.relu(sustained)
        for _ in range(record.loops):
            pulled = sustained + (fast @ h[..., None]).squeeze(-1)
            h = F.relu(F.layer_norm(pulled, gain.shape, gain, bias))
        new = h, fast.flatten(1)
        if happens is not None:
            new = tuple(torch.where(happens[:, None], after, before) for after, before in zip(new, state, strict=True))
        state = new[0], new[1]
        reads.append(h if happens is None else h.masked_fill(~happens[:, None], 0))
    return torch.stack(reads, 1), state
