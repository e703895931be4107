"""A diagonal state space whose rates move with its input: its states are made, moved, used and summed on the spot."""

from typing import NamedTuple

from recurra.shapes import Bool, Float, Inexact, Tensor


class Liquid(NamedTuple):
    r"""Every feature through N states of its own, that its input is written to and that it scales, within a limit.

    .. math::
        h_t = (a + b \odot m \tanh(x_t / m)) \odot h_{t-1} + b\, x_t \qquad o_t = \operatorname{Re}(c^\top h_t)

    It lowers to `Diag` with features (D, N), which is what `chunk` does. State: h, `(B, D, N)`, of the type of a.
    """

    x: Float[Tensor, "B T D"]
    decay: Inexact[Tensor, "D N"]  # a
    write: Inexact[Tensor, "D N"]  # b
    limit: Float[Tensor, "D N"]  # m > 0
    read: Inexact[Tensor, "D N"]  # c
    reset: Bool[Tensor, "B T"] | None = None
    valid: Bool[Tensor, "B T"] | None = None

    @property
    def output(self) -> Tensor:
        """The input whose type the read returns in."""
        return self.x

    def hold(self, valid: Bool[Tensor, "B T"]) -> "Liquid":
        """The same record, told which steps did not happen: no input makes a step an identity."""
        return self._replace(valid=valid)
