"""Orders among units, and which of them an order cannot do without.

Two orders. One is of the wiring: a unit comes before those that it reaches. The other is of what units do: a unit comes
before those that are on whenever it is. In both, what is meet-irreducible is no meeting of others; the rest is implied.
"""

import torch

from recurra.shapes import Bool, Tensor


def reached(edges: Bool[Tensor, "N N"]) -> Bool[Tensor, "N N"]:
    """Who reaches whom along a graph's edges, in any number of steps, also none: from row to column."""
    reach = edges | torch.eye(len(edges), dtype=torch.bool, device=edges.device)
    while True:
        further = _product(reach, reach)
        if torch.equal(further, reach):
            return reach
        reach = further


def first_of_equals(before: Bool[Tensor, "N N"]) -> Bool[Tensor, " N"]:
    """One unit, the first, of each class of units that come before each other; they are the points of a poset."""
    equal = before & before.T
    return equal.int().argmax(1) == torch.arange(len(before), device=before.device)


def upper_covers(before: Bool[Tensor, "N N"]) -> Bool[Tensor, "N N"]:
    """Which points come next after which, with none between, among the first of equals: from row to column."""
    points = first_of_equals(before)
    above = before & ~before.T & points & points[:, None]
    return above & ~_product(above, above)


def one_cover(before: Bool[Tensor, "N N"]) -> Bool[Tensor, " N"]:
    """The points of a poset that have exactly one upper cover: its meet-irreducible ones, where it is a lattice.

    Davey & Priestley 2002, https://doi.org/10.1017/CBO9780511809088.

    Args:
        before: a reflexive and transitive order, from row to column.
    """
    return upper_covers(before).sum(1) == 1


def whenever(active: Bool[Tensor, "S N"]) -> Bool[Tensor, "N N"]:
    """The order of units by what they do: row before column where the column is on in every pattern the row is on."""
    return ~_product(active.T, ~active)


def irreducible(active: Bool[Tensor, "S N"]) -> Bool[Tensor, " N"]:
    r"""The units that are no conjunction of others: the meet-irreducible attributes of a table of patterns.

    .. math::  E_i \ne \bigcap \{E_j : E_i \subset E_j\} \qquad E_i = \{s : \text{unit } i \text{ is on in } s\}

    Leaving the others out keeps the lattice of concepts as it is: Ganter & Wille 1999,
    https://doi.org/10.1007/978-3-642-59830-2. Of units that do the same the first stays; one that is always on is the
    conjunction of nothing.

    Args:
        active: patterns (S) of units (N) that are on or off.
    """
    before = whenever(active)
    larger = before & ~before.T
    # on wherever all larger ones are
    conjunction = ~_product(~active, larger.T)
    return first_of_equals(before) & (conjunction != active).any(0)


def patterns(active: Bool[Tensor, "S N"], least: int = 1) -> Bool[Tensor, "P N"]:
    """The different patterns that come at least so often.

    Raises:
        ValueError: none does.
    """
    found, counts = torch.unique(active, dim=0, return_counts=True)
    if not (counts >= least).any():
        raise ValueError(f"no pattern comes {least} times: the most frequent of {len(found)} comes {int(counts.max())}")
    return found[counts >= least]


def _product(a: Bool[Tensor, "N K"], b: Bool[Tensor, "K M"]) -> Bool[Tensor, "N M"]:
    return a.float() @ b.float() > 0
