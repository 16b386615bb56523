/* net.c - makes a net: its weights, the memory of a group, the first values; and takes
 * batches through it, see net.h. */

#include "model.h"

#include "../shared/host.h"
#include "../convert/tensors.h"

#include <stdio.h>
#include <stdlib.h>

#ifdef _OPENMP
  #include <omp.h>
#endif

/* ---- threads --------------------------------------------------------------------------------- */

static int threads_wanted(void) {
#ifdef _OPENMP
    return omp_get_max_threads();
#else
    return 1;
#endif
}

/* ---- shape ----------------------------------------------------------------------------------- */

enum { WIDEST_NET = 1 << 14 };

static int between(int value, int least, int most) { return value >= least && value <= most; }

static int has(const griffin_config *g, const char *letters) {
    return strpbrk(g->blocks, letters) != NULL;
}

static const char *broken_recurrence(const griffin_config *g) {
    if (!between(g->lru_width, 1, WIDEST_NET)) return "a recurrent width of 1 to 16384";
    if (!between(g->gate_blocks, 1, g->lru_width) || g->lru_width % g->gate_blocks)
        return "recurrent width a multiple of gate blocks";
    return between(g->conv_width, 1, 16) ? NULL : "1 to 16 taps";
}

static const char *broken_heads(const griffin_config *g) {
    if (!between(g->heads, 1, g->width) || g->head_dim * (int64_t)g->heads != g->width)
        return "heads times head_dim equal to width";
    if (!between(g->kv_heads, 1, g->heads) || g->heads % g->kv_heads)
        return "heads a multiple of key/value heads";
    if (has(g, "a") && !between(g->window, 1, 1 << 20)) return "a window of 1 to 2^20 tokens";
    if (!between(g->rope_dims, 0, g->head_dim) || g->rope_dims % 2)
        return "rotated dimensions even, at most head_dim";
    return NULL;
}

/* Null, or the rule that the shape breaks. Products of two sizes fit an int afterwards. */
static const char *broken_rule(const griffin_config *g, int longest) {
    const char *broken = NULL;
    if (!between(longest, 1, 1 << 16)) return "sequences of 1 to 65536 tokens";
    if (!between(g->vocab, 1, 1 << 21)) return "1 to 2^21 words";
    if (!between(g->width, 1, WIDEST_NET) || !between(g->mlp_width, 1, 4 * WIDEST_NET))
        return "widths of 1 to 16384, of the MLP 65536";
    if (!between(g->layers, 1, GRIFFIN_MAX_LAYERS)
        || strlen(g->blocks) != (size_t)g->layers
        || strspn(g->blocks, NET_LETTERS) != (size_t)g->layers)
        return "a letter r, a, h or s for each layer";
    if (has(g, "r")) broken = broken_recurrence(g);
    if (!broken && has(g, "ahs")) broken = broken_heads(g);
    if (broken) return broken;
    if (g->layer_norm) return "norms that do not subtract the mean";
    if (g->activation != GRIFFIN_GELU_TANH && g->activation != GRIFFIN_SILU)
        return "the activation gelu_pytorch_tanh or silu";
    return NULL;
}

/* ---- weights --------------------------------------------------------------------------------- */

static void describe_weight(net_weight *w, const tensor *t) {
    snprintf(w->name, sizeof w->name, "%s", t->name);
    w->rank = t->rank;
    w->count = 1;
    w->decays = t->kind != TENSOR_SMALL;
    w->careful = t->kind == TENSOR_CAREFUL;
    for (int i = 0; i < t->rank; i++) {
        w->shape[i] = (int)t->shape[i];
        w->count *= (size_t)t->shape[i];
    }
}

/* Files have two vectors for the gates of an HGRN2 layer that follow from lower_bounds. */
static int follows(const char *name) {
    const char *last = strrchr(name, '.');
    return last && (strcmp(last, ".lower_bound") == 0 || strcmp(last, ".gate_range") == 0);
}

static void describe_bounds(net_weight *w, const griffin_config *g) {
    tensor t;
    memset(&t, 0, sizeof t);
    snprintf(t.name, sizeof t.name, "model.lower_bounds");
    t.rank = 2;
    t.shape[0] = (uint64_t)g->layers;
    t.shape[1] = (uint64_t)g->width;
    describe_weight(w, &t);
}

static int list_weights(net *n) {
    tensors t;
    if (tensors_list(&t, &n->config) != 0) return -1;
    n->weights = (net_weight *)calloc(t.count + 1, sizeof *n->weights);
    for (size_t i = 0; n->weights && i < t.count; i++)
        if (!follows(t.list[i].name)) describe_weight(&n->weights[n->weight_count++], &t.list[i]);
    tensors_free(&t);
    if (!n->weights) return -1;
    if (has(&n->config, "h")) describe_bounds(&n->weights[n->weight_count++], &n->config);
    return 0;
}

/* The weight "model.[layers.AT.]NAME", or null. */
static net_weight *find(net *n, int at, const char *name) {
    char full[96], middle[32] = "";
    if (at >= 0) snprintf(middle, sizeof middle, "layers.%d.", at);
    snprintf(full, sizeof full, "model.%s%s", middle, name);
    for (int i = 0; i < n->weight_count; i++)
        if (strcmp(n->weights[i].name, full) == 0) return &n->weights[i];
    return NULL;
}

/* The linear layer NAME.weight with NAME.bias, if there is one. */
static matrix find_matrix(net *n, int at, const char *name) {
    char full[80];
    matrix m = { NULL, NULL, 0, 0, 1, 0, NULL, NULL };
    snprintf(full, sizeof full, "%s.weight", name);
    m.weight = find(n, at, full);
    m.out = m.weight->shape[0];
    m.in = m.weight->shape[1];
    snprintf(full, sizeof full, "%s.bias", name);
    m.bias = find(n, at, full);
    return m;
}

static matrix find_gate(net *n, int at, const char *name, const char *bias) {
    matrix m = { NULL, NULL, 0, 0, 1, 1, NULL, NULL };
    m.weight = find(n, at, name);
    m.bias = find(n, at, bias);
    m.blocks = m.weight->shape[0];
    m.in = m.out = m.weight->shape[1];
    return m;
}

/* ---- kinds of blocks ------------------------------------------------------------------------- */

typedef struct arena { char *memory; size_t used; } arena;

typedef struct kind {
    void   (*find)(net *n, int at, layer *l);               /* the mixer's weights */
    size_t (*state)(const griffin_config *g);               /* numbers, see layer.state_at */
    void   (*lay_out)(const net *n, layer *l, arena *a);    /* what it keeps for the way back */
    void   (*initialise)(net *n, layer *l, uint64_t *seed);
} kind;

static const kind kinds[sizeof NET_LETTERS - 1];

static int find_layers(net *n) {
    size_t state = 1;
    n->layers = (layer *)calloc((size_t)n->config.layers, sizeof *n->layers);
    if (!n->layers) return -1;
    n->embedding = find_matrix(n, -1, "embed_tokens");
    n->final_norm = find(n, -1, "final_norm.weight");
    n->lower_bounds = find(n, -1, "lower_bounds");
    for (int i = 0; i < n->config.layers; i++) {
        layer *l = &n->layers[i];
        l->kind = (int)(strchr(NET_LETTERS, n->config.blocks[i]) - NET_LETTERS);
        l->norm1 = find(n, i, "temporal_pre_norm.weight");
        l->norm2 = find(n, i, "channel_pre_norm.weight");
        l->gate = find_matrix(n, i, "mlp_block.gate_proj");
        l->up = find_matrix(n, i, "mlp_block.up_proj");
        l->down = find_matrix(n, i, "mlp_block.down_proj");
        kinds[l->kind].find(n, i, l);
        l->state_at = state;
        state += kinds[l->kind].state(&n->config);
    }
    n->state_size = state;
    return 0;
}

/* ---- memory -------------------------------------------------------------------------------------
 * Laid out twice: first to learn the size, with no memory, then with it. */

static void *give(arena *a, size_t count, size_t size) {
    void *here = a->memory ? a->memory + a->used : NULL;
    a->used += (count * size + 63) / 64 * 64;
    return here;
}

static real *reals(arena *a, size_t rows, int width) {
    return (real *)give(a, rows * (size_t)width, sizeof(real));
}

static void lay_out_weights(net *n, arena *a) {
    for (int i = 0; i < n->weight_count; i++) {
        net_weight *w = &n->weights[i];
        w->value = reals(a, w->count, 1);
        if (n->frozen) continue;
        w->gradient = reals(a, w->count, 1);
        w->mean = reals(a, w->count, 1);
        w->square = reals(a, w->count, 1);
    }
}

static void lay_out_panels(arena *a, matrix *m) {
    int out = net_rounded(m->out, WIDEST), in = net_rounded(m->in, WIDEST);
    m->forward = reals(a, (size_t)(m->blocks * m->in), out);
    m->backward = reals(a, (size_t)(m->blocks * m->out), in);
}

static void lay_out_layer(net *n, layer *l, arena *a) {
    const griffin_config *g = &n->config;
    size_t M = (size_t)n->capacity;
    matrix *list[LAYER_MATRICES];
    for (int i = net_matrices(l, list); i-- > 0;) lay_out_panels(a, list[i]);
    l->input = reals(a, M, g->width);
    l->middle = reals(a, M, g->width);
    l->g = reals(a, M, g->mlp_width);
    l->u = reals(a, M, g->mlp_width);
    kinds[l->kind].lay_out(n, l, a);
}

/* As wide as the widest mixer needs it. */
static void lay_out_mixer_work(net *n, arena *a) {
    const griffin_config *g = &n->config;
    work *w = &n->work;
    size_t M = (size_t)n->capacity;
    int E = has(g, "r") ? g->lru_width : 0, widest = g->width > E ? g->width : E;
    int D = has(g, "ahs") ? g->width : 0, kv = has(g, "as") ? g->kv_heads * g->head_dim : 0;
    if (has(g, "h")) kv = D;
    w->product = reals(a, M, widest);
    w->d_mixed = reals(a, M, widest);
    w->c = reals(a, M, E);
    w->d_c = reals(a, M, E);
    w->channel_sums = reals(a, M * (size_t)(g->conv_width + 2), E);
    w->d_q = reals(a, M, D);
    w->d_k = reals(a, M, kv);
    w->d_v = reals(a, M, kv);
    w->floor_sums = reals(a, M, has(g, "h") ? D : 0);
    w->d_floors = reals(a, (size_t)g->layers, has(g, "h") ? D : 0);
}

static void lay_out_work(net *n, arena *a) {
    const griffin_config *g = &n->config;
    work *w = &n->work;
    size_t M = (size_t)n->capacity;
    int D = g->width;
    real **of_width[] = { &w->d_out, &w->d_middle, &w->d_in, &w->n1, &w->n2 };
    for (int i = 0; i < 5; i++) *of_width[i] = reals(a, M, D);
    w->m = reals(a, M, g->mlp_width);
    w->d_u = reals(a, M, g->mlp_width);
    lay_out_mixer_work(n, a);
    w->logits_row = (size_t)net_rounded(g->vocab, SPREAD) + SPREAD;
    w->logits = reals(a, HEAD * w->logits_row, 1);
    w->norm_sums = reals(a, 3 * (size_t)net_pieces(n->capacity, BLOCK), D);
    w->losses = (double *)give(a, M, sizeof *w->losses);
    n->position = (int32_t *)give(a, M, sizeof *n->position);
    n->turns = reals(a, (size_t)n->longest + 1, g->rope_dims);
    n->output = reals(a, M, D);
}

/* A matrix, its panels, and two squares of its shorter side. */
static size_t muon_scratch(const net *n) {
    const griffin_config *g = &n->config;
    size_t most = 0;
    const int sides[][2] = { { g->width, g->mlp_width }, { g->width, g->lru_width },
                             { g->width, g->width } };
    for (int i = 0; i < 3; i++) {
        size_t a = (size_t)net_rounded(sides[i][0], WIDEST);
        size_t b = (size_t)net_rounded(sides[i][1], WIDEST), least = a < b ? a : b;
        if (2 * a * b + 2 * least * least > most) most = 2 * a * b + 2 * least * least;
    }
    return most;
}

static size_t attention_scratch(const net *n) {
    int span = net_rounded(n->longest + n->config.window, WIDEST);
    return (size_t)span * (size_t)(7 * net_rounded(n->config.head_dim, WIDEST) + 2 * QUERY);
}

/* What a stretch knows of a head, its states, and the gradients of those of a group of heads. */
static size_t outer_scratch(const griffin_config *g) {
    size_t row = (size_t)net_state_row(g);
    return (6 * STRETCH + (STRETCH + 1) * STRETCH) * row
         + (size_t)(g->heads / g->kv_heads) * net_head_state(g);
}

/* The most that a job takes, see pass.h; 16 numbers each for alignment. */
static size_t scratch_needed(const net *n) {
    const griffin_config *g = &n->config;
    size_t rows = (size_t)BLOCK * (size_t)(2 * g->width + g->mlp_width + g->lru_width);
    size_t attention = has(g, "a") ? attention_scratch(n) : 0;
    size_t outer = has(g, "hs") ? outer_scratch(g) : 0;
    size_t recurrent = (size_t)(2 * g->conv_width + 8) * (size_t)g->lru_width;
    size_t gradients = n->frozen ? 0 : GRADIENT_SCRATCH + muon_scratch(n);
    return rows + attention + outer + recurrent + gradients + 256;
}

/* All matrices of the layers; each block of a gate by itself. */
static void list_muon(net *n, muon_part *list) {
    n->muon_count = 0;
    for (int i = 0; i < n->config.layers; i++) {
        matrix *matrices[LAYER_MATRICES];
        for (int k = net_matrices(&n->layers[i], matrices); k-- > 0;)
            for (int b = 0; b < matrices[k]->blocks; b++, n->muon_count++) {
                const matrix *m = matrices[k];
                int rows = m->gate ? m->in : m->out, cols = m->gate ? m->out : m->in;
                muon_part part = { m->weight, (size_t)b * (size_t)rows * (size_t)cols, rows, cols };
                if (list) list[n->muon_count] = part;
            }
    }
}

static void lay_out_update(net *n, arena *a) {
    int count = 0;
    list_muon(n, NULL);
    n->muon = (muon_part *)give(a, (size_t)n->muon_count, sizeof *n->muon);
    list_muon(n, n->muon);
    n->chunks = 0;
    for (int i = 0; i < n->weight_count; i++)
        n->chunks += (int)((n->weights[i].count + CHUNK - 1) / CHUNK);
    n->chunk_sums = (double *)give(a, (size_t)n->chunks, sizeof *n->chunk_sums);
    n->chunk_start = (size_t *)give(a, (size_t)n->chunks, sizeof *n->chunk_start);
    n->chunk_weight = (int *)give(a, (size_t)n->chunks, sizeof *n->chunk_weight);
    for (int i = 0; a->memory && i < n->weight_count; i++)
        for (size_t at = 0; at < n->weights[i].count; at += CHUNK, count++) {
            n->chunk_weight[count] = i;
            n->chunk_start[count] = at;
        }
}

static void lay_out(net *n, arena *a) {
    lay_out_weights(n, a);
    lay_out_panels(a, &n->embedding);
    for (int i = 0; i < n->config.layers; i++) lay_out_layer(n, &n->layers[i], a);
    for (int i = 0; i < n->config.layers; i++)
        n->layers[i].output = i + 1 < n->config.layers ? n->layers[i + 1].input : NULL;
    lay_out_work(n, a);
    n->layers[n->config.layers - 1].output = n->output;
    lay_out_update(n, a);
    n->scratch_size = (scratch_needed(n) + 15) / 16 * 16;
    n->scratch = (real *)give(a, n->scratch_size * (size_t)n->threads, sizeof(real));
}

/* cos and sin of position * rope_base^(-2 j / rope_dims), exactly enough for any position here. */
static void fill_turns(net *n) {
    int half = n->config.rope_dims / 2;
    real *turn = n->turns;
    for (int p = 0; p <= n->longest; p++, turn += 2 * half)
        for (int j = 0; j < half; j++) {
            double angle = p * pow((double)n->config.rope_base, -1.0 * j / half);
            turn[j] = (real)cos(angle);
            turn[half + j] = (real)sin(angle);
        }
}

/* rounded: products may be of numbers rounded to bf16. */
static const net_math *best_math(int rounded) {
#ifdef NET_X86
    if (rounded && __builtin_cpu_supports("avx512bf16")) return &net_bf16;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) return &net_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return &net_avx2;
#endif
    (void)rounded;
    return &net_plain;
}

static int allocate(net *n) {
    arena a = { NULL, 0 };
    lay_out(n, &a);
    n->memory = big_allocate(a.used);
    if (!n->memory) return -1;
    a.memory = (char *)n->memory;
    a.used = 0;
    lay_out(n, &a);
    return 0;
}

static net *make(const griffin_config *config, int longest, int frozen) {
    const char *broken = broken_rule(config, longest);
    if (broken) { complain("cannot train this shape: expected %s", broken); return NULL; }
    net *n = (net *)calloc(1, sizeof *n);
    if (!n) { complain("out of memory"); return NULL; }
    n->config = *config;
    n->longest = longest;
    n->frozen = frozen;
    n->capacity = longest > GROUP ? longest : GROUP;
    n->kept_states = has(config, "hs") ? 2 * net_pieces(n->capacity, STRETCH) : 0;
    n->threads = threads_wanted();
    n->math = best_math(1);
    n->exact = best_math(0);
    if (list_weights(n) != 0 || find_layers(n) != 0 || allocate(n) != 0) {
        complain("no memory for this net");
        net_free(n);
        return NULL;
    }
    fill_turns(n);
    net_initialise(n, 0);
    return n;
}

net *net_new(const griffin_config *config, int longest) { return make(config, longest, 0); }
net *net_new_frozen(const griffin_config *config, int longest) { return make(config, longest, 1); }

void net_free(net *n) {
    if (!n) return;
    big_release(n->memory);
    free(n->layers);
    free(n->weights);
    free(n);
}

size_t net_state_size(const net *n) { return n->state_size; }

int net_weights(net *n, net_weight **list) {
    *list = n->weights;
    return n->weight_count;
}

/* ---- the first values ------------------------------------------------------------------------ */

/* splitmix64 */
static double uniform(uint64_t *seed) {
    uint64_t z = *seed += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return ((double)((z ^ (z >> 31)) >> 11) + 0.5) / 9007199254740992.0;
}

static void fill_normal(net_weight *w, double variance, uint64_t *seed) {
    for (size_t i = 0; i < w->count; i++) {
        double size = sqrt(-2 * variance * log(uniform(seed)));
        w->value[i] = (real)(size * cos(6.283185307179586 * uniform(seed)));
    }
}

static void fill(net_weight *w, double value) {
    for (size_t i = 0; i < w->count; i++) w->value[i] = (real)value;
}

/* Makes a^c uniform in [0.9, 0.999], where a = sigmoid(-a_param) (section 2.4 of the paper). */
static void fill_decay(net_weight *w, double c, uint64_t *seed) {
    for (size_t i = 0; i < w->count; i++) {
        double a = pow(0.9 + 0.099 * uniform(seed), 1 / c);
        w->value[i] = (real)log(1 / a - 1);
    }
}

static void fill_matrix(const matrix *m, double gain, uint64_t *seed) {
    fill_normal(m->weight, gain / m->in, seed);
}

/* ---- r */

static void find_recurrent(net *n, int i, layer *l) {
    l->y = find_matrix(n, i, "temporal_block.linear_y");
    l->x = find_matrix(n, i, "temporal_block.linear_x");
    l->taps = find(n, i, "temporal_block.conv_1d.weight");
    l->taps_bias = find(n, i, "temporal_block.conv_1d.bias");
    l->gate_x = find_gate(n, i, "temporal_block.rg_lru.input_gate_weight",
                          "temporal_block.rg_lru.input_gate_bias");
    l->gate_a = find_gate(n, i, "temporal_block.rg_lru.recurrent_gate_weight",
                          "temporal_block.rg_lru.recurrent_gate_bias");
    l->a_param = find(n, i, "temporal_block.rg_lru.recurrent_param");
    l->out = find_matrix(n, i, "temporal_block.linear_out");
}

static size_t recurrent_state(const griffin_config *g) {
    return (size_t)g->conv_width * (size_t)g->lru_width;
}

static void lay_out_recurrent(const net *n, layer *l, arena *a) {
    real **const of_width[] = { &l->mixed, &l->y_in, &l->z, &l->gx, &l->ga };
    for (int i = 0; i < 5; i++) *of_width[i] = reals(a, (size_t)n->capacity, n->config.lru_width);
}

static void initialise_recurrent(net *n, layer *l, uint64_t *seed) {
    fill_matrix(&l->y, 1, seed);
    fill_matrix(&l->x, 1, seed);
    fill_normal(l->taps, 0.01 / n->config.conv_width, seed);
    fill_matrix(&l->gate_x, 1, seed);
    fill_matrix(&l->gate_a, 1, seed);
    fill_decay(l->a_param, (double)n->config.decay, seed);
}

/* ---- a */

static void find_attention(net *n, int i, layer *l) {
    l->q = find_matrix(n, i, "temporal_block.q_proj");
    l->k = find_matrix(n, i, "temporal_block.k_proj");
    l->v = find_matrix(n, i, "temporal_block.v_proj");
    l->out = find_matrix(n, i, "temporal_block.o_proj");
}

static size_t attention_state(const griffin_config *g) {
    return 2 * (size_t)g->window * (size_t)(g->kv_heads * g->head_dim);
}

static void lay_out_heads(const net *n, layer *l, arena *a) {
    size_t M = (size_t)n->capacity;
    int kv = net_kv_heads(&n->config, l->kind) * n->config.head_dim;
    l->mixed = reals(a, M, n->config.width);
    l->queries = reals(a, M, n->config.width);
    l->keys = reals(a, M, kv);
    l->values = reals(a, M, kv);
}

static void lay_out_attention(const net *n, layer *l, arena *a) {
    lay_out_heads(n, l, a);
    l->weighing = reals(a, (size_t)n->capacity, n->config.heads);
}

static void initialise_attention(net *n, layer *l, uint64_t *seed) {
    (void)n;
    fill_matrix(&l->q, 1, seed);
    fill_matrix(&l->k, 1, seed);
    fill_matrix(&l->v, 1, seed);
}

/* ---- h */

static void find_hgrn2(net *n, int i, layer *l) {
    l->q = find_matrix(n, i, "temporal_block.q_proj");
    l->k = find_matrix(n, i, "temporal_block.f_proj");
    l->v = find_matrix(n, i, "temporal_block.v_proj");
    l->group_norm = find(n, i, "temporal_block.group_norm.weight");
    l->out = find_matrix(n, i, "temporal_block.o_proj");
}

static size_t outer_state(const griffin_config *g) {
    return (size_t)g->heads * net_head_state(g);
}

static void lay_out_outer(const net *n, layer *l, arena *a) {
    lay_out_heads(n, l, a);
    l->kept = reals(a, (size_t)n->kept_states * outer_state(&n->config), 1);
    l->floor = reals(a, 2, NET_LETTERS[l->kind] == 'h' ? n->config.width : 0);
}

/* Of lower_bounds the first values are 0: the bounds rise evenly from layer to layer. Matrices
 * begin with a variance of 1 / inputs, which is about flash-linear-attention's 0.02^2 at the widths
 * there; small networks learn much faster from it. */
static void initialise_hgrn2(net *n, layer *l, uint64_t *seed) {
    initialise_attention(n, l, seed);
    fill(l->group_norm, 1 - (double)n->config.norm_offset);
}

/* ---- s */

static void find_supra(net *n, int i, layer *l) {
    find_attention(n, i, l);
    l->decay = find(n, i, "temporal_block.decay");
}

/* gamma = exp(-2^(-8 (h + 1) / H)): heads that forget at different speeds. */
static void fill_gamma(net_weight *w) {
    for (size_t h = 0; h < w->count; h++)
        w->value[h] = (real)exp(-exp2(-8.0 * (double)(h + 1) / (double)w->count));
}

static void fill_evenly(net_weight *w, double most, uint64_t *seed) {
    for (size_t i = 0; i < w->count; i++) w->value[i] = (real)(most * (2 * uniform(seed) - 1));
}

/* The features are W' h + b, W' standing for We Wq: of We and b, the paper's initialisation is
 * uniform in +-1 / sqrt(inputs), which has a third of a normal matrix's variance. */
static void initialise_supra(net *n, layer *l, uint64_t *seed) {
    (void)n;
    fill_matrix(&l->q, 1 / 3.0, seed);
    fill_matrix(&l->k, 1 / 3.0, seed);
    fill_matrix(&l->v, 1, seed);
    fill_evenly(l->q.bias, 1 / sqrt((double)l->q.in), seed);
    fill_evenly(l->k.bias, 1 / sqrt((double)l->k.in), seed);
    fill_gamma(l->decay);
}

/* In the order of NET_LETTERS. */
static const kind kinds[sizeof NET_LETTERS - 1] = {
    { find_recurrent, recurrent_state, lay_out_recurrent, initialise_recurrent },
    { find_attention, attention_state, lay_out_attention, initialise_attention },
    { find_hgrn2,     outer_state,     lay_out_outer,     initialise_hgrn2 },
    { find_supra,     outer_state,     lay_out_outer,     initialise_supra }
};

/* ---- all kinds */

static void initialise_layer(net *n, layer *l, uint64_t *seed) {
    double last = 2.0 / n->config.layers;   /* what ends a residual branch starts smaller */
    fill(l->norm1, 1 - (double)n->config.norm_offset);
    fill(l->norm2, 1 - (double)n->config.norm_offset);
    kinds[l->kind].initialise(n, l, seed);
    fill_matrix(&l->out, last, seed);
    fill_matrix(&l->gate, 1, seed);
    fill_matrix(&l->up, 1, seed);
    fill_matrix(&l->down, last, seed);
}

/* Numbers as in the reference, except a_param, where its code differs from the paper. */
void net_initialise(net *n, uint64_t seed) {
    for (int i = 0; i < n->weight_count; i++) {
        net_weight *w = &n->weights[i];
        fill(w, 0);                         /* what biases stay */
        if (n->frozen) continue;
        memset(w->gradient, 0, w->count * sizeof(real));
        memset(w->mean, 0, w->count * sizeof(real));
        memset(w->square, 0, w->count * sizeof(real));
    }
    fill_matrix(&n->embedding, 1, &seed);
    for (int i = 0; i < n->config.layers; i++) initialise_layer(n, &n->layers[i], &seed);
    fill(n->final_norm, 1 - (double)n->config.norm_offset);
}

/* ---- lower bounds -------------------------------------------------------------------------------
 * Of HGRN2's gates, from A [layers][width]: p = softmax of A over the layers, and layer l has
 * p_1 + .. + p_l. So the first has none, and later layers forget less. */

/* p of a channel; in double, since what is left of 1 must be exact too. */
static void bound_shares(const griffin_config *g, const real *A, int channel, double *p) {
    double most = -DBL_MAX, sum = 0;
    for (int l = 0; l < g->layers; l++) most = fmax(most, (double)A[l * g->width + channel]);
    for (int l = 0; l < g->layers; l++)
        sum += p[l] = exp((double)A[l * g->width + channel] - most);
    for (int l = 0; l < g->layers; l++) p[l] /= sum;
}

void net_floor(const griffin_config *g, const real *A, int at, real *bound, real *range) {
    for (int c = 0; c < g->width; c++) {
        double p[GRIFFIN_MAX_LAYERS], below = 0, above = 0;
        bound_shares(g, A, c, p);
        for (int l = 1; l <= at; l++) below += p[l];
        for (int l = g->layers - 1; l > at; l--) above += p[l];
        bound[c] = (real)below;
        range[c] = at ? (real)(above + p[0]) : 1;
    }
}

static void find_floors(net *n) {
    for (int i = 0; i < n->config.layers; i++) {
        layer *l = &n->layers[i];
        if (l->group_norm)
            net_floor(&n->config, n->lower_bounds->value, i, l->floor,
                      l->floor + n->config.width);
    }
}

/* From work.d_floors through the sums and the softmax to A's gradient. */
static void floors_backward(net *n) {
    const griffin_config *g = &n->config;
    for (int c = 0; c < g->width; c++) {
        double p[GRIFFIN_MAX_LAYERS], dp[GRIFFIN_MAX_LAYERS] = { 0 }, sum = 0, mean = 0;
        bound_shares(g, n->lower_bounds->value, c, p);
        for (int l = g->layers - 1; l > 0; l--)
            mean += p[l] * (dp[l] = sum += (double)n->work.d_floors[l * g->width + c]);
        for (int l = 0; l < g->layers; l++)
            n->lower_bounds->gradient[l * g->width + c] += (real)(p[l] * (dp[l] - mean));
    }
}

/* ---- batches --------------------------------------------------------------------------------- */

/* How many tokens of its document come before each. */
static void find_positions(net *n, const uint8_t *fresh) {
    for (int t = 0; t < n->rows; t++) {
        const real *state = n->state ? n->state + (size_t)(t / n->length) * n->state_size : NULL;
        if (fresh && fresh[t]) n->position[t] = 0;
        else if (t % n->length) n->position[t] = n->position[t - 1] + 1;
        else n->position[t] = state ? (int32_t)state[0] : 0;
    }
}

static int64_t count_scored(const int32_t *targets, int64_t count) {
    int64_t scored = 0;
    for (int64_t i = 0; i < count; i++) scored += targets[i] >= 0;
    return scored;
}

/* Group by group, whatever the batch. */
static double run_batch(net *n, const net_batch *b, int backward, real *d_state) {
    const net_math *math = backward ? n->math : n->exact;
    int most = b->length < GROUP ? GROUP / b->length : 1;
    double sum = 0;
    if (n->kept_states) most = net_least(most, n->kept_states / net_kept(b->length));
    if (n->lower_bounds) find_floors(n);
    math->prepare(n);
    n->length = b->length;
    n->drop = b->drop;
    n->dice = b->dice;
    for (int first = 0; first < b->sequences; first += most) {
        size_t at = (size_t)first * (size_t)b->length;
        n->rows = net_least(most, b->sequences - first) * b->length;
        n->first_row = (int)at;
        n->tokens = b->tokens + at;
        n->targets = b->targets + at;
        n->state = b->state ? b->state + (size_t)first * n->state_size : NULL;
        n->next = b->next ? b->next + (size_t)first * n->state_size : NULL;
        n->d_state = d_state ? d_state + (size_t)first * n->state_size : NULL;
        find_positions(n, b->fresh ? b->fresh + at : NULL);
        sum += math->run(n, backward);
        if (backward && n->lower_bounds && !d_state) floors_backward(n);
    }
    return sum;
}

double net_backward(net *n, const net_batch *b, float scale, int64_t *scored) {
    n->scale = (double)scale;
    if (scored) *scored = count_scored(b->targets, (int64_t)b->sequences * b->length);
    return run_batch(n, b, 1, NULL);
}

double net_backward_state(net *n, const net_batch *b, float scale, real *d_state,
                          int64_t *scored) {
    n->scale = (double)scale;
    if (scored) *scored = count_scored(b->targets, (int64_t)b->sequences * b->length);
    for (int s = 0; s < b->sequences; s++) d_state[(size_t)s * n->state_size] = 0;
    return run_batch(n, b, 1, d_state);
}

double net_loss(net *n, const net_batch *b, int64_t *scored) {
    n->scale = 1;
    if (scored) *scored = count_scored(b->targets, (int64_t)b->sequences * b->length);
    return run_batch(n, b, 0, NULL);
}

double net_update(net *n, net_adam *adam) {
    adam->step++;
    return n->math->update(n, adam);
}
