"""From stages to C: a function for each kind of pass, and one that calls them all in order.

Layers are alike, and so are their passes: a function is written once and called with other addresses. Small passes are
one thread's, large ones are split, and threads meet only where one needs what another wrote. What lies between two
passes is in scratch memory, where a place is given again as soon as no one reads it any more.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from recurra.ops.cell import emit
from recurra.ops.cell.trace import Number, Traced, reachable
from recurra.ops.program.lower import Lowered, Place, Stage, count

LARGE = 1 << 13  # numbers from which a pass is split; a product's count by eights, an exponential as sixteen
LINE = 16  # numbers that scratch memory is aligned to

PRODUCT = """
/* y = W x + b for some rows of W, of which `many` are taken together: each number of W is read once */
#define EACH_ROW _Pragma("GCC unroll 8") for (int k = 0; k < many; k++)
INLINE void rows_of(const int many, REAL *y, const REAL *x, const REAL *w, const REAL *b, I wide, I lw) {
    vec s[8], z[8];
    EACH_ROW s[k] = z[k] = (vec){};
    I p = 0;
    for (; p + 2 * W <= wide; p += 2 * W) {
        const vec a = get(x + p), c = get(x + p + W);
        EACH_ROW s[k] += a * get(w + k * lw + p), z[k] += c * get(w + k * lw + p + W);
    }
    for (; p < wide; p += W) {
        const vec a = get_some(x + p, wide - p);
        EACH_ROW s[k] += a * get_some(w + k * lw + p, wide - p);
    }
    EACH_ROW y[k] = sum1(s[k] + z[k]) + (b ? b[k] : 0);
}
#define SOME(many) rows_of(many, y + r * out + i, x + r * wide, w + i * lw, b ? b + i : 0, wide, lw)
INLINE void products(I t, I n, REAL *y, const REAL *x, const REAL *w, const REAL *b, I rows, I out, I wide, I lw) {
    const I groups = (out + 7) / 8, from = 8 * (groups * t / n), to = 8 * (groups * (t + 1) / n);
    const I end = to < out ? to : out, whole = from + (end - from) / 8 * 8;
    for (I i = from; i < whole; i += 8) for (I r = 0; r < rows; r++) SOME(8);
    for (I i = whole; i < end; i++) for (I r = 0; r < rows; r++) SOME(1);
}
"""
MAIN = """
I program_step(const I *f) {{
{checks}
    REAL *room = aligned_alloc(64, {room} * sizeof(REAL));
    if (!room) return 1;
    #pragma omp parallel num_threads(enough({work}, f[{threads}]))
    {{
        const I t = omp_get_thread_num(), n = omp_get_num_threads();
        unsigned old = flush_on();
{calls}
        flush_off(old);
    }}
    free(room);
    return 0;
}}
"""


def source(lowered: Lowered) -> str:
    """The C of a whole program: `program_step`, given addresses of inputs and outputs, and a number of threads."""
    functions: dict[str, str] = {}
    calls: list[tuple[bool, str]] = []
    places, room = _addresses(lowered)
    work = 0
    for stage in lowered.stages:
        cost = _cost(lowered, stage)
        large, work = cost >= LARGE, work + cost
        text = WRITERS[stage.kind](lowered, stage, large)
        name = functions.setdefault(_renamed(text), f"s{len(functions)}")
        reads = list(dict.fromkeys(_key(x) for x in stage.reads))
        ends = [places(*_key(stage.out)), *(places(*x) for x in reads)]
        calls.append((large, f"{name}({'t, n' if large else '0, 1'}, {', '.join(ends)});"))
    checks = [
        f"    for (I i = 0; i < {count(x)}; i++) if (((const I *)f[{x.buffer}])[i] < 0 || "
        f"((const I *)f[{x.buffer}])[i] >= {rows}) return 3;"
        for x, rows in lowered.tokens
    ]
    texts = [text.replace("NAME", name, 1) for text, name in functions.items()]
    threads = len(lowered.inputs) + len(lowered.outputs)
    main = MAIN.format(checks="\n".join(checks), room=room, work=work, threads=threads, calls=_schedule(calls))
    return "\n".join(["#define FUNCTIONS_ONLY", '#include "cell.h"', PRODUCT, *texts, main])


def _key(place: Place) -> tuple[int, int]:
    """What an address is made of."""
    return place.buffer, int(place.like.storage_offset())


def _renamed(text: str) -> str:
    """Values by the order in which they are met: what layers have alike is alike in letters too."""
    names: dict[str, str] = {}
    return re.sub(r"\bv\d+\b", lambda found: names.setdefault(found[0], f"v{len(names)}"), text)


def _schedule(calls: Sequence[tuple[bool, str]]) -> str:
    """Small passes by the first thread, large ones by all; a meeting before and after each large one."""
    lines, small = [], []
    for large, call in calls:
        if not large:
            small.append(call)
            continue
        if small:
            lines += ["if (!t) {", *small, "}", "#pragma omp barrier"]
            small = []
        lines += [call, "#pragma omp barrier"]
    return "\n".join(["        " + x for x in (*lines, "if (!t) {", *small, "}")])


def _addresses(lowered: Lowered) -> tuple[Callable[[int, int], str], int]:
    """Where every buffer is, as C, and how much scratch memory that takes."""
    given = {i: f"(REAL *)f[{i}]" for i in range(len(lowered.inputs))}
    for i, place in enumerate(lowered.outputs):
        given[place.buffer] = f"(REAL *)f[{len(lowered.inputs) + i}]"
    last: dict[int, int] = {}
    for i, stage in enumerate(lowered.stages):
        for place in (stage.out, *stage.reads):
            last[place.buffer] = i
    free: list[tuple[int, int]] = []  # size, start
    starts: dict[int, int] = {}
    room = LINE
    for i, stage in enumerate(lowered.stages):
        buffer = stage.out.buffer
        if buffer not in given and buffer not in starts:
            size = _up(lowered.sizes[buffer])
            fit = min((x for x in free if x[0] >= size), default=None)
            if fit is None:
                starts[buffer], room = room, room + size
            else:
                free.remove(fit)
                starts[buffer] = fit[1]
                if fit[0] > size:
                    free.append((fit[0] - size, fit[1] + size))
        ended = {x.buffer for x in (stage.out, *stage.reads)} & starts.keys()
        free += [(_up(lowered.sizes[x]), starts[x]) for x in ended if last[x] == i]
    return lambda buffer, offset: f"{given.get(buffer) or f'room + {starts[buffer]}'} + {offset}", _up(room)


def _up(size: int) -> int:
    return -(-size // LINE) * LINE


def _cost(lowered: Lowered, stage: Stage) -> int:
    """Numbers that a pass goes through, dear ones counted more than once."""
    if stage.node is None:
        out = count(stage.out)
        return out if stage.kind == "rows" else out * stage.reads[0].like.shape[-1] // 8
    graph = lowered.graph
    dear = sum(graph.nodes[x][0] in emit.DEAR for x in reachable(Traced(graph, {}, {}), [stage.node]))
    return stage.shape.numel() * (1 + 15 * dear) // (1 if dear else 2)


def _product(lowered: Lowered, stage: Stage, large: bool) -> str:
    x, weight, *bias = stage.reads
    wide = x.like.shape[-1]
    more, b = (", const REAL *b", "b") if bias else ("", "0")
    sizes = f"{count(x) // wide}, {len(weight.like)}, {wide}, {weight.like.stride(0)}"
    return (
        f"static void NAME(I t, I n, REAL *y, const REAL *x, const REAL *w{more}) {{\n"
        f"    products({'t, n' if large else '0, 1'}, y, x, w, {b}, {sizes});\n}}"
    )


def _rows(lowered: Lowered, stage: Stage, large: bool) -> str:
    tokens, table = stage.reads
    wide = table.like.shape[1]
    return (
        "static void NAME(I t, I n, REAL *y, const REAL *at, const REAL *w) {\n"
        f"    for (I r = t; r < {count(tokens)}; r += n)"
        f" memcpy(y + r * {wide}, w + ((const I *)at)[r] * {wide}, {wide} * sizeof(REAL));\n}}"
    )


def _loops(lowered: Lowered, stage: Stage, large: bool) -> str:
    """A map, or a sum of one: kept axes as rows, then what is summed, then the last axis as vectors."""
    assert stage.node is not None
    traced = Traced(lowered.graph, {}, {})
    seen = map(Number, sorted(reachable(traced, [stage.node])))
    leaves = [(x, lowered.leaves[x]) for x in seen if x in lowered.leaves]
    pointers = list(dict.fromkeys(_key(x) for x in stage.reads))
    shape = stage.shape
    out = stage.out.like
    if stage.kind == "sum" and out.ndim < len(shape):
        out = out.as_strided(*_kept(out, shape, stage.axes))
    strides = [out.expand(shape).stride(), *(x.like.expand(shape).stride() for _, x in leaves)]
    axes = _axes(shape, strides, stage.axes if stage.kind == "sum" else ())
    *outer, (inner, steps, summed) = axes
    kept = [axis for axis in outer if not axis.summed]
    over = [axis for axis in outer if axis.summed]
    rows = math.prod(axis.size for axis in kept)
    given: dict[int, str] = {
        x: f"p{pointers.index(_key(place))}[q{i} + {step} * j]"
        for i, ((x, place), step) in enumerate(zip(leaves, steps[1:], strict=True))
    }
    split_rows, split = large and rows > 1, large and rows == 1 and not summed
    whole = [f"I i{i} = r / {math.prod(x.size for x in kept[i + 1 :])} % {x.size};" for i, x in enumerate(kept)]
    whole += [f"I o = {_sum(kept, 0)};"]
    first, last = ("r0", "r1") if split_rows else ("0", str(rows))
    begin, end = ("j0", "j1") if split else ("0", str(inner))
    bounds = [f"const I r0 = {rows} * t / n, r1 = {rows} * (t + 1) / n;"] if split_rows else []
    if split:
        lines = -(-inner // LINE)
        bounds += [f"const I j0 = {LINE} * ({lines} * t / n), e = {LINE} * ({lines} * (t + 1) / n);",
                   f"const I j1 = e < {inner} ? e : {inner};"]  # fmt: skip
    each = f"for (I j = {begin}; j < {end}; j++)"
    at = f"y[o + {steps[0]} * j]"
    if stage.kind == "map":
        core = ["#pragma omp simd", f"{each} {{", emit.body(traced, given, [(at, stage.node)]), "}"]
        before, after = [], []
    elif summed:
        core = ["#pragma omp simd reduction(+:s)", f"{each} {{", emit.body(traced, given, [], [("s", stage.node)]), "}"]
        before, after = ["REAL s = 0;"], ["y[o] = s;"]
    else:
        core = ["#pragma omp simd", f"{each} {{", emit.body(traced, given, [], [(at, stage.node)]), "}"]
        before, after = ["#pragma omp simd", f"{each} {at} = 0;"], []
    every = [*kept, *over]
    core = [*(f"const I q{i} = {_sum(every, i + 1)};" for i in range(len(leaves))), *core]
    for i, axis in reversed(list(enumerate(over, len(kept)))):
        core = [f"for (I i{i} = 0; i{i} < {axis.size}; i{i}++) {{", *core, "}"]
    inputs = "".join(f", const REAL *p{i}" for i in range(len(pointers)))
    # a sum may not use a name that it does not have
    whole = [x.replace("I ", "const I ", 1) for x in whole]
    body = [*bounds, f"for (I r = {first}; r < {last}; r++) {{", *whole, *before, *core, *after, "}"]
    text = "\n    ".join(body).replace(" \\\n", "\n")
    return f"static void NAME(I t, I n, REAL *restrict y{inputs}) {{\n    {text}\n}}"


def _kept(out: torch.Tensor, shape: torch.Size, axes: tuple[int, ...]) -> tuple[list[int], list[int], int]:
    """A sum's place with its axes again, of one number each."""
    steps = iter(out.stride())
    strides = [0 if i in axes else next(steps) for i in range(len(shape))]
    sizes = [1 if i in axes else n for i, n in enumerate(shape)]
    return sizes, strides, int(out.storage_offset())


class _Axis(NamedTuple):
    size: int
    steps: tuple[int, ...]
    summed: bool


def _axes(shape: torch.Size, strides: list, summed: tuple[int, ...]) -> list[_Axis]:
    """Axes of more than one number; two that lie in memory as one does are one."""
    found: list[_Axis] = []
    for i, size in enumerate(shape):
        axis = _Axis(size, tuple(s[i] for s in strides), i in summed)
        if size == 1:
            continue
        before = found[-1] if found else None
        if before and before.summed == axis.summed and before.steps == tuple(s * size for s in axis.steps):
            found[-1] = axis._replace(size=before.size * size)
        else:
            found.append(axis)
    return found or [_Axis(1, tuple(0 for _ in strides), False)]


def _sum(axes: list[_Axis], which: int) -> str:
    return " + ".join([f"i{i} * {axis.steps[which]}" for i, axis in enumerate(axes) if axis.steps[which]]) or "0"


WRITERS = {"map": _loops, "sum": _loops, "product": _product, "rows": _rows}
