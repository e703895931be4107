"""Mamba-2: a state space model that is linear attention with one decay a head."""

import torch
from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Outer, Scan
from recurra.parts.conv import ShortConvolution
from recurra.parts.gates import scaled, skipping
from recurra.parts.heads import divide
from recurra.parts.init import step_bias_
from recurra.parts.norms import RMSNorm
from recurra.shapes import Float, Tensor

MambaState = tuple[Float[Tensor, "B J M"], Float[Tensor, "B H N P"]]


class Mamba2(Mixer):
    r"""A state space model whose heads each forget at one rate, chosen anew at every step.

    .. math::
        \Delta_t = \operatorname{softplus}(\delta_t + \beta) \qquad
        S_t = e^{-e^{a} \Delta_t} S_{t-1} + B_t (\Delta_t x_t)^\top \qquad
        r_t = S_t^\top C_t + d \odot x_t \qquad
        y_t = W_o \operatorname{norm}(r_t \odot \operatorname{swish}(z_t))

    Here z, :math:`\delta` and (x, B, C) are one linear projection of the input; a short convolution with SiLU goes
    over x, B and C together; a, d and :math:`\beta` are one number a head; norm is an RMSNorm of each group.
    Source: Dao & Gu 2024, https://arxiv.org/abs/2405.21060. As in the authors' code, but heads are counted, not
    fixed at 64 features each: 8 heads of width / 4 features.

    State: the convolution's past, `(B, conv_size - 1, expand * width + 2 * groups * N)`, and the memory S,
    `(B, H, N, P)` with P = expand * width / heads; float32 (float64 if the parameters are).

    Args:
        width: features in and out (D).
        heads: independent memories (H); divides `expand * width`.
        state_size: numbers remembered for each feature (N).
        expand: the inner width is `expand * width`.
        groups: heads share B and C in this many groups; divides `heads`.
        conv_size: inputs that the short convolution sees at each step.

    Raises:
        ValueError: `heads` does not divide `expand * width`, or `groups` does not divide `heads`.
    """

    def __init__(
        self,
        width: int,
        *,
        heads: int = 8,
        state_size: int = 64,
        expand: int = 2,
        groups: int = 1,
        conv_size: int = 4,
    ) -> None:
        super().__init__()
        inner = expand * width
        self.heads, self.size = heads, divide(inner, heads, of="expand * width")
        self.groups, self.sharing = groups, divide(heads, groups, of="heads", among="groups")
        self.state_size = state_size
        self.inner = [inner, groups * state_size, groups * state_size]
        self.splits = [inner, sum(self.inner), heads]
        self.project = nn.Linear(width, sum(self.splits), bias=False)
        self.conv = ShortConvolution(sum(self.inner), size=conv_size)
        self.log_rate = nn.Parameter(torch.empty(heads).uniform_(1, 16).log())
        self.step_bias = nn.Parameter(torch.empty(heads))
        self.skip = nn.Parameter(torch.ones(heads))
        self.norm = RMSNorm(inner, groups=groups)
        self.out = nn.Linear(inner, width, bias=False)
        step_bias_(self.step_bias)
        self.scan = Scan()

    def initial_state(self, batch: int) -> MambaState:
        """Nothing remembered, nothing seen: zeros."""
        return self.conv.initial_state(batch), self.zeros(batch, self.heads, self.state_size, self.size)

    def mix(self, x: Float[Tensor, "B T D"], state: MambaState, clock: Clock | None) -> tuple[Tensor, MambaState]:
        """Project, convolve, remember, gate, then normalise."""
        past, memory = state
        gate, mixed, step = self.project(x).split(self.splits, -1)
        mixed, past = self.conv(mixed, past, clock)
        value, key, query = mixed.split(self.inner, -1)
        value = value.unflatten(-1, (self.heads, -1))
        # the step, and all that follows from it, is wide: a rounded decay is wrong at every later step
        step = F.softplus(step.to(memory.dtype) + self.step_bias)
        log_decay = -self.log_rate.to(memory.dtype).exp() * step
        record = Outer(self._heads(query), self._heads(key), scaled(value, step[..., None]), log_decay)
        read, memory = self.scan(record, memory, clock)
        gate, skip = gate.unflatten(-1, (self.heads, -1)), self.skip[:, None].expand(-1, self.size)
        gated = skipping(read, value, gate, skip).flatten(-2)
        return self.out(self.norm(gated).to(x.dtype)), (past, memory)

    def _heads(self, shared: Float[Tensor, "B T GN"]) -> Float[Tensor, "B T H N"]:
        """What the heads of a group share, once for each head: a view where there is one group."""
        shared = shared.unflatten(-1, (self.groups, 1, self.state_size))
        return shared.expand(-1, -1, -1, self.sharing, -1).flatten(2, 3)
