/* llama.c - Transformers of the layout of Llama and Mistral, from the files of transformers and
 * from those of llama.cpp; see family.h. They become networks of attention with a window. */

#include "family.h"
#include "rename.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Sees all the context that it was trained for, if there is no sliding window of so many keys. */
static int window_of(double sliding, double context) {
    double keys = sliding > 0 ? sliding : context;
    return keys < 2 ? 1 : keys > 1 << 20 ? 1 << 20 : (int)keys - 1;
}

/* What all of them have in common. Returns null, or what does not fit. */
static const char *start(griffin_config *net) {
    net->lru_width = net->width;
    net->activation = GRIFFIN_SILU;
    memset(net->blocks, 'a', (size_t)net->layers);
    if (net->width % net->heads) return "an embedding whose width is a multiple of the heads";
    if (net->heads % net->kv_heads) return "heads that are a multiple of the key/value heads";
    net->head_dim = net->rope_dims = net->width / net->heads;
    return net->head_dim % 2 ? "an even number of channels of a head" : NULL;
}

/* ---- config.json --------------------------------------------------------------------------- */

static void read_attention(members *s, griffin_config *net) {
    net->heads = members_whole(s, "num_attention_heads", 32, 1, 1 << 20);
    net->kv_heads = members_whole(s, "num_key_value_heads", net->heads, 1, 1 << 20);
    const char *broken = start(net);
    if (broken) members_wrong(s, "num_attention_heads", broken);
    if (members_whole(s, "head_dim", net->head_dim, 1, 1 << 20) != net->head_dim)
        members_wrong(s, "head_dim", "hidden_size divided by num_attention_heads");
    rotation turn = config_rotation(s, 1, 1);
    if (turn.part != 1) members_wrong(s, "partial_rotary_factor", "1");
    net->rope_base = (float)turn.base;
}

static void refuse_others(members *s) {
    static const char experts[] = "none; mixtures of experts are not supported";
    members_refuse(s, "rope_interleaved", NULL, "false; a rotation of pairs is not supported");
    members_refuse(s, "num_local_experts", NULL, experts);
    members_refuse(s, "num_experts", NULL, experts);
    members_refuse(s, "use_sliding_window", NULL, "false; windows of some layers are not supported");
    if (!members_find(s, "hidden_size")) members_wrong(s, "hidden_size", "a whole number");
    if (!members_find(s, "vocab_size")) members_wrong(s, "vocab_size", "a whole number");
}

static void configure(members *s, model_config *c, int context, double sliding) {
    griffin_config *net = &c->net;
    refuse_others(s);
    net->vocab = members_whole(s, "vocab_size", 32000, 1, 1 << 21);
    net->width = members_whole(s, "hidden_size", 4096, 1, 1 << 20);
    net->mlp_width = members_whole(s, "intermediate_size", 11008, 1, 1 << 22);
    net->layers = members_whole(s, "num_hidden_layers", 32, 1, GRIFFIN_MAX_LAYERS);
    read_attention(s, net);
    net->activation = config_activation(s, "hidden_act", GRIFFIN_SILU);
    net->eps = (float)members_number(s, "rms_norm_eps", 1e-6, 1e-37, 0.9999999);
    c->context_length = members_whole(s, "max_position_embeddings", context, 1, 2147483647);
    net->window = window_of(sliding, c->context_length);
    c->is_unbounded = sliding <= 0;
    net->qkv_bias = members_truth(s, "attention_bias", 0);
    net->no_biases = !net->qkv_bias && !members_truth(s, "mlp_bias", 0);
    c->head = members_truth(s, "tie_word_embeddings", 0) ? HEAD_TIED : HEAD_OWN;
}

void llama_configure(members *s, model_config *c) { configure(s, c, 2048, 0); }

void mistral_configure(members *s, model_config *c) {
    int absent = members_has(s, "sliding_window") ? 0 : 4096;
    configure(s, c, 131072, members_whole(s, "sliding_window", absent, 2, 2147483647));
}

void qwen2_configure(members *s, model_config *c) {
    configure(s, c, 32768, 0);
    c->net.qkv_bias = 1;
}

static const rename_row rows[] = {
    {"embed_tokens.",             "embed_tokens.",           0, 0},
    {"input_layernorm.",          "temporal_pre_norm.",      0, 0},
    {"self_attn.q_proj.",         "temporal_block.q_proj.",  0, 0},
    {"self_attn.k_proj.",         "temporal_block.k_proj.",  0, 0},
    {"self_attn.v_proj.",         "temporal_block.v_proj.",  0, 0},
    {"self_attn.o_proj.",         "temporal_block.o_proj.",  0, 0},
    {"post_attention_layernorm.", "channel_pre_norm.",       0, 0},
    {"mlp.gate_proj.",            "mlp_block.gate_proj.",    0, 0},
    {"mlp.up_proj.",              "mlp_block.up_proj.",      0, 0},
    {"mlp.down_proj.",            "mlp_block.down_proj.",    0, 0},
    {"norm.",                     "final_norm.",             0, 0},
    {"lm_head.",                  "lm_head.",                0, 0}
};

/* What the angles of the pairs are divided by: `given` [pairs], unless it is null, times what the
 * rotation says. No vector if all are 1. */
static int add_factors(renaming *n, const rotation *turn, const weight *given) {
    int pairs = n->net->rope_dims / 2, stretched = 0, status = 0;
    double *factors = (double *)malloc((size_t)pairs * sizeof *factors);
    if (!factors) return report_fail(n->r, "%s: out of memory", n->path);
    for (int i = 0; status == 0 && i < pairs; i++) {
        float own = 1;
        if (given) status = weight_read(given, (uint64_t)i, 1, &own, n->r);
        factors[i] = own * rotation_factor(turn, pow((double)n->net->rope_base, -1.0 * i / pairs));
        if (status == 0 && given && !(own >= 1 && factors[i] <= 1e9))
            status = report_fail(n->r, "tensor '%s': element %d is %g, expected 1 to 10^9",
                                 weight_origin(given), i, (double)own);
        stretched |= factors[i] != 1;
    }
    if (status == 0 && stretched)
        status = rename_vector(n, -1, "rope_factors.weight", factors, (uint64_t)pairs);
    free(factors);
    return status;
}

/* A network has all biases or none: where a file has only some, the others are 0. They have the
 * rows of their matrix, whose shape is checked later. */
static int fill_biases(renaming *n, int layer, const char *const from[4]) {
    static const char *const to[4] = {"temporal_block.o_proj.", "mlp_block.gate_proj.",
                                      "mlp_block.up_proj.", "mlp_block.down_proj."};
    char name[96];
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "%sbias", from[i]);
        if (rename_find(n, layer, name)) continue;
        snprintf(name, sizeof name, "%sweight", from[i]);
        const weight *matrix = rename_find(n, layer, name);
        snprintf(name, sizeof name, "%sbias", to[i]);
        if (matrix && matrix->elements >= matrix->shape[0]
            && rename_constant(n, layer, name, 0, matrix->shape[0]) != 0) return -1;
    }
    return 0;
}

int llama_rename(weights *w, members *s, const griffin_config *net, const char *path, report *r) {
    static const char *const layers[] = {"self_attn.o_proj.", "mlp.gate_proj.", "mlp.up_proj.",
                                         "mlp.down_proj."};
    renaming n = {w, net, path, r, NULL, {NULL, 0, 0, NULL, 0, NULL, 0}};
    int status = rename_all(&n, rows, sizeof rows / sizeof rows[0]);
    rotation turn = config_rotation(s, 1, 1);
    if (status == 0) status = add_factors(&n, &turn, NULL);
    for (int layer = 0; status == 0 && !net->no_biases && layer < net->layers; layer++)
        status = fill_biases(&n, layer, layers);
    return rename_finish(&n, status);
}

/* ---- GGUF of llama.cpp ---------------------------------------------------------------------- */

typedef struct keys { const griffin_model *f; report *r; int failed; } keys;

static int wrong_key(keys *k, const char *key, const char *expected) {
    if (!k->failed) report_fail(k->r, "metadata '%s': expected %s", key, expected);
    k->failed = 1;
    return 0;
}

/* A number "llama.NAME" of any type. */
static double number_of(keys *k, const char *name, double absent, double lowest, double highest) {
    char key[80], expected[80];
    griffin_metadata m;
    snprintf(key, sizeof key, "llama.%s", name);
    if (griffin_get_metadata(k->f, key, 0, &m) != 1) {
        if (absent < 0) wrong_key(k, key, "a number; it is missing");
        return absent < 0 ? lowest : absent;
    }
    if (!m.is_array && m.type != GRIFFIN_VALUE_STRING && m.number >= lowest && m.number <= highest)
        return m.number;
    snprintf(expected, sizeof expected, "a number from %.10g to %.10g", lowest, highest);
    wrong_key(k, key, expected);
    return lowest;
}

static int whole_of(keys *k, const char *name, double absent, double highest) {
    return (int)number_of(k, name, absent, 1, highest);
}

static int has_tensor(const griffin_model *f, const char *name, griffin_tensor *t) {
    for (int i = 0; griffin_get_tensor(f, i, t) == GRIFFIN_OK; i++)
        if (strcmp(t->name, name) == 0) return 1;
    return 0;
}

/* Things that would change what such a network computes: each must be absent, or this number. */
static void refuse_keys(keys *k) {
    static const struct { const char *name; double harmless; } others[] = {
        {"expert_count", 0}, {"expert_used_count", 0}, {"attention.scale", 0},
        {"logit_scale", 1}, {"embedding_scale", 1}, {"residual_scale", 1},
        {"attention.causal", 1}
    };
    char key[80], expected[80];
    griffin_metadata m;
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        snprintf(key, sizeof key, "llama.%s", others[i].name);
        if (griffin_get_metadata(k->f, key, 0, &m) != 1) continue;
        if (!m.is_array && m.type != GRIFFIN_VALUE_STRING && m.number == others[i].harmless)
            continue;
        snprintf(expected, sizeof expected, "%g; other values are not supported",
                 others[i].harmless);
        wrong_key(k, key, expected);
    }
}

/* All angles are divided by 1 or, in files that say linear or nothing, by this. */
static double scaling_of(keys *k) {
    griffin_metadata m;
    double linear = number_of(k, "rope.scale_linear", 1, 1, 1e9);
    double factor = number_of(k, "rope.scaling.factor", linear,
                              1, 1e9);
    if (griffin_get_metadata(k->f, "llama.rope.scaling.type", 0, &m) != 1) return factor;
    if (m.type == GRIFFIN_VALUE_STRING && m.length == 6 && !memcmp(m.text, "linear", 6))
        return factor;
    if (m.type != GRIFFIN_VALUE_STRING || m.length != 4 || memcmp(m.text, "none", 4))
        wrong_key(k, "llama.rope.scaling.type",
                  "none or linear; other kinds of rotation are not supported");
    return 1;
}

static void read_gguf_biases(const griffin_model *f, griffin_config *net) {
    griffin_tensor t;
    net->qkv_bias = has_tensor(f, "blk.0.attn_q.bias", &t);
    net->no_biases = !has_tensor(f, "blk.0.attn_output.bias", &t)
                  && !has_tensor(f, "blk.0.ffn_gate.bias", &t)
                  && !has_tensor(f, "blk.0.ffn_down.bias", &t);
}

int llama_configure_gguf(const griffin_model *f, model_config *c, report *r) {
    griffin_config *net = &c->net;
    keys k = {f, r, 0};
    griffin_tensor table;
    refuse_keys(&k);
    scaling_of(&k);
    if (!has_tensor(f, "token_embd.weight", &table) || table.rank != 2 || table.shape[0] > 1 << 21)
        return report_fail(r, "tensor 'token_embd.weight': expected a table of at most 2^21 rows");
    net->vocab = (int)table.shape[0];
    net->width = whole_of(&k, "embedding_length", -1, 1 << 20);
    net->layers = whole_of(&k, "block_count", -1, GRIFFIN_MAX_LAYERS);
    net->mlp_width = whole_of(&k, "feed_forward_length", -1, 1 << 22);
    net->heads = whole_of(&k, "attention.head_count", -1, 1 << 20);
    net->kv_heads = whole_of(&k, "attention.head_count_kv", net->heads, 1 << 20);
    net->eps = (float)number_of(&k, "attention.layer_norm_rms_epsilon", 1e-6, 1e-37, 0.9999999);
    net->rope_base = (float)number_of(&k, "rope.freq_base", 10000, 1, 1e12);
    c->context_length = whole_of(&k, "context_length", -1, 2147483647);
    double sliding = number_of(&k, "attention.sliding_window", 0, 0, 2147483647);
    net->window = window_of(sliding, c->context_length);
    c->is_unbounded = sliding <= 0;
    const char *broken = start(net);
    if (broken) return k.failed ? -1 : report_fail(r, "metadata: expected %s", broken);
    if (whole_of(&k, "attention.key_length", net->head_dim, 1 << 20) != net->head_dim
        || whole_of(&k, "attention.value_length", net->head_dim, 1 << 20) != net->head_dim
        || whole_of(&k, "rope.dimension_count", net->head_dim, 1 << 20) != net->head_dim)
        return report_fail(r, "metadata: expected heads of %d channels, all of them rotated",
                           net->head_dim);
    read_gguf_biases(f, net);
    return k.failed ? -1 : 0;
}

static const rename_row gguf_rows[] = {
    {"token_embd.",   "embed_tokens.",           0, 0},
    {"attn_norm.",    "temporal_pre_norm.",      0, 0},
    {"attn_q.",       "temporal_block.q_proj.",  0, 0},
    {"attn_k.",       "temporal_block.k_proj.",  0, 0},
    {"attn_v.",       "temporal_block.v_proj.",  0, 0},
    {"attn_output.",  "temporal_block.o_proj.",  0, 0},
    {"ffn_norm.",     "channel_pre_norm.",       0, 0},
    {"ffn_gate.",     "mlp_block.gate_proj.",    0, 0},
    {"ffn_up.",       "mlp_block.up_proj.",      0, 0},
    {"ffn_down.",     "mlp_block.down_proj.",    0, 0},
    {"output_norm.",  "final_norm.",             0, 0},
    {"output.",       "lm_head.",                0, 0},
    {"rope_freqs.",   NULL,                      0, 0}
};

static int add_gguf_factors(renaming *n, const griffin_model *f) {
    static const char name[] = "rope_freqs.weight";
    keys k = {f, n->r, 0};
    rotation turn = {0, 1, 0, 0, scaling_of(&k), 0, 0, 0};
    const weight *given = rename_find(n, -1, name);
    if (given && !rename_need(n, -1, name, (uint64_t)n->net->rope_dims / 2, 0)) return -1;
    return add_factors(n, &turn, given);
}

/* Rows of q and k lie there in the order of a rotation of pairs. */
int llama_rename_gguf(weights *w, const griffin_model *f, const griffin_config *net,
                      const char *path, report *r) {
    static const char *const layers[] = {"attn_output.", "ffn_gate.", "ffn_up.", "ffn_down."};
    renaming n = {w, net, path, r, "blk.", {NULL, 0, 0, NULL, 0, NULL, 0}};
    int status = rename_all(&n, gguf_rows, sizeof gguf_rows / sizeof gguf_rows[0]);
    if (status == 0) status = add_gguf_factors(&n, f);
    for (size_t i = 0; i < n.to.count; i++) {
        weight *t = &n.to.list[i];
        if (strstr(t->name, ".temporal_block.q_proj.") || strstr(t->name, ".temporal_block.k_proj."))
            weight_unpair(t, (uint64_t)net->head_dim);
    }
    for (int layer = 0; status == 0 && !net->no_biases && layer < net->layers; layer++)
        status = fill_biases(&n, layer, layers);
    return rename_finish(&n, status);
}
