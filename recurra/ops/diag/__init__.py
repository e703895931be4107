"""Elementwise recurrences: every feature is on its own, over any ring."""

from typing import NamedTuple

from recurra.ops.rings import SUM, Ring
from recurra.ops.steps import blank
from recurra.shapes import Bool, Inexact, Tensor


class Diag(NamedTuple):
    r"""A recurrence of every feature by itself, read at every step.

    .. math::  h_t = a_t \otimes h_{t-1} \oplus b_t  \qquad  o_t = h_t

    over the ring's :math:`\oplus, \otimes`; over `SUM` that is h = a h + b, real or complex. State: h, `(B, *F)`.
    """

    decay: Inexact[Tensor, "..."]  # a: (B, T, *F), or (*F) where it is the same at every step
    drive: Inexact[Tensor, "B T *F"]  # b
    ring: Ring = SUM
    reset: Bool[Tensor, "B T"] | None = None

    @property
    def output(self) -> Tensor:
        """The input whose type the read returns in."""
        return self.drive

    def hold(self, valid: Bool[Tensor, "B T"]) -> "Diag":
        """The same record with steps that change nothing where `valid` is False."""
        decay = blank(valid, self.decay.expand_as(self.drive), self.ring.one)
        return self._replace(decay=decay, drive=blank(valid, self.drive, self.ring.zero))
