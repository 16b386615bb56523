/* gemma.c - RecurrentGemma and other Griffins, as transformers and DeepMind have them; see
 * family.h. */

#include "family.h"
#include "deepmind.h"

#include <stdio.h>
#include <string.h>

/* Values that may be absent, but not null. */
static void refuse_null(members *s) {
    static const char *const names[] = {
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
        "num_attention_heads", "attention_window_size", "conv1d_width", "max_position_embeddings",
        "rms_norm_eps", "rope_theta", "partial_rotary_factor", "embeddings_scale_by_sqrt_dim",
        "attention_bias"
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (members_has(s, names[i]) && !members_find(s, names[i]))
            members_wrong(s, names[i], "a value that is not null");
}

static void read_sizes(members *s, griffin_config *net) {
    const int most = 1 << 20;
    net->vocab = members_whole(s, "vocab_size", 256000, 1, 1 << 21);
    net->width = members_whole(s, "hidden_size", 2560, 1, most);
    net->mlp_width = members_whole(s, "intermediate_size", 7680, 2, 8 * most);  /* both branches */
    net->layers = members_whole(s, "num_hidden_layers", 26, 1, GRIFFIN_MAX_LAYERS);
    net->heads = net->gate_blocks = members_whole(s, "num_attention_heads", 10, 1, most);
    net->kv_heads = members_whole(s, "num_key_value_heads", net->heads, 1, most);
    net->head_dim = members_whole(s, "head_dim", net->width / net->heads, 1, most);
    net->lru_width = members_whole(s, "lru_width", net->width, 1, most);
    net->window = members_whole(s, "attention_window_size", 2048, 1, most);
    net->conv_width = members_whole(s, "conv1d_width", 4, 1, 16);
}

static void check_sizes(members *s, const griffin_config *net) {
    if (net->mlp_width % 2) members_conflict(s, "intermediate_size %d is not even", net->mlp_width);
    if (net->width % net->heads || net->head_dim != net->width / net->heads)
        members_conflict(s, "hidden_size %d is not num_attention_heads %d times head_dim %d",
                         net->width, net->heads, net->head_dim);
    if (net->heads % net->kv_heads)
        members_conflict(s, "num_attention_heads %d is not a multiple of num_key_value_heads %d",
                         net->heads, net->kv_heads);
    if (net->rope_dims % 2)
        members_conflict(s, "partial_rotary_factor gives %d rotated dimensions, an odd number",
                         net->rope_dims);
}

/* ---- kinds of blocks ------------------------------------------------------------------------- */

/* Appends the letters of a list of names to `blocks`, from which on they repeat. */
static int read_list(members *s, const char *list, char *blocks) {
    static const char expected[] = "a list of \"recurrent\" and \"attention\"";
    char name[40];
    int count = 0;
    if (!members_find(s, list)) return 0;
    for (;; count++) {
        snprintf(name, sizeof name, "%s.%d", list, count);
        if (!members_find(s, name)) break;
        if (count == GRIFFIN_MAX_LAYERS) { members_wrong(s, list, "at most 1024 entries"); break; }
        int attention = members_is(s, name, "attention");
        if (!attention && !members_is(s, name, "recurrent")) members_wrong(s, list, expected);
        blocks[count] = attention ? 'a' : 'r';
    }
    if (!count) members_wrong(s, list, expected);
    return count;
}

static void read_blocks(members *s, griffin_config *net) {
    static const char standard[] = "rra";
    char new[GRIFFIN_MAX_LAYERS], old[GRIFFIN_MAX_LAYERS];
    int count = read_list(s, "block_types", new), old_count = read_list(s, "_block_types", old);
    const char *list = count ? new : old_count ? old : standard;
    if (count && old_count && (count != old_count || memcmp(new, old, (size_t)count)))
        members_conflict(s, "block_types and _block_types differ");
    if (!count) count = old_count ? old_count : 3;
    for (int i = 0; i < net->layers; i++) net->blocks[i] = list[i % count];
}

void gemma_configure(members *s, model_config *c) {
    griffin_config *net = &c->net;
    refuse_null(s);
    read_sizes(s, net);
    rotation turn = config_rotation(s, 0.5, 0);
    net->rope_dims = (int)(net->head_dim * turn.part);
    net->rope_base = (float)turn.base;
    net->eps = (float)members_number(s, "rms_norm_eps", 1e-6, 1e-37, 0.9999999);
    net->norm_offset = 1;
    if (members_truth(s, "embeddings_scale_by_sqrt_dim", 1))
        net->embedding_scale = config_embedding_scale(net->width);
    net->soft_cap = (float)members_number(s, "logits_soft_cap",
                                          members_has(s, "logits_soft_cap") ? 0 : 30, 0, 1e30);
    net->qkv_bias = members_truth(s, "attention_bias", 0);
    net->activation = config_activation(s, "hidden_activation", GRIFFIN_GELU_TANH);
    c->context_length = members_whole(s, "max_position_embeddings", 8192, 1, 2147483647);
    check_sizes(s, net);
    read_blocks(s, net);
    net->mlp_width /= 2;                    /* of one of the branches */
}

int gemma_rename(weights *w, members *s, const griffin_config *net, const char *path, report *r) {
    (void)s;
    (void)net;
    if (!weights_find(w, "embedder.input_embedding")) return 0;
    return weights_from_deepmind(w, path, r);
}
