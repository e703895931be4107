"""The gated recurrent unit whose steps can be solved side by side."""

import torch

from recurra.mixers.base import OnePart
from recurra.ops import Rule, Vectors
from recurra.parts.diagonal import DiagonalCell
from recurra.shapes import Tensor


def para_gru(drive: Vectors, recur: Vectors, state: Vectors) -> tuple[Tensor, Vectors]:
    """Gates: update, reset, candidate. State: h."""
    (h,) = state
    update, reset = (torch.sigmoid(x + r) for x, r in zip(drive[:2], recur[:2], strict=True))
    candidate = torch.tanh(drive[2] + reset * recur[2])
    h = (1 - update) * h + update * candidate
    return h, (h,)


PARA_GRU_RULE = Rule("para_gru", para_gru, 3, 3, operator="diagonal")


class ParaGRU(OnePart):
    r"""A GRU whose units do not see each other within a step, so that all steps are one equation for Newton's method.

    .. math::
        z_t = \sigma(W_z x_t + a_z \odot h_{t-1} + b_z) \qquad r_t = \sigma(W_r x_t + a_r \odot h_{t-1} + b_r)
    .. math::
        n_t = \tanh(W_n x_t + a_n \odot r_t \odot h_{t-1} + b_n) \qquad
        y_t = h_t = (1 - z_t) \odot h_{t-1} + z_t \odot n_t

    Danieli et al. 2025, https://arxiv.org/abs/2510.21450. `recurra.use("newton")` solves all steps in parallel; without
    it the compiled loop runs, which is less work on few cores: both give the same numbers. As in the authors' code
    :math:`b_z` starts evenly spaced from 0 to -1 and a normal with deviation :math:`\sqrt{4 / (5 D)}`. Unlike their
    code W is one matrix, not a block for each head.
    State: (h,), `(B, D)`, float32.

    Args:
        width: features in and out, and units (D).
    """

    undecayed = ("cell.weight",)

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cell = DiagonalCell(PARA_GRU_RULE, width, width)
        with torch.no_grad():
            self.cell.bias[:width] = -torch.linspace(0, 1, width)
