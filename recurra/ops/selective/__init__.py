"""Mamba's selective scan: a diagonal recurrence whose N states a feature are made, used and summed on the spot."""

from typing import NamedTuple

from recurra.ops.steps import blank
from recurra.shapes import Bool, Float, Tensor


class Selective(NamedTuple):
    r"""A state space whose step and couplings depend on the input.

    .. math::
        h_t = e^{\Delta_t A} \odot h_{t-1} + \Delta_t x_t B_t^\top \qquad o_t = h_t C_t

    It lowers to `Diag` with features (D, N), which is what `chunk` does. State: h, `(B, D, N)`.
    """

    x: Float[Tensor, "B T D"]
    step: Float[Tensor, "B T D"]  # delta > 0
    rate: Float[Tensor, "D N"]  # A < 0
    write: Float[Tensor, "B T N"]  # B
    query: Float[Tensor, "B T N"]  # C
    reset: Bool[Tensor, "B T"] | None = None

    @property
    def output(self) -> Tensor:
        """The input whose type the read returns in."""
        return self.x

    def hold(self, valid: Bool[Tensor, "B T"]) -> "Selective":
        """The same record with steps that change nothing where `valid` is False."""
        return self._replace(step=blank(valid, self.step))
