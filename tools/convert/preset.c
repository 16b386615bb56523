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

int preset_find(griffin_config *net, const char *name) {
    static const struct {
        const char *prefix, *blocks;
        int       (*fill)(griffin_config *, const char *);
    } families[] = {
        { "griffin-", "rra", paper_preset }, { "hawk-", "r", paper_preset },
        { "mqa-", "a", paper_preset }, { "recurrentgemma-", "rra", gemma_preset },
        { "", "rra", gemma_preset }
    };
    int family = 0;
    while (strncmp(name, families[family].prefix, strlen(families[family].prefix)) != 0) family++;
    family_defaults(net);
    if (families[family].fill(net, name + strlen(families[family].prefix)) != 0) return -1;
    net->mlp_width = 3 * net->width;
    net->heads = net->width / net->head_dim;
    net->rope_dims = net->head_dim / 2;
    repeat_blocks(net, families[family].blocks);
    return 0;
}
