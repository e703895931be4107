"""`ShortConv` over all steps at once: the past and the inputs end to end, one multiply-add a tap.

The taps are few, so their sum costs as many passes over memory as there are taps, needs no transposed copy, and an
input before a reset is masked where it is read, which a library's convolution cannot do.
"""

import torch
from torch.nn import functional as F

from recurra.ops.conv import ShortConv
from recurra.ops.steps import gaps
from recurra.shapes import Bool, Float, Int, Tensor


def declines(record: ShortConv, state: Tensor) -> str | None:
    """A single step is the loop's; and the steps that did not happen must be at each row's end."""
    if record.x.shape[1] == 1:
        return "a single step"
    return gaps(record.valid)


def scan(record: ShortConv, state: Float[Tensor, "B J D"]) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B J D"]]:
    x, weight, bias, silu, reset, valid = record
    steps, past = x.shape[1], state.shape[1]
    full = torch.cat([state, x], 1)
    # which sequence of its row every input is of; the past is of the row's first
    segment = None if reset is None else F.pad(reset.cumsum(1), (past, 0))
    read = torch.zeros_like(x) if bias is None else bias.expand_as(x)
    for lag, tap in zip(range(past, -1, -1), weight.unbind(1), strict=True):
        seen = full[:, past - lag : past - lag + steps]
        if segment is not None:
            other = segment[:, past - lag : past - lag + steps] != segment[:, past:]
            seen = seen.masked_fill(other[..., None], 0)
        read = torch.addcmul(read, seen, tap)
    return finish(F.silu(read) if silu else read, full, segment, valid)


def finish(
    read: Float[Tensor, "B T D"],
    full: Float[Tensor, "B L D"],
    segment: Int[Tensor, "B L"] | None,
    valid: Bool[Tensor, "B T"] | None,
) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B J D"]]:
    """The read where steps happened, and each row's last inputs, of past and new ones and the sequence each is of."""
    steps = read.shape[1]
    past = full.shape[1] - steps
    if valid is None:
        return read, _same(full[:, steps:], None if segment is None else segment[:, steps:])
    # each row's last inputs lie where its own steps end
    index = valid.sum(1)[:, None] + torch.arange(past, device=full.device)
    new = full.gather(1, index[..., None].expand(-1, -1, full.shape[2]))
    return read.masked_fill(~valid[..., None], 0), _same(new, None if segment is None else segment.gather(1, index))


def _same(new: Float[Tensor, "B J D"], segment: Int[Tensor, "B J"] | None) -> Float[Tensor, "B J D"]:
    """The inputs with those of an earlier sequence than the last input's as zero."""
    return new if segment is None else new.masked_fill((segment != segment[:, -1:])[..., None], 0)
