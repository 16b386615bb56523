/* Promise: all memory comes from the host's allocator and goes back; when it gives up, the call
 * fails with E_MEMORY and nothing leaks; after opening nothing is allocated but by griffin_encode
 * without scratch; contexts stay inside the memory they were given. */

#include "model.h"

/* ---- an allocator that counts, and gives up at a chosen call -------------------------------- */

typedef struct counter {
    long calls, live, fail_at;              /* fail_at: this call and all later ones; -1: never */
    size_t bytes;
} counter;

static void *count_allocate(size_t size, void *user) {
    counter *c = (counter *)user;
    if (c->fail_at >= 0 && c->calls >= c->fail_at) return NULL;
    c->calls++;
    size_t *memory = (size_t *)malloc(size + 16);
    if (!memory) return NULL;
    memset(memory, 0xa5, size + 16);        /* nobody may count on zeros */
    *memory = size;
    c->live++;
    c->bytes += size;
    return (char *)memory + 16;
}

static void count_release(void *memory, void *user) {
    counter *c = (counter *)user;
    size_t *start = (size_t *)(void *)((char *)memory - 16);
    c->live--;
    c->bytes -= *start;
    free(start);
}

static griffin_options counting(counter *c) {
    griffin_options options;
    memset(&options, 0, sizeof options);
    memset(c, 0, sizeof *c);
    c->fail_at = -1;
    options.allocator.allocate = count_allocate;
    options.allocator.release = count_release;
    options.allocator.user = c;
    return options;
}

static unsigned char *small_file(size_t *size) {
    griffin_config config = small_config();
    network *n = network_make(&config);
    gguf g;
    memset(&g, 0, sizeof g);
    network_write(n, &g);
    write_vocabulary(&g);
    network_free(n);
    return gguf_finish(&g, size);
}

/* ---- opening -------------------------------------------------------------------------------- */

/* With the file in memory, or with a path. */
static int open_either(griffin_model **m, const unsigned char *file, size_t size, const char *path,
                       const griffin_options *options) {
    return path ? griffin_open_file(m, path, options) : griffin_open_memory(m, file, size, options);
}

static void check_open(const char *path) {
    size_t size = 0;
    unsigned char *file = small_file(&size);
    counter c;
    griffin_options options = counting(&c);
    griffin_model *m = NULL;
    long fail_at;
    int error = GRIFFIN_E_MEMORY;
    for (fail_at = 0; error == GRIFFIN_E_MEMORY && fail_at < 1000; fail_at++) {
        c.calls = 0;
        c.fail_at = fail_at;
        error = open_either(&m, file, size, path, &options);
        if (error == GRIFFIN_OK) break;
        CHECK(error == GRIFFIN_E_MEMORY && m == NULL, "call %ld: %s", fail_at,
              griffin_error_string(error));
        CHECK(c.live == 0, "call %ld: %ld blocks left", fail_at, c.live);
    }
    CHECK(error == GRIFFIN_OK && fail_at > 3, "%ld calls", fail_at);
    CHECK(c.calls == fail_at, "%ld calls, then %ld", fail_at, c.calls);
    griffin_close(m);
    CHECK(c.live == 0 && c.bytes == 0, "%ld blocks left", c.live);
    free(file);
}

static void test_open_memory(void) { check_open(NULL); }
static void test_open_file(void) { check_open("build/data/griffin-tiny.gguf"); }

/* Whatever is wrong with a file, the memory goes back. */
static void test_bad_files(void) {
    size_t size = 0, cut;
    unsigned char *file = small_file(&size);
    counter c;
    griffin_options options = counting(&c);
    griffin_model *m;
    for (int i = 0; i < 400; i++) {
        cut = i < 200 ? size : (size_t)dice() % size;
        unsigned char before = file[cut % 6000];
        file[cut % 6000] = (unsigned char)dice();           /* in the metadata */
        if (griffin_open_memory(&m, file, cut, &options) == GRIFFIN_OK) griffin_close(m);
        CHECK(c.live == 0, "%ld blocks left", c.live);
        file[cut % 6000] = before;
    }
    free(file);
}

/* ---- running -------------------------------------------------------------------------------- */

static void test_running(void) {
    size_t size = 0;
    unsigned char *file = small_file(&size);
    counter c;
    griffin_options options = counting(&c);
    griffin_model *m = NULL;
    griffin_sampler sampler;
    griffin_decoder decoder;
    int32_t tokens[16];
    float logits[19];
    char text[512];
    griffin_encoding encoding;

    CHECK(griffin_open_memory(&m, file, size, &options) == GRIFFIN_OK, "open");
    long calls = c.calls;
    c.fail_at = 0;                          /* nothing more for anyone */
    griffin_context *context = new_context(m, 0, 0);
    griffin_state *s = new_state(m);
    memset(&sampler, 0, sizeof sampler);
    memset(&decoder, 0, sizeof decoder);
    memset(&encoding, 0, sizeof encoding);
    encoding.scratch_size = griffin_encode_size(m, 4);
    encoding.scratch = malloc(encoding.scratch_size);
    int n = griffin_encode(m, &encoding, "abba", 4, tokens, 16);
    CHECK(n > 1, "%d", n);
    CHECK(griffin_prefill(context, s, tokens, n, logits) == GRIFFIN_OK, "prefill");
    sampler.temperature = 1;
    sampler.top_k = 8;
    sampler.top_p = 0.9f;
    for (int i = 0; i < 20; i++) {
        int32_t token = griffin_sample(m, &sampler, logits);
        CHECK(token >= 0, "%d", token);
        n = token < 9 ? griffin_decode(m, &decoder, token, text, sizeof text) : 0;
        CHECK(n >= 0, "token %d", token);
        CHECK(griffin_step(context, s, token, logits) == GRIFFIN_OK, "step");
    }
    CHECK(griffin_save(m, s, NULL, NULL, text, 8) == GRIFFIN_E_SPACE, "save");
    CHECK(c.calls == calls, "%ld calls", c.calls - calls);
    CHECK(griffin_encode(m, NULL, "abba", 4, tokens, 16) == GRIFFIN_E_MEMORY, "encode");
    c.fail_at = -1;
    CHECK(griffin_encode(m, NULL, "abba", 4, tokens, 16) > 1, "encode");
    free(encoding.scratch); free(context); free(s);
    griffin_close(m);
    CHECK(c.live == 0, "%ld blocks left", c.live);
    free(file);
}

/* ---- contexts and states stay inside -------------------------------------------------------- */

enum { GUARD = 256 };

/* Memory at any address, with guards around it. */
static void check_context(const griffin_model *m, int rows, int states, size_t misaligned) {
    griffin_context_options o;
    size_t state_size = griffin_state_size(m);
    griffin_context *c = NULL;
    int32_t tokens[40];
    float *logits = (float *)malloc((size_t)(40 * vocabulary(m)) * 4);
    int touched = 0;
    memset(&o, 0, sizeof o);
    o.rows = rows;
    o.states = states;
    o.jobs.width = 1;
    size_t size = griffin_context_size(m, &o);
    unsigned char *memory = (unsigned char *)malloc(size + 64 + 2 * GUARD);
    unsigned char *state = (unsigned char *)calloc(1, state_size + GUARD);
    memset(memory, 0x5a, size + 64 + 2 * GUARD);
    memset(state + state_size, 0x5a, GUARD);
    unsigned char *given = memory + GUARD + misaligned;
    CHECK(griffin_context_init(&c, m, &o, given, size - 1) == GRIFFIN_E_SPACE && !c,
          "one byte too small");
    CHECK(griffin_context_init(&c, m, &o, given, size) == GRIFFIN_OK, "%lu bytes",
          (unsigned long)size);
    for (int t = 0; t < 40; t++) tokens[t] = t % vocabulary(m);
    run_chunks(m, c, (griffin_state *)(void *)state, tokens, 40, 0, logits);
    for (size_t i = 0; i < GUARD; i++)
        touched += state[state_size + i] != 0x5a || given[size + i] != 0x5a || memory[i] != 0x5a;
    CHECK(touched == 0, "%d rows, %d states, %lu off", rows, states, (unsigned long)misaligned);
    free(memory); free(state); free(logits);
}

static void test_contexts(void) {
    static const char *const types[] = { NULL, "q8_0" };
    for (int i = 0; i < ALL_GOLDENS; i++)
        for (int type = 0; type < 2; type++) {
            golden g = golden_read(i);
            griffin_model *m = golden_open(&g, types[type], NULL);
            check_context(m, 1, 1, 0);
            check_context(m, 64, 1, 16);
            check_context(m, 7, 3, 48);
            griffin_close(m);
        }
}

int main(void) {
    RUN(test_open_memory);
    RUN(test_open_file);
    RUN(test_bad_files);
    RUN(test_running);
    RUN(test_contexts);
    return test_end();
}
