"""Time-invariant diagonal state spaces: every feature has N states of its own and reads them as one number.

As a `Diag` the N states of every feature would exist at every step. Here only what is read does: a feature's states
are the two sides of a convolution, so that a block of steps is a matrix product and the states exist once a block.
"""

from typing import NamedTuple

from recurra.ops.steps import blank
from recurra.shapes import Bool, Float, Inexact, Tensor


class StateSpace(NamedTuple):
    r"""A recurrence of every feature over N states that all see the same input, read as a weighted sum.

    .. math::  h_t = e^{a} \odot h_{t-1} + x_t  \qquad  o_t = \operatorname{Re} \sum_n c_n h_{tn} + s\, x_t

    a and c are real, or both complex. Write weights are part of c: a constant factor of the input is a factor of what
    is read. A step that did not happen reads zero. State: h, `(B, D, N)`, real or complex as a is.
    """

    x: Float[Tensor, "B T D"]
    log_decay: Inexact[Tensor, "D N"]  # a, its real part at most 0
    read: Inexact[Tensor, "D N"]  # c
    skip: Float[Tensor, " D"] | None = None  # s; none is zero
    reset: Bool[Tensor, "B T"] | None = None
    valid: Bool[Tensor, "B T"] | None = None

    @property
    def output(self) -> Tensor:
        """The input whose type the read returns in."""
        return self.x

    def hold(self, valid: Bool[Tensor, "B T"]) -> "StateSpace":
        """The same record, told which steps did not happen: they write nothing and the decay stands still."""
        return self._replace(x=blank(valid, self.x), valid=valid)
