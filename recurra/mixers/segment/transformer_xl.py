"""Transformer-XL: attention within a segment and to the segments before; old ones may be compressed, not let go."""

import torch
from torch import nn
from torch.nn import functional as F

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops.attention import attention
from recurra.parts.heads import divide
from recurra.parts.linear import linear
from recurra.parts.segment import Open, Segments, arrange, check_segment
from recurra.parts.window import beside, take
from recurra.shapes import Float, Int, Tensor

# inputs, the latest last, and how many of them there are: of the steps before, and of what was compressed
Memory = tuple[Float[Tensor, "B M D"], Int[Tensor, " B"], Float[Tensor, "B Z D"], Int[Tensor, " B"]]

# how many inputs are remembered before every segment and after the last, and how many compressed ones
Counts = tuple[Int[Tensor, "B _"], Int[Tensor, "B _"]]

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
        """What a segment remembers is what stands before it in a line of all inputs: no segment waits for another."""
        (near, steps, far, shrunk), opened = state
        segments, opened = arrange(x, x, opened, clock)
        steps, shrunk = self._counts(segments, steps, shrunk)
        near = torch.cat([near, segments.kept.flatten(1, 2).to(near.dtype)], 1)
        far = torch.cat([far, self._compressed(near.to(x.dtype)).to(far.dtype)], 1)
        y, first = [], 0
        for some in segments.together():
            here = slice(first, first + some.full.shape[1])
            past = self._past(near.to(x.dtype), far.to(x.dtype), here).flatten(0, 1)
            # what there is of compressed ones, of the memory and of its own segment lies in a row
            own = past.shape[1] - self.segment
            first_seen = own - (steps + shrunk)[:, here].flatten()[:, None]
            found = self._attend(some.query.flatten(0, 1), past, first_seen, own + some.place.flatten(0, 1))
            y.append(found.unflatten(0, (len(x), -1)))
            first = here.stop
        return segments.in_time(torch.cat(y, 1)), (self._after(segments, near, steps, far, shrunk), opened)

    def _counts(self, segments: Segments, steps: Int[Tensor, " B"], shrunk: Int[Tensor, " B"]) -> Counts:
        """How much there is to remember before every segment, and after the last."""
        number = torch.arange(segments.full.shape[1] + 1, device=steps.device)
        had, more = steps[:, None] + number * self.segment, shrunk[:, None]
        if segments.fresh is not None:
            begun = torch.where(segments.fresh, number[:-1], -1).cummax(1).values
            begun = torch.cat([begun, begun[:, -1:]], 1)
            had = torch.where(begun < 0, had, (number - begun) * self.segment)
            more = torch.where(begun < 0, more, 0)
        more = more + (had - self.memory).clamp(min=0) // self.rate
        return had.clamp(max=self.memory), more.clamp(max=self.compressed)

    def _compressed(self, line: Float[Tensor, "B L D"]) -> Float[Tensor, "B _ D"]:
        """What all inputs become; only what has left the memory is ever seen."""
        return line[:, :0] if self.compress is None else self.compress(line.unflatten(1, (-1, self.rate)).flatten(2))

    def _past(self, near: Float[Tensor, "B L D"], far: Float[Tensor, "B Z D"], here: slice) -> Float[Tensor, "B S P F"]:
        """Keys and values of what some segments may see: compressed, in the memory, and their own."""
        before, each = -(-self.memory // self.segment), self.segment
        # of whole segments, made once for all that see them
        near = near[:, here.start * each : here.stop * each + self.memory]
        near = F.pad(near, (0, 0, before * each - self.memory, 0))
        past = beside(linear(near, self.key, self.value).unflatten(1, (-1, each)), before)
        if not self.compressed:
            return past
        each = self.segment // self.rate
        before = -(-self.compressed // each)
        far = far[:, here.start * each : (here.stop - 1) * each + self.compressed]
        far = F.pad(far, (0, 0, before * each - self.compressed, 0))
        far = beside(linear(far, self.key, self.value).unflatten(1, (-1, each)), before - 1)
        return torch.cat([far, past], 2)

    def _after(self, segments: Segments, near: Tensor, steps: Tensor, far: Tensor, shrunk: Tensor) -> Memory:
        """What is remembered after each row's last full segment."""
        last = segments.last[:, None]
        number = last + segments.full.gather(1, last).long()
        steps, shrunk = steps.gather(1, number), shrunk.gather(1, number)
        near = _latest(near, number * self.segment, self.memory, steps)
        far = _latest(far, number * (self.segment // self.rate), self.compressed, shrunk)
        return near, steps[:, 0], far, shrunk[:, 0]

    def _attend(
        self,
        x: Float[Tensor, "N Q D"],
        past: Float[Tensor, "N P F"],
        first: Int[Tensor, "N 1"],
        own: Int[Tensor, "#N Q"],
    ) -> Float[Tensor, "N Q D"]:
        """Attention by content and distance, in every head, from the first to the query's own of what is in a row."""
        split = (self.heads, self.size)
        query = self.query(x)
        content, place = ((query + bias).unflatten(-1, split) for bias in (self.content_bias, self.distance_bias))
        key, value = past.unflatten(-1, (2, *split)).unbind(-3)
        # of the farthest first, as keys are
        wave = self.distance(self._waves(past.shape[1], x).flip(0)).unflatten(-1, split)
        distance = torch.einsum("nqhk,lhk->nqhl", place, wave * self.size**-0.5)
        first = first.expand(-1, own.shape[1])
        return self.out(attention(content, key, value, first, own, distance).flatten(-2))

    def _waves(self, length: int, like: Tensor) -> Float[Tensor, "L D"]:
        """Sine and cosine of every distance."""
        width = like.shape[-1]
        rate = SLOWEST ** -(torch.arange(0, width, 2, dtype=torch.float64, device=like.device) / width)
        angle = torch.arange(length, device=like.device)[:, None] * rate
        return torch.cat([angle.sin(), angle.cos()], -1)[:, :width].to(like.dtype)


def _latest(
    line: Float[Tensor, "B L D"], start: Int[Tensor, "B 1"], size: int, count: Int[Tensor, "B 1"]
) -> Float[Tensor, "B M D"]:
    """So many of a line from where each row begins, zeros for all but the latest `count`."""
    index = torch.arange(size, device=line.device)
    return take(line[:, :, None], start + index, index >= size - count)[:, :, 0]
