"""From a graph to C: what one step of a rule does to one unit, forward and backward.

What backward needs of a step is a minimum cut of the graph: a value is stored, or made again from what is stored
without a transcendental function. That an LSTM stores its four gates, tanh(c), c and h is declared nowhere.
"""

import collections
from typing import NamedTuple

from recurra.ops.cell import Rule
from recurra.ops.cell.trace import Nodes, Traced, reachable, trace

DEAR = {"exp", "log", "log1p", "expm1", "sigmoid", "tanh", "sqrt", "sin", "cos", "erf"}
INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "gt": ">", "ge": ">=", "lt": "<", "le": "<=", "eq": "==",
    "ne": "!=", "logical_and": "&&", "logical_or": "||",
}  # fmt: skip
# written so that NaN passes through relu, maximum and minimum, as in torch
FORM = {
    "neg": "-{0}", "where": "{0} ? {1} : {2}", "logical_not": "!{0}", "relu": "{0} < 0 ? 0 : {0}",
    "sign": "(REAL)(({0} > 0) - ({0} < 0))", "maximum": "{0} > {1} || {0} != {0} ? {0} : {1}",
    "minimum": "{0} < {1} || {0} != {0} ? {0} : {1}",
}  # fmt: skip
TRUTH = {"gt", "ge", "lt", "le", "eq", "ne", "logical_and", "logical_or", "logical_not"}


class Emitted(NamedTuple):
    """The C of a rule, and the sizes of the arrays that it wants."""

    source: str
    saved: int  # vectors kept of each step for backward; the first is state[0] when R is a product
    params: int  # vectors of parameters, a diagonal R among them
    shared: bool  # the gradients of drive and of recur are one array


def emit(rule: Rule) -> Emitted:
    """Write the C of a rule: a few counts, three macros, and the loop in `cell.h` around them.

    Raises:
        Untraceable: the rule has no trace.
    """
    traced, product = trace(rule), rule.operator == "dense"
    saved = fewest(traced, product)
    ins, outs = traced.inputs, traced.outputs
    shared = not product or outs["g_drive"] == outs["g_recur"]

    given = _rows("drive", ins["drive"]) | _rows("param", ins["params"]) | _rows("recur", ins["recur"], "Z")
    given |= {x: f"in[{i}][u]" for i, x in enumerate(ins["state"])}
    stores = [("y[u]", outs["read"][0]), *((f"out[{i}][u]", x) for i, x in enumerate(outs["state"]))]
    keeps = [(place, x) for x, place in _rows("saved", saved).items()]
    step, keep = _body(traced, given, stores), _body(traced, given, stores + keeps)

    given = _rows("saved", saved) | _rows("param", ins["params"]) | {ins["g_read"][0]: "g_y[u]"}
    given |= {x: f"g[{i}][u]" for i, x in enumerate(ins["g_state"])}
    stores = [(f"g_drive[{i} * N + u]", x) for i, x in enumerate(outs["g_drive"])]
    stores += [] if shared else [(f"g_recur[{i} * N + u]", x) for i, x in enumerate(outs["g_recur"])]
    stores += [(f"g[{i}][u]", x) for i, x in enumerate(outs["g_state"])]
    back = _body(traced, given, stores, [(f"g_param[{i} * N + u]", x) for i, x in enumerate(outs["g_params"])])

    params = len(ins["params"])
    counts = {"STATES": rule.state, "DRIVE": rule.drive, "GATES": rule.recur if product else 0}
    counts |= {"SAVED": len(saved), "PARAMS": params, "SHARED": int(shared)}
    macros = {"RULE_STEP": step, "RULE_KEEP": keep, "RULE_BACK": back}
    source = "".join(f"#define {name} {count}\n" for name, count in counts.items())
    source += "".join(f"#define {name} \\\n{text}\n\n" for name, text in macros.items())
    return Emitted(source + '#include "cell.h"\n', len(saved), params, shared)


def _rows(array: str, nodes: Nodes | list, stride: str = "N") -> dict[int, str]:
    """Loads of vectors that lie one after the other in an array."""
    return {x: f"{array}[{i} * {stride} + u]" for i, x in enumerate(nodes)}


def fewest(traced: Traced, product: bool) -> list[int]:
    """The fewest vectors from which backward can start; state[0] comes first if R's gradient needs it."""
    (head, *_), tangents = traced.inputs["state"], {*traced.inputs["g_read"], *traced.inputs["g_state"]}
    ends = [x for name, group in traced.outputs.items() if name.startswith("g_") for x in group]
    wanted, free = reachable(traced, ends), set(traced.inputs["params"])
    late: set[int] = set(tangents)
    edges: list[tuple] = []
    for x, (op, *arguments) in enumerate(traced.graph.nodes):
        if op == "const" or x in free or x in tangents:
            continue
        if late.intersection(arguments):
            late.add(x)
            edges += [((a, "out"), "sink", False) for a in arguments if a not in late] if x in wanted else []
            continue
        edges.append(((x, "in"), (x, "out"), True))
        dear = op == "input" or op in DEAR
        edges += [("source", (x, "in"), False)] if dear else [((a, "out"), (x, "in"), False) for a in arguments]
    # an early value that is itself a gradient, or the operand of R's, is wanted as it is
    known = {to for _, to, once in edges if once}
    edges += [((x, "out"), "sink", False) for x in (*ends, *([head] if product else ())) if (x, "out") in known]
    here = _source_side(edges)
    saved = [x for x in range(len(traced.graph.nodes)) if (x, "in") in here and (x, "out") not in here]
    return sorted(saved, key=lambda x: x != head)


def _source_side(edges: list[tuple]) -> set:
    """The source's side of a minimum cut: augmenting paths by Edmonds & Karp 1972. True edges carry one."""
    room: dict = collections.defaultdict(dict)
    for start, end, once in edges:
        room[start][end] = 1 if once else len(edges)
        room[end].setdefault(start, 0)
    while True:
        came: dict = {"source": None}
        queue: collections.deque = collections.deque(["source"])
        while queue and "sink" not in came:
            x = queue.popleft()
            for y, left in room[x].items():
                if left and y not in came:
                    came[y] = x
                    queue.append(y)
        if "sink" not in came:
            return set(came)
        y = "sink"
        while (x := came[y]) is not None:
            room[x][y] -= 1
            room[y][x] += 1
            y = x


def _body(traced: Traced, given: dict[int, str], stores: list, sums: list | tuple = ()) -> str:
    """Straight-line C for one unit. All loads come before all stores: the state is updated in place."""
    lines = []
    for x in sorted(reachable(traced, [x for _, x in (*stores, *sums)], given)):
        op, *arguments = traced.graph.nodes[x]
        kind = "int" if op in TRUTH and x not in given else "REAL"
        lines.append(f"const {kind} v{x} = {given[x] if x in given else _expression(op, arguments)};")
    lines += [f"{place} = v{x};" for place, x in stores]
    lines += [f"{place} += v{x};" for place, x in sums]
    return " \\\n".join("  " + line for line in lines)


def _expression(op: str, arguments: list) -> str:
    if op == "const":
        (value,) = arguments
        special = str(value).replace("inf", "INFINITY").replace("nan", "NAN")
        return f"(REAL){value.hex()}" if abs(value) < float("inf") else special
    names = [f"v{x}" for x in arguments]
    if op in INFIX:
        return f" {INFIX[op]} ".join(names)
    return FORM[op].format(*names) if op in FORM else f"r_{op}({', '.join(names)})"
