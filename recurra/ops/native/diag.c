/* diag:  h_t = a_t (x) h_{t-1} (+) b_t  elementwise, over one of five rings.
 *
 * Memory decides: two arrays in, one out. Whole rows are walked, so that memory is read in order; the state row stays
 * in L1. Large results are written around the cache (no read for ownership), small ones into it. When B rows are too
 * few for the threads, features are shared out; time never is, so a number is the same whoever computes it. */
#include "common.h"
enum { SUM, COMPLEX, MIN_MAX, MAX_PLUS, LOG_SUM };

typedef struct {
    Typed a /* strides zero along an axis where it is the same */, b;
    const uint8_t *reset;
    const REAL *first;
    I B, T, D, ring, constant, around;
} Diag;

#define DUPE(x) PICK(x, x, 0,0,2,2,4,4,6,6,8,8,10,10,12,12,14,14)
#define DUPO(x) PICK(x, x, 1,1,3,3,5,5,7,7,9,9,11,11,13,13,15,15)
#define SWAP(x) PICK(x, x, 1,0,3,2,5,4,7,6,9,8,11,10,13,12,15,14)
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

/* a result (B, T, D) */
typedef struct { void *x; I type; } Out;

/* a task: features lo..hi of row b */
typedef struct { I b, lo, hi; const uint8_t *reset; } Piece;

/* numbers lo..hi of a row: where they lie, or copied wide into `space` */
static __attribute__((noinline)) const REAL *widen(At x, I lo, I hi, REAL *space) {
    for (I c = lo; c < hi; c += W) put_some(space + c, load_some(plus_columns(x, c).x, x.type, hi - c), hi - c);
    return space;
}
INLINE const REAL *wide(At x, I lo, I hi, REAL *space) { return x.type == WIDE ? (const REAL *)x.x : widen(x, lo, hi, space); }
/* and back: nothing is done where they were written in place */
static __attribute__((noinline)) void narrow(At x, I lo, I hi, const REAL *space) {
    for (I c = lo; x.type != WIDE && c < hi; c += W) store_some(plus_columns(x, c).x, x.type, get_some(space + c, hi - c), hi - c);
}
INLINE At step_of(Out x, const Diag *z, I b, I t) { return (At){(char *)x.x + (b * z->T + t) * z->D * bytes(x.type), z->D, x.type}; }

/* h is the state row, in and out. `read` is narrow; `out` is not, and is there where a backward will need it. */
INLINE void walk(int ring, int around, const Diag *z, Piece p, REAL *h, REAL *out, Out read, REAL *space) {
    I D = z->D, hi = p.hi, whole = p.lo + (hi - p.lo) / W * W;
    for (I t = 0; t < z->T; t++) {
        const REAL *a = wide(at(z->a, p.b, t, 0), p.lo, hi, space), *b = wide(at(z->b, p.b, t, 0), p.lo, hi, space + up(D));
        REAL *o = out ? out + (p.b * z->T + t) * D : space + 2 * up(D);
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
        if (read.x) narrow(step_of(read, z, p.b, t), p.lo, hi, h);
    }
}
/* few features of a sum, all wide: the state stays in registers, which a chain through memory is several times slower than */
INLINE void walk_few(const int U, int around, const Diag *z, Piece p, REAL *h, REAL *out) {
    vec s[4];
    UNROLL for (int u = 0; u < U; u++) s[u] = get(h + p.lo + u * W);
    for (I t = 0; t < z->T; t++) {
        const REAL *a = (const REAL *)at(z->a, p.b, t, 0).x + p.lo, *b = (const REAL *)at(z->b, p.b, t, 0).x + p.lo;
        REAL *o = out + (p.b * z->T + t) * z->D + p.lo;
        const int fresh = p.reset && p.reset[t];
        UNROLL for (int u = 0; u < U; u++) {
            s[u] = apply(SUM, get(a + u * W), fresh ? (vec){} : s[u], get(b + u * W));
            if (around) stream(o + u * W, s[u]); else put(o + u * W, s[u]);
        }
    }
    UNROLL for (int u = 0; u < U; u++) put(h + p.lo + u * W, s[u]);
}

/* RUN(ring) with a constant for each ring, so that each gets a loop of its own */
#define EACH(RUN) switch (z->ring) { case SUM: RUN(SUM); break; case COMPLEX: RUN(COMPLEX); break; \
    case MIN_MAX: RUN(MIN_MAX); break; case MAX_PLUS: RUN(MAX_PLUS); break; default: RUN(LOG_SUM); }

static void walk_any(const Diag *z, int around, Piece p, REAL *h, REAL *out, Out read, REAL *space) {
    I few = z->ring == SUM && z->a.type == WIDE && z->b.type == WIDE ? p.hi - p.lo : 0;
    #define FEW(U) if (few == U * W) { if (around) walk_few(U, 1, z, p, h, out); else walk_few(U, 0, z, p, h, out); return; }
    FEW(1) FEW(2) FEW(3) FEW(4)
    #define RUN(ring) if (around) walk(ring, 1, z, p, h, out, read, space); else walk(ring, 0, z, p, h, out, read, space)
    EACH(RUN)
    #undef RUN
}

/* features of a task: all of a row's, or fewer, in whole lines of the cache, when there are fewer rows than threads */
static I width(I B, I D, I threads) {
    I pieces = (threads + B - 1) / B;
    return pieces == 1 ? D : up((D + pieces - 1) / pieces);
}
static Piece piece(const Diag *z, I task, I across, I wide) {
    I b = task / across, lo = task % across * wide;
    return (Piece){b, lo, lo + wide < z->D ? lo + wide : z->D, z->reset ? z->reset + b * z->T : 0};
}

/* out: what a backward needs, NULL where none follows and `read` is narrow; read: NULL where it is `out` */
typedef struct { Diag z; REAL *last, *out; Out read; I threads; } Forward;

I diag_forward(const Forward *f, I n) {
    CHECK(f, n)
    const Diag *z = &f->z;
    I B = z->B, D = z->D, threads = enough(B * z->T * D, f->threads), wide = width(B, D, threads), across = (D + wide - 1) / wide;
    int around = f->out && z->around && D % W == 0 && (uintptr_t)f->out % 64 == 0, failed = 0;
    #pragma omp parallel num_threads(threads)
    {
        unsigned old = flush_on();
        REAL *space = z->a.type || z->b.type ? malloc(3 * up(D) * sizeof(REAL)) : f->last;
        if (!space) failed = 1;
        #pragma omp for schedule(dynamic)
        for (I task = 0; task < B * across; task++) {
            if (!space) continue;
            Piece p = piece(z, task, across, wide);
            REAL *h = f->last + p.b * D;
            memcpy(h + p.lo, z->first + p.b * D + p.lo, (p.hi - p.lo) * sizeof(REAL));
            walk_any(z, around, p, h, f->out, f->read, space);
        }
        if (space != f->last) free(space);
        flush_off(old);
    }
    return failed;
}

/* dh: gradient of the last state in, of the first out. da is B T D, or B D (zeros in, to be summed, REAL) where a is
 * constant in time. */
typedef struct { Diag z; const REAL *out; Out dy; REAL *dh; Out da, db; I threads; } Backward;

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
INLINE void back(int ring, int around, const Backward *f, Piece p, REAL *part /* D zeros, then room */) {
    const Diag *z = &f->z;
    I D = z->D, T = z->T, ld = up(D);
    REAL *l = f->dh + p.b * D, *sum = (REAL *)f->da.x + p.b * D;
    const REAL *out = f->out + p.b * T * D;
    for (I t = T - 1; t >= 0; t--) {
        const REAL *a = wide(at(z->a, p.b, t, 0), p.lo, p.hi, part + ld), *b = 0, *before = t ? out + (t - 1) * D : z->first + p.b * D;
        if (ring > COMPLEX) b = wide(at(z->b, p.b, t, 0), p.lo, p.hi, part + 2 * ld);
        const REAL *dy = wide(step_of(f->dy, z, p.b, t), p.lo, p.hi, part + 3 * ld);
        At to_a = step_of(f->da, z, p.b, t), to_b = step_of(f->db, z, p.b, t);
        REAL *da = to_a.type ? part + 4 * ld : (REAL *)to_a.x, *db = to_b.type ? part + 5 * ld : (REAL *)to_b.x;
        int fresh = p.reset && p.reset[t];
        /* down, as time goes: what is read upwards of rows that come down is nowhere asked for early */
        for (I c = p.lo + (p.hi - p.lo - 1) / W * W; c >= p.lo; c -= W) {
            I some = p.hi - c;
            vec h = fresh ? all(start(ring)) : get_some(before + c, some), ga, gb;
            vec next = shares(ring, get_some(dy + c, some) + get_some(l + c, some), get_some(a + c, some), h,
                              ring <= COMPLEX ? (vec){} : get_some(b + c, some), &ga, &gb);
            put_some(l + c, fresh ? (vec){} : next, some);
            if (around) stream(db + c, gb); else put_some(db + c, gb, some);
            if (z->constant) put_some(part + c, get_some(part + c, some) + ga, some);
            else if (around) stream(da + c, ga);
            else put_some(da + c, ga, some);
        }
        if (!z->constant) narrow(to_a, p.lo, p.hi, da);
        narrow(to_b, p.lo, p.hi, db);
        /* a long sum in two levels */
        for (I c = p.lo; z->constant && t % 64 == 0 && c < p.hi; c++) sum[c] += part[c], part[c] = 0;
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
    int around = z->around && D % W == 0 && !f->da.type && !f->db.type && ((uintptr_t)f->da.x | (uintptr_t)f->db.x) % 64 == 0, failed = 0;
    #pragma omp parallel num_threads(threads)
    {
        unsigned old = flush_on();
        REAL *part = calloc(6 * up(D), sizeof(REAL));
        if (!part) failed = 1;
        #pragma omp for schedule(dynamic)
        for (I task = 0; task < B * across; task++)
            if (part) back_any(f, around, piece(z, task, across, wide), part);
        free(part);
        flush_off(old);
    }
    return failed;
}
