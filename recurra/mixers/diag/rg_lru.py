"""The real-gated linear recurrent unit in the block of Hawk and Griffin."""

import torch
from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Diag, Scan
from recurra.ops.pointwise import Map, pointwise
from recurra.ops.shift import shift
from recurra.parts.blocks import BlockLinear
from recurra.parts.conv import ShortConvolution
from recurra.shapes import Float, State, Tensor, wide

SHARPNESS = 8.0
STEEPEST = 1000.0


def root(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The square root, with a slope of at most 1000: at 0 it has none."""
    least = (0.5 / STEEPEST) ** 2
    flat = x.detach().sqrt() + STEEPEST * (x - x.detach())
    return torch.where(x < least, flat, x.clamp(min=least).sqrt())


def _coefficients(u: Tensor, slow: Tensor, write: Tensor, before: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
    """What is kept, and what is written: whole where nothing was before."""
    log_decay = -SHARPNESS * slow.sigmoid() * rate
    scale = torch.where(before > 0, root(-torch.expm1(2 * log_decay)), 1)
    return log_decay.exp(), scale * write.sigmoid() * u


def _gated(read: Tensor, gate: Tensor) -> Tensor:
    return read * F.gelu(gate, approximate="tanh")


COEFFICIENTS, GATED = Map("rg_lru", _coefficients, 2), Map("gelu_gated", _gated)


class RGLRU(Mixer):
    r"""A linear recurrence of decays that the input may slow down, beside a gate: Hawk's block, and Griffin's.

    .. math::
        u_t = \operatorname{conv}(W_x x + \beta_x)_t \qquad
        r_t = \sigma(A u_t + \alpha) \qquad i_t = \sigma(C u_t + \gamma) \qquad
        a_t = \exp(-8\, r_t \odot \operatorname{softplus}(\Lambda))
        \\
        h_t = a_t \odot h_{t-1} + \sqrt{1 - a_t^2} \odot i_t \odot u_t \qquad
        y_t = W_o (h_t \odot \operatorname{gelu}(W_y x_t + \beta_y)) + \beta_o

    with block-diagonal A and C. A sequence's first step is written whole, without the root. De et al. 2024,
    https://arxiv.org/abs/2402.19427; Griffin is "rg_lru*2,sliding_window". :math:`\Lambda` starts as in the authors'
    code, with :math:`e^{-2 \operatorname{softplus}(\Lambda)}` even in :math:`[0.9^2, 0.999^2]`; the paper's text has
    :math:`a^8` in [0.9, 0.999], where the code has a. As in the code, the slope of the root is at most 1000.
    State: the convolution's last inputs `(B, J-1, N)`, whether the sequence has begun `(B, 1)`, as 0 or 1, and h
    `(B, N)`; float32.

    Args:
        width: features in and out (D).
        units: of the recurrence (N); as many as `width` if not given.
        blocks: of A and C; divides `units`.
        conv: inputs that the short convolution sees (J).

    Raises:
        ValueError: `blocks` does not divide the units.
    """

    def __init__(self, width: int, *, units: int | None = None, blocks: int = 4, conv: int = 4) -> None:
        super().__init__()
        units = width if units is None else units
        if units % blocks:
            raise ValueError(f"units is {units}: it must be a multiple of blocks, which is {blocks}")
        self.inputs, self.gate = nn.Linear(width, units), nn.Linear(width, units)
        self.conv = ShortConvolution(units, size=conv, silu=False)
        self.write, self.slow = (BlockLinear(units, blocks, bias=True) for _ in range(2))
        for blocked in (self.write, self.slow):
            nn.init.normal_(blocked.weight, 0, (blocks / units) ** 0.5)
        kept = torch.empty(units).uniform_(0.9**2, 0.999**2).sqrt()
        # softplus of this is -log of what a step keeps when r is 1/8
        self.rate = nn.Parameter((1 / kept - 1).log())
        self.out = nn.Linear(units, width)
        self.scan = Scan()

    def initial_state(self, batch: int) -> State:
        """Not begun: zeros."""
        return self.conv.initial_state(batch), self.zeros(batch, 1), self.zeros(batch, len(self.rate))

    def mix(self, x: Float[Tensor, "B T D"], state: State, clock: Clock | None) -> tuple[Float[Tensor, "B T D"], State]:
        past, begun, h = state
        gate = self.gate(x)
        u, past = self.conv(self.inputs(x), past, clock)
        real = wide(u)
        before, begun = shift(torch.ones_like(u[..., :1], dtype=real), begun, clock)
        rate = F.softplus(self.rate.to(real))
        kept, write = pointwise(COEFFICIENTS, u, self.slow(u).to(real), self.write(u), before, rate)
        read, h = self.scan(Diag(kept, write), h, clock)
        return self.out(pointwise(GATED, read.to(gate.dtype), gate)), (past, begun, h)
