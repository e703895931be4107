"""`Cell` in Triton that is written for its rule: one program takes some rows through all of time.

The product with R stands inside the loop over time, and a program meets no other: it has sixteen rows and all units
of a head, keeps its state in memory that its processor caches, and reads R again at every step. So R must be small.
The rule's own lines come from its trace, like the C; what backward needs of a step is the same minimum cut.
"""

import functools
import linecache
from typing import Any, NamedTuple

import torch
from torch.autograd import Function

from recurra.ops import gpu, native
from recurra.ops.cell import Cell, Rule
from recurra.ops.cell.emit import fewest
from recurra.ops.cell.native import unknown
from recurra.ops.cell.trace import Nodes, Traced, Untraceable, gathered, reachable, trace
from recurra.ops.once import once_differentiable
from recurra.shapes import Float, Tensor

MOST = 256  # units of a head whose product is made inside the loop
ROWS = 16  # of a program; fewer fill no matrix product
WORDS = {
    "add": "{0} + {1}", "sub": "{0} - {1}", "mul": "{0} * {1}", "div": "{0} / {1}", "neg": "-{0}",
    "gt": "{0} > {1}", "ge": "{0} >= {1}", "lt": "{0} < {1}", "le": "{0} <= {1}", "eq": "{0} == {1}",
    "ne": "{0} != {1}", "logical_and": "({0} != 0) & ({1} != 0)", "logical_or": "({0} != 0) | ({1} != 0)",
    "logical_not": "{0} == 0", "where": "tl.where({0} != 0, {1}, {2})", "relu": "tl.where({0} < 0, 0.0, {0})",
    "sign": "({0} > 0).to(real) - ({0} < 0).to(real)", "maximum": "gpu.larger({0}, {1})",
    "minimum": "gpu.smaller({0}, {1})", "sigmoid": "gpu.sigmoid({0})", "tanh": "gpu.tanh({0})",
    "log1p": "gpu.log1p({0})", "expm1": "gpu.expm1({0})", "exp": "tl.exp({0})", "log": "tl.log({0})",
    "sqrt": "tl.sqrt({0})", "sin": "tl.sin({0})", "cos": "tl.cos({0})", "erf": "tl.erf({0})", "abs": "tl.abs({0})",
}  # fmt: skip

# Of a program: its head, its rows, and which of them begin a sequence or do nothing at a step.
PLACE = """
    real = {like}.dtype.element_ty
    head = tl.program_id(0) % heads
    row = (tl.program_id(0) // heads).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    alive = row < rows
    begins = row < 0
    happens = alive
    for {step}:
        if RESETS:
            begins = tl.load(reset + row * steps + t, alive, 0) != 0
        if VALIDS:
            happens = tl.load(valid + row * steps + t, alive, 0) != 0
        time = (row * steps + t)[:, None] * N
"""
# Of a block of units.
BLOCK = """
        for start in range(0, d, UNITS):
            u = start + tl.arange(0, UNITS)
            unit = (head * d + u)[None, :]
            within = (u < d)[None, :] & (unit < N)
            seen = alive[:, None] & within
            at = row[:, None] * N + unit
"""
# Of a block of units that are summed over.
INNER = """
            for k in range(0, d, UNITS):
                j = k + tl.arange(0, UNITS)
                known = alive[:, None] & (j < d)[None, :]
                small = (j < d)[:, None] & (u < d)[None, :]
"""


class Kernel(NamedTuple):
    """A rule's Triton, and what the caller must know of it."""

    source: str
    saved: int  # vectors kept of each step for backward; the first is state[0] when R is a product
    params: int  # vectors of parameters, a diagonal R among them
    shared: bool  # the gradients of drive and of recur are one array


@functools.cache
def kernel(rule: Rule) -> Kernel | str:
    """The Triton of a rule, or why there is none."""
    try:
        traced = trace(rule)
    except Untraceable as reason:
        return str(reason)
    product = rule.operator == "dense"
    saved, outs = fewest(traced, product), traced.outputs
    shared = not product or outs["g_drive"] == outs["g_recur"]
    source = "from __future__ import annotations\n" + _forward(rule, traced, saved) + _backward(rule, traced, saved)
    return Kernel(source, len(saved), len(traced.inputs["params"]), shared)


def _forward(rule: Rule, traced: Traced, saved: list[int]) -> str:
    ins, outs, gates = traced.inputs, traced.outputs, len(traced.inputs["recur"])
    text = """
def forward(
    drive, weight, params, reset, valid, read, saved, hidden, state, rows, steps, heads, d, N,
    RESETS: tl.constexpr, VALIDS: tl.constexpr, KEEP: tl.constexpr, ROWS: tl.constexpr, UNITS: tl.constexpr,
):
""" + PLACE.format(like="hidden", step="t in range(steps)")
    text += (
        """
        now = hidden + (t % 2) * rows * N
        new = hidden + ((t + 1) % 2) * rows * N
"""
        + BLOCK
    )
    lines = [f"z{i} = tl.zeros((ROWS, UNITS), real)" for i in range(gates)]
    text += _indented(12, lines)
    if gates:
        text += INNER
        text += _indented(16, [
            "h = tl.load(now + row[:, None] * N + (head * d + j)[None, :], known, 0.0)",
            "r = weight + (head * d + j)[:, None] * d + u[None, :]",
            *(f"z{i} = {_dot('h', f'tl.load(r + {i} * N * d, small, 0.0)', f'z{i}')}" for i in range(gates)),
        ])  # fmt: skip
    places = ["now", *(f"state + {i} * rows * N" for i in range(rule.state - 1))]
    given = _loads("drive", ins["drive"], f"time * {rule.drive}") | _parameters(ins["params"])
    # a row's product is of that row alone: what is zero before it is zero after it, and may even be NaN
    given |= {x: f"tl.where(begins[:, None], 0.0, z{i})" for i, x in enumerate(ins["recur"])}
    given |= {
        x: f"tl.where(begins[:, None], 0.0, tl.load({place} + at, seen, 0.0))"
        for x, place in zip(ins["state"], places, strict=True)
    }
    # a state that nothing reads is still what stays where nothing happens
    states = [*ins["state"], *outs["state"], *outs["read"]]
    text += _body(12, traced, given, [*states, *saved])
    places[0] = "new"
    stores = [
        f"tl.store({place} + at, tl.where(happens[:, None], v{after}, v{before}), seen)"
        for place, before, after in zip(places, ins["state"], outs["state"], strict=True)
    ]
    stores.append(f"tl.store(read + time + unit, tl.where(happens[:, None], v{outs['read'][0]}, 0.0), seen)")
    text += _indented(12, [*stores, "if KEEP:"])
    keeps = [f"tl.store(saved + time * {len(saved)} + {i} * N + unit, v{x}, seen)" for i, x in enumerate(saved)]
    text += _indented(16, keeps or ["pass"])
    return text + _indented(8, ["tl.debug_barrier()"])


def _backward(rule: Rule, traced: Traced, saved: list[int]) -> str:
    ins, outs = traced.inputs, traced.outputs
    product, params = rule.operator == "dense", len(ins["params"])
    text = """
def backward(
    saved, weight, params, reset, valid, read_grad, drive_grad, recur_grad, param_grad, state_grad, rows, steps,
    heads, d, N, RESETS: tl.constexpr, VALIDS: tl.constexpr, ROWS: tl.constexpr, UNITS: tl.constexpr,
):
""" + PLACE.format(like="state_grad", step="back in range(steps)").replace(
        "        if RESETS:", "        t = steps - 1 - back\n        if RESETS:"
    )
    given = _loads("saved", saved, f"time * {len(saved)}") | _parameters(ins["params"])
    given[ins["g_read"][0]] = "tl.load(read_grad + time + unit, seen, 0.0)"
    given |= {x: f"tl.load(state_grad + {i} * rows * N + at, seen, 0.0)" for i, x in enumerate(ins["g_state"])}
    ends = [x for name, group in outs.items() if name.startswith("g_") for x in group]
    text += BLOCK + _body(12, traced, given, [*ends, *ins["g_state"]])
    stores = _where_happens("drive_grad", rule.drive, outs["g_drive"])
    stores += _where_happens("recur_grad", rule.recur, outs["g_recur"]) if product else []
    for i, (after, before) in enumerate(zip(ins["g_state"], outs["g_state"], strict=True)):
        left = f"tl.where(begins[:, None], 0.0, tl.where(happens[:, None], v{before}, v{after}))"
        stores.append(f"tl.store(state_grad + {i} * rows * N + at, {left}, seen)")
    for i, x in enumerate(outs["g_params"]):
        stores.append(f"p = param_grad + (row[:, None] * {params} + {i}) * N + unit")
        stores.append(f"tl.store(p, tl.load(p, seen, 0.0) + tl.where(happens[:, None], v{x}, 0.0), seen)")
    text += _indented(12, stores)
    if not product:
        return text
    text += _indented(8, ["tl.debug_barrier()"]) + BLOCK + _indented(12, ["z = tl.zeros((ROWS, UNITS), real)"]) + INNER
    lines = [
        f"g = tl.load(recur_grad + time * {rule.recur} + (head * d + j)[None, :] + {{0}} * N, known, 0.0)",
        f"z = {_dot('g', 'tl.load(r + {0} * N * d, small, 0.0)', 'z')}",
    ]
    text += _indented(16, ["r = weight + (head * d + j)[:, None] * d + u[None, :]"])
    text += _indented(16, [line.format(i) for i in range(rule.recur) for line in lines])
    return text + _indented(12, [
        "z = tl.load(state_grad + at, seen, 0.0) + tl.where(begins[:, None], 0.0, z)",
        "tl.store(state_grad + at, z, seen)",
    ]) + _indented(8, ["tl.debug_barrier()"])  # fmt: skip


def _indented(columns: int, lines: list[str]) -> str:
    return "".join(" " * columns + line + "\n" for line in lines)


def _loads(array: str, nodes: Nodes | list[int], place: str) -> dict[int, str]:
    """Loads of vectors that lie one after the other in a step of an array."""
    return {x: f"tl.load({array} + {place} + {i} * N + unit, seen, 0.0)" for i, x in enumerate(nodes)}


def _parameters(nodes: Nodes) -> dict[int, str]:
    return {x: f"tl.load(params + {i} * N + unit, within, 0.0)" for i, x in enumerate(nodes)}


def _where_happens(array: str, count: int, nodes: Nodes) -> list[str]:
    return [
        f"tl.store({array} + time * {count} + {i} * N + unit, tl.where(happens[:, None], v{x}, 0.0), seen)"
        for i, x in enumerate(nodes)
    ]


def _dot(x: str, y: str, total: str) -> str:
    """x y + total, in the type of both: by default float32 would be rounded to TF32."""
    return f'tl.dot({x}, {y}, {total}, input_precision="ieee", out_dtype=real)'


def _body(columns: int, traced: Traced, given: dict[int, str], ends: list[int]) -> str:
    """One unit's arithmetic. All loads come before all stores: the state is updated in place."""
    lines = []
    for x in sorted(reachable(traced, ends, given)):
        op, *arguments = traced.graph.nodes[x]
        if x in given:
            said = given[x]
        elif op == "const":
            said = f'tl.full((1, 1), float("{arguments[0]!r}"), real)'
        else:
            said = WORDS[op].format(*(f"v{a}" for a in arguments))
        lines.append(f"v{x} = {said}")
    return _indented(columns, lines)


@functools.cache
def _compiled(rule: Rule) -> tuple[Any, ...]:
    """The two kernels of a rule."""
    made = kernel(rule)
    assert isinstance(made, Kernel)
    # Triton reads a function's source by its file's name
    name = f"<cell {rule.name} {id(rule.function)}>"
    linecache.cache[name] = (len(made.source), None, made.source.splitlines(True), name)
    scope: dict[str, Any] = {"__name__": __name__, "gpu": gpu}
    exec(compile(made.source, name, "exec"), scope)
    return gpu.kernels(scope["forward"], scope["backward"])


def declines(record: Cell, state: tuple[Tensor, ...]) -> str | None:
    """A rule that makes its own products or has no trace, a projected state, a large R, or what no kernel takes."""
    rule, x, weight, params, _, _, _, entering, bias = record
    if rule.operator == "ticks":
        return "the GPU's kernel makes one product a step"
    reason = gpu.declines(x, weight, params, entering, bias, *state)
    shapes = (None if part is None else part.shape for part in record[1:])
    reason = reason or unknown(rule, [part.shape for part in state], *shapes)
    if reason is not None:
        return reason
    if rule.operator == "dense" and weight is not None and weight.shape[-1] > MOST:
        units = weight.shape[-1]
        return f"R has {units} units a head, and every program would read all of it at every step (most: {MOST})"
    made = kernel(rule)
    return made if isinstance(made, str) else None


def scan(
    record: Cell, state: tuple[Float[Tensor, "B _"], ...]
) -> tuple[Float[Tensor, "B T _"], tuple[Float[Tensor, "B _"], ...]]:
    rule, drive, weight, params, _, reset, valid, *_ = gathered(record.driven())
    masks = (None if mask is None else mask.contiguous().view(torch.uint8) for mask in (reset, valid))
    keep = native.tracked(drive, weight, params, *state)
    read, *last = _Cell.apply(rule, keep, drive, weight, params, *masks, *state)
    return read, tuple(last)


class _Launch(NamedTuple):
    """How the work is divided."""

    programs: int
    sizes: tuple[int, ...]
    constants: dict[str, Any]


def _launch(drive: Tensor, weight: Tensor | None, reset: Tensor | None, valid: Tensor | None, N: int) -> _Launch:
    B, T, _ = drive.shape
    heads, d, units = 1, N, 64
    if weight is not None:
        gates, heads, d, _ = weight.shape
        # several blocks of R, one a gate, are on their way at once: they must fit beside each other
        units = 32 if gates * weight.element_size() <= 32 else 16
    units = min(units, max(16, gpu.power_of_two(d)))
    if weight is None:
        heads, d = -(-N // units), units
    constants = {"RESETS": reset is not None, "VALIDS": valid is not None, "ROWS": ROWS, "UNITS": units}
    return _Launch(heads * -(-B // ROWS), (B, T, heads, d, N), constants)


class _Cell(Function):
    @staticmethod
    def forward(ctx: Any, rule: Rule, keep: bool, *inputs: Any) -> Any:
        drive, weight, params, reset, valid, *state = inputs
        made = kernel(rule)
        assert isinstance(made, Kernel)
        drive, (B, T, _), N = drive.contiguous(), drive.shape, state[0].shape[1]
        way = _launch(drive, weight, reset, valid, N)
        read, saved = drive.new_empty(B, T, N), drive.new_empty((B, T, made.saved * N) if keep else 0)
        # state[0] has two places: a step's product reads the one while the new h is written to the other
        hidden = torch.stack([state[0], torch.empty_like(state[0])])
        others = torch.stack(state[1:]) if len(state) > 1 else hidden
        nothing = drive.new_empty(0, dtype=torch.uint8)
        # units that lie together are loaded together: here those that R makes, going backward those that it reads
        turned = None if weight is None else weight.transpose(-1, -2)
        tensors = (drive, *(nothing if x is None else x.contiguous() for x in (turned, params, reset, valid)))
        gpu.launch(
            _compiled(rule)[0], way.programs, *tensors, read, saved, hidden, others, *way.sizes, KEEP=keep,
            **way.constants,
        )  # fmt: skip
        # the read is what a second derivative would go through
        ctx.save_for_backward(saved, weight, params, reset, valid, read)
        ctx.rule = rule
        return read, hidden[T % 2].clone(), *(others.unbind() if len(state) > 1 else ())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        saved, weight, params, reset, valid, _ = ctx.saved_tensors
        rule, read_grad = ctx.rule, grad_outputs[0].contiguous()
        made = kernel(rule)
        assert isinstance(made, Kernel)
        B, T, N = read_grad.shape
        drive_grad = read_grad.new_empty(B, T, rule.drive * N)
        recur_grad = drive_grad if made.shared else read_grad.new_empty(B, T, rule.recur * N)
        param_grad = read_grad.new_zeros(B, made.params, N)
        state_grad = torch.stack(grad_outputs[1:])
        way = _launch(drive_grad, weight, reset, valid, N)
        nothing = read_grad.new_empty(0, dtype=torch.uint8)
        tensors = (saved, *(nothing if x is None else x.contiguous() for x in (weight, params, reset, valid)))
        gpu.launch(
            _compiled(rule)[1], way.programs, *tensors, read_grad, drive_grad, recur_grad, param_grad, state_grad,
            *way.sizes, **way.constants,
        )  # fmt: skip
        weight_grad = None if weight is None else _weight_grad(recur_grad, saved[..., :N], weight)
        param_grad = None if params is None else param_grad.sum(0)
        return None, None, drive_grad, weight_grad, param_grad, None, None, *state_grad.unbind()


def _weight_grad(recur_grad: Tensor, hidden: Tensor, weight: Tensor) -> Tensor:
    """Of R: state[0] before each step is the first of what was saved."""
    gates, heads, d, _ = weight.shape
    blocks = recur_grad.unflatten(-1, (gates, heads, d)), hidden.unflatten(-1, (heads, d))
    return torch.einsum("btghi,bthj->ghij", *blocks)
