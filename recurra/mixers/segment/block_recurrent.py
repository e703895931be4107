"""The block-recurrent transformer: a window of attention, and a grid of states that gates let a block change."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops.attention import attention
from recurra.ops.walk import Way
from recurra.parts.heads import divide
from recurra.parts.linear import Joined, linear
from recurra.parts.segment import Open, as_kept, check_segment, through, turned
from recurra.parts.window import attend
from recurra.shapes import Float, Int, Tensor

# the states, keys and values of the segment before, and how many segments there have been, up to one
Memory = tuple[Float[Tensor, "B N D"], Float[Tensor, "B C F"], Int[Tensor, " B"]]
# with what the states give to attention, second; what is counted is as the rest
Given = tuple[Float[Tensor, "B N D"], Float[Tensor, "B N 4 H K"], Float[Tensor, "B C F"], Float[Tensor, " B"]]


class BlockRecurrent(Mixer):
    r"""Steps attend to a window and to N states; after each block the states attend to it and to themselves.

    .. math::
        y_t = W_o \bigl[\operatorname{attention}(W_q x_t;\, x_{t - C < j \le t});\;
        \operatorname{attention}(W_q' x_t;\, \hat S_{s-1})\bigr] \qquad
        \hat S = \operatorname{norm}(S) + p

    .. math::
        h = W_h \bigl[\operatorname{attention}(W_r \hat S_{s-1};\, \hat S_{s-1});\;
        \operatorname{attention}(W_r' \hat S_{s-1};\, x_{j \in s})\bigr] \qquad
        S_s = g \odot S_{s-1} + (1 - g) \odot (W_z h + b_z) \qquad
        g = \sigma(b_g)

    where j runs over segment s, and attention is a softmax in every head over keys and values that are the same for
    steps and states that look at them: those of steps are linear in x, those of states in :math:`\hat S`. The window's
    queries and keys are rotated by position. norm is a layer norm without bias, p tells states apart, and
    :math:`S_0` is learned. Hutchins et al. 2022, https://arxiv.org/abs/2203.07852, in the setting that they report as
    the best: a fixed gate, and no feed-forward net on the way of the states ("fixed:skip").

    Unlike the paper, positions are rotations and not learned biases of distances.

    State: ((S, keys and values, had), (kept, past)): the states before the open segment `(B, N, D)`, keys and values
    of the segment before it `(B, segment, 2 D)`, whether there was one `(B,)`; keys and values of the open segment's
    steps `(B, segment - 1, 2 D)`, zeros after the last, and how many they are `(B,)`; float32 (float64 if the
    parameters are) and int64.

    Args:
        width: features in and out (D).
        segment: steps in a block, and in the window (C).
        states: that are carried from block to block (N).
        heads: that attend each by itself (H); divides `width` into even parts.
        base: of the rotation: the slowest angle turns about this many times slower than the fastest.

    Raises:
        ValueError: `heads` does not divide `width` into even parts, or `segment` is less than 1.
    """

    undecayed = ("states", "identity")

    def __init__(
        self, width: int, *, segment: int = 16, states: int = 8, heads: int = 4, base: float = 10000.0
    ) -> None:
        super().__init__()
        divide(width, 2 * heads, among="twice heads")
        self.heads, self.segment, self.base = heads, check_segment(segment), base
        self.query, self.key, self.value, self.state_query = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.out = nn.Linear(2 * width, width, bias=False)
        self.own_query, self.token_query, self.own_key, self.own_value = (
            nn.Linear(width, width, bias=False) for _ in range(4)
        )
        self.states = nn.Parameter(torch.empty(states, width).normal_(0, 0.1))
        # they are added after the norm, so they are of its size
        self.identity = nn.Parameter(torch.empty(states, width).normal_())
        self.norm = nn.LayerNorm(width, bias=False)
        self.hidden = nn.Linear(2 * width, width, bias=False)
        self.candidate = nn.Linear(width, width)
        self.gate = nn.Parameter(torch.empty(width).normal_(0, 0.1))

    def initial_state(self, batch: int) -> tuple[Memory, Open]:
        """The learned states, no steps."""
        width = self.states.shape[1]
        before, kept = (self.zeros(batch, steps, 2 * width) for steps in (self.segment, self.segment - 1))
        none = torch.zeros(batch, dtype=torch.long, device=kept.device)
        return (self.states.to(kept.dtype).expand(batch, -1, -1), before, none), (kept, none)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Memory, Open], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Memory, Open]]:
        """Change the states at every full segment, then read for all steps at once."""
        kept, query = linear(x, self.key, self.value), linear(x, self.query, self.state_query)
        # the same for every segment, and what states give is needed by their segment's steps and by themselves
        four = Joined(self.own_query, self.token_query, self.own_key, self.own_value)
        give = partial(self._give, four)
        parts = self.norm, self.hidden, self.candidate, *four.called
        weights = *four.weights, self.identity, self.gate, *(weight for part in parts for weight in part.parameters())
        way = Way(partial(self._write, give), weights, (BlockRecurrent, self.heads), parts)
        ((states, earlier, had), opened), ((first, none, never), start) = state, self.initial_state(len(x))
        y, ((states, _, earlier, now), opened) = through(
            as_kept, way, self._read, query, kept,
            ((states, give(states, x.dtype), earlier, had.to(earlier.dtype)), opened),
            ((first, give(first, x.dtype), none, never.to(none.dtype)), start), clock,
        )  # fmt: skip
        return y, ((states, earlier, now.to(had.dtype)), opened)

    def _give(self, four: Joined, states: Float[Tensor, "M N D"], kind: torch.dtype) -> Float[Tensor, "M N 4 H K"]:
        """Of the states as attention sees them: queries to themselves and to steps, keys and values."""
        normal = (self.norm(states.to(kind)) + self.identity.to(kind)).to(kind)
        return four(normal).unflatten(-1, (4, self.heads, -1))

    def _read(self, memory: Given, query: Tensor, kept: Tensor, place: Tensor) -> Float[Tensor, "M Q D"]:
        """What queries find in the states and in their window."""
        _, given, earlier, had = memory
        near, far = query.unflatten(-1, (2, self.heads, -1)).unbind(-3)
        window = self._window(near, torch.cat([earlier.to(kept.dtype), kept], 1), place, had)
        *_, key, value = given.unbind(2)
        found = attend(far, key, value)
        return self.out(torch.cat([window.flatten(-2), found.flatten(-2)], -1))

    def _window(
        self,
        query: Float[Tensor, "M Q H K"],
        kept: Float[Tensor, "M L F"],
        place: Int[Tensor, "#M Q"],
        had: Float[Tensor, " M"],
    ) -> Float[Tensor, "M Q H K"]:
        """Attention to the last C steps, of this segment or the one before it, if there was one."""
        key, value = self._split(kept)
        index, own = torch.arange(key.shape[1], device=key.device)[None], place + self.segment
        first = torch.where((had > 0)[:, None], place + 1, self.segment)
        return attention(turned(query, own, self.base), turned(key, index, self.base), value, first, own)

    def _split(self, x: Float[Tensor, "M L F"]) -> tuple[Tensor, Tensor]:
        """Two of every head."""
        one, two = x.unflatten(-1, (2, self.heads, -1)).unbind(-3)
        return one, two

    def _write(
        self, give: Callable[..., Tensor], memory: Given, kept: Float[Tensor, "B C F"]
    ) -> tuple[Given, tuple[()]]:
        """The states after a segment, and what they give."""
        states, given, earlier, had = memory
        own, token, key, value = given.unbind(2)
        read = [attend(own, key, value), attend(token, *self._split(kept))]
        hidden = self.hidden(torch.cat([x.flatten(-2) for x in read], -1))
        gate = F.sigmoid(self.gate.to(states.dtype))
        states = gate * states + (1 - gate) * self.candidate(hidden).to(states.dtype)
        return (states, give(states, kept.dtype), kept.to(earlier.dtype), torch.ones_like(had)), ()
