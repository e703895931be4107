/* low_rank:  S_t = D_t S_{t-1} + b_t r_t' + k_t v_t',   r_t = S_{t-1}' a_t,   o_t = S_t' q_t,   D_t = diag(e^{g_t})
 *
 * `delta` with two writes, and a probe a that reads before the decay. Forward is the recurrence, one pass over S a step:
 * while step t's writes go in and q reads them, a of step t + 1 reads the result and its decay is applied. Backward is
 * by chunks of sixteen steps, where a unit triangular solve gives the chunk's r at once. */
#include "chunk.h"

/* n steps for U vecs of values. Row 0 of q, k, b (zeros) and row n of d (ones), a (zeros) are the caller's. */
#define WALK(U) \
static void walk_##U(REAL *S, REAL *o, const REAL *q, const REAL *k, const REAL *b, const REAL *d, const REAL *a, const REAL *v, \
                     I n, I K, I lk, I lv) { \
    vec x[U] = {}, r[U] = {}; \
    for (I t = 0; t <= n; t++, q += lk, k += lk, b += lk, d += lk, a += lk) { \
        vec y[U] = {}, next[U] = {}; \
        for (I c = 0; c < K; c++) { \
            vec kc = all(k[c]), bc = all(b[c]), qc = all(q[c]), dc = all(d[c]), ac = all(a[c]); \
            UNROLL for (int j = 0; j < U; j++) { \
                vec s = get(S + c * lv + j * W) + kc * x[j] + bc * r[j]; \
                y[j] += qc * s; \
                next[j] += ac * s; \
                put(S + c * lv + j * W, s * dc); } } \
        for (int j = 0; j < U; j++) { \
            if (t > 0) put(o + (t - 1) * lv + j * W, y[j]); \
            if (t < n) x[j] = get(v + t * lv + j * W), r[j] = next[j]; } } }
WALK(4) WALK(2) WALK(1)

typedef struct { Typed q, k, v, a, b, g; Shape shape; } LowRank;

typedef struct { LowRank z; REAL *last; void *o; REAL *marks; I threads; } Forward;

typedef struct { const LowRank *r; void *out; REAL *q, *k, *d, *a, *b, *v, *o; I lk, lv; } Walking;
static void walk(void *own, Piece c, REAL *s) {
    const Walking *p = own;
    const LowRank *r = p->r;
    const Shape *z = &r->shape;
    const I n = c.n, K = z->K, lk = p->lk, lv = p->lv;
    pack(p->q + lk, lk, rows_of(r->q, c), n, n, K, BLOCK);
    pack(p->k + lk, lk, rows_of(r->k, c), n, n, K, BLOCK);
    pack(p->b + lk, lk, rows_of(r->b, c), n, n, K, BLOCK);
    pack(p->a, lk, rows_of(r->a, c), n, n + 1, K, BLOCK);
    pack(p->v, lv, plus_columns(rows_of(r->v, c), c.lo), n, n, c.wide, BLOCK);
    decays(p->d, lk, rows_of(r->g, c), n, n + 1, K, z->gw, BLOCK);
    I j = 0;
    #define GO(U) for (; j + (U - 1) * W < lv; j += U * W) walk_##U(s + j, p->o + j, p->q, p->k, p->b, p->d, p->a, p->v + j, n, K, lk, lv);
    GO(4) GO(2) GO(1)
    unpack(plus_columns(dense(p->out, r->v.type, z, c, z->V), c.lo), p->o, lv, n, c.wide);
}

I low_rank_forward(const Forward *f, I fields) {
    CHECK(f, fields)
    const Shape *z = &f->z.shape;
    const Plan p = plan(z, f->threads, 1);
    I failed = 0;
    #pragma omp parallel num_threads(p.threads)
    {
        unsigned old = flush_on();
        Arena a = arena((BLOCK + 1) * (5 * p.lk + 2 * p.lv) + p.group * p.size);
        Walking own = {&f->z, f->o, KEYS(BLOCK + 1), KEYS(BLOCK + 1), KEYS(BLOCK + 1), KEYS(BLOCK + 1), KEYS(BLOCK + 1),
            VALUES(BLOCK), VALUES(BLOCK), p.lk, p.lv};
        REAL *states = take(&a, p.group * p.size);
        if (!a.base) failed = 1;
        else memset(own.q, 0, p.lk * sizeof(REAL)), memset(own.k, 0, p.lk * sizeof(REAL)), memset(own.b, 0, p.lk * sizeof(REAL));
        #pragma omp for schedule(dynamic)
        for (I task = 0; task < p.tasks; task++)
            if (a.base) forwards(z, &p, task, states, f->marks, f->last, &own, walk);
        free(a.base);
        flush_off(old);
    }
    return failed;
}

/* dS: the gradient of the last state in, of the first out. dg has the shape of g. */
typedef struct { LowRank z; REAL *marks; void *dy; REAL *dS; void *dq, *dk, *dv, *da, *db, *dg; I threads; } Backward;

typedef struct {
    const Backward *f;
    I lk, lv;
    REAL *q, *k, *a, *b, *d, *qf, *af, *kf, *bf, *w, *gq, *gk, *ga, *gb, *gg, *x, *v, *o, *r, *y, *gv, *QK, *QB, *AK, *L, *G, *whole, *unused;
} Panels;

/* a piece and its r, from the state it finds */
static void read_piece(Panels *p, Piece c, const REAL *s, I ahead) {
    const LowRank *r = &p->f->z;
    const Shape *z = &r->shape;
    const I n = c.n, K = z->K, lk = p->lk, lv = p->lv;
    pack(p->k, lk, rows_of(r->k, c), n, CHUNK, K, ahead);
    pack(p->a, lk, rows_of(r->a, c), n, CHUNK, K, ahead);
    pack(p->b, lk, rows_of(r->b, c), n, CHUNK, K, ahead);
    pack(p->v, lv, plus_columns(rows_of(r->v, c), c.lo), n, CHUNK, c.wide, ahead);
    decays(p->d, lk, rows_of(r->g, c), n, CHUNK, K, z->gw, ahead);
    spans(p->af, p->kf, p->whole, p->a, p->k, p->d, n, lk, 1);
    spans(p->af, p->bf, p->whole, p->a, p->b, p->d, n, lk, 1);
    pairs(p->AK, p->a, p->k, p->d, 0, p->w, n, lk, 1, 1);
    pairs(p->L, p->a, p->b, p->d, 0, p->w, n, lk, 1, 1), negate(p->L, CHUNK * W);
    memset(p->r, 0, CHUNK * lv * sizeof(REAL));
    product(p->r, lv, 0, 0, p->af, lk, 1, s, lv, n, lk, lv / W);
    product(p->r, lv, p->r, 0, p->AK, W, 1, p->v, lv, n, n, lv / W);
    solve(p->r, p->L, n, lv);
}
static void advance(void *own, Piece c, REAL *to, const REAL *s) {
    Panels *p = own;
    const I lk = p->lk, lv = p->lv;
    read_piece(p, c, s, CHUNK);
    product(to, lv, s, p->whole, p->kf, 1, lk, p->v, lv, lk, c.n, lv / W);
    product(to, lv, to, 0, p->bf, 1, lk, p->r, lv, lk, c.n, lv / W);
}
#define EDGE(to, state, rows) columns(p->x, p->rows, lv), through_state(p->to, p->w, state, p->x, lk, lv)
#define PAIRS(left, right, gleft, gright, query, key, du, before) \
    columns(p->x, p->right, lv), product(p->G, W, 0, 0, p->left, lv, 1, p->x, W, n, lv, 1), \
    pairs_back(p->gleft, p->gright, gg, du, p->G, p->query, p->key, p->d, 0, n, lk, before, before)
static void back(void *own, Piece c, const REAL *s, REAL *ds) {
    Panels *p = own;
    const Backward *f = p->f;
    const LowRank *r = &f->z;
    const Shape *z = &r->shape;
    const I n = c.n, K = z->K, lk = p->lk, lv = p->lv;
    REAL *gg = f->dg ? p->gg : 0;
    read_piece(p, c, s, -CHUNK);
    pack(p->q, lk, rows_of(r->q, c), n, CHUNK, K, -CHUNK);
    pack(p->o, lv, plus_columns(dense(f->dy, r->v.type, z, c, z->V), c.lo), n, CHUNK, c.wide, -CHUNK);
    spans(p->qf, 0, p->whole, p->q, p->k, p->d, n, lk, 0);
    pairs(p->QK, p->q, p->k, p->d, 0, p->w, n, lk, 0, 0), pairs(p->QB, p->q, p->b, p->d, 0, p->w, n, lk, 0, 0);
    memset(p->y, 0, CHUNK * lv * sizeof(REAL));
    product(p->y, lv, 0, 0, p->bf, lk, 1, ds, lv, n, lk, lv / W);                                 /* y = the gradient of a' S */
    product(p->y, lv, p->y, 0, p->QB, 1, W, p->o, lv, n, n, lv / W);
    solve_transposed(p->y, p->L, n, lv);
    product(p->gv, lv, 0, 0, p->kf, lk, 1, ds, lv, n, lk, lv / W);
    product(p->gv, lv, p->gv, 0, p->QK, 1, W, p->o, lv, n, n, lv / W);
    product(p->gv, lv, p->gv, 0, p->AK, 1, W, p->y, lv, n, n, lv / W);
    EDGE(gq, s, o), EDGE(ga, s, y), EDGE(gk, ds, v), EDGE(gb, ds, r);
    if (gg) {
        edge_state(gg, p->whole, s, ds, n, lk, lv);
        edge_keys(gg, p->gk, p->kf, n, lk), edge_keys(gg, p->gb, p->bf, n, lk);
        edge_queries(gg, p->gq, p->qf, n, lk, 0), edge_queries(gg, p->ga, p->af, n, lk, 1);
    }
    unspan_queries(p->gq, p->d, n, lk, 0), unspan_queries(p->ga, p->d, n, lk, 1);
    unspan_keys(p->gk, p->d, n, lk), unspan_keys(p->gb, p->d, n, lk);
    PAIRS(o, v, gq, gk, q, k, 0, 0), PAIRS(o, r, gq, gb, q, b, 0, 0);
    PAIRS(y, v, ga, gk, a, k, p->unused, 1), PAIRS(y, r, ga, gb, a, b, p->unused, 1);
    product(ds, lv, ds, p->whole, p->qf, 1, lk, p->o, lv, lk, n, lv / W);
    product(ds, lv, ds, 0, p->af, 1, lk, p->y, lv, lk, n, lv / W);
    unpack(dense(f->dq, r->q.type, z, c, K), p->gq, lk, n, K), unpack(dense(f->dk, r->k.type, z, c, K), p->gk, lk, n, K);
    unpack(dense(f->da, r->a.type, z, c, K), p->ga, lk, n, K), unpack(dense(f->db, r->b.type, z, c, K), p->gb, lk, n, K);
    unpack(plus_columns(dense(f->dv, r->v.type, z, c, z->V), c.lo), p->gv, lv, n, c.wide);
    if (gg && z->gw > 1) unpack(dense(f->dg, r->g.type, z, c, K), gg, lk, n, K);
    else if (gg) row_sums(dense(f->dg, r->g.type, z, c, 1), gg, lk, n);
}

I low_rank_backward(const Backward *f, I fields) {
    CHECK(f, fields)
    const Shape *z = &f->z.shape;
    const Plan p = plan(z, f->threads, 0);
    I failed = 0;
    #pragma omp parallel num_threads(p.threads)
    {
        unsigned old = flush_on();
        const I lk = p.lk, lv = p.lv, most = lk > lv ? lk : lv;
        Arena a = arena(CHUNK * (14 * lk + 5 * lv + 2 * most + 5 * W) + 2 * lk + room(&p));
        Panels own = {f, lk, lv, KEYS(CHUNK), KEYS(CHUNK), KEYS(CHUNK), KEYS(CHUNK), KEYS(CHUNK), KEYS(CHUNK), KEYS(CHUNK), KEYS(CHUNK),
            KEYS(CHUNK), take(&a, CHUNK * most), KEYS(CHUNK), KEYS(CHUNK), KEYS(CHUNK), KEYS(CHUNK), KEYS(CHUNK), take(&a, CHUNK * most),
            VALUES(CHUNK), VALUES(CHUNK), VALUES(CHUNK), VALUES(CHUNK), VALUES(CHUNK), TABLE, TABLE, TABLE, TABLE, TABLE,
            take(&a, lk), take(&a, lk)};
        REAL *space = take(&a, room(&p));
        if (!a.base) failed = 1;
        #pragma omp for schedule(dynamic)
        for (I task = 0; task < p.tasks; task++) if (a.base) backwards(z, &p, task, space, f->marks, f->dS, &own, advance, back);
        free(a.base);
        flush_off(old);
    }
    return failed;
}
