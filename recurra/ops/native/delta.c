/* delta:  S_t = D_t S_{t-1} + k_t u_t',   u_t = v_t - (D_t S_{t-1})' p_t,   o_t = S_t' q_t,   D_t = diag(e^{g_t})
 *
 * Forward is the recurrence, one pass over S a step: while the write of step t goes in and q reads it, the decay of
 * step t + 1 is applied and p of step t + 1 reads the result. Backward is by chunks of sixteen steps (the UT form: a
 * unit triangular solve gives the chunk's u at once), needs nothing but the inputs, keeps a state per EVERY chunks. */
#include "chunk.h"
#define BLOCK 32
#define EVERY 4

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

/* gw: numbers in a step's log-decay of a head: 0, 1 or K */
typedef struct {
    Rows q, k, v, p, g;
    const uint8_t *reset;
    const REAL *first;
    I B, T, H, K, V, gw;
} Delta;
#define OPEN(f) const Delta z = (f)->z; const Rows q = z.q, k = z.k, v = z.v, g = z.g, p = z.p; \
    const I B = z.B, T = z.T, H = z.H, K = z.K, V = z.V, gw = z.gw;

typedef struct { Delta z; REAL *last, *o; I threads; } Forward;

/* A single step goes from the first state straight into the last, in two passes: what the key recalls, then the write.
 * `some` values of a head, in U vecs. */
INLINE void step(const int U, I some, const Delta *z, I b, I h, I j, REAL *last, REAL *o) {
    const I K = z->K, V = z->V, at = (b * z->H + h) * K * V + j, fresh = z->reset && z->reset[b], gw = z->gw;
    const REAL *q = row(z->q, b, 0, h), *k = row(z->k, b, 0, h), *v = row(z->v, b, 0, h) + j, *g = row(z->g, b, 0, h),
               *p = row(z->p, b, 0, h), *first = z->first + at;
    REAL d[W];
    vec x[4], y[4] = {};
    UNROLL for (int i = 0; i < U; i++) x[i] = get_some(v + i * W, some - i * W);
    if (gw < 2) put(d, gw ? exps(all(g[0])) : all(1));
    for (I c = 0; c < K; c++) {
        if (gw > 1 && c % W == 0) put(d, exps(get_some(g + c, K - c)));
        UNROLL for (int i = 0; i < U; i++) {
            vec s = fresh ? (vec){} : d[c % W] * get_some(first + c * V + i * W, some - i * W);
            x[i] -= p[c] * s;
            put_some(last + at + c * V + i * W, s, some - i * W);
        }
    }
    for (I c = 0; c < K; c++) UNROLL for (int i = 0; i < U; i++) {
        REAL *s = last + at + c * V + i * W;
        vec new = get_some(s, some - i * W) + k[c] * x[i];
        y[i] += q[c] * new;
        put_some(s, new, some - i * W);
    }
    UNROLL for (int i = 0; i < U; i++) put_some(o + (b * z->H + h) * V + j + i * W, y[i], some - i * W);
}
static I steps(const Delta *z, REAL *last, REAL *o, I threads) {
    #pragma omp parallel for num_threads(threads)
    for (I task = 0; task < z->B * z->H; task++) {
        unsigned old = flush_on();
        I b = task / z->H, h = task % z->H, j = 0;
        for (; j + 4 * W <= z->V; j += 4 * W) step(4, 4 * W, z, b, h, j, last, o);
        for (; j + W <= z->V; j += W) step(1, W, z, b, h, j, last, o);
        if (j < z->V) step(1, z->V - j, z, b, h, j, last, o);
        flush_off(old);
    }
    return 0;
}

I delta_forward(const Forward *f, I fields) {
    CHECK(f, fields)
    OPEN(f)
    I threads = enough(B * T * H * K * V / 8, f->threads);
    if (T == 1) return steps(&f->z, f->last, f->o, threads);
    I lk = up(K), lv = up(V), size = lk * lv, most = T < BLOCK ? T : BLOCK, group = heads_together(B, H, threads), failed = 0;
    #pragma omp parallel num_threads(threads)
    {
        unsigned old = flush_on();
        Arena a = arena((most + 1) * (4 * lk + 2 * lv) + group * size, T + 1);
        REAL *pq = take(&a, (most + 1) * lk), *pk = take(&a, (most + 1) * lk), *pd = take(&a, (most + 1) * lk),
             *pp = take(&a, (most + 1) * lk), *pv = take(&a, most * lv), *po = take(&a, most * lv), *s0 = take(&a, group * size);
        if (!a.base) failed = 1;
        else memset(pq, 0, lk * sizeof(REAL)), memset(pk, 0, lk * sizeof(REAL));
        #pragma omp for schedule(dynamic)
        for (I task = 0; task < B * H / group; task++) {
            if (!a.base) continue;
            I b = task * group / H, h0 = task * group % H, n = cut(a.begins, z.reset ? z.reset + b * T : 0, T, most);
            for (I h = 0; h < group; h++) pack(s0 + h * size, lv, z.first + (task * group + h) * K * V, V, K, lk, V, 0);
            for (I c = 0; c < n; c++) for (I h = 0; h < group; h++) {
                I t = a.begins[c], steps = a.begins[c + 1] - t, head = h0 + h, j = 0;
                REAL *s = s0 + h * size;
                if (z.reset && z.reset[b * T + t]) memset(s, 0, size * sizeof(REAL));
                pack(pq + lk, lk, row(q, b, t, head), q.t, steps, steps, K, BLOCK);
                pack(pk + lk, lk, row(k, b, t, head), k.t, steps, steps, K, BLOCK);
                pack(pp, lk, row(p, b, t, head), p.t, steps, steps + 1, K, BLOCK);
                pack(pv, lv, row(v, b, t, head), v.t, steps, steps, V, BLOCK);
                decays(pd, lk, row(g, b, t, head), g.t, steps, steps + 1, K, gw, BLOCK);
                #define GO(U) for (; j + (U - 1) * W < lv; j += U * W) walk_##U(s + j, po + j, pq, pk, pd, pp, pv + j, steps, K, lk, lv);
                GO(4) GO(2) GO(1)
                unpack(f->o + ((b * T + t) * H + head) * V, H * V, po, lv, steps, V);
            }
            for (I h = 0; h < group; h++) unpack(f->last + (task * group + h) * K * V, V, s0 + h * size, lv, K, V);
        }
        free(a.base);
        flush_off(old);
    }
    return failed;
}

/* dS: the gradient of the last state in, of the first out. dg has the shape of g. */
typedef struct { Delta z; const REAL *dy; REAL *dS, *dq, *dk, *dv, *dp, *dg; I threads; } Backward;

I delta_backward(const Backward *f, I fields) {
    CHECK(f, fields)
    OPEN(f)
    REAL *dS = f->dS, *dq = f->dq, *dk = f->dk, *dv = f->dv, *dg = f->dg, *dp = f->dp;
    I threads = enough(B * T * H * K * V / 8, f->threads), failed = 0;
    I lk = up(K), lv = up(V), size = lk * lv, group = heads_together(B, H, threads), kept = most_chunks(z.reset, B, T) / EVERY + 1;
    #pragma omp parallel num_threads(threads)
    {
        unsigned old = flush_on();
        Arena a = arena(CHUNK * (15 * lk + 7 * lv + 4 * W) + lk + ((kept + 1) * group + EVERY) * size, T + 1);
        REAL *pq = take(&a, CHUNK * lk), *pk = take(&a, CHUNK * lk), *pd = take(&a, CHUNK * lk), *pp = take(&a, CHUNK * lk),
             *qf = take(&a, CHUNK * lk), *pf = take(&a, CHUNK * lk), *kt = take(&a, CHUNK * lk), *w = take(&a, CHUNK * lk),
             *gq = take(&a, CHUNK * lk), *gk = take(&a, CHUNK * lk), *gp = take(&a, CHUNK * lk), *gg = take(&a, CHUNK * lk),
             *x = take(&a, CHUNK * lk), *po = take(&a, CHUNK * lv), *pu = take(&a, CHUNK * lv), *y = take(&a, CHUNK * lv),
             *ot = take(&a, CHUNK * lv), *ut = take(&a, CHUNK * lv), *yt = take(&a, CHUNK * lv), *A = take(&a, CHUNK * W),
             *L = take(&a, CHUNK * W), *GA = take(&a, CHUNK * W), *GL = take(&a, CHUNK * W), *whole = take(&a, lk),
             *marks = take(&a, kept * group * size), *window = take(&a, EVERY * size), *dss = take(&a, group * size);
        I *begins = a.begins;
        if (!a.base) failed = 1;
        #pragma omp for schedule(dynamic)
        for (I task = 0; task < B * H / group; task++) {
            if (!a.base) continue;
            I b = task * group / H, h0 = task * group % H, bh = task * group;
            const uint8_t *rb = z.reset ? z.reset + b * T : 0;
            I n = cut(begins, rb, T, CHUNK);
            for (I h = 0; h < group; h++) {
                pack(dss + h * size, lv, dS + (bh + h) * K * V, V, K, lk, V, 0);
                pack(marks + h * size, lv, z.first + (bh + h) * K * V, V, K, lk, V, 0);
            }
            /* a chunk and its u, from the state s it finds (zeroed by a reset); the state it leaves in `to` */
            #define LOAD(c, s, ahead) I t = begins[c], steps = begins[c + 1] - t, at = (b * T + t) * H + h0 + h; (void)at; \
                if (rb && rb[t]) memset(s, 0, size * sizeof(REAL)); \
                pack(pk, lk, row(k, b, t, h0 + h), k.t, steps, CHUNK, K, ahead); \
                pack(pp, lk, row(p, b, t, h0 + h), p.t, steps, CHUNK, K, ahead); \
                pack(pu, lv, row(v, b, t, h0 + h), v.t, steps, CHUNK, V, ahead); \
                decays(pd, lk, row(g, b, t, h0 + h), g.t, steps, CHUNK, K, gw, ahead); \
                spans(pf, kt, whole, pp, pk, pd, steps, lk, 0); \
                pairs(L, pp, pk, pd, 0, w, steps, lk, 0, 1); \
                negate(pf, steps * lk); \
                product(pu, lv, pu, 0, pf, lk, 1, s, lv, steps, lk, lv / W); \
                solve(pu, L, steps, lv);
            #define STEP(to, s) { REAL *found = s; LOAD(c, found, CHUNK) \
                product(to, lv, found, whole, kt, 1, lk, pu, lv, lk, steps, lv / W); }
            for (I from = 0; from + EVERY < n; from += EVERY) for (I h = 0; h < group; h++) {
                REAL *mark = marks + (from / EVERY * group + h) * size, *next = mark + group * size;
                for (I c = from; c < from + EVERY; c++) STEP(next, c > from ? next : mark)
            }
            for (I from = (n - 1) / EVERY * EVERY; from >= 0; from -= EVERY) for (I h = 0; h < group; h++) {
                I till = from + EVERY < n ? from + EVERY : n;
                REAL *mark = marks + (from / EVERY * group + h) * size, *ds = dss + h * size;
                for (I c = from; c < till - 1; c++) STEP(window + (c - from + 1) * size, c > from ? window + (c - from) * size : mark)
                for (I c = till - 1; c >= from; c--) {
                    REAL *s = c > from ? window + (c - from) * size : mark;
                    LOAD(c, s, -CHUNK)
                    pack(pq, lk, row(q, b, t, h0 + h), q.t, steps, CHUNK, K, -CHUNK);
                    pack(po, lv, f->dy + at * V, H * V, steps, CHUNK, V, -CHUNK);
                    spans(qf, 0, whole, pq, pk, pd, steps, lk, 0);
                    pairs(A, pq, pk, pd, 0, w, steps, lk, 0, 0);
                    memset(y, 0, CHUNK * lv * sizeof(REAL));
                    product(y, lv, 0, 0, kt, lk, 1, ds, lv, steps, lk, lv / W);           /* du = (decayed k) dS + A' do */
                    product(y, lv, y, 0, A, 1, W, po, lv, steps, steps, lv / W);
                    solve_transposed(y, L, steps, lv);                                    /* y = dv */
                    for (I j = 0; j < lv; j += W)
                        transpose16(ot + j * W, W, po + j, lv), transpose16(ut + j * W, W, pu + j, lv), transpose16(yt + j * W, W, y + j, lv);
                    unpack(dv + at * V, H * V, y, lv, steps, V);
                    product(GA, W, 0, 0, po, lv, 1, ut, W, steps, lv, 1);                 /* dA = do u',  dL = -dv u' */
                    product(GL, W, 0, 0, y, lv, 1, ut, W, steps, lv, 1), negate(GL, CHUNK * W);
                    product(x, W, 0, 0, s, lv, 1, ot, W, lk, lv, 1);                      /* time along lanes: S do' */
                    for (I j = 0; j < lk; j += W) transpose16(gq + j, lk, x + j * W, W);
                    product(x, W, 0, 0, s, lv, 1, yt, W, lk, lv, 1), negate(x, CHUNK * lk); /*                 -S dv' */
                    for (I j = 0; j < lk; j += W) transpose16(gp + j, lk, x + j * W, W);
                    product(x, W, 0, 0, ds, lv, 1, ut, W, lk, lv, 1);                     /*                   dS u' */
                    for (I j = 0; j < lk; j += W) transpose16(gk + j, lk, x + j * W, W);
                    if (dg) {
                        edge_state(gg, whole, s, ds, steps, lk, lv), edge_keys(gg, gk, kt, steps, lk);
                        edge_queries(gg, gq, qf, steps, lk, 0);
                        negate(gp, steps * lk), edge_queries(gg, gp, pf, steps, lk, 0), negate(gp, steps * lk); /* pf is negated */
                    }
                    unspan_queries(gq, pd, steps, lk, 0), unspan_queries(gp, pd, steps, lk, 0), unspan_keys(gk, pd, steps, lk);
                    pairs_back(gq, gk, dg ? gg : 0, 0, GA, pq, pk, pd, 0, steps, lk, 0, 0);
                    pairs_back(gp, gk, dg ? gg : 0, 0, GL, pp, pk, pd, 0, steps, lk, 0, 1);
                    product(ds, lv, ds, whole, qf, 1, lk, po, lv, lk, steps, lv / W);
                    product(ds, lv, ds, 0, pf, 1, lk, y, lv, lk, steps, lv / W);
                    if (rb && rb[t]) memset(ds, 0, size * sizeof(REAL));
                    unpack(dq + at * K, H * K, gq, lk, steps, K);
                    unpack(dk + at * K, H * K, gk, lk, steps, K);
                    unpack(dp + at * K, H * K, gp, lk, steps, K);
                    if (dg && gw > 1) unpack(dg + at * K, H * K, gg, lk, steps, K);
                    if (dg && gw == 1) row_sums(dg + at, H, gg, lk, steps);
                }
            }
            for (I h = 0; h < group; h++) unpack(dS + (bh + h) * K * V, V, dss + h * size, lv, K, V);
        }
        free(a.base);
        flush_off(old);
    }
    return failed;
}
