"""The minimal gated unit."""

import torch

from recurra.checks import one_of
from recurra.mixers.base import OnePart
from recurra.ops import Rule, Vectors
from recurra.parts.cell import DenseCell
from recurra.shapes import Tensor


def mgu_after(drive: Vectors, recur: Vectors, state: Vectors, candidate_bias: Tensor) -> tuple[Tensor, Vectors]:
    """Forget after the product. Drive: forget, candidate. State: h."""
    (h,) = state
    forget = torch.sigmoid(drive[0] + recur[0])
    candidate = torch.tanh(drive[1] + forget * (recur[1] + candidate_bias))
    h = (1 - forget) * h + forget * candidate
    return h, (h,)


def mgu_before(drive: Vectors, recur: Vectors, state: Vectors, *, tick: int) -> tuple[Tensor, Vectors]:
    """Forget before the product, so the candidate's comes after: a tick for the gate, and one for the rest."""
    if tick == 0:
        h = state[0]
        forget = torch.sigmoid(drive[0] + recur[0])
        return h, (forget * h, forget, h)
    _, forget, h = state[:3]
    h = (1 - forget) * h + forget * torch.tanh(drive[1] + recur[0])
    return h, (h,)


RULES = {
    "after": Rule("mgu_after", mgu_after, 2, 2, params=1),
    "before": Rule("mgu_before", mgu_before, 2, 1, operator="ticks", ticks=(0, 1), handed=2),
}


class MGU(OnePart):
    r"""A gated recurrent network with a single gate, which says both what to look at and what to replace.

    .. math::
        f_t = \sigma(W_f x_t + R_f h_{t-1} + b_f) \qquad
        n_t = \tanh(W_n x_t + b_n + f_t \odot (R_n h_{t-1} + \beta))
    .. math::
        y_t = h_t = (1 - f_t) \odot h_{t-1} + f_t \odot n_t

    Zhou et al. 2016, https://arxiv.org/abs/1603.09420. Unlike the paper the gate meets the past after the product; the
    paper has it before, :math:`n_t = \tanh(W_n x_t + b_n + R_n (f_t \odot h_{t-1}))`: that is `reset="before"`.
    The two have other weights and cannot be exchanged.
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
