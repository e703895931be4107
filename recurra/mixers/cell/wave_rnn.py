"""The recurrent network whose state is a ring of travelling waves."""

import torch
from torch import nn

from recurra.checks import one_of
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Cell, Scan
from recurra.ops.cell import rules
from recurra.parts.circulant import check_taps, circulant
from recurra.parts.heads import divide
from recurra.parts.linear import handed
from recurra.shapes import Float, Tensor

RULES = {"tanh": rules.ELMAN_TANH, "relu": rules.ELMAN_RELU}


class WaveRNN(Mixer):
    r"""A simple recurrent network laid out on rings, where a unit hears only its neighbours: the past runs by as waves.

    .. math::  h_t = \phi(W x_t + b + \kappa \star h_{t-1} + \beta) \qquad y_t = h_t

    with :math:`\star` a circular convolution round rings of G units, over C channels of them. Keller et al. 2024,
    https://arxiv.org/abs/2309.08045. As in the authors' code :math:`\kappa` starts as a step of one place round the
    ring, and W normal with deviation 0.001. Unlike the paper's copying networks :math:`\phi` is tanh, which is their
    code's default, unless it is asked for "relu": a relu whose :math:`\kappa` has grown beyond a step round the ring
    grows without end. State: (h,), `(B, D)`, float32, a channel's ring after the other.

    Args:
        width: features in and out, and units (D).
        channels: rings (C); divides `width`.
        taps: neighbours that a unit hears, itself counted; odd, and no more than a ring has units.
        nonlinearity: :math:`\phi`: "tanh" or "relu".

    Raises:
        ValueError: `channels` does not divide `width`, `taps` is even or longer than the ring, or `nonlinearity` is
            another.
    """

    undecayed = ("kernel",)

    def __init__(self, width: int, *, channels: int = 2, taps: int = 3, nonlinearity: str = "tanh") -> None:
        super().__init__()
        one_of(RULES, nonlinearity=nonlinearity)
        self.size = divide(width, channels, among="channels")
        check_taps(taps, self.size)
        self.rule = RULES[nonlinearity]
        self.input = nn.Linear(width, width)
        nn.init.normal_(self.input.weight, std=0.001)
        start = torch.zeros(channels, channels, taps)
        # the next place: with one tap a unit can only hear itself
        start[range(channels), range(channels), min(taps // 2 + 1, taps - 1)] = 1
        self.kernel = nn.Parameter(start)
        bound = (channels * taps) ** -0.5
        self.offset = nn.Parameter(torch.empty(channels).uniform_(-bound, bound))
        self.scan = Scan()

    def initial_state(self, batch: int) -> tuple[Float[Tensor, "B D"]]:
        return (self.zeros(batch, self.input.out_features),)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "B D"]], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Float[Tensor, "B D"]]]:
        kernel, offset = circulant(self.kernel, self.size)[None, None], self.offset.repeat_interleave(self.size)
        x, weight, bias = handed(x, self.input)
        bias = offset if bias is None else bias + offset
        read, (h,) = self.scan(Cell(self.rule, x, kernel, input_weight=weight, bias=bias), state, clock)
        return read, (h,)
