"""Layers of a transformer's block that are the same wherever they stand: feed-forward, and attention to others."""

from torch import nn
from torch.nn import functional as F

from recurra.parts.linear import linear
from recurra.parts.window import attend
from recurra.shapes import Float, Tensor


class FeedForward(nn.Module):
    r"""A step's own nonlinearity: :math:`W_d (a \odot \operatorname{gelu}(b))` with :math:`(a, b) = W_u x`.

    Shazeer 2020, https://arxiv.org/abs/2002.05202, with 8/3 as many units as features.

    Args:
        width: features in and out (D).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        units = 8 * width // 3
        self.up, self.down = nn.Linear(width, 2 * units, bias=False), nn.Linear(units, width, bias=False)

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """The same shape as `x`."""
        one, gate = self.up(x).chunk(2, -1)
        return self.down(one * F.gelu(gate))


class CrossAttention(nn.Module):
    """Softmax attention of some to others, without positions: queries, keys, values and output linear, no biases.

    Args:
        width: features in and out (D).
        heads: that attend each by itself (H); divides `width`.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(self, x: Float[Tensor, "N Q D"], seen: Float[Tensor, "N L D"]) -> Float[Tensor, "N Q D"]:
        """What each of `x` reads from all of `seen`."""
        return self.answer(self.query(x), seen)

    def answer(self, query: Float[Tensor, "N Q D"], seen: Float[Tensor, "N L D"]) -> Float[Tensor, "N Q D"]:
        """What queries, `self.query` of some, read from all of `seen`."""
        key_value = linear(seen, self.key, self.value).chunk(2, -1)
        query, key, value = (z.unflatten(-1, (self.heads, -1)) for z in (query, *key_value))
        return self.out(attend(query, key, value).flatten(-2))
