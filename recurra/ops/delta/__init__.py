"""Matrix memory that corrects itself: before a value is written, what the key recalls is taken away."""

from typing import NamedTuple

from recurra.ops.steps import blank
from recurra.shapes import Bool, Float, Tensor


class Delta(NamedTuple):
    r"""The (gated) delta rule.

    .. math::
        D_t = \operatorname{diag}(e^{g_t}) \qquad
        S_t = D_t S_{t-1} + k_t \bigl(v_t - (D_t S_{t-1})^\top p_t\bigr)^\top \qquad o_t = S_t^\top q_t

    The write strength is folded into v, the erase strength into p. State: S, `(B, H, K, V)`.
    """

    query: Float[Tensor, "B T H K"]
    key: Float[Tensor, "B T H K"]
    value: Float[Tensor, "B T H V"]
    erase: Float[Tensor, "B T H K"]  # p
    log_decay: Float[Tensor, "B T H"] | Float[Tensor, "B T H K"] | None = None  # g <= 0
    reset: Bool[Tensor, "B T"] | None = None

    @property
    def output(self) -> Tensor:
        """The input whose type the read returns in."""
        return self.value

    def hold(self, valid: Bool[Tensor, "B T"]) -> "Delta":
        """The same record with steps that change nothing where `valid` is False."""
        decay = None if self.log_decay is None else blank(valid, self.log_decay)
        return self._replace(key=blank(valid, self.key), log_decay=decay)


class LowRank(NamedTuple):
    r"""The general delta rule: a diagonal plus a matrix of rank one moves the memory.

    .. math::
        S_t = \operatorname{diag}(e^{g_t})\, S_{t-1} + b_t (a_t^\top S_{t-1}) + k_t v_t^\top
        \qquad o_t = S_t^\top q_t

    a reads the state before the decay. State: S, `(B, H, K, V)`.
    """

    query: Float[Tensor, "B T H K"]
    key: Float[Tensor, "B T H K"]
    value: Float[Tensor, "B T H V"]
    probe: Float[Tensor, "B T H K"]  # a
    answer: Float[Tensor, "B T H K"]  # b
    log_decay: Float[Tensor, "B T H"] | Float[Tensor, "B T H K"] | None = None  # g <= 0
    reset: Bool[Tensor, "B T"] | None = None

    @property
    def output(self) -> Tensor:
        """The input whose type the read returns in."""
        return self.value

    def hold(self, valid: Bool[Tensor, "B T"]) -> "LowRank":
        """The same record with steps that change nothing where `valid` is False."""
        decay = None if self.log_decay is None else blank(valid, self.log_decay)
        return self._replace(key=blank(valid, self.key), answer=blank(valid, self.answer), log_decay=decay)
