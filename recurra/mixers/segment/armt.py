"""The associative recurrent memory transformer: memory tokens whose content a delta rule writes into a matrix."""

import torch
from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.parts.heads import divide
from recurra.parts.norms import RMSNorm
from recurra.parts.segment import FeedForward, Open, as_kept, attend_open, check_segment, none_open, through, turned
from recurra.parts.window import attend
from recurra.shapes import Float, Tensor

Memory = tuple[Float[Tensor, "B P D"], Float[Tensor, "B P"]]

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

    State: ((A, z), (kept, past)): the memory before the open segment `(B, P, D)` and `(B, P)`, P = 6 key_size, the
    inputs of its steps `(B, segment - 1, D)`, zeros after the last, and how many they are `(B,)`; float32 (float64 if
    the parameters are) and int64.

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
        memory = self.zeros(batch, 2 * ROLLS * size, width), self.zeros(batch, 2 * ROLLS * size)
        kept = self.zeros(batch, self.segment - 1, width)
        return memory, none_open(kept)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Memory, Open], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Memory, Open]]:
        """Let the memory read every full segment, then read for all steps at once."""
        return through(as_kept, self._write, self._read, x, x, state, self.initial_state(len(x)), clock)

    def _read(self, memory: Memory, x: Tensor, kept: Tensor, place: Tensor) -> Float[Tensor, "N Q D"]:
        """What steps find in the memory and in their segment."""
        recalled = self._recall(memory, x)
        key, value = self._keys(self._enter(memory, kept))
        query = self.query(self.enter(x + recalled)).unflatten(-1, (self.heads, -1))
        read = attend_open(query, key, value, place, self.base)
        return recalled + self.out(read.flatten(-2))

    def _enter(self, memory: Memory, x: Float[Tensor, "N L D"]) -> Float[Tensor, "N L D"]:
        """What attention sees: the input and what it recalls, normalised."""
        return self.enter(x + self._recall(memory, x))

    def _recall(self, memory: Memory, x: Float[Tensor, "N L D"]) -> Float[Tensor, "N L D"]:
        """What the memory has for each."""
        matrix, _ = memory
        return _read(memory, products(self.memory_query(x).to(matrix.dtype))).to(x.dtype)

    def _keys(self, x: Float[Tensor, "N L D"]) -> tuple[Tensor, Tensor]:
        """Keys and values of every head."""
        return self.key(x).unflatten(-1, (self.heads, -1)), self.value(x).unflatten(-1, (self.heads, -1))

    def _write(self, memory: Memory, x: Float[Tensor, "B C D"]) -> Memory:
        """The memory after a segment."""
        tokens = self.tokens.to(x.dtype).expand(len(x), -1, -1)
        tokens = tokens + self._recall(memory, tokens)
        normal = self.enter(tokens)
        key, value = self._keys(self._enter(memory, x))
        own, own_value = self._keys(normal)
        # place zero is no rotation: memory tokens are left as they are
        key = turned(key, torch.arange(key.shape[1], device=x.device)[None], self.base)
        query = self.query(normal).unflatten(-1, (self.heads, -1))
        read = attend(query, torch.cat([key, own], 1), torch.cat([value, own_value], 1))
        h = tokens + self.out(read.flatten(-2))
        return self._associate(memory, h + self.feed_forward(self.norm(h)))

    def _associate(self, memory: Memory, tokens: Float[Tensor, "B N D"]) -> Memory:
        """The memory with the key and value of each token, all written at once."""
        matrix, total = memory
        key = products(self.memory_key(tokens).to(matrix.dtype))
        strength = F.sigmoid(self.memory_write(tokens).to(matrix.dtype))
        change = self.memory_value(tokens).to(matrix.dtype) - _read(memory, key)
        # autocast would send sums through bfloat16
        with torch.autocast(key.device.type, enabled=False):
            known = (key @ total[..., None] + SMALLEST) / (key.square().sum(-1, keepdim=True) + SMALLEST)
            news = (1 - known).clamp(0, 1).detach()
            return matrix + key.mT @ (strength * change), total + (news * key).sum(1)


def products(x: Float[Tensor, "*B K"]) -> Float[Tensor, "*B P"]:
    """The feature map, which is nowhere negative: relu([x; -x]) times its rolls. P = 6 K."""
    both = F.relu(torch.cat([x, -x], -1))
    return torch.cat([both * both.roll(shift, -1) for shift in range(1, ROLLS + 1)], -1)


def _read(memory: Memory, key: Float[Tensor, "N L P"]) -> Float[Tensor, "N L D"]:
    """What the memory has for keys."""
    matrix, total = memory
    with torch.autocast(key.device.type, enabled=False):
        return key @ matrix / (key @ total[..., None] + SMALLEST)
