/* waves:  y = s [sin(W x / |x|), cos(W x / |x|)] of H heads, each with R waves W of its own, in every step.
 *
 * Sixteen steps of a head go through at a time, from where they lie to where they belong: their lengths, a small product,
 * and sines and cosines of one reduction. Going back all of it is made again, which is cheaper than reading it. The
 * gradient of W is a sum over steps: of pieces, whose number depends on nothing but steps, added in order, so that no
 * number depends on who computes it. */
#include "common.h"
#define ROWS W
#define PIECES 16
#define TINY ((REAL)1e-6)

typedef struct { Rows x; const REAL *w; Rows s; I B, T, H, K, R; } Record;
typedef struct { Record z; REAL *y; I threads; } Forward;
/* ds is dense (B, T, H), NULL without s; dw is (H, R, K) */
typedef struct { Record z; const REAL *g; REAL *dx, *dw, *ds; I threads; } Backward;

/* The sine and cosine of numbers up to FAR, by quarter turns: three parts of one, the first two of few digits, so that a
 * thousand times them is exact, and polynomials on an eighth of a turn to each side. No angle is larger than its wave:
 * where one of those is longer, and in double, all go by libm. */
#define FAR 1000
static int far(const Record *z) {
    REAL most = 0;
    for (I r = 0; r < z->H * z->R; r++) {
        REAL squares = 0;
        for (I k = 0; k < z->K; k++) squares += z->w[r * z->K + k] * z->w[r * z->K + k];
        if (squares > most) most = squares;
    }
    return IS_DOUBLE || !(most <= FAR * FAR);
}
static void by_libm(const vec x, vec *s, vec *c) {
    for (int i = 0; i < W; i++) (*s)[i] = IS_DOUBLE ? sin(x[i]) : sinf(x[i]), (*c)[i] = IS_DOUBLE ? cos(x[i]) : cosf(x[i]);
}
INLINE void by_turns(const vec x, vec *s, vec *c) {
    const vec shifted = x * (REAL)0.63661977236758134 + (REAL)ROUND_BY, n = shifted - (REAL)ROUND_BY;
    const vec r = x - n * (REAL)1.5703125f - n * (REAL)4.837512969970703125e-4f - n * (REAL)7.54978995489188216e-8f, z = r * r;
    const vec a = r + r * z * (-1.6666654611e-1f + z * (8.3321608736e-3f + z * -1.9515295891e-4f));
    const vec b = (1 - 0.5f * z) + z * z * (4.166664568298827e-2f + z * (-1.388731625493765e-3f + z * 2.443315711809948e-5f));
    const ints turn = (ints)shifted, odd = -(turn & 1);
    *s = (vec)((ints)SELECT(odd, b, a) ^ (turn & 2) << 30);
    *c = (vec)((ints)SELECT(odd, a, b) ^ (turn + 1 & 2) << 30);
}

/* m steps of a head from step n of all rows on, and where these are. Panels: x over its length (ROWS x lk), what that is
 * over, angles, then sines and cosines (ROWS x lr) */
typedef struct {
    const Record *z;
    I lk, lr, far, n, m, h, b[ROWS], t[ROWS];
    REAL *x, *over, *by, *a, *s, *c, *g, *dx;
} Panels;
INLINE void panels(Panels *p, Arena *a, const Record *z) {
    p->z = z, p->lk = up(z->K), p->lr = up(z->R), p->far = far(z);
    p->x = take(a, ROWS * p->lk), p->dx = take(a, ROWS * p->lk), p->over = take(a, ROWS), p->by = take(a, ROWS);
    p->a = take(a, ROWS * p->lr), p->s = take(a, ROWS * p->lr), p->c = take(a, ROWS * p->lr), p->g = take(a, ROWS * p->lr);
}
INLINE void begin(Panels *p, I n, I end) {
    p->n = n, p->m = end - n < ROWS ? end - n : ROWS;
    for (I i = 0; i < p->m; i++) p->b[i] = (n + i) / p->z->T, p->t[i] = (n + i) % p->z->T;
}
/* turned: (lk x lr) of each head */
static void waves(Panels *p, const REAL *turned) {
    const Record *z = p->z;
    const I K = z->K, lk = p->lk, lr = p->lr;
    vec squares[ROWS] = {};
    for (I i = 0; i < p->m; i++) {
        const REAL *x = row(z->x, p->b[i], p->t[i], p->h);
        for (I c = 0; c < K; c += W) {
            const vec v = get_some(x + c, K - c);
            put(p->x + i * lk + c, v), squares[i] += v * v;
        }
        p->by[i] = z->s.x ? *row(z->s, p->b[i], p->t[i], p->h) : 1;
    }
    put(p->over, sums16(squares) + TINY);
    for (int i = 0; i < W; i++) p->over[i] = 1 / (IS_DOUBLE ? sqrt(p->over[i]) : sqrtf(p->over[i]));
    for (I i = 0; i < p->m; i++) for (I c = 0; c < lk; c += W) put(p->x + i * lk + c, p->over[i] * get(p->x + i * lk + c));
    product(p->a, lr, 0, 0, p->x, lk, 1, turned + p->h * lk * lr, lr, p->m, K, lr / W);
    for (I c = 0; c < p->m * lr; c += W) {
        vec s, k;
        if (p->far) by_libm(get(p->a + c), &s, &k); else by_turns(get(p->a + c), &s, &k);
        put(p->s + c, s), put(p->c + c, k);
    }
}
/* every head's waves with zeros beyond them, (R x lk), or turned */
static void spread(REAL *to, const Record *z, int turned) {
    const I lk = up(z->K), lr = up(z->R);
    memset(to, 0, z->H * lk * lr * sizeof(REAL));
    for (I h = 0; h < z->H; h++) for (I r = 0; r < z->R; r++) for (I k = 0; k < z->K; k++)
        to[h * lk * lr + (turned ? k * lr + r : r * lk + k)] = z->w[(h * z->R + r) * z->K + k];
}
static void forward(const Forward *f, Panels *p) {
    const I R = f->z.R, lr = p->lr;
    for (I i = 0; i < p->m; i++) {
        REAL *y = f->y + ((p->n + i) * f->z.H + p->h) * 2 * R, by = p->by[i];
        for (I c = 0; c < R; c += W) put_some(y + c, by * get(p->s + i * lr + c), R - c);
        for (I c = 0; c < R; c += W) put_some(y + R + c, by * get(p->c + i * lr + c), R - c);
    }
}
/* adds to sums (H x R x lk) */
static void back(const Backward *f, Panels *p, const REAL *plain, REAL *sums) {
    const I K = f->z.K, R = f->z.R, H = f->z.H, lk = p->lk, lr = p->lr;
    vec sums_of[ROWS] = {}, dots[ROWS] = {};
    REAL found[ROWS];
    for (I i = 0; i < p->m; i++) {
        const REAL *g = f->g + ((p->n + i) * H + p->h) * 2 * R, by = p->by[i];
        for (I c = 0; c < R; c += W) {
            const vec gs = get_some(g + c, R - c), gc = get_some(g + R + c, R - c), s = get(p->s + i * lr + c), k = get(p->c + i * lr + c);
            sums_of[i] += gs * s + gc * k;
            put(p->g + i * lr + c, by * (gs * k - gc * s));
        }
    }
    put(found, sums16(sums_of));
    for (I i = 0; f->ds && i < p->m; i++) f->ds[(p->n + i) * H + p->h] = found[i];
    product(p->dx, lk, 0, 0, p->g, lr, 1, plain + p->h * lr * lk, lk, p->m, R, lk / W);
    REAL *dw = sums + p->h * lr * lk;
    product(dw, lk, dw, 0, p->g, 1, lr, p->x, lk, R, p->m, lk / W);
    for (I i = 0; i < p->m; i++) for (I c = 0; c < lk; c += W) dots[i] += get(p->x + i * lk + c) * get(p->dx + i * lk + c);
    put(found, sums16(dots));
    for (I i = 0; i < p->m; i++) {
        REAL *to = f->dx + ((p->n + i) * H + p->h) * K;
        for (I c = 0; c < K; c += W) put_some(to + c, p->over[i] * (get(p->dx + i * lk + c) - found[i] * get(p->x + i * lk + c)), K - c);
    }
}
#define WORK(z) ((z)->B * (z)->T * (z)->H * (z)->R * 4)
/* what threads share out, each with panels of its own; where one has no memory, nothing is done */
#define EVERY_THREAD(work, ...) \
    const I team = enough(work, f->threads); \
    I failed = 0; \
    _Pragma("omp parallel num_threads(team)") \
    { \
        const unsigned old = flush_on(); \
        Panels own; \
        Arena a = {0}; \
        panels(&own, &a, z), allot(&a), panels(&own, &a, z); \
        if (!a.base) failed = 1; \
        __VA_ARGS__ \
        free(a.base); \
        flush_off(old); \
    }

I waves_forward(const Forward *f, I fields) {
    CHECK(f, fields)
    const Record *z = &f->z;
    const I steps = z->B * z->T, blocks = (steps + ROWS - 1) / ROWS;
    REAL *turned = aligned_alloc(64, z->H * up(z->K) * up(z->R) * sizeof(REAL));
    if (!turned) return 1;
    spread(turned, z, 1);
    EVERY_THREAD(WORK(z),
        _Pragma("omp for schedule(static)")
        for (I block = 0; block < blocks; block++) {
            begin(&own, block * ROWS, steps);
            for (own.h = 0; a.base && own.h < z->H; own.h++) waves(&own, turned), forward(f, &own);
        })
    free(turned);
    return failed;
}
I waves_backward(const Backward *f, I fields) {
    CHECK(f, fields)
    const Record *z = &f->z;
    const I steps = z->B * z->T, blocks = (steps + ROWS - 1) / ROWS, every = (blocks + PIECES - 1) / PIECES * ROWS;
    const I pieces = (steps + every - 1) / every, lk = up(z->K), lr = up(z->R), size = z->H * lk * lr;
    REAL *turned = aligned_alloc(64, (2 + pieces) * size * sizeof(REAL)), *plain = turned + size, *sums = plain + size;
    if (!turned) return 1;
    spread(turned, z, 1), spread(plain, z, 0);
    memset(sums, 0, pieces * size * sizeof(REAL));
    EVERY_THREAD(2 * WORK(z),
        _Pragma("omp for schedule(dynamic)")
        for (I piece = 0; piece < pieces; piece++) {
            const I end = (piece + 1) * every < steps ? (piece + 1) * every : steps;
            for (I n = piece * every; a.base && n < end; n += ROWS) {
                begin(&own, n, end);
                for (own.h = 0; own.h < z->H; own.h++) waves(&own, turned), back(f, &own, plain, sums + piece * size);
            }
        })
    REAL *dw = f->dw;
    for (I h = 0; h < z->H; h++) for (I r = 0; r < z->R; r++) for (I k = 0; k < z->K; k++, dw++) {
        *dw = 0;
        for (I piece = 0; piece < pieces; piece++) *dw += sums[piece * size + (h * lr + r) * lk + k];
    }
    free(turned);
    return failed;
}
