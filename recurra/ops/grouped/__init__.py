"""Products of many small matrices, each with features of its own: what a block-diagonal matrix makes of every step.

Torch has a batched product, which wants the blocks first and the steps second: what lies the other way round is copied
to it and from it, forward and twice back, and copies of small blocks cost more than the products.
"""

from recurra.ops.grouped import loop, native
from recurra.ops.scan import asked
from recurra.shapes import Float, Tensor


def grouped(x: Float[Tensor, "*B HK"], weight: Float[Tensor, "H K K"]) -> Float[Tensor, "*B HK"]:
    r"""Each group of features times a matrix of its own.

    .. math::  y_h = W_h x_h

    Args:
        x: H groups of K features side by side.
        weight: W.
    """
    if asked() not in (None, "native") or native.declines(x, weight) is not None:
        return loop.run(x, weight)
    return native.run(x, weight)
