"""Attention within whole segments as a walk in C has it soonest: steps lie side by side, as the numbers of a vector.

So turns, the largest of scores and their sums take no shuffle, and no product needs its operands turned over.
"""

from typing import NamedTuple

import torch

from recurra.parts.rotary import rotary_turns
from recurra.shapes import Float, Tensor, wide


class Lying(NamedTuple):
    """What attention within whole segments needs that lies with its features as rows: steps are a vector's lanes."""

    cosine: Float[Tensor, "P C"]  # of the turns by the place in the segment
    sine: Float[Tensor, "P C"]
    later: Float[Tensor, "C C"]  # by key and query: -inf where the key comes later

    @classmethod
    def of(cls, like: Float[Tensor, "*B D"], steps: int, size: int, base: float) -> "Lying":
        """For segments of so many steps and heads of so many features."""
        place = torch.arange(steps, device=like.device)
        cosine, sine = (x[0, :, 0].mT.to(wide(like)).contiguous() for x in rotary_turns(place[None], size, base))
        later = place[:, None] > place
        return cls(cosine, sine, torch.zeros_like(later, dtype=cosine.dtype).masked_fill(later, -torch.inf))

    def turned(self, x: Float[Tensor, "*B K C"]) -> Float[Tensor, "*B K C"]:
        """`x` turned by the place of every step, as `rotate` does."""
        even, odd = x.unflatten(-2, (-1, 2)).unbind(-2)
        pairs = even * self.cosine - odd * self.sine, odd * self.cosine + even * self.sine
        return torch.stack(pairs, -2).flatten(-3, -2)

    def attend(
        self,
        query: Float[Tensor, "B H K C"],
        key: Float[Tensor, "B H K C"],
        value: Float[Tensor, "B H V C"],
        own: Float[Tensor, "B M H K"],
        read: Float[Tensor, "B M H V"],
    ) -> Float[Tensor, "B C H V"]:
        """Softmax attention of every query to all of `own`, which `read` belongs to, and to the steps up to its own."""
        own, read = own.transpose(1, 2), read.transpose(1, 2)
        scale = query.shape[2] ** -0.5
        scores = torch.cat([own @ query * scale, key.mT @ query * scale + self.later], 2)
        far, near = scores.softmax(2).split([own.shape[2], key.shape[-1]], 2)
        return (read.mT @ far + value @ near).permute(0, 3, 1, 2)
