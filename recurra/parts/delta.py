"""What the delta rules share: how fast their memories fade, and what they refuse."""

import torch
from torch import nn
from torch.nn import functional as F

from recurra.ops import Delta
from recurra.ops.pointwise import Map, pointwise
from recurra.parts.init import step_bias_
from recurra.shapes import Float, Tensor, wide


def _fade(x: Tensor, rate: Tensor, bias: Tensor) -> Tensor:
    return -rate * F.softplus(x + bias)


def _square(x: Tensor, *others: Tensor) -> tuple[Tensor]:
    return (x * x,)


def _ask(query: Tensor, squares: Tensor, count: Tensor | int) -> Tensor:
    return query * (count * (squares + 1e-6)).rsqrt()


def _tell(key: Tensor, write: Tensor, squares: Tensor, count: Tensor | int) -> tuple[Tensor, Tensor]:
    key = key * (squares + 1e-6).rsqrt()
    return key, write * key


FADE, ASK, TELL = Map("fade", _fade), Map("ask", _ask, sums=_square), Map("tell", _tell, 2, sums=_square)


class Fading(nn.Module):
    r"""The logarithm of what a step leaves of a memory, from what the input asks.

    .. math::  g = -e^{a} \operatorname{softplus}(x + b)

    a starts as the logarithm of an even spread of rates, b so that the softplus is a time step (Gu & Dao 2023). Wide:
    a rounded decay is wrong at every later step.

    Args:
        heads: rates (H).
        channels: biases of each head (K); None: one.
        slowest: the least rate there may be at the start, above 0, whose logarithm is infinite.
    """

    def __init__(self, heads: int, channels: int | None = None, *, slowest: float = 0.01) -> None:
        super().__init__()
        self.log_rate = nn.Parameter(torch.empty(heads).uniform_(slowest, 16).log())
        self.step_bias = nn.Parameter(torch.empty(heads * (channels or 1)))
        step_bias_(self.step_bias)

    def forward(self, x: Float[Tensor, "*B F"]) -> Float[Tensor, "*B F"]:
        """A feature for each bias, those of a head side by side."""
        real = wide(x, self.log_rate)
        rate = self.log_rate.to(real).exp().repeat_interleave(len(self.step_bias) // len(self.log_rate))
        return pointwise(FADE, x.to(real), rate, self.step_bias)


def correction(
    query: Float[Tensor, "B T H K"],
    key: Float[Tensor, "B T H K"],
    value: Float[Tensor, "B T H V"],
    write: Float[Tensor, "B T H"],
    log_decay: Float[Tensor, "B T H *K"] | None = None,
) -> Delta:
    r"""The record of a memory in which, step by step, what a key recalls moves a part of the way to its value.

    .. math::
        S_t = D_t S_{t-1} + \beta_t k_t (v_t - (D_t S_{t-1})^\top k_t)^\top \qquad
        o_t = K^{-1/2} S_t^\top q_t

    Args:
        query: of any length; brought to one, with 1e-6 inside the root.
        key: likewise.
        value: what the key is to recall.
        write: :math:`\beta`, the part, in the wide type.
        log_decay: of a head, or of each of its channels; None: nothing fades.
    """
    key, written = told(key, write)
    # what is written and what is erased are the same part: it is the key that carries it, the narrower of the two
    return Delta(asked(query, write), written, value.to(write.dtype), key, log_decay)


def asked(query: Float[Tensor, "B T *H K"], like: Tensor) -> Float[Tensor, "B T *H K"]:
    r"""A query of length :math:`K^{-1/2}`, with 1e-6 inside the root, in the type of `like`."""
    return pointwise(ASK, query.to(like.dtype))


def told(
    key: Float[Tensor, "B T *H K"], write: Float[Tensor, "B T *H"]
) -> tuple[Float[Tensor, "B T *H K"], Float[Tensor, "B T *H K"]]:
    """A key of length one, with 1e-6 inside the root, and how much of it is written, in the type of `write`."""
    return pointwise(TELL, key.to(write.dtype), write[..., None])


def size_of(width: int, heads: int, head_size: int | None) -> int:
    """Features of a key: `head_size` or, without, an equal share of the width.

    Raises:
        ValueError: there is no `head_size`, and `heads` does not divide `width`.
    """
    if head_size is None and width % heads:
        raise ValueError(f"width is {width}: it must be a multiple of heads, which is {heads}; or give head_size")
    return head_size or width // heads


def check_strength(strength: float) -> float:
    """The strength, if a step of the delta rule with it cannot make the memory larger.

    Raises:
        ValueError: it is outside (0, 2].
    """
    if not 0 < strength <= 2:
        raise ValueError(f"strength is {strength}: it must be above 0 and at most 2, or the memory grows for ever")
    return strength
