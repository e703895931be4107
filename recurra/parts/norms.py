"""Normalisation without a paper's name. The mean is taken in the wide type: squares of bfloat16 lose too much.

Papers differ in whether a gate comes after the norm (RetNet, GLA, Gated DeltaNet) or before it (Mamba-2). After it,
`norm.gated(read, gate)` is `norm(read) * silu(gate)` in one pass; before it, `norm(read * silu(gate))` says so.
"""

from typing import Any

import torch
from torch import nn
from torch.autograd import Function
from torch.nn import functional as F

from recurra.ops.pointwise import Map, pointwise
from recurra.shapes import Float, Tensor, wide


class _Shortened(Function):
    """x over the root of its squares' sum over `count`, and one over that root.

    Autograd's own way back from the square, the sum and the product makes eight arrays as large as x; here are three.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, count: int, epsilon: float) -> tuple[Tensor, Tensor]:
        size = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = (size.square() / count + epsilon).rsqrt()
        return x * inverse, inverse

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.count = inputs[1]
        ctx.save_for_backward(*output)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        y, inverse = ctx.saved_tensors
        grad, more = grad_outputs
        along = ((grad * y).sum(-1, keepdim=True) + more * inverse) / -ctx.count
        return torch.addcmul(grad, y, along).mul_(inverse), None, None


def _shorten(x: Float[Tensor, "... D"], count: int, epsilon: float) -> Float[Tensor, "... D"]:
    x = x.to(wide(x))
    if torch.is_grad_enabled() and x.requires_grad:
        return _Shortened.apply(x, count, epsilon)[0]
    return _Shortened.forward(x, count, epsilon)[0]


def rms(x: Float[Tensor, "... D"], epsilon: float) -> Float[Tensor, "... D"]:
    r"""`x` over its root mean square, :math:`x / \sqrt{\operatorname{mean}(x^2) + \epsilon}`, in the wide type."""
    return _shorten(x, x.shape[-1], epsilon)


def unit(x: Float[Tensor, "... D"], epsilon: float = 1e-6) -> Float[Tensor, "... D"]:
    r"""`x` over its length, :math:`x / \sqrt{\sum x^2 + \epsilon}`, in the wide type.

    Epsilon is inside the root, so that the gradient at zero is finite; a vector of zeros stays zero.
    """
    return _shorten(x, 1, epsilon)


class _Inverse(Function):
    """One over the root of each vector's mean square: what a map can scale by in one pass."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, epsilon: float) -> Tensor:
        return (torch.linalg.vector_norm(x, dim=-1, keepdim=True).square() / x.shape[-1] + epsilon).rsqrt()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, inverse = ctx.saved_tensors
        return x * (grad_outputs[0] * inverse**3 / -x.shape[-1]), None


def _inverse(x: Float[Tensor, "... D"], epsilon: float) -> Float[Tensor, "... 1"]:
    return (_Inverse.apply if torch.is_grad_enabled() and x.requires_grad else _Inverse.forward)(x, epsilon)


def _scale(x: Tensor, inverse: Tensor, weight: Tensor) -> Tensor:
    return x * inverse * weight


SCALE = Map("rms", _scale)


def _scale_and_gate(x: Tensor, gate: Tensor, inverse: Tensor, weight: Tensor) -> Tensor:
    return x * inverse * weight * F.silu(gate)


SCALE_AND_GATE = Map("rms_gated", _scale_and_gate)


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
        return pointwise(SCALE, whole, _inverse(whole, self.epsilon), weight).reshape(x.shape).to(x.dtype)

    def gated(self, x: Float[Tensor, "B T H D"], gate: Float[Tensor, "B T _"]) -> Float[Tensor, "B T _"]:
        """`norm(x) * silu(gate)`, heads side by side, in the gate's type."""
        assert self.groups == 1, "heads are its groups"
        real = wide(x)
        x, vectors = x.to(real), gate.unflatten(-1, x.shape[2:]).to(real)
        return pointwise(SCALE_AND_GATE, x, vectors, _inverse(x, self.epsilon), self.weight).flatten(2).to(gate.dtype)


def _affine(x: Tensor, weight: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    return x * weight + bias


AFFINE = Map("affine", _affine)


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
        # a layer norm of each head: torch's group norm, where nothing lies behind a feature, goes number by number
        heads = x.to(wide(x)).unflatten(-1, (self.heads, -1))
        normal = F.layer_norm(heads, heads.shape[-1:], eps=self.epsilon).flatten(-2)
        given = (self.weight,) if self.bias is None else (self.weight, self.bias)
        return pointwise(AFFINE, normal, *given).to(x.dtype)
