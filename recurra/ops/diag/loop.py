"""The definition of `Diag`: one step at a time. Costs a few small operations a step, and keeps every h."""

import torch

from recurra.ops.diag import Diag
from recurra.ops.steps import by_step, restart
from recurra.shapes import Inexact, Tensor


def declines(record: Diag, state: Tensor) -> str | None:
    """Never: this is the definition the others are measured against."""
    return None


def scan(record: Diag, state: Inexact[Tensor, "B *F"]) -> tuple[Inexact[Tensor, "B T *F"], Inexact[Tensor, "B *F"]]:
    decay, drive, ring, reset = record
    steps = drive.shape[1]
    resets = by_step(reset, steps)
    decays = decay.unbind(1) if decay.ndim == drive.ndim else [decay] * steps
    reads = []
    for a, b, begins in zip(decays, drive.unbind(1), resets, strict=True):
        if begins is not None:
            state = restart(begins, state, ring.start)
        state = ring.add(ring.mul(a, state), b)
        reads.append(state)
    return torch.stack(reads, 1), state
