"""From a rule to a graph of words that C has: one trace of the rule together with its vector-Jacobian product.

Derivatives are torch's own, so a tie in `maximum` or a branch of `where` behaves exactly as in the loop. The graph is
hash-consed, equal expressions being one node: what forward and backward share, and that the gradients of an LSTM's
drive and of its recurrent product are one array, is found and not declared.

torch.fx would trace as well, but its import takes seconds; a dispatch mode sees the same calls for nothing.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch._decomp import decomposition_table
from torch.utils._python_dispatch import TorchDispatchMode

from recurra.ops.cell import Cell, Rule
from recurra.shapes import Tensor

Nodes = tuple["Number", ...]

UNITS = 5  # of the vectors that a rule is traced on


class Untraceable(Exception):
    """The rule does something that is not pointwise over units, or that there is no word for."""


class Number(int):
    """A node's number, told apart from a whole number in a rule."""


class Graph:
    """Nodes are `(op, *arguments)`: numbers of nodes, but a float in "const" and a name in "input"."""

    def __init__(self) -> None:
        self.nodes: list[tuple] = []
        self.numbers: dict[tuple, Number] = {}

    def add(self, op: str, *arguments: Any) -> Number:
        same = self._simplify(op, arguments)
        if same is not None:
            return same
        key = (op, *arguments)
        if key not in self.numbers:
            self.numbers[key] = Number(len(self.nodes))
            self.nodes.append(key)
        return self.numbers[key]

    def const(self, value: Any) -> Number:
        return self.add("const", float(value))

    def number(self, x: Any) -> Number:
        return x if isinstance(x, Number) else self.const(x)

    def _simplify(self, op: str, arguments: tuple) -> Number | None:
        """x * 1, x / 1, x + 0, x - 0 and --x are x, also for inf and NaN (only a zero's sign may differ)."""
        one, zero = (self.numbers.get(("const", v)) for v in (1.0, 0.0))
        if op in ("mul", "div") and arguments[1] == one:
            return arguments[0]
        if op in ("add", "sub") and arguments[1] == zero:
            return arguments[0]
        if (op == "mul" and arguments[0] == one) or (op == "add" and arguments[0] == zero):
            return arguments[1]
        if op == "neg" and self.nodes[arguments[0]][0] == "neg":
            return self.nodes[arguments[0]][1]
        return None


class Traced(NamedTuple):
    """The graph; what goes in and what comes out, each from a name to the numbers of its nodes.

    A diagonal R is parameters of the units, after the rule's own, and needs nothing more of anyone.
    """

    graph: Graph
    inputs: dict[str, Nodes]  # drive, recur, state, params, g_read, g_state
    outputs: dict[str, Nodes]  # read, state, g_drive, g_recur, g_state, g_params


PLAIN = {
    "add", "sub", "mul", "div", "neg", "exp", "log", "log1p", "expm1", "sqrt", "sigmoid", "tanh", "sin", "cos", "erf",
    "abs", "maximum", "minimum", "where", "gt", "ge", "lt", "le", "eq", "ne", "logical_and", "logical_or",
    "logical_not", "relu", "sign",
}  # fmt: skip
RENAMED = {
    "bitwise_and": "logical_and", "bitwise_or": "logical_or", "bitwise_not": "logical_not", "sgn": "sign",
    "clamp_max": "minimum", "clamp_min": "maximum", "true_divide": "div",
}  # fmt: skip
SAME = {"clone", "detach", "alias", "_to_copy", "convert_element_type", "expand", "view", "lift_fresh"}
CONSTANT = {"ones_like": 1, "zeros_like": 0, "new_zeros": 0, "new_ones": 1, "zeros": 0, "ones": 1}
VALUE_AT = {"full": 1, "full_like": 1, "new_full": 2, "scalar_tensor": 0}


def word(graph: Graph, name: str, arguments: list, keywords: dict) -> Number | None:
    """One call of torch's as nodes; None where there are no words for it."""
    if name in CONSTANT:
        return graph.const(CONSTANT[name])
    if name in VALUE_AT:
        return graph.const(arguments[VALUE_AT[name]])
    if name == "pow":
        return _power(graph, *arguments)
    if name in SAME:
        return graph.number(arguments[0])
    name = RENAMED.get(name, name)
    odd = keywords.get("rounding_mode") is not None or keywords.get("alpha", 1) != 1
    if name not in PLAIN | REWRITTEN.keys() or odd:
        return None
    numbers = [x if x is None else graph.number(x) for x in arguments]
    return REWRITTEN[name](graph, *numbers) if name in REWRITTEN else graph.add(name, *numbers)


def _clamp(graph: Graph, x: Number, low: Number | None = None, high: Number | None = None) -> Number:
    x = x if low is None else graph.add("maximum", x, low)
    return x if high is None else graph.add("minimum", x, high)


REWRITTEN = {
    "clamp": _clamp,
    "copy": lambda graph, _, x: x,
    "masked_fill": lambda graph, x, where, value: graph.add("where", where, value, x),
    "rsub": lambda graph, x, y: graph.add("sub", y, x),
    "square": lambda graph, x: graph.add("mul", x, x),
    "reciprocal": lambda graph, x: graph.add("div", graph.const(1), x),
    "rsqrt": lambda graph, x: graph.add("div", graph.const(1), graph.add("sqrt", x)),
}


def _power(graph: Graph, x: Any, exponent: Any) -> Number:
    """Constant exponents: 1/2 by sqrt, integers by squaring, others by exp and log."""
    if isinstance(exponent, Number) or not isinstance(x, Number):
        raise Untraceable("a compiled rule may raise to a constant power only: write exp and log")
    if exponent < 0:
        return graph.add("div", graph.const(1), _power(graph, x, -exponent))
    if exponent == 0.5:
        return graph.add("sqrt", x)
    if exponent != int(exponent) or exponent > 64:
        return graph.add("exp", graph.add("mul", graph.const(exponent), graph.add("log", x)))
    result, square, bits = graph.const(1), x, int(exponent)
    while bits:
        result = graph.add("mul", result, square) if bits & 1 else result
        square, bits = graph.add("mul", square, square) if bits > 1 else square, bits >> 1
    return result


def counts(rule: Rule, tick: int = 0) -> dict[str, int]:
    """How many vectors go into a tick under each name."""
    diagonal = rule.recur if rule.operator == "diagonal" else 0
    every, last = rule.state + rule.handed, tick == len(rule.ticks) - 1
    inputs = {"drive": rule.drive, "recur": rule.recur - diagonal, "state": every}
    return inputs | {"params": rule.params + diagonal, "g_read": int(last), "g_state": rule.state if last else every}


def gathered(record: Cell) -> Cell:
    """The record with a diagonal R where the trace has it: after the rule's own parameters."""
    if record.rule.operator != "diagonal":
        return record
    assert record.weight is not None
    both = record.weight if record.params is None else torch.cat((record.params, record.weight))
    return record._replace(params=both, weight=None)


def apply(rule: Rule, tick: int, drive: tuple, recur: tuple, state: tuple, params: tuple) -> tuple[tuple, tuple]:
    """What is read and what is left of a tick, of parameters that end with a diagonal R, if there is one."""
    own, diagonal = params[: rule.params], params[rule.params :]
    given = state if tick else state[: rule.state]
    read, new = rule.at(tick)(drive, tuple(a * state[0] for a in diagonal) or recur, given, *own)
    if tick < len(rule.ticks) - 1:
        return (), (*new, *state[len(new) :])
    if len(new) != rule.state:
        raise Untraceable(f"the rule {rule.name} returned {len(new)} states and declares {rule.state}")
    return (read,), new


def trace(rule: Rule, tick: int = 0) -> Traced:
    """Trace one tick of a rule and its gradient.

    Raises:
        Untraceable: it cannot be said in the words above; the first that is missing is named.
    """
    sizes = counts(rule, tick)
    ins = dict(list(sizes.items())[:4])

    def joint(*flat: Tensor) -> list[Tensor]:
        values = split(flat, sizes)
        leaves = [x.detach().requires_grad_() for name in ins for x in values[name]]
        with torch.enable_grad():
            read, new = apply(rule, tick, *split(leaves, ins).values())
        ends = zip((*read, *new), (*values["g_read"], *values["g_state"]), strict=True)
        ends = [(y, g) for y, g in ends if y.requires_grad]
        grads = torch.autograd.grad([y for y, _ in ends], leaves, [g for _, g in ends], materialize_grads=True)
        return [*read, *new, *grads]

    names = [f"{name}{i}" for name, count in sizes.items() for i in range(count)]
    recorder = _Recorder()
    try:
        with torch.inference_mode(False):
            # numbers of their own: those that the user's seed gives are not ours to draw
            draw = torch.Generator().manual_seed(0)
            some = [torch.rand(UNITS, generator=draw, dtype=torch.float64, device="cpu") + 0.1 for _ in names]
            inputs = [recorder.name(x, recorder.graph.add("input", name)) for name, x in zip(names, some, strict=True)]
            with recorder:
                results = joint(*some)
            numbers = [recorder.number(x) for x in results]
    except Untraceable:
        raise
    except Exception as error:
        raise Untraceable(f"the rule {rule.name} cannot be traced: {error}") from error
    out = {"read": sizes["g_read"], "state": sizes["g_state"]} | {f"g_{name}": count for name, count in ins.items()}
    return Traced(recorder.graph, split(inputs, sizes), split(numbers, out))


class _Recorder(TorchDispatchMode):
    """Every call below autograd as nodes.

    A value is known by its address: views are the value itself, and what is written in place is written for all.
    """

    def __init__(self) -> None:
        super().__init__()
        self.graph = Graph()
        self.numbers: dict[int, Number] = {}
        self.alive: list[Tensor] = []  # so that no address is given out twice
        self.saying: str | None = None  # the rule's own word, while other words are found for it

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # skipping would import torch's compiler, which takes seconds
        return False

    def name(self, x: Tensor, number: Number) -> Number:
        self.numbers[x.data_ptr()] = number
        self.alive.append(x)
        return number

    def number(self, x: Tensor) -> Number:
        if x.data_ptr() not in self.numbers:
            raise Untraceable("the rule closes over a tensor: make it a parameter of the units")
        return self.numbers[x.data_ptr()]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func._schema.name.split("::")[-1], kwargs or {}
        if name == "lift_fresh" and args[0].data_ptr() not in self.numbers:
            self.name(args[0], self.graph.const(args[0].item()) if args[0].numel() == 1 else self.number(args[0]))
        arguments = [self.number(x) if isinstance(x, Tensor) else x for x in args]
        found = word(self.graph, name.removesuffix("_"), arguments, kwargs)
        if found is None:
            with self:
                return self._said_otherwise(func, name, args, kwargs)
        result = func(*args, **kwargs)
        if tuple(result.shape) not in ((UNITS,), (1,), ()):
            name = self.saying or name
            raise Untraceable(f"a compiled rule is pointwise over its units: '{name}' changes their shape")
        self.name(result, found)
        return result

    def _said_otherwise(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """The same in other words, as torch puts it."""
        outer, self.saying = self.saying, self.saying or name
        result = decomposition_table.get(func, func.decompose)(*args, **kwargs)
        if result is NotImplemented:
            raise Untraceable(f"a compiled rule is pointwise over its units: there is no C for '{self.saying}'")
        self.saying = outer
        return result


def split(flat: Iterable[Any], sizes: dict[str, int]) -> dict[str, tuple]:
    """A flat list as tuples of the given lengths."""
    rest = iter(flat)
    return {name: tuple(next(rest) for _ in range(count)) for name, count in sizes.items()}


def reachable(traced: Traced, ends: Iterable[int], stops: tuple | dict = ()) -> set[int]:
    """The nodes that the ends are made of, looking no further than the stops."""
    seen, stack = set(), list(ends)
    while stack:
        x = stack.pop()
        if x not in seen:
            seen.add(x)
            op, *arguments = traced.graph.nodes[x]
            stack += arguments if x not in stops and op not in ("const", "input") else []
    return seen
