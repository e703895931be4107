"""A working memory that travels: variables pass from column to column, and come back changed at the end."""

import functools
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from recurra.checks import at_least, one_of
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Cell, Rule, Scan, Vectors
from recurra.parts.linear import handed
from recurra.shapes import Float, Tensor

ACTIVATIONS = {"tanh": torch.tanh, "linear": torch.clone}


def travelling_waves(
    activation: Callable[[Tensor], Tensor], drive: Vectors, recur: Vectors, state: Vectors
) -> tuple[Tensor, Vectors]:
    """State: what came over the boundary last, then what is on its way there, nearest first."""
    _, *waves = state
    arriving = (*waves, torch.zeros_like(drive[0]))
    boundary, *behind = (x + r for x, r in zip(arriving, recur, strict=True))
    h = activation(drive[0] + boundary)
    return h, (h, *behind)


@functools.cache
def rule(columns: int, nonlinearity: str) -> Rule:
    """The rule of a lattice of that many columns."""
    function = functools.partial(travelling_waves, ACTIVATIONS[nonlinearity])
    return Rule(f"travelling_waves_{nonlinearity}_{columns}", function, 1, columns, state=columns)


class TravellingWaves(Mixer):
    r"""A recurrent network that remembers its last few states by sending them down a row of columns, one place a step.

    .. math::
        h_t = \phi\Bigl(W x_t + b + \sum_{k=1}^{K} F_k\, h_{t-k}\Bigr) \qquad y_t = h_t

    Karuvally et al. 2024, https://arxiv.org/abs/2402.10163: K columns shift, and at their end the boundary makes a new
    one of all. Unlike the paper, whose columns hold what was and whose boundary weighs it, here every :math:`F_k h` is
    weighed as it enters and travels towards the boundary, each column adding its own:

    .. math::  w^k_t = w^{k+1}_{t-1} + F_k\, h_{t-1} \qquad h_t = \phi(W x_t + b + w^1_t)

    which is the same function, another basis of the same number of states wherever :math:`F_K` is invertible, and one
    product a step with the newest h alone. :math:`F_K` starts as the identity, so that a state comes back after K
    steps as it was, the others at zero. The paper's boundary is linear (`nonlinearity`); tanh, the default, stays
    bounded for ever. Its other boundary, attention over the columns, is attention over a window, which exists.
    State: (h, w^2, ..., w^K), `(B, D)` each, float32.

    Args:
        width: features in and out, and units of a column (D).
        columns: K.
        nonlinearity: :math:`\phi`: "tanh" or "linear".

    Raises:
        ValueError: `columns` is less than 1, or `nonlinearity` is another.
    """

    undecayed = ("boundary",)

    def __init__(self, width: int, *, columns: int = 4, nonlinearity: str = "tanh") -> None:
        super().__init__()
        at_least(1, columns=columns)
        one_of(ACTIVATIONS, nonlinearity=nonlinearity)
        self.rule = rule(columns, nonlinearity)
        self.input = nn.Linear(width, width)
        self.boundary = nn.Parameter(F.pad(torch.eye(width)[None], (0, 0, 0, 0, columns - 1, 0)))
        self.scan = Scan()

    def initial_state(self, batch: int) -> tuple[Float[Tensor, "B D"], ...]:
        return tuple(self.zeros(batch, self.input.out_features) for _ in range(len(self.boundary)))

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "B D"], ...], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Float[Tensor, "B D"], ...]]:
        x, weight, bias = handed(x, self.input)
        return self.scan(Cell(self.rule, x, self.boundary[:, None], input_weight=weight, bias=bias), state, clock)
