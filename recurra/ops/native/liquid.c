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
        cr = get(w + C * W), ci = both ? get(w + (C + 1) * W) : (vec){}, m = get(w + M * W), over = 1 / m, mr = m * br, mi = m * bi;

/* one step of the state (r, i) by input u: p is what scales it */
#define MOVE(u, th) const vec pr = ar + mr * (th), pi = ai + mi * (th); \
    const vec now = both ? pr * r + (br * (u) - pi * i) : pr * r + br * (u); \
    if (both) i = pr * i + (bi * (u) + pi * r); \
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
                y[t] += cr * r;
                if (both) y[t] -= ci * i;
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
            rs[0] = r, is[0] = i;
            for (I t = 0; t < steps; t++) {
                if (!valid || valid[t0 + t]) {
                    if (reset && reset[t0 + t]) r = i = (vec){};
                    ths[t] = tanh16(x[t] * over);
                    MOVE(x[t], ths[t])
                }
                rs[t + 1] = r, is[t + 1] = i;
            }
            REAL *dh = f->dh + (task * N + n) * P * W, *dw = f->dw + (task * N + n) * ALL * W;
            vec gr = get(dh), gi = both ? get(dh + W) : (vec){}, dar = {}, dai = {}, dbr = {}, dbi = {}, dcr = {}, dci = {};
            /* sums over steps: of what scales the state and how far, and of what its limit lets through */
            vec far = {}, fai = {}, through = {};
            for (I t = steps - 1; t >= 0; t--) {
                if (valid && !valid[t0 + t]) continue;
                const int begins = reset && reset[t0 + t];
                const vec th = ths[t], pr = ar + mr * th, pi = ai + mi * th, slope = 1 - th * th;
                const vec hr = begins ? (vec){} : rs[t], hi = begins ? (vec){} : is[t];
                dcr += dy[t] * rs[t + 1], gr += dy[t] * cr;
                if (both) dci -= dy[t] * is[t + 1], gi -= dy[t] * ci;
                const vec dpr = both ? gr * hr + gi * hi : gr * hr, dpi = gi * hr - gr * hi;
                dar += dpr, far += dpr * th, dbr += gr * x[t];
                if (both) dai += dpi, fai += dpi * th, dbi += gi * x[t];
                const vec some_through = slope * (both ? dpr * br + dpi * bi : dpr * br);
                through += some_through * x[t];
                dx[t] += some_through + (both ? gr * br + gi * bi : gr * br);
                if (begins) { gr = gi = (vec){}; continue; }
                const vec back = both ? gr * pr + gi * pi : gr * pr;
                if (both) gi = gi * pr - gr * pi;
                gr = back;
            }
            dbr += m * far, dbi += m * fai;
            const vec dm = (both ? br * far + bi * fai : br * far) - over * through;
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
