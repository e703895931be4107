"""Projections of blocks: features fall into groups, and each group is mixed only with itself."""

import math

import torch
from torch import nn

from recurra.shapes import Float, Tensor

JOINED = 16  # features of blocks that are multiplied as one


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
        weight = self._joined() if torch.is_grad_enabled() else self.weight
        y = torch.einsum("hij,...hj->...hi", weight, x.unflatten(-1, (len(weight), -1))).flatten(-2)
        return y if self.bias is None else y + self.bias

    def _joined(self) -> Float[Tensor, "H I I"]:
        """Small blocks and zeros as larger ones: many products of a few numbers each cost more than zeros do."""
        blocks, size, _ = self.weight.shape
        together = math.gcd(blocks, max(JOINED // size, 1))
        if together == 1:
            return self.weight
        apart = self.weight.unflatten(0, (-1, together))[:, :, :, None]
        places = torch.eye(together, dtype=apart.dtype, device=apart.device)[:, None, :, None]
        return (apart * places).flatten(3).flatten(1, 2)
