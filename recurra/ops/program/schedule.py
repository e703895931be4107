"""Which thread does which part of each pass, and where threads must meet.

A meeting costs as much as a small pass. So passes between two meetings are split alike, in as many parts, such that no
thread needs what another writes: which number is written and read by which part is looked up, address by address. And
what is small, and cannot be split so, every thread does for itself, in memory of its own.
"""

import collections
from collections.abc import Sequence
from typing import NamedTuple

import torch

from recurra.ops.cell import emit
from recurra.ops.cell.trace import Traced, reachable
from recurra.ops.program.loops import touched, units
from recurra.ops.program.stages import Lowered, Stage, count
from recurra.shapes import Tensor

SMALL = 1 << 10  # cost up to which every thread does the same: what splits saves less than meeting takes
FEWEST = 8  # parts that passes are split in, if they have as many: threads get equal shares
VISIBLE, FIRST = -1, -2  # instead of a unit: written before the last meeting; by the first thread

Touched = tuple[int, Tensor, Tensor | None]  # buffer, addresses, and each one's unit, or None if all units read all


class Turn(NamedTuple):
    """One pass, in the phase between two meetings: by each thread for itself, by the first one, or in `parts`."""

    stage: Stage
    phase: int
    how: str  # own, first, split
    units: int
    parts: int = 1


def cost(lowered: Lowered, stage: Stage) -> int:
    """Numbers that a pass goes through, dear ones counted more than once; a product's by eights."""
    if stage.node is None:
        out = count(stage.out)
        each = {"rows": 1, "softmax": 16, "safe_softmax": 16, "columns": 16}
        return out * each[stage.kind] if stage.kind in each else out * stage.reads[0].like.shape[-1] // 8
    graph = lowered.graph
    dear = sum(graph.nodes[x][0] in emit.DEAR for x in reachable(Traced(graph, {}, {}), [stage.node]))
    return stage.shape.numel() * (1 + 15 * dear) // (1 if dear else 2)


def schedule(lowered: Lowered) -> list[Turn]:
    """A turn for each stage, in order."""
    writers = collections.Counter(stage.out.buffer for stage in lowered.stages)
    outputs = {place.buffer for place in lowered.outputs}
    turns: list[Turn] = []
    phase = _Phase(lowered.sizes, set())
    for number, stage in enumerate(lowered.stages):
        many = units(lowered, stage)
        alone = stage.out.buffer not in outputs and writers[stage.out.buffer] == 1
        ways = ["own"] if alone and cost(lowered, stage) <= SMALL else []
        ways.append("split" if many > 1 else "first")
        ends = [x for x in touched(lowered, stage) if x[0] not in phase.private]
        how = next((how for how in ways if phase.takes(how, many, ends)), None)
        if how is None:
            turns += phase.ended(lowered.stages[len(turns) : number])
            phase, how = _Phase(lowered.sizes, phase.private, phase.number + 1), ways[0]
            phase.takes(how, many, ends)
        phase.ways.append((how, many))
    return turns + phase.ended(lowered.stages[len(turns) :])


class _Phase:
    """What was written since the last meeting, and in how many parts the passes that did can be split."""

    def __init__(self, sizes: list[int], private: set[int], number: int = 0) -> None:
        self.sizes, self.private, self.number = sizes, private, number
        self.ways: list[tuple[str, int]] = []
        self.written: dict[int, tuple[Tensor, Tensor]] = {}  # unit of each address, and of how many
        self.parts: dict[int, set[int]] = {}  # of each buffer's writers: passes that touch it are split as these are

    def ended(self, stages: Sequence[Stage]) -> list[Turn]:
        """Its turns, in as many parts as can be."""
        return [
            Turn(stage, self.number, how, many, max(self.parts[stage.out.buffer]) if how == "split" else 1)
            for stage, (how, many) in zip(stages, self.ways, strict=True)
        ]

    def takes(self, how: str, many: int, ends: list[Touched]) -> bool:
        """Whether a pass needs no meeting, and if so it is of this phase."""
        (out, to, unit), *_ = ends
        if how == "split":
            parts = {x for x in range(1, many + 1) if many % x == 0 and (x >= FEWEST or x == many)}
            beside = [self.parts[x] for x, *_ in ends if x in self.parts]
            parts = {x for x in parts.intersection(*beside) if self._apart(x, many, ends)}
            if not parts:
                return False
            self.parts = {x: parts if old in beside else old for x, old in self.parts.items()} | {out: parts}
        elif any(self._meets(how, *end[:2]) for end in ends):
            return False
        if how == "own":
            self.private.add(out)
            return True
        if out not in self.written:
            size = self.sizes[out]
            self.written[out] = torch.full((size,), VISIBLE), torch.ones(size, dtype=torch.int64)
        wrote, of = self.written[out]
        wrote[to] = unit if unit is not None and how == "split" else torch.tensor(FIRST)
        of[to] = many
        return True

    def _meets(self, how: str, buffer: int, at: Tensor) -> bool:
        """Whether another thread wrote what each thread, or the first one, touches whole."""
        if buffer not in self.written:
            return False
        unit = self.written[buffer][0][at]
        return bool(((unit != VISIBLE) & (unit != (FIRST if how == "first" else VISIBLE))).any())

    def _apart(self, parts: int, many: int, ends: list[Touched]) -> bool:
        """Whether no part touches what another one wrote."""
        for buffer, at, unit in ends:
            if buffer not in self.written:
                continue
            wrote, of = (x[at] for x in self.written[buffer])
            mine = torch.full((), FIRST - 1) if unit is None else unit * parts // many
            if ((wrote != VISIBLE) & ((wrote == FIRST) | (wrote * parts // of != mine))).any():
                return False
        return True
