"""What source-transition-mark networks share on sequences, grids and graphs: queries, keys, values and gates."""

import torch
from torch import nn
from torch.nn import functional as F

from recurra.parts.heads import divide
from recurra.parts.init import small_
from recurra.shapes import Float, Tensor


class Marks(nn.Module):
    """Queries over the root of their length, keys and values of every head, and gates between 0 and 1.

    Gates start at sigmoid(-5) everywhere: Pöppel et al. 2025, https://arxiv.org/abs/2506.11997.

    Args:
        width: features (D).
        heads: H; divides `width`.
        gates: numbers for every head (G).

    Raises:
        ValueError: `heads` does not divide `width`.
    """

    def __init__(self, width: int, heads: int, *, gates: int) -> None:
        super().__init__()
        self.heads, self.size = heads, divide(width, heads)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.gate = nn.Linear(width, gates * heads)
        for linear in (self.query, self.key, self.value):
            small_(linear.weight)
            nn.init.zeros_(linear.bias)
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, -5.0)

    def forward(
        self, seen: Float[Tensor, "... D"], x: Float[Tensor, "... D"]
    ) -> tuple[Float[Tensor, "... H K"], Float[Tensor, "... H K"], Float[Tensor, "... H V"], tuple[Tensor, ...]]:
        """Queries, keys and gates of `seen`, values of `x`."""
        split = (self.heads, self.size)
        query, key, value = (
            linear(y).unflatten(-1, split) for linear, y in ((self.query, seen), (self.key, seen), (self.value, x))
        )
        gates = F.sigmoid(self.gate(seen)).unflatten(-1, (-1, self.heads)).unbind(-2)
        return self.size**-0.5 * query, key, value, gates


def transition(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Between -1 and 1, and near 1 where x is: tanh(5 x)."""
    return torch.tanh(5 * x)
