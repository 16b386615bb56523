/* deepmind.c - gives the tensors of a DeepMind checkpoint their Hugging Face names and shapes.
 *
 * Only names and strides change; the data stays where it is in the file. */

#include "deepmind.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How a tensor is seen where the layout differs. `dimensions` names, for each dimension of the
 * result, that of the source; '-' is a new one of length 1. The result is part number `part` of
 * `parts` equal ones along the first dimension of the source. */
typedef struct view {
    const char *dimensions;
    int rank;                               /* of the source */
    int part, parts;
} view;

static const view turned = {"1-0", 2, 0, 1};       /* [K, E] to [E, 1, K] */
static const view gate_w = {"21",  3, 0, 2};       /* [2, D, F] to [F, D] twice */
static const view up_w   = {"21",  3, 1, 2};
static const view gate_b = {"3",   4, 0, 2};       /* [2, 1, 1, F] to [F] twice */
static const view up_b   = {"3",   4, 1, 2};

/* What replaces the start of a name after "blocks.N.". */
static const struct renaming { const char *from, *to; const view *how; } renamings[] = {
    {"temporal_pre_norm.scale",             "temporal_pre_norm.weight",                   NULL},
    {"channel_pre_norm.scale",              "channel_pre_norm.weight",                    NULL},
    {"recurrent_block.linear_",             "temporal_block.linear_",                     NULL},
    {"recurrent_block.conv_1d.w",           "temporal_block.conv_1d.weight",              &turned},
    {"recurrent_block.conv_1d.b",           "temporal_block.conv_1d.bias",                NULL},
    {"recurrent_block.rg_lru.a_param",      "temporal_block.rg_lru.recurrent_param",      NULL},
    {"recurrent_block.rg_lru.input_gate.w", "temporal_block.rg_lru.input_gate_weight",    NULL},
    {"recurrent_block.rg_lru.input_gate.b", "temporal_block.rg_lru.input_gate_bias",      NULL},
    {"recurrent_block.rg_lru.a_gate.w",     "temporal_block.rg_lru.recurrent_gate_weight", NULL},
    {"recurrent_block.rg_lru.a_gate.b",     "temporal_block.rg_lru.recurrent_gate_bias",  NULL},
    {"attention_block.proj_q.",             "temporal_block.q_proj.",                     NULL},
    {"attention_block.proj_k.",             "temporal_block.k_proj.",                     NULL},
    {"attention_block.proj_v.",             "temporal_block.v_proj.",                     NULL},
    {"attention_block.proj_final.",         "temporal_block.o_proj.",                     NULL},
    {"mlp_block.ffw_up.w",                  "mlp_block.gate_proj.weight",                 &gate_w},
    {"mlp_block.ffw_up.w",                  "mlp_block.up_proj.weight",                   &up_w},
    {"mlp_block.ffw_up.b",                  "mlp_block.gate_proj.bias",                   &gate_b},
    {"mlp_block.ffw_up.b",                  "mlp_block.up_proj.bias",                     &up_b},
    {"mlp_block.ffw_down.",                 "mlp_block.down_proj.",                       NULL}
};

/* Turns a tensor into a view of itself. Returns -1 if it has another shape. */
static int look(weight *t, const view *how) {
    const weight from = *t;
    uint64_t size = from.elements ? from.bytes / from.elements : 0;
    uint64_t parts = (uint64_t)how->parts;
    if (from.rank != how->rank || (parts > 1 && from.shape[0] != parts)) return -1;
    t->rank = (int)strlen(how->dimensions);
    t->elements = 1;
    for (int i = 0; i < t->rank; i++) {
        int source = how->dimensions[i] - '0';
        t->shape[i] = source < 0 ? 1 : from.shape[source];
        t->stride[i] = source < 0 ? 0 : from.stride[source];
        t->elements *= t->shape[i];
    }
    t->bytes = t->elements * size;
    t->data += (uint64_t)how->part * (uint64_t)from.stride[0] * size;
    return t->elements * parts == from.elements ? 0 : -1;
}

static int add(weights *to, const weight *from, const char *name, const view *how,
               const char *path, report *r) {
    weight *t = weights_add_view(to, name, from, path, r);
    if (!t) return -1;
    free(t->origin);                        /* messages use the names that all know */
    t->origin = NULL;
    if (how && look(t, how) != 0)
        return report_fail(r, "%s: tensor '%s' has an unexpected shape", path, from->name);
    return 0;
}

/* Returns what follows "blocks.N." in a name, or null. *layer becomes the start of N. */
static const char *behind_layer(const char *name, const char **layer) {
    if (strncmp(name, "blocks.", 7) != 0) return NULL;
    *layer = name + 7;
    size_t digits = strspn(*layer, "0123456789");
    return digits && (*layer)[digits] == '.' ? *layer + digits + 1 : NULL;
}

static int add_renamed(weights *to, const weight *from, const char *path, report *r) {
    const char *layer, *rest = behind_layer(from->name, &layer);
    int added = 0;
    if (strcmp(from->name, "embedder.input_embedding") == 0)
        return add(to, from, "model.embed_tokens.weight", NULL, path, r);
    if (strcmp(from->name, "final_norm.scale") == 0)
        return add(to, from, "model.final_norm.weight", NULL, path, r);
    for (size_t i = 0; rest && i < sizeof renamings / sizeof renamings[0]; i++) {
        const struct renaming *n = &renamings[i];
        char name[160];
        if (strncmp(rest, n->from, strlen(n->from)) != 0) continue;
        snprintf(name, sizeof name, "model.layers.%.*s%s%.40s", (int)(rest - layer), layer, n->to,
                 rest + strlen(n->from));
        if (add(to, from, name, n->how, path, r) != 0) return -1;
        added = 1;
    }
    return added ? 0 : add(to, from, from->name, NULL, path, r);
}

int weights_from_deepmind(weights *w, const char *path, report *r) {
    weights renamed;
    int status = 0;
    memset(&renamed, 0, sizeof renamed);
    for (size_t i = 0; status == 0 && i < w->count; i++) {
        status = add_renamed(&renamed, &w->list[i], path, r);
    }
    renamed.files = w->files;               /* they have a new owner */
    renamed.file_count = w->file_count;
    w->files = NULL;
    w->file_count = 0;
    weights_close(w);
    status = weights_finish(&renamed, status, path, r);
    *w = renamed;
    return status;
}
