"""Retention: linear attention with rotary positions and one fixed rate of forgetting a head."""

import torch
from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Outer, Scan
from recurra.parts.heads import divide
from recurra.parts.norms import rms_gated
from recurra.parts.rotary import count, rotate, turns
from recurra.shapes import Float, Int, Tensor


class RetNet(Mixer):
    r"""A memory that fades at a fixed rate, different in each head, and knows how far apart two steps are.

    .. math::
        S_t = \gamma_h S_{t-1} + K^{-1/2}\, R(t)\, k_t v_t^\top \qquad
        y_t = W_o \bigl(\operatorname{rms}(S_t^\top R(t)\, q_t) \odot \operatorname{swish}(W_g x_t)\bigr) \qquad
        \gamma_h = 1 - 2^{-5-h}

    where :math:`R(t)` turns the pairs (2i, 2i+1) by :math:`t \cdot 10000^{-i/(K/2-1)}`, h counts the heads from zero,
    and rms normalises each head with no weight. Source: Sun et al. 2023, https://arxiv.org/abs/2307.08621. Unlike
    the authors' code S is not divided by a running sum of its decays: the norm that follows would cancel it.

    State: the memory S, `(B, H, K, V)`, float32 (float64 if the parameters are), K = width / heads and
    V = expand K; and the position t of the next step, `(B,)`, int64.

    Args:
        width: features in and out (D).
        heads: independent memories (H); `width` is a multiple of twice that, for features are rotated in pairs.
        expand: values are this many times as wide as keys.

    Raises:
        ValueError: `width` is not a multiple of `2 * heads`.
    """

    def __init__(self, width: int, *, heads: int = 4, expand: int = 2) -> None:
        super().__init__()
        self.heads, self.size = heads, 2 * divide(width, 2 * heads, among="twice heads")
        self.expand, self.epsilon = expand, 1e-6
        # queries and keys go together: they are rotated alike
        self.splits = [2 * width, expand * width, expand * width]
        self.project = nn.Linear(width, sum(self.splits), bias=False)
        self.out = nn.Linear(expand * width, width, bias=False)
        for weight in self.project.weight.split([width, width, *self.splits[1:]]):
            nn.init.xavier_uniform_(weight, gain=2**-2.5)
        nn.init.xavier_uniform_(self.out.weight)
        self.scan = Scan()

    def initial_state(self, batch: int) -> tuple[Float[Tensor, "B H K V"], Int[Tensor, " B"]]:
        """Nothing remembered, at position zero."""
        memory = self.zeros(batch, self.heads, self.size, self.expand * self.size)
        return memory, torch.zeros(batch, dtype=torch.int64, device=memory.device)

    def mix(
        self,
        x: Float[Tensor, "B T D"],
        state: tuple[Float[Tensor, "B H K V"], Int[Tensor, " B"]],
        clock: Clock | None,
    ) -> tuple[Float[Tensor, "B T D"], tuple[Float[Tensor, "B H K V"], Int[Tensor, " B"]]]:
        """Project, rotate, remember, normalise, then gate."""
        memory, position = state
        both, value, gate = self.project(x).split(self.splits, -1)
        positions, position = count(position, x.shape[1], clock)
        # a key is turned and made K^(-1/2) times as long at once
        length = torch.tensor([1, self.size**-0.5], dtype=torch.float64, device=x.device)[:, None, None]
        turned = (part[:, :, None] * length for part in turns(positions, self.size))
        query, key = rotate(both.unflatten(-1, (2, self.heads, -1)), *turned).unbind(2)
        value = value.unflatten(-1, (self.heads, -1))
        log_decay = self._log_decay(memory).expand(key.shape[:3])
        read, memory = self.scan(Outer(query, key, value, log_decay), memory, clock)
        return self.out(rms_gated(read, gate, self.epsilon, F.silu)), (memory, position)

    def _log_decay(self, memory: Float[Tensor, "B H K V"]) -> Float[Tensor, " H"]:
        """Made from whole numbers at each call: a buffer would be rounded whenever the parameters' type is."""
        head = torch.arange(self.heads, dtype=memory.dtype, device=memory.device)
        return torch.log1p(-torch.exp2(-5 - head))
