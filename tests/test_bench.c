/* test_bench.c - what griffin bench measures is what it says: its random models run, tiles made in
 * memory give the bits of the file they came from, a deep state is where it should be, and tables
 * and plots are well formed. Speeds are nobody's promise. */

#include <math.h>
#include <unistd.h>

#include "griffin.h"
#include "test.h"
#include "tools/convert/config.h"
#include "tools/bench/probe.h"
#include "tools/bench/run.h"
#include "tools/convert/convert.h"
#include "tools/convert/gguf_reader.h"
#include "tools/griffin_grammar.h"
#include "tools/shared/json.h"
#include "tools/shared/plot.h"
#include "tools/shared/table.h"

int command_bench(int argc, char **argv);

#define OUT  TEST_TMP "bench.out"
#define TINY TEST_TMP "bench.gguf"

enum { TOKENS = 9 };

static const int32_t text[TOKENS] = { 2, 17, 5, 44, 9, 90, 31, 2, 60 };

/* The logits after the text, to be freed. */
static float *logits_of(const griffin_model *model) {
    size_t size = griffin_context_size(model, NULL);
    void *memory = malloc(size);
    griffin_state *state = (griffin_state *)calloc(1, griffin_state_size(model));
    float *logits = (float *)calloc((size_t)griffin_get_info(model)->config.vocab, sizeof(float));
    griffin_context *context;
    int error = griffin_context_init(&context, model, NULL, memory, size);
    if (!error) error = griffin_prefill(context, state, text, TOKENS, logits);
    CHECK(error == GRIFFIN_OK, "%s", griffin_error_string(error));
    free(memory);
    free(state);
    return logits;
}

static int same_logits(const bench_model *a, const bench_model *b) {
    float *x = logits_of(a->model), *y = logits_of(b->model);
    int same = memcmp(x, y, (size_t)a->info->config.vocab * sizeof *x) == 0;
    free(x);
    free(y);
    return same;
}

/* Neither widths nor vocabulary are multiples of the 32 rows of a tile. */
static griffin_config small_shape(void) {
    griffin_config c;
    CHECK(preset_find(&c, "griffin-100m") == 0, "griffin-100m");
    c.vocab = 99; c.width = 96; c.mlp_width = 160; c.layers = 4;
    c.heads = 4; c.kv_heads = 2; c.head_dim = 24; c.rope_dims = 12;
    c.lru_width = 96; c.gate_blocks = 2; c.window = 6; c.qkv_bias = 1;
    strcpy(c.blocks, "rrar");
    return c;
}

static void open_small(bench_model *b, const char *type, uint64_t seed) {
    griffin_config c = small_shape();
    CHECK(bench_image(b, &c, NULL, type, type, bench_random, &seed) == 0, "%s", type);
    strcpy(b->name, "small");
    CHECK(bench_open(b, GRIFFIN_CPU_BEST, 0) == 0, "%s", type);
}

/* ---- random models --------------------------------------------------------------------------- */

static const char *const types[] = { "f32", "f16", "bf16", "q8_0", "q4_0", "q6_0" };

static void test_random_models_run(void) {
    int vocab = small_shape().vocab;
    for (int i = 0; i < 6; i++) {
        bench_model b;
        double sum = 0;
        open_small(&b, types[i], 1);
        float *logits = logits_of(b.model);
        for (int v = 0; v < vocab; v++) sum += (double)logits[v] * logits[v];
        sum = sqrt(sum / vocab);
        CHECK(sum > 0.1 && sum < 10, "%s: logits of size %g", types[i], sum);
        CHECK(!strcmp(b.info->type, types[i]), "%s is %s", types[i], b.info->type);
        CHECK(b.info->weight_bytes < b.data_size / 2, "%s: the tiles were copied", types[i]);
        free(logits);
        bench_close(&b);
    }
}

static void test_a_seed_is_a_model(void) {
    bench_model a, b, c;
    open_small(&a, "q4_0", 1);
    open_small(&b, "q4_0", 1);
    open_small(&c, "q4_0", 2);
    CHECK(a.info->fingerprint == b.info->fingerprint && same_logits(&a, &b), "seed 1 and 1");
    CHECK(a.info->fingerprint != c.info->fingerprint && !same_logits(&a, &c), "seed 1 and 2");
    bench_close(&a);
    bench_close(&b);
    bench_close(&c);
}

/* ---- tiles of a real model ------------------------------------------------------------------- */

static const unsigned char *file_tensor(const bench_model *b, const char *name, griffin_tensor *t) {
    for (int i = 0; i < b->info->tensors; i++) {
        CHECK(griffin_get_tensor(b->model, i, t) == GRIFFIN_OK, "%d", i);
        if (!strcmp(t->name, name)) return (const unsigned char *)b->data + t->offset;
    }
    CHECK(0, "%s is missing", name);
    return NULL;
}

static void fill_from_file(const bench_tensor *t, int number, unsigned char *data, void *user) {
    griffin_tensor source;
    char name[80];
    snprintf(name, sizeof name, "%s%s%s", t->name, t->type ? "." : "", t->type ? t->type : "");
    const unsigned char *from = file_tensor((const bench_model *)user, name, &source);
    (void)number;
    if (!from) return;
    CHECK(source.bytes == t->bytes, "%s: %lu bytes", name, (unsigned long)source.bytes);
    memcpy(data, from, (size_t)t->bytes);
}

static void convert_tiny(const char *type) {
    convert_options o;
    report r = { "" };
    memset(&o, 0, sizeof o);
    o.source = "tests/data/griffin-tiny";
    o.output = TINY;
    o.type = type;
    o.gates = "f32";
    o.quiet = 1;
    CHECK(convert(&o, &r) == 0, "%s", r.text);
}

static void test_tiles_in_place_give_the_bits_of_the_file(void) {
    for (int i = 0; i < 6; i++) {
        bench_model file, image;
        convert_tiny(types[i]);
        if (bench_file(&file, TINY) || bench_open(&file, GRIFFIN_CPU_BEST, 0)) exit(1);
        CHECK(bench_image(&image, &file.info->config, NULL, types[i], i == 4 ? "q6_0" : types[i],
                          fill_from_file, &file) == 0, "%s", types[i]);
        CHECK(bench_open(&image, GRIFFIN_CPU_BEST, 0) == 0, "%s", types[i]);
        CHECK(same_logits(&file, &image), "%s", types[i]);
        CHECK(fabs(image.step_bytes / file.step_bytes - 1) < 0.01, "%s: %g, %g", types[i],
              image.step_bytes, file.step_bytes);
        CHECK(file.step_bytes > 0.9 * (double)file.data_size, "%s: a step reads %g bytes", types[i],
              file.step_bytes);
        bench_close(&image);
        bench_close(&file);
    }
    remove(TINY);
}

/* ---- depth ----------------------------------------------------------------------------------- */

static void check_depth(bench_model *b, int64_t depth) {
    workload w = { 0, 2, 1, 3, 0, 0 };
    runner r;
    w.depth = depth;
    CHECK(runner_open(&r, b, &w) == 0, "%ld", (long)depth);
    for (int i = 0; i < w.batch; i++)
        CHECK(griffin_state_position(r.spans[i].state) == depth, "%ld: %ld", (long)depth,
              (long)griffin_state_position(r.spans[i].state));
    CHECK(griffin_run(r.context, r.spans, w.batch) == GRIFFIN_OK, "%ld", (long)depth);
    for (int i = 0; i < w.batch; i++)
        CHECK(griffin_state_position(r.spans[i].state) == depth + 1, "%ld", (long)depth);
    for (int v = 0; v < b->info->config.vocab; v++)
        CHECK(isfinite(r.logits[v]), "%ld: logit %d is %g", (long)depth, v, (double)r.logits[v]);
    runner_close(&r);
}

static void test_states_at_any_depth(void) {
    static const int64_t depths[] = { 0, 1, 5, 7, 63, 64, 65, 99, 100, 101, 2048, 1 << 20,
                                      (int64_t)1 << 40 };
    bench_model b;
    open_small(&b, "f32", 1);
    for (int i = 0; i < 13; i++) check_depth(&b, depths[i]);
    CHECK(bench_open(&b, GRIFFIN_CPU_BEST, 100) == 0, "a window of 100");
    for (int i = 0; i < 13; i++) check_depth(&b, depths[i]);
    bench_close(&b);
}

/* ---- measuring ------------------------------------------------------------------------------- */

static void test_every_token_is_measured(void) {
    const workload loads[] = { { 1, 10, 1, 1, 4, 0 }, { 0, 3, 1, 2, 0, 0 } };
    bench_model b;
    runner r;
    open_small(&b, "q8_0", 1);
    for (int i = 0; i < 2; i++) {
        double tokens = 0, mean, deviation;
        CHECK(runner_open(&r, &b, &loads[i]) == 0 && runner_repeat(&r) == 0
              && runner_repeat(&r) == 0, "%d", i);
        for (int k = 0; k < r.count; k++) {
            tokens += r.samples[k].tokens;
            CHECK(rate_of(&r.samples[k]) > 0 && limit_of(&r.samples[k]) > 0, "%d", k);
        }
        CHECK(tokens == 2 * loads[i].tokens * loads[i].batch, "%g", tokens);
        CHECK(r.count == 2 * r.stretches, "%d", r.count);
        runner_rate(&r, &mean, &deviation);
        CHECK(mean > 0 && deviation >= 0, "%g, %g", mean, deviation);
        runner_close(&r);
    }
    bench_close(&b);
}

static void test_probes(void) {
    static const char *const sets[] = { "scalar", "best of the machine" };
    size_t size = 1 << 20;
    void *memory = big_allocate(size);
    for (int i = 0; i < 2; i++) {
        probe_result r = probe_read(sets[i], memory, size, 3 * size, 2);
        CHECK(r.rate > 0 && r.share > 0, "%g, %g", r.rate, r.share);
        for (int kind = PROBE_F32; kind <= PROBE_INT8; kind++) {
            r = probe_peak(sets[i], (probe_kind)kind, 1);
            CHECK(r.rate > 0 && r.share > 0, "%g, %g", r.rate, r.share);
        }
    }
    CHECK(probe_read("scalar", memory, 100, 100, 2).rate > 0, "less than a round");
    big_release(memory);
}

static void test_quantiles(void) {
    double values[] = { 5, 1, 4, 2, 3 };
    CHECK(quantile(values, 5, 0.5) == 3 && quantile(values, 5, 1) == 5, "%g", values[2]);
    CHECK(quantile(values, 5, 0) == 1 && isnan(quantile(values, 0, 0.5)), "%g", values[0]);
}

/* Units have names while a job is in flight. */
static void test_units_have_names(void) {
    static const char *const expected[] = { "embed", "attend", "linear", "rglru" };
    workload w = { 0, 1, 1, 1, 0, 0 };
    bench_model b;
    runner r;
    int left, known = 0;
    open_small(&b, "q8_0", 1);
    CHECK(runner_open(&r, &b, &w) == 0, "runner");
    CHECK(griffin_unit_name(r.context) == NULL && griffin_unit_name(NULL) == NULL, "idle");
    for (left = griffin_begin(r.context, r.spans, 1); left > 0;) {
        const char *name = griffin_unit_name(r.context);
        CHECK(name && name[0], "%d units left", left);
        for (int k = 0; k < 4; k++) if (name && !strcmp(name, expected[k])) known |= 1 << k;
        left = griffin_advance(r.context, 1);
    }
    CHECK(left == 0 && known == 15 && griffin_unit_name(r.context) == NULL, "%d, %d", left, known);
    runner_close(&r);
    bench_close(&b);
}

/* ---- tables and plots ------------------------------------------------------------------------ */

/* The command's standard output, to be freed. */
static char *output_of(const char *const *words, size_t *size) {
    char copies[24][64], *argv[24];
    int argc = 0;
    for (; words[argc]; argc++)
        argv[argc] = (char *)memcpy(copies[argc], words[argc], strlen(words[argc]) + 1);
    fflush(stdout);
    int kept = dup(1);
    if (kept < 0 || !freopen(OUT, "w", stdout)) exit(1);
    int status = command_bench(argc, argv);
    fflush(stdout);
    dup2(kept, 1);
    close(kept);
    CHECK(status == 0, "%s %s", words[1], words[2]);
    return (char *)test_read(OUT, size);
}

#define MODEL "build/data/griffin-tiny.q8_0.gguf"

static void check_json(const char *const *words, int rows) {
    size_t size;
    char *out = output_of(words, &size);
    json j;
    int objects = 0;
    json_start(&j, out, size);
    while (json_next(&j) > JSON_END) objects += j.kind == JSON_OBJECT;
    CHECK(j.kind == JSON_END && objects == rows, "%s, %d rows: %s", j.error, objects, out);
    json_stop(&j);
    free(out);
}

static void test_json(void) {
    const char *const rows[] = { "bench", "-m", MODEL, "-p", "8,3", "-n", "2", "-d", "0,1k",
                                 "-b", "1,2", "-r", "1", "-t", "1", "-o", "json", NULL };
    const char *const ops[] = { "bench", "-m", MODEL, "-n", "2", "--ops", "-o", "json", NULL };
    const char *const prompt[] = { "bench", "-m", MODEL, "-n", "0", "-p", "20", "--chunk", "8",
                                   "--ops", "-o", "json", NULL };
    const char *const matrices[] = { "bench", "--preset", "hgrn2-100m", "--vocab", "99", "--type",
                                     "q4_0", "-n", "1", "--ops", "-o", "json", NULL };
    const char *const families[] = { "bench", "--compare", "100m", "--vocab", "99", "--type",
                                     "q4_0", "-d", "3,5", "-r", "1", "-t", "1", "--memory", "1",
                                     "-o", "json", NULL };
    check_json(rows, 6);
    check_json(families, 8);                /* four at two lengths */
    check_json(ops, 12);
    check_json(prompt, 12);
    check_json(matrices, 8);                /* no rope, no attention */
}

/* Three grammars, in the vocabulary of a file and in a made-up one. */
static void test_masks(void) {
    const char *const file[] = { "bench", "examples/models/storyteller.gguf", "--masks", "-r", "1",
                                 "-o", "json", NULL };
    const char *const made_up[] = { "bench", "--masks", "--vocab", "3000", "-r", "1", "-o", "json",
                                    NULL };
    check_json(file, 3);
    check_json(made_up, 3);
}

static void test_csv(void) {
    const char *const words[] = { "bench", "-m", MODEL, "-p", "4", "-n", "2", "-r", "2", "-t", "1",
                                  "-o", "csv", NULL };
    size_t size;
    char *out = output_of(words, &size);
    int commas = 0, expected = -1, lines = 0;
    for (size_t i = 0; i < size; i++) {
        commas += out[i] == ',';
        if (out[i] != '\n') continue;
        if (expected < 0) expected = commas;
        CHECK(commas == expected && commas > 0, "line %d: %d commas", lines, commas);
        commas = 0;
        lines++;
    }
    CHECK(lines == 3, "%s", out);
    free(out);
}

static void test_guesses(void) {
    const char *const actions[] = { "bench", "-m", "examples/models/storyteller.gguf", "--text",
                                    "tools/bench/texts/actions.txt", "--grammar",
                                    "tools/bench/texts/actions.gbnf", "-r", "1", "-t", "1", "-o",
                                    "json", NULL };
    const char *const bytes[] = { "bench", "-m", MODEL, "--text", "tools/bench/texts/actions.txt",
                                  "-r", "1", "-t", "1", "--guesses", "5", "-o", "json", NULL };
    const char *const pieces[] = { "bench", "--preset", "hgrn2-100m", "--vocab", "2100",
                                   "--vocab-of", "examples/models/storyteller.gguf", "--text",
                                   "tools/bench/texts/actions.txt", "--grammar",
                                   "tools/bench/texts/actions.gbnf", "-r", "1", "-t", "1", "-o",
                                   "json", NULL };
    check_json(actions, 1);
    check_json(bytes, 1);
    check_json(pieces, 1);
}

/* What a grammar forces where the vocabulary has the storyteller's pieces and unused ones up to
 * `vocab`: up to 32 tokens. Returns how many. */
static int force(int vocab, int32_t *forced, size_t *scratch) {
    static const char rules[] =
        "root ::= \"{ \\\"action\\\": \\\"\" (\"fight\" | \"hide from\") \"\\\" }\"";
    griffin_config c = small_shape();
    griffin_grammar *grammar;
    griffin_grammar_state at;
    griffin_sampler sampler;
    griffin_guess guess;
    griffin_encoding how;
    model_parts storyteller;
    report r = { "" };
    bench_model b;
    uint64_t seed = 1;
    float *logits = (float *)malloc((size_t)vocab * sizeof *logits);
    memset(&storyteller, 0, sizeof storyteller);
    memset(&at, 0, sizeof at);
    memset(&sampler, 0, sizeof sampler);
    memset(&guess, 0, sizeof guess);
    memset(&how, 0, sizeof how);
    how.continues = 1;
    c.vocab = vocab;
    CHECK(gguf_read(&storyteller, "examples/models/storyteller.gguf", &r) == 0
          && vocabulary_fit(&storyteller.vocabulary, (size_t)vocab, 0, &r) == 0, "%s", r.text);
    CHECK(bench_image(&b, &c, &storyteller.vocabulary, "q8_0", "q8_0", bench_random, &seed) == 0
          && bench_open(&b, GRIFFIN_CPU_BEST, 0) == 0
          && griffin_grammar_open(&grammar, b.model, rules, strlen(rules), NULL) == 0, "%d", vocab);
    guess.model = b.model;
    guess.state = (griffin_state *)calloc(1, griffin_state_size(b.model));
    guess.tokens = forced;
    guess.room = 32;
    guess.logits = logits;
    guess.rows = 2;
    int32_t first[4];
    CHECK(griffin_encode(b.model, &how, "{", 1, first, 4) == 1
          && griffin_grammar_accept(grammar, &at, first[0]) >= 0
          && griffin_guess_take(&guess, first[0]) == 0, "the first token");
    int count = griffin_grammar_guess(grammar, &at, &sampler, logits, &guess);
    *scratch = griffin_encode_size(b.model, 80);
    griffin_grammar_close(grammar);
    free(guess.state);
    free(logits);
    bench_close(&b);
    parts_free(&storyteller);
    return count;
}

/* Unused pieces cost nothing: a text is forced into the same tokens, and encoded on the stack. */
static void test_unused_pieces(void) {
    int32_t few[32], many[32];
    size_t small, large;
    int n = force(2048, few, &small), m = force(70000, many, &large);
    CHECK(n > 4 && n == m && !memcmp(few, many, (size_t)n * sizeof *few), "%d, %d tokens", n, m);
    CHECK(large <= 8192 && small <= large, "%d, %d bytes", (int)small, (int)large);
}

static void test_wrong_words(void) {
    static const char *const wrong[][4] = {
        { "bench", "-m", MODEL, "-p=x" }, { "bench", "-m", MODEL, "--depth=1,,2" },
        { "bench", "-m", MODEL, "--batch=0" }, { "bench", "-m", MODEL, "--threads=1,2x" },
        { "bench", "-m", MODEL, "--type=q4_1" }, { "bench", "-m", MODEL, "--preset=2b" },
        { "bench", "-m", MODEL, "--vocab-of=" MODEL }
    };
    for (int i = 0; i < 7; i++) {
        char copies[4][64], *argv[4];
        for (int k = 0; k < 4; k++)
            argv[k] = (char *)memcpy(copies[k], wrong[i][k], strlen(wrong[i][k]) + 1);
        CHECK(command_bench(4, argv) == 2, "%s", wrong[i][3]);
    }
}

/* Every tag is closed, in order. */
static void check_tags(const char *svg) {
    const char *open[8], *at;
    int depth = 0, tags = 0;
    for (at = strchr(svg, '<'); at; at = strchr(at + 1, '<'), tags++) {
        const char *end = strchr(at, '>');
        CHECK(end && depth < 8, "%.20s", at);
        if (!end || depth >= 8) return;
        if (at[1] == '/') {
            depth--;
            CHECK(depth >= 0 && !strncmp(open[depth < 0 ? 0 : depth] + 1, at + 2,
                                         (size_t)(end - at - 2)), "%.20s", at);
            if (depth < 0) return;
        } else if (end[-1] != '/') open[depth++] = at;
    }
    CHECK(depth == 0 && tags > 20, "%d open of %d", depth, tags);
}

static void test_plots(void) {
    const double x[] = { 512, 1024, 32768 }, y[] = { 1, 2.5, 37 }, zero[] = { 0, 0, 0 };
    const plot_line lines[] = { { "a", x, y, 3 }, { "b", x, zero, 3 }, { "c", x, y, 1 } };
    const plot plots[] = { { "one", "x", "y", lines, 3 }, { "two", "x", "y", lines + 1, 1 },
                           { "three", "x", "y", lines + 2, 1 } };
    size_t size;
    CHECK(plot_write(OUT, plots, 3) == 0, OUT);
    char *svg = (char *)test_read(OUT, &size);
    CHECK(svg != NULL, OUT);
    if (!svg) return;
    check_tags(svg);
    CHECK(!strstr(svg, "nan") && !strstr(svg, "inf"), "%s", svg);
    free(svg);
}

int main(void) {
    RUN(test_random_models_run);
    RUN(test_a_seed_is_a_model);
    RUN(test_tiles_in_place_give_the_bits_of_the_file);
    RUN(test_states_at_any_depth);
    RUN(test_every_token_is_measured);
    RUN(test_probes);
    RUN(test_quantiles);
    RUN(test_units_have_names);
    RUN(test_json);
    RUN(test_masks);
    RUN(test_guesses);
    RUN(test_unused_pieces);
    RUN(test_csv);
    RUN(test_wrong_words);
    RUN(test_plots);
    remove(OUT);
    return test_end();
}
