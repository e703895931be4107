"""A memory of slots that fade each by itself, and how near each of them is to a query.

It is the memory of `Outer`, read along its other axis: there a query asks what all slots hold together, here it asks
every slot for itself. What one of them reads is a gradient of the other, so that one kernel of gradients serves both.
"""

from typing import NamedTuple

from recurra.ops.steps import blank
from recurra.shapes import Bool, Float, Tensor


class Address(NamedTuple):
    r"""Slots whose keys fade and are written, compared with a query.

    .. math::
        S_t = \operatorname{diag}(e^{g_t})\, S_{t-1} + w_t k_t^\top
        \qquad o_t = S_t q_t

    with S a row for every slot. State: S, `(B, H, K, V)`, of K slots.
    """

    query: Float[Tensor, "B T H V"]
    key: Float[Tensor, "B T H V"]
    write: Float[Tensor, "B T H K"]  # w: how much of the key each slot takes in
    log_decay: Float[Tensor, "B T H K"]  # g <= 0
    reset: Bool[Tensor, "B T"] | None = None

    @property
    def output(self) -> Tensor:
        """The input whose type the read returns in."""
        return self.write

    def hold(self, valid: Bool[Tensor, "B T"]) -> "Address":
        """The same record with steps that change nothing where `valid` is False."""
        return self._replace(write=blank(valid, self.write), log_decay=blank(valid, self.log_decay))
