/* synapse (liquid time-constant networks):  v_j <- (m_j v_j + push_j + sum_i u_ij s_ij) / (m_j + floor_j + sum_i w_ij s_ij),
 * s_ij = sigmoid(slope_ij p_i - offset_ij),  several times a step.
 *
 * Sixteen neurons that are reached are one vec; four rows of the batch share what is loaded of a synapse. Nothing of
 * size B S N exists. For gradients the forward keeps v and the denominator of every fused step, the backward makes the
 * sigmoid16 again, and each group of rows sums its weights' gradients for itself: the same bits on any number of threads.
 * Synapses come as (S, blocks of N, slope offset push conductance, 16), the neurons' own numbers as (3, N up to 16). */
#include "common.h"
#define ROWS 4

typedef struct {
    Rows source, span;
    const uint8_t *reset, *valid;
    const REAL *synapses, *own /* current, leak, capacitance */, *first /* B, N up to 16 */;
    I batch, T, D, N, steps, threads;
} Synapse;

/* the sums over `count` sources that reach `blocks` vecs of neurons; p and the sums lie row by row */
INLINE void hear(const int R, I count, I blocks, const REAL *w, const REAL *p, I gap, REAL *push, REAL *open, I wide) {
    for (I j = 0; j < blocks; j++) {
        vec u[R], g[R];
        for (int r = 0; r < R; r++) u[r] = g[r] = (vec){};
        for (I i = 0; i < count; i++) {
            const REAL *s = w + (i * blocks + j) * 4 * W;
            const vec slope = get(s), offset = get(s + W), pushes = get(s + 2 * W), opens = get(s + 3 * W);
            for (int r = 0; r < R; r++) {
                const vec share = sigmoid16(slope * p[r * gap + i] - offset);
                u[r] += share * pushes, g[r] += share * opens;
            }
        }
        for (int r = 0; r < R; r++) put(push + r * wide + j * W, u[r]), put(open + r * wide + j * W, g[r]);
    }
}
/* the gradients of the same sums back to the sources (added to dp) and to the synapses (added to dw) */
INLINE void unhear(const int R, I count, I blocks, const REAL *w, const REAL *p, I gap, const REAL *du, const REAL *dg, I wide,
                   REAL *dp, REAL *dw) {
    vec sums[R][W];
    for (I i = 0; i < count; i++) {
        vec back[R];
        for (int r = 0; r < R; r++) back[r] = (vec){};
        for (I j = 0; j < blocks; j++) {
            const I at = (i * blocks + j) * 4 * W;
            const vec slope = get(w + at), offset = get(w + at + W), pushes = get(w + at + 2 * W), opens = get(w + at + 3 * W);
            vec a = get(dw + at), b = get(dw + at + W), c = get(dw + at + 2 * W), d = get(dw + at + 3 * W);
            for (int r = 0; r < R; r++) {
                const REAL from = p[r * gap + i];
                const vec share = sigmoid16(slope * from - offset), u = get(du + r * wide + j * W), g = get(dg + r * wide + j * W);
                const vec moved = (u * pushes + g * opens) * (share - share * share);
                a += moved * from, b -= moved, c += u * share, d += g * share, back[r] += moved * slope;
            }
            put(dw + at, a), put(dw + at + W, b), put(dw + at + 2 * W, c), put(dw + at + 3 * W, d);
        }
        for (int r = 0; r < R; r++) sums[r][i % W] = back[r];
        if (i % W == W - 1 || i == count - 1) for (int r = 0; r < R; r++) {
            const I from = i / W * W, n = i - from + 1;
            for (I k = n; k < W; k++) sums[r][k] = (vec){};
            put_some(dp + r * gap + from, get_some(dp + r * gap + from, n) + sums16(sums[r]), n);
        }
    }
}

/* a task is ROWS rows of the batch, or one of those that are left; wide: N up to sixteen, deep: D likewise */
#define OPEN(f) const Synapse z = (f)->z; const I T = z.T, D = z.D, N = z.N, K = z.steps, wide = up(N), deep = up(D), blocks = wide / W; \
    const REAL *inner = z.synapses + D * blocks * 4 * W, *capacitance = z.own + 2 * wide;
#define EACH for (int r = 0; r < R; r++) for (I j = 0; j < wide; j += W)
#define SKIPS(r, t) (z.valid && !z.valid[(b + (r)) * T + (t)])
#define BEGINS(r, t) (z.reset && z.reset[(b + (r)) * T + (t)])

/* `some` of D inputs, and no others: those of a step that did not happen may be anything */
INLINE void listen(REAL *x, const REAL *source, I some, I D) { for (I i = 0; i < D; i++) x[i] = i < some ? source[i] : 0; }

typedef struct { Synapse z; REAL *last, *y, *kept /* NULL, or B, T, 2 K + 1, N up to 16 */; } Forward;

INLINE void forward(const Forward *f, I b, const int R, REAL *room) {
    OPEN(f)
    (void)deep;
    REAL *v = room, *x = v + R * wide, *push = x + R * deep, *open = push + R * wide, *pushed = open + R * wide, *opened = pushed + R * wide;
    memcpy(f->last + b * wide, z.first + b * wide, R * wide * sizeof(REAL));
    for (I t = 0; t < T; t++) {
        for (int r = 0; r < R; r++) {
            listen(x + r * deep, row(z.source, b + r, t, 0), SKIPS(r, t) ? 0 : D, D);
            if (BEGINS(r, t)) memset(v + r * wide, 0, wide * sizeof(REAL));
            else memcpy(v + r * wide, f->last + (b + r) * wide, wide * sizeof(REAL));
        }
        hear(R, D, blocks, z.synapses, x, deep, push, open, wide);
        for (I k = 0; k < K; k++) {
            hear(R, N, blocks, inner, v, wide, pushed, opened, wide);
            EACH {
                const I at = r * wide + j;
                const vec inertia = get(capacitance + j) * (K / *row(z.span, b + r, t, 0)), before = get(v + at);
                const vec below = inertia + (get(open + at) + get(z.own + wide + j)) + get(opened + at);
                const vec now = (get(push + at) + get(z.own + j) + inertia * before + get(pushed + at)) / below;
                put(v + at, now);
                if (f->kept) {
                    REAL *keep = f->kept + (((b + r) * T + t) * (2 * K + 1) + 2 * k) * wide + j;
                    put(keep, before), put(keep + wide, below), put(keep + 2 * wide, now);
                }
            }
        }
        for (int r = 0; r < R; r++) {
            REAL *y = f->y + ((b + r) * T + t) * N;
            if (SKIPS(r, t)) memset(y, 0, N * sizeof(REAL));
            else memcpy(y, v + r * wide, N * sizeof(REAL)), memcpy(f->last + (b + r) * wide, v + r * wide, wide * sizeof(REAL));
        }
    }
}

/* dv: gradient of the last state in, of the first out; dw, down: of each task, to be summed over tasks */
typedef struct { Synapse z; const REAL *kept, *dy; REAL *dv, *dx, *dspan, *dw, *down; } Backward;

INLINE void backward(const Backward *f, I b, I task, const int R, REAL *room) {
    OPEN(f)
    REAL *x = room, *dx = x + R * deep, *g = dx + R * deep, *v = g + R * wide, *up = v + R * wide, *down = up + R * wide, *ups = down + R * wide,
         *downs = ups + R * wide, *dm = downs + R * wide;
    REAL *dw = f->dw + task * (D + N) * blocks * 4 * W, *own = f->down + task * 3 * wide;
    memset(dw, 0, (D + N) * blocks * 4 * W * sizeof(REAL)), memset(own, 0, 3 * wide * sizeof(REAL));
    for (I t = T - 1; t >= 0; t--) {
        memset(ups, 0, 3 * R * wide * sizeof(REAL)), memset(dx, 0, R * deep * sizeof(REAL));
        for (int r = 0; r < R; r++) {
            listen(x + r * deep, row(z.source, b + r, t, 0), SKIPS(r, t) ? 0 : D, D);
            const REAL *dy = f->dy + ((b + r) * T + t) * N;
            /* a step that did not happen is nobody's: its gradient is zero, and dv stays */
            for (I j = 0; j < wide; j++) g[r * wide + j] = SKIPS(r, t) || j >= N ? 0 : f->dv[(b + r) * wide + j] + dy[j];
        }
        for (I k = K - 1; k >= 0; k--) {
            EACH {
                const I at = r * wide + j;
                const REAL *keep = f->kept + (((b + r) * T + t) * (2 * K + 1) + 2 * k) * wide + j;
                const vec before = get(keep), below = get(keep + wide), now = get(keep + 2 * wide), inertia = get(capacitance + j) * (K / *row(z.span, b + r, t, 0));
                const vec above = get(g + at) / below, under = -above * now;
                put(v + at, before), put(up + at, above), put(down + at, under);
                put(ups + at, get(ups + at) + above), put(downs + at, get(downs + at) + under);
                put(dm + at, get(dm + at) + above * before + under);
                put(g + at, above * inertia);
            }
            unhear(R, N, blocks, inner, v, wide, up, down, wide, g, dw + D * blocks * 4 * W);
        }
        unhear(R, D, blocks, z.synapses, x, deep, ups, downs, wide, dx, dw);
        for (int r = 0; r < R; r++) {
            const REAL span = *row(z.span, b + r, t, 0);
            vec late = {};
            for (I j = 0; j < wide; j += W) {
                const I at = r * wide + j;
                put(own + j, get(own + j) + get(ups + at)), put(own + wide + j, get(own + wide + j) + get(downs + at));
                put(own + 2 * wide + j, get(own + 2 * wide + j) + get(dm + at) * (K / span));
                late += get(dm + at) * get(capacitance + j);
            }
            f->dspan[(b + r) * T + t] = -sum1(late) * K / (span * span);
            memcpy(f->dx + ((b + r) * T + t) * D, dx + r * deep, D * sizeof(REAL));
            if (BEGINS(r, t)) memset(f->dv + (b + r) * wide, 0, wide * sizeof(REAL));
            else if (!SKIPS(r, t)) memcpy(f->dv + (b + r) * wide, g + r * wide, wide * sizeof(REAL));
        }
    }
}

#define EVERY_TASK(pass, ...) \
    CHECK(f, fields) \
    const I B = f->z.batch, tasks = B / ROWS + B % ROWS, wide = up(f->z.N), deep = up(f->z.D); \
    const I threads = enough(B * f->z.T * f->z.N * f->z.N * f->z.steps, f->z.threads < tasks ? f->z.threads : tasks); \
    I failed = 0; \
    _Pragma("omp parallel num_threads(threads)") \
    { \
        unsigned old = flush_on(); \
        REAL *room = aligned_alloc(64, sizeof(REAL) * ROWS * (8 * wide + 2 * deep)); \
        if (!room) failed = 1; \
        _Pragma("omp for schedule(dynamic)") \
        for (I task = 0; task < tasks; task++) { \
            if (!room) continue; \
            if (task < B / ROWS) pass(f, task * ROWS, __VA_ARGS__ ROWS, room); \
            else pass(f, B / ROWS * ROWS + task - B / ROWS, __VA_ARGS__ 1, room); \
        } \
        free(room); \
        flush_off(old); \
    } \
    return failed;
I synapse_forward(const Forward *f, I fields) { EVERY_TASK(forward, ) }
I synapse_backward(const Backward *f, I fields) { EVERY_TASK(backward, task,) }
