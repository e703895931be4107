/* delta:  S_t = D_t S_{t-1} + k_t u_t',   u_t = v_t - (D_t S_{t-1})' p_t,   o_t = S_t' q_t,   D_t = diag(e^{g_t})
 *
 * Forward is the recurrence, one pass over S a step: while the write of step t goes in and q reads it, the decay of
 * step t + 1 is applied and p of step t + 1 reads the result. Backward is by chunks (back.h). */
#define READS 2
#define WRITES 1
#define EARLY(z, i) 0
#define ENGINE(name) delta_##name
#include "memory.h"
#include "back.h"

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

static void recur(const Walking *p, I h, REAL *s, I n) {
    I j = 0;
    #define GO(U) for (; j + (U - 1) * W < p->lv; j += U * W) \
        walk_##U(s + j, p->o + j, p->q[0], p->k[0], p->d, p->q[1], p->v + j, n, p->f->z.shape.K, p->lk, p->lv);
    GO(4) GO(2) GO(1)
}

/* A single step goes from the first state straight into the last, in two passes: what the key recalls, then the write.
 * `some` values of a head, in U vecs. */
INLINE void step(const int U, I some, const Record *r, I b, I h, I j, REAL *last, void *out) {
    const Shape *z = &r->shape;
    const I K = z->K, V = z->V, begin = (b * z->H + h) * K * V + j, gw = z->gw;
    const At q = at(r->q, b, 0, h), k = at(r->k, b, 0, h), v = plus_columns(at(r->v, b, 0, h), j), g = at(r->g, b, 0, h),
             p = at(query_of(r, 1), b, 0, h);
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
STEPS
