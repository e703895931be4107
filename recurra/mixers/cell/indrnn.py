"""The independently recurrent network."""

import torch
from torch import nn

from recurra.checks import greater_than
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Cell, Rule, Scan, Vectors
from recurra.parts.linear import handed
from recurra.shapes import Float, Tensor


def indrnn(drive: Vectors, recur: Vectors, state: Vectors) -> tuple[Tensor, Vectors]:
    """h = max(W x + b + u h, 0)."""
    h = torch.relu(drive[0] + recur[0])
    return h, (h,)


INDRNN_RULE = Rule("indrnn", indrnn, 1, 1, operator="diagonal")


class IndRNN(Mixer):
    r"""A recurrent network in which every unit remembers by itself; units meet only through the next layer's inputs.

    .. math::  h_t = \operatorname{relu}(W x_t + u \odot h_{t-1} + b) \qquad y_t = h_t \qquad |u| \le m

    Li et al. 2018, https://arxiv.org/abs/1803.04831. u starts even over [0, 1]. As the authors' code does u is held
    within m: with :math:`m = \gamma^{1/T}` a gradient grows at most :math:`\gamma`-fold in T steps. A u beyond m counts
    as m, and is moved by the gradient at m. Unlike the paper there is no batch norm here: across sequences of a batch,
    and across time, it would break what a cut promises.
    State: (h,), `(B, D)`, float32.

    Args:
        width: features in and out, and units (D).
        bound: m: the most that a unit keeps of itself in a step.

    Raises:
        ValueError: `bound` is not above zero.
    """

    def __init__(self, width: int, *, bound: float = 1.0) -> None:
        super().__init__()
        greater_than(0, bound=bound)
        self.bound = bound
        self.input = nn.Linear(width, width)
        self.recurrent = nn.Parameter(torch.rand(width))
        self.scan = Scan()
        nn.init.xavier_uniform_(self.input.weight)
        nn.init.zeros_(self.input.bias)

    def initial_state(self, batch: int) -> tuple[Float[Tensor, "B D"]]:
        """Silence: zeros."""
        return (self.zeros(batch, len(self.recurrent)),)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "B D"]], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Float[Tensor, "B D"]]]:
        free = self.recurrent
        held = free + (free.clamp(-self.bound, self.bound) - free).detach()
        x, weight, bias = handed(x, self.input)
        record = Cell(INDRNN_RULE, x, held[None], input_weight=weight, bias=bias)
        return self.scan(record, state, clock)
