"""Tables of values that are too many to read whole: what a layer asks of them is sums of a few rows.

`y = values(index, weight)`, with K rows asked for and their weights. Where the rows lie is the table's own affair:
in memory (`Values`), in a file (`recurra.memory.mapped`), or divided among processes (`recurra.memory.sharded`).
"""

import torch
from torch import nn
from torch.nn import functional as F

from recurra.shapes import Float, Int, Tensor


def weighted_sum(
    table: Float[Tensor, "N V"], index: Int[Tensor, "*B K"], weight: Float[Tensor, "*B K"], sparse: bool = False
) -> Float[Tensor, "*B V"]:
    """The sum of some rows of a table, each times its weight, in the table's type."""
    many = index.flatten(0, -2)
    weight = weight.reshape(many.shape).to(table.dtype)
    total = F.embedding_bag(many, table, mode="sum", sparse=sparse, per_sample_weights=weight)
    return total.unflatten(0, index.shape[:-1])


class Values(nn.Module):
    r"""A table in memory.

    .. math::  y = \sum_k w_k V_{i_k}

    Starts normal with deviation :math:`1 / \sqrt V`.

    Args:
        rows: how many.
        size: numbers in each (V).
        sparse: whether the gradient is a sparse tensor, of the rows that were asked for: for `torch.optim.SparseAdam`
            or `torch.optim.SGD`; what shortens or sums gradients of all parameters must know such tensors.
    """

    def __init__(self, rows: int, size: int, *, sparse: bool = False) -> None:
        super().__init__()
        self.sparse = sparse
        self.weight = nn.Parameter(torch.randn(rows, size) * size**-0.5)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and numbers in each."""
        return self.weight.shape[0], self.weight.shape[1]

    def forward(self, index: Int[Tensor, "*B K"], weight: Float[Tensor, "*B K"]) -> Float[Tensor, "*B V"]:
        """The weighted sum of rows."""
        return weighted_sum(self.weight, index, weight, self.sparse)
