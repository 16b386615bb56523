/* hgrn2.c - HGRN2 as flash-linear-attention has it, of 2024 and of today; see family.h. */

#include "family.h"
#include "rename.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../shared/json.h"

/* ---- configuration ------------------------------------------------------------------------- */

/* Where it is not said: 2/3 of hidden_ratio, in units of 256. */
static int standard_mlp(int width, int ratio) {
    int64_t inner = (int64_t)width * ratio * 2 / 3;
    return (int)((inner + 255) / 256 * 256);
}

static void read_heads(members *s, griffin_config *net) {
    int expand = members_find(s, "expand_ratio") || !members_find(s, "num_heads")
               ? members_whole(s, "expand_ratio", 128, 1, 1 << 20) : 0;
    int heads = expand ? 0 : members_whole(s, "num_heads", 1, 1, 1 << 20);
    const char *name = expand ? "expand_ratio" : "num_heads";
    if (net->width % (expand ? expand : heads)) {
        members_wrong(s, name, "a divisor of hidden_size");
        return;
    }
    net->heads = net->kv_heads = expand ? net->width / expand : heads;
    net->head_dim = net->width / net->heads;
}

/* Other things that go by the same name. */
static void refuse_others(members *s) {
    if (members_find(s, "decoder_embed_dim"))
        members_wrong(s, "decoder_embed_dim", "the layout of flash-linear-attention; that of the "
                       "original hgru2-pytorch is not supported");
    if (!members_find(s, "hidden_size")) members_wrong(s, "hidden_size", "a whole number");
    members_refuse(s, "attnres_block_size", NULL,
                    "null; attention over residuals is not supported");
    if (!members_is(s, "hidden_act", "silu"))
        members_refuse(s, "hidden_act", "swish", "\"swish\"; others are not supported");
}

/* ---- layers of attention: `attn` is an object, or a list of objects -------------------------- */

typedef struct attention {
    members *s;
    char     prefix[16];                    /* "attn." or "attn.0." */
    char     name[64];
} attention;

static const char *attn_name(attention *a, const char *name) {
    snprintf(a->name, sizeof a->name, "%s%s", a->prefix, name);
    return a->name;
}

static void take_layers(attention *a, griffin_config *net) {
    char name[64];
    for (int i = 0; i < GRIFFIN_MAX_LAYERS; i++) {
        snprintf(name, sizeof name, "%slayers.%d", a->prefix, i);
        if (!members_find(a->s, name)) break;
        int layer = members_whole(a->s, name, 0, 0, net->layers - 1);
        net->blocks[layer] = 'a';
    }
}

/* All layers of a file rotate and forget alike. */
static void take_same(attention *a, int first, int *to, int value, const char *name) {
    if (!first && *to != value)
        members_wrong(a->s, attn_name(a, name), "the same for all layers of attention");
    *to = value;
}

static void take_attention(attention *a, int first, griffin_config *net) {
    members *s = a->s;
    int heads = members_whole(s, attn_name(a, "num_heads"), net->heads, 1, 1 << 20);
    int kv_heads = members_whole(s, attn_name(a, "num_kv_heads"), heads, 1, 1 << 20);
    int window = members_whole(s, attn_name(a, "window_size"), 0, 2, 1 << 20);
    int bias = members_truth(s, attn_name(a, "qkv_bias"), 0);
    double base = members_number(s, attn_name(a, "rope_theta"), 10000, 1, 1e12);
    if (heads != net->heads)
        members_wrong(s, attn_name(a, "num_heads"), "as many heads as the recurrence has");
    if (heads % kv_heads) members_wrong(s, attn_name(a, "num_kv_heads"), "a divisor of num_heads");
    members_refuse(s, attn_name(a, "qk_norm"), NULL, "false; norms on q and k are not supported");
    take_same(a, first, &net->kv_heads, kv_heads, "num_kv_heads");
    take_same(a, first, &net->window, window ? window - 1 : 0, "window_size");
    take_same(a, first, &net->qkv_bias, bias, "qkv_bias");
    if (!first && net->rope_base != (float)base)
        members_wrong(s, attn_name(a, "rope_theta"), "the same for all layers of attention");
    net->rope_base = (float)base;
    net->rope_dims = net->head_dim;
    take_layers(a, net);
}

static void read_attention(members *s, griffin_config *net) {
    attention a = {s, "attn.", ""};
    const member *m = members_find(s, "attn");
    if (!m) return;
    if (m->kind == JSON_OBJECT) { take_attention(&a, 1, net); return; }
    for (int i = 0; i < 1000; i++) {
        snprintf(a.name, sizeof a.name, "attn.%d", i);
        if (!members_find(s, a.name)) return;
        snprintf(a.prefix, sizeof a.prefix, "attn.%d.", i);
        take_attention(&a, i == 0, net);
    }
}

void hgrn2_configure(members *s, model_config *c) {
    griffin_config *net = &c->net;
    refuse_others(s);
    net->vocab = members_whole(s, "vocab_size", 32000, 1, 1 << 21);
    net->width = net->lru_width = members_whole(s, "hidden_size", 2048, 1, 1 << 20);
    net->layers = members_whole(s, "num_hidden_layers", 24, 1, GRIFFIN_MAX_LAYERS);
    read_heads(s, net);
    net->mlp_width = members_whole(s, "intermediate_size", 0, 1, 1 << 22);
    if (!net->mlp_width)
        net->mlp_width = standard_mlp(net->width, members_whole(s, "hidden_ratio", 4, 1, 64));
    net->conv_width = 4;
    if (members_truth(s, "use_short_conv", 0))
        net->conv_width = members_whole(s, "conv_size", 4, 1, 16);
    net->eps = (float)members_number(s, members_find(s, "norm_eps") ? "norm_eps" : "rms_norm_eps",
                                      1e-6, 1e-37, 0.9999999);
    net->no_biases = 1;
    c->head = members_truth(s, "tie_word_embeddings", 0) ? HEAD_TIED : HEAD_OWN;
    net->activation = GRIFFIN_SILU;
    memset(net->blocks, 'h', (size_t)net->layers);
    if (!s->failed) read_attention(s, net);
    c->context_length = members_whole(s, "max_position_embeddings", 2048, 1, 2147483647);
}

/* ---- the floor of the forget gate -------------------------------------------------------------
 * Per channel: p = softmax over layers of lower_bounds; the floor of layer l is p[1] + ... + p[l],
 * and what it leaves to the gate, 1 - floor, is p[0] + p[l+1] + ... + p[L-1], summed as such, so
 * that it never cancels. Both are rounded once. */

static void softmax_layers(const float *logits, double *p, uint64_t layers, uint64_t width) {
    for (uint64_t c = 0; c < width; c++) {
        double most = (double)logits[c], sum = 0;
        for (uint64_t l = 0; l < layers; l++)
            if ((double)logits[l * width + c] > most) most = (double)logits[l * width + c];
        for (uint64_t l = 0; l < layers; l++)
            sum += p[l * width + c] = exp((double)logits[l * width + c] - most);
        for (uint64_t l = 0; l < layers; l++) p[l * width + c] /= sum;
    }
}

/* Vectors [width] of a layer; p [layers][width], null: there are no floors. */
static void bound_layer(const double *p, uint64_t layers, uint64_t width, uint64_t layer,
                        double *floors, double *ranges) {
    for (uint64_t c = 0; c < width; c++) {
        floors[c] = 0;
        ranges[c] = 1;
        if (!p || layer == 0) continue;
        ranges[c] = 0;
        for (uint64_t l = 1; l <= layer; l++) floors[c] += p[l * width + c];
        for (uint64_t l = layers - 1; l > layer; l--) ranges[c] += p[l * width + c];
        ranges[c] += p[c];
    }
}

static int add_bounds(renaming *n, const double *p, double *room) {
    uint64_t layers = (uint64_t)n->net->layers, width = (uint64_t)n->net->width;
    for (int layer = 0; layer < n->net->layers; layer++) {
        if (n->net->blocks[layer] != 'h') continue;
        if (!rename_need(n, layer, "attn_norm.weight", width, 0)) return -1;
        bound_layer(p, layers, width, (uint64_t)layer, room, room + width);
        if (rename_vector(n, layer, "temporal_block.lower_bound", room, width)
            || rename_vector(n, layer, "temporal_block.gate_range", room + width, width)) return -1;
    }
    return 0;
}

static int read_logits(renaming *n, const weight *t, float *logits) {
    if (weight_read(t, 0, t->elements, logits, n->r) != 0) return -1;
    for (uint64_t i = 0; i < t->elements; i++)
        if (!isfinite(logits[i]))
            return report_fail(n->r, "%s: tensor '%s': element %llu is not finite", n->path,
                               weight_origin(t), (unsigned long long)i);
    return 0;
}

static int rename_bounds(renaming *n, int is_used) {
    uint64_t layers = (uint64_t)n->net->layers, width = (uint64_t)n->net->width;
    const weight *t = is_used ? rename_need(n, -1, "lower_bounds", layers, width) : NULL;
    if (!is_used && rename_find(n, -1, "lower_bounds"))
        return report_fail(n->r, "%s: tensor 'lower_bounds': expected none, because "
                           "use_lower_bound is false", n->path);
    float *logits = (float *)malloc((size_t)(layers * width) * sizeof *logits);
    double *p = (double *)malloc((size_t)((layers + 2) * width) * sizeof *p);
    int status = is_used && !t ? -1 : 0;
    if (status == 0 && (!logits || !p)) status = report_fail(n->r, "%s: out of memory", n->path);
    if (status == 0 && t) status = read_logits(n, t, logits);
    if (status == 0 && t) softmax_layers(logits, p, layers, width);
    if (status == 0) status = add_bounds(n, t ? p : NULL, p + layers * width);
    free(logits);
    free(p);
    return status;
}

/* ---- tensors --------------------------------------------------------------------------------- */

/* Before February 2025 gate_proj was both matrices of the MLP, and there was no up_proj: such files
 * have all rows but the last two, and those of today all but the first two. */
static const rename_row rows[] = {
    {"mlp.gate_proj.", "mlp_block.gate_proj.",       0, 2},
    {"mlp.gate_proj.", "mlp_block.up_proj.",         1, 2},
    {"embeddings.",    "embed_tokens.",              0, 0},
    {"attn_norm.",     "temporal_pre_norm.",         0, 0},
    {"attn.q_proj.",   "temporal_block.q_proj.",     0, 0},
    {"attn.f_proj.",   "temporal_block.f_proj.",     0, 0},
    {"attn.i_proj.",   "temporal_block.v_proj.",     0, 0},
    {"attn.k_proj.",   "temporal_block.k_proj.",     0, 0},
    {"attn.v_proj.",   "temporal_block.v_proj.",     0, 0},
    {"attn.o_proj.",   "temporal_block.o_proj.",     0, 0},
    {"attn.g_norm.",   "temporal_block.group_norm.", 0, 0},
    {"attn.q_conv1d.", NULL,                         0, 0},
    {"attn.f_conv1d.", NULL,                         0, 0},
    {"attn.i_conv1d.", NULL,                         0, 0},
    {"lower_bounds",   NULL,                         0, 0},
    {"mlp_norm.",      "channel_pre_norm.",          0, 0},
    {"mlp.down_proj.", "mlp_block.down_proj.",       0, 0},
    {"norm.",          "final_norm.",                0, 0},
    {"mlp.gate_proj.", "mlp_block.gate_proj.",       0, 0},
    {"mlp.up_proj.",   "mlp_block.up_proj.",         0, 0}
};

enum { ROWS = sizeof rows / sizeof rows[0], ROWS_OF_A_TIME = 2 };

/* [D, 1, taps] is shown as [D, taps]. */
static int rename_conv(renaming *n, int layer, char from, char to, int is_used) {
    char name[64];
    snprintf(name, sizeof name, "attn.%c_conv1d.bias", from);
    const weight *bias = rename_find(n, layer, name);
    snprintf(name, sizeof name, "attn.%c_conv1d.weight", from);
    const weight *t = rename_find(n, layer, name);
    if (!is_used && !t && !bias) return 0;
    if (!t || !is_used || t->rank != 3 || t->shape[1] != 1 || t->type == WEIGHT_OTHER)
        return report_fail(n->r, "%s: tensor 'layers.%d.%s': expected %s", n->path, layer, name,
                           is_used ? "[hidden_size, 1, conv_size]"
                                   : "none, because use_short_conv is not true");
    snprintf(name, sizeof name, "temporal_block.%c_conv.weight", to);
    weight *shown = rename_show(n, layer, name, t);
    if (!shown) return -1;
    shown->rank = 2;
    shown->shape[1] = shown->shape[2];
    shown->stride[1] = shown->stride[2];
    snprintf(name, sizeof name, "temporal_block.%c_conv.bias", to);
    return !bias || rename_show(n, layer, name, bias) ? 0 : -1;
}

static int rename_layer(renaming *n, int layer, members *s) {
    int conv = members_truth(s, "use_short_conv", 0);
    if (n->net->blocks[layer] != 'h') return 0;
    if (!members_truth(s, "elementwise_affine", 1)
        && !rename_find(n, layer, "attn.g_norm.weight")
        && rename_constant(n, layer, "temporal_block.group_norm.weight", 1,
                           (uint64_t)n->net->width) != 0) return -1;
    return rename_conv(n, layer, 'q', 'q', conv) || rename_conv(n, layer, 'f', 'f', conv)
        || rename_conv(n, layer, 'i', 'v', conv) ? -1 : 0;
}

int hgrn2_rename(weights *w, members *s, const griffin_config *net, const char *path, report *r) {
    renaming n = {w, net, path, r, NULL, {NULL, 0, 0, NULL, 0, NULL, 0}};
    int split = rename_find(&n, 0, "mlp.up_proj.weight") != NULL;
    int status = rename_all(&n, rows + (split ? ROWS_OF_A_TIME : 0), ROWS - ROWS_OF_A_TIME);
    if (status == 0) status = rename_bounds(&n, members_truth(s, "use_lower_bound", 1));
    for (int layer = 0; status == 0 && layer < net->layers; layer++)
        status = rename_layer(&n, layer, s);
    return rename_finish(&n, status);
}
