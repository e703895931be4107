"""The short convolution as a module: its weights, its past inputs as state, and its start."""

import torch
from torch import nn

from recurra.clock import Clock
from recurra.ops import Scan, ShortConv
from recurra.shapes import Float, Tensor, state_zeros


class ShortConvolution(nn.Module):
    """Each feature mixed with its own last few inputs, then SiLU: `ShortConv` with parameters.

    Args:
        width: features (D).
        size: inputs seen at each step, the present one included (J).
        bias: whether to add one.
        silu: whether SiLU follows.
    """

    def __init__(self, width: int, *, size: int = 4, bias: bool = True, silu: bool = True) -> None:
        super().__init__()
        self.silu = silu
        bound = size**-0.5
        self.weight = nn.Parameter(torch.empty(width, size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(width).uniform_(-bound, bound)) if bias else None
        self.scan = Scan()

    def initial_state(self, batch: int) -> Float[Tensor, "B J D"]:
        """No inputs yet: zeros."""
        width, size = self.weight.shape
        return state_zeros(self.weight, batch, size - 1, width)

    def forward(
        self, x: Float[Tensor, "B T D"], state: Float[Tensor, "B J D"], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B J D"]]:
        return self.scan(ShortConv(x, self.weight, self.bias, self.silu), state, clock)
