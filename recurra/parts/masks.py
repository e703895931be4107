"""Which weights of a module there are: the others are exactly zero, wherever weights are used.

A mask stands in no forward pass: what is absent is a zero in the parameter itself. So every kernel, compiled step, copy
and file of the module is right without knowing of masks, and the law holds as it did. What it takes is that nothing
moves an absent weight: its gradient is hidden before an update, and after one it is set to zero together with all that
the optimiser remembers of it.
"""

import fnmatch
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from recurra.checks import one_of
from recurra.parts.cell import DenseCell
from recurra.shapes import Bool, Tensor

Connections = dict[str, Bool[Tensor, "..."]]
Shape = tuple[int, ...]


class Matrix(NamedTuple):
    """A parameter as connections."""

    parameter: nn.Parameter
    shape: Shape  # of the same numbers: (G, outputs, inputs, *kernel), G matrices one after the other
    owner: nn.Module | None  # who multiplies by it; None: unknown


def matrices(module: nn.Module, where: str | None = None) -> dict[str, Matrix]:
    """The trained parameters that connect units, by name: those of linear layers, convolutions and dense cells.

    With `where`, a pattern such as "*.recurrent", it is instead all parameters whose names match and that have at least
    two axes; where it is not known what one means its last two axes are taken as outputs and inputs.
    """
    known: dict[int, Matrix] = {}
    for part in module.modules():
        for own, shape in _shapes(part).items():
            parameter = part._parameters[own]
            assert parameter is not None
            known[id(parameter)] = Matrix(parameter, shape, part)
    found = {}
    for name, p in module.named_parameters():
        if not p.requires_grad:
            continue
        if where is None and id(p) in known:
            found[name] = known[id(p)]
        elif where is not None and p.ndim > 1 and fnmatch.fnmatchcase(name, where):
            found[name] = known.get(id(p)) or Matrix(p, (math.prod(p.shape[:-2]), *p.shape[-2:]), None)
    return found


def _shapes(part: Any) -> dict[str, Shape]:
    """The connecting parameters that a module has itself, as `Matrix` lays them out."""
    if isinstance(part, DenseCell):
        gates, _, units, read = part.weight.shape
        shapes = {"input_weight": (len(part.input_weight) // units, units, part.input_weight.shape[1])}
        project = {} if part.project is None else {"project": (1, *part.project.shape)}
        return {**shapes, "weight": (gates, units, read), **project}
    ours = isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
    # a parametrised weight is no parameter
    return {"weight": (1, *part.weight.shape)} if ours and "weight" in part._parameters else {}


class Mask:
    r"""The connections of some matrices: :math:`W \odot M`, with M of 0 and 1.

    Setting it up zeroes the absent weights. In a loop of your own, `hide()` after the backward pass and
    `hold(optimiser)` after the step keep them so; `rewire` exchanges some.

    Args:
        matrices: what is masked, by name (see the function `matrices`).
        connections: for each a bool tensor of the parameter's shape: True where there is a weight.

    Raises:
        ValueError: names, shapes or types do not fit.
    """

    connections: Connections

    def __init__(self, matrices: Mapping[str, Matrix], connections: Mapping[str, Tensor]) -> None:
        self.matrices = dict(matrices)
        self.load(connections)

    def load(self, connections: Mapping[str, Tensor]) -> None:
        """Take other connections, as a file holds them, and zero the weights that they lack.

        Raises:
            ValueError: names, shapes or types do not fit.
        """
        mine = {name: (m.parameter.shape, torch.bool) for name, m in self.matrices.items()}
        given = {name: (x.shape, x.dtype) for name, x in connections.items()}
        for name in sorted({*mine, *given}):
            if mine.get(name) != given.get(name):
                raise ValueError(f"the connections of {name} are {given.get(name)}: they must be {mine.get(name)}")
        self.connections = {name: x.to(self.matrices[name].parameter.device) for name, x in connections.items()}
        self.hold()

    @property
    def count(self) -> int:
        """How many connections there are."""
        return sum(int(x.sum()) for x in self.connections.values())

    @property
    def absent(self) -> int:
        """How many there could be besides."""
        return sum(x.numel() for x in self.connections.values()) - self.count

    @property
    def density(self) -> float:
        """The share of possible connections that there are."""
        return self.count / (self.count + self.absent)

    @torch.no_grad()
    def hide(self) -> None:
        """Zero the gradients of absent weights. One that is not a number stays so, to be noticed."""
        for name, matrix in self.matrices.items():
            if matrix.parameter.grad is not None:
                matrix.parameter.grad.mul_(self.connections[name])

    @torch.no_grad()
    def hold(self, optimiser: torch.optim.Optimizer | None = None) -> None:
        """Zero absent weights, and what the optimiser remembers of each."""
        for name, matrix in self.matrices.items():
            absent = ~self.connections[name]
            matrix.parameter.masked_fill_(absent, 0)
            memory = {} if optimiser is None else optimiser.state.get(matrix.parameter, {})
            for x in memory.values():
                if isinstance(x, torch.Tensor) and x.shape == absent.shape:
                    x.masked_fill_(absent, 0)

    @torch.no_grad()
    def rewire(self, scores: Mapping[str, Tensor], fraction: float) -> int:
        """In each matrix replace a share of the connections; their number stays.

        Dropped are the weakest weights. Grown are those with the highest of `scores`, tensors of the parameters'
        shapes, among all that are then absent: one that was dropped may be grown at once, and keeps its weight. What
        is new starts at zero. Call `hold` afterwards. Of equals the first are chosen.

        Returns:
            How many connections are new.
        """
        new = 0
        for name, matrix in self.matrices.items():
            before = self.connections[name]
            after = _rewired(matrix.parameter, before, scores[name], fraction)
            self.connections[name] = after
            new += int((after & ~before).sum())
        return new


def _rewired(weight: Tensor, present: Tensor, scores: Tensor, fraction: float) -> Tensor:
    count = int(present.sum())
    # a matrix with nowhere else to grow keeps what it has
    moved = min(int(fraction * count), present.numel() - count)
    strength = torch.where(present, weight.abs(), -1.0).flatten()
    kept = torch.zeros_like(strength, dtype=torch.bool)
    kept[_highest(strength, count - moved)] = True
    kept[_highest(scores.flatten().masked_fill(kept, -math.inf), moved)] = True
    return kept.view_as(present)


def _highest(x: Tensor, count: int) -> Tensor:
    return x.argsort(descending=True, stable=True)[:count]


def uniform(shapes: Mapping[str, Shape], density: float) -> dict[str, float]:
    """Every matrix has the same density."""
    return dict.fromkeys(shapes, density)


def erdos_renyi(shapes: Mapping[str, Shape], density: float) -> dict[str, float]:
    r"""Units have about the same number of connections whatever the matrix: small matrices are denser.

    .. math::  p = \min\left(1, \epsilon\, \frac{n_{out} + n_{in} + w + h}{n_{out}\, n_{in}\, w\, h}\right)

    with epsilon such that all matrices together have the density asked for; a matrix without a kernel has no w and h.
    Mocanu et al. 2018, https://doi.org/10.1038/s41467-018-04316-3, and for kernels Evci et al. 2020,
    https://arxiv.org/abs/1911.11134. The G matrices of a shape count each for itself.
    """
    raw = {name: sum(shape[1:]) / math.prod(shape[1:]) for name, shape in shapes.items()}
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    full: set[str] = set()
    while True:
        rest = [name for name in shapes if name not in full]
        left = density * sum(sizes.values()) - sum(sizes[name] for name in full)
        scale = left / sum(raw[name] * sizes[name] for name in rest) if rest else 0.0
        more = {name for name in rest if scale * raw[name] > 1}
        if not more:
            return {name: 1.0 if name in full else scale * raw[name] for name in shapes}
        full |= more


ALLOCATIONS: dict[str, Callable[[Mapping[str, Shape], float], dict[str, float]]] = {
    "uniform": uniform,
    "erdos_renyi": erdos_renyi,
}


def scattered(
    matrices: Mapping[str, Matrix], density: float, allocation: str, random: np.random.Generator
) -> Connections:
    """Connections drawn at random, of a density over all matrices.

    Args:
        matrices: to be connected.
        density: of all together, above 0 and at most 1; a matrix has at least one connection.
        allocation: how the matrices share it: "erdos_renyi" or "uniform".
        random: where the draws come from.

    Raises:
        ValueError: the density is out of range, or there is no such allocation.
    """
    if not 0 < density <= 1:
        raise ValueError(f"density is {density}: it must be above 0 and at most 1")
    one_of(ALLOCATIONS, allocation=allocation)
    shares = ALLOCATIONS[allocation]({name: m.shape for name, m in matrices.items()}, density)
    return {
        name: some(m.parameter.numel(), shares[name], random).view(m.parameter.shape) for name, m in matrices.items()
    }


def some(size: int, share: float, random: np.random.Generator) -> Bool[Tensor, " size"]:
    """A share of so many places, at least one, drawn at random."""
    chosen = torch.zeros(size, dtype=torch.bool)
    chosen[torch.from_numpy(random.permutation(size)[: max(1, round(share * size))])] = True
    return chosen


def reaching(modules: int, reach: int, random: np.random.Generator) -> Bool[Tensor, "M M"]:
    """A graph of modules, from column to row: each reaches that of its own number and `reach` - 1 others.

    Raises:
        ValueError: `reach` is not between 1 and `modules`.
    """
    if not 1 <= reach <= modules:
        raise ValueError(f"reach is {reach}: it must be between 1 and the number of modules, {modules}")
    graph = torch.eye(modules, dtype=torch.bool)
    for source in range(modules):
        others = [x for x in range(modules) if x != source]
        graph[torch.from_numpy(random.permutation(others)[: reach - 1]).long(), source] = True
    return graph


def modular(
    matrix: Matrix, graph: Bool[Tensor, "M M"], stray: float, random: np.random.Generator
) -> Bool[Tensor, "..."]:
    """Units in modules of neighbours: all connections where the graph has an edge, elsewhere a share, at random.

    Konstantaropoulos et al. 2025, https://arxiv.org/abs/2508.14140 (ensembles that project to a few others). The code
    of its form with spikes (https://github.com/APapafragkakis/G2G-Sparse-Spiking-Neural-Net) has 8 modules of one size;
    each reaches that of its own number and 0.15 of the other connections; and a module is of neighbours, of units drawn
    at random, or, in every second layer, of every eighth unit. Unlike there modules here are always of neighbours,
    their sizes are as even as can be, and exactly that share of the other connections is drawn.

    Args:
        matrix: to be connected; the same modules in all its gates, and whole kernels.
        graph: from column to row (see `reaching`).
        stray: the share of the other connections that there are all the same, from 0 to 1.
        random: where those are drawn from.

    Raises:
        ValueError: `stray` is out of range, or there are more modules than units.
    """
    modules, (outputs, inputs) = len(graph), matrix.shape[1:3]
    if not 0 <= stray <= 1:
        raise ValueError(f"stray is {stray}: it must be between 0 and 1")
    if modules > min(outputs, inputs):
        raise ValueError(f"{modules} modules are more than a matrix of {outputs} by {inputs} has units")
    of_output, of_input = (torch.arange(n) * modules // n for n in (outputs, inputs))
    inside = graph[of_output][:, of_input].view(1, outputs, inputs, *(1 for _ in matrix.shape[3:]))
    connected = inside.expand(matrix.shape).flatten().clone()
    outside = (~connected).nonzero()[:, 0]
    if stray and len(outside):
        connected[outside[some(len(outside), stray, random)]] = True
    return connected.view(matrix.parameter.shape)
