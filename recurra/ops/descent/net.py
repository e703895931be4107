"""The small networks that are memories, with their gradients in closed form, so that `no_grad` cannot turn them off.

The gradient of a layer's matrix is, for every key, the product of what enters the layer and what the loss hands back:
two vectors. They are kept as such, and a matrix is made of them only where a chunk ends.
"""

import math
from typing import NamedTuple

import torch
from torch.nn import functional as F

from recurra.shapes import Float, Tensor

EPSILON = 1e-6  # under the power of an error


class Net(NamedTuple):
    r"""Layers of matrices with GELU between, whose weights lie end to end in one vector.

    .. math::  f(x) = W_L^\top \operatorname{gelu}(\ldots \operatorname{gelu}(W_1^\top x))

    and, where it is `normalised`, :math:`x + \gamma \odot \operatorname{norm}(\ldots) + \beta` with a layer norm.
    """

    sizes: tuple[int, ...]  # of what enters, of what is between, of the answer
    bias: bool = False  # the last row of a layer's matrix, whose input is one
    approximate: str = "none"  # or "tanh": how GELU is computed
    normalised: bool = False
    epsilon: float = 1e-6  # of the layer norm

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Of each layer's matrix."""
        return [(i + self.bias, o) for i, o in zip(self.sizes[:-1], self.sizes[1:], strict=True)]

    @property
    def size(self) -> int:
        """How many weights there are (P)."""
        return sum(map(math.prod, self.shapes))

    def layers(self, flat: Float[Tensor, "*B P"]) -> list[Tensor]:
        """Each layer's matrix."""
        parts = flat.split([math.prod(shape) for shape in self.shapes], -1)
        return [part.unflatten(-1, shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def fed(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B J"]:
        """What a layer multiplies: its input, and a one where there are biases."""
        return F.pad(x, (0, 1), value=1.0) if self.bias else x

    def between(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B J"]:
        """From what one layer gives to what the next multiplies."""
        return self.fed(F.gelu(x, approximate=self.approximate))

    def answer(self, x: Tensor, last: Tensor, norm: Tensor | None) -> Tensor:
        """From what the last layer gives for `x`, `(B, H, C, V)`, to the network's answer."""
        if norm is None:
            return last
        gain, shift = norm[:, :, None].unbind(0)
        return x + gain * F.layer_norm(last, last.shape[-1:], eps=self.epsilon) + shift

    def forward(self, weights: list[Tensor], x: Float[Tensor, "B H C K"], norm: Tensor | None) -> Tensor:
        """The answer to every x."""
        entering = self.fed(x)
        for weight in weights[:-1]:
            entering = self.between(entering @ weight)
        return self.answer(x, entering @ weights[-1], norm)

    def gradients(
        self,
        weights: list[Tensor],
        key: Float[Tensor, "B H C K"],
        value: Float[Tensor, "B H C V"],
        norm: Tensor | None,
        power: float,
        threshold: Tensor | None,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """For every key and layer the two vectors whose product is the gradient: what enters, what comes back."""
        entering, given = [self.fed(key)], []
        for weight in weights:
            given.append(entering[-1] @ weight)
            if len(given) < len(weights):
                entering.append(self.between(given[-1]))
        back = _unlike(self.answer(key, given[-1], norm) - value, power, threshold)
        backs = [back if norm is None else _through_norm(given[-1], norm[0, :, None] * back, self.epsilon)]
        for weight, z in zip(weights[:0:-1], given[-2::-1], strict=True):
            back = backs[0] @ (weight[..., :-1, :] if self.bias else weight).mT
            backs.insert(0, torch.ops.aten.gelu_backward(back, z, approximate=self.approximate))
        return entering, backs


def _unlike(error: Tensor, power: float, threshold: Tensor | None) -> Tensor:
    """The loss's gradient with respect to the answer."""
    if threshold is not None:
        error = error.clamp(-threshold, threshold)
    return error if power == 2 else error * (error.square() + EPSILON) ** (power / 2 - 1)


def _through_norm(z: Tensor, grad: Tensor, epsilon: float) -> Tensor:
    """The gradient with respect to z, of a layer norm without scale, from that of its output."""
    z = z - z.mean(-1, keepdim=True)
    inverse = (z.square().mean(-1, keepdim=True) + epsilon).rsqrt()
    normal = z * inverse
    return inverse * (grad - grad.mean(-1, keepdim=True) - normal * (grad * normal).mean(-1, keepdim=True))
