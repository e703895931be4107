/* cell: the loop around every rule.  Above this text stand the rule's own lines, as the macros RULE_STEP, RULE_KEEP
 * and RULE_BACK, cases for each tick of a step, and the counts STATES, DRIVE, GATES (0: R is no product), PARAMS,
 * SHARED; TICKS, of which each multiplies by the R that KIND says, of KINDS; HANDED, the vectors beside the state that
 * ticks leave to the next; SAVED, of which OPERAND says where state[0] before each tick is.
 *
 * The product R h stands inside the loop.  A long sequence packs R once, in panels: for a block of units all gates
 * side by side, k streaming; a tile of rows by vectors stays in registers.  A short one reads R (and W) where they lie,
 * row by row: packing would cost more than it saves.  Threads form a grid, rows of the batch by units; rows need no
 * meeting, units meet once a step. */
#include "common.h"
#include <omp.h>
#include <sched.h>

/* ---- elementary functions: branchless, so that loops over units become vectors; inf and NaN as in libm ---- */

INLINE double d_sigmoid(double x) { return 1 / (1 + exp(-x)); }
INLINE float as_float(uint32_t i) { float f; memcpy(&f, &i, 4); return f; }
INLINE uint32_t as_bits(float f) { uint32_t i; memcpy(&i, &f, 4); return i; }

/* x = n log(2) + r, |r| <= log(2)/2.  Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits. */
#define SPLIT(x)                                                                                                   \
    const float shifted = fmaf(x, 0x1.715476p+0f, 0x1.8p23f), n = shifted - 0x1.8p23f;                             \
    const float r = fmaf(n, -0x1.7f7d1cp-20f, fmaf(n, -0x1.62e4p-1f, x))
#define POWER_OF_TWO(add) as_float((as_bits(shifted) + (127 + (add))) << 23) /* 2^(n + add) */

INLINE float less_one(float r) { /* e^r - 1 */
    float q = fmaf(r, 0x1.6d43b4p-10f, 0x1.120be8p-7f);
    q = fmaf(q, r, 0x1.5554e8p-5f);
    q = fmaf(q, r, 0x1.5554dcp-3f);
    q = fmaf(q, r, 0.5f);
    return fmaf(q * r, r, r);
}
INLINE float exp_negative(float x) { /* x <= 0; scaled up by 2^24 and down again, for results below 2^-126 */
    x = x < -104 ? -104 : x;
    SPLIT(x);
    const float s = POWER_OF_TWO(24);
    return fmaf(s, less_one(r), s) * 0x1p-24f;
}
INLINE float f_exp(float x) {
    /* beyond these bounds the result rounds to inf and to 0; written so that NaN stays */
    x = x > 89 ? 89 : x;
    x = x < -104 ? -104 : x;
    SPLIT(x);
    /* 2^n as a product of two, for results that no single power reaches: a choice between ways to scale would be made
       of both ways' results, and the one that is not taken may be a subnormal number, which costs a hundred cycles */
    const int32_t k = (int32_t)(as_bits(shifted) - 0x4b400000u), half = k >> 1;
    const float s = as_float((uint32_t)(half + 127) << 23), t = as_float((uint32_t)(k - half + 127) << 23);
    return fmaf(s, less_one(r), s) * t;
}
INLINE float f_expm1(float x) {
    x = x > 89 ? 89 : x;
    x = x < -20 ? -20 : x;
    SPLIT(x);
    const float s = POWER_OF_TWO(-1);
    return 2 * fmaf(s, less_one(r), s - 0.5f);
}
INLINE float f_sigmoid(float x) {
    /* never through e^-x for x < 0: it overflows where the result is still a number */
    const float e = exp_negative(-fabsf(x));
    return (x < 0 ? e : 1) / (1 + e);
}
INLINE float f_tanh(float x) {
    /* through e^2|x| - 1, so that small x keeps its relative accuracy and the sign is exact */
    float a = 2 * fabsf(x);
    a = a > 20 ? 20 : a;
    SPLIT(a);
    const float s = POWER_OF_TWO(0), m = fmaf(s, less_one(r), s - 1);
    return copysignf(m / (m + 2), x);
}
INLINE float f_log(float x) {
    float y = x < 0x1p-126f ? x * 0x1p23f : x, shift = x < 0x1p-126f ? 23 : 0;
    int32_t e = (int32_t)(as_bits(y) - 0x3f3504f3u) >> 23;
    float f = as_float(as_bits(y) - ((uint32_t)e << 23)) - 1, n = (float)e - shift;
    float s = f / (2 + f), z = s * s, h = 0.5f * f * f;
    float r = z * fmaf(fmaf(fmaf(z, 0.233433655f, 0.285503373f), z, 0.400001262f), z, 0.666666665f);
    float l = fmaf(n, 0x1.62e4p-1f, f - (h - fmaf(s, h + r, n * 0x1.7f7d1cp-20f)));
    l = x == 0 ? -INFINITY : l;
    l = x < 0 ? NAN : l;
    return x < INFINITY ? l : x;
}
INLINE float f_log1p(float x) {
    float u = 1 + x, c = (x - (u - 1)) / u;
    return f_log(u) + (c == c ? c : 0);
}
/* The sine of an angle and some of a turn more. Whole turns go in double precision, of angles up to 10^14; what is
   beyond a quarter turn comes back from the half. Larger angles, of which neighbours in single precision lie whole
   turns apart, give a number from -1 to 1. */
INLINE float sine(float x, double more) {
    const double n = fma(x, 0x1.45f306dc9c883p-3, 0x1.8p52) - 0x1.8p52;
    const double r = fma(n, -0x1.1a62633145c07p-52, fma(n, -0x1.921fb54442d18p+2, x)) + more;
    const double a = fabs(r), rest = 0x1.921fb54442d18p+1 - a, less = a < rest ? a : rest;
    const double b = (less < -2 ? -2 : less) * copysign(1, r), z = b * b;
    double q = fma(z, -0x1.9db30cf0af8dfp-26, 0x1.71969de297775p-19);
    q = fma(q, z, -0x1.a0190606db743p-13);
    q = fma(q, z, 0x1.11110fdb47a1p-7);
    q = fma(q, z, -0x1.555555546114p-3);
    return (float)fma(q * z, b, b);
}
INLINE float f_sin(float x) { return sine(x, 0); }
INLINE float f_cos(float x) { return sine(x, 0x1.921fb54442d18p+0); }
#define OURS(name) INLINE REAL r_##name(REAL x) { return IS_DOUBLE ? (name)(x) : f_##name(x); }
#define LIBM(name, of) INLINE REAL r_##name(REAL x) { return IS_DOUBLE ? of(x) : of##f(x); }
OURS(exp) OURS(expm1) OURS(log) OURS(log1p) OURS(tanh) OURS(sin) OURS(cos)
LIBM(sqrt, sqrt) LIBM(abs, fabs) LIBM(erf, erf)
/* NaN passes through, as in torch. Two choices one after the other: one within the other is no vector to the compiler */
INLINE REAL r_maximum(REAL x, REAL y) { const REAL more = x > y ? x : y; return x != x ? x : more; }
INLINE REAL r_minimum(REAL x, REAL y) { const REAL less = x < y ? x : y; return x != x ? x : less; }
INLINE REAL r_sigmoid(REAL x) { return IS_DOUBLE ? d_sigmoid(x) : f_sigmoid(x); }

/* a map has no loop of cells around it */
#ifndef FUNCTIONS_ONLY

/* ---- the product in panels ---- */

#if defined(__AVX512F__)
enum { BYTES = 64, REGISTERS = 24 };
#elif defined(__AVX__)
enum { BYTES = 32, REGISTERS = 12 };
#else
enum { BYTES = 16, REGISTERS = 24 };
#endif
typedef REAL lane __attribute__((vector_size(BYTES), aligned(sizeof(REAL)))); /* one register */
enum { VL = BYTES / sizeof(REAL) };
#define EVERY _Pragma("GCC unroll 16")

INLINE I least_of(I a, I b) { return a < b ? a : b; }
INLINE I ceil_of(I a, I b) { return (a + b - 1) / b; }

/* out[m][gate][...] = sum_k x[m][k] w[k][...]: M rows by NV registers, held while k streams.  k runs over `segments`
   pieces of `length`, `gap` apart: one piece forward, one for each gate backward. */
#define OPERANDS                                                                                                   \
    I segments, I length, I gap, const REAL *x, I x_row, const REAL *restrict w, REAL *out, I out_row, I out_gate
INLINE void tile(const int M, const int NV, const int per_gate, OPERANDS) {
    lane sum[M][NV];
    EVERY for (int m = 0; m < M; m++) EVERY for (int v = 0; v < NV; v++) sum[m][v] = (lane){0};
    for (I s = 0; s < segments; s++, x += gap)
        for (I k = 0; k < length; k++, w += NV * VL)
            EVERY for (int v = 0; v < NV; v++) {
                const lane column = *(const lane *)(w + v * VL);
                EVERY for (int m = 0; m < M; m++) sum[m][v] += x[m * x_row + k] * column;
            }
    EVERY for (int m = 0; m < M; m++) EVERY for (int v = 0; v < NV; v++)
        *(lane *)(out + m * out_row + (v / per_gate) * out_gate + (v % per_gate) * VL) = sum[m][v];
}
/* as many rows as stay in registers: a tile of more is never asked for, and takes time to compile */
#define ROWS_OF(M, MOST, NV, PER)                                                                                  \
    case M:                                                                                                        \
        if (M <= MOST) tile(M, NV, PER, segments, length, gap, x, x_row, w, out, out_row, out_gate);               \
        break;

/* ---- the product where the weight lies: out[m][r] = x[m] . w[r], vectors along k ---- */

INLINE void dots(const int M, const int R, I K, const REAL *x, I x_row, const REAL *w, I w_row, REAL *out, I out_row) {
    vec sum[M * R];
    EVERY for (int i = 0; i < M * R; i++) sum[i] = (vec){};
    I k = 0;
    for (; k + W <= K; k += W)
        EVERY for (int r = 0; r < R; r++) {
            const vec row = get(w + r * w_row + k);
            EVERY for (int m = 0; m < M; m++) sum[m * R + r] += row * get(x + m * x_row + k);
        }
    REAL total[M * R];
    if (M * R == W) put(total, sums16(sum));
    else total[0] = sum1(sum[0]);
    for (int m = 0; m < M; m++)
        for (int r = 0; r < R; r++) {
            REAL rest = total[m * R + r];
            for (I j = k; j < K; j++) rest += w[r * w_row + j] * x[m * x_row + j];
            out[m * out_row + r] = rest;
        }
}
/* sixteen rows of w against one x, eight at a time: memory hands over few streams sooner than many */
enum { STREAMS = 8 };
INLINE void dots_of_one(I K, const REAL *x, const REAL *w, I w_row, REAL *out) {
    vec sum[W];
    for (int q = 0; q < W; q += STREAMS) {
        vec s[STREAMS], t[STREAMS];
        EVERY for (int r = 0; r < STREAMS; r++) s[r] = t[r] = (vec){};
        I k = 0;
        for (; k + 2 * W <= K; k += 2 * W) {
            const vec a = get(x + k), b = get(x + k + W);
            EVERY for (int r = 0; r < STREAMS; r++)
                s[r] += a * get(w + (q + r) * w_row + k), t[r] += b * get(w + (q + r) * w_row + k + W);
        }
        EVERY for (int r = 0; r < STREAMS; r++) sum[q + r] = s[r] + t[r];
        if (k + W <= K) for (int r = 0; r < STREAMS; r++) sum[q + r] += get(x + k) * get(w + (q + r) * w_row + k);
    }
    put(out, sums16(sum));
    for (int r = 0; K % W && r < W; r++) {
        REAL rest = 0;
        for (I k = K / W * W; k < K; k++) rest += w[r * w_row + k] * x[k];
        out[r] += rest;
    }
}
/* all rows of x against rows [r0, r1) of w; sixteen rows of w stay in the first cache while x goes by */
static void multiply(I M, I K, const REAL *x, I x_row, const REAL *w, I w_row, I r0, I r1, REAL *out, I out_row) {
    for (I r = r0; r < r1; r += W)
        for (I m = 0, rows; m < M; m += rows) {
            const I n = least_of(W, r1 - r);
            rows = n == W && M - m >= 4 ? 4 : 1;
            for (I i = 0; i < n; i += rows == 4 ? 4 : n == W ? W : 1) {
                const REAL *a = x + m * x_row, *b = w + (r + i) * w_row;
                REAL *to = out + m * out_row + r + i;
                if (rows == 4) dots(4, 4, K, a, x_row, b, w_row, to, out_row);
                else if (n == W) dots_of_one(K, a, b, w_row, to);
                else dots(1, 1, K, a, 0, b, 0, to, 0);
            }
        }
}

#if GATES
enum {
    FV = GATES >= 3 ? 1 : 4 / GATES,    /* registers of each gate in a forward panel */
    FN = FV * GATES, FU = FV * VL,      /* registers in the panel; units it covers */
    FM = FN > REGISTERS ? 1 : REGISTERS / FN > 8 ? 8 : REGISTERS / FN,
    BN = 4, BU = BN * VL, BM = REGISTERS / BN,
};
static void tile_forward(int m, OPERANDS) {
    switch (m) {
        ROWS_OF(1, FM, FN, FV) ROWS_OF(2, FM, FN, FV) ROWS_OF(3, FM, FN, FV) ROWS_OF(4, FM, FN, FV)
        ROWS_OF(5, FM, FN, FV) ROWS_OF(6, FM, FN, FV) ROWS_OF(7, FM, FN, FV) ROWS_OF(8, FM, FN, FV)
    }
}
static void tile_backward(int m, OPERANDS) {
    switch (m) {
        ROWS_OF(1, BM, BN, BN) ROWS_OF(2, BM, BN, BN) ROWS_OF(3, BM, BN, BN) ROWS_OF(4, BM, BN, BN)
        ROWS_OF(5, BM, BN, BN) ROWS_OF(6, BM, BN, BN)
    }
}

/* what the panels of one R take */
INLINE I forward_panels(I heads, I d) { return heads * ceil_of(d, FU) * d * FN * VL; }
INLINE I backward_panels(I heads, I d) { return heads * ceil_of(d, BU) * GATES * d * BU; }

/* `count` rows of w, K long, as `wide` columns of a panel */
static void pack_panel(I count, I wide, I K, I gap, const REAL *from, REAL *to) {
    for (I k0 = 0; k0 < K; k0 += 16)
        for (I u = 0; u < wide; u++)
            for (I k = k0; k < least_of(k0 + 16, K); k++) to[k * gap + u] = u < count ? from[u * K + k] : 0;
}
/* R is w[gate][head][to][from].  Panels follow the order in which a product reads them, padded with zeros. */
static void pack_forward(I heads, I d, const REAL *w, REAL *out, I threads) {
    const I panels = ceil_of(d, FU);
#pragma omp parallel for collapse(2) num_threads(threads) if (heads * d * d * GATES > 1000000)
    for (I h = 0; h < heads; h++)
        for (I p = 0; p < panels; p++)
            for (I g = 0; g < GATES; g++)
                pack_panel(least_of(FU, d - p * FU), FU, d, FN * VL, w + ((g * heads + h) * d + p * FU) * d,
                           out + (h * panels + p) * d * FN * VL + g * FU);
}
static void pack_backward(I heads, I d, const REAL *w, REAL *out, I threads) {
    const I panels = ceil_of(d, BU);
#pragma omp parallel for collapse(2) num_threads(threads) if (heads * d * d * GATES > 1000000)
    for (I h = 0; h < heads; h++)
        for (I p = 0; p < panels; p++)
            for (I k = 0; k < GATES * d; k++) {
                const REAL *from = w + ((k / d * heads + h) * d + k % d) * d + p * BU;
                REAL *to = out + ((h * panels + p) * GATES * d + k) * BU;
                for (I u = 0; u < BU; u++) to[u] = p * BU + u < d ? from[u] : 0;
            }
}

/* z[row][gate][unit] for the rows [0, m) and the panels [p0, p1).  A panel's padding is overwritten by the next. */
static void multiply_forward(I m, I p0, I p1, I heads, I d, const REAL *x, I x_row, const REAL *w, REAL *z, I Z) {
    const I panels = ceil_of(d, FU), tiles = ceil_of(m, FM);
    for (I p = p0; p < p1; p++) {
        const I head = p / panels, unit = head * d + p % panels * FU;
        for (I i = 0; i < tiles; i++) {
            const I a = m * i / tiles, b = m * (i + 1) / tiles;
            tile_forward(b - a, 1, d, 0, x + a * x_row + head * d, x_row, w + p * d * FN * VL,
                         z + a * GATES * Z + unit, GATES * Z, Z);
        }
    }
}
static void multiply_backward(I m, I p0, I p1, I heads, I d, const REAL *x, I x_row, const REAL *w, REAL *z, I Z) {
    const I panels = ceil_of(d, BU), tiles = ceil_of(m, BM);
    for (I p = p0; p < p1; p++) {
        const I head = p / panels, unit = head * d + p % panels * BU;
        for (I i = 0; i < tiles; i++) {
            const I a = m * i / tiles, b = m * (i + 1) / tiles;
            tile_backward(b - a, GATES, d, heads * d, x + a * x_row + head * d, x_row, w + p * GATES * d * BU,
                          z + a * Z + unit, Z, 0);
        }
    }
}
/* the same from R where it lies, for the units [u0, u1) */
static void multiply_lying(I m, I u0, I u1, I heads, I d, const REAL *x, I x_row, const REAL *w, REAL *z, I Z) {
    for (I g = 0; g < GATES; g++)
        for (I h = u0 / d; h < heads && h * d < u1; h++) {
            const I from = u0 > h * d ? u0 - h * d : 0, to = least_of(u1 - h * d, d);
            multiply(m, d, x + h * d, x_row, w + (g * heads + h) * d * d, d, from, to, z + g * Z + h * d, GATES * Z);
        }
}
#else
enum { FU = 4 * VL, BU = 4 * VL };
#endif

/* ---- one tick of one row over n units ---- */

static const I kind[TICKS] = KIND, operand[TICKS] = OPERAND;
enum { ALL = STATES + HANDED };

#define EACH_UNIT(...) _Pragma("omp simd") for (I u = 0; u < n; u++) { __VA_ARGS__ }
static void rule_step(I tick, I n, I N, I Z, const REAL *drive, const REAL *recur, const REAL *param,
                      const REAL *const *in, REAL *const *out, REAL *y) {
    switch (tick) { RULE_STEP }
}
static void rule_keep(I tick, I n, I N, I Z, const REAL *drive, const REAL *recur, const REAL *param,
                      const REAL *const *in, REAL *const *out, REAL *y, REAL *saved) {
    switch (tick) { RULE_KEEP }
}
static void rule_back(I tick, I n, I N, const REAL *saved, const REAL *param, const REAL *g_y, REAL *const *g,
                      REAL *g_drive, REAL *g_recur, REAL *g_param) {
    switch (tick) { RULE_BACK }
}

/* ---- who does what ---- */

typedef struct { I b0, b1, p0, p1, u0, u1; int crew; } Share;

static Share share(I B, I heads, I d, I unit, I by_rows, I by_units) {
    /* OpenMP may give fewer threads than asked (inside another parallel region): then they share rows only */
    const I team = omp_get_num_threads(), me = omp_get_thread_num();
    if (team != by_rows * by_units) by_rows = team, by_units = 1;
    const I r = me / by_units, c = me % by_units, panels = ceil_of(d, unit), all_panels = heads * panels;
    Share s = {B * r / by_rows, B * (r + 1) / by_rows, all_panels * c / by_units, all_panels * (c + 1) / by_units, 0, 0, by_units};
    s.u0 = s.p0 / panels * d + s.p0 % panels * unit;
    s.u1 = s.p1 / panels * d + s.p1 % panels * unit;
    return s;
}

/* Rows need no meeting, but each thread streams all of R.  Units share R out and meet once a step, which a busy machine
   punishes.  So: rows where they go round twice and R fits a core's cache; units where a step is long; one thread for
   what is over before a second one wakes. */
static void crew(I B, I T, I heads, I d, I threads, I *by_rows, I *by_units) {
    const I step = B * heads * d * (TICKS > 1 ? GATES : DRIVE) * (GATES ? d : 16);
    const int fits = !GATES || heads * d * d * GATES * KINDS * (I)sizeof(REAL) <= 2 << 20;
    *by_rows = *by_units = 1;
    if (threads == 1 || step * T * TICKS < 500000) return;
    if (B >= threads && (fits || B >= 32 * threads) && (B >= 2 * threads || !GATES)) *by_rows = threads;
    else if (!GATES) *by_rows = B, *by_units = least_of(threads / B, d / 64) > 1 ? least_of(threads / B, d / 64) : 1;
    else if (step >= 150000 && heads * d >= 64 * threads) *by_units = threads;
    else *by_rows = least_of(threads, B);
}

/* Where a crew that shares rows waits for its slowest, once a step.  It yields soon: on a busy machine a partner may be
   waiting for this very core, and OpenMP's own barrier would spin until the scheduler's next tick. */
typedef struct { int arrived, round; } Meeting;

static void meet(Meeting *m, int team) {
    const int round = __atomic_load_n(&m->round, __ATOMIC_RELAXED);
    if (__atomic_add_fetch(&m->arrived, 1, __ATOMIC_ACQ_REL) == team) {
        __atomic_store_n(&m->arrived, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&m->round, round + 1, __ATOMIC_RELEASE);
        return;
    }
    for (int spins = 0; __atomic_load_n(&m->round, __ATOMIC_ACQUIRE) == round; spins++)
        if (spins > 2000) sched_yield();
}

enum { CHUNK = 24 }; /* rows whose products wait in the cache for the rule */

/* Time-major or batch-major alike: *_b and *_t are strides.  Masks are (B, M) bytes from the first step on. */
typedef struct {
    const REAL *drive; I drive_b, drive_t;
    I B, T, heads, d, threads;
    const REAL *w;                      /* R where it lies */
    REAL *packed; I pack;               /* room for its panels; whether to fill it now */
    const REAL *param;
    const uint8_t *reset, *valid; I mask_b;
    REAL *y; I y_b, y_t;
    REAL *saved; I saved_b, saved_t;    /* 0: nothing is kept */
    REAL *hidden;                       /* room for two (B, N), state[0] before and after */
    const REAL *first[STATES];
    REAL *last[STATES];                 /* may be first */
} Forward;

I cell_forward(const Forward *f, I count) {
    CHECK(f, count)
    REAL *const hidden = f->hidden;
    const I B = f->B, T = f->T, heads = f->heads, d = f->d, N = heads * d, Z = N + FU;
    I by_rows, by_units;
    int failed = 0;
    Meeting meeting = {0, 0};
    crew(B, T, heads, d, f->threads, &by_rows, &by_units);
#if GATES
    const I panels = forward_panels(heads, d);
    for (I k = 0; f->pack && k < KINDS; k++)
        pack_forward(heads, d, f->w + k * GATES * heads * d * d, f->packed + k * panels, f->threads);
#endif
#pragma omp parallel num_threads(by_rows * by_units) if (by_rows * by_units > 1)
    {
        const unsigned old = flush_on();
        const Share s = share(B, heads, d, FU, by_rows, by_units);
        const I n = s.u1 - s.u0, bytes = n * sizeof(REAL);
        REAL *z = 0, *handed = 0;
#if GATES
        z = malloc(sizeof(REAL) * least_of(CHUNK, s.b1 - s.b0 + 1) * GATES * Z);
        if (!z) failed = 1;
#endif
        if (HANDED && !(handed = malloc(sizeof(REAL) * (s.b1 - s.b0 + 1) * HANDED * n))) failed = 1;
        for (I b = s.b0; b < s.b1; b++)
            for (I i = 0; i < STATES; i++) {
                REAL *to = (i ? f->last[i] : hidden) + b * N + s.u0;
                if (f->reset && f->reset[b * f->mask_b]) memset(to, 0, bytes);
                else if (to != f->first[i] + b * N + s.u0) memcpy(to, f->first[i] + b * N + s.u0, bytes);
            }
        if (s.crew > 1) meet(&meeting, omp_get_num_threads());
        for (I at_tick = 0; at_tick < T * TICKS && !failed; at_tick++) {
            const I t = at_tick / TICKS, tick = at_tick % TICKS, ends = tick == TICKS - 1;
            REAL *before = hidden + at_tick % 2 * B * N;
            REAL *after = at_tick < T * TICKS - 1 ? hidden + (at_tick + 1) % 2 * B * N : f->last[0];
            for (I c = s.b0; c < s.b1; c += CHUNK) {
                const I m = least_of(CHUNK, s.b1 - c);
#if GATES
                multiply_forward(m, s.p0, s.p1, heads, d, before + c * N, N, f->packed + kind[tick] * panels, z, Z);
#endif
                for (I b = c; b < c + m; b++) {
                    const I at = b * N + s.u0, now = b * f->mask_b + t;
                    const REAL *in[ALL];
                    REAL *out[ALL], *y = f->y + b * f->y_b + t * f->y_t + s.u0;
                    REAL *saved = f->saved ? f->saved + b * f->saved_b + t * f->saved_t + s.u0 : 0;
                    in[0] = before + at, out[0] = after + at;
                    for (I i = 1; i < STATES; i++) in[i] = out[i] = f->last[i] + at;
                    for (I i = 0; i < HANDED; i++) in[STATES + i] = out[STATES + i] = handed + ((b - s.b0) * HANDED + i) * n;
                    const REAL *drive = f->drive + b * f->drive_b + t * f->drive_t + s.u0;
                    const REAL *recur = z + (b - c) * GATES * Z + s.u0;
                    if (f->valid && !f->valid[now]) {
                        memcpy(out[0], in[0], bytes);
                        if (ends) memset(y, 0, bytes);
                        if (saved && GATES) memcpy(saved + operand[tick] * N, in[0], bytes);
                    } else if (saved) rule_keep(tick, n, N, Z, drive, recur, f->param + s.u0, in, out, y, saved);
                    else rule_step(tick, n, N, Z, drive, recur, f->param + s.u0, in, out, y);
                    if (f->reset && ends && t < T - 1 && f->reset[now + 1])
                        for (I i = 0; i < STATES; i++) memset(out[i], 0, bytes);
                }
            }
#if GATES
            if (s.crew > 1) meet(&meeting, omp_get_num_threads());
#endif
        }
        free(z);
        free(handed);
        flush_off(old);
    }
    return failed;
}

/* A few steps, with W x + b where W is given: the weights are read once, where they lie, and nothing else. */
typedef struct {
    I bytes;                            /* of this struct, as the caller thinks of it */
    I B, T, heads, d;
    I K, x_b, x_t;                      /* features of x, which is the drive where there is no W; its strides */
    I threads;
    const uint8_t *reset, *valid;
    const REAL *x, *input, *bias, *w, *param, *first[STATES];
    REAL *y, *last[STATES];
} Short;

/* the steps of the units [u0, u1); room: state[0] twice, the drive, R h and what is handed on of all rows, N zeros */
static void short_steps(const Short *s, I u0, I u1, REAL *room, Meeting *meeting, int team) {
    const unsigned old = flush_on();
    const I B = s->B, T = s->T, K = s->K, N = s->heads * s->d, n = u1 - u0, rows = DRIVE * N;
    REAL *const drive = room + 2 * B * N, *const z = drive + B * rows;
    REAL *const handed = z + B * GATES * N;
    const REAL *const zeros = handed + B * HANDED * N;
    for (I at_tick = 0; at_tick < T * TICKS; at_tick++) {
        const I t = at_tick / TICKS, tick = at_tick % TICKS;
        const REAL *before = at_tick ? room + at_tick % 2 * B * N : s->first[0], *x = s->x + t * s->x_t;
        REAL *after = at_tick < T * TICKS - 1 ? room + (at_tick + 1) % 2 * B * N : s->last[0];
        for (I g = 0; !tick && s->input && g < DRIVE; g++)
            multiply(B, K, x, s->x_b, s->input + g * N * K, K, u0, u1, drive + g * N, rows);
        for (I b = 0; !tick && s->bias && b < B; b++)
            for (I g = 0; g < DRIVE; g++) {
                REAL *to = drive + b * rows + g * N;
                const REAL *from = s->input ? to : x + b * s->x_b + g * N;
                for (I u = u0; u < u1; u++) to[u] = from[u] + s->bias[g * N + u];
            }
#if GATES
        multiply_lying(B, u0, u1, s->heads, s->d, before, N, s->w + kind[tick] * GATES * N * s->d, z, N);
#endif
        for (I b = 0; b < B; b++) {
            const I at = b * N + u0, now = b * T + t;
            const int begins = !tick && s->reset && s->reset[now], rests = s->valid && !s->valid[now];
            const REAL *in[ALL];
            REAL *out[ALL], *y = s->y + now * N + u0, *recur = z + b * GATES * N + u0;
            for (I i = 0; i < STATES; i++) {
                in[i] = begins ? zeros : (i ? (at_tick ? s->last[i] : s->first[i]) : before) + at;
                out[i] = (i ? s->last[i] : after) + at;
            }
            for (I i = 0; i < HANDED; i++) in[STATES + i] = out[STATES + i] = handed + (b * HANDED + i) * N + u0;
            if (rests) {
                for (I i = 0; i < STATES; i++) if (out[i] != in[i]) memcpy(out[i], in[i], n * sizeof(REAL));
                memset(y, 0, n * sizeof(REAL));
                continue;
            }
            for (I g = 0; begins && g < GATES; g++) memset(recur + g * N, 0, n * sizeof(REAL));
            const REAL *from = s->input || s->bias ? drive + b * rows + u0 : x + b * s->x_b + u0;
            rule_step(tick, n, N, N, from, recur, s->param + u0, in, out, y);
        }
        if (team > 1 && at_tick < T * TICKS - 1) meet(meeting, team);
    }
    flush_off(old);
}
I cell_short(const Short *s) {
    if (s->bytes != (I)sizeof(*s)) return 2;
    const I B = s->B, N = s->heads * s->d, blocks = ceil_of(N, W), used = N * (2 * B + B * (DRIVE + GATES + HANDED));
    const I work = B * N * (DRIVE * (s->input ? s->K : 1) + TICKS * GATES * s->d);
    const I threads = work > 300000 ? least_of(s->threads, blocks) : 1;
    Meeting meeting = {0, 0};
    REAL *room = malloc((used + N) * sizeof(REAL));
    if (!room) return 1;
    if (s->reset) memset(room + used, 0, N * sizeof(REAL));
    if (threads == 1) short_steps(s, 0, N, room, &meeting, 1);
    else
#pragma omp parallel num_threads(threads)
    {
        const I team = omp_get_num_threads(), me = omp_get_thread_num();
        short_steps(s, blocks * me / team * W, least_of(blocks * (me + 1) / team * W, N), room, &meeting, team);
    }
    free(room);
    return 0;
}

/* g: the gradients of the last states on entry and of the first on return, each (B, N).  g_param is (B, PARAMS, N),
   added to.  SHARED: g_recur is g_drive. */
typedef struct {
    const REAL *saved; I saved_b, saved_t;
    I B, T, heads, d, threads;
    const REAL *w;
    REAL *packed; I pack;
    const REAL *param;
    const uint8_t *reset, *valid; I mask_b;
    const REAL *g_y; I g_y_b, g_y_t;
    REAL *g_drive; I g_b, g_t;
    REAL *g_recur; I r_b, r_t;
    REAL *g_param;
    REAL *g[STATES];
} Backward;

I cell_backward(const Backward *f, I count) {
    CHECK(f, count)
    const I B = f->B, T = f->T, heads = f->heads, d = f->d, N = heads * d, Z = N + BU;
    I by_rows, by_units;
    int failed = 0;
    Meeting meeting = {0, 0};
    crew(B, T, heads, d, f->threads, &by_rows, &by_units);
#if GATES
    const I panels = backward_panels(heads, d);
    for (I k = 0; f->pack && k < KINDS; k++)
        pack_backward(heads, d, f->w + k * GATES * heads * d * d, f->packed + k * panels, f->threads);
#endif
#pragma omp parallel num_threads(by_rows * by_units) if (by_rows * by_units > 1)
    {
        const unsigned old = flush_on();
        const Share s = share(B, heads, d, BU, by_rows, by_units);
        const I n = s.u1 - s.u0, bytes = n * sizeof(REAL);
        REAL *z = 0, *handed = 0;
        if (HANDED && !(handed = malloc(sizeof(REAL) * (s.b1 - s.b0 + 1) * HANDED * n))) failed = 1;
#if GATES
        z = malloc(sizeof(REAL) * least_of(CHUNK, s.b1 - s.b0 + 1) * Z);
        if (!z) failed = 1;
        if (s.crew > 1) meet(&meeting, omp_get_num_threads());
#endif
        for (I at_tick = T * TICKS - 1; at_tick >= 0 && !failed; at_tick--) {
            const I t = at_tick / TICKS, tick = at_tick % TICKS;
            for (I b = s.b0; b < s.b1; b++) {
                REAL *g[ALL], *g_drive = f->g_drive + b * f->g_b + t * f->g_t + s.u0;
                REAL *g_recur = f->g_recur + b * f->r_b + t * f->r_t + tick * GATES * N + s.u0;
                const int rests = f->valid && !f->valid[b * f->mask_b + t];
                for (I i = 0; i < STATES; i++) g[i] = f->g[i] + b * N + s.u0;
                for (I i = 0; i < HANDED; i++) g[STATES + i] = handed + ((b - s.b0) * HANDED + i) * n;
                /* ticks add to the drive's gradient, so the last of them finds it empty */
                for (I i = 0; (rests || TICKS > 1) && tick == TICKS - 1 && i < DRIVE; i++) memset(g_drive + i * N, 0, bytes);
                if (rests) for (I i = 0; i < GATES && !SHARED; i++) memset(g_recur + i * N, 0, bytes);
                else rule_back(tick, n, N, f->saved + b * f->saved_b + t * f->saved_t + s.u0,
                               f->param + s.u0, f->g_y + b * f->g_y_b + t * f->g_y_t + s.u0, g, g_drive, g_recur,
                               f->g_param + b * PARAMS * N + s.u0);
            }
#if GATES
            if (s.crew > 1) meet(&meeting, omp_get_num_threads());
            const REAL *g_z = SHARED ? f->g_drive : f->g_recur + tick * GATES * N;
            const I z_b = SHARED ? f->g_b : f->r_b, z_t = SHARED ? f->g_t : f->r_t;
            for (I c = s.b0; c < s.b1; c += CHUNK) {
                const I m = least_of(CHUNK, s.b1 - c);
                multiply_backward(m, s.p0, s.p1, heads, d, g_z + c * z_b + t * z_t, z_b, f->packed + kind[tick] * panels, z, Z);
                for (I b = c; b < c + m; b++) {
                    REAL *to = f->g[0] + b * N;
                    const REAL *from = z + (b - c) * Z;
                    for (I u = s.u0; u < s.u1; u++) to[u] += from[u];
                }
            }
#endif
            for (I b = s.b0; b < s.b1; b++)
                for (I i = 0; !tick && f->reset && f->reset[b * f->mask_b + t] && i < STATES; i++)
                    memset(f->g[i] + b * N + s.u0, 0, bytes);
        }
        free(z);
        free(handed);
        flush_off(old);
    }
    return failed;
}
#endif
