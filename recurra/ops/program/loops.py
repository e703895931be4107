"""How a pass goes through memory, and in which units its work may be split over threads.

A map runs over axes, of which two that lie in memory as one does are one. Its units are rows, or lines of the last axis
where there is but one row; those of a product are eight rows of its weights.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from recurra.ops.cell.trace import Number, Traced, reachable
from recurra.ops.program.stages import LINE, Lowered, Place, Stage, count
from recurra.shapes import Tensor

GROUP = 8  # rows of a product's weights that are taken together


class Axis(NamedTuple):
    """One loop: its length, the step of the result and of each leaf in memory, and whether it is summed over."""

    size: int
    steps: tuple[int, ...]
    summed: bool


class Loops(NamedTuple):
    """A map or a sum: leaves are read, `kept` and `over` loops lie around the inner one."""

    leaves: list[tuple[Number, Place]]
    kept: list[Axis]
    over: list[Axis]
    inner: Axis

    @property
    def rows(self) -> int:
        return math.prod(axis.size for axis in self.kept)

    @property
    def lines(self) -> bool:
        """The inner axis is what is split, not rows."""
        return self.rows == 1 and not self.inner.summed


def loops(lowered: Lowered, stage: Stage) -> Loops:
    """Kept axes as rows, then what is summed, then the last axis as vectors."""
    assert stage.node is not None
    seen = map(Number, sorted(reachable(Traced(lowered.graph, {}, {}), [stage.node])))
    leaves = [(x, lowered.leaves[x]) for x in seen if x in lowered.leaves]
    shape, out = stage.shape, stage.out.like
    if stage.kind == "sum" and out.ndim < len(shape):
        out = out.as_strided(*_kept(out, shape, stage.axes))
    strides = [out.expand(shape).stride(), *(x.like.expand(shape).stride() for _, x in leaves)]
    *outer, inner = _axes(shape, strides, stage.axes if stage.kind == "sum" else ())
    kept = [x for x in outer if not x.summed]
    return Loops(leaves, _dense_last(kept) if len(leaves) == 1 else kept, [x for x in outer if x.summed], inner)


def turns_over(lowered: Lowered, stage: Stage, found: Loops) -> bool:
    """Whether a pass only copies, from where its rows lie as columns."""
    if stage.kind != "map" or stage.node not in lowered.leaves or not found.kept:
        return False
    return _columns(found.kept[-1], found.inner)


def lies_turned(x: Tensor) -> bool:
    """Whether a copy without gaps turns rows over."""
    *outer, inner = _axes(x.shape, [x.new_empty(x.shape).stride(), x.stride()], ())
    return bool(outer) and _columns(_dense_last(outer)[-1], inner)


def _dense_last(kept: list[Axis]) -> list[Axis]:
    """Rows in the order in which what is read has those side by side that are so."""
    return sorted(kept, key=lambda x: x.steps[1] == 1)


def _columns(row: Axis, inner: Axis) -> bool:
    """Whether what is read lies dense along rows, and what is made of it along the inner axis, both for vectors."""
    return row.steps[1] == inner.steps[0] == 1 and inner.steps[1] != 1 and row.size % LINE == 0 and inner.size >= LINE


def units(lowered: Lowered, stage: Stage) -> int:
    """How many parts a pass may be split in."""
    if stage.kind == "rows":
        return count(stage.reads[0])
    if stage.kind == "tiles":
        return len(stage.out.like)
    if stage.kind in ("softmax", "safe_softmax"):
        return stage.out.like.shape[:-1].numel()
    if stage.kind == "columns":
        return stage.out.like.shape[:-2].numel()
    if stage.kind == "product":
        return -(-len(stage.reads[1].like) // GROUP)
    found = loops(lowered, stage)
    return -(-found.inner.size // LINE) if found.lines else found.rows


def touched(lowered: Lowered, stage: Stage) -> list[tuple[int, Tensor, Tensor | None]]:
    """Of the result and of each place read: buffer, addresses, and each one's unit, or None if all units read all.

    Inputs are left out, which no pass writes.
    """
    inner = range(len(lowered.inputs), len(lowered.sizes))
    if stage.node is not None:
        found = loops(lowered, stage)
        places = [stage.out, *(place for _, place in found.leaves)]
        return [(place.buffer, *_addresses(found, i, place)) for i, place in enumerate(places) if place.buffer in inner]
    wide = stage.out.like.shape[-1]
    to = torch.arange(count(stage.out))
    if stage.kind == "tiles":
        unit = to // stage.out.like[0].numel()
        to = _strided([*zip(stage.out.like.shape, stage.out.like.stride(), strict=True)], stage.out)
    else:
        row = wide * stage.out.like.shape[-2] if stage.kind == "columns" else wide
        unit = to % wide // GROUP if stage.kind == "product" else to // row
    reads = [x for x in stage.reads if x.buffer in inner]
    wholes = [(x.buffer, _strided([*zip(x.like.shape, x.like.stride(), strict=True)], x), None) for x in reads]
    return [(stage.out.buffer, to, unit), *wholes]


def _addresses(found: Loops, which: int, place: Place) -> tuple[Tensor, Tensor]:
    """Where a map reads or writes, and in which unit; what a unit reads again and again is there once."""
    unit = torch.arange(found.inner.size) // LINE if found.lines else torch.arange(found.rows)
    alone = [found.inner] if found.lines else found.kept
    rest = [x for x in (*found.kept, *found.over, found.inner) if x not in alone]
    inside = [(x.size, x.steps[which]) for x in rest if x.steps[which]]
    at = _strided([*((x.size, x.steps[which]) for x in alone), *inside], place).reshape(len(unit), -1)
    return at.flatten(), unit[:, None].expand_as(at).flatten()


def _strided(axes: Sequence[tuple[int, int]], place: Place) -> Tensor:
    at = torch.tensor(int(place.like.storage_offset()))
    for size, step in axes:
        at = at[..., None] + torch.arange(size) * step
    return at.flatten()


def _kept(out: Tensor, shape: torch.Size, axes: tuple[int, ...]) -> tuple[list[int], list[int], int]:
    """A sum's place with its axes again, of one number each."""
    steps = iter(out.stride())
    strides = [0 if i in axes else next(steps) for i in range(len(shape))]
    sizes = [1 if i in axes else n for i, n in enumerate(shape)]
    return sizes, strides, int(out.storage_offset())


def _axes(shape: torch.Size, strides: Sequence, summed: tuple[int, ...]) -> list[Axis]:
    """Axes of more than one number; two that lie in memory as one does are one."""
    found: list[Axis] = []
    for i, size in enumerate(shape):
        axis = Axis(size, tuple(s[i] for s in strides), i in summed)
        if size == 1:
            continue
        before = found[-1] if found else None
        if before and before.summed == axis.summed and before.steps == tuple(s * size for s in axis.steps):
            found[-1] = axis._replace(size=before.size * size)
        else:
            found.append(axis)
    return found or [Axis(1, tuple(0 for _ in strides), False)]
