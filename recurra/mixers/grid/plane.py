"""The parallelizable LSTM on a plane: two axes instead of time."""

import itertools

import torch
from torch import nn
from torch.nn import functional as F

from recurra.ops import Grid, Scan
from recurra.parts.init import small_
from recurra.parts.marks import Marks, transition
from recurra.parts.norms import RMSNorm
from recurra.shapes import Float, Tensor, state_zeros, wide

Edges = tuple[Float[Tensor, "B Y H K V"], Float[Tensor, "B X H K V"]]


class PlanePLSTM(nn.Module):
    r"""Mix the nodes of a grid along both axes, in memories that wander from node to node.

    The equations are those of `recurra.ops.Grid`, for every direction of the four that the flips of the axes make; what
    is read in each is normalised by heads and their mean projected. In mode "P" memories are directed: a node's
    orientation :math:`\alpha` shares what is written and what comes in between right and down, so that nothing grows,
    :math:`t^{rl} = t^{ru} = \alpha t`, :math:`t^{dl} = t^{du} = 1 - \alpha t`, :math:`s^r = \alpha s`,
    :math:`s^d = 1 - \alpha s`. In mode "D" they are diffusive: transitions are free, up to 1, and nothing that came
    from the left turns down, so that there is one way between two nodes. Pöppel et al. 2025,
    https://arxiv.org/abs/2506.11997; the shares of "P" are those of the authors' code. Unlike it gates see the
    features, transitions are numbers, not matrices, and no convolution or skip is part of it.

    Args:
        width: features in and out (D).
        heads: memories side by side in each direction (H); divides `width`.
        mode: "P" or "D".
        directions: 4, or 1: only to the right and down, which may be cut.

    Raises:
        ValueError: `mode` or `directions` is another, or `heads` does not divide `width`.
    """

    def __init__(self, width: int, *, heads: int = 4, mode: str = "P", directions: int = 4) -> None:
        super().__init__()
        if mode not in ("P", "D"):
            raise ValueError(f"mode is {mode!r}: it must be P or D")
        if directions not in (1, 4):
            raise ValueError(f"directions is {directions}: it must be 1 or 4")
        self.mode = mode
        self.flips = list(itertools.product((False, True), repeat=2))[:directions]
        # direct is one for all directions
        self.gates = 2 if mode == "P" else 4
        self.marks = Marks(width, heads, gates=1 + self.gates * directions)
        # in "P" how much goes on and where to, in "D" right, down and round the corner
        self.ways = 2 if mode == "P" else 3
        self.transition = nn.Linear(width, self.ways * directions * heads)
        self.norm = RMSNorm(width, groups=heads)
        self.out = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.transition.weight)
        nn.init.ones_(self.transition.bias)
        if mode == "P":
            # orientations even between mostly down and mostly right
            with torch.no_grad():
                self.transition.bias.view(directions, 2, heads)[:, 1] = torch.linspace(-2, 2, heads)
        small_(self.out.weight)
        self.scan = Scan()

    def initial_state(self, batch: int, columns: int, rows: int) -> tuple[Edges, ...]:
        """Nothing enters, from any direction."""
        heads, size = self.marks.heads, self.marks.size
        left, top = (state_zeros(self.out.weight, batch, n, heads, size, size) for n in (rows, columns))
        return ((left, top),) * len(self.flips)

    def forward(
        self, x: Float[Tensor, "B X Y D"], state: tuple[Edges, ...] | None = None
    ) -> tuple[Float[Tensor, "B X Y D"], tuple[Edges, ...]]:
        """What every node reads, and what leaves the grid in every direction.

        Raises:
            ValueError: a state is given to four directions: some of them begin where the grid ends.
        """
        if state is not None and len(self.flips) > 1:
            raise ValueError("a grid that is read in four directions has no end that another may go on from")
        state = self.initial_state(*x.shape[:3]) if state is None else state
        query, key, value, (direct, *gates) = self.marks(x, x)
        ways = self.transition(x).to(wide(x)).unflatten(-1, (len(self.flips), self.ways, self.marks.heads)).unbind(-3)
        reads, after = [], []
        for i, (flip, edges, way) in enumerate(zip(self.flips, state, ways, strict=True)):
            record = self._record(query, key, value, gates[i * self.gates : (i + 1) * self.gates], way, direct)
            axes = [axis for axis, turned in zip((1, 2), flip, strict=True) if turned]
            read, edges = self.scan(Grid._make(None if part is None else part.flip(axes) for part in record), edges)
            reads.append(self.norm(read.flip(axes).flatten(-2)))
            after.append(edges)
        return self.out(torch.stack(reads).mean(0).to(x.dtype)), tuple(after)

    def _record(
        self, query: Tensor, key: Tensor, value: Tensor, gates: list[Tensor], ways: Tensor, direct: Tensor
    ) -> Grid:
        if self.mode == "P":
            source, mark = gates
            through, turn = ways.unbind(-2)
            right = F.sigmoid(turn)
            on, source = right * transition(through), right * source
            return Grid(query, key, value, source, 1 - source, on, on, 1 - on, 1 - on, mark, mark, direct)
        source_right, source_down, mark_left, mark_up = gates
        right, down, corner = transition(ways).unbind(-2)
        return Grid(query, key, value, source_right, source_down, right, corner, None, down, mark_left, mark_up, direct)
