"""A linear memory that keeps the past as a polynomial, beside a nonlinear hidden state: each feeds the other.

The memory alone would be a `Block`; with what the hidden state feeds it there is no order in which one could run first.
All the memories of Legendre polynomials are one: what tells them apart is the generator and how time runs.
"""

from collections.abc import Callable
from typing import NamedTuple

from recurra.shapes import Bool, Float, Tensor

Rule = Callable[[Float[Tensor, "B GU"], Float[Tensor, "B U"]], Float[Tensor, "B U"]]


class Projection(NamedTuple):
    r"""Polynomials of M signals, fed by a hidden state that reads them.

    .. math::
        u_t = f_t + E_h h_{t-1} + E_m m_{t-1} \qquad
        m_t = m_{t-1} + (e^{\tau_t A} - 1)(m_{t-1} - u_t e_0) \qquad
        h_t = \operatorname{rule}(d_t + R_h h_{t-1} + R_m m_t,\; h_{t-1})

    :math:`e_0` is the polynomial of a constant: the memory of :math:`\dot m = A m + b u` with :math:`b = -A e_0`, held
    for a time :math:`\tau_t`. At :math:`\tau_t = \infty` all else is forgotten. What is read is h.
    State: (h, m), `(B, U)` and `(B, M, N)`.
    """

    feed: Float[Tensor, "B T M"]  # f
    drive: Float[Tensor, "B T GU"]  # d, G vectors of U side by side
    span: Float[Tensor, "B T"]  # tau > 0
    generator: Float[Tensor, "N N"]  # A
    rule: Rule  # of every unit by itself
    feed_hidden: Float[Tensor, "M U"]  # E_h
    feed_memory: Float[Tensor, "M MN"] | None  # E_m
    recur_hidden: Float[Tensor, "GU U"] | None  # R_h
    recur_memory: Float[Tensor, "GU MN"]  # R_m
    reset: Bool[Tensor, "B T"] | None = None
    valid: Bool[Tensor, "B T"] | None = None

    @property
    def output(self) -> Tensor:
        """The input whose type the read returns in."""
        return self.drive

    def hold(self, valid: Bool[Tensor, "B T"]) -> "Projection":
        """The same record, told which steps did not happen: no drive makes a nonlinear step an identity."""
        return self._replace(valid=valid)
