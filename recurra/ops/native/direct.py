"""The shortest way into C, for single steps: a call through the usual door, which looks at every tensor and field,
would cost more than what is computed."""

import ctypes
import functools
import operator
import struct
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from recurra.ops import native
from recurra.shapes import Tensor

try:
    from torch._C._dynamo.guards import TensorGuards
except ImportError:
    # a private part of torch's: without it steps go through the usual door
    TensorGuards = None


@functools.cache
def function(engine: str, name: str, real: torch.dtype) -> Callable[[bytes], int]:
    """A C function of an engine that has declined nothing: of the bytes of a struct that says its own size.

    It returns 0, or what went wrong.
    """
    library = native.library_of(engine, native.REALS[real])
    assert not isinstance(library, str)
    found = library[f"{engine.partition('-')[0]}_{name}"]
    found.argtypes, found.restype = (ctypes.c_void_p,), ctypes.c_int64
    return found


def alike(*tensors: Tensor) -> Callable[..., bool] | None:
    """Whether others, as many, are of the same shapes, types and layouts in memory; None where C cannot read these, or
    torch has no such look.

    The very same tensor twice, or a mode of torch's that wants to see what is computed, is unlike. Torch's compiler
    keeps such a look at tensors for itself: it takes a twentieth of a microsecond for each, where Python's takes one.
    """
    if TensorGuards is None or not all(
        type(x) in (Tensor, nn.Parameter) and x.is_cpu and not (x.is_neg() or x.is_conj()) for x in tensors
    ):
        return None
    sizes: list[Any] = [list(x.shape) for x in tensors]
    steps: list[Any] = [[_step(*pair) for pair in zip(x.shape, x.stride(), strict=True)] for x in tensors]
    return TensorGuards(*tensors, dynamic_dims_sizes=sizes, dynamic_dims_strides=steps).check


def _step(size: int, stride: int) -> int | None:
    """What an axis demands of its stride: nothing, where there is but one number."""
    return None if size == 1 else stride


def again(
    engine: str, name: str, arguments: Sequence[Tensor | int | None], given: Sequence[Tensor], made: Sequence[Tensor]
) -> Callable[..., list[Tensor] | None] | None:
    """What does `native.call` with the same arguments again, others in place of `given` and new ones for `made`.

    It takes what is given and returns what is made, or None where something is unlike what was given here.
    """
    same, threads = alike(*given), torch.get_num_threads()
    if same is None:
        return None
    function, real = native.function(engine, name, native.REALS[given[0].dtype]), given[0].dtype
    places = {id(x): i for i, x in enumerate((*given, *made))}
    numbers = [0 if x is None else x for x in arguments if not isinstance(x, Tensor)]
    order, count = iter(range(len(places), len(places) + len(numbers))), len(arguments)
    pick = operator.itemgetter(*(places[id(x)] if isinstance(x, Tensor) else next(order) for x in arguments))
    pack, like = struct.Struct(f"{count}q").pack, [torch.empty(x.shape, dtype=real, device="cpu") for x in made]
    make, place, number_of_threads = torch.empty_like, Tensor.data_ptr, torch.get_num_threads

    def call(*given: Tensor) -> list[Tensor] | None:
        if number_of_threads() != threads or not same(*given):
            return None
        made = [*map(make, like)]
        if function(pack(*pick((*map(place, given), *map(place, made), *numbers))), count):
            raise MemoryError(native.FULL.format(engine))
        return made

    return call
