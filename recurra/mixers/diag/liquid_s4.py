"""Liquid-S4: a diagonal state space whose rates move with its input."""

import torch
from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Liquid, Scan
from recurra.parts.gates import bent
from recurra.parts.state_space import DiagonalStateSpace
from recurra.shapes import Float, Inexact, Tensor


class LiquidS4(Mixer):
    r"""A diagonal state space whose forgetting moves with its input: it is written, and scales what is there.

    .. math::
        h_t = (\bar a + \bar b \odot g(u_t)) \odot h_{t-1} + \bar b\, u_t
        \qquad
        s_t = 2 \operatorname{Re} (c^\top h_t) + d\, u_t
        \qquad
        y_t = \operatorname{GLU}(W \operatorname{gelu}(s_t) + \beta)

    for every feature by itself, with :math:`\bar a = e^{\Delta A}` and :math:`\bar b = (e^{\Delta A} - 1) / A` as in
    S4D. Hasani et al. 2023, https://arxiv.org/abs/2209.12951. This is the paper's recurrence itself, not its series in
    products of inputs, which the authors train with and cut after some degree. Unlike the paper, the input in the
    transition is held within :math:`m = (1 - |\bar a|) / |\bar b|`, by :math:`g(u) = m \tanh(u / m)`: so
    :math:`|\bar a + \bar b g(u)| \le 1` whatever comes in, and a stream may run for ever; for small inputs g(u) is u.
    State: h, `(B, D, N/2)`, complex64; from "real" `(B, D, N)`, float32.

    Args:
        width: features in and out (D).
        units: states of each feature (N), each conjugate counted; even, or any number from "real".
        start: where A starts: "lin", "inv", "legs" or "real", as in S4D.

    Raises:
        ValueError: `start` is another, or `units` is odd where states are complex.
    """

    undecayed = ("space.log_rate", "space.frequency")

    def __init__(self, width: int, *, units: int = 64, start: str = "legs") -> None:
        super().__init__()
        self.space = DiagonalStateSpace(width, units, start=start)
        self.out = nn.Linear(width, 2 * width)
        self.scan = Scan()

    def initial_state(self, batch: int) -> Inexact[Tensor, "B D N"]:
        return self.space.initial_state(batch)

    def mix(
        self, x: Float[Tensor, "B T D"], state: Inexact[Tensor, "B D N"], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], Inexact[Tensor, "B D N"]]:
        log_decay, write, read = self.space.coefficients()
        limit = -torch.expm1(log_decay.real) / write.abs()
        y, state = self.scan(Liquid(x, log_decay.exp(), write, limit, read), state, clock)
        return F.glu(self.out(bent(y, x, self.space.skip)), -1), state
