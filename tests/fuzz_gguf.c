/* fuzz_gguf.c - no bytes whatever make the reader of model files misbehave.
 *
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined -I. tests/fuzz_gguf.c -o fuzz_gguf -lm
 *   mkdir -p corpus && ./fuzz_gguf -max_len=8192 corpus tests/data/gguf tests/data/gguf/malformed
 */

#define GRIFFIN_IMPLEMENTATION
#include "griffin.h"

/* Asks for every key as everything, and decodes every small tensor. */
static void use(const grf_gguf *g, const grf_host *host) {
    static char key[65536];
    static float x[4096];
    uint64_t i, number, length;
    const char *text;
    const grf_kv *array;
    float real;
    int yes;
    for (i = 0; i < g->n_kv; i++) {
        memcpy(key, g->kv[i].key, (size_t)g->kv[i].key_length);
        key[g->kv[i].key_length] = 0;
        if (grf_gguf_find(g, key) != &g->kv[i]) abort();
        grf_gguf_get_uint(g, key, UINT64_MAX, &number, host);
        grf_gguf_get_float(g, key, &real, host);
        grf_gguf_get_bool(g, key, &yes, host);
        grf_gguf_get_string(g, key, &text, &length, host);
        if (grf_gguf_get_array(g, key, GRF_VALUE_STRING, &array, host) == 1) {
            const uint8_t *at = g->data + array->offset;
            for (number = 0; number < array->count; number++)
                at = grf_gguf_next_string(at, &text, &length);
            if (at > g->data + g->size) abort();
        }
    }
    for (i = 0; i < g->n_tensors; i++) {
        const grf_tensor *t = &g->tensors[i];
        if (t->elements <= 4096) grf_dequantise(t->type, g->data + t->offset, x, t->elements);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    grf_host host;
    grf_gguf g;
    griffin_model *model = NULL;
    memset(&host, 0, sizeof host);
    if (grf_gguf_open(&g, data, size, &host) == GRIFFIN_OK) {
        use(&g, &host);
        grf_gguf_close(&g, &host);
    }
    griffin_open_memory(&model, data, size, NULL);
    griffin_close(model);
    return 0;
}
