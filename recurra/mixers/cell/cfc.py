"""Closed-form continuous-time networks."""

import torch
from torch import nn

from recurra.checks import one_of
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Cell, Rule, Scan, Vectors
from recurra.parts.elapsed import timed_drive
from recurra.parts.init import gates_
from recurra.shapes import Float, Tensor


def cfc(drive: Vectors, recur: Vectors, state: Vectors) -> tuple[Tensor, Vectors]:
    """From one head to the other as time passes."""
    first, second, share = _heads(drive, recur)
    h = first * (1 - share) + share * second
    return h, (h,)


def cfc_no_gate(drive: Vectors, recur: Vectors, state: Vectors) -> tuple[Tensor, Vectors]:
    """The first head stays, the other comes with time."""
    first, second, share = _heads(drive, recur)
    h = first + share * second
    return h, (h,)


def cfc_pure(drive: Vectors, recur: Vectors, state: Vectors, rate: Tensor, rest: Tensor) -> tuple[Tensor, Vectors]:
    """The closed form itself: the head fades with time, and what is left is the rest."""
    head = drive[0] + recur[0]
    h = rest - rest * torch.exp(-drive[1] * (rate.abs() + head.abs())) * head
    return h, (h,)


def _heads(drive: Vectors, recur: Vectors) -> tuple[Tensor, Tensor, Tensor]:
    *drives, step = drive
    first, second, rate, shift = (x + r for x, r in zip(drives, recur, strict=True))
    return torch.tanh(first), torch.tanh(second), torch.sigmoid(rate * step + shift)


RULES = {
    "gated": Rule("cfc", cfc, 5, 4),
    "no_gate": Rule("cfc_no_gate", cfc_no_gate, 5, 4),
    "pure": Rule("cfc_pure", cfc_pure, 2, 1, params=2),
}


class CfC(Mixer):
    r"""A network whose answer is a formula in the time that has passed: no solver, whatever the step's length.

    .. math::
        y_t = h_t = (1 - s_t) \odot \tanh f_t + s_t \odot \tanh g_t \qquad s_t = \sigma(a_t\, \Delta_t + b_t)

    where f, g, a and b are each :math:`W x_t + R h_{t-1} + \beta`, and :math:`\Delta_t` is the clock's `dt`, 1 where it
    is not given. Hasani et al. 2022, https://doi.org/10.1038/s42256-022-00556-7. The paper has two forms more:
    `form="no_gate"` is :math:`\tanh f_t + s_t \odot \tanh g_t`, and `form="pure"` is the solution before it was made
    trainable, :math:`A - A \odot e^{-\Delta_t (|w| + |f_t|)} \odot f_t`. As in the authors' code a is free, where the
    paper writes :math:`-f`. Unlike the paper f, g, a and b see x and h themselves, with no layer of their own between
    (their code with no backbone): so a step is one product.

    A formula is no flow: one step of 1 is not two steps of 1/2. State: (h,), `(B, D)`, float32.

    Args:
        width: features in and out, and units (D).
        form: "gated", "no_gate" or "pure".

    Raises:
        ValueError: `form` is another.
    """

    timed = True
    undecayed = ("params",)

    def __init__(self, width: int, *, form: str = "gated") -> None:
        super().__init__()
        one_of(RULES, form=form)
        self.rule = RULES[form]
        gates = self.rule.recur
        self.input = nn.Linear(width, gates * width)
        self.weight = nn.Parameter(torch.empty(gates, 1, width, width))
        # w and A
        pair = torch.stack([torch.zeros(width), torch.ones(width)])
        self.params = nn.Parameter(pair) if self.rule.params else None
        self.scan = Scan()
        gates_(self.input, self.weight[:, 0])

    def initial_state(self, batch: int) -> tuple[Float[Tensor, "B D"], ...]:
        return (self.zeros(batch, self.weight.shape[-1]),)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "B D"], ...], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Float[Tensor, "B D"], ...]]:
        drive = timed_drive(self.input(x), x.shape[-1], clock)
        read, state = self.scan(Cell(self.rule, drive, self.weight, self.params), state, clock)
        return read.to(x.dtype), state
