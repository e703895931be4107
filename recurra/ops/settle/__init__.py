"""A hidden state that settles under fast weights, which its own past has written and which fade."""

from typing import NamedTuple

from recurra.shapes import Bool, Float, Tensor


class Settle(NamedTuple):
    r"""A recurrent network that looks, S times a step, at the recent states that are like its own.

    .. math::
        A_t = \lambda A_{t-1} + \eta\, h_{t-1} h_{t-1}^\top \qquad u_t = d_t + R h_{t-1} \qquad
        h^0_t = \operatorname{relu}(u_t) \qquad
        h^{s+1}_t = \operatorname{relu}(\operatorname{norm}(u_t + A_t h^s_t))

    with norm a layer norm, its gain and bias. What is read is h. State: (h, A), `(B, D)` and `(B, D * D)`, rows end to
    end.
    """

    drive: Float[Tensor, "B T D"]  # d
    recurrent: Float[Tensor, "D D"]  # R
    norm: Float[Tensor, "2 D"]  # gain, bias
    decay: float  # lambda, in [0, 1)
    rate: float  # eta
    loops: int  # S
    reset: Bool[Tensor, "B T"] | None = None
    valid: Bool[Tensor, "B T"] | None = None

    @property
    def output(self) -> Tensor:
        """The input whose type the read returns in."""
        return self.drive

    def hold(self, valid: Bool[Tensor, "B T"]) -> "Settle":
        """The same record, told which steps did not happen: no drive makes a nonlinear step an identity."""
        return self._replace(valid=valid)
