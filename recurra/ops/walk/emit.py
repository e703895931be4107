"""From the stages of a segment to C that walks through all segments, forward and back.

Rows of the batch are taken a few together, and each such block goes through all segments before the next: what it
remembers and the weights stay in the cache of the one thread that has it. Forward keeps the memory before each segment
and what is dear to make of it, products and softmaxes, of which backward makes the rest again.
"""

from collections.abc import Sequence
from typing import NamedTuple

from recurra.ops.program.emit import passes, texts
from recurra.ops.program.loops import units
from recurra.ops.program.schedule import Turn, cost
from recurra.ops.program.stages import LINE, Lowered, count
from recurra.ops.walk.trace import Back

WALK = """
/* arrays with _size: numbers of a row, or of what is not of rows; with _at: which of what step gives it is */
#define EACH(i, n) for (I i = 0; i < (n); i++)
#define SIZE(n) ((n) * sizeof(REAL))

typedef struct { const I *next; } Fields;
INLINE REAL *const *several(Fields *g, I n) { REAL *const *found = (REAL *const *)g->next; g->next += n; return found; }
INLINE const uint8_t *mask_of(Fields *g) { return (const uint8_t *)*g->next++; }
/* the rows of a block, of which those beyond the last are the last again */
INLINE I row_of(I first, I r, I B) { return first + r < B ? first + r : B - 1; }
/* from or to a place in x, whose rows are `stride` apart */
static void gather(REAL *to, const REAL *x, I n, I first, I B, I stride, I at) {
    EACH(r, ROWS) memcpy(to + r * n, x + row_of(first, r, B) * stride + at, SIZE(n));
}
static void scatter(REAL *x, const REAL *from, I n, I first, I B, I stride, I at) {
    EACH(r, ROWS) if (first + r < B) memcpy(x + (first + r) * stride + at, from + r * n, SIZE(n));
}
INLINE REAL *room(REAL **at, I n) { REAL *found = *at; *at += up(ROWS * n); return found; }
#define EVERY_BLOCK(...) \\
    const I blocks = (B + ROWS - 1) / ROWS; \\
    I failed = 0; \\
    const I crew = enough(WORK * S * blocks, threads < blocks ? threads : blocks); \\
    _Pragma("omp parallel num_threads(crew) reduction(|:failed)") \\
    { \\
        REAL *own = aligned_alloc(64, SIZE(SCRATCH)); \\
        failed = !own; \\
        unsigned old = flush_on(); \\
        _Pragma("omp for schedule(static)") \\
        for (I block = 0; block < blocks; block++) if (own) { __VA_ARGS__ } \\
        flush_off(old); \\
        free(own); \\
    } \\
    return failed;
"""

FORWARD = """
I walk_forward(const I *fields) {
    Fields g = {fields};
    REAL *const *weights = several(&g, WEIGHTS), *const *packed = several(&g, PACKED);
    REAL *const *ready = several(&g, READY);
    REAL *const *start = several(&g, MEMORY), *const *entry = several(&g, MEMORY), *const *before = several(&g, MEMORY);
    REAL *const *made = several(&g, MADE), *const *kept = several(&g, KEPT), *const *last = several(&g, MEMORY);
    const uint8_t *fresh = mask_of(&g), *full = mask_of(&g);
    const I B = g.next[0], S = g.next[1], threads = g.next[2];
    EVERY_BLOCK(
        const I b = block * ROWS;
        REAL *f[WEIGHTS + MEMORY + READY + MEMORY + MADE + KEPT + PACKED], *at = own, **memory = f + WEIGHTS;
        REAL **now = memory + MEMORY, **after = now + READY, **new = after + MEMORY;
        EACH(i, WEIGHTS) f[i] = weights[i];
        EACH(i, PACKED) new[MADE + KEPT + i] = packed[i];
        EACH(i, MEMORY) memory[i] = room(&at, memory_size[i]), after[i] = room(&at, memory_size[i]);
        EACH(i, READY) now[i] = room(&at, ready_size[i]);
        EACH(i, MADE) new[i] = room(&at, made_size[i]);
        EACH(i, KEPT) new[MADE + i] = at, at += up(kept_size[i]);
        EACH(i, MEMORY) gather(memory[i], entry[i], memory_size[i], b, B, memory_size[i], 0);
        EACH(s, S) {
            I any = MADE;
            EACH(r, ROWS) {
                const I row = row_of(b, r, B);
                any |= full[row * S + s];
                EACH(i, MEMORY) if (fresh && fresh[row * S + s])
                    memcpy(memory[i] + r * memory_size[i], start[i] + row * memory_size[i], SIZE(memory_size[i]));
            }
            EACH(i, MEMORY) scatter(before[i], memory[i], memory_size[i], b, B, S * memory_size[i], s * memory_size[i]);
            if (!any) continue;
            EACH(i, READY) gather(now[i], ready[i], ready_size[i], b, B, S * ready_size[i], s * ready_size[i]);
            EACH(i, KEPT) if (kept[i]) new[MADE + i] = kept[i] + (block * S + s) * kept_size[i];
            step(f, at);
            EACH(i, MADE) scatter(made[i], new[i], made_size[i], b, B, S * made_size[i], s * made_size[i]);
            EACH(r, ROWS) EACH(i, MEMORY) if (full[row_of(b, r, B) * S + s])
                memcpy(memory[i] + r * memory_size[i], after[i] + r * memory_size[i], SIZE(memory_size[i]));
        }
        EACH(i, MEMORY) scatter(last[i], memory[i], memory_size[i], b, B, memory_size[i], 0);
    )
}
"""

BACKWARD = """
/* a gradient of rows, zero where there is none, and in rows that are there only to fill the block */
static void gather_grad(REAL *to, const REAL *x, I n, I first, I B, I stride, I at) {
    EACH(r, ROWS) {
        if (x && first + r < B) memcpy(to + r * n, x + (first + r) * stride + at, SIZE(n));
        else memset(to + r * n, 0, SIZE(n));
    }
}
INLINE void add_to(REAL *restrict y, const REAL *restrict x, I n) { EACH(j, n) y[j] += x[j]; }
I walk_backward(const I *fields) {
    Fields g = {fields};
    REAL *const *weights = several(&g, WEIGHTS), *const *packed = several(&g, PACKED);
    REAL *const *ready = several(&g, READY), *const *kept = several(&g, KEPT);
    REAL *const *before = several(&g, MEMORY), *const *of_before = several(&g, MEMORY);
    REAL *const *of_made = several(&g, MADE), *const *of_last = several(&g, MEMORY);
    REAL *const *of_ready = several(&g, READY), *const *of_start = several(&g, MEMORY);
    REAL *const *of_entry = several(&g, MEMORY), *const *sums = several(&g, SUMS), *const *pairs = several(&g, PAIRS);
    const uint8_t *fresh = mask_of(&g), *full = mask_of(&g);
    const I B = g.next[0], S = g.next[1], threads = g.next[2];
    EVERY_BLOCK(
        const I b = block * ROWS, n = B - b < ROWS ? B - b : ROWS;
        REAL *f[WEIGHTS + MEMORY + READY + KEPT + MEMORY + MADE + MEMORY + READY + SUMS + PAIRS + PACKED], *at = own;
        REAL *later[MEMORY + 1], **memory = f + WEIGHTS, **now = memory + MEMORY, **given = now + READY + KEPT;
        REAL **made = given + MEMORY, **found = made + MADE, **back = found + MEMORY, **rest = back + READY;
        EACH(i, WEIGHTS) f[i] = weights[i];
        EACH(i, PACKED) rest[SUMS + PAIRS + i] = packed[i];
        EACH(i, MEMORY) {
            memory[i] = room(&at, memory_size[i]), given[i] = room(&at, memory_size[i]);
            found[i] = room(&at, memory_size[i]), later[i] = room(&at, memory_size[i]);
            gather_grad(later[i], of_last[i], memory_size[i], b, B, memory_size[i], 0);
            EACH(r, n) memset(of_start[i] + (b + r) * memory_size[i], 0, SIZE(memory_size[i]));
        }
        EACH(i, READY) now[i] = room(&at, ready_size[i]), back[i] = room(&at, ready_size[i]);
        EACH(i, MADE) made[i] = room(&at, made_size[i]);
        EACH(i, SUMS) {
            rest[sum_at[i]] = at, at += up(sum_size[i]);
            memset(sums[i] + block * sum_size[i], 0, SIZE(sum_size[i]));
        }
        for (I s = S - 1; s >= 0; s--) {
            I any = MADE;
            EACH(r, ROWS) any |= full[row_of(b, r, B) * S + s];
            EACH(i, PAIRS) {
                rest[pair_at[i]] = pairs[i] + (block * S + s) * pair_size[i];
                if (!any) memset(rest[pair_at[i]], 0, SIZE(pair_size[i]));
            }
            EACH(i, READY) EACH(r, n) if (!any) {
                memset(of_ready[i] + ((b + r) * S + s) * ready_size[i], 0, SIZE(ready_size[i]));
            }
            if (any) {
                EACH(i, MEMORY) {
                    const I size = memory_size[i];
                    gather(memory[i], before[i], size, b, B, S * size, s * size);
                    EACH(r, ROWS) {
                        /* what goes on through the segment, or around it */
                        const I through = full[row_of(b, r, B) * S + s];
                        if (through) memcpy(given[i] + r * size, later[i] + r * size, SIZE(size));
                        else memset(given[i] + r * size, 0, SIZE(size));
                        if (through) memset(later[i] + r * size, 0, SIZE(size));
                    }
                }
                EACH(i, READY) gather(now[i], ready[i], ready_size[i], b, B, S * ready_size[i], s * ready_size[i]);
                EACH(i, KEPT) now[READY + i] = kept[i] + (block * S + s) * kept_size[i];
                EACH(i, MADE) gather_grad(made[i], of_made[i], made_size[i], b, B, S * made_size[i], s * made_size[i]);
                step(f, at);
                EACH(i, MEMORY) add_to(later[i], found[i], ROWS * memory_size[i]);
                EACH(i, READY) scatter(of_ready[i], back[i], ready_size[i], b, B, S * ready_size[i], s * ready_size[i]);
                EACH(i, SUMS) add_to(sums[i] + block * sum_size[i], rest[sum_at[i]], sum_size[i]);
            }
            EACH(i, MEMORY) EACH(r, n) {
                const I size = memory_size[i], row = (b + r) * S + s;
                if (of_before[i]) add_to(later[i] + r * size, of_before[i] + row * size, size);
                if (fresh && fresh[row]) {
                    add_to(of_start[i] + (b + r) * size, later[i] + r * size, size);
                    memset(later[i] + r * size, 0, SIZE(size));
                }
            }
        }
        EACH(i, MEMORY) scatter(of_entry[i], later[i], memory_size[i], b, B, memory_size[i], 0);
    )
}
"""


def forward(lowered: Lowered, rows: int, weights: int, memory: int, kept: int) -> str:
    """The C of `walk_forward`: blocks of so many rows; so many inputs are weights, and then of the memory.

    So many of the last results are kept, if there is where.
    """
    given, found = _sizes(lowered)
    ends = len(found) - kept
    rooms = Rooms(
        given[weights : weights + memory], given[weights + memory :], found[memory:ends], found[ends:], {}, {}
    )
    own = 2 * _up(rooms.memory) + _up(rooms.ready) + _up(rooms.made) + _up(rooms.kept)
    return _head(lowered, rows, weights, rooms, own) + FORWARD


def backward(back: Back, rows: int, weights: int, memory: int, ready: int) -> str:
    """The C of `walk_backward`, as `forward`, where so many inputs are ready."""
    given, found = _sizes(back.lowered)
    given = given[weights:]
    sums = {x: found[x] for x in back.pairs if isinstance(x, int)}
    pairs = {x: found[x] for x in range(memory + ready, len(found)) if x not in sums}
    kept = len(back.kept)
    ready_sizes, rest = given[memory : memory + ready], given[memory + ready :]
    rooms = Rooms(given[:memory], ready_sizes, rest[kept + memory :], rest[:kept], sums, pairs)
    own = 4 * _up(rooms.memory) + 2 * _up(rooms.ready) + _up(rooms.made) + _up([*sums.values()])
    return _head(back.lowered, rows, weights, rooms, own) + BACKWARD


class Rooms(NamedTuple):
    """How many numbers a block has of each: memory, what is ready, made and kept; of a gradient's sums and pairs."""

    memory: list[int]
    ready: list[int]
    made: list[int]
    kept: list[int]
    sums: dict[int, int]  # by which of the results it is
    pairs: dict[int, int]


def _sizes(lowered: Lowered) -> tuple[list[int], list[int]]:
    """Numbers of every input and of every result."""
    return [lowered.sizes[i] for i in range(len(lowered.inputs))], [count(x) for x in lowered.outputs]


def _up(sizes: Sequence[int]) -> int:
    return sum(-(-size // LINE) * LINE for size in sizes)


def _head(lowered: Lowered, rows: int, weights: int, rooms: Rooms, own: int) -> str:
    """Functions of the stages, `step`, which calls them, and the sizes of everything."""
    turns = [Turn(stage, 0, "own", units(lowered, stage)) for stage in lowered.stages]
    found = passes(lowered, turns, "s")
    first = len(rooms.memory) + len(rooms.ready)
    arrays = {
        "memory_size": [x // rows for x in rooms.memory], "ready_size": [x // rows for x in rooms.ready],
        "made_size": [x // rows for x in rooms.made], "kept_size": rooms.kept, "sum_size": [*rooms.sums.values()],
        "pair_size": [*rooms.pairs.values()], "sum_at": [x - first for x in rooms.sums],
        "pair_at": [x - first for x in rooms.pairs],
    }  # fmt: skip
    counts = {
        "ROWS": rows, "WEIGHTS": weights, "MEMORY": len(rooms.memory), "READY": len(rooms.ready),
        "MADE": len(rooms.made), "KEPT": len(rooms.kept), "SUMS": len(rooms.sums), "PAIRS": len(rooms.pairs),
        "PACKED": len(lowered.packed),
        "WORK": sum(cost(lowered, x) for x in lowered.stages), "SCRATCH": own + found.own,
    }  # fmt: skip
    # loops over units become vectors so too, and it takes half the time
    lines = ['#pragma GCC optimize("O2,tree-vectorize")', "#define FUNCTIONS_ONLY", '#include "cell.h"']
    lines += [*texts(lowered.stages), *found.functions]
    lines += ["static void step(REAL *const *f, REAL *own) {", *("    " + x for x in found.calls), "}"]
    lines += [f"enum {{ {', '.join(f'{name} = {value}' for name, value in counts.items())} }};"]
    lines += [f"static const I {name}[] = {{{', '.join(map(str, [*values, 0]))}}};" for name, values in arrays.items()]
    return "\n".join(lines) + WALK
