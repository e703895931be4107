"""Which of torch's calls are views, which change nothing, and the maps that a cell's rule has no words for."""

from recurra.ops.cell.trace import CONSTANT, PLAIN, RENAMED, REWRITTEN, VALUE_AT, Graph, Number

VIEWS = {
    "view", "_unsafe_view", "reshape", "expand", "slice", "select", "split_with_sizes", "split", "unbind", "unsqueeze",
    "squeeze", "permute", "transpose", "t",
}  # fmt: skip
SAME = {"clone", "alias", "detach", "_to_copy", "contiguous", "lift_fresh_copy"}
IGNORED = {"_assert_tensor_metadata", "sym_size", "_assert_async"}


def _gelu(graph: Graph, x: Number) -> Number:
    add, const = graph.add, graph.const
    return add("mul", add("mul", x, const(0.5)), add("add", const(1), add("erf", add("mul", x, const(0.5**0.5)))))


# maps that a cell's rule has no words for, or other ones
WORDS = {
    "isnan": lambda graph, x: graph.add("ne", x, x),
    "elu": lambda graph, x: graph.add("where", graph.add("gt", x, graph.const(0)), x, graph.add("expm1", x)),
    "gelu": _gelu,
}


def plain(name: str) -> bool:
    """Whether a call is one of these, or of those that a rule may be made of."""
    words = PLAIN | RENAMED.keys() | REWRITTEN.keys() | CONSTANT.keys() | VALUE_AT.keys() | WORDS.keys()
    return name in words | VIEWS | SAME | {"pow"}
