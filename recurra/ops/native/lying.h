/* y = W x + b where W lies, whose numbers are each read once.  A row is read to its end before the next begins; several
 * at once, in one page of memory, are no order to what fetches ahead, and some processors get them half as fast.  Short
 * rows are taken together, so that what is read of x serves all of them. */
#define EACH_ROW _Pragma("GCC unroll 8") for (int k = 0; k < many; k++)
#define PAIRS(x, y) (EVEN(x, y) + ODD(x, y))
enum { BRIEF = 3 * W };
INLINE void rows_together(const int many, vec *s, const REAL *x, const REAL *w, I wide, I lw) {
    EACH_ROW s[k] = (vec){};
    for (I p = 0; p + W <= wide; p += W) {
        const vec a = get(x + p);
        EACH_ROW s[k] += a * get(w + k * lw + p);
    }
}
INLINE void rows_in_turn(const int many, vec *s, const REAL *x, const REAL *w, I wide, I lw) {
    EACH_ROW {
        const REAL *row = w + k * lw;
        vec even = {}, odd = {};
        I p = 0;
        for (; p + 2 * W <= wide; p += 2 * W)
            even += get(x + p) * get(row + p), odd += get(x + p + W) * get(row + p + W);
        if (p + W <= wide) even += get(x + p) * get(row + p);
        s[k] = even + odd;
    }
}
INLINE void rows_of(const int many, REAL *y, const REAL *x, const REAL *w, const REAL *b, I wide, I lw) {
    vec s[8];
    if (wide <= BRIEF) rows_together(many, s, x, w, wide, lw);
    else rows_in_turn(many, s, x, w, wide, lw);
    /* neighbours are added, of all rows at once; one row's own sum would stop what the next ones read */
    for (int n = many / 2; n; n /= 2) for (int k = 0; k < n; k++) s[k] = PAIRS(s[2 * k], s[2 * k + 1]);
    for (int n = many; n < W; n *= 2) s[0] = PAIRS(s[0], s[0]);
    EACH_ROW y[k] = s[0][k] + (b ? b[k] : 0);
    for (int k = 0; wide % W && k < many; k++) {
        REAL rest = 0;
        for (I p = wide / W * W; p < wide; p++) rest += x[p] * w[k * lw + p];
        y[k] += rest;
    }
}
/* the first rows of W */
INLINE void lying(REAL *y, const REAL *x, const REAL *w, const REAL *b, I rows, I wide, I lw) {
    I r = 0;
    for (; r + 8 <= rows; r += 8) rows_of(8, y + r, x, w + r * lw, b ? b + r : 0, wide, lw);
    for (; r < rows; r++) rows_of(1, y + r, x, w + r * lw, b ? b + r : 0, wide, lw);
}
