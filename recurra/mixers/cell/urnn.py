"""The recurrent network whose matrix is unitary."""

import torch
from torch import nn

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Cell, Rule, Scan, Vectors
from recurra.parts.heads import divide
from recurra.parts.init import glorot
from recurra.parts.operators import FourierUnitary
from recurra.shapes import Float, Tensor

# inside the root, so that a unit at rest has a gradient
REST = 1e-5


def urnn(drive: Vectors, recur: Vectors, state: Vectors, bias: Tensor) -> tuple[Tensor, Vectors]:
    """A complex unit is two real ones. Both are given twice: its own half, and the half that makes it whole."""
    own, other = (x + r for x, r in zip(drive, recur, strict=True))
    length = torch.sqrt(own * own + other * other + REST)
    h = own * torch.relu(length + bias) / length
    return h, (h,)


URNN_RULE = Rule("urnn", urnn, 2, 2, params=1)


class URNN(Mixer):
    r"""A recurrent network of complex numbers that each step turns without making them longer or shorter.

    .. math::
        z_t = V x_t + W h_{t-1} \qquad h_t = \operatorname{relu}(\lvert z_t \rvert + b) \frac{z_t}{\lvert z_t \rvert}
        \qquad y_t = (\operatorname{Re} h_t, \operatorname{Im} h_t)

    .. math::  W = D_3 R_2 \mathcal F^{-1} D_2 \Pi R_1 \mathcal F D_1

    with D diagonals of phases, R complex mirrors, F the unitary Fourier transform and :math:`\Pi` a permutation drawn
    once: W has about 7 D / 2 parameters. Arjovsky et al. 2016, https://arxiv.org/abs/1511.06464. Unlike the paper the
    first state is zero and not learned, and what follows reads the state itself. As in the authors' code V starts as
    Glorot & Bengio 2010 and b even within 0.01; :math:`10^{-5}` is added inside the root that makes
    :math:`\lvert z \rvert`.
    State: (h,), `(B, D)`: D / 2 real parts, then the imaginary ones; float32.

    Args:
        width: features in and out, two for each complex unit (D).

    Raises:
        ValueError: `width` is odd.
    """

    undecayed = ("operator.angles", "operator.mirrors")

    def __init__(self, width: int) -> None:
        super().__init__()
        units = divide(width, 2, among="a complex number's parts")
        self.input_weight = nn.Parameter(glorot(2, units, width))
        self.bias = nn.Parameter(torch.empty(units).uniform_(-0.01, 0.01))
        self.operator = FourierUnitary(units)
        self.scan = Scan()

    def initial_state(self, batch: int) -> tuple[Float[Tensor, "B D"]]:
        return (self.zeros(batch, len(self.input_weight)),)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "B D"]], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Float[Tensor, "B D"]]]:
        matrix, half = self.operator(), len(self.bias)
        both = torch.stack([matrix, matrix.roll(half, 0)])[:, None]
        entering = torch.cat([self.input_weight, self.input_weight.roll(half, 0)])
        record = Cell(URNN_RULE, x, both, self.bias.repeat(2)[None], input_weight=entering)
        return self.scan(record, state, clock)
