"""Transformer-XL: attention within a segment and to the segments before; old ones may be compressed, not let go."""

import torch
from torch import nn
from torch.nn import functional as F

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.parts.heads import divide
from recurra.parts.segment import Open, check_segment, linear, through
from recurra.shapes import Float, Int, Tensor, wide

# inputs, the latest last, and how many of them there are: of the steps before, and of what was compressed
Memory = tuple[Float[Tensor, "B M D"], Int[Tensor, " B"], Float[Tensor, "B Z D"], Int[Tensor, " B"]]

# with the keys and values of those that were not compressed
Given = tuple[Float[Tensor, "B M F"], Memory]

SLOWEST = 10_000.0  # the wave of positions that is this many times slower than the fastest


class TransformerXL(Mixer):
    r"""Attention to the present segment and to a memory of steps before it, by how far away they are.

    .. math::
        y_t = W_o \sum_j \operatorname{softmax}_j\bigl((s_{tj}) / \sqrt{K}\bigr)\, W_v \tilde h_j \qquad
        s_{tj} = (W_q x_t + u)^\top W_k \tilde h_j + (W_q x_t + v)^\top W_r R_{t - j} \qquad
        \tilde h = [z;\, m;\, x_{j \le t}]

    for every head, with m the inputs of the last `memory` steps before the segment, R the sine and cosine of a
    distance, and u and v learned. Dai et al. 2019, https://arxiv.org/abs/1901.02860. With `compressed`, whole segments
    that leave m are not lost (Rae et al. 2019, https://arxiv.org/abs/1911.05507, its convolution):

    .. math::
        z \leftarrow [z;\, W_c (h_1, \dots, h_r);\, W_c (h_{r+1}, \dots, h_{2r});\, \dots] \qquad
        m \leftarrow [m;\, x]

    each cut to its own length, oldest first; to the distances a compressed one counts as one step.

    Unlike the papers, gradients flow into what is remembered; `recurra.state.detach` between segments stops them
    exactly as the papers do, for what is kept are inputs and not keys. As in the first, a step sees the memory and
    what its own segment has had: all keys that a step sees, it sees also when steps come one at a time. The papers'
    own losses for the compression are not here: it learns from what is read.

    State: ((m, how many, z, how many), (kept, past)): inputs `(B, memory, D)` and compressed ones `(B, compressed, D)`,
    the latest last and zeros before the first, with counts `(B,)`; the inputs of the open segment
    `(B, segment - 1, D)`, zeros after the last, and how many they are `(B,)`; float32 (float64 if the parameters are)
    and int64.

    Args:
        width: features in and out (D).
        segment: steps in a segment (C).
        memory: steps before it that are seen too (M).
        compressed: that are remembered of the steps before those (Z); 0: none.
        rate: steps that become one where they are compressed (r).
        heads: that attend each by itself (H); divides `width`.

    Raises:
        ValueError: `heads` does not divide `width`, `segment` is less than 1 or `memory` or `compressed` below 0, or
            with `compressed` there is a `memory` that is not of whole segments, or a `segment` not of whole `rate`.
    """

    def __init__(
        self, width: int, *, segment: int = 16, memory: int = 16, compressed: int = 0, rate: int = 4, heads: int = 4
    ) -> None:
        super().__init__()
        at_least(0, memory=memory, compressed=compressed)
        self.heads, self.size, self.segment = heads, divide(width, heads), check_segment(segment)
        if compressed:
            divide(memory, segment, of="memory", among="segment")
            divide(segment, rate, of="segment", among="rate")
        self.memory, self.compressed, self.rate = memory, compressed, rate
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.distance = nn.Linear(width, width, bias=False)
        self.content_bias, self.distance_bias = (nn.Parameter(torch.zeros(width)) for _ in range(2))
        self.compress = nn.Linear(rate * width, width) if compressed else None

    def initial_state(self, batch: int) -> tuple[Memory, Open]:
        """Nothing remembered, no steps: zeros."""
        width = len(self.content_bias)
        near, far, kept = (self.zeros(batch, n, width) for n in (self.memory, self.compressed, self.segment - 1))
        none = torch.zeros(batch, dtype=torch.long, device=kept.device)
        return (near, none, far, none), (kept, none)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Memory, Open], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Memory, Open]]:
        """Remember every full segment, then read for all steps at once."""
        (memory, opened), (first, none) = state, self.initial_state(len(x))
        # keys and values of inputs go with them, so that each is made once and not by every segment that sees it
        before, begun = ((self._split(near.to(x.dtype)), (near, *rest)) for near, *rest in (memory, first))
        y, ((_, memory), opened) = through(
            self._prepare, self._write, self._read, x, x, (before, opened), (begun, none), clock
        )
        return y, (memory, opened)

    def _split(self, x: Float[Tensor, "N L D"]) -> Float[Tensor, "N L F"]:
        """Keys and values."""
        return linear(x, self.key, self.value)

    def _prepare(self, kept: Float[Tensor, "N C D"]) -> tuple[Tensor, Tensor]:
        """Keys and values, and the inputs themselves."""
        return self._split(kept), kept

    def _read(self, memory: Given, x: Tensor, ready: tuple[Tensor, Tensor], place: Tensor) -> Float[Tensor, "N Q D"]:
        """What steps find in the memory and in their segment."""
        near, (_, steps, far, shrunk) = memory
        past = torch.cat([self._split(far.to(x.dtype)), near, ready[0]], 1)
        # from the oldest compressed to the last of the segment; what is not there yet is before `steps` and `shrunk`
        index = torch.arange(past.shape[1], device=x.device)
        seen = (index >= self.compressed + self.memory - steps[:, None]) | (
            (index < self.compressed) & (index >= self.compressed - shrunk[:, None])
        )
        own = place[..., None] + self.compressed + self.memory
        seen = seen[:, None] & (index <= own)
        return self._attend(x, past, own - index, seen)

    def _attend(
        self, x: Float[Tensor, "N Q D"], past: Float[Tensor, "N L F"], distance: Int[Tensor, "#N Q L"], seen: Tensor
    ) -> Float[Tensor, "N Q D"]:
        """Attention by content and distance, in every head."""
        split = (self.heads, self.size)
        query = self.query(x)
        content = (query + self.content_bias).unflatten(-1, split).transpose(1, 2)
        place = (query + self.distance_bias).unflatten(-1, split).transpose(1, 2)
        # sums of narrow numbers are wide
        key, value = (part.unflatten(-1, split).transpose(1, 2).to(wide(x)) for part in past.chunk(2, -1))
        wave = self.distance(self._waves(past.shape[1], x)).unflatten(-1, split)
        score = torch.einsum("nhqk,lhk->nhql", place, wave)
        index = distance.clamp(min=0)[:, None].expand(*score.shape[:2], -1, -1)
        score = (score.gather(-1, index) + content.to(key.dtype) @ key.mT) * self.size**-0.5
        read = F.softmax(score.masked_fill(~seen[:, None], -torch.inf), -1) @ value
        return self.out(read.to(x.dtype).transpose(1, 2).flatten(-2))

    def _waves(self, length: int, like: Tensor) -> Float[Tensor, "L D"]:
        """Sine and cosine of every distance."""
        width = like.shape[-1]
        rate = SLOWEST ** -(torch.arange(0, width, 2, dtype=torch.float64, device=like.device) / width)
        angle = torch.arange(length, device=like.device)[:, None] * rate
        return torch.cat([angle.sin(), angle.cos()], -1)[:, :width].to(like.dtype)

    def _write(self, memory: Given, ready: tuple[Tensor, Tensor]) -> Given:
        """The memory after a segment."""
        near, (x, steps, far, shrunk) = memory
        if self.compress is not None:
            # the memory is of whole segments: what leaves has all been steps, or none of it
            leaving = (
                torch.cat([x, ready[1].to(x.dtype)], 1)[:, : self.segment].unflatten(1, (-1, self.rate)).flatten(2)
            )
            leaving = self.compress(leaving.to(near.dtype)).to(far.dtype)
            leaves = steps == self.memory
            longer = torch.cat([far, leaving], 1)[:, leaving.shape[1] :]
            far = torch.where(leaves[:, None, None], longer, far)
            shrunk = torch.where(leaves, (shrunk + leaving.shape[1]).clamp(max=self.compressed), shrunk)
        near, x = (self._last(old, new) for old, new in zip((near, x), ready, strict=True))
        return near, (x, (steps + self.segment).clamp(max=self.memory), far, shrunk)

    def _last(self, old: Float[Tensor, "B M F"], new: Float[Tensor, "B C F"]) -> Float[Tensor, "B M F"]:
        """The last that are remembered, of those that were and those of a segment."""
        both = new if self.memory <= self.segment else torch.cat([old.to(new.dtype), new], 1)
        return both[:, both.shape[1] - self.memory :].to(old.dtype)
