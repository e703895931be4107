"""The elementwise LSTM."""

import torch
from torch import nn

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Rule, Vectors
from recurra.parts.diagonal import DiagonalCell
from recurra.shapes import Float, Tensor


def elstm(drive: Vectors, recur: Vectors, state: Vectors) -> tuple[Tensor, Vectors]:
    """Gates: forget, candidate. State: c."""
    (c,) = state
    forget, candidate = (x + r for x, r in zip(drive, recur, strict=True))
    c = torch.sigmoid(forget) * c + torch.sigmoid(-forget) * torch.tanh(candidate)
    return c, (c,)


ELSTM_RULE = Rule("elstm", elstm, 2, 2, operator="diagonal")


class ELSTM(Mixer):
    r"""An LSTM whose gates see only their own cell, so that its gradient can be carried forward exactly and cheaply.

    .. math::
        f_t = \sigma(F x_t + w_f \odot c_{t-1} + b_f) \qquad z_t = \tanh(Z x_t + w_z \odot c_{t-1} + b_z)
    .. math::
        c_t = f_t \odot c_{t-1} + (1 - f_t) \odot z_t \qquad
        y_t = \sigma(O x_t + C c_t + b_o) \odot c_t

    Irie et al. 2024, https://arxiv.org/abs/2305.19044. A step's Jacobian is one number a unit, so real-time recurrent
    learning needs a trace the size of each parameter and no more. As in the authors' code the weights and biases of
    the recurrence start normal with deviation 0.1.
    State: (c,), `(B, D)`, float32.

    Args:
        width: features in and out, and cells (D).
        forget_bias: what is added to where b_f starts.
    """

    undecayed = ("cell.weight",)

    def __init__(self, width: int, *, forget_bias: float = 0.0) -> None:
        super().__init__()
        self.cell = DiagonalCell(ELSTM_RULE, width, width)
        self.gate_input = nn.Linear(width, width)
        self.gate_cell = nn.Linear(width, width, bias=False)
        with torch.no_grad():
            for p in self.cell.parameters():
                p.normal_(0, 0.1)
            self.cell.bias[:width] += forget_bias

    def initial_state(self, batch: int) -> tuple[Float[Tensor, "B D"], ...]:
        return self.cell.initial_state(batch)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "B D"], ...], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Float[Tensor, "B D"], ...]]:
        cell, state = self.cell(x, state, clock)
        return torch.sigmoid(self.gate_input(x) + self.gate_cell(cell)) * cell, state
