"""The gated recurrent unit."""

from recurra.checks import one_of
from recurra.mixers.base import OneCell
from recurra.ops.cell import rules
from recurra.parts.cell import DenseCell

RULES = {"after": rules.GRU_AFTER, "before": rules.GRU_BEFORE}


class GRU(OneCell):
    r"""A recurrent network that decides, unit by unit, how much of its past to keep and how much of it to look at.

    .. math::
        r_t = \sigma(W_r x_t + R_r h_{t-1} + b_r) \qquad z_t = \sigma(W_z x_t + R_z h_{t-1} + b_z)
    .. math::
        n_t = \tanh(W_n x_t + b_n + r_t \odot (R_n h_{t-1} + \beta)) \qquad
        y_t = h_t = (1 - z_t) \odot n_t + z_t \odot h_{t-1}

    Cho et al. 2014, https://arxiv.org/abs/1406.1078. Unlike the paper there are biases, and the reset comes after the
    product. The paper resets before it, :math:`n_t = \tanh(W_n x_t + b_n + R_n (r_t \odot h_{t-1}))`: that is
    `reset="before"`. The default is what torch and cuDNN compute, fused; the two have other weights and cannot be
    exchanged.
    State: (h,), `(B, D)`, float32.

    Args:
        width: features in and out, and units (D).
        reset: "after" or "before" the recurrent product.

    Raises:
        ValueError: `reset` is another.
    """

    undecayed = ("cell.params",)

    def __init__(self, width: int, *, reset: str = "after") -> None:
        super().__init__()
        one_of(RULES, reset=reset)
        self.cell = DenseCell(RULES[reset], width, width)
