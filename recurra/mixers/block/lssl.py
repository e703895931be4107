"""The linear state-space layer."""

import torch
from torch import nn
from torch.nn import functional as F

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import LinearSystem, Scan
from recurra.parts.hippo import legs
from recurra.parts.init import log_step_
from recurra.shapes import Float, Tensor, wide


class LSSL(Mixer):
    r"""Every feature is kept as a polynomial of its past, at a time scale of its own, and read in several ways.

    .. math::
        h_t = (1 - \tfrac{\Delta}{2} A)^{-1} \left( (1 + \tfrac{\Delta}{2} A) h_{t-1} + \Delta\, b\, u_t \right)
        \qquad
        s_t = C h_t + d\, u_t
        \qquad
        y_t = W \operatorname{gelu}(s_t) + \beta

    for every feature by itself, with a step :math:`\Delta`, M rows of C and M numbers d of its own; A and b are those
    of HiPPO-LegS, the same for all. Gu et al. 2021, https://arxiv.org/abs/2110.13985. Unlike the paper's larger variant
    A is not trained (this is its LSSL-fixed) while the steps are; the state handed on is h and not A h; norm, dropout
    and skip are left to the block. The step is one for all time: no `dt`. State: h, `(B, D, N)`, float32.

    Args:
        width: features in and out (D).
        units: states of each feature (N).
        channels: numbers that each feature is read as (M).

    Raises:
        ValueError: `units` or `channels` is less than 1.
    """

    def __init__(self, width: int, *, units: int = 64, channels: int = 1) -> None:
        super().__init__()
        at_least(1, units=units, channels=channels)
        self.read = nn.Parameter(torch.randn(width, channels, units))
        self.skip = nn.Parameter(torch.randn(width, channels))
        self.log_step = nn.Parameter(torch.empty(width))
        self.out = nn.Linear(width * channels, width)
        self.scan = Scan()
        log_step_(self.log_step)

    def initial_state(self, batch: int) -> Float[Tensor, "B D N"]:
        return self.zeros(batch, len(self.log_step), self.read.shape[-1])

    def mix(
        self, x: Float[Tensor, "B T D"], state: Float[Tensor, "B D N"], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B D N"]]:
        real = wide(x, self.read)
        matrix, write = self._discrete(real)
        y, state = self.scan(LinearSystem(x, matrix, write, self.read.to(real)), state, clock)
        y = y + self.skip * x[..., None]
        return self.out(F.gelu(y).flatten(2)), state

    def _discrete(self, real: torch.dtype) -> tuple[Float[Tensor, "D N N"], Float[Tensor, "D N"]]:
        """The trapezoid's rule, in float64: a buffer would be rounded whenever the parameters' type is."""
        rate = legs(self.read.shape[-1]).to(self.read.device)
        half = (self.log_step.double().exp() / 2)[:, None, None] * rate
        identity = torch.eye(len(rate), dtype=rate.dtype, device=rate.device)
        # b is minus the first column of A: what A makes of the polynomial that is constant
        right = torch.cat([identity + half, -2 * half[..., :1]], -1)
        solution = torch.linalg.solve_triangular(identity - half, right, upper=False).to(real)
        return solution[..., :-1], solution[..., -1]
