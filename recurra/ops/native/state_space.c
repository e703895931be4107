/* state_space:  what the steps of a block are to each other and to the states around it, p_i = e^{a i}:
 *
 *     pairs[i][j] = Re sum_n c p_{i-j}     recall[i] = conj(c p_{i+1})     write[j] = p_{C-1-j}     across = p_C
 *
 * A feature is a task. Powers are products of the one before, in double: slow decays keep their digits over a block, and
 * the backward makes them again. Complex numbers are pairs in memory and two rows here. */
#include "common.h"
#define MOST 64                                                               /* steps in a block, at most */

/* parts: 2 where a and c are complex, else 1 */
typedef struct { const REAL *a, *c; I D, N, C, parts; } Space;

/* rows of N doubles: e^a, the power of the present step, c, and what gradients are summed in */
typedef struct { double *e, *ei, *p, *pi, *c, *ci, *da, *dai, *dc, *dci; } Room;
static double *room(Room *r, I N) {
    double *x = calloc(10 * N, sizeof(double)), **rows = (double **)r;
    for (I i = 0; i < 10; i++) rows[i] = x + i * N;
    return x;
}
INLINE void begin(const Space *z, Room r, I d, const int parts) {
    const REAL *a = z->a + d * z->N * parts, *c = z->c + d * z->N * parts;
    for (I n = 0; n < z->N; n++) {
        const double size = exp((double)a[n * parts]);
        r.e[n] = size, r.p[n] = 1, r.c[n] = c[n * parts], r.da[n] = r.dc[n] = 0;
        if (parts == 1) continue;
        const double angle = a[2 * n + 1];
        r.e[n] = size * cos(angle), r.ei[n] = size * sin(angle), r.pi[n] = 0, r.ci[n] = c[2 * n + 1], r.dai[n] = r.dci[n] = 0;
    }
}
INLINE void onward(Room r, I N, const int parts) {
    #pragma omp simd
    for (I n = 0; n < N; n++) {
        const double p = r.p[n];
        r.p[n] = parts == 1 ? p * r.e[n] : p * r.e[n] - r.pi[n] * r.ei[n];
        if (parts == 2) r.pi[n] = p * r.ei[n] + r.pi[n] * r.e[n];
    }
}

typedef struct { Space z; REAL *pairs, *recall, *write, *across; I threads; } Forward;

INLINE void forward(const Forward *f, Room r, I d, const int parts) {
    const Space *z = &f->z;
    const I N = z->N, C = z->C, M = N * parts;
    REAL taps[2 * MOST] = {};                                                  /* the last first, then zeros */
    begin(z, r, d, parts);
    for (I i = 0; i <= C; i++, onward(r, N, parts)) {
        REAL *restrict left = i < C ? f->write + (d * C + C - 1 - i) * M : f->across + d * M;
        #pragma omp simd
        for (I n = 0; n < N; n++) {
            left[n * parts] = r.p[n];
            if (parts == 2) left[2 * n + 1] = r.pi[n];
        }
        double sum = 0;
        REAL *restrict recall = i ? f->recall + (d * C + i - 1) * M : f->recall + d * C * M;
        #pragma omp simd reduction(+:sum)
        for (I n = 0; n < N; n++) {
            const double q = parts == 1 ? r.c[n] * r.p[n] : r.c[n] * r.p[n] - r.ci[n] * r.pi[n];
            sum += q;
            recall[n * parts] = q;                                             /* of p_0 written over by p_1's */
            if (parts == 2) recall[2 * n + 1] = -(r.c[n] * r.pi[n] + r.ci[n] * r.p[n]);
        }
        if (i < C) taps[C - 1 - i] = sum;
    }
    for (I i = 0; i < C; i++) memcpy(f->pairs + (d * C + i) * C, taps + C - 1 - i, C * sizeof(REAL));
}

typedef struct { Space z; const REAL *pairs, *recall, *write, *across; REAL *da, *dc; I threads; } Backward;

INLINE void backward(const Backward *f, Room r, I d, const int parts) {
    const Space *z = &f->z;
    const I N = z->N, C = z->C, M = N * parts;
    double taps[MOST] = {};                                                    /* gradients, the last tap's first */
    begin(z, r, d, parts);
    for (I i = 0; i < C; i++) {
        const REAL *g = f->pairs + (d * C + i) * C;
        #pragma omp simd
        for (I j = 0; j <= i; j++) taps[C - 1 - i + j] += g[j];
    }
    for (I i = 0; i <= C; i++, onward(r, N, parts)) {
        const double tap = i < C ? taps[C - 1 - i] : 0, steps = i, recalled = i > 0;
        const REAL *restrict left = i < C ? f->write + (d * C + C - 1 - i) * M : f->across + d * M;
        const REAL *restrict recall = f->recall + (d * C + (i ? i - 1 : 0)) * M;
        #pragma omp simd
        for (I n = 0; n < N; n++) {
            const double p = r.p[n], c = r.c[n], q = tap + recalled * recall[n * parts];   /* the gradient of c p */
            if (parts == 1) {
                r.dc[n] += p * q, r.da[n] += steps * p * (left[n] + c * q);
                continue;
            }
            const double pi = r.pi[n], ci = r.ci[n], qi = -recalled * recall[2 * n + 1];
            const double g = left[2 * n] + c * q + ci * qi, gi = left[2 * n + 1] + c * qi - ci * q;
            r.dc[n] += p * q + pi * qi, r.dci[n] += p * qi - pi * q;
            r.da[n] += steps * (p * g + pi * gi), r.dai[n] += steps * (p * gi - pi * g);
        }
    }
    for (I n = 0; n < N; n++) {
        f->da[d * M + n * parts] = r.da[n], f->dc[d * M + n * parts] = r.dc[n];
        if (parts == 2) f->da[d * M + 2 * n + 1] = r.dai[n], f->dc[d * M + 2 * n + 1] = r.dci[n];
    }
}

#define EACH_FEATURE(of) { \
    CHECK(f, fields) \
    const Space z = f->z; \
    I failed = 0; \
    _Pragma("omp parallel num_threads(enough(z.D * z.N * z.C, f->threads))") \
    { \
        unsigned old = flush_on(); \
        Room r; \
        double *space = room(&r, z.N); \
        if (!space) failed = 1; \
        _Pragma("omp for schedule(static)") \
        for (I d = 0; d < z.D; d++) { \
            if (!space) continue; \
            if (z.parts == 1) of(f, r, d, 1); else of(f, r, d, 2); \
        } \
        free(space); \
        flush_off(old); \
    } \
    return failed; }

I state_space_forward(const Forward *f, I fields) EACH_FEATURE(forward)
I state_space_backward(const Backward *f, I fields) EACH_FEATURE(backward)

/* From block to block: before[q] is what was before block q, across * before[q] + drive[q] what is after it; where a
 * sequence begins in a block nothing that was before it is left. Numbers (D, B, Q, N), states (D, B, N). */
typedef struct { const REAL *across; const uint8_t *reset; I D, B, Q, N, parts; } Blocks;
typedef struct { Blocks z; const REAL *drive, *first; REAL *before, *last; I threads; } Carry;

INLINE void carry(const Carry *f, I d, const int parts) {
    const Blocks *z = &f->z;
    const I N = z->N, M = N * parts, Q = z->Q;
    const REAL *restrict a = f->z.across + d * M;
    for (I b = 0; b < z->B; b++) {
        const I at = d * z->B + b;
        REAL *before = f->before + at * Q * M;
        memcpy(before, f->first + at * M, M * sizeof(REAL));
        for (I q = 0; q < Q; q++) {
            const REAL *restrict h = before + q * M, *restrict drive = f->drive + (at * Q + q) * M;
            REAL *restrict to = q + 1 < Q ? before + (q + 1) * M : f->last + at * M;
            if (z->reset && z->reset[b * Q + q]) { memcpy(to, drive, M * sizeof(REAL)); continue; }
            #pragma omp simd
            for (I n = 0; n < N; n++) {
                const I i = n * parts;
                to[i] = drive[i] + (parts == 1 ? a[i] * h[i] : a[i] * h[i] - a[i + 1] * h[i + 1]);
                if (parts == 2) to[i + 1] = drive[i + 1] + a[i] * h[i + 1] + a[i + 1] * h[i];
            }
        }
    }
}

/* g_first: room for the gradient of the first state; g_across is summed up, from zero */
typedef struct { Blocks z; const REAL *before, *g_before, *g_last; REAL *g_across, *g_drive, *g_first; I threads; } Back;

INLINE void back(const Back *f, I d, const int parts) {
    const Blocks *z = &f->z;
    const I N = z->N, M = N * parts, Q = z->Q;
    const REAL *restrict a = z->across + d * M;
    REAL *restrict ga = f->g_across + d * M;
    for (I b = 0; b < z->B; b++) {
        const I at = d * z->B + b;
        memcpy(f->g_drive + (at * Q + Q - 1) * M, f->g_last + at * M, M * sizeof(REAL));
        for (I q = Q - 1; q >= 0; q--) {
            const REAL *restrict h = f->before + (at * Q + q) * M, *restrict given = f->g_before + (at * Q + q) * M;
            const REAL *restrict g = f->g_drive + (at * Q + q) * M;
            REAL *restrict to = q ? f->g_drive + (at * Q + q - 1) * M : f->g_first + at * M;
            if (z->reset && z->reset[b * Q + q]) { memcpy(to, given, M * sizeof(REAL)); continue; }
            #pragma omp simd
            for (I n = 0; n < N; n++) {
                const I i = n * parts;
                if (parts == 1) {
                    ga[i] += h[i] * g[i], to[i] = given[i] + a[i] * g[i];
                    continue;
                }
                ga[i] += h[i] * g[i] + h[i + 1] * g[i + 1], ga[i + 1] += h[i] * g[i + 1] - h[i + 1] * g[i];
                to[i] = given[i] + a[i] * g[i] + a[i + 1] * g[i + 1];
                to[i + 1] = given[i + 1] + a[i] * g[i + 1] - a[i + 1] * g[i];
            }
        }
    }
}

#define EACH_CARRY(of) { \
    CHECK(f, fields) \
    _Pragma("omp parallel num_threads(enough(f->z.D * f->z.B * f->z.Q * f->z.N * f->z.parts, f->threads))") \
    { \
        unsigned old = flush_on(); \
        _Pragma("omp for schedule(static)") \
        for (I d = 0; d < f->z.D; d++) if (f->z.parts == 1) of(f, d, 1); else of(f, d, 2); \
        flush_off(old); \
    } \
    return 0; }

I state_space_carry(const Carry *f, I fields) EACH_CARRY(carry)
I state_space_carry_back(const Back *f, I fields) EACH_CARRY(back)
