"""Which units of a trained cell could go? The network is silenced unit by unit in a copy, and asked again.

Published are two ways to choose: the units with the smallest weights go, or those whose place in the order of the
wiring is implied by others. A third is ours: the units that do nothing but what others do together. A choice by an
order says itself how many units it keeps, so the others are asked to keep as many: only then can scores be compared.
"""

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from recurra.clock import Clock
from recurra.parts.cell import DenseCell
from recurra.parts.lattice import first_of_equals, irreducible, one_cover, patterns, reached
from recurra.shapes import Bool, Float, Tensor
from recurra.tasks import Batch, Task


class Pruned(NamedTuple):
    """What is left of a network, and what it still does."""

    method: str  # "none", or how the units were chosen
    like: str  # the choice whose number of units this one has; "" where it chose the number itself
    units: int  # that are left
    score: float  # the task's measure
    loss: float


def by_patterns(active: Bool[Tensor, "S N"], least: int = 1) -> Bool[Tensor, " N"]:
    """Keep the units that are no conjunction of others in what they do (`recurra.parts.lattice.irreducible`).

    Ours, after the concepts of Ganter & Wille 1999, https://doi.org/10.1007/978-3-642-59830-2, not published as a way
    to prune. Every pattern that is ever seen counts, so noise makes units irreducible: patterns that come less than
    `least` times can be left out.
    """
    return irreducible(patterns(active, least))


def by_wiring(cell: DenseCell, strongest: float) -> Bool[Tensor, " N"]:
    """Keep the units that have exactly one upper cover in the order of who reaches whom.

    Sengupta 2025, https://arxiv.org/abs/2502.16525; its exact algorithm was not verified. An edge is one of the
    strongest recurrent weights, of any gate. Units that reach each other are one point of the order, of which the first
    stays: with many edges a trained network is a single point, and nothing is kept (see `components`). Unlike the paper
    units go, not their edges.
    """
    return one_cover(reached(edges(cell, strongest)))


def by_magnitude(cell: DenseCell, count: int) -> Bool[Tensor, " N"]:
    """Keep the units with the largest sum of weights that come in, of all gates.

    Li et al. 2017, https://arxiv.org/abs/1608.08710, for filters of convolutions.
    """
    units = cell.weight.shape[2]
    entering = cell.input_weight.detach().unflatten(0, (-1, units))
    size = entering.abs().sum((0, 2)) + cell.weight.detach().abs().sum((0, 1, 3))
    return _only(size.argsort(descending=True, stable=True)[:count], units)


def edges(cell: DenseCell, strongest: float) -> Bool[Tensor, "N N"]:
    """The strongest recurrent weights, a share of all, as a graph from the unit that is read to the unit that reads."""
    weight = cell.weight.detach().abs().amax((0, 1))
    count = round(strongest * weight.numel())
    chosen = _only(weight.flatten().argsort(descending=True, stable=True)[:count], weight.numel())
    return chosen.view_as(weight).T


def components(cell: DenseCell, strongest: float) -> int:
    """How many points the order of the wiring has: sets of units that reach each other."""
    return int(first_of_equals(reached(edges(cell, strongest))).sum())


@torch.no_grad()
def activity(model: Any, path: str, batches: Sequence[Batch], above: float = 0.0) -> Bool[Tensor, "S N"]:
    """Which units of a cell are on at each step of some batches: those that say more than `above`."""
    seen: list[Float[Tensor, "S N"]] = []

    def hear(_: Any, given: Any, result: Any) -> None:
        clock = given[2]
        happened = ... if clock is None or clock.valid is None else clock.valid
        seen.append(result[0][happened].flatten(0, -2))

    hook = cell_at(model, path).register_forward_hook(hear)
    try:
        _outputs(model, batches)
    finally:
        hook.remove()
    return torch.cat(seen) > above


@torch.no_grad()
def silenced(model: Any, path: str, keep: Bool[Tensor, " N"]) -> Any:
    """A copy in which all other units of a cell say nothing, ever: their weights, in and out, are zero."""
    model = copy.deepcopy(model)
    cell = cell_at(model, path)
    keep, gates = keep.to(cell.weight.device), len(cell.bias) // len(keep)
    cell.input_weight.mul_(keep.repeat(gates)[:, None])
    cell.bias.mul_(keep.repeat(gates))
    cell.weight.mul_(keep[:, None] & keep)
    if cell.params is not None:
        cell.params.mul_(keep)
    return model


def compare(
    model: Any,
    task: Task,
    path: str,
    batches: Sequence[Batch],
    *,
    least: int = 1,
    above: float = 0.0,
    strongest: float = 0.02,
    draws: int = 3,
) -> list[Pruned]:
    """The network as it is, and with units chosen by patterns, by wiring, and, as many, by magnitude and at random.

    Args:
        model: trained, in evaluation mode; it is not changed.
        task: what it was trained on.
        path: where its cell is, such as "backbone.blocks.0.mixer.cell".
        batches: held out; their states are what patterns are made of, and they are scored.
        least: how often a pattern must come to count.
        above: what a unit must exceed to be on.
        strongest: the share of recurrent weights that are edges.
        draws: random choices, of which the mean is told.

    Raises:
        ValueError: the model is training, or there is no cell at `path` whose units can be silenced.
    """
    cell = cell_at(model, path)
    units = cell.weight.shape[2]
    found = [Pruned("none", "", units, *_score(model, task, batches))]
    chosen = {
        "patterns": by_patterns(activity(model, path, batches, above), least),
        "wiring": by_wiring(cell, strongest),
    }
    for name, keep in chosen.items():
        count = int(keep.sum())
        random = [_only(torch.randperm(units, generator=_draw(i))[:count], units) for i in range(draws)]
        for method, some in ((name, [keep]), ("magnitude", [by_magnitude(cell, count)]), ("random", random)):
            scores = torch.tensor([_score(silenced(model, path, x), task, batches) for x in some])
            found.append(Pruned(method, "" if method == name else name, count, *scores.mean(0).tolist()))
    return found


def cell_at(model: Any, path: str) -> DenseCell:
    """The dense cell at a path in a model.

    Raises:
        ValueError: there is none; those that there are are named.
    """
    cell = dict(model.named_modules()).get(path)
    if not isinstance(cell, DenseCell) or cell.project is not None:
        known = [k for k, x in model.named_modules() if isinstance(x, DenseCell) and x.project is None]
        there = f"there are {', '.join(known)}" if known else "this model has none"
        raise ValueError(f"there is no dense cell without a projection at {path!r}; {there}")
    return cell


def _score(model: Any, task: Task, batches: Sequence[Batch]) -> tuple[float, float]:
    """The measure and the mean loss."""
    total = count = loss = 0.0
    for batch, outputs in zip(batches, _outputs(model, batches), strict=True):
        one, some = task.score(outputs, batch)
        total, count = total + one, count + some
        loss += float(task.loss(outputs, batch)) / len(batches)
    return total / count, loss


@torch.no_grad()
def _outputs(model: Any, batches: Sequence[Batch]) -> list[Tensor]:
    if model.training:
        raise ValueError("the model is training: call its eval() before it is looked at")
    return [model(x.inputs, None, Clock(x.reset, x.valid, x.dt) or None)[0] for x in batches]


def _only(index: Tensor, size: int) -> Bool[Tensor, " size"]:
    chosen = torch.zeros(size, dtype=torch.bool, device=index.device)
    chosen[index] = True
    return chosen


def _draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
