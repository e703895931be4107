"""The algebras that a diagonal recurrence runs over: `h = add(mul(a, h), b)`.

Any pair where `mul` distributes over `add` composes: the map (a1, b1) followed by (a2, b2) is
(mul(a2, a1), add(mul(a2, b1), b2)). So one scan serves all of them.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch

from recurra.shapes import Tensor


class Ring(NamedTuple):
    """One algebra. `one` leaves h alone under `mul`, `zero` under `add`; `start` is h before the first step."""

    name: str
    add: Callable[[Tensor, Tensor], Tensor]
    mul: Callable[[Tensor, Tensor], Tensor]
    zero: float
    one: float
    start: float


def _logaddexp(x: Tensor, y: Tensor) -> Tensor:
    """log(e^x + e^y), with gradient zero rather than NaN where both are -inf."""
    both = (x == -torch.inf) & (y == -torch.inf)
    return torch.where(both, -torch.inf, torch.logaddexp(x.masked_fill(both, 0), y.masked_fill(both, 0)))


SUM = Ring("sum", torch.add, torch.mul, 0.0, 1.0, 0.0)
MIN_MAX = Ring("min_max", torch.maximum, torch.minimum, -torch.inf, torch.inf, 0.0)
MAX_PLUS = Ring("max_plus", torch.maximum, torch.add, -torch.inf, 0.0, -torch.inf)
LOG_SUM = Ring("log_sum", _logaddexp, torch.add, -torch.inf, 0.0, -torch.inf)

RINGS = {ring.name: ring for ring in (SUM, MIN_MAX, MAX_PLUS, LOG_SUM)}
