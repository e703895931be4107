"""Time-invariant linear systems: every feature drives N states that mix with each other through a matrix of their own.

As a `Block` the N states of every feature would exist at every step. Here only what is read does, as in `StateSpace`.
"""

from typing import NamedTuple

from recurra.ops.steps import blank
from recurra.shapes import Bool, Float, Tensor


class LinearSystem(NamedTuple):
    r"""A recurrence of every feature over N states, read as M weighted sums.

    .. math::  h_t = A h_{t-1} + b\, x_t  \qquad  o_t = C h_t

    A step that did not happen reads zero. State: h, `(B, D, N)`.
    """

    x: Float[Tensor, "B T D"]
    matrix: Float[Tensor, "D N N"]  # A
    write: Float[Tensor, "D N"]  # b
    read: Float[Tensor, "D M N"]  # C
    reset: Bool[Tensor, "B T"] | None = None
    valid: Bool[Tensor, "B T"] | None = None

    @property
    def output(self) -> Tensor:
        """The input whose type the read returns in."""
        return self.x

    def hold(self, valid: Bool[Tensor, "B T"]) -> "LinearSystem":
        """The same record, told which steps did not happen: no matrix is an identity for some steps only."""
        return self._replace(x=blank(valid, self.x), valid=valid)
