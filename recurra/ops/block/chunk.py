"""`Block` by two levels of blocks of time, as `Diag` is: about sqrt(T) pieces of about sqrt(T) steps.

All pieces run side by side from nothing while the products of their matrices are kept; then one loop carries the state
from piece to piece, and one product adds to every step what was there when its piece began. So 2 sqrt(T) operations
replace T, for P^3 products a step instead of P^2: it pays while P is small, or where one matrix serves all steps and so
one piece's products serve all pieces.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from torch.nn import functional as F

from recurra.ops.block import Block, apply, loop
from recurra.ops.steps import restart
from recurra.shapes import Bool, Float, Tensor


def declines(record: Block, state: Tensor) -> str | None:
    """A single step has nothing to cut."""
    return "a single step" if record.drive.shape[1] == 1 else None


def scan(record: Block, state: Float[Tensor, "B *F P"]) -> tuple[Float[Tensor, "B T *F P"], Float[Tensor, "B *F P"]]:
    matrix, drive, reset = record
    rows, steps = drive.shape[:2]
    size = math.isqrt(steps - 1) + 1
    pieces = -(-steps // size)

    def fold(x: Tensor) -> Tensor:
        padding = (0,) * (2 * (x.ndim - 2)) + (0, pieces * size - steps)
        return F.pad(x, padding).reshape(rows * pieces, size, *x.shape[2:])

    begins = None if reset is None else fold(reset)
    drive = fold(drive)
    folded = fold(matrix) if record.varies else matrix
    own, _ = loop.scan(Block(folded, drive, begins), torch.zeros_like(drive[:, 0]))
    own = own.unflatten(0, (rows, pieces))
    products = _products(folded.unbind(1) if record.varies else [matrix] * size)
    kept = torch.stack(products, 1).unflatten(0, (rows, pieces)) if record.varies else torch.stack(products)

    began = None if begins is None else begins.unflatten(0, (rows, pieces)).cumsum(2) > 0
    before, last = [], state
    across = kept[:, :, -1].unbind(1) if record.varies else [kept[-1]] * pieces
    ends = own[:, :, -1].unbind(1)
    stops = [None] * pieces if began is None else began[:, :, -1].unbind(1)
    for a, end, stop in zip(across, ends, stops, strict=True):
        before.append(last)
        last = apply(a, last if stop is None else restart(stop, last)) + end
    carried = torch.stack(before, 1)[:, :, None]
    if began is not None:
        carried = _stop(began, carried.expand_as(own))
    read = (own + apply(kept, carried)).flatten(1, 2)[:, :steps]
    return read, read[:, -1]


def _products(matrices: Sequence[Float[Tensor, "*G P P"]]) -> list[Float[Tensor, "*G P P"]]:
    """Of the first one, two, ... matrices."""
    return list(itertools.accumulate(matrices, lambda product, matrix: matrix @ product))


def _stop(began: Bool[Tensor, "B Q C"], carried: Float[Tensor, "B Q C *F P"]) -> Float[Tensor, "B Q C *F P"]:
    return carried.masked_fill(began.reshape(*began.shape, *(1,) * (carried.ndim - 3)), 0)
