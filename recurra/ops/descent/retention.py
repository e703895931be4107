r"""From what was added up to weights: the maps :math:`\phi` of `Descent`, each of one layer's matrix `(*B, I, O)`.

A distance to the last weights that is not Euclidean makes a step of gradient descent one of mirror descent: gradients
are added up, decay and all, on one side of a map, and the weights are on the other. Behrouz et al. 2025,
https://arxiv.org/abs/2504.13173.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

from recurra.checks import at_least, greater_than
from recurra.shapes import Float, Tensor

EPSILON = 1e-6


def _as_it_is(dual: Float[Tensor, "*B I O"]) -> Float[Tensor, "*B I O"]:
    return dual


class Mirror(NamedTuple):
    """A map from sums to weights and, where different sums have the same weights, to those that lose no digits.

    Its kind and number are what the kernel knows it by.
    """

    kind: int
    number: float
    weights: Callable[[Tensor], Tensor]
    settled: Callable[[Tensor], Tensor] = _as_it_is


def lq(q: float) -> Mirror:
    r""":math:`A / \lVert A \rVert_q^{q-2}`, the norm over all of the matrix and with 1e-6 inside the root.

    Raises:
        ValueError: `q` is less than 2.
    """
    at_least(2, q=q)
    return Mirror(1, q, functools.partial(_normed, q=q))


def kl() -> Mirror:
    """Positive weights: the softmax over the inputs of each output, times how many there are, so that 1 is the mean.

    As the softmax of a logarithm of a softmax is the softmax itself, adding up logarithms needs no normalisation; but
    what they share would grow until it hid how they differ.
    """
    return Mirror(2, 0.0, _shares, _centred)


def elastic(threshold: float) -> Mirror:
    """Weights that are zero until enough was added up: soft thresholding.

    Raises:
        ValueError: `threshold` is not greater than 0.
    """
    greater_than(0, threshold=threshold)
    return Mirror(3, threshold, functools.partial(_thresholded, threshold=threshold))


def _normed(dual: Float[Tensor, "*B I O"], q: float) -> Float[Tensor, "*B I O"]:
    return dual * ((dual.square() + EPSILON) ** (q / 2)).sum((-2, -1), keepdim=True) ** (2 / q - 1)


def _shares(dual: Float[Tensor, "*B I O"]) -> Float[Tensor, "*B I O"]:
    # a softmax is rounded by what it divides by, for all inputs of an output alike, and an answer adds that up; so
    # what is divided by is said as a logarithm and one step of Newton nearer to where the mean is 1
    log = dual - (dual.detach().logsumexp(-2, keepdim=True) - math.log(dual.shape[-2]))
    return (log - log.expm1().mean(-2, keepdim=True).log1p()).exp()


def _centred(dual: Float[Tensor, "*B I O"]) -> Float[Tensor, "*B I O"]:
    return dual - dual.mean(-2, keepdim=True)


def _thresholded(dual: Float[Tensor, "*B I O"], threshold: float) -> Float[Tensor, "*B I O"]:
    return dual - dual.clamp(-threshold, threshold)
