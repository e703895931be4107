"""Projections of blocks: features fall into groups, and each group is mixed only with itself."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from recurra.ops.grouped import grouped, native
from recurra.ops.scan import unseen
from recurra.shapes import Float, Tensor


class BlockLinear(nn.Module):
    """A linear map whose matrix is block-diagonal.

    Starts normal with deviation sqrt(2 / (5 d)) for blocks of d: Nguyen & Salazar 2019,
    https://arxiv.org/abs/1910.05895.

    Args:
        width: features in and out.
        blocks: how many; divides `width`.
        bias: whether to add one, which starts at zero.
    """

    def __init__(self, width: int, blocks: int, *, bias: bool = False) -> None:
        super().__init__()
        size = width // blocks
        self.weight = nn.Parameter(torch.empty(blocks, size, size).normal_(0, math.sqrt(2 / (5 * size))))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        y = grouped(x, self.weight)
        return y if self.bias is None else y + self.bias


def beside(
    layers: Sequence[BlockLinear], first: Float[Tensor, "B T D"], second: Float[Tensor, "B T D"]
) -> Float[Tensor, "B T _"]:
    """What two layers make of one input and two of another, side by side; `layers` have no bias."""
    if unseen(*layers):
        done = native.quick((first, second), [layer.weight for layer in layers])
        if done is not None:
            return done
    inputs = first, first, second, second
    return torch.cat([layer(x) for layer, x in zip(layers, inputs, strict=True)], -1)
