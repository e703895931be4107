"""Reachability: is there a way from here to there? Every hop is one more thought; no degree gives the answer away."""

from typing import Any

import numpy as np
import torch

from recurra.shapes import Tensor
from recurra.tasks.base import Batch, SourceError
from recurra.tasks.choices import Choices, asked_at_the_end, certain
from recurra.tasks.draws import rows

NO, YES, BLANK, ASK, FIRST = range(5)  # answers, signs, and the first node


class GraphReachability(Choices):
    r"""Read the edges of a directed graph in any order, then say whether a path leads from one node to another.

    .. math::
        y = \bigl[\exists\, h \ge 1 : (A^h)_{st} > 0\bigr]

    A task of Chen 2026, https://arxiv.org/abs/2603.21676, where "the source has a way out and the target a way in"
    is right 85 times in a hundred. Here a graph is two copies of one graph: a path of h hops, twice, with dead ends and
    further beginnings that hang on both at the same place. The target is the end of the source's own path or of its
    copy. So both questions are asked of the same graph, of nodes with the same degrees, neighbours' degrees and
    distances to any sign; a walk along edges in both directions reaches either target where there is a dead end or a
    further beginning. Only the walk along the arrows tells them apart. Both answers are equally likely, and chance is
    exactly 1/2. Unlike the paper, the graph is a list of edges, not a mask of attention.

    Tokens: the answers no and yes, a blank, of which as many stand in front as there is room, ?, and the nodes. A row
    is `u v` for every edge, then `s t ?`; the answer is read at the row's end.

    Args:
        least: the fewest hops (h); they are uniform.
        most: the most hops.
        extras: dead ends and further beginnings, two edges each; at random which.
        nodes: names of nodes that there are.

    Raises:
        SourceError: the hops are not in order, there are too few names, or a row is too short for its edges.
    """

    def __init__(self, *, least: int = 1, most: int = 4, extras: int = 3, nodes: int = 16) -> None:
        needed = 2 * (most + 1) + extras
        if not 1 <= least <= most or extras < 0:
            raise SourceError(f"least is {least}, most {most}, extras {extras}: at least 1 hop, in order, and 0 extras")
        if nodes < needed:
            raise SourceError(f"nodes is {nodes}: {most} hops with {extras} extras need at least {needed}")
        self.config = {"task": "graph_reachability", "least": least, "most": most, "extras": extras, "nodes": nodes}
        self.least, self.most, self.extras, self.nodes = least, most, extras, nodes

    @property
    def chance(self) -> float:
        return 0.5

    def model_arguments(self) -> dict[str, Any]:
        return {"vocabulary": FIRST + self.nodes}

    def batch(self, split: str, index: int, size: int, length: int, seed: int, carried: bool = False) -> Batch:
        needed = 4 * (self.most + self.extras) + 3
        if length < needed:
            raise SourceError(
                f"graph_reachability of {self.most} hops and {self.extras} extras takes at least {needed} steps, "
                f"not {length}"
            )
        content = rows(self._draw, split, index, size, length, seed)
        return asked_at_the_end(content, [_reaches(row) for row in content], carried)

    def solve(self, batch: Batch) -> Tensor:
        # powers of the graph's matrix, all rows at once
        vocabulary = FIRST + self.nodes
        ones = (torch.nn.functional.one_hot(batch.inputs, vocabulary) * (batch.inputs >= FIRST)[..., None]).double()
        steps = ones.flip(1)[:, 3:]
        ends, starts = steps[:, 0 : steps.shape[1] // 2 * 2 : 2], steps[:, 1::2]
        graph = torch.einsum("btu,btv->buv", starts, ends)
        reached = ones[:, -3][:, None]
        for _ in range(self.nodes):
            reached = (reached + reached @ graph).clamp(max=1)
        answers = torch.zeros_like(batch.inputs)
        answers[:, -1] = (reached[:, 0] * ones[:, -2]).sum(-1) > 0
        return certain(answers, vocabulary)

    def _draw(self, random: np.random.Generator, size: int, length: int) -> np.ndarray:
        tokens = np.full((size, length), BLANK)
        for row, hops in zip(tokens, random.integers(self.least, self.most + 1, size).tolist(), strict=True):
            edges = random.permutation(_edges(random, hops, self.extras))
            other = random.integers(2)
            question = [0, hops + other * (hops + 1)]
            names = FIRST + random.permutation(self.nodes)
            row[-2 * len(edges) - 3 :] = [*names[[*edges.ravel(), *question]], ASK]
        return tokens


def _edges(random: np.random.Generator, hops: int, extras: int) -> np.ndarray:
    """Two paths, 0 to `hops` and the same from `hops` + 1, and what hangs on both."""
    copy = hops + 1
    path = [(node, node + 1) for node in range(hops)]
    edges = path + [(u + copy, v + copy) for u, v in path]
    for extra in range(2 * copy, 2 * copy + extras):
        place, out = random.integers(copy), random.integers(2)
        both = [(place, extra), (place + copy, extra)]
        edges += both if out else [(v, u) for u, v in both]
    return np.array(edges)


def _reaches(row: np.ndarray) -> bool:
    """Whether a walk along a row's edges comes from its source to its target."""
    *edges, source, target, _ = row[row != BLANK].tolist()
    after: dict[int, list[int]] = {}
    for u, v in zip(edges[::2], edges[1::2], strict=True):
        after.setdefault(u, []).append(v)
    seen, todo = {source}, [source]
    while todo:
        new = [v for v in after.get(todo.pop(), []) if v not in seen]
        seen.update(new)
        todo += new
    return target in seen
