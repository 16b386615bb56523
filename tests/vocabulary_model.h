/* vocabulary_model.h - models that are little more than a vocabulary: one of tests/data/tokenizer,
 * that of another model, or one that the test writes, beside the smallest network. */

#ifndef VOCABULARY_MODEL_H
#define VOCABULARY_MODEL_H

#include "model.h"

typedef struct vocabulary_model {
    griffin_model *model;
    const griffin_info *info;
    int32_t bytes[256];                     /* the token of a byte, or -1 */
    unsigned char *file;
} vocabulary_model;

static inline void vocabulary_close(vocabulary_model *v) {
    griffin_close(v->model);
    free(v->file);
}

/* Writes the network behind what the writer has, and opens the file. There are three rows more than
 * tokens, as in embeddings that were padded. */
static inline void vocabulary_finish(vocabulary_model *v, gguf *g, int tokens) {
    griffin_config c = small_config();
    char message[400] = "";
    griffin_options options;
    size_t size;
    memset(v, 0, sizeof *v);
    c.vocab = tokens + 3;
    c.width = c.mlp_width = c.lru_width = c.head_dim = 32;
    c.heads = c.kv_heads = c.layers = c.gate_blocks = 1;
    strcpy(c.blocks, "r");
    network *n = network_make(&c);
    network_write(n, g);
    network_free(n);
    v->file = gguf_finish(g, &size);
    memset(&options, 0, sizeof options);
    options.error = message;
    options.error_size = sizeof message;
    if (griffin_open_memory(&v->model, v->file, size, &options) < 0) {
        printf("%s\n", message);
        exit(1);
    }
    v->info = griffin_get_info(v->model);
    for (int i = 0; i < 256; i++) v->bytes[i] = -1;
    for (int32_t i = 0; i < v->info->tokens; i++) {
        char byte;
        if (griffin_token_type(v->model, i) != GRIFFIN_TOKEN_BYTE) continue;
        griffin_token_text(v->model, i, &byte, 1);
        v->bytes[(unsigned char)byte] = i;
    }
}

/* Behind a value of a GGUF file. */
static inline const unsigned char *vocabulary_skip(const unsigned char *p, uint64_t type) {
    static const int sizes[] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };
    if (type == GGUF_STRING) return p + 8 + get_u64(p);
    if (type != GGUF_ARRAY) return p + sizes[type];
    uint64_t element = npy_u32(p), count = get_u64(p + 4);
    for (p += 12; count; count--) p = vocabulary_skip(p, element);
    return p;
}

/* Ends the program if the file is not there. */
static inline void vocabulary_open_file(vocabulary_model *v, const char *path) {
    size_t size = 0;
    gguf g;
    int tokens = 0;
    unsigned char *file = test_read(path, &size);
    if (!file) { printf("%s cannot be read\n", path); exit(1); }
    memset(&g, 0, sizeof g);
    const unsigned char *p = file + 24;     /* magic, version, numbers of tensors and pairs */
    for (uint64_t pairs = get_u64(file + 16); pairs; pairs--) {
        const unsigned char *key = p + 8, *value = key + get_u64(p);
        const unsigned char *next = vocabulary_skip(value + 4, npy_u32(value));
        if (!strncmp((const char *)key, "tokenizer.ggml.tokens", 21))
            tokens = (int)get_u64(value + 8);
        if (!strncmp((const char *)key, "tokenizer.", 10)) {
            put(&g.pairs, p, (size_t)(next - p));
            g.n_pairs++;
        }
        p = next;
    }
    free(file);
    vocabulary_finish(v, &g, tokens);
}

static inline void vocabulary_open(vocabulary_model *v, const char *name) {
    char path[100];
    snprintf(path, sizeof path, "tests/data/tokenizer/%s.gguf", name);
    vocabulary_open_file(v, path);
}

#endif
