/* projection (LMU, HiPPO):  f += E_h h + E_m m,  m += C (m - f e_0),  d += R_m m + R_h h,  h <- rule(d, h)
 *
 * One row after another, its h and m in the first cache. C is a step's, or all steps' (a stride of nothing). Units and
 * polynomials are filled up to sixteens with zeros. For gradients a step keeps what came in and what drove it; going
 * back hands on the gradients of h, m, f and d, and those of the weights are products of these over all steps. */
#include "rows.h"

typedef struct {
    const REAL *feed /* B, T, M */, *drive /* B, T, G U */, *change /* N, N of each step and row */;
    I change_b, change_t;
    const REAL *feed_hidden /* M, U */, *feed_memory /* NULL, or M, M N */, *recur_hidden /* NULL, or G U, U */, *recur_memory /* G U, M N */;
    const REAL *hidden_in /* recur_hidden' */, *memory_in /* recur_memory' */, *hidden, *memory;
    const uint8_t *reset, *valid;
    I batch, T, M, U, N, gated /* the rule; 0: tanh */, threads;
} Projection;

#define OPEN(f) const Projection z = (f)->z; const I T = z.T, M = z.M, U = z.U, N = z.N, MN = M * N, GU = U * (1 + z.gated);
#define HAPPENS(t) (!z.valid || z.valid[b * T + (t)])
#define BEGINS(t) (z.reset && z.reset[b * T + (t)])
#define CHANGE(t) (z.change + b * z.change_b + (t) * z.change_t)

/* kept, all or none: (B, T, *) of h and m before a step, m after it, and d */
typedef struct { Projection z; REAL *last, *last_memory, *y, *hiddens, *memories, *after, *drives; } Forward;

static void forward(const Forward *f, I b, REAL *room) {
    OPEN(f)
    REAL *h = f->last + b * U, *m = f->last_memory + b * MN, *d = room, *off = d + GU;
    memcpy(h, z.hidden + b * U, U * sizeof(REAL)), memcpy(m, z.memory + b * MN, MN * sizeof(REAL));
    for (I t = 0; t < T; t++) {
        const I at = b * T + t;
        if (BEGINS(t)) memset(h, 0, U * sizeof(REAL)), memset(m, 0, MN * sizeof(REAL));
        if (f->hiddens) memcpy(f->hiddens + at * U, h, U * sizeof(REAL)), memcpy(f->memories + at * MN, m, MN * sizeof(REAL));
        if (!HAPPENS(t)) {
            memset(f->y + at * U, 0, U * sizeof(REAL));
            if (f->hiddens) memset(f->after + at * MN, 0, MN * sizeof(REAL)), memset(f->drives + at * GU, 0, GU * sizeof(REAL));
            continue;
        }
        memcpy(off, m, MN * sizeof(REAL));
        for (I c = 0; c < M; c++) {
            off[c * N] -= z.feed[at * M + c] + dot(z.feed_hidden + c * U, h, U);
            if (z.feed_memory) off[c * N] -= dot(z.feed_memory + c * MN, m, MN);
        }
        for (I c = 0; c < M; c++) add_dots(m + c * N, CHANGE(t), off + c * N, N, N);
        memcpy(d, z.drive + at * GU, GU * sizeof(REAL));
        add_rows(d, z.memory_in, m, MN, GU);
        if (z.hidden_in) add_rows(d, z.hidden_in, h, U, GU);
        if (f->hiddens) memcpy(f->after + at * MN, m, MN * sizeof(REAL)), memcpy(f->drives + at * GU, d, GU * sizeof(REAL));
        for (I p = 0; p < U; p += W) {
            const vec now = tanh16(get(d + (z.gated ? U : 0) + p));
            put(h + p, z.gated ? get(h + p) + sigmoid16(get(d + p)) * (now - get(h + p)) : now);
        }
        memcpy(f->y + at * U, h, U * sizeof(REAL));
    }
}

/* dh, dm: gradients of the last state in, of the first out; given: NULL, or those of m after each step */
typedef struct { Projection z; const REAL *hiddens, *drives, *dy; REAL *dh, *dm, *dfeed, *ddrive, *given; } Backward;

static void backward(const Backward *f, I b, REAL *room) {
    OPEN(f)
    REAL *dh = f->dh + b * U, *dm = f->dm + b * MN, *changed = room;
    for (I t = T - 1; t >= 0; t--) {
        const I at = b * T + t;
        REAL *d = f->ddrive + at * GU, *feed = f->dfeed + at * M;
        const REAL *h = f->hiddens + at * U, *drive = f->drives + at * GU, *dy = f->dy + at * U;
        if (!HAPPENS(t)) {
            memset(d, 0, GU * sizeof(REAL)), memset(feed, 0, M * sizeof(REAL));
            if (f->given) memset(f->given + at * MN, 0, MN * sizeof(REAL));
            continue;
        }
        for (I p = 0; p < U; p += W) {
            const vec g = get(dh + p) + get(dy + p), now = tanh16(get(drive + (z.gated ? U : 0) + p)), slope = 1 - now * now;
            if (!z.gated) { put(d + p, g * slope), put(dh + p, (vec){}); continue; }
            const vec gate = sigmoid16(get(drive + p));
            put(d + p, g * (now - get(h + p)) * (gate * (1 - gate))), put(d + U + p, g * gate * slope), put(dh + p, g * (1 - gate));
        }
        add_rows(dm, z.recur_memory, d, GU, MN);
        if (f->given) memcpy(f->given + at * MN, dm, MN * sizeof(REAL));
        memset(changed, 0, MN * sizeof(REAL));
        for (I c = 0; c < M; c++) add_rows(changed + c * N, CHANGE(t), dm + c * N, N, N), feed[c] = -changed[c * N];
        EACH(i, MN) dm[i] += changed[i];
        if (z.recur_hidden) add_rows(dh, z.recur_hidden, d, GU, U);
        add_rows(dh, z.feed_hidden, feed, M, U);
        if (z.feed_memory) add_rows(dm, z.feed_memory, feed, M, MN);
        if (BEGINS(t)) memset(dh, 0, U * sizeof(REAL)), memset(dm, 0, MN * sizeof(REAL));
    }
}

#define BOTH_WAYS(pass) \
    CHECK(f, fields) \
    const I size = f->z.M * f->z.N; \
    EVERY_ROW(pass, f, f->z.batch * f->z.T * 2 * f->z.U * size, 2 * f->z.U + size);
I projection_forward(const Forward *f, I fields) { BOTH_WAYS(forward) }
I projection_backward(const Backward *f, I fields) { BOTH_WAYS(backward) }
