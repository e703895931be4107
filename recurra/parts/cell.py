"""A dense cell with its weights. LSTM, GRU and Elman differ in their rule and in nothing that is said here."""

from typing import Any

import torch
from torch import nn

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.ops import Cell, Rule, Scan
from recurra.ops.scan import unseen
from recurra.parts.init import glorot
from recurra.shapes import Float, Tensor, state_zeros

PARAMETERS = 5  # of a cell, absent ones too; a parametrisation takes one away


def part(module: nn.Module, name: str) -> Any:
    """A module's part, as its attribute would be but sooner.

    torch finds attributes in half a microsecond each; with several, a step of one row would look longer than compute.
    """
    parts: Any = module._modules
    return parts[name]


class DenseCell(nn.Module):
    """A rule of N units with its parameters: W, b, a full R, and what else the rule asks for.

    W starts as Glorot & Bengio 2010 (https://proceedings.mlr.press/v9/glorot10a.html), R orthogonal as Saxe et al.
    2014 (https://arxiv.org/abs/1312.6120), each gate by itself; biases and the rule's own parameters start at zero.

    Args:
        rule: a rule whose operator is "dense", or "ticks" or "own" with weights of the same shape.
        width: features in (D).
        units: N.
        project: features that the read is projected to (M); None: no projection, M = N.

    Raises:
        ValueError: a size is less than 1.
    """

    params: nn.Parameter | None
    project: nn.Parameter | None

    def __init__(self, rule: Rule, width: int, units: int, *, project: int | None = None) -> None:
        super().__init__()
        at_least(1, width=width, units=units, project=project)
        self.rule = rule
        gates, read = rule.drive, project or units
        self.input_weight = nn.Parameter(glorot(gates, units, width))
        recurrent = [nn.init.orthogonal_(torch.empty(units, read))[None] for _ in range(gates)]
        self.weight = nn.Parameter(torch.stack(recurrent))
        self.bias = nn.Parameter(torch.zeros(gates * units))
        self.register_parameter("params", nn.Parameter(torch.zeros(rule.params, units)) if rule.params else None)
        projecting = nn.Parameter(nn.init.xavier_uniform_(torch.empty(read, units))) if project else None
        self.register_parameter("project", projecting)
        self.scan = Scan()

    def initial_state(self, batch: int) -> tuple[Float[Tensor, "B _"], ...]:
        """All zero: what is read, `(B, M)`, then the rule's other vectors, `(B, N)`."""
        units, read = self.weight.shape[2:]
        sizes = (read, *(units for _ in range(self.rule.state - 1)))
        return tuple(state_zeros(self.weight, batch, n) for n in sizes)

    def planned(
        self, x: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "B _"], ...] | None, *callers: nn.Module
    ) -> tuple[Float[Tensor, "B T M"], tuple[Float[Tensor, "B _"], ...]] | None:
        """A step by the plan of the one before, or nothing: there is none, or a hook wants to see one of these called.

        The least that can be done in Python: calls from module to module take as long as all that is computed.
        """
        own, scan = self._parameters, part(self, "scan")
        if state is None or scan.plan is None or len(own) != PARAMETERS or not unseen(self, scan, *callers):
            return None
        weights = own["weight"], own["params"], own["project"], None, None, own["input_weight"], own["bias"]
        return scan.plan(tuple.__new__(Cell, (self.rule, x, *weights)), state)

    def __call__(self, *arguments: Any) -> Any:
        x, state, clock = arguments
        done = self.planned(x, state) if clock is None else None
        return super().__call__(*arguments) if done is None else done

    def forward(
        self, x: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "B _"], ...], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T M"], tuple[Float[Tensor, "B _"], ...]]:
        # by their names: a parametrisation may have taken one away, and answers for it
        weights = self.weight, self.params, self.project, None, None, self.input_weight, self.bias
        return self.scan(Cell(self.rule, x, *weights), state, clock)
