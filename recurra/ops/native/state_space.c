/* state_space:  h_t = e^a h_{t-1} + x_t,  o_t = Re sum_n c_n h_tn + s x_t,  of every feature, by blocks of C steps:
 *
 *     o_i = sum_j k_{i-j} x_j + Re c p_{i+1} h,  k_i = Re sum_n c_n p_in + s [i = 0]      h <- p_C h + sum_j p_{C-1-j} x_j
 *
 * with p_i = e^{a i}. Sixteen features are a task: their steps are turned over, so that those of a feature lie in a row,
 * where they are read, and what is read of them where it is written; between, all are products of small matrices that
 * stay in the cache. Powers are products of the one before, in double: slow decays keep their digits over a block. The
 * backward makes them again, and keeps the states before every block. A block ends early where a sequence begins, so
 * that it knows of no other. Complex numbers are pairs in memory, and here real parts, then imaginary parts. */
#include "common.h"
#define MOST 64                                                               /* steps in a block, at most */
#define AT_ONCE 64                                                            /* blocks of a task in the cache */

/* parts: 2 where a and c are complex, else 1; counts: steps of each row, or NULL: T */
typedef struct {
    Rows x;
    const REAL *a, *c, *skip;
    const uint8_t *reset;
    const I *counts;
    I B, T, D, N, C, parts;
} Space;

typedef struct { I b, t, n, kept, ends; } Block;                /* kept: its place among kept states, -1 where a sequence begins */

/* all blocks of all rows, in order; NULL where there is no memory */
static Block *cut(const Space *z, I *count) {
    Block *all = malloc(sizeof(Block) * (z->B * z->T + 1));
    *count = 0;
    for (I b = 0; all && b < z->B; b++) {
        const I steps = z->counts ? z->counts[b] : z->T, places = z->T / z->C + 1;
        const uint8_t *reset = z->reset ? z->reset + b * z->T : 0;
        for (I t = 0, n, kept = 0; t < steps; t += n) {
            const I begins = reset && reset[t];
            for (n = 1; n < z->C && t + n < steps && !(reset && reset[t + n]); n++);
            all[(*count)++] = (Block){b, t, n, begins ? -1 : b * places + kept++, t + n == steps};
        }
    }
    return all;
}

/* p_i and q_i = c p_i of sixteen units, in double; lanes without a unit say nothing */
typedef double deep __attribute__((vector_size(W * sizeof(double))));
typedef struct { deep e, ei, p, pi, c, ci; } Powers;
INLINE vec shallow(deep x) { return __builtin_convertvector(x, vec); }
INLINE deep deepened(const REAL *x) { return __builtin_convertvector(get(x), deep); }
INLINE Powers begin(const Space *z, I d, I n, const int parts) {
    Powers u = {};
    for (I k = 0; k < W && n + k < z->N; k++) {
        const I at = (d * z->N + n + k) * parts;
        const double size = exp((double)z->a[at]), angle = parts == 2 ? z->a[at + 1] : 0;
        u.p[k] = 1, u.c[k] = z->c[at], u.e[k] = parts == 2 ? size * cos(angle) : size;
        if (parts == 2) u.ei[k] = size * sin(angle), u.ci[k] = z->c[at + 1];
    }
    return u;
}
INLINE void onward(Powers *u, const int parts) {
    const deep p = u->p;
    u->p = parts == 1 ? p * u->e : p * u->e - u->pi * u->ei;
    if (parts == 2) u->pi = p * u->ei + u->pi * u->e;
}
/* write: C + 1 rows of M, p_C first; recall: C + 1 rows, conj q_0 first; taps: C */
INLINE void tables(const Space *z, I d, REAL *write, REAL *recall, REAL *taps, const int parts) {
    const I C = z->C, wide = up(z->N), M = wide * parts;
    deep sums[MOST + 1] = {};
    for (I n = 0; n < wide; n += W) {
        Powers u = begin(z, d, n, parts);
        for (I i = 0; i <= C; i++, onward(&u, parts)) {
            REAL *left = write + (C - i) * M + n, *read = recall + i * M + n;
            const deep q = parts == 1 ? u.c * u.p : u.c * u.p - u.ci * u.pi;
            put(left, shallow(u.p)), put(read, shallow(q)), sums[i] += q;
            if (parts == 2) put(left + wide, shallow(u.pi)), put(read + wide, shallow(-(u.c * u.pi + u.ci * u.p)));
        }
    }
    for (I i = 0; i < C; i++) {
        double s = i || !z->skip ? 0 : z->skip[d];
        for (I k = 0; k < W; k++) s += sums[i][k];
        taps[i] = s;
    }
}
/* gradients of a, c and the skip of those of what `tables` makes, the last tap's first */
INLINE void tables_back(const Space *z, I d, const REAL *write, const REAL *recall, const double *taps,
                        REAL *da, REAL *dc, REAL *dskip, const int parts) {
    const I C = z->C, wide = up(z->N), M = wide * parts;
    for (I n = 0; n < wide; n += W) {
        Powers u = begin(z, d, n, parts);
        deep a = {}, ai = {}, c = {}, ci = {};
        for (I i = 0; i <= C; i++, onward(&u, parts)) {
            const REAL *left = write + (C - i) * M + n, *read = recall + i * M + n;
            const double tap = i < C ? taps[C - 1 - i] : 0, steps = i;
            const deep q = tap + deepened(read);
            if (parts == 1) { c += u.p * q, a += steps * u.p * (deepened(left) + u.c * q); continue; }
            const deep qi = -deepened(read + wide), g = deepened(left) + u.c * q + u.ci * qi;
            const deep gi = deepened(left + wide) + u.c * qi - u.ci * q;
            c += u.p * q + u.pi * qi, ci += u.p * qi - u.pi * q;
            a += steps * (u.p * g + u.pi * gi), ai += steps * (u.p * gi - u.pi * g);
        }
        for (I k = 0; k < W && n + k < z->N; k++) {
            const I at = (d * z->N + n + k) * parts;
            da[at] = a[k], dc[at] = c[k];
            if (parts == 2) da[at + 1] = ai[k], dc[at + 1] = ci[k];
        }
    }
    if (dskip) dskip[d] = taps[C - 1];
}
/* y (n x m) = x' (m x n), both of sixteens */
INLINE void turn(REAL *y, const REAL *x, I m, I n) {
    for (I i = 0; i < m; i += W) for (I j = 0; j < n; j += W) transpose16(y + j * m + i, m, x + i * n + j, n);
}

/* sixteen features of the steps of some blocks, features first: C numbers a block, zeros after its last */
#define PANEL(z) (((z)->C + 1) * up((z)->N) * (z)->parts + W)
#define STRIDE(blocks, C) ((blocks) * (C) + W)                                 /* of a feature: no two on one cache line's place */
static void gather(REAL *to, I stride, const Block *blocks, I count, I C, Rows x, I d, I some) {
    for (I k = 0; k < count; k++) for (I t = 0; t < C; t += W) {
        const I left = blocks[k].n - t;
        const REAL *from = row(x, blocks[k].b, blocks[k].t + t, 0) + d;
        if (left >= W && some >= W) { transpose16(to + k * C + t, stride, from, x.t); continue; }
        REAL rows[W * W];
        for (I i = 0; i < W; i++) put(rows + i * W, i < left ? get_some(from + i * x.t, some) : (vec){});
        transpose16(to + k * C + t, stride, rows, W);
    }
    const I rest = -count & 7;                                                 /* products take eight rows */
    for (I f = 0; f < W; f++) memset(to + f * stride + count * C, 0, rest * C * sizeof(REAL));
}
static void scatter(REAL *to, const REAL *from, I stride, const Block *blocks, I count, const Space *z, I d, I some) {
    for (I k = 0; k < count; k++) for (I t = 0; t < blocks[k].n; t += W) {
        const I left = blocks[k].n - t;
        REAL *at = to + (blocks[k].b * z->T + blocks[k].t + t) * z->D + d;
        if (left >= W && some >= W) { transpose16(at, z->D, from + k * z->C + t, stride); continue; }
        REAL rows[W * W];
        transpose16(rows, W, from + k * z->C + t, stride);
        for (I i = 0; i < W && i < left; i++) put_some(at + i * z->D, get(rows + i * W), some);
    }
}
/* steps that did not happen */
static void silence(REAL *to, const Space *z) {
    for (I b = 0; z->counts && b < z->B; b++)
        memset(to + (b * z->T + z->counts[b]) * z->D, 0, (z->T - z->counts[b]) * z->D * sizeof(REAL));
}
/* a state in memory (B, D, N, parts) and here */
INLINE void from_pairs(REAL *h, const REAL *x, const Space *z, I b, I d, const int parts) {
    x += (b * z->D + d) * z->N * parts;
    for (I p = 0; p < parts; p++) for (I n = 0; n < up(z->N); n++) h[p * up(z->N) + n] = n < z->N ? x[n * parts + p] : 0;
}
INLINE void to_pairs(REAL *x, const REAL *h, const Space *z, I b, I d, const int parts) {
    x += (b * z->D + d) * z->N * parts;
    for (I p = 0; p < parts; p++) for (I n = 0; n < z->N; n++) x[n * parts + p] = h[p * up(z->N) + n];
}
/* products with the matrix of k_{i-j}, which is a window over the taps: a row begins a number before the one above */
INLINE void convolve(REAL *y, const REAL *x, const REAL *taps, I C, I rows) {
    for (I c = 0; c < C; c += 2 * W) {
        const I n = C - c < 2 * W ? C - c : 2 * W;
        product(y + c, C, y + c, 0, x, C, 1, taps + c, -1, rows, c + n, n / W);
    }
}
INLINE void correlate(REAL *y, const REAL *x, const REAL *backwards, I C, I rows) {
    for (I c = 0; c < C; c += 2 * W) {
        const I n = C - c < 2 * W ? C - c : 2 * W;
        product(y + c, C, 0, 0, x + c, C, 1, backwards, -1, rows, C - c, n / W);
    }
}

/* what a task has in the cache */
typedef struct { REAL *tables[3], *taps, *x, *g, *written, *h, *y, *carried, *first, *second; double *sums; I most; } Room;
static void furnish(Room *r, Arena *a, const Space *z, I count, int back) {
    const I C = z->C, M = up(z->N) * z->parts, panel = PANEL(z);
    r->most = count < AT_ONCE ? count / 8 * 8 + 8 : AT_ONCE;
    for (int i = 0; i < 3; i++) r->tables[i] = take(a, W * panel);
    r->taps = take(a, W * 2 * C), r->carried = take(a, W * M);
    r->x = take(a, W * STRIDE(r->most, C)), r->g = take(a, W * STRIDE(r->most, C));
    r->written = take(a, r->most * M), r->h = take(a, r->most * M), r->y = take(a, r->most * C);
    r->first = take(a, panel), r->second = take(a, W * panel * back);
    r->sums = (double *)take(a, W * C * sizeof(double) / sizeof(REAL) * back);
}

typedef struct { Space z; const REAL *given; REAL *last, *y, *kept /* NULL, or D, places, M */; I threads; } Forward;

INLINE void open(const Space *z, const Room *r, I d, I f, const int parts) {
    const I C = z->C, M = up(z->N) * parts, panel = PANEL(z);
    REAL *taps = r->taps + f * 2 * C;
    memset(taps, 0, C * sizeof(REAL));
    tables(z, d, r->tables[0] + f * panel, r->first, taps + C, parts);
    turn(r->tables[1] + f * panel, r->first + M, C, M);
}
INLINE void forward(const Forward *f, const Block *blocks, I count, I d, I lane, const Room *r, const int parts) {
    const Space *z = &f->z;
    const I C = z->C, wide = up(z->N), M = wide * parts, panel = PANEL(z), rows = (count + 7) / 8 * 8;
    const REAL *write = r->tables[0] + lane * panel, *recall = r->tables[1] + lane * panel;
    const REAL *x = r->x + lane * STRIDE(r->most, C);
    REAL *carried = r->carried + lane * M, *y = r->g + lane * STRIDE(r->most, C), *w = r->written;
    product(w, M, 0, 0, x, C, 1, write + M, M, rows, C, M / W);
    for (I k = 0; k < count; k++) {
        const Block at = blocks[k];
        REAL *h = r->h + k * M;
        const REAL *left = write + (C - at.n) * M;
        if (!at.t) from_pairs(carried, f->given, z, at.b, d, parts);
        if (at.kept < 0) memset(carried, 0, M * sizeof(REAL));
        else if (f->kept) memcpy(f->kept + (d * z->B * (z->T / C + 1) + at.kept) * M, carried, M * sizeof(REAL));
        memcpy(h, carried, M * sizeof(REAL));
        if (at.n < C) product(w + k * M, M, 0, 0, x + k * C, C, 1, left + M, M, 1, at.n, M / W);
        for (I n = 0; n < wide; n += W) {
            const vec a = get(left + n), b = get(h + n), drive = get(w + k * M + n);
            if (parts == 1) { put(carried + n, drive + a * b); continue; }
            const vec ai = get(left + wide + n), bi = get(h + wide + n);
            put(carried + n, drive + a * b - ai * bi);
            put(carried + wide + n, get(w + k * M + wide + n) + a * bi + ai * b);
        }
        if (at.ends) to_pairs(f->last, carried, z, at.b, d, parts);
    }
    memset(r->h + count * M, 0, (rows - count) * M * sizeof(REAL));
    product(y, C, 0, 0, r->h, M, 1, recall, C, rows, M, C / W);
    convolve(y, x, r->taps + lane * 2 * C + C, C, rows);
}

typedef struct {
    Space z;
    const REAL *kept;
    Rows dy;
    const REAL *dlast;
    REAL *dx, *da, *dc, *dskip, *dfirst;
    I threads;
} Backward;

INLINE void open_back(const Space *z, const Room *r, I d, I f, const int parts) {
    const I C = z->C, M = up(z->N) * parts, panel = PANEL(z);
    REAL *taps = r->taps + f * 2 * C, write[2 * MOST];
    tables(z, d, r->first, r->tables[0] + f * panel, write, parts);
    for (I i = 0; i < C; i++) taps[i] = write[C - 1 - i], taps[C + i] = 0;
    turn(r->tables[1] + f * panel, r->first + M, C, M);
    /* room for what is left of a state over a block, beside the panel that is turned over: where a row of it would be */
    memcpy(r->tables[1] + f * panel + C * M, r->first, M * sizeof(REAL));
    memset(r->tables[2] + f * panel, 0, panel * sizeof(REAL));
    memset(r->second + f * panel, 0, panel * sizeof(REAL));
    memset(r->sums + f * C, 0, C * sizeof(double));
}
INLINE void backward(const Backward *f, const Block *blocks, I count, I d, I lane, const Room *r, const int parts) {
    const Space *z = &f->z;
    const I C = z->C, wide = up(z->N), M = wide * parts, panel = PANEL(z), rows = (count + 7) / 8 * 8;
    const REAL *recall = r->tables[0] + lane * panel, *write = r->tables[1] + lane * panel;
    REAL *dwrite = r->tables[2] + lane * panel, *drecall = r->second + lane * panel;
    REAL *x = r->x + lane * STRIDE(r->most, C), *g = r->g + lane * STRIDE(r->most, C), *carried = r->carried + lane * M;
    REAL *y = r->y, *h = r->h, *w = r->written;
    double *sums = r->sums + lane * C;
    for (I k = 0; k < rows; k++) {
        const I place = k < count ? blocks[k].kept : -1;
        if (place < 0) memset(h + k * M, 0, M * sizeof(REAL));
        else memcpy(h + k * M, f->kept + (d * z->B * (z->T / C + 1) + place) * M, M * sizeof(REAL));
    }
    correlate(y, g, r->taps + lane * 2 * C + C - 1, C, rows);
    product(w, M, 0, 0, g, C, 1, recall + M, M, rows, C, M / W);
    for (I k = count - 1; k >= 0; k--) {
        const Block at = blocks[k];
        REAL left[M], *dleft = dwrite + (C - at.n) * M, *now = w + k * M, *before = h + k * M;
        for (I m = 0; m < M; m++) left[m] = at.n == C ? write[C * M + m] : write[m * C + C - 1 - at.n];
        if (at.ends) from_pairs(carried, f->dlast, z, at.b, d, parts);
        for (I n = 0; n < wide; n += W) {
            const vec a = get(left + n), b = get(before + n), up = get(carried + n), more = get(now + n);
            if (parts == 1) {
                put(dleft + n, get(dleft + n) + b * up), put(now + n, up), put(carried + n, more + a * up);
                continue;
            }
            const vec ai = get(left + wide + n), bi = get(before + wide + n), upi = get(carried + wide + n), morei = get(now + wide + n);
            put(dleft + n, get(dleft + n) + b * up + bi * upi);
            put(dleft + wide + n, get(dleft + wide + n) + b * upi - bi * up);
            put(now + n, up), put(now + wide + n, upi);
            put(carried + n, more + a * up + ai * upi), put(carried + wide + n, morei + a * upi - ai * up);
        }
        if (at.kept < 0) memset(carried, 0, M * sizeof(REAL));
        if (!at.t) to_pairs(f->dfirst, carried, z, at.b, d, parts);
        if (at.n == C) continue;
        /* a short block's steps lie first in its row: they are written as a whole block's last ones */
        for (I j = 0; j < at.n; j++) for (I m = 0; m < M; m += W) {
            REAL *to = dleft + (j + 1) * M + m;
            put(to, get(to) + x[k * C + j] * get(now + m));
        }
        for (I m = 0; m < M; m++) for (I j = 0; j < at.n; j++) y[k * C + j] += now[m] * write[m * C + C - at.n + j];
        memset(now, 0, M * sizeof(REAL));
    }
    memset(w + count * M, 0, (rows - count) * M * sizeof(REAL));
    product(y, C, y, 0, w, M, 1, write, C, rows, M, C / W);
    product(dwrite + M, M, dwrite + M, 0, x, 1, C, w, M, C, rows, M / W);
    product(drecall + M, M, drecall + M, 0, g, 1, C, h, M, C, rows, M / W);
    for (I c = 0; c < C; c += 2 * W) {
        const I n = C - c < 2 * W ? C - c : 2 * W;
        REAL pairs[MOST * 2 * W];
        product(pairs, n, 0, 0, g + c, 1, C, x + c, C, C - c, rows, n / W);
        for (I i = 0; i < C - c; i++) for (I j = 0; j < n && j <= i; j++) sums[C - 1 - i + j] += pairs[i * n + j];
    }
    memcpy(x, y, rows * C * sizeof(REAL));
}

#define EACH(pass, ...) for (I lane = 0; lane < some; lane++) if (z->parts == 1) pass(__VA_ARGS__, 1); else pass(__VA_ARGS__, 2);

static void forward_task(const Forward *f, const Block *blocks, I count, I d, I some, const Room *r) {
    const Space *z = &f->z;
    const I stride = STRIDE(r->most, z->C);
    EACH(open, z, r, d + lane, lane)
    for (I k = 0; k < count; k += r->most) {
        const I n = count - k < r->most ? count - k : r->most;
        gather(r->x, stride, blocks + k, n, z->C, z->x, d, some);
        EACH(forward, f, blocks + k, n, d + lane, lane, r)
        scatter(f->y, r->g, stride, blocks + k, n, z, d, some);
    }
}
static void backward_task(const Backward *f, const Block *blocks, I count, I d, I some, const Room *r) {
    const Space *z = &f->z;
    const I stride = STRIDE(r->most, z->C), panel = PANEL(z);
    EACH(open_back, z, r, d + lane, lane)
    for (I k = count ? (count - 1) / r->most * r->most : -1; k >= 0; k -= r->most) {
        const I n = count - k < r->most ? count - k : r->most;
        gather(r->x, stride, blocks + k, n, z->C, z->x, d, some);
        gather(r->g, stride, blocks + k, n, z->C, f->dy, d, some);
        EACH(backward, f, blocks + k, n, d + lane, lane, r)
        scatter(f->dx, r->x, stride, blocks + k, n, z, d, some);
    }
    EACH(tables_back, z, d + lane, r->tables[2] + lane * panel, r->second + lane * panel, r->sums + lane * z->C, f->da, f->dc, f->dskip)
}

#define EVERY_TASK(task, back) \
    I failed = 0, count; \
    Block *blocks = cut(z, &count); \
    if (!blocks) return 1; \
    _Pragma("omp parallel num_threads(enough(z->B * z->T * z->D * z->N, f->threads))") \
    { \
        unsigned old = flush_on(); \
        Arena a = {0}; \
        Room r; \
        furnish(&r, &a, z, count, back), allot(&a), furnish(&r, &a, z, count, back); \
        if (!a.base) failed = 1; \
        _Pragma("omp for schedule(static)") \
        for (I d = 0; d < z->D; d += W) if (a.base) task(f, blocks, count, d, z->D - d < W ? z->D - d : W, &r); \
        free(a.base); \
        flush_off(old); \
    } \
    free(blocks); \
    return failed;

I state_space_forward(const Forward *f, I fields) {
    CHECK(f, fields)
    const Space *z = &f->z;
    silence(f->y, z);
    memcpy(f->last, f->given, z->B * z->D * z->N * z->parts * sizeof(REAL));
    EVERY_TASK(forward_task, 0)
}
I state_space_backward(const Backward *f, I fields) {
    CHECK(f, fields)
    const Space *z = &f->z;
    silence(f->dx, z);
    memcpy(f->dfirst, f->dlast, z->B * z->D * z->N * z->parts * sizeof(REAL));
    EVERY_TASK(backward_task, 1)
}
