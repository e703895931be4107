/* address:  S_t = diag(e^{g_t}) S_{t-1} + w_t k_t',   o_t = S_t q_t
 *
 * Sixteen slots are one vec, so that their decays are one and nothing is summed across lanes: the memory lies turned,
 * a row for each number of a key, and sixteen rows stay in registers over a block of steps. The way back is outer's. */
#include "chunk.h"

typedef struct { Rows q, k, w, g; const uint8_t *reset; const REAL *first; I B, T, H, K, V; REAL *last, *o; I threads; } Forward;

/* a block of a head: queries and keys (steps, lv), writes, decays and reads (steps, lk) */
typedef struct { I lk, lv; REAL *s, *q, *k, *w, *d, *o; } Room;
static void room(Room *r, Arena *a) {
    r->s = take(a, r->lv * r->lk), r->q = take(a, BLOCK * r->lv), r->k = take(a, BLOCK * r->lv);
    r->w = take(a, BLOCK * r->lk), r->d = take(a, BLOCK * r->lk), r->o = take(a, BLOCK * r->lk);
}
/* sixteen rows of the turned memory and sixteen slots, over n steps */
static void walk(const Room *r, I i, I j, const uint8_t *reset, I n) {
    const I lk = r->lk, lv = r->lv;
    REAL *S = r->s + i * lk + j, *o = r->o + j;
    const REAL *q = r->q + i, *k = r->k + i, *w = r->w + j, *d = r->d + j;
    vec s[W];
    for (int c = 0; c < W; c++) s[c] = get(S + c * lk);
    for (I t = 0; t < n; t++, q += lv, k += lv, w += lk, d += lk, o += lk) {
        const vec x = get(w), y = get(d);
        vec even = {}, odd = {};
        if (reset && reset[t]) for (int c = 0; c < W; c++) s[c] = (vec){};
        for (int c = 0; c < W; c += 2) {
            s[c] = y * s[c] + k[c] * x, s[c + 1] = y * s[c + 1] + k[c + 1] * x;
            even += q[c] * s[c], odd += q[c + 1] * s[c + 1];
        }
        put(o, get(o) + (even + odd));
    }
    for (int c = 0; c < W; c++) put(S + c * lk, s[c]);
}
INLINE At rows_from(Rows x, I b, I t, I h) { return plain(row(x, b, t, h), x.t); }
static void head(const Forward *f, const Room *r, I b, I h) {
    const I K = f->K, V = f->V, lk = r->lk, lv = r->lv, at = (b * f->H + h) * K * V;
    memset(r->s, 0, lv * lk * sizeof(REAL));
    for (I i = 0; i < K; i++) for (I c = 0; c < V; c++) r->s[c * lk + i] = f->first[at + i * V + c];
    for (I t = 0; t < f->T; t += BLOCK) {
        const I n = t + BLOCK < f->T ? BLOCK : f->T - t;
        pack(r->q, lv, rows_from(f->q, b, t, h), n, n, V, BLOCK), pack(r->k, lv, rows_from(f->k, b, t, h), n, n, V, BLOCK);
        pack(r->w, lk, rows_from(f->w, b, t, h), n, n, K, BLOCK);
        decays(r->d, lk, rows_from(f->g, b, t, h), n, n, K, K + 1, BLOCK);
        memset(r->o, 0, n * lk * sizeof(REAL));
        for (I j = 0; j < lk; j += W) for (I i = 0; i < lv; i += W) walk(r, i, j, f->reset ? f->reset + b * f->T + t : 0, n);
        unpack(plain(f->o + ((b * f->T + t) * f->H + h) * K, f->H * K), r->o, lk, n, K);
    }
    for (I i = 0; i < K; i++) for (I c = 0; c < V; c++) f->last[at + i * V + c] = r->s[c * lk + i];
}
/* a single step goes from the first state straight into the last, a slot after another */
static I step(const Forward *f) {
    const I K = f->K, V = f->V;
    #pragma omp parallel for num_threads(enough(f->B * f->H * K * V, f->threads))
    for (I task = 0; task < f->B * f->H; task++) {
        const I b = task / f->H, h = task % f->H;
        const REAL *q = row(f->q, b, 0, h), *k = row(f->k, b, 0, h), *w = row(f->w, b, 0, h), *g = row(f->g, b, 0, h);
        for (I i = 0; i < K; i++) {
            const REAL *first = f->first + (task * K + i) * V;
            REAL *last = f->last + (task * K + i) * V, d = exps(all(g[i]))[0];
            vec y = {};
            for (I c = 0; c < V; c += W) {
                vec s = f->reset && f->reset[b] ? (vec){} : d * get_some(first + c, V - c);
                s += w[i] * get_some(k + c, V - c), y += s * get_some(q + c, V - c);
                put_some(last + c, s, V - c);
            }
            f->o[task * K + i] = sum1(y);
        }
    }
    return 0;
}

I address_forward(const Forward *f, I fields) {
    CHECK(f, fields)
    if (f->T == 1) return step(f);
    I failed = 0;
    #pragma omp parallel num_threads(enough(f->B * f->T * f->H * f->K * f->V / 8, f->threads))
    {
        unsigned old = flush_on();
        Room r = {.lk = up(f->K), .lv = up(f->V)};
        Arena a = {0};
        for (int round = 0; round < 2; round++) {
            if (round) allot(&a);
            room(&r, &a);
        }
        if (!a.base) failed = 1;
        #pragma omp for schedule(dynamic)
        for (I task = 0; task < f->B * f->H; task++)
            if (a.base) head(f, &r, task / f->H, task % f->H);
        free(a.base);
        flush_off(old);
    }
    return failed;
}
