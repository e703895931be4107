"""Models of one size: the width at which an architecture has as many parameters as another."""

import inspect
from typing import Any

import torch
from torch import nn

TOLERANCE = 0.03
STEP = 8  # widths and hidden sizes are multiples of this, so that heads divide them


def count(model: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(p.numel() for p in model.parameters())


def size(build: Any, arguments: dict[str, Any]) -> int:
    """The parameters of a model that is described, not made: no memory is taken."""
    with torch.device("meta"):
        return count(build(**arguments))


def solve_width(name: str, arguments: dict[str, Any], budget: int) -> dict[str, Any]:
    """`arguments` with the width, and the MLP's hidden size, at which model `name` has `budget` parameters.

    The width is the multiple of 8 nearest the budget; the hidden size then takes up what is left.

    Raises:
        ValueError: no width comes within 3 %; the nearest is given.
    """
    from recurra.models import MODELS

    build = MODELS[name]
    fixed = {key: value for key, value in arguments.items() if key != "width"}

    def at(width: int) -> int:
        return size(build, {**fixed, "width": width})

    low, high = STEP, 2 * STEP
    while at(high) < budget:
        low, high = high, 2 * high
    while high - low > STEP:
        middle = (low + high) // 2 // STEP * STEP
        low, high = (middle, high) if at(middle) < budget else (low, middle)
    width = min((low, high), key=lambda w: abs(at(w) - budget))
    solved = {**fixed, "width": width}
    if "hidden" in inspect.signature(build).parameters and fixed.get("hidden") is None:
        empty, one = (size(build, {**solved, "hidden": h}) for h in (0, STEP))
        per = size(build, {**solved, "hidden": 2 * STEP}) - one
        hidden = STEP * max(1, round(1 + (budget - one) / per)) if one < budget else STEP
        solved["hidden"] = hidden if empty < budget else 0
    reached = size(build, solved)
    if abs(reached - budget) > TOLERANCE * budget:
        raise ValueError(
            f"{arguments.get('pattern', name)} cannot have {budget:,} parameters within {TOLERANCE:.0%}: "
            f"the nearest is {reached:,} at width {width}; give another budget or depth"
        )
    return solved
