/* Promise: the network computes what DeepMind's implementation computes: logits, every layer's
 * output and the final state, within 1e-4 of |x - y| / (1 + |y|), with the same argmax everywhere;
 * and it does so however the tokens are cut into calls. Shapes that DeepMind's models do not have
 * are compared with the formulas of the manual, written down once more in double. */

#define GRIFFIN_IMPLEMENTATION
#include "formulas.h"

#define LIMIT 1e-4

static double scaled(double x, double y) { return fabs(x - y) / (1 + fabs(y)); }

static double worst_of(const float *x, const float *y, long n) {
    double worst = 0;
    for (long i = 0; i < n; i++) {
        double d = scaled(x[i], y[i]);
        if (!(d <= worst)) worst = d;
    }
    return worst;
}

static int argmax(const float *x, int n) {
    int best = 0;
    for (int i = 1; i < n; i++) if (x[i] > x[best]) best = i;
    return best;
}

static int document_end(const golden *g, int at) {
    for (at++; at < g->count && g->position[at] != 0; at++) {}
    return at;
}

static void run_documents(const golden *g, griffin_context *c, griffin_state *s, int chunk,
                          float *logits) {
    int end;
    for (int at = 0; at < g->count; at = end) {
        end = document_end(g, at);
        memset(s, 0, griffin_state_size(c->model));
        run_chunks(c->model, c, s, g->tokens + at, end - at, chunk, logits + (long)at * vocabulary(c->model));
    }
}

/* ---- logits -------------------------------------------------------------------------------- */

static double check_logits(const golden *g, const char *file, const float *logits, int V) {
    char path[256];
    snprintf(path, sizeof path, "tests/data/%s/%s", g->name, file);
    npy want = npy_read(path);
    CHECK(want.rank == 2 && want.shape[0] == g->count && want.shape[1] == V, "%s: %ld x %ld",
          path, want.shape[0], want.shape[1]);
    if (want.count != (long)g->count * V) return INFINITY;
    double worst = worst_of(logits, want.at, want.count);
    CHECK(worst <= LIMIT, "%s: off by %g", path, worst);
    for (int t = 0; t < g->count; t++)
        CHECK(argmax(logits + t * V, V) == argmax(want.at + t * V, V), "%s at %d", path, t);
    free(want.at);
    return worst;
}

/* ---- after every layer ---------------------------------------------------------------------- */

/* Layers done when the operation is: embedding 0, then each second sum into the residual stream. */
static int layers_done(const griffin_model *m, int ops) {
    int sums = 0, embedded = 0;
    for (int i = 0; i < ops; i++) {
        const grf_op *op = &m->ops[i];
        if (op->kind == GRF_OP_EMBED) embedded = 1;
        if (op->kind == GRF_OP_LINEAR && op->out[0].epilogue == GRF_ADD) sums++;
    }
    return !embedded ? -1 : sums / 2;
}

/* Follows a job unit by unit; hidden is [layers + 1][all tokens][D]. */
static double check_hidden(const golden *g, griffin_context *c, const npy *hidden, int at,
                           int count) {
    const griffin_model *m = c->model;
    int D = m->info.config.width, done = -1, now;
    griffin_state *s = new_state(m);
    griffin_span span = span_of(s, g->tokens + at, count, NULL);
    double worst = 0;
    int left = griffin_begin(c, &span, 1);
    CHECK(left > 0, "%d", left);
    while (left > 0) {
        left = griffin_advance(c, 1);
        now = layers_done(m, c->op);
        if (now == done) continue;
        CHECK(now == done + 1, "layer %d after %d", now, done);
        done = now;
        for (int row = 0; row < count; row++) {
            double d = worst_of(grf_row(c, GRF_X, row),
                                hidden->at + ((long)done * g->count + at + row) * D, D);
            CHECK(d <= LIMIT, "%s: layer %d, token %d: off by %g", g->name, done - 1, at + row, d);
            if (d > worst) worst = d;
        }
    }
    CHECK(done == m->info.config.layers, "%d", done);
    free(s);
    return worst;
}

static double check_all_hidden(const golden *g, griffin_context *c) {
    char path[256];
    double worst = 0, d;
    snprintf(path, sizeof path, "tests/data/%s/hidden.npy", g->name);
    npy hidden = npy_read(path);
    for (int at = 0; at < g->count && hidden.count; at = document_end(g, at)) {
        d = check_hidden(g, c, &hidden, at, document_end(g, at) - at);
        if (d > worst) worst = d;
    }
    free(hidden.at);
    return worst;
}

/* ---- the state ------------------------------------------------------------------------------ */

typedef struct archive { unsigned char *data; size_t size; } archive;

static npy state_array(const archive *a, int layer, const char *name) {
    char full[64];
    snprintf(full, sizeof full, "layers.%d.%s", layer, name);
    return npz_get(a->data, a->size, full);
}

/* One [rows][n] array of the reference against rows of ours. */
static double check_rows(const archive *a, int layer, const char *name, const float *ours,
                         long stride) {
    npy want = state_array(a, layer, name);
    long rows = want.rank == 2 ? want.shape[0] : 1, n = rows ? want.count / rows : 0;
    double worst = 0, d;
    for (long i = 0; i < rows; i++) {
        d = worst_of(ours + i * stride, want.at + i * n, n);
        if (d > worst) worst = d;
    }
    CHECK(worst <= LIMIT, "layer %d, %s: off by %g", layer, name, worst);
    free(want.at);
    return worst;
}

/* Where an operation of a layer keeps its part of a state. */
static int64_t state_of(const griffin_model *m, int layer, grf_op_kind kind) {
    for (int i = 0; i < m->n_ops; i++)
        if (m->ops[i].layer == layer && m->ops[i].kind == kind) return m->ops[i].state.at;
    CHECK(0, "layer %d", layer);
    return 0;
}

/* The reference keeps W positions, p in slot p % W. */
static double check_ring(const archive *a, griffin_state *s, const griffin_model *m, int layer,
                         int which) {
    npy want = state_array(a, layer, which ? "values" : "keys");
    npy tokens = state_array(a, layer, "num_tokens");
    int64_t W = m->info.config.window, ring = state_of(m, layer, GRF_OP_ATTEND);
    int hd = m->info.config.head_dim;
    double worst = 0, d;
    CHECK(tokens.count == 1 && (int64_t)tokens.at[0] == s->position, "layer %d", layer);
    for (int64_t p = grf_max64(0, s->position - W); p < s->position; p++) {
        const float *row = (const float *)(void *)grf_state_ring(m, s, ring, which, p);
        d = worst_of(row, want.at + p % W * hd, hd);
        CHECK(d <= LIMIT, "layer %d, position %d: off by %g", layer, (int)p, d);
        if (d > worst) worst = d;
    }
    free(want.at);
    free(tokens.at);
    return worst;
}

static double check_state(const golden *g, const griffin_model *m, griffin_state *s) {
    double worst = 0, d[2];
    archive a;
    char path[256];
    snprintf(path, sizeof path, "tests/data/%s/state.npz", g->name);
    a.data = test_read(path, &a.size);
    CHECK(a.data != NULL, "%s", path);
    for (int layer = 0; layer < m->info.config.layers && a.data; layer++) {
        if (m->info.config.blocks[layer] == 'a') {
            d[0] = check_ring(&a, s, m, layer, 0);
            d[1] = check_ring(&a, s, m, layer, 1);
        } else {
            const float *h = (const float *)(s + 1) + state_of(m, layer, GRF_OP_RGLRU) / 4;
            const float *past = (const float *)(s + 1) + state_of(m, layer, GRF_OP_CONV) / 4;
            d[0] = check_rows(&a, layer, "rg_lru_state", h, 0);
            d[1] = check_rows(&a, layer, "conv1d_state", past,
                              grf_pad(m->info.config.lru_width));
        }
        for (int i = 0; i < 2; i++) if (d[i] > worst) worst = d[i];
    }
    free(a.data);
    return worst;
}

/* ---- the goldens ---------------------------------------------------------------------------- */

static void check_golden(int index) {
    golden g = golden_read(index);
    griffin_model *m = golden_open(&g, NULL, NULL);
    int V = vocabulary(m), W = m->info.config.window;
    int chunks[] = { 0, 1, 2, 3, 7, 8, 9 };
    griffin_context *c = new_context(m, MOST_TOKENS, 1);
    griffin_state *stepped = new_state(m), *s = new_state(m);
    float *logits = new_logits(m, g.count), *again = new_logits(m, g.count);

    chunks[5] = W; chunks[6] = W + 1;
    run_documents(&g, c, stepped, 1, logits);
    double full = check_logits(&g, "logits.npy", logits, V);
    double step = check_logits(&g, "logits_step.npy", logits, V);
    double hidden = check_all_hidden(&g, c);
    double state = check_state(&g, m, stepped);
    printf("%-22s worst of logits %.1e, stepped logits %.1e, layers %.1e, state %.1e\n", g.name,
           full, step, hidden, state);
    for (int i = 0; i < (int)(sizeof chunks / sizeof chunks[0]); i++) {
        run_documents(&g, c, s, chunks[i], again);
        CHECK(first_difference(logits, again, g.count, V) < 0, "%s in chunks of %d: token %d",
              g.name, chunks[i], first_difference(logits, again, g.count, V));
        CHECK(same_states(m, s, stepped), "%s in chunks of %d", g.name, chunks[i]);
    }
    free(logits); free(again); free(s); free(stepped); free(c);
    griffin_close(m);
}

static void test_deepmind(void) {
    for (int i = 0; i < GOLDENS; i++) check_golden(i);
}

/* ---- the formulas --------------------------------------------------------------------------- */

/* Three windows of tokens, all at once and one by one. */
static void check_network(network *n, int attn_keys, const char *what) {
    const griffin_config *config = &n->config;
    formulas *f = formulas_new(n, attn_keys ? attn_keys : config->window + 1);
    griffin_options options;
    float logits[FORMULA_TOKENS * 32];
    double want[32], worst = 0;
    int32_t tokens[FORMULA_TOKENS];
    int V = config->vocab, count = FORMULA_TOKENS;

    memset(&options, 0, sizeof options);
    options.attn_keys = attn_keys;
    griffin_model *m = network_open(n, &options);
    griffin_context *c = new_context(m, 0, 0);
    griffin_state *s = new_state(m);
    for (int t = 0; t < count; t++) tokens[t] = (int32_t)(dice() % (uint32_t)V);
    for (int chunk = 0; chunk < 2; chunk++) {
        memset(s, 0, griffin_state_size(m));
        formulas_reset(f);
        run_chunks(m, c, s, tokens, count, chunk, logits);
        for (int t = 0; t < count; t++) {
            formulas_step(f, tokens[t], want);
            for (int i = 0; i < V; i++) {
                double d = scaled(logits[t * V + i], want[i]);
                CHECK(d <= LIMIT, "%s, token %d, logit %d: %g, expected %g", what, t, i,
                      logits[t * V + i], want[i]);
                if (d > worst) worst = d;
            }
        }
    }
    printf("%-22s worst of logits %.1e against the formulas\n", what, worst);
    free(s); free(c); free(f);
    griffin_close(m);
    network_free(n);
}

static void check_formulas(const griffin_config *config, int attn_keys, const char *what) {
    check_network(network_make(config), attn_keys, what);
}

static void test_shapes(void) {
    griffin_config g = small_config();
    check_formulas(&g, 0, "small");
    check_formulas(&g, 4, "window of W");
    check_formulas(&g, 1, "itself only");
    griffin_config c = g; c.kv_heads = 3;
    check_formulas(&c, 0, "a key head per head");
    c = g; c.heads = 4; c.kv_heads = 2; c.head_dim = 6; c.rope_dims = 6; c.qkv_bias = 1;
    check_formulas(&c, 0, "grouped, all rotated");
    c = g; c.heads = 24; c.head_dim = 1; c.rope_dims = 0; strcpy(c.blocks, "aaaa");
    check_formulas(&c, 0, "many heads, no rope");
    c = g; c.conv_width = 1; c.window = 1;
    check_formulas(&c, 0, "one tap, window 1");
    c = g; c.conv_width = 16; c.gate_blocks = 36;
    check_formulas(&c, 0, "16 taps, gates of 1");
    c = g; c.width = c.head_dim = 23; c.heads = 1; c.lru_width = 33; c.gate_blocks = 1;
    c.mlp_width = 1;
    check_formulas(&c, 0, "odd widths");
    c = g; c.norm_offset = 0; c.decay = 3; c.soft_cap = 0; c.eps = 0.1f; c.rope_base = 100;
    check_formulas(&c, 0, "other constants");
    c = g; c.activation = GRIFFIN_GELU_ERF; check_formulas(&c, 0, "gelu");
    c = g; c.activation = GRIFFIN_SILU;     check_formulas(&c, 0, "silu");
    c = g; c.activation = GRIFFIN_RELU;     check_formulas(&c, 0, "relu");
}

static void check_kin(griffin_config c, const char *extras, const char *what) {
    check_network(network_make_with(&c, extras), 0, what);
}

/* The options of HGRN2, SUPRA and networks of Llama's layout. */
static void test_kin(void) {
    griffin_config h = kin_config("hhh"), s = kin_config("sss"), a = kin_config("aaa");
    check_kin(h, "u", "HGRN2");
    check_kin(h, "bc", "HGRN2, all options");
    griffin_config c = h; c.conv_width = 1; check_kin(c, "cu", "HGRN2, one tap");
    c = h; c.heads = 1; c.head_dim = 48; c.mixer_eps = 0.1f;
    check_kin(c, "", "HGRN2, one head of 48");
    c = h; c.heads = 6; c.head_dim = 8; c.rope_dims = 0; check_kin(c, "b", "HGRN2, heads of 8");
    check_kin(s, "u", "SUPRA");
    c = s; c.kv_heads = 3; c.rope_dims = 0; check_kin(c, "", "SUPRA, no rotary");
    c = s; c.layer_norm = 1; c.rope_base = 500; check_kin(c, "en", "SUPRA, LayerNorm, all options");
    c = s; c.heads = 6; c.kv_heads = 2; c.head_dim = 8; c.rope_dims = 8; c.mixer_eps = 0.1f;
    check_kin(c, "n", "SUPRA, heads of 8");
    c = s; c.no_biases = 0; check_kin(c, "", "SUPRA, biases");
    check_kin(a, "u", "Llama");
    c = a; c.heads = 4; c.kv_heads = 2; c.qkv_bias = 1; c.rope_base = 500000;
    check_kin(c, "", "Llama, wide heads");
    check_kin(c, "f", "Llama, slower pairs");
    c = small_config(); check_kin(c, "f", "Griffin, slower pairs");
    check_kin(kin_config("hars"), "cnu", "all mixers");
    c = kin_config("rash"); c.norm_offset = 1; c.no_biases = 0; c.layer_norm = 1;
    check_kin(c, "bcefn", "all mixers, all options");
}

/* ---- printed vectors ------------------------------------------------------------------------ */

/* Logits of small_config() by an independent program in double, to five digits: the first n after
 * the token at a position. */
typedef struct printed { int position, n; double logits[7]; } printed;

static const printed printed_whole[] = {
    { 0, 7, { -0.07476, -0.04000, 3.39281, -0.39683, -0.72483, -2.06943, 1.68694 } },
    { 3, 7, { 0.34305, -0.31506, -1.19780, 3.51536, 0.17772, -1.02940, -1.26001 } },
    { 4, 7, { -0.65221, 0.36630, 0.08986, 0.24525, -1.35937, -1.44906, -0.97616 } },
    { 6, 7, { -0.01547, 0.74684, -0.90643, -1.38365, 2.47753, 1.66951, -1.41669 } },
    { 8, 7, { 1.45165, 0.46867, -1.52375, 1.11010, 1.04240, -0.72545, -0.04837 } },
    { 11, 7, { 0.63921, 1.87011, -0.28586, -0.89578, -0.36162, -0.82209, 1.31116 } }
};
static const printed printed_narrow[] = {                   /* attn_keys = W */
    { 3, 3, { 0.34305, -0.31506, -1.19780 } }, { 4, 3, { -0.63826, 0.49876, -0.04212 } },
    { 11, 6, { 0.95836, 1.96845, -0.17666, -0.96442, -0.19495, -0.77889 } }
};
static const printed printed_reset[] = {                    /* a document starts at 7 */
    { 11, 6, { 0.791984, 1.718426, 0.141663, -1.004622, -0.410896, -1.000255 } }
};

static void check_printed(const printed *lines, int count, int attn_keys, int reset_at) {
    static const int32_t tokens[12] = { 2, 7, 11, 3, 16, 5, 5, 18, 0, 9, 14, 1 };
    griffin_config config = small_config();
    network *n = network_make(&config);
    griffin_options options;
    float logits[12 * 19];
    memset(&options, 0, sizeof options);
    options.attn_keys = attn_keys;
    griffin_model *m = network_open(n, &options);
    griffin_context *c = new_context(m, 5, 1);
    griffin_state *s = new_state(m);
    run_chunks(m, c, s, tokens, reset_at, 0, logits);
    memset(s, 0, griffin_state_size(m));
    run_chunks(m, c, s, tokens + reset_at, 12 - reset_at, 5, logits + reset_at * 19);
    for (int i = 0; i < count; i++)
        for (int j = 0; j < lines[i].n; j++) {
            float x = logits[lines[i].position * 19 + j];
            CHECK(fabs(x - lines[i].logits[j]) <= 2e-5, "position %d, logit %d: %g, expected %g",
                  lines[i].position, j, x, lines[i].logits[j]);
        }
    free(s); free(c);
    griffin_close(m);
    network_free(n);
}

static void test_printed(void) {
    check_printed(printed_whole, GRF_COUNT(printed_whole), 0, 0);
    check_printed(printed_narrow, GRF_COUNT(printed_narrow), 4, 0);
    check_printed(printed_reset, GRF_COUNT(printed_reset), 0, 7);
}

int main(void) {
    RUN(test_deepmind);
    RUN(test_printed);
    RUN(test_shapes);
    RUN(test_kin);
    return test_end();
}
