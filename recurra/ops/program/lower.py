"""From a traced graph to stages: what torch calls tensors become places in memory and expressions that wait.

Views cost nothing: they are made of a tensor on torch's meta device, which knows its strides and holds no numbers. A
map waits until someone needs its numbers: another view, a product, two readers, or a reader of more numbers than it
has. So chains of maps are one pass, and nothing dear is computed twice.
"""

import math
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.fx import Node

from recurra.ops.cell.trace import Graph, Number, Traced, Untraceable, reachable, word
from recurra.shapes import Tensor

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


class Declined(Exception):
    """There is no C for this graph, and why."""


class Place(NamedTuple):
    """Numbers in a buffer, laid out as `like`, a tensor on the meta device."""

    buffer: int
    like: Tensor


class Mapped(NamedTuple):
    """Numbers that are an expression of others, and not in memory."""

    shape: torch.Size
    node: Number


Value = Place | Mapped


class Stage(NamedTuple):
    """One pass: `out` is the expression, or its sum over `axes`; or a product or a look-up of `reads`."""

    kind: str  # map, sum, product, rows
    out: Place
    reads: tuple[Place, ...]
    node: Number | None = None
    shape: torch.Size = torch.Size()  # over which the expression runs
    axes: tuple[int, ...] = ()


class Lowered(NamedTuple):
    """Stages in order, the numbers of every buffer, and what comes in and goes out."""

    graph: Graph
    leaves: dict[Number, Place]
    stages: list[Stage]
    sizes: list[int]
    inputs: list[Tensor | None]  # the first buffers, in order: a constant of the graph's own, or what is given
    outputs: list[Place]
    tokens: list[tuple[Place, int]]  # whole numbers, and how many rows they choose among


def lower(program: torch.export.ExportedProgram) -> Lowered:
    """The stages of an exported graph of float tensors, whole numbers being allowed to choose rows.

    Raises:
        Declined: it has something else.
    """
    table = torch.export.default_decompositions()
    table.pop(torch.ops.aten.linear.default, None)
    program = program.run_decompositions(table)
    specs = program.graph_signature.input_specs
    for spec in specs:
        if spec.kind.name not in ("USER_INPUT", "CONSTANT_TENSOR"):
            raise Declined(f"an input that is a {spec.kind.name}")
    held: list[Any] = [None if x.kind.name == "USER_INPUT" else program.constants[str(x.target)] for x in specs]
    return _Lowering().run(list(program.graph.nodes), held)


class _Lowering:
    def __init__(self) -> None:
        self.graph = Graph()
        self.leaves: dict[Number, Place] = {}
        self.stages: list[Stage] = []
        self.sizes: list[int] = []
        self.tokens: list[tuple[Place, int]] = []
        self.values: dict[Node, Any] = {}
        self.real: torch.dtype | None = None

    def run(self, nodes: list[Node], held: list[Tensor | None]) -> Lowered:
        inputs = [node for node in nodes if node.op == "placeholder"]
        for node in inputs:
            self.values[node] = self._input(node.meta["val"])
        for node in nodes:
            if node.op == "call_function":
                self._call(node)
        (ends,) = nodes[-1].args
        outputs = self._outputs([self.values[x] for x in ends], len(inputs))  # pyright: ignore
        return Lowered(self.graph, self.leaves, self.stages, self.sizes, held, outputs, self.tokens)

    def _input(self, like: Tensor) -> Place:
        if not like.is_cpu:
            raise Declined(f"numbers on {like.device}")
        if like.is_floating_point():
            self.real = self.real or like.dtype
            if like.dtype != self.real or self.real not in (torch.float32, torch.float64):
                raise Declined(f"numbers of {like.dtype} beside {self.real}")
        elif like.dtype != torch.int64:
            raise Declined(f"numbers of {like.dtype}")
        return self._new(tuple(like.shape), like.stride(), like.dtype)

    def _new(self, shape: Any, strides: Any = None, kind: Any = None) -> Place:
        """A buffer of its own."""
        like = torch.empty(shape, dtype=kind or self.real, device="meta")
        self.sizes.append(like.numel())
        return Place(len(self.sizes) - 1, like if strides is None else like.as_strided(shape, strides))

    def _call(self, node: Node) -> None:
        if node.target is operator.getitem:
            of, index = node.args
            self.values[node] = self.values[of][index]  # pyright: ignore
            return
        schema = getattr(node.target, "_schema", None)
        name = str(node.target) if schema is None else schema.name.split("::")[-1]
        if name in IGNORED:
            return
        like = node.meta["val"]
        for one in like if isinstance(like, (tuple, list)) else (like,):
            if not isinstance(one, Tensor) or one.dtype not in (self.real, torch.bool):
                raise Declined(f"'{name}' gives no tensor of {self.real}")
        arguments = [self.values[x] if isinstance(x, Node) else x for x in node.args]
        if name in SAME:
            if like.dtype is torch.bool and node.args[0].meta["val"].dtype is not torch.bool:  # pyright: ignore
                raise Declined("numbers as truth")
            self.values[node] = arguments[0]
        elif name in VIEWS:
            self.values[node] = self._view(node, name, arguments)
        elif hasattr(self, f"_{name}_of"):
            if any(x is not None for x in node.kwargs.values()):
                raise Declined(f"'{name}' with {', '.join(node.kwargs)}")
            self.values[node] = getattr(self, f"_{name}_of")(like, *arguments)
        elif isinstance(like, Tensor):
            self.values[node] = self._map(node, name, like, arguments)
        else:
            raise Declined(f"there is no C for '{name}'")

    def _map(self, node: Node, name: str, like: Tensor, arguments: list[Any]) -> Value:
        numbers = [self._number(x, like.shape) if isinstance(x, Value) else x for x in arguments]
        kwargs = dict(node.kwargs)
        if "alpha" in kwargs:
            factor = self.graph.const(kwargs.pop("alpha"))
            numbers[1] = self.graph.add("mul", self.graph.number(numbers[1]), factor)
        try:
            # scales of one are what these words mean
            plain = name in WORDS and all(x == 1 and not isinstance(x, Number) for x in numbers[1:]) and not kwargs
            found = WORDS[name](self.graph, numbers[0]) if plain else word(self.graph, name, numbers, kwargs)
        except Untraceable as reason:
            raise Declined(str(reason)) from reason
        if found is None:
            raise Declined(f"there is no C for '{name}'")
        value = Mapped(like.shape, found)
        readers = [x for x in node.users if not (x.op == "call_function" and "_assert" in str(x.target))]
        again = len(readers) > 1 and like.dtype == self.real and not self._constant(found)
        return self._place(value) if again else value

    def _constant(self, node: Number) -> bool:
        return not any(x in self.leaves for x in reachable(Traced(self.graph, {}, {}), [node]))

    def _number(self, value: Value, shape: torch.Size) -> Number:
        """A value as part of an expression over `shape`."""
        if isinstance(value, Mapped):
            # what is read again and again is better made once
            if value.shape.numel() == shape.numel() or self._constant(value.node):
                return value.node
            value = self._place(value)
        key = str((value.buffer, tuple(value.like.shape), value.like.stride(), value.like.storage_offset()))
        number = self.graph.add("input", key)
        self.leaves[number] = value
        return number

    def _place(self, value: Value) -> Place:
        """A value in memory."""
        if isinstance(value, Place):
            return value
        return self._store(value.node, value.shape, self._new(value.shape))

    def _store(self, node: Number, shape: torch.Size, out: Place) -> Place:
        self.stages.append(Stage("map", out, self._reads(node), node, shape))
        return out

    def _reads(self, node: Number) -> tuple[Place, ...]:
        seen = reachable(Traced(self.graph, {}, {}), [node])
        return tuple(self.leaves[x] for x in map(Number, sorted(seen)) if x in self.leaves)

    def _copy(self, value: Value) -> Place:
        """A value in a buffer of its own, without gaps."""
        shape = _shape(value)
        return self._store(self._number(value, shape), shape, self._new(shape))

    def _view(self, node: Node, name: str, arguments: list[Any]) -> Any:
        place = self._place(arguments[0])
        view: Any = torch.ops.aten.view if name in ("_unsafe_view", "reshape") else node.target
        try:
            found = view(place.like, *arguments[1:], **node.kwargs)
        except RuntimeError:
            place = self._copy(place)
            found = view(place.like, *arguments[1:], **node.kwargs)
        return Place(place.buffer, found) if isinstance(found, Tensor) else [Place(place.buffer, x) for x in found]

    def _sum_of(self, like: Tensor, x: Value, axes: Any = None, *rest: Any) -> Place:
        over = _shape(x)
        axes = tuple(sorted(a % len(over) for a in axes or range(len(over))))
        node, out = self._number(x, over), self._new(like.shape)
        self.stages.append(Stage("sum", out, self._reads(node), node, over, axes))
        return out

    def _mean_of(self, like: Tensor, x: Value, axes: Any = None, *rest: Any) -> Value:
        total = self._sum_of(like, x, axes)
        many = _shape(x).numel() // like.numel()
        return Mapped(like.shape, self.graph.add("div", self._number(total, like.shape), self.graph.const(many)))

    def _mm_of(self, like: Tensor, x: Value, y: Value) -> Place:
        one, two = (Place(part.buffer, part.like[None]) for part in (self._place(x), self._place(y)))
        out = self._matrices(like.new_empty((1, *like.shape), device="meta"), one, two)
        return Place(out.buffer, out.like[0])

    def _addmm_of(self, like: Tensor, bias: Value, x: Value, y: Value) -> Value:
        product = self._number(self._mm_of(like, x, y), like.shape)
        return self._place(Mapped(like.shape, self.graph.add("add", product, self._number(bias, like.shape))))

    def _bmm_of(self, like: Tensor, x: Value, y: Value) -> Place:
        return self._matrices(like, self._place(x), self._place(y))

    def _matrices(self, like: Tensor, x: Place, y: Place) -> Place:
        """Products as sums of a map, the innermost axis being the one along which `y` is dense."""
        inner = int(y.like.stride(1) == 1)
        if inner:
            rows, columns = Place(x.buffer, x.like[:, :, None]), Place(y.buffer, y.like.mT[:, None])
        else:
            rows, columns = Place(x.buffer, x.like[..., None]), Place(y.buffer, y.like[:, None])
        over = torch.broadcast_shapes(rows.like.shape, columns.like.shape)
        node = self.graph.add("mul", self._number(rows, over), self._number(columns, over))
        return self._sum_of(like, Mapped(over, node), [2 + inner])

    def _native_layer_norm_of(
        self,
        likes: Sequence[Tensor],
        x: Value,
        shape: list[int],
        weight: Value | None,
        bias: Value | None,
        epsilon: float,
    ) -> list[Value | None]:
        over, axes = likes[0].shape, range(-len(shape), 0)
        add, number = self.graph.add, self._number
        mean = self._mean_of(likes[1], x, axes)
        off = number(self._place(Mapped(over, add("sub", number(x, over), number(mean, over)))), over)
        variance = self._mean_of(likes[1], Mapped(over, add("mul", off, off)), axes)
        spread = number(variance, likes[1].shape)
        root = add("sqrt", add("add", spread, self.graph.const(epsilon)))
        scale = number(Mapped(likes[1].shape, add("div", self.graph.const(1), root)), over)
        y = add("mul", off, scale)
        y = y if weight is None else add("mul", y, number(weight, over))
        y = y if bias is None else add("add", y, number(bias, over))
        return [self._place(Mapped(over, y)), None, None]

    def _constant_pad_nd_of(self, like: Tensor, x: Value, pads: list[int], fill: float = 0.0) -> Place:
        if min(pads) < 0:
            raise Declined("what a pad cuts off")
        whole, over = self._new(like.shape), _shape(x)
        self._store(self.graph.const(fill), like.shape, whole)
        inside = whole.like
        for i in range(len(pads) // 2):
            inside = inside.narrow(-1 - i, pads[2 * i], over[-1 - i])
        self._store(self._number(x, over), over, Place(whole.buffer, inside))
        return whole

    def _cat_of(self, like: Tensor, parts: list[Any], axis: int = 0) -> Value:
        values = [self.values[x] for x in parts]
        if len(values) == 1:
            return values[0]
        whole, start = self._new(like.shape), 0
        for value in values:
            over = _shape(value)
            piece = whole.like.narrow(axis, start, over[axis])
            start += over[axis]
            if over.numel():
                self._store(self._number(value, over), over, Place(whole.buffer, piece))
        return whole

    def _embedding_of(self, like: Tensor, table: Value, tokens: Value, *rest: Any) -> Place:
        table, out = self._place(table), self._new(like.shape)
        if not isinstance(tokens, Place) or not tokens.like.is_contiguous() or not table.like.is_contiguous():
            raise Declined("rows that are not chosen by an input")
        self.tokens.append((tokens, len(table.like)))
        self.stages.append(Stage("rows", out, (tokens, table)))
        return out

    def _linear_of(self, like: Tensor, x: Value, weight: Value, bias: Value | None = None) -> Place:
        x, weight, out = self._place(x), self._place(weight), self._new(like.shape)
        x = x if x.like.is_contiguous() else self._copy(x)
        weight = weight if weight.like.stride(1) == 1 else self._copy(weight)
        reads = (x, weight) if bias is None else (x, weight, self._copy(bias) if _gaps(bias) else self._place(bias))
        self.stages.append(Stage("product", out, reads))
        return out

    def _outputs(self, values: list[Any], inputs: int) -> list[Place]:
        """Every result in a buffer of its own, which is no input's."""
        taken: set[int] = set()
        found = []
        for value in values:
            place = self._place(value)
            whole = place.like.is_contiguous() and place.like.numel() == self.sizes[place.buffer]
            if place.buffer < inputs or place.buffer in taken or not whole:
                place = self._copy(place)
            taken.add(place.buffer)
            found.append(place)
        return found


def _shape(value: Value) -> torch.Size:
    return value.like.shape if isinstance(value, Place) else value.shape


def _gaps(value: Value) -> bool:
    return isinstance(value, Place) and not value.like.is_contiguous()


def count(place: Place) -> int:
    """How many numbers."""
    return math.prod(place.like.shape)
