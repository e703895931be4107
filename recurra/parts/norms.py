"""Normalisation without a paper's name. The mean is taken in the wide type: squares of bfloat16 lose too much.

Papers differ in whether a gate comes after the norm (RetNet, GLA, Gated DeltaNet) or before it (Mamba-2). After it,
`norm.gated(read, gate)` is `norm(read) * silu(gate)` in one pass; before it, `norm(read * silu(gate))` says so.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from recurra.ops.pointwise import Map, pointwise
from recurra.shapes import Float, Tensor, wide

Squash = Callable[[Tensor], Tensor]


def _square(x: Tensor, *others: Tensor) -> tuple[Tensor]:
    return (x * x,)


def _unit(x: Tensor, squares: Tensor, count: Tensor | int, epsilon: float) -> Tensor:
    return x * (squares + epsilon).rsqrt()


def _rms(x: Tensor, squares: Tensor, count: Tensor | int, epsilon: float) -> Tensor:
    return x * (squares / count + epsilon).rsqrt()


def _scaled(x: Tensor, weight: Tensor, squares: Tensor, count: Tensor | int, epsilon: float) -> Tensor:
    return _rms(x, squares, count, epsilon) * weight


def _rms_gated(
    x: Tensor, gate: Tensor, squares: Tensor, count: Tensor | int, epsilon: float, squash: Squash | None
) -> Tensor:
    return _rms(x, squares, count, epsilon) * (gate if squash is None else squash(gate))


def _gated(
    x: Tensor, gate: Tensor, weight: Tensor, squares: Tensor, count: Tensor | int, epsilon: float, squash: Squash
) -> Tensor:
    return _rms(x, squares, count, epsilon) * weight * squash(gate)


def rms(x: Float[Tensor, "... D"], epsilon: float) -> Float[Tensor, "... D"]:
    r"""`x` over its root mean square, :math:`x / \sqrt{\operatorname{mean}(x^2) + \epsilon}`, in the wide type."""
    return pointwise(Map("rms", _rms, 1, _square, constants=(epsilon,)), x.to(wide(x)))


def rms_gated(
    x: Float[Tensor, "B T *H D"], gate: Float[Tensor, "B T _"], epsilon: float, squash: Squash | None = None
) -> Float[Tensor, "B T _"]:
    """`rms(x) * squash(gate)`, heads side by side, in the gate's type; None: the gate as it is."""
    real = wide(x)
    way = Map("rms_gated", _rms_gated, 1, _square, constants=(epsilon, squash))
    return pointwise(way, x.to(real), gate.unflatten(-1, x.shape[2:]).to(real)).flatten(2).to(gate.dtype)


def unit(x: Float[Tensor, "... D"], epsilon: float = 1e-6) -> Float[Tensor, "... D"]:
    r"""`x` over its length, :math:`x / \sqrt{\sum x^2 + \epsilon}`, in the wide type.

    Epsilon is inside the root, so that the gradient at zero is finite; a vector of zeros stays zero.
    """
    return pointwise(Map("unit", _unit, 1, _square, constants=(epsilon,)), x.to(wide(x)))


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
        whole, weight = x.to(wide(x)), self.weight
        if self.groups > 1:
            whole, weight = (part.unflatten(-1, (self.groups, -1)) for part in (whole, weight))
        way = Map("scaled_rms", _scaled, 1, _square, constants=(self.epsilon,))
        return pointwise(way, whole, weight).reshape(x.shape).to(x.dtype)

    def gated(
        self, x: Float[Tensor, "B T H D"], gate: Float[Tensor, "B T _"], squash: Squash = F.silu
    ) -> Float[Tensor, "B T _"]:
        """`norm(x) * squash(gate)`, heads side by side, in the gate's type."""
        assert self.groups == 1, "heads are its groups"
        real = wide(x)
        vectors = gate.unflatten(-1, x.shape[2:]).to(real)
        way = Map("gated_rms", _gated, 1, _square, constants=(self.epsilon, squash))
        return pointwise(way, x.to(real), vectors, self.weight).flatten(2).to(gate.dtype)


def _affine(x: Tensor, weight: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    return x * weight + bias


def _affine_and_gate(x: Tensor, gate: Tensor, weight: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    return (x * weight + bias) * F.silu(gate)


AFFINE, AFFINE_AND_GATE = Map("affine", _affine), Map("affine_gated", _affine_and_gate)


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
        return pointwise(AFFINE, self.normal(x), *self.affine()).to(x.dtype)

    def gated(self, x: Float[Tensor, "*B D"], gate: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """`norm(x) * silu(gate)`, in the gate's type."""
        normal = self.normal(x)
        return pointwise(AFFINE_AND_GATE, normal, gate.to(normal.dtype), *self.affine()).to(gate.dtype)

    def normal(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """What is not yet scaled, in the wide type."""
        # a layer norm of each head: torch's group norm, where nothing lies behind a feature, goes number by number
        heads = x.to(wide(x)).unflatten(-1, (self.heads, -1))
        return F.layer_norm(heads, heads.shape[-1:], eps=self.epsilon).flatten(-2)

    def affine(self) -> tuple[Float[Tensor, " D"], ...]:
        """What scales it, and the bias if there is one."""
        return (self.weight,) if self.bias is None else (self.weight, self.bias)
