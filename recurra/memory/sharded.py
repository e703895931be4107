"""A table of values divided among processes: each holds some rows and sums those of its own for all.

What crosses between processes is the question (numbers of rows and their weights) and one sum for each row of the batch
and process, not the rows themselves. The two collectives are each other's gradients.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from recurra.memory.values import Values
from recurra.shapes import Float, Int, Tensor


def _gathered(x: Tensor) -> Float[Tensor, "P ..."] | Int[Tensor, "P ..."]:
    """What every process has, in order."""
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x.contiguous())
    return torch.stack(parts)


def _own_sum(x: Tensor) -> Tensor:
    """The sum over processes of what they have for this one."""
    x = x.contiguous().clone()
    dist.all_reduce(x)
    return x[dist.get_rank()].clone()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _gathered(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return _own_sum(gradient)


class _OwnSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _own_sum(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return _gathered(gradient)


class ShardedValues(nn.Module):
    r"""A table whose rows lie in the memories of several processes.

    .. math::  y = \sum_{p} \sum_{k :\, i_k \text{ in } p} w_k V_{i_k}

    Every process calls it at the same time, with batches of the same shape, after `torch.distributed` has begun. The
    gradient of a row is that of the sum of all processes' losses; as each row is in one process, nothing else may
    average it (tell DistributedDataParallel to leave `values.own.weight` alone).

    Args:
        rows: of the whole table, in process p those from `rows * p // processes`.
        size: numbers in each (V).
        sparse: as in `Values`.
    """

    def __init__(self, rows: int, size: int, *, sparse: bool = False) -> None:
        super().__init__()
        processes, mine = dist.get_world_size(), dist.get_rank()
        self.shape = rows, size
        self.first, after = rows * mine // processes, rows * (mine + 1) // processes
        self.own = Values(after - self.first, size, sparse=sparse)

    def forward(self, index: Int[Tensor, "*B K"], weight: Float[Tensor, "*B K"]) -> Float[Tensor, "*B V"]:
        """The weighted sum of rows, wherever they are."""
        index, weight = _gathered(index) - self.first, _Gather.apply(weight)
        here = (index >= 0) & (index < self.own.shape[0])
        return _OwnSum.apply(self.own(index.where(here, 0), weight * here))
