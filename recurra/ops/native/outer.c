/* outer:  S_t = diag(e^{g_t}) S_{t-1} + k_t v_t',   o_t = S_t' q_t   (before: o_t = S_{t-1}' q_t + (q_t . u k_t) v_t)
 *
 * Forward is the recurrence itself with a tile of S held in registers over a block of steps: three vector
 * instructions for each sixteen entries of S, no store of S but at the end of the block. Backward is by chunks of
 * sixteen steps, where gradients of q, k, v and S are six small matrix products. */
#define READS 1
#define WRITES 1
#define EARLY(z, i) (z)->before
#define ENGINE(name) outer_##name
#include "memory.h"
#include "back.h"

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

static void recur(const Walking *p, I h, REAL *s, I n) {
    const Shape *z = &p->f->z.shape;
    const I K = z->K, lk = p->lk, lv = p->lv;
    const REAL *q = p->q[0], *k = p->k[0];
    memset(p->o, 0, n * lv * sizeof(REAL));
    if (z->before && z->bonus) bonus(p->o, q, k, p->v, z->bonus + h * K, n, K, lk, lv);
    if (z->before) walk_BEFORE(s, p->o, q, k, p->d, p->v, n, lk, lv);
    else if (z->gw) walk_AFTER(s, p->o, q, k, p->d, p->v, n, lk, lv);
    else walk_PLAIN(s, p->o, q, k, p->d, p->v, n, lk, lv);
}

/* A single step goes from the first state straight into the last: `some` values of a head, in U vecs. */
INLINE void step(const int U, I some, const Record *r, I b, I h, I j, REAL *last, void *out) {
    const Shape *z = &r->shape;
    const I K = z->K, V = z->V, begin = (b * z->H + h) * K * V + j, gw = z->gw, before = z->before;
    const At q = at(r->q, b, 0, h), k = at(r->k, b, 0, h), v = plus_columns(at(r->v, b, 0, h), j), g = at(r->g, b, 0, h);
    const REAL *u = z->bonus ? z->bonus + h * K : 0, *first = z->first + begin;
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
STEPS
