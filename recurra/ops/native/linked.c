/* linked (differentiable neural computer): slots are freed, allocated, written, linked as they were written, and read
 *
 *     u <- (u + w - u w) prod_i (1 - f_i w_i),    a = allocation(u),    w <- g (ga a + (1 - ga) softmax(beta cos(k, M)))
 *     M <- M (1 - w e') + w v',    L_ij <- (1 - w_i - w_j) L_ij + w_i p_j, L_ii = 0,    p <- (1 - sum w) p + w
 *     w_i <- back L' w_i + content softmax(beta_i cos(k_i, M)) + on L w_i,    r_i = M' w_i
 *
 * The order in which slots are allocated has no gradient, the product along it has.  A record is M (size x P), usage, w,
 * heads' weights, and with links L (N x P) and p; then one over the lengths of slots, the order, which begins as the last
 * step's, where it is nearly right, and what gradients need. */
#include "machine.h"

#define LEAST ((REAL)1e-6)
enum { STRENGTH, OVER_KEY, ALLOCATE, WRITE, FREE = 2, MODE = 3 };

typedef struct { REAL *dots, *found, *back, *on, *number; } Head;
typedef struct {
    REAL *M, *usage, *written, *looked, *link, *last, *over, *order, *dots, *like, *free, *erase, *number, *heads;
    I P, head;
} Memory;

static Memory lay(const Machine *z, const REAL *record) {
    const I P = up(z->slots), links = z->more;
    Memory m = {.P = P, .head = 4 * P + W};
    m.M = (REAL *)record, m.usage = m.M + z->size * P, m.written = m.usage + P, m.looked = m.written + P;
    m.link = m.looked + z->heads * P, m.last = m.link + links * z->slots * P, m.over = m.last + links * P;
    m.order = m.over + P, m.dots = m.order + P, m.like = m.dots + P, m.free = m.like + P, m.erase = m.free + P;
    m.number = m.erase + up(z->size), m.heads = m.number + W;
    return m;
}
static Head head(const Memory *m, I h) {
    REAL *x = m->heads + h * m->head;
    return (Head){x, x + m->P, x + 2 * m->P, x + 3 * m->P, x + 4 * m->P};
}
static I state_size(const Machine *z) { const Memory m = lay(z, 0); return m.over - m.M; }
static I record_size(const Machine *z) { const Memory m = lay(z, 0); return m.heads - m.M + z->heads * m.head; }
static I scratch_size(const Machine *z) { return 5 * up(z->slots); }
static void settle(const Machine *z, REAL *record) {
    const Memory m = lay(z, record);
    lengths(z, m.M, m.over, m.P);
    for (I j = 0; j < z->slots; j++) m.order[j] = j;
}
static void enter(const Machine *z, const REAL *const *from, REAL *state) {
    const Memory m = lay(z, state);
    const I N = z->slots, P = m.P;
    turn_in(from[0], m.M, N, z->size, P);
    pad(from[1], m.usage, N, P), pad(from[2], m.written, N, P);
    for (I h = 0; h < z->heads; h++) pad(from[3] + h * N, m.looked + h * P, N, P);
    if (!z->more) return;
    for (I i = 0; i < N; i++) pad(from[4] + i * N, m.link + i * P, N, P);
    pad(from[5], m.last, N, P);
}
static void leave(const Machine *z, const REAL *state, REAL *const *to) {
    const Memory m = lay(z, state);
    const I N = z->slots, P = m.P, bytes = N * sizeof(REAL);
    turn_out(m.M, to[0], N, z->size, P);
    memcpy(to[1], m.usage, bytes), memcpy(to[2], m.written, bytes);
    for (I h = 0; h < z->heads; h++) memcpy(to[3] + h * N, m.looked + h * P, bytes);
    if (!z->more) return;
    for (I i = 0; i < N; i++) memcpy(to[4] + i * N, m.link + i * P, bytes);
    memcpy(to[5], m.last, bytes);
}

/* what is said: key, value and erase, then strength, allocate and write; of each head key, strength, free and modes */
INLINE const REAL *gates(const Machine *z, const REAL *says) { return says + 3 * z->size; }
INLINE const REAL *said(const Machine *z, const REAL *says, I h) {
    return gates(z, says) + 3 + h * (z->size + 2 + 3 * z->more);
}

/* ---- who is free ---- */

static void use(const Machine *z, const Memory *b, const REAL *says, const Memory *t) {
    for (I h = 0; h < z->heads; h++) head(t, h).number[FREE] = sigmoid(said(z, says, h)[z->size + 1]);
    EACH(n, t->P) {
        const vec u = get(b->usage + n), w = get(b->written + n);
        vec x = u + w - u * w;
        for (I h = 0; h < z->heads; h++) x -= x * head(t, h).number[FREE] * get(b->looked + h * t->P + n);
        put(t->usage + n, x);
    }
}
/* g->usage: after on entry, before on return; g->written and g->looked become the gradients of those before, the second
   added to */
static void use_back(const Machine *z, const Memory *b, const Memory *t, const Memory *g, REAL *g_says) {
    const I P = t->P;
    for (I h = z->heads - 1; h >= 0; h--) {
        const REAL f = head(t, h).number[FREE];
        vec sum = {};
        EACH(n, P) {
            const vec u = get(b->usage + n), w = get(b->written + n), by = get(g->usage + n), l = get(b->looked + h * P + n);
            vec x = u + w - u * w;
            for (I j = 0; j < h; j++) x -= x * head(t, j).number[FREE] * get(b->looked + j * P + n);
            sum += by * x * l;
            put(g->looked + h * P + n, get(g->looked + h * P + n) - by * x * f);
            put(g->usage + n, by - by * f * l);
        }
        ((REAL *)said(z, g_says, h))[z->size + 1] = -total(sum) * f * (1 - f);
    }
    EACH(n, P) {
        const vec by = get(g->usage + n);
        put(g->usage + n, by * (1 - get(b->written + n))), put(g->written + n, by * (1 - get(b->usage + n)));
    }
}
/* slots by usage in steps of the least, those used alike as they lie; an insertion sort of what is nearly sorted */
static void sort(I N, const REAL *usage, const REAL *was, REAL *order) {
    for (I j = 0; j < N; j++) {
        const I slot = was[j];
        const REAL key = real_rint(usage[slot] / LEAST);
        I k = j;
        for (; k > 0; k--) {
            const I other = order[k - 1];
            const REAL its = real_rint(usage[other] / LEAST);
            if (!(its > key || (its == key && other > slot))) break;
            order[k] = other;
        }
        order[k] = slot;
    }
}
static void allocate(const Machine *z, const Memory *b, const Memory *t) {
    REAL left = 1;
    sort(z->slots, t->usage, b->order, t->order);
    for (I j = 0; j < z->slots; j++) {
        const I n = t->order[j];
        const REAL used = LEAST + (1 - LEAST) * t->usage[n];
        t->free[n] = (1 - used) * left, left *= used;
    }
    for (I n = z->slots; n < t->P; n++) t->free[n] = 0;
}
/* adds to g_usage; left is room for N numbers: products of what is used before each */
static void allocate_back(const Machine *z, const Memory *t, const REAL *g_free, REAL *g_usage, REAL *left) {
    REAL product = 1, rest = 0;
    for (I j = 0; j < z->slots; j++) left[j] = product, product *= LEAST + (1 - LEAST) * t->usage[(I)t->order[j]];
    for (I j = z->slots - 1; j >= 0; j--) {
        const I n = t->order[j];
        const REAL used = LEAST + (1 - LEAST) * t->usage[n];
        g_usage[n] += (1 - LEAST) * left[j] * (rest - g_free[n]);
        rest = g_free[n] * (1 - used) + used * rest;
    }
}

/* ---- what was written after what ---- */

static void link(const Machine *z, const Memory *b, const Memory *t) {
    const I P = t->P;
    vec sum = {};
    for (I i = 0; i < z->slots; i++) {
        const REAL w = t->written[i];
        EACH(n, P) put(t->link + i * P + n, (1 - w - get(t->written + n)) * get(b->link + i * P + n) + w * get(b->last + n));
        t->link[i * P + i] = 0;
    }
    EACH(n, P) sum += get(t->written + n);
    const REAL kept = 1 - total(sum);
    EACH(n, P) put(t->last + n, get(t->written + n) + kept * get(b->last + n));
}
/* g: after on entry, before on return; adds to g_w */
static void link_back(const Machine *z, const Memory *b, const Memory *t, const Memory *g, REAL *g_w) {
    const I P = t->P;
    const REAL lost = dot(g->last, b->last, P);
    vec sum = {};
    EACH(n, P) sum += get(t->written + n);
    const REAL kept = 1 - total(sum);
    EACH(n, P) put(g_w + n, get(g_w + n) + get(g->last + n)), put(g->last + n, kept * get(g->last + n));
    for (I i = 0; i < z->slots; i++) {
        const REAL w = t->written[i];
        vec own = {};
        g->link[i * P + i] = 0;
        EACH(n, P) {
            REAL *to = g->link + i * P + n;
            const vec by = get(to), l = get(b->link + i * P + n), p = get(b->last + n);
            own += by * (p - l);
            put(g_w + n, get(g_w + n) - by * l), put(g->last + n, get(g->last + n) + by * w);
            put(to, by * (1 - w - get(t->written + n)));
        }
        g_w[i] += total(own);
    }
    for (I i = 0; i < z->slots; i++) g_w[i] -= lost;
}

/* ---- a step ---- */

static void access(const Machine *z, const REAL *before, const REAL *says, REAL *record, REAL *read) {
    const Memory b = lay(z, before), t = lay(z, record);
    const I P = t.P, size = z->size, N = z->slots;
    const REAL *s = gates(z, says);
    REAL *number = t.number;
    number[STRENGTH] = 1 + softplus(s[0]), number[ALLOCATE] = sigmoid(s[1]), number[WRITE] = sigmoid(s[2]);
    use(z, &b, says, &t);
    allocate(z, &b, &t);
    number[OVER_KEY] = look_up(z, b.M, b.over, says, number[STRENGTH], t.dots, t.like, P);
    EACH(n, P) {
        const vec like = get(t.like + n);
        put(t.written + n, number[WRITE] * (like + number[ALLOCATE] * (get(t.free + n) - like)));
    }
    EACH(i, size) put(t.erase + i, sigmoid16(get_some(says + 2 * size + i, size - i)));
    write(z, b.M, t.M, 1, t.written, t.erase, says + size, P);
    lengths(z, t.M, t.over, P);
    if (z->more) link(z, &b, &t);
    for (I h = 0; h < z->heads; h++) {
        const Head a = head(&t, h);
        const REAL *key = said(z, says, h), *looked = b.looked + h * P, *mode = a.number + MODE;
        a.number[STRENGTH] = 1 + softplus(key[size]);
        a.number[OVER_KEY] = look_up(z, t.M, t.over, key, a.number[STRENGTH], a.dots, a.found, P);
        if (z->more) {
            choices(key + size + 2, a.number + MODE);
            memset(a.back, 0, 2 * P * sizeof(REAL));
            down(t.link, looked, a.back, N, P), across(t.link, looked, a.on, N, P);
        }
        EACH(n, P) {
            const vec x = get(a.found + n);
            put(t.looked + h * P + n, z->more ? mode[0] * get(a.back + n) + mode[1] * x + mode[2] * get(a.on + n) : x);
        }
        across(t.M, t.looked + h * P, read + h * size, size, P);
    }
}

/* head h: g->looked after on entry, before on return */
static void head_back(const Machine *z, const Memory *b, const Memory *t, I h, const REAL *says, const REAL *g_read,
                      const Memory *g, REAL *g_says, REAL *scratch) {
    const Head a = head(t, h);
    const I P = t->P, size = z->size, N = z->slots;
    const REAL *key = said(z, says, h), *looked = b->looked + h * P, *mode = a.number + MODE;
    REAL *g_key = (REAL *)said(z, g_says, h), *by = g->looked + h * P, *found = scratch, *room = scratch + P;
    down(t->M, g_read, by, size, P), outer(g->M, g_read, t->looked + h * P, size, P);
    if (z->more) {
        REAL *back = scratch + 2 * P, *on = back + P, *along = on + P;
        const REAL p[3] = {dot(by, a.back, P), dot(by, a.found, P), dot(by, a.on, P)};
        choices_back(mode, p, g_key + size + 2);
        EACH(n, P) {
            const vec x = get(by + n);
            put(back + n, mode[0] * x), put(found + n, mode[1] * x), put(on + n, mode[2] * x);
        }
        outer(g->link, looked, back, N, P), outer(g->link, on, looked, N, P);
        memset(along, 0, P * sizeof(REAL));
        across(t->link, back, along, N, P), down(t->link, on, along, N, P);
        memcpy(by, along, P * sizeof(REAL));
    } else memcpy(found, by, P * sizeof(REAL)), memset(by, 0, P * sizeof(REAL));
    g_key[size] = softplus_slope(key[size]) * look_up_back(z, t->M, t->over, key, a.number[STRENGTH], a.number[OVER_KEY],
                                                           a.dots, a.found, found, g->M, g_key, room, P);
}

static void access_back(const Machine *z, const REAL *before, const REAL *record, const REAL *says,
                        const REAL *g_read, REAL *state, REAL *g_says, REAL *scratch) {
    const Memory b = lay(z, before), t = lay(z, record), g = lay(z, state);
    const I P = t.P, size = z->size;
    const REAL *s = gates(z, says), *number = t.number, own = number[WRITE], free = number[ALLOCATE];
    REAL *g_s = (REAL *)gates(z, g_says), *by = g.written, *g_free = scratch, *left = scratch + P, *g_like = left + P;
    for (I h = 0; h < z->heads; h++) head_back(z, &b, &t, h, says, g_read + h * size, &g, g_says, scratch);
    if (z->more) link_back(z, &b, &t, &g, by);
    write_back(z, b.M, 1, t.written, t.erase, says + size, g.M, by, g_says + 2 * size, g_says + size, P);
    vec gate = {}, choice = {};
    EACH(n, P) {
        const vec like = get(t.like + n), apart = get(t.free + n) - like, x = get(by + n);
        gate += x * (like + free * apart), choice += x * own * apart;
        put(g_free + n, x * own * free), put(g_like + n, x * own * (1 - free));
    }
    g_s[2] = total(gate) * own * (1 - own), g_s[1] = total(choice) * free * (1 - free);
    allocate_back(z, &t, g_free, g.usage, left);
    g_s[0] = softplus_slope(s[0]) * look_up_back(z, b.M, b.over, says, number[STRENGTH], number[OVER_KEY], t.dots, t.like,
                                                  g_like, g.M, g_says, left, P);
    use_back(z, &b, &t, &g, g_says);
    for (const REAL *end = said(z, says, z->heads); end < says + z->X; end++) g_says[end - says] = 0;
}

I linked_forward(const Forward *f, I count) {
    CHECK(f, count)
    return forward(f);
}
I linked_backward(const Backward *f, I count) {
    CHECK(f, count)
    return backward(f);
}
