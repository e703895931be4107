"""Temporal latent bottleneck: a fast stream within segments, which a slow stream of a few states joins."""

import torch
from torch import nn

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops.walk import Way
from recurra.parts.cross import CrossAttention, FeedForward
from recurra.parts.heads import divide
from recurra.parts.norms import RMSNorm
from recurra.parts.segment import Open, attend_open, check_segment, in_turn, none_open
from recurra.shapes import Float, Tensor


class TemporalLatentBottleneck(Mixer):
    r"""Steps attend within their segment and read a few slow states, which read each finished segment in turn.

    .. math::
        a_t = x_t + \operatorname{attention}\bigl(x_t;\, x_{j \le t}\bigr) \qquad
        b_t = a_t + \operatorname{mlp}_1(\operatorname{norm}(a_t))

    .. math::
        c_t = b_t + \operatorname{attention}\bigl(\operatorname{norm}(b_t);\, \operatorname{norm}(S_{s-1})\bigr) \qquad
        f_t = c_t + \operatorname{mlp}_2(\operatorname{norm}(c_t)) \qquad
        y_t = f_t - x_t

    .. math::
        U = S_{s-1} + \operatorname{attention}\bigl(\operatorname{norm}(S_{s-1});\, \operatorname{norm}(f_{j \in s})
        \bigr) \qquad
        S_s = U + \operatorname{mlp}_3(\operatorname{norm}(U))

    where j runs over segment s, each norm and attention has weights of its own, and :math:`S_0` is learned. Didolkar et
    al. 2022, https://arxiv.org/abs/2205.14794.

    Unlike the paper, a step of a segment sees the steps before it and not those after (the paper's fast stream reads
    a segment in both directions, which cannot stream; what the slow states read is the same). Positions are
    rotations by the place in the segment, in place of added waves. The slow states are told apart by where they start;
    the authors' code instead adds a code to them at every segment, which adds up. There is one block of each kind, and
    y is what a residual stream is to be given. Nothing holds S, a residual stream over segments, within bounds: it
    grows with their number (to 2e4 in a million untrained steps, where float32 leaves float64 by 3e-5), and a segment
    changes the norm of S, which is all that is read of it, the less the more there have been.

    State: (S, (kept, past)): the slow states before the open segment `(B, N, D)`, keys, values and f of its steps
    `(B, segment - 1, 3 D)`, zeros after the last, and how many they are `(B,)`; float32 (float64 if the parameters
    are) and int64.

    Args:
        width: features in and out (D).
        segment: steps in a segment (C).
        states: slow ones (N).
        heads: that attend each by itself (H); divides `width` into even parts.
        base: of the rotation: the slowest angle turns about this many times slower than the fastest.

    Raises:
        ValueError: `heads` does not divide `width` into even parts, or `segment` is less than 1.
    """

    undecayed = ("states",)

    def __init__(
        self, width: int, *, segment: int = 16, states: int = 8, heads: int = 4, base: float = 10000.0
    ) -> None:
        super().__init__()
        divide(width, 2 * heads, among="twice heads")
        self.heads, self.segment, self.base = heads, check_segment(segment), base
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.states = nn.Parameter(torch.empty(states, width).normal_())
        self.down, self.up = CrossAttention(width, heads), CrossAttention(width, heads)
        self.norms = nn.ModuleList(RMSNorm(width) for _ in range(7))
        self.feed_forward = nn.ModuleList(FeedForward(width) for _ in range(3))

    def initial_state(self, batch: int) -> tuple[Float[Tensor, "B N D"], Open]:
        """The learned slow states, no steps."""
        kept = self.zeros(batch, self.segment - 1, 3 * self.states.shape[1])
        states = self.states.to(kept.dtype).expand(batch, -1, -1)
        return states, none_open(kept)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Tensor, Open], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Tensor, Open]]:
        """All steps by themselves, then segment by segment: steps read the slow states, which read them."""
        query, kept = torch.cat([self.query(x), x], -1), torch.cat([self.key(x), self.value(x)], -1)
        start = self.initial_state(len(x))
        parts = self.down.key, self.down.value, self.down.out, self.up, *self.norms[2:], *self.feed_forward[1:]
        weights = tuple(weight for part in parts for weight in part.parameters())
        meet = Way(self._meet, weights, (TemporalLatentBottleneck, self.heads), parts)
        return in_turn(self._prepare, meet, self._write, _found, query, kept, state, start, clock)

    def _prepare(
        self, asked: Float[Tensor, "M Q F"], kept: Float[Tensor, "M C F"], place: Tensor
    ) -> tuple[Tensor, ...]:
        """What the fast stream adds to each x, which is `asked` after its query, before it knows of the slow states.

        Then x with that, and the query to the slow states.
        """
        query, x = asked.chunk(2, -1)
        query, key, value = (z.unflatten(-1, (self.heads, -1)) for z in (query, *kept.chunk(2, -1)))
        change = self.out(attend_open(query, key, value, place, self.base).flatten(-2))
        change = change + self.feed_forward[0](self.norms[0](x + change))
        fast = x + change
        return change, fast, self.down.query(self.norms[1](fast))

    def _meet(self, states: Float[Tensor, "B N D"], ready: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """What the fast stream adds to each x, and the two together."""
        change, fast, query = ready
        read = self.down.answer(query, self.norms[2](states).to(fast.dtype))
        joined = fast + read
        more = self.feed_forward[1](self.norms[3](joined))
        return change + read + more, joined + more

    def _write(self, states: Float[Tensor, "B N D"], fast: Float[Tensor, "B C D"]) -> Float[Tensor, "B N D"]:
        """The slow states after a segment."""
        read = self.up(self.norms[4](states).to(fast.dtype), self.norms[5](fast))
        states = states + read.to(states.dtype)
        return states + self.feed_forward[2](self.norms[6](states).to(fast.dtype)).to(states.dtype)


def _found(change: Tensor, fast: Tensor, place: Tensor) -> Tensor:
    """The output is what was added."""
    return change
