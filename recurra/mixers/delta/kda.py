"""Kimi Delta Attention: the gated delta rule whose memory fades channel by channel."""

import torch
from torch import nn

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Scan
from recurra.parts.conv import ShortConvolution
from recurra.parts.delta import Fading, check_strength, correction, size_of
from recurra.parts.norms import RMSNorm
from recurra.shapes import Float, Tensor

DeltaState = tuple[Float[Tensor, "B J M"], Float[Tensor, "B H K V"]]


class KDA(Mixer):
    r"""A memory in which every channel of a key fades at a rate of its own, and that is corrected key by key.

    .. math::
        S_t = D_t S_{t-1} + \beta_t k_t (v_t - (D_t S_{t-1})^\top k_t)^\top \qquad
        D_t = \operatorname{diag} \exp(-e^{a} \operatorname{softplus}(U_2 U_1 x_t + b))
    .. math::
        y_t = W_o \bigl(\operatorname{norm}(K^{-1/2} S_t^\top q_t) \odot \sigma(G_2 G_1 x_t + c)\bigr) \qquad
        \beta_t = s\, \sigma(W_\beta x_t)

    with q, k, v linear in x, then a short convolution with SiLU; q and k of length one (1e-6 inside the root); one
    :math:`\beta` and a for a head, one b for each of its channels; norm an RMSNorm of each head. Source: Kimi Team
    2025 (Kimi Linear), https://arxiv.org/abs/2510.26692. As in the paper, whose stack is three such layers and one of
    attention.

    State: the convolution's past, `(B, conv_size - 1, heads * (2 K + V))`, and the memory S, `(B, H, K, V)` with
    V = expand K; float32 (float64 if the parameters are).

    Args:
        width: features in and out (D).
        heads: independent memories (H).
        head_size: features of a key (K); None: width / heads.
        expand: values are this many times as wide as keys.
        rank: of the maps that choose decay and gate; None: the width of a value, V.
        strength: s, in (0, 2], the most that one step replaces of what its key recalls. 1 as in the paper; above 1
            a step may flip its sign, with which it can count modulo 2 (Grazzi et al. 2024,
            https://arxiv.org/abs/2411.12537).
        conv_size: inputs that the short convolution sees at each step.

    Raises:
        ValueError: there is no `head_size` and `heads` does not divide `width`, or `strength` is outside (0, 2].
    """

    def __init__(
        self,
        width: int,
        *,
        heads: int = 4,
        head_size: int | None = None,
        expand: int = 1,
        rank: int | None = None,
        strength: float = 1.0,
        conv_size: int = 4,
    ) -> None:
        super().__init__()
        self.heads, self.size, self.strength = heads, size_of(width, heads, head_size), check_strength(strength)
        keys, values = heads * self.size, expand * heads * self.size
        rank = rank or expand * self.size
        self.mixed = [keys, keys, values]
        self.splits = [sum(self.mixed), rank, rank, heads]
        self.project = nn.Linear(width, sum(self.splits), bias=False)
        self.conv = ShortConvolution(sum(self.mixed), size=conv_size, bias=False)
        self.forget, self.gate = nn.Linear(rank, keys, bias=False), nn.Linear(rank, values)
        self.fading = Fading(heads, self.size, slowest=1.0)
        self.norm = RMSNorm(values // heads)
        self.out = nn.Linear(values, width, bias=False)
        self.scan = Scan()

    def initial_state(self, batch: int) -> DeltaState:
        """Nothing remembered, nothing seen: zeros."""
        return self.conv.initial_state(batch), self.zeros(batch, self.heads, self.size, len(self.norm.weight))

    def mix(self, x: Float[Tensor, "B T D"], state: DeltaState, clock: Clock | None) -> tuple[Tensor, DeltaState]:
        """Project, convolve, fade and correct the memory, normalise, then gate."""
        past, memory = state
        mixed, forget, gate, write = self.project(x).split(self.splits, -1)
        mixed, past = self.conv(mixed, past, clock)
        query, key, value = (part.unflatten(-1, (self.heads, -1)) for part in mixed.split(self.mixed, -1))
        write = self.strength * write.to(memory.dtype).sigmoid()
        log_decay = self.fading(self.forget(forget)).unflatten(-1, (self.heads, -1))
        read, memory = self.scan(correction(query, key, value, write, log_decay), memory, clock)
        # as a matrix, to which torch adds the bias while it multiplies
        gate = self.gate(gate.flatten(0, 1)).unflatten(0, x.shape[:2])
        return self.out(self.norm.gated(read, gate, torch.sigmoid)), (past, memory)
