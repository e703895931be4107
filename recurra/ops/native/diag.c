/* diag:  h_t = a_t (x) h_{t-1} (+) b_t  elementwise, over one of five rings.
 *
 * Memory decides: two arrays in, one out. Whole rows are walked, so that memory is read in order; the state row stays
 * in L1. Large results are written around the cache (no read for ownership), small ones into it. When B rows are too
 * few for the threads, features are split, then time: each block of time but the last is first reduced to one map. */
#include "common.h"
enum { SUM, COMPLEX, MIN_MAX, MAX_PLUS, LOG_SUM };

typedef struct {
    Rows a /* strides zero along an axis where it is the same */, b;
    const uint8_t *reset;
    const REAL *first;
    I B, T, D, ring, constant, around;
} Diag;

#define DUPE(x) __builtin_shufflevector(x, x, 0,0,2,2,4,4,6,6,8,8,10,10,12,12,14,14)
#define DUPO(x) __builtin_shufflevector(x, x, 1,1,3,3,5,5,7,7,9,9,11,11,13,13,15,15)
#define SWAP(x) __builtin_shufflevector(x, x, 1,0,3,2,5,4,7,6,9,8,11,10,13,12,15,14)
#define SIGN ((vec){-1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1})
INLINE vec complex_product(vec x, vec y) { return DUPE(x) * y + DUPO(x) * (SIGN * SWAP(y)); }
INLINE vec conjugate(vec x) { return -SIGN * x; }
INLINE vec least(vec x, vec y) { return SELECT((x < y) | (x != x), x, y); }
INLINE vec most(vec x, vec y) { return SELECT((x > y) | (x != x), x, y); }

/* e^-|x - y|, which both log(e^x + e^y) and its gradient are made of */
INLINE vec nearness(vec x, vec y) {
    vec d = x - y;
    return exps(SELECT(d > 0, -d, d));
}
/* log(1 + u) for u in [0, 1]: 2 atanh(s), s = u / (2 + u) <= 1/3, by its series */
INLINE vec log1ps(vec u) {
    vec s = u / (2 + u), z = s * s, p = {};
    for (int n = IS_DOUBLE ? 17 : 8; n >= 0; n--) p = p * z + (REAL)1 / (2 * n + 1);
    return 2 * s * p;
}
INLINE vec log_add(vec x, vec y) {
    vec high = most(x, y);
    return SELECT((high == INFINITY) | (high == -INFINITY), high, high + log1ps(nearness(x, y)));
}

INLINE vec times(int ring, vec a, vec h) {
    return ring == SUM ? a * h : ring == COMPLEX ? complex_product(a, h) : ring == MIN_MAX ? least(a, h) : a + h;
}
INLINE vec plus(int ring, vec x, vec y) {
    return ring <= COMPLEX ? x + y : ring == LOG_SUM ? log_add(x, y) : most(x, y);
}
INLINE vec apply(int ring, vec a, vec h, vec b) { return plus(ring, times(ring, a, h), b); }
INLINE REAL start(int ring) { return ring >= MAX_PLUS ? -INFINITY : 0; }
INLINE vec zero(int ring) { return all(ring <= COMPLEX ? 0 : -INFINITY); }
INLINE vec one(int ring) {
    if (ring == COMPLEX) return (vec){1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0};
    return all(ring == SUM ? 1 : ring == MIN_MAX ? INFINITY : 0);
}

/* a task: steps from..to of features lo..hi of row b */
typedef struct { I b, from, to, lo, hi; const uint8_t *reset; } Piece;

/* walk a piece; h is the state row, in and out */
INLINE void walk(int ring, int around, const Diag *z, Piece p, REAL *h, REAL *out) {
    I D = z->D, hi = p.hi, whole = p.lo + (hi - p.lo) / W * W;
    for (I t = p.from; t < p.to; t++) {
        const REAL *a = row(z->a, p.b, t, 0), *b = row(z->b, p.b, t, 0);
        REAL *o = out + (p.b * z->T + t) * D;
        if (p.reset && p.reset[t]) for (I c = p.lo; c < hi; c++) h[c] = start(ring);
        for (I c = p.lo; c < whole; c += W) {
            vec x = apply(ring, get(a + c), get(h + c), get(b + c));
            put(h + c, x);
            if (around) stream(o + c, x); else put(o + c, x);
        }
        if (whole < hi) {
            I some = hi - whole;
            vec x = apply(ring, get_some(a + whole, some), get_some(h + whole, some), get_some(b + whole, some));
            put_some(h + whole, x, some), put_some(o + whole, x, some);
        }
    }
}
/* the map of a piece, h -> m (x) h (+) e; after a reset e alone counts */
INLINE void reduce(int ring, const Diag *z, Piece p, REAL *m, REAL *e) {
    for (I c = p.lo; c < p.hi; c += W) {
        I some = p.hi - c;
        vec x = one(ring), y = zero(ring);
        for (I t = p.from; t < p.to; t++) {
            vec a = get_some(row(z->a, p.b, t, 0) + c, some), b = get_some(row(z->b, p.b, t, 0) + c, some);
            if (p.reset && p.reset[t]) y = all(start(ring));
            y = apply(ring, a, y, b), x = times(ring, a, x);
        }
        put_some(m + c, x, some), put_some(e + c, y, some);
    }
}

/* RUN(ring) with a constant for each ring, so that each gets a loop of its own */
#define EACH(RUN) switch (z->ring) { case SUM: RUN(SUM); break; case COMPLEX: RUN(COMPLEX); break; \
    case MIN_MAX: RUN(MIN_MAX); break; case MAX_PLUS: RUN(MAX_PLUS); break; default: RUN(LOG_SUM); }

static void walk_any(const Diag *z, int around, Piece p, REAL *h, REAL *out) {
    #define RUN(ring) if (around) walk(ring, 1, z, p, h, out); else walk(ring, 0, z, p, h, out)
    EACH(RUN)
    #undef RUN
}
static void reduce_any(const Diag *z, Piece p, REAL *m, REAL *e) {
    #define RUN(ring) reduce(ring, z, p, m, e)
    EACH(RUN)
    #undef RUN
}
static void apply_any(const Diag *z, REAL *y, const REAL *m, const REAL *h, const REAL *e) {
    #define RUN(ring) for (I c = 0; c < z->D; c += W) { I some = z->D - c; \
        put_some(y + c, apply(ring, get_some(m + c, some), get_some(h + c, some), get_some(e + c, some)), some); }
    EACH(RUN)
    #undef RUN
}

/* features in one piece: all of them, or fewer (a multiple of 64 numbers) when there are fewer rows than threads */
static I width(I B, I D, I threads) {
    I pieces = (threads + B - 1) / B, size = (D + pieces - 1) / pieces;
    return size < 4 * W ? (4 * W < D ? 4 * W : D) : (size + 4 * W - 1) / (4 * W) * (4 * W);
}
static int any(const uint8_t *x, I from, I to) {
    for (I t = from; x && t < to; t++) if (x[t]) return 1;
    return 0;
}
/* piece number `task` where a row is cut into `blocks` of time, each into `across` pieces of `wide` features */
static Piece piece(const Diag *z, I task, I across, I wide, I blocks) {
    I r = task / across, b = r / blocks, lo = task % across * wide, k = r % blocks;
    return (Piece){b, z->T * k / blocks, z->T * (k + 1) / blocks, lo, lo + wide < z->D ? lo + wide : z->D,
                   z->reset ? z->reset + b * z->T : 0};
}

typedef struct { Diag z; REAL *last, *out; I threads; } Forward;

/* few rows of few features: the blocks of a row become maps, the maps give each block its first state, all walk */
static I split(const Diag *z, I blocks, I across, I wide, int around, REAL *last, REAL *out, I threads) {
    I D = z->D, n = z->B * blocks;
    REAL *m = malloc(3 * n * D * sizeof(REAL)), *e = m + n * D, *h = e + n * D;
    if (!m) return 1;
    #pragma omp parallel num_threads(threads)
    {
        unsigned old = flush_on();
        #pragma omp for
        for (I task = 0; task < n * across; task++) {
            I r = task / across;
            if (r % blocks < blocks - 1) reduce_any(z, piece(z, task, across, wide, blocks), m + r * D, e + r * D);
        }
        #pragma omp single
        for (I r = 0; r < n; r++) {
            Piece p = piece(z, (r - 1) * across, across, wide, blocks);
            if (r % blocks == 0) memcpy(h + r * D, z->first + r / blocks * D, D * sizeof(REAL));
            else if (any(p.reset, p.from, p.to)) memcpy(h + r * D, e + (r - 1) * D, D * sizeof(REAL));
            else apply_any(z, h + r * D, m + (r - 1) * D, h + (r - 1) * D, e + (r - 1) * D);
        }
        #pragma omp for
        for (I task = 0; task < n * across; task++) {
            I r = task / across;
            Piece p = piece(z, task, across, wide, blocks);
            walk_any(z, around, p, h + r * D, out);
            if (r % blocks == blocks - 1) memcpy(last + p.b * D + p.lo, h + r * D + p.lo, (p.hi - p.lo) * sizeof(REAL));
        }
        flush_off(old);
    }
    free(m);
    return 0;
}

I diag_forward(const Forward *f, I n) {
    CHECK(f, n)
    const Diag *z = &f->z;
    I B = z->B, T = z->T, D = z->D, threads = enough(B * T * D, f->threads);
    I wide = width(B, D, threads), across = (D + wide - 1) / wide;
    I blocks = B * across >= threads || T < 256 ? 1 : threads / (B * across);
    int around = z->around && D % W == 0 && (uintptr_t)f->out % 64 == 0;
    if (blocks > 1) return split(z, blocks, across, wide, around, f->last, f->out, threads);
    #pragma omp parallel num_threads(threads)
    {
        unsigned old = flush_on();
        #pragma omp for schedule(dynamic)
        for (I task = 0; task < B * across; task++) {
            Piece p = piece(z, task, across, wide, 1);
            REAL *h = f->last + p.b * D;
            memcpy(h + p.lo, z->first + p.b * D + p.lo, (p.hi - p.lo) * sizeof(REAL));
            walk_any(z, around, p, h, f->out);
        }
        flush_off(old);
    }
    return 0;
}

/* dh: gradient of the last state in, of the first out. da is B T D, or B D (zeros in, to be summed) where a is
 * constant in time. */
typedef struct { Diag z; const REAL *out, *dy; REAL *dh, *da, *db; I threads; } Backward;

/* half where two that are compared are equal, as torch has it */
INLINE vec share(vec x, vec y) { return SELECT(x > y, all(1), SELECT(x == y, all((REAL)0.5), (vec){})); }

/* The shares of h_t's gradient g: ga of a, gb of b, and what is returned, of h_{t-1}. */
INLINE vec shares(int ring, vec g, vec a, vec h, vec b, vec *ga, vec *gb) {
    if (ring == SUM) { *ga = g * h, *gb = g; return g * a; }
    if (ring == COMPLEX) { *ga = complex_product(conjugate(h), g), *gb = g; return complex_product(conjugate(a), g); }
    vec x = times(ring, a, h), up;
    if (ring == LOG_SUM) {
        vec e = nearness(x, b), big = 1 / (1 + e);
        ints nothing = (x == -INFINITY) & (b == -INFINITY);
        up = SELECT(nothing, (vec){}, g * SELECT(x > b, big, e * big));
        *gb = SELECT(nothing, (vec){}, g * SELECT(x > b, e * big, big));
    } else up = g * share(x, b), *gb = g - up;
    *ga = ring == MIN_MAX ? up * share(h, a) : up;
    return ring == MIN_MAX ? up - *ga : up;
}
INLINE void back(int ring, int around, const Backward *f, Piece p, REAL *part /* D zeros */) {
    const Diag *z = &f->z;
    I D = z->D, T = z->T;
    REAL *l = f->dh + p.b * D, *da = f->da + p.b * (z->constant ? 1 : T) * D, *db = f->db + p.b * T * D;
    const REAL *out = f->out + p.b * T * D, *dy = f->dy + p.b * T * D;
    for (I t = T - 1; t >= 0; t--) {
        const REAL *a = row(z->a, p.b, t, 0), *b = row(z->b, p.b, t, 0), *before = t ? out + (t - 1) * D : z->first + p.b * D;
        int fresh = p.reset && p.reset[t];
        for (I c = p.lo; c < p.hi; c += W) {
            I some = p.hi - c, i = t * D + c;
            vec h = fresh ? all(start(ring)) : get_some(before + c, some), ga, gb;
            vec next = shares(ring, get_some(dy + i, some) + get_some(l + c, some), get_some(a + c, some), h,
                              ring <= COMPLEX ? (vec){} : get_some(b + c, some), &ga, &gb);
            put_some(l + c, fresh ? (vec){} : next, some);
            if (around) stream(db + i, gb); else put_some(db + i, gb, some);
            if (z->constant) put_some(part + c, get_some(part + c, some) + ga, some);
            else if (around) stream(da + i, ga);
            else put_some(da + i, ga, some);
        }
        /* a long sum in two levels */
        for (I c = p.lo; z->constant && t % 64 == 0 && c < p.hi; c++) da[c] += part[c], part[c] = 0;
    }
}
static void back_any(const Backward *f, int around, Piece p, REAL *part) {
    const Diag *z = &f->z;
    #define RUN(ring) if (around) back(ring, 1, f, p, part); else back(ring, 0, f, p, part)
    EACH(RUN)
    #undef RUN
}
I diag_backward(const Backward *f, I n) {
    CHECK(f, n)
    const Diag *z = &f->z;
    I B = z->B, D = z->D, threads = enough(B * z->T * D, f->threads), wide = width(B, D, threads), across = (D + wide - 1) / wide;
    int around = z->around && D % W == 0 && ((uintptr_t)f->da | (uintptr_t)f->db) % 64 == 0, failed = 0;
    #pragma omp parallel num_threads(threads)
    {
        unsigned old = flush_on();
        REAL *part = calloc(D, sizeof(REAL));
        if (!part) failed = 1;
        #pragma omp for schedule(dynamic)
        for (I task = 0; task < B * across; task++)
            if (part) back_any(f, around, piece(z, task, across, wide, 1), part);
        free(part);
        flush_off(old);
    }
    return failed;
}
