/* descent: the weights of a small net, moved by its own gradient, chunk by chunk; the equations are ops/descent's.
 *
 * A head of a row is one task, and its weights, momentum and their gradients stay in its thread's cache from chunk to
 * chunk. Within a chunk there are sixteen times fewer numbers than weights: what is a product of weights and steps is
 * one of matrices, everything else is small. Steps lie in rows, features in columns; what meets a matrix from its other
 * side is turned over first, being smaller than the matrix. Backward runs the chunks of a window again, from the
 * weights and momentum that forward kept at its start, and then takes them from the last to the first. With a mirror
 * what is kept, added up and handed on is A, what is asked is M; without one they are the same numbers. */
#include "descent.h"

typedef struct { REAL *A, *X, *c, *S; } Own;
typedef struct { Record z; Own last; REAL *read, *marks; I threads; } Forward;
/* last: gradients of the last state, NULL where there are none; state: of the first, X's NULL where it is not wanted;
 * initial (B, H, P), scale (B, H, C) and norm (B, 2, H, V) are to be summed */
typedef struct {
    Record z;
    const REAL *marks, *read;
    State last;
    Own state;
    REAL *q, *k, *v, *limit, *rate, *decay, *turn, *scale, *initial, *norm;
    I threads;
} Backward;

/* what forward keeps at a window's start: weights, and momentum */
INLINE I mark_of(const Work *w, I task) {
    return (task * ((w->z->N - 1) / w->z->hold) + w->n / w->z->hold - 1) * (w->S ? 2 : 1) * w->Q;
}
/* where sums, momentum and weights lie */
INLINE void lay(Work *w, REAL *start) {
    w->A = start, w->S = w->z->turn.x ? start + w->P : 0;
    w->M = w->z->net[2] != PLAIN ? start + w->each - w->P - up(LAST->rows) : start;
}
/* whether the last step of this chunk reads of the weights after it as they are made of sums; and where it reads to */
INLINE I after(const Work *w) { return w->z->net[2] != PLAIN && complete(w); }
INLINE REAL *last_row(const Work *w, const REAL *read) {
    return (REAL *)read + (steps_of(w)[w->C - 1] * w->z->H + w->h) * LAST->out;
}
static void forwards(const Forward *f, Work *w, I task) {
    lay(w, w->window), enter(w, task);
    const I chunks = chunks_of(w);
    for (w->n = 0; w->n < chunks; w->n++) {
        begin(w);
        if (f->marks && w->n && w->n % w->z->hold == 0) {
            strip(w, f->marks + mark_of(w, task), w->A);
            if (w->S) strip(w, f->marks + mark_of(w, task) + w->Q, w->S);
        }
        teach(w), ask(w, 1), scatter(w, f->read, w->dread, LAST->lo, LAST->out), advance(w, w->A, w->S);
        if (after(w)) ask_after(w), memcpy(last_row(w, f->read), w->dread, LAST->out * sizeof(REAL));
    }
    strip(w, f->last.A + task * w->Q, w->A);
    if (f->last.X) strip(w, f->last.X + task * w->Q, w->X);
    if (w->S) strip(w, f->last.S + task * w->Q, w->S);
    f->last.c[task] = w->c;
}

/* x's gradient through what its rows, each by its share, added: t is what their gradient is without the share */
ONCE void by_shares(const Work *w, REAL *dx, REAL *dshare, const REAL *share, REAL times, const REAL *x, const REAL *t, I width, int add) {
    for (I s = 0; s < w->C; s += W) {
        const I n = w->C - s < W ? w->C - s : W;
        put(dshare + s, get(dshare + s) + times * row_dots(x + s * width, t + s * width, n, width));
    }
    EACH(s, w->C) for (I c = s * width; c < (s + 1) * width; c += W) {
        vec y = times * share[s] * get(t + c);
        put(dx + c, add ? y + get(dx + c) : y);
    }
}
/* through `advance`: what enters and comes back at first, then the state */
static void back_advance(Work *w) {
    const I C = w->C;
    const REAL *ends = w->s.ends, *turns = w->s.turns;
    REAL *const to = complete(w) ? w->dA : w->dX, *dends = w->d.ends, *dturns = w->d.turns;
    EACH(i, w->L) {
        Layer *l = &w->l[i];
        against(w, l, w->turned, l->bt, to), by_shares(w, l->dx, dends, ends, -1, l->x, w->turned, l->li, 0);
        rows_times(w, w->scaled, l->x, ends, -1, l->li);
        if (w->S) {
            against(w, l, w->turned, l->bt, w->dS), by_shares(w, l->dx, dturns, turns, -1, l->x, w->turned, l->li, 1);
            rows_times(w, w->two, l->x, turns, -1, l->li);
        }
        sums(l->db, l->lo, 0, (Term[]){times(l, w->scaled, to), times(l, w->two, w->dS)}, 1 + (w->S != 0), w->C);
    }
    double at_A = 0, at_X = 0, at_S = 0, kept_S = 0;
    const REAL kept = w->s.kept[C - 1], first = w->c * kept;
    /* in blocks, so that few are added to many: rounding would show in the gradients of decays */
    for (I from = 0; from < w->P; from += 16 * W) {
        vec in_A = {}, in_X = {}, in_S = {}, in_kept = {};
        for (I c = from; c < w->P && c < from + 16 * W; c += W) {
            vec g = get(to + c);
            if (complete(w)) in_A += g * get(w->A + c), put(w->dA + c, first * g);
            if (w->held) in_X += g * get(w->X + c), put(w->dX + c, ends[C] * g);
            if (!w->S) continue;
            vec s = get(w->S + c), gs = get(w->dS + c);
            in_S += g * s, in_kept += gs * s, put(w->dS + c, ends[C + 1] * g + turns[C] * gs);
        }
        at_A += total(in_A), at_X += total(in_X), at_S += total(in_S), kept_S += total(in_kept);
    }
    REAL dfirst = complete(w) ? at_A : w->dc;
    w->d.kept[C - 1] += w->c * dfirst, w->dc = kept * dfirst;
    dends[C] += at_X, dends[C + 1] += at_S, dturns[C] += kept_S;
}
/* through one of the matrices that queries meet: its share's gradient, and theirs */
static void back_held(Work *w, const Layer *l, const REAL *M, const REAL *share, REAL *dshare) {
    against(w, l, w->turned, w->two, M), by_shares(w, w->asked, dshare, share, 1, l->asks, w->turned, l->li, 1);
}
/* from the gradient of what x is answered, in w->dread, to that of what the last layer gave */
static void undo_answers(Work *w, REAL *dz) {
    const I lv = LAST->lo, normed = w->z->norm != 0;
    EACH(s, w->C) {
        const REAL *g = w->dread + s * lv, *normal = w->answer + s * lv;
        for (I c = 0; c < lv; c += W) put(dz + s * lv + c, normed ? get(w->gain + c) * get(g + c) : get(g + c));
        for (I c = 0; c < lv && normed; c += W) {
            put(w->dgain + c, get(w->dgain + c) + get(g + c) * get(normal + c));
            put(w->dgain + lv + c, get(w->dgain + lv + c) + get(g + c));
        }
        if (normed) unnormalise(dz + s * lv, dz + s * lv, normal, w->inverse[w->Cp + s], LAST->out);
    }
}
/* through `ask_after`, which runs again: the query's gradient goes to w->own. What a norm divides by lies in the slot that
 * `turn_to` came to last, another chunk's: beyond what is kept there of keys, where nothing outlives `undo_answers` */
static void back_after(Work *w, const Backward *f) {
    ask_after(w);
    memcpy(w->dread, last_row(w, f->read), LAST->out * sizeof(REAL));
    w->C = 1;
    undo_answers(w, w->one);
    for (I i = w->L - 1; i >= 0; i--) {
        Layer *l = &w->l[i];
        flip(w->two, w->Cp, w->one, l->lo, w->Cp, l->lo), against(w, l, w->asked, w->two, w->M);
        write(w, l, w->dM, l->after, l->rows, l->li, w->one);
        if (i) times_slope(w, l - 1, l, w->one, w->asked, l[-1].tilt, 0);
    }
    memcpy(w->own, w->asked, w->l[0].li * sizeof(REAL));
    if (w->z->norm) add_to(w->own, w->dread, LAST->lo);
    w->C = w->z->C;
}
static void back_ask(Work *w, const Backward *f) {
    const Shares *own = &w->s, *d = &w->d;
    const I C = w->C, Cp = w->Cp, lv = LAST->lo, V = LAST->out, K = w->l[0].in;
    REAL *first = w->inverse + 2 * Cp, *dfirst = first + Cp;                   /* c kept */
    gather(w, w->dread, lv, (Rows){f->read, w->z->T * w->z->H * V, w->z->H * V, V}, V, 0);
    if (after(w)) memset(w->dread + (C - 1) * lv, 0, lv * sizeof(REAL));
    undo_answers(w, LAST->dasked);
    memset(d->pairs, 0, C * Cp * sizeof(REAL)), memset(dfirst, 0, Cp * sizeof(REAL));
    EACH(s, C) first[s] = w->c * own->kept[s];
    for (I i = w->L - 1; i >= 0; i--) {
        Layer *l = &w->l[i];
        const REAL *dz = l->dasked;
        multiply(l->db, l->lo, 1, l->minus, 1, Cp, dz, l->lo, C, C);
        multiply(w->scaled, Cp, 0, dz, l->lo, 1, l->bt, Cp, C, l->out);
        for (I c = 0; c < C * Cp; c += W) {
            vec g = -get(w->scaled + c);
            put(d->pairs + c, get(d->pairs + c) + g * get(l->seen + c)), put(w->scaled + c, g * get(own->pairs + c));
        }
        multiply(l->dx, l->li, 1, w->scaled, 1, Cp, l->asks, l->li, C, C);
        multiply(w->asked, l->li, 0, w->scaled, Cp, 1, l->x, l->li, C, C);
        flip(w->two, Cp, dz, l->lo, Cp, l->lo);
        back_held(w, l, w->M, first, dfirst);
        if (w->held) back_held(w, l, w->X, own->seen, d->seen), write(w, l, w->dX, l->of_X, l->rows, l->li, dz);
        if (w->S) back_held(w, l, w->S, own->moved, d->moved), write(w, l, w->dS, l->of_S, l->rows, l->li, dz);
        if (i) times_slope(w, l - 1, l, l[-1].dasked, w->asked, l[-1].slope, 0);
    }
    EACH(s, C) d->kept[s] += w->c * dfirst[s], w->dc += own->kept[s] * dfirst[s];
    if (w->z->norm) EACH(s, C) add_to(w->asked + s * w->l[0].li, w->dread + s * lv, lv);
    if (after(w)) add_to(w->asked + (C - 1) * w->l[0].li, w->own, w->l[0].li);
    scatter(w, f->q, w->asked, w->l[0].li, K);
}
/* from the gradient of what came back to that of what the last layer gave; the answer's to w->dread */
static void back_lose(Work *w, const Backward *f) {
    const Layer *l = LAST;
    const I V = l->out, lv = l->lo, normed = w->z->norm != 0, limited = w->z->limit.x != 0;
    const REAL p = w->z->numbers[0];
    EACH(s, w->C) {
        const I step = steps_of(w)[s];
        vec limit = all(limited ? of_slot(w, w->z->limit, s) : 0), dlimit = {};
        const REAL *db = l->db + s * lv, *e = w->error + s * lv, *n = w->normal + s * lv;
        REAL *de = w->dread + s * lv, *dz = l->dz + s * lv, *y = w->one, *dy = y + lv, *dn = dy + lv;
        REAL inverse = w->inverse[s], turn = 0;
        for (I c = 0; c < lv && normed; c += W)
            put(y + c, get(w->gain + c) * unlike(limited ? clamped(get(e + c), limit) : get(e + c), p));
        if (normed) {
            REAL along = dot(y, n, V) / V, centre = mean(y, V), by = dot(db, n, V) * inverse / V;
            for (I c = 0; c < lv; c += W) put(dn + c, -inverse * along * get(db + c) - by * get(y + c));
            turn = (dot(db, y, V) - centre * V * mean(db, V) - along * dot(db, n, V)) * inverse * inverse / V;
            unnormalise(dy, db, n, inverse, V);
        }
        for (I c = 0; c < lv; c += W) {
            vec x = get(e + c), cut = limited ? clamped(x, limit) : x, g = normed ? get(w->gain + c) * get(dy + c) : get(db + c);
            if (normed) put(w->dgain + c, get(w->dgain + c) + unlike(cut, p) * get(dy + c));
            g *= bend(cut, p);
            if (limited) {
                ints over = x > limit, under = x < -limit;
                dlimit += SELECT(over, g, SELECT(under, -g, (vec){}));
                g = SELECT(over | under, (vec){}, g);
            }
            put(de + c, g);
            if (!normed) { put(dz + c, g); continue; }
            put(w->dgain + c, get(w->dgain + c) + g * get(n + c)), put(w->dgain + lv + c, get(w->dgain + lv + c) + g);
            put(dn + c, get(dn + c) + get(w->gain + c) * g);
        }
        if (normed) unnormalise(dz, dn, n, inverse, V);
        for (I c = 0; c < lv && normed; c += W) put(dz + c, get(dz + c) - turn * get(n + c));
        if (limited && there(w, step)) f->limit[step * w->z->H + w->h] = total(dlimit);
    }
    EACH(s, w->C) for (I c = 0; c < lv; c += W) put(w->asked + s * lv + c, -get(w->dread + s * lv + c));
    scatter(w, f->v, w->asked, lv, V);
}
/* through `teach`, and then to the weights, of which queries had their part */
static void back_teach(Work *w, const Backward *f) {
    const I C = w->C;
    EACH(i, w->L - 1) {
        Layer *l = &w->l[i], *next = l + 1;
        times_slope(w, l, next, l->dz, next->y, l->second, 0);
        for (I c = 0; c < C * l->lo; c += W) put(l->dz + c, get(l->dz + c) * get(l->db + c));
        EACH(s, C) for (I c = 0; c < next->li; c += W)
            put(next->dy + s * next->li + c, c < l->lo ? some(get(l->db + s * l->lo + c) * get(l->first + s * l->lo + c), l->out - c) : (vec){});
        sums(next->db, next->lo, 1, (Term[]){times(next, next->dy, w->M)}, 1, C);
    }
    back_lose(w, f);
    for (I i = w->L - 1; i >= 0; i--) {
        Layer *l = &w->l[i];
        Term met[] = {{l->of_M, 1, l->li, l->dasked, l->lo, C}, {l->x, 1, l->li, l->dz, l->lo, C}, {l->dy, 1, l->li, l->back, l->lo, C}};
        sums(w->dM + l->at, l->lo, 1, met, 2 + (i > 0), l->rows);
        flip(w->two, w->Cp, l->dz, l->lo, w->Cp, l->lo), against(w, l, w->turned, w->two, w->M), add_to(l->dx, w->turned, C * l->li);
        if (i) times_slope(w, l - 1, l, l[-1].dz, l->dx, l[-1].first, 1);
    }
    const Layer *l = &w->l[0];
    if (w->z->norm) EACH(s, C) add_to(l->dx + s * l->li, w->dread + s * LAST->lo, LAST->lo);
    scatter(w, f->k, l->dx, l->li, l->in);
}
/* through `share` */
static void back_share(Work *w, const Backward *f) {
    const Record *z = w->z;
    const Shares *s = &w->s, *d = &w->d;
    const I C = w->C, Cp = w->Cp, *step = steps_of(w), momentum = z->turn.x != 0, scaled = z->scale != 0;
    const I end = C - 1, shown_end = scaled && complete(w);
    REAL *dleft = d->left, *dwritten = d->written, dkept = 0, dcarried = 0, dlasting = d->turns[C];
    memset(dleft, 0, Cp * sizeof(REAL)), memcpy(dwritten, d->turns, Cp * sizeof(REAL));
    for (I t = end; t >= 0; t--) {
        const REAL a = s->decay[t], e = s->turn[t], shown = scaled ? z->scale[t] : 1, by = shown_end ? shown : 1;
        const REAL *left = s->left + t * Cp, *pairs = d->pairs + t * Cp;
        REAL scale = dot(pairs, left, Cp) + d->seen[t] * s->kept[t] + d->moved[t] * s->carried[t], da = 0, de = 0;
        for (I c = 0; c < Cp; c += W) {
            vec g = get(dleft + c) + shown * get(pairs + c);
            put(dleft + c, t == end ? g + by * get(d->ends + c) : g);
        }
        dkept += d->kept[t] + shown * d->seen[t], dcarried += shown * d->moved[t];
        if (t == end) {
            dkept += by * d->ends[C], dcarried += by * d->ends[C + 1];
            if (shown_end) scale += dot(d->ends, left, Cp) + d->ends[C] * s->kept[t] + d->ends[C + 1] * s->carried[t];
        }
        if (scaled) w->dscale[t] += scale;
        if (momentum && there(w, step[t])) add_to(dwritten, dleft, Cp), dlasting += dcarried;
        const REAL rate = (momentum ? dwritten : dleft)[t];
        da = dkept * (t ? s->kept[t - 1] : 1);
        if (t) da += dot(dleft, left - Cp, Cp) + dcarried * s->carried[t - 1];
        de = dlasting * (t ? s->lasting[t - 1] : 1);
        if (t && momentum) de += dot(dwritten, s->written + (t - 1) * Cp, Cp);
        for (I c = 0; c < Cp; c += W) put(dleft + c, a * get(dleft + c)), put(dwritten + c, e * get(dwritten + c));
        dkept *= a, dcarried *= a, dlasting *= e;
        if (!there(w, step[t])) continue;
        const I at = step[t] * z->H + w->h;
        f->rate[at] = rate;
        if (f->decay) f->decay[at] = a * da;
        if (f->turn) f->turn[at] = e * de;
    }
}
static void add_dense(const Work *w, REAL *y, const REAL *M) {
    for (const Layer *l = w->l; l <= LAST; l++)
        EACH(r, l->rows) EACH(c, l->out) y[l->flat + r * l->out + c] += M[l->at + r * l->lo + c];
}
/* to where what is kept of a chunk of the window lies */
static void turn_to(Work *w, I slot) {
    const I by = (slot - w->slot) * w->stride;
    EACH(i, w->L) EACH(k, KEPT) w->l[i].kept[k] += by;
    EACH(k, (I)(sizeof(Shares) / sizeof(REAL *))) ((REAL **)&w->s)[k] += by;
    w->error += by, w->normal += by, w->inverse += by, w->slot = slot;
}
/* at the start of a chunk of the window, or of a sequence, which changes nothing else there but momentum */
INLINE void at_start(Work *w, I from) {
    lay(w, w->window + (w->n - from) * w->each);
    if (!begins(w)) return;
    REAL *const S = w->S;
    lay(w, w->fresh), w->S = S, w->c = 1, w->held = 0;
    if (S) memset(S, 0, w->P * sizeof(REAL));
}
INLINE const REAL *of(const Work *w, const REAL *x, I task) { return x ? x + task * w->Q : 0; }
static void backwards(const Backward *f, Work *w, I task) {
    const Record *z = w->z;
    lay(w, w->window), come_to(w, task);
    const I chunks = chunks_of(w), mirrored = z->net[2] != PLAIN;
    I held = 0;
    if (!chunks) enter(w, task);
    pad(w, w->dA, of(w, f->last.A, task)), pad(w, w->dX, of(w, f->last.X, task)), w->dc = f->last.c ? f->last.c[task] : 0;
    if (w->S) pad(w, w->dS, of(w, f->last.S, task));
    memset(w->dgain, 0, 2 * LAST->lo * sizeof(REAL)), memset(w->dscale, 0, w->C * sizeof(REAL));
    if (mirrored) memset(w->dM, 0, w->P * sizeof(REAL));
    if (z->begins) lay(w, w->fresh), pad(w, w->A, z->initial + w->h * w->Q), reflect(w);
    for (I from = (chunks - 1) / z->hold * z->hold; chunks && from >= 0; from -= z->hold) {
        const I till = from + z->hold < chunks ? from + z->hold : chunks;
        lay(w, w->window);
        if (from) {
            w->n = from, w->c = 1, w->held = 0;
            pad(w, w->A, f->marks + mark_of(w, task)), reflect(w);
            if (w->S) pad(w, w->S, f->marks + mark_of(w, task) + w->Q);
        } else enter(w, task), held = w->held;
        for (w->n = from; w->n < till; w->n++) {
            at_start(w, from), turn_to(w, w->n - from), teach(w);
            /* after a chunk that is not whole a sequence begins, or nothing comes */
            if (w->n + 1 - mirrored >= till || !complete(w)) continue;
            const REAL *A = w->A, *S = w->S;
            lay(w, w->window + (w->n + 1 - from) * w->each), advance(w, A, S);
        }
        for (w->n = till - 1; w->n >= from; w->n--) {
            if (after(w)) lay(w, w->window + (w->n + 1 - from) * w->each), back_after(w, f), undo_reflect(w), settle(w, w->dA);
            w->c = 1, w->held = 0;
            if (!w->n && held) pad_X(w, task);                                 /* advance used it up */
            if (!w->n) w->c = z->state.c[task], w->held = held || f->state.X;
            at_start(w, from), turn_to(w, w->n - from);
            EACH(i, (I)(sizeof(Shares) / sizeof(REAL *))) memset(((REAL **)&w->d)[i], 0, (w->Cp + W) * sizeof(REAL));
            back_advance(w), ask(w, 0), back_ask(w, f), back_teach(w, f), back_share(w, f);
            if (begins(w)) {
                undo_reflect(w);
                add_dense(w, f->initial + task * w->Q, w->dA);
                memset(w->dA, 0, w->P * sizeof(REAL));
                if (w->S) memset(w->dS, 0, w->P * sizeof(REAL));
            }
            if (!w->n && !begins(w)) continue;
            /* only the last chunk hands X on */
            if (w->dc = 0, w->n + 1 == chunks) memset(w->dX, 0, w->P * sizeof(REAL));
        }
    }
    if (lay(w, w->window), w->n = 0, !begins(w)) undo_reflect(w);
    strip(w, f->state.A + task * w->Q, w->dA), f->state.c[task] = w->dc;
    if (f->state.X) strip(w, f->state.X + task * w->Q, w->dX);
    if (w->S) strip(w, f->state.S + task * w->Q, w->dS);
    if (f->scale) memcpy(f->scale + task * w->C, w->dscale, w->C * sizeof(REAL));
    EACH(i, 2 * (z->norm != 0)) memcpy(f->norm + ((w->b * 2 + i) * z->H + w->h) * LAST->out, w->dgain + i * LAST->lo, LAST->out * sizeof(REAL));
}

/* the geometry, and one allocation's panels, counted first */
static void prepare(Work *w, const Record *z, Arena *a, int back) {
    w->z = z, w->L = z->layers, w->C = z->C, w->Cp = up(z->C), w->P = w->Q = 0;
    I wide = w->Cp;
    EACH(i, w->L) {
        Layer *l = &w->l[i];
        l->in = z->net[3 + i], l->out = z->net[4 + i], l->rows = l->in + z->net[0], l->li = up(l->rows), l->lo = up(l->out);
        l->at = w->P, l->flat = w->Q, w->P += l->rows * l->lo, w->Q += l->rows * l->out;
        if (l->li > wide) wide = l->li;
        if (l->lo > wide) wide = l->lo;
    }
    const I R = w->Cp, momentum = z->turn.x != 0, mirrored = z->net[2] != PLAIN;
    #define TAKE(of, n) l->of = take(a, R * (n));
    #define TAKE_SHARES(s) EACH(i, (I)(sizeof(Shares) / sizeof(REAL *))) ((REAL **)&w->s)[i] = take(a, R * (R + 1));
    w->slot = 0, w->stride = a->used;
    for (Layer *l = w->l; l <= LAST; l++) {
        TAKE(x, l->li) TAKE(xt, l->li) TAKE(back, l->lo) TAKE(bt, l->lo) TAKE(y, l->li) TAKE(first, l->lo)
        l->second = back ? take(a, R * l->lo) : 0;
    }
    TAKE_SHARES(s)
    w->error = take(a, R * LAST->lo), w->normal = take(a, R * LAST->lo), w->inverse = take(a, 4 * R);
    w->stride = a->used - w->stride;
    if (back) take(a, (z->hold - 1) * w->stride);
    for (Layer *l = w->l; l <= LAST; l++) {
        TAKE(asks, l->li) TAKE(z, l->lo) TAKE(slope, l->lo) TAKE(seen, R) TAKE(minus, R) TAKE(after, l->li) TAKE(tilt, l->lo)
        TAKE(of_M, l->li) TAKE(of_X, l->li) TAKE(of_S, l->li)
        if (back) { TAKE(dx, l->li) TAKE(db, l->lo) TAKE(dy, l->li) TAKE(dz, l->lo) TAKE(dasked, l->lo) }
    }
    REAL **panels[] = {&w->scaled, &w->one, &w->two, &w->turned, &w->other, &w->asked, &w->answer, &w->dread};
    EACH(i, (I)(sizeof panels / sizeof *panels)) *panels[i] = take(a, R * wide);
    TAKE_SHARES(d)
    w->gain = take(a, 2 * LAST->lo), w->own = take(a, wide), w->dscale = take(a, R);
    w->dgain = take(a, 2 * LAST->lo), w->X = take(a, w->P);
    w->each = (1 + momentum + mirrored) * w->P + mirrored * up(LAST->rows);
    w->window = take(a, (back ? z->hold + mirrored : 1) * w->each);
    w->fresh = back && z->begins ? take(a, w->each) : 0;
    if (back) w->dA = take(a, w->P), w->dX = take(a, w->P), w->dS = momentum ? take(a, w->P) : 0;
    w->dM = back && mirrored ? take(a, w->P) : w->dA;
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
DRIVE(backward, Backward, 1, backwards(f, &w, task))
