/* attention:  y_t = sum_j p_tj v_j,  p_t = softmax_j(q_t' k_j / sqrt K),  over the keys first_t <= j <= last_t
 *
 * Sixteen queries are one vec, so that their maxima and sums are taken without a shuffle; scores lie turned, a row for
 * each key. A head's keys and values are copied once to where they are dense; then each sixteen queries go through the
 * keys that any of them sees, and no others. The way back makes their weights again. A head is one task, done in order,
 * so that no number depends on who computes it. What a query adds to its scores, to that of its last key last, is a row
 * of its own, which is turned as well. */
#include "chunk.h"

/* added: (B, T, H, ages), if there is any. each: how far the spans of one row are from those of the next; 0: they are the
 * same */
typedef struct { Typed q, k, v, added; const I *first, *last; I ages, each, B, T, L, H, K, V; } Given;
typedef struct { Given z; void *o; I threads; } Forward;
typedef struct { Given z; Typed g; void *dq, *dk, *dv, *dadded; I threads; } Backward;

/* sixteen queries or `n`, from step t on; the keys that any sees, those that all see, and those of each counted from the
 * first that any sees, as numbers, which are exact for 16 million */
typedef struct { I t, n, from, till, all_from, all_till; vec first, last; } Tile;
static Tile tile_of(const Given *z, I b, I t) {
    Tile c = {.t = t, .n = t + W < z->T ? W : z->T - t, .from = z->L, .all_till = z->L};
    for (I i = 0; i < W; i++) {
        const I at = b * z->each + t + (i < c.n ? i : c.n - 1), first = z->first[at], last = z->last[at];
        if (first < c.from) c.from = first;
        if (first > c.all_from) c.all_from = first;
        if (last + 1 > c.till) c.till = last + 1;
        if (last < c.all_till) c.all_till = last;
    }
    for (I i = 0; i < W; i++) {
        const I at = b * z->each + t + (i < c.n ? i : c.n - 1);
        c.first[i] = z->first[at] - c.from, c.last[i] = z->last[at] - c.from;
    }
    return c;
}
INLINE void turn(REAL *y, const REAL *x, I lx) { for (I c = 0; c < lx; c += W) transpose16(y + c * W, W, x + c, lx); }
INLINE void turn_back(REAL *y, I ly, const REAL *x) { for (I c = 0; c < ly; c += W) transpose16(y + c, ly, x + c * W, W); }
/* the scores of the keys that any sees, -inf where a query does not: (keys, queries) */
INLINE void scores(REAL *s, const REAL *k, I lk, const REAL *turned, const Tile *c) {
    const I rows = up(c->till - c->from);
    product(s, W, 0, 0, k + c->from * lk, lk, 1, turned, W, rows, lk, 1);
    for (I i = 0; i < rows; i++) {
        if (i + c->from >= c->all_from && i + c->from <= c->all_till) continue;
        const vec at = all(i), x = get(s + i * W), none = all(-INFINITY);
        put(s + i * W, SELECT(at < c->first, none, SELECT(at > c->last, none, x)));
    }
}
/* the rows of a head, and the dense (B, T, H, width) that `x` is */
INLINE At of_head(void *x, I type, const Given *z, I steps, I width, I b, I h) {
    return (At){(char *)x + (b * steps * z->H + h) * width * bytes(type), z->H * width, type};
}
INLINE At from(At x, I t) { x.x += t * x.stride * bytes(x.type); return x; }
/* sixteen queries as they are scored */
static void queries(REAL *q, REAL *turned, const Given *z, const Tile *c, I b, I h, I lk) {
    const REAL scale = 1 / sqrt((double)z->K);
    pack(q, lk, at(z->q, b, c->t, h), c->n, W, z->K, W);
    for (I i = 0; i < W * lk; i += W) put(q + i, scale * get(q + i));
    turn(turned, q, lk);
}
/* how many keys sixteen queries see at most */
static I longest(const Given *z) {
    I most = 0;
    for (I b = 0; b < (z->each ? z->B : 1); b++) for (I t = 0; t < z->T; t += W) {
        const Tile c = tile_of(z, b, t);
        if (c.till - c.from > most) most = c.till - c.from;
    }
    return most;
}
/* keys and values of a head, with zeros after the last, so that all spans are of sixteens; sixteen queries, and turned;
 * their scores, of which there are as many as `longest` says; what they find; and, unturned, what is added */
typedef struct { I lk, lv, rows, wide; REAL *k, *v, *q, *turned, *s, *o, *added; } Room;
static Room room(const Given *z, Arena *a, I most) {
    Room r = {.lk = up(z->K), .lv = up(z->V), .rows = z->L + W, .wide = up(most)};
    r.k = take(a, r.rows * r.lk), r.v = take(a, r.rows * r.lv), r.q = take(a, W * r.lk), r.turned = take(a, W * r.lk);
    r.s = take(a, up(most) * W), r.o = take(a, 2 * W * r.lv), r.added = take(a, z->ages ? W * r.wide : 0);
    return r;
}
/* gradients: of scores; of keys and values of a head; of sixteen queries, turned; of what they found, and turned */
typedef struct { Room r; REAL *s, *k, *v, *q, *g, *turned; } Back;
/* a thread's own, with or without room for gradients */
static Back rooms(const Given *z, Arena *a, I most, I gradients) {
    Back w = {0};
    for (int round = 0; round < 2; round++) {
        if (round) allot(a);
        w.r = room(z, a, most);
        if (!gradients) continue;
        w.s = take(a, up(most) * W), w.k = take(a, w.r.rows * w.r.lk), w.v = take(a, w.r.rows * w.r.lv);
        w.q = take(a, W * w.r.lk), w.g = take(a, W * w.r.lv), w.turned = take(a, W * w.r.lv);
    }
    return w;
}
static void head(const Room *r, const Given *z, I b, I h) {
    pack(r->k, r->lk, at(z->k, b, 0, h), z->L, r->rows, z->K, W);
    pack(r->v, r->lv, at(z->v, b, 0, h), z->L, r->rows, z->V, W);
}
/* which of what a query adds belong to keys of the tile: the first row, how many, and the first number */
typedef struct { I row, n, age; } Part;
INLINE Part part_of(const Given *z, const Tile *c, I i) {
    const I from = (I)c->last[i] + 1 - z->ages, row = from > 0 ? from : 0;
    return (Part){.row = row, .n = (I)c->last[i] + 1 - row, .age = row - from};
}
static void add(const Room *r, const Given *z, const Tile *c, I b, I h) {
    if (!z->ages) return;
    const I wide = up(c->till - c->from);
    memset(r->added, 0, W * wide * sizeof(REAL));
    for (I i = 0; i < c->n; i++) {
        const Part p = part_of(z, c, i);
        const At x = plus_columns(at(z->added, b, c->t + i, h), p.age);
        for (I n = 0; n < p.n; n += W) put_some(r->added + i * wide + p.row + n, load_some(x.x + n * bytes(x.type), x.type, p.n - n), p.n - n);
    }
    for (I j = 0; j < wide; j += W) {
        REAL turned[W * W];
        transpose16(turned, W, r->added + j, wide);
        for (I i = 0; i < W; i++) put(r->s + (j + i) * W, get(r->s + (j + i) * W) + get(turned + i * W));
    }
}
/* the gradients of what was added: those of the scores */
static void added_back(const Room *r, const Given *z, const Tile *c, const REAL *s, void *to, I b, I h) {
    if (!to) return;
    const I wide = up(c->till - c->from);
    for (I j = 0; j < wide; j += W) transpose16(r->added + j, wide, s + j * W, W);
    for (I i = 0; i < c->n; i++) {
        const Part p = part_of(z, c, i);
        At x = from(of_head(to, z->added.type, z, z->T, z->ages, b, h), c->t + i);
        for (I n = 0; n < z->ages; n += W) store_some(x.x + n * bytes(x.type), x.type, (vec){}, z->ages - n);
        x = plus_columns(x, p.age);
        for (I n = 0; n < p.n; n += W) store_some(x.x + n * bytes(x.type), x.type, get_some(r->added + i * wide + p.row + n, p.n - n), p.n - n);
    }
}
INLINE vec largest(const REAL *s, I rows) {
    vec most = get(s);
    for (I i = 1; i < rows; i++) { const vec x = get(s + i * W); most = SELECT(x > most, x, most); }
    return most;
}

static void read_tile(const Room *r, const Given *z, const Tile *c, I b, I h) {
    const I rows = up(c->till - c->from);
    scores(r->s, r->k, r->lk, r->turned, c);
    add(r, z, c, b, h);
    const vec most = largest(r->s, rows);
    vec sum = {};
    for (I i = 0; i < rows; i++) {
        const vec p = exps(get(r->s + i * W) - most);
        put(r->s + i * W, p), sum += p;
    }
    product(r->o, W, 0, 0, r->v + c->from * r->lv, 1, r->lv, r->s, W, r->lv, rows, 1);
    for (I i = 0; i < r->lv; i++) put(r->o + i * W, get(r->o + i * W) / sum);
    turn_back(r->o + W * r->lv, r->lv, r->o);
}
I attention_forward(const Forward *f, I fields) {
    CHECK(f, fields)
    const Given *z = &f->z;
    const I most = longest(z);
    I failed = 0;
    #pragma omp parallel num_threads(enough(z->B * z->H * z->T * (z->K + z->V), f->threads))
    {
        const unsigned old = flush_on();
        Arena a = {0};
        const Room r = rooms(z, &a, most, 0).r;
        if (!a.base) failed = 1;
        #pragma omp for schedule(dynamic)
        for (I task = 0; task < z->B * z->H; task++) {
            if (!a.base) continue;
            const I b = task / z->H, h = task % z->H;
            head(&r, z, b, h);
            for (I t = 0; t < z->T; t += W) {
                const Tile c = tile_of(z, b, t);
                queries(r.q, r.turned, z, &c, b, h, r.lk);
                read_tile(&r, z, &c, b, h);
                unpack(from(of_head(f->o, z->q.type, z, z->T, z->V, b, h), t), r.o + W * r.lv, r.lv, c.n, z->V);
            }
        }
        free(a.base);
        flush_off(old);
    }
    return failed;
}

/* ds = p (dp - sum of p dp), with dp = v' g, whose sum is taken of the same numbers that it is taken from */
static void back_tile(const Back *w, const Given *z, const Tile *c, I b, I h) {
    const Room *r = &w->r;
    const I lk = r->lk, lv = r->lv, rows = up(c->till - c->from);
    scores(r->s, r->k, lk, r->turned, c);
    add(r, z, c, b, h);
    product(w->s, W, 0, 0, r->v + c->from * lv, lv, 1, w->turned, W, rows, lv, 1);
    const vec most = largest(r->s, rows);
    vec sum = {}, mean = {};
    for (I i = 0; i < rows; i++) {
        const vec p = exps(get(r->s + i * W) - most);
        put(r->s + i * W, p), sum += p, mean += p * get(w->s + i * W);
    }
    const vec share = 1 / sum;
    mean *= share;
    for (I i = 0; i < rows; i++) {
        const vec p = share * get(r->s + i * W);
        put(r->s + i * W, p), put(w->s + i * W, p * (get(w->s + i * W) - mean));
    }
    REAL *k = w->k + c->from * lk, *v = w->v + c->from * lv;
    product(v, lv, v, 0, r->s, W, 1, w->g, lv, rows, W, lv / W);
    product(k, lk, k, 0, w->s, W, 1, r->q, lk, rows, W, lk / W);
    product(w->q, W, 0, 0, r->k + c->from * lk, 1, lk, w->s, W, lk, rows, 1);
}
static void back_head(const Backward *f, const Back *w, I b, I h) {
    const Given *z = &f->z;
    const Room *r = &w->r;
    const I lk = r->lk, lv = r->lv;
    const REAL scale = 1 / sqrt((double)z->K);
    head(r, z, b, h);
    memset(w->k, 0, r->rows * lk * sizeof(REAL)), memset(w->v, 0, r->rows * lv * sizeof(REAL));
    for (I t = 0; t < z->T; t += W) {
        const Tile c = tile_of(z, b, t);
        queries(r->q, r->turned, z, &c, b, h, lk);
        pack(w->g, lv, at(f->g, b, t, h), c.n, W, z->V, W), turn(w->turned, w->g, lv);
        back_tile(w, z, &c, b, h);
        added_back(r, z, &c, w->s, f->dadded, b, h);
        for (I i = 0; i < lk; i++) put(w->q + i * W, scale * get(w->q + i * W));
        turn_back(r->q, lk, w->q);
        unpack(from(of_head(f->dq, z->q.type, z, z->T, z->K, b, h), t), r->q, lk, c.n, z->K);
    }
    unpack(of_head(f->dk, z->k.type, z, z->L, z->K, b, h), w->k, lk, z->L, z->K);
    unpack(of_head(f->dv, z->v.type, z, z->L, z->V, b, h), w->v, lv, z->L, z->V);
}
I attention_backward(const Backward *f, I fields) {
    CHECK(f, fields)
    const Given *z = &f->z;
    const I most = longest(z);
    I failed = 0;
    #pragma omp parallel num_threads(enough(z->B * z->H * z->T * (z->K + z->V), f->threads))
    {
        const unsigned old = flush_on();
        Arena a = {0};
        const Back w = rooms(z, &a, most, 1);
        if (!a.base) failed = 1;
        #pragma omp for schedule(dynamic)
        for (I task = 0; task < z->B * z->H; task++) if (a.base) back_head(f, &w, task / z->H, task % z->H);
        free(a.base);
        flush_off(old);
    }
    return failed;
}
