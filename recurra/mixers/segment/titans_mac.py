"""Titans with the memory as context: attention within a segment sees what a memory of the segments before says to it.

Rows of a batch are at different places of their segments, so the memory is never asked to know: its chunk is the
segment, and the weights at a chunk's start, which its state has anyway, are those of the segment's start.
"""

from functools import partial
from itertools import takewhile
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops.descent.whole import Tables, answers, tables
from recurra.ops.scan import compiled
from recurra.ops.walk import Walk, Way, native
from recurra.parts.heads import divide
from recurra.parts.learner import Learner, Whole
from recurra.parts.linear import Joined
from recurra.parts.norms import RMSNorm, unit
from recurra.parts.persistent import Persistent, asks
from recurra.parts.rotary import rotary_turns, rotate_by_parts
from recurra.parts.segment import Open, Segments, arrange, choose, none_open
from recurra.shapes import Bool, Float, Tensor, wide

TOGETHER = 32  # segments of a walk, which keeps the memory before each

Memory = tuple[Tensor, ...]


class Known(NamedTuple):
    """What is the same for every segment: weights, and numbers that stand for places."""

    view: Joined  # of keys and values
    cosine: Float[Tensor, "C P"]  # of their turns
    sine: Float[Tensor, "C P"]
    taps: Float[Tensor, "J F"]  # of the memory's convolution
    sums: Float[Tensor, "C S"]  # as `Tables`
    later: Float[Tensor, "C C"]


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
        happened, known, number, made = there[..., 0] > 0, self._known(), 0, []
        walked = self.learner.plain and happened.shape[-1] == self.segment
        whole = happened.all(-1).all(0).tolist() if walked else []
        *ready, later = (z.unflatten(0, (-1, happened.shape[1])) for z in self._prepare(asked, segments, known))
        while number < happened.shape[1]:
            count = sum(takewhile(bool, whole[number : number + TOGETHER]))
            some = slice(number, number + max(1, count))
            fresh = None if segments.fresh is None else segments.fresh[:, some]
            part = tuple(z[:, some] for z in ready)
            walks = self._walks(memory, known, part, fresh) if count else None
            if walks is not None and compiled(native, *walks):
                *found, memory = self._walk(*walks)
            else:
                valid = None if count else happened[:, some]
                *found, memory = self._in_turn(memory, known, (*part, later[:, some]), fresh, valid)
            made.append(found)
            number += max(1, count)
        y, read = (segments.in_time(torch.cat(parts, 1)) for parts in zip(*made, strict=True))
        answer = self.learner.answered(y, read.unflatten(-1, (self.heads, -1)))
        return self.attended(y) * self.remembered(answer).sigmoid(), (memory, opened)

    def _known(self) -> Known:
        """What is the same for every segment."""
        like = self.persistent.key
        turn = rotary_turns(torch.arange(self.segment, device=like.device)[None], like.shape[2], self.base)
        cosine, sine = (z[0, :, 0].to(wide(like)).contiguous() for z in turn)
        taps = self.learner.conv.weight.t().contiguous()
        return Known(Joined(self.key, self.value), cosine, sine, taps, *tables(self.segment, cosine))

    def _view(
        self, x: Float[Tensor, "N C D"], known: Known
    ) -> tuple[Float[Tensor, "N H C K"], Float[Tensor, "N H C K"]]:
        """Of what has these places keys, turned, and values."""
        key, value = known.view(x).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return rotate_by_parts(key, known.cosine, known.sine), value

    def _prepare(
        self, asked: Float[Tensor, "B S Q D"], segments: Segments, known: Known
    ) -> tuple[Float[Tensor, "N H C K"], Float[Tensor, "N H Q K"], Tensor, Float[Tensor, "N H M K"], Tensor]:
        """What of all segments needs no memory: what asks it, what asks what it says, all other scores and values.

        The last is what is added to scores of what the memory says: -inf where that is for a later step.
        """
        kept, place = segments.kept.flatten(0, 1), segments.place.flatten(0, 1)
        ask, query = (z.unflatten(-1, (self.heads, -1)) for z in (self.ask(kept), self.query(asked.flatten(0, 1))))
        key, value = (z.transpose(1, 2) for z in self._view(kept, known))
        seen = (torch.arange(self.segment, device=kept.device) <= place[..., None]).expand(len(kept), -1, -1)
        keys, values, all_seen = self.persistent.beside(key, value.to(key.dtype), seen)
        query = asks(query, place, self.base).to(key.dtype).transpose(1, 2) * keys.shape[-1] ** -0.5
        scores = (query @ keys.permute(0, 2, 3, 1)).masked_fill(~all_seen[:, None], -torch.inf)
        later = torch.zeros_like(seen, dtype=key.dtype).masked_fill(~seen, -torch.inf)[:, None]
        return unit(ask).transpose(1, 2), query[..., : key.shape[-1]], scores, values.transpose(1, 2), later

    def _attend(
        self,
        answer: Float[Tensor, "B H C K"],
        known: Known,
        query: Float[Tensor, "B H Q K"],
        scores: Float[Tensor, "B H Q M"],
        values: Float[Tensor, "B H M K"],
        later: Float[Tensor, "*B Q C"],
    ) -> Float[Tensor, "B Q D"]:
        """What steps find in their segment and in what the memory answers for it."""
        kind = self.persistent.key.dtype
        key, value = self._view(self.recalled(answer.transpose(1, 2).flatten(-2)).to(kind), known)
        shares = torch.cat([scores, query @ key.mT + later], -1).softmax(-1)
        own, far = shares.split([scores.shape[-1], self.segment], -1)
        return self.out((own @ values + far @ value.to(far.dtype)).transpose(1, 2).flatten(-2).to(kind))

    def _in_turn(
        self,
        memory: Memory,
        known: Known,
        ready: tuple[Tensor, ...],
        fresh: Bool[Tensor, "B S"] | None,
        happened: Bool[Tensor, "B S Q"] | None,
    ) -> tuple[Float[Tensor, "B S Q D"], Float[Tensor, "B S Q D"], Memory]:
        """What steps find, what the memory reads of that as it learns, and the memory after it: any segments."""
        start, net, found, reads = self.learner.initial_state(len(ready[0])), self.learner.net, [], []
        for number, (ask, *part) in enumerate(zip(*(z.unbind(1) for z in ready), strict=True)):
            if fresh is not None:
                memory = choose(fresh[:, number], start, memory)
            # autocast would send the memory's answers through bfloat16
            with torch.autocast(ask.device.type, enabled=False):
                answer = net.forward(net.layers(memory[1]), ask.to(memory[1].dtype), None)
            found.append(self._attend(answer, known, *part))
            clock = None if happened is None else Clock(valid=happened[:, number])
            read, memory = self.learner.learn(found[-1], memory, clock)
            reads.append(read.flatten(-2))
        return torch.stack(found, 1), torch.stack(reads, 1), memory

    def _walks(
        self, memory: Memory, known: Known, ready: tuple[Tensor, ...], fresh: Bool[Tensor, "B S"] | None
    ) -> tuple[Walk, Whole]:
        """The same for whole segments, as one walk: of a memory whose chunk begins only some can have changed."""
        parts = self.recalled, self.out, self.learner, *known.view.called
        called = self.recalled, self.out, self.learner.project, self.learner.gates, *known.view.called
        weights = *known.view.weights, *known[1:], *(weight for part in called for weight in part.parameters())
        way = Way(partial(self._segment, known), weights, (TitansMAC, self.heads), parts, makes=True)
        full = torch.ones(ready[0].shape[:2], dtype=torch.bool, device=ready[0].device)
        first, now = map(self._whole, (self.learner.initial_state(len(full)), memory))
        return Walk(way, ready, first, fresh, full), now

    def _whole(self, memory: Memory) -> Whole:
        """Of a memory at its chunk's start what says all of it, weights and momentum by layers."""
        start, momentum = (tuple(self.learner.net.layers(z)) for z in (memory[1], memory[-1]))
        return memory[0], start, momentum

    def _segment(
        self, known: Known, memory: Whole, ready: tuple[Tensor, ...]
    ) -> tuple[Whole, tuple[Float[Tensor, "B C D"], Float[Tensor, "B C D"]]]:
        """The memory after a whole segment, what steps found in it, and what the memory read of that."""
        ask, query, scores, values = ready
        y = self._attend(answers(memory[1], ask), known, query, scores, values, known.later)
        read, memory = self.learner.whole(y, memory, known.taps, Tables(known.sums, known.later))
        return memory, (y, read.flatten(-2))

    def _walk(self, record: Walk, state: Whole) -> tuple[Float[Tensor, "B S C D"], Float[Tensor, "B S C D"], Memory]:
        (_, (y, read)), (past, *moved) = native.scan(record, state)
        _, _, *none, _ = self.learner.initial_state(len(y))
        start, momentum = (torch.cat([z.flatten(2) for z in layers], -1) for layers in moved)
        return y, read, (past, start, *none, momentum)
