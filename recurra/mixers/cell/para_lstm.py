"""The long short-term memory whose steps can be solved side by side."""

import torch

from recurra.mixers.base import OnePart
from recurra.ops import Rule, Vectors
from recurra.parts.diagonal import DiagonalCell
from recurra.shapes import Tensor


def para_lstm(drive: Vectors, recur: Vectors, state: Vectors, peep_f: Tensor, peep_o: Tensor) -> tuple[Tensor, Vectors]:
    """Gates: forget, output, candidate. State: h, c. Forget sees the cell before this step, output the one after."""
    _, c = state
    f, o, g = (x + r for x, r in zip(drive, recur, strict=True))
    f = f + peep_f * c
    c = torch.sigmoid(f) * c + torch.sigmoid(-f) * torch.tanh(g)
    h = torch.sigmoid(o + peep_o * c) * torch.tanh(c)
    return h, (h, c)


PARA_LSTM_RULE = Rule("para_lstm", para_lstm, 3, 3, state=2, params=2, operator="diagonal")


class ParaLSTM(OnePart):
    r"""An LSTM whose units do not see each other within a step, so that all steps are one equation for Newton's method.

    .. math::
        f_t = \sigma(W_f x_t + a_f \odot h_{t-1} + p_f \odot c_{t-1} + b_f) \qquad
        g_t = \tanh(W_g x_t + a_g \odot h_{t-1} + b_g)
    .. math::
        c_t = f_t \odot c_{t-1} + (1 - f_t) \odot g_t \qquad
        o_t = \sigma(W_o x_t + a_o \odot h_{t-1} + p_o \odot c_t + b_o) \qquad y_t = h_t = o_t \odot \tanh(c_t)

    Danieli et al. 2025, https://arxiv.org/abs/2510.21450. What is not kept is written: input and forget gate are one.
    `recurra.use("newton")` solves all steps in parallel; without it the compiled loop runs, which is less work on few
    cores: both give the same numbers. As in the authors' code :math:`b_f` starts evenly spaced from 0 to -1, a and p
    normal with deviation :math:`\sqrt{4 / (5 D)}`. Unlike their code W is one matrix, not a block for each head.
    State: (h, c), each `(B, D)`, float32.

    Args:
        width: features in and out, and units (D).
    """

    undecayed = ("cell.weight", "cell.params")

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cell = DiagonalCell(PARA_LSTM_RULE, width, width)
        with torch.no_grad():
            self.cell.bias[:width] = -torch.linspace(0, 1, width)
