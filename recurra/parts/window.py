"""What the attentions over kept keys and values share: who may see whom, and which of the keys stay.

A kept row is its keys with gaps at one end: rows of one batch have seen different numbers of steps. A segment number
for every key says all there is to say about resets and gaps: a query sees the keys of its own segment only.
"""

from typing import Any

import torch
from torch.autograd import Function
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.ops.attention import attention, compiled
from recurra.parts.rotary import rotary_turns, rotate
from recurra.shapes import Bool, Float, Int, Tensor

# keys and values that are kept, oldest first and zeros before a sequence's own, and how many steps it has had
Near = tuple[Float[Tensor, "B R H K"], Float[Tensor, "B R H V"], Int[Tensor, " B"]]


def rotary(
    query: Float[Tensor, "B T H K"], key: Float[Tensor, "B T H K"], positions: Int[Tensor, "B T"], base: float
) -> tuple[Float[Tensor, "B T H K"], Float[Tensor, "B T H K"]]:
    r"""Queries and keys turned by position :math:`\times\; \text{base}^{-2i/K}`, in their own types.

    Su et al. 2021, https://arxiv.org/abs/2104.09864.
    """
    cosine, sine = rotary_turns(positions, query.shape[-1], base)
    return rotate(query, cosine, sine).to(query.dtype), rotate(key, cosine, sine).to(key.dtype)


def segments(live: Bool[Tensor, "B S"], steps: int, clock: Clock | None) -> Int[Tensor, "B L"]:
    """The sequence that each kept key and then each new step belongs to: 0 goes on, -1 is a gap."""
    kept = live.long() - 1
    if clock is None or clock.reset is None:
        return F.pad(kept, (0, steps))
    return torch.cat([kept, clock.reset.cumsum(1)], 1)


def happened(like: Int[Tensor, " B"], steps: int, clock: Clock | None) -> Int[Tensor, " B"]:
    """How many of the new steps each row has."""
    return torch.full_like(like, steps) if clock is None or clock.valid is None else clock.counts


def take(x: Float[Tensor, "B L H K"], index: Int[Tensor, "B S"], live: Bool[Tensor, "B S"]) -> Float[Tensor, "B S H K"]:
    """The keys (or values) at `index` along time; zeros where not `live`."""
    index = index.masked_fill(~live, 0)[..., None, None].expand(-1, -1, *x.shape[2:])
    return x.gather(1, index).masked_fill(~live[..., None, None], 0)


def slide(
    key: Float[Tensor, "B T H K"],
    value: Float[Tensor, "B T H V"],
    state: Near,
    counted: Int[Tensor, " B"],
    clock: Clock | None,
) -> tuple[Float[Tensor, "B L H K"], Float[Tensor, "B L H V"], Int[Tensor, "B L"], Near]:
    """Keys and values that are kept and then the new ones, the sequence each belongs to, and what is kept after them.

    Args:
        key: of every new step.
        value: of every new step.
        state: before them; its R keys are all that the next step may see besides its own.
        counted: how many steps the sequence has had after them.
        clock: when steps happen.
    """
    keys, values, past = state
    kept, steps = keys.shape[1], key.shape[1]
    keys, values = (torch.cat([old, new.to(old.dtype)], 1) for old, new in ((keys, key), (values, value)))
    index = torch.arange(kept, device=key.device)
    sequence = segments(index >= kept - past[:, None], steps, clock)
    if clock is None:
        # a view would keep all that it is a view of
        return keys, values, sequence, (keys[:, steps:].clone(), values[:, steps:].clone(), counted)
    # the last that happened, without those of sequences that ended
    live, index = index >= kept - counted[:, None], index + happened(past, steps, clock)[:, None]
    return keys, values, sequence, (take(keys, index, live), take(values, index, live), counted)


def attend(
    query: Float[Tensor, "B T H K"],
    key: Float[Tensor, "B L H K"],
    value: Float[Tensor, "B L H V"],
    seen: Bool[Tensor, "#B T L"] | Float[Tensor, "#B T L"] | None = None,
    causal: bool = False,
) -> Float[Tensor, "B T H V"]:
    """Softmax attention of every head, in the query's type. `seen` may be what is added to scores. Costs T L K."""
    if seen is None and not causal and compiled(query, key, value):
        last = torch.full_like(query[:1, :, 0, 0], key.shape[1] - 1, dtype=torch.long)
        return attention(query, key, value, torch.zeros_like(last), last)
    query, key, value = (x.to(query.dtype).transpose(1, 2) for x in (query, key, value))
    mask = None if seen is None else seen[:, None]
    return F.scaled_dot_product_attention(query, key, value, mask, is_causal=causal).transpose(1, 2)


def by_age(bias: Float[Tensor, " N"], place: Int[Tensor, "*B Q"]) -> Float[Tensor, "*B Q N"]:
    """What is added to the scores of N steps in a row at these places: the bias of their age, -inf of those to come."""
    age = place[..., None] - torch.arange(len(bias), device=place.device)
    return bias[age.clamp(min=0)].masked_fill(age < 0, -torch.inf)


def attend_near(
    query: Float[Tensor, "B T H K"],
    key: Float[Tensor, "B L H K"],
    value: Float[Tensor, "B L H V"],
    segment: Int[Tensor, "B L"],
    window: int,
) -> Float[Tensor, "B T H V"]:
    """Attention of every query to its own key and the `window` - 1 before it, if of the same segment.

    The first `window` - 1 keys (L = T + window - 1) are from before the first query. Nothing is T by T: the cost is
    T window K.
    """
    batch, steps = query.shape[:2]
    if compiled(query, key, value):
        return attention(query, key, value, *spans(segment, steps, window))
    query, keys, values, seen = blocks(query, key, value, segment, window)
    read = attend(query, keys, values, seen)
    return read.unflatten(0, (batch, -1)).flatten(1, 2)[:, :steps]


def spans(segment: Int[Tensor, "B L"], steps: int, window: int) -> tuple[Int[Tensor, "B T"], Int[Tensor, "1 T"]]:
    """The first key that each of the last `steps` sees, of its own segment and the window, and its own."""
    index = torch.arange(segment.shape[1], device=segment.device)
    begun = torch.where(segment[:, 1:] != segment[:, :-1], index[1:], 0)
    begun = F.pad(begun, (1, 0)).cummax(1).values[:, -steps:]
    own = index[None, -steps:]
    return torch.maximum(begun, own - window + 1), own


def blocks(
    query: Float[Tensor, "B T H J"],
    key: Float[Tensor, "B L H K"],
    value: Float[Tensor, "B L G V"],
    segment: Int[Tensor, "B L"],
    window: int,
) -> tuple[
    Float[Tensor, "N C H J"],
    Float[Tensor, "N R H K"],
    Float[Tensor, "N R G V"],
    Bool[Tensor, "N C R"],
]:
    """Time in blocks as long as the window, of which each looks at two: queries, keys, values, and which are seen.

    Seen is what is of the same segment and at most `window` - 1 steps old. The last block is padded. N counts blocks,
    a row's own side by side. Few steps are one block, which looks at all keys.
    """
    steps, kept = query.shape[1], window - 1
    size = min(window, steps)
    count = -(-steps // size)
    if count > 1:
        pad = count * size - steps
        # with one more before the oldest, keys are in blocks too
        query, key, value = (F.pad(x, (0, 0, 0, 0, front, pad)) for x, front in ((query, 0), (key, 1), (value, 1)))
        # what pads sees itself, as a row of nothing but -inf would make NaN of a softmax's gradient
        segment, kept = F.pad(segment, (1, pad), value=-2), window
        key, value, near = (beside(x.unflatten(1, (-1, size)), 1).flatten(0, 1) for x in (key, value, segment))
        query = query.unflatten(1, (count, size)).flatten(0, 1)
    else:
        near = segment
    age = torch.arange(size, device=query.device)[:, None] + kept - torch.arange(size + kept, device=query.device)
    seen = (near[:, kept:, None] == near[:, None]) & (age >= 0) & (age < window)
    return query, key, value, seen


def beside(x: Tensor, before: int) -> Tensor:
    """Every block of `(B, S, C, ...)` but the first few, after those before it: `(B, S - before, (before + 1) C, ...)`.

    Args:
        x: blocks in order.
        before: how many come before each.
    """
    beside = _Beside.apply(x, before)
    assert isinstance(beside, Tensor)
    return beside


class _Beside(Function):
    """Autograd's own way back would fill an array with zeros for each place, to add what is in a part of it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, before: int) -> Tensor:
        return torch.cat([x[:, place : x.shape[1] - before + place] for place in range(before + 1)], 2)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.before = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        grad, *others = grad_outputs[0].chunk(ctx.before + 1, 2)
        for place, part in enumerate(others, 1):
            grad = torch.cat([grad[:, :place], grad[:, place:] + part[:, :-1], part[:, -1:]], 1)
        return grad, None
