"""Maps of every number by itself, between two products: one pass over memory forward and one back.

What stands between the projections and the scan of a layer is mostly gates. As torch runs them each sigmoid and each
product is a pass of its own over all steps, and going back two or three: together they cost more than the scan. A map
is written once, as torch is written; `loop` runs it as it stands, `native` makes C of it, as cells make C of their
rules. Nothing is kept for the gradient but what came in.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from recurra.ops.pointwise import loop, native
from recurra.ops.scan import asked
from recurra.shapes import Inexact, Tensor


class Map(NamedTuple):
    """A function of tensors that broadcast, pointwise in all of them; it returns one tensor, or a tuple of several.

    What stands before it may be sums over the last axis, as a length is: `sums`, of the same tensors, returns a tuple
    of what to sum, and the function is then given, after its tensors, the sums and how many numbers each is of. Last
    come its `constants`: a map is known by its functions and by them, so it may be written where it is called.

    Functions know real numbers only: a complex tensor comes as its real and its imaginary part, and where all results
    are `complex` the function returns the two parts of each, one after the other.
    """

    name: str
    function: Callable[..., Any]
    outputs: int = 1
    sums: Callable[..., tuple] | None = None
    complex: bool = False
    constants: tuple = ()


def pointwise(way: Map, *tensors: Inexact[Tensor, "..."]) -> Any:
    """What the map gives: a tensor, or a tuple of several.

    Args:
        way: the map.
        tensors: the first of the shape of the results, `(B, T, *F)`; the others of that shape, or of its last axes
            (parameters, the same at every step), or with 1 in place of its last.
    """
    only = None if torch.compiler.is_compiling() else asked()
    if torch.compiler.is_compiling() or only not in (None, "native") or native.declines(way, tensors) is not None:
        return loop.run(way, tensors)
    return native.run(way, tensors)
