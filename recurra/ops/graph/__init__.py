"""Matrix memories on the edges of any graph without cycles."""

import graphlib
from typing import NamedTuple

import torch

from recurra.shapes import Float, Int, Tensor


class Graph(NamedTuple):
    r"""Sources write to edges, transitions carry from edge to edge, marks read edges.

    .. math::
        C_e = C^0_e + \sum_{e' \to e} t_{e' e} C_{e'} + s_e\, k_{n} v_{n}^\top \qquad
        o_n = \Big( \sum_{e \text{ into } n} m_e C_e + d_n k_n v_n^\top \Big)^\top q_n

    over edges e that leave node n. State: :math:`C^0`, what is on each edge before, `(B, E, H, K, V)`; after it, C. A
    graph may be cut anywhere: what is on the edges that cross the cut is handed on.
    """

    query: Float[Tensor, "B N H K"]
    key: Float[Tensor, "B N H K"]
    value: Float[Tensor, "B N H V"]
    source: Float[Tensor, "B E H"]
    transition: Float[Tensor, "B L H"]
    mark: Float[Tensor, "B E H"]
    direct: Float[Tensor, "B N H"]
    edges: Int[Tensor, "E 2"]  # the nodes it leaves and enters
    links: Int[Tensor, "L 2"]  # the edges it leaves and enters, as `links` makes them

    @property
    def output(self) -> Tensor:
        """The input whose type the read returns in."""
        return self.value


def links(edges: Int[Tensor, "E 2"]) -> Int[Tensor, "L 2"]:
    """All pairs of edges of which the second leaves the node that the first enters, in order."""
    return (edges[:, 1, None] == edges[:, 0]).nonzero()


def levels(record: Graph) -> list[list[int]]:
    """The edges by the length of the longest way that leads to them.

    Raises:
        ValueError: the graph has a cycle.
    """
    before: dict[int, set[int]] = {edge: set() for edge in range(len(record.edges))}
    for first, second in record.links.tolist():
        before[second].add(first)
    level: dict[int, int] = {}
    try:
        for edge in graphlib.TopologicalSorter(before).static_order():
            level[edge] = max((level[e] + 1 for e in before[edge]), default=0)
    except graphlib.CycleError as error:
        raise ValueError(
            f"the graph has a cycle, through edges {error.args[1]}: give every edge a direction"
        ) from error
    several: list[list[int]] = [[] for _ in range(max(level.values(), default=-1) + 1)]
    for edge in sorted(level):
        several[level[edge]].append(edge)
    return several


def read(record: Graph, carried: Float[Tensor, "B E H K V"]) -> Float[Tensor, "B N H V"]:
    """What every node reads of its edges and of itself."""
    query, key, value, into = record.query, record.key, record.value, record.edges[:, 1]
    own = (record.direct * (query * key).sum(-1))[..., None] * value
    marked = record.mark[..., None] * (query[:, into][..., None] * carried).sum(-2)
    return torch.index_add(own, 1, into, marked)


def written(record: Graph) -> Float[Tensor, "B E H K V"]:
    """What every edge gets from the node that it leaves."""
    out = record.edges[:, 0]
    return (record.source[..., None] * record.key[:, out])[..., None] * record.value[:, out][..., None, :]
