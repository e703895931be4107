"""The definition of `Grid`: one node at a time."""

import torch

from recurra.ops.grid import Edges, Grid, node
from recurra.ops.steps import by_step
from recurra.shapes import Float, Tensor


def declines(record: Grid, state: Edges) -> str | None:
    """Never: this is the definition the others are measured against."""
    return None


def scan(record: Grid, state: Edges) -> tuple[Float[Tensor, "B X Y H V"], Edges]:
    columns = [by_step(x, record.value.shape[1]) for x in record]
    lefts, ups = list(state[0].unbind(1)), list(state[1].unbind(1))
    reads = []
    for x, column in enumerate(zip(*columns, strict=True)):
        nodes = [by_step(part, len(lefts)) for part in column]
        for y, parts in enumerate(zip(*nodes, strict=True)):
            read, lefts[y], ups[x] = node(Grid(*parts), lefts[y], ups[x])
            reads.append(read)
    read = torch.stack(reads, 1).unflatten(1, (len(ups), len(lefts)))
    return read, (torch.stack(lefts, 1), torch.stack(ups, 1))
