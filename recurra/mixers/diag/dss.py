"""Diagonal state spaces."""

import torch
from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Scan, StateSpace
from recurra.ops.discretise import zero_order_hold
from recurra.parts.init import log_step_
from recurra.parts.state_space import rates
from recurra.shapes import Float, Inexact, Tensor, wide

TINY = 1e-7


class DSS(Mixer):
    r"""A long memory for every feature, of damped waves whose rates all features share and run through at own speeds.

    .. math::
        h_t = e^{\Delta \lambda} \odot h_{t-1} + u_t
        \qquad
        s_t = \operatorname{Re} \sum_n c_n \frac{e^{\Delta \lambda_n} - 1}{\lambda_n\, r_n} h_{tn} + d\, u_t
        \qquad
        y_t = W \operatorname{gelu}(s_t) + \beta

    for every feature by itself; :math:`\lambda = -e^{\rho} + i \omega` is shared by all, :math:`\Delta` and c are not.
    Gupta et al. 2022, https://arxiv.org/abs/2203.14343. In the exp form r is 1. In the softmax form
    :math:`r_n = e^{\Delta \lambda_n L} - 1`, so that a unit's weights over L steps sum to 1 before c: that scale, and
    nothing else, is tied to a length. L is an argument here and stays as it is, whatever the length of the sequence;
    the reciprocal of :math:`\lambda r` is regularised as in the paper's appendix, its square by :math:`10^{-7}`. Unlike
    the paper, the softmax form too keeps the real part of :math:`\lambda` below zero: a wave that grows cannot be
    streamed for ever. Both start at the eigenvalues of the normal part of HiPPO-LegS that turn one way. State: h,
    `(B, D, N)`, complex64.

    Args:
        width: features in and out (D).
        units: complex states of each feature (N).
        length: None: the exp form; L, in steps: the softmax form.

    Raises:
        ValueError: `length` is less than 1.
    """

    undecayed = ("read",)

    def __init__(self, width: int, *, units: int = 64, length: int | None = None) -> None:
        super().__init__()
        if length is not None and length < 1:
            raise ValueError(f"length is {length}: it must be at least one step, or None for the exp form")
        self.length = length
        rate, frequency = rates("legs", 2 * units)
        assert frequency is not None
        self.log_rate, self.frequency = nn.Parameter(rate.log().float()), nn.Parameter(frequency.float())
        self.log_step = nn.Parameter(torch.empty(width))
        self.read = nn.Parameter(torch.randn(width, units, 2))
        self.skip = nn.Parameter(torch.randn(width))
        self.out = nn.Linear(width, width)
        self.scan = Scan()
        log_step_(self.log_step)

    def initial_state(self, batch: int) -> Inexact[Tensor, "B D N"]:
        zeros = self.zeros(batch, *self.read.shape[:2])
        return torch.complex(zeros, zeros)

    def mix(
        self, x: Float[Tensor, "B T D"], state: Inexact[Tensor, "B D N"], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], Inexact[Tensor, "B D N"]]:
        parts = (self.log_rate, self.frequency, self.log_step, self.read)
        log_rate, frequency, log_step, read = (p.to(wide(x)) for p in parts)
        rate, step = torch.complex(-log_rate.exp(), frequency), log_step.exp()[:, None]
        log_decay, (_, write) = rate * step, zero_order_hold(rate, step)
        if self.length is not None:
            scale = torch.expm1(log_decay * self.length) * rate
            write = write * rate * scale.conj() / (scale.abs().square() + TINY)
        record = StateSpace(x, log_decay, torch.view_as_complex(read) * write, self.skip.to(log_rate))
        y, state = self.scan(record, state, clock)
        return self.out(F.gelu(y)), state
