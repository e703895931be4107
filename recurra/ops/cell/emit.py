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
# written so that NaN passes through relu, as in torch
FORM = {
    "neg": "-{0}", "where": "{0} ? {1} : {2}", "logical_not": "!{0}", "relu": "{0} < 0 ? 0 : {0}",
    "sign": "(REAL)(({0} > 0) - ({0} < 0))",
}  # fmt: skip
TRUTH = {"gt", "ge", "lt", "le", "eq", "ne", "logical_and", "logical_or", "logical_not"}


class Emitted(NamedTuple):
    """The C of a rule, and the sizes of the arrays that it wants."""

    source: str
    saved: int  # vectors kept of each step for backward
    operands: tuple[int, ...]  # which of them each tick's product is of
    params: int  # vectors of parameters, a diagonal R among them
    shared: bool  # the gradients of drive and of recur are one array


class _Tick(NamedTuple):
    """One tick's trace, and where backward finds what of it is kept: some of it by earlier ticks of the step."""

    traced: Traced
    kept: dict[int, int]  # node -> place
    new: list[int]  # the nodes that this tick keeps


def emit(rule: Rule) -> Emitted:
    """Write the C of a rule: a few counts, three macros, and the loop in `cell.h` around them.

    Raises:
        Untraceable: the rule has no trace.
    """
    product, count = rule.operator in ("dense", "ticks"), len(rule.ticks)
    ticks = _kept([trace(rule, tick) for tick in range(count)], product)
    ins, outs = ticks[0].traced.inputs, ticks[0].traced.outputs
    operands = tuple(tick.kept[tick.traced.inputs["state"][0]] for tick in ticks) if product else (0,)
    saved, params = sum(len(tick.new) for tick in ticks), len(ins["params"])
    # a step of several ticks adds up what each of them says of the drive
    shared = count == 1 and (not product or outs["g_drive"] == outs["g_recur"])

    counts = {"STATES": rule.state, "DRIVE": rule.drive, "GATES": rule.recur if product else 0, "SAVED": saved}
    counts |= {"PARAMS": params, "SHARED": int(shared), "TICKS": count, "HANDED": rule.handed}
    counts |= {"KINDS": max(rule.ticks) + 1, "KIND": _array(rule.ticks), "OPERAND": _array(operands)}
    # within a step all but state[0] are changed in place
    moves = [rule.state, *(1 for _ in rule.ticks[1:])]
    macros = {"RULE_STEP": [_forward(*tick, n, keep=False) for tick, n in zip(ticks, moves, strict=True)]}
    macros |= {"RULE_KEEP": [_forward(*tick, n, keep=True) for tick, n in zip(ticks, moves, strict=True)]}
    macros |= {"RULE_BACK": [_backward(*tick, shared=shared, alone=count == 1) for tick in ticks]}
    source = "".join(f"#define {name} {value}\n" for name, value in counts.items())
    source += "".join(f"#define {name} \\\n{_cases(texts)}\n\n" for name, texts in macros.items())
    return Emitted(source + '#include "cell.h"\n', saved, operands, params, shared)


def _kept(traces: list[Traced], product: bool) -> list[_Tick]:
    """What each tick keeps. A drive or a state that an earlier tick of the step has kept is not kept again."""
    drives: dict[int, int] = {}
    states: dict[int, int] = {}
    ticks, total = [], 0
    for traced in traces:
        ins = traced.inputs
        known = {ins["drive"][i]: place for i, place in drives.items()}
        known |= {ins["state"][i]: place for i, place in states.items()}
        new = [x for x in fewest(traced, product, set(known)) if x not in known]
        kept = known | {x: total + i for i, x in enumerate(new)}
        ticks.append(_Tick(traced, kept, new))
        total += len(new)
        drives = {i: kept[x] for i, x in enumerate(ins["drive"]) if x in kept}
        states = {i: kept[x] for i, x in enumerate(traced.outputs["state"]) if x in kept}
    return ticks


def _forward(traced: Traced, kept: dict[int, int], new: list[int], moves: int, *, keep: bool) -> str:
    """The C of a tick, whose first states come to lie elsewhere; it may `keep` what backward needs or not."""
    ins, outs = traced.inputs, traced.outputs
    given = _rows("drive", ins["drive"]) | _rows("param", ins["params"]) | _rows("recur", ins["recur"], "Z")
    given |= {x: f"in[{i}][u]" for i, x in enumerate(ins["state"])}
    stores = [("y[u]", x) for x in outs["read"]]
    # what stays where it was, unchanged, needs no store
    stores += [(f"out[{i}][u]", x) for i, x in enumerate(outs["state"]) if i < moves or x != ins["state"][i]]
    stores += [(_saved(kept[x]), x) for x in new] if keep else []
    return body(traced, given, stores)


def _backward(traced: Traced, kept: dict[int, int], new: list[int], *, shared: bool, alone: bool) -> str:
    """The C of a tick's gradients: drive's and recur's may be `shared`; a tick may be `alone` in its step."""
    ins, outs = traced.inputs, traced.outputs
    given = {x: _saved(place) for x, place in kept.items()} | _rows("param", ins["params"])
    given |= {x: "g_y[u]" for x in ins["g_read"]} | {x: f"g[{i}][u]" for i, x in enumerate(ins["g_state"])}
    drive = [(f"g_drive[{i} * N + u]", x) for i, x in enumerate(outs["g_drive"])]
    stores = [] if shared else [(f"g_recur[{i} * N + u]", x) for i, x in enumerate(outs["g_recur"])]
    stores += [(f"g[{i}][u]", x) for i, x in enumerate(outs["g_state"]) if x not in ins["g_state"][i : i + 1]]
    sums = [(f"g_param[{i} * N + u]", x) for i, x in enumerate(outs["g_params"])]
    stores, sums = (drive + stores, sums) if alone else (stores, drive + sums)
    zero = traced.graph.const(0)
    return body(traced, given, stores, [(place, x) for place, x in sums if x != zero])


def _array(numbers: tuple[int, ...]) -> str:
    return f"{{{', '.join(map(str, numbers))}}}"


def _saved(place: int) -> str:
    return f"saved[{place} * N + u]"


def _cases(texts: list[str]) -> str:
    """The ticks' lines, each text once."""
    same: dict[str, list[int]] = {}
    for tick, text in enumerate(texts):
        same.setdefault(text, []).append(tick)
    return " \\\n".join(
        f"{' '.join(f'case {tick}:' for tick in ticks)} EACH_UNIT( \\\n{text}) break;" for text, ticks in same.items()
    )


def _rows(array: str, nodes: Nodes | list, stride: str = "N") -> dict[int, str]:
    """Loads of vectors that lie one after the other in an array."""
    return {x: f"{array}[{i} * {stride} + u]" for i, x in enumerate(nodes)}


def fewest(traced: Traced, product: bool, known: set[int] | frozenset[int] = frozenset()) -> list[int]:
    """The fewest vectors from which backward can start, beside those that are known; with R's operand, state[0]."""
    (head, *_), tangents = traced.inputs["state"], {*traced.inputs["g_read"], *traced.inputs["g_state"]}
    ends = [x for name, group in traced.outputs.items() if name.startswith("g_") for x in group]
    wanted, free = reachable(traced, ends), known | set(traced.inputs["params"])
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


def body(traced: Traced, given: dict[int, str], stores: list, sums: list | tuple = ()) -> str:
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
