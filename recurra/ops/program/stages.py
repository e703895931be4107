"""What a graph becomes: places in memory, expressions that wait, and passes over memory that make some of others."""

import math
from typing import Any, NamedTuple

import torch
from torch import nn

from recurra.ops.cell.trace import Graph, Number
from recurra.shapes import Tensor

LINE = 16  # numbers of a vector: rows are split at multiples of it
KEPT = (bool, int, float, str)  # what modules keep that a trace has inside


class Declined(Exception):
    """There is no C for this graph, and why."""


class Place(NamedTuple):
    """Numbers in a buffer, laid out as `like`, a tensor on the meta device."""

    buffer: int
    like: Tensor


class Mapped(NamedTuple):
    """Numbers that are an expression of others, and not in memory."""

    shape: torch.Size
    node: Number


Value = Place | Mapped


class Stage(NamedTuple):
    """One pass: `out` is the expression, or its sum over `axes`; or a product or a look-up of `reads`."""

    kind: str  # map, sum, product, rows, tiles, softmax, safe_softmax, columns (a softmax of each)
    out: Place
    reads: tuple[Place, ...]
    node: Number | None = None
    shape: torch.Size = torch.Size()  # over which the expression runs
    axes: tuple[int, ...] = ()


class Lowered(NamedTuple):
    """Stages in order, the numbers of every buffer, and what comes in and goes out."""

    graph: Graph
    leaves: dict[Number, Place]
    stages: list[Stage]
    sizes: list[int]
    inputs: list[Tensor | None]  # the first buffers, in order: a constant of the graph's own, or what is given
    outputs: list[Place]
    tokens: list[tuple[Place, int]]  # whole numbers, and how many rows they choose among
    packed: dict[int, Place]  # buffers that are made of an input once, whatever is computed of it how often


def count(place: Place) -> int:
    """How many numbers."""
    return math.prod(place.like.shape)


def constants(module: nn.Module) -> dict[str, Any]:
    """The module's own numbers and words, by name, which are written into the C of what calls it."""
    return {name: x for name, x in vars(module).items() if type(x) in KEPT and name[0] != "_"}
