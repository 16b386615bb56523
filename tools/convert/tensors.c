/* tensors.c - the names and shapes of the family, see tensors.h. */

#include "tensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the table --------------------------------------------------------------------
 * Shapes spelled in the letters of the manual: D width, E recurrent width, F MLP width, K taps,
 * B gate blocks of w = E / B channels, k = G head_dim. Recurrent layers have the rows marked 'r',
 * attention layers 'a' (and 'b' if the projections have biases), all of them '*'. */

typedef struct row { const char *name; char layer; const char *shape; tensor_kind kind; } row;

static const row layer_rows[] = {
    {"temporal_pre_norm.weight",                    '*', "D",   TENSOR_SMALL},
    {"temporal_block.linear_y.weight",              'r', "ED",  TENSOR_MATRIX},
    {"temporal_block.linear_y.bias",                'r', "E",   TENSOR_SMALL},
    {"temporal_block.linear_x.weight",              'r', "ED",  TENSOR_MATRIX},
    {"temporal_block.linear_x.bias",                'r', "E",   TENSOR_SMALL},
    {"temporal_block.conv_1d.weight",               'r', "E1K", TENSOR_SMALL},
    {"temporal_block.conv_1d.bias",                 'r', "E",   TENSOR_SMALL},
    {"temporal_block.rg_lru.input_gate_weight",     'r', "Bww", TENSOR_GATE},
    {"temporal_block.rg_lru.input_gate_bias",       'r', "Bw",  TENSOR_SMALL},
    {"temporal_block.rg_lru.recurrent_gate_weight", 'r', "Bww", TENSOR_GATE},
    {"temporal_block.rg_lru.recurrent_gate_bias",   'r', "Bw",  TENSOR_SMALL},
    {"temporal_block.rg_lru.recurrent_param",       'r', "E",   TENSOR_SMALL},
    {"temporal_block.linear_out.weight",            'r', "DE",  TENSOR_MATRIX},
    {"temporal_block.linear_out.bias",              'r', "D",   TENSOR_SMALL},
    {"temporal_block.q_proj.weight",                'a', "DD",  TENSOR_MATRIX},
    {"temporal_block.q_proj.bias",                  'b', "D",   TENSOR_SMALL},
    {"temporal_block.k_proj.weight",                'a', "kD",  TENSOR_MATRIX},
    {"temporal_block.k_proj.bias",                  'b', "k",   TENSOR_SMALL},
    {"temporal_block.v_proj.weight",                'a', "kD",  TENSOR_MATRIX},
    {"temporal_block.v_proj.bias",                  'b', "k",   TENSOR_SMALL},
    {"temporal_block.o_proj.weight",                'a', "DD",  TENSOR_MATRIX},
    {"temporal_block.o_proj.bias",                  'a', "D",   TENSOR_SMALL},
    {"channel_pre_norm.weight",                     '*', "D",   TENSOR_SMALL},
    {"mlp_block.gate_proj.weight",                  '*', "FD",  TENSOR_MATRIX},
    {"mlp_block.gate_proj.bias",                    '*', "F",   TENSOR_SMALL},
    {"mlp_block.up_proj.weight",                    '*', "FD",  TENSOR_MATRIX},
    {"mlp_block.up_proj.bias",                      '*', "F",   TENSOR_SMALL},
    {"mlp_block.down_proj.weight",                  '*', "DF",  TENSOR_MATRIX},
    {"mlp_block.down_proj.bias",                    '*', "D",   TENSOR_SMALL}
};

#define LAYER_ROWS (sizeof layer_rows / sizeof layer_rows[0])

static const row embedding_row = {"embed_tokens.weight", '*', "VD", TENSOR_TABLE};
static const row final_row     = {"final_norm.weight",   '*', "D",  TENSOR_SMALL};
static const row head_row      = {"lm_head.weight",      '*', "VD", TENSOR_TABLE};

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
    case 'k': n = net->kv_heads * net->head_dim; break;
    default: break;
    }
    return (uint64_t)n;
}

/* ---- finding them ------------------------------------------------------------------- */

typedef struct finder {
    tensors        *t;
    griffin_config *net;
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
    return report_fail(f->r, "tensor '%s': shape %s instead of %s", s->name, has, expected);
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

/* Adds the tensor "model." + middle + name; the head has no prefix. Null: no memory. */
static tensor *list_one(tensors *list, const griffin_config *net, const char *middle,
                        const row *what) {
    tensor *t = grow(list);
    if (!t) return NULL;
    snprintf(t->name, sizeof t->name, "%s%s%s", what == &head_row ? "" : "model.", middle,
             what->name);
    t->kind = what->kind;
    t->rank = (int)strlen(what->shape);
    for (int i = 0; i < t->rank; i++) t->shape[i] = dimension(net, what->shape[i]);
    return t;
}

/* Adds a tensor and what the file has for it, under the prefix of the file. */
static int find_one(finder *f, const char *middle, const row *what) {
    char name[64];
    tensor *t = list_one(f->t, f->net, middle, what);
    if (!t) return report_fail(f->r, "out of memory");
    snprintf(name, sizeof name, "%s%s%s", what == &head_row ? "" : f->prefix, middle, what->name);
    t->source = weights_find(f->w, name);
    if (!t->source) return report_fail(f->r, "tensor '%s' is missing", name);
    if (t->source->type == WEIGHT_OTHER)
        return report_fail(f->r, "tensor '%s': type %s cannot be used", name, t->source->type_name);
    f->used[t->source - f->w->list] = 1;
    return check_shape(f, t);
}

static int layer_has(const griffin_config *net, int layer, const row *what) {
    char kind = net->blocks[layer];
    return what->layer == '*' || what->layer == kind
        || (what->layer == 'b' && kind == 'a' && net->qkv_bias);
}

static int find_layer(finder *f, int layer) {
    char middle[32];
    snprintf(middle, sizeof middle, "layers.%d.", layer);
    for (size_t i = 0; i < LAYER_ROWS; i++)
        if (layer_has(f->net, layer, &layer_rows[i]) && find_one(f, middle, &layer_rows[i]) != 0)
            return -1;
    return 0;
}

static int list_all(tensors *t, const griffin_config *net) {
    char middle[32];
    if (!list_one(t, net, "", &embedding_row)) return -1;
    for (int layer = 0; layer < net->layers; layer++) {
        snprintf(middle, sizeof middle, "layers.%d.", layer);
        for (size_t i = 0; i < LAYER_ROWS; i++)
            if (layer_has(net, layer, &layer_rows[i])
                && !list_one(t, net, middle, &layer_rows[i])) return -1;
    }
    return list_one(t, net, "", &final_row) ? 0 : -1;
}

int tensors_list(tensors *t, const griffin_config *net) {
    memset(t, 0, sizeof *t);
    if (list_all(t, net) == 0) return 0;
    tensors_free(t);
    return -1;
}

/* The number of gate blocks is in no configuration; the tensors know it. */
static int find_gate_blocks(const finder *f) {
    const char *first = strchr(f->net->blocks, 'r');
    const weight *gate;
    char name[96];
    if (!first) return 0;
    snprintf(name, sizeof name, "%slayers.%d.temporal_block.rg_lru.input_gate_weight", f->prefix,
             (int)(first - f->net->blocks));
    gate = weights_find(f->w, name);
    if (!gate) return report_fail(f->r, "tensor '%s' is missing", name);
    if (gate->rank != 3 || gate->shape[0] == 0 || gate->shape[0] > (uint64_t)f->net->lru_width
        || (uint64_t)f->net->lru_width % gate->shape[0])
        return report_fail(f->r, "tensor '%s': expected a shape [blocks, in, out] whose blocks "
                           "divide lru_width %d", name, f->net->lru_width);
    f->net->gate_blocks = (int)gate->shape[0];
    return 0;
}

static int is_ignored(const char *name) {
    static const char ending[] = ".rotary_emb.inv_freq";
    size_t n = strlen(name), m = sizeof ending - 1;
    if (strcmp(name, "normalizer") == 0 || strcmp(name, "model.normalizer") == 0) return 1;
    return n > m && strcmp(name + n - m, ending) == 0;
}

static int refuse_unknown(const finder *f) {
    for (size_t i = 0; i < f->w->count; i++) {
        if (!f->used[i] && !is_ignored(f->w->list[i].name))
            return report_fail(f->r, "tensor '%s' is not part of this network", f->w->list[i].name);
    }
    return 0;
}

static int find_all(finder *f) {
    if (find_gate_blocks(f) != 0 || find_one(f, "", &embedding_row) != 0) return -1;
    for (int i = 0; i < f->net->layers; i++) if (find_layer(f, i) != 0) return -1;
    if (find_one(f, "", &final_row) != 0) return -1;
    if (weights_find(f->w, head_row.name) && find_one(f, "", &head_row) != 0) return -1;
    return refuse_unknown(f);
}

int tensors_find(tensors *t, griffin_config *net, const weights *w, int crop, report *r) {
    finder f = {t, net, w, "model.", NULL, crop, r};
    int status;
    memset(t, 0, sizeof *t);
    if (!weights_find(w, "model.embed_tokens.weight")) {
        if (!weights_find(w, "embed_tokens.weight"))
            return report_fail(r, "tensor 'model.embed_tokens.weight' is missing");
        f.prefix = "";
    }
    f.used = (char *)calloc(w->count + 1, 1);
    if (!f.used) return report_fail(r, "out of memory");
    status = find_all(&f);
    free(f.used);
    if (status != 0) tensors_free(t);
    return status;
}

void tensors_free(tensors *t) {
    free(t->list);
    memset(t, 0, sizeof *t);
}
