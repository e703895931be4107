/* Mirrors. Of a layer's sums A are made its weights M, in the KL's case of each column by itself: a softmax, made and
 * then one step of Newton nearer to where the mean is 1. A norm takes away what an answer's features share; the
 * last layer's weights go without it, and what it was, of each row, lies after them. */
ONCE vec power(vec x, REAL p) {
    if (p == 1) return x;
    if (p == 2) return x * x;
    if (p == (REAL)0.5) { for (I i = 0; i < W; i++) x[i] = IS_DOUBLE ? sqrt(x[i]) : sqrtf(x[i]); return x; }
    for (I i = 0; i < W; i++) x[i] = IS_DOUBLE ? pow(x[i], p) : powf(x[i], p);
    return x;
}
#define TINY ((REAL)1e-6)
INLINE vec expm1s(vec x) {
    vec r, q;
    const ints n = split(within(x, IS_DOUBLE ? 700 : 87), &r, &q);
    const vec two = TWO_TO(n);
    return two * (q * r) + (two - 1);
}
/* a column's sum of y, in blocks, so that few are added to many */
#define COLUMN_SUM(s, l, y) vec s = {}; for (I from = 0; from < (l)->rows; from += W) { \
    vec part = {}; \
    for (I r = from; r < (l)->rows && r < from + W; r++) part += (y); \
    s += part; }
static void softmax(REAL *M, const REAL *A, const Layer *l) {
    for (I c = 0; c < l->lo; c += W) {
        #define AT(x) get((x) + r * l->lo + c)
        vec most = get(A + c);
        for (I r = 1; r < l->rows; r++) most = SELECT(AT(A) > most, AT(A), most);
        COLUMN_SUM(whole, l, exps(AT(A) - most))
        EACH(i, W) whole[i] = IS_DOUBLE ? log(whole[i] / l->rows) : logf(whole[i] / l->rows);
        EACH(r, l->rows) put(M + r * l->lo + c, expm1s(AT(A) - (most + whole)));
        COLUMN_SUM(off, l, AT(M))
        off /= (REAL)l->rows;
        /* rounded to the size of a weight once, at last */
        EACH(r, l->rows) put(M + r * l->lo + c, some(1 + (AT(M) - off * (1 + AT(M))), l->out - c));
    }
}
static void undo_softmax(REAL *dA, const REAL *dM, const REAL *M, const REAL *centre, const Layer *l) {
    for (I c = 0; c < l->lo; c += W) {
        #define WEIGHT (centre ? AT(M) + centre[r] : AT(M))
        COLUMN_SUM(along, l, AT(dM) * WEIGHT)
        along /= (REAL)l->rows;
        EACH(r, l->rows) put(dA + r * l->lo + c, AT(dA) + some(WEIGHT * (AT(dM) - along), l->out - c));
    }
}
/* the sum of (A^2 + tiny)^(q/2), and of A dM */
static void lengths(const REAL *A, const REAL *dM, const Layer *l, REAL q, double *length, double *along) {
    *length = *along = 0;
    EACH(r, l->rows) {
        vec s = {}, t = {};
        for (I c = 0; c < l->lo; c += W) {
            s += some(power(AT(A) * AT(A) + TINY, q / 2), l->out - c);
            if (dM) t += AT(A) * AT(dM);
        }
        *length += total(s), *along += total(t);
    }
}
/* a row's mean goes, where a norm takes away what an answer's features share */
static void centre_rows(REAL *M, const Layer *l, REAL *centres) {
    EACH(r, l->rows) {
        const REAL centre = mean(M + r * l->lo, l->out);
        for (I c = 0; c < l->lo; c += W) put(M + r * l->lo + c, some(AT(M) - centre, l->out - c));
        if (centres) centres[r] = centre;
    }
}
/* from w->A to w->M */
ONCE void reflect(Work *w) {
    const I kind = w->z->net[2];
    const REAL number = w->z->numbers[2];
    if (kind == PLAIN) return;
    EACH(i, w->L) {
        const Layer *l = &w->l[i];
        const REAL *A = w->A + l->at;
        REAL *M = w->M + l->at;
        if (kind == KL) softmax(M, A, l);
        if (kind == ELASTIC) for (I c = 0; c < l->rows * l->lo; c += W) put(M + c, get(A + c) - within(get(A + c), number));
        if (kind == LQ) {
            double length, none;
            lengths(A, 0, l, number, &length, &none);
            const REAL by = pow(length, 2.0 / number - 1);
            for (I c = 0; c < l->rows * l->lo; c += W) put(M + c, by * get(A + c));
        }
    }
    if (w->z->norm) centre_rows(w->M + LAST->at, LAST, w->M + w->P);
}
/* and back: w->dM, which is used up, goes into w->dA */
ONCE void undo_reflect(Work *w) {
    const I kind = w->z->net[2];
    const REAL number = w->z->numbers[2];
    if (kind == PLAIN) return;
    if (w->z->norm) centre_rows(w->dM + LAST->at, LAST, 0);
    EACH(i, w->L) {
        const Layer *l = &w->l[i];
        const REAL *A = w->A + l->at, *dM = w->dM + l->at;
        REAL *dA = w->dA + l->at;
        if (kind == KL) undo_softmax(dA, dM, w->M + l->at, l == LAST && w->z->norm ? w->M + w->P : 0, l);
        if (kind == ELASTIC) for (I c = 0; c < l->rows * l->lo; c += W) {
            vec x = get(A + c);
            put(dA + c, get(dA + c) + SELECT((x >= -number) & (x <= number), (vec){}, get(dM + c)));
        }
        if (kind == LQ) {
            double length, along;
            lengths(A, dM, l, number, &length, &along);
            const REAL by = pow(length, 2.0 / number - 1), turn = (2 - number) * along * pow(length, 2.0 / number - 2);
            for (I c = 0; c < l->rows * l->lo; c += W) {
                vec x = get(A + c);
                put(dA + c, get(dA + c) + by * get(dM + c) + turn * x * power(x * x + TINY, number / 2 - 1));
            }
        }
    }
    memset(w->dM, 0, w->P * sizeof(REAL));
}
/* the sums that have the same weights and are kept: of a softmax, those whose mean is zero. Its own way back */
ONCE void settle(const Work *w, REAL *x) {
    if (w->z->net[2] != KL) return;
    EACH(i, w->L) {
        const Layer *l = &w->l[i];
        REAL *A = x + l->at;
        for (I c = 0; c < l->lo; c += W) {
            COLUMN_SUM(centre, l, AT(A))
            centre /= (REAL)l->rows;
            EACH(r, l->rows) put(A + r * l->lo + c, AT(A) - centre);
        }
    }
}
