/* What the way forward and the way back of `descent` share: a net, what it learns in a chunk, and what is asked of it. */
#include "chunk.h"
#define MOST 8                                                                 /* layers */
#define ONCE static __attribute__((noinline))                                  /* compiled once, wherever it is called */
#define EACH(i, n) for (I i = 0; i < (n); i++)

/* limit, rate, decay, turn (B, T, H): the most that an error is, the learning rate, and logarithms of what is kept of weights and of momentum; scale (C):
 * how much of X is shown; NULL: none. step: of each slot, counted through rows, B T for none. state: A, X (B, H, P),
 * c (B, H), S (B, H, P); S may be NULL, and X, which then is zero. numbers: p, the norm's epsilon, the mirror's own. */
typedef struct { const REAL *A, *X, *c, *S; } State;
typedef struct {
    Rows q, k, v, limit, rate, decay, turn;
    const REAL *scale;
    State state;
    const REAL *initial, *norm, *numbers;
    const I *step;
    const uint8_t *begins, *complete;                                          /* (B, N) */
    const I *net;                                                              /* bias, tanh, the mirror, and the layers' sizes */
    I B, T, H, N, C, hold, layers;                                             /* hold: chunks in a window */
} Record;
enum { PLAIN, LQ, KL, ELASTIC };                                               /* what makes weights of sums */
/* For the slots t of a chunk: the share of its first weights (kept), of X (seen) and of S (moved) in the weights at t,
 * and of the gradient at s (pairs, C x Cp); of the gradients in what the chunk adds to the weights, and then of X and S
 * (ends, C + 2); of the gradients in S, and last of S (turns, C + 1). As `share` makes them, before they are scaled: */
typedef struct { REAL *kept, *seen, *pairs, *moved, *ends, *turns, *decay, *turn, *rate, *left, *written, *lasting, *carried; } Shares;

/* One layer: its matrix is rows x out, padded to rows x lo at `at`; what enters it has li columns. For steps that are
 * keys: x enters, z = x M leaves, back is the loss's gradient of z, y = back M' and first, second the derivatives of
 * gelu at z; xt, bt are x and back turned over. asks and slope are x and first for queries, seen their products with the
 * keys, minus those by their shares; of_M, of_X, of_S are asks by the shares of M, X and S. after and tilt are asks and
 * slope for one query, of the weights after a chunk. dx, db, dy, dz: gradients of x, back, y, z; dasked is that of what
 * leaves for queries. */
enum { KEPT = 7 };
typedef struct {
    I in, out, rows, li, lo, at, flat;
    union { struct { REAL *x, *back, *y, *first, *second, *xt, *bt; }; REAL *kept[KEPT]; };   /* of every chunk of a window */
    REAL *z, *asks, *slope, *seen, *minus, *of_M, *of_X, *of_S, *after, *tilt, *dx, *db, *dy, *dz, *dasked;
} Layer;
typedef struct {
    const Record *z;
    I b, h, n, L, P, Q, C, Cp, each;                                           /* P: weights with padding; Q: without */
    Layer l[MOST];
    Shares s, d;                                                               /* d: their gradients */
    REAL c, *A, *X, *S, *M, *dA, *dX, *dS, *dM, dc, *window, *fresh;           /* M: what A, the sums, are as weights */
    REAL *scaled, *one, *two, *turned, *other, *error, *normal, *inverse, *asked, *answer, *dread, *gain, *own;
    REAL *dgain, *dscale;
    I held, slot, stride;                                                      /* whether there is something in X; where what is kept lies */
} Work;
#define LAST (&w->l[w->L - 1])

/* gelu and its derivatives. The integral of the normal density is it times a polynomial (7e-9), from the side where it
 * is small, so that its digits are kept on both. */
INLINE void gelu(vec z, I by_tanh, vec *value, vec *first, vec *second) {
    if (by_tanh) {
        const REAL k = 0.79788456080286535588, a = 0.044715;
        vec u = 2 * k * z * (1 + a * z * z), du = 2 * k * (1 + 3 * a * z * z), below = SELECT(u < 0, u, -u);
        vec e = exps(below), small = e / (1 + e), s = SELECT(u < 0, small, 1 / (1 + e)), ds = small / (1 + e);
        vec slope = ds * du, bend = ds * (1 - 2 * s) * du * du + ds * (12 * k * a * z);
        *value = z * s, *first = s + z * slope, *second = 2 * slope + z * bend;
        return;
    }
    vec size = SELECT(z < 0, -z, z), e = exps(size * size * -0.5f), small;
    if (IS_DOUBLE) for (I i = 0; i < W; i++) small[i] = 0.5 * erfc(size[i] * 0.70710678118654752440);
    else {
        static const float c[] = {7.227922231e-02f, -1.273972243e-01f, 8.281188458e-02f, -3.052351065e-02f,
            4.625723511e-02f, 5.911926180e-02f, 8.564613760e-02f, 1.029350534e-01f, 1.117040664e-01f, 1.117038354e-01f};
        vec t = 1 / (1 + 0.28f * size), p = all(-1.453597751e-02f);
        for (I i = 0; i < 10; i++) p = p * t + (REAL)c[i];
        small = e * t * p;
    }
    vec share = SELECT(z < 0, small, 1 - small), density = e * (REAL)0.39894228040143267794;
    *value = z * share, *first = share + z * density, *second = density * (2 - z * z);
}
/* the first n lanes */
INLINE vec some(vec x, I n) { return n >= W ? x : SELECT(LANES < all(n), x, (vec){}); }
/* a vector's sum by halves: a chain of sixteen sums takes as long as a row's products */
INLINE REAL total(vec x) {
    x += PICK(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
    x += PICK(x, x, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
    x += PICK(x, x, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
    return x[0] + x[1];
}
INLINE REAL dot(const REAL *x, const REAL *y, I n) {
    vec s = {};
    for (I c = 0; c < n; c += W) s += get(x + c) * get(y + c);
    return total(s);
}
static void add_to(REAL *y, const REAL *x, I n) { for (I c = 0; c < n; c += W) put(y + c, get(y + c) + get(x + c)); }
ONCE void flip(REAL *y, I ly, const REAL *x, I lx, I rows, I columns) {
    for (I i = 0; i < rows; i += W) for (I j = 0; j < columns; j += W) transpose16(y + j * ly + i, ly, x + i * lx + j, lx);
}
/* c (m x lc) = a sum of products, to what is there if `add`: of x (m x n), of any strides, and y, whose rows are ly long.
 * All of them meet in registers, each as wide as a machine has, so that c is touched once. */
typedef struct { const REAL *x; I xi, xj; const REAL *y; I ly, n; } Term;
typedef REAL lanes __attribute__((vector_size(64), aligned(sizeof(REAL))));
enum { N = 64 / sizeof(REAL) };
/* unrolled before s is looked at, which then has no address */
#define EVERY(r, n) _Pragma("GCC unroll 16") for (int r = 0; r < n; r++)
#define SUM(R, U) \
static void sum_##R##x##U(REAL *c, I lc, int add, const Term *t, I terms, I i, I v) { \
    lanes s[R][U], b[U]; \
    EVERY(r, R) EVERY(u, U) s[r][u] = (lanes){}; \
    for (const Term *end = t + terms; t < end; t++) { \
        const REAL *x = t->x + i * t->xi, *y = t->y + v; \
        const I xi = t->xi, xj = t->xj, ly = t->ly; \
        for (I j = t->n; j > 0; j--, x += xj, y += ly) { \
            EVERY(u, U) b[u] = ((const lanes *)y)[u]; \
            EVERY(r, R) EVERY(u, U) s[r][u] += x[r * xi] * b[u]; } } \
    c += i * lc + v; \
    if (add) EVERY(r, R) EVERY(u, U) s[r][u] += ((lanes *)(c + r * lc))[u]; \
    EVERY(r, R) EVERY(u, U) ((lanes *)(c + r * lc))[u] = s[r][u]; }
SUM(8, 2) SUM(16, 1) SUM(1, 2) SUM(1, 1)
ONCE void sums(REAL *c, I lc, int add, const Term *t, I terms, I m) {
    I v = 0, i;
    for (; v + N < lc; v += 2 * N) {
        for (i = 0; i + 8 <= m; i += 8) sum_8x2(c, lc, add, t, terms, i, v);
        for (; i < m; i++) sum_1x2(c, lc, add, t, terms, i, v);
    }
    if (v == lc) return;
    for (i = 0; i + 16 <= m; i += 16) sum_16x1(c, lc, add, t, terms, i, v);
    for (; i < m; i++) sum_1x1(c, lc, add, t, terms, i, v);
}
static void multiply(REAL *c, I lc, int add, const REAL *x, I xi, I xj, const REAL *y, I ly, I m, I n) {
    sums(c, lc, add, &(Term){x, xi, xj, y, ly, n}, 1, m);
}
/* x times a layer's matrix M, and y times its transpose, y being turned over */
INLINE Term times(const Layer *l, const REAL *x, const REAL *M) { return (Term){x, l->li, 1, M + l->at, l->lo, l->rows}; }
static void through(const Work *w, const Layer *l, REAL *to, const REAL *x, const REAL *M) {
    sums(to, l->lo, 0, (Term[]){times(l, x, M)}, 1, w->C);
}
static void against(const Work *w, const Layer *l, REAL *to, const REAL *turned, const REAL *M) {
    multiply(w->other, w->Cp, 0, M + l->at, l->lo, 1, turned, w->Cp, l->rows, l->out);
    memset(w->other + l->rows * w->Cp, 0, (l->li - l->rows) * w->Cp * sizeof(REAL));
    flip(to, l->li, w->other, w->Cp, l->li, w->Cp);
}
/* M += x' y */
static void write(const Work *w, const Layer *l, REAL *M, const REAL *x, I rows, I lx, const REAL *y) {
    multiply(M + l->at, l->lo, 1, x, 1, lx, y, l->lo, rows, w->C);
}
ONCE void rows_times(const Work *w, REAL *y, const REAL *x, const REAL *by, REAL times, I width) {
    EACH(s, w->C) for (I c = 0; c < width; c += W) put(y + s * width + c, times * by[s] * get(x + s * width + c));
}

INLINE const I *steps_of(const Work *w) { return w->z->step + (w->b * w->z->N + w->n) * w->z->C; }
INLINE I there(const Work *w, I step) { return step < w->z->B * w->z->T; }
INLINE const REAL *of_step(const Work *w, Rows r, I step) { return row(r, w->b, step - w->b * w->z->T, w->h); }
/* a number of a slot's step; none: zero */
INLINE REAL of_slot(const Work *w, Rows r, I s) { return there(w, steps_of(w)[s]) ? *of_step(w, r, steps_of(w)[s]) : 0; }
INLINE I begins(const Work *w) { return w->z->begins && w->z->begins[w->b * w->z->N + w->n]; }
INLINE I complete(const Work *w) { return w->z->complete[w->b * w->z->N + w->n]; }
/* chunks of a row: those that have a step come first */
static I chunks_of(Work *w) {
    const I none = w->z->B * w->z->T;
    for (w->n = 0; w->n < w->z->N; w->n++) {
        I any = 0;
        EACH(s, w->C) any |= steps_of(w)[s] != none;
        if (!any) break;
    }
    return w->n;
}
ONCE void gather(const Work *w, REAL *y, I ly, Rows r, I width, I bias) {
    EACH(s, w->C) {
        I step = steps_of(w)[s];
        memset(y + s * ly, 0, ly * sizeof(REAL));
        if (there(w, step)) memcpy(y + s * ly, of_step(w, r, step), width * sizeof(REAL));
        if (bias) y[s * ly + width] = 1;
    }
}
static void scatter(const Work *w, REAL *x, const REAL *y, I ly, I width) {
    EACH(s, w->C) {
        I step = steps_of(w)[s];
        if (there(w, step)) memcpy(x + (step * w->z->H + w->h) * width, y + s * ly, width * sizeof(REAL));
    }
}
/* a head's weights, dense or padded, which where all rows are whole vectors are the same; NULL: none, which is zeros */
ONCE void pad(const Work *w, REAL *M, const REAL *x) {
    if (!x) memset(M, 0, w->P * sizeof(REAL));
    else if (w->P == w->Q) memcpy(M, x, w->P * sizeof(REAL));
    else for (const Layer *l = w->l; l <= LAST; l++)
        pack(M + l->at, l->lo, plain(x + l->flat, l->out), l->rows, l->rows, l->out, 0);
}
ONCE void strip(const Work *w, REAL *x, const REAL *M) {
    if (w->P == w->Q) memcpy(x, M, w->P * sizeof(REAL));
    else for (const Layer *l = w->l; l <= LAST; l++)
        EACH(r, l->rows) memcpy(x + l->flat + r * l->out, M + l->at + r * l->lo, l->out * sizeof(REAL));
}

/* a row less its mean, over its deviation, which is returned as one over it; and from a gradient of that to one of z */
INLINE REAL mean(const REAL *x, I V) { vec s = {}; for (I c = 0; c < V; c += W) s += get(x + c); return total(s) / V; }
ONCE REAL normalise(REAL *y, const REAL *z, I V, REAL epsilon) {
    REAL centre = mean(z, V);
    for (I c = 0; c < V; c += W) put(y + c, some(get(z + c) - centre, V - c));
    const REAL spread = dot(y, y, V) / V + epsilon, inverse = 1 / (IS_DOUBLE ? sqrt(spread) : sqrtf(spread));
    for (I c = 0; c < V; c += W) put(y + c, inverse * get(y + c));
    return inverse;
}
ONCE void unnormalise(REAL *dz, const REAL *dy, const REAL *y, REAL inverse, I V) {
    REAL centre = mean(dy, V), along = dot(dy, y, V) / V;
    for (I c = 0; c < V; c += W) put(dz + c, some(inverse * (get(dy + c) - centre - along * get(y + c)), V - c));
}

#include "mirror.h"

INLINE vec clamped(vec e, vec most) { e = SELECT(e > most, most, e); return SELECT(e < -most, -most, e); }
/* the loss's gradient of the answer, and how it moves with the error, which is clamped */
INLINE vec unlike(vec e, REAL p) { return p == 2 ? e : e * power(e * e + TINY, p / 2 - 1); }
INLINE vec bend(vec e, REAL p) {
    vec s = e * e + TINY;
    return p == 2 ? all(1) : power(s, p / 2 - 1) * (1 + (p - 2) * e * e / s);
}

/* from what a layer gives to what the next is given */
ONCE void between(const Work *w, const Layer *l, const Layer *next, REAL *x, const REAL *z, REAL *first, REAL *second) {
    EACH(s, w->C) {
        for (I c = 0; c < l->lo; c += W) {
            vec value, slope, turn;
            gelu(get(z + s * l->lo + c), w->z->net[1], &value, &slope, &turn);
            put(x + s * next->li + c, value), put(first + s * l->lo + c, slope);
            if (second) put(second + s * l->lo + c, turn);
        }
        for (I c = l->lo; c < next->li; c += W) put(x + s * next->li + c, (vec){});
        if (next->rows > next->in) x[s * next->li + next->in] = 1;
    }
}
/* x (C x li of the next layer) times slope: C x lo, zero beyond a layer's own */
static void times_slope(const Work *w, const Layer *l, const Layer *next, REAL *y, const REAL *x, const REAL *slope, int add) {
    EACH(s, w->C) for (I c = 0; c < l->lo; c += W) {
        vec u = some(get(x + s * next->li + c) * get(slope + s * l->lo + c), l->out - c);
        put(y + s * l->lo + c, add ? u + get(y + s * l->lo + c) : u);
    }
}
/* error and the gradient of what the last layer gives; w->gain: scale and shift of the norm */
static void lose(Work *w) {
    const Layer *l = LAST;
    const I V = l->out, lv = l->lo, normed = w->z->norm != 0, limited = w->z->limit.x != 0;
    gather(w, w->answer, lv, w->z->v, V, 0);
    EACH(s, w->C) {
        const vec limit = all(limited ? of_slot(w, w->z->limit, s) : 0);
        REAL *e = w->error + s * lv, *normal = w->normal + s * lv, *back = l->back + s * lv, *y = w->one;
        if (normed) w->inverse[s] = normalise(normal, l->z + s * lv, V, w->z->numbers[1]);
        for (I c = 0; c < lv; c += W) {
            vec f = normed ? get(w->l[0].x + s * w->l[0].li + c) + get(w->gain + c) * get(normal + c) + get(w->gain + lv + c) : get(l->z + s * lv + c);
            f = some(f - get(w->answer + s * lv + c), V - c);
            put(e + c, f);
            f = unlike(limited ? clamped(f, limit) : f, w->z->numbers[0]);
            put(normed ? y + c : back + c, normed ? get(w->gain + c) * f : f);
        }
        if (normed) unnormalise(back, y, normal, w->inverse[s], V);
    }
}
/* how much of everything is in the weights of every slot, by what each keeps of the one before */
ONCE void share(Work *w) {
    const Record *z = w->z;
    const Shares *s = &w->s;
    const I C = w->C, Cp = w->Cp, *step = steps_of(w), momentum = z->turn.x != 0;
    memset(s->decay, 0, Cp * sizeof(REAL)), memset(s->turn, 0, Cp * sizeof(REAL));
    EACH(t, C) {
        s->rate[t] = of_slot(w, z->rate, t);
        if (z->decay.x) s->decay[t] = of_slot(w, z->decay, t);
        if (momentum) s->turn[t] = of_slot(w, z->turn, t);
    }
    for (I c = 0; c < Cp; c += W) put(s->decay + c, exps(get(s->decay + c))), put(s->turn + c, exps(get(s->turn + c)));
    REAL kept = 1, lasting = 1, carried = 0;
    EACH(t, C) {
        const REAL a = s->decay[t], e = s->turn[t], shown = z->scale ? z->scale[t] : 1, add = there(w, step[t]);
        REAL *left = s->left + t * Cp, *written = s->written + t * Cp;
        kept *= a, lasting *= e, carried = a * carried + add * lasting;
        for (I c = 0; c < Cp; c += W) {
            vec y = t ? a * get(left - Cp + c) : (vec){}, turned = momentum && t ? e * get(written - Cp + c) : (vec){};
            put(written + c, turned), put(left + c, y);
        }
        (momentum ? written : left)[t] += s->rate[t];
        for (I c = 0; c < Cp; c += W) {
            vec y = get(left + c);
            if (momentum && add) put(left + c, y += get(written + c));
            put(s->pairs + t * Cp + c, shown * y);
        }
        s->kept[t] = kept, s->lasting[t] = lasting, s->carried[t] = carried, s->seen[t] = shown * kept, s->moved[t] = shown * carried;
    }
    /* what a chunk adds is shown by as much as its last step is */
    const REAL shown = complete(w) && z->scale ? z->scale[C - 1] : 1;
    EACH(t, C) s->ends[t] = shown * s->left[(C - 1) * Cp + t], s->turns[t] = s->written[(C - 1) * Cp + t];
    s->ends[C] = shown * kept, s->ends[C + 1] = shown * carried, s->turns[C] = lasting;
}
/* for every key and layer: what enters, what comes back */
ONCE void teach(Work *w) {
    share(w);
    gather(w, w->l[0].x, w->l[0].li, w->z->k, w->l[0].in, w->z->net[0]);
    EACH(i, w->L) {
        Layer *l = &w->l[i];
        through(w, l, l->z, l->x, w->M);
        if (i + 1 < w->L) between(w, l, l + 1, l[1].x, l->z, l->first, l->second);
    }
    lose(w);
    for (I i = w->L - 1; i >= 0; i--) {
        Layer *l = &w->l[i];
        flip(l->bt, w->Cp, l->back, l->lo, w->Cp, l->lo);
        if (!i) break;
        against(w, l, l->y, l->bt, w->M);
        times_slope(w, l - 1, l, l[-1].back, l->y, l[-1].first, 0);
    }
}
/* from what the last layer gives, w->asked, to what x is answered, into w->dread where it is wanted */
static void answers(Work *w, const REAL *x, int wanted) {
    const Layer *last = LAST;
    const I lv = last->lo;
    if (!w->z->norm) { memcpy(w->dread, w->asked, w->C * lv * sizeof(REAL)); return; }
    EACH(s, w->C) {
        REAL *normal = w->answer + s * lv;
        w->inverse[w->Cp + s] = normalise(normal, w->asked + s * lv, last->out, w->z->numbers[1]);
        for (I c = 0; c < lv && wanted; c += W)
            put(w->dread + s * lv + c, get(x + s * w->l[0].li + c) + get(w->gain + c) * get(normal + c) + get(w->gain + lv + c));
    }
}
/* what a chunk's queries read, into w->dread where it is wanted */
static void ask(Work *w, int wanted) {
    const Shares *own = &w->s;
    const I C = w->C;
    Layer *const last = LAST;
    gather(w, w->l[0].asks, w->l[0].li, w->z->q, w->l[0].in, w->z->net[0]);
    EACH(i, w->L) {
        Layer *l = &w->l[i];
        REAL *z = w->asked;
        flip(l->xt, w->Cp, l->x, l->li, w->Cp, l->li);
        multiply(l->seen, w->Cp, 0, l->asks, l->li, 1, l->xt, w->Cp, C, l->rows);
        for (I c = 0; c < C * w->Cp; c += W) put(l->minus + c, -get(l->seen + c) * get(own->pairs + c));
        Term held[4] = {times(l, l->of_M, w->M), {l->minus, w->Cp, 1, l->back, l->lo, C}};
        I n = 2;
        rows_times(w, l->of_M, l->asks, own->kept, w->c, l->li);
        if (w->held) rows_times(w, l->of_X, l->asks, own->seen, 1, l->li), held[n++] = times(l, l->of_X, w->X);
        if (w->S) rows_times(w, l->of_S, l->asks, own->moved, 1, l->li), held[n++] = times(l, l->of_S, w->S);
        if (l == last && !wanted && !w->z->norm) return;
        sums(z, l->lo, 0, held, n, C);
        if (l < last) between(w, l, l + 1, l[1].asks, z, l->slope, 0);
    }
    answers(w, w->l[0].asks, wanted);
}
/* what the query of a chunk's last step reads of the weights after it, into the first row of w->dread */
ONCE void ask_after(Work *w) {
    Layer *l = w->l;
    memset(l->after, 0, l->li * sizeof(REAL));
    memcpy(l->after, of_step(w, w->z->q, steps_of(w)[w->C - 1]), l->in * sizeof(REAL));
    if (w->z->net[0]) l->after[l->in] = 1;
    w->C = 1;
    for (; l <= LAST; l++) {
        through(w, l, w->asked, l->after, w->M);
        if (l < LAST) between(w, l, l + 1, l[1].after, w->asked, l->tilt, 0);
    }
    answers(w, w->l[0].after, 1);
    w->C = w->z->C;
}
/* the state after a chunk, from the sums and the momentum at its start */
static void advance(Work *w, const REAL *A, const REAL *S) {
    const REAL *ends = w->s.ends, *turns = w->s.turns;
    const I C = w->C;
    REAL *const to = complete(w) ? w->A : w->X;
    const REAL first = complete(w) ? w->c * w->s.kept[C - 1] : 0;
    EACH(i, w->L) {
        const Layer *l = &w->l[i];
        for (I c = l->at; c < l->at + l->rows * l->lo; c += W) {
            vec x = first ? first * get(A + c) : (vec){};
            if (w->held) x += ends[C] * get(w->X + c);
            if (S) x += ends[C + 1] * get(S + c), put(w->S + c, turns[C] * get(S + c));
            put(to + c, x);
        }
        rows_times(w, w->scaled, l->x, ends, -1, l->li), write(w, l, to, w->scaled, l->rows, l->li, l->back);
        if (w->S) rows_times(w, w->scaled, l->x, turns, -1, l->li), write(w, l, w->S, w->scaled, l->rows, l->li, l->back);
    }
    if (complete(w) && w->held) memset(w->X, 0, w->P * sizeof(REAL));
    w->c = complete(w) ? 1 : w->c * w->s.kept[C - 1];
    w->held = !complete(w);
    if (complete(w)) settle(w, w->A), reflect(w);
}
static void begin(Work *w) {
    if (!begins(w)) return;
    pad(w, w->A, w->z->initial + w->h * w->Q), reflect(w);
    memset(w->X, 0, w->P * sizeof(REAL));
    if (w->S) memset(w->S, 0, w->P * sizeof(REAL));
    w->c = 1, w->held = 0;
}
/* X, which is mostly zero: whether it is, is told by one look at it, if there is one */
static void pad_X(Work *w, I task) {
    const REAL *X = w->z->state.X + task * w->Q;
    vec found = {};
    for (I i = 0; w->z->state.X && i < w->Q; i += W) found = SELECT(get_some(X + i, w->Q - i) == 0, found, all(1));
    w->held = total(found) != 0;
    pad(w, w->X, w->held ? X : 0);
}
static void come_to(Work *w, I task) {
    w->b = task / w->z->H, w->h = task % w->z->H, w->n = 0;
    EACH(i, 2 * (w->z->norm != 0)) pack(w->gain + i * LAST->lo, LAST->lo, plain(w->z->norm + (i * w->z->H + w->h) * LAST->out, 0), 1, 1, LAST->out, 0);
}
static void enter(Work *w, I task) {
    const State *s = &w->z->state;
    come_to(w, task), pad(w, w->A, s->A + task * w->Q), pad_X(w, task), reflect(w);
    if (w->S) pad(w, w->S, s->S + task * w->Q);
    w->c = s->c[task];
}
