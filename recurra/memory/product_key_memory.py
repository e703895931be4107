"""A table of values with so many keys that only the halves of keys are kept, and all pairs of halves are keys."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from recurra.checks import at_least
from recurra.memory.values import Values
from recurra.parts.norms import rms
from recurra.shapes import Float, Int, Tensor, wide


def best(
    query: Float[Tensor, "*B H K"], keys: Float[Tensor, "2 H N S"], top: int
) -> tuple[Float[Tensor, "*B H top"], Int[Tensor, "*B H top"]]:
    r"""The largest scores of :math:`N^2` keys and which they are, the best first, looking at 2 N halves.

    .. math::  s_{i N + j} = k^1_i \cdot q_1 + k^2_j \cdot q_2

    Exact: a pair among the best has both halves among the best, so the best of `top` times `top` pairs are looked at.
    """
    first, second = (
        torch.einsum("...hs,hns->...hn", half, own).topk(top, -1)
        for half, own in zip(query.chunk(2, -1), keys.unbind(0), strict=True)
    )
    pairs = (first.values[..., None] + second.values[..., None, :]).flatten(-2)
    score, at = pairs.topk(top, -1)
    row = first.indices.gather(-1, at // top) * keys.shape[2]
    return score, row + second.indices.gather(-1, at % top)


class ProductKeyMemory(nn.Module):
    r"""A layer that looks a few values up in a table of very many, at the price of looking through their square root.

    .. math::
        q = \operatorname{norm}(W_q x) \qquad I, s = \operatorname{top}_k\big( k^1_i \cdot q_1 + k^2_j \cdot q_2 \big)
        \qquad m = \sum_{heads} \sum_{i \in I} \operatorname{softmax}(s)_i\, V_i
    .. math::
        y = W_o \big( m \odot \operatorname{silu}(W_g x) \big)

    Lample et al. 2019, https://arxiv.org/abs/1907.05242; the gate and :math:`W_o`, and that layers may share values, of
    Berges et al. 2024, https://arxiv.org/abs/2412.09764. Unlike the first the norm, over each half of a query, is of a
    row by itself, a root mean square with a learned scale: a batch norm would look at other rows and later steps. A
    table learns slowly where few rows are asked for: both papers give values a higher rate, constant in the second.

    Args:
        width: features in and out (D).
        keys: halves of keys (N): the table has their square of rows.
        heads: queries, each with keys of its own, all of one table.
        key_size: numbers of a key, both halves together; even.
        top: rows that each head reads (k).
        values: the table, a module such as `Values`; None: one in memory, of values as wide as x.

    Raises:
        ValueError: a number is less than 1, `top` more than `keys`, `key_size` odd, or the table has other rows.
    """

    undecayed = ("values.weight",)

    def __init__(
        self,
        width: int,
        *,
        keys: int = 32,
        heads: int = 4,
        key_size: int = 32,
        top: int = 8,
        values: Any = None,
    ) -> None:
        super().__init__()
        at_least(1, keys=keys, heads=heads, key_size=key_size, top=top)
        if top > keys:
            raise ValueError(f"top is {top}: it must be at most the {keys} halves of keys")
        if key_size % 2:
            raise ValueError(f"key_size is {key_size}: it must be even, or a key has no halves")
        values = Values(keys**2, width) if values is None else values
        rows, size = values.shape
        if rows != keys**2:
            raise ValueError(f"the table has {rows} rows: {keys} halves of keys need {keys**2}")
        self.top = top
        self.query = nn.Linear(width, heads * key_size, bias=False)
        self.query_scale = nn.Parameter(torch.ones(key_size))
        self.keys = nn.Parameter(torch.empty(2, heads, keys, key_size // 2).uniform_(-1, 1) * key_size**-0.5)
        self.values = values
        self.gate = nn.Linear(width, size, bias=False)
        self.out = nn.Linear(size, width, bias=False)

    def look_up(self, x: Float[Tensor, "*B D"]) -> tuple[Float[Tensor, "*B H top"], Int[Tensor, "*B H top"]]:
        """The weights and numbers of the rows that every head reads, in the wide type."""
        real = wide(x, self.keys)
        query = self.query(x).to(real).unflatten(-1, (self.keys.shape[1], 2, -1))
        query = (rms(query, 1e-6).flatten(-2) * self.query_scale).to(real)
        score, index = best(query, self.keys.to(real), self.top)
        return F.softmax(score, -1), index

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """Every row by itself."""
        weight, index = self.look_up(x)
        found = self.values(index.flatten(-2), weight.flatten(-2)).to(x.dtype)
        return self.out(found * F.silu(self.gate(x)))
