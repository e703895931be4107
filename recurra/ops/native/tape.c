/* tape (neural Turing machine): heads look by content or from where they were, move along a ring and sharpen
 *
 *     v = g softmax(beta cos(k, M)) + (1 - g) w',   w = softmax(gamma log(p0 v[i+1] + p1 v[i] + p2 v[i-1]))
 *     M <- M prod_h (1 - w e') + sum_h w a',        r = M w
 *
 * A record is M (size x P), the heads' weights, and 1 after the first step; then one over the lengths of slots, what is
 * erased, and what each head's gradient needs. */
#include "machine.h"

#define FAINT ((REAL)1e-30)
enum { STRENGTH, OVER_KEY, GATE, ON, STAY, BACK, SHARP };

/* v lies with its ends joined: [W - 1] is its last, [W + N] its first */
typedef struct { REAL *dots, *found, *apart, *ring, *moved, *logs, *number; } Head;
typedef struct { REAL *M, *looked, *begun, *over, *erase, *heads; I P, count, writing, head; } Tape;

static Tape lay(const Machine *z, const REAL *record) {
    Tape t = {.P = up(z->slots), .count = z->heads + z->more, .writing = z->more};
    t.M = (REAL *)record, t.looked = t.M + z->size * t.P, t.begun = t.looked + t.count * t.P, t.over = t.begun + W;
    t.erase = t.over + t.P, t.heads = t.erase + up(t.writing * z->size), t.head = 6 * t.P + 3 * W;
    return t;
}
static Head head(const Tape *t, I h) {
    REAL *x = t->heads + h * t->head;
    const I P = t->P;
    return (Head){x, x + P, x + 2 * P, x + 3 * P, x + 4 * P + 2 * W, x + 5 * P + 2 * W, x + 6 * P + 2 * W};
}
static I state_size(const Machine *z) { const Tape t = lay(z, 0); return t.over - t.M; }
static I record_size(const Machine *z) { const Tape t = lay(z, 0); return t.heads - t.M + t.count * t.head; }
static I scratch_size(const Machine *z) { return 2 * up(z->slots) + 2 * W + up(z->size); }
static void settle(const Machine *z, REAL *record) { const Tape t = lay(z, record); lengths(z, t.M, t.over, t.P); }

static void enter(const Machine *z, const REAL *const *from, REAL *state) {
    const Tape t = lay(z, state);
    turn_in(from[0], t.M, z->slots, z->size, t.P);
    for (I h = 0; h < t.count; h++) pad(from[1] + h * z->slots, t.looked + h * t.P, z->slots, t.P);
    pad(from[2], t.begun, 1, W);
}
static void leave(const Machine *z, const REAL *state, REAL *const *to) {
    const Tape t = lay(z, state);
    turn_out(t.M, to[0], z->slots, z->size, t.P);
    for (I h = 0; h < t.count; h++) memcpy(to[1] + h * z->slots, t.looked + h * t.P, z->slots * sizeof(REAL));
    *to[2] = *t.begun;
}

/* what a head says: its key, then strength, gate, three shifts, sharpness */
INLINE const REAL *said(const Machine *z, const REAL *says, I h) { return says + h * (z->size + 6); }

/* the ends of N numbers that begin at x meet; what follows P is read beside numbers that are none */
static void join(REAL *x, I N, I P) { x[P] = 0, x[-1] = x[N - 1], x[N] = x[0]; }

/* head h of the tape `to` looks at slots M from where it looked in `from` */
static void look(const Machine *z, const Tape *from, const REAL *M, const REAL *over, const REAL *says, const Tape *to, I h) {
    const Head a = head(to, h);
    const REAL *s = said(z, says, h) + z->size, *before = from->looked + h * to->P;
    const I P = to->P, N = z->slots;
    REAL *ring = a.ring + W, *after = to->looked + h * P;
    a.number[STRENGTH] = softplus(s[0]), a.number[GATE] = sigmoid(s[1]), a.number[SHARP] = 1 + softplus(s[5]);
    choices(s + 2, a.number + ON);
    a.number[OVER_KEY] = look_up(z, M, over, said(z, says, h), a.number[STRENGTH], a.dots, a.found, P);
    EACH(n, P) put(ring + n, get(before + n));
    /* before the first step every head is at its first slot */
    ring[0] += 1 - *from->begun;
    EACH(n, P) {
        const vec x = get(ring + n), apart = get(a.found + n) - x;
        put(a.apart + n, apart), put(ring + n, x + a.number[GATE] * apart);
    }
    join(ring, N, P);
    EACH(n, P) {
        const vec x = a.number[ON] * get(ring + n + 1) + a.number[STAY] * get(ring + n) + a.number[BACK] * get(ring + n - 1);
        put(a.moved + n, x);
        put(a.logs + n, logs(SELECT(x < FAINT, all(FAINT), x)));
        put(after + n, a.number[SHARP] * get(a.logs + n));
    }
    softmax(after, N, P);
}

/* g: of head h's weights after on entry, before on return */
static void look_back(const Machine *z, const REAL *M, const REAL *over, const REAL *says, const Tape *to, I h,
                      REAL *g, REAL *g_M, REAL *g_says, REAL *scratch) {
    const Head a = head(to, h);
    const I P = to->P, N = z->slots;
    const REAL *s = said(z, says, h) + z->size, *ring = a.ring + W;
    REAL *g_key = (REAL *)said(z, g_says, h), *g_s = g_key + z->size, *moved = scratch + W, *room = moved + P + W;
    softmax_back(to->looked + h * P, g, P);
    g_s[5] = dot(g, a.logs, P) * softplus_slope(s[5]);
    vec on = {}, stay = {}, back = {}, gate = {};
    EACH(n, P) {
        const vec x = get(a.moved + n), y = get(g + n) * a.number[SHARP] / x;
        const vec by = SELECT(x < FAINT, (vec){}, y);
        put(moved + n, by);
        on += by * get(ring + n + 1), stay += by * get(ring + n), back += by * get(ring + n - 1);
    }
    const REAL p[3] = {total(on), total(stay), total(back)};
    choices_back(a.number + ON, p, g_s + 2);
    join(moved, N, P);
    EACH(n, P) {
        const vec x = a.number[STAY] * get(moved + n) + a.number[ON] * get(moved + n - 1) + a.number[BACK] * get(moved + n + 1);
        gate += x * get(a.apart + n);
        put(g + n, x);
    }
    g_s[1] = total(gate) * a.number[GATE] * (1 - a.number[GATE]);
    EACH(n, P) put(moved + n, get(g + n) * a.number[GATE]), put(g + n, get(g + n) * (1 - a.number[GATE]));
    g_s[0] = softplus_slope(s[0]) * look_up_back(z, M, over, said(z, says, h), a.number[STRENGTH], a.number[OVER_KEY],
                                                  a.dots, a.found, moved, g_M, g_key, room, P);
}

static void access(const Machine *z, const REAL *before, const REAL *says, REAL *record, REAL *read) {
    const Tape b = lay(z, before), t = lay(z, record);
    const I P = t.P, size = z->size, writing = t.writing;
    const REAL *erase = said(z, says, t.count), *add = erase + writing * size;
    for (I i = 0; i < writing * size; i += W) put(t.erase + i, sigmoid16(get_some(erase + i, writing * size - i)));
    for (I h = 0; h < writing; h++) look(z, &b, b.M, b.over, says, &t, h);
    write(z, b.M, t.M, writing, t.looked, t.erase, add, P);
    lengths(z, t.M, t.over, P);
    for (I h = writing; h < t.count; h++) {
        look(z, &b, t.M, t.over, says, &t, h);
        across(t.M, t.looked + h * P, read + (h - writing) * size, size, P);
    }
    put(t.begun, (vec){1});
}

static void access_back(const Machine *z, const REAL *before, const REAL *record, const REAL *says,
                        const REAL *g_read, REAL *state, REAL *g_says, REAL *scratch) {
    const Tape b = lay(z, before), t = lay(z, record), g = lay(z, state);
    const I P = t.P, size = z->size, writing = t.writing;
    const REAL *add = said(z, says, t.count) + writing * size;
    REAL *g_erase = (REAL *)said(z, g_says, t.count), *g_add = g_erase + writing * size;
    for (I h = writing; h < t.count; h++) {
        const REAL *by = g_read + (h - writing) * size;
        down(t.M, by, g.looked + h * P, size, P);
        outer(g.M, by, t.looked + h * P, size, P);
    }
    for (I h = writing; h < t.count; h++)
        look_back(z, t.M, t.over, says, &t, h, g.looked + h * P, g.M, g_says, scratch);
    write_back(z, b.M, writing, t.looked, t.erase, add, g.M, g.looked, g_erase, g_add, P);
    for (I h = 0; h < writing; h++)
        look_back(z, b.M, b.over, says, &t, h, g.looked + h * P, g.M, g_says, scratch);
    *g.begun = 0;
    for (I h = 0; h < t.count; h++) *g.begun -= g.looked[h * P];
    for (const REAL *end = said(z, says, t.count) + 2 * writing * size; end < says + z->X; end++) g_says[end - says] = 0;
}

I tape_forward(const Forward *f, I count) {
    CHECK(f, count)
    return forward(f);
}
I tape_backward(const Backward *f, I count) {
    CHECK(f, count)
    return backward(f);
}
