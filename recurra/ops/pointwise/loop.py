"""The definition: the map as it is written, run by torch. Costs a pass over memory for every word of it."""

from typing import Any

import torch

from recurra.shapes import Tensor


def declines(way: Any, tensors: tuple[Tensor, ...]) -> str | None:
    """Never: this is the definition the other is measured against."""
    return None


def run(way: Any, tensors: tuple[Tensor, ...]) -> Any:
    parts = [part for x in tensors for part in ((x.real, x.imag) if x.is_complex() else (x,))]
    if way.sums is not None:
        parts += [*(x.sum(-1, keepdim=True) for x in way.sums(*parts)), tensors[0].shape[-1]]
    results = way.function(*parts, *way.constants)
    if not way.complex:
        return results
    pairs = tuple(torch.complex(*pair) for pair in zip(results[::2], results[1::2], strict=True))
    return pairs[0] if way.outputs == 1 else pairs
