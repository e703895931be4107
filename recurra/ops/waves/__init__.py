"""Random features: what a vector's direction is to a number of waves, whose agreement is a similarity of vectors.

Torch would divide, turn heads to the front for a product of small matrices, take sines and cosines, and turn all of it
back: six passes over memory for what a step's features are made of at once.
"""

from recurra.ops.scan import asked
from recurra.ops.waves import loop, native
from recurra.shapes import Float, Tensor, wide


def features(
    x: Float[Tensor, "B T H K"], waves: Float[Tensor, "H R K"], scale: Float[Tensor, "B T H"] | None = None
) -> Float[Tensor, "B T H W"]:
    r"""Sines, then cosines, of a vector's direction along each wave, in the wide type.

    .. math::
        \phi(x) = s\, [\sin(w_1^\top \bar x), \ldots, \sin(w_R^\top \bar x), \cos(w_1^\top \bar x), \ldots,
        \cos(w_R^\top \bar x)] \qquad \bar x = x / \sqrt{\lVert x \rVert^2 + 10^{-6}}

    Args:
        x: one vector a head.
        waves: w, of each head.
        scale: s; None: one.
    """
    real = wide(x, waves)
    x, waves, scale = x.to(real), waves.to(real), None if scale is None else scale.to(real)
    if asked() not in (None, "native") or native.declines(x, waves, scale) is not None:
        return loop.run(x, waves, scale)
    return native.run(x, waves, scale)
