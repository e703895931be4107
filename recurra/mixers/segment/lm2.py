"""LM2: attention within segments beside a bank of memory slots, gated where it is read and where it is written."""

import torch
from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops.walk import Way
from recurra.parts.heads import divide
from recurra.parts.linear import linear
from recurra.parts.segment import Open, attend_open, check_segment, none_open, through
from recurra.parts.window import attend
from recurra.shapes import Float, Tensor


class LM2(Mixer):
    r"""Every step reads N slots through a gate; after each segment the slots read it, and gates say what they keep.

    .. math::
        e_t = \operatorname{softmax}\bigl(M_{s-1} W_K^\top W_Q x_t / \sqrt D\bigr)^\top M_{s-1} W_V^\top \qquad
        y_t = \operatorname{attention}\bigl(x_t;\, x_{j \le t}\bigr) + \sigma(W_{out} e_t) \odot e_t

    .. math::
        U = \operatorname{softmax}\bigl(M_{s-1} W_q'^\top (X_s W_k'^\top)^\top / \sqrt D\bigr)\, X_s W_v'^\top \qquad
        M_s = g_i \odot \tanh(U) + g_f \odot M_{s-1}

    .. math::
        (g_i, g_f) = \sigma\bigl(W_x \langle \operatorname{relu}(w \odot x_j) \rangle_{j \in s} +
        W_m \tanh(M_{s-1}) + (0, 1)\bigr)

    where j runs over segment s, the rows of X, and :math:`M_0` is a row of the identity for every slot. Kang et al.
    2025, https://arxiv.org/abs/2502.06049. There are three published forms, none of which can be taken as it is:

    - the paper's read is the one here; its write, :math:`M = g_i \odot \tanh(E_{mem}) + g_f \odot M`, adds a row for
      every step to a row for every slot, and cannot be formed as printed;
    - its output gate is printed before M itself, and in accounts of it before what was read, e, which is taken here;
    - the authors' code is a relational memory core over slots as wide as they are many, which runs only where there
      are as many steps as slots, has no output gate, and hands M from layer to layer and from batch to batch.

    Here the read is the paper's, the gates of the write are the code's, and slots attend to the steps of a finished
    segment, so that M has one row a slot whatever the segment is. M belongs to a layer and to a sequence. The paper's
    prose and the code were read by others for these equations; the paper's own text was not checked again.

    State: (M, (kept, past)): the slots before the open segment `(B, N, D)`, keys, values and inputs of its steps
    `(B, segment - 1, 3 D)`, zeros after the last, and how many they are `(B,)`; float32 (float64 if the parameters
    are) and int64.

    Args:
        width: features in and out (D).
        segment: steps in a segment (C).
        slots: in the memory (N).
        heads: of the attention within the segment (H); divides `width` into even parts.
        base: of the rotation: the slowest angle turns about this many times slower than the fastest.

    Raises:
        ValueError: `heads` does not divide `width` into even parts, `segment` is less than 1, or there are more
            `slots` than features, which would start alike.
    """

    def __init__(self, width: int, *, segment: int = 16, slots: int = 8, heads: int = 4, base: float = 10000.0) -> None:
        super().__init__()
        divide(width, 2 * heads, among="twice heads")
        if not 0 < slots <= width:
            raise ValueError(f"slots is {slots}: it must be at least 1 and at most the width, which is {width}")
        self.heads, self.segment, self.slots, self.base = heads, check_segment(segment), slots, base
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.read_query, self.read_key, self.read_value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.write_query, self.write_key, self.write_value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.read_gate = nn.Linear(width, width, bias=False)
        self.scale = nn.Parameter(torch.empty(width).normal_())
        self.segment_gate, self.memory_gate = nn.Linear(width, 2 * width), nn.Linear(width, 2 * width, bias=False)
        with torch.no_grad():
            self.segment_gate.bias.copy_(torch.arange(2).repeat_interleave(width))

    def initial_state(self, batch: int) -> tuple[Float[Tensor, "B N D"], Open]:
        """A row of the identity for every slot, no steps."""
        width = len(self.scale)
        kept = self.zeros(batch, self.segment - 1, 3 * width)
        slots = torch.eye(self.slots, width, dtype=kept.dtype, device=kept.device).expand(batch, -1, -1)
        return slots, none_open(kept)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Tensor, Open], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Tensor, Open]]:
        """Write every full segment, then read for all steps at once."""
        kept, query = torch.cat([linear(x, self.key, self.value), x], -1), linear(x, self.query, self.read_query)
        parts = self.write_query, self.memory_gate
        way = Way(self._write, tuple(part.weight for part in parts), (LM2,), parts)
        start = self.initial_state(len(x))
        return through(self._prepare, way, self._read, query, kept, state, start, clock, lambda ready: ready[2:])

    def _read(self, slots: Tensor, query: Tensor, ready: tuple[Tensor, ...], place: Tensor) -> Float[Tensor, "M Q D"]:
        """What queries find in the slots, through the gate, and in their segment."""
        query, asked = query.chunk(2, -1)
        query, key, value = (z.unflatten(-1, (self.heads, -1)) for z in (query, *ready[:2]))
        local = self.out(attend_open(query, key, value, place, self.base).flatten(-2))
        # one head
        key, value = linear(slots.to(asked.dtype), self.read_key, self.read_value)[:, :, None].chunk(2, -1)
        read = attend(asked[:, :, None], key, value).squeeze(2)
        return local + F.sigmoid(self.read_gate(read)) * read

    def _prepare(self, query: Tensor, kept: Float[Tensor, "M C F"], place: Tensor) -> tuple[Tensor, ...]:
        """Keys and values of steps, those that slots look at, and what a segment says to the gates."""
        key, value, x = kept.chunk(3, -1)
        gate = self.segment_gate(F.relu(self.scale * x).mean(1))
        return key, value, linear(x, self.write_key, self.write_value), gate

    def _write(
        self, slots: Float[Tensor, "B N D"], ready: tuple[Tensor, ...]
    ) -> tuple[Float[Tensor, "B N D"], tuple[()]]:
        """The slots after a segment."""
        written, gate = ready
        key, value = written.chunk(2, -1)
        query = self.write_query(slots.to(key.dtype))
        update = F.scaled_dot_product_attention(query, key, value).to(slots.dtype)
        gate = gate[:, None].to(slots.dtype) + self.memory_gate(slots.tanh().to(key.dtype)).to(slots.dtype)
        enter, keep = F.sigmoid(gate).chunk(2, -1)
        return enter * update.tanh() + keep * slots, ()
