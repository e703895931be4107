"""Mamba's selective state space."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Scan, Selective
from recurra.parts.conv import ShortConvolution
from recurra.parts.gates import skipping
from recurra.parts.init import step_bias_
from recurra.shapes import Float, State, Tensor, wide


class Mamba(Mixer):
    r"""A state space that chooses, by its input, what to write, what to read and how long to remember.

    .. math::
        (x_t, z_t) = W_i u_t \qquad x_t \leftarrow \operatorname{silu}(\operatorname{conv}(x)_t)
        \qquad (\delta_t, B_t, C_t) = W_x x_t
        \qquad \Delta_t = \operatorname{softplus}(W_\Delta \delta_t + \beta)
        \\
        h_t = e^{\Delta_t A} \odot h_{t-1} + \Delta_t x_t B_t^\top
        \qquad
        y_t = W_o\bigl((h_t C_t + d \odot x_t) \odot \operatorname{silu}(z_t)\bigr)

    with :math:`A = -e^{\text{log rate}}`, Gu & Dao 2023, https://arxiv.org/abs/2312.00752. As in the authors' code,
    and unlike the paper's equation 4, the write is :math:`\Delta B` and not the exact integral. State: the
    convolution's last inputs `(B, J-1, E)` and h `(B, E, N)`, float32.

    Args:
        width: features in and out (D).
        expand: inner features as a multiple of `width` (E).
        units: states of each inner feature (N).
        rank: of the projection that the step size passes through; a sixteenth of `width` if not given.
        conv: inputs that the short convolution sees (J).
    """

    undecayed = ("log_rate",)

    def __init__(self, width: int, *, expand: int = 2, units: int = 16, rank: int | None = None, conv: int = 4) -> None:
        super().__init__()
        inner, rank = expand * width, math.ceil(width / 16) if rank is None else rank
        self.parts = (rank, units, units)
        self.inputs = nn.Linear(width, 2 * inner, bias=False)
        self.conv = ShortConvolution(inner, size=conv)
        self.select = nn.Linear(inner, sum(self.parts), bias=False)
        self.step = nn.Linear(rank, inner)
        self.log_rate = nn.Parameter(torch.arange(1.0, units + 1).log().repeat(inner, 1))
        self.skip = nn.Parameter(torch.ones(inner))
        self.out = nn.Linear(inner, width, bias=False)
        self.scan = Scan()
        nn.init.uniform_(self.step.weight, -(rank**-0.5), rank**-0.5)
        step_bias_(self.step.bias)

    def initial_state(self, batch: int) -> State:
        return self.conv.initial_state(batch), self.zeros(batch, *self.log_rate.shape)

    def mix(self, x: Float[Tensor, "B T D"], state: State, clock: Clock | None) -> tuple[Float[Tensor, "B T D"], State]:
        past, h = state
        x, gate = self.inputs(x).chunk(2, -1)
        x, past = self.conv(x, past, clock)
        step, write, query = self.select(x).split(self.parts, -1)
        real = wide(x)
        step, rate = F.softplus(self.step(step).to(real)), -self.log_rate.to(real).exp()
        read, h = self.scan(Selective(x, step, rate, write, query), h, clock)
        return self.out(skipping(read, x, gate, self.skip)), (past, h)
