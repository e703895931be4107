"""The token shift with weights, which begins every layer of the RWKV family, and where its values start.

Where they start depends on where a layer lies in its stack: the later, the less it looks back.
"""

import torch
from torch import nn

from recurra.checks import layer_of
from recurra.clock import Clock
from recurra.ops.pointwise import Map, pointwise
from recurra.ops.shift import shift
from recurra.shapes import Float, Tensor


def _blends(x: Tensor, before: Tensor, *shares: Tensor) -> Tensor | tuple[Tensor, ...]:
    change = before - x
    found = tuple(x + share * change for share in shares)
    return found if len(shares) > 1 else found[0]


def blend(
    x: Float[Tensor, "B T D"], before: Float[Tensor, "B T D"], *shares: Float[Tensor, " D"]
) -> tuple[Float[Tensor, "B T D"], ...]:
    """Each step and the one before it, mixed by every share: a pass over both."""
    found = pointwise(Map("blends", _blends, len(shares)), x, before, *shares)
    return found if len(shares) > 1 else (found,)


class TokenShift(nn.Module):
    r"""Several blends of each step with the step before, each with its own learned share for every feature.

    .. math::  x^{(i)}_t = x_t + \mu_i \odot (x_{t-1} - x_t)

    State: the last x, `(B, D)`.

    Args:
        shares: where :math:`\mu` starts, a row for each blend.
    """

    def __init__(self, *shares: Float[Tensor, " D"]) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.stack(shares))

    def forward(
        self, x: Float[Tensor, "B T D"], past: Float[Tensor, "B D"], clock: Clock | None
    ) -> tuple[tuple[Float[Tensor, "B T D"], ...], Float[Tensor, "B D"]]:
        before, past = shift(x, past, clock)
        return blend(x, before, *self.share.unbind(0)), past


def place(layer: int, depth: int) -> tuple[float, float]:
    """How far up the stack a layer is, 0 to 1, and how far from its end, 1 to almost 0.

    Raises:
        ValueError: there is no such layer.
    """
    layer_of(depth, layer)
    return layer / max(depth - 1, 1), 1 - layer / depth


def looking_back(width: int, power: float, less: float = 0.0) -> Float[Tensor, " D"]:
    """A share of the step before that falls from 1 at the first feature: 1 - (n/D)^power - less."""
    return 1 - (torch.arange(width) / width) ** power - less


def fading(width: int, low: float, span: float, up: float) -> Float[Tensor, " D"]:
    """Logarithms of decay rates, low + span (n/(D-1))^(0.7 + 1.3 up): from the slowest feature to the fastest."""
    return low + span * (torch.arange(width) / max(width - 1, 1)) ** (0.7 + 1.3 * up)


def present(width: int, up: float) -> Float[Tensor, " D"]:
    """Bonuses for the present step of the matrix memories: the later the layer, the more, and most for the first."""
    return up * (1 - torch.arange(width) / max(width - 1, 1)) + zigzag(width, 0.1)


def zigzag(width: int, size: float) -> Float[Tensor, " D"]:
    """0, size, -size and again: what tells neighbouring features apart at the start."""
    return ((torch.arange(width) + 1) % 3 - 1) * size
