"""Attention to every key so far. Rows of a batch have kept different numbers of them, and a reset lets go of all."""

import torch

from recurra.clock import Clock
from recurra.ops.attention import attention, compiled
from recurra.parts.window import attend, happened, segments, spans, take
from recurra.shapes import Float, Int, Tensor

Kept = tuple[Float[Tensor, "B S H K"], Float[Tensor, "B S H V"], Int[Tensor, " B"]]


def attend_kept(
    query: Float[Tensor, "B T H K"],
    key: Float[Tensor, "B T H K"],
    value: Float[Tensor, "B T H V"],
    state: Kept,
    counted: Int[Tensor, " B"],
    clock: Clock | None,
) -> tuple[Float[Tensor, "B T H V"], tuple[Float[Tensor, "B L H K"], Float[Tensor, "B L H V"], Int[Tensor, " B"]]]:
    """Causal softmax attention to all keys of the same sequence, kept or new; the new ones are kept too.

    Args:
        query: of every new step.
        key: of every new step.
        value: of every new step.
        state: keys and values so far, each row's own first and zeros after them, and how many are a row's own.
        counted: how many will be, after the last step.
        clock: when steps happen.
    """
    keys, values, past = state
    kept, steps = keys.shape[1], key.shape[1]
    keys, values = (torch.cat([old, new.to(old.dtype)], 1) for old, new in ((keys, key), (values, value)))
    gaps = kept > 0 and not bool((past == kept).all())
    read = _attend(query, keys, values, past, gaps, clock)
    if clock is None and not gaps:
        return read, (keys, values, counted)
    keys, values = (_own(old, past, kept, counted, happened(past, steps, clock)) for old in (keys, values))
    return read, (keys, values, counted)


def _attend(
    query: Float[Tensor, "B T H K"],
    keys: Float[Tensor, "B L H K"],
    values: Float[Tensor, "B L H V"],
    past: Int[Tensor, " B"],
    gaps: bool,
    clock: Clock | None,
) -> Float[Tensor, "B T H V"]:
    """What queries find in the keys of their sequence up to their own. With gaps, not all rows have kept as many."""
    steps, length = query.shape[1], keys.shape[1]
    kept, index = length - steps, torch.arange(length, device=keys.device)
    kernel = not gaps and compiled(query, keys, values)
    if not kernel and not gaps and clock is None and (kept == 0 or steps == 1):
        # a sequence's beginning, or its next step, needs no mask
        return attend(query, keys, values, causal=kept == 0)
    segment = segments(index[:kept] < past[:, None], steps, clock)
    if kernel:
        return attention(query, keys, values, *spans(segment, steps, length))
    seen = (segment[:, kept:, None] == segment[:, None]) & (index <= index[kept:, None])
    return attend(query, keys, values, seen)


def _own(
    x: Float[Tensor, "B L H K"], past: Int[Tensor, " B"], kept: int, counted: Int[Tensor, " B"], new: Int[Tensor, " B"]
) -> Float[Tensor, "B S H K"]:
    """Each row's last `counted` keys, at its front. A row has `past` of the first `kept`, then `new` of the rest."""
    index = torch.arange(int(counted.max()), device=x.device)
    live = index < counted[:, None]
    index = index + (past + new - counted)[:, None]
    return take(x, torch.where(index < past[:, None], index, index - past[:, None] + kept), live)
