"""The associative recurrent memory transformer: memory tokens whose content a delta rule writes into a matrix."""

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops.attention import attention
from recurra.ops.walk import Way
from recurra.parts.cross import FeedForward
from recurra.parts.heads import divide
from recurra.parts.linear import Joined
from recurra.parts.norms import RMSNorm
from recurra.parts.rotary import rotary_turns, rotate_by_parts
from recurra.parts.segment import Open, check_segment, in_turn, none_open
from recurra.parts.window import attend
from recurra.shapes import Float, Tensor, wide

Memory = Float[Tensor, "_ P _"]  # A and, as its last column, z: both are read by the same keys

SMALLEST = 1e-5  # is added to what divides: an empty memory reads zero
ROLLS = 3  # of the feature map


class ARMT(Mixer):
    r"""Attention within a segment, whose summary is written into an associative memory that every later step reads.

    .. math::
        r(x) = \frac{A_{s-1}^\top \phi(W_q x)}{z_{s-1}^\top \phi(W_q x) + \epsilon} \qquad
        y_t = r(x_t) + \operatorname{attention}\bigl(\hat x_t;\, \hat x_{j \le t}\bigr) \qquad
        \hat x = \operatorname{norm}(x + r(x))

    and, when a segment is full, with N learned memory tokens e that read it,

    .. math::
        h = e + r(e) + \operatorname{attention}\bigl(\hat e;\, [\hat x_{j \in s};\, \hat e]\bigr) \qquad
        m = h + \operatorname{mlp}(\operatorname{norm}(h)) \qquad
        k = \phi(W_k m) \qquad v = W_v m

    .. math::
        \bar v = \frac{A_{s-1}^\top k}{z_{s-1}^\top k + \epsilon} \qquad
        A_s = A_{s-1} + \sum_m \sigma(w^\top m + b)\, k\, (v - \bar v)^\top \qquad
        z_s = z_{s-1} + \sum_m \operatorname{clip}_{[0, 1]}\Bigl(1 - \frac{z_{s-1}^\top k + \epsilon}{|k|^2 +
        \epsilon}\Bigr) k

    where j runs over segment s, :math:`\epsilon = 10^{-5}`, and :math:`\phi` is the products of relu([u; -u]) and its
    rolls by 1, 2 and 3. The clip, through which no gradient flows, keeps z from growing when a key is written again, so
    that what is rewritten is read once. Rodkin et al. 2024, https://arxiv.org/abs/2407.04841, as in the authors' code:
    all tokens of a segment are written at once, and W_v starts at zero. Where their keys are alike, each corrects the
    whole error by itself and together they overshoot: with 16 tokens and W_v not trained but random, A grew to 8e4 in
    8,192 steps and rounding to float32 showed in the first digit; with one, A stayed below 3 and it was 1e-5.

    Unlike the paper, the layer's norm, feed-forward net and attention serve the memory tokens inside this mixer, whose
    output is what a residual stream is to be given; positions are rotations by the place in the segment, 0 for the
    first step and for memory tokens.

    State: ([A; z], (kept, past)): the memory before the open segment, z as a last column, `(B, P, D + 1)` with
    P = 6 key_size, the turned keys and the values of its steps `(B, segment - 1, 2 D)`, zeros after the last, and how
    many they are `(B,)`; float32 (float64 if the parameters are) and int64.

    Args:
        width: features in and out (D).
        segment: steps in a segment (C).
        tokens: in the memory (N).
        key_size: features of a key before the feature map.
        heads: that attend each by itself (H); divides `width` into even parts.
        base: of the rotation: the slowest angle turns about this many times slower than the fastest.

    Raises:
        ValueError: `heads` does not divide `width` into even parts, or `segment` is less than 1.
    """

    undecayed = ("tokens",)

    def __init__(
        self,
        width: int,
        *,
        segment: int = 16,
        tokens: int = 4,
        key_size: int = 8,
        heads: int = 4,
        base: float = 10000.0,
    ) -> None:
        super().__init__()
        divide(width, 2 * heads, among="twice heads")
        self.heads, self.segment, self.base = heads, check_segment(segment), base
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.enter, self.norm = RMSNorm(width), RMSNorm(width)
        self.feed_forward = FeedForward(width)
        self.tokens = nn.Parameter(torch.empty(tokens, width).normal_())
        self.memory_query, self.memory_key = (nn.Linear(width, key_size, bias=False) for _ in range(2))
        self.memory_value, self.memory_write = nn.Linear(width, width, bias=False), nn.Linear(width, 1)
        nn.init.zeros_(self.memory_value.weight)

    def initial_state(self, batch: int) -> tuple[Memory, Open]:
        """Nothing remembered, no steps: zeros."""
        size, width = self.memory_query.weight.shape
        memory = self.zeros(batch, 2 * ROLLS * size, width + 1)
        kept = self.zeros(batch, self.segment - 1, 2 * width)
        return memory, none_open(kept)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Memory, Open], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Memory, Open]]:
        """Segment by segment steps read the memory, which reads them; then they attend to each other, all at once."""
        # what does not change from segment to segment
        three = Joined(self.query, self.key, self.value)
        query = self.memory_query(self.tokens.to(x.dtype))
        # of weights of a `Way` none is made of another
        ready = self.tokens.to(x.dtype, copy=True), products(query.to(wide(query)))
        parts = (
            self.enter,
            self.norm,
            self.out,
            self.feed_forward,
            self.memory_key,
            self.memory_value,
            self.memory_write,
            *three.called,
        )
        weights = (weight for part in parts for weight in part.parameters())
        meet = Way(partial(self._meet, three), (*three.weights, *ready, *weights), (ARMT, self.heads), parts)
        return in_turn(
            self._prepare, meet, partial(self._write, three, *ready), self._read,
            torch.cat([x, self.memory_query(x)], -1), x[..., :0], state, self.initial_state(len(x)), clock,
        )  # fmt: skip

    def _prepare(self, asked: Float[Tensor, "N Q F"], kept: Tensor, place: Tensor) -> tuple[Tensor, ...]:
        """Steps, what they ask the memory, and the turns of their queries, keys and values, the last of which are none.

        So one product turns all of a step that attention needs.
        """
        width = len(self.norm.weight)
        x, query = asked.split([width, asked.shape[-1] - width], -1)
        mapped = products(query.to(wide(query)))
        cosine, sine = (z.to(mapped) for z in rotary_turns(place, width // self.heads, self.base))
        turns = ((cosine, cosine, torch.ones_like(cosine)), (sine, sine, torch.zeros_like(sine)))
        return x, mapped, *(torch.stack(z, 2).expand(len(x), -1, -1, -1, -1) for z in turns)

    def _meet(
        self, three: Joined, memory: Memory, ready: tuple[Tensor, ...]
    ) -> tuple[tuple[Tensor, Tensor], Float[Tensor, "B Q E"]]:
        """What steps recall, and the turned queries of what they are with it; then the turned keys, and the values."""
        x, mapped, *turns = ready
        recalled = recall(memory, mapped).to(x.dtype)
        turned = rotate_by_parts(self._split(self.enter(x + recalled), three), *turns).to(x.dtype)
        query, made = turned.split([1, 2], 2)
        return (recalled, query.squeeze(2)), made.flatten(2)

    def _split(self, x: Float[Tensor, "N L D"], three: Joined) -> Float[Tensor, "N L 3 H K"]:
        """Queries, keys and values of every head."""
        return three(x).unflatten(-1, (3, self.heads, -1))

    def _read(self, own: tuple[Tensor, Tensor], made: Float[Tensor, "N C E"], place: Tensor) -> Float[Tensor, "N Q D"]:
        """What steps find in the memory and in their segment."""
        recalled, query = own
        key, value = made.unflatten(-1, (2, self.heads, -1)).unbind(2)
        read = attention(query, key, value, torch.zeros_like(place), place)
        return recalled + self.out(read.flatten(-2))

    def _write(
        self,
        three: Joined,
        tokens: Float[Tensor, "N D"],
        mapped: Float[Tensor, "N P"],
        memory: Memory,
        made: Float[Tensor, "B C E"],
    ) -> Memory:
        """The memory after a segment, which its tokens read."""
        mapped = mapped.to(memory.dtype).expand(len(memory), -1, -1)
        tokens = tokens + recall(memory, mapped).to(tokens.dtype)
        # place zero is no rotation: memory tokens are left as they are
        query, own = self._split(self.enter(tokens), three).split([1, 2], 2)
        key, value = torch.cat([made.unflatten(-1, (2, self.heads, -1)), own], 1).unbind(2)
        h = tokens + self.out(attend(query.squeeze(2), key, value).flatten(-2))
        return self._associate(memory, h + self.feed_forward(self.norm(h)))

    def _associate(self, memory: Memory, tokens: Float[Tensor, "B N D"]) -> Memory:
        """The memory with the key and value of each token, all written at once."""
        key = products(self.memory_key(tokens).to(memory.dtype))
        strength = F.sigmoid(self.memory_write(tokens).to(memory.dtype))
        value = self.memory_value(tokens).to(memory.dtype)
        # autocast would send sums through bfloat16
        with torch.autocast(key.device.type, enabled=False):
            found, total = _read(memory, key)
            known = total / (key.square().sum(-1, keepdim=True) + SMALLEST)
            news = (1 - known).clamp(0, 1).detach()
            return memory + key.mT @ torch.cat([strength * (value - found / total), news], -1)


def products(x: Float[Tensor, "*B K"]) -> Float[Tensor, "*B P"]:
    """The feature map, which is nowhere negative: relu([x; -x]) times its rolls. P = 6 K."""
    both = F.relu(torch.cat([x, -x], -1))
    return torch.cat([both * both.roll(shift, -1) for shift in range(1, ROLLS + 1)], -1)


def recall(memory: Memory, key: Float[Tensor, "N L P"]) -> Float[Tensor, "N L D"]:
    """What the memory has for keys."""
    found, total = _read(memory, key)
    return found / total


def _read(memory: Memory, key: Float[Tensor, "N L P"]) -> tuple[Float[Tensor, "N L D"], Float[Tensor, "N L 1"]]:
    """What keys read of A, and of z, which the former is to be divided by."""
    with torch.autocast(key.device.type, enabled=False):
        found, total = (key @ memory).split([memory.shape[-1] - 1, 1], -1)
        return found, total + SMALLEST
