/* low_rank:  S_t = D_t S_{t-1} + b_t r_t' + k_t v_t',   r_t = S_{t-1}' a_t,   o_t = S_t' q_t,   D_t = diag(e^{g_t})
 *
 * `delta` with two writes, and a probe a that reads before the decay. Forward is the recurrence, one pass over S a step:
 * while step t's writes go in and q reads them, a of step t + 1 reads the result and its decay is applied. Backward is
 * by chunks of sixteen steps, where a unit triangular solve gives the chunk's r at once. */
#define READS 2
#define WRITES 2
#define EARLY(z, i) (i)
#define ENGINE(name) low_rank_##name
#include "memory.h"
#include "back.h"

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

static void recur(const Walking *p, I h, REAL *s, I n) {
    I j = 0;
    #define GO(U) for (; j + (U - 1) * W < p->lv; j += U * W) \
        walk_##U(s + j, p->o + j, p->q[0], p->k[0], p->k[1], p->d, p->q[1], p->v + j, n, p->f->z.shape.K, p->lk, p->lv);
    GO(4) GO(2) GO(1)
}

/* A single step goes from the first state straight into the last, in two passes: what the probe finds, then the writes.
 * `some` values of a head, in U vecs. */
INLINE void step(const int U, I some, const Record *r, I b, I h, I j, REAL *last, void *out) {
    const Shape *z = &r->shape;
    const I K = z->K, V = z->V, begin = (b * z->H + h) * K * V + j, gw = z->gw;
    const At q = at(r->q, b, 0, h), k = at(r->k, b, 0, h), v = plus_columns(at(r->v, b, 0, h), j), g = at(r->g, b, 0, h),
             probe = at(query_of(r, 1), b, 0, h), back = at(key_of(r, 1), b, 0, h);
    const REAL *first = z->first + begin;
    const int begins = fresh(z, b, 0);
    REAL d[W], probes[W], keys[W], backs[W], queries[W];
    vec x[4], read[4] = {}, y[4] = {};
    UNROLL for (int i = 0; i < U; i++) x[i] = load_some(v.x + i * W * bytes(v.type), v.type, some - i * W);
    for (I c = 0; c < K && !begins; c++) {
        if (c % W == 0) put(probes, load_some(plus_columns(probe, c).x, probe.type, K - c));
        UNROLL for (int i = 0; i < U; i++) read[i] += probes[c % W] * get_some(first + c * V + i * W, some - i * W);
    }
    if (gw < 2) put(d, gw ? exps(all(number(g, 0))) : all(1));
    for (I c = 0; c < K; c++) {
        if (c % W == 0) {
            if (gw > 1) put(d, exps(load_some(plus_columns(g, c).x, g.type, K - c)));
            put(keys, load_some(plus_columns(k, c).x, k.type, K - c)), put(backs, load_some(plus_columns(back, c).x, back.type, K - c));
            put(queries, load_some(plus_columns(q, c).x, q.type, K - c));
        }
        UNROLL for (int i = 0; i < U; i++) {
            vec s = begins ? (vec){} : d[c % W] * get_some(first + c * V + i * W, some - i * W);
            s += keys[c % W] * x[i] + backs[c % W] * read[i];
            y[i] += queries[c % W] * s;
            put_some(last + begin + c * V + i * W, s, some - i * W);
        }
    }
    I size = bytes(v.type);
    UNROLL for (int i = 0; i < U; i++)
        store_some((char *)out + ((b * z->H + h) * V + j + i * W) * size, v.type, y[i], some - i * W);
}
STEPS
