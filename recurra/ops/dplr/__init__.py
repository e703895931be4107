"""The state space of S4: a matrix that is diagonal but for one outer product, so that a step costs N and not N^2."""

from typing import NamedTuple

from recurra.ops.steps import blank
from recurra.shapes import Bool, Float, Inexact, Tensor


class DiagonalPlusLowRank(NamedTuple):
    r"""A recurrence of every feature over N states and their conjugates, by the trapezoid's rule.

    .. math::
        h_t = (1 - \tfrac{\Delta}{2} A)^{-1} \left( (1 + \tfrac{\Delta}{2} A) h_{t-1} + \Delta\, b\, x_t \right)
        \qquad A = \operatorname{diag}(\lambda) - p\, p^*
        \qquad o_t = 2 \operatorname{Re} \sum_n c_n h_{tn}

    where :math:`p^* h` counts the conjugates too: :math:`2 \operatorname{Re} \sum_n \bar p_n h_n`. A step that did not
    happen reads zero. State: h, `(B, D, N)`, complex.
    """

    x: Float[Tensor, "B T D"]
    step: Float[Tensor, "..."]  # Delta: (D), or (B, T, D) where steps differ in length
    diagonal: Inexact[Tensor, "D N"]  # lambda, its real part below 0
    low: Inexact[Tensor, "D N"]  # p
    write: Inexact[Tensor, "D N"]  # b
    read: Inexact[Tensor, "D N"]  # c
    reset: Bool[Tensor, "B T"] | None = None
    valid: Bool[Tensor, "B T"] | None = None

    @property
    def output(self) -> Tensor:
        """The input whose type the read returns in."""
        return self.x

    def hold(self, valid: Bool[Tensor, "B T"]) -> "DiagonalPlusLowRank":
        """The same record, told which steps did not happen."""
        return self._replace(x=blank(valid, self.x), valid=valid)
