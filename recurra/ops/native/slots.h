/* Slots of an external memory, and how they are found by what they hold.  Slots run along vectors, padded to whole
 * ones with zeros (P numbers for N slots); the numbers that a slot holds run down. */

/* ---- functions of vectors ---- */

#define REAL_OF(name) INLINE REAL real_##name(REAL x) { return IS_DOUBLE ? name(x) : name##f(x); }
REAL_OF(exp) REAL_OF(log) REAL_OF(log1p) REAL_OF(sqrt) REAL_OF(rint)
#define EACH(n, N) for (I n = 0; n < (N); n += W)
/* of normal numbers above zero: x = 2^e (1 + f), and log1p(f) by a polynomial in f / (2 + f) */
INLINE vec logs(vec x) {
    if (IS_DOUBLE) {
        for (int i = 0; i < W; i++) x[i] = real_log(x[i]);
        return x;
    }
    const ints e = ((ints)x - 0x3f3504f3) >> 23;
    const vec f = (vec)((ints)x - (e << 23)) - 1, n = __builtin_convertvector(e, vec), s = f / (2 + f), z = s * s;
    const vec h = (REAL)0.5 * f * f;
    const vec r = z * (((z * (REAL)0.233433655 + (REAL)0.285503373) * z + (REAL)0.400001262) * z + (REAL)0.666666665);
    const vec y = n * (REAL)0.693359375 + (f - (h - (s * (h + r) + n * (REAL)-2.12194440e-4)));
    return SELECT(x == x, y, x);
}
INLINE REAL sigmoid(REAL x) { return 1 / (1 + real_exp(-x)); }
/* as torch's: straight from 20 on */
INLINE REAL softplus(REAL x) { return x > 20 ? x : real_log1p(real_exp(x)); }
INLINE REAL softplus_slope(REAL x) { return x > 20 ? 1 : sigmoid(x); }
/* all lanes by a rule of two, in four rounds */
#define TURN(x, n) PICK(x, x, n & 15, (n + 1) & 15, (n + 2) & 15, (n + 3) & 15, (n + 4) & 15, \
    (n + 5) & 15, (n + 6) & 15, (n + 7) & 15, (n + 8) & 15, (n + 9) & 15, (n + 10) & 15, (n + 11) & 15, (n + 12) & 15, \
    (n + 13) & 15, (n + 14) & 15, (n + 15) & 15)
INLINE vec larger(vec x, vec y) { return SELECT(y > x, y, x); }
INLINE REAL total(vec x) {
    x += TURN(x, 8), x += TURN(x, 4), x += TURN(x, 2), x += TURN(x, 1);
    return x[0];
}
INLINE REAL largest(vec x) {
    x = larger(x, TURN(x, 8)), x = larger(x, TURN(x, 4)), x = larger(x, TURN(x, 2)), x = larger(x, TURN(x, 1));
    return x[0];
}
static REAL dot(const REAL *x, const REAL *y, I P) {
    vec sum = {};
    EACH(n, P) sum += get(x + n) * get(y + n);
    return total(sum);
}
/* in place; what lies beyond N becomes zero */
static void softmax(REAL *x, I N, I P) {
    for (I i = N; i < P; i++) x[i] = -INFINITY;
    vec top = get(x), sum = {};
    for (I n = W; n < P; n += W) top = larger(top, get(x + n));
    const REAL most = largest(top);
    EACH(n, P) { const vec y = exps(get(x + n) - most); put(x + n, y); sum += y; }
    const REAL one = 1 / total(sum);
    EACH(n, P) put(x + n, get(x + n) * one);
}
/* g: of the weights on entry, of what they are the softmax of on return */
static void softmax_back(const REAL *x, REAL *g, I P) {
    const REAL mean = dot(x, g, P);
    EACH(n, P) put(g + n, get(x + n) * (get(g + n) - mean));
}
/* of three */
static void choices(const REAL *x, REAL *p) {
    const REAL top = x[0] > x[1] ? x[0] : x[1], most = top > x[2] ? top : x[2];
    for (int i = 0; i < 3; i++) p[i] = real_exp(x[i] - most);
    const REAL sum = p[0] + p[1] + p[2];
    for (int i = 0; i < 3; i++) p[i] /= sum;
}
static void choices_back(const REAL *p, const REAL *g, REAL *gx) {
    const REAL mean = p[0] * g[0] + p[1] * g[1] + p[2] * g[2];
    for (int i = 0; i < 3; i++) gx[i] = p[i] * (g[i] - mean);
}

/* ---- memories (size x P) and slots found by what they hold ---- */

/* out[i] = sum_n M[i][n] x[n] */
static void across(const REAL *M, const REAL *x, REAL *out, I size, I P) {
    for (I i = 0; i < size; i += W) {
        const I some = size - i < W ? size - i : W;
        vec sum[W] = {};
        for (I j = 0; j < some; j++) EACH(n, P) sum[j] += get(M + (i + j) * P + n) * get(x + n);
        put_some(out + i, sums16(sum), some);
    }
}
/* y[n] += sum_i M[i][n] x[i] */
static void down(const REAL *M, const REAL *x, REAL *y, I size, I P) {
    EACH(n, P) {
        vec sum = get(y + n);
        for (I i = 0; i < size; i++) sum += x[i] * get(M + i * P + n);
        put(y + n, sum);
    }
}
/* M[i][n] += x[i] y[n] */
static void outer(REAL *M, const REAL *x, const REAL *y, I size, I P) {
    for (I i = 0; i < size; i++) EACH(n, P) put(M + i * P + n, get(M + i * P + n) + x[i] * get(y + n));
}
/* a slots x size matrix and its transpose, padded */
static void turn_in(const REAL *from, REAL *to, I slots, I size, I P) {
    for (I i = 0; i < size; i++) for (I n = 0; n < P; n++) to[i * P + n] = n < slots ? from[n * size + i] : 0;
}
static void turn_out(const REAL *from, REAL *to, I slots, I size, I P) {
    for (I n = 0; n < slots; n++) for (I i = 0; i < size; i++) to[n * size + i] = from[i * P + n];
}
static void pad(const REAL *from, REAL *to, I N, I P) {
    memcpy(to, from, N * sizeof(REAL));
    memset(to + N, 0, (P - N) * sizeof(REAL));
}
/* one over the length of each slot; zero of what is none */
static void lengths(const Machine *z, const REAL *M, REAL *over, I P) {
    EACH(n, P) {
        vec sum = {};
        for (I i = 0; i < z->size; i++) sum += get(M + i * P + n) * get(M + i * P + n);
        put(over + n, sum);
    }
    for (I n = 0; n < z->slots; n++) over[n] = 1 / real_sqrt(over[n] + *z->rest);
    for (I n = z->slots; n < P; n++) over[n] = 0;
}
/* found = softmax(strength cos(key, M)); dots = key . M.  Returns one over the key's length. */
static REAL look_up(const Machine *z, const REAL *M, const REAL *over, const REAL *key, REAL strength,
                    REAL *dots, REAL *found, I P) {
    REAL sum = *z->rest;
    for (I i = 0; i < z->size; i++) sum += key[i] * key[i];
    const REAL over_key = 1 / real_sqrt(sum), scale = strength * over_key;
    memset(dots, 0, P * sizeof(REAL));
    down(M, key, dots, z->size, P);
    EACH(n, P) put(found + n, get(dots + n) * scale * get(over + n));
    softmax(found, z->slots, P);
    return over_key;
}
/* g is of what was found, and written over; room is of P numbers.  Adds to g_M, writes g_key, returns g_strength. */
static REAL look_up_back(const Machine *z, const REAL *M, const REAL *over, const REAL *key, REAL strength,
                         REAL over_key, const REAL *dots, const REAL *found, REAL *g, REAL *g_M, REAL *g_key,
                         REAL *room, I P) {
    const REAL scale = strength * over_key;
    vec sum = {};
    softmax_back(found, g, P);
    EACH(n, P) {
        const vec gn = get(g + n), o = get(over + n), t = gn * get(dots + n) * o;
        sum += t;
        put(g + n, gn * o * scale);
        put(room + n, -t * scale * o * o);
    }
    const REAL steep = total(sum), shrink = steep * strength * over_key * over_key * over_key;
    across(M, g, g_key, z->size, P);
    for (I i = 0; i < z->size; i++) {
        g_key[i] -= shrink * key[i];
        EACH(n, P) {
            REAL *to = g_M + i * P + n;
            put(to, get(to) + key[i] * get(g + n) + get(M + i * P + n) * get(room + n));
        }
    }
    return steep * over_key;
}
/* M <- before prod_h (1 - w_h e_h') + sum_h w_h a_h': all heads erase before any adds */
static void write(const Machine *z, const REAL *before, REAL *M, I heads, const REAL *w, const REAL *erase,
                  const REAL *add, I P) {
    const I size = z->size;
    for (I i = 0; i < size; i++) EACH(n, P) {
        vec m = get(before + i * P + n);
        for (I h = 0; h < heads; h++) m -= m * get(w + h * P + n) * erase[h * size + i];
        for (I h = 0; h < heads; h++) m += get(w + h * P + n) * add[h * size + i];
        put(M + i * P + n, m);
    }
}
/* what head h erased, after the others before it; g_e is of e before its sigmoid */
static void erase_back(const Machine *z, const REAL *before, I h, const REAL *w, const REAL *erase, REAL *g_M, REAL *g_w,
                       REAL *g_e, I P) {
    const I size = z->size;
    for (I i = 0; i < size; i++) {
        const REAL e = erase[h * size + i];
        vec sum = {};
        EACH(n, P) {
            const vec wn = get(w + h * P + n), by = get(g_M + i * P + n);
            vec m = get(before + i * P + n);
            for (I j = 0; j < h; j++) m -= m * get(w + j * P + n) * erase[j * size + i];
            sum += by * m * wn;
            put(g_w + h * P + n, get(g_w + h * P + n) - by * m * e);
            put(g_M + i * P + n, by - by * wn * e);
        }
        g_e[h * size + i] = -total(sum) * e * (1 - e);
    }
}
/* g_M: of the memory after on entry, before on return; adds to g_w, writes g_e and g_a */
static void write_back(const Machine *z, const REAL *before, I heads, const REAL *w, const REAL *erase, const REAL *add,
                       REAL *g_M, REAL *g_w, REAL *g_e, REAL *g_a, I P) {
    for (I h = 0; h < heads; h++) {
        across(g_M, w + h * P, g_a + h * z->size, z->size, P);
        down(g_M, add + h * z->size, g_w + h * P, z->size, P);
    }
    for (I h = heads - 1; h >= 0; h--) erase_back(z, before, h, w, erase, g_M, g_w, g_e, P);
}
