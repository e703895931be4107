/* conv:  y_t = silu(bias + sum_j w_j x_{t-J+1+j}) per feature, with J - 1 past inputs carried; taps never cross a reset.
 *
 * Rows of D features, in order; a block of time is a task, since nothing is carried but inputs. A row's steps may end
 * before T: those after did not happen. */
#include "common.h"
#define ROWS 64
#define MOST 16

typedef struct {
    Rows x;
    const REAL *past, *w /* D J */, *bias;
    const uint8_t *reset;
    const I *counts /* steps of each row, or NULL: T */;
    I B, T, D, J, silu;
} Conv;

INLINE vec sigmoid(vec z) { return 1 / (1 + exps(-z)); }
INLINE I count(const Conv *z, I b) { return z->counts ? z->counts[b] : z->T; }

/* the step of the last reset at or before t, or -J */
INLINE I since(const Conv *z, I b, I t, I J) {
    const uint8_t *reset = z->reset + b * z->T;
    for (I s = t; z->reset && s >= 0 && s > t - J; s--) if (reset[s]) return s;
    return -J;
}
/* the input of step s (s < 0: the past) to a step whose sequence began at `first`; zero for a tap that crosses a reset */
INLINE const REAL *input(const Conv *z, const REAL *zero, I b, I s, I first) {
    return s < first ? zero : s < 0 ? z->past + (b * (z->J - 1) + s + z->J - 1) * z->D : row(z->x, b, s, 0);
}
INLINE vec drive(const REAL *const *r, const REAL *w, const REAL *bias, I J, I wide, I c, I some) {
    vec z = bias ? get_some(bias + c, some) : (vec){};
    for (I j = 0; j < J; j++) z += get(w + j * wide + c) * get_some(r[j] + c, some);
    return z;
}
/* taps as J rows of `wide`, then a row of zeros; NULL where there is no memory */
static REAL *taps(const Conv *z, I wide) {
    REAL *w = calloc((z->J + 1) * wide, sizeof(REAL));
    for (I c = 0; w && c < z->D; c++) for (I j = 0; j < z->J; j++) w[j * wide + c] = z->w[c * z->J + j];
    return w;
}

typedef struct { Conv z; REAL *last, *y; I threads; } Forward;

INLINE void walk(const Conv *z, const REAL *w, REAL *y, I b, I from, I to, I J, I wide) {
    I D = z->D, whole = D / W * W, n = count(z, b);
    for (I t = from; t < to; t++, y += D) {
        const REAL *r[MOST];
        if (t >= n) { memset(y, 0, D * sizeof(REAL)); continue; }
        I first = since(z, b, t, J);
        for (I j = 0; j < J; j++) r[j] = input(z, w + J * wide, b, t - J + 1 + j, first);
        #define ONE(c, some) { vec x = drive(r, w, z->bias, J, wide, c, some); put_some(y + c, z->silu ? x * sigmoid(x) : x, some); }
        for (I c = 0; c < whole; c += W) ONE(c, W)
        if (whole < D) ONE(whole, D - whole)
    }
}
I conv_forward(const Forward *f, I fields) {
    CHECK(f, fields)
    const Conv *z = &f->z;
    I B = z->B, T = z->T, D = z->D, J = z->J, wide = up(D), blocks = (T + ROWS - 1) / ROWS, threads = enough(B * T * D, f->threads);
    REAL *w = taps(z, wide);
    if (!w) return 1;
    #pragma omp parallel num_threads(threads)
    {
        unsigned old = flush_on();
        #pragma omp for schedule(static)
        for (I task = 0; task < B * blocks; task++) {
            I b = task / blocks, from = task % blocks * ROWS, to = from + ROWS < T ? from + ROWS : T;
            REAL *y = f->y + (b * T + from) * D;
            if (J == 4) walk(z, w, y, b, from, to, 4, wide); else walk(z, w, y, b, from, to, J, wide);
        }
        flush_off(old);
    }
    for (I b = 0; b < B; b++) {
        I n = count(z, b), first = since(z, b, n - 1, J);
        for (I i = 0; i < J - 1; i++)
            memcpy(f->last + (b * (J - 1) + i) * D, input(z, w + J * wide, b, n - J + 1 + i, first), D * sizeof(REAL));
    }
    free(w);
    return 0;
}

/* dw is D J; dbias may be NULL, and so may dlast: zero. */
typedef struct { Conv z; const REAL *dy, *dlast; REAL *dx, *dpast, *dw, *dbias; I threads; } Backward;

/* the gradient of what goes into silu at steps from..last of row b, and sums over steps before `to` for dw and dbias */
INLINE void back(const Backward *f, const REAL *w, REAL *dz, REAL *sums, I b, I from, I to, I last, I J, I wide) {
    const Conv *z = &f->z;
    I D = z->D;
    for (I t = from; t < last; t++) {
        const REAL *r[MOST], *g = f->dy + (b * z->T + t) * D;
        I first = since(z, b, t, J);
        for (I j = 0; j < J; j++) r[j] = input(z, w + J * wide, b, t - J + 1 + j, first);
        for (I c = 0; c < D; c += W) {
            I some = D - c;
            vec d = get_some(g + c, some);
            if (z->silu) {
                vec x = drive(r, w, z->bias, J, wide, c, some), s = sigmoid(x);
                d *= s * (1 + x * (1 - s));
            }
            put(dz + (t - from) * wide + c, d);
            if (t >= to) continue;
            for (I j = 0; j < J; j++) put(sums + j * wide + c, get(sums + j * wide + c) + d * get_some(r[j] + c, some));
            put(sums + J * wide + c, get(sums + J * wide + c) + d);
        }
    }
}
/* the gradient of the inputs of steps from..to, and of the past before step 0 */
static void gather(const Backward *f, const REAL *w, const REAL *dz, I b, I from, I to, I last, I wide) {
    const Conv *z = &f->z;
    I D = z->D, J = z->J, n = count(z, b), kept = n - J + 1, end = since(z, b, n - 1, J);
    for (I t = from ? from : 1 - J; t < to; t++) {
        REAL *out = t < 0 ? f->dpast + (b * (J - 1) + t + J - 1) * D : f->dx + (b * z->T + t) * D;
        const REAL *state = f->dlast && t >= kept && t >= end && t < n ? f->dlast + (b * (J - 1) + t - kept) * D : 0;
        I reach[MOST], m = 0;                                      /* the steps that read input t */
        for (I s = t < from ? from : t; s < t + J && s < last; s++) if (since(z, b, s, J) <= t) reach[m++] = s;
        for (I c = 0; c < D; c += W) {
            vec d = state ? get_some(state + c, D - c) : (vec){};
            for (I i = 0; i < m; i++) d += get(w + (J - 1 - (reach[i] - t)) * wide + c) * get(dz + (reach[i] - from) * wide + c);
            put_some(out + c, d, D - c);
        }
    }
}
I conv_backward(const Backward *f, I fields) {
    CHECK(f, fields)
    const Conv *z = &f->z;
    I B = z->B, T = z->T, D = z->D, J = z->J, wide = up(D), size = (J + 1) * wide, blocks = (T + ROWS - 1) / ROWS, failed = 0;
    I threads = enough(B * T * D, f->threads);
    /* sums of each block, added in order: the same numbers every time */
    REAL *w = taps(z, wide), *sums = calloc(B * blocks * size, sizeof(REAL));
    if (!w || !sums) threads = 0, failed = 1;
    #pragma omp parallel num_threads(threads ? threads : 1) if (threads)
    {
        unsigned old = flush_on();
        REAL *dz = threads ? malloc((ROWS + MOST) * wide * sizeof(REAL)) : 0;
        if (!dz) failed = 1;
        #pragma omp for schedule(static)
        for (I task = 0; task < B * blocks; task++) {
            if (!dz) continue;
            I b = task / blocks, from = task % blocks * ROWS, to = from + ROWS < T ? from + ROWS : T, n = count(z, b);
            I last = to + J - 1 < n ? to + J - 1 : n;
            REAL *near = sums + task * size;
            if (J == 4) back(f, w, dz, near, b, from, to, last, 4, wide); else back(f, w, dz, near, b, from, to, last, J, wide);
            gather(f, w, dz, b, from, to, last, wide);
        }
        free(dz);
        flush_off(old);
    }
    for (I i = 1; !failed && i < B * blocks; i++)
        for (I c = 0; c < size; c += W) put(sums + c, get(sums + c) + get(sums + i * size + c));
    for (I c = 0; !failed && c < D; c++) for (I j = 0; j <= J; j++) {
        REAL s = sums[j * wide + c];
        if (j < J) f->dw[c * J + j] = s; else if (f->dbias) f->dbias[c] = s;
    }
    free(w), free(sums);
    return failed;
}
