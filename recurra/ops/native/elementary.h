/* Elementary functions of one number: branchless, so that loops over units become vectors; inf and NaN as in libm. */
#include "common.h"

INLINE double d_sigmoid(double x) { return 1 / (1 + exp(-x)); }
INLINE float as_float(uint32_t i) { float f; memcpy(&f, &i, 4); return f; }
INLINE uint32_t as_bits(float f) { uint32_t i; memcpy(&i, &f, 4); return i; }

/* x = n log(2) + r, |r| <= log(2)/2.  Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits, where the
   exponent of 2^(n + add) is, too, when 127 + add was added with it. */
#define ROUNDED(x, add)                                                                                            \
    const float shifted = fmaf(x, 0x1.715476p+0f, 0x1.8p23f + (127 + (add))), n = shifted - (0x1.8p23f + (127 + (add)))
#define SPLIT(x, add)                                                                                              \
    ROUNDED(x, add);                                                                                               \
    const float r = fmaf(n, -0x1.7f7d1cp-20f, fmaf(n, -0x1.62e4p-1f, x))
#define POWER_OF_TWO as_float(as_bits(shifted) << 23)

INLINE float less_one(float r) { return fmaf(CURVE(r) * r, r, r); } /* e^r - 1 */
/* Where exponents end. NaN stays, written so, and the machine's own min and max do it; but of constants the compiler
   makes comparisons and choices, so it is not told that these are. */
__attribute__((visibility("hidden"))) float exp_most = 89, exp_least = -104, expm1_least = -20, erf_most = 4,
    sigmoid_least = -88, tanh_most = 20;
INLINE float f_exp(float x) {
    /* beyond these bounds the result rounds to inf and to 0 */
    x = exp_most < x ? exp_most : x;
    x = exp_least > x ? exp_least : x;
    SPLIT(x, -127);
    /* 2^n as a product of two, for results that no single power reaches: a choice between ways to scale would be made
       of both ways' results, and the one that is not taken may be a subnormal number, which costs a hundred cycles */
    const int32_t k = (int32_t)(as_bits(shifted) - 0x4b400000u), half = k >> 1;
    const float s = as_float((uint32_t)(half + 127) << 23), t = as_float((uint32_t)(k - half + 127) << 23);
    return fmaf(s, less_one(r), s) * t;
}
INLINE float f_expm1(float x) {
    x = exp_most < x ? exp_most : x;
    x = expm1_least > x ? expm1_least : x;
    SPLIT(x, -1);
    const float s = POWER_OF_TWO;
    return 2 * fmaf(s, less_one(r), s - 0.5f);
}
INLINE float f_sigmoid(float x) {
    /* never through e^-x for x < 0: it overflows where the result is still a number */
    float a = -fabsf(x);
    a = sigmoid_least > a ? sigmoid_least : a; /* there s is 0 */
    SPLIT(a, 0);
    const float s = POWER_OF_TWO, e = fmaf(s, less_one(r), s);
    return (x < 0 ? e : 1) / (1 + e);
}
INLINE float f_tanh(float x) {
    /* through e^2|x| - 1, so that small x keeps its relative accuracy and the sign is exact */
    float a = 2 * fabsf(x);
    a = tanh_most < a ? tanh_most : a;
    ROUNDED(a, 0); /* at most 29, which one step takes off */
    const float r = fmaf(n, -0x1.62e43p-1f, a), s = POWER_OF_TWO, m = fmaf(s, less_one(r), s - 1);
    return copysignf(m / (m + 2), x);
}
INLINE float log_near(float f, float n) { /* log(1 + f) + n log(2), of f from 1/sqrt(2) - 1 to sqrt(2) - 1 */
    const float s = f / (2 + f), z = s * s, h = 0.5f * f * f;
    const float r = z * fmaf(fmaf(fmaf(z, 0.233433655f, 0.285503373f), z, 0.400001262f), z, 0.666666665f);
    return fmaf(n, 0x1.62e4p-1f, f - (h - fmaf(s, h + r, n * 0x1.7f7d1cp-20f)));
}
INLINE float log_ends(float x, float l) {
    l = x == 0 ? -INFINITY : l;
    l = x < 0 ? NAN : l;
    return x < INFINITY ? l : x;
}
INLINE int32_t log_power(float x) { return (int32_t)(as_bits(x) - 0x3f3504f3u) >> 23; }
INLINE float f_log(float x) {
    const float y = x < 0x1p-126f ? x * 0x1p23f : x, shift = x < 0x1p-126f ? 23 : 0;
    const int32_t e = log_power(y);
    return log_ends(x, log_near(as_float(as_bits(y) - ((uint32_t)e << 23)) - 1, (float)e - shift));
}
INLINE float f_log1p(float x) {
    /* what 1 + x lost is added to its fraction, scaled as that is; beyond 2^127 it is nothing */
    const float u = 1 + x, lost = x - (u - 1);
    const int32_t e = log_power(u), scale = 127 - e > 0 ? 127 - e : 0;
    const float f = as_float(as_bits(u) - ((uint32_t)e << 23)) - 1;
    return log_ends(u, log_near(fmaf(lost, as_float((uint32_t)scale << 23), f), (float)e));
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
/* Within 1.5 ulp: x times a polynomial in its square near zero, else 1 - e^-q with q a polynomial, beyond 4 the same as
   there; both fitted so that the largest error is the least. */
INLINE float f_erf(float x) {
    const float a = fabsf(x), t = x * x, s = erf_most < a ? erf_most : a;
    float p = 0x1.6510c4p-14f, q = 0x1.8bf1c0p-21f;
    p = fmaf(p, t, -0x1.aca394p-11f), p = fmaf(p, t, 0x1.550a44p-8f), p = fmaf(p, t, -0x1.b81524p-6f);
    p = fmaf(p, t, 0x1.ce2e54p-4f), p = fmaf(p, t, -0x1.812744p-2f), p = fmaf(p, t, 0x1.06eba8p-3f);
    q = fmaf(q, s, 0x1.7b864cp-17f), q = fmaf(q, s, -0x1.8d3fb6p-12f), q = fmaf(q, s, 0x1.05c1b4p-8f);
    q = fmaf(q, s, -0x1.95e7bep-6f), q = fmaf(q, s, 0x1.b9c982p-4f), q = fmaf(q, s, 0x1.446f86p-1f);
    q = fmaf(q, s, 0x1.211f2ap+0f), q = fmaf(q, s, -0x1.3bdb4ep-13f);
    SPLIT(-q, 0);
    const float power = POWER_OF_TWO, far = 1 - fmaf(power, less_one(r), power);
    return a < 0.9f ? fmaf(x, p, x) : copysignf(far, x);
}
/* -0 is what adds nothing, to -0 either */
INLINE float f_sin(float x) { return sine(x, -0.0); }
INLINE float f_cos(float x) { return sine(x, 0x1.921fb54442d18p+0); }
#define OURS(name) INLINE REAL r_##name(REAL x) { return IS_DOUBLE ? (name)(x) : f_##name(x); }
#define LIBM(name, of) INLINE REAL r_##name(REAL x) { return IS_DOUBLE ? of(x) : of##f(x); }
OURS(exp) OURS(expm1) OURS(log) OURS(log1p) OURS(tanh) OURS(sin) OURS(cos) OURS(erf)
LIBM(sqrt, sqrt) LIBM(abs, fabs)
/* NaN passes through, as in torch. Two choices one after the other: one within the other is no vector to the compiler */
INLINE REAL r_maximum(REAL x, REAL y) { const REAL more = x > y ? x : y; return x != x ? x : more; }
INLINE REAL r_minimum(REAL x, REAL y) { const REAL less = x < y ? x : y; return x != x ? x : less; }
INLINE REAL r_sigmoid(REAL x) { return IS_DOUBLE ? d_sigmoid(x) : f_sigmoid(x); }
