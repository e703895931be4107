"""From a function of tensors to a graph of torch's own calls: what `ops.program` makes C of.

A value is known by where its numbers lie and how: a view of another has the same address, and what autograd keeps and
brings out again as another tensor is found by it. All are kept until the trace is done, so no address comes twice.
"""

import operator
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch._decomp import decomposition_table
from torch.fx import Graph, Node
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from recurra.ops.program.lower import lower_calls, says
from recurra.ops.program.stages import Declined, Lowered
from recurra.ops.scan import use
from recurra.ops.walk import Way
from recurra.shapes import State, Tensor
from recurra.state import each, leaves

aten = torch.ops.aten
# whose results are kept for the way back: what else it needs is soon made of these again
DEAR = {aten.mm.default, aten.addmm.default, aten._softmax.default, aten._safe_softmax.default}


class Recorder(TorchDispatchMode):
    """Every call below autograd as a node."""

    def __init__(self) -> None:
        super().__init__()
        self.graph = Graph()
        self.nodes: dict[tuple, Node] = {}
        self.alive: list[Tensor] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # skipping would import torch's compiler, which takes seconds
        return False

    def name(self, x: Tensor, node: Node) -> None:
        """Remember that a node gives this. Of two that give the same numbers the first stays."""
        self.nodes.setdefault(_known_by(x), node)
        self.alive.append(x)

    def given(self, name: str, x: Tensor) -> None:
        """One input of the graph."""
        node = self.graph.placeholder(name)
        node.meta["val"] = x
        self.name(x, node)

    def node(self, x: Any) -> Any:
        """What stands in the graph for an argument."""
        if isinstance(x, (list, tuple)):
            return [self.node(one) for one in x]
        if not isinstance(x, Tensor):
            return x
        found = self.nodes.get(_known_by(x))
        if found is not None:
            return found
        if x.numel() == 1:
            return x.item()
        raise Declined(f"a tensor of shape {tuple(x.shape)} that is none of the weights")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func._schema.name.split("::")[-1], kwargs or {}
        if func._schema.is_mutable:
            raise Declined(f"'{name}' in place")
        if not says(name) and (func in decomposition_table or func._can_decompose()):
            with self:
                found = decomposition_table.get(func, func.decompose)(*args, **kwargs)
            if found is not NotImplemented:
                return found
        result = func(*args, **kwargs)
        if name == "lift_fresh":
            return result
        node = self.graph.call_function(func, tuple(map(self.node, args)), _said(kwargs))
        node.meta["val"] = result
        if isinstance(result, Tensor):
            self.name(result, node)
        for i, one in enumerate(result if isinstance(result, (list, tuple)) else ()):
            part = self.graph.call_function(operator.getitem, (node, i))
            part.meta["val"] = one
            self.name(one, part)
        return result


class InParts(TorchFunctionMode):
    """Attention as the products and the softmax that it is, in this thread alone."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            return aten._scaled_dot_product_attention_math(*args, **(kwargs or {}))[0]
        return func(*args, **(kwargs or {}))


def _said(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Keywords without those that only say what kind of numbers there are."""
    return {k: v for k, v in kwargs.items() if k not in ("dtype", "layout", "device", "pin_memory", "memory_format")}


def _known_by(x: Tensor) -> tuple:
    return x.data_ptr(), tuple(x.shape), x.stride(), x.dtype


class Pair(NamedTuple):
    """A share of a weight's gradient: the product of the first, turned over, and the second, or that turned over."""

    one: int  # which of the graph's results
    two: int
    turned: bool


class Back(NamedTuple):
    """A gradient's graph. After gradients of memory and of what is ready come those of weights.

    A weight that multiplies many rows gets its gradient as pairs of matrices, to be multiplied for all segments at
    once; every other one as what is added up.
    """

    lowered: Lowered
    pairs: list[list[Pair] | int]  # of each weight that wants a gradient, in order; or which result is added up
    kept: list[int]  # which of what was dear on the way there it is given, after what is ready


def forward(way: Way, memory: State, ready: State) -> tuple[Lowered, State, list[torch.Size]]:
    """What the function computes, as stages, what it makes beside the memory, and of which shapes its last results are.

    These are dear to make, and are there for the way back.

    Raises:
        Declined: there is no C for it.
    """
    recorder = Recorder()
    with torch.no_grad():
        after, made = _there(recorder, way, memory, ready)
    results = [recorder.node(x) for x in (*leaves(after), *leaves(made))]
    dear = _dear(recorder.graph)
    return _lowered(recorder, [*results, *dear], len(way.weights)), made, [x.meta["val"].shape for x in dear]


def backward(way: Way, memory: State, ready: State, dear: Sequence[torch.Size]) -> Back:
    """The function's gradient, from those of the memory after a segment and of what that made.

    Args:
        way: the function.
        memory: a memory.
        ready: what is ready of a segment.
        dear: of which shapes the results are that are kept, as `forward` says. Others than here: they are not used.

    Raises:
        Declined: there is no C for it.
    """
    recorder, wanted = Recorder(), [x for x in way.weights if x.requires_grad]
    memory, ready = _wanting(memory), _wanting(ready)
    ins = [*leaves(memory), *leaves(ready), *wanted]
    with torch.enable_grad(), use("loop"):
        after, made = _there(recorder, way, memory, ready)
        calls = _dear(recorder.graph)
        ends = [*leaves(after), *leaves(made)]
        # without gaps, in order, as they come
        grads = [torch.ones(x.shape, dtype=x.dtype, device=x.device) for x in ends]
        _give(recorder, "grad", grads)
        moved = [(x, g) for x, g in zip(ends, grads, strict=True) if x.requires_grad]
        with recorder:
            found = torch.autograd.grad([x for x, _ in moved], ins, [g for _, g in moved], materialize_grads=True)
    results = [recorder.node(x) for x in found]
    results, own = results[: len(results) - len(wanted)], results[len(results) - len(wanted) :]
    pairs: list[list[Pair] | int] = []
    for node in own:
        terms = _products(recorder.graph, node, turned=False)
        if terms is None:
            pairs.append(len(results))
            results.append(node)
            continue
        pairs.append(
            [Pair(len(results) + 2 * i, len(results) + 2 * i + 1, turned) for i, (*_, turned) in enumerate(terms)]
        )
        results += [x for one, two, _ in terms for x in (one, two)]
    alike = [x.meta["val"].shape for x in calls] == list(dear)
    given = _given_again(recorder.graph, calls if alike else [])
    lowered = _lowered(recorder, [given.get(x, x) for x in results], len(way.weights), [*given.values()])
    left = {*recorder.graph.nodes}
    return Back(lowered, pairs, [i for i, node in enumerate(given.values()) if node in left])


def _wanting(state: State) -> State:
    """Of which gradients are wanted."""
    return each(lambda x: x.detach().requires_grad_(), state)


def _there(recorder: Recorder, way: Way, memory: State, ready: State) -> tuple[State, State]:
    """What the function gives, recorded."""
    _give(recorder, "weight", way.weights)
    _give(recorder, "memory", leaves(memory))
    _give(recorder, "ready", leaves(ready))
    with use("loop"), InParts(), recorder:
        return way.function(memory, ready)


def _dear(graph: Graph) -> list[Node]:
    """Calls whose results are kept."""
    return [x for x in graph.nodes if x.target in DEAR and x.meta["val"].is_contiguous()]


def _given_again(graph: Graph, calls: list[Node]) -> dict[Any, Node]:
    """An input in place of each of these calls."""
    first = next((x for x in graph.nodes if x.op == "call_function"), None)
    given: dict[Any, Node] = {}
    for i, call in enumerate(calls):
        with graph.inserting_before(first):
            given[call] = graph.placeholder(f"kept{i}")
        given[call].meta["val"] = call.meta["val"]
        call.replace_all_uses_with(given[call])
    return given


def _give(recorder: Recorder, name: str, tensors: Iterable[Tensor]) -> None:
    for i, x in enumerate(tensors):
        recorder.given(f"{name}{i}", x)


def _lowered(recorder: Recorder, results: list[Any], weights: int, optional: Sequence[Node] = ()) -> Lowered:
    """The stages. Inputs that are optional go if nothing is made of them."""
    graph = recorder.graph
    graph.output(results)
    graph.eliminate_dead_code()
    for node in optional:
        if not node.users:
            graph.erase_node(node)
    return lower_calls(list(graph.nodes), weights)


def _products(graph: Graph, node: Any, turned: bool) -> list[tuple[Node, Node, bool]] | None:
    """The products of matrices that a gradient is the sum of: of each the first turned over, the second, and so on."""
    if not isinstance(node, Node):
        return None
    if node.target in (aten.t.default, aten.transpose.int):
        return _products(graph, node.args[0], not turned)
    if node.target is aten.detach.default:
        return _products(graph, node.args[0], turned)
    if node.target is aten.add.Tensor and not node.kwargs:
        several = [_products(graph, x, turned) for x in node.args]
        return None if None in several else [x for one in several for x in one]  # pyright: ignore
    if node.target is not aten.mm.default:
        return None
    one, two = node.args
    assert isinstance(one, Node) and isinstance(two, Node)
    if one.target is aten.t.default and isinstance(one.args[0], Node):
        return [(one.args[0], two, turned)]
    over = graph.call_function(aten.t.default, (one,))
    over.meta["val"] = one.meta["val"].t()
    return [(over, two, turned)]
