"""Titans with the memory as context: attention within a segment sees what a memory of the segments before says to it.

Rows of a batch are at different places of their segments, so the memory is never asked to know: its chunk is the
segment, and the weights at a chunk's start, which its state has anyway, are those of the segment's start.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.parts.heads import divide
from recurra.parts.learner import Learner
from recurra.parts.norms import RMSNorm, unit
from recurra.parts.persistent import Persistent, asks, placed
from recurra.parts.rotary import rotary_turns, rotate
from recurra.parts.segment import Open, Segments, arrange, choose, none_open
from recurra.parts.window import attend
from recurra.shapes import Bool, Float, Int, Tensor

Memory = tuple[Tensor, ...]
View = Callable[[Tensor], tuple[Tensor, Tensor]]


class TitansMAC(Mixer):
    r"""Attention within a segment and to what a memory recalls for its steps; the memory then learns what came of it.

    .. math::
        h_j = \operatorname{norm}\bigl(M_{s-1}(\hat q_j)\bigr) \qquad
        y_t = \operatorname{attention}\bigl(x_t;\, [p;\, h_{j \le t};\, x_{j \le t}]\bigr) \qquad
        o_t = \operatorname{norm}(y_t) \odot \sigma\bigl(\operatorname{norm}(M_t(y_t))\bigr)

    where j runs over segment s; :math:`M_{s-1}` is the neural memory of `titans` as it was when the segment began,
    asked without learning, :math:`\hat q` linear in x, of length one in each head; p are N learned (persistent) keys
    and values; attention is a softmax in every head, with queries, keys, values and output linear, keys and queries
    turned by the place in the segment, alike for x and its h; :math:`M_t` is the memory as it learns y, step by step,
    with all gradients of a segment taken at :math:`M_{s-1}`; and each norm is an RMSNorm with a weight a feature.
    Memory as a context (MAC) of Behrouz et al. 2024, https://arxiv.org/abs/2501.00663, section 4.1.

    Unlike the paper, which asks the memory for a whole segment and puts the answers before it, a step sees the answers
    to itself and to steps before it, for those to later steps would tell it the future; and for the same reason the
    gate reads of the memory what it has learned up to this step, which at a segment's last step is the paper's. What
    the segment teaches becomes context when the segment is full. The paper says that gate and gated are normalised
    with learned weights and meet in a non-linearity; which, we chose: the memory is the gate. The persistent tokens
    are keys and values and not inputs, which for attention is the same, and have no place. titans-pytorch is something
    else: it asks its memory about each step before attention, for the sum or as the gate, and never as context.

    State: (memory, (kept, past)): the state of `titans`, with a chunk that is the open segment, then the inputs of the
    segment's steps `(B, segment - 1, D)`, zeros after the last, and how many they are `(B,)`; float32 (float64 if the
    parameters are) and int64.

    Args:
        width: features in and out (D).
        segment: steps in a segment (C), and in a chunk of the memory's.
        tokens: persistent keys and values a head (N); 0: none.
        heads: of attention, and independent memories (H); divides `width` into even parts.
        depth: layers of a memory's network.
        expand: how much wider it is between them than at its ends.
        rate: the most that a step's learning rate can be, above 0.
        conv_size: inputs that the memory's short convolution sees at each step.
        base: of the rotation: the slowest angle turns about this many times slower than the fastest.

    Raises:
        ValueError: `heads` does not divide `width` into even parts, `segment`, `depth` or `expand` is less than 1,
            `tokens` is below 0, or `rate` is not greater than 0.
    """

    def __init__(
        self,
        width: int,
        *,
        segment: int = 16,
        tokens: int = 4,
        heads: int = 4,
        depth: int = 2,
        expand: int = 4,
        rate: float = 0.01,
        conv_size: int = 4,
        base: float = 10000.0,
    ) -> None:
        super().__init__()
        at_least(1, segment=segment)
        size = 2 * divide(width, 2 * heads, among="twice heads")
        self.heads, self.segment, self.base = heads, segment, base
        self.query, self.key, self.value, self.out, self.ask = (nn.Linear(width, width, bias=False) for _ in range(5))
        self.persistent = Persistent(tokens, heads, size)
        self.learner = Learner(
            width, heads=heads, depth=depth, expand=expand, chunk=segment, rate=rate, conv_size=conv_size, momentum=True
        )
        self.recalled, self.attended, self.remembered = (RMSNorm(width) for _ in range(3))

    def initial_state(self, batch: int) -> tuple[Memory, Open]:
        """The initial weights, no steps."""
        kept = self.zeros(batch, self.segment - 1, self.query.in_features)
        return self.learner.initial_state(batch), none_open(kept)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Memory, Open], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Memory, Open]]:
        """Segment by segment, as each needs what the one before it taught; all that needs no memory is made at once."""
        memory, opened = state
        # a one tells where a step is from where none is
        segments, opened = arrange(F.pad(x, (0, 1), value=1.0), x, opened, clock)
        asked, there = segments.query.split((x.shape[-1], 1), -1)
        happened = there[..., 0] > 0
        whole = happened.all(-1).all(0).tolist()
        start, inputs, reads = self.learner.initial_state(len(x)), [], []
        view = self._view(torch.arange(self.segment, device=x.device))
        ready = (z.unflatten(0, (len(x), -1)).unbind(1) for z in self._prepare(asked.flatten(0, 1), segments, view))
        for number, (valid, *part) in enumerate(zip(happened.unbind(1), *ready, strict=True)):
            if segments.fresh is not None:
                memory = choose(segments.fresh[:, number], start, memory)
            inputs.append(self._attend(memory, view, *part))
            read, memory = self.learner.learn(inputs[-1], memory, None if whole[number] else Clock(valid=valid))
            reads.append(read.flatten(-2))
        y, read = (segments.in_time(torch.stack(several, 1)) for several in (inputs, reads))
        answer = self.learner.answered(y, read.unflatten(-1, (self.heads, -1)))
        return self.attended(y) * self.remembered(answer).sigmoid(), (memory, opened)

    def _view(self, places: Int[Tensor, " C"]) -> View:
        """From what has these places to keys, turned, and values."""
        weight = torch.cat([self.key.weight, self.value.weight])
        turn = rotary_turns(places[None], weight.shape[1] // self.heads, self.base)

        def view(x: Float[Tensor, "N C D"]) -> tuple[Float[Tensor, "N C H K"], Float[Tensor, "N C H K"]]:
            key, value = F.linear(x, weight).unflatten(-1, (2, self.heads, -1)).unbind(2)
            return rotate(key, *turn).to(x.dtype), value

        return view

    def _prepare(self, x: Float[Tensor, "N Q D"], segments: Segments, view: View) -> tuple[Tensor, ...]:
        """What of all segments needs no memory: what asks it, what attends to what, and what is seen of that."""
        kept, place = segments.kept.flatten(0, 1), segments.place.flatten(0, 1)
        ask, query = (z.unflatten(-1, (self.heads, -1)) for z in (self.ask(kept), self.query(x)))
        key, value = view(kept)
        seen = (torch.arange(self.segment, device=x.device) <= place[..., None]).expand(len(kept), -1, -1)
        keys, values, known = self.persistent.beside(key, value, seen)
        # what is recalled for a step is seen where that is
        seen = torch.cat([known, seen], -1)
        return unit(ask).transpose(1, 2), asks(query, place, self.base).to(key.dtype), keys, values, seen

    def _attend(
        self,
        memory: Memory,
        view: View,
        ask: Float[Tensor, "B H C K"],
        query: Float[Tensor, "B Q H J"],
        keys: Float[Tensor, "B M H J"],
        values: Float[Tensor, "B M H K"],
        seen: Bool[Tensor, "B Q L"],
    ) -> Float[Tensor, "B Q D"]:
        """What steps find in their segment and in what the memory recalls for it."""
        key, value = view(self._recall(memory, ask).to(values.dtype))
        keys, values = torch.cat([keys, placed(key)], 1), torch.cat([values, value], 1)
        return self.out(attend(query, keys, values, seen).flatten(-2))

    def _recall(self, memory: Memory, ask: Float[Tensor, "B H C K"]) -> Float[Tensor, "B C D"]:
        """What the memory, as it was when the segment began, has for each step."""
        _, start, *_ = memory
        net = self.learner.net
        # autocast would send the memory's answers through bfloat16
        with torch.autocast(ask.device.type, enabled=False):
            answer = net.forward(net.layers(start), ask.to(start.dtype), None)
        return self.recalled(answer.transpose(1, 2).flatten(-2))
