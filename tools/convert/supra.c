/* supra.c - SUPRA, a Transformer made linear, as linear_open_lm has it; see family.h.
 *
 * Its features are relu(E (W h) + b). The product E W is made here, so that the library has one
 * matrix for q and one for k. */

#include "family.h"
#include "rename.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- configuration ---------------------------------------------------------------------------
 * Some numbers have two names: of the wrapper for transformers, and of OpenLM itself. */

static const char *name_of(const members *s, const char *first, const char *second) {
    return members_find(s, first) ? first : second;
}

/* Where it is not said: 8/3 of the width, in units of 256. */
static int standard_mlp(int width) { return (int)(((int64_t)8 * width / 3 + 255) / 256 * 256); }

/* How a family of norms is called, and which vectors it has. */
static const struct norm_kind { const char *name; int subtracts, gain, bias; } norm_kinds[] = {
    {"rms_norm",                0, 1, 0}, {"gain_only_layer_norm",    1, 1, 0},
    {"gain_only_lp_layer_norm", 1, 1, 0}, {"default_layer_norm",      1, 1, 1},
    {"lp_layer_norm",           1, 1, 1}, {"no_wb_layer_norm",        1, 0, 0}
};

static const struct norm_kind *norm_of(members *s) {
    const char *key = name_of(s, "norm_type", "model_norm");
    const char *name = members_text(s, key, "default_layer_norm");
    for (size_t i = 0; i < sizeof norm_kinds / sizeof norm_kinds[0]; i++)
        if (strcmp(norm_kinds[i].name, name) == 0) return &norm_kinds[i];
    members_wrong(s, key, "rms_norm, default_layer_norm, lp_layer_norm, gain_only_layer_norm, "
                   "gain_only_lp_layer_norm or no_wb_layer_norm");
    return &norm_kinds[0];
}

static void read_heads(members *s, griffin_config *net) {
    int wrapped = members_find(s, "dim") != NULL;
    net->heads = members_whole(s, "n_heads", 8, 1, 1 << 20);
    net->kv_heads = members_whole(s, "n_heads_kv", wrapped ? 8 : net->heads, 1, 1 << 20);
    if (net->width % net->heads) members_wrong(s, "n_heads", "a divisor of the width");
    if (net->heads % net->kv_heads) members_wrong(s, "n_heads_kv", "a divisor of n_heads");
    net->head_dim = net->width / net->heads;
    if (members_whole(s, "qk_head_dim", net->head_dim, 1, 1 << 20) != net->head_dim)
        members_wrong(s, "qk_head_dim", "the width divided by n_heads");
    if (members_whole(s, "v_head_dim", net->head_dim, 1, 1 << 20) != net->head_dim)
        members_wrong(s, "v_head_dim", "the width divided by n_heads");
}

/* head_rotary turns q and k of a head by the same angle, which has no effect. llama_rotary turns
 * pairs instead of halves, and knows no other base. */
static void read_rotary(members *s, griffin_config *net) {
    static const char key[] = "positional_embedding_type";
    const char *kind = members_text(s, key, "rotary");
    int pairs = strcmp(kind, "llama_rotary") == 0;
    net->rope_base = 10000;
    if (!pairs && strcmp(kind, "rotary")) {
        if (strcmp(kind, "none") && strcmp(kind, "head_rotary"))
            members_wrong(s, key, "rotary, llama_rotary, head_rotary or none");
        return;
    }
    net->rope_dims = net->head_dim;
    if (net->head_dim % 2) members_wrong(s, "n_heads", "an even number of channels of a head");
    if (pairs) return;
    net->rope_base = (float)members_number(s, "rotary_base_frequency", 10000, 1, 1e12);
    if (members_number(s, "rotary_scale", 1, 1e-30, 1e30) != 1)
        members_wrong(s, "rotary_scale", "1; other scales are not supported");
}

static void refuse_others(members *s) {
    if (members_find(s, "params_args_dict"))
        members_wrong(s, "params_args_dict", "the sizes themselves; say --config FILE with "
                       "OpenLM's description of the model");
    if (members_find(s, "attn_name") && !members_is(s, "attn_name", "linear_attn"))
        members_wrong(s, "attn_name", "\"linear_attn\"; Transformers and Mamba of OpenLM are not "
                       "supported");
    if (!members_is(s, "ffn_type", "swiglu_torch"))
        members_refuse(s, "ffn_type", "swiglu", "\"swiglu\"; others are not supported");
    if (!members_find(s, name_of(s, "dim", "hidden_dim")))
        members_wrong(s, name_of(s, "dim", "hidden_dim"), "a whole number");
}

void supra_configure(members *s, model_config *c) {
    griffin_config *net = &c->net;
    refuse_others(s);
    net->vocab = members_whole(s, "vocab_size", 32000, 1, 1 << 21);
    net->width = net->lru_width = members_whole(s, name_of(s, "dim", "hidden_dim"), 512, 1,
                                                 1 << 20);
    net->layers = members_whole(s, "n_layers", 8, 1, GRIFFIN_MAX_LAYERS);
    read_heads(s, net);
    net->mlp_width = members_whole(s, "intermediate_dim_ffn", standard_mlp(net->width), 1,
                                    1 << 22);
    read_rotary(s, net);
    net->conv_width = 4;
    net->eps = (float)members_number(s, "norm_eps", 1e-5, 1e-37, 0.9999999);
    net->layer_norm = norm_of(s)->subtracts;
    members_number(s, "decay_start", 0, 0, 1e30);           /* rename_decay uses it */
    net->no_biases = 1;
    c->head = members_truth(s, "weight_tying", 0) ? HEAD_TIED : HEAD_OWN;
    net->activation = GRIFFIN_SILU;
    memset(net->blocks, 's', (size_t)net->layers);
    c->context_length = members_whole(s, "seq_len", 2048, 1, 2147483647);
}

/* ---- decay ------------------------------------------------------------------------------------
 * gamma of a head is exp(-slope). Slopes are those of ALiBi: start ratio^h with ratio 2^(-8 / H)
 * for H a power of two, and start = ratio unless it is said. Otherwise they are those of the
 * largest power below H, followed by every second one of twice as many. */

static double slope_of(members *s, int heads, int head) {
    double ratio = pow(2, -8.0 / heads);
    return members_number(s, "decay_start", ratio, 0, 1e30) * pow(ratio, head);
}

static double gamma_of(members *s, int heads, int head) {
    int power = 1;
    if (!members_truth(s, "use_decay", 0)) return 1;
    if (members_truth(s, "use_retnet_slopes", 0)) return 1 - pow(2, -5 - head);
    while (2 * power <= heads) power *= 2;
    if (head < power) return exp(-slope_of(s, power, head));
    return exp(-slope_of(s, 2 * power, 2 * (head - power)));
}

static int rename_decay(renaming *n, members *s) {
    int heads = n->net->heads, status = 0;
    double *gammas = (double *)malloc((size_t)heads * sizeof *gammas);
    if (!gammas) return report_fail(n->r, "%s: out of memory", n->path);
    for (int h = 0; h < heads; h++) gammas[h] = gamma_of(s, heads, h);
    for (int layer = 0; status == 0 && layer < n->net->layers; layer++)
        status = rename_vector(n, layer, "temporal_block.decay", gammas, (uint64_t)heads);
    free(gammas);
    return status;
}

/* ---- tensors --------------------------------------------------------------------------------- */

static const rename_row rows[] = {
    {"tok_embeddings.",                 "embed_tokens.",          0, 0},
    {"post_embed_norm.",                "embed_norm.",            0, 0},
    {"attention_norm.",                 "temporal_pre_norm.",     0, 0},
    {"attention.in_proj.",              NULL,                     0, 0},
    {"attention._totrain_embed.",       NULL,                     0, 0},
    {"attention._totrain_embed_kv.",    NULL,                     0, 0},
    {"attention._totrain_q_norm.",      NULL,                     0, 0},
    {"attention._totrain_k_norm.",      NULL,                     0, 0},
    {"attention.out_proj.",             "temporal_block.o_proj.", 0, 0},
    {"ffn_norm.",                       "channel_pre_norm.",      0, 0},
    {"feed_forward.w12.",               "mlp_block.gate_proj.",   0, 2},
    {"feed_forward.w12.",               "mlp_block.up_proj.",     1, 2},
    {"feed_forward.w3.",                "mlp_block.down_proj.",   0, 0},
    {"norm.",                           "final_norm.",            0, 0},
    {"output.",                         "lm_head.",               0, 0}
};

typedef struct builder {
    renaming                n;
    members               *s;
    const struct norm_kind *norm;
    uint64_t                pairs;          /* channels of a head that is rotated in pairs, or 0 */
} builder;

/* A product of the map's matrix and those rows of in_proj, and the map's bias. */
static int rename_features(builder *b, int layer, const char *map, const weight *in_rows,
                           const char *to) {
    char name[96], final[96];
    uint64_t dims = in_rows->shape[0];
    snprintf(name, sizeof name, "%s.weight", map);
    const weight *matrix = rename_need(&b->n, layer, name, dims, dims);
    snprintf(name, sizeof name, "%s.bias", map);
    const weight *bias = matrix ? rename_need(&b->n, layer, name, dims, 0) : NULL;
    if (!bias) return -1;
    weight left = *matrix;
    weight_unpair(&left, b->pairs);
    snprintf(name, sizeof name, "temporal_block.%s_proj.weight", to);
    if (!weights_add_product(&b->n.to, rename_final(layer, name, final), &left, in_rows, b->n.path,
                             b->n.r)) return -1;
    snprintf(name, sizeof name, "temporal_block.%s_proj.bias", to);
    weight *shown = rename_show(&b->n, layer, name, bias);
    if (shown) weight_unpair(shown, b->pairs);
    return shown ? 0 : -1;
}

/* in_proj has the rows of q, k and v one after the other. With as many heads for k as for q there
 * is one map for both. */
static int rename_projections(builder *b, int layer) {
    static const char map[] = "attention._totrain_embed", map_kv[] = "attention._totrain_embed_kv";
    const griffin_config *net = b->n.net;
    uint64_t q = (uint64_t)net->width, kv = (uint64_t)net->kv_heads * (uint64_t)net->head_dim;
    const weight *in = rename_need(&b->n, layer, "attention.in_proj.weight", q + 2 * kv, q);
    if (!in) return -1;
    weight part = *in;
    weight_take_rows(&part, 0, q);
    if (rename_features(b, layer, map, &part, "q") != 0) return -1;
    part = *in;
    weight_take_rows(&part, q, kv);
    if (rename_features(b, layer, kv == q ? map : map_kv, &part, "k") != 0) return -1;
    weight *v = rename_show(&b->n, layer, "temporal_block.v_proj.weight", in);
    if (v) weight_take_rows(v, q + kv, kv);
    return v ? 0 : -1;
}

/* ---- norms: what a kind has must be there, and nothing else -------------------------------- */

static int refuse_tensor(builder *b, int layer, const char *norm, const char *part,
                         const char *key) {
    char name[96];
    snprintf(name, sizeof name, "%s.%s", norm, part);
    if (!rename_find(&b->n, layer, name)) return 0;
    return report_fail(b->n.r, "%s: tensor '%s' of layer %d: expected none, because of %s",
                       b->n.path, name, layer, key);
}

static int need_part(builder *b, int layer, const char *norm, const char *part) {
    char name[96];
    snprintf(name, sizeof name, "%s.%s", norm, part);
    return rename_need(&b->n, layer, name, (uint64_t)b->n.net->width, 0) ? 0 : -1;
}

/* A gain that the kind does not have is 1. */
static int check_norm(builder *b, int layer, const char *norm, const char *to) {
    char name[96];
    if (b->norm->bias ? need_part(b, layer, norm, "bias")
                      : refuse_tensor(b, layer, norm, "bias", "the kind of norm")) return -1;
    if (b->norm->gain) return need_part(b, layer, norm, "weight");
    if (refuse_tensor(b, layer, norm, "weight", "the kind of norm") != 0) return -1;
    snprintf(name, sizeof name, "%s.weight", to);
    return rename_constant(&b->n, layer, name, 1, (uint64_t)b->n.net->width);
}

/* The norm of all features of q, or of k, goes with their order. */
static int rename_feature_norm(builder *b, int layer, const char *from, const char *to) {
    static const char *const parts[] = {"weight", "bias"};
    char name[96], final[96];
    if (!members_truth(b->s, name_of(b->s, "apply_qk_norm", "qk_norm"), 0))
        return refuse_tensor(b, layer, from, "weight", "apply_qk_norm");
    if (check_norm(b, layer, from, to) != 0) return -1;
    for (int i = 0; i < 2; i++) {
        const weight *t;
        weight *shown;
        snprintf(name, sizeof name, "%s.%s", from, parts[i]);
        if (!(t = rename_find(&b->n, layer, name))) continue;
        snprintf(final, sizeof final, "%s.%s", to, parts[i]);
        if (!(shown = rename_show(&b->n, layer, final, t))) return -1;
        weight_unpair(shown, b->pairs);
    }
    return 0;
}

static int rename_layer(builder *b, int layer) {
    if (rename_projections(b, layer) != 0) return -1;
    return check_norm(b, layer, "attention_norm", "temporal_pre_norm")
        || check_norm(b, layer, "ffn_norm", "channel_pre_norm")
        || rename_feature_norm(b, layer, "attention._totrain_q_norm", "temporal_block.q_norm")
        || rename_feature_norm(b, layer, "attention._totrain_k_norm", "temporal_block.k_norm")
        ? -1 : 0;
}

static int rename_outside(builder *b) {
    int embed = members_truth(b->s, "post_embed_norm", 0);
    if (embed ? check_norm(b, -1, "post_embed_norm", "embed_norm")
              : refuse_tensor(b, -1, "post_embed_norm", "weight", "post_embed_norm")) return -1;
    return check_norm(b, -1, "norm", "final_norm");
}

int supra_rename(weights *w, members *s, const griffin_config *net, const char *path, report *r) {
    builder b = {{w, net, path, r, NULL, {NULL, 0, 0, NULL, 0, NULL, 0}}, s, norm_of(s), 0};
    int status = rename_all(&b.n, rows, sizeof rows / sizeof rows[0]);
    if (members_is(s, "positional_embedding_type", "llama_rotary"))
        b.pairs = (uint64_t)net->head_dim;
    if (status == 0) status = rename_outside(&b);
    for (int layer = 0; status == 0 && layer < net->layers; layer++)
        status = rename_layer(&b, layer);
    if (status == 0) status = rename_decay(&b.n, s);
    return rename_finish(&b.n, status);
}
