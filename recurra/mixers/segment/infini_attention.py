"""Infini-attention: local attention within segments, beside a linear memory of all segments before."""

import torch
from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops.attention import attention
from recurra.ops.pointwise import Map, pointwise
from recurra.parts.features import elu_plus_one
from recurra.parts.heads import divide
from recurra.parts.segment import Open, check_segment, linear, none_open, through, turned
from recurra.shapes import Float, Tensor, wide

Memory = tuple[Float[Tensor, "B H K V"], Float[Tensor, "B H K"]]

SMALLEST = 1e-10  # what divides a reading at least: an empty memory reads zero


def _blend(near: Tensor, found: Tensor, share: Tensor, gate: Tensor) -> Tensor:
    """What was found near, and the mean of what a memory gives, by how far the gate is open."""
    return gate * found * share + (1 - gate) * near


BLEND = Map("infini", _blend)


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
        """Write every full segment, then read for all steps at once."""
        query, kept = linear(x, self.query, self.key, self.value).split([x.shape[-1], 2 * x.shape[-1]], -1)
        return through(self._prepare, self._write, self._read, query, kept, state, self.initial_state(len(x)), clock)

    def _read(self, memory: Memory, query: Tensor, ready: tuple[Tensor, ...], place: Tensor) -> Float[Tensor, "N Q D"]:
        """What queries find in the memory and in their segment."""
        key, value, *_ = ready
        query = query.unflatten(-1, (self.heads, -1))
        places = torch.arange(key.shape[1], device=key.device)[None]
        near, key = turned(query, place, self.base), turned(key, places, self.base)
        local = attention(near, key, value, torch.zeros_like(place), place)
        found, total = _find(memory, elu_plus_one(query.to(memory[0].dtype)))
        gate = F.sigmoid(self.gate.to(found.dtype))[:, None].expand(self.heads, self.size)
        read = pointwise(BLEND, local.to(found.dtype), found, total.clamp(min=SMALLEST).reciprocal(), gate)
        return self.out(read.to(query.dtype).flatten(-2))

    def _prepare(self, kept: Float[Tensor, "N C F"]) -> tuple[Tensor, ...]:
        """Keys and values of every head, and what a memory is given of them: with `delta` as they are, else summed."""
        key, value = kept.unflatten(-1, (2, self.heads, -1)).unbind(-3)
        mapped, wide_value = elu_plus_one(key.to(wide(key))), value.to(wide(value))
        if self.delta:
            return key, value, mapped, wide_value
        return key, value, *_sums(mapped, wide_value)

    def _write(self, memory: Memory, ready: tuple[Tensor, ...]) -> Memory:
        """The memory after a segment."""
        matrix, total = memory
        _, _, one, two = ready
        if self.delta:
            one, two = _sums(one, two - _recall(memory, one))
        return matrix + one, total + two


def _sums(key: Float[Tensor, "N C H K"], value: Float[Tensor, "N C H V"]) -> Memory:
    """What a segment adds to the memory."""
    # autocast would send sums through bfloat16
    with torch.autocast(key.device.type, enabled=False):
        return torch.einsum("bchk,bchv->bhkv", key, value), key.sum(1)


def _recall(memory: Memory, query: Float[Tensor, "N Q H K"]) -> Float[Tensor, "N Q H V"]:
    """What mapped queries read, in the memory's type."""
    found, total = _find(memory, query)
    return found / total.clamp(min=SMALLEST)


def _find(memory: Memory, query: Float[Tensor, "N Q H K"]) -> tuple[Float[Tensor, "N Q H V"], Float[Tensor, "N Q H 1"]]:
    """What mapped queries find in the matrix and the total, by which that is to be divided."""
    matrix, total = memory
    with torch.autocast(query.device.type, enabled=False):
        query = query.transpose(1, 2)
        return (query @ matrix).transpose(1, 2), (query @ total[..., None]).transpose(1, 2)
