/* delta:  S_t = D_t S_{t-1} + k_t u_t',   u_t = v_t - (D_t S_{t-1})' p_t,   o_t = S_t' q_t,   D_t = diag(e^{g_t})
 *
 * Forward is the recurrence, one pass over S a step: while the write of step t goes in and q reads it, the decay of
 * step t + 1 is applied and p of step t + 1 reads the result. Backward is by chunks of sixteen steps (the UT form: a
 * unit triangular solve gives the chunk's u at once). */
#include "chunk.h"

/* n steps for U vecs of values. Row 0 of q, k and row n of d (ones), p (zeros) are the caller's: step -1 writes
 * nothing and only applies the first decay; the last step applies none. */
#define WALK(U) \
static void walk_##U(REAL *S, REAL *o, const REAL *q, const REAL *k, const REAL *d, const REAL *p, const REAL *v, I n, I K, I lk, I lv) { \
    vec u[U] = {}; \
    for (I t = 0; t <= n; t++, q += lk, k += lk, d += lk, p += lk) { \
        vec y[U] = {}, r[U] = {}; \
        for (I c = 0; c < K; c++) { \
            vec kc = all(k[c]), qc = all(q[c]), dc = all(d[c]), pc = all(p[c]); \
            _Pragma("GCC unroll 4") for (int j = 0; j < U; j++) { \
                vec s = get(S + c * lv + j * W) + kc * u[j]; \
                y[j] += qc * s; \
                s *= dc; \
                r[j] += pc * s; \
                put(S + c * lv + j * W, s); } } \
        for (int j = 0; j < U; j++) { \
            if (t > 0) put(o + (t - 1) * lv + j * W, y[j]); \
            if (t < n) u[j] = get(v + t * lv + j * W) - r[j]; } } }
WALK(4) WALK(2) WALK(1)

typedef struct { Typed q, k, v, p, g; Shape shape; } Delta;

typedef struct { Delta z; REAL *last; void *o; REAL *marks; I threads; } Forward;

/* A single step goes from the first state straight into the last, in two passes: what the key recalls, then the write.
 * `some` values of a head, in U vecs. */
INLINE void step(const int U, I some, const Delta *r, I b, I h, I j, REAL *last, void *out) {
    const Shape *z = &r->shape;
    const I K = z->K, V = z->V, begin = (b * z->H + h) * K * V + j, gw = z->gw;
    const At q = at(r->q, b, 0, h), k = at(r->k, b, 0, h), v = plus_columns(at(r->v, b, 0, h), j), g = at(r->g, b, 0, h),
             p = at(r->p, b, 0, h);
    const REAL *first = z->first + begin;
    REAL d[W], keys[W], others[W];
    vec x[4], y[4] = {};
    UNROLL for (int i = 0; i < U; i++) x[i] = load_some(v.x + i * W * bytes(v.type), v.type, some - i * W);
    if (gw < 2) put(d, gw ? exps(all(number(g, 0))) : all(1));
    for (I c = 0; c < K; c++) {
        if (gw > 1 && c % W == 0) put(d, exps(load_some(plus_columns(g, c).x, g.type, K - c)));
        if (c % W == 0) put(others, load_some(plus_columns(p, c).x, p.type, K - c));
        UNROLL for (int i = 0; i < U; i++) {
            vec s = fresh(z, b, 0) ? (vec){} : d[c % W] * get_some(first + c * V + i * W, some - i * W);
            x[i] -= others[c % W] * s;
            put_some(last + begin + c * V + i * W, s, some - i * W);
        }
    }
    for (I c = 0; c < K; c++) {
        if (c % W == 0) put(keys, load_some(plus_columns(k, c).x, k.type, K - c)), put(others, load_some(plus_columns(q, c).x, q.type, K - c));
        UNROLL for (int i = 0; i < U; i++) {
            REAL *s = last + begin + c * V + i * W;
            vec new = get_some(s, some - i * W) + keys[c % W] * x[i];
            y[i] += others[c % W] * new;
            put_some(s, new, some - i * W);
        }
    }
    I size = bytes(v.type);
    UNROLL for (int i = 0; i < U; i++)
        store_some((char *)out + ((b * z->H + h) * V + j + i * W) * size, v.type, y[i], some - i * W);
}
STEPS(Delta)

typedef struct { const Delta *r; void *out; REAL *q, *k, *d, *p, *v, *o; I lk, lv; } Walking;
static void walk(void *own, Piece c, REAL *s) {
    const Walking *p = own;
    const Delta *r = p->r;
    const Shape *z = &r->shape;
    const I n = c.n, K = z->K, lk = p->lk, lv = p->lv;
    pack(p->q + lk, lk, rows_of(r->q, c), n, n, K, BLOCK);
    pack(p->k + lk, lk, rows_of(r->k, c), n, n, K, BLOCK);
    pack(p->p, lk, rows_of(r->p, c), n, n + 1, K, BLOCK);
    pack(p->v, lv, plus_columns(rows_of(r->v, c), c.lo), n, n, c.wide, BLOCK);
    decays(p->d, lk, rows_of(r->g, c), n, n + 1, K, z->gw, BLOCK);
    I j = 0;
    #define GO(U) for (; j + (U - 1) * W < lv; j += U * W) walk_##U(s + j, p->o + j, p->q, p->k, p->d, p->p, p->v + j, n, K, lk, lv);
    GO(4) GO(2) GO(1)
    unpack(plus_columns(dense(p->out, r->v.type, z, c, z->V), c.lo), p->o, lv, n, c.wide);
}

I delta_forward(const Forward *f, I fields) {
    CHECK(f, fields)
    const Shape *z = &f->z.shape;
    const Plan p = plan(z, f->threads, 1);
    if (z->T == 1) return steps(&f->z, f->last, f->o, p.threads);
    I failed = 0;
    #pragma omp parallel num_threads(p.threads)
    {
        unsigned old = flush_on();
        Arena a = arena((BLOCK + 1) * (4 * p.lk + 2 * p.lv) + p.group * p.size);
        Walking own = {&f->z, f->o, KEYS(BLOCK + 1), KEYS(BLOCK + 1), KEYS(BLOCK + 1), KEYS(BLOCK + 1), VALUES(BLOCK), VALUES(BLOCK), p.lk, p.lv};
        REAL *states = take(&a, p.group * p.size);
        if (!a.base) failed = 1;
        else memset(own.q, 0, p.lk * sizeof(REAL)), memset(own.k, 0, p.lk * sizeof(REAL));
        #pragma omp for schedule(dynamic)
        for (I task = 0; task < p.tasks; task++)
            if (a.base) forwards(z, &p, task, states, f->marks, f->last, &own, walk);
        free(a.base);
        flush_off(old);
    }
    return failed;
}

/* dS: the gradient of the last state in, of the first out. dg has the shape of g. */
typedef struct { Delta z; REAL *marks; void *dy; REAL *dS; void *dq, *dk, *dv, *dp, *dg; I threads; } Backward;

typedef struct {
    const Backward *f;
    I lk, lv;
    REAL *q, *k, *d, *p, *qf, *pf, *kf, *w, *gq, *gk, *gp, *gg, *x, *o, *u, *y, *of, *yf, *uf, *A, *L, *GA, *GL, *P,
         *table, *since, *until, *whole;
} Panels;

/* A piece and its u, from the state it finds. One decay for all keys of a head, or none, is numbers and a table; one for
 * each key is products along the chunk. pf: the erase keys as they reach back to that state, negative. */
static void read_piece(Panels *p, Piece c, const REAL *s, I ahead) {
    const Delta *r = &p->f->z;
    const Shape *z = &r->shape;
    const I n = c.n, lk = p->lk, lv = p->lv;
    pack(p->k, lk, rows_of(r->k, c), n, CHUNK, z->K, ahead);
    pack(p->p, lk, rows_of(r->p, c), n, CHUNK, z->K, ahead);
    pack(p->u, lv, plus_columns(rows_of(r->v, c), c.lo), n, CHUNK, c.wide, ahead);
    if (z->gw < 2) {
        scalar_spans(p->since, p->until, p->table, rows_of(r->g, c), n, z->gw);
        fill(p->whole, p->since[n - 1], lk), scale_rows(p->pf, p->p, p->since, n, n, lk);
        columns(p->x, p->k, lk), product(p->L, W, 0, 0, p->p, lk, 1, p->x, W, n, lk, 1), weigh(p->L, p->L, p->table, n, 1);
    } else {
        decays(p->d, lk, rows_of(r->g, c), n, CHUNK, z->K, z->gw, ahead);
        spans(p->pf, p->kf, p->whole, p->p, p->k, p->d, n, lk, 0);
        pairs(p->L, p->p, p->k, p->d, 0, p->w, n, lk, 0, 1);
    }
    negate(p->pf, n * lk);
    product(p->u, lv, p->u, 0, p->pf, lk, 1, s, lv, n, lk, lv / W);
    solve(p->u, p->L, n, lv);
    if (z->gw < 2) scale_rows(p->uf, p->u, p->until, n, CHUNK, lv);
}
static void advance(void *own, Piece c, REAL *to, const REAL *s) {
    Panels *p = own;
    const I lk = p->lk, lv = p->lv, scalar = p->f->z.shape.gw < 2;
    read_piece(p, c, s, CHUNK);
    product(to, lv, s, p->whole, scalar ? p->k : p->kf, 1, lk, scalar ? p->uf : p->u, lv, lk, c.n, lv / W);
}
/* dv = y, from du = scale (k dS) + A' do; then dA = do u' and dL = -y u' */
static void solve_back(Panels *p, I n, const REAL *scale) {
    const I lv = p->lv;
    product(p->y, lv, p->y, scale, p->A, 1, W, p->o, lv, n, n, lv / W);
    solve_transposed(p->y, p->L, n, lv);
    if (n < CHUNK) memset(p->y + n * lv, 0, (CHUNK - n) * lv * sizeof(REAL));
    columns(p->x, p->u, lv);
    product(p->GA, W, 0, 0, p->o, lv, 1, p->x, W, n, lv, 1);
    product(p->GL, W, 0, 0, p->y, lv, 1, p->x, W, n, lv, 1), negate(p->GL, n * W);
}
static void scalar_back(Panels *p, Piece c, const REAL *s, REAL *ds, At dg) {
    const I n = c.n, lk = p->lk, lv = p->lv;
    columns(p->x, p->k, lk), product(p->A, W, 0, 0, p->q, lk, 1, p->x, W, n, lk, 1), weigh(p->A, p->A, p->table, n, 0);
    product(p->y, lv, 0, 0, p->k, lk, 1, ds, lv, n, lk, lv / W);
    solve_back(p, n, p->until);
    scale_rows(p->of, p->o, p->since, n, CHUNK, lv), scale_rows(p->yf, p->y, p->since, n, CHUNK, lv), negate(p->yf, n * lv);
    columns(p->x, p->of, lv), through_state(p->gq, p->w, s, p->x, lk, lv);                        /* do S' */
    columns(p->x, p->yf, lv), through_state(p->gp, p->w, s, p->x, lk, lv);                        /* -y S' */
    columns(p->x, p->uf, lv), through_state(p->gk, p->w, ds, p->x, lk, lv);                       /* u dS' */
    if (dg.x) {
        for (I i = 0; i < n * W; i += W) put(p->P + i, get(p->A + i) * get(p->GA + i) + get(p->L + i) * get(p->GL + i));
        vec reads = row_dots(p->gq, p->q, n, lk) + row_dots(p->gp, p->p, n, lk);
        scalar_decay_gradient(dg, p->since[n - 1] * dot(s, ds, lk * lv), reads, row_dots(p->gk, p->k, n, lk), p->P, n);
    }
    weigh(p->GA, p->GA, p->table, n, 0), weigh(p->GL, p->GL, p->table, n, 1);
    product(p->gq, lk, p->gq, 0, p->GA, W, 1, p->k, lk, n, n, lk / W);
    product(p->gp, lk, p->gp, 0, p->GL, W, 1, p->k, lk, n, n, lk / W);
    product(p->gk, lk, p->gk, 0, p->GA, 1, W, p->q, lk, n, n, lk / W);
    product(p->gk, lk, p->gk, 0, p->GL, 1, W, p->p, lk, n, n, lk / W);
    product(ds, lv, ds, p->whole, p->q, 1, lk, p->of, lv, lk, n, lv / W);
    product(ds, lv, ds, 0, p->p, 1, lk, p->yf, lv, lk, n, lv / W);
    /* of a step alone it is S . dS: one sum, where the parts of a longer chunk's cancel */
    if (dg.x && n == 1) set(dg, 0, dot(s, ds, lk * lv));
}
static void key_back(Panels *p, Piece c, const REAL *s, REAL *ds, I wanted) {
    const I n = c.n, lk = p->lk, lv = p->lv;
    REAL *gg = wanted ? p->gg : 0;
    spans(p->qf, 0, p->whole, p->q, p->k, p->d, n, lk, 0);
    pairs(p->A, p->q, p->k, p->d, 0, p->w, n, lk, 0, 0);
    product(p->y, lv, 0, 0, p->kf, lk, 1, ds, lv, n, lk, lv / W);
    solve_back(p, n, 0);
    columns(p->x, p->u, lv), through_state(p->gk, p->w, ds, p->x, lk, lv);                        /* u dS' */
    columns(p->x, p->o, lv), through_state(p->gq, p->w, s, p->x, lk, lv);                         /* do S' */
    columns(p->x, p->y, lv), through_state(p->gp, p->w, s, p->x, lk, lv);                         /* y S' */
    if (gg) {
        edge_state(gg, p->whole, s, ds, n, lk, lv), edge_keys(gg, p->gk, p->kf, n, lk);
        edge_queries(gg, p->gq, p->qf, n, lk, 0), edge_queries(gg, p->gp, p->pf, n, lk, 0);
    }
    negate(p->gp, n * lk);
    unspan_queries(p->gq, p->d, n, lk, 0), unspan_queries(p->gp, p->d, n, lk, 0), unspan_keys(p->gk, p->d, n, lk);
    pairs_back(p->gq, p->gk, gg, 0, p->GA, p->q, p->k, p->d, 0, n, lk, 0, 0);
    pairs_back(p->gp, p->gk, gg, 0, p->GL, p->p, p->k, p->d, 0, n, lk, 0, 1);
    product(ds, lv, ds, p->whole, p->qf, 1, lk, p->o, lv, lk, n, lv / W);
    product(ds, lv, ds, 0, p->pf, 1, lk, p->y, lv, lk, n, lv / W);
}
static void back(void *own, Piece c, const REAL *s, REAL *ds) {
    Panels *p = own;
    const Backward *f = p->f;
    const Delta *r = &f->z;
    const Shape *z = &r->shape;
    const I n = c.n, K = z->K, lk = p->lk, lv = p->lv;
    read_piece(p, c, s, -CHUNK);
    pack(p->q, lk, rows_of(r->q, c), n, CHUNK, K, -CHUNK);
    pack(p->o, lv, plus_columns(dense(f->dy, r->v.type, z, c, z->V), c.lo), n, CHUNK, c.wide, -CHUNK);
    At dg = f->dg ? dense(f->dg, r->g.type, z, c, z->gw > 1 ? K : 1) : (At){0};
    if (z->gw < 2) scalar_back(p, c, s, ds, dg);
    else key_back(p, c, s, ds, f->dg != 0);
    unpack(dense(f->dq, r->q.type, z, c, K), p->gq, lk, n, K);
    unpack(dense(f->dk, r->k.type, z, c, K), p->gk, lk, n, K);
    unpack(dense(f->dp, r->p.type, z, c, K), p->gp, lk, n, K);
    unpack(plus_columns(dense(f->dv, r->v.type, z, c, z->V), c.lo), p->y, lv, n, c.wide);
    if (dg.x && z->gw > 1) unpack(dg, p->gg, lk, n, K);
}

I delta_backward(const Backward *f, I fields) {
    CHECK(f, fields)
    const Shape *z = &f->z.shape;
    const Plan p = plan(z, f->threads, 0);
    I failed = 0;
    #pragma omp parallel num_threads(p.threads)
    {
        unsigned old = flush_on();
        const I lk = p.lk, lv = p.lv, most = lk > lv ? lk : lv;
        Arena a = arena(CHUNK * (11 * lk + 6 * lv + 2 * most + 6 * W) + 2 * W + lk + room(&p));
        Panels own = {f, lk, lv, KEYS(CHUNK), KEYS(CHUNK), KEYS(CHUNK), KEYS(CHUNK), KEYS(CHUNK), KEYS(CHUNK), KEYS(CHUNK),
            take(&a, CHUNK * most), KEYS(CHUNK), KEYS(CHUNK), KEYS(CHUNK), KEYS(CHUNK), take(&a, CHUNK * most), VALUES(CHUNK),
            VALUES(CHUNK), VALUES(CHUNK), VALUES(CHUNK), VALUES(CHUNK), VALUES(CHUNK), TABLE, TABLE, TABLE, TABLE, TABLE, TABLE,
            take(&a, W), take(&a, W), take(&a, lk)};
        REAL *space = take(&a, room(&p));
        if (!a.base) failed = 1;
        #pragma omp for schedule(dynamic)
        for (I task = 0; task < p.tasks; task++) if (a.base) backwards(z, &p, task, space, f->marks, f->dS, &own, advance, back);
        free(a.base);
        flush_off(old);
    }
    return failed;
}
