/* low_rank:  S_t = D_t S_{t-1} + b_t r_t' + k_t v_t',   r_t = S_{t-1}' a_t,   o_t = S_t' q_t,   D_t = diag(e^{g_t})
 *
 * `delta` with two writes, and a probe a that reads before the decay. Forward is the recurrence, one pass over S a step:
 * while step t's writes go in and q reads them, a of step t + 1 reads the result and its decay is applied. Backward is
 * by chunks of sixteen steps, where a unit triangular solve gives the chunk's r at once. */
#include "chunk.h"
#define BLOCK 32
#define EVERY 4

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

/* gw: numbers in a step's log-decay of a head: 0, 1 or K */
typedef struct {
    Rows q, k, v, a, b, g;
    const uint8_t *reset;
    const REAL *first;
    I B, T, H, K, V, gw;
} LowRank;
#define OPEN(f) const LowRank z = (f)->z; const Rows q = z.q, k = z.k, v = z.v, g = z.g, probe = z.a, answer = z.b; \
    const I B = z.B, T = z.T, H = z.H, K = z.K, V = z.V, gw = z.gw;

typedef struct { LowRank z; REAL *last, *o; I threads; } Forward;

I low_rank_forward(const Forward *f, I fields) {
    CHECK(f, fields)
    OPEN(f)
    I threads = enough(B * T * H * K * V / 8, f->threads);
    I lk = up(K), lv = up(V), size = lk * lv, most = T < BLOCK ? T : BLOCK, group = heads_together(B, H, threads), failed = 0;
    #pragma omp parallel num_threads(threads)
    {
        unsigned old = flush_on();
        Arena a = arena((most + 1) * (5 * lk + 2 * lv) + group * size, T + 1);
        REAL *pq = take(&a, (most + 1) * lk), *pk = take(&a, (most + 1) * lk), *pd = take(&a, (most + 1) * lk),
             *pp = take(&a, (most + 1) * lk), *pw = take(&a, (most + 1) * lk), *pv = take(&a, most * lv), *po = take(&a, most * lv), *s0 = take(&a, group * size);
        if (!a.base) failed = 1;
        else memset(pq, 0, lk * sizeof(REAL)), memset(pk, 0, lk * sizeof(REAL)), memset(pw, 0, lk * sizeof(REAL));
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
                pack(pw + lk, lk, row(answer, b, t, head), answer.t, steps, steps, K, BLOCK);
                pack(pp, lk, row(probe, b, t, head), probe.t, steps, steps + 1, K, BLOCK);
                pack(pv, lv, row(v, b, t, head), v.t, steps, steps, V, BLOCK);
                decays(pd, lk, row(g, b, t, head), g.t, steps, steps + 1, K, gw, BLOCK);
                #define GO(U) for (; j + (U - 1) * W < lv; j += U * W) walk_##U(s + j, po + j, pq, pk, pw, pd, pp, pv + j, steps, K, lk, lv);
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
typedef struct { LowRank z; const REAL *dy; REAL *dS, *dq, *dk, *dv, *da, *db, *dg; I threads; } Backward;

I low_rank_backward(const Backward *f, I fields) {
    CHECK(f, fields)
    OPEN(f)
    REAL *dS = f->dS, *dg = f->dg;
    I threads = enough(B * T * H * K * V / 8, f->threads), failed = 0;
    I lk = up(K), lv = up(V), size = lk * lv, group = heads_together(B, H, threads), kept = most_chunks(z.reset, B, T) / EVERY + 1;
    #pragma omp parallel num_threads(threads)
    {
        unsigned old = flush_on();
        Arena a = arena(CHUNK * (16 * lk + 9 * lv + 8 * W) + 2 * lk + ((kept + 1) * group + EVERY) * size, T + 1);
        #define KEYS take(&a, CHUNK * lk)
        #define VALUES take(&a, CHUNK * lv)
        #define TABLE take(&a, CHUNK * W)
        REAL *pq = KEYS, *pk = KEYS, *pa = KEYS, *pb = KEYS, *pd = KEYS, *qf = KEYS, *af = KEYS, *kt = KEYS, *bt = KEYS, *w = KEYS,
             *gq = KEYS, *gk = KEYS, *ga = KEYS, *gb = KEYS, *gg = KEYS, *x = KEYS;
        REAL *pv = VALUES, *po = VALUES, *r = VALUES, *y = VALUES, *gv = VALUES, *ot = VALUES, *vt = VALUES, *rt = VALUES, *yt = VALUES;
        REAL *QK = TABLE, *QB = TABLE, *AK = TABLE, *L = TABLE, *GQK = TABLE, *GQB = TABLE, *GAK = TABLE, *GAB = TABLE;
        REAL *whole = take(&a, lk), *unused = take(&a, lk), *marks = take(&a, kept * group * size), *window = take(&a, EVERY * size),
             *dss = take(&a, group * size);
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
            /* a chunk and its r, from the state s it finds (zeroed by a reset); the state it leaves in `to` */
            #define LOAD(c, s, ahead) I t = begins[c], steps = begins[c + 1] - t, at = (b * T + t) * H + h0 + h; (void)at; \
                if (rb && rb[t]) memset(s, 0, size * sizeof(REAL)); \
                pack(pk, lk, row(k, b, t, h0 + h), k.t, steps, CHUNK, K, ahead); \
                pack(pa, lk, row(probe, b, t, h0 + h), probe.t, steps, CHUNK, K, ahead); \
                pack(pb, lk, row(answer, b, t, h0 + h), answer.t, steps, CHUNK, K, ahead); \
                pack(pv, lv, row(v, b, t, h0 + h), v.t, steps, CHUNK, V, ahead); \
                decays(pd, lk, row(g, b, t, h0 + h), g.t, steps, CHUNK, K, gw, ahead); \
                spans(af, kt, whole, pa, pk, pd, steps, lk, 1); \
                spans(af, bt, whole, pa, pb, pd, steps, lk, 1); \
                pairs(AK, pa, pk, pd, 0, w, steps, lk, 1, 1); \
                pairs(L, pa, pb, pd, 0, w, steps, lk, 1, 1), negate(L, CHUNK * W); \
                memset(r, 0, CHUNK * lv * sizeof(REAL)); \
                product(r, lv, 0, 0, af, lk, 1, s, lv, steps, lk, lv / W); \
                product(r, lv, r, 0, AK, W, 1, pv, lv, steps, steps, lv / W); \
                solve(r, L, steps, lv);
            #define STEP(to, s) { REAL *found = s; LOAD(c, found, CHUNK) \
                product(to, lv, found, whole, kt, 1, lk, pv, lv, lk, steps, lv / W); \
                product(to, lv, to, 0, bt, 1, lk, r, lv, lk, steps, lv / W); }
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
                    pairs(QK, pq, pk, pd, 0, w, steps, lk, 0, 0), pairs(QB, pq, pb, pd, 0, w, steps, lk, 0, 0);
                    memset(y, 0, CHUNK * lv * sizeof(REAL));
                    product(y, lv, 0, 0, bt, lk, 1, ds, lv, steps, lk, lv / W);           /* y = the gradient of a' S */
                    product(y, lv, y, 0, QB, 1, W, po, lv, steps, steps, lv / W);
                    solve_transposed(y, L, steps, lv);
                    product(gv, lv, 0, 0, kt, lk, 1, ds, lv, steps, lk, lv / W);
                    product(gv, lv, gv, 0, QK, 1, W, po, lv, steps, steps, lv / W);
                    product(gv, lv, gv, 0, AK, 1, W, y, lv, steps, steps, lv / W);
                    for (I j = 0; j < lv; j += W)
                        transpose16(ot + j * W, W, po + j, lv), transpose16(vt + j * W, W, pv + j, lv),
                        transpose16(rt + j * W, W, r + j, lv), transpose16(yt + j * W, W, y + j, lv);
                    product(GQK, W, 0, 0, po, lv, 1, vt, W, steps, lv, 1), product(GQB, W, 0, 0, po, lv, 1, rt, W, steps, lv, 1);
                    product(GAK, W, 0, 0, y, lv, 1, vt, W, steps, lv, 1), product(GAB, W, 0, 0, y, lv, 1, rt, W, steps, lv, 1);
                    #define EDGE(to, state, time) product(x, W, 0, 0, state, lv, 1, time, W, lk, lv, 1); \
                        for (I j = 0; j < lk; j += W) transpose16(to + j, lk, x + j * W, W);
                    EDGE(gq, s, ot) EDGE(ga, s, yt) EDGE(gk, ds, vt) EDGE(gb, ds, rt)
                    if (dg) {
                        edge_state(gg, whole, s, ds, steps, lk, lv);
                        edge_keys(gg, gk, kt, steps, lk), edge_keys(gg, gb, bt, steps, lk);
                        edge_queries(gg, gq, qf, steps, lk, 0), edge_queries(gg, ga, af, steps, lk, 1);
                    }
                    unspan_queries(gq, pd, steps, lk, 0), unspan_queries(ga, pd, steps, lk, 1);
                    unspan_keys(gk, pd, steps, lk), unspan_keys(gb, pd, steps, lk);
                    pairs_back(gq, gk, dg ? gg : 0, 0, GQK, pq, pk, pd, 0, steps, lk, 0, 0);
                    pairs_back(gq, gb, dg ? gg : 0, 0, GQB, pq, pb, pd, 0, steps, lk, 0, 0);
                    pairs_back(ga, gk, dg ? gg : 0, unused, GAK, pa, pk, pd, 0, steps, lk, 1, 1);
                    pairs_back(ga, gb, dg ? gg : 0, unused, GAB, pa, pb, pd, 0, steps, lk, 1, 1);
                    product(ds, lv, ds, whole, qf, 1, lk, po, lv, lk, steps, lv / W);
                    product(ds, lv, ds, 0, af, 1, lk, y, lv, lk, steps, lv / W);
                    if (rb && rb[t]) memset(ds, 0, size * sizeof(REAL));
                    unpack(f->dq + at * K, H * K, gq, lk, steps, K), unpack(f->dk + at * K, H * K, gk, lk, steps, K);
                    unpack(f->da + at * K, H * K, ga, lk, steps, K), unpack(f->db + at * K, H * K, gb, lk, steps, K);
                    unpack(f->dv + at * V, H * V, gv, lv, steps, V);
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
