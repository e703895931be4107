/* The product R h, inside the loop of a cell.  A long sequence packs R once, in panels: for a block of units all gates
 * side by side, k streaming; a tile of rows by vectors stays in registers.  A short one reads R (and W) where they lie,
 * row by row: packing would cost more than it saves.  Above this text stands GATES (0: R is no product). */

/* ---- the product in panels ---- */

#if defined(__AVX512F__)
enum { BYTES = 64, REGISTERS = 24 };
#elif defined(__AVX__)
enum { BYTES = 32, REGISTERS = 12 };
#else
enum { BYTES = 16, REGISTERS = 24 };
#endif
typedef REAL lane __attribute__((vector_size(BYTES), aligned(sizeof(REAL)))); /* one register */
enum { VL = BYTES / sizeof(REAL) };
#define EVERY _Pragma("GCC unroll 16")

INLINE I least_of(I a, I b) { return a < b ? a : b; }
INLINE I ceil_of(I a, I b) { return (a + b - 1) / b; }

/* A panel is NV registers wide, k streaming: few registers by many rows, since a core's second cache hands over a
   column of R no faster than some rows can use it.  out[m][...] = sum_k x[m][k] w[k][...]: M rows by P panels, held in
   registers.  Few rows take several panels at once: a sum waits for itself.  k runs over `segments` pieces of `length`,
   `gap` apart: one piece forward, one for each gate backward. */
enum { NV = 2, UNITS = NV * VL, SUMS = REGISTERS < 16 ? REGISTERS : 16, ROWS = SUMS / NV };
#define OPERANDS                                                                                                   \
    I segments, I length, I gap, const REAL *x, I x_row, const REAL *restrict w, REAL *const *out, I out_row
INLINE void tile(const int M, const int P, OPERANDS) {
    lane sum[SUMS], column[4 * NV];
    const int N = P * NV;
    const I panel = segments * length * UNITS;
    EVERY for (int i = 0; i < M * N; i++) sum[i] = (lane){0};
    for (I s = 0; s < segments; s++, x += gap)
        for (I k = 0; k < length; k++, w += UNITS) {
            EVERY for (int v = 0; v < N; v++) column[v] = *(const lane *)(w + v / NV * panel + v % NV * VL);
            EVERY for (int i = 0; i < M * N; i++) sum[i] += x[i / N * x_row + k] * column[i % N];
        }
    EVERY for (int i = 0; i < M * N; i++) *(lane *)(out[i % N / NV] + i / N * out_row + i % NV * VL) = sum[i];
}
/* as many sums as stay in registers: a tile of more is never asked for, and takes time to compile */
#define TILE_OF(M, P)                                                                                              \
    case M * 8 + P:                                                                                                \
        if (M * P * NV <= SUMS) tile(M, P, segments, length, gap, x, x_row, w, out, out_row);                      \
        break;
static void tile_of(int m, int panels, OPERANDS) {
    switch (m * 8 + panels) {
        TILE_OF(1, 1) TILE_OF(2, 1) TILE_OF(3, 1) TILE_OF(4, 1) TILE_OF(5, 1) TILE_OF(6, 1) TILE_OF(7, 1) TILE_OF(8, 1)
        TILE_OF(2, 2) TILE_OF(3, 2) TILE_OF(4, 2) TILE_OF(1, 4) TILE_OF(2, 4)
    }
}

/* ---- the product where the weight lies: out[m][r] = x[m] . w[r], four rows by four, vectors along k ---- */

INLINE void dots(I K, const REAL *x, I x_row, const REAL *w, I w_row, REAL *out, I out_row) {
    vec sum[W];
    EVERY for (int i = 0; i < W; i++) sum[i] = (vec){};
    I k = 0;
    for (; k + W <= K; k += W)
        EVERY for (int r = 0; r < 4; r++) {
            const vec row = get(w + r * w_row + k);
            EVERY for (int m = 0; m < 4; m++) sum[m * 4 + r] += row * get(x + m * x_row + k);
        }
    const vec total = sums16(sum);
    for (int m = 0; m < 4; m++)
        for (int r = 0; r < 4; r++) {
            REAL rest = total[m * 4 + r];
            for (I j = k; j < K; j++) rest += w[r * w_row + j] * x[m * x_row + j];
            out[m * out_row + r] = rest;
        }
}
/* all rows of x against rows [r0, r1) of w; sixteen rows of w stay in the first cache while x goes by */
static void multiply(I M, I K, const REAL *x, I x_row, const REAL *w, I w_row, I r0, I r1, REAL *out, I out_row) {
    for (I r = r0; r < r1; r += W)
        for (I m = 0, rows; m < M; m += rows) {
            const I n = least_of(W, r1 - r);
            rows = n == W && M - m >= 4 ? 4 : 1;
            const REAL *a = x + m * x_row, *b = w + r * w_row;
            REAL *to = out + m * out_row + r;
            if (rows == 4) for (I i = 0; i < W; i += 4) dots(K, a, x_row, b + i * w_row, w_row, to + i, out_row);
            else lying(to, a, b, 0, n, K, w_row);
        }
}

#if GATES
/* what the panels of R take, forward as backward */
INLINE I panels_of(I heads, I d) { return heads * ceil_of(d, UNITS) * GATES * d * UNITS; }

/* `count` rows of w, K long, as the columns of a panel */
static void pack_panel(I count, I K, const REAL *from, REAL *to) {
    for (I k0 = 0; k0 < K; k0 += W)
        for (I u0 = 0; u0 < UNITS; u0 += W)
            if (UNITS % W == 0 && k0 + W <= K && u0 + W <= count)
                transpose16(to + k0 * UNITS + u0, UNITS, from + u0 * K + k0, K);
            else
                for (I u = u0; u < least_of(u0 + W, UNITS); u++)
                    for (I k = k0; k < least_of(k0 + W, K); k++) to[k * UNITS + u] = u < count ? from[u * K + k] : 0;
}
/* R is w[gate][head][to][from].  Panels follow the order in which a product reads them, padded with zeros. */
static void pack_forward(I heads, I d, const REAL *w, REAL *out, I threads) {
    const I groups = ceil_of(d, UNITS);
#pragma omp parallel for collapse(2) num_threads(threads) if (heads * d * d * GATES > 1000000)
    for (I h = 0; h < heads; h++)
        for (I p = 0; p < groups; p++)
            for (I g = 0; g < GATES; g++)
                pack_panel(least_of(UNITS, d - p * UNITS), d, w + ((g * heads + h) * d + p * UNITS) * d,
                           out + ((h * groups + p) * GATES + g) * d * UNITS);
}
static void pack_backward(I heads, I d, const REAL *w, REAL *out, I threads) {
    const I groups = ceil_of(d, UNITS);
#pragma omp parallel for collapse(2) num_threads(threads) if (heads * d * d * GATES > 1000000)
    for (I h = 0; h < heads; h++)
        for (I p = 0; p < groups; p++)
            for (I k = 0; k < GATES * d; k++) {
                const REAL *from = w + ((k / d * heads + h) * d + k % d) * d + p * UNITS;
                REAL *to = out + ((h * groups + p) * GATES * d + k) * UNITS;
                for (I u = 0; u < UNITS; u++) to[u] = p * UNITS + u < d ? from[u] : 0;
            }
}

/* z[row][gate][unit] for the rows [0, m) and the groups of units [p0, p1), as many panels each as there are gates to
   come out.  A panel's padding is overwritten by the next. */
static void multiply_panels(I m, I p0, I p1, I gates, I segments, I d, I gap, const REAL *x, I x_row, const REAL *w,
                            REAL *z, I Z) {
    const I groups = ceil_of(d, UNITS), tiles = ceil_of(m, ROWS), most = ceil_of(m, tiles) * NV;
    const I several = most * 4 <= SUMS ? 4 : most * 2 <= SUMS ? 2 : 1;
    for (I p = p0, head; p < p1; p = (head + 1) * groups) {
        head = p / groups;
        const I end = least_of(p1, (head + 1) * groups) * gates;
        for (I j = p * gates, n; j < end; j += n) {
            n = end - j < several ? 1 : several;
            for (I i = 0; i < tiles; i++) {
                const I a = m * i / tiles, b = m * (i + 1) / tiles;
                REAL *out[4];
                for (I q = 0; q < n; q++) {
                    const I unit = head * d + ((j + q) / gates - head * groups) * UNITS;
                    out[q] = z + (a * gates + (j + q) % gates) * Z + unit;
                }
                tile_of(b - a, n, segments, d, gap, x + a * x_row + head * d, x_row, w + j * segments * d * UNITS, out,
                        gates * Z);
            }
        }
    }
}
static void multiply_forward(I m, I p0, I p1, I heads, I d, const REAL *x, I x_row, const REAL *w, REAL *z, I Z) {
    multiply_panels(m, p0, p1, GATES, 1, d, 0, x, x_row, w, z, Z);
}
static void multiply_backward(I m, I p0, I p1, I heads, I d, const REAL *x, I x_row, const REAL *w, REAL *z, I Z) {
    multiply_panels(m, p0, p1, 1, GATES, d, heads * d, x, x_row, w, z, Z);
}
/* the same from R where it lies, for the units [u0, u1) */
static void multiply_lying(I m, I u0, I u1, I heads, I d, const REAL *x, I x_row, const REAL *w, REAL *z, I Z) {
    for (I g = 0; g < GATES; g++)
        for (I h = u0 / d; h < heads && h * d < u1; h++) {
            const I from = u0 > h * d ? u0 - h * d : 0, to = least_of(u1 - h * d, d);
            multiply(m, d, x + h * d, x_row, w + (g * heads + h) * d * d, d, from, to, z + g * Z + h * d, GATES * Z);
        }
}
#endif
