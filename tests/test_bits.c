/* Promise: logits, and what is sampled from them, are the same bits on every machine, compiler and
 * instruction set, whether tokens come one by one or at once: those whose hashes stand here. */

#define GRIFFIN_IMPLEMENTATION
#include "../griffin.h"
#include "test.h"

#define TOKENS 48                           /* past the window of the small networks */

static const struct { const char *file; uint64_t hash; } known[] = {
    { "build/data/griffin-tiny.gguf",        0x3a0ea90b7cd992b5u },
    { "build/data/griffin-tiny.f16.gguf",    0x3be26db7adc6fce9u },
    { "build/data/griffin-tiny.bf16.gguf",   0x35a6fce65288d7f5u },
    { "build/data/griffin-tiny.q8_0.gguf",   0x0973e8ebf0e2c468u },
    { "build/data/griffin-tiny.q4_0.gguf",   0x83841d0d99ad7428u },
    { "build/data/griffin-tiny.q4_1.gguf",   0xe5cf6c1d34979860u },
    { "build/data/griffin-tiny.q5_0.gguf",   0x2836c0c5970a22ebu },
    { "build/data/griffin-tiny.q5_1.gguf",   0x432007262d999630u },
    { "build/data/hawk-tiny.gguf",           0x957f9c5551c85705u },
    { "build/data/griffin-paper-tiny.gguf",  0x441b558c1f2c0f38u },
    { "build/data/rgemma-bf16.gguf",         0xe4993e406e69f829u },
    { "build/data/attn-only-tiny.gguf",      0x74d0e828a1fbe19fu }
};

static uint64_t hash_number(uint64_t hash, uint64_t number) {
    hash = (hash ^ number) * 0x100000001b3u;
    return hash ^ hash >> 32;
}

/* Of the bits of every row, and of a token sampled from it. Sampling overwrites the row. */
static uint64_t hash_of(const griffin_model *m, float *logits, int vocab) {
    griffin_sampler sampler;
    uint64_t hash = 0;
    uint32_t bits;
    memset(&sampler, 0, sizeof sampler);
    sampler.seed = 1; sampler.temperature = 0.8f; sampler.top_p = 0.9f;
    for (int t = 0; t < TOKENS; t++, logits += vocab) {
        for (int i = 0; i < vocab; i++) {
            memcpy(&bits, logits + i, sizeof bits);
            hash = hash_number(hash, bits);
        }
        hash = hash_number(hash, (uint64_t)griffin_sample(m, &sampler, logits));
    }
    return hash;
}

/* Logits after each of the tokens, `rows` of which make a pass. */
static void run(const griffin_model *m, float *logits, int vocab, int rows) {
    void *state = calloc(1, griffin_state_size(m));
    griffin_context_options options;
    griffin_context *c;
    griffin_span span = { NULL, NULL, 0, 1, NULL };
    int32_t tokens[TOKENS];
    memset(&options, 0, sizeof options);
    options.rows = rows;
    size_t size = griffin_context_size(m, &options);
    void *memory = malloc(size);
    griffin_context_init(&c, m, &options, memory, size);
    for (int i = 0; i < TOKENS; i++) tokens[i] = (7 * i * i + 3 * i + 2) % vocab;
    for (int i = 0; i < TOKENS; i += rows) {
        span.state = (griffin_state *)state;
        span.tokens = tokens + i;
        span.count = rows;
        span.logits = logits + i * vocab;
        CHECK(griffin_run(c, &span, 1) == GRIFFIN_OK, "the pass of token %d", i);
    }
    free(state); free(memory);
}

static void check_model(const char *file, uint64_t hash, const griffin_model *m) {
    const griffin_info *info = griffin_get_info(m);
    int vocab = info->config.vocab;
    float *logits = (float *)malloc((size_t)(TOKENS * vocab) * sizeof *logits);
    for (int rows = 1; rows <= TOKENS; rows += TOKENS - 1) {
        run(m, logits, vocab, rows);
        uint64_t got = hash_of(m, logits, vocab);
        CHECK(got == hash, "%s, %s, %d tokens in a pass: 0x%08lx%08lx", file, info->kernels, rows,
              (unsigned long)(got >> 32), (unsigned long)(got & 0xffffffffu));
    }
    free(logits);
}

/* Machines that lack a set of kernels refuse to open a model for it. */
static void test_known_bits(void) {
    griffin_options options;
    griffin_model *m;
    memset(&options, 0, sizeof options);
    for (int i = 0; i < (int)(sizeof known / sizeof *known); i++)
        for (int cpu = GRIFFIN_CPU_SCALAR; cpu <= LAST_CPU; cpu++) {
            options.cpu = (griffin_cpu)cpu;
            int error = griffin_open_file(&m, known[i].file, &options);
            CHECK(!error || (error == GRIFFIN_E_UNSUPPORTED && cpu > GRIFFIN_CPU_SCALAR), "%s: %s",
                  known[i].file, griffin_error_string(error));
            if (error) continue;
            check_model(known[i].file, known[i].hash, m);
            griffin_close(m);
        }
}

int main(void) {
    RUN(test_known_bits);
    return test_end();
}
