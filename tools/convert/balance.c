/* balance.c - see balance.h.
 *
 * With alpha = 1/2 of Xiao et al., SmoothQuant, arXiv 2211.10438: the power of a channel is the one
 * next to sqrt(x / w), where x is the root of the mean square of its inputs in the text, and w the
 * largest weight that reads it, both relative to the median of all channels. */

#include "balance.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../shared/engine.h"

enum { PASS = 64, MOST_TOKENS = 512, MOST_POWER = 12 };

/* A site is where inputs are made alike. `dividers` stand before it, a norm's gain or a matrix;
 * `readers` multiply it. A pass sees the first of them that a layer has. */
typedef struct site { const char *dividers[2], *readers[7]; int is_norm; } site;

enum { SITES = 3, INNER = 2 };

static const site sites[SITES] = {
    {{"temporal_pre_norm.weight", "temporal_pre_norm.bias"},
     {"temporal_block.q_proj.weight", "temporal_block.k_proj.weight",
      "temporal_block.f_proj.weight", "temporal_block.v_proj.weight",
      "temporal_block.linear_y.weight", "temporal_block.linear_x.weight", NULL}, 1},
    {{"channel_pre_norm.weight", "channel_pre_norm.bias"},
     {"mlp_block.gate_proj.weight", "mlp_block.up_proj.weight", NULL}, 1},
    {{"mlp_block.up_proj.weight", "mlp_block.up_proj.bias"},
     {"mlp_block.down_proj.weight", NULL}, 0}
};

typedef struct finder {
    model_parts *m;
    report      *r;
    int          widest;
    float       *squares;                   /* [layers][SITES][widest] sums, then the factors; */
    float       *inverse;                   /* and one divided by them */
    float       *scratch;                   /* [widest][2] */
} finder;

static int width_of(const finder *f, int which) {
    return which == INNER ? f->m->config.net.mlp_width : f->m->config.net.width;
}

static size_t place_of(const finder *f, int layer, int which) {
    return (size_t)(layer * SITES + which) * (size_t)f->widest;
}

/* ---- inputs ---------------------------------------------------------------------------------- */

/* -1: it is none of them. A name in a program has no ".weight". */
static int site_of(const char *matrix) {
    size_t n = strlen(matrix);
    for (int i = 0; i < SITES; i++) {
        const char *const *name = sites[i].readers;
        for (; *name; name++)
            if (strncmp(*name, matrix, n) == 0 && (*name)[n] == '.') return i;
    }
    return -1;
}

static void look(const engine_rows *x, void *user) {
    finder *f = (finder *)user;
    int which = x->layer < 0 ? -1 : site_of(x->matrix);
    if (which < 0) return;
    float *sums = f->squares + place_of(f, x->layer, which);
    for (int row = 0; row < x->rows; row++) {
        const float *in = x->at + (size_t)row * (size_t)x->stride;
        for (int i = 0; i < x->width; i++) sums[i] += in[i] * in[i];
    }
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
    return error < 0 ? report_fail(f->r, "balancing: %s", griffin_error_string(error)) : 0;
}

/* A text as tokens, at most MOST_TOKENS of its beginning. */
static int run_text(finder *f, const griffin_model *model, const char *path) {
    file_bytes file;
    int count, status;
    if (file_open(&file, path, f->r) != 0) return -1;
    size_t length = file.size < 8 * MOST_TOKENS ? (size_t)file.size : 8 * MOST_TOKENS;
    while (length && length < file.size && (file.data[length] & 0xC0) == 0x80) length--;
    int room = (int)length + 64;
    int32_t *tokens = (int32_t *)malloc((size_t)room * sizeof *tokens);
    count = tokens ? griffin_encode(model, NULL, (const char *)file.data, length, tokens, room) : 0;
    if (!tokens) status = report_fail(f->r, "out of memory");
    else if (count < 0) status = report_fail(f->r, "%s: %s", path, griffin_error_string(count));
    else if (!length) status = report_fail(f->r, "%s: is empty", path);
    else {
        if (count > room) count = room;     /* each byte that is no UTF-8 may become three tokens */
        status = run_tokens(f, model, tokens, count < MOST_TOKENS ? count : MOST_TOKENS);
    }
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
    weight_release(t->source);
    free(row);
    return status;
}

/* The sums of squares x of n channels become their factors. */
static int choose(finder *f, int layer, const site *at, float *x, float *inverse, int n) {
    float *w = f->scratch + n;
    memset(w, 0, (size_t)n * sizeof *w);
    for (int i = 0; at->readers[i]; i++) {
        const tensor *t = find(f, layer, at->readers[i]);
        if (t && largest_weights(f, t, w) != 0) return -1;
    }
    for (int i = 0; i < n; i++) if (!(x[i] < INFINITY)) x[i] = 0;       /* NaN has no order */
    float middle = median(f, x, n);
    float usual = median(f, w, n);
    for (int i = 0; i < n; i++) {
        double ratio = sqrt((double)x[i] / (double)middle) * (double)usual / (double)w[i];
        double power = ratio > 0 && ratio < INFINITY ? rint(0.5 * log2(ratio)) : 0;
        x[i] = (float)ldexp(1, (int)fmin(fmax(power, -MOST_POWER), MOST_POWER));
        inverse[i] = 1 / x[i];
    }
    return 0;
}

static int balance_site(finder *f, int layer, int which) {
    const site *at = &sites[which];
    float *factors = f->squares + place_of(f, layer, which);
    float *inverse = f->inverse + place_of(f, layer, which);
    if (at->is_norm && f->m->config.net.norm_offset != 0) return 0; /* its sum would be rounded */
    if (choose(f, layer, at, factors, inverse, width_of(f, which)) != 0) return -1;
    for (int i = 0; at->readers[i]; i++) {
        tensor *t = find(f, layer, at->readers[i]);
        if (t) t->by_column = factors;
    }
    for (int i = 0; i < 2; i++) {
        tensor *t = find(f, layer, at->dividers[i]);
        if (t && t->rank > 1) t->by_row = inverse;
        else if (t) t->by_column = inverse;
    }
    return 0;
}

int balance_find(model_parts *m, const void *image, size_t size, const char *text, float **factors,
                 report *r) {
    const griffin_config *net = &m->config.net;
    finder f = {m, r, net->width > net->mlp_width ? net->width : net->mlp_width, NULL, NULL, NULL};
    size_t all = place_of(&f, net->layers, 0);
    *factors = (float *)calloc(2 * all + 2 * (size_t)f.widest, sizeof **factors);
    if (!*factors) return report_fail(r, "out of memory");
    f.squares = *factors;
    f.inverse = f.squares + all;
    f.scratch = f.inverse + all;
    int status = run_image(&f, image, size, text);
    for (int i = 0; status == 0 && i < net->layers * SITES; i++)
        status = balance_site(&f, i / SITES, i % SITES);
    return status;
}
