r"""`Diag` with a decay that never changes: a convolution with the powers of the decay, by Fourier transforms.

.. math::  h_t = \sum_{j \le t} a^{t-j} b_j + a^{t+1} h_{-1}

Costs T log T and one transform of the powers, with no loop at all. Sequences are padded to twice their length, so that
nothing wraps around. Every step of the transform sums all inputs: its error is relative to the largest h, and NaN
anywhere is NaN everywhere. On a CPU blocks of time are several times faster, so it runs only where it is asked for.
"""

import torch

from recurra.ops.diag import Diag
from recurra.ops.rings import SUM
from recurra.shapes import Inexact, Tensor, wide, widen


def declines(record: Diag, state: Tensor) -> str | None:
    """A decay that changes, resets, another ring, a single step."""
    if record.ring != SUM:
        return f"the ring {record.ring.name} has no Fourier transform"
    if record.decay.ndim == record.drive.ndim:
        return "the decay changes from step to step"
    if record.reset is not None:
        return "a sequence that begins inside is no convolution"
    return "a single step" if record.drive.shape[1] == 1 else None


def scan(record: Diag, state: Inexact[Tensor, "B *F"]) -> tuple[Inexact[Tensor, "B T *F"], Inexact[Tensor, "B *F"]]:
    decay, drive = record.decay, record.drive
    steps = drive.shape[1]
    powers = _powers(decay, steps + 1)
    size = 2 * steps
    if powers.is_complex() or drive.is_complex():
        spectrum = torch.fft.fft(drive, size, 1) * torch.fft.fft(powers[:-1], size, 0)
        read = torch.fft.ifft(spectrum, size, 1)[:, :steps]
    else:
        spectrum = torch.fft.rfft(drive, size, 1) * torch.fft.rfft(powers[:-1], size, 0)
        read = torch.fft.irfft(spectrum, size, 1)[:, :steps]
    read = read + powers[1:] * state[:, None]
    return read, read[:, -1]


def _powers(decay: Inexact[Tensor, "*F"], count: int) -> Inexact[Tensor, "T *F"]:
    """The powers 0 to `count` - 1, by doubling, in float64: without a logarithm, so that 0 and signs are fine."""
    base = widen(decay, torch.float64)
    powers = torch.ones_like(base)[None]
    while len(powers) < count:
        powers = torch.cat([powers, powers * base])
        base = base * base
    return widen(powers[:count], wide(decay))
