"""How many bytes autograd keeps for a backward pass: what learning costs in memory, by the same measure for all."""

import contextlib
import weakref
from collections.abc import Iterator

import torch

from recurra.shapes import Tensor


class _Held:
    """A tensor as long as a graph wants it."""

    def __init__(self, x: Tensor) -> None:
        self.x = x


class Kept:
    """What was saved while `counting`, and still is when it ends."""

    nbytes: int = 0


@contextlib.contextmanager
def counting(model: torch.nn.Module) -> Iterator[Kept]:
    """Count the bytes that autograd saves inside and has not let go at the end, the model's own weights left out."""
    kept, alive = Kept(), weakref.WeakSet()
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(x: Tensor) -> _Held:
        held = _Held(x)
        alive.add(held)
        return held

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda held: held.x):
        yield kept
    # each piece of memory once, however many tensors lie on it
    pieces: dict[int, dict[int, int]] = {}
    sizes: dict[int, int] = {}
    for held in alive:
        storage = held.x.untyped_storage()
        pieces.setdefault(storage.data_ptr(), {})[held.x.data_ptr()] = held.x.nbytes
        sizes[storage.data_ptr()] = storage.nbytes()
    kept.nbytes = sum(min(sizes[x], sum(pieces[x].values())) for x in pieces if x not in weights)
