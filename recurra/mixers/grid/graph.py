"""The parallelizable LSTM on a graph without cycles."""

import torch
from torch import nn
from torch.nn import functional as F

from recurra.checks import at_least
from recurra.ops import Graph, Scan
from recurra.ops.graph import links
from recurra.parts.init import small_
from recurra.parts.marks import Marks
from recurra.parts.norms import RMSNorm
from recurra.shapes import Float, Int, Tensor, state_zeros, wide


class GraphPLSTM(nn.Module):
    r"""Mix the nodes of a graph without cycles along its edges, in memories that wander from edge to edge.

    The equations are those of `recurra.ops.Graph`. A source sees the edge and the node that it leaves, a mark the edge
    and the node that it enters, a transition both of its edges and the node between. In mode "P" what enters an edge is
    shared, :math:`t_{e'e} / (\tfrac12 + \sum_{e''} |t_{e''e}|)`, so that nothing grows with the number of ways; in mode
    "D" it is :math:`\tanh t`, for graphs with one way between two nodes. Pöppel et al. 2025,
    https://arxiv.org/abs/2506.11997; the shares of "P" are those of the authors' code for edges with features.

    Args:
        width: features of nodes, in and out (D).
        edge_width: features of edges (F); 0: edges have none.
        heads: memories side by side (H); divides `width`.
        mode: "P" or "D".

    Raises:
        ValueError: `mode` is another, `edge_width` is negative, or `heads` does not divide `width`.
    """

    def __init__(self, width: int, *, edge_width: int = 0, heads: int = 4, mode: str = "P") -> None:
        super().__init__()
        if mode not in ("P", "D"):
            raise ValueError(f"mode is {mode!r}: it must be P or D")
        at_least(0, edge_width=edge_width)
        self.mode, self.edge_width = mode, edge_width
        self.marks = Marks(width, heads, gates=1)
        self.source, self.mark = (nn.Linear(width + edge_width, heads) for _ in range(2))
        self.transition = nn.Linear(width + 2 * edge_width, heads)
        self.norm = RMSNorm(width, groups=heads)
        self.out = nn.Linear(width, width, bias=False)
        for linear in (self.source, self.mark, self.transition):
            nn.init.zeros_(linear.weight)
        for linear in (self.source, self.mark):
            nn.init.constant_(linear.bias, -5.0)
        nn.init.normal_(self.transition.bias, std=10)
        small_(self.out.weight)
        self.scan = Scan()

    def initial_state(self, batch: int, edges: int) -> Float[Tensor, "B E H K V"]:
        """Nothing on any edge."""
        heads, size = self.marks.heads, self.marks.size
        return state_zeros(self.out.weight, batch, edges, heads, size, size)

    def forward(
        self,
        x: Float[Tensor, "B N D"],
        edges: Int[Tensor, "E 2"],
        features: Float[Tensor, "B E F"] | None = None,
        state: Float[Tensor, "B E H K V"] | None = None,
    ) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B E H K V"]]:
        """What every node reads, and what is on every edge.

        Args:
            x: of nodes.
            edges: the nodes that each leaves and enters.
            features: of edges; with `edge_width` only.
            state: what is on the edges before, where the graph is a part of another.

        Raises:
            ValueError: the graph has a cycle, or the edges' features are not `edge_width`.
        """
        given = 0 if features is None else features.shape[-1]
        if given != self.edge_width:
            raise ValueError(f"edges have {given} features: they must have {self.edge_width}")
        features = x.new_zeros(len(x), len(edges), 0) if features is None else features
        state = self.initial_state(len(x), len(edges)) if state is None else state
        out, into = edges.unbind(1)
        pairs = links(edges)
        first, second = pairs.unbind(1)
        query, key, value, (direct,) = self.marks(x, x)
        source = F.sigmoid(self.source(torch.cat([x[:, out], features], -1)))
        mark = F.sigmoid(self.mark(torch.cat([x[:, into], features], -1)))
        ways = self.transition(torch.cat([features[:, first], features[:, second], x[:, into[first]]], -1)).to(wide(x))
        if self.mode == "P":
            total = torch.index_add(torch.full_like(source, 0.5, dtype=ways.dtype), 1, second, ways.abs())
            ways = ways / total[:, second]
        else:
            ways = torch.tanh(ways)
        read, after = self.scan(Graph(query, key, value, source, ways, mark, direct, edges, pairs), state)
        return self.out(self.norm(read.flatten(-2)).to(x.dtype)), after
