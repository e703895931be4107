"""A cell whose units do not see each other, with its weights. What sets such cells apart is their rule alone."""

import torch
from torch import nn

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.ops import Cell, Rule, Scan
from recurra.parts.init import glorot
from recurra.shapes import Float, Tensor, state_zeros


class DiagonalCell(nn.Module):
    """A rule of N units with its parameters: W, b, a diagonal R, and what else the rule asks for.

    W starts as Glorot & Bengio 2010 (https://proceedings.mlr.press/v9/glorot10a.html), each gate by itself; R normal
    with deviation sqrt(4 / (5 N)), biases at zero, the rule's own parameters as R.

    Args:
        rule: a rule whose operator is "diagonal".
        width: features in (D).
        units: N.

    Raises:
        ValueError: a size is less than 1.
    """

    def __init__(self, rule: Rule, width: int, units: int) -> None:
        super().__init__()
        at_least(1, width=width, units=units)
        self.rule = rule
        deviation = (4 / (5 * units)) ** 0.5
        self.input_weight = nn.Parameter(glorot(rule.drive, units, width))
        self.weight = nn.Parameter(torch.empty(rule.recur, units).normal_(0, deviation))
        self.bias = nn.Parameter(torch.zeros(rule.drive * units))
        self.params = nn.Parameter(torch.empty(rule.params, units).normal_(0, deviation)) if rule.params else None
        self.scan = Scan()

    def initial_state(self, batch: int) -> tuple[Float[Tensor, "B N"], ...]:
        """All zero."""
        return tuple(state_zeros(self.weight, batch, self.weight.shape[1]) for _ in range(self.rule.state))

    def forward(
        self, x: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "B N"], ...], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T N"], tuple[Float[Tensor, "B N"], ...]]:
        record = Cell(self.rule, x, self.weight, self.params, input_weight=self.input_weight, bias=self.bias)
        return self.scan(record, state, clock)
