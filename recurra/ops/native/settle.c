/* settle (fast weights):  A <- decay A + rate h h',  u = d + R h,  h <- relu(u), then a few times h <- relu(norm(u + A h))
 *
 * A is not written at every step: over a window it is what it was, faded, and attention to the states since, which are
 * few; at the window's end all of them are written as one product. Going back the gradient of A is the same: what it
 * was after the window, faded, and pairs of vectors since. So a step only reads, and one A a window is kept. Features
 * are filled up to sixteens with zeros. A and its gradient lie transposed. */
#include "rows.h"
#define WINDOW 64
#define NORM_EPS ((REAL)1e-5)

typedef struct {
    const REAL *drive /* B, T, P */, *right /* R' */, *left /* R */, *norm, *first /* B, P */, *fast /* B, P, P */;
    const uint8_t *reset, *valid;
    const double *numbers /* decay, rate */;
    I batch, T, D, P, loops, threads;
} Settle;

/* y = M x, of n rows; of as many as fill a vec there is room in both */
static void dots(REAL *y, const REAL *M, const REAL *x, I n, I P) {
    for (I i = 0; i < n; i += W) put(y + i, (vec){});
    add_dots(y, M, x, n, P);
}
/* y += sum_j weight_j a_j (b_j . x): attention by b, of a */
static void attend(REAL *y, const REAL *a, const REAL *b, const REAL *weight, const REAL *x, I n, I P, REAL *room) {
    dots(room, b, x, n, P);
    for (I j = 0; j < n; j++) room[j] *= weight[j];
    add_rows(y, a, room, n, P);
}
/* M = scale M + sum_j weight_j a_j b_j': of a scale of zero nothing is left, not even NaN */
static void write_all(REAL *M, REAL scale, const REAL *a, REAL *b, const REAL *weight, I n, I P, REAL *room) {
    for (I j = 0; j < n; j++) EACH(p, P) b[j * P + p] *= weight[j];
    for (I p = 0; p < P; p++) room[p] = scale;
    if (scale == 0) product(M, P, 0, 0, a, 1, P, b, P, P, n, P / W);
    else product(M, P, M, room, a, 1, P, b, P, P, n, P / W);
}

#define SUM(s, n, of) REAL s = 0; _Pragma("omp simd reduction(+:s)") for (I i = 0; i < (n); i++) s += (of);

#define OPEN(f) const Settle z = (f)->z; const I T = z.T, D = z.D, P = z.P, S = z.loops, windows = (T + WINDOW - 1) / WINDOW; \
    const REAL decay = z.numbers[0], rate = z.numbers[1], *gain = z.norm, *bias = z.norm + P; \
    const uint8_t *reset = z.reset ? z.reset + b * T : 0, *valid = z.valid ? z.valid + b * T : 0; \
    REAL powers[WINDOW + 1]; \
    powers[0] = 1; \
    for (int n = 0; n < WINDOW; n++) powers[n + 1] = powers[n] * decay;
#define HAPPENS(t) (!valid || valid[t])
#define BEGINS(t) (reset && reset[t])
/* of the states from j on, when n were written */
#define FADED(n) for (I j = 0; j < (n); j++) weight[j] = rate * powers[(n) - 1 - j];

/* kept: NULL, or (B, T, 2 + loops, P): h before, u, and what is normed; sharp: (B, T, loops); marks: A by windows */
typedef struct { Settle z; REAL *last, *fast, *y, *kept, *sharp, *marks; } Forward;

static void forward(const Forward *f, I b, REAL *room) {
    OPEN(f)
    REAL *h = f->last + b * P, *A = f->fast + b * P * P, *past = room, *u = past + WINDOW * P, *pulled = u + P, *weight = pulled + P,
         *scores = weight + WINDOW;
    memcpy(h, z.first + b * P, P * sizeof(REAL)), memcpy(A, z.fast + b * P * P, P * P * sizeof(REAL));
    for (I t0 = 0; t0 < T; t0 += WINDOW) {
        I n = 0, old = 1;
        if (f->marks) memcpy(f->marks + (b * windows + t0 / WINDOW) * P * P, A, P * P * sizeof(REAL));
        for (I t = t0; t < T && t < t0 + WINDOW; t++) {
            REAL *y = f->y + (b * T + t) * P, *keep = f->kept ? f->kept + (b * T + t) * (2 + S) * P : 0;
            if (!HAPPENS(t)) {
                memset(y, 0, P * sizeof(REAL));
                if (keep) memset(keep, 0, P * sizeof(REAL));
                continue;
            }
            if (BEGINS(t)) memset(h, 0, P * sizeof(REAL)), n = old = 0;
            memcpy(past + n * P, h, P * sizeof(REAL)), n++;
            memcpy(u, z.drive + (b * T + t) * P, P * sizeof(REAL));
            add_rows(u, z.right, h, D, P);
            if (keep) memcpy(keep, h, P * sizeof(REAL)), memcpy(keep + P, u, P * sizeof(REAL));
            EACH(i, P) h[i] = u[i] > 0 ? u[i] : 0;
            FADED(n)
            for (I s = 0; s < S; s++) {
                memset(pulled, 0, P * sizeof(REAL));
                if (old) add_rows(pulled, A, h, D, P);
                EACH(i, P) pulled[i] = u[i] + powers[n] * pulled[i];
                attend(pulled, past, past, weight, h, n, P, scores);
                SUM(total, D, pulled[i])
                const REAL mean = total / D;
                SUM(square, D, (pulled[i] - mean) * (pulled[i] - mean))
                const REAL sharp = 1 / (REAL)sqrt(square / D + NORM_EPS);
                EACH(i, P) pulled[i] = (pulled[i] - mean) * sharp;
                if (keep) memcpy(keep + (2 + s) * P, pulled, P * sizeof(REAL)), f->sharp[(b * T + t) * S + s] = sharp;
                EACH(i, P) h[i] = pulled[i] * gain[i] + bias[i] > 0 ? pulled[i] * gain[i] + bias[i] : 0;
            }
            memcpy(y, h, P * sizeof(REAL));
        }
        if (!n) continue;
        FADED(n)
        memcpy(scores, past, n * P * sizeof(REAL));
        write_all(A, old ? powers[n] : 0, past, scores, weight, n, P, scores + WINDOW * P);
    }
}

/* dh, dfast: gradients of the last state in, of the first out; dnorm: (B, 2, P), to be summed */
typedef struct { Settle z; const REAL *kept, *sharp, *marks, *dy; REAL *dh, *dfast, *ddrive, *dnorm; } Backward;

static void backward(const Backward *f, I b, REAL *room) {
    OPEN(f)
    REAL *dh = f->dh + b * P, *G = f->dfast + b * P * P, *dgain = f->dnorm + b * 2 * P, *dbias = dgain + P;
    REAL *past = room, *pulls = past + WINDOW * P, *froms = pulls + WINDOW * S * P, *g = froms + WINDOW * S * P, *du = g + P, *back = du + P,
         *weight = back + P, *later = weight + WINDOW, *scores = later + WINDOW * S + W;
    I begun[WINDOW], count[WINDOW];
    memset(dgain, 0, 2 * P * sizeof(REAL));
    for (I t0 = (windows - 1) * WINDOW; t0 >= 0; t0 -= WINDOW) {
        const I steps = T - t0 < WINDOW ? T - t0 : WINDOW;
        const REAL *A = f->marks + (b * windows + t0 / WINDOW) * P * P;
        /* begun: where the states of a step's sequence begin, -1 if before the window; count: of states up to a step */
        I n = 0, from = -1;
        for (I t = 0; t < steps; t++) {
            if (HAPPENS(t0 + t)) {
                if (BEGINS(t0 + t)) from = n;
                memcpy(past + n * P, f->kept + (b * T + t0 + t) * (2 + S) * P, P * sizeof(REAL)), n++;
            }
            begun[t] = from, count[t] = n;
        }
        I pairs = 0, newest = 0, alive = 1;
        const I all = n;
        for (I t = steps - 1; t >= 0; t--) {
            REAL *ddrive = f->ddrive + (b * T + t0 + t) * P;
            const REAL *keep = f->kept + (b * T + t0 + t) * (2 + S) * P, *u = keep + P;
            if (!HAPPENS(t0 + t)) { memset(ddrive, 0, P * sizeof(REAL)); continue; }
            n = count[t], from = begun[t];
            const I start = from < 0 ? 0 : from, seen = n - start;
            for (I j = 0; j < seen; j++) weight[j] = rate * powers[seen - 1 - j];
            EACH(i, P) g[i] = dh[i] + f->dy[(b * T + t0 + t) * P + i], du[i] = 0;
            for (I s = S - 1; s >= 0; s--) {
                const REAL *normed = keep + (2 + s) * P, *before = normed - P, sharp = f->sharp[(b * T + t0 + t) * S + s];
                REAL *pull = pulls + pairs * P, *h = froms + pairs * P;
                EACH(i, P) {
                    const REAL out = normed[i] * gain[i] + bias[i] > 0 ? g[i] : 0;
                    dgain[i] += out * normed[i], dbias[i] += out, g[i] = out * gain[i];
                }
                SUM(total, D, g[i])
                SUM(along, D, g[i] * normed[i])
                const REAL mean = total / D, slant = along / D;
                EACH(i, P) pull[i] = i < D ? sharp * (g[i] - mean - normed[i] * slant) : 0;
                if (s) EACH(i, P) h[i] = before[i] * gain[i] + bias[i] > 0 ? before[i] * gain[i] + bias[i] : 0;
                else EACH(i, P) h[i] = u[i] > 0 ? u[i] : 0;
                EACH(i, P) du[i] += pull[i];
                memset(g, 0, P * sizeof(REAL));
                if (from < 0) {
                    dots(g, A, pull, P, P);
                    EACH(i, P) g[i] *= powers[n];
                }
                attend(g, past + start * P, past + start * P, weight, pull, seen, P, scores);
                later[pairs++] = n;
            }
            EACH(i, P) du[i] += u[i] > 0 ? g[i] : 0;
            memcpy(ddrive, du, P * sizeof(REAL));
            if (BEGINS(t0 + t)) { memset(dh, 0, P * sizeof(REAL)), newest = pairs, alive = 0; continue; }
            /* what h writes: (G + G') h */
            memset(dh, 0, P * sizeof(REAL));
            const REAL *h = past + (n - 1) * P;
            if (alive) {
                dots(back, G, h, P, P), memcpy(dh, back, P * sizeof(REAL)), add_rows(dh, G, h, D, P);
                EACH(i, P) dh[i] *= powers[all - n];
            }
            REAL *faded = scores + WINDOW * S + W;
            const I some = pairs - newest;
            for (I e = 0; e < some; e++) faded[e] = powers[(I)later[newest + e] - n];
            attend(dh, pulls + newest * P, froms + newest * P, faded, h, some, P, scores);
            attend(dh, froms + newest * P, pulls + newest * P, faded, h, some, P, scores);
            EACH(i, P) dh[i] *= rate;
            add_rows(dh, z.left, du, D, P);
        }
        if (!all) continue;
        for (I e = newest; e < pairs; e++) later[e] = powers[(I)later[e]];
        write_all(G, alive ? powers[all] : 0, froms + newest * P, pulls + newest * P, later + newest, pairs - newest, P, g);
    }
}

#define WORK(z) ((z).batch * (z).T * (z).P * (z).P / 8)
I settle_forward(const Forward *f, I fields) {
    CHECK(f, fields)
    const I P = f->z.P;
    EVERY_ROW(forward, f, WORK(f->z), 2 * WINDOW * P + 3 * P + 2 * WINDOW + W);
}
I settle_backward(const Backward *f, I fields) {
    CHECK(f, fields)
    const I P = f->z.P, S = f->z.loops;
    EVERY_ROW(backward, f, WORK(f->z), (1 + 2 * S) * WINDOW * P + 2 * W * P + 4 * P + WINDOW + 3 * (WINDOW * S + W));
}
