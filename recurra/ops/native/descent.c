/* descent: the weights of a small net, moved by its own gradient, chunk by chunk; the equations are ops/descent's.
 *
 * A head of a row is one task, and its weights, momentum and their gradients stay in its thread's cache from chunk to
 * chunk. Within a chunk there are sixteen times fewer numbers than weights: what is a product of weights and steps is
 * one of matrices, everything else is small. Steps lie in rows, features in columns; what meets a matrix from its other
 * side is turned over first, being smaller than the matrix. Backward runs the chunks of a window again, from the
 * weights and momentum that forward kept at its start, and then takes them from the last to the first. */
#include "descent.h"

typedef struct { REAL *A, *X, *c, *S; } Own;
typedef struct { Record z; Own last; REAL *read, *marks; I threads; } Forward;
/* state: gradients of the last state in, of the first out; initial (B, H, P) and norm (B, 2, H, V) are to be summed */
typedef struct { Record z; const REAL *marks, *read; Own state; REAL *q, *k, *v, *limit; Gains gains; REAL *initial, *norm; I threads; } Backward;

/* what forward keeps at a window's start: weights, and momentum */
INLINE I mark_of(const Work *w, I task) {
    return (task * ((w->z->N - 1) / w->z->hold) + w->n / w->z->hold - 1) * (w->S ? 2 : 1) * w->Q;
}
static void forwards(const Forward *f, Work *w, I task) {
    enter(w, task);
    const I chunks = chunks_of(w);
    for (w->n = 0; w->n < chunks; w->n++) {
        begin(w);
        if (f->marks && w->n && w->n % w->z->hold == 0) {
            strip(w, f->marks + mark_of(w, task), w->A);
            if (w->S) strip(w, f->marks + mark_of(w, task) + w->Q, w->S);
        }
        teach(w), ask(w, 1), scatter(w, f->read, w->dread, LAST->lo, LAST->out), advance(w);
    }
    strip(w, f->last.A + task * w->Q, w->A), strip(w, f->last.X + task * w->Q, w->X);
    if (w->S) strip(w, f->last.S + task * w->Q, w->S);
    f->last.c[task] = w->c;
}

/* x's gradient through what its rows, each by its share, added: t is what their gradient is without the share */
ONCE void by_shares(const Work *w, REAL *dx, REAL *dshare, const REAL *share, REAL times, const REAL *x, const REAL *t, I width, int add) {
    EACH(s, w->C) {
        dshare[s] += times * dot(x + s * width, t + s * width, width);
        for (I c = 0; c < width; c += W) {
            vec y = times * share[s] * get(t + s * width + c);
            put(dx + s * width + c, add ? y + get(dx + s * width + c) : y);
        }
    }
}
#define GAIN(of) REAL *const d##of = w->d.of ? w->d.of + chunk_of(w) * C : 0;
#define GAINS GAIN(kept) GAIN(moved) REAL *const dseen = w->d.seen ? w->d.seen + chunk_of(w) * C : dkept;
/* through `advance`: what enters and comes back at first, then the state */
static void back_advance(Work *w) {
    SHARES ENDS GAINS
    REAL *const to = complete(w) ? w->dA : w->dX, *dends = w->d.ends + chunk_of(w) * (C + 1 + (moved != 0)), *dturns = moved ? w->d.turns + chunk_of(w) * (C + 1) : 0;
    EACH(i, w->L) {
        Layer *l = &w->l[i];
        against(w, l, w->turned, l->bt, to), by_shares(w, l->dx, dends, ends, -1, l->x, w->turned, l->li, 0);
        rows_times(w, w->scaled, l->x, ends, -1, l->li), through(w, l, l->db, 0, w->scaled, to);
        if (!moved) continue;
        against(w, l, w->turned, l->bt, w->dS), by_shares(w, l->dx, dturns, turns, -1, l->x, w->turned, l->li, 1);
        rows_times(w, w->scaled, l->x, turns, -1, l->li), through(w, l, l->db, 1, w->scaled, w->dS);
    }
    vec at_A = {}, at_X = {}, at_S = {}, kept_S = {};
    const REAL first = w->c * kept[C - 1];
    for (I c = 0; c < w->P; c += W) {
        vec g = get(to + c);
        if (complete(w)) at_A += g * get(w->A + c), put(w->dA + c, first * g);
        if (w->held) at_X += g * get(w->X + c), put(w->dX + c, ends[C] * g);
        if (!moved) continue;
        vec s = get(w->S + c), gs = get(w->dS + c);
        at_S += g * s, kept_S += gs * s, put(w->dS + c, ends[C + 1] * g + turns[C] * gs);
    }
    REAL dfirst = complete(w) ? sum1(at_A) : w->dc;
    dkept[C - 1] += w->c * dfirst, w->dc = kept[C - 1] * dfirst;
    dends[C] += sum1(at_X);
    if (moved) dends[C + 1] += sum1(at_S), dturns[C] += sum1(kept_S);
}
/* through one of the matrices that queries meet: its gradient, its share's, theirs */
static void back_held(Work *w, const Layer *l, const REAL *M, REAL *dM, const REAL *share, REAL *dshare, const REAL *dz) {
    against(w, l, w->turned, w->two, M), by_shares(w, w->asked, dshare, share, 1, l->asks, w->turned, l->li, 1);
    rows_times(w, w->scaled, l->asks, share, 1, l->li), write(w, l, dM, w->scaled, l->rows, l->li, dz);
}
static void back_ask(Work *w, const Backward *f) {
    SHARES GAINS
    const I Cp = w->Cp, lv = LAST->lo, V = LAST->out, K = w->l[0].in, normed = w->z->norm != 0;
    REAL *dz = w->one, *first = w->dR + C * Cp, *dfirst = first + Cp;          /* c kept */
    gather(w, w->dread, lv, (Rows){f->read, w->z->T * w->z->H * V, w->z->H * V, V}, V, 0);
    EACH(s, C) {
        const REAL *g = w->dread + s * lv, *normal = w->answer + s * lv;
        for (I c = 0; c < lv; c += W) put(dz + s * lv + c, normed ? get(w->gain + c) * get(g + c) : get(g + c));
        for (I c = 0; c < lv && normed; c += W) {
            put(w->dgain + c, get(w->dgain + c) + get(g + c) * get(normal + c));
            put(w->dgain + lv + c, get(w->dgain + lv + c) + get(g + c));
        }
        if (normed) unnormalise(dz + s * lv, dz + s * lv, normal, w->inverse[Cp + s], V);
    }
    memset(w->dR, 0, (C + 2) * Cp * sizeof(REAL));
    EACH(s, C) first[s] = w->c * kept[s];
    for (I i = w->L - 1; i >= 0; i--) {
        Layer *l = &w->l[i];
        multiply(l->db, l->lo, 1, l->minus, 1, Cp, dz, l->lo, C, C);
        multiply(w->scaled, Cp, 0, dz, l->lo, 1, l->bt, Cp, C, l->out);
        for (I c = 0; c < C * Cp; c += W) {
            vec g = -get(w->scaled + c);
            put(w->dR + c, get(w->dR + c) + g * get(l->seen + c)), put(w->scaled + c, g * get(w->R + c));
        }
        multiply(l->dx, l->li, 1, w->scaled, 1, Cp, l->asks, l->li, C, C);
        multiply(w->asked, l->li, 0, w->scaled, Cp, 1, l->x, l->li, C, C);
        flip(w->two, Cp, dz, l->lo, Cp, l->lo);
        back_held(w, l, w->A, w->dA, first, dfirst, dz);
        if (w->held) back_held(w, l, w->X, w->dX, seen, dseen, dz);
        if (moved) back_held(w, l, w->S, w->dS, moved, dmoved, dz);
        if (i) times_slope(w, l - 1, l, dz, w->asked, l[-1].slope, 0);
    }
    EACH(s, C) dkept[s] += w->c * dfirst[s], w->dc += kept[s] * dfirst[s];
    EACH(s, C) memcpy(w->d.pairs + (chunk_of(w) * C + s) * C, w->dR + s * Cp, C * sizeof(REAL));
    if (normed) EACH(s, C) add_to(w->asked + s * w->l[0].li, w->dread + s * lv, lv);
    scatter(w, f->q, w->asked, w->l[0].li, K);
}
/* from the gradient of what came back to that of what the last layer gave; the answer's to w->dread */
static void back_lose(Work *w, const Backward *f) {
    const Layer *l = LAST;
    const I V = l->out, lv = l->lo, normed = w->z->norm != 0, limited = w->z->limit.x != 0;
    const REAL p = w->z->numbers[0];
    if (limited) gather(w, w->two, lv, w->z->limit, V, 0);
    EACH(s, w->C) {
        const REAL *db = l->db + s * lv, *e = w->error + s * lv, *n = w->normal + s * lv, *limit = w->two + s * lv;
        const REAL inverse = w->inverse[s];
        REAL *de = w->dread + s * lv, *dz = l->dz + s * lv, *dlimit = w->asked + s * lv, *y = w->one, *dy = y + lv, *dn = dy + lv;
        REAL turn = 0;
        for (I c = 0; c < lv && normed; c += W)
            put(y + c, get(w->gain + c) * unlike(limited ? clamped(get(e + c), get(limit + c)) : get(e + c), p));
        if (normed) {
            REAL along = dot(y, n, V) / V, centre = mean(y, V), by = dot(db, n, V) * inverse / V;
            for (I c = 0; c < lv; c += W) put(dn + c, -inverse * along * get(db + c) - by * get(y + c));
            turn = (dot(db, y, V) - centre * V * mean(db, V) - along * dot(db, n, V)) * inverse * inverse / V;
            unnormalise(dy, db, n, inverse, V);
        }
        for (I c = 0; c < lv; c += W) {
            vec x = get(e + c), cut = limited ? clamped(x, get(limit + c)) : x, g = normed ? get(w->gain + c) * get(dy + c) : get(db + c);
            if (normed) put(w->dgain + c, get(w->dgain + c) + unlike(cut, p) * get(dy + c));
            g *= bend(cut, p);
            if (limited) {
                ints over = x > get(limit + c), under = x < -get(limit + c);
                put(dlimit + c, SELECT(over, g, SELECT(under, -g, (vec){})));
                g = SELECT(over | under, (vec){}, g);
            }
            put(de + c, g);
            if (!normed) { put(dz + c, g); continue; }
            put(w->dgain + c, get(w->dgain + c) + g * get(n + c)), put(w->dgain + lv + c, get(w->dgain + lv + c) + g);
            put(dn + c, get(dn + c) + get(w->gain + c) * g);
        }
        if (normed) unnormalise(dz, dn, n, inverse, V);
        for (I c = 0; c < lv && normed; c += W) put(dz + c, get(dz + c) - turn * get(n + c));
    }
    if (limited) scatter(w, f->limit, w->asked, lv, V);
    EACH(s, w->C) for (I c = 0; c < lv; c += W) put(w->asked + s * lv + c, -get(w->dread + s * lv + c));
    scatter(w, f->v, w->asked, lv, V);
}
/* through `teach` */
static void back_teach(Work *w, const Backward *f) {
    const I C = w->C;
    EACH(i, w->L - 1) {
        Layer *l = &w->l[i], *next = l + 1;
        times_slope(w, l, next, l->dz, next->y, l->second, 0);
        for (I c = 0; c < C * l->lo; c += W) put(l->dz + c, get(l->dz + c) * get(l->db + c)), put(w->one + c, get(l->db + c) * get(l->first + c));
        multiply(next->db, next->lo, 1, w->one, l->lo, 1, w->A + next->at, next->lo, C, next->in);
        write(w, next, w->dA, w->one, next->in, l->lo, next->back);
    }
    back_lose(w, f);
    for (I i = w->L - 1; i >= 0; i--) {
        Layer *l = &w->l[i];
        write(w, l, w->dA, l->x, l->rows, l->li, l->dz);
        flip(w->two, w->Cp, l->dz, l->lo, w->Cp, l->lo), against(w, l, w->turned, w->two, w->A), add_to(l->dx, w->turned, C * l->li);
        if (i) times_slope(w, l - 1, l, l[-1].dz, l->dx, l[-1].first, 1);
    }
    const Layer *l = &w->l[0];
    if (w->z->norm) EACH(s, C) add_to(l->dx + s * l->li, w->dread + s * LAST->lo, LAST->lo);
    scatter(w, f->k, l->dx, l->li, l->in);
}
static void add_dense(const Work *w, REAL *y, const REAL *M) {
    EACH(i, w->L) {
        const Layer *l = &w->l[i];
        EACH(r, l->rows) EACH(c, l->out) y[l->flat + r * l->out + c] += M[l->at + r * l->lo + c];
    }
}
static void backwards(const Backward *f, Work *w, I task) {
    const Record *z = w->z;
    enter(w, task);
    const I chunks = chunks_of(w), each = w->S ? 2 * w->P : w->P;
    pad(w, w->dA, f->state.A + task * w->Q), pad(w, w->dX, f->state.X + task * w->Q), w->dc = f->state.c[task];
    if (w->S) pad(w, w->dS, f->state.S + task * w->Q);
    memset(w->dgain, 0, 2 * LAST->lo * sizeof(REAL));
    REAL *const A = w->A, *const S = w->S;
    for (I from = (chunks - 1) / z->hold * z->hold; chunks && from >= 0; from -= z->hold) {
        const I till = from + z->hold < chunks ? from + z->hold : chunks;
        #define AT(i) (w->A = w->window + (i) * each, w->S = S ? w->A + w->P : 0)
        w->n = from, AT(0);
        if (from) {
            pad(w, w->A, f->marks + mark_of(w, task)), w->c = 1, w->held = 0;
            if (S) pad(w, w->S, f->marks + mark_of(w, task) + w->Q);
        } else enter(w, task), begin(w);
        for (; w->n + 1 < till;) {
            memcpy(w->window + (w->n + 1 - from) * each, w->A, each * sizeof(REAL));
            AT(w->n + 1 - from);
            teach(w), advance(w), w->n++, begin(w);
        }
        for (; w->n >= from; w->n--) {
            AT(w->n - from), w->c = 1, w->held = 0;
            if (!w->n) w->c = z->state.c[task], pad_X(w, task);
            if (begins(w)) w->c = 1, w->held = 0;
            teach(w), back_advance(w), ask(w, 0), back_ask(w, f), back_teach(w, f);
            if (begins(w)) {
                add_dense(w, f->initial + task * w->Q, w->dA);
                memset(w->dA, 0, w->P * sizeof(REAL));
                if (S) memset(w->dS, 0, w->P * sizeof(REAL));
            }
            if (w->n || begins(w)) memset(w->dX, 0, w->P * sizeof(REAL)), w->dc = 0;
        }
    }
    AT(0);
    strip(w, f->state.A + task * w->Q, w->dA), strip(w, f->state.X + task * w->Q, w->dX), f->state.c[task] = w->dc;
    if (S) strip(w, f->state.S + task * w->Q, w->dS);
    EACH(i, 2 * (z->norm != 0)) memcpy(f->norm + ((w->b * 2 + i) * z->H + w->h) * LAST->out, w->dgain + i * LAST->lo, LAST->out * sizeof(REAL));
}

/* the geometry, and one allocation's panels, counted first */
static void prepare(Work *w, const Record *z, Arena *a, int back) {
    w->z = z, w->L = z->layers, w->C = z->C, w->Cp = up(z->C), w->P = w->Q = 0;
    I wide = w->Cp;
    EACH(i, w->L) {
        Layer *l = &w->l[i];
        l->in = z->net[2 + i], l->out = z->net[3 + i], l->rows = l->in + z->net[0], l->li = up(l->rows), l->lo = up(l->out);
        l->at = w->P, l->flat = w->Q, w->P += l->rows * l->lo, w->Q += l->rows * l->out;
        if (l->li > wide) wide = l->li;
        if (l->lo > wide) wide = l->lo;
    }
    const I R = w->Cp, momentum = z->state.S != 0;
    EACH(i, w->L) {
        Layer *l = &w->l[i];
        #define TAKE(of, n) l->of = take(a, R * (n));
        TAKE(x, l->li) TAKE(xt, l->li) TAKE(asks, l->li) TAKE(z, l->lo) TAKE(back, l->lo) TAKE(bt, l->lo) TAKE(y, l->li)
        TAKE(first, l->lo) TAKE(slope, l->lo) TAKE(seen, R) TAKE(minus, R)
        l->second = 0;
        if (back) { TAKE(second, l->lo) TAKE(dx, l->li) TAKE(db, l->lo) TAKE(dz, l->lo) }
    }
    REAL **panels[] = {&w->scaled, &w->one, &w->two, &w->turned, &w->other, &w->error, &w->normal, &w->asked, &w->answer, &w->dread};
    EACH(i, (I)(sizeof panels / sizeof *panels)) *panels[i] = take(a, R * wide);
    w->R = take(a, R * R), w->dR = take(a, (R + 2) * R), w->inverse = take(a, 2 * R), w->gain = take(a, 2 * LAST->lo);
    w->dgain = take(a, 2 * LAST->lo), w->X = take(a, w->P);
    w->window = take(a, (back ? z->hold : 1) * (1 + momentum) * w->P);
    w->A = w->window, w->S = momentum ? w->A + w->P : 0;
    if (back) w->dA = take(a, w->P), w->dX = take(a, w->P), w->dS = momentum ? take(a, w->P) : 0;
}
#define DRIVE(name, Kind, back, run) \
I descent_##name(const Kind *f, I fields) { \
    CHECK(f, fields) \
    const Record *z = &f->z; \
    I failed = 0, threads = enough(z->B * z->H * z->N * z->C * 500, f->threads); \
    _Pragma("omp parallel num_threads(threads)") { \
        unsigned old = flush_on(); \
        Work w = {0}; \
        Arena a = {0}; \
        prepare(&w, z, &a, back); \
        const I room = a.used; \
        allot(&a); \
        if (a.base) memset(a.base, 0, room * sizeof(REAL)), prepare(&w, z, &a, back); \
        else failed = 1; \
        _Pragma("omp for schedule(dynamic)") \
        for (I task = 0; task < z->B * z->H; task++) if (a.base) run; \
        free(a.base); \
        flush_off(old); \
    } \
    return failed; }
DRIVE(forward, Forward, 0, forwards(f, &w, task))
DRIVE(backward, Backward, 1, (w.d = f->gains, backwards(f, &w, task)))
