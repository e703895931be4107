"""The simple recurrent network."""

from recurra.checks import one_of
from recurra.mixers.base import OneCell
from recurra.ops.cell import rules
from recurra.parts.cell import DenseCell

RULES = {"tanh": rules.ELMAN_TANH, "relu": rules.ELMAN_RELU}


class Elman(OneCell):
    r"""The first and plainest recurrent network: what it sees and what it thought just before, through one squashing.

    .. math::  h_t = \phi(W x_t + R h_{t-1} + b) \qquad y_t = h_t

    Elman 1990, https://doi.org/10.1207/s15516709cog1402_1. Unlike the paper :math:`\phi` is tanh or relu, not the
    logistic function, and the gradient goes back through all steps, not one.
    State: (h,), `(B, D)`, float32.

    Args:
        width: features in and out, and units (D).
        nonlinearity: :math:`\phi`: "tanh" or "relu".

    Raises:
        ValueError: `nonlinearity` is another.
    """

    def __init__(self, width: int, *, nonlinearity: str = "tanh") -> None:
        super().__init__()
        one_of(RULES, nonlinearity=nonlinearity)
        self.cell = DenseCell(RULES[nonlinearity], width, width)
