"""Matrix memory that decays and is written by outer products."""

from typing import NamedTuple

from recurra.ops.steps import blank
from recurra.shapes import Bool, Float, Tensor


class Outer(NamedTuple):
    r"""A gated outer-product memory, read by a query.

    .. math::
        S_t = \operatorname{diag}(e^{g_t})\, S_{t-1} + k_t v_t^\top
        \qquad o_t = S_t^\top q_t

    or, read before the write with a bonus u on what is being written,
    :math:`o_t = (S_{t-1} + \operatorname{diag}(u)\, k_t v_t^\top)^\top q_t`. State: S, `(B, H, K, V)`.
    """

    query: Float[Tensor, "B T H K"]
    key: Float[Tensor, "B T H K"]
    value: Float[Tensor, "B T H V"]
    log_decay: Float[Tensor, "B T H"] | Float[Tensor, "B T H K"] | None = None  # g <= 0; None: nothing is forgotten
    before: bool = False  # read before the write
    bonus: Float[Tensor, "H K"] | None = None  # u; only with `before`
    reset: Bool[Tensor, "B T"] | None = None

    @property
    def output(self) -> Tensor:
        """The input whose type the read returns in."""
        return self.value

    def hold(self, valid: Bool[Tensor, "B T"]) -> "Outer":
        """The same record with steps that change nothing where `valid` is False."""
        decay = None if self.log_decay is None else blank(valid, self.log_decay)
        return self._replace(key=blank(valid, self.key), log_decay=decay)
