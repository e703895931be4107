"""The alphabet: what the single letters in every shape mean, and the one rule about float types.

    B batch    T time    D width (features in and out)    N units or state size
    H heads    K key     V value    C chunk               *F any further axes

Shapes are annotations: the tests check them (jaxtyping with beartype), run time ignores them.
"""

from typing import Any

import torch
from jaxtyping import Bool as Bool, Float as Float, Inexact as Inexact, Int as Int
from torch import Tensor as Tensor

State = Any  # nested tuples of tensors, batch first; `recurra.state` works on them


def wide(*tensors: Tensor | None) -> torch.dtype:
    """The real type that states, decays and sums are kept in: float64 if any input is, else float32."""
    doubles = (torch.float64, torch.complex128)
    double = any(x is not None and x.dtype in doubles for x in tensors)
    return torch.float64 if double else torch.float32


def state_zeros(like: Tensor, *shape: int) -> Tensor:
    """Zeros for a state: on the device of `like`, which is a parameter, in its wide type."""
    return torch.zeros(shape, dtype=wide(like), device=like.device)


def widen(x: Tensor, real: torch.dtype) -> Tensor:
    """`x` in `real`, or in the complex type of that precision; whole numbers are left alone."""
    if not (x.is_floating_point() or x.is_complex()):
        return x
    return x.to(real.to_complex() if x.is_complex() else real)
