"""The shortest way into C: one argument, the bytes of a struct that says its own size. For single steps, where a call
through the usual door, which looks at every tensor and every field, would cost more than what is computed."""

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch._C._dynamo import guards

from recurra.ops import native
from recurra.shapes import Tensor


@functools.cache
def function(engine: str, name: str, real: torch.dtype) -> Callable[[bytes], int]:
    """A C function of an engine that has declined nothing; it returns 0, or what went wrong."""
    library = native.library_of(engine, native.REALS[real])
    assert not isinstance(library, str)
    found = library[f"{engine.partition('-')[0]}_{name}"]
    found.argtypes, found.restype = (ctypes.c_void_p,), ctypes.c_int64
    return found


def alike(*tensors: Tensor) -> Callable[..., bool] | None:
    """Whether as many others are of the same shapes, types and layouts in memory; None where C cannot read these.

    The very same tensor twice, or a mode of torch's that wants to see what is computed, is unlike. Torch's compiler
    keeps such a look at tensors for itself: it takes a twentieth of a microsecond for each, where Python's takes one.
    """
    if not all(type(x) in (Tensor, nn.Parameter) and x.is_cpu and not (x.is_neg() or x.is_conj()) for x in tensors):
        return None
    sizes: list[Any] = [list(x.shape) for x in tensors]
    steps: list[Any] = [[_step(*pair) for pair in zip(x.shape, x.stride(), strict=True)] for x in tensors]
    return guards.TensorGuards(*tensors, dynamic_dims_sizes=sizes, dynamic_dims_strides=steps).check


def _step(size: int, stride: int) -> int | None:
    """What an axis demands of its stride: nothing, where there is but one number."""
    return None if size == 1 else stride
