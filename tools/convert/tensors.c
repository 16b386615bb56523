/* tensors.c - the names and shapes of the family, see tensors.h. */

#include "tensors.h"
#include "rename.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the table --------------------------------------------------------------------
 * Shapes spelled in the letters of the manual: D width, E recurrent width, F MLP width, K taps,
 * B gate blocks of w = E / B channels, H heads, k = G head_dim, p pairs that are rotated. A row is
 * of the layers whose letter it names, and there if its need says so. */

typedef enum row_need {
    ALWAYS,
    WITH_BIASES,                            /* unless config.no_biases */
    WITH_QKV_BIAS,
    OPTIONAL                                /* if the file has it */
} row_need;

typedef struct row {
    const char *name, *layers, *shape;
    tensor_kind kind;
    row_need    need;
} row;

static const row layer_rows[] = {
    {"temporal_pre_norm.weight",                    "rahs", "D",   TENSOR_SMALL,   ALWAYS},
    {"temporal_pre_norm.bias",                      "rahs", "D",   TENSOR_SMALL,   OPTIONAL},
    {"temporal_block.linear_y.weight",              "r",    "ED",  TENSOR_MATRIX,  ALWAYS},
    {"temporal_block.linear_y.bias",                "r",    "E",   TENSOR_SMALL,   WITH_BIASES},
    {"temporal_block.linear_x.weight",              "r",    "ED",  TENSOR_MATRIX,  ALWAYS},
    {"temporal_block.linear_x.bias",                "r",    "E",   TENSOR_SMALL,   WITH_BIASES},
    {"temporal_block.conv_1d.weight",               "r",    "E1K", TENSOR_SMALL,   ALWAYS},
    {"temporal_block.conv_1d.bias",                 "r",    "E",   TENSOR_SMALL,   ALWAYS},
    {"temporal_block.rg_lru.input_gate_weight",     "r",    "Bww", TENSOR_GATE,    ALWAYS},
    {"temporal_block.rg_lru.input_gate_bias",       "r",    "Bw",  TENSOR_SMALL,   ALWAYS},
    {"temporal_block.rg_lru.recurrent_gate_weight", "r",    "Bww", TENSOR_GATE,    ALWAYS},
    {"temporal_block.rg_lru.recurrent_gate_bias",   "r",    "Bw",  TENSOR_SMALL,   ALWAYS},
    {"temporal_block.rg_lru.recurrent_param",       "r",    "E",   TENSOR_SMALL,   ALWAYS},
    {"temporal_block.linear_out.weight",            "r",    "DE",  TENSOR_MATRIX,  ALWAYS},
    {"temporal_block.linear_out.bias",              "r",    "D",   TENSOR_SMALL,   WITH_BIASES},
    {"temporal_block.q_proj.weight",                "ah",   "DD",  TENSOR_MATRIX,  ALWAYS},
    {"temporal_block.q_proj.weight",                "s",    "DD",  TENSOR_CAREFUL, ALWAYS},
    {"temporal_block.q_proj.bias",                  "a",    "D",   TENSOR_SMALL,   WITH_QKV_BIAS},
    {"temporal_block.q_proj.bias",                  "s",    "D",   TENSOR_SMALL,   ALWAYS},
    {"temporal_block.f_proj.weight",                "h",    "DD",  TENSOR_CAREFUL, ALWAYS},
    {"temporal_block.k_proj.weight",                "a",    "kD",  TENSOR_MATRIX,  ALWAYS},
    {"temporal_block.k_proj.weight",                "s",    "kD",  TENSOR_CAREFUL, ALWAYS},
    {"temporal_block.k_proj.bias",                  "a",    "k",   TENSOR_SMALL,   WITH_QKV_BIAS},
    {"temporal_block.k_proj.bias",                  "s",    "k",   TENSOR_SMALL,   ALWAYS},
    {"temporal_block.v_proj.weight",                "as",   "kD",  TENSOR_MATRIX,  ALWAYS},
    {"temporal_block.v_proj.weight",                "h",    "DD",  TENSOR_MATRIX,  ALWAYS},
    {"temporal_block.v_proj.bias",                  "a",    "k",   TENSOR_SMALL,   WITH_QKV_BIAS},
    {"temporal_block.q_conv.weight",                "h",    "DK",  TENSOR_SMALL,   OPTIONAL},
    {"temporal_block.q_conv.bias",                  "h",    "D",   TENSOR_SMALL,   OPTIONAL},
    {"temporal_block.f_conv.weight",                "h",    "DK",  TENSOR_SMALL,   OPTIONAL},
    {"temporal_block.f_conv.bias",                  "h",    "D",   TENSOR_SMALL,   OPTIONAL},
    {"temporal_block.v_conv.weight",                "h",    "DK",  TENSOR_SMALL,   OPTIONAL},
    {"temporal_block.v_conv.bias",                  "h",    "D",   TENSOR_SMALL,   OPTIONAL},
    {"temporal_block.q_norm.weight",                "s",    "D",   TENSOR_SMALL,   OPTIONAL},
    {"temporal_block.q_norm.bias",                  "s",    "D",   TENSOR_SMALL,   OPTIONAL},
    {"temporal_block.k_norm.weight",                "s",    "D",   TENSOR_SMALL,   OPTIONAL},
    {"temporal_block.k_norm.bias",                  "s",    "D",   TENSOR_SMALL,   OPTIONAL},
    {"temporal_block.lower_bound",                  "h",    "D",   TENSOR_SMALL,   ALWAYS},
    {"temporal_block.gate_range",                   "h",    "D",   TENSOR_SMALL,   ALWAYS},
    {"temporal_block.decay",                        "s",    "H",   TENSOR_SMALL,   ALWAYS},
    {"temporal_block.group_norm.weight",            "h",    "D",   TENSOR_SMALL,   ALWAYS},
    {"temporal_block.group_norm.bias",              "h",    "D",   TENSOR_SMALL,   OPTIONAL},
    {"temporal_block.o_proj.weight",                "ahs",  "DD",  TENSOR_MATRIX,  ALWAYS},
    {"temporal_block.o_proj.bias",                  "ahs",  "D",   TENSOR_SMALL,   WITH_BIASES},
    {"channel_pre_norm.weight",                     "rahs", "D",   TENSOR_SMALL,   ALWAYS},
    {"channel_pre_norm.bias",                       "rahs", "D",   TENSOR_SMALL,   OPTIONAL},
    {"mlp_block.gate_proj.weight",                  "rahs", "FD",  TENSOR_MATRIX,  ALWAYS},
    {"mlp_block.gate_proj.bias",                    "rahs", "F",   TENSOR_SMALL,   WITH_BIASES},
    {"mlp_block.up_proj.weight",                    "rahs", "FD",  TENSOR_MATRIX,  ALWAYS},
    {"mlp_block.up_proj.bias",                      "rahs", "F",   TENSOR_SMALL,   WITH_BIASES},
    {"mlp_block.down_proj.weight",                  "rahs", "DF",  TENSOR_MATRIX,  ALWAYS},
    {"mlp_block.down_proj.bias",                    "rahs", "D",   TENSOR_SMALL,   WITH_BIASES}
};

static const row first_rows[] = {
    {"embed_tokens.weight", "", "VD", TENSOR_TABLE, ALWAYS},
    {"embed_norm.weight",   "", "D",  TENSOR_SMALL, OPTIONAL},
    {"embed_norm.bias",     "", "D",  TENSOR_SMALL, OPTIONAL},
    {"rope_factors.weight", "", "p",  TENSOR_SMALL, OPTIONAL}
};

static const row last_rows[] = {
    {"final_norm.weight",   "", "D",  TENSOR_SMALL, ALWAYS},
    {"final_norm.bias",     "", "D",  TENSOR_SMALL, OPTIONAL},
    {"lm_head.weight",      "", "VD", TENSOR_TABLE, OPTIONAL}
};

#define COUNT(rows) (sizeof rows / sizeof rows[0])

static uint64_t dimension(const griffin_config *net, char letter) {
    int n = 1;
    switch (letter) {
    case 'V': n = net->vocab; break;
    case 'D': n = net->width; break;
    case 'F': n = net->mlp_width; break;
    case 'E': n = net->lru_width; break;
    case 'K': n = net->conv_width; break;
    case 'B': n = net->gate_blocks; break;
    case 'w': n = net->lru_width / net->gate_blocks; break;
    case 'H': n = net->heads; break;
    case 'k': n = net->kv_heads * net->head_dim; break;
    case 'p': n = net->rope_dims / 2; break;
    default: break;
    }
    return (uint64_t)n;
}

/* ---- finding them ------------------------------------------------------------------- */

typedef struct finder {
    tensors        *t;
    const griffin_config *net;
    const weights  *w;
    const char     *prefix;                 /* "model." or "": how the file spells its names */
    char           *used;                   /* [w->count] */
    int             crop;
    report         *r;
} finder;

static void shape_text(int rank, const uint64_t *shape, char *text, size_t size) {
    size_t at = (size_t)snprintf(text, size, "[");
    for (int i = 0; i < rank && at < size; i++) {
        at += (size_t)snprintf(text + at, size - at, "%s%llu", i ? ", " : "",
                               (unsigned long long)shape[i]);
    }
    if (at < size) snprintf(text + at, size - at, "]");
}

static int check_shape(const finder *f, const tensor *t) {
    const weight *s = t->source;
    int first = f->crop && t->kind == TENSOR_TABLE && s->rank == 2 && s->shape[0] > t->shape[0];
    char has[200], expected[100];
    if (s->rank == t->rank && memcmp(s->shape + first, t->shape + first,
                                     (size_t)(t->rank - first) * sizeof t->shape[0]) == 0) return 0;
    shape_text(s->rank, s->shape, has, sizeof has);
    shape_text(t->rank, t->shape, expected, sizeof expected);
    return report_fail(f->r, "tensor '%s': shape %s instead of %s", weight_origin(s), has,
                       expected);
}

static tensor *grow(tensors *t) {
    if (t->count == t->capacity) {
        size_t capacity = t->capacity ? 2 * t->capacity : 64;
        tensor *list = (tensor *)realloc(t->list, capacity * sizeof *list);
        if (!list) return NULL;
        t->list = list;
        t->capacity = capacity;
    }
    memset(&t->list[t->count], 0, sizeof *t->list);
    return &t->list[t->count++];
}

static const char *prefix_of(const row *what, const char *prefix) {
    return strcmp(what->name, "lm_head.weight") ? prefix : "";
}

/* Adds the tensor "model." + middle + name; the head has no prefix. Null: no memory. */
static tensor *list_one(tensors *list, const griffin_config *net, const char *middle,
                        const row *what) {
    tensor *t = grow(list);
    if (!t) return NULL;
    snprintf(t->name, sizeof t->name, "%s%s%s", prefix_of(what, "model."), middle, what->name);
    t->kind = what->kind;
    t->rank = (int)strlen(what->shape);
    for (int i = 0; i < t->rank; i++) t->shape[i] = dimension(net, what->shape[i]);
    return t;
}

/* Adds a tensor and what the file has for it, under the prefix of the file. */
static int find_one(void *finding, const char *middle, const row *what) {
    finder *f = (finder *)finding;
    char name[96], text[120];
    snprintf(name, sizeof name, "%s%s%s", prefix_of(what, f->prefix), middle, what->name);
    if (what->need == OPTIONAL && !weights_find(f->w, name)) return 0;
    tensor *t = list_one(f->t, f->net, middle, what);
    if (!t) return report_fail(f->r, "out of memory");
    t->source = weights_find(f->w, name);
    if (!t->source)
        return report_fail(f->r, "tensor '%s' is missing", rename_back(f->w, name, text));
    if (t->source->type == WEIGHT_OTHER)
        return report_fail(f->r, "tensor '%s': type %s cannot be used", weight_origin(t->source),
                           t->source->type_name);
    f->used[t->source - f->w->list] = 1;
    return check_shape(f, t);
}

static int list_needed(void *listing, const char *middle, const row *what) {
    const finder *f = (const finder *)listing;
    return what->need == OPTIONAL || list_one(f->t, f->net, middle, what) ? 0 : -1;
}

/* ---- walking through the table, in the order of a forward pass ---------------------- */

typedef int visitor(void *user, const char *middle, const row *what);

static int layer_has(const griffin_config *net, int layer, const row *what) {
    if (!strchr(what->layers, net->blocks[layer])) return 0;
    if (what->need == WITH_QKV_BIAS) return net->qkv_bias;
    return what->need != WITH_BIASES || !net->no_biases;
}

static int visit_rows(const row *rows, size_t count, visitor *visit, void *user) {
    for (size_t i = 0; i < count; i++)
        if (visit(user, "", &rows[i]) != 0) return -1;
    return 0;
}

static int visit_all(const griffin_config *net, visitor *visit, void *user) {
    char middle[32];
    if (visit_rows(first_rows, COUNT(first_rows), visit, user) != 0) return -1;
    for (int layer = 0; layer < net->layers; layer++) {
        snprintf(middle, sizeof middle, "layers.%d.", layer);
        for (size_t i = 0; i < COUNT(layer_rows); i++)
            if (layer_has(net, layer, &layer_rows[i]) && visit(user, middle, &layer_rows[i]) != 0)
                return -1;
    }
    return visit_rows(last_rows, COUNT(last_rows), visit, user);
}

/* The number of gate blocks is in no configuration; the tensors know it. */
static int find_gate_blocks(const finder *f, griffin_config *net) {
    const char *first = strchr(net->blocks, 'r');
    char name[96];
    if (!first) return 0;
    snprintf(name, sizeof name, "%slayers.%d.temporal_block.rg_lru.input_gate_weight", f->prefix,
             (int)(first - net->blocks));
    const weight *gate = weights_find(f->w, name);
    if (!gate) return report_fail(f->r, "tensor '%s' is missing", name);
    if (gate->rank != 3 || gate->shape[0] == 0 || gate->shape[0] > (uint64_t)net->lru_width
        || (uint64_t)net->lru_width % gate->shape[0])
        return report_fail(f->r, "tensor '%s': expected a shape [blocks, in, out] whose blocks "
                           "divide lru_width %d", name, net->lru_width);
    net->gate_blocks = (int)gate->shape[0];
    return 0;
}

static int is_ignored(const char *name) {
    static const char ending[] = ".inv_freq";
    size_t n = strlen(name), m = sizeof ending - 1;
    if (strcmp(name, "normalizer") == 0 || strcmp(name, "model.normalizer") == 0) return 1;
    return n > m && strcmp(name + n - m, ending) == 0;
}

static int refuse_unknown(const finder *f) {
    for (size_t i = 0; i < f->w->count; i++) {
        if (!f->used[i] && !is_ignored(f->w->list[i].name))
            return report_fail(f->r, "tensor '%s' is not part of this network",
                               weight_origin(&f->w->list[i]));
    }
    return 0;
}

int tensors_list(tensors *t, const griffin_config *net) {
    memset(t, 0, sizeof *t);
    finder f = {t, net, NULL, "model.", NULL, 0, NULL};
    if (visit_all(net, list_needed, &f) == 0) return 0;
    tensors_free(t);
    return -1;
}

int tensors_list_head(tensors *t, const griffin_config *net) {
    return list_one(t, net, "", &last_rows[COUNT(last_rows) - 1]) ? 0 : -1;
}

int tensors_find(tensors *t, griffin_config *net, const weights *w, int crop, report *r) {
    finder f = {t, net, w, "model.", NULL, crop, r};
    memset(t, 0, sizeof *t);
    if (!weights_find(w, "model.embed_tokens.weight")) {
        char text[120];
        if (!weights_find(w, "embed_tokens.weight"))
            return report_fail(r, "tensor '%s' is missing",
                               rename_back(w, "model.embed_tokens.weight", text));
        f.prefix = "";
    }
    f.used = (char *)calloc(w->count + 1, 1);
    if (!f.used) return report_fail(r, "out of memory");
    int status = find_gate_blocks(&f, net);
    if (status == 0) status = visit_all(net, find_one, &f);
    if (status == 0) status = refuse_unknown(&f);
    free(f.used);
    if (status != 0) tensors_free(t);
    return status;
}

void tensors_free(tensors *t) {
    free(t->list);
    memset(t, 0, sizeof *t);
}
