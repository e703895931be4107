"""The flow-equivariant recurrent network."""

import functools

import torch
from torch import nn

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Cell, Scan
from recurra.ops.cell import rules
from recurra.ops.pointwise import Map, pointwise
from recurra.parts.circulant import check_taps, circulant
from recurra.parts.heads import divide
from recurra.shapes import Float, Tensor


def _largest(*copies: Tensor) -> Tensor:
    return functools.reduce(torch.maximum, copies)


LARGEST = Map("largest", _largest)


class FERNN(Mixer):
    r"""A network on a ring that keeps a copy of itself for every speed: what moves looks to one copy as if it stood.

    .. math::
        h_t(\nu) = \operatorname{relu}(\kappa \star x_t + \rho \star T_\nu h_{t-1}(\nu)) \qquad
        y_t = \max_\nu h_t(\nu) \qquad \nu \in \{-R, \dots, R\}

    with :math:`\star` a circular convolution over C channels of a ring of G places, which the features are, channel
    after channel, and :math:`T_\nu` a roll by :math:`\nu` places. An input that moves by v places a step moves all of
    h's copies with it and hands each the part of the one v beside it, exactly, so far as there is one. Keller 2025,
    https://arxiv.org/abs/2507.14793. Unlike the paper the group is the shifts of a ring, not of a plane, and the
    decoder after the maximum is left to what comes after this layer. As in the authors' code there are no biases,
    which are no trouble for the symmetry. State: (h,), `(B, V * D)`, float32, a velocity after the other.

    Args:
        width: features in and out (D).
        channels: channels of the ring (C); divides `width`.
        fastest: the largest velocity, in places a step (R); there are 2 R + 1, V.
        taps: length of both convolutions; odd, and no more than the ring has places.

    Raises:
        ValueError: `channels` does not divide `width`, `fastest` is less than 0, or `taps` is even or longer than the
            ring.
    """

    def __init__(self, width: int, *, channels: int = 2, fastest: int = 1, taps: int = 3) -> None:
        super().__init__()
        self.size = divide(width, channels, among="channels")
        at_least(0, fastest=fastest)
        check_taps(taps, self.size)
        self.velocities = range(-fastest, fastest + 1)
        bound = (channels * taps) ** -0.5
        self.input, self.recurrent = (
            nn.Parameter(torch.empty(channels, channels, taps).uniform_(-bound, bound)) for _ in range(2)
        )
        self.scan = Scan()

    def initial_state(self, batch: int) -> tuple[Float[Tensor, "B N"]]:
        return (self.zeros(batch, len(self.velocities) * len(self.input) * self.size),)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "B N"]], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Float[Tensor, "B N"]]]:
        entering = circulant(self.input, self.size).repeat(len(self.velocities), 1)
        weight = torch.stack([circulant(self.recurrent, self.size, shift=speed) for speed in self.velocities])
        read, (h,) = self.scan(Cell(rules.ELMAN_RELU, x, weight[None], input_weight=entering), state, clock)
        return pointwise(LARGEST, *read.chunk(len(self.velocities), -1)), (h,)
