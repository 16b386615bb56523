/* layers.h - the components and their gradients, in plain loops that compilers turn into
 * vectors; part of pass.h. Each takes `rows` rows that lie one after the other unless it says
 * otherwise, and dx is short for d(loss)/dx. */

/* ---- functions of one number ----------------------------------------------------------------- */

/* exp(x) = power (1 + rest) for x <= 0, nothing below exp(-87). Floats get 2 ulp: x = n ln 2 + r
 * with |r| < 0.35, and Taylor's terms for exp(r) - 1. Doubles, with which gradients are tested, get
 * the exact thing. */
static inline real split_exp(real x, real *power) {
    const real round = (real)12582912;      /* added and taken off: 1.5 2^23 */
    float two_to_n;
    if (sizeof(real) > sizeof(float)) { *power = 1; return (real)expm1((double)x); }
    x = x > (real)-87 ? x : (real)-87;
    real n = (x * (real)1.44269504089 + round) - round;
    real r = x - n * (real)0.693145751953125 - n * (real)1.42860682030941723e-6;
    real rest = (real)(1 / 720.0) + r * (real)(1 / 5040.0);
    rest = (real)(1 / 24.0) + r * ((real)(1 / 120.0) + r * rest);
    rest = r + r * r * ((real)0.5 + r * ((real)(1 / 6.0) + r * rest));
    int32_t bits = ((int32_t)n + 127) * (1 << 23);
    memcpy(&two_to_n, &bits, sizeof two_to_n);
    *power = (real)two_to_n;
    return rest;
}

static inline real exp_of(real x) {         /* x <= 0 */
    real power, rest = split_exp(x, &power);
    return power + power * rest;
}

static inline real expm1_of(real x) {       /* x <= 0 */
    real power, rest = split_exp(x, &power);
    return power * rest + (power - 1);
}

static inline real sigmoid(real x) {
    real e = exp_of(-fabs(x)), above = x < 0 ? e : 1;
    return above / (1 + e);
}

static inline real tanh_of(real x) {
    real e = expm1_of(-2 * fabs(x));
    return copysign(e / (e + 2), x);
}

/* sqrt, which compilers do not make vectors of since it may set errno: Newton's method for its
 * inverse, from a guess that halves the exponent. */
static inline real root(real x) {
    float guess = (float)x;
    uint32_t bits;
    if (sizeof(real) > sizeof(float)) return sqrt(x);
    memcpy(&bits, &guess, sizeof bits);
    bits = 0x5F3759DF - (bits >> 1);
    memcpy(&guess, &bits, sizeof guess);
    real y = (real)guess;
    for (int i = 0; i < 3; i++) y *= (real)1.5 - (real)0.5 * x * y * y;
    return x * y;
}

/* GELU in its tanh form, as x sigmoid(2 v), since 1 + tanh(v) = 2 sigmoid(2 v). */
static inline real gelu(real x, real *slope) {
    const real a = (real)1.5957691216057308, b = (real)0.044715;
    real s = sigmoid(a * (x + b * x * x * x));
    *slope = s + x * s * (1 - s) * a * (1 + 3 * b * x * x);
    return x * s;
}

static inline real silu(real x, real *slope) {
    real s = sigmoid(x);
    *slope = s + x * s * (1 - s);
    return x * s;
}

/* ---- sums ------------------------------------------------------------------------------------ */

static real dot(const real *a, const real *b, int n) {
    vec sum[4];
    real total = 0;
    int i = 0;
    memset(sum, 0, sizeof sum);
    for (; i + 4 * LANES <= n; i += 4 * LANES)
        for (int j = 0; j < 4; j++)
            sum[j] += *(const loose_vec *)(a + i + j * LANES)
                    * *(const loose_vec *)(b + i + j * LANES);
    for (; i < n; i++) total += a[i] * b[i];
    sum[0] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    for (int j = 0; j < LANES; j++) total += ((const real *)&sum[0])[j];
    return total;
}

static real largest(const real *x, int n) {
    enum { SIDES = 32 };
    real most[SIDES];
    int i = 0;
    for (int j = 0; j < SIDES; j++) most[j] = x[j < n ? j : 0];
    for (; i + SIDES <= n; i += SIDES)
        for (int j = 0; j < SIDES; j++) most[j] = x[i + j] > most[j] ? x[i + j] : most[j];
    for (; i < n; i++) most[0] = x[i] > most[0] ? x[i] : most[0];
    for (int j = 1; j < SIDES; j++) most[0] = most[j] > most[0] ? most[j] : most[0];
    return most[0];
}

/* sum of exp(scale x - top) */
static real sum_exp(const real *x, int n, real scale, real top) {
    enum { SIDES = 32 };
    real sum[SIDES] = { 0 };
    int i = 0;
    for (; i + SIDES <= n; i += SIDES)
        for (int j = 0; j < SIDES; j++) sum[j] += exp_of(scale * x[i + j] - top);
    for (; i < n; i++) sum[i % SIDES] += exp_of(scale * x[i] - top);
    for (int j = 1; j < SIDES; j++) sum[0] += sum[j];
    return sum[0];
}

static real log_sum_exp(const real *x, int n, real scale) {
    real top = largest(x, n) * scale;
    return top + (real)log(sum_exp(x, n, scale, top));
}

/* ---- RMSNorm: y = x r (offset + w), r = 1 / sqrt(mean of x^2 + eps) -------------------------- */

typedef struct norm_rule { int width; real eps, offset; } norm_rule;

static void norm(norm_rule rule, int rows, const real *x, const real *restrict w,
                 real *restrict y) {
    int D = rule.width;
    for (int t = 0; t < rows; t++, x += D, y += D) {
        real r = 1 / (real)sqrt(dot(x, x, D) / (real)D + rule.eps);
        for (int j = 0; j < D; j++) y[j] = x[j] * r * (rule.offset + w[j]);
    }
}

/* dx = above + the gradient through the norm, above null: 0; dw += that of the gain; dy is
 * overwritten, and may be dx if above is null. */
static void norm_backward(norm_rule rule, int rows, const real *x, const real *restrict w,
                          real *dy, const real *above, real *dx, real *restrict dw) {
    int D = rule.width;
    for (int t = 0; t < rows; t++, x += D, dy += D, dx += D) {
        real r = 1 / (real)sqrt(dot(x, x, D) / (real)D + rule.eps);
        for (int j = 0; j < D; j++) {
            dw[j] += dy[j] * x[j] * r;
            dy[j] *= rule.offset + w[j];
        }
        real pull = dot(dy, x, D) * r * r * r / (real)D;
        for (int j = 0; j < D; j++) dx[j] = (above ? above[j] : 0) + dy[j] * r - x[j] * pull;
        if (above) above += D;
    }
}

/* ---- GroupNorm without a gain, by heads: y = (x - mean) r, r = 1 / sqrt(variance + eps) ------ */

/* y of a head; returns r. */
static real head_norm(int dim, real eps, const real *x, real *restrict y) {
    real mean = 0;
    for (int j = 0; j < dim; j++) mean += x[j];
    mean /= (real)dim;
    for (int j = 0; j < dim; j++) y[j] = x[j] - mean;
    real r = 1 / (real)sqrt(dot(y, y, dim) / (real)dim + eps);
    for (int j = 0; j < dim; j++) y[j] *= r;
    return r;
}

/* y once more; dx replaces d = dy. */
static void head_norm_backward(int dim, real eps, const real *x, real *restrict y,
                               real *restrict d) {
    real r = head_norm(dim, eps, x, y), pull = dot(y, d, dim) / (real)dim, mean = 0;
    for (int j = 0; j < dim; j++) mean += d[j];
    mean /= (real)dim;
    for (int j = 0; j < dim; j++) d[j] = r * (d[j] - mean - y[j] * pull);
}

/* ---- gated products: m = activation(g) u ----------------------------------------------------- */

static void gated(int is_silu, size_t count, const real *restrict g, const real *restrict u,
                  real *restrict m) {
    real slope;
    if (is_silu) for (size_t i = 0; i < count; i++) m[i] = silu(g[i], &slope) * u[i];
    else for (size_t i = 0; i < count; i++) m[i] = gelu(g[i], &slope) * u[i];
}

static inline void gated_backward_one(real y, real slope, real *restrict g, real u,
                                      real *restrict d, real *restrict m) {
    real dm = *d;
    *m = y * u;
    *g = dm * u * slope;
    *d = dm * y;
}

/* m once more; dg replaces g, and du replaces d = dm. */
static void gated_backward(int is_silu, size_t count, real *restrict g, const real *restrict u,
                           real *restrict d, real *restrict m) {
    real slope, y;
    if (is_silu)
        for (size_t i = 0; i < count; i++) {
            y = silu(g[i], &slope);
            gated_backward_one(y, slope, g + i, u[i], d + i, m + i);
        }
    else
        for (size_t i = 0; i < count; i++) {
            y = gelu(g[i], &slope);
            gated_backward_one(y, slope, g + i, u[i], d + i, m + i);
        }
}

/* ---- relu, in place -------------------------------------------------------------------------- */

static void relu(size_t count, real *restrict x) {
    for (size_t i = 0; i < count; i++) x[i] = x[i] > 0 ? x[i] : 0;
}

static void relu_backward(size_t count, const real *restrict y, real *restrict d) {
    for (size_t i = 0; i < count; i++) d[i] = y[i] > 0 ? d[i] : 0;
}

/* ---- causal convolution: c[t] = bias + sum over s of w[s] z[t - s] ------------------------------
 * taps: [K][width], the current token's first. Rows of z and c are `row` numbers apart, and so are
 * the K - 1 rows `earlier` from before the sequence; position says how many earlier tokens the
 * document has. */

static const real *conv_input(int t, int K, const real *earlier, const real *z, size_t row) {
    return t >= 0 ? z + (size_t)t * row : earlier + (size_t)(K - 1 + t) * row;
}

static void conv(int rows, int width, int K, const real *taps, const real *bias,
                 const int32_t *position, const real *earlier, const real *z, real *restrict c,
                 size_t row) {
    for (int t = 0; t < rows; t++, c += row) {
        memcpy(c, bias, (size_t)width * sizeof *c);
        for (int s = 0; s < K && s <= position[t]; s++) {
            const real *w = taps + s * width, *from = conv_input(t - s, K, earlier, z, row);
            for (int j = 0; j < width; j++) c[j] += w[j] * from[j];
        }
    }
}

/* dtaps: [K + 1][width], the bias after the taps; dz over z. */
static void conv_backward(int rows, int width, int K, const real *taps, const int32_t *position,
                          const real *earlier, real *z, const real *dc, size_t row, real *dtaps) {
    for (int t = 0; t < rows; t++) {
        const real *d = dc + (size_t)t * row;
        real *bias = dtaps + K * width;
        for (int s = 0; s < K && s <= position[t]; s++) {
            real *restrict sum = dtaps + s * width;
            const real *from = conv_input(t - s, K, earlier, z, row);
            for (int j = 0; j < width; j++) sum[j] += d[j] * from[j];
        }
        for (int j = 0; j < width; j++) bias[j] += d[j];
    }
    for (int t = 0; t < rows; t++) {
        real *restrict to = z + (size_t)t * row;
        memset(to, 0, (size_t)width * sizeof *to);
        for (int s = 0; s < K && t + s < rows; s++) {
            const real *w = taps + s * width, *d = dc + (size_t)(t + s) * row;
            if (s > position[t + s]) break;
            for (int j = 0; j < width; j++) to[j] += w[j] * d[j];
        }
    }
}

/* Over the K - 1 rows `earlier`. */
static void conv_backward_earlier(int rows, int width, int K, const real *taps,
                                  const int32_t *position, const real *dc, size_t row,
                                  real *d_earlier) {
    for (int i = 0; i < K - 1; i++) {
        real *restrict to = d_earlier + (size_t)i * row;
        memset(to, 0, (size_t)width * sizeof *to);
        for (int t = 0; t < rows && t <= i; t++) {
            int s = t + K - 1 - i;
            const real *w = taps + s * width, *d = dc + (size_t)t * row;
            if (s > position[t]) break;
            for (int j = 0; j < width; j++) to[j] += w[j] * d[j];
        }
    }
}

/* ---- RG-LRU -------------------------------------------------------------------------------------
 *     x = sigmoid(gx), r = sigmoid(ga), log a = rate r      with rate = -c softplus(a_param)
 *     h[t] = a h[t-1] + sqrt(1 - a^2) x c[t]                a = 0 where a document begins
 * A row is `width` channels; x and r replace gx and ga. e = a - 1 is exact where a is nearly 1.
 * `forget` is taken off log a: with ALL, a becomes exactly 0 and the root 1. */

enum { ALL = 100 };

static void rglru_row(int width, real forget, const real *restrict rate, const real *restrict c,
                      real *restrict gx, real *restrict ga, const real *before, real *h) {
    for (int j = 0; j < width; j++) {
        real x = sigmoid(gx[j]), r = sigmoid(ga[j]), e = expm1_of(rate[j] * r - forget);
        real a = 1 + e, keep = root(-e * (e + 2));
        gx[j] = x;
        ga[j] = r;
        h[j] = a * before[j] + keep * x * c[j];
    }
}

/* dh: gradient of h[t] from above; carry: from h[t+1], then that of h[t-1]. Gradients of the gates'
 * inputs replace x and r, and that of c is written to dc. As in the reference, d sqrt(v) / dv is at
 * most 1000. */
static void rglru_row_backward(int width, real forget, const real *restrict rate,
                               const real *restrict c, const real *restrict dh,
                               const real *before, real *restrict carry, real *restrict gx,
                               real *restrict ga, real *restrict dc, real *restrict d_rate) {
    for (int j = 0; j < width; j++) {
        real x = gx[j], r = ga[j], e = expm1_of(rate[j] * r - forget), d = dh[j] + carry[j];
        real a = 1 + e, keep = root(-e * (e + 2));
        real bounded = keep > (real)0.0005 ? keep : (real)0.0005;
        real d_log = d * a * (before[j] - a * x * c[j] / bounded);
        carry[j] = d * a;
        dc[j] = d * keep * x;
        gx[j] = d * keep * c[j] * x * (1 - x);
        d_rate[j] += d_log * r;
        ga[j] = d_log * rate[j] * r * (1 - r);
    }
}

/* ---- attention ------------------------------------------------------------------------------- */

/* Rotates the first 2 half numbers of each head, element j with j + half; way = -1: back.
 * turns: half cosines and half sines for this row's position. */
static void rotate(int heads, int head_dim, int half, const real *restrict turns, real way,
                   real *x) {
    for (int h = 0; h < heads; h++, x += head_dim) {
        real *restrict first = x, *restrict second = x + half;
        for (int j = 0; j < half; j++) {
            real cosine = turns[j], sine = way * turns[half + j], a = first[j], b = second[j];
            first[j] = a * cosine - b * sine;
            second[j] = b * cosine + a * sine;
        }
    }
}

/* Scores of keys 0..count-1 become probabilities of from..to-1, times exp(-weighing). */
static void weigh(int count, int from, int to, real scale, real weighing, real *restrict s) {
    for (int j = 0; j < from; j++) s[j] = 0;
    for (int j = from; j < to; j++) s[j] = exp_of(s[j] * scale - weighing);
    for (int j = to; j < count; j++) s[j] = 0;
}

/* Through a softmax: ds from ds = d(probabilities) and p. */
static void weigh_backward(int count, real scale, const real *restrict p, real *restrict ds) {
    real mean = dot(p, ds, count);
    for (int j = 0; j < count; j++) ds[j] = p[j] * (ds[j] - mean) * scale;
}

/* ---- gated outer products -----------------------------------------------------------------------
 *     S[t] = f o S[t-1] + v k'        o[t] = S[t] q
 * A row of S belongs to a number of v; it is `width` long, a multiple of LANES, and so are f, k, q.
 * Functions are for `rows` of the rows. */

/* S[t] from S[t-1], which may be the same memory. */
static void outer_step(int rows, int width, const real *f, const real *k, const real *v,
                       const real *before, real *after) {
    for (int e = 0; e < rows; e++, before += width, after += width)
        for (int d = 0; d < width; d += LANES)
            *(loose_vec *)(after + d) = *(const loose_vec *)(f + d)
                                      * *(const loose_vec *)(before + d)
                                      + *(const loose_vec *)(k + d) * v[e];
}

static void outer_read(int rows, int width, const real *q, const real *S, real *o) {
    for (int e = 0; e < rows; e++) o[e] = dot(q, S + (size_t)e * (size_t)width, width);
}

/* A token on the way back. dS: what later tokens want of S[t]; then of S[t-1]. */
typedef struct outer_token {
    const real *q, *k, *f, *v, *d_o;        /* [width] three times, [rows] twice */
    const real *before, *after;             /* S[t-1], S[t] */
    real       *dq, *dk, *df, *dv;          /* are added to */
} outer_token;

static void outer_backward(int rows, int width, const outer_token *t, real *dS) {
    for (int e = 0; e < rows; e++) {
        real *row = dS + (size_t)e * (size_t)width;
        for (int d = 0; d < width; d += LANES)
            *(loose_vec *)(row + d) += *(const loose_vec *)(t->q + d) * t->d_o[e];
        t->dv[e] += dot(t->k, row, width);
    }
    for (int d = 0; d < width; d += LANES) {
        vec dq = *(loose_vec *)(t->dq + d), dk = *(loose_vec *)(t->dk + d);
        vec df = *(loose_vec *)(t->df + d), f = *(const loose_vec *)(t->f + d);
        for (int e = 0; e < rows; e++) {
            size_t at = (size_t)e * (size_t)width + (size_t)d;
            vec s = *(loose_vec *)(dS + at);
            dq += *(const loose_vec *)(t->after + at) * t->d_o[e];
            dk += s * t->v[e];
            df += s * *(const loose_vec *)(t->before + at);
            *(loose_vec *)(dS + at) = f * s;
        }
        *(loose_vec *)(t->dq + d) = dq;
        *(loose_vec *)(t->dk + d) = dk;
        *(loose_vec *)(t->df + d) = df;
    }
}

/* ---- output ---------------------------------------------------------------------------------- */

/* Soft cap and cross entropy of one row; the logits become scale * gradients. */
static double cross_entropy(int V, real cap, int target, real scale, real *restrict logits) {
    real t;
    if (target < 0) { memset(logits, 0, (size_t)V * sizeof *logits); return 0; }
    if (cap > 0) for (int j = 0; j < V; j++) logits[j] = cap * tanh_of(logits[j] / cap);
    real all = log_sum_exp(logits, V, 1);
    real hit = logits[target];
    for (int j = 0; j < V; j++) {
        t = cap > 0 ? logits[j] / cap : 0;
        logits[j] = exp_of(logits[j] - all) * scale * (1 - t * t);
    }
    t = cap > 0 ? hit / cap : 0;
    logits[target] -= scale * (1 - t * t);
    return (double)all - (double)hit;
}
