/* formulas.h - the network in the plainest words: one token after the other, in double, every key
 * and convolution input kept, no ring, no chunks, no padding. What griffin.h computes cleverly. */

#ifndef FORMULAS_H
#define FORMULAS_H

#include "model.h"

#define FORMULA_TOKENS 16
#define FORMULA_LAYERS 4
#define FORMULA_WIDTH  64

typedef struct formulas {
    const network *n;
    int    keys;                            /* a token sees, itself included */
    int    p;                               /* position of the token */
    double h[FORMULA_LAYERS][FORMULA_WIDTH];
    double z[FORMULA_LAYERS][FORMULA_TOKENS][FORMULA_WIDTH];    /* convolution inputs, or keys */
    double v[FORMULA_LAYERS][FORMULA_TOKENS][FORMULA_WIDTH];    /* values */
    double past[FORMULA_LAYERS][3][FORMULA_TOKENS][FORMULA_WIDTH];  /* HGRN2's zq, zf and v */
    double S[FORMULA_LAYERS][FORMULA_WIDTH][FORMULA_WIDTH];     /* head by head, [K][V] */
} formulas;

static inline formulas *formulas_new(const network *n, int keys) {
    formulas *f = (formulas *)calloc(1, sizeof *f);
    f->n = n;
    f->keys = keys;
    return f;
}

static inline void formulas_reset(formulas *f) {
    f->p = 0;
    memset(f->S, 0, sizeof f->S);
}

/* Tensor "layers.LAYER.NAMEsuffix", or null. */
static inline const tensor *formulas_tensor(const formulas *f, int layer, const char *name,
                                            const char *suffix) {
    char full[64], prefix[24] = "";
    if (layer >= 0) snprintf(prefix, sizeof prefix, "layers.%d.", layer);
    snprintf(full, sizeof full, "%s%s%s", prefix, name, suffix);
    for (int i = 0; i < f->n->count; i++)
        if (strcmp(f->n->tensors[i].name, full) == 0) return &f->n->tensors[i];
    return NULL;
}

/* y = W x + b, if there is a bias */
static inline void formulas_linear(const formulas *f, int layer, const char *name, const double *x,
                                   double *y) {
    const tensor *w = formulas_tensor(f, layer, name, ".weight");
    const tensor *b = formulas_tensor(f, layer, name, ".bias");
    int cols = w->sizes[1];
    for (int r = 0; r < w->sizes[0]; r++) {
        y[r] = b ? b->values[r] : 0;
        for (int k = 0; k < cols; k++) y[r] += (double)w->values[r * cols + k] * x[k];
    }
}

/* y = x / sqrt(mean(x^2) + eps), of x less its mean if `centred` */
static inline void formulas_normalise(const double *x, double *y, int n, int centred, double eps) {
    double mean = 0, square = 0;
    for (int j = 0; j < n && centred; j++) mean += x[j] / n;
    for (int j = 0; j < n; j++) square += (x[j] - mean) * (x[j] - mean) / n;
    for (int j = 0; j < n; j++) y[j] = (x[j] - mean) / sqrt(square + eps);
}

static inline void formulas_gain(const formulas *f, int layer, const char *name, double *y, int n) {
    const float *w = formulas_tensor(f, layer, name, ".weight")->values;
    const tensor *b = formulas_tensor(f, layer, name, ".bias");
    for (int j = 0; j < n; j++)
        y[j] = y[j] * ((double)f->n->config.norm_offset + w[j]) + (b ? b->values[j] : 0);
}

static inline void formulas_norm(const formulas *f, int layer, const char *name, const double *x,
                                 double *y, int n) {
    const griffin_config *g = &f->n->config;
    formulas_normalise(x, y, n, g->layer_norm, (double)g->eps);
    formulas_gain(f, layer, name, y, n);
}

static inline double formulas_sigmoid(double x) { return 1 / (1 + exp(-x)); }

static inline double formulas_activation(const formulas *f, double x) {
    const double root = 0.79788456080286535588;             /* sqrt(2 / pi) */
    switch (f->n->config.activation) {
    case GRIFFIN_GELU_ERF: return x * 0.5 * (1 + erf(x * sqrt(0.5)));
    case GRIFFIN_SILU:     return x * formulas_sigmoid(x);
    case GRIFFIN_RELU:     return x > 0 ? x : 0;
    default:               return 0.5 * x * (1 + tanh(root * (x + 0.044715 * x * x * x)));
    }
}

/* sigmoid of a block-diagonal layer, weights [block][in][out] */
static inline void formulas_gate(const formulas *f, int layer, const char *name, const double *c,
                                 double *out) {
    const float *w = formulas_tensor(f, layer, name, ".weight")->values;
    const float *b = formulas_tensor(f, layer, name, ".bias")->values;
    int n = f->n->config.lru_width / f->n->config.gate_blocks;
    for (int e = 0; e < f->n->config.lru_width; e++) {
        double sum = b[e];
        for (int i = 0; i < n; i++)
            sum += c[e / n * n + i] * (double)w[(e / n * n + i) * n + e % n];
        out[e] = formulas_sigmoid(sum);
    }
}

static inline void formulas_recurrent(formulas *f, int layer, const double *u, double *out) {
    const griffin_config *g = &f->n->config;
    const float *taps = formulas_tensor(f, layer, "rec.conv", ".weight")->values;
    const float *bias = formulas_tensor(f, layer, "rec.conv", ".bias")->values;
    const float *param = formulas_tensor(f, layer, "rec.a_param", "")->values;
    double y[FORMULA_WIDTH], c[FORMULA_WIDTH], i[FORMULA_WIDTH], r[FORMULA_WIDTH], *h = f->h[layer];
    int E = g->lru_width, K = g->conv_width;
    formulas_linear(f, layer, "rec.y", u, y);
    formulas_linear(f, layer, "rec.x", u, f->z[layer][f->p]);
    for (int e = 0; e < E; e++) {
        c[e] = bias[e];
        for (int s = 0; s < K && s <= f->p; s++)
            c[e] += (double)taps[(K - 1 - s) * E + e] * f->z[layer][f->p - s][e];
    }
    formulas_gate(f, layer, "rec.gate_x", c, i);
    formulas_gate(f, layer, "rec.gate_a", c, r);
    for (int e = 0; e < E; e++) {
        double log_a = -(double)g->decay * r[e] * log1p(exp(param[e]));
        if (f->p == 0) h[e] = i[e] * c[e];
        else h[e] = exp(log_a) * h[e] + sqrt(-expm1(2 * log_a)) * i[e] * c[e];
        y[e] = formulas_activation(f, y[e]) * h[e];
    }
    formulas_linear(f, layer, "rec.out", y, out);
}

/* Element j of the first rope_dims turns with element j + rope_dims / 2. */
static inline void formulas_rope(const formulas *f, double *x, int heads) {
    const griffin_config *g = &f->n->config;
    const tensor *factors = formulas_tensor(f, -1, "rope_factors", "");
    int half = g->rope_dims / 2;
    for (; heads > 0; heads--, x += g->head_dim)
        for (int j = 0; j < half; j++) {
            double angle = f->p * pow((double)g->rope_base, -2.0 * j / g->rope_dims);
            if (factors) angle /= (double)factors->values[j];
            double a = x[j], b = x[j + half];
            x[j] = a * cos(angle) - b * sin(angle);
            x[j + half] = b * cos(angle) + a * sin(angle);
        }
}

static inline void formulas_head(const formulas *f, int layer, const double *q, int kv,
                                 double *out) {
    int hd = f->n->config.head_dim, first = f->p + 1 > f->keys ? f->p + 1 - f->keys : 0;
    double sum = 0;
    for (int d = 0; d < hd; d++) out[d] = 0;
    for (int t = first; t <= f->p; t++) {
        double score = 0;
        for (int d = 0; d < hd; d++) score += q[d] * f->z[layer][t][kv * hd + d];
        score = exp(score / sqrt(hd));
        for (int d = 0; d < hd; d++) out[d] += score * f->v[layer][t][kv * hd + d];
        sum += score;
    }
    for (int d = 0; d < hd; d++) out[d] /= sum;
}

static inline void formulas_attention(formulas *f, int layer, const double *u, double *out) {
    const griffin_config *g = &f->n->config;
    double q[FORMULA_WIDTH], mixed[FORMULA_WIDTH];
    formulas_linear(f, layer, "attn.q", u, q);
    formulas_linear(f, layer, "attn.k", u, f->z[layer][f->p]);
    formulas_linear(f, layer, "attn.v", u, f->v[layer][f->p]);
    formulas_rope(f, q, g->heads);
    formulas_rope(f, f->z[layer][f->p], g->kv_heads);
    for (int head = 0; head < g->heads; head++)
        formulas_head(f, layer, q + head * g->head_dim, head / (g->heads / g->kv_heads),
                      mixed + head * g->head_dim);
    formulas_linear(f, layer, "attn.o", mixed, out);
}

/* ---- states that are matrices ---- */

static inline double formulas_mixer_eps(const formulas *f) {
    return f->n->config.mixer_eps > 0 ? (double)f->n->config.mixer_eps : 1e-5;
}

/* S = diag(decay) S + k v', out = S' q for each head; k and v of so many heads each. */
static inline void formulas_outer(formulas *f, int layer, const double *q, const double *k,
                                  int k_heads, const double *v, int v_heads, const double *decay,
                                  double *out) {
    int H = f->n->config.heads, K = f->n->config.head_dim;
    for (int h = 0; h < H; h++) {
        const double *kh = k + h / (H / k_heads) * K, *vh = v + h / (H / v_heads) * K;
        for (int e = 0; e < K; e++) out[h * K + e] = 0;
        for (int d = 0; d < K; d++)
            for (int e = 0; e < K; e++) {
                double *s = &f->S[layer][h * K + d][e];
                *s = decay[h * K + d] * *s + kh[d] * vh[e];
                out[h * K + e] += q[h * K + d] * *s;
            }
    }
}

/* One of the three projections, with its short convolution if it has one. */
static inline void formulas_path(formulas *f, int layer, int path, const double *u, double *y) {
    static const char *const names[3][2] = {
        { "h.q", "h.q.conv" }, { "h.f", "h.f.conv" }, { "h.v", "h.v.conv" }
    };
    const tensor *taps = formulas_tensor(f, layer, names[path][1], ".weight");
    const tensor *bias = formulas_tensor(f, layer, names[path][1], ".bias");
    int n = f->n->config.heads * f->n->config.head_dim, K = f->n->config.conv_width;
    formulas_linear(f, layer, names[path][0], u, f->past[layer][path][f->p]);
    for (int e = 0; e < n; e++) {
        y[e] = taps ? 0 : f->past[layer][path][f->p][e];
        if (bias) y[e] = bias->values[e];
        for (int s = 0; taps && s < K && s <= f->p; s++)
            y[e] += (double)taps->values[(K - 1 - s) * n + e] * f->past[layer][path][f->p - s][e];
    }
}

static inline void formulas_hgrn2(formulas *f, int layer, const double *u, double *out) {
    const float *lower = formulas_tensor(f, layer, "h.floor", "")->values;
    const float *range = formulas_tensor(f, layer, "h.range", "")->values;
    double q[FORMULA_WIDTH], gate[FORMULA_WIDTH], k[FORMULA_WIDTH], v[FORMULA_WIDTH];
    double read[FORMULA_WIDTH];
    int H = f->n->config.heads, n = H * f->n->config.head_dim;
    formulas_path(f, layer, 0, u, q);
    formulas_path(f, layer, 1, u, gate);
    formulas_path(f, layer, 2, u, v);
    for (int j = 0; j < n; j++) {
        q[j] *= formulas_sigmoid(q[j]) / sqrt(f->n->config.head_dim);
        k[j] = (double)range[j] * formulas_sigmoid(-gate[j]);
        gate[j] = (double)lower[j] + (double)range[j] * formulas_sigmoid(gate[j]);
    }
    formulas_outer(f, layer, q, k, H, v, H, gate, read);
    formulas_normalise(read, read, n, 0, formulas_mixer_eps(f));
    formulas_gain(f, layer, "h.norm", read, n);
    formulas_linear(f, layer, "h.o", read, out);
}

static inline void formulas_supra(formulas *f, int layer, const double *u, double *out) {
    const griffin_config *g = &f->n->config;
    const float *gamma = formulas_tensor(f, layer, "s.decay", "")->values;
    double q[FORMULA_WIDTH], k[FORMULA_WIDTH], v[FORMULA_WIDTH], decay[FORMULA_WIDTH];
    double all[FORMULA_WIDTH], read[FORMULA_WIDTH];
    int H = g->heads, G = g->kv_heads, K = g->head_dim, n = H * K;
    formulas_linear(f, layer, "s.q", u, q);
    formulas_linear(f, layer, "s.k", u, k);
    formulas_linear(f, layer, "s.v", u, v);
    for (int j = 0; j < n; j++) {
        q[j] = q[j] > 0 ? q[j] : 0;
        all[j] = k[j / K / (H / G) * K + j % K];
        all[j] = all[j] > 0 ? all[j] : 0;
        decay[j] = gamma[j / K];
    }
    if (formulas_tensor(f, layer, "s.q.norm", ".weight")) {
        formulas_norm(f, layer, "s.q.norm", q, q, n);
        formulas_norm(f, layer, "s.k.norm", all, all, n);
    }
    formulas_rope(f, q, H);
    formulas_rope(f, all, H);
    for (int j = 0; j < n; j++) all[j] /= sqrt(K);
    formulas_outer(f, layer, q, all, H, v, G, decay, read);
    for (int j = 0; j < H; j++)
        formulas_normalise(read + j * K, read + j * K, K, 1, formulas_mixer_eps(f));
    formulas_linear(f, layer, "s.o", read, out);
}

static inline void formulas_mlp(const formulas *f, int layer, const double *v, double *out) {
    double gate[FORMULA_WIDTH], up[FORMULA_WIDTH];
    formulas_linear(f, layer, "mlp.gate", v, gate);
    formulas_linear(f, layer, "mlp.up", v, up);
    for (int j = 0; j < f->n->config.mlp_width; j++)
        gate[j] = formulas_activation(f, gate[j]) * up[j];
    formulas_linear(f, layer, "mlp.down", gate, out);
}

static inline void formulas_step(formulas *f, int32_t token, double *logits) {
    const griffin_config *g = &f->n->config;
    const float *embedding = formulas_tensor(f, -1, "embed", ".weight")->values;
    double x[FORMULA_WIDTH], u[FORMULA_WIDTH], out[FORMULA_WIDTH];
    int j, D = g->width;
    for (j = 0; j < D; j++) x[j] = (double)embedding[token * D + j] * (double)g->embedding_scale;
    if (formulas_tensor(f, -1, "embed_norm", ".weight"))
        formulas_norm(f, -1, "embed_norm", x, x, D);
    for (int layer = 0; layer < g->layers; layer++) {
        formulas_norm(f, layer, "norm1", x, u, D);
        switch (g->blocks[layer]) {
        case 'r': formulas_recurrent(f, layer, u, out); break;
        case 'h': formulas_hgrn2(f, layer, u, out);     break;
        case 's': formulas_supra(f, layer, u, out);     break;
        default:  formulas_attention(f, layer, u, out); break;
        }
        for (j = 0; j < D; j++) x[j] += out[j];
        formulas_norm(f, layer, "norm2", x, u, D);
        formulas_mlp(f, layer, u, out);
        for (j = 0; j < D; j++) x[j] += out[j];
    }
    formulas_norm(f, -1, "final_norm", x, u, D);
    formulas_linear(f, -1, formulas_tensor(f, -1, "head", ".weight") ? "head" : "embed", u, logits);
    for (j = 0; j < g->vocab && g->soft_cap > 0; j++)
        logits[j] = (double)g->soft_cap * tanh(logits[j] / (double)g->soft_cap);
    f->p++;
}

#endif
