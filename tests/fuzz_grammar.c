/* fuzz_grammar.c - no grammar text does harm, and what a mask allows can always be accepted.
 *
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined -I. tests/fuzz_grammar.c -o fuzz_grammar -lm
 *   mkdir -p corpus && ./fuzz_grammar -max_len=1000 corpus tests/data/grammars
 *
 * Run it in the root of the repository. The first byte chooses the tokens. */

#define GRIFFIN_IMPLEMENTATION
#include "griffin.h"
#include "test.h"

/* no more than a vocabulary */
static grf_opened opened = { .model = { .vocab = &opened.vocab, .file = &opened.file } };
#define model opened.model
static float logits[2000];

static void open_vocabulary(void) {
    size_t size = 0;
    const unsigned char *data = test_read("tests/data/tokenizer/llama_like.gguf", &size);
    if (!data || grf_gguf_open(&opened.file, data, size, &model.host) < 0) abort();
    if (grf_vocab_load(&opened.vocab, &opened.file, &model.host) < 0) abort();
    if ((model.info.config.vocab = opened.vocab.count) > 2000) abort();
}

/* The n-th of the tokens that remain. */
static int32_t remaining_token(int n) {
    int i;
    for (i = 0; i < opened.vocab.count; i++) if (logits[i] != -INFINITY && n-- == 0) return i;
    abort();
}

static void write_text(const griffin_grammar *g, uint32_t dice) {
    griffin_grammar_state s;
    int i, remaining, moved;
    memset(&s, 0, sizeof s);
    for (i = 0; i < 24 && !s.ended; i++) {
        memset(logits, 0, sizeof logits);
        remaining = griffin_grammar_mask(g, &s, logits);
        if (remaining == GRIFFIN_E_SPACE) return;
        if (remaining <= 0) abort();        /* there is a token for every byte */
        dice = dice * 1664525 + 1013904223;
        moved = griffin_grammar_accept(g, &s, remaining_token((int)(dice >> 8) % remaining));
        if (moved == GRIFFIN_E_SPACE) return;
        if (moved < 0) abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    griffin_grammar *g;
    if (!opened.vocab.count) open_vocabulary();
    if (size == 0 || size > 4096) return 0;
    if (griffin_grammar_open(&g, &model, (const char *)data + 1, size - 1, NULL) < 0) return 0;
    write_text(g, data[0]);
    griffin_grammar_close(g);
    return 0;
}
