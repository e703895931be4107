"""Projections of blocks: features fall into groups, and each group is mixed only with itself."""

import math

import torch
from torch import nn

from recurra.shapes import Float, Tensor


class BlockLinear(nn.Module):
    """A linear map whose matrix is block-diagonal, with no bias.

    Starts normal with deviation sqrt(2 / (5 d)) for blocks of d: Nguyen & Salazar 2019,
    https://arxiv.org/abs/1910.05895.

    Args:
        width: features in and out.
        blocks: how many; divides `width`.
    """

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        size = width // blocks
        self.weight = nn.Parameter(torch.empty(blocks, size, size).normal_(0, math.sqrt(2 / (5 * size))))

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        return torch.einsum("hij,...hj->...hi", self.weight, x.unflatten(-1, (len(self.weight), -1))).flatten(-2)
