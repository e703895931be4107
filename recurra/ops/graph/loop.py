"""The definition of `Graph`: one edge at a time, in an order in which every edge comes after those it hears from."""

import itertools

import torch

from recurra.ops.graph import Graph, levels, read, written
from recurra.shapes import Float, Tensor


def declines(record: Graph, state: Tensor) -> str | None:
    """Never: this is the definition the others are measured against."""
    return None


def scan(
    record: Graph, state: Float[Tensor, "B E H K V"]
) -> tuple[Float[Tensor, "B N H V"], Float[Tensor, "B E H K V"]]:
    before: list[list[tuple[int, Tensor]]] = [[] for _ in record.edges]
    for (first, second), transition in zip(record.links.tolist(), record.transition.unbind(1), strict=True):
        before[second].append((first, transition[..., None, None]))
    carried = list((state + written(record)).unbind(1))
    for edge in itertools.chain(*levels(record)):
        for other, transition in before[edge]:
            carried[edge] = carried[edge] + transition * carried[other]
    state = torch.stack(carried, 1) if carried else state
    return read(record, state), state
