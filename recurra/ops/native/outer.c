/* outer:  S_t = diag(e^{g_t}) S_{t-1} + k_t v_t',   o_t = S_t' q_t   (before: o_t = S_{t-1}' q_t + (q_t . u k_t) v_t)
 *
 * Forward is the recurrence itself with a tile of S held in registers over a block of steps: three vector
 * instructions for each sixteen entries of S, no store of S but at the end of the block. Backward is by chunks of
 * sixteen steps, where gradients of q, k, v and S are six small matrix products; it needs nothing but the inputs,
 * since it runs the states forward again, keeping one per EVERY chunks, and inside those recomputes. */
#include "chunk.h"
#define BLOCK 32
#define EVERY 4

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

/* gw: numbers in a step's log-decay of a head: 0, 1 or K */
typedef struct {
    Rows q, k, v, g;
    const REAL *u;
    const uint8_t *reset;
    const REAL *first;
    I B, T, H, K, V, gw, before;
} Outer;
#define OPEN(f) const Outer z = (f)->z; const Rows q = z.q, k = z.k, v = z.v, g = z.g; const REAL *u = z.u; \
    const I B = z.B, T = z.T, H = z.H, K = z.K, V = z.V, gw = z.gw, before = z.before;

typedef struct { Outer z; REAL *last, *o; I threads; } Forward;

/* A single step goes from the first state straight into the last: `some` values of a head, in U vecs. */
INLINE void step(const int U, I some, const Outer *z, I b, I h, I j, REAL *last, REAL *o) {
    const I K = z->K, V = z->V, at = (b * z->H + h) * K * V + j, fresh = z->reset && z->reset[b], gw = z->gw, before = z->before;
    const REAL *q = row(z->q, b, 0, h), *k = row(z->k, b, 0, h), *v = row(z->v, b, 0, h) + j, *g = row(z->g, b, 0, h);
    const REAL *u = z->u ? z->u + h * K : 0, *first = z->first + at;
    REAL d[W];
    vec x[4], y[4] = {};
    UNROLL for (int i = 0; i < U; i++) x[i] = get_some(v + i * W, some - i * W);
    if (gw < 2) put(d, gw ? exps(all(g[0])) : all(1));
    for (I c = 0; c < K; c++) {
        if (gw > 1 && c % W == 0) put(d, exps(get_some(g + c, K - c)));
        UNROLL for (int i = 0; i < U; i++) {
            vec s = fresh ? (vec){} : get_some(first + c * V + i * W, some - i * W), w = k[c] * x[i];
            if (before) y[i] += q[c] * (u ? s + u[c] * w : s);
            s = d[c % W] * s + w;
            if (!before) y[i] += q[c] * s;
            put_some(last + at + c * V + i * W, s, some - i * W);
        }
    }
    UNROLL for (int i = 0; i < U; i++) put_some(o + (b * z->H + h) * V + j + i * W, y[i], some - i * W);
}
static I steps(const Outer *z, REAL *last, REAL *o, I threads) {
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

I outer_forward(const Forward *f, I fields) {
    CHECK(f, fields)
    OPEN(f)
    I threads = enough(B * T * H * K * V / 8, f->threads);
    if (T == 1) return steps(&f->z, f->last, f->o, threads);
    I lk = up(K), lv = up(V), size = lk * lv, most = T < BLOCK ? T : BLOCK, group = heads_together(B, H, threads), failed = 0;
    #pragma omp parallel num_threads(threads)
    {
        unsigned old = flush_on();
        Arena a = arena(most * (3 * lk + 2 * lv) + group * size, T + 1);
        REAL *pq = take(&a, most * lk), *pk = take(&a, most * lk), *pd = take(&a, most * lk), *pv = take(&a, most * lv),
             *po = take(&a, most * lv), *s0 = take(&a, group * size);
        if (!a.base) failed = 1;
        #pragma omp for schedule(dynamic)
        for (I task = 0; task < B * H / group; task++) {
            if (!a.base) continue;
            I b = task * group / H, h0 = task * group % H, n = cut(a.begins, z.reset ? z.reset + b * T : 0, T, most);
            for (I h = 0; h < group; h++) pack(s0 + h * size, lv, z.first + (task * group + h) * K * V, V, K, lk, V, 0);
            for (I c = 0; c < n; c++) for (I h = 0; h < group; h++) {
                I t = a.begins[c], steps = a.begins[c + 1] - t, head = h0 + h;
                REAL *s = s0 + h * size;
                if (z.reset && z.reset[b * T + t]) memset(s, 0, size * sizeof(REAL));
                pack(pq, lk, row(q, b, t, head), q.t, steps, steps, K, BLOCK);
                pack(pk, lk, row(k, b, t, head), k.t, steps, steps, K, BLOCK);
                pack(pv, lv, row(v, b, t, head), v.t, steps, steps, V, BLOCK);
                if (gw || before) decays(pd, lk, row(g, b, t, head), g.t, steps, steps, K, gw, BLOCK);
                memset(po, 0, steps * lv * sizeof(REAL));
                if (before && u) bonus(po, pq, pk, pv, u + head * K, steps, K, lk, lv);
                if (before) walk_BEFORE(s, po, pq, pk, pd, pv, steps, lk, lv);
                else if (gw) walk_AFTER(s, po, pq, pk, pd, pv, steps, lk, lv);
                else walk_PLAIN(s, po, pq, pk, pd, pv, steps, lk, lv);
                unpack(f->o + ((b * T + t) * H + head) * V, H * V, po, lv, steps, V);
            }
            for (I h = 0; h < group; h++) unpack(f->last + (task * group + h) * K * V, V, s0 + h * size, lv, K, V);
        }
        free(a.base);
        flush_off(old);
    }
    return failed;
}

/* dS: the gradient of the last state in, of the first out. dg has the shape of g. du is (B, H, K), to be summed. */
typedef struct { Outer z; const REAL *dy; REAL *dS, *dq, *dk, *dv, *dg, *du; I threads; } Backward;

I outer_backward(const Backward *f, I fields) {
    CHECK(f, fields)
    OPEN(f)
    REAL *dS = f->dS, *dq = f->dq, *dk = f->dk, *dv = f->dv, *dg = f->dg, *du = f->du;
    I threads = enough(B * T * H * K * V / 8, f->threads), failed = 0;
    I lk = up(K), lv = up(V), size = lk * lv, group = heads_together(B, H, threads), kept = most_chunks(z.reset, B, T) / EVERY + 1;
    /* one decay for all keys, or none, is numbers and a table; one for each key is products along the chunk */
    const I scalar = gw < 2 && !before;
    #pragma omp parallel num_threads(threads)
    {
        unsigned old = flush_on();
        Arena a = arena(CHUNK * (11 * lk + 6 * lv + 3 * W) + 2 * W + (2 + group) * lk + ((kept + 1) * group + EVERY) * size, T + 1);
        REAL *pq = take(&a, CHUNK * lk), *pk = take(&a, CHUNK * lk), *pd = take(&a, CHUNK * lk), *qf = take(&a, CHUNK * lk),
             *kt = take(&a, CHUNK * lk), *w = take(&a, CHUNK * lk), *gq = take(&a, CHUNK * lk), *gk = take(&a, CHUNK * lk),
             *gg = take(&a, CHUNK * lk), *xq = take(&a, CHUNK * lk), *xk = take(&a, CHUNK * lk),
             *pv = take(&a, CHUNK * lv), *po = take(&a, CHUNK * lv), *gv = take(&a, CHUNK * lv), *ot = take(&a, CHUNK * lv),
             *vt = take(&a, CHUNK * lv), *A = take(&a, CHUNK * W), *G = take(&a, CHUNK * W), *whole = take(&a, lk),
             *pu = take(&a, lk), *gus = take(&a, group * lk), *marks = take(&a, kept * group * size),
             *window = take(&a, EVERY * size), *dss = take(&a, group * size), *fo = take(&a, CHUNK * lv), *table = take(&a, CHUNK * W),
             *since = take(&a, W), *until = take(&a, W);
        I *begins = a.begins;
        if (!a.base) failed = 1;
        #pragma omp for schedule(dynamic)
        for (I task = 0; task < B * H / group; task++) {
            if (!a.base) continue;
            I b = task * group / H, h0 = task * group % H, bh = task * group;
            const uint8_t *rb = z.reset ? z.reset + b * T : 0;
            I n = cut(begins, rb, T, CHUNK);
            memset(gus, 0, group * lk * sizeof(REAL));
            for (I h = 0; h < group; h++) {
                pack(dss + h * size, lv, dS + (bh + h) * K * V, V, K, lk, V, 0);
                pack(marks + h * size, lv, z.first + (bh + h) * K * V, V, K, lk, V, 0);
            }
            /* a chunk's keys, values and decays; the state it leaves in `to`, from the one it found in `s` */
            #define LOAD(c, ahead) I t = begins[c], steps = begins[c + 1] - t, at = (b * T + t) * H + h0 + h; (void)at; \
                pack(pk, lk, row(k, b, t, h0 + h), k.t, steps, CHUNK, K, ahead); \
                pack(pv, lv, row(v, b, t, h0 + h), v.t, steps, CHUNK, V, ahead); \
                if (scalar) scalar_spans(since, until, table, row(g, b, t, h0 + h), g.t, steps, gw), fill(whole, since[steps - 1], lk); \
                else decays(pd, lk, row(g, b, t, h0 + h), g.t, steps, CHUNK, K, gw, ahead);
            #define STEP(to, s) { LOAD(c, CHUNK) const REAL *keys = pk, *values = pv; \
                if (scalar) scale_rows(gv, pv, until, steps, steps, lv), values = gv; \
                else spans(qf, kt, whole, pk, pk, pd, steps, lk, 0), keys = kt; \
                product(to, lv, rb && rb[t] ? 0 : s, whole, keys, 1, lk, values, lv, lk, steps, lv / W); }
            for (I c = 0; c + EVERY < n; c += EVERY) for (I h = 0; h < group; h++) {
                REAL *mark = marks + (c / EVERY * group + h) * size, *next = mark + group * size;
                for (I i = c; i < c + EVERY; i++) { I c = i; STEP(next, i % EVERY ? next : mark) }
            }
            for (I from = (n - 1) / EVERY * EVERY; from >= 0; from -= EVERY) for (I h = 0; h < group; h++) {
                I till = from + EVERY < n ? from + EVERY : n;
                REAL *mark = marks + (from / EVERY * group + h) * size, *ds = dss + h * size, *gu = gus + h * lk;
                if (u) pack(pu, lk, u + (h0 + h) * K, K, 1, 1, K, 0); else memset(pu, 0, lk * sizeof(REAL));
                for (I c = from; c < till - 1; c++) STEP(window + (c - from + 1) * size, c > from ? window + (c - from) * size : mark)
                for (I c = till - 1; c >= from; c--) {
                    LOAD(c, -CHUNK)
                    REAL *s = c > from ? window + (c - from) * size : mark;
                    const I fresh = rb && rb[t];
                    if (fresh) memset(s, 0, size * sizeof(REAL));
                    pack(pq, lk, row(q, b, t, h0 + h), q.t, steps, CHUNK, K, -CHUNK);
                    pack(po, lv, f->dy + at * V, H * V, steps, CHUNK, V, -CHUNK);
                    if (scalar) {
                        scale_rows(fo, po, since, steps, CHUNK, lv), scale_rows(gv, pv, until, steps, CHUNK, lv);
                        for (I j = 0; j < lv; j += W) transpose16(vt + j * W, W, pv + j, lv), transpose16(ot + j * W, W, fo + j, lv);
                        for (I j = 0; j < lk; j += W) transpose16(kt + j * W, W, pk + j, lk);
                        product(G, W, 0, 0, po, lv, 1, vt, W, steps, lv, 1);              /* G = do v',  A = q k' */
                        product(A, W, 0, 0, pq, lk, 1, kt, W, steps, lk, 1);
                        for (I i = 0; i < steps * W; i += W) put(A + i, get(A + i) * get(table + i));
                        for (I j = 0; j < lv; j += W) transpose16(vt + j * W, W, gv + j, lv);
                        product(xq, W, 0, 0, s, lv, 1, ot, W, lk, lv, 1);                 /* time along lanes: S do' */
                        product(xk, W, 0, 0, ds, lv, 1, vt, W, lk, lv, 1);                /*                   dS v' */
                        for (I j = 0; j < lk; j += W) transpose16(gq + j, lk, xq + j * W, W), transpose16(gk + j, lk, xk + j * W, W);
                        if (dg) {
                            REAL through = since[steps - 1] * dot(s, ds, size);
                            vec new = scalar_decay_gradient(through, row_dots(gq, pq, steps, lk), row_dots(gk, pk, steps, lk), G, A, steps);
                            for (I i = 0; i < steps; i++) dg[at + i * H] = new[i];
                        }
                        product(gv, lv, 0, 0, pk, lk, 1, ds, lv, steps, lk, lv / W);      /* dv = (decayed k) dS + A' do */
                        product(gv, lv, gv, until, A, 1, W, po, lv, steps, steps, lv / W);
                        for (I i = 0; i < steps * W; i += W) put(G + i, get(G + i) * get(table + i));
                        product(gq, lk, gq, 0, G, W, 1, pk, lk, steps, steps, lk / W);
                        product(gk, lk, gk, 0, G, 1, W, pq, lk, steps, steps, lk / W);
                        product(ds, lv, ds, whole, pq, 1, lk, fo, lv, lk, steps, lv / W);
                    } else {
                        spans(qf, kt, whole, pq, pk, pd, steps, lk, before);
                        pairs(A, pq, pk, pd, pu, w, steps, lk, before, 0);
                        for (I j = 0; j < lv; j += W) transpose16(ot + j * W, W, po + j, lv), transpose16(vt + j * W, W, pv + j, lv);
                        product(G, W, 0, 0, po, lv, 1, vt, W, steps, lv, 1);                  /* G = do v' */
                        product(xq, W, 0, 0, s, lv, 1, ot, W, lk, lv, 1);                     /* time along lanes: S do' */
                        product(xk, W, 0, 0, ds, lv, 1, vt, W, lk, lv, 1);                    /*                   dS v' */
                        for (I j = 0; j < lk; j += W) transpose16(gq + j, lk, xq + j * W, W), transpose16(gk + j, lk, xk + j * W, W);
                        product(gv, lv, 0, 0, kt, lk, 1, ds, lv, steps, lk, lv / W);          /* dv = (decayed k) dS + A' do */
                        product(gv, lv, gv, 0, A, 1, W, po, lv, steps, steps, lv / W);
                        if (dg) edge_state(gg, whole, s, ds, steps, lk, lv), edge_keys(gg, gk, kt, steps, lk), edge_queries(gg, gq, qf, steps, lk, before);
                        unspan_queries(gq, pd, steps, lk, before), unspan_keys(gk, pd, steps, lk);
                        pairs_back(gq, gk, dg ? gg : 0, gu, G, pq, pk, pd, pu, steps, lk, before, 0);
                        product(ds, lv, ds, whole, qf, 1, lk, po, lv, lk, steps, lv / W);
                    }
                    if (fresh) memset(ds, 0, size * sizeof(REAL));
                    unpack(dq + at * K, H * K, gq, lk, steps, K);
                    unpack(dk + at * K, H * K, gk, lk, steps, K);
                    unpack(dv + at * V, H * V, gv, lv, steps, V);
                    if (dg && gw > 1) unpack(dg + at * K, H * K, gg, lk, steps, K);
                    if (dg && gw == 1 && !scalar) row_sums(dg + at, H, gg, lk, steps);
                }
            }
            for (I h = 0; h < group; h++) {
                unpack(dS + (bh + h) * K * V, V, dss + h * size, lv, K, V);
                if (du) unpack(du + (bh + h) * K, K, gus + h * lk, lk, 1, K);
            }
        }
        free(a.base);
        flush_off(old);
    }
    return failed;
}
