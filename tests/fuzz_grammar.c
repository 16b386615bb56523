/* fuzz_grammar.c - no grammar or schema does harm. One that opens never fails inside a text: a mask
 * allows something at every place, and what it allows can be accepted.
 *
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined -I. tests/fuzz_grammar.c -o fuzz_grammar -lm
 *   mkdir -p corpus && ./fuzz_grammar -max_len=1000 corpus tests/data/grammars
 *
 * Run it in the root of the repository. The first byte chooses the tokens. A text that starts with
 * { is a schema. */

#define GRIFFIN_IMPLEMENTATION
#include "griffin.h"
#define GRIFFIN_GRAMMAR_STATIC
#define GRIFFIN_GRAMMAR_IMPLEMENTATION
#include "tools/griffin_grammar.h"
#include "test.h"
#include "vocabulary_model.h"

static vocabulary_model v;
static float *logits;

/* The n-th of the tokens that remain. */
static int32_t remaining_token(int n) {
    for (int32_t i = 0; i < v.info->tokens; i++)
        if (logits[i] != -INFINITY && n-- == 0) return i;
    abort();
}

/* Some hundred tokens for one of eight inputs: readings that are too many need a long text. */
static void write_text(const griffin_grammar *g, uint32_t draw) {
    int tokens = draw % 8 ? 24 : 400;
    griffin_grammar_state s;
    memset(&s, 0, sizeof s);
    for (int i = 0; i < tokens && !s.ended; i++) {
        memset(logits, 0, (size_t)v.info->config.vocab * sizeof *logits);
        int remaining = griffin_grammar_mask(g, &s, logits);
        if (remaining <= 0) abort();        /* there is a token for every byte */
        draw = draw * 1664525 + 1013904223;
        int moved = griffin_grammar_accept(g, &s, remaining_token((int)(draw >> 8) % remaining));
        if (moved < 0) abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    griffin_grammar *g;
    if (!v.model) {
        vocabulary_open(&v, "llama_like");
        logits = (float *)malloc((size_t)v.info->config.vocab * sizeof *logits);
    }
    if (size < 2 || size > 4096) return 0;
    int error = (data[1] == '{' ? griffin_grammar_open_schema : griffin_grammar_open)(
        &g, v.model, (const char *)data + 1, size - 1, NULL);
    if (error < 0) return 0;
    write_text(g, data[0]);
    griffin_grammar_close(g);
    return 0;
}
