/* balance.c - see balance.h.
 *
 * With alpha = 1/2 of Xiao et al., SmoothQuant, arXiv 2211.10438: the power of a channel is that
 * next to sqrt(x / w), where x is the largest input in the text, w the largest weight that reads it,
 * both relative to the median of their channels. */

#include "balance.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../shared/engine.h"

enum { PASS = 64, MOST_TOKENS = 512, MOST_POWER = 12 };

typedef struct finder {
    model_parts *m;
    report      *r;
    int          width, inner;              /* of the input, and between the matrices */
    float       *inputs, *inners;           /* [layers][width], [layers][inner]: the largest, then
                                             * the factors; */
    float       *inverse;                   /* [layers][width + inner] and one divided by them */
    float       *scratch;                   /* [the larger width][2], for a median */
} finder;

/* ---- the largest inputs ---------------------------------------------------------------------- */

static void look(const engine_rows *x, void *user) {
    finder *f = (finder *)user;
    int is_inner = strcmp(x->matrix, "mlp_block.down_proj") == 0;
    float *most = is_inner ? f->inners + (size_t)x->layer * (size_t)f->inner
                           : f->inputs + (size_t)x->layer * (size_t)f->width;
    if (x->layer < 0 || (!is_inner && strcmp(x->matrix, "mlp_block.gate_proj") != 0)) return;
    for (int row = 0; row < x->rows; row++)
        for (int i = 0; i < x->width; i++)
            most[i] = fmaxf(most[i], fabsf(x->at[(size_t)row * (size_t)x->stride + (size_t)i]));
}

static int run_tokens(finder *f, const griffin_model *model, const int32_t *tokens, int count) {
    griffin_context_options options;
    memset(&options, 0, sizeof options);
    options.rows = PASS;
    options.states = 1;
    size_t size = griffin_context_size(model, &options);
    void *memory = malloc(size), *state = calloc(1, griffin_state_size(model));
    griffin_context *context;
    int error = memory && state ? griffin_context_init(&context, model, &options, memory, size)
                                : GRIFFIN_E_MEMORY;
    for (int i = 0; i < count && error >= 0; i += PASS) {
        griffin_span span;
        memset(&span, 0, sizeof span);
        span.state = (griffin_state *)state;
        span.tokens = tokens + i;
        span.count = count - i < PASS ? count - i : PASS;
        error = griffin_begin(context, &span, 1);
        if (error > 0) error = engine_watch(context, look, f);
    }
    free(memory);
    free(state);
    return error < 0 ? report_fail(f->r, "--balance: %s", griffin_error_string(error)) : 0;
}

/* A text as tokens, at most MOST_TOKENS of its beginning. */
static int run_text(finder *f, const griffin_model *model, const char *path) {
    int32_t *tokens;
    file_bytes file;
    int count, status;
    if (file_open(&file, path, f->r) != 0) return -1;
    size_t length = file.size < 8 * MOST_TOKENS ? (size_t)file.size : 8 * MOST_TOKENS;
    while (length && length < file.size && (file.data[length] & 0xC0) == 0x80) length--;
    int room = (int)length + 64;
    tokens = (int32_t *)malloc((size_t)room * sizeof *tokens);
    count = tokens ? griffin_encode(model, NULL, (const char *)file.data, length, tokens, room) : 0;
    if (count < 1)
        status = report_fail(f->r, "--balance %s: expected a text for the vocabulary of the model",
                             path);
    else status = run_tokens(f, model, tokens, count < MOST_TOKENS ? count : MOST_TOKENS);
    free(tokens);
    file_close(&file);
    return status;
}

static int run_image(finder *f, const void *image, size_t size, const char *path) {
    const griffin_config *net = &f->m->config.net;
    griffin_options options;
    griffin_model *model;
    memset(&options, 0, sizeof options);
    options.error = f->r->text;
    options.error_size = sizeof f->r->text;
    options.attn_keys = net->window >= MOST_TOKENS ? MOST_TOKENS : 0;
    if (griffin_open_memory(&model, image, size, &options) != GRIFFIN_OK) return -1;
    int status = run_text(f, model, path);
    griffin_close(model);
    return status;
}

/* ---- the factors ----------------------------------------------------------------------------- */

static int order(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static float median(finder *f, const float *values, int n) {
    memcpy(f->scratch, values, (size_t)n * sizeof *values);
    qsort(f->scratch, (size_t)n, sizeof *values, order);
    return f->scratch[n / 2];
}

static tensor *find(finder *f, int layer, const char *name) {
    char full[80];
    snprintf(full, sizeof full, "model.layers.%d.%s", layer, name);
    for (size_t i = 0; i < f->m->tensors.count; i++)
        if (strcmp(f->m->tensors.list[i].name, full) == 0) return &f->m->tensors.list[i];
    return NULL;
}

/* most[i] becomes the largest weight of column i, if that is larger. */
static int largest_weights(finder *f, const tensor *t, float *most) {
    uint64_t cols = t->shape[1];
    float *row = (float *)malloc((size_t)cols * sizeof *row);
    int status = row ? 0 : report_fail(f->r, "out of memory");
    for (uint64_t i = 0; i < t->shape[0] && status == 0; i++) {
        status = weight_read(t->source, i * cols, cols, row, f->r);
        for (uint64_t k = 0; k < cols && status == 0; k++) most[k] = fmaxf(most[k], fabsf(row[k]));
    }
    free(row);
    return status;
}

/* The largest inputs x of n channels become their factors. */
static int choose(finder *f, float *x, float *inverse, int n, const tensor *one,
                  const tensor *other) {
    float *w = f->scratch + n, middle = median(f, x, n), usual;
    memset(w, 0, (size_t)n * sizeof *w);
    if (largest_weights(f, one, w) != 0 || (other && largest_weights(f, other, w) != 0)) return -1;
    usual = median(f, w, n);
    for (int i = 0; i < n; i++) {
        double ratio = (double)x[i] * (double)usual / ((double)w[i] * (double)middle);
        double power = ratio > 0 && ratio < INFINITY ? rint(0.5 * log2(ratio)) : 0;
        x[i] = (float)ldexp(1, (int)fmin(fmax(power, -MOST_POWER), MOST_POWER));
        inverse[i] = 1 / x[i];
    }
    return 0;
}

static void divide(finder *f, int layer, const char *name, const float *inverse) {
    tensor *t = find(f, layer, name);
    if (t && t->rank > 1) t->by_row = inverse;
    else if (t) t->by_column = inverse;
}

static int balance_layer(finder *f, int layer) {
    float *inputs = f->inputs + (size_t)layer * (size_t)f->width;
    float *inners = f->inners + (size_t)layer * (size_t)f->inner;
    float *inverse = f->inverse + (size_t)layer * (size_t)(f->width + f->inner);
    tensor *gate = find(f, layer, "mlp_block.gate_proj.weight");
    tensor *up = find(f, layer, "mlp_block.up_proj.weight");
    tensor *down = find(f, layer, "mlp_block.down_proj.weight");
    if (choose(f, inners, inverse + f->width, f->inner, down, NULL) != 0) return -1;
    down->by_column = inners;
    divide(f, layer, "mlp_block.up_proj.weight", inverse + f->width);
    divide(f, layer, "mlp_block.up_proj.bias", inverse + f->width);
    if (f->m->config.net.norm_offset != 0) return 0;            /* its sum with the gain is rounded */
    if (choose(f, inputs, inverse, f->width, gate, up) != 0) return -1;
    gate->by_column = up->by_column = inputs;
    divide(f, layer, "channel_pre_norm.weight", inverse);
    divide(f, layer, "channel_pre_norm.bias", inverse);
    return 0;
}

int balance_find(model_parts *m, const void *image, size_t size, const char *text, float **factors,
                 report *r) {
    const griffin_config *net = &m->config.net;
    finder f = {m, r, net->width, net->mlp_width, NULL, NULL, NULL, NULL};
    size_t both = (size_t)net->layers * (size_t)(f.width + f.inner);
    size_t more = 2 * (size_t)(f.width > f.inner ? f.width : f.inner);
    *factors = (float *)calloc(2 * both + more, sizeof **factors);
    if (!*factors) return report_fail(r, "out of memory");
    f.inputs = *factors;
    f.inners = f.inputs + (size_t)net->layers * (size_t)f.width;
    f.inverse = *factors + both;
    f.scratch = f.inverse + both;
    int status = run_image(&f, image, size, text);
    for (int layer = 0; status == 0 && layer < net->layers; layer++)
        status = balance_layer(&f, layer);
    return status;
}
