"""`Grid` by anti-diagonals: the nodes of one need only what the one before sent, so they run side by side.

X + Y - 1 steps replace X Y, and the edges of one diagonal are all the states there are. All inputs are put into the
order of the diagonals at once: picking nodes diagonal by diagonal would make the gradient quadratic.
"""

import torch

from recurra.ops.grid import Edges, Grid, node
from recurra.shapes import Float, Int, Tensor


def declines(record: Grid, state: Edges) -> str | None:
    """A single row or column has diagonals of one node."""
    return "a single row or column" if 1 in record.value.shape[1:3] else None


def scan(record: Grid, state: Edges) -> tuple[Float[Tensor, "B X Y H V"], Edges]:
    columns, rows = record.value.shape[1:3]
    order, sizes = _diagonals(columns, rows, record.value.device)
    steps = [[None] * len(sizes) if x is None else x.flatten(1, 2)[:, order].split(sizes, 1) for x in record]
    left, up = state[0], state[1].flip(1)
    reads = []
    for step, parts in enumerate(zip(*steps, strict=True)):
        # y runs over a diagonal upwards and x downwards; so `up`, whose order is reversed, is read in a row too
        first, size = max(0, step - columns + 1), sizes[step]
        turned = columns - 1 - step + first
        read, right, down = node(Grid(*parts), left[:, first : first + size], up[:, turned : turned + size])
        left = torch.cat([left[:, :first], right, left[:, first + size :]], 1)
        up = torch.cat([up[:, :turned], down, up[:, turned + size :]], 1)
        reads.append(read)
    read = torch.cat(reads, 1)[:, order.argsort()].unflatten(1, (columns, rows))
    return read, (left, up.flip(1))


def _diagonals(columns: int, rows: int, device: torch.device) -> tuple[Int[Tensor, " N"], list[int]]:
    """The order of nodes by diagonal, along each by y; and how many each diagonal has."""
    index = torch.arange(columns * rows, device=device)
    x, y = index // rows, index % rows
    order = ((x + y) * rows + y).argsort()
    return order, (x + y).bincount().tolist()
