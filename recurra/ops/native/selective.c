/* selective (Mamba-1):  h[d,n] <- e^{dt[d] A[d,n]} h[d,n] + dt[d] x[d] B[n],   y[d] = sum_n C[n] h[d,n]
 *
 * Sixteen channels are one vec; four columns of the state stay in registers over a block of sixteen steps, and the
 * exponential is taken where it is used: nothing of size B T D N exists. For gradients the forward keeps the state at
 * the start of each block (B T D N / 16 numbers) and the backward recomputes the block from it. */
#include "common.h"
#define BLOCK W
#define U 4

/* a task is one row of the batch and a group of channels; B and C are shared by all channels of a row */
#define TASK I b = task / groups, d0 = task % groups * wide, d1 = d0 + wide < D ? d0 + wide : D; \
    const uint8_t *rb = z.reset ? z.reset + b * T : 0;
#define CHANNELS(t0) I some = D - d, n1 = t0 + BLOCK < T ? BLOCK : T - t0; \
    const REAL *xb = row(x, b, t0, 0) + d, *dtb = row(dt, b, t0, 0) + d;

/* A (D x N) -> one vec of channels for each n; N is padded to np with zeros */
static void columns(REAL *y, const REAL *A, I d, I D, I N, I np) {
    for (I n = 0; n < np; n++) for (I i = 0; i < W; i++) y[n * W + i] = n < N && d + i < D ? A[(d + i) * N + n] : 0;
}
static void rows(REAL *y, const REAL *x, I stride, I T, I N, I np) {
    for (I t = 0; t < BLOCK; t++) for (I n = 0; n < np; n++) y[t * np + n] = t < T && n < N ? x[t * stride + n] : 0;
}

/* wide: the channels of one task; the caller chooses it, and the threads */
typedef struct {
    Rows x, dt, B, C;
    const REAL *A;
    const uint8_t *reset;
    const REAL *first;
    I batch, T, D, N, wide;
} Selective;
#define OPEN(f) const Selective z = (f)->z; const Rows x = z.x, dt = z.dt, Bm = z.B, Cm = z.C; const REAL *A = z.A; \
    const I B = z.batch, T = z.T, D = z.D, N = z.N, wide = z.wide, np = (N + U - 1) / U * U, groups = (D + wide - 1) / wide, \
        blocks = (T + BLOCK - 1) / BLOCK;

typedef struct { Selective z; REAL *last, *y, *kept /* NULL, or B, T/16, D/16, N, 16 */; I threads; } Forward;

/* a single step goes from the first state straight into the last, with columns along the vec */
static I step(const Forward *f) {
    OPEN(f)
    (void)np, (void)groups, (void)blocks;
    #pragma omp parallel for num_threads(f->threads)
    for (I task = 0; task < B * D; task++) {
        I b = task / D, d = task % D;
        REAL delta = row(dt, b, 0, 0)[d], u = delta * row(x, b, 0, 0)[d];
        const REAL *h = z.first + task * N, *write = row(Bm, b, 0, 0), *query = row(Cm, b, 0, 0);
        vec y = {};
        for (I n = 0; n < N; n += W) {
            vec s = z.reset && z.reset[b] ? (vec){} : exps(delta * get_some(A + d * N + n, N - n)) * get_some(h + n, N - n);
            s += u * get_some(write + n, N - n);
            y += s * get_some(query + n, N - n);
            put_some(f->last + task * N + n, s, N - n);
        }
        f->y[task] = sum1(y);
    }
    return 0;
}

I selective_forward(const Forward *f, I fields) {
    CHECK(f, fields)
    if (f->z.T == 1 && !f->kept) return step(f);
    OPEN(f)
    REAL *y = f->y, *kept = f->kept;
    I failed = 0;
    #pragma omp parallel num_threads(f->threads)
    {
        unsigned old = flush_on();
        REAL *Ac = aligned_alloc(64, sizeof(REAL) * (2 * wide * np + 2 * BLOCK * np + 2 * W)), *hc = Ac + wide * np, *Bb = hc + wide * np, *Cb = Bb + BLOCK * np;
        if (!Ac) failed = 1;
        #pragma omp for schedule(dynamic)
        for (I task = 0; task < B * groups; task++) {
            if (!Ac) continue;
            TASK
            for (I d = d0; d < d1; d += W) columns(Ac + (d - d0) * np, A, d, D, N, np), columns(hc + (d - d0) * np, z.first + b * D * N, d, D, N, np);
            for (I t0 = 0; t0 < T; t0 += BLOCK) {
                rows(Bb, row(Bm, b, t0, 0), Bm.t, T - t0, N, np), rows(Cb, row(Cm, b, t0, 0), Cm.t, T - t0, N, np);
                for (I d = d0; d < d1; d += W) {
                    CHANNELS(t0)
                    vec ys[BLOCK], xs[BLOCK], ds[BLOCK];
                    REAL *ha = hc + (d - d0) * np;
                    if (kept) memcpy(kept + ((b * blocks + t0 / BLOCK) * up(D) + d) * np, ha, W * np * sizeof(REAL));
                    for (I t = 0; t < n1; t++) {
                        __builtin_prefetch(xb + (t + BLOCK) * x.t), __builtin_prefetch(dtb + (t + BLOCK) * dt.t);
                        ds[t] = get_some(dtb + t * dt.t, some), xs[t] = get_some(xb + t * x.t, some) * ds[t], ys[t] = (vec){};
                    }
                    for (I n = 0; n < np; n += U) {
                        vec s[U], Ad[U];
                        for (int i = 0; i < U; i++) s[i] = get(ha + (n + i) * W), Ad[i] = get(Ac + (d - d0) * np + (n + i) * W);
                        for (I t = 0; t < n1; t++) {
                            if (rb && rb[t0 + t]) for (int i = 0; i < U; i++) s[i] = (vec){};
                            for (int i = 0; i < U; i++) {
                                s[i] = exps(ds[t] * Ad[i]) * s[i] + xs[t] * Bb[t * np + n + i];
                                ys[t] += Cb[t * np + n + i] * s[i];
                            }
                        }
                        for (int i = 0; i < U; i++) put(ha + (n + i) * W, s[i]);
                    }
                    for (I t = 0; t < n1; t++) put_some(y + (b * T + t0 + t) * D + d, ys[t], some);
                }
            }
            for (I d = d0; d < d1; d += W) for (I n = 0; n < N; n++) for (I i = 0; i < W && d + i < D; i++)
                f->last[(b * D + d + i) * N + n] = hc[(d - d0) * np + n * W + i];
        }
        free(Ac);
        flush_off(old);
    }
    return failed;
}

/* dh: gradient of the last state in, of the first out. dB, dC are (groups, B, T, N); dA is (B, D, N): all to be summed. */
typedef struct { Selective z; const REAL *kept, *dy; REAL *dh, *dx, *ddt, *dA, *dB, *dC; I threads; } Backward;

I selective_backward(const Backward *f, I fields) {
    CHECK(f, fields)
    OPEN(f)
    const REAL *kept = f->kept, *dy = f->dy;
    REAL *dh = f->dh, *dx = f->dx, *ddt = f->ddt, *dA = f->dA, *dB = f->dB, *dC = f->dC;
    I failed = 0;
    #pragma omp parallel num_threads(f->threads)
    {
        unsigned old = flush_on();
        REAL *Ac = aligned_alloc(64, sizeof(REAL) * (3 * wide * np + 2 * BLOCK * np + (4 * BLOCK + 1) * np * W + 8 * W));
        REAL *gh = Ac + wide * np, *gA = gh + wide * np, *Bb = gA + wide * np, *Cb = Bb + BLOCK * np,
             *hs = Cb + BLOCK * np /* BLOCK + 1 states */, *as = hs + (BLOCK + 1) * np * W, *gB = as + BLOCK * np * W, *gC = gB + BLOCK * np * W;
        if (!Ac) failed = 1;
        #pragma omp for schedule(dynamic)
        for (I task = 0; task < B * groups; task++) {
            if (!Ac) continue;
            TASK
            memset(gA, 0, wide * np * sizeof(REAL));
            for (I d = d0; d < d1; d += W) columns(Ac + (d - d0) * np, A, d, D, N, np), columns(gh + (d - d0) * np, dh + b * D * N, d, D, N, np);
            for (I t0 = (blocks - 1) * BLOCK; t0 >= 0; t0 -= BLOCK) {
                rows(Bb, row(Bm, b, t0, 0), Bm.t, T - t0, N, np), rows(Cb, row(Cm, b, t0, 0), Cm.t, T - t0, N, np);
                memset(gB, 0, 2 * BLOCK * np * W * sizeof(REAL));
                for (I d = d0; d < d1; d += W) {
                    CHANNELS(t0)
                    vec xs[BLOCK], ds[BLOCK], us[BLOCK], gy[BLOCK], gu[BLOCK], gd[BLOCK];   /* u = dt x */
                    const REAL *Ad = Ac + (d - d0) * np;
                    memcpy(hs, kept + ((b * blocks + t0 / BLOCK) * up(D) + d) * np, W * np * sizeof(REAL));
                    for (I t = 0; t < n1; t++) {
                        __builtin_prefetch(xb + (t - BLOCK) * x.t), __builtin_prefetch(dtb + (t - BLOCK) * dt.t), __builtin_prefetch(dy + (b * T + t0 + t - BLOCK) * D + d);
                        ds[t] = get_some(dtb + t * dt.t, some), xs[t] = get_some(xb + t * x.t, some), us[t] = ds[t] * xs[t];
                        gy[t] = get_some(dy + (b * T + t0 + t) * D + d, some), gu[t] = gd[t] = (vec){};
                    }
                    for (I n = 0; n < np; n += U) {
                        vec s[U], e[U], g[U];
                        for (int i = 0; i < U; i++) s[i] = get(hs + (n + i) * W);
                        for (I t = 0; t < n1; t++) {
                            int fresh = rb && rb[t0 + t];
                            for (int i = 0; i < U; i++) {
                                e[i] = fresh ? (vec){} : exps(ds[t] * get(Ad + (n + i) * W));
                                s[i] = (fresh ? (vec){} : e[i] * s[i]) + us[t] * Bb[t * np + n + i];
                                put(as + (t * np + n + i) * W, e[i]), put(hs + ((t + 1) * np + n + i) * W, s[i]);
                            }
                        }
                        for (int i = 0; i < U; i++) g[i] = get(gh + (d - d0) * np + (n + i) * W), s[i] = (vec){};
                        for (I t = n1 - 1; t >= 0; t--) {
                            int fresh = rb && rb[t0 + t];
                            for (int i = 0; i < U; i++) {
                                I at = (t * np + n + i) * W;
                                g[i] += gy[t] * Cb[t * np + n + i];
                                put(gC + at, get(gC + at) + gy[t] * get(hs + at + np * W));
                                put(gB + at, get(gB + at) + g[i] * us[t]);
                                gu[t] += g[i] * Bb[t * np + n + i];
                                g[i] *= get(as + at);
                                vec z = fresh ? (vec){} : g[i] * get(hs + at);            /* dL / d(dt A) */
                                gd[t] += z * get(Ad + (n + i) * W);
                                s[i] += z * ds[t];
                            }
                        }
                        for (int i = 0; i < U; i++) {
                            put(gh + (d - d0) * np + (n + i) * W, g[i]);
                            REAL *z = gA + (d - d0) * np + (n + i) * W;
                            put(z, get(z) + s[i]);
                        }
                    }
                    for (I t = 0; t < n1; t++) {
                        I at = (b * T + t0 + t) * D + d;
                        put_some(dx + at, gu[t] * ds[t], some);
                        put_some(ddt + at, gu[t] * xs[t] + gd[t], some);
                    }
                }
                for (I t = 0; t < BLOCK && t0 + t < T; t++) for (I n = 0; n < N; n++) {
                    I at = ((task % groups * B + b) * T + t0 + t) * N + n;
                    dB[at] = sum1(get(gB + (t * np + n) * W)), dC[at] = sum1(get(gC + (t * np + n) * W));
                }
            }
            for (I d = d0; d < d1; d++) {
                I z = (d - d0) / W * W * np + (d - d0) % W;
                for (I n = 0; n < N; n++) dh[(b * D + d) * N + n] = gh[z + n * W], dA[(b * D + d) * N + n] = gA[z + n * W];
            }
        }
        free(Ac);
        flush_off(old);
    }
    return failed;
}
