/* machine: a long short-term memory beside an external memory that it steers and hears.  Below stand the network, the
 * loops over time and what all such memories do, finding slots by what they hold; the file that includes this says what
 * else its memory does, in `access` and `access_back`.
 *
 * A group of rows goes through time together, so that weights are read once for all of them: they lie in panels of 64,
 * 32 or 16 columns, in the order in which a product reads them.  A memory is of one row: slots run along vectors, padded
 * to whole ones, its numbers down.  A step's record is its memory after it and what its gradient needs; for gradients
 * the memory is kept at every WINDOW-th step, from which backward runs those between again. */
#include "common.h"
#include <omp.h>

enum { WINDOW = 32, GROUP = 8, PARTS = 6, FIRST = 3 };

typedef struct {
    const REAL *drive;                  /* (B, T, 4 D) */
    I B, T, D, R, X;                    /* rows, steps; units, a multiple of 16, numbers read, numbers said */
    I slots, size, heads, more;         /* of the memory; heads and more as its kind has it */
    I part[PARTS];                      /* numbers in each tensor of its state */
    const REAL *recurrent, *interface;  /* panels, forward of their transposes; where they lie, as they are */
    I lie;
    const REAL *bias, *rest;            /* of what is said; what is added to squares of lengths */
    const uint8_t *reset;
    const I *lengths;                   /* steps of each row that happened; NULL: all */
    const REAL *first[FIRST + PARTS];   /* h, c, read, and the memory's */
} Machine;

typedef struct {
    Machine z;
    REAL *last[FIRST + PARTS], *y;      /* y is (B, T, D + R) */
    REAL *gates, *cells, *said;         /* (B, T, 4 D), (B, T, D), (B, T, X), or all NULL */
    REAL *marks;                        /* (B, (T - 1) / WINDOW, all parts) */
    I threads;
} Forward;

typedef struct {
    Machine z;
    const REAL *gates, *cells, *said, *marks, *g_y;
    REAL *g[FIRST + PARTS];             /* of the last state on entry, of the first on return */
    REAL *g_drive, *g_said;
    I threads;
} Backward;

/* ---- what each kind of memory says of itself ---- */

static I state_size(const Machine *z);
static I record_size(const Machine *z);                 /* the state comes first in a record */
static I scratch_size(const Machine *z);
static void enter(const Machine *z, const REAL *const *from, REAL *state);
static void leave(const Machine *z, const REAL *state, REAL *const *to);
static void settle(const Machine *z, REAL *record);     /* makes a record of a state */
static void access(const Machine *z, const REAL *before, const REAL *says, REAL *record, REAL *read);
/* g: the gradient of the state after the step on entry, of the one before it on return */
static void access_back(const Machine *z, const REAL *before, const REAL *record, const REAL *says,
                        const REAL *g_read, REAL *g, REAL *g_says, REAL *scratch);

#include "slots.h"

/* ---- the network ---- */

TILE(4, 4, ADD) TILE(2, 4, ADD) TILE(1, 4, ADD) TILE(4, 2, ADD) TILE(2, 2, ADD) TILE(4, 1, ADD) TILE(2, 1, ADD)
#define ROWS(R, U) tile_##R##x##U##_ADD(to, ly, to, 0, x + i * lx, lx, 1, w, U * W, n)
#define WIDE_(U) if (rows == 4) ROWS(4, U); else if (rows == 2) ROWS(2, U); else ROWS(1, U);
/* y (m x columns) += x (m x n) w, whose n x columns lie in panels */
static void multiply(I m, REAL *y, I ly, const REAL *x, I lx, const REAL *w, I n, I columns) {
    for (I c = 0, wide; c < columns; c += wide, w += n * wide) {
        wide = columns - c >= 4 * W ? 4 * W : columns - c >= 2 * W ? 2 * W : W;
        for (I i = 0, rows; i < m; i += rows) {
            REAL *to = y + i * ly + c;
            rows = m - i >= 4 ? 4 : m - i >= 2 ? 2 : 1;
            if (wide == 4 * W) { WIDE_(4) } else if (wide == 2 * W) { WIDE_(2) } else { WIDE_(1) }
        }
    }
}
/* as multiply, of weights (columns x n) as they lie: for a single step, which takes less time than to turn them */
static void multiply_lying(I m, REAL *y, I ly, const REAL *x, I lx, const REAL *w, I n, I columns) {
    for (I c = 0; c < columns; c += W, w += W * n)
        for (I i = 0; i < m; i++) {
            const I some = columns - c < W ? columns - c : W;
            vec sum[W] = {};
            for (I k = 0; k < n; k += W) {
                const vec now = get_some(x + i * lx + k, n - k);
                if (some == W && n - k >= W) for (int j = 0; j < W; j++) sum[j] += now * get(w + j * n + k);
                else for (I j = 0; j < some; j++) sum[j] += now * get_some(w + j * n + k, n - k);
            }
            REAL *to = y + i * ly + c;
            put_some(to, get_some(to, some) + sums16(sum), some);
        }
}
/* a: what drives the gates on entry, the gates on return; c and h become what they are after */
static void gates_step(I D, REAL *a, REAL *c, REAL *h) {
    EACH(u, D) {
        const vec entry = sigmoid16(get(a + u)), keep = sigmoid16(get(a + D + u)), new = tanh16(get(a + 2 * D + u));
        const vec out = sigmoid16(get(a + 3 * D + u)), cell = keep * get(c + u) + entry * new;
        put(a + u, entry), put(a + D + u, keep), put(a + 2 * D + u, new), put(a + 3 * D + u, out);
        put(c + u, cell), put(h + u, out * tanh16(cell));
    }
}
/* before: c before the step, NULL where it is zero; gc: of c after it on entry, before it on return; ga is written */
static void gates_back(I D, const REAL *a, const REAL *before, const REAL *c, const REAL *gh, REAL *gc, REAL *ga) {
    EACH(u, D) {
        const vec entry = get(a + u), keep = get(a + D + u), new = get(a + 2 * D + u), out = get(a + 3 * D + u);
        const vec t = tanh16(get(c + u)), g = get(gh + u), cell = get(gc + u) + g * out * (1 - t * t);
        put(ga + u, cell * new * entry * (1 - entry));
        put(ga + D + u, before ? cell * get(before + u) * keep * (1 - keep) : (vec){});
        put(ga + 2 * D + u, cell * entry * (1 - new * new));
        put(ga + 3 * D + u, g * t * out * (1 - out));
        put(gc + u, cell * keep);
    }
}

/* ---- over time ---- */

INLINE I steps_of(const Machine *z, I b) { return z->lengths ? z->lengths[b] : z->T; }
INLINE int begins(const Machine *z, I b, I t) { return z->reset && z->reset[b * z->T + t]; }
/* where a row's parts lie in the tensors of a state, and in a mark */
static void parts_of(const Machine *z, const REAL *const *tensors, I b, const REAL **parts) {
    for (I i = 0; i < PARTS; i++) parts[i] = tensors[FIRST + i] ? tensors[FIRST + i] + b * z->part[i] : 0;
}
static void parts_in(const Machine *z, const REAL *mark, const REAL **parts) {
    for (I i = 0; i < PARTS; i++) parts[i] = mark, mark += z->part[i];
}
static REAL *mark_of(const Machine *z, const REAL *marks, I b, I t) {
    I all = 0;
    for (I i = 0; i < PARTS; i++) all += z->part[i];
    return (REAL *)marks + (b * ((z->T - 1) / WINDOW) + t / WINDOW - 1) * all;
}
/* the memory of row b before step t, a multiple of WINDOW, as a record */
static void recall(const Machine *z, const REAL *marks, I b, I t, REAL *record) {
    const REAL *parts[PARTS];
    if (t) parts_in(z, mark_of(z, marks, b, t), parts);
    else parts_of(z, z->first, b, parts);
    enter(z, parts, record);
    settle(z, record);
}

/* rows [b0, b0 + m): [h; read], gates, what is said, c, and two records each, of before a step and after it */
typedef struct { REAL *heard, *gates, *said, *cells, *records, *blank; } Going;
static Going going(const Machine *z, I rows, Arena *r) {
    return (Going){take(r, rows * (z->D + z->R)), take(r, rows * 4 * z->D), take(r, rows * z->X), take(r, rows * z->D),
                   take(r, rows * 2 * record_size(z)), take(r, record_size(z))};
}
static void go(const Forward *f, I b0, I m, Going g) {
    const Machine *const z = &f->z;
    const I T = z->T, D = z->D, R = z->R, X = z->X, K = D + R, S = record_size(z);
    void (*const product)(I, REAL *, I, const REAL *, I, const REAL *, I, I) = z->lie ? multiply_lying : multiply;
    const REAL *parts[PARTS];
    for (I i = 0; i < m; i++) {
        REAL *heard = g.heard + i * K;
        memcpy(heard, z->first[0] + (b0 + i) * D, D * sizeof(REAL));
        memcpy(heard + D, z->first[2] + (b0 + i) * R, R * sizeof(REAL));
        memcpy(g.cells + i * D, z->first[1] + (b0 + i) * D, D * sizeof(REAL));
        recall(z, 0, b0 + i, 0, g.records + i * 2 * S);
    }
    for (I t = 0; t < T; t++) {
        for (I i = 0; i < m; i++) {
            const I b = b0 + i;
            if (f->marks && t && t % WINDOW == 0) {
                parts_in(z, mark_of(z, f->marks, b, t), parts);
                leave(z, g.records + (i * 2 + t % 2) * S, (REAL *const *)parts);
            }
            if (begins(z, b, t) && t < steps_of(z, b)) {
                memset(g.heard + i * K, 0, K * sizeof(REAL)), memset(g.cells + i * D, 0, D * sizeof(REAL));
                memcpy(g.records + (i * 2 + t % 2) * S, g.blank, S * sizeof(REAL));
            }
            memcpy(g.gates + i * 4 * D, z->drive + (b * T + t) * 4 * D, 4 * D * sizeof(REAL));
            memcpy(g.said + i * X, z->bias, X * sizeof(REAL));
        }
        product(m, g.gates, 4 * D, g.heard, K, z->recurrent, K, 4 * D);
        for (I i = 0; i < m; i++)
            if (t < steps_of(z, b0 + i)) gates_step(D, g.gates + i * 4 * D, g.cells + i * D, g.heard + i * K);
        product(m, g.said, X, g.heard, K, z->interface, D, X);
        for (I i = 0; i < m; i++) {
            const I b = b0 + i, at = b * T + t;
            REAL *now = g.records + (i * 2 + t % 2) * S, *next = g.records + (i * 2 + 1 - t % 2) * S;
            if (t >= steps_of(z, b)) {
                memcpy(next, now, S * sizeof(REAL)), memset(f->y + at * K, 0, K * sizeof(REAL));
                continue;
            }
            access(z, now, g.said + i * X, next, g.heard + i * K + D);
            memcpy(f->y + at * K, g.heard + i * K, K * sizeof(REAL));
            if (!f->gates) continue;
            memcpy(f->gates + at * 4 * D, g.gates + i * 4 * D, 4 * D * sizeof(REAL));
            memcpy(f->cells + at * D, g.cells + i * D, D * sizeof(REAL));
            memcpy(f->said + at * X, g.said + i * X, X * sizeof(REAL));
        }
    }
    for (I i = 0; i < m; i++) {
        memcpy(f->last[0] + (b0 + i) * D, g.heard + i * K, D * sizeof(REAL));
        memcpy(f->last[1] + (b0 + i) * D, g.cells + i * D, D * sizeof(REAL));
        memcpy(f->last[2] + (b0 + i) * R, g.heard + i * K + D, R * sizeof(REAL));
        parts_of(z, (const REAL *const *)f->last, b0 + i, parts);
        leave(z, g.records + (i * 2 + T % 2) * S, (REAL *const *)parts);
    }
}

/* gradients of [h; read], and room for new ones, of c, of the gates, of what is said, and of the memory; the records of
   a window for each row */
typedef struct { REAL *heard, *fresh, *cells, *gates, *said, *memory, *records, *blank, *scratch; } Coming;
static Coming coming(const Machine *z, I rows, Arena *r) {
    const I K = up(z->D + z->R), S = record_size(z);
    return (Coming){take(r, rows * K), take(r, rows * K), take(r, rows * z->D), take(r, rows * 4 * z->D),
                    take(r, rows * z->X), take(r, rows * up(state_size(z))), take(r, rows * (WINDOW + 1) * S),
                    take(r, S), take(r, scratch_size(z) + z->R)};
}
/* one step back of row b: from what is said to the gates, the product between left to the caller */
static void access_step_back(const Backward *f, I b, I t, const REAL *before, const REAL *record, REAL *heard,
                             REAL *memory, REAL *said, REAL *scratch) {
    const Machine *const z = &f->z;
    const REAL *g_y = f->g_y + (b * z->T + t) * (z->D + z->R);
    for (I k = 0; k < z->D + z->R; k++) heard[k] += g_y[k];
    access_back(z, before, record, f->said + (b * z->T + t) * z->X, heard + z->D, memory, said, scratch);
}
static void come(const Backward *f, I b0, I m, Coming g) {
    const Machine *const z = &f->z;
    const I T = z->T, D = z->D, R = z->R, X = z->X, K = up(D + R), S = record_size(z), M = up(state_size(z));
    const REAL *parts[PARTS];
    memset(g.heard, 0, m * K * sizeof(REAL));
    for (I i = 0; i < m; i++) {
        memcpy(g.heard + i * K, f->g[0] + (b0 + i) * D, D * sizeof(REAL));
        memcpy(g.cells + i * D, f->g[1] + (b0 + i) * D, D * sizeof(REAL));
        memcpy(g.heard + i * K + D, f->g[2] + (b0 + i) * R, R * sizeof(REAL));
        parts_of(z, (const REAL *const *)f->g, b0 + i, parts);
        enter(z, parts, g.memory + i * M);
    }
    for (I t = T - 1; t >= 0; t--) {
        const I t0 = t / WINDOW * WINDOW;
        for (I i = 0; i < m && (t == T - 1 || t % WINDOW == WINDOW - 1); i++) {
            REAL *record = g.records + i * (WINDOW + 1) * S;
            recall(z, f->marks, b0 + i, t0, record);
            for (I u = t0; u <= t && u < steps_of(z, b0 + i); u++, record += S)
                access(z, begins(z, b0 + i, u) ? g.blank : record, f->said + ((b0 + i) * T + u) * X, record + S,
                       g.scratch + scratch_size(z));
        }
        for (I i = 0; i < m; i++) {
            const I b = b0 + i;
            const REAL *record = g.records + (i * (WINDOW + 1) + t - t0) * S;
            if (t < steps_of(z, b))
                access_step_back(f, b, t, begins(z, b, t) ? g.blank : record, record + S, g.heard + i * K,
                                 g.memory + i * M, g.said + i * X, g.scratch);
            else memset(g.said + i * X, 0, X * sizeof(REAL));
        }
        multiply(m, g.heard, K, g.said, X, z->interface, X, D);
        for (I i = 0; i < m; i++) {
            const I b = b0 + i, at = b * T + t;
            const REAL *c = begins(z, b, t) ? 0 : t ? f->cells + (at - 1) * D : z->first[1] + b * D;
            REAL *gates = g.gates + i * 4 * D;
            if (t < steps_of(z, b))
                gates_back(D, f->gates + at * 4 * D, c, f->cells + at * D, g.heard + i * K, g.cells + i * D, gates);
            else memset(gates, 0, 4 * D * sizeof(REAL));
            memcpy(f->g_drive + at * 4 * D, gates, 4 * D * sizeof(REAL));
            memcpy(f->g_said + at * X, g.said + i * X, X * sizeof(REAL));
        }
        memset(g.fresh, 0, m * K * sizeof(REAL));
        multiply(m, g.fresh, K, g.gates, 4 * D, z->recurrent, 4 * D, K);
        for (I i = 0; i < m; i++) {
            if (t >= steps_of(z, b0 + i)) continue;
            memcpy(g.heard + i * K, g.fresh + i * K, K * sizeof(REAL));
            if (!begins(z, b0 + i, t)) continue;
            memset(g.heard + i * K, 0, K * sizeof(REAL)), memset(g.cells + i * D, 0, D * sizeof(REAL));
            memset(g.memory + i * M, 0, M * sizeof(REAL));
        }
    }
    for (I i = 0; i < m; i++) {
        memcpy(f->g[0] + (b0 + i) * D, g.heard + i * K, D * sizeof(REAL));
        memcpy(f->g[1] + (b0 + i) * D, g.cells + i * D, D * sizeof(REAL));
        memcpy(f->g[2] + (b0 + i) * R, g.heard + i * K + D, R * sizeof(REAL));
        parts_of(z, (const REAL *const *)f->g, b0 + i, parts);
        leave(z, g.memory + i * M, (REAL *const *)parts);
    }
}

/* every thread takes groups of rows; their sizes are no part of any number */
#define OVER_GROUPS(f, Kind, kind, run)                                                                             \
    const Machine *const z = &(f)->z;                                                                               \
    const I threads = enough(z->B * z->T * z->D * (z->D + z->R), (f)->threads), fair = (z->B + threads - 1) / threads; \
    const I rows = fair < GROUP ? fair : GROUP;                                                                     \
    I failed = 0;                                                                                                   \
    _Pragma("omp parallel num_threads(threads) if (threads > 1)")                                                   \
    {                                                                                                               \
        const unsigned old = flush_on();                                                                            \
        Arena room = {0, 0};                                                                                         \
        kind(z, rows, &room);                                                                                       \
        allot(&room);                                                                                               \
        Kind g = kind(z, rows, &room);                                                                              \
        if (!room.base) failed = 1;                                                                                 \
        else memset(g.blank, 0, record_size(z) * sizeof(REAL)), settle(z, g.blank);                                 \
        _Pragma("omp for schedule(dynamic)")                                                                        \
        for (I b = 0; b < z->B; b += rows)                                                                          \
            if (room.base) run(f, b, z->B - b < rows ? z->B - b : rows, g);                                         \
        free(room.base);                                                                                            \
        flush_off(old);                                                                                             \
    }                                                                                                               \
    return failed;

static I forward(const Forward *f) { OVER_GROUPS(f, Going, going, go) }
static I backward(const Backward *f) { OVER_GROUPS(f, Coming, coming, come) }
