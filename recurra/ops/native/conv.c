/* conv:  y_t = silu(bias + sum_j w_j x_{t-J+1+j}) per feature, with J - 1 past inputs carried; taps never cross a reset.
 *
 * A row's steps may end before T: those after did not happen. */
#include "common.h"
#define ROWS 64
#define MOST 128
#define FEW 16                                                                 /* taps, or steps, taken one by one */

typedef struct {
    Rows x;
    const REAL *past, *w /* D J */, *bias;
    const uint8_t *reset;
    const I *counts /* steps of each row, or NULL: T */;
    I B, T, D, J, silu;
} Conv;

INLINE vec sigmoid(vec z) { return 1 / (1 + exps(-z)); }
INLINE int many(const Conv *z) { return z->J > FEW && z->T > FEW; }
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
/* dw is D J; dbias may be NULL, and so may dlast: zero. */
typedef struct { Conv z; const REAL *dy, *dlast; REAL *dx, *dpast, *dw, *dbias; I threads; } Backward;

/* Few taps or steps: rows of D features, in order; a block of time is a task, since nothing is carried but inputs. */
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
static I few_forward(const Forward *f) {
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
    free(w);
    return 0;
}
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
static I few_backward(const Backward *f) {
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

/* Convolutions of many taps, as products of matrices. Sixteen features are a task: their steps are turned over, so that
 * those of a feature lie in a row, L or more before them that the first ones see. Of such a row thirty-two outputs need
 * J + 31 inputs: windows over it are the rows of one matrix, and windows over the taps, between zeros, of the other. So a
 * step costs J + 31 products, all in the cache; its gradients cost as much each. */
#define STEP (2 * W)                                                           /* outputs of a window */
#define LONGEST 2048                                                           /* steps of one row in the cache at once */

typedef struct { I b, t, n, at; } Run;                                         /* steps t.. of row b lie at `at` */
typedef struct { I runs, pieces, *ends, J, lead, size; Run *all; } Plan;       /* ends: of a piece's runs; size: of the longest */
INLINE I filled(I n) { return (n + STEP - 1) / STEP * STEP; }

/* all steps in runs that know of no other sequence; in pieces that the cache holds. No memory: all is NULL. */
static Plan plan(const Conv *z) {
    Plan p = {.J = z->J, .lead = filled(z->J - 1)};
    p.all = malloc((z->B * z->T + 1) * (sizeof(Run) + sizeof(I)));
    if (!p.all) return p;
    p.ends = (I *)(p.all + z->B * z->T + 1);
    I used = 0;
    for (I b = 0; b < z->B; b++) {
        const uint8_t *reset = z->reset ? z->reset + b * z->T : 0;
        for (I t = 0, n; t < count(z, b); t += n) {
            for (n = 1; n < LONGEST && t + n < count(z, b) && !(reset && reset[t + n]); n++);
            const I more = p.lead + filled(n);
            if (used && used + more > 2 * LONGEST) p.ends[p.pieces++] = p.runs, used = 0;
            p.all[p.runs++] = (Run){b, t, n, used + p.lead};
            used += more;
            if (used > p.size) p.size = used;
        }
    }
    if (used) p.ends[p.pieces++] = p.runs;
    /* whole tiles of eight windows, and what the last of them look ahead to */
    p.size = (p.size + 8 * STEP - 1) / (8 * STEP) * 8 * STEP + 2 * p.lead + STEP + W;
    return p;
}

/* sixteen steps of sixteen features, of rows that may be missing */
static void turn_in(REAL *to, I stride, const REAL *const *rows, I some) {
    REAL x[W * W];
    for (I i = 0; i < W; i++) put(x + i * W, rows[i] ? get_some(rows[i], some) : (vec){});
    transpose16(to, stride, x, W);
}
/* features first: the steps of a piece's runs, what is before them where it is wanted, and zeros elsewhere */
static void gather_runs(REAL *to, const Plan *p, const Run *runs, I n, const Conv *z, Rows x, int before, I d, I some) {
    I last = 0;
    for (I k = 0; k < n; k++) {
        const Run r = runs[k];
        const I first = since(z, r.b, r.t, z->J);
        for (I i = -p->lead; i < filled(r.n); i += W) {
            REAL *at = to + r.at + i;
            if (i >= 0 && i + W <= r.n && some >= W) { transpose16(at, p->size, row(x, r.b, r.t + i, 0) + d, x.t); continue; }
            const REAL *rows[W];
            for (I m = 0; m < W; m++) {
                const I s = r.t + i + m;
                const int none = i + m >= r.n || s < 1 - z->J || (i + m < 0 && !before);
                const REAL *from = none ? 0 : i + m < 0 ? input(z, 0, r.b, s, first) : row(x, r.b, s, 0);
                rows[m] = from ? from + d : 0;
            }
            turn_in(at, p->size, rows, some);
        }
        last = r.at + filled(r.n);
    }
    for (I f = 0; f < W; f++) memset(to + f * p->size + last, 0, (p->size - last) * sizeof(REAL));
}
static void scatter_runs(REAL *to, const REAL *from, const Plan *p, const Run *runs, I n, const Conv *z, I d, I some) {
    for (I k = 0; k < n; k++) for (I i = 0; i < runs[k].n; i += W) {
        const I left = runs[k].n - i;
        REAL *at = to + (runs[k].b * z->T + runs[k].t + i) * z->D + d, x[W * W];
        if (left >= W && some >= W) { transpose16(at, z->D, from + runs[k].at + i, p->size); continue; }
        transpose16(x, W, from + runs[k].at + i, p->size);
        for (I m = 0; m < W && m < left; m++) put_some(at + m * z->D, get(x + m * W), some);
    }
}
INLINE void add_some(REAL *to, vec x, I some) { put_some(to, get_some(to, some) + x, some); }
/* the gradient of input s of row b, of the past where there is no such step */
INLINE REAL *gradient(const Backward *f, I b, I s, I d) {
    const Conv *z = &f->z;
    return (s < 0 ? f->dpast + (b * (z->J - 1) + s + z->J - 1) * z->D : f->dx + (b * z->T + s) * z->D) + d;
}
/* what runs know of the steps before them goes back to these */
static void scatter_before(const Backward *f, const REAL *from, const Plan *p, const Run *runs, I n, I d, I some) {
    for (I k = 0; k < n; k++) {
        const Run r = runs[k];
        const I first = since(&f->z, r.b, r.t, p->J);
        for (I i = 1; i < p->J && r.t - i >= first; i++) {
            vec x;
            for (I l = 0; l < W; l++) x[l] = from[l * p->size + r.at - i];
            add_some(gradient(f, r.b, r.t - i, d), x, some);
        }
    }
}

/* taps by lag, J of them, STEP zeros on each side; and backwards */
static void spread(const Conv *z, I d, REAL *taps, REAL *backwards) {
    memset(taps, 0, (z->J + 2 * STEP) * sizeof(REAL)), memset(backwards, 0, (z->J + 2 * STEP) * sizeof(REAL));
    for (I j = 0; j < z->J; j++) taps[STEP + z->J - 1 - j] = backwards[STEP + j] = z->w[d * z->J + j];
}
/* y from the end of the first lead on: its windows end where theirs do */
INLINE void convolved(REAL *y, const REAL *x, const REAL *taps, const Plan *p, I windows) {
    const I J = p->J;
    product(y + p->lead, STEP, 0, 0, x + p->lead - (J - 1), STEP, 1, taps + STEP + J - 1, -1, windows, J + STEP - 1, 2);
}
INLINE I windows(const Plan *p, const Run *runs, I n) {
    const I steps = runs[n - 1].at + filled(runs[n - 1].n) - p->lead;
    return (steps / STEP + 7) / 8 * 8;
}

static void many_steps(const Forward *f, const Plan *p, const Run *runs, I n, I d, I some, REAL *x, REAL *y) {
    const Conv *z = &f->z;
    const I m = windows(p, runs, n);
    gather_runs(x, p, runs, n, z, z->x, 1, d, some);
    for (I l = 0; l < some; l++) {
        REAL taps[z->J + 2 * STEP], backwards[z->J + 2 * STEP], *own = y + l * p->size;
        const REAL bias = z->bias ? z->bias[d + l] : 0;
        spread(z, d + l, taps, backwards);
        convolved(own, x + l * p->size, taps, p, m);
        if (z->bias || z->silu) for (I i = p->lead; i < p->lead + m * STEP; i += W) {
            const vec s = get(own + i) + bias;
            put(own + i, z->silu ? s * sigmoid(s) : s);
        }
    }
    scatter_runs(f->y, y, p, runs, n, z, d, some);
}
static void many_back(const Backward *f, const Plan *p, const Run *runs, I n, I d, I some, REAL *x, REAL *g, double *sums) {
    const Conv *z = &f->z;
    const I m = windows(p, runs, n), J = p->J, wide = p->lead + STEP;
    const Rows dy = {f->dy, z->T * z->D, z->D, 0};
    gather_runs(x, p, runs, n, z, z->x, 1, d, some), gather_runs(g, p, runs, n, z, dy, 0, d, some);
    for (I l = 0; l < some; l++) {
        REAL taps[J + 2 * STEP], backwards[J + 2 * STEP], pairs[STEP * wide], *own = x + l * p->size, *given = g + l * p->size;
        double *sum = sums + l * (J + 1);
        spread(z, d + l, taps, backwards);
        if (z->silu) {
            REAL *drive = g + W * p->size;
            const REAL bias = z->bias ? z->bias[d + l] : 0;
            convolved(drive, own, taps, p, m);
            for (I i = p->lead; i < p->lead + m * STEP; i += W) {
                const vec a = get(drive + i) + bias, s = sigmoid(a);
                put(given + i, get(given + i) * s * (1 + a * (1 - s)));
            }
        }
        product(pairs, wide, 0, 0, given + p->lead, 1, STEP, own, STEP, STEP, m, wide / W);
        for (I i = 0; i < STEP; i++) for (I j = 0; j < J; j++) sum[j] += pairs[i * wide + p->lead + i - (J - 1) + j];
        for (I i = 0; z->bias && i < m * STEP; i++) sum[J] += given[p->lead + i];
        product(own, STEP, 0, 0, given, STEP, 1, backwards + STEP + J - 1, -1, m + p->lead / STEP, J + STEP - 1, 2);
    }
    scatter_runs(f->dx, x, p, runs, n, z, d, some), scatter_before(f, x, p, runs, n, d, some);
}

/* every sixteen features; room: rows of a piece for each, and one more */
#define EVERY_SIXTEEN(...) \
    Plan p = plan(z); \
    I failed = !p.all; \
    const I D = z->D, J = z->J; \
    _Pragma("omp parallel num_threads(enough(z->B * z->T * D * J / 8, f->threads)) if (!failed)") \
    { \
        unsigned old = flush_on(); \
        REAL *x = failed ? 0 : aligned_alloc(64, up((2 * W + 1) * p.size) * sizeof(REAL)), *y = x + W * p.size; \
        double *sums = calloc(W * (J + 1), sizeof(double)); \
        const int full = x && sums; \
        if (!full) failed = 1; \
        _Pragma("omp for schedule(static)") \
        for (I d = 0; d < D; d += W) { \
            const I some = D - d < W ? D - d : W; \
            if (!full) continue; \
            __VA_ARGS__ \
        } \
        free(x), free(sums); \
        flush_off(old); \
    } \
    free(p.all); \
    return failed;
#define EVERY_PIECE(call) for (I k = 0, at = 0; k < p.pieces; at = p.ends[k++]) { const I n = p.ends[k] - at; call; }
/* steps that did not happen */
static void silent(REAL *to, const Conv *z) {
    for (I b = 0; b < z->B; b++) memset(to + (b * z->T + count(z, b)) * z->D, 0, (z->T - count(z, b)) * z->D * sizeof(REAL));
}

static I many_forward(const Forward *f) {
    const Conv *z = &f->z;
    silent(f->y, z);
    EVERY_SIXTEEN(EVERY_PIECE(many_steps(f, &p, p.all + at, n, d, some, x, y)))
}
static I many_backward(const Backward *f) {
    const Conv *z = &f->z;
    silent(f->dx, z), memset(f->dpast, 0, z->B * (z->J - 1) * z->D * sizeof(REAL));
    EVERY_SIXTEEN(
        memset(sums, 0, W * (J + 1) * sizeof(double));
        EVERY_PIECE(many_back(f, &p, p.all + at, n, d, some, x, y, sums))
        for (I l = 0; l < some; l++) {
            for (I j = 0; j < J; j++) f->dw[(d + l) * J + j] = sums[l * (J + 1) + j];
            if (f->dbias) f->dbias[d + l] = sums[l * (J + 1) + J];
        }
        for (I b = 0; f->dlast && b < z->B; b++) for (I i = 0; i < J - 1; i++) {
            const I s = count(z, b) - J + 1 + i;
            if (s < since(z, b, count(z, b) - 1, J)) continue;
            add_some(gradient(f, b, s, d), get_some(f->dlast + (b * (J - 1) + i) * D + d, some), some);
        })
}

I conv_forward(const Forward *f, I fields) {
    CHECK(f, fields)
    const Conv *z = &f->z;
    I D = z->D, J = z->J, failed = many(z) ? many_forward(f) : few_forward(f);
    for (I b = 0; b < z->B; b++) {
        I n = count(z, b), first = since(z, b, n - 1, J);
        for (I i = 0; i < J - 1; i++) {
            const REAL *from = input(z, 0, b, n - J + 1 + i, first);
            REAL *to = f->last + (b * (J - 1) + i) * D;
            if (from) memcpy(to, from, D * sizeof(REAL)); else memset(to, 0, D * sizeof(REAL));
        }
    }
    return failed;
}
I conv_backward(const Backward *f, I fields) {
    CHECK(f, fields)
    return many(&f->z) ? many_backward(f) : few_backward(f);
}
