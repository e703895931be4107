"""Matrix memories on the edges of a two-dimensional grid: what reaches a node came from its left and from above."""

from typing import NamedTuple

from recurra.shapes import Float, Tensor

Edges = tuple[Float[Tensor, "B Y H K V"], Float[Tensor, "B X H K V"]]


class Grid(NamedTuple):
    r"""Sources write to edges, transitions carry from edge to edge, marks read edges.

    .. math::
        R_{x,y} = t^{rl}_{x,y} R_{x-1,y} + t^{ru}_{x,y} D_{x,y-1} + s^r_{x,y}\, k_{x,y} v_{x,y}^\top
    .. math::
        D_{x,y} = t^{dl}_{x,y} R_{x-1,y} + t^{du}_{x,y} D_{x,y-1} + s^d_{x,y}\, k_{x,y} v_{x,y}^\top
    .. math::
        o_{x,y} = (m^l_{x,y} R_{x-1,y} + m^u_{x,y} D_{x,y-1} + d_{x,y}\, k_{x,y} v_{x,y}^\top)^\top q_{x,y}

    R leaves a node to the right, where x grows, and D downwards, where y grows. State: what enters at the left and at
    the top, `(B, Y, H, K, V)` and `(B, X, H, K, V)`; after it, what leaves at the right and at the bottom. So a grid
    may be cut along either axis: what leaves one part enters the next, and nothing else is handed on.
    """

    query: Float[Tensor, "B X Y H K"]
    key: Float[Tensor, "B X Y H K"]
    value: Float[Tensor, "B X Y H V"]
    source_right: Float[Tensor, "B X Y H"]
    source_down: Float[Tensor, "B X Y H"]
    right_left: Float[Tensor, "B X Y H"]  # what goes right of what came from the left
    right_up: Float[Tensor, "B X Y H"] | None  # what goes right of what came from above; None: nothing
    down_left: Float[Tensor, "B X Y H"] | None  # what goes down of what came from the left; None: nothing
    down_up: Float[Tensor, "B X Y H"]  # what goes down of what came from above
    mark_left: Float[Tensor, "B X Y H"]
    mark_up: Float[Tensor, "B X Y H"]
    direct: Float[Tensor, "B X Y H"]

    @property
    def output(self) -> Tensor:
        """The input whose type the read returns in."""
        return self.value


def node(record: Grid, left: Float[Tensor, "... K V"], up: Float[Tensor, "... K V"]) -> tuple[Tensor, Tensor, Tensor]:
    """What some nodes, whose axes `record` and the edges share, read, send right and send down."""
    written = record.key[..., None] * record.value[..., None, :]
    right = _share(record.right_left, left) + _share(record.source_right, written)
    down = _share(record.down_up, up) + _share(record.source_down, written)
    if record.right_up is not None:
        right = right + _share(record.right_up, up)
    if record.down_left is not None:
        down = down + _share(record.down_left, left)
    seen = _share(record.mark_left, left) + _share(record.mark_up, up) + _share(record.direct, written)
    return (seen * record.query[..., None]).sum(-2), right, down


def _share(gate: Float[Tensor, "..."], memory: Float[Tensor, "... K V"]) -> Float[Tensor, "... K V"]:
    return gate[..., None, None] * memory
