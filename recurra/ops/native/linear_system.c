/* linear_system:  h_t = A h_{t-1} + b x_t   o_t = C h_t,   a few states for every feature
 *
 * Eight features are a vector, and their states and matrices stay in registers over all steps. They are doubles there:
 * what turns without fading keeps every rounding, and memory decides the time, not the products. For gradients the
 * forward keeps the states at the start of each block of steps; the backward makes the others again. */
#include "common.h"
#define BLOCK 16
#define MOST 4                                                                 /* states, and numbers that are read */
#define L 8

typedef double lanes __attribute__((vector_size(L * sizeof(double))));
typedef lanes any __attribute__((aligned(8)));
typedef REAL numbers __attribute__((vector_size(L * sizeof(REAL)), aligned(sizeof(REAL))));
typedef lanes Column[MOST];
typedef Column Square[MOST];
/* `some` of eight numbers, `gap` apart; those beyond are zero, and not written */
static __attribute__((noinline)) lanes each(const REAL *x, I gap, I some) {
    double y[L] = {};
    for (I i = 0; i < L && i < some; i++) y[i] = x[i * gap];
    return *(const any *)y;
}
static __attribute__((noinline)) void to_each(REAL *y, I gap, lanes x, I some) {
    for (I i = 0; i < L && i < some; i++) y[i * gap] = x[i];
}
INLINE lanes load_eight(const REAL *x, I some) {
    return some >= L ? __builtin_convertvector(*(const numbers *)x, lanes) : each(x, 1, some);
}
INLINE void store_eight(REAL *y, lanes x, I some) {
    if (some >= L) *(numbers *)y = __builtin_convertvector(x, numbers);
    else to_each(y, 1, x, some);
}

typedef struct {
    Rows x;
    const REAL *A /* D N N */, *b /* D N */, *C /* D M N */;
    const uint8_t *reset, *valid;
    const REAL *first;
    I B, T, D, N, M;
} System;

/* what eight features are, from d on, and where their steps lie; a task */
typedef struct { Square A, C; Column b; I row, d, some, blocks; } Task;
INLINE Task begin(const System *z, I task, const int N, const I M) {
    Task t;
    const I groups = (z->D + L - 1) / L, d = task % groups * L;
    t.row = task / groups, t.d = d, t.some = z->D - d, t.blocks = (z->T + BLOCK - 1) / BLOCK;
    for (int i = 0; i < N; i++) {
        t.b[i] = each(z->b + d * N + i, N, t.some);
        for (int j = 0; j < N; j++) t.A[i][j] = each(z->A + (d * N + i) * N + j, N * N, t.some);
        for (I m = 0; m < M; m++) t.C[m][i] = each(z->C + (d * M + m) * N + i, M * N, t.some);
    }
    return t;
}
INLINE int happens(const System *z, I row, I t) { return !z->valid || z->valid[row * z->T + t]; }
INLINE int begins(const System *z, I row, I t) { return z->reset && z->reset[row * z->T + t]; }
INLINE const REAL *input(const System *z, const Task *k, I t) { return row(z->x, k->row, t, 0) + k->d; }
INLINE I read_at(const System *z, const Task *k, I t, const I M, I m) { return ((k->row * z->T + t) * M + m) * z->D + k->d; }
/* one step of the state; steps that did not happen change nothing */
INLINE void onward(const System *z, const Task *k, I t, lanes *h, const int N) {
    if (!happens(z, k->row, t)) return;
    const lanes x = load_eight(input(z, k, t), k->some);
    Column next;
    for (int i = 0; i < N; i++) {
        next[i] = k->b[i] * x;
        if (!begins(z, k->row, t)) for (int j = 0; j < N; j++) next[i] += k->A[i][j] * h[j];
    }
    for (int i = 0; i < N; i++) h[i] = next[i];
}

/* y: (B, T, M, D); kept: NULL, or (B, blocks, N, D) with whole vectors of features */
typedef struct { System z; REAL *last, *y; double *kept; I threads; } Forward;
INLINE double *kept_at(double *kept, const System *z, const Task *k, I t, const int N) {
    return kept + ((k->row * k->blocks + t / BLOCK) * N * up(z->D)) + k->d;
}
INLINE void forward(const Forward *f, I task, const int N, const I M) {
    const System *z = &f->z;
    const Task k = begin(z, task, N, M);
    const I at = k.row * z->D + k.d;
    Column h;
    for (int i = 0; i < N; i++) h[i] = each(z->first + at * N + i, N, k.some);
    for (I t = 0; t < z->T; t++) {
        if (f->kept && t % BLOCK == 0)
            for (int i = 0; i < N; i++) *(any *)(kept_at(f->kept, z, &k, t, N) + i * up(z->D)) = h[i];
        __builtin_prefetch(input(z, &k, t + BLOCK));
        onward(z, &k, t, h, N);
        for (I m = 0; m < M; m++) {
            lanes y = {};
            for (int i = 0; i < N; i++) y += k.C[m][i] * h[i];
            store_eight(f->y + read_at(z, &k, t, M, m), happens(z, k.row, t) ? y : (lanes){}, k.some);
        }
    }
    for (int i = 0; i < N; i++) to_each(f->last + at * N + i, N, h[i], k.some);
}

/* dh: the gradient of the last state in, of the first out; dA, db and dC of each row of the batch, to be summed */
typedef struct { System z; double *kept; const REAL *dy; REAL *dx, *dA, *db, *dC, *dh; I threads; } Backward;
INLINE void backward(const Backward *f, I task, const int N, const I M) {
    const System *z = &f->z;
    const Task k = begin(z, task, N, M);
    const I at = k.row * z->D + k.d;
    Column g, db = {}, hs[BLOCK + 1];
    Square dA = {}, dC = {};
    for (int i = 0; i < N; i++) g[i] = each(f->dh + at * N + i, N, k.some);
    for (I t0 = (k.blocks - 1) * BLOCK; t0 >= 0; t0 -= BLOCK) {
        const I end = t0 + BLOCK < z->T ? t0 + BLOCK : z->T;
        for (int i = 0; i < N; i++) hs[0][i] = *(any *)(kept_at(f->kept, z, &k, t0, N) + i * up(z->D));
        for (I t = t0; t < end; t++) {
            __builtin_prefetch(input(z, &k, t - BLOCK)), __builtin_prefetch(f->dy + read_at(z, &k, t - BLOCK, M, 0));
            for (int i = 0; i < N; i++) hs[t - t0 + 1][i] = hs[t - t0][i];
            onward(z, &k, t, hs[t - t0 + 1], N);
        }
        for (I t = end - 1; t >= t0; t--) {
            lanes dx = {};
            if (happens(z, k.row, t)) {
                const lanes *before = hs[t - t0], *h = hs[t - t0 + 1], x = load_eight(input(z, &k, t), k.some);
                for (I m = 0; m < M; m++) {
                    const lanes dy = load_eight(f->dy + read_at(z, &k, t, M, m), k.some);
                    for (int i = 0; i < N; i++) g[i] += k.C[m][i] * dy, dC[m][i] += dy * h[i];
                }
                Column earlier = {};
                for (int i = 0; i < N; i++) {
                    dx += k.b[i] * g[i], db[i] += g[i] * x;
                    if (!begins(z, k.row, t)) for (int j = 0; j < N; j++) dA[i][j] += g[i] * before[j], earlier[j] += k.A[i][j] * g[i];
                }
                for (int i = 0; i < N; i++) g[i] = earlier[i];
            }
            store_eight(f->dx + (k.row * z->T + t) * z->D + k.d, dx, k.some);
        }
    }
    for (int i = 0; i < N; i++) {
        to_each(f->dh + at * N + i, N, g[i], k.some), to_each(f->db + at * N + i, N, db[i], k.some);
        for (int j = 0; j < N; j++) to_each(f->dA + (at * N + i) * N + j, N * N, dA[i][j], k.some);
        for (I m = 0; m < M; m++) to_each(f->dC + (at * M + m) * N + i, M * N, dC[m][i], k.some);
    }
}

#define EACH_TASK(of) { \
    CHECK(f, fields) \
    const System z = f->z; \
    if (z.N > MOST || z.M > MOST) return 2; \
    const I tasks = z.B * ((z.D + L - 1) / L); \
    _Pragma("omp parallel num_threads(enough(z.B * z.T * z.D * z.N, f->threads))") \
    { \
        unsigned old = flush_on(); \
        _Pragma("omp for schedule(static)") \
        for (I task = 0; task < tasks; task++) switch (z.N) { \
            case 1: of(f, task, 1, z.M); break; case 2: of(f, task, 2, z.M); break; \
            case 3: of(f, task, 3, z.M); break; default: of(f, task, 4, z.M); } \
        flush_off(old); \
    } \
    return 0; }

I linear_system_forward(const Forward *f, I fields) EACH_TASK(forward)
I linear_system_backward(const Backward *f, I fields) EACH_TASK(backward)
