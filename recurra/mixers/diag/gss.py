"""Gated state spaces."""

import torch
from torch import nn
from torch.nn import functional as F

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Scan, StateSpace
from recurra.ops.discretise import zero_order_hold
from recurra.parts.gates import geglu
from recurra.shapes import Float, Inexact, Tensor, wide


class GSS(Mixer):
    r"""A narrow layer of long memories that gates a wide layer of none.

    .. math::
        u_t = \operatorname{norm}(\operatorname{gelu}(W_u x_t)) \qquad h_t = e^{\lambda} \odot h_{t-1} + u_t
        \qquad
        s_t = \operatorname{Re} \sum_n c_n \frac{e^{\lambda_n} - 1}{\lambda_n} h_{tn} + d \odot u_t
        \\
        y_t = W_o \bigl(W_s s_t \odot \operatorname{gelu}(W_v x_t)\bigr) + \beta

    with N states for each of the M features of u, :math:`\lambda = -e^{\rho} + i e^{\theta}` shared by all of them and
    without a step size; norm is a layer norm. Mehta et al. 2022, https://arxiv.org/abs/2206.13947. The kernel and the
    norm before it are those of gated-state-spaces-pytorch, an independent reading of the paper's pseudocode; the
    authors' code was not at hand. :math:`\rho`, :math:`\theta`, c and d start normal. Unlike the paper's models, with
    512 states, there are 64, and the norm of x and the residual around it are left to the block. Nothing is tied to a
    length. State: h, `(B, M, N)`, complex64.

    Args:
        width: features in and out (D).
        units: complex states of each narrow feature (N).
        narrow: features with memories (M); a quarter of `width` if not given.
        expand: features of the wide layer, as a multiple of `width`.

    Raises:
        ValueError: `narrow` is less than 1.
    """

    undecayed = ("read",)

    def __init__(self, width: int, *, units: int = 64, narrow: int | None = None, expand: int = 4) -> None:
        super().__init__()
        narrow = max(width // 4, 1) if narrow is None else narrow
        at_least(1, narrow=narrow)
        self.narrow, self.wide = (nn.Linear(width, size, bias=False) for size in (narrow, expand * width))
        self.norm = nn.LayerNorm(narrow)
        self.log_rate, self.log_frequency = nn.Parameter(torch.randn(units)), nn.Parameter(torch.randn(units))
        self.read = nn.Parameter(torch.randn(narrow, units, 2))
        self.skip = nn.Parameter(torch.randn(narrow))
        self.gate = nn.Linear(narrow, expand * width, bias=False)
        self.out = nn.Linear(expand * width, width)
        self.scan = Scan()

    def initial_state(self, batch: int) -> Inexact[Tensor, "B M N"]:
        zeros = self.zeros(batch, *self.read.shape[:2])
        return torch.complex(zeros, zeros)

    def mix(
        self, x: Float[Tensor, "B T D"], state: Inexact[Tensor, "B M N"], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], Inexact[Tensor, "B M N"]]:
        u = self.norm(F.gelu(self.narrow(x)))
        log_rate, log_frequency, read = (p.to(wide(x)) for p in (self.log_rate, self.log_frequency, self.read))
        rate = torch.complex(-log_rate.exp(), log_frequency.exp())
        _, write = zero_order_hold(rate, torch.ones_like(log_rate))
        weight = torch.view_as_complex(read) * write
        record = StateSpace(u, rate.expand(len(read), -1), weight, self.skip.to(log_rate))
        y, state = self.scan(record, state, clock)
        return self.out(geglu(self.gate(y), self.wide(x))), state
