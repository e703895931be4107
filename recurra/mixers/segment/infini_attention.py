"""Infini-attention: local attention within segments, beside a linear memory of all segments before."""

import torch
from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops.walk import Way
from recurra.parts.features import elu_plus_one
from recurra.parts.heads import divide
from recurra.parts.linear import linear
from recurra.parts.segment import Open, attend_open, check_segment, none_open, through
from recurra.shapes import Float, Tensor, wide

Memory = tuple[Float[Tensor, "B H K V"], Float[Tensor, "B H K"]]
Ready = tuple[Float[Tensor, "B Q H V"], Float[Tensor, "B Q H K"], Float[Tensor, "B C F"]]

SMALLEST = 1e-10  # what divides a reading at least: an empty memory reads zero


class InfiniAttention(Mixer):
    r"""Softmax attention to the steps of the present segment, and linear attention to all segments before it.

    .. math::
        r_t = \frac{M_{s-1}^\top \phi(q_t)}{z_{s-1}^\top \phi(q_t)} \qquad
        a_t = \sum_{j \le t} \operatorname{softmax}_j\bigl((R_t q_t)^\top R_j k_j / \sqrt{K}\bigr)\, v_j \qquad
        y_t = W_o\bigl(\sigma(\beta)\, r_t + (1 - \sigma(\beta))\, a_t\bigr)

    .. math::
        M_s = M_{s-1} + \sum_{j \in s} \phi(k_j) (v_j - \delta\, \bar v_j)^\top \qquad
        z_s = z_{s-1} + \sum_{j \in s} \phi(k_j) \qquad
        \bar v_j = \frac{M_{s-1}^\top \phi(k_j)}{z_{s-1}^\top \phi(k_j)}

    where j runs over segment s, :math:`\phi = \operatorname{elu} + 1`, :math:`\beta` is one number a head, R turns by
    the place in the segment, and :math:`\delta` is 1 with `delta` and else 0. Munkhdalai et al. 2024,
    https://arxiv.org/abs/2404.07143. As in the paper; where nothing has been remembered yet, r is zero. The paper's
    delta rule takes away what a key recalls but counts the key again: what is written three times the same is read at
    one half, where the plain sum reads it whole. `armt` does not have this fault.

    State: ((M, z), (kept, past)): the memory before the open segment `(B, H, K, V)` and `(B, H, K)`, keys and values
    of its steps `(B, segment - 1, 2 D)`, zeros after the last, and how many they are `(B,)`; float32 (float64 if the
    parameters are) and int64.

    Args:
        width: features in and out (D).
        segment: steps in a segment (C): a segment is written when its last step is there.
        heads: that attend each by itself (H); divides `width` into even parts.
        delta: take away what a key recalls before its value is written.
        base: of the rotation: the slowest angle turns about this many times slower than the fastest.

    Raises:
        ValueError: `heads` does not divide `width` into even parts, or `segment` is less than 1.
    """

    def __init__(
        self, width: int, *, segment: int = 16, heads: int = 4, delta: bool = False, base: float = 10000.0
    ) -> None:
        super().__init__()
        self.heads, self.size = heads, 2 * divide(width, 2 * heads, among="twice heads")
        self.segment, self.delta, self.base = check_segment(segment), delta, base
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.gate = nn.Parameter(torch.zeros(heads))

    def initial_state(self, batch: int) -> tuple[Memory, Open]:
        """Nothing remembered, no steps: zeros."""
        memory = self.zeros(batch, self.heads, self.size, self.size), self.zeros(batch, self.heads, self.size)
        kept = self.zeros(batch, self.segment - 1, 2 * self.heads * self.size)
        return memory, none_open(kept)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Memory, Open], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Memory, Open]]:
        """Attend within segments, then go through them: steps read the memory, which full ones are written to."""
        query, kept = self.query(x), linear(x, self.key, self.value)
        way = Way(self._meet, (self.gate,), (InfiniAttention, self.heads, self.delta), makes=True)
        return through(self._prepare, way, self._read, query, kept, state, self.initial_state(len(x)), clock)

    def _prepare(self, query: Float[Tensor, "N Q D"], kept: Float[Tensor, "N C F"], place: Tensor) -> Ready:
        """What queries find in their segment, and what meets the memory: queries, and keys and values of all steps."""
        query = query.unflatten(-1, (self.heads, -1))
        key, value = kept.unflatten(-1, (2, self.heads, -1)).unbind(-3)
        local = attend_open(query, key, value, place, self.base)
        return local.to(wide(local)), query.to(wide(query)), kept.to(wide(kept))

    def _meet(self, memory: Memory, ready: Ready) -> tuple[Memory, Float[Tensor, "B Q H K"]]:
        """The memory after a segment, and what its queries find in it and nearby."""
        local, query, kept = ready
        key, value = kept.unflatten(-1, (2, self.heads, -1)).unbind(-3)
        gate = F.sigmoid(self.gate.to(local.dtype))[:, None]
        read = local + gate * (_recall(memory, elu_plus_one(query)) - local)
        return self._write(memory, elu_plus_one(key), value), read

    def _write(self, memory: Memory, key: Float[Tensor, "B C H K"], value: Float[Tensor, "B C H V"]) -> Memory:
        """The memory with mapped keys and their values."""
        matrix, total = memory
        value = value - _recall(memory, key) if self.delta else value
        # autocast would send sums through bfloat16
        with torch.autocast(key.device.type, enabled=False):
            return matrix + key.permute(0, 2, 3, 1) @ value.transpose(1, 2), total + key.sum(1)

    def _read(
        self, read: Float[Tensor, "N Q H K"], query: Tensor, ready: Ready, place: Tensor
    ) -> Float[Tensor, "N Q D"]:
        """The output."""
        return self.out(read.to(query.dtype).flatten(-2))


def _recall(memory: Memory, query: Float[Tensor, "N Q H K"]) -> Float[Tensor, "N Q H V"]:
    """What mapped queries read, in the memory's type."""
    matrix, total = memory
    with torch.autocast(query.device.type, enabled=False):
        found = (query.transpose(1, 2) @ matrix).transpose(1, 2)
        return found / (query * total[:, None]).sum(-1, keepdim=True).clamp(min=SMALLEST)
