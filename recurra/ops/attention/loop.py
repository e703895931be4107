"""The definition: scores of all queries and keys with a mask, by torch. Costs T L (K + V), and room for T L numbers."""

import torch
from torch.nn import functional as F

from recurra.shapes import Float, Int, Tensor


def declines(query: Tensor, key: Tensor, value: Tensor, added: Tensor | None = None) -> str | None:
    """Never: this is the definition the other is measured against."""
    return None


def run(
    query: Float[Tensor, "B T H K"],
    key: Float[Tensor, "B L H K"],
    value: Float[Tensor, "B L H V"],
    first: Int[Tensor, "#B T"],
    last: Int[Tensor, "#B T"],
    added: Float[Tensor, "B T H A"] | None = None,
) -> Float[Tensor, "B T H V"]:
    index = torch.arange(key.shape[1], device=key.device)
    seen = (index >= first[..., None]) & (index <= last[..., None])
    mask = seen[:, None]
    if added is not None:
        place = (added.shape[-1] - 1 + index - last[..., None]).clamp(0, added.shape[-1] - 1)[:, None]
        added = added.to(query.dtype).transpose(1, 2)
        added = added.gather(-1, place.expand(*added.shape[:2], *place.shape[2:]))
        mask = added.masked_fill(~mask, -torch.inf)
    query, key, value = (x.to(query.dtype).transpose(1, 2) for x in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value, mask).transpose(1, 2)
