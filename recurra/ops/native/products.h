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

/* out[m][gate][...] = sum_k x[m][k] w[k][...]: M rows by NV registers, held while k streams.  k runs over `segments`
   pieces of `length`, `gap` apart: one piece forward, one for each gate backward. */
#define OPERANDS                                                                                                   \
    I segments, I length, I gap, const REAL *x, I x_row, const REAL *restrict w, REAL *out, I out_row, I out_gate
INLINE void tile(const int M, const int NV, const int per_gate, OPERANDS) {
    lane sum[M][NV];
    EVERY for (int m = 0; m < M; m++) EVERY for (int v = 0; v < NV; v++) sum[m][v] = (lane){0};
    for (I s = 0; s < segments; s++, x += gap)
        for (I k = 0; k < length; k++, w += NV * VL)
            EVERY for (int v = 0; v < NV; v++) {
                const lane column = *(const lane *)(w + v * VL);
                EVERY for (int m = 0; m < M; m++) sum[m][v] += x[m * x_row + k] * column;
            }
    EVERY for (int m = 0; m < M; m++) EVERY for (int v = 0; v < NV; v++)
        *(lane *)(out + m * out_row + (v / per_gate) * out_gate + (v % per_gate) * VL) = sum[m][v];
}
/* as many rows as stay in registers: a tile of more is never asked for, and takes time to compile */
#define ROWS_OF(M, MOST, NV, PER)                                                                                  \
    case M:                                                                                                        \
        if (M <= MOST) tile(M, NV, PER, segments, length, gap, x, x_row, w, out, out_row, out_gate);               \
        break;

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
enum {
    FV = GATES >= 3 ? 1 : 4 / GATES,    /* registers of each gate in a forward panel */
    FN = FV * GATES, FU = FV * VL,      /* registers in the panel; units it covers */
    FM = FN > REGISTERS ? 1 : REGISTERS / FN > 8 ? 8 : REGISTERS / FN,
    BN = 4, BU = BN * VL, BM = REGISTERS / BN,
};
static void tile_forward(int m, OPERANDS) {
    switch (m) {
        ROWS_OF(1, FM, FN, FV) ROWS_OF(2, FM, FN, FV) ROWS_OF(3, FM, FN, FV) ROWS_OF(4, FM, FN, FV)
        ROWS_OF(5, FM, FN, FV) ROWS_OF(6, FM, FN, FV) ROWS_OF(7, FM, FN, FV) ROWS_OF(8, FM, FN, FV)
    }
}
static void tile_backward(int m, OPERANDS) {
    switch (m) {
        ROWS_OF(1, BM, BN, BN) ROWS_OF(2, BM, BN, BN) ROWS_OF(3, BM, BN, BN) ROWS_OF(4, BM, BN, BN)
        ROWS_OF(5, BM, BN, BN) ROWS_OF(6, BM, BN, BN)
    }
}

/* what the panels of one R take */
INLINE I forward_panels(I heads, I d) { return heads * ceil_of(d, FU) * d * FN * VL; }
INLINE I backward_panels(I heads, I d) { return heads * ceil_of(d, BU) * GATES * d * BU; }

/* `count` rows of w, K long, as `wide` columns of a panel */
static void pack_panel(I count, I wide, I K, I gap, const REAL *from, REAL *to) {
    for (I k0 = 0; k0 < K; k0 += 16)
        for (I u = 0; u < wide; u++)
            for (I k = k0; k < least_of(k0 + 16, K); k++) to[k * gap + u] = u < count ? from[u * K + k] : 0;
}
/* R is w[gate][head][to][from].  Panels follow the order in which a product reads them, padded with zeros. */
static void pack_forward(I heads, I d, const REAL *w, REAL *out, I threads) {
    const I panels = ceil_of(d, FU);
#pragma omp parallel for collapse(2) num_threads(threads) if (heads * d * d * GATES > 1000000)
    for (I h = 0; h < heads; h++)
        for (I p = 0; p < panels; p++)
            for (I g = 0; g < GATES; g++)
                pack_panel(least_of(FU, d - p * FU), FU, d, FN * VL, w + ((g * heads + h) * d + p * FU) * d,
                           out + (h * panels + p) * d * FN * VL + g * FU);
}
static void pack_backward(I heads, I d, const REAL *w, REAL *out, I threads) {
    const I panels = ceil_of(d, BU);
#pragma omp parallel for collapse(2) num_threads(threads) if (heads * d * d * GATES > 1000000)
    for (I h = 0; h < heads; h++)
        for (I p = 0; p < panels; p++)
            for (I k = 0; k < GATES * d; k++) {
                const REAL *from = w + ((k / d * heads + h) * d + k % d) * d + p * BU;
                REAL *to = out + ((h * panels + p) * GATES * d + k) * BU;
                for (I u = 0; u < BU; u++) to[u] = p * BU + u < d ? from[u] : 0;
            }
}

/* z[row][gate][unit] for the rows [0, m) and the panels [p0, p1).  A panel's padding is overwritten by the next. */
static void multiply_forward(I m, I p0, I p1, I heads, I d, const REAL *x, I x_row, const REAL *w, REAL *z, I Z) {
    const I panels = ceil_of(d, FU), tiles = ceil_of(m, FM);
    for (I p = p0; p < p1; p++) {
        const I head = p / panels, unit = head * d + p % panels * FU;
        for (I i = 0; i < tiles; i++) {
            const I a = m * i / tiles, b = m * (i + 1) / tiles;
            tile_forward(b - a, 1, d, 0, x + a * x_row + head * d, x_row, w + p * d * FN * VL,
                         z + a * GATES * Z + unit, GATES * Z, Z);
        }
    }
}
static void multiply_backward(I m, I p0, I p1, I heads, I d, const REAL *x, I x_row, const REAL *w, REAL *z, I Z) {
    const I panels = ceil_of(d, BU), tiles = ceil_of(m, BM);
    for (I p = p0; p < p1; p++) {
        const I head = p / panels, unit = head * d + p % panels * BU;
        for (I i = 0; i < tiles; i++) {
            const I a = m * i / tiles, b = m * (i + 1) / tiles;
            tile_backward(b - a, GATES, d, heads * d, x + a * x_row + head * d, x_row, w + p * GATES * d * BU,
                          z + a * Z + unit, Z, 0);
        }
    }
}
/* the same from R where it lies, for the units [u0, u1) */
static void multiply_lying(I m, I u0, I u1, I heads, I d, const REAL *x, I x_row, const REAL *w, REAL *z, I Z) {
    for (I g = 0; g < GATES; g++)
        for (I h = u0 / d; h < heads && h * d < u1; h++) {
            const I from = u0 > h * d ? u0 - h * d : 0, to = least_of(u1 - h * d, d);
            multiply(m, d, x + h * d, x_row, w + (g * heads + h) * d * d, d, from, to, z + g * Z + h * d, GATES * Z);
        }
}
#else
enum { FU = 4 * VL, BU = 4 * VL };
#endif
