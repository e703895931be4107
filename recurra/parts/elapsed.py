"""The time that a step took, as what a rule can see: one more vector of its drive, the same for every unit."""

import torch

from recurra.clock import Clock
from recurra.shapes import Float, Tensor, wide


def elapsed(x: Float[Tensor, "B T _"], clock: Clock | None) -> Float[Tensor, "B T 1"]:
    """The clock's `dt`, or 1 for every step of x where none is given; float32, or float64 if x is."""
    dt = x.new_ones(x.shape[:2]) if clock is None or clock.dt is None else clock.dt
    return dt.to(wide(x))[..., None]


def timed_drive(drive: Float[Tensor, "B T GN"], units: int, clock: Clock | None) -> Float[Tensor, "B T M"]:
    """A drive of G vectors, and after them the time since the step before, once for every unit."""
    step = elapsed(drive, clock)
    return torch.cat([drive.to(step.dtype), step.expand(-1, -1, units)], -1)
