/* preset.c - the published shapes of the family; see config.h. */

#include "config.h"

#include <string.h>

static void family_defaults(griffin_config *g) {
    memset(g, 0, sizeof *g);
    g->conv_width = 4;
    g->kv_heads = 1;
    g->rope_base = 10000;
    g->eps = 1e-6f;
    g->norm_offset = 1;
    g->embedding_scale = 1;
    g->decay = 8;
}

static void repeat_blocks(griffin_config *g, const char *pattern) {
    int i, n = (int)strlen(pattern);
    for (i = 0; i < g->layers && i < GRIFFIN_MAX_LAYERS; i++) g->blocks[i] = pattern[i % n];
    g->blocks[i] = 0;
}

/* Griffin paper, appendix C, table 2: heads of 128, MLP 3 D, 16 gate blocks, window 1024. */
static int paper_preset(griffin_config *g, const char *size) {
    static const struct { const char *name; int D, E, N; } table[] = {
        { "100m",  768, 1024, 12 }, { "200m", 1024, 1536, 12 }, { "400m", 1536, 2048, 12 },
        { "1.3b", 2048, 2560, 24 }, { "3b",   3072, 4096, 24 }, { "7b",   4096, 5632, 32 },
        { "14b",  5120, 8192, 40 }
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strcmp(size, table[i].name) != 0) continue;
        g->vocab = 32000;
        g->width = table[i].D;
        g->lru_width = table[i].E;
        g->layers = table[i].N;
        g->gate_blocks = 16;
        g->head_dim = 128;
        g->window = 1024;
        return 0;
    }
    return -1;
}

/* RecurrentGemma report: a Griffin with scaled embedding and capped logits. */
static int gemma_preset(griffin_config *g, const char *size) {
    int large = strcmp(size, "9b") == 0;
    if (!large && strcmp(size, "2b") != 0) return -1;
    g->vocab = 256000;
    g->width = g->lru_width = large ? 4096 : 2560;
    g->layers = large ? 38 : 26;
    g->gate_blocks = large ? 16 : 10;
    g->head_dim = 256;
    g->window = 2048;
    g->soft_cap = 30;
    g->embedding_scale = large ? 64.0f : 50.5f;         /* sqrt(D) rounded to bf16 */
    return 0;
}

/* Transformers' sizes and the like: SwiGLU of so many columns, plain RMS norms, no biases. */
static void plain_network(griffin_config *g, int width, int layers, int mlp_width) {
    g->vocab = 32000;
    g->width = width;
    g->layers = layers;
    g->mlp_width = mlp_width;
    g->head_dim = 128;
    g->heads = width / g->head_dim;
    g->norm_offset = 0;
    g->no_biases = 1;
    g->activation = GRIFFIN_SILU;
    g->conv_width = 0;
}

/* HGRN2: flash-linear-attention's shapes of 1.3b and 2.7b, and the widths and depths of the Griffin
 * paper with the same rule for the MLP: 8/3 D, rounded up to a multiple of 256. */
static int hgrn2_preset(griffin_config *g, const char *size) {
    int D = 2560, N = 32;
    if (strcmp(size, "2.7b") != 0) {
        if (paper_preset(g, size) != 0) return -1;
        D = g->width;
        N = g->layers;
        g->lru_width = g->gate_blocks = g->window = 0;
    }
    plain_network(g, D, N, (D * 8 / 3 + 255) / 256 * 256);
    g->kv_heads = g->heads;
    return 0;
}

/* SUPRA from Mistral 7B, the published one. */
static int supra_preset(griffin_config *g, const char *size) {
    if (strcmp(size, "7b") != 0) return -1;
    plain_network(g, 4096, 32, 14336);
    g->kv_heads = 8;
    g->rope_dims = g->head_dim;
    g->eps = 1e-5f;
    return 0;
}

int preset_find(griffin_config *net, const char *name) {
    static const struct {
        const char *prefix, *blocks;
        int       (*fill)(griffin_config *, const char *);
    } families[] = {
        { "griffin-", "rra", paper_preset }, { "hawk-", "r", paper_preset },
        { "mqa-", "a", paper_preset }, { "recurrentgemma-", "rra", gemma_preset },
        { "hgrn2-", "h", hgrn2_preset }, { "supra-", "s", supra_preset },
        { "", "rra", gemma_preset }
    };
    int family = 0;
    while (strncmp(name, families[family].prefix, strlen(families[family].prefix)) != 0) family++;
    family_defaults(net);
    if (families[family].fill(net, name + strlen(families[family].prefix)) != 0) return -1;
    if (!net->mlp_width) {                  /* as all of Griffin's have it */
        net->mlp_width = 3 * net->width;
        net->heads = net->width / net->head_dim;
        net->rope_dims = net->head_dim / 2;
    }
    repeat_blocks(net, families[family].blocks);
    return 0;
}
