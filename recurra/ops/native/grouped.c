/* grouped:  y_h = W_h x_h for each of H groups of K features, in every row.
 *
 * Rows go through sixteen at a time, and each group's from where they lie to where they belong. Groups of fewer features
 * than a vector has numbers go together, with zeros between them: zeros cost less than what a vector is not filled with.
 * Those that still fill none are copied to where zeros follow them. The gradient of W is a sum over rows: of pieces, whose
 * number depends on nothing but rows, added in order, so that no number depends on who computes it. */
#include "common.h"
#define ROWS W
#define PIECES 16

/* `together` groups are a tile, of `n` features, `wide` with zeros */
typedef struct { I rows, H, K, threads; } Sizes;
typedef struct { I together, wide, tiles; } Tiling;
static Tiling tiling(const Sizes *s) {
    const I most = s->K < W ? W / s->K : 1, together = most < s->H ? most : s->H;
    return (Tiling){together, up(together * s->K), (s->H + together - 1) / together};
}
INLINE I features(const Sizes *s, Tiling t, I tile) {
    const I left = s->H - tile * t.together;
    return (left < t.together ? left : t.together) * s->K;
}
/* the matrices of all tiles, or `turned` */
static void spread(REAL *to, const REAL *w, const Sizes *s, Tiling t, int turned) {
    memset(to, 0, t.tiles * t.wide * t.wide * sizeof(REAL));
    for (I h = 0; h < s->H; h++) {
        const I at = h % t.together * s->K;
        REAL *tile = to + h / t.together * t.wide * t.wide + at * t.wide + at;
        for (I i = 0; i < s->K; i++) for (I j = 0; j < s->K; j++) tile[turned ? j * t.wide + i : i * t.wide + j] = *w++;
    }
}
/* rows of n features, and the way from one to the next */
typedef struct { const REAL *x; I stride; } Lines;
/* m rows as products take them: where they lie or, ragged, in `room`. What comes next is asked for meanwhile. */
INLINE Lines lines(const REAL *x, I stride, I m, I n, I wide, REAL *room) {
    for (I r = 0; r < m; r++) for (I c = 0; c < n; c += W) __builtin_prefetch(x + (r + ROWS) * stride + c, 0, 2);
    if (n == wide) return (Lines){x, stride};
    for (I r = 0; r < m; r++) for (I c = 0; c < wide; c += W) put(room + r * wide + c, get_some(x + r * stride + c, n - c));
    return (Lines){room, wide};
}
/* y = x w, of m rows */
INLINE void multiply(REAL *y, I stride, Lines x, const REAL *w, I m, I n, I wide, REAL *room) {
    REAL *to = n == wide ? y : room;
    const I lc = n == wide ? stride : wide;
    product(to, lc, 0, 0, x.x, x.stride, 1, w, wide, m, n, wide / W);
    for (I r = 0; to == room && r < m; r++) for (I c = 0; c < n; c += W) put_some(y + r * stride + c, get(room + r * wide + c), n - c);
}

typedef struct { const REAL *x; I x_row; const REAL *w; REAL *y; Sizes s; } Forward;
I grouped_forward(const Forward *f, I fields) {
    CHECK(f, fields)
    const Sizes *s = &f->s;
    const Tiling t = tiling(s);
    const I width = s->H * s->K, square = t.wide * t.wide, blocks = (s->rows + ROWS - 1) / ROWS;
    REAL *w = aligned_alloc(64, (t.tiles * square * sizeof(REAL) + 63) / 64 * 64);
    if (!w) return 1;
    spread(w, f->w, s, t, 1);
    I failed = 0;
    #pragma omp parallel num_threads(enough(s->rows * width, s->threads))
    {
        const unsigned old = flush_on();
        REAL *room = aligned_alloc(64, 2 * ROWS * t.wide * sizeof(REAL));
        if (!room) failed = 1;
        #pragma omp for schedule(static)
        for (I b = 0; b < blocks; b++) for (I i = 0; room && i < t.tiles; i++) {
            const I r = b * ROWS, m = s->rows - r < ROWS ? s->rows - r : ROWS, n = features(s, t, i), at = i * t.together * s->K;
            const Lines x = lines(f->x + r * f->x_row + at, f->x_row, m, n, t.wide, room);
            multiply(f->y + r * width + at, width, x, w + i * square, m, n, t.wide, room + ROWS * t.wide);
        }
        free(room);
        flush_off(old);
    }
    free(w);
    return failed;
}

/* A few rows of two x, each through two W of its own, side by side: every W is read where it lies. */
typedef struct { REAL *y; I rows, H, K; const REAL *x[2], *w[4]; } Short;
/* sixteen features of what comes out, or `n` */
INLINE void sixteen(const int whole, REAL *y, const REAL *x, const REAL *w, I u, I n, I K) {
    vec sums[W];
    _Pragma("GCC unroll 16") for (int j = 0; j < W; j++) sums[j] = (vec){};
    for (I k = 0; k < K; k += W)
        _Pragma("GCC unroll 16") for (int j = 0; j < W; j++) {
            const REAL *from = x + (whole ? u : u + j) / K * K + k, *by = w + (u + j) * K + k;
            if (whole) sums[j] += get(from) * get(by);
            else if (j < n) sums[j] += get_some(from, K - k) * get_some(by, K - k);
        }
    put_some(y + u, sums16(sums), n);
}
I grouped_short(const Short *s, I fields) {
    CHECK(s, fields)
    const I K = s->K, width = s->H * K;
    const unsigned old = flush_on();
    for (I r = 0; r < s->rows; r++) for (I i = 0; i < 4; i++) {
        const REAL *x = s->x[i / 2] + r * width;
        REAL *y = s->y + (r * 4 + i) * width;
        for (I u = 0; u < width; u += W)
            if (K % W) sixteen(0, y, x, s->w[i], u, width - u < W ? width - u : W, K);
            else sixteen(1, y, x, s->w[i], u, W, K);
    }
    flush_off(old);
    return 0;
}

/* The gradients, NULL where one is not wanted. Without dx W is not looked at, and dw is added to what there is. */
typedef struct { const REAL *x; I x_row; const REAL *w, *g; I g_row; REAL *dx, *dw; Sizes s; } Backward;
/* the rows from `r` on, of which `sums` gets what they add to the gradient of W; room: of three tiles of rows and a W */
static void back(const Backward *f, Tiling t, const REAL *w, I r, I m, REAL *sums, REAL *room) {
    const Sizes *s = &f->s;
    const I width = s->H * s->K, wide = t.wide, square = wide * wide;
    REAL *dw = room + 3 * ROWS * wide;
    for (I i = 0; i < t.tiles; i++) {
        const I n = features(s, t, i), at = i * t.together * s->K;
        const Lines x = lines(f->x + r * f->x_row + at, f->x_row, m, n, wide, room);
        const Lines g = lines(f->g + r * f->g_row + at, f->g_row, m, n, wide, room + ROWS * wide);
        if (f->dx) multiply(f->dx + r * width + at, width, g, w + i * square, m, n, wide, room + 2 * ROWS * wide);
        if (!f->dw) continue;
        product(dw, wide, 0, 0, g.x, 1, g.stride, x.x, x.stride, n, m, wide / W);
        for (I k = 0; k < n * wide; k += W) put(sums + i * square + k, get(sums + i * square + k) + get(dw + k));
    }
}
I grouped_backward(const Backward *f, I fields) {
    CHECK(f, fields)
    const Sizes *s = &f->s;
    const Tiling t = tiling(s);
    const I wide = t.wide, all_tiles = t.tiles * wide * wide, blocks = (s->rows + ROWS - 1) / ROWS;
    const I each = ((blocks + PIECES - 1) / PIECES) * ROWS, pieces = (s->rows + each - 1) / each;
    REAL *w = aligned_alloc(64, ((1 + pieces) * all_tiles * sizeof(REAL) + 63) / 64 * 64), *sums = w + all_tiles;
    if (!w) return 1;
    if (f->dx) spread(w, f->w, s, t, 0);
    memset(sums, 0, pieces * all_tiles * sizeof(REAL));
    I failed = 0;
    #pragma omp parallel num_threads(enough(s->rows * s->H * s->K, s->threads))
    {
        const unsigned old = flush_on();
        REAL *room = aligned_alloc(64, (3 * ROWS + wide) * wide * sizeof(REAL));
        if (!room) failed = 1;
        #pragma omp for schedule(dynamic)
        for (I p = 0; p < pieces; p++)
            for (I r = p * each; room && r < (p + 1) * each && r < s->rows; r += ROWS)
                back(f, t, w, r, s->rows - r < ROWS ? s->rows - r : ROWS, sums + p * all_tiles, room);
        free(room);
        flush_off(old);
    }
    REAL *dw = f->dw;
    for (I h = 0; dw && h < s->H; h++) {
        const I at = h % t.together * s->K;
        const REAL *tile = sums + h / t.together * wide * wide + at * wide + at;
        for (I i = 0; i < s->K; i++) for (I j = 0; j < s->K; j++, dw++) {
            if (f->dx) *dw = 0;
            for (I p = 0; p < pieces; p++) *dw += tile[p * all_tiles + i * wide + j];
        }
    }
    free(w);
    return failed;
}
