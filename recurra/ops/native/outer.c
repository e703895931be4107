/* outer:  S_t = diag(e^{g_t}) S_{t-1} + k_t v_t',   o_t = S_t' q_t   (before: o_t = S_{t-1}' q_t + (q_t . u k_t) v_t)
 *
 * Forward is the recurrence itself with a tile of S held in registers over a block of steps: three vector
 * instructions for each sixteen entries of S, no store of S but at the end of the block. Backward is by chunks of
 * sixteen steps, where gradients of q, k, v and S are six small matrix products. */
#include "chunk.h"

/* R rows of S by U vecs of values, over n steps; rows of k, q, d are broadcast from memory. The mode is a constant
 * in each variant: with a branch inside the loop the compiler shares products across it and spills. */
static void bonus(REAL *o, const REAL *q, const REAL *k, const REAL *v, const REAL *u, I n, I K, I lk, I lv) {
    for (I i = 0; i < n; i++, q += lk, k += lk) {
        REAL x = 0;
        for (I j = 0; j < K; j++) x += q[j] * k[j] * u[j];
        for (I j = 0; j < lv; j += W) put(o + i * lv + j, x * get(v + i * lv + j));
    }
}
enum { PLAIN, AFTER, BEFORE };
#define WALK(R, U, MODE) \
static void walk_##R##x##U##_##MODE(REAL *S, REAL *o, const REAL *q, const REAL *k, const REAL *d, const REAL *v, I n, I lk, I lv) { \
    vec s[R][U], x[U], y[U]; \
    for (int i = 0; i < R; i++) for (int u = 0; u < U; u++) s[i][u] = get(S + i * lv + u * W); \
    for (I t = 0; t < n; t++, q += lk, k += lk, d += lk, v += lv, o += lv) { \
        for (int u = 0; u < U; u++) x[u] = get(v + u * W), y[u] = get(o + u * W); \
        for (int i = 0; i < R; i++) for (int u = 0; u < U; u++) { \
            if (MODE == BEFORE) y[u] += q[i] * s[i][u]; \
            s[i][u] = (MODE == PLAIN ? s[i][u] : d[i] * s[i][u]) + k[i] * x[u]; \
            if (MODE != BEFORE) y[u] += q[i] * s[i][u]; } \
        for (int u = 0; u < U; u++) put(o + u * W, y[u]); } \
    for (int i = 0; i < R; i++) for (int u = 0; u < U; u++) put(S + i * lv + u * W, s[i][u]); }
#define WALKS(MODE) WALK(8, 2, MODE) WALK(16, 1, MODE) \
static void walk_##MODE(REAL *S, REAL *o, const REAL *q, const REAL *k, const REAL *d, const REAL *v, I n, I lk, I lv) { \
    I j = 0; \
    for (; j + W < lv; j += 2 * W) for (I i = 0; i < lk; i += 8) walk_8x2_##MODE(S + i * lv + j, o + j, q + i, k + i, d + i, v + j, n, lk, lv); \
    for (; j < lv; j += W) for (I i = 0; i < lk; i += 16) walk_16x1_##MODE(S + i * lv + j, o + j, q + i, k + i, d + i, v + j, n, lk, lv); }
WALKS(PLAIN) WALKS(AFTER) WALKS(BEFORE)

typedef struct { Typed q, k, v, g; Shape shape; const REAL *u; I before; } Outer;

typedef struct { Outer z; REAL *last; void *o; REAL *marks; I threads; } Forward;

/* A single step goes from the first state straight into the last: `some` values of a head, in U vecs. */
INLINE void step(const int U, I some, const Outer *r, I b, I h, I j, REAL *last, void *out) {
    const Shape *z = &r->shape;
    const I K = z->K, V = z->V, begin = (b * z->H + h) * K * V + j, gw = z->gw, before = r->before;
    const At q = at(r->q, b, 0, h), k = at(r->k, b, 0, h), v = plus_columns(at(r->v, b, 0, h), j), g = at(r->g, b, 0, h);
    const REAL *u = r->u ? r->u + h * K : 0, *first = z->first + begin;
    REAL d[W], keys[W], queries[W];
    vec x[4], y[4] = {};
    UNROLL for (int i = 0; i < U; i++) x[i] = load_some(v.x + i * W * bytes(v.type), v.type, some - i * W);
    if (gw < 2) put(d, gw ? exps(all(number(g, 0))) : all(1));
    for (I c = 0; c < K; c++) {
        if (c % W == 0) {
            if (gw > 1) put(d, exps(load_some(plus_columns(g, c).x, g.type, K - c)));
            put(keys, load_some(plus_columns(k, c).x, k.type, K - c));
            put(queries, load_some(plus_columns(q, c).x, q.type, K - c));
        }
        UNROLL for (int i = 0; i < U; i++) {
            vec s = fresh(z, b, 0) ? (vec){} : get_some(first + c * V + i * W, some - i * W), w = keys[c % W] * x[i];
            if (before) y[i] += queries[c % W] * (u ? s + u[c] * w : s);
            s = d[c % W] * s + w;
            if (!before) y[i] += queries[c % W] * s;
            put_some(last + begin + c * V + i * W, s, some - i * W);
        }
    }
    I size = bytes(v.type);
    UNROLL for (int i = 0; i < U; i++)
        store_some((char *)out + ((b * z->H + h) * V + j + i * W) * size, v.type, y[i], some - i * W);
}
STEPS(Outer)

typedef struct { const Outer *r; void *out; REAL *q, *k, *d, *v, *o; I lk, lv; } Walking;
static void walk(void *own, Piece c, REAL *s) {
    const Walking *p = own;
    const Outer *r = p->r;
    const Shape *z = &r->shape;
    const I n = c.n, K = z->K, lk = p->lk, lv = p->lv;
    pack(p->q, lk, rows_of(r->q, c), n, n, K, BLOCK);
    pack(p->k, lk, rows_of(r->k, c), n, n, K, BLOCK);
    pack(p->v, lv, plus_columns(rows_of(r->v, c), c.lo), n, n, c.wide, BLOCK);
    if (z->gw || r->before) decays(p->d, lk, rows_of(r->g, c), n, n, K, z->gw, BLOCK);
    memset(p->o, 0, n * lv * sizeof(REAL));
    if (r->before && r->u) bonus(p->o, p->q, p->k, p->v, r->u + c.h * K, n, K, lk, lv);
    if (r->before) walk_BEFORE(s, p->o, p->q, p->k, p->d, p->v, n, lk, lv);
    else if (z->gw) walk_AFTER(s, p->o, p->q, p->k, p->d, p->v, n, lk, lv);
    else walk_PLAIN(s, p->o, p->q, p->k, p->d, p->v, n, lk, lv);
    unpack(plus_columns(dense(p->out, r->v.type, z, c, z->V), c.lo), p->o, lv, n, c.wide);
}

I outer_forward(const Forward *f, I fields) {
    CHECK(f, fields)
    const Shape *z = &f->z.shape;
    const Plan p = plan(z, f->threads, 1);
    if (z->T == 1) return steps(&f->z, f->last, f->o, p.threads);
    I failed = 0;
    #pragma omp parallel num_threads(p.threads)
    {
        unsigned old = flush_on();
        Arena a = arena(BLOCK * (3 * p.lk + 2 * p.lv) + p.group * p.size);
        Walking own = {&f->z, f->o, KEYS(BLOCK), KEYS(BLOCK), KEYS(BLOCK), VALUES(BLOCK), VALUES(BLOCK), p.lk, p.lv};
        REAL *states = take(&a, p.group * p.size);
        if (!a.base) failed = 1;
        #pragma omp for schedule(dynamic)
        for (I task = 0; task < p.tasks; task++)
            if (a.base) forwards(z, &p, task, states, f->marks, f->last, &own, walk);
        free(a.base);
        flush_off(old);
    }
    return failed;
}

/* dS: the gradient of the last state in, of the first out. dg has the shape of g. du is (B, H, K), to be summed. */
typedef struct { Outer z; REAL *marks; void *dy; REAL *dS; void *dq, *dk, *dv, *dg; REAL *du; I threads; } Backward;

typedef struct {
    const Backward *f;
    I lk, lv;
    REAL *q, *k, *d, *qf, *kf, *w, *gq, *gk, *gg, *x, *v, *o, *gv, *of, *vf, *A, *G, *P, *table, *since, *until, *whole, *u, *gu;
} Panels;

/* a piece's keys, values and decays */
static void read_piece(Panels *p, Piece c, I ahead) {
    const Outer *r = &p->f->z;
    const Shape *z = &r->shape;
    pack(p->k, p->lk, rows_of(r->k, c), c.n, CHUNK, z->K, ahead);
    pack(p->v, p->lv, plus_columns(rows_of(r->v, c), c.lo), c.n, CHUNK, c.wide, ahead);
    if (z->gw < 2 && !r->before) {
        scalar_spans(p->since, p->until, p->table, rows_of(r->g, c), c.n, z->gw);
        fill(p->whole, p->since[c.n - 1], p->lk), scale_rows(p->vf, p->v, p->until, c.n, CHUNK, p->lv);
    } else decays(p->d, p->lk, rows_of(r->g, c), c.n, CHUNK, z->K, z->gw, ahead);
}
static void advance(void *own, Piece c, REAL *to, const REAL *s) {
    Panels *p = own;
    const I lk = p->lk, lv = p->lv, scalar = p->f->z.shape.gw < 2 && !p->f->z.before;
    read_piece(p, c, CHUNK);
    if (!scalar) spans(p->qf, p->kf, p->whole, p->k, p->k, p->d, c.n, lk, 0);
    product(to, lv, s, p->whole, scalar ? p->k : p->kf, 1, lk, scalar ? p->vf : p->v, lv, lk, c.n, lv / W);
}
/* one decay for all keys, or none, is numbers and a table */
static void scalar_back(Panels *p, Piece c, const REAL *s, REAL *ds, At dg) {
    const I n = c.n, lk = p->lk, lv = p->lv;
    scale_rows(p->of, p->o, p->since, n, CHUNK, lv);
    columns(p->x, p->v, lv), product(p->G, W, 0, 0, p->o, lv, 1, p->x, W, n, lv, 1);              /* G = do v' */
    weigh(p->G, p->G, p->table, n, 0);
    columns(p->x, p->k, lk), product(p->A, W, 0, 0, p->q, lk, 1, p->x, W, n, lk, 1);              /* A = q k' */
    columns(p->x, p->of, lv), through_state(p->gq, p->w, s, p->x, lk, lv);                        /* do S' */
    columns(p->x, p->vf, lv), through_state(p->gk, p->w, ds, p->x, lk, lv);                       /* v dS' */
    if (dg.x) {
        weigh(p->P, p->A, p->G, n, 0);
        scalar_decay_gradient(dg, p->since[n - 1] * dot(s, ds, lk * lv), row_dots(p->gq, p->q, n, lk), row_dots(p->gk, p->k, n, lk), p->P, n);
    }
    weigh(p->A, p->A, p->table, n, 0);
    product(p->gv, lv, 0, 0, p->k, lk, 1, ds, lv, n, lk, lv / W);                                 /* dv = (decayed k) dS + A' do */
    product(p->gv, lv, p->gv, p->until, p->A, 1, W, p->o, lv, n, n, lv / W);
    product(p->gq, lk, p->gq, 0, p->G, W, 1, p->k, lk, n, n, lk / W);
    product(p->gk, lk, p->gk, 0, p->G, 1, W, p->q, lk, n, n, lk / W);
    product(ds, lv, ds, p->whole, p->q, 1, lk, p->of, lv, lk, n, lv / W);
}
/* one for each key is products along the chunk */
static void key_back(Panels *p, Piece c, const REAL *s, REAL *ds, I wanted) {
    const I n = c.n, lk = p->lk, lv = p->lv, before = p->f->z.before;
    REAL *gg = wanted ? p->gg : 0;
    spans(p->qf, p->kf, p->whole, p->q, p->k, p->d, n, lk, before);
    pairs(p->A, p->q, p->k, p->d, p->u, p->w, n, lk, before, 0);
    columns(p->x, p->v, lv), product(p->G, W, 0, 0, p->o, lv, 1, p->x, W, n, lv, 1);              /* G = do v' */
    through_state(p->gk, p->w, ds, p->x, lk, lv);                                                 /* v dS' */
    columns(p->x, p->o, lv), through_state(p->gq, p->w, s, p->x, lk, lv);                         /* do S' */
    product(p->gv, lv, 0, 0, p->kf, lk, 1, ds, lv, n, lk, lv / W);                                /* dv = (decayed k) dS + A' do */
    product(p->gv, lv, p->gv, 0, p->A, 1, W, p->o, lv, n, n, lv / W);
    if (gg) edge_state(gg, p->whole, s, ds, n, lk, lv), edge_keys(gg, p->gk, p->kf, n, lk), edge_queries(gg, p->gq, p->qf, n, lk, before);
    unspan_queries(p->gq, p->d, n, lk, before), unspan_keys(p->gk, p->d, n, lk);
    pairs_back(p->gq, p->gk, gg, p->gu + c.h * lk, p->G, p->q, p->k, p->d, p->u, n, lk, before, 0);
    product(ds, lv, ds, p->whole, p->qf, 1, lk, p->o, lv, lk, n, lv / W);
}
static void back(void *own, Piece c, const REAL *s, REAL *ds) {
    Panels *p = own;
    const Backward *f = p->f;
    const Outer *r = &f->z;
    const Shape *z = &r->shape;
    const I n = c.n, K = z->K, lk = p->lk, lv = p->lv, scalar = z->gw < 2 && !r->before;
    read_piece(p, c, -CHUNK);
    pack(p->q, lk, rows_of(r->q, c), n, CHUNK, K, -CHUNK);
    pack(p->o, lv, plus_columns(dense(f->dy, r->v.type, z, c, z->V), c.lo), n, CHUNK, c.wide, -CHUNK);
    At dg = f->dg ? dense(f->dg, r->g.type, z, c, z->gw > 1 ? K : 1) : (At){0};
    if (r->u) pack(p->u, lk, plain(r->u + c.h * K, K), 1, 1, K, 0); else memset(p->u, 0, lk * sizeof(REAL));
    if (scalar) scalar_back(p, c, s, ds, dg);
    else key_back(p, c, s, ds, f->dg != 0);
    unpack(dense(f->dq, r->q.type, z, c, K), p->gq, lk, n, K);
    unpack(dense(f->dk, r->k.type, z, c, K), p->gk, lk, n, K);
    unpack(plus_columns(dense(f->dv, r->v.type, z, c, z->V), c.lo), p->gv, lv, n, c.wide);
    if (dg.x && z->gw > 1) unpack(dg, p->gg, lk, n, K);
    if (dg.x && z->gw == 1 && !scalar) row_sums(dg, p->gg, lk, n);
}

I outer_backward(const Backward *f, I fields) {
    CHECK(f, fields)
    const Shape *z = &f->z.shape;
    const Plan p = plan(z, f->threads, 0);
    const I H = z->H, K = z->K;
    I failed = 0;
    #pragma omp parallel num_threads(p.threads)
    {
        unsigned old = flush_on();
        const I lk = p.lk, lv = p.lv, most = lk > lv ? lk : lv;
        Arena a = arena(CHUNK * (8 * lk + 5 * lv + 3 * most + 4 * W) + 2 * W + (2 + H) * lk + room(&p));
        Panels own = {f, lk, lv, KEYS(CHUNK), KEYS(CHUNK), KEYS(CHUNK), KEYS(CHUNK), KEYS(CHUNK), take(&a, CHUNK * most), KEYS(CHUNK),
            KEYS(CHUNK), KEYS(CHUNK), take(&a, CHUNK * most), VALUES(CHUNK), VALUES(CHUNK), VALUES(CHUNK), VALUES(CHUNK), VALUES(CHUNK),
            TABLE, TABLE, TABLE, TABLE, take(&a, W), take(&a, W), take(&a, lk), take(&a, lk), take(&a, H * lk)};
        REAL *space = take(&a, room(&p));
        if (!a.base) failed = 1;
        #pragma omp for schedule(dynamic)
        for (I task = 0; task < p.tasks; task++) {
            if (!a.base) continue;
            memset(own.gu, 0, H * lk * sizeof(REAL));
            backwards(z, &p, task, space, f->marks, f->dS, &own, advance, back);
            Piece c = piece_of(z, &p, task);
            for (I h = c.h; f->du && h < c.h + p.group; h++) unpack(plain(f->du + (c.b * H + h) * K, K), own.gu + h * lk, lk, 1, K);
        }
        free(a.base);
        flush_off(old);
    }
    return failed;
}
