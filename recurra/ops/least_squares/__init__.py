"""Memory read by solving: of all linear maps from keys to values, the one that fits the past best, asked a query."""

from typing import NamedTuple

from recurra.ops.steps import blank
from recurra.shapes import Bool, Float, Tensor


class LeastSquares(NamedTuple):
    r"""The ridge regression of values on keys, kept as its normal equations and solved for every query.

    .. math::
        G_t = e^{g_t} G_{t-1} + \beta_t k_t k_t^\top \qquad
        S_t = e^{g_t} S_{t-1} + \beta_t k_t v_t^\top \qquad
        o_t = S_t^\top (G_t + \operatorname{diag}(\Lambda))^{-1} q_t

    State: G and S side by side, `(B, H, K, K + V)`; G is symmetric (of one that is not, its symmetric part counts).
    """

    query: Float[Tensor, "B T H K"]
    key: Float[Tensor, "B T H K"]
    value: Float[Tensor, "B T H V"]
    write: Float[Tensor, "B T H"]  # beta >= 0
    ridge: Float[Tensor, "H K"]  # Lambda > 0
    log_decay: Float[Tensor, "B T H"] | None = None  # g <= 0; None: nothing is forgotten
    reset: Bool[Tensor, "B T"] | None = None

    @property
    def output(self) -> Tensor:
        """The input whose type the read returns in."""
        return self.value

    def hold(self, valid: Bool[Tensor, "B T"]) -> "LeastSquares":
        """The same record with steps that change nothing where `valid` is False."""
        decay = None if self.log_decay is None else blank(valid, self.log_decay)
        return self._replace(write=blank(valid, self.write), log_decay=decay)


def halves(
    state: Float[Tensor, "B H K W"],
) -> tuple[Float[Tensor, "B H K K"], Float[Tensor, "B H K V"]]:
    """G, made symmetric, and S. Exact where G is symmetric."""
    size = state.shape[-2]
    gram, memory = state[..., :size], state[..., size:]
    return (gram + gram.mT) / 2, memory
