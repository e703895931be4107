/* Products of a matrix and one vector, for recurrences whose rows go one by one. Widths are filled up to sixteens. */
#include "common.h"
#define EACH(i, n) _Pragma("omp simd") for (I i = 0; i < (n); i++)

/* y += x' A, of n rows */
INLINE void add_rows(REAL *y, const REAL *A, const REAL *x, I n, I wide) {
    I p = 0;
    for (; p + 8 * W <= wide; p += 8 * W) {
        vec s[8];
        for (int u = 0; u < 8; u++) s[u] = get(y + p + u * W);
        for (I i = 0; i < n; i++) for (int u = 0; u < 8; u++) s[u] += x[i] * get(A + i * wide + p + u * W);
        for (int u = 0; u < 8; u++) put(y + p + u * W, s[u]);
    }
    for (; p < wide; p += W) {
        vec s = get(y + p), t = {};
        I i = 0;
        for (; i + 1 < n; i += 2) s += x[i] * get(A + i * wide + p), t += x[i + 1] * get(A + (i + 1) * wide + p);
        if (i < n) s += x[i] * get(A + i * wide + p);
        put(y + p, s + t);
    }
}
INLINE REAL dot(const REAL *x, const REAL *y, I n) {
    vec s = {};
    for (I p = 0; p < n; p += W) s += get(x + p) * get(y + p);
    return sum1(s);
}
/* y += A x, of n rows, both of sixteens */
INLINE void add_dots(REAL *y, const REAL *A, const REAL *x, I n, I wide) {
    for (I i = 0; i < n; i += W) {
        vec s[W];
        for (int k = 0; k < W; k++) s[k] = (vec){};
        for (I p = 0; p < wide; p += W) {
            const vec b = get(x + p);
            for (int k = 0; k < W; k++) s[k] += b * get(A + (i + k) * wide + p);
        }
        put(y + i, get(y + i) + sums16(s));
    }
}

/* a pass over every row, those of a batch at once on threads, each with room for so many numbers of its own */
#define EVERY_ROW(pass, f, work, size) do { \
    const I threads = enough(work, (f)->z.threads); \
    I failed = 0; \
    _Pragma("omp parallel num_threads(threads)") \
    { \
        unsigned old = flush_on(); \
        REAL *room = aligned_alloc(64, sizeof(REAL) * up(size)); \
        if (!room) failed = 1; \
        _Pragma("omp for schedule(dynamic)") \
        for (I b = 0; b < (f)->z.batch; b++) if (room) pass(f, b, room); \
        free(room); \
        flush_off(old); \
    } \
    return failed; \
} while (0)
