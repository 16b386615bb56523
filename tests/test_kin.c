/* Promise: the kin of Griffin are what their papers say. HGRN2 and SUPRA agree with a reference in
 * double (tests/data/hgrn2-* and supra-*), logits and final states. Shapes that are none are
 * refused with the name of the tensor or number. Memory is what the manual says. */

#include "model.h"
#include "tools/shared/session.h"

#include <sys/stat.h>

#define WORK TEST_TMP "kin/"
#define LOG  WORK "log.txt"
#include "command.h"

int command_logits(int argc, char **argv);
int command_convert(int argc, char **argv);

static char heard[400];

static void hear(int error, const char *text, void *user) {
    (void)error; (void)user;
    snprintf(heard, sizeof heard, "%s", text);
}

static griffin_options listening(void) {
    griffin_options o;
    memset(&o, 0, sizeof o);
    o.logger.message = hear;
    return o;
}

/* ---- the references -------------------------------------------------------------------------- */

static double worst_of(const float *x, const float *y, long count) {
    double worst = 0;
    for (long i = 0; i < count; i++) {
        double d = fabs((double)x[i] - (double)y[i]);
        if (!(d <= worst)) worst = d;
    }
    return worst;
}

static npy reference(const golden *g, const char *file) {
    char path[256];
    snprintf(path, sizeof path, "tests/data/%s/%s", g->name, file);
    return npy_read(path);
}

/* The state's part of the next operation "outer" from *op on. */
static const float *matrices_of(const griffin_model *m, const griffin_state *s, int *op) {
    griffin_operation o;
    do CHECK(griffin_get_operation(m, *op, &o) == GRIFFIN_OK, "%d", *op);
    while (++*op && strcmp(o.name, "outer") != 0);
    return (const float *)(const void *)((const unsigned char *)s + o.state_offset);
}

/* The reference has S as [L, H, K, V], the state as [H][tiles of 32 V][K][32] for each layer. */
static double check_state(const golden *g, const griffin_model *m, const griffin_state *s) {
    const griffin_config *c = &griffin_get_info(m)->config;
    npy want = reference(g, "state.npy");
    int H = c->heads, K = c->head_dim, tiles = (K + 31) / 32, op = 0;
    float *got = (float *)malloc((size_t)want.count * sizeof *got), *to = got;
    double most = 0;
    CHECK(want.rank == 4 && want.shape[1] == H && want.shape[2] == K && want.shape[3] == K,
          "%s: shape of the state", g->name);
    for (int layer = 0; layer < c->layers; layer++) {
        const float *S = matrices_of(m, s, &op);
        for (int h = 0; h < H; h++)
            for (int k = 0; k < K; k++)
                for (int v = 0; v < K; v++)
                    *to++ = S[((h * tiles + v / 32) * K + k) * 32 + v % 32];
    }
    for (long i = 0; i < want.count; i++) most = fmax(most, fabs((double)want.at[i]));
    double worst = worst_of(got, want.at, want.count);
    CHECK(worst <= 2e-6 * (1 + most), "%s: a state with numbers up to %g is off by %g", g->name,
          most, worst);
    free(got); free(want.at);
    return worst;
}

static void check_golden(int index) {
    static const int chunks[] = { 0, 1, 2, 7, 64 };
    golden g = golden_read(index);
    griffin_model *m = golden_open(&g, NULL, NULL);
    griffin_context *c = new_context(m, MOST_TOKENS, 1);
    griffin_state *first = new_state(m), *s = new_state(m);
    float *logits = new_logits(m, g.count), *again = new_logits(m, g.count);
    npy want = reference(&g, "logits.npy");
    double limit = 2e-5 * fmax(1, npy_deviation(&want) / 1.5);
    run_chunks(m, c, first, g.tokens, g.count, 1, logits);
    CHECK(want.count == (long)g.count * vocabulary(m), "%s: %ld", g.name, want.count);
    double worst = worst_of(logits, want.at, want.count);
    CHECK(worst <= limit, "%s: logits off by %g, expected %g", g.name, worst, limit);
    printf("%-22s worst of logits %.1e, state %.1e\n", g.name, worst, check_state(&g, m, first));
    for (int i = 0; i < COUNT(chunks); i++) {
        memset(s, 0, griffin_state_size(m));
        run_chunks(m, c, s, g.tokens, g.count, chunks[i], again);
        CHECK(first_difference(logits, again, g.count, vocabulary(m)) < 0
              && same_states(m, s, first), "%s in chunks of %d", g.name, chunks[i]);
    }
    free(c); free(first); free(s); free(logits); free(again); free(want.at);
    griffin_close(m);
}

static void test_references(void) {
    for (int i = GOLDENS; i < ALL_GOLDENS; i++) check_golden(i);
}

/* ---- the same by the program: griffin convert has made the models ---------------------------- */

static npy read_floats(const char *path, long count) {
    npy a = { 1, { count }, count, NULL };
    size_t size = 0;
    unsigned char *data = test_read(path, &size);
    CHECK(size == (size_t)count * 4, "%s has %lu bytes", path, (unsigned long)size);
    a.at = (float *)calloc((size_t)count, sizeof *a.at);
    for (long i = 0; i < count && size == (size_t)count * 4; i++) {
        uint32_t bits = npy_u32(data + 4 * i);
        memcpy(&a.at[i], &bits, 4);
    }
    free(data);
    return a;
}

/* The logits and the state that griffin logits writes, as bytes. */
typedef struct written { unsigned char *logits, *state; size_t logits_size, state_size; } written;

static written run_logits(const golden *g, const char *cpu, int chunk) {
    char words[400];
    written w;
    snprintf(words, sizeof words, "logits build/data/%s.gguf --tokens tests/data/%s/tokens.json "
             "--out " WORK "logits --state " WORK "state --cpu %s --chunk %d -t 1", g->model,
             g->name, cpu, chunk);
    CHECK(call(command_logits, words) == 0, "%s", words);
    w.logits = test_read(WORK "logits", &w.logits_size);
    w.state = test_read(WORK "state", &w.state_size);
    return w;
}

static int has_set(const char *cpu) {
    char words[200];
    snprintf(words, sizeof words, "logits build/data/hgrn2-tiny.gguf --tokens "
             "tests/data/hgrn2-tiny/tokens.json --out " WORK "logits --cpu %s -t 1", cpu);
    return call(command_logits, words) == 0;
}

static void check_written(const golden *g, const written *w) {
    griffin_model *m = golden_open(g, NULL, NULL);
    griffin_state *s = new_state(m);
    npy want = reference(g, "logits.npy"), got = read_floats(WORK "logits", want.count);
    double worst = worst_of(got.at, want.at, want.count);
    CHECK(worst <= 2e-5 * fmax(1, npy_deviation(&want) / 1.5), "%s: logits off by %g", g->name,
          worst);
    CHECK(griffin_load(m, s, NULL, NULL, w->state, w->state_size) == GRIFFIN_OK, "%s", g->name);
    CHECK(griffin_state_position(s) == g->count, "%s: %d", g->name, (int)griffin_state_position(s));
    check_state(g, m, s);
    free(want.at); free(got.at); free(s);
    griffin_close(m);
}

static int every_chunk;

/* All chunks in all sets, but in plain C, which takes a hundred times as long, one. */
static void check_commands(int index, char sets[][16], int count) {
    static const int chunks[] = { 7, 1, 2, 64, 0 };
    golden g = golden_read(index);
    written first = run_logits(&g, sets[count - 1], 0);
    check_written(&g, &first);
    for (int set = 0; set < count; set++)
        for (int i = 0; i < (set || every_chunk ? COUNT(chunks) : 1); i++) {
            written w = run_logits(&g, sets[set], chunks[i]);
            CHECK(w.logits_size == first.logits_size && w.state_size == first.state_size
                  && memcmp(w.logits, first.logits, w.logits_size) == 0
                  && memcmp(w.state, first.state, w.state_size) == 0, "%s: --cpu %s --chunk %d",
                  g.name, sets[set], chunks[i]);
            free(w.logits); free(w.state);
        }
    free(first.logits); free(first.state);
}

/* Every set of instructions that this machine has, by the name that --cpu knows it by. */
static void test_commands(void) {
    int choice;
    const option cpu = CPU_OPTION(choice);
    char sets[16][16];
    int count = 0;
    mkdir(WORK, 0777);
    for (const char *at = strchr(cpu.value, '|'); at && count < 16; at = strchr(at, '|')) {
        size_t n = strcspn(++at, "|");
        snprintf(sets[count], sizeof sets[count], "%.*s", (int)n, at);
        count += has_set(sets[count]);
    }
    printf("--cpu");
    for (int i = 0; i < count; i++) printf(" %s", sets[i]);
    printf("\n");
    CHECK(count > 0 && strcmp(sets[0], "scalar") == 0, "%d sets", count);
    for (int i = GOLDENS; i < ALL_GOLDENS && count; i++) check_commands(i, sets, count);
}

/* Channels that were made alike: in f32 the same bits, in q8_0 others. */
static void check_balance(const char *type, int same) {
    static const char *const out[] = { WORK "plain.gguf", WORK "balanced.gguf" };
    static const char tokens[] = "[1, 17, 900, 33, 254, 1999, 4, 4, 70]";
    unsigned char *data[2];
    size_t size[2];
    FILE *f = fopen(WORK "tokens.json", "wb");
    CHECK(f && fwrite(tokens, 1, sizeof tokens - 1, f) == sizeof tokens - 1, "tokens");
    if (f) fclose(f);
    for (int i = 0; i < 2; i++) {
        char words[400];
        snprintf(words, sizeof words, "convert examples/models/storyteller.gguf %s --type %s -q%s",
                 out[i], type, i ? " --balance README.md" : "");
        CHECK(call(command_convert, words) == 0, "%s", words);
        snprintf(words, sizeof words, "logits %s --tokens " WORK "tokens.json --out " WORK "logits -t 1",
                 out[i]);
        CHECK(call(command_logits, words) == 0, "%s", words);
        data[i] = test_read(WORK "logits", &size[i]);
    }
    CHECK(size[0] == 9 * 2048 * 4 && size[1] == size[0]
          && (memcmp(data[0], data[1], size[0]) == 0) == same, "%s", type);
    for (int i = 0; i < 2; i++) { free(data[i]); remove(out[i]); }
}

static void test_balance(void) {
    check_balance("f32", 1);
    check_balance("q8_0", 0);
    CHECK(call(command_convert, "convert build/data/hgrn2-tiny.gguf " WORK "x.gguf --type q8_0 -q "
               "--balance README.md") == 1 && !path_exists(WORK "x.gguf"), "no vocabulary");

    char odd[200];                          /* no UTF-8: three tokens each */
    FILE *f = fopen(WORK "bytes", "wb");
    memset(odd, 0xFF, sizeof odd);
    CHECK(f && fwrite(odd, 1, sizeof odd, f) == sizeof odd, "bytes");
    if (f) fclose(f);
    CHECK(call(command_convert, "convert examples/models/storyteller.gguf " WORK "x.gguf "
               "--type q8_0 -q --balance " WORK "bytes") == 0, "more tokens than bytes");
    remove(WORK "x.gguf");
}

/* ---- what is refused ------------------------------------------------------------------------- */

static tensor *find(network *n, const char *name) {
    for (int i = 0; i < n->count; i++)
        if (strcmp(n->tensors[i].name, name) == 0) return &n->tensors[i];
    CHECK(0, "no tensor '%s'", name);
    return &n->tensors[0];
}

/* Opens the network and frees it; 0 or an error with these words. */
static void check_opens(network *n, int expected, const char *words, const char *more) {
    griffin_options o = listening();
    griffin_model *m;
    size_t size;
    unsigned char *file = network_file(n, &size);
    heard[0] = 0;
    int error = griffin_open_memory(&m, file, size, &o);
    CHECK(error == expected && (error == 0) == (m != NULL), "%d, expected %d: %s", error, expected,
          heard);
    CHECK(error == 0 || (strstr(heard, words) && strstr(heard, more)), "'%s' without '%s', '%s'",
          heard, words, more);
    griffin_close(m);
    free(file);
    network_free(n);
}

static network *kin(const char *blocks) {
    griffin_config c = kin_config(blocks);
    return network_make(&c);
}

static void check_number(const char *name, float value, int expected) {
    network *n = kin("hs");
    find(n, name)->values[7 % find(n, name)->count] = value;
    check_opens(n, expected, strchr(name, 'h') ? "layers.0.temporal_block" : "layers.1.temporal_block",
                "0 to 1");
}

static void check_factor(float value, int expected) {
    griffin_config c = kin_config("ha");
    network *n = network_make_with(&c, "f");
    find(n, "rope_factors")->values[7] = value;
    check_opens(n, expected, "'rope_factors.weight': number 7 of 8", "1 to 10^9");
}

/* Numbers by which angles are divided. */
static void test_bad_factors(void) {
    check_factor(1, GRIFFIN_OK);
    check_factor(1e9f, GRIFFIN_OK);
    check_factor(NAN, GRIFFIN_E_FORMAT);
    check_factor(INFINITY, GRIFFIN_E_FORMAT);
    check_factor(0, GRIFFIN_E_FORMAT);
    check_factor(0.9999f, GRIFFIN_E_FORMAT);
    griffin_config c = kin_config("sa");
    network *n = network_make_with(&c, "f");
    find(n, "rope_factors")->sizes[0] = 7;
    check_opens(n, GRIFFIN_E_FORMAT, "'rope_factors.weight' is f32 [7]", "expected f32 [8]");
}

static void check_lost(const char *blocks, const char *name, const char *file) {
    network *n = kin(blocks);
    strcpy(find(n, name)->stored, "odd");
    check_opens(n, GRIFFIN_E_FORMAT, file, "is missing");
}

static void test_bad_tensors(void) {
    static const char *const names[] = { "layers.0.h.floor", "layers.0.h.range", "layers.1.s.decay" };
    for (int i = 0; i < COUNT(names); i++) {
        check_number(names[i], 0, GRIFFIN_OK);
        check_number(names[i], 1, GRIFFIN_OK);
        check_number(names[i], NAN, GRIFFIN_E_FORMAT);
        check_number(names[i], INFINITY, GRIFFIN_E_FORMAT);
        check_number(names[i], -INFINITY, GRIFFIN_E_FORMAT);
        check_number(names[i], -0.25f, GRIFFIN_E_FORMAT);
        check_number(names[i], 1.0000001f, GRIFFIN_E_FORMAT);
    }
    check_lost("h", "layers.0.h.floor", "layers.0.temporal_block.lower_bound' f32 [48]");
    check_lost("h", "layers.0.h.range", "layers.0.temporal_block.gate_range' f32 [48]");
    check_lost("h", "layers.0.h.f.weight", "layers.0.temporal_block.f_proj.weight");
    check_lost("h", "layers.0.h.norm.weight", "layers.0.temporal_block.group_norm.weight");
    check_lost("s", "layers.0.s.decay", "layers.0.temporal_block.decay' f32 [3]");
    check_lost("s", "layers.0.s.k.bias", "layers.0.temporal_block.k_proj.bias' f32 [16]");
    network *n = kin("h");                  /* V of 32 columns, K of 16 */
    tensor *v = find(n, "layers.0.h.v.weight");
    v->sizes[0] = 96;
    v->values = (float *)realloc(v->values, (size_t)(2 * v->count) * sizeof *v->values);
    memset(v->values + v->count, 0, (size_t)v->count * sizeof *v->values);
    v->count *= 2;
    check_opens(n, GRIFFIN_E_FORMAT, "layers.0.temporal_block.v_proj.weight.f32' is f32 [3, 48, 32]",
                "expected f32 [2, 48, 32]");
    griffin_config c = kin_config("h");
    n = network_make_with(&c, "c");
    n->config.conv_width = 0;
    check_opens(n, GRIFFIN_E_FORMAT, "ssm.conv_kernel", "temporal_block.q_conv.weight");
}

static void check_config(griffin_config c, int expected, const char *words) {
    network *n = kin(c.blocks);
    n->config = c;
    check_opens(n, expected, words, "expected");
}

static void test_bad_config(void) {
    griffin_config h = kin_config("h"), s = kin_config("s"), a = kin_config("a"), bad;
    bad = h; bad.head_dim = 0; check_config(bad, GRIFFIN_E_FORMAT, "attention.key_length");
    bad = h; bad.heads = 0;    check_config(bad, GRIFFIN_E_FORMAT, "attention.head_count");
    bad = h; bad.heads = 5;    check_config(bad, GRIFFIN_E_FORMAT, "heads times head_dim");
    bad = s; bad.kv_heads = 2; check_config(bad, GRIFFIN_E_FORMAT, "key/value heads");
    bad = s; bad.rope_dims = 18; check_config(bad, GRIFFIN_E_FORMAT, "rotated dimensions");
    bad = s; bad.rope_base = NAN; check_config(bad, GRIFFIN_E_FORMAT, "rope.freq_base");
    bad = a; bad.window = 0;   check_config(bad, GRIFFIN_E_FORMAT, "sliding_window");
    bad = h; bad.mixer_eps = NAN; check_config(bad, GRIFFIN_E_FORMAT, "mixer_norm_epsilon");
    bad = h; bad.eps = INFINITY; check_config(bad, GRIFFIN_E_FORMAT, "rms_epsilon");
    bad = kin_config("hr"); bad.lru_width = 0;
    check_config(bad, GRIFFIN_E_FORMAT, "ssm.inner_size");
}

/* ---- numbers that no block of a network uses ------------------------------------------------- */

static void check_without(const char *blocks, const char *key, int expected) {
    griffin_options o = listening();
    griffin_model *m;
    network *n = kin(blocks);
    gguf g;
    size_t size;
    memset(&g, 0, sizeof g);
    g.without = key;
    network_write(n, &g);
    unsigned char *file = gguf_finish(&g, &size);
    int error = griffin_open_memory(&m, file, size, &o);
    CHECK(error == expected && (!error || strstr(heard, key)), "%s without %s: %d, %s", blocks, key,
          error, heard);
    griffin_close(m);
    free(file);
    network_free(n);
}

static void test_unused_numbers(void) {
    static const struct { const char *key, *blocks; } keys[] = {    /* of the mixers that need them */
        { "griffin.attention.head_count", "ahs" }, { "griffin.attention.key_length", "ahs" },
        { "griffin.attention.sliding_window", "a" }, { "griffin.rope.dimension_count", "as" },
        { "griffin.ssm.inner_size", "r" }, { "griffin.ssm.group_count", "r" }
    };
    for (int i = 0; i < COUNT(keys); i++)
        for (const char *letter = "ahs"; *letter; letter++) {
            char blocks[2] = { *letter, 0 };
            check_without(blocks, keys[i].key,
                          strchr(keys[i].blocks, *letter) ? GRIFFIN_E_FORMAT : GRIFFIN_OK);
        }
    griffin_config c = kin_config("hh");
    c.kv_heads = c.window = c.rope_dims = c.lru_width = c.gate_blocks = c.conv_width = 0;
    c.decay = c.rope_base = 0;
    check_opens(network_make(&c), GRIFFIN_OK, "", "");
    c = kin_config("ss");
    c.window = c.rope_dims = c.lru_width = c.gate_blocks = c.conv_width = 0;
    c.decay = 0;
    check_opens(network_make(&c), GRIFFIN_OK, "", "");
    c = kin_config("aa");                   /* attention alone: heads may be wider than D */
    c.heads = 4; c.kv_heads = 2;
    c.lru_width = c.gate_blocks = c.conv_width = 0;
    check_opens(network_make(&c), GRIFFIN_OK, "", "");
}

/* ---- gates at their limits ------------------------------------------------------------------- */

/* zf is far from 0: f is 0 and k is 1, or f is 1 and k is 0. Layer 0 has no floor. */
static void check_gates(float size) {
    griffin_config config = kin_config("hh");
    network *n = network_make(&config);
    tensor *f = find(n, "layers.0.h.f.weight"), *floor_ = find(n, "layers.0.h.floor");
    for (long i = 0; i < f->count; i++) f->values[i] *= size;
    for (long i = 0; i < floor_->count; i++) floor_->values[i] = 0;
    tensor *range = find(n, "layers.0.h.range");
    for (long i = 0; i < range->count; i++) range->values[i] = 1;
    griffin_model *m = network_open(n, NULL);
    griffin_context *c = new_context(m, 4, 1);
    griffin_state *s = new_state(m);
    float logits[40 * 19];
    int32_t tokens[40];
    int op = 0, wrong = 0;
    for (int i = 0; i < 40; i++) tokens[i] = i * i % 19;
    run_chunks(m, c, s, tokens, 40, 0, logits);
    for (int i = 0; i < 40 * 19; i++) wrong += !isfinite(logits[i]);
    const float *S = matrices_of(m, s, &op);
    for (int i = 0; i < 3 * 16 * 32; i++) wrong += !(fabs((double)S[i]) < 1e4);
    CHECK(wrong == 0, "zf times %g: %d numbers", (double)size, wrong);
    free(c); free(s);
    griffin_close(m);
    network_free(n);
}

static void test_gates(void) {
    check_gates(0); check_gates(30); check_gates(100); check_gates(1e6f); check_gates(1e30f);
}

/* ---- far out --------------------------------------------------------------------------------- */

/* The distance between tokens decides, not where a text begins: SUPRA saved at a position of any
 * size goes on rotating as it should. A text read from there on, with a fresh S, gives the logits
 * of the same text from 0, up to the roundings of angles. */
static void test_long(void) {
    griffin_config config = kin_config("sss");
    network *n = network_make(&config);
    griffin_model *m = network_open(n, NULL);
    griffin_context *c = new_context(m, 16, 1);
    griffin_state *s = new_state(m), *far = new_state(m), *back = new_state(m);
    static float near[300 * 19], once[300 * 19], again[300 * 19];
    int32_t tokens[300];
    int64_t size = griffin_save(m, s, NULL, NULL, NULL, 0);
    for (int i = 0; i < 300; i++) tokens[i] = (int32_t)(dice() % 19);
    run_chunks(m, c, s, tokens, 300, 16, near);
    memset(s, 0, griffin_state_size(m));
    run_chunks(m, c, s, tokens, 1, 0, NULL);
    size = griffin_save(m, s, NULL, NULL, NULL, 0);
    unsigned char *data = (unsigned char *)malloc((size_t)size);
    for (int power = 20; power <= 60; power += 20) {
        griffin_save(m, s, NULL, NULL, data, (size_t)size);
        memset(data + 48, 0, (size_t)size - 56);            /* S of a fresh state, */
        set_u64(data + 24, ((uint64_t)1 << power) + 12345); /* at a late position */
        set_u64(data + size - 8, checksum(data, (size_t)size - 8));
        CHECK(griffin_load(m, far, NULL, NULL, data, (size_t)size) == GRIFFIN_OK, "2^%d", power);
        memcpy(back, far, griffin_state_size(m));
        run_chunks(m, c, far, tokens, 300, 16, once);
        CHECK(worst_of(once, near, 300 * 19) < 1e-4, "2^%d: off by %g", power,
              worst_of(once, near, 300 * 19));
        run_chunks(m, c, back, tokens, 300, 1, again);
        CHECK(first_difference(once, again, 300, 19) < 0 && same_states(m, far, back), "2^%d",
              power);
    }
    free(data); free(c); free(s); free(far); free(back);
    griffin_close(m);
    network_free(n);
}

/* Many tokens in one text: S stays what its decays allow. */
static void test_endless(void) {
    network *n = kin("hs");
    griffin_model *m = network_open(n, NULL);
    griffin_context *c = new_context(m, 64, 1);
    griffin_state *s = new_state(m);
    float logits[19];
    int32_t tokens[64];
    int wrong = 0;
    for (int i = 0; i < 64; i++) tokens[i] = i * 7 % 19;
    for (int round = 0; round < 400; round++)
        CHECK(griffin_prefill(c, s, tokens, 64, logits) == GRIFFIN_OK, "%d", round);
    for (int i = 0; i < 19; i++) wrong += !isfinite(logits[i]);
    CHECK(griffin_state_position(s) == 64 * 400 && wrong == 0, "%d wrong", wrong);
    free(c); free(s);
    griffin_close(m);
    network_free(n);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static void test_no_slices(void) {
    griffin_options listen = listening();
    network *n = kin("hs");
    griffin_model *m = network_open(n, &listen);
    griffin_context_options o;
    memset(&o, 0, sizeof o);
    o.states = 3;
    size_t usual = griffin_context_size(m, &o);
    o.no_slices = 1;
    size_t whole = griffin_context_size(m, &o);
    CHECK(usual - whole == 3 * (griffin_mark_size(m) - 64), "%d", (int)(usual - whole));
    griffin_context *c = new_context_with(m, &o), *other = new_context(m, 0, 1);
    griffin_state *s = new_state(m), *t = new_state(m);
    int32_t tokens[5] = { 1, 2, 3, 4, 5 };
    griffin_span span = span_of(s, tokens, 5, NULL);
    heard[0] = 0;
    CHECK(griffin_begin(c, &span, 1) == GRIFFIN_E_SPACE && strstr(heard, "no_slices"), "%s", heard);
    CHECK(griffin_state_position(s) == 0 && griffin_advance(c, 1) == 0, "nothing was begun");
    CHECK(griffin_prefill(c, s, tokens, 5, NULL) == GRIFFIN_OK, "prefill");
    CHECK(griffin_prefill(other, t, tokens, 5, NULL) == GRIFFIN_OK && same_states(m, s, t), "same");
    free(c); free(other); free(s); free(t);
    griffin_close(m);
    network_free(n);
}

/* Options of attention belong to a state only if there is attention. */
static void check_options(const char *blocks, int fits) {
    griffin_options o = listening();
    network *n = kin(blocks);
    griffin_model *m = network_open(n, &o), *other;
    o.attn_keys = 3;
    o.kv_type = GRIFFIN_KV_BF16;
    size_t size;
    unsigned char *file = network_file(n, &size);
    CHECK(griffin_open_memory(&other, file, size, &o) == GRIFFIN_OK, "%s", heard);
    griffin_context *c = new_context(m, 4, 1);
    griffin_state *s = new_state(m);
    CHECK(griffin_step(c, s, 1, NULL) == GRIFFIN_OK, "step");
    int64_t saved = griffin_save(m, s, NULL, NULL, NULL, 0);
    void *data = malloc((size_t)saved);
    griffin_save(m, s, NULL, NULL, data, (size_t)saved);
    griffin_state *t = new_state(other);
    CHECK(griffin_load(other, t, NULL, NULL, data, (size_t)saved) == (fits ? 0 : GRIFFIN_E_MISMATCH),
          "%s", blocks);
    free(data); free(c); free(s); free(t);
    griffin_close(m);
    griffin_close(other);
    free(file);
    network_free(n);
}

static void test_options(void) {
    check_options("hs", 1); check_options("rr", 1); check_options("ha", 0); check_options("aa", 0);
}

/* S is held whole by states, marks and saves. */
static void test_sizes(void) {
    network *n = kin("hs");
    griffin_model *m = network_open(n, NULL);
    const griffin_info *i = griffin_get_info(m);
    uint64_t S = 3 * 16 * 32 * 4;           /* H K V, V filled up to 32 */
    griffin_state *s = new_state(m);
    griffin_context *c = new_context(m, 4, 1);
    CHECK(griffin_step(c, s, 1, NULL) == GRIFFIN_OK, "step");
    CHECK(i->mark_bytes == 64 + 2 * S && i->state_bytes == i->mark_bytes + 8 * 16, "%d and %d",
          (int)i->mark_bytes, (int)i->state_bytes);
    CHECK(griffin_save(m, s, NULL, NULL, NULL, 0) == (int64_t)(48 + 2 * S + 8), "save");
    free(c); free(s);
    griffin_close(m);
    network_free(n);
}

/* `test_kin all` takes all chunks in plain C too. */
int main(int argc, char **argv) {
    every_chunk = argc == 2 && strcmp(argv[1], "all") == 0;
    RUN(test_references);
    RUN(test_commands);
    RUN(test_balance);
    RUN(test_bad_tensors);
    RUN(test_bad_factors);
    RUN(test_bad_config);
    RUN(test_unused_numbers);
    RUN(test_gates);
    RUN(test_long);
    RUN(test_endless);
    RUN(test_no_slices);
    RUN(test_options);
    RUN(test_sizes);
    return test_end();
}
