"""`ShortConv` with many taps, which makes it a long one: by Fourier transforms, T log T.

A few steps are a product with a band matrix of the taps, which costs less and lets nothing of later steps into earlier
ones, not even a rounding. A convolution knows no resets: time is cut wherever some row begins, and the pieces hand
over their past inputs like any other pieces.
"""

import torch
from torch.nn import functional as F

from recurra.ops.conv import ShortConv
from recurra.ops.conv.chunk import finish
from recurra.ops.steps import gaps, restart
from recurra.shapes import Float, Tensor

FEW = 64  # steps, and taps, below which a transform is not worth it


def declines(record: ShortConv, state: Tensor) -> str | None:
    """Few taps, a single step; and the steps that did not happen must be at each row's end."""
    if record.weight.shape[1] < FEW:
        return f"fewer than {FEW} taps cost less one by one"
    if record.x.shape[1] == 1:
        return "a single step"
    return gaps(record.valid)


def scan(record: ShortConv, state: Float[Tensor, "B J D"]) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B J D"]]:
    x, weight, bias, silu, reset, valid = record
    past = weight.shape[1] - 1
    starts = [0] if reset is None else sorted({0, *reset.any(0).nonzero().flatten().tolist()})
    reads, seen = [], state
    for start, stop in zip(starts, [*starts[1:], x.shape[1]], strict=True):
        seen = seen if reset is None else restart(reset[:, start], seen)
        full = torch.cat([seen, x[:, start:stop]], 1)
        reads.append((_product if stop - start <= FEW else _transform)(full, weight))
        seen = full[:, full.shape[1] - past :]
    read = torch.cat(reads, 1)
    segment = None if reset is None else F.pad(reset.cumsum(1), (past, 0))
    read = read if bias is None else read + bias
    return finish(F.silu(read) if silu else read, torch.cat([state, x], 1), segment, valid)


def _product(full: Float[Tensor, "B L D"], weight: Float[Tensor, "D J"]) -> Float[Tensor, "B T D"]:
    """Row t of the matrix is t zeros, the taps, and zeros: windows over the taps between zeros, from last to first."""
    length, taps = full.shape[1], weight.shape[1]
    rest = length - taps
    band = F.pad(weight, (rest, rest)).unfold(1, length, 1).flip(1)
    return (band @ full.permute(2, 1, 0)).permute(2, 1, 0)


def _transform(full: Float[Tensor, "B L D"], weight: Float[Tensor, "D J"]) -> Float[Tensor, "B T D"]:
    """What wraps around falls on the past inputs' own outputs, which no one asks for."""
    length, taps = full.shape[1], weight.shape[1]
    size = 1 << (length - 1).bit_length()
    spectrum = torch.fft.rfft(full, size, 1) * torch.fft.rfft(weight.flip(1).t(), size, 0)
    return torch.fft.irfft(spectrum, size, 1)[:, taps - 1 : length]
