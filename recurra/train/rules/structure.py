"""Who can reach whom: which numbers of a state a parameter moves, in one step, in a few, or ever.

An influence of every number by every parameter is S times P numbers. Most are zero, and stay zero, because of how a
cell is wired: where units do not see each other a parameter only ever moves its own unit. What never can be is not
kept, not computed and not told apart by name: the wiring is found by trying the step at many places, once.
"""

from typing import NamedTuple

import torch

from recurra.clock import Clock
from recurra.shapes import Bool, Int, Tensor
from recurra.train.errors import RunError
from recurra.train.rules.layer import Layer, Step

PLACES = 24  # where the step is tried; a unit that is off at half of them is missed once in 2^24
PARTS = 2**22  # numbers of a derivative made at a time
MOST = 2**28  # of S times P, whose pattern is found


class Wiring(NamedTuple):
    """What can move what in one step."""

    state: Bool[Tensor, "S S"]  # a number after it, by a number before it
    parameters: Bool[Tensor, "S P"]  # a number after it, by a parameter


class Bucket(NamedTuple):
    """Parameters that reach equally many numbers, in groups that reach the same ones."""

    rows: Int[Tensor, "G K"]  # the numbers
    columns: Int[Tensor, "G M"]  # the parameters
    state: Bool[Tensor, "G K K"]  # the wiring among them
    parameters: Bool[Tensor, "G K M"]


def wiring(layer: Layer) -> Wiring:
    """The wiring of a layer's step.

    A state that counts in whole numbers may move other slots at other times: then everything may move everything.

    Raises:
        RunError: it is too large to be found, or the state that sequences begin with is where slopes end.
    """
    size, count = layer.size, layer.count
    if size * count > MOST:
        raise RunError(
            f"{type(layer.mixer).__name__} has {size:,} numbers of state and {count:,} parameters: "
            f"their product must be at most {MOST:,}"
        )
    at, first = _places(layer), layer.first()
    if not all(x.isfinite().all() for x in layer.pull(torch.ones(1, size).to(first.vector), first)):
        raise RunError("its first step has no finite slope in the state before it")
    if at.whole:
        return Wiring(torch.ones(size, size, dtype=torch.bool), torch.ones(size, count, dtype=torch.bool))
    state, parameters = (torch.zeros(size, n, dtype=torch.bool) for n in (size, count))
    chunk = max(1, PARTS // (PLACES * (size + count)))
    for rows in torch.arange(size).split(chunk):
        cotangents = torch.nn.functional.one_hot(rows, size).to(at.vector)
        by_parameter, by_state = layer.pull(cotangents, at)
        # what is not a number is not zero either
        parameters[rows], state[rows] = (by_parameter != 0).any(0).cpu(), (by_state != 0).any(0).cpu()
    return Wiring(state, parameters)


def reached(wires: Wiring, units: Int[Tensor, " S"], steps: int | None) -> Bool[Tensor, "S P"]:
    """The numbers that each parameter can have moved `steps` steps after it was used; None: ever after.

    Whole units are reached, since what moves one of a unit's numbers is about to move the others.
    """
    inside = (units[:, None] == units).float()
    state = ((inside @ wires.state.float() > 0) | (inside > 0)).float()
    reach = inside @ wires.parameters.float() > 0
    while steps is None or steps > 1:
        further = inside @ (state @ reach.float()) > 0
        if (further == reach).all():
            break
        reach, steps = further, None if steps is None else steps - 1
    return reach


def buckets(wires: Wiring, reach: Bool[Tensor, "S P"]) -> list[Bucket]:
    """Groups of parameters that reach the same numbers, groups of one size together; those that reach none left out."""
    draws = torch.randint(2**62, (len(reach),), generator=torch.Generator().manual_seed(0))
    mark = (reach.T * draws).sum(1)
    found: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
    for value in mark.unique():
        columns = (mark == value).nonzero()[:, 0]
        rows = reach[:, columns[0]].nonzero()[:, 0]
        if len(rows):
            found.setdefault((len(rows), len(columns)), []).append((rows, columns))
    return [_bucket(wires, *(torch.stack(part) for part in zip(*groups, strict=True))) for groups in found.values()]


def _bucket(wires: Wiring, rows: Int[Tensor, "G K"], columns: Int[Tensor, "G M"]) -> Bucket:
    state = wires.state[rows[:, :, None], rows[:, None]]
    return Bucket(rows, columns, state, wires.parameters[rows[:, :, None], columns[:, None]])


def colours(wires: Wiring) -> Int[Tensor, " S"]:
    """Numbers for the rows of a derivative such that rows of one number are wired to no column in common."""
    both = torch.cat([wires.state, wires.parameters], 1).float()
    clash = both @ both.T > 0
    found = torch.full((len(both),), -1)
    for row in range(len(both)):
        taken = set(found[:row][clash[row, :row]].tolist())
        found[row] = next(x for x in range(row + 1) if x not in taken)
    return found


def _places(layer: Layer) -> Step:
    """Half of them drawn at random, half on the way of random inputs; with a generator of its own."""
    p = next(layer.mixer.parameters())
    width = layer.mixer.config["width"]
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(PLACES, PLACES, width, generator=draw).to(p)
    with torch.no_grad():
        # what is wired may change with how many steps there were: each place has its own number
        _, state = layer.mixer(x, None, Clock.lengths(torch.arange(PLACES, device=p.device), PLACES))
    visited = layer.vector(state)
    drawn = torch.randn(visited.shape, generator=draw).to(visited)
    first = torch.arange(PLACES, device=visited.device)[:, None] < PLACES // 2
    return Step(torch.where(first, visited, drawn), layer.whole(state), x[:, -1], None)
