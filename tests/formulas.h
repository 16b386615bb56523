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
} formulas;

static inline formulas *formulas_new(const network *n, int keys) {
    formulas *f = (formulas *)calloc(1, sizeof *f);
    f->n = n;
    f->keys = keys;
    return f;
}

static inline void formulas_reset(formulas *f) { f->p = 0; }

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

static inline void formulas_norm(const formulas *f, int layer, const char *name, const double *x,
                                 double *y) {
    const griffin_config *g = &f->n->config;
    const float *w = formulas_tensor(f, layer, name, ".weight")->values;
    double mean = 0;
    for (int j = 0; j < g->width; j++) mean += x[j] * x[j] / g->width;
    for (int j = 0; j < g->width; j++)
        y[j] = x[j] / sqrt(mean + (double)g->eps) * ((double)g->norm_offset + w[j]);
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
    int e, s, E = g->lru_width, K = g->conv_width;
    formulas_linear(f, layer, "rec.y", u, y);
    formulas_linear(f, layer, "rec.x", u, f->z[layer][f->p]);
    for (e = 0; e < E; e++) {
        c[e] = bias[e];
        for (s = 0; s < K && s <= f->p; s++)
            c[e] += (double)taps[(K - 1 - s) * E + e] * f->z[layer][f->p - s][e];
    }
    formulas_gate(f, layer, "rec.gate_x", c, i);
    formulas_gate(f, layer, "rec.gate_a", c, r);
    for (e = 0; e < E; e++) {
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
    int half = g->rope_dims / 2;
    for (; heads > 0; heads--, x += g->head_dim)
        for (int j = 0; j < half; j++) {
            double angle = f->p * pow((double)g->rope_base, -2.0 * j / g->rope_dims);
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
    int layer, j, D = g->width;
    for (j = 0; j < D; j++) x[j] = (double)embedding[token * D + j] * (double)g->embedding_scale;
    for (layer = 0; layer < g->layers; layer++) {
        formulas_norm(f, layer, "norm1", x, u);
        if (g->blocks[layer] == 'r') formulas_recurrent(f, layer, u, out);
        else formulas_attention(f, layer, u, out);
        for (j = 0; j < D; j++) x[j] += out[j];
        formulas_norm(f, layer, "norm2", x, u);
        formulas_mlp(f, layer, u, out);
        for (j = 0; j < D; j++) x[j] += out[j];
    }
    formulas_norm(f, -1, "final_norm", x, u);
    formulas_linear(f, -1, "embed", u, logits);
    for (j = 0; j < g->vocab && g->soft_cap > 0; j++)
        logits[j] = (double)g->soft_cap * tanh(logits[j] / (double)g->soft_cap);
    f->p++;
}

#endif
