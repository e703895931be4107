"""From a traced graph to stages: what torch calls tensors become places in memory and expressions that wait.

Views cost nothing: they are made of a tensor on torch's meta device, which knows its strides and holds no numbers. A
map waits until someone needs its numbers: another view, a product, two readers, or a reader of more numbers than it
has. So chains of maps are one pass, and nothing dear is computed twice.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import Node

from recurra.ops.cell.trace import Graph, Number, Traced, Untraceable, reachable, word
from recurra.ops.program.loops import lies_turned
from recurra.ops.program.stages import LINE, Declined, Lowered, Mapped, Place, Stage, Value
from recurra.ops.program.words import IGNORED, SAME, VIEWS, WORDS, plain
from recurra.shapes import Tensor

FEW = 4  # rows up to which a product of matrices is sums of a map


def lower(program: "torch.export.ExportedProgram") -> Lowered:
    """The stages of an exported graph of float tensors, whole numbers being allowed to choose rows.

    Raises:
        Declined: it has something else.
    """
    table = torch.export.default_decompositions()
    for whole in (torch.ops.aten.linear.default, torch.ops.aten.roll.default):
        table.pop(whole, None)
    program = program.run_decompositions(table)
    specs = program.graph_signature.input_specs
    for spec in specs:
        if spec.kind.name not in ("USER_INPUT", "CONSTANT_TENSOR"):
            raise Declined(f"an input that is a {spec.kind.name}")
    held: list[Any] = [None if x.kind.name == "USER_INPUT" else program.constants[str(x.target)] for x in specs]
    return _Lowering().run(list(program.graph.nodes), held)


def lower_calls(nodes: list[Node], fixed: int) -> Lowered:
    """The stages of calls that were recorded, of which the first inputs are the same whenever they are made.

    Raises:
        Declined: there is something else than float tensors, or no C for a call.
    """
    return _Lowering(fixed).run(nodes, [None for node in nodes if node.op == "placeholder"])


def says(name: str) -> bool:
    """Whether there are words for a call, where those that it is made of need not be looked for."""
    return plain(name) or hasattr(_Lowering, _method(name))


class _Lowering:
    def __init__(self, fixed: int = 0) -> None:
        self.fixed = fixed
        self.packed: dict[int, Place] = {}
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
        return Lowered(self.graph, self.leaves, self.stages, self.sizes, held, outputs, self.tokens, self.packed)

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
            value: Any = arguments[0]
            turned = name == "clone" and isinstance(value, Place) and lies_turned(value.like)
            # who asks for a copy without gaps reads it more than once, and sixteen rows at a time are soon turned
            self.values[node] = self._copy(value) if turned else value
        elif name in VIEWS:
            self.values[node] = self._view(node, name, arguments)
        elif hasattr(self, _method(name)):
            if any(x is not None for x in node.kwargs.values()):
                raise Declined(f"'{name}' with {', '.join(node.kwargs)}")
            self.values[node] = getattr(self, _method(name))(like, *arguments)
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
        """Products of many rows in tiles; else as sums of a map, whose inner axis is the one along which y is dense."""
        if like.shape[1] >= FEW:
            return self._tiles(like, x, y)
        inner = int(y.like.stride(1) == 1)
        if inner:
            rows, columns = Place(x.buffer, x.like[:, :, None]), Place(y.buffer, y.like.mT[:, None])
        else:
            rows, columns = Place(x.buffer, x.like[..., None]), Place(y.buffer, y.like[:, None])
        over = torch.broadcast_shapes(rows.like.shape, columns.like.shape)
        node = self.graph.add("mul", self._number(rows, over), self._number(columns, over))
        return self._sum_of(like, Mapped(over, node), [2 + inner])

    def _tiles(self, like: Tensor, x: Place, y: Place) -> Place:
        """Rows of y are read, and rows of the result written, as whole vectors."""
        batch, rows, columns = like.shape
        if y.like.stride(1) == 1 and y.like.stride(2) != 1 and rows < columns and y.buffer >= self.fixed:
            # what is smaller is turned over
            out = self._tiles(like.mT, Place(y.buffer, y.like.mT), Place(x.buffer, x.like.mT))
            return Place(out.buffer, out.like.mT)
        if y.like.stride(2) != 1 or columns % LINE:
            y = self._filled(y)
        out = self._rows((batch, rows, columns))
        self.stages.append(Stage("tiles", out, (x, y)))
        return out

    def _rows(self, shape: tuple[int, int, int]) -> Place:
        """Room for matrices, whose rows begin a whole number of vectors apart."""
        *outer, columns = shape
        whole = self._new((*outer, -(-columns // LINE) * LINE))
        return Place(whole.buffer, whole.like[..., :columns])

    def _filled(self, y: Place) -> Place:
        """The same with rows of whole vectors: made once where it is always the same."""
        batch, rows, columns = y.like.shape
        if y.buffer >= self.fixed:
            return self._store(self._number(y, y.like.shape), y.like.shape, self._rows((batch, rows, columns)))
        looks = y.like.shape, y.like.stride(), y.like.storage_offset()
        for buffer, of in self.packed.items():
            if of.buffer == y.buffer and (of.like.shape, of.like.stride(), of.like.storage_offset()) == looks:
                found = buffer
                break
        else:
            found = self._rows((batch, rows, columns)).buffer
            self.packed[found] = y
        wide = -(-columns // LINE) * LINE
        return Place(found, torch.empty(batch, rows, wide, device="meta", dtype=self.real)[..., :columns])

    def _safe_softmax_of(self, like: Tensor, x: Value, axis: int, kind: Any = None) -> Place:
        return self._softmax_of(like, x, axis, kind="safe_softmax")

    def _softmax_of(self, like: Tensor, x: Value, axis: int, half: bool = False, kind: str = "softmax") -> Place:
        if axis % like.ndim == like.ndim - 2 and like.shape[-1] % LINE == 0 and kind == "softmax":
            kind = "columns"
        elif axis % like.ndim != like.ndim - 1:
            raise Declined("a softmax over another axis than the last, or of columns that are no whole vectors")
        x, out = self._place(x), self._new(like.shape)
        self.stages.append(Stage(kind, out, (x if x.like.is_contiguous() else self._copy(x),)))
        return out

    def _softmax_backward_data_of(self, like: Tensor, grad: Value, y: Value, axis: int, kind: Any = None) -> Value:
        add, over = self.graph.add, like.shape
        one, two = (self._number(self._place(x), over) for x in (grad, y))
        total = self._sum_of(like.sum(axis, keepdim=True), Mapped(over, add("mul", one, two)), [axis])
        return self._place(Mapped(over, add("mul", two, add("sub", one, self._number(total, over)))))

    def _select_backward_of(self, like: Tensor, grad: Value, sizes: list[int], axis: int, index: int) -> Place:
        return self._inside(like, grad, lambda x: x.select(axis, index))

    def _slice_backward_of(
        self, like: Tensor, grad: Value, sizes: list[int], axis: int, start: int, end: int, step: int
    ) -> Place:
        return self._inside(like, grad, lambda x: torch.ops.aten.slice(x, axis, start, end, step))

    def _inside(self, like: Tensor, x: Value, part: Callable[[Tensor], Tensor]) -> Place:
        """Zeros, with x in a part of them."""
        whole = self._new(like.shape)
        self._store(self.graph.const(0), like.shape, whole)
        self._store(self._number(x, _shape(x)), _shape(x), Place(whole.buffer, part(whole.like)))
        return whole

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
        inverse = Mapped(likes[1].shape, add("div", self.graph.const(1), root))
        inverse = self._place(inverse) if inverse.shape.numel() != over.numel() else inverse
        scale = number(inverse, over)
        y = add("mul", off, scale)
        y = y if weight is None else add("mul", y, number(weight, over))
        y = y if bias is None else add("add", y, number(bias, over))
        return [self._place(Mapped(over, y)), mean, inverse]

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

    def _roll_of(self, like: Tensor, x: Value, shifts: list[int], axes: list[int]) -> Place:
        if len(axes) != 1:
            raise Declined("'roll' along other than one axis")
        (axis,), x, whole = axes, self._place(x), self._new(like.shape)
        first = shifts[0] % like.shape[axis]
        for to, start, size in ((0, like.shape[axis] - first, first), (first, 0, like.shape[axis] - first)):
            piece = Place(x.buffer, x.like.narrow(axis, start, size))
            if size:
                part = Place(whole.buffer, whole.like.narrow(axis, to, size))
                self._store(self._number(piece, piece.like.shape), piece.like.shape, part)
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


def _method(name: str) -> str:
    return f"_{name.removeprefix('_')}_of"


def _shape(value: Value) -> torch.Size:
    return value.like.shape if isinstance(value, Place) else value.shape


def _gaps(value: Value) -> bool:
    return isinstance(value, Place) and not value.like.is_contiguous()
