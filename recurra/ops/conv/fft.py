"""`ShortConv` with many taps, which makes it a long one: by Fourier transforms, T log T.

A few steps are a product with a band matrix of the taps, which costs less and lets nothing of later steps into earlier
ones, not even a rounding. A convolution knows no resets: time is cut wherever some row begins, and the pieces hand
over their past inputs like any other pieces.
"""

from typing import Any

import torch
from torch.autograd import Function
from torch.nn import functional as F

from recurra.ops.conv import ShortConv
from recurra.ops.conv.chunk import finish
from recurra.ops.once import once_differentiable
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
        # where a sequence begins, taps that reach back before it have nothing to say
        begins = not seen.requires_grad and not bool(seen.any())
        needless = max(past + 1 - (stop - start), 0) if begins else 0
        run = _product if stop - start <= FEW else _Transform.apply
        reads.append(run(full[:, needless:], weight[:, needless:]))
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


class _Transform(Function):
    """By transforms over the last axis, where they are fastest, of real numbers in both directions.

    Products that wrap around fall on the places of past inputs, for which no one asks. Autograd's own way back from a
    transform of real numbers is one of complex numbers, of twice as many.
    """

    @staticmethod
    def forward(ctx: Any, full: Tensor, weight: Tensor) -> Tensor:
        length, taps = full.shape[1], weight.shape[1]
        size = _size(length)
        inputs, filters = torch.fft.rfft(full.mT, size), torch.fft.rfft(weight, size)
        ctx.save_for_backward(inputs, filters)
        ctx.sizes = size, length, taps
        return torch.fft.irfft(inputs * filters.conj(), size)[..., : length - taps + 1].mT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (inputs, filters), (size, length, taps) = ctx.saved_tensors, ctx.sizes
        grad = torch.fft.rfft(grad_outputs[0].mT, size)
        full = weight = None
        if ctx.needs_input_grad[0]:
            full = torch.fft.irfft(grad * filters, size)[..., :length].mT
        if ctx.needs_input_grad[1]:
            weight = torch.fft.irfft((inputs * grad.conj()).sum(0), size)[..., :taps]
        return full, weight


def _size(length: int) -> int:
    """The least product of twos and at most one three or five that holds so many."""
    return min(factor << max(-(-length // factor) - 1, 0).bit_length() for factor in (1, 3, 5))
