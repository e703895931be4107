"""The structured state space: HiPPO's matrix, as a diagonal and an outer product."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import DiagonalPlusLowRank, Scan
from recurra.parts.gates import bent
from recurra.parts.hippo import legs_normal
from recurra.parts.init import log_step_
from recurra.shapes import Float, Inexact, Tensor, wide


class S4(Mixer):
    r"""A long memory for every feature, which starts as the best polynomial of all that the feature was.

    .. math::
        h_t = (1 - \tfrac{\Delta_t}{2} A)^{-1} \left( (1 + \tfrac{\Delta_t}{2} A) h_{t-1} + \Delta_t\, b\, u_t \right)
        \qquad A = \operatorname{diag}(-e^{\rho} + i \omega) - p p^*
    .. math::
        s_t = 2 \operatorname{Re} \sum_n c_n h_{tn} + d\, u_t
        \qquad
        y_t = \operatorname{GLU}(W \operatorname{gelu}(s_t) + \beta)

    for every feature by itself, with :math:`\Delta_t` the feature's own step times the clock's `dt`, 1 where it is not
    given. Gu et al. 2022, https://arxiv.org/abs/2111.00396. It starts as HiPPO-LegS seen through the eigenvectors of
    its normal part; each state stands for its conjugate too. Unlike the paper c is trained itself, not a form of it
    that holds for one length, and no kernel is as long as the sequence: steps of one length run as blocks, with the
    kernel of a block, and others one by one. Norm, dropout and skip are left to the block.
    State: h, `(B, D, N/2)`, complex64.

    Args:
        width: features in and out (D).
        units: states of each feature (N), each conjugate counted; even.

    Raises:
        ValueError: `units` is not even, or less than 2.
    """

    timed = True
    undecayed = ("log_rate", "frequency", "low", "write")

    def __init__(self, width: int, *, units: int = 64) -> None:
        super().__init__()
        if units < 2 or units % 2:
            raise ValueError(f"units is {units}: states that come with their conjugates are an even number, at least 2")
        frequency, vectors = legs_normal(units)
        # one of each pair of conjugates
        frequency, vectors = frequency[units // 2 :], vectors[:, units // 2 :]
        index = torch.arange(units, dtype=torch.float64)
        low, write = (vectors.mH @ x.sqrt().to(vectors) for x in (index + 0.5, 2 * index + 1))

        def each(x: Tensor) -> nn.Parameter:
            return nn.Parameter(x.float().expand(width, *x.shape).clone())

        self.log_rate = each(torch.full_like(frequency, 0.5).log())
        self.frequency = each(frequency)
        # real and imaginary parts
        self.low = each(torch.view_as_real(low))
        self.write = each(torch.view_as_real(write))
        self.read = nn.Parameter(torch.randn(width, units // 2, 2) * math.sqrt(0.5))
        self.log_step = nn.Parameter(torch.empty(width))
        self.skip = nn.Parameter(torch.randn(width))
        self.out = nn.Linear(width, 2 * width)
        self.scan = Scan()
        log_step_(self.log_step)

    def initial_state(self, batch: int) -> Inexact[Tensor, "B D N"]:
        zeros = self.zeros(batch, *self.log_rate.shape)
        return torch.complex(zeros, zeros)

    def mix(
        self, x: Float[Tensor, "B T D"], state: Inexact[Tensor, "B D N"], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], Inexact[Tensor, "B D N"]]:
        real = wide(x, self.log_rate)
        step, rate, frequency = (p.to(real) for p in (self.log_step.exp(), self.log_rate.exp(), self.frequency))
        if clock is not None and clock.dt is not None:
            step = clock.dt.to(real)[..., None] * step
        low, write, read = (torch.view_as_complex(p.to(real)) for p in (self.low, self.write, self.read))
        record = DiagonalPlusLowRank(x, step, torch.complex(-rate, frequency), low, write, read)
        y, state = self.scan(record, state, clock)
        return F.glu(self.out(bent(y, x, self.skip)), -1), state
