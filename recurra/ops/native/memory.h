/* memory: the drive of every matrix memory. Above this text a memory says READS, WRITES, EARLY and ENGINE; below it stands
 * its recurrence, which `recur` runs over a block of steps and `step` over one. `back.h` is the way back, of all of them.
 *
 *   S_t = D_t S_{t-1} + sum_w k_w x_w',   o = S' q_0,   x_0 = v,   D_t = diag(e^{g_t})
 *
 * READS == 2: a second query q_1 reads for the memory itself, r = S' q_1 (EARLY: of S_{t-1}, else of D_t S_{t-1}).
 * With two writes x_1 = r; with one x_0 = v + r, and what is given is -q_1: it erases. */
#include "chunk.h"
#define WINDOW 64
#define MORE (READS + WRITES - 2)
#define ERASES (READS > WRITES)
#define LAST (WRITES - 1)
/* a memory that reads for itself is a step late: the probe of what comes reads while the present is written */
#define LAG (READS - 1)
#define EACH(i, n) for (I i = 0; i < (n); i++)

typedef struct { Typed q, k, v, more[MORE], g; Shape shape; } Record;
typedef struct { Record z; REAL *last; void *o; REAL *marks; I threads; } Forward;
INLINE Typed query_of(const Record *r, I i) { return i ? r->more[0] : r->q; }
INLINE Typed key_of(const Record *r, I i) { return i ? r->more[MORE - 1] : r->k; }

/* Heads that one thread walks side by side: rows of one step lie together in memory, so doing a block of steps for many
 * heads before the next block reads whole pages; a head alone would touch a page for every step or two. Where heads are
 * fewer than threads, columns of values are shared out, in grains; a grain of 0 is never. */
typedef struct { I threads, group, parts, wide, lk, lv, size, tasks; } Plan;
static Plan plan(const Shape *z, I threads, I grain) {
    Plan p = {.threads = enough(z->B * z->T * z->H * z->K * z->V / 8, threads), .group = z->H, .parts = 1, .lk = up(z->K)};
    while (p.group % 2 == 0 && z->B * z->H / p.group < p.threads) p.group /= 2;
    if (z->B * z->H / p.group < p.threads) p.group = 1;
    I heads = z->B * z->H;
    p.wide = z->V;
    if (grain && heads < p.threads) {
        I grains = (z->V + grain - 1) / grain, parts = (p.threads + heads - 1) / heads;
        if (parts > grains) parts = grains;
        if (parts > 1) p.wide = (grains + parts - 1) / parts * grain;
        p.parts = (z->V + p.wide - 1) / p.wide;
    }
    p.lv = up(p.wide), p.size = p.lk * p.lv, p.tasks = heads / p.group * p.parts;
    return p;
}
/* the first head and the columns of a task */
INLINE Piece piece_of(const Shape *z, const Plan *p, I task) {
    I head = task / p->parts * p->group, lo = task % p->parts * p->wide;
    return (Piece){.b = head / z->H, .h = head % z->H, .lo = lo, .wide = lo + p->wide < z->V ? p->wide : z->V - lo};
}
INLINE At state_of(const REAL *x, const Shape *z, Piece c) { return plain(x + (c.b * z->H + c.h) * z->K * z->V + c.lo, z->V); }
/* the states before every window but the first: (B, H, windows - 1, K, V) */
INLINE At mark_of(REAL *marks, const Shape *z, Piece c) {
    I later = (z->T - 1) / WINDOW;
    return plain(marks + (((c.b * z->H + c.h) * later + c.t / WINDOW - 1) * z->K) * z->V + c.lo, z->V);
}
INLINE At values_of(void *x, const Record *r, Piece c) {
    return plus_columns(dense(x, r->v.type, &r->shape, c, r->shape.V), c.lo);
}

/* Rows of a block. Row 0 of q[0] and k is zero where LAG, and row n of the probe; row n of d is one. */
typedef struct { const Forward *f; I lk, lv; REAL *q[READS], *k[WRITES], *d, *v, *o; } Walking;
static void recur(const Walking *p, I h, REAL *s, I n);
static I steps(const Record *r, REAL *last, void *out, I threads);
/* a single step of every head, four vecs of values at a time, one, and what is left */
#define STEPS static I steps(const Record *r, REAL *last, void *out, I threads) { \
    const Shape *z = &r->shape; \
    _Pragma("omp parallel for num_threads(threads)") \
    for (I task = 0; task < z->B * z->H; task++) { \
        unsigned old = flush_on(); \
        I b = task / z->H, h = task % z->H, j = 0; \
        for (; j + 4 * W <= z->V; j += 4 * W) step(4, 4 * W, r, b, h, j, last, out); \
        for (; j + W <= z->V; j += W) step(1, W, r, b, h, j, last, out); \
        if (j < z->V) step(1, z->V - j, r, b, h, j, last, out); \
        flush_off(old); \
    } \
    return 0; }

static void walking(Walking *p, Arena *a) {
    const I rows = BLOCK + LAG;
    EACH(r, READS) p->q[r] = take(a, rows * p->lk);
    EACH(w, WRITES) p->k[w] = take(a, rows * p->lk);
    p->d = take(a, rows * p->lk), p->v = take(a, BLOCK * p->lv), p->o = take(a, BLOCK * p->lv);
}
static void walk(Walking *p, Piece c, REAL *s) {
    const Record *r = &p->f->z;
    const Shape *z = &r->shape;
    const I n = c.n, m = n + LAG, K = z->K, lk = p->lk;
    pack(p->q[0] + LAG * lk, lk, rows_of(r->q, c), n, n, K, BLOCK);
    if (LAG) pack(p->q[LAG], lk, rows_of(query_of(r, 1), c), n, m, K, BLOCK);
    EACH(w, WRITES) pack(p->k[w] + LAG * lk, lk, rows_of(key_of(r, w), c), n, n, K, BLOCK);
    pack(p->v, p->lv, plus_columns(rows_of(r->v, c), c.lo), n, n, c.wide, BLOCK);
    if (LAG || z->gw || z->before) decays(p->d, lk, rows_of(r->g, c), n, m, K, z->gw, BLOCK);
    recur(p, c.h, s, n);
    unpack(values_of(p->f->o, r, c), p->o, p->lv, n, c.wide);
}
#define STATE(h) (states + ((h) - h0) * p->size)
static void forwards(const Forward *f, const Plan *p, I task, REAL *states, Walking *own) {
    const Shape *z = &f->z.shape;
    Piece c = piece_of(z, p, task);
    const I h0 = c.h, till = h0 + p->group;
    for (; c.h < till; c.h++) pack(STATE(c.h), p->lv, state_of(z->first, z, c), z->K, p->lk, c.wide, 0);
    for (; c.t < z->T; c.t += c.n) {
        c.n = end_of(z, c.b, c.t, BLOCK) - c.t, c.fresh = fresh(z, c.b, c.t);
        for (c.h = h0; c.h < till; c.h++) {
            if (c.fresh) memset(STATE(c.h), 0, p->size * sizeof(REAL));
            if (f->marks && c.t && c.t % WINDOW == 0) unpack(mark_of(f->marks, z, c), STATE(c.h), p->lv, z->K, c.wide);
            walk(own, c, STATE(c.h));
        }
    }
    for (c.h = h0; c.h < till; c.h++) unpack(state_of(f->last, z, c), STATE(c.h), p->lv, z->K, c.wide);
}
I ENGINE(forward)(const Forward *f, I fields) {
    CHECK(f, fields)
    const Shape *z = &f->z.shape;
    const Plan p = plan(z, f->threads, W);
    if (z->T == 1) return steps(&f->z, f->last, f->o, p.threads);
    I failed = 0;
    #pragma omp parallel num_threads(p.threads)
    {
        unsigned old = flush_on();
        Walking own = {.f = f, .lk = p.lk, .lv = p.lv};
        Arena a = {0};
        REAL *states = 0;
        for (int round = 0; round < 2; round++) {
            if (round) allot(&a);
            walking(&own, &a), states = take(&a, p.group * p.size);
        }
        if (!a.base) failed = 1;
        else if (LAG) memset(a.base, 0, (states - a.base) * sizeof(REAL));
        #pragma omp for schedule(dynamic)
        for (I task = 0; task < p.tasks; task++)
            if (a.base) forwards(f, &p, task, states, &own);
        free(a.base);
        flush_off(old);
    }
    return failed;
}
