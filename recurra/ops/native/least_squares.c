/* least_squares:  x_t = (G_t + diag(ridge))^{-1} q_t,   G_t = e^{g_t} G_{t-1} + w_t k_t k_t'
 *
 * By Cholesky factors, of sixteen steps at once: a vec runs along time, so a factor's thousands of dependent numbers are
 * sixteen independent ones each, and none of its lanes idles. Only lower triangles are kept, row after row: those of
 * 32 keys take 34 KiB. */
#include "chunk.h"
#define ROW(i) ((i) * ((i) + 1) / 2)

typedef struct { Typed q, k, w, g; const uint8_t *reset; const REAL *first, *ridge; I B, T, H, K, gw; REAL *x; I threads; } Solve;
/* G: one number for each of a triangle. L: a vec for each, and after them q; k and written: a vec for each key; rows: of
 * steps. */
typedef struct { I lk; REAL *G, *L, *k, *written, *rows; } Room;

/* what each lane's number is some steps later; nothing came before the first */
INLINE vec later1(vec x) { return PICK((vec){}, x, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30); }
INLINE vec later2(vec x) { return PICK((vec){}, x, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29); }
INLINE vec later4(vec x) { return PICK((vec){}, x, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27); }
INLINE vec later8(vec x) { return PICK((vec){}, x, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23); }

/* every step's G, from that before them; G becomes the last one's, which those that are none leave as it is */
static void grams(const Room *r, vec d, const REAL *ridge, I K) {
    const vec d2 = d * later1(d), d4 = d2 * later2(d2), d8 = d4 * later4(d4);
    vec whole = d;
    REAL *from = (REAL *)&whole;
    for (I i = 1; i < W; i++) from[i] *= from[i - 1];
    for (I i = 0; i < K; i++) {
        const vec w = get(r->written + i * W);
        for (I j = 0; j <= i; j++) {
            vec x = w * get(r->k + j * W);
            x += d * later1(x), x += d2 * later2(x), x += d4 * later4(x), x += d8 * later8(x);
            x += whole * r->G[ROW(i) + j];
            r->G[ROW(i) + j] = x[W - 1];
            put(r->L + (ROW(i) + j) * W, i == j ? x + ridge[i] : x);
        }
    }
}
INLINE vec over_root(vec x) {
    vec y;
    for (int i = 0; i < W; i++) y[i] = IS_DOUBLE ? sqrt(x[i]) : sqrtf(x[i]);
    return 1 / y;
}
#define EVERY(i, n) _Pragma("GCC unroll 4") for (int i = 0; i < n; i++)
/* The factor's rows and columns from j on, C of each, less the products of earlier columns; 1 / L_ii on the diagonal. And
 * R rows below, from i on. Loops end at constants, or what they fill would lie in memory. */
#define CORNER(C) \
static void corner_##C(REAL *L, I j) { \
    REAL *rows[C]; \
    vec x[C][C], z[C]; \
    EVERY(u, C) rows[u] = L + ROW(j + u) * W; \
    EVERY(u, C) EVERY(c, C) if (c <= u) x[u][c] = get(rows[u] + (j + c) * W); \
    for (I k = 0; k < j; k++) { \
        EVERY(u, C) z[u] = get(rows[u] + k * W); \
        EVERY(u, C) EVERY(c, C) if (c <= u) x[u][c] -= z[u] * z[c]; } \
    EVERY(c, C) { \
        x[c][c] = over_root(x[c][c]); \
        EVERY(u, C) if (u > c) x[u][c] *= x[c][c]; \
        EVERY(u, C) EVERY(d, C) if (c < d && d <= u) x[u][d] -= x[u][c] * x[d][c]; } \
    EVERY(u, C) EVERY(c, C) if (c <= u) put(rows[u] + (j + c) * W, x[u][c]); }
#define BELOW(R, C) \
static void below_##R##x##C(REAL *L, I i, I j) { \
    REAL *rows[R]; \
    const REAL *ends[C]; \
    vec x[R][C], y[C]; \
    EVERY(c, C) ends[c] = L + ROW(j + c) * W; \
    EVERY(u, R) rows[u] = L + ROW(i + u) * W; \
    EVERY(u, R) EVERY(c, C) x[u][c] = get(rows[u] + (j + c) * W); \
    for (I k = 0; k < j; k++) { \
        EVERY(c, C) y[c] = get(ends[c] + k * W); \
        EVERY(u, R) { const vec z = get(rows[u] + k * W); EVERY(c, C) x[u][c] -= z * y[c]; } } \
    EVERY(c, C) { \
        EVERY(b, C) if (b < c) { const vec z = get(ends[c] + (j + b) * W); EVERY(u, R) x[u][c] -= x[u][b] * z; } \
        const vec z = get(ends[c] + (j + c) * W); \
        EVERY(u, R) x[u][c] *= z; } \
    EVERY(u, R) EVERY(c, C) put(rows[u] + (j + c) * W, x[u][c]); }
#define PANEL(C) CORNER(C) BELOW(4, C) BELOW(1, C) \
static void panel_##C(REAL *L, I K, I j) { \
    I i = j + C; \
    corner_##C(L, j); \
    for (; i + 4 <= K + 1; i += 4) below_4x##C(L, i, j); \
    for (; i <= K; i++) below_1x##C(L, i, j); }
PANEL(4) PANEL(1)
/* G = L L', with 1 / L_ii where L_ii would stand; q, the row after the last, is solved for on the way down, and then
 * x = L'^{-1} L^{-1} q in its place on the way up. Four columns at a time: what a row has of earlier ones is read once
 * for all of them, for it does not always lie in the nearest cache. */
static void solved(REAL *L, I K) {
    REAL *x = L + ROW(K) * W;
    I j = 0;
    for (; j + 4 <= K; j += 4) panel_4(L, K, j);
    for (; j < K; j++) panel_1(L, K, j);
    for (I i = K - 1; i >= 0; i--) {
        const REAL *row = L + ROW(i) * W;
        const vec y = get(x + i * W) * get(row + i * W);
        put(x + i * W, y);
        for (I k = 0; k < i; k++) put(x + k * W, get(x + k * W) - get(row + k * W) * y);
    }
}
static void head(const Solve *f, const Room *r, I b, I h) {
    const I K = f->K, lk = r->lk;
    REAL *q = r->L + ROW(K) * W;
    const Shape z = {.reset = f->reset, .B = f->B, .T = f->T, .H = f->H, .K = K};
    Piece c = {.b = b, .h = h};
    for (I i = 0; i < K; i++) for (I j = 0; j <= i; j++) r->G[ROW(i) + j] = f->first[((b * f->H + h) * K + i) * K + j];
    for (; c.t < f->T; c.t += c.n) {
        c.n = end_of(&z, b, c.t, CHUNK) - c.t;
        const At w = rows_of(f->w, c), g = rows_of(f->g, c);
        REAL weights[W] = {}, decays[W];
        for (I i = 0; i < W; i++) decays[i] = f->gw && i < c.n ? number(g, i) : 0;
        for (I i = 0; i < c.n; i++) weights[i] = number(w, i);
        if (fresh(&z, b, c.t)) memset(r->G, 0, ROW(K) * sizeof(REAL));
        pack(r->rows, lk, rows_of(f->k, c), c.n, CHUNK, K, CHUNK), columns(r->k, r->rows, lk, lk);
        pack(r->rows, lk, rows_of(f->q, c), c.n, CHUNK, K, CHUNK), columns(q, r->rows, lk, lk);
        for (I i = 0; i < K; i++) put(r->written + i * W, get(weights) * get(r->k + i * W));
        grams(r, exps(get(decays)), f->ridge + h * K, K);
        solved(r->L, K);
        for (I i = 0; i < lk; i += W) transpose16(r->rows + i, lk, q + i * W, W);
        unpack(dense(f->x, WIDE, &z, c, K), r->rows, lk, c.n, K);
    }
}
I least_squares_solve(const Solve *f, I fields) {
    CHECK(f, fields)
    const I K = f->K, heads = f->B * f->H;
    I failed = 0;
    #pragma omp parallel num_threads(enough(heads * f->T * K * K * K / 8, f->threads))
    {
        unsigned old = flush_on();
        Room own = {.lk = up(K)};
        Arena a = {0};
        for (int round = 0; round < 2; round++) {
            if (round) allot(&a);
            own.G = take(&a, ROW(K)), own.L = take(&a, (ROW(K) + own.lk + 2) * W);
            own.k = take(&a, own.lk * W), own.written = take(&a, own.lk * W);
            own.rows = take(&a, CHUNK * own.lk);
        }
        if (!a.base) failed = 1;
        #pragma omp for schedule(dynamic)
        for (I task = 0; task < heads; task++) if (a.base) head(f, &own, task / f->H, task % f->H);
        free(a.base);
        flush_off(old);
    }
    return failed;
}

/* What is written to G and S side by side: z = [k, v], by keys y = w k; and back. Copies, of rows that lie anywhere. */
typedef struct { Rows k, v, w; I B, T, H, K, V; REAL *y, *z; I threads; } Sides;
typedef struct { Rows k, w; I B, T, H, K, V; const REAL *gy, *gz; REAL *gk, *gv, *gw; I threads; } SidesBack;
#define EACH_STEP(f) \
    const I K = f->K, V = f->V, H = f->H; \
    _Pragma("omp parallel for num_threads(enough(f->B * f->T * H * (K + V), f->threads))") \
    for (I step = 0; step < f->B * f->T; step++) for (I h = 0, n = step * H, b = step / f->T, t = step % f->T; h < H; h++, n++)
I least_squares_sides(const Sides *f, I fields) {
    CHECK(f, fields)
    EACH_STEP(f) {
        const REAL *k = row(f->k, b, t, h), *v = row(f->v, b, t, h), w = *row(f->w, b, t, h);
        REAL *y = f->y + n * K, *z = f->z + n * (K + V);
        for (I c = 0; c < K; c += W) {
            const vec x = get_some(k + c, K - c);
            put_some(y + c, w * x, K - c), put_some(z + c, x, K - c);
        }
        for (I c = 0; c < V; c += W) put_some(z + K + c, get_some(v + c, V - c), V - c);
    }
    return 0;
}
I least_squares_sides_back(const SidesBack *f, I fields) {
    CHECK(f, fields)
    EACH_STEP(f) {
        const REAL *k = row(f->k, b, t, h), w = *row(f->w, b, t, h), *gy = f->gy + n * K, *gz = f->gz + n * (K + V);
        vec sum = {};
        for (I c = 0; c < K; c += W) {
            const vec g = get_some(gy + c, K - c);
            sum += g * get_some(k + c, K - c);
            put_some(f->gk + n * K + c, w * g + get_some(gz + c, K - c), K - c);
        }
        for (I c = 0; c < V; c += W) put_some(f->gv + n * V + c, get_some(gz + K + c, V - c), V - c);
        f->gw[n] = sum1(sum);
    }
    return 0;
}
