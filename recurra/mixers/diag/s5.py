"""S5: one state space for all features."""

import torch
from torch import nn

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Diag, Scan
from recurra.ops.discretise import zero_order_hold
from recurra.parts.gates import bent, opened
from recurra.parts.hippo import legs_normal
from recurra.parts.init import log_step_
from recurra.parts.pairs import entering, leaving
from recurra.shapes import Float, Inexact, Tensor, wide


class S5(Mixer):
    r"""One long memory for all features together, in continuous time: steps may be of any length.

    .. math::
        h_t = \bar\lambda_t \odot h_{t-1} + \frac{\bar\lambda_t - 1}{\lambda} \odot B x_t
        \qquad
        s_t = 2 \operatorname{Re}(C h_t) + d \odot x_t
        \qquad
        g_t = \operatorname{gelu}(s_t)
        \qquad
        y_t = g_t \odot \sigma(W g_t)

    with :math:`\bar\lambda_t = e^{\lambda\, \Delta\, \tau_t}`, :math:`\lambda = -e^{\rho} + i \omega`, a step
    :math:`\Delta` of each unit's own, and :math:`\tau_t` the clock's `dt`, 1 where it is not given. Smith et al. 2023,
    https://arxiv.org/abs/2208.04933. The states stand for themselves and their conjugates. They start as the normal
    part of HiPPO-LegS, once for every block, and B and C as normal matrices seen through its eigenvectors. Unlike the
    paper the norm and the skip around the layer are left to the block. State: h, `(B, N/2)`, complex64.

    Args:
        width: features in and out (D).
        units: states (N), each conjugate counted; as many as `width` if not given.
        blocks: that the states start in; twice their number divides `units`.

    Raises:
        ValueError: `units` is not a multiple of twice `blocks`.
    """

    timed = True

    def __init__(self, width: int, *, units: int | None = None, blocks: int = 1) -> None:
        super().__init__()
        units = width if units is None else units
        if blocks < 1 or units % (2 * blocks):
            raise ValueError(f"units is {units}: it must be a multiple of twice blocks, which is {2 * blocks}")
        half, size = units // 2, units // blocks
        frequency, vectors = legs_normal(size)
        # one of each pair, and V of every block: what is before it is in the states, what is after in polynomials
        frequency, vectors = frequency[size // 2 :], vectors[:, size // 2 :]
        vectors = torch.block_diag(*[vectors] * blocks)
        self.log_rate = nn.Parameter(torch.full((half,), 0.5).log())
        self.frequency = nn.Parameter(frequency.float().repeat(blocks))
        self.log_step = nn.Parameter(torch.empty(half))
        # real parts, then imaginary parts
        self.write = nn.Linear(width, units, bias=False)
        self.read = nn.Linear(units, width, bias=False)
        self.skip = nn.Parameter(torch.randn(width))
        self.gate = nn.Linear(width, width, bias=False)
        self.scan = Scan()
        log_step_(self.log_step)
        with torch.no_grad():
            write = vectors.mH @ (torch.randn(units, width) * width**-0.5).to(vectors)
            read = (torch.randn(width, units) * units**-0.5).to(vectors) @ vectors
            self.write.weight.copy_(torch.cat([write.real, write.imag], 0))
            self.read.weight.copy_(2 * torch.cat([read.real, -read.imag], 1))

    def initial_state(self, batch: int) -> Inexact[Tensor, "B N"]:
        zeros = self.zeros(batch, len(self.log_rate))
        return torch.complex(zeros, zeros)

    def mix(
        self, x: Float[Tensor, "B T D"], state: Inexact[Tensor, "B N"], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], Inexact[Tensor, "B N"]]:
        real = wide(x)
        log_rate, frequency, log_step = (p.to(real) for p in (self.log_rate, self.frequency, self.log_step))
        step = log_step.exp()
        if clock is not None and clock.dt is not None:
            step = clock.dt.to(real)[..., None] * step
        decay, weight = zero_order_hold(torch.complex(-log_rate.exp(), frequency), step)
        h, state = self.scan(Diag(decay, entering(x, self.write, weight)), state, clock)
        y = bent(leaving(h, self.read, x.dtype), x, self.skip)
        return opened(y, self.gate(y)), state
