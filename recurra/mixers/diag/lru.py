"""The linear recurrent unit."""

import math

import torch
from torch import nn

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Diag, Scan
from recurra.parts.init import ring_
from recurra.parts.pairs import entering, leaving
from recurra.shapes import Float, Inexact, Tensor, wide


class LRU(Mixer):
    r"""A linear recurrence whose units are spirals: each turns and shrinks by its own learned, constant factor.

    .. math::
        h_t = \lambda \odot h_{t-1} + e^{\gamma} \odot B x_t
        \qquad
        y_t = \operatorname{Re}(C h_t) + d \odot x_t
        \qquad
        \lambda = \exp(-e^{\nu} + i e^{\theta})

    Orvieto et al. 2023, https://arxiv.org/abs/2303.06349. B and C are complex, kept as real matrices; :math:`\lambda`
    starts even over a ring, and :math:`\gamma` at :math:`\tfrac12 \log(1 - |\lambda|^2)`, trained from there. Unlike
    the paper's block the norm, the gated linear unit and the skip around it are not part of this layer: blocks bring
    them. State: h, `(B, N)`, complex64.

    Args:
        width: features in and out (D).
        units: complex units (N); as many as `width` if not given.
        smallest: smallest radius of the ring that :math:`\lambda` starts on.
        largest: largest radius; 0.999 with a smallest of 0.9 suits long sequences.
        phase: largest angle in radians; less makes slower turns.

    Raises:
        ValueError: the radii do not satisfy 0 <= smallest < largest <= 1.
    """

    def __init__(
        self,
        width: int,
        *,
        units: int | None = None,
        smallest: float = 0.0,
        largest: float = 1.0,
        phase: float = 2 * math.pi,
    ) -> None:
        super().__init__()
        if not 0 <= smallest < largest <= 1:
            raise ValueError(f"the radii are {smallest} and {largest}: they must satisfy 0 <= smallest < largest <= 1")
        units = width if units is None else units
        self.log_rate, self.log_phase, self.log_scale = (nn.Parameter(torch.empty(units)) for _ in range(3))
        # real parts, then imaginary parts
        self.write = nn.Linear(width, 2 * units, bias=False)
        self.read = nn.Linear(2 * units, width, bias=False)
        self.skip = nn.Parameter(torch.randn(width))
        self.scan = Scan()
        ring_(self.log_rate, self.log_phase, smallest, largest, phase)
        with torch.no_grad():
            # 1 - |lambda|^2 by expm1: a radius near 1 must not round to a scale of 0
            self.log_scale.copy_(0.5 * (-torch.expm1(-2 * self.log_rate.exp())).log())
            self.write.weight.normal_(0, (2 * width) ** -0.5)
            self.read.weight.normal_(0, units**-0.5)

    def initial_state(self, batch: int) -> Inexact[Tensor, "B N"]:
        zeros = self.zeros(batch, len(self.log_rate))
        return torch.complex(zeros, zeros)

    def mix(
        self, x: Float[Tensor, "B T D"], state: Inexact[Tensor, "B N"], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], Inexact[Tensor, "B N"]]:
        rate, phase, scale = (p.to(wide(x)) for p in (self.log_rate, self.log_phase, self.log_scale))
        decay = torch.polar((-rate.exp()).exp(), phase.exp())
        h, state = self.scan(Diag(decay, entering(x, self.write, scale.exp())), state, clock)
        return leaving(h, self.read, x.dtype, sign=-1) + self.skip * x, state
