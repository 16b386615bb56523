/* fuzz_text.c - no text makes the tokenizer misbehave, and what comes back is always UTF-8.
 *
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined -I. tests/fuzz_text.c -o fuzz_text -lm
 *   mkdir -p corpus && ./fuzz_text -max_len=2048 corpus
 *
 * Run it in the root of the repository. The first byte chooses a vocabulary and the options. */

#define GRIFFIN_IMPLEMENTATION
#include "griffin.h"
#include "test.h"

enum { MODELS = 10 };

static griffin_model *models[MODELS];

/* The file with another value of "tokenizer.ggml.pre", which is "default". */
static unsigned char *with_split(unsigned char *data, size_t *size, const char *split) {
    size_t n = strlen(split), at = 8;
    unsigned char *edited = (unsigned char *)malloc(*size + n);
    while (at + 7 < *size && memcmp(data + at, "default", 7) != 0) at++;
    if (at + 7 == *size) abort();
    memcpy(edited, data, at);
    edited[at - 8] = (unsigned char)n;
    memcpy(edited + at, split, n);
    memcpy(edited + at + n, data + at + 7, *size - at - 7);
    free(data);
    *size += n - 7;
    return edited;
}

static void open_all(void) {
    static const struct { const char *name, *split; } files[MODELS] = {
        { "gemma_like", NULL }, { "llama_like", NULL }, { "tiny300", NULL }, { "unused", NULL },
        { "nfkc", NULL }, { "gemma_like_merges", NULL }, { "byte_level", NULL },
        { "byte_level", "smollm" }, { "byte_level", "llama-bpe" }, { "byte_level", "qwen2" }
    };
    char path[100];
    size_t size;
    for (size_t i = 0; i < MODELS; i++) {
        snprintf(path, sizeof path, "tests/data/tokenizer/%s.gguf", files[i].name);
        unsigned char *data = test_read(path, &size);
        if (data && files[i].split) data = with_split(data, &size, files[i].split);
        griffin_options options;
        memset(&options, 0, sizeof options);
        options.directory_only = 1;
        if (!data || griffin_open_memory(&models[i], data, size, &options) < 0) abort();
        if (!griffin_get_info(models[i])->has_vocabulary) abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static int32_t tokens[1 << 16];
    static char text[1 << 20];
    griffin_encoding encoding;
    griffin_decoder decoder;
    int i, written, length = 0;
    if (!models[0]) open_all();
    if (size == 0 || size > 2048) return 0;
    const griffin_model *m = models[data[0] % MODELS];
    memset(&encoding, 0, sizeof encoding);
    memset(&decoder, 0, sizeof decoder);
    encoding.no_bos     = data[0] / MODELS & 1;
    encoding.no_special = data[0] / MODELS / 2 & 1;
    encoding.continues  = data[0] / MODELS / 4 % 3;
    encoding.scratch_size = griffin_encode_size(m, size - 1);
    encoding.scratch = malloc(encoding.scratch_size);
    int n = griffin_encode(m, &encoding, (const char *)data + 1, size - 1, tokens, 1 << 16);
    free(encoding.scratch);
    if (n < 0 || n > 1 << 16) abort();
    for (i = 0; i <= n; i++) {
        written = griffin_decode(m, &decoder, i < n ? tokens[i] : -1, text + length, 512);
        if (written < 0 || !grf_utf8_valid(text + length, (uint64_t)written)) abort();
        length += written;
    }
    /* Gemma's text comes back as it was, but for U+2581 and control tokens. */
    if (data[0] % MODELS == 0 && grf_utf8_valid((const char *)data + 1, size - 1)) {
        for (i = 1; i + 2 < (int)size && memcmp(data + i, GRF_SPACE, 3) != 0; i++) { }
        if (i + 2 < (int)size) return 0;
        if (length != (int)size - 1 || memcmp(text, data + 1, size - 1) != 0) abort();
    }
    return 0;
}
