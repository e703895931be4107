"""The shortest way into C: one argument, the bytes of a struct that says its own size. For single steps, where a call
through the usual door, which looks at every tensor and every field, would cost more than what is computed."""

import ctypes
import functools
from collections.abc import Callable

import torch

from recurra.ops import native


@functools.cache
def function(engine: str, name: str, real: torch.dtype) -> Callable[[bytes], int]:
    """A C function of an engine that has declined nothing; it returns 0, or what went wrong."""
    library = native.library_of(engine, native.REALS[real])
    assert not isinstance(library, str)
    found = library[f"{engine.partition('-')[0]}_{name}"]
    found.argtypes, found.restype = (ctypes.c_void_p,), ctypes.c_int64
    return found
