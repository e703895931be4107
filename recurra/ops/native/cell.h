/* cell: the loop around every rule.  Above this text stand the rule's own lines, as the macros RULE_STEP, RULE_KEEP
 * and RULE_BACK, cases for each tick of a step, and the counts STATES, DRIVE, GATES (0: R is no product), PARAMS,
 * SHARED; TICKS, of which each multiplies by the R that KIND says, of KINDS; HANDED, the vectors beside the state that
 * ticks leave to the next; SAVED, of which OPERAND says where state[0] before each tick is.
 *
 * Threads form a grid, rows of the batch by units; rows need no meeting, units meet once a step. */
#include "elementary.h"
#include "lying.h"
#include <omp.h>
#include <sched.h>

/* a map has no loop of cells around it */
#ifndef FUNCTIONS_ONLY
#include "products.h"

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
    const I B = f->B, T = f->T, heads = f->heads, d = f->d, N = heads * d, Z = N + UNITS;
    I by_rows, by_units;
    int failed = 0;
    Meeting meeting = {0, 0};
    crew(B, T, heads, d, f->threads, &by_rows, &by_units);
#if GATES
    const I panels = panels_of(heads, d);
    for (I k = 0; f->pack && k < KINDS; k++)
        pack_forward(heads, d, f->w + k * GATES * heads * d * d, f->packed + k * panels, f->threads);
#endif
#pragma omp parallel num_threads(by_rows * by_units) if (by_rows * by_units > 1)
    {
        const unsigned old = flush_on();
        const Share s = share(B, heads, d, UNITS, by_rows, by_units);
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
    const I B = f->B, T = f->T, heads = f->heads, d = f->d, N = heads * d, Z = N + UNITS;
    I by_rows, by_units;
    int failed = 0;
    Meeting meeting = {0, 0};
    crew(B, T, heads, d, f->threads, &by_rows, &by_units);
#if GATES
    const I panels = panels_of(heads, d);
    for (I k = 0; f->pack && k < KINDS; k++)
        pack_backward(heads, d, f->w + k * GATES * heads * d * d, f->packed + k * panels, f->threads);
#endif
#pragma omp parallel num_threads(by_rows * by_units) if (by_rows * by_units > 1)
    {
        const unsigned old = flush_on();
        const Share s = share(B, heads, d, UNITS, by_rows, by_units);
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
