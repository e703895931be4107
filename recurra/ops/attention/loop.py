"""The definition: scores of all queries and keys with a mask, by torch. Costs T L (K + V), and room for T L numbers."""

import torch
from torch.nn import functional as F

from recurra.shapes import Float, Int, Tensor


def declines(query: Tensor, key: Tensor, value: Tensor) -> str | None:
    """Never: this is the definition the other is measured against."""
    return None


def run(
    query: Float[Tensor, "B T H K"],
    key: Float[Tensor, "B L H K"],
    value: Float[Tensor, "B L H V"],
    first: Int[Tensor, "#B T"],
    last: Int[Tensor, "#B T"],
) -> Float[Tensor, "B T H V"]:
    index = torch.arange(key.shape[1], device=key.device)
    seen = (index >= first[..., None]) & (index <= last[..., None])
    query, key, value = (x.to(query.dtype).transpose(1, 2) for x in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value, seen[:, None]).transpose(1, 2)
