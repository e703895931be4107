"""Normalisation without a paper's name. The mean is taken in the wide type: squares of bfloat16 lose too much.

There is no gated norm here. Papers differ in whether the gate comes after the norm (RetNet, GLA, Gated DeltaNet) or
before it (Mamba-2); `norm(read) * silu(gate)` and `norm(read * silu(gate))` say which, where it is used.
"""

import torch
from torch import nn
from torch.nn import functional as F

from recurra.shapes import Float, Tensor, wide


def rms(x: Float[Tensor, "... D"], epsilon: float) -> Float[Tensor, "... D"]:
    r"""`x` over its root mean square, :math:`x / \sqrt{\operatorname{mean}(x^2) + \epsilon}`, in the wide type."""
    x = x.to(wide(x))
    return x * (x.square().mean(-1, keepdim=True) + epsilon).rsqrt()


def unit(x: Float[Tensor, "... D"], epsilon: float = 1e-6) -> Float[Tensor, "... D"]:
    r"""`x` over its length, :math:`x / \sqrt{\sum x^2 + \epsilon}`, in the wide type.

    Epsilon is inside the root, so that the gradient at zero is finite; a vector of zeros stays zero.
    """
    x = x.to(wide(x))
    return x * (x.square().sum(-1, keepdim=True) + epsilon).rsqrt()


class RMSNorm(nn.Module):
    r"""Each vector over the root of its mean square, then scaled by feature.

    .. math::  y = w \odot x / \sqrt{\operatorname{mean}(x^2) + \epsilon}

    Args:
        width: features (D).
        groups: parts of the features that are normalised each by itself; divides `width`.
        epsilon: added to the mean square.
    """

    def __init__(self, width: int, *, groups: int = 1, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.groups, self.epsilon = groups, epsilon
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """The same shape and type as `x`."""
        if self.groups == 1:
            normal = rms(x, self.epsilon)
        else:
            normal = rms(x.unflatten(-1, (self.groups, -1)), self.epsilon).flatten(-2)
        return (self.weight * normal).to(x.dtype)


class HeadNorm(nn.Module):
    r"""The features of each head less their mean and over their deviation, then scaled by feature: a group norm.

    Args:
        width: features (D).
        heads: parts of the features that are normalised each by itself; divides `width`.
        bias: whether to add one.
        epsilon: added to the variance.
    """

    def __init__(self, width: int, heads: int, *, bias: bool, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.heads, self.epsilon = heads, epsilon
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """The same shape and type as `x`."""
        real = wide(x)
        weight, bias = (None if p is None else p.to(real) for p in (self.weight, self.bias))
        normal = F.group_norm(x.to(real).reshape(-1, x.shape[-1]), self.heads, weight, bias, self.epsilon)
        return normal.view_as(x).to(x.dtype)
