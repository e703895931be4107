"""A dense cell with its weights. LSTM, GRU and Elman differ in their rule and in nothing that is said here."""

from typing import Any

import torch
from torch import nn

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.ops import Cell, Rule, Scan
from recurra.parts.init import glorot
from recurra.shapes import Float, Tensor, state_zeros


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

    def forward(
        self, x: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "B _"], ...], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T M"], tuple[Float[Tensor, "B _"], ...]]:
        own = self._parameters
        try:
            weight, params, project = own["weight"], own["params"], own["project"]
            entering, bias = own["input_weight"], own["bias"]
        except KeyError:  # a parametrisation took one away, and answers for it
            weight, params, project = self.weight, self.params, self.project
            entering, bias = self.input_weight, self.bias
        record = Cell(self.rule, x, weight, params, project, None, None, entering, bias)
        return part(self, "scan")(record, state, clock)
