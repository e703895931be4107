"""From stages to C: a function for each kind of pass, and one that calls them all in order.

Layers are alike, and so are their passes: a function is written once and called with other addresses, from one unit of
its work to another. What lies between two passes is in scratch memory, all threads' or each one's own, where a place is
given again as soon as no one reads it any more.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from recurra.ops.cell import emit
from recurra.ops.cell.trace import Traced
from recurra.ops.program.loops import Axis, Loops, loops, turns_over
from recurra.ops.program.schedule import Turn, cost, schedule
from recurra.ops.program.stages import LINE, Lowered, Place, Stage, count

PRODUCT = """
/* the rows of eight by eight that are a thread's; eight of them stay in the first cache while those of x go by */
INLINE void products(I from, I to, REAL *y, const REAL *x, const REAL *w, const REAL *b, I rows, I out, I wide, I lw) {
    const I end = 8 * to < out ? 8 * to : out;
    for (I i = 8 * from; i < end; i += 8)
        for (I r = 0; r < rows; r++)
            lying(y + r * out + i, x + r * wide, w + i * lw, b ? b + i : 0, end - i < 8 ? end - i : 8, wide, lw);
}
"""
MEETING = """
/* where threads meet. They come within microseconds of each other, so they wait awake; but not for one that sleeps */
typedef struct { _Alignas(64) I here; _Alignas(64) I round; } Meeting;
static void meet(Meeting *m, I n) {
    const I round = __atomic_load_n(&m->round, __ATOMIC_RELAXED);
    if (__atomic_add_fetch(&m->here, 1, __ATOMIC_ACQ_REL) == n) {
        __atomic_store_n(&m->here, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&m->round, round + 1, __ATOMIC_RELEASE);
        return;
    }
    for (I i = 0; __atomic_load_n(&m->round, __ATOMIC_ACQUIRE) == round; i++) {
        if (i > 2000) sched_yield();
#ifdef __x86_64__
        else __builtin_ia32_pause();
#endif
    }
}
"""
MATRICES = """
/* c (m x 16 u) = x (m x n), of any strides, times y (n x 16 u): a tile of it is held in registers, as wide as a machine
   has, while y streams through the cache */
typedef REAL lanes __attribute__((vector_size(64), aligned(sizeof(REAL))));
enum { LANES = 64 / sizeof(REAL) };
#define EVERY(r, n) _Pragma("GCC unroll 16") for (int r = 0; r < n; r++)
#define TILE_OF(R, U) \\
static void lanes_##R##x##U(REAL *c, I lc, const REAL *x, I xi, I xj, const REAL *y, I ly, I n) { \\
    lanes s[R][U], b[U]; \\
    EVERY(r, R) EVERY(u, U) s[r][u] = (lanes){}; \\
    for (I j = n; j > 0; j--, x += xj, y += ly) { \\
        EVERY(u, U) b[u] = ((const lanes *)y)[u]; \\
        EVERY(r, R) EVERY(u, U) s[r][u] += x[r * xi] * b[u]; } \\
    EVERY(r, R) EVERY(u, U) ((lanes *)(c + r * lc))[u] = s[r][u]; }
TILE_OF(8, 2) TILE_OF(4, 2) TILE_OF(1, 2) TILE_OF(8, 1) TILE_OF(4, 1) TILE_OF(1, 1)
static void matrices(REAL *c, I lc, const REAL *x, I xi, I xj, const REAL *y, I ly, I m, I n, I columns) {
    for (I v = 0, i; v < columns; v += 2 * LANES) {
        if (v + LANES < columns) {
            for (i = 0; i + 8 <= m; i += 8) lanes_8x2(c + i * lc + v, lc, x + i * xi, xi, xj, y + v, ly, n);
            for (; i + 4 <= m; i += 4) lanes_4x2(c + i * lc + v, lc, x + i * xi, xi, xj, y + v, ly, n);
            for (; i < m; i++) lanes_1x2(c + i * lc + v, lc, x + i * xi, xi, xj, y + v, ly, n);
        } else {
            for (i = 0; i + 8 <= m; i += 8) lanes_8x1(c + i * lc + v, lc, x + i * xi, xi, xj, y + v, ly, n);
            for (; i + 4 <= m; i += 4) lanes_4x1(c + i * lc + v, lc, x + i * xi, xi, xj, y + v, ly, n);
            for (; i < m; i++) lanes_1x1(c + i * lc + v, lc, x + i * xi, xi, xj, y + v, ly, n);
        }
    }
}
"""
SOFTMAX = """
/* a safe one is zero where all are -inf */
INLINE void softmax_of(const int safe, I from, I to, REAL *restrict y, const REAL *restrict x, I n) {
    for (I r = from; r < to; r++) {
        const REAL *a = x + r * n;
        REAL *b = y + r * n, most = -INFINITY, sum = 0;
        #pragma omp simd reduction(max:most)
        for (I j = 0; j < n; j++) most = a[j] > most ? a[j] : most;
        if (safe && most == -INFINITY) most = 0;
        #pragma omp simd reduction(+:sum)
        for (I j = 0; j < n; j++) sum += b[j] = r_exp(a[j] - most);
        const REAL scale = 1 / (safe && sum == 0 ? 1 : sum);
        #pragma omp simd
        for (I j = 0; j < n; j++) b[j] *= scale;
    }
}
"""
COLUMNS = """
/* of every column of x (n x wide): sixteen columns are one vector, whose largest and whose sum take no shuffle */
INLINE void columns_of(I from, I to, REAL *restrict y, const REAL *restrict x, I n, I wide) {
    for (I r = from; r < to; r++) for (I j = 0; j < wide; j += W) {
        const REAL *a = x + r * n * wide + j;
        REAL *b = y + r * n * wide + j;
        vec most = get(a), sum = {};
        for (I i = 1; i < n; i++) { const vec c = get(a + i * wide); most = SELECT(c > most, c, most); }
        for (I i = 0; i < n; i++) { const vec e = exps(get(a + i * wide) - most); sum += e, put(b + i * wide, e); }
        const vec scale = 1 / sum;
        for (I i = 0; i < n; i++) put(b + i * wide, scale * get(b + i * wide));
    }
}
"""
MAIN = """
#define SPLIT(parts, each) parts * t / n * each, parts * (t + 1) / n * each
I program_step(const I *f) {{
{checks}
    const I threads = enough({work}, f[{threads}]);
    REAL *room = aligned_alloc(64, ({room} + threads * {own}) * sizeof(REAL));
    if (!room) return 1;
    Meeting m = {{0}};
    #pragma omp parallel num_threads(threads)
    {{
        const I t = omp_get_thread_num(), n = omp_get_num_threads();
        REAL *own = room + {room} + t * {own};
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
    found = passes(lowered, schedule(lowered), "s")
    checks = [
        f"    for (I i = 0; i < {count(x)}; i++) if (((const I *)f[{x.buffer}])[i] < 0 || "
        f"((const I *)f[{x.buffer}])[i] >= {rows}) return 3;"
        for x, rows in lowered.tokens
    ]
    main = MAIN.format(
        checks="\n".join(checks), room=found.room, own=found.own, work=sum(cost(lowered, x) for x in lowered.stages),
        threads=len(lowered.inputs) + len(lowered.outputs), calls="\n".join("        " + x for x in found.calls),
    )  # fmt: skip
    heads = ["#define FUNCTIONS_ONLY", '#include "cell.h"', "#include <sched.h>"]
    return "\n".join([*heads, *texts(lowered.stages), MEETING, *found.functions, main])


SHORT = 64  # numbers of a row up to which sixteen rows are summed at once: a sum of sixteen numbers takes as long
SUMS = [
    "if (q < W - 1 && r + 1 < to) continue;",
    "vec rows[W];",
    "for (I i = 0; i < W; i++) rows[i] = get(s[i]);",
    "const vec sums = sums16(rows);",
    "for (I i = 0; i <= q; i++) y[at[i]] = sums[i];",
]


class Passes(NamedTuple):
    """The C of stages: functions, what calls them in order, and scratch memory, all threads' and each one's own."""

    functions: list[str]
    calls: list[str]
    room: int
    own: int


def passes(lowered: Lowered, turns: Sequence[Turn], name: str) -> Passes:
    """The C of what every thread does in its turns, the addresses of inputs, outputs and what is packed being `f`."""
    functions: dict[str, str] = {}
    calls: list[str] = []
    places, room, own = _addresses(lowered, turns)
    for before, turn in zip((turns[0], *turns), turns, strict=False):
        stage = turn.stage
        called = functions.setdefault(_renamed(WRITERS[stage.kind](lowered, stage)), f"{name}{len(functions)}")
        reads = list(dict.fromkeys(_key(x) for x in stage.reads))
        ends = [places(*_key(stage.out)), *(places(*x) for x in reads)]
        share = f"SPLIT({turn.parts}, {turn.units // turn.parts})" if turn.how == "split" else f"0, {turn.units}"
        calls += ["meet(&m, n);"] if turn.phase > before.phase else []
        calls.append(f"{'if (!t) ' if turn.how == 'first' else ''}{called}({share}, {', '.join(ends)});")
    return Passes([text.replace("NAME", called, 1) for text, called in functions.items()], calls, room, own)


def texts(stages: Sequence[Stage]) -> list[str]:
    """The C that the functions of these stages call."""
    kinds = {stage.kind.removeprefix("safe_") for stage in stages}
    known = ("product", PRODUCT), ("tiles", MATRICES), ("softmax", SOFTMAX), ("columns", COLUMNS)
    return [text for kind, text in known if kind in kinds]


def _key(place: Place) -> tuple[int, int]:
    """What an address is made of."""
    return place.buffer, int(place.like.storage_offset())


def _renamed(text: str) -> str:
    """Values by the order in which they are met: what layers have alike is alike in letters too."""
    names: dict[str, str] = {}
    return re.sub(r"\bv\d+\b", lambda found: names.setdefault(found[0], f"v{len(names)}"), text)


def _addresses(lowered: Lowered, turns: Sequence[Turn]) -> tuple[Callable[[int, int], str], int, int]:
    """Where every buffer is, as C, and how much scratch memory that takes: all threads', and each one's own."""
    given = {i: f"(REAL *)f[{i}]" for i in range(len(lowered.inputs))}
    for i, place in enumerate(lowered.outputs):
        given[place.buffer] = f"(REAL *)f[{len(lowered.inputs) + i}]"
    for i, buffer in enumerate(lowered.packed, len(lowered.inputs) + len(lowered.outputs)):
        given[buffer] = f"(REAL *)f[{i}]"
    last: dict[int, int] = {}
    for i, turn in enumerate(turns):
        for place in (turn.stage.out, *turn.stage.reads):
            last[place.buffer] = i
    rooms = {"room": _Room(), "own": _Room()}
    late: list[tuple[int, int]] = []
    phase = 0
    for i, (stage, now, how, *_) in enumerate(turns):
        if now > phase:
            # a thread that is ahead may not write where another still reads
            for place in late:
                rooms["room"].give_back(*place)
            late, phase = [], now
        buffer, name = stage.out.buffer, "own" if how == "own" else "room"
        if buffer not in given:
            given[buffer] = f"{name} + {rooms[name].take(buffer, lowered.sizes[buffer])}"
        for ended in dict.fromkeys(x.buffer for x in (stage.out, *stage.reads)):
            size = lowered.sizes[ended]
            if last[ended] == i and ended in rooms["own"].starts:
                rooms["own"].give_back(ended, size)
            elif last[ended] == i and ended in rooms["room"].starts:
                late.append((ended, size))
    return lambda buffer, offset: f"{given[buffer]} + {offset}", rooms["room"].size, rooms["own"].size


class _Room:
    """Scratch memory, whose places are given again."""

    def __init__(self) -> None:
        self.size = 0
        self.starts: dict[int, int] = {}
        self.free: list[tuple[int, int]] = []  # size, start

    def take(self, buffer: int, numbers: int) -> int:
        size = _up(numbers)
        fit = min((x for x in self.free if x[0] >= size), default=None)
        if fit is None:
            start, self.size = self.size, self.size + size
        else:
            self.free.remove(fit)
            start = fit[1]
            if fit[0] > size:
                self.free.append((fit[0] - size, fit[1] + size))
        self.starts[buffer] = start
        return start

    def give_back(self, buffer: int, numbers: int) -> None:
        self.free.append((_up(numbers), self.starts[buffer]))


def _up(size: int) -> int:
    """A multiple of what a vector has; no buffer is of nothing."""
    return max(1, -(-size // LINE)) * LINE


def _product(lowered: Lowered, stage: Stage) -> str:
    x, weight, *bias = stage.reads
    wide = x.like.shape[-1]
    more, b = (", const REAL *b", "b") if bias else ("", "0")
    sizes = f"{count(x) // wide}, {len(weight.like)}, {wide}, {weight.like.stride(0)}"
    return (
        f"static void NAME(I from, I to, REAL *y, const REAL *x, const REAL *w{more}) {{\n"
        f"    products(from, to, y, x, w, {b}, {sizes});\n}}"
    )


def _rows(lowered: Lowered, stage: Stage) -> str:
    wide = stage.reads[1].like.shape[1]
    return (
        "static void NAME(I from, I to, REAL *y, const REAL *at, const REAL *w) {\n"
        "    for (I r = from; r < to; r++)"
        f" memcpy(y + r * {wide}, w + ((const I *)at)[r] * {wide}, {wide} * sizeof(REAL));\n}}"
    )


def _tiles(lowered: Lowered, stage: Stage) -> str:
    x, y = stage.reads
    pointers = list(dict.fromkeys(map(_key, stage.reads)))
    names = [f"p{pointers.index(_key(place))}" for place in stage.reads]
    inputs = "".join(f", const REAL *p{i}" for i in range(len(pointers)))
    c, a, b = (place.like.stride() for place in (stage.out, x, y))
    _, rows, columns = stage.out.like.shape
    sizes = f"{b[1]}, {rows}, {y.like.shape[1]}, {columns}"
    return (
        f"static void NAME(I from, I to, REAL *y{inputs}) {{\n    for (I b = from; b < to; b++)"
        f" matrices(y + b * {c[0]}, {c[1]}, {names[0]} + b * {a[0]}, {a[1]}, {a[2]}, {names[1]} + b * {b[0]}, {sizes});"
        "\n}"
    )


def _softmax(lowered: Lowered, stage: Stage) -> str:
    safe, wide = int(stage.kind == "safe_softmax"), stage.out.like.shape[-1]
    return f"static void NAME(I from, I to, REAL *y, const REAL *x) {{ softmax_of({safe}, from, to, y, x, {wide}); }}"


def _columns(lowered: Lowered, stage: Stage) -> str:
    *_, rows, wide = stage.out.like.shape
    return f"static void NAME(I from, I to, REAL *y, const REAL *x) {{ columns_of(from, to, y, x, {rows}, {wide}); }}"


def _turned(found: Loops) -> str:
    """A copy in which columns become rows: sixteen rows at once, or one by itself where they are split otherwise."""
    *_, row = kept = found.kept
    apart, to = found.inner.steps[1], row.steps[0]
    inner, whole = found.inner.size, found.inner.size // LINE * LINE
    places = [f"const I i{i} = r / {math.prod(x.size for x in kept[i + 1 :])} % {x.size};" for i, x in enumerate(kept)]
    return (
        "\n    ".join(
            [
                "static void NAME(I from, I to, REAL *restrict y, const REAL *p0) {",
                "for (I r = from, n; r < to; r += n) {",
                *places,
                f"n = i{len(kept) - 1} % {LINE} || r + {LINE} > to ? 1 : {LINE};",
                f"REAL *c = y + {_sum(kept, 0)};",
                f"const REAL *x = p0 + {_sum(kept, 1)};",
                f"if (n > 1) for (I j = 0; j < {whole}; j += {LINE})",
                f"    transpose16(c + j, {to}, x + {apart} * j, {apart});",
                f"for (I i = 0; i < n; i++) for (I j = n > 1 ? {whole} : 0; j < {inner}; j++)",
                f"    c[i * {to} + j] = x[i + {apart} * j];",
                "}",
            ]
        )
        + "\n}"
    )


def _loops(lowered: Lowered, stage: Stage) -> str:
    """A map, or a sum of one."""
    assert stage.node is not None
    traced = Traced(lowered.graph, {}, {})
    found = loops(lowered, stage)
    if turns_over(lowered, stage, found):
        return _turned(found)
    leaves, kept, over, (inner, steps, summed) = found
    pointers = list(dict.fromkeys(_key(x) for x in stage.reads))
    given: dict[int, str] = {
        x: f"p{pointers.index(_key(place))}[q{i} + {step} * j]"
        for i, ((x, place), step) in enumerate(zip(leaves, steps[1:], strict=True))
    }
    whole = [f"const I i{i} = r / {math.prod(x.size for x in kept[i + 1 :])} % {x.size};" for i, x in enumerate(kept)]
    whole += [f"const I o = {_sum(kept, 0)};"]
    first, last, begin, end, bounds = "from", "to", "0", str(inner), []
    if found.lines:
        first, last, begin, end = "0", "1", "j0", "j1"
        bounds = [f"const I j0 = {LINE} * from, j1 = {LINE} * to < {inner} ? {LINE} * to : {inner};"]
    each = f"for (I j = {begin}; j < {end}; j++)"
    at = f"y[o + {steps[0]} * j]"
    if stage.kind == "map":
        core = ["#pragma omp simd", f"{each} {{", emit.body(traced, given, [(at, stage.node)]), "}"]
        before, after = [], []
    elif summed and inner % LINE == 0 and inner <= SHORT:
        core = [f"for (I k = 0; k < {inner}; k += W)", "#pragma omp simd", "for (I i = 0; i < W; i++) {"]
        core += ["const I j = k + i;", emit.body(traced, given, [], [("s[q][i]", stage.node)]), "}"]
        bounds = ["REAL s[W][W] = {};", "I at[W];"]
        before, after = ["const I q = (r - from) % W;", "for (I i = 0; i < W; i++) s[q][i] = 0;"], ["at[q] = o;", *SUMS]
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
    body = [*bounds, f"for (I r = {first}; r < {last}; r++) {{", *whole, *before, *core, *after, "}"]
    text = "\n    ".join(body).replace(" \\\n", "\n")
    return f"static void NAME(I from, I to, REAL *restrict y{inputs}) {{\n    {text}\n}}"


def _sum(axes: list[Axis], which: int) -> str:
    return " + ".join([f"i{i} * {axis.steps[which]}" for i, axis in enumerate(axes) if axis.steps[which]]) or "0"


WRITERS = {
    "map": _loops, "sum": _loops, "product": _product, "rows": _rows, "tiles": _tiles, "softmax": _softmax,
    "safe_softmax": _softmax, "columns": _columns,
}  # fmt: skip
