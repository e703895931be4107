"""The recurrent memory transformer: a few memory tokens that are handed from segment to segment."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops.attention import attention
from recurra.ops.walk import Way
from recurra.parts.cross import FeedForward
from recurra.parts.heads import divide
from recurra.parts.linear import Joined, linear
from recurra.parts.lying import Lying
from recurra.parts.norms import RMSNorm
from recurra.parts.segment import Open, at_once, check_segment, none_open, through, turned, whole
from recurra.parts.window import attend
from recurra.shapes import Float, Tensor


class RMT(Mixer):
    r"""Attention within a segment and to N memory tokens, which read each finished segment and go on to the next.

    .. math::
        y_t = W_o \operatorname{attention}\bigl(x_t;\, [\hat m_{s-1};\, x_{j \le t}]\bigr) \qquad
        h = m_{s-1} + W_o \operatorname{attention}\bigl(\hat m_{s-1};\, [\hat m_{s-1};\, x_{j \in s};\,
        \hat m_{s-1}]\bigr)

    .. math::
        m_s = \operatorname{norm}\bigl(h + \operatorname{mlp}(\operatorname{norm}(h))\bigr) \qquad
        \hat m = \operatorname{norm}(m)

    where j runs over segment s, attention is a softmax over keys of every head, scaled by :math:`1/\sqrt K`, and
    positions are rotations by the place in the segment, 0 for the first step and for memory tokens. :math:`m_0` is
    learned. Bulatov et al. 2022, https://arxiv.org/abs/2207.06881, its decoder: tokens read at the front, written at
    the back.

    Unlike the paper, the memory belongs to each layer and not to the whole network, so that the layer is recurrent by
    itself, and what a memory token has in it passes this layer's own feed-forward net. The written tokens are computed
    when the segment is full, which is the same: nothing before sees them.

    State: (m, (kept, past)): the memory before the open segment `(B, N, D)`, keys and values of its steps
    `(B, segment - 1, 2 D)`, zeros after the last, and how many they are `(B,)`; float32 (float64 if the parameters
    are) and int64.

    Args:
        width: features in and out (D).
        segment: steps in a segment (C).
        tokens: in the memory (N).
        heads: that attend each by itself (H); divides `width` into even parts.
        base: of the rotation: the slowest angle turns about this many times slower than the fastest.

    Raises:
        ValueError: `heads` does not divide `width` into even parts, or `segment` is less than 1.
    """

    undecayed = ("memory",)

    def __init__(
        self, width: int, *, segment: int = 16, tokens: int = 4, heads: int = 4, base: float = 10000.0
    ) -> None:
        super().__init__()
        divide(width, 2 * heads, among="twice heads")
        self.heads, self.segment, self.base = heads, check_segment(segment), base
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.memory = nn.Parameter(torch.empty(tokens, width).normal_())
        self.enter, self.norm, self.leave = (RMSNorm(width) for _ in range(3))
        self.feed_forward = FeedForward(width)

    def initial_state(self, batch: int) -> tuple[Float[Tensor, "B N D"], Open]:
        """The learned memory, no steps."""
        kept = self.zeros(batch, self.segment - 1, 2 * self.memory.shape[1])
        memory = self.memory.to(kept.dtype).expand(batch, -1, -1)
        return memory, none_open(kept)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Tensor, Open], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Tensor, Open]]:
        """Let the memory read every full segment, then read for all steps at once."""
        # the same for every segment, and what a memory gives is needed by its segment's steps and by itself
        three = Joined(self.query, self.key, self.value)
        parts = self.enter, self.norm, self.leave, self.out, self.feed_forward, *three.called
        weights = *three.weights, *(weight for part in parts for weight in part.parameters())
        found = self._at_once(x, state, clock, three, weights, parts) if whole(x, state[1]) else None
        if found is not None:
            return found
        query, kept = self.query(x), linear(x, self.key, self.value)
        give = partial(self._give, three)
        (memory, opened), (first, none) = state, self.initial_state(len(x))
        way = Way(partial(self._write, give), weights, (RMT, self.heads), parts)
        y, ((memory, _), opened) = through(
            self._split, way, self._read, query, kept,
            ((memory, give(memory, x.dtype)), opened), ((first, give(first, x.dtype)), none), clock,
        )  # fmt: skip
        return y, (memory, opened)

    def _at_once(
        self,
        x: Float[Tensor, "B T D"],
        state: tuple[Tensor, Open],
        clock: Clock | None,
        three: Joined,
        weights: tuple[Tensor, ...],
        parts: tuple[nn.Module, ...],
    ) -> tuple[Float[Tensor, "B T D"], tuple[Tensor, Open]] | None:
        """The same, segment by segment, in C, if that takes it."""
        first, (room, _) = self.initial_state(len(x))
        lying = Lying.of(x, self.segment, x.shape[-1] // self.heads, self.base)
        way = Way(partial(self._segment, three, lying), (*weights, *lying), (RMT, self.heads, "whole"), parts, True)
        found = at_once(way, x, state[0], room, first, clock)
        if found is None:
            return None
        y, memory, (kept, past) = found
        room = linear(kept, self.key, self.value).to(room.dtype) if bool(past.any()) else room
        return y, (memory, (room, past))

    def _give(self, three: Joined, memory: Float[Tensor, "N M D"], kind: torch.dtype) -> Float[Tensor, "N M 3 H K"]:
        """Queries, keys and values of memory tokens."""
        return three(self.enter(memory).to(kind)).unflatten(-1, (3, self.heads, -1))

    def _read(
        self, memory: tuple[Tensor, Tensor], query: Tensor, ready: tuple[Tensor, Tensor], place: Tensor
    ) -> Float[Tensor, "N Q D"]:
        """What queries find in the memory and in their segment."""
        key, value = ready
        _, own, read = memory[1].unbind(2)
        query = turned(query.unflatten(-1, (self.heads, -1)), place, self.base)
        last = place + own.shape[1]
        read = attention(query, torch.cat([own, key], 1), torch.cat([read, value], 1), torch.zeros_like(last), last)
        return self.out(read.flatten(-2))

    def _split(self, query: Tensor, kept: Float[Tensor, "N C F"], place: Tensor) -> tuple[Tensor, Tensor]:
        """Turned keys, and values, of every head."""
        key, value = kept.unflatten(-1, (2, self.heads, -1)).unbind(-3)
        return turned(key, torch.arange(key.shape[1], device=key.device)[None], self.base), value

    def _segment(
        self, three: Joined, lying: Lying, memory: Float[Tensor, "B N D"], ready: tuple[Float[Tensor, "B C D"]]
    ) -> tuple[Float[Tensor, "B N D"], tuple[Float[Tensor, "B C D"]]]:
        """The memory after a whole segment, and what steps found."""
        (x,), given = ready, self._give(three, memory, memory.dtype)
        query, key, value = three(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 4, 1).contiguous().unbind(0)
        query, key = lying.turned(query), lying.turned(key)
        _, own, read = given.unbind(2)
        y = self.out(lying.attend(query, key, value, own, read).flatten(-2))
        return self._after(memory, given, *(z.permute(0, 3, 1, 2) for z in (key, value))), (y,)

    def _write(
        self, give: Callable[..., Tensor], memory: tuple[Tensor, Tensor], ready: tuple[Tensor, Tensor]
    ) -> tuple[tuple[Tensor, Tensor], tuple[()]]:
        """The memory after a segment, and what it gives."""
        after = self._after(*memory, *ready)
        return (after, give(after, ready[0].dtype)), ()

    def _after(
        self,
        memory: Float[Tensor, "B N D"],
        given: Float[Tensor, "B N 3 H K"],
        key: Float[Tensor, "B C H K"],
        value: Float[Tensor, "B C H K"],
    ) -> Float[Tensor, "B N D"]:
        """The memory after a segment."""
        query, own, read = given.unbind(2)
        read = attend(query, torch.cat([own, key, own], 1), torch.cat([read, value, read], 1))
        h = memory + self.out(read.flatten(-2)).to(memory.dtype)
        return self.leave(h + self.feed_forward(self.norm(h).to(key.dtype)).to(memory.dtype))
