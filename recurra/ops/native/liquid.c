/* liquid (Liquid-S4):  h[d,n] <- (a + b g) h + b x[d],  g = m tanh(x / m),   y[d] = sum_n Re(c h)
 *
 * Sixteen features are one vec; a state stays in registers over a window of steps, and what moves it is made where it
 * is used: nothing of size B T D N exists. For gradients the forward keeps the states at the start of each window and
 * the backward runs the window again. Weights and states come by groups of sixteen features: weights (group, N, a b c
 * m, 16), states (B, group, N, 16), both parts of a complex number one after the other. */
#include "common.h"
#define WINDOW 64

typedef struct {
    Rows x;
    const uint8_t *reset, *valid;
    const REAL *weights, *first;
    I batch, T, D, N, parts /* of a number: 1, or 2 where it is complex */, threads;
} Liquid;

/* one group of one row: where its numbers lie, and the flags of its steps */
#define OPEN(f, P) const Liquid z = (f)->z; const I T = z.T, D = z.D, N = z.N, groups = up(D) / W, windows = (T + WINDOW - 1) / WINDOW; \
    const int A = 0, B = P, C = 2 * P, M = 3 * P, ALL = M + 1, both = P == 2; \
    const I b = task / groups, g = task % groups, d = g * W, some = D - d; \
    const uint8_t *reset = z.reset ? z.reset + b * T : 0, *valid = z.valid ? z.valid + b * T : 0; \
    const REAL *weights = z.weights + g * N * ALL * W;
#define WEIGHTS(n) const REAL *w = weights + (n) * ALL * W; \
    const vec ar = get(w), ai = both ? get(w + W) : (vec){}, br = get(w + B * W), bi = both ? get(w + (B + 1) * W) : (vec){}, \
        cr = get(w + C * W), ci = both ? get(w + (C + 1) * W) : (vec){}, m = get(w + M * W), over = 1 / m;

/* one step of the state (r, i) by input u: p is what scales it */
#define MOVE(u, th) const vec by = m * (th), pr = ar + br * by, pi = ai + bi * by; \
    const vec now = both ? pr * r - pi * i + br * (u) : pr * r + br * (u); \
    if (both) i = pr * i + pi * r + bi * (u); \
    r = now;

typedef struct { Liquid z; REAL *last, *y, *kept /* NULL, or B, group, window, N, parts, 16 */; } Forward;

INLINE void forward(const Forward *f, I task, const int P) {
    OPEN(f, P)
    REAL *state = f->last + task * N * P * W;
    memcpy(state, z.first + task * N * P * W, N * P * W * sizeof(REAL));
    for (I t0 = 0; t0 < T; t0 += WINDOW) {
        const I steps = T - t0 < WINDOW ? T - t0 : WINDOW;
        vec x[WINDOW], y[WINDOW];
        for (I t = 0; t < steps; t++) x[t] = get_some(row(z.x, b, t0 + t, 0) + d, some), y[t] = (vec){};
        if (f->kept) memcpy(f->kept + (task * windows + t0 / WINDOW) * N * P * W, state, N * P * W * sizeof(REAL));
        for (I n = 0; n < N; n++) {
            WEIGHTS(n)
            REAL *h = state + n * P * W;
            vec r = get(h), i = both ? get(h + W) : (vec){};
            for (I t = 0; t < steps; t++) {
                if (valid && !valid[t0 + t]) continue;
                if (reset && reset[t0 + t]) r = i = (vec){};
                MOVE(x[t], tanh16(x[t] * over))
                y[t] += both ? cr * r - ci * i : cr * r;
            }
            put(h, r);
            if (both) put(h + W, i);
        }
        for (I t = 0; t < steps; t++) put_some(f->y + (b * T + t0 + t) * D + d, y[t], some);
    }
}

/* dh: gradient of the last state in, of the first out. dw: (B, group, N, weights, 16), to be summed over B. */
typedef struct { Liquid z; const REAL *kept, *dy; REAL *dh, *dx, *dw; } Backward;

INLINE void backward(const Backward *f, I task, const int P) {
    OPEN(f, P)
    memset(f->dw + task * N * ALL * W, 0, N * ALL * W * sizeof(REAL));
    for (I t0 = (windows - 1) * WINDOW; t0 >= 0; t0 -= WINDOW) {
        const I steps = T - t0 < WINDOW ? T - t0 : WINDOW;
        vec x[WINDOW], dx[WINDOW], dy[WINDOW], rs[WINDOW + 1], is[WINDOW + 1], ths[WINDOW];
        for (I t = 0; t < steps; t++)
            x[t] = get_some(row(z.x, b, t0 + t, 0) + d, some), dy[t] = get_some(f->dy + (b * T + t0 + t) * D + d, some), dx[t] = (vec){};
        for (I n = 0; n < N; n++) {
            WEIGHTS(n)
            const REAL *h = f->kept + ((task * windows + t0 / WINDOW) * N + n) * P * W;
            vec r = get(h), i = both ? get(h + W) : (vec){};
            for (I t = 0; t < steps; t++) {
                if (!valid || valid[t0 + t]) {
                    if (reset && reset[t0 + t]) r = i = (vec){};
                    rs[t] = r, is[t] = i, ths[t] = tanh16(x[t] * over);
                    MOVE(x[t], ths[t])
                }
                rs[t + 1] = r, is[t + 1] = i;
            }
            REAL *dh = f->dh + (task * N + n) * P * W, *dw = f->dw + (task * N + n) * ALL * W;
            vec gr = get(dh), gi = both ? get(dh + W) : (vec){}, dar = {}, dai = {}, dbr = {}, dbi = {}, dcr = {}, dci = {}, dm = {};
            /* a step's later state, that a reset of the step after it may have put in its place in rs, is (r, i) */
            for (I t = steps - 1; t >= 0; t--) {
                if (valid && !valid[t0 + t]) continue;
                const vec hr = rs[t], hi = is[t], th = ths[t], by = m * th, pr = ar + br * by, pi = ai + bi * by;
                r = both ? pr * hr - pi * hi + br * x[t] : pr * hr + br * x[t];
                dcr += dy[t] * r, gr += dy[t] * cr;
                if (both) i = pr * hi + pi * hr + bi * x[t], dci -= dy[t] * i, gi -= dy[t] * ci;
                const vec dpr = both ? gr * hr + gi * hi : gr * hr, dpi = gi * hr - gr * hi, slope = 1 - th * th;
                dar += dpr, dbr += gr * x[t] + dpr * by;
                vec dby = dpr * br, du = gr * br;
                if (both) dai += dpi, dbi += gi * x[t] + dpi * by, dby += dpi * bi, du += gi * bi;
                dx[t] += du + dby * slope;
                dm += dby * (th - x[t] * over * slope);
                const vec back = both ? gr * pr + gi * pi : gr * pr;
                if (both) gi = gi * pr - gr * pi;
                gr = back;
                if (reset && reset[t0 + t]) gr = gi = (vec){};
            }
            put(dh, gr);
            if (both) put(dh + W, gi);
            #define GAIN(at, by) put(dw + (at) * W, get(dw + (at) * W) + (by));
            GAIN(A, dar) GAIN(B, dbr) GAIN(C, dcr) GAIN(M, dm)
            if (both) { GAIN(A + 1, dai) GAIN(B + 1, dbi) GAIN(C + 1, dci) }
        }
        for (I t = 0; t < steps; t++) put_some(f->dx + (b * T + t0 + t) * D + d, dx[t], some);
    }
}

#define EVERY_TASK(pass) \
    CHECK(f, fields) \
    const I tasks = f->z.batch * up(f->z.D) / W, threads = enough(f->z.batch * f->z.T * f->z.D * f->z.N, f->z.threads); \
    _Pragma("omp parallel num_threads(threads)") \
    { \
        unsigned old = flush_on(); \
        _Pragma("omp for schedule(dynamic)") \
        for (I task = 0; task < tasks; task++) if (f->z.parts == 2) pass(f, task, 2); else pass(f, task, 1); \
        flush_off(old); \
    } \
    return 0;
I liquid_forward(const Forward *f, I fields) { EVERY_TASK(forward) }
I liquid_backward(const Backward *f, I fields) { EVERY_TASK(backward) }
