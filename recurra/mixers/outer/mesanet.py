"""MesaNet: linear attention whose read solves, at every step, the regression that its writes only added up."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import LeastSquares, Scan
from recurra.parts.conv import ShortConvolution
from recurra.parts.heads import divide
from recurra.parts.norms import RMSNorm, unit
from recurra.shapes import Float, Tensor

MesaState = tuple[Float[Tensor, "B J M"], Float[Tensor, "B H K W"]]


class MesaNet(Mixer):
    r"""A memory that answers a query by the best linear map from all keys to all values so far, not by their sum.

    .. math::
        G_t = \alpha_t G_{t-1} + \beta_t k_t k_t^\top \qquad
        S_t = \alpha_t S_{t-1} + \beta_t k_t v_t^\top \qquad
        y_t = W_o \operatorname{norm}\bigl(S_t^\top (G_t + \operatorname{diag}(\Lambda))^{-1} q_t\bigr)

    .. math::
        \alpha_t = \sigma(W_\alpha x_t + b_\alpha) \qquad \beta_t = \sigma(W_\beta x_t + b_\beta) \qquad
        \Lambda = \operatorname{softplus}(\lambda) + 1/4

    with q and k linear in x, then a short convolution with SiLU, then of length one (1e-6 inside the root); v linear;
    one :math:`\alpha` and :math:`\beta` a head, one :math:`\Lambda`, starting at 1, a channel; norm an RMSNorm of each
    head. Source: von Oswald et al. 2025, https://arxiv.org/abs/2506.05233. Unlike the paper, whose conjugate
    gradients stop after a given number of iterations, every step is solved to rounding (directly in C, else by
    iterations that go on until its residual is of that size): a single step and a long scan then give the same.

    State: the convolution's past, `(B, conv_size - 1, 2 * width)`, and G and S side by side, `(B, H, K, K + V)`,
    float32 (float64 if the parameters are), K = V = width / heads.

    Args:
        width: features in and out (D).
        heads: independent memories (H); divides `width`.
        conv_size: inputs that the short convolution sees at each step.

    Raises:
        ValueError: `heads` does not divide `width`.
    """

    undecayed = ("ridge",)

    def __init__(self, width: int, *, heads: int = 4, conv_size: int = 4) -> None:
        super().__init__()
        self.heads, self.size = heads, divide(width, heads)
        self.project = nn.Linear(width, 3 * width, bias=False)
        self.gates = nn.Linear(width, 2 * heads)
        self.conv = ShortConvolution(2 * width, size=conv_size, bias=False)
        self.ridge = nn.Parameter(torch.full((heads, self.size), math.log(math.expm1(0.75))))
        self.norm = RMSNorm(self.size)
        self.out = nn.Linear(width, width, bias=False)
        self.scan = Scan()

    def initial_state(self, batch: int) -> MesaState:
        """Nothing remembered, nothing seen: zeros."""
        return self.conv.initial_state(batch), self.zeros(batch, self.heads, self.size, 2 * self.size)

    def mix(self, x: Float[Tensor, "B T D"], state: MesaState, clock: Clock | None) -> tuple[Tensor, MesaState]:
        """Project, convolve, remember, solve, normalise."""
        past, memory = state
        mixed, value = self.project(x).split([2 * x.shape[-1], x.shape[-1]], -1)
        mixed, past = self.conv(mixed, past, clock)
        query, key = unit(mixed.unflatten(-1, (2, self.heads, self.size))).unbind(2)
        forget, write = self.gates(x).to(memory.dtype).chunk(2, -1)
        ridge = F.softplus(self.ridge.to(memory.dtype)) + 0.25
        value = value.unflatten(-1, (self.heads, self.size))
        record = LeastSquares(query, key, value, write.sigmoid(), ridge, F.logsigmoid(forget))
        read, memory = self.scan(record, memory, clock)
        return self.out(self.norm(read).flatten(-2)), (past, memory)
