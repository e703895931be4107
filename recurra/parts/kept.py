"""Attention to every key so far. Rows of a batch have kept different numbers of them, and a reset lets go of all."""

import torch

from recurra.clock import Clock
from recurra.parts.window import attend, happened, segments, take
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
    if clock is None and (kept == 0 or steps == 1) and bool((past == kept).all()):
        # no gaps: a sequence's beginning, or its next step, needs no mask and no rearranging
        return attend(query, keys, values, causal=kept == 0), (keys, values, counted)
    index = torch.arange(kept + steps, device=key.device)
    segment = segments(index[:kept] < past[:, None], steps, clock)
    seen = (segment[:, kept:, None] == segment[:, None]) & (index <= index[kept:, None])
    read = attend(query, keys, values, seen)
    keys, values = (_own(old, past, kept, counted, happened(past, steps, clock)) for old in (keys, values))
    return read, (keys, values, counted)


def _own(
    x: Float[Tensor, "B L H K"], past: Int[Tensor, " B"], kept: int, counted: Int[Tensor, " B"], new: Int[Tensor, " B"]
) -> Float[Tensor, "B S H K"]:
    """Each row's last `counted` keys, at its front. A row has `past` of the first `kept`, then `new` of the rest."""
    index = torch.arange(int(counted.max()), device=x.device)
    live = index < counted[:, None]
    index = index + (past + new - counted)[:, None]
    return take(x, torch.where(index < past[:, None], index, index - past[:, None] + kept), live)
