/* What every engine shares: a vector of sixteen numbers, an exponential, and small matrix products.
 *
 * A `vec` is sixteen numbers whatever the machine is (GCC/Clang vector extensions): one zmm register for float
 * with AVX-512, two ymm with AVX2, four q with NEON, twice that for double. Sixteen is also the number of steps
 * in a chunk, so a vec can run along keys, along values or along time. Compiled twice, REAL=float and double:
 * the second exists so that gradients can be checked to 1e-10. Nothing here breaks inf or NaN; subnormals are
 * flushed while a kernel runs, because a decaying state meets them and each one costs a hundred cycles. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __x86_64__
#include <xmmintrin.h>
#endif

#ifndef REAL
#define REAL float
#endif
#define W 16
typedef REAL vec __attribute__((vector_size(W * sizeof(REAL))));
typedef vec loose __attribute__((aligned(sizeof(REAL))));                  /* a vec at any address */
#define IS_DOUBLE (sizeof(REAL) == 8)
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 4")
#define WHOLE _Pragma("GCC unroll 16")
typedef int64_t I;
#if defined(__clang__) || __GNUC__ >= 12
#define PICK(x, y, ...) __builtin_shufflevector(x, y, __VA_ARGS__)
#else                                                      /* an older GCC takes the places as a vector as wide */
typedef int32_t places4 __attribute__((vector_size(W * 4)));
typedef int64_t places8 __attribute__((vector_size(W * 8)));
typedef __typeof__(__builtin_choose_expr(IS_DOUBLE, (places8){}, (places4){})) places;
#define PICK(x, y, ...) __builtin_shuffle(x, y, (places){__VA_ARGS__})
#endif

/* no more threads than the work is worth: meeting at a barrier costs microseconds, and milliseconds on a busy machine */
INLINE I enough(I work, I threads) { I n = 1 + work / 200000; return n < threads ? n : threads; }
INLINE vec all(REAL x) { return x - (vec){}; }
INLINE vec get(const REAL *p) { return *(const loose *)p; }
INLINE void put(REAL *p, vec x) { *(loose *)p = x; }
INLINE I up(I n) { return (n + W - 1) / W * W; }

/* A tensor (B, T, H, *) or (B, T, *) with a dense last axis: its rows, and the strides of batch, time and heads.
 * Every exported function takes a struct of addresses and int64s and how many there are; it returns 0, or 1 where
 * memory ran out, or 2 where the caller thinks of another struct. */
typedef struct { const REAL *x; I b, t, h; } Rows;
INLINE const REAL *row(Rows r, I b, I t, I h) { return r.x + b * r.b + t * r.t + h * r.h; }
#define CHECK(f, n) if ((n) * 8 != (I)sizeof(*(f))) return 2;

/* lanes beyond n read as zero and are not written: how a ragged last vec is handled, outside inner loops */
INLINE vec get_some(const REAL *p, I n) {
    if (n >= W) return get(p);
    vec x = {};
    for (I i = 0; i < n; i++) x[i] = p[i];
    return x;
}
INLINE void put_some(REAL *p, vec x, I n) {
    if (n >= W) put(p, x);
    else for (I i = 0; i < n; i++) p[i] = x[i];
}

/* Numbers of a narrow type are two bytes in memory and wide in registers. WIDE is REAL itself. */
enum { WIDE, BFLOAT16, FLOAT16 };
typedef float single __attribute__((vector_size(W * 4)));
typedef uint32_t word __attribute__((vector_size(W * 4)));
typedef uint16_t half __attribute__((vector_size(W * 2)));
typedef half loose_half __attribute__((aligned(2)));
INLINE I bytes(I type) { return type == WIDE ? (I)sizeof(REAL) : 2; }
INLINE word choose(word mask, word x, word y) { return (x & mask) | (y & ~mask); }
INLINE word widened(word x, I type) {
    if (type == BFLOAT16) return x << 16;
    word sign = (x & 0x8000) << 16, size = x & 0x7fff;
    single tiny = __builtin_convertvector(size, single) * 0x1p-24f;            /* below the least normal: m 2^-24 */
    word y = choose((word)(size > 0x7bff), (size << 13) | 0x7f800000, (size << 13) + (112u << 23));
    return sign | choose((word)(size < 0x400), (word)tiny, y);
}
INLINE word narrowed(word x, I type) {                                         /* to nearest, ties to even */
    word size = x & 0x7fffffff, sign = x >> 16 & 0x8000, nan = (word)(size > 0x7f800000);
    if (type == BFLOAT16) return choose(nan, sign | 0x7fc0, (x + 0x7fff + (x >> 16 & 1)) >> 16);
    word tiny = (word)((single)size + 0.5f) - 0x3f000000, y = (size - (112u << 23) + 0xfff + (size >> 13 & 1)) >> 13;
    y = choose((word)(size < 0x38800000), tiny, choose((word)(size >= 0x477ff000), (word)(y * 0 + 0x7c00), y));
    return sign | choose(nan, (word)(y * 0 + 0x7e00), y);
}
INLINE vec load(const void *p, I type) {
    if (type == WIDE) return get(p);
    return __builtin_convertvector((single)widened(__builtin_convertvector(*(const loose_half *)p, word), type), vec);
}
INLINE void store(void *p, I type, vec x) {
    if (type == WIDE) put(p, x);
    else *(loose_half *)p = __builtin_convertvector(narrowed((word)__builtin_convertvector(x, single), type), half);
}
INLINE vec load_some(const void *p, I type, I n) {
    if (n >= W) return load(p, type);
    if (type == WIDE) return get_some(p, n);
    uint16_t x[W] = {};
    for (I i = 0; i < n; i++) x[i] = ((const uint16_t *)p)[i];
    return load(x, type);
}
INLINE void store_some(void *p, I type, vec x, I n) {
    if (n >= W) { store(p, type, x); return; }
    if (type == WIDE) { put_some(p, x, n); return; }
    uint16_t y[W];
    store(y, type, x);
    for (I i = 0; i < n; i++) ((uint16_t *)p)[i] = y[i];
}
/* Rows of numbers of any type, and where one of them begins with the way to the next step's */
typedef struct { const void *x; I b, t, h, type; } Typed;
typedef struct { char *x; I stride, type; } At;
INLINE At at(Typed r, I b, I t, I h) { return (At){(char *)r.x + (b * r.b + t * r.t + h * r.h) * bytes(r.type), r.t, r.type}; }
INLINE At plain(const REAL *x, I stride) { return (At){(char *)x, stride, WIDE}; }
INLINE At plus_columns(At r, I c) { r.x += c * bytes(r.type); return r; }
INLINE REAL number(At r, I t) { return load_some(r.x + t * r.stride * bytes(r.type), r.type, 1)[0]; }
INLINE void set(At r, I t, REAL x) { store_some(r.x + t * r.stride * bytes(r.type), r.type, all(x), 1); }

/* a store around the cache, to an address aligned to 64 bytes: it does not first read the line it fills. By its own
 * name: the header that has a function for it takes as long to read as all the rest of a small kernel */
INLINE void stream(REAL *p, vec x) {
#ifdef __AVX512F__
    typedef REAL line __attribute__((vector_size(64)));
    for (unsigned i = 0; i < sizeof(vec) / 64; i++)
        __asm__("vmovntdq %1, %0" : "=m"(((line *)p)[i]) : "v"(((line *)&x)[i]));
#else
    put(p, x);
#endif
}

#if defined(__x86_64__)
INLINE unsigned flush_on(void) { unsigned old = _mm_getcsr(); _mm_setcsr(old | 0x8040); return old; }
INLINE void flush_off(unsigned old) { _mm_setcsr(old), _mm_sfence(); /* stores around the cache are seen by all */ }
#else
INLINE unsigned flush_on(void) { return 0; }
INLINE void flush_off(unsigned old) { (void)old; }
#endif

/* e^r = 1 + r + r^2 c(r) of single numbers or vectors, |r| <= log(2)/2: e^r - 1 to 2e-8 of itself */
#define CURVE(r) (((((r) * 0x1.6d43b4p-10f + 0x1.120be8p-7f) * (r) + 0x1.5554e8p-5f) * (r) + 0x1.5554dcp-3f) * (r) + 0.5f)
/* e^x = 2^n (1 + r q): x = n ln2 + r, and q a polynomial in r; n sits in the low bits of what is returned. */
#define SELECT(mask, x, y) ((vec)(((ints)(x) & (mask)) | ((ints)(y) & ~(mask))))
#define ROUND_BY (IS_DOUBLE ? 6755399441055744.0 : 12582912.0f)              /* 1.5 * 2^52, 1.5 * 2^23 */
typedef __typeof__(((vec){}) < ((vec){})) ints;
INLINE ints split(vec x, vec *r, vec *q) {
    const vec shifted = x * (REAL)1.4426950408889634 + (REAL)ROUND_BY, n = shifted - (REAL)ROUND_BY;
    if (IS_DOUBLE) {
        *r = x - n * (REAL)6.93147180369123816490e-01 - n * (REAL)1.90821492927058770002e-10;
        vec p = all(1.6059043836821613e-10);
        static const double c[] = {2.08767569878681e-09, 2.505210838544172e-08, 2.755731922398589e-07,
            2.7557319223985893e-06, 2.48015873015873e-05, 1.984126984126984e-04, 1.3888888888888889e-03,
            8.333333333333333e-03, 4.1666666666666664e-02, 1.6666666666666666e-01, 0.5, 1.};
        for (int i = 0; i < 12; i++) p = p * *r + (REAL)c[i];
        *q = p;
    } else {
        *r = x - n * (REAL)0.693359375f - n * (REAL)-2.12194440e-4f;
        *q = CURVE(*r) * *r + 1;
    }
    return (ints)shifted << (IS_DOUBLE ? 52 : 23);
}
/* x within -most and most; NaN stays NaN */
INLINE vec within(vec x, REAL most) { const vec y = SELECT(x < -most, all(-most), x); return SELECT(y > most, all(most), y); }
#define TWO_TO(n) ((vec)((n) + (ints)all(1)))

/* e^x, 1 ulp, 2^n put in the exponent. exp(-inf) = 0, NaN stays NaN. */
INLINE vec exps(vec x) {
    const REAL low = IS_DOUBLE ? -708.0 : -87.0f, high = IS_DOUBLE ? 709.7 : 88.7f;
    vec y = SELECT(x < low, all(low), x), r, q;
    y = SELECT(y > high, all(high), y);
    const ints n = split(y, &r, &q);
    y = (vec)((ints)(q * r + 1) + n);
    y = SELECT(x < low, (vec){}, y);
    y = SELECT(x > high, all(INFINITY), y);
    return SELECT(x == x, y, x);
}
/* through e^2|x| - 1, made without the one, so that small x keeps its digits. A single number's power is at most 2^29:
 * one step takes n log(2) off, and n lies in the rounded one's bits as an exponent does */
#define EXPONENT_BY (12582912.0f + 127)
INLINE vec tanh16(vec x) {
    const ints sign = (ints)x & (ints)all(-0.0);
    const vec a = (vec)((ints)x ^ sign), most = all(IS_DOUBLE ? 20 : 10), held = SELECT(a > most, most, a), twice = held + held;
    vec two, r, q;
    if (IS_DOUBLE) {
        const ints n = split(twice, &r, &q);
        two = TWO_TO(n), q *= r;
    } else {
        const vec shifted = twice * 0x1.715476p+0f + EXPONENT_BY, n = shifted - EXPONENT_BY;
        r = twice - n * 0x1.62e43p-1f, two = (vec)((ints)shifted << 23), q = CURVE(r) * r * r + r;
    }
    const vec less_one = two * q + (two - 1);
    return (vec)((ints)(less_one / (less_one + 2)) | sign);
}
/* 1 / (1 + e^-x), whose exponential need not reach 0 nor inf: a sigmoid has no digits left there */
INLINE vec sigmoid16(vec x) {
    vec r, q;
    const ints n = split(within(-x, IS_DOUBLE ? 700 : 87), &r, &q);
    return 1 / (1 + TWO_TO(n) * (q * r + 1));
}

/* sixteen vecs -> the vec of their sixteen sums; and the 16 x 16 transpose. Four rounds of shuffles each. */
#define EVEN(a, b) PICK(a, b, 0,2,4,6,8,10,12,14,16,18,20,22,24,26,28,30)
#define ODD(a, b) PICK(a, b, 1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31)
#define LOW(a, b) PICK(a, b, 0,16,1,17,2,18,3,19,4,20,5,21,6,22,7,23)
#define HIGH(a, b) PICK(a, b, 8,24,9,25,10,26,11,27,12,28,13,29,14,30,15,31)
INLINE vec sums16(vec x[W]) {
    for (int n = W / 2; n; n /= 2)
        for (int i = 0; i < n; i++) x[i] = EVEN(x[2 * i], x[2 * i + 1]) + ODD(x[2 * i], x[2 * i + 1]);
    return x[0];
}
INLINE REAL sum1(vec x) {                                       /* halves are added, and their halves, down to one */
    x += PICK(x, x, 8,9,10,11,12,13,14,15,0,1,2,3,4,5,6,7);
    x += PICK(x, x, 4,5,6,7,0,1,2,3,12,13,14,15,8,9,10,11);
    x += PICK(x, x, 2,3,0,1,6,7,4,5,10,11,8,9,14,15,12,13);
    return x[0] + x[1];
}
/* y (16 x 16 at stride ly) = x' (16 x 16 at stride lx) */
static void transpose16(REAL *y, I ly, const REAL *x, I lx) {
    vec a[W], b[W];
    #define SHUFFLE(b, a) _Pragma("GCC unroll 8") for (int i = 0; i < W / 2; i++) \
        b[2 * i] = LOW(a[i], a[i + 8]), b[2 * i + 1] = HIGH(a[i], a[i + 8]);
    _Pragma("GCC unroll 16") for (int i = 0; i < W; i++) a[i] = get(x + i * lx);
    SHUFFLE(b, a) SHUFFLE(a, b) SHUFFLE(b, a) SHUFFLE(a, b)                  /* a perfect shuffle, four times */
    _Pragma("GCC unroll 16") for (int i = 0; i < W; i++) put(y + i * ly, a[i]);
}

/* C (m x 16 nv) = scale_i * from + X (m x n) Y (n x 16 nv): X is broadcast from memory with any strides, so that its
 * transpose costs nothing. A tile of R x U vecs stays in registers: how it begins is a constant of each variant, and its
 * loops are unrolled by order, or the compiler also writes the tile to memory, before and after, and reads it again.
 * from: NULL is zero (may be C itself, to add); scale: NULL is one. */
enum { ZERO, ADD, SCALE };
#define TILE(R, U, MODE) \
static void tile_##R##x##U##_##MODE(REAL *c, I lc, const REAL *from, const REAL *scale, const REAL *x, I xi, I xj, const REAL *y, I ly, I n) { \
    vec s[R][U], b[U]; \
    WHOLE for (int i = 0; i < R; i++) WHOLE for (int u = 0; u < U; u++) \
        s[i][u] = MODE == ZERO ? (vec){} : MODE == ADD ? get(from + i * lc + u * W) : scale[i] * get(from + i * lc + u * W); \
    for (I j = 0; j < n; j++, x += xj, y += ly) { \
        WHOLE for (int u = 0; u < U; u++) b[u] = get(y + u * W); \
        WHOLE for (int i = 0; i < R; i++) WHOLE for (int u = 0; u < U; u++) s[i][u] += x[i * xi] * b[u]; } \
    WHOLE for (int i = 0; i < R; i++) WHOLE for (int u = 0; u < U; u++) put(c + i * lc + u * W, s[i][u]); }
#define PRODUCT(MODE) TILE(8, 2, MODE) TILE(16, 1, MODE) TILE(1, 2, MODE) TILE(1, 1, MODE) \
static void product_##MODE(REAL *c, I lc, const REAL *from, const REAL *scale, const REAL *x, I xi, I xj, const REAL *y, I ly, I m, I n, I nv) { \
    I v = 0, i; \
    for (; v + 1 < nv; v += 2, c += 2 * W, y += 2 * W, from += MODE ? 2 * W : 0) { \
        for (i = 0; i + 8 <= m; i += 8) tile_8x2_##MODE(c + i * lc, lc, from + i * lc, scale + i, x + i * xi, xi, xj, y, ly, n); \
        for (; i < m; i++) tile_1x2_##MODE(c + i * lc, lc, from + i * lc, scale + i, x + i * xi, xi, xj, y, ly, n); } \
    if (v < nv) { \
        for (i = 0; i + 16 <= m; i += 16) tile_16x1_##MODE(c + i * lc, lc, from + i * lc, scale + i, x + i * xi, xi, xj, y, ly, n); \
        for (; i < m; i++) tile_1x1_##MODE(c + i * lc, lc, from + i * lc, scale + i, x + i * xi, xi, xj, y, ly, n); } }
PRODUCT(ZERO) PRODUCT(ADD) PRODUCT(SCALE)
static void product(REAL *c, I lc, const REAL *from, const REAL *scale, const REAL *x, I xi, I xj, const REAL *y, I ly,
                    I m, I n, I nv) {
    if (!from) product_ZERO(c, lc, c, c, x, xi, xj, y, ly, m, n, nv);
    else if (!scale) product_ADD(c, lc, from, c, x, xi, xj, y, ly, m, n, nv);
    else product_SCALE(c, lc, from, scale, x, xi, xj, y, ly, m, n, nv);
}

/* One allocation per thread, cut into panels aligned to 64 bytes: they are taken once to be counted, and, when it is
 * allotted, again. base is NULL before, and where there is no memory. */
typedef struct { REAL *base; I used; } Arena;
INLINE REAL *take(Arena *a, I n) {
    REAL *p = a->base ? a->base + a->used : 0;
    a->used += up(n);
    return p;
}
INLINE void allot(Arena *a) {
    a->base = aligned_alloc(64, (a->used * sizeof(REAL) + 63) / 64 * 64);
    a->used = 0;
}
