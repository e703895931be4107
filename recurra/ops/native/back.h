/* back: the gradients of every matrix memory, by chunks of sixteen steps, where all is small matrix products. A memory
 * that reads for itself solves a unit triangular system for a chunk's writes at once (the UT form).
 *
 * Columns of values need not know of each other, but gradients of queries, keys and decays are sums over them: sums of
 * COLUMNS columns each, added in order, so that no number depends on who computes it. */
#define COLUMNS (2 * W)
/* steps between two meetings of threads that share out the columns of a head */
#define SPAN (8 * WINDOW)

/* dS: the gradient of the last state in, of the first out. dg has the shape of g, du is (B, H, K): of each row. */
typedef struct { Record z; REAL *marks; void *dy; REAL *dS; void *dq, *dk, *dv, *dmore[MORE], *dg; REAL *du; I threads; } Backward;

/* What is made of a chunk. One decay for all keys of a head, or none, is numbers and a table (scalar); one for each key is
 * products along the chunk. An early read is met by the decays of a step less: those of the row before. qf, kf: queries as they reach back to the state that the chunk finds, keys as they reach the
 * one it leaves. left: the gradients of what was read; right: what was written; reads, writes: the same as they decay. */
typedef struct {
    const Backward *f;
    I lk, lv, scalar;
    REAL *q[READS], *k[WRITES], *qf[READS], *kf[WRITES], *gq[READS], *gk[WRITES], *d, *gg, *u, *gu, *whole;
    REAL *left[READS], *right[WRITES], *reads[READS], *writes[WRITES], *gv;
    REAL *A[READS][WRITES], *kt[WRITES], *parts, *P, *table, *since, *until, *x, *w, *sums;
} Panels;

/* What a block of columns adds to the gradients of queries, keys and decays: the table left . right of each read and
 * write; what each read and write finds in the state and its gradient, as columns; S . dS of each key. */
#define TABLE(sums, r, w) ((sums) + ((r) * WRITES + (w)) * CHUNK * W)
#define EDGE(sums, i) ((sums) + READS * WRITES * CHUNK * W + (i) * CHUNK * lk)
#define THROUGH(sums) EDGE(sums, READS + WRITES)
INLINE I numbers(I lk) { return READS * WRITES * CHUNK * W + (READS + WRITES) * CHUNK * lk + lk; }
INLINE I blocks_of(I values) { return (values + COLUMNS - 1) / COLUMNS; }

/* whether reads and writes are not what left and right are */
INLINE int scaled(const Panels *p) { return p->scalar && p->f->z.shape.gw; }

/* what the way forwards makes of a chunk, which the way back finds again */
static void kept_panels(Panels *p, Arena *a) {
    const I lk = p->lk, lv = p->lv;
    EACH(r, READS) {
        p->q[r] = take(a, CHUNK * lk), p->qf[r] = take(a, CHUNK * lk);
        EACH(w, WRITES) p->A[r][w] = take(a, CHUNK * W);
    }
    EACH(w, WRITES) {
        p->k[w] = take(a, CHUNK * lk), p->kf[w] = p->scalar ? p->k[w] : take(a, CHUNK * lk), p->kt[w] = take(a, CHUNK * lk);
        p->right[w] = take(a, CHUNK * lv), p->writes[w] = scaled(p) ? take(a, CHUNK * lv) : p->right[w];
    }
    p->d = take(a, CHUNK * lk), p->whole = take(a, lk), p->parts = take(a, CHUNK / PART * lk);
    p->table = take(a, (CHUNK + 1) * W) + W, p->since = take(a, 2 * W) + W, p->until = take(a, W);
    if (a->base) p->since[-1] = 1, memset(p->table - W, 0, W * sizeof(REAL));
}
static void panels(Panels *p, Arena *a, I heads) {
    const I lk = p->lk, lv = p->lv;
    EACH(r, READS) {
        p->gq[r] = take(a, CHUNK * lk);
        p->left[r] = take(a, CHUNK * lv), p->reads[r] = scaled(p) ? take(a, CHUNK * lv) : p->left[r];
    }
    EACH(w, WRITES) p->gk[w] = take(a, CHUNK * lk);
    p->gv = ERASES ? p->left[LAG] : take(a, CHUNK * lv);
    p->gg = take(a, CHUNK * lk), p->w = take(a, CHUNK * lk), p->x = take(a, CHUNK * (lk > COLUMNS ? lk : COLUMNS));
    p->u = take(a, lk), p->gu = take(a, heads * lk), p->P = take(a, CHUNK * W);
    p->sums = take(a, blocks_of(lv) * numbers(lk));
}

/* y (n x 16 nv) += L x, and scale y + L' x, of a lower triangle: most of the zeros of the other half are left out */
#define HALF (W / 2)
static void lower(REAL *y, I ly, const REAL *L, const REAL *x, I lx, I n, I nv) {
    const I first = n < HALF ? n : HALF;
    product(y, ly, y, 0, L, W, 1, x, lx, first, first, nv);
    if (n > HALF) product(y + HALF * ly, ly, y + HALF * ly, 0, L + HALF * W, W, 1, x, lx, n - HALF, n, nv);
}
static void upper(REAL *y, I ly, const REAL *scale, const REAL *L, const REAL *x, I lx, I n, I nv) {
    product(y, ly, y, scale, L, 1, W, x, lx, n < HALF ? n : HALF, n, nv);
    if (n > HALF) product(y + HALF * ly, ly, y + HALF * ly, scale ? scale + HALF : 0, L + HALF * W + HALF, 1, W, x + HALF * lx, lx, n - HALF, n - HALF, nv);
}

#define SINCE(p, r) ((p)->since - EARLY(&(p)->f->z.shape, r))
#define DECAYED(p, r) ((p)->table - EARLY(&(p)->f->z.shape, r) * W)

/* a piece's keys, and how they decay */
static void read_keys(Panels *p, Piece c, I ahead) {
    const Record *r = &p->f->z;
    const Shape *z = &r->shape;
    const I n = c.n, K = z->K, lk = p->lk;
    EACH(w, WRITES) pack(p->k[w], lk, rows_of(key_of(r, w), c), n, CHUNK, K, ahead);
    if (p->scalar) {
        scalar_spans(p->since, p->until, p->table, rows_of(r->g, c), n, z->gw);
        fill(p->whole, p->since[n - 1], lk);
        EACH(w, WRITES) columns(p->kt[w], p->k[w], lk, lk);
        return;
    }
    decays(p->d, lk, rows_of(r->g, c), n, CHUNK, K, z->gw, ahead);
    EACH(w, WRITES) {
        span_keys(p->kf[w], p->whole, p->k[w], p->d, n, lk);
        part_keys(p->kt[w], p->parts, p->k[w], p->d, p->x, lk);
    }
}
/* what queries r make of keys w; a memory has two kinds of pairs, each a function of its own */
static __attribute__((noinline)) void pairs_of(const Panels *p, I r, I w, I n) {
    #define PAIRS(before, strict) pairs(before, strict, p->A[r][w], p->q[r], p->k[w], p->kt[w], p->parts, p->d, p->u, p->w, n, p->lk)
    if (LAG && r) PAIRS(EARLY(&p->f->z.shape, 1), 1);
    else if (EARLY(&p->f->z.shape, 0)) PAIRS(1, 0);
    else PAIRS(0, 0);
}
/* one of its queries, and what they make of the keys */
static void read_queries(Panels *p, Piece c, I r, I ahead) {
    const Record *z = &p->f->z;
    const I n = c.n, K = z->shape.K, lk = p->lk;
    pack(p->q[r], lk, rows_of(query_of(z, r), c), n, CHUNK, K, ahead);
    if (r && ERASES) negate(p->q[r], n * lk);
    if (p->scalar) {
        if (r) scale_rows(p->qf[r], p->q[r], SINCE(p, r), n, n, lk);
        EACH(w, WRITES) product(p->A[r][w], W, 0, 0, p->q[r], lk, 1, p->kt[w], W, n, lk, 1), weigh(p->A[r][w], p->A[r][w], DECAYED(p, r), n, r);
        return;
    }
    if (z->shape.bonus) pack(p->u, lk, plain(z->shape.bonus + c.h * K, K), 1, 1, K, 0); else memset(p->u, 0, lk * sizeof(REAL));
    span_queries(p->qf[r], p->q[r], p->d, n, lk, EARLY(&z->shape, r));
    EACH(w, WRITES) pairs_of(p, r, w, n);
}
/* what the piece writes, from the state it finds */
static void read_values(Panels *p, Piece c, const REAL *s, I ahead) {
    const I n = c.n, lk = p->lk, lv = p->lv;
    REAL *v = p->right[0], *x = p->right[LAST];
    pack(v, lv, plus_columns(rows_of(p->f->z.v, c), c.lo), n, CHUNK, c.wide, ahead);
    if (LAG && !ERASES) memset(x, 0, CHUNK * lv * sizeof(REAL)), lower(x, lv, p->A[LAG][0], v, lv, n, lv / W);
    if (LAG) product(x, lv, x, 0, p->qf[LAG], lk, 1, s, lv, n, lk, lv / W), solve(x, p->A[LAG][LAST], n, lv);
    EACH(w, scaled(p) ? WRITES : 0) scale_rows(p->writes[w], p->right[w], p->until, n, CHUNK, lv);
}
/* all of a piece but what is asked of it */
static void read_writes(Panels *p, Piece c, const REAL *s, I ahead) {
    read_keys(p, c, ahead);
    if (LAG) read_queries(p, c, LAG, ahead);
    read_values(p, c, s, ahead);
}
/* the state after a chunk from that before it */
static void advance(Panels *p, Piece c, REAL *to, const REAL *s) {
    const I lk = p->lk, lv = p->lv;
    read_writes(p, c, s, CHUNK);
    EACH(w, WRITES) product(to, lv, w ? to : s, w ? 0 : p->whole, p->kf[w], 1, lk, p->writes[w], lv, lk, c.n, lv / W);
}

/* y = the gradient of what was written there: (the decayed key) dS + A' o */
static void written(Panels *p, REAL *y, I w, const REAL *ds, I n) {
    const I lk = p->lk, lv = p->lv;
    product(y, lv, 0, 0, p->kf[w], lk, 1, ds, lv, n, lk, lv / W);
    upper(y, lv, p->scalar ? p->until : 0, p->A[0][w], p->left[0], lv, n, lv / W);
}
/* the sums of columns from lo on, `wide` of them */
static void sum_columns(Panels *p, REAL *to, const REAL *s, const REAL *ds, I n, I lo, I wide) {
    const I lk = p->lk, lv = p->lv;
    EACH(r, READS) columns(p->x, p->reads[r] + lo, lv, wide), product(EDGE(to, r), W, 0, 0, s + lo, lv, 1, p->x, W, lk, wide, 1);
    EACH(w, WRITES) {
        columns(p->x, p->writes[w] + lo, lv, wide), product(EDGE(to, READS + w), W, 0, 0, ds + lo, lv, 1, p->x, W, lk, wide, 1);
        if (scaled(p)) columns(p->x, p->right[w] + lo, lv, wide);
        EACH(r, READS) product(TABLE(to, r, w), W, 0, 0, p->left[r] + lo, lv, 1, p->x, W, n, wide, 1);
    }
}
static void sum_states(REAL *to, const REAL *s, const REAL *ds, I lk, I lv, I wide) {
    for (I c = 0; c < lk; c += W) {
        vec x[W] = {};
        EACH(i, W) for (I e = 0; e < wide; e += W) x[i] += get(s + (c + i) * lv + e) * get(ds + (c + i) * lv + e);
        put(to + c, sums16(x));
    }
}
/* of a step alone whose reads are all after its decay, the decay's gradient is S . dS before it: one sum */
#define ALONE(p, n) ((p)->scalar && (n) == 1 && !EARLY(&(p)->f->z.shape, LAG))
#define EACH_BLOCK(lo, wide) \
    for (I lo = 0, wide; wide = up(c.wide) - lo < COLUMNS ? up(c.wide) - lo : COLUMNS, lo < c.wide; lo += COLUMNS)
/* A chunk's columns: dv, and ds from that of its last state to that of its first; the sums of each block go to `sums`.
 * Its writes are there. */
static void back_columns(Panels *p, Piece c, const REAL *s, REAL *ds, REAL *sums) {
    const Backward *f = p->f;
    const I n = c.n, lk = p->lk, lv = p->lv, size = numbers(lk), alone = ALONE(p, n);
    read_queries(p, c, 0, -CHUNK);
    pack(p->left[0], lv, values_of(f->dy, &f->z, c), n, CHUNK, c.wide, -CHUNK);
    if (LAG) {
        REAL *y = p->left[LAG];
        memset(y, 0, CHUNK * lv * sizeof(REAL));
        written(p, y, LAST, ds, n), solve_transposed(y, p->A[LAG][LAST], n, lv);
    }
    if (!ERASES) written(p, p->gv, 0, ds, n);
    if (LAG && !ERASES) upper(p->gv, lv, 0, p->A[LAG][0], p->left[LAG], lv, n, lv / W);
    EACH(r, scaled(p) ? READS : 0) scale_rows(p->reads[r], p->left[r], SINCE(p, r), n, CHUNK, lv);
    EACH_BLOCK(lo, wide) {
        REAL *to = sums + lo / COLUMNS * size;
        sum_columns(p, to, s, ds, n, lo, wide);
        if (f->dg && !alone) sum_states(THROUGH(to), s + lo, ds + lo, lk, lv, wide);
    }
    EACH(r, READS) product(ds, lv, ds, r ? 0 : p->whole, p->scalar ? p->q[r] : p->qf[r], 1, lk, p->reads[r], lv, lk, n, lv / W);
    if (f->dg && alone) EACH_BLOCK(lo, wide) sum_states(THROUGH(sums + lo / COLUMNS * size), s + lo, ds + lo, lk, lv, wide);
    unpack(values_of(f->dv, &f->z, c), p->gv, lv, n, c.wide);
}

#define LATER(x) PICK(x, (vec){}, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)
static void scalar_back(Panels *p, REAL *sums, I n, At dg) {
    const Shape *z = &p->f->z.shape;
    const I lk = p->lk;
    memset(p->P, 0, CHUNK * W * sizeof(REAL));
    EACH(r, READS) EACH(w, WRITES) for (I i = EARLY(z, r); i < n; i++) {
        REAL *P = p->P + (i - EARLY(z, r)) * W;
        put(P, get(P) + get(p->A[r][w] + i * W) * get(TABLE(sums, r, w) + i * W));
    }
    if (dg.x) {
        vec reads = {}, writes = {}, through = {};
        EACH(r, READS) {
            const vec y = row_dots(p->gq[r], p->q[r], n, lk);
            reads += EARLY(z, r) ? LATER(y) : y;
        }
        EACH(w, WRITES) writes += row_dots(p->gk[w], p->k[w], n, lk);
        for (I c = 0; c < lk; c += W) through += get(THROUGH(sums) + c);
        if (ALONE(p, n)) set(dg, 0, sum1(through));
        else scalar_decay_gradient(dg, p->since[n - 1] * sum1(through), reads, writes, p->P, n);
    }
    EACH(r, READS) EACH(w, WRITES) {
        REAL *G = TABLE(sums, r, w);
        weigh(G, G, DECAYED(p, r), n, r);
        lower(p->gq[r], lk, G, p->k[w], lk, n, lk / W);
        upper(p->gk[w], lk, 0, G, p->q[r], lk, n, lk / W);
    }
}
static void key_back(Panels *p, Piece c, REAL *sums, REAL *gg) {
    const Shape *z = &p->f->z.shape;
    const I n = c.n, lk = p->lk;
    if (gg) {
        edge_state(gg, p->whole, THROUGH(sums), n, lk);
        EACH(w, WRITES) edge_keys(gg, p->gk[w], p->kf[w], n, lk);
        EACH(r, READS) edge_queries(gg, p->gq[r], p->qf[r], n, lk, EARLY(z, r));
    }
    EACH(r, READS) span_queries(p->gq[r], p->gq[r], p->d, n, lk, EARLY(z, r));
    EACH(w, WRITES) span_keys(p->gk[w], p->whole, p->gk[w], p->d, n, lk);
    EACH(r, READS) EACH(w, WRITES) {
        REAL *G = TABLE(sums, r, w);
        memset(G + n * W, 0, (CHUNK - n) * W * sizeof(REAL));
        pairs_back(p->gq[r], p->gk[w], gg, p->gu + c.h * lk, G, p->q[r], p->k[w], p->d, p->u, n, lk, EARLY(z, r), r);
    }
}
/* the gradients of a chunk's queries, keys and decays, from the sums of its `blocks` of columns */
static void back_keys(Panels *p, Piece c, REAL *sums, I blocks) {
    const Backward *f = p->f;
    const Record *z = &f->z;
    const I n = c.n, K = z->shape.K, gw = z->shape.gw, lk = p->lk, size = numbers(lk);
    for (I b = 1; b < blocks; b++) for (I i = 0; i < size; i += W) put(sums + i, get(sums + i) + get(sums + b * size + i));
    EACH(r, READS) for (I j = 0; j < lk; j += W) transpose16(p->gq[r] + j, lk, EDGE(sums, r) + j * W, W);
    EACH(w, WRITES) for (I j = 0; j < lk; j += W) transpose16(p->gk[w] + j, lk, EDGE(sums, READS + w) + j * W, W);
    At dg = f->dg ? dense(f->dg, z->g.type, &z->shape, c, gw > 1 ? K : 1) : (At){0};
    if (p->scalar) scalar_back(p, sums, n, dg); else key_back(p, c, sums, dg.x ? p->gg : 0);
    if (ERASES) negate(p->gq[LAG], n * lk);
    EACH(r, READS) unpack(dense(r ? f->dmore[0] : f->dq, query_of(z, r).type, &z->shape, c, K), p->gq[r], lk, n, K);
    EACH(w, WRITES) unpack(dense(w ? f->dmore[MORE - 1] : f->dk, key_of(z, w).type, &z->shape, c, K), p->gk[w], lk, n, K);
    if (dg.x && gw > 1) unpack(dg, p->gg, lk, n, K);
    else if (dg.x && !p->scalar) row_sums(dg, p->gg, lk, n);
}

/* Steps whose columns are done before their keys. slots: room for the sums of every block of columns of every chunk, of
 * which a window has at most `most`; NULL where one task has all columns of its heads, and nothing need wait. */
typedef struct { I from, till, most; REAL *slots; } Span;
INLINE I windows_of(const Span *t) { return (t->till - t->from + WINDOW - 1) / WINDOW; }
INLINE REAL *slot_of(const Span *t, const Shape *z, Piece c, I window, I chunk) {
    I head = c.b * z->H + c.h, at = (head * windows_of(t) + (window - t->from) / WINDOW) * t->most + chunk;
    return t->slots + at * blocks_of(z->V) * numbers(up(z->K));
}
/* the first steps of the chunks of a window, and where it ends; a chunk begins at a multiple of CHUNK, or a sequence */
static I chunks_of(const Shape *z, I b, I from, I *starts) {
    I n = 0, stop = from + WINDOW < z->T ? from + WINDOW : z->T;
    for (I t = from; t < stop; t = end_of(z, b, t, CHUNK)) starts[n++] = t;
    starts[n] = stop;
    return n;
}
static I most_chunks(const Shape *z) {
    I most = 0, starts[WINDOW + 1];
    EACH(b, z->B) for (I t = 0; t < z->T; t += WINDOW) {
        I n = chunks_of(z, b, t, starts);
        most = n > most ? n : most;
    }
    return most;
}
#define TAKE(i) c.t = starts[i], c.n = starts[(i) + 1] - c.t, c.fresh = fresh(z, c.b, c.t)

/* Windows from the last to the first: in each, chunks run forwards from its mark, then back. A chunk that begins a
 * sequence finds zero, so the others begin at multiples of CHUNK: four states a window. */
INLINE I room(const Plan *p) { return (WINDOW / CHUNK + 1 + p->group) * p->size; }
static void backwards(Panels *own, const Plan *p, I task, REAL *space, const Span *span) {
    const Backward *f = own->f;
    const Shape *z = &f->z.shape;
    Piece c = piece_of(z, p, task);
    const I h0 = c.h, till = h0 + p->group;
    I starts[WINDOW + 1];
    REAL *window = space, *zero = window + WINDOW / CHUNK * p->size, *states = zero + p->size;
    memset(zero, 0, p->size * sizeof(REAL));
    #define PLACE(i) (starts[i] % WINDOW / CHUNK)
    #define FOUND(i) (fresh(z, c.b, starts[i]) ? zero : window + PLACE(i) * p->size)
    #define LEADS(i) ((i) + 1 < n && !fresh(z, c.b, starts[(i) + 1]))
    for (; c.h < till; c.h++) pack(STATE(c.h), p->lv, state_of(f->dS, z, c), z->K, p->lk, c.wide, 0);
    for (I from = (span->till - 1) / WINDOW * WINDOW; from >= span->from; from -= WINDOW) {
        const I n = chunks_of(z, c.b, from, starts);
        for (c.h = h0; c.h < till; c.h++) {
            c.t = from;
            pack(window, p->lv, from ? mark_of(f->marks, z, c) : state_of(z->first, z, c), z->K, p->lk, c.wide, 0);
            for (I i = 0; i + 1 < n; i++) if (LEADS(i)) {
                TAKE(i);
                advance(own + PLACE(i), c, FOUND(i + 1), FOUND(i));
            }
            /* of chunks in one place only the last can lead to the next: what it made is still there */
            for (I i = n - 1; i >= 0; i--) {
                TAKE(i);
                Panels *mine = own + PLACE(i);
                REAL *sums = span->slots ? slot_of(span, z, c, from, i) + c.lo / COLUMNS * numbers(p->lk) : own->sums;
                if (!LEADS(i)) read_writes(mine, c, FOUND(i), -CHUNK);
                back_columns(mine, c, FOUND(i), STATE(c.h), sums);
                if (!span->slots) back_keys(mine, c, sums, blocks_of(z->V));
                if (c.fresh) memset(STATE(c.h), 0, p->size * sizeof(REAL));
            }
        }
    }
    for (c.h = h0; c.h < till; c.h++) unpack(state_of(f->dS, z, c), STATE(c.h), p->lv, z->K, c.wide);
}
/* what was left to do in one window of one head */
static void finish(Panels *own, I task, const Span *span) {
    const Shape *z = &own->f->z.shape;
    const I head = task / windows_of(span), from = span->from + task % windows_of(span) * WINDOW;
    Piece c = {.b = head / z->H, .h = head % z->H};
    I starts[WINDOW + 1], n = chunks_of(z, c.b, from, starts);
    EACH(i, n) {
        TAKE(i);
        read_keys(own, c, CHUNK);
        EACH(r, READS) read_queries(own, c, r, CHUNK);
        back_keys(own, c, slot_of(span, z, c, from, i), blocks_of(z->V));
    }
}

I ENGINE(backward)(const Backward *f, I fields) {
    CHECK(f, fields)
    const Shape *z = &f->z.shape;
    /* a bonus's gradient is a sum over time */
    const Plan p = plan(z, f->threads, z->bonus ? 0 : COLUMNS);
    const I length = p.parts > 1 ? SPAN : (z->T + WINDOW - 1) / WINDOW * WINDOW;
    const I most = p.parts > 1 ? most_chunks(z) : 0, slots = z->B * z->H * (SPAN / WINDOW) * most * blocks_of(z->V);
    REAL *sums = slots ? malloc(slots * numbers(p.lk) * sizeof(REAL)) : 0;
    if (slots && !sums) return 1;
    I failed = 0;
    #pragma omp parallel num_threads(p.threads)
    {
        unsigned old = flush_on();
        Panels own[WINDOW / CHUNK] = {{.f = f, .lk = p.lk, .lv = p.lv, .scalar = z->gw < 2 && !z->bonus}};
        Arena a = {0};
        REAL *space = 0;
        for (int round = 0; round < 2; round++) {
            if (round) allot(&a);
            panels(own, &a, z->H), space = take(&a, room(&p));
            for (I i = WINDOW / CHUNK - 1; i >= 0; i--) own[i] = *own, kept_panels(own + i, &a);
        }
        if (!a.base) failed = 1;
        for (I from = (z->T - 1) / length * length; from >= 0; from -= length) {
            const Span span = {from, from + length < z->T ? from + length : z->T, most, sums};
            #pragma omp for schedule(dynamic)
            for (I task = 0; task < p.tasks; task++) {
                if (!a.base) continue;
                memset(own->gu, 0, z->H * p.lk * sizeof(REAL));
                backwards(own, &p, task, space, &span);
                Piece c = piece_of(z, &p, task);
                for (I h = c.h; f->du && h < c.h + p.group; h++) unpack(plain(f->du + (c.b * z->H + h) * z->K, z->K), own->gu + h * p.lk, p.lk, 1, z->K);
            }
            if (!slots) break;
            #pragma omp for schedule(dynamic)
            for (I task = 0; task < z->B * z->H * windows_of(&span); task++) if (a.base) finish(own, task, &span);
        }
        free(a.base);
        flush_off(old);
    }
    free(sums);
    return failed;
}
