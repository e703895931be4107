/* Elementary functions of one number: branchless, so that loops over units become vectors; inf and NaN as in libm. */
#include "common.h"

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
/* The sine of an angle and some of a turn more. Whole turns go in double precision, of angles up to 2^52; what is
   beyond a quarter turn comes back from the half. Larger angles, of which neighbours in single precision lie millions
   of turns apart, give a number from -1 to 1, as torch's do another: its own way is a branch, and loops no vectors. */
INLINE float sine(float x, double more) {
    const double n = fma(x, 0x1.45f306dc9c883p-3, 0x1.8p52) - 0x1.8p52;
    const double r = fma(n, -0x1.1a62633145c07p-52, fma(n, -0x1.921fb54442d18p+2, x)) + more;
    const double a = fabs(r), rest = 0x1.921fb54442d18p+1 - a, less = a < rest ? a : rest;
    const double b = (less < -2 ? -2 : less) * copysign(1, r), z = b * b;
    double q = fma(z, -0x1.9db30cf0af8dfp-26, 0x1.71969de297775p-19);
    q = fma(q, z, -0x1.a0190606db743p-13);
    q = fma(q, z, 0x1.11110fdb47a1p-7);
    q = fma(q, z, -0x1.555555546114p-3);
    return (float)(b * fma(q, z, 1));
}
/* -0 is what adds nothing, to -0 either */
INLINE float f_sin(float x) { return sine(x, -0.0); }
INLINE float f_cos(float x) { return sine(x, 0x1.921fb54442d18p+0); }
#define OURS(name) INLINE REAL r_##name(REAL x) { return IS_DOUBLE ? (name)(x) : f_##name(x); }
#define LIBM(name, of) INLINE REAL r_##name(REAL x) { return IS_DOUBLE ? of(x) : of##f(x); }
OURS(exp) OURS(expm1) OURS(log) OURS(log1p) OURS(tanh) OURS(sin) OURS(cos)
LIBM(sqrt, sqrt) LIBM(abs, fabs) LIBM(erf, erf)
/* NaN passes through, as in torch. Two choices one after the other: one within the other is no vector to the compiler */
INLINE REAL r_maximum(REAL x, REAL y) { const REAL more = x > y ? x : y; return x != x ? x : more; }
INLINE REAL r_minimum(REAL x, REAL y) { const REAL less = x < y ? x : y; return x != x ? x : less; }
INLINE REAL r_sigmoid(REAL x) { return IS_DOUBLE ? d_sigmoid(x) : f_sigmoid(x); }
