/* fuzz_gguf.c - no bytes whatever make the reader of model files misbehave.
 *
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined -I. tests/fuzz_gguf.c -o fuzz_gguf -lm
 *   mkdir -p corpus && ./fuzz_gguf -max_len=8192 corpus tests/data/gguf tests/data/gguf/malformed
 */

#define GRIFFIN_IMPLEMENTATION
#include "griffin.h"

/* Asks for every key as everything, and touches both ends of every tensor. */
static void use(const grf_gguf *g, const grf_host *host) {
    static char key[65536];
    uint64_t number, length;
    const char *text;
    const grf_kv *array;
    griffin_metadata m;
    float real;
    int yes;
    volatile int sum = 0;
    for (uint64_t i = 0; i < g->n_kv; i++) {
        memcpy(key, g->kv[i].name.text, (size_t)g->kv[i].name.length);
        key[g->kv[i].name.length] = 0;
        if (grf_gguf_find(g, key) != &g->kv[i]) abort();
        if (!grf_metadata_get(g, NULL, (int)i, &m)) abort();
        while (grf_metadata_next(&m)) continue;
        if (m.count && m.index + 1 != m.count) abort();
        grf_gguf_get_uint(g, key, UINT64_MAX, &number, host);
        grf_gguf_get_float(g, key, &real, host);
        grf_gguf_get_bool(g, key, &yes, host);
        grf_gguf_get_string(g, key, &text, &length, host);
        if (grf_gguf_get_array(g, key, GRIFFIN_VALUE_STRING, &array, host) == 1) {
            const uint8_t *at = g->data + array->offset;
            for (number = 0; number < array->count; number++)
                at = grf_gguf_next_string(at, &text, &length);
            if (at > g->data + g->size) abort();
        }
    }
    for (uint64_t i = 0; i < g->n_tensors; i++) {
        const grf_tensor *t = &g->tensors[i];
        if (g->data[t->offset] == 77 && g->data[t->offset + t->bytes - 1] == 77) sum++;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    grf_host host;
    grf_gguf g;
    griffin_model *model = NULL;
    griffin_options options;
    griffin_tensor tensor;
    memset(&host, 0, sizeof host);
    if (grf_gguf_open(&g, data, size, 0, &host) == GRIFFIN_OK) {
        use(&g, &host);
        grf_gguf_close(&g, &host);
    }
    griffin_open_memory(&model, data, size, NULL);
    griffin_close(model);
    memset(&options, 0, sizeof options);
    options.directory_only = 1;
    if (griffin_open_memory(&model, data, size, &options) == GRIFFIN_OK)
        for (int i = 0; i < griffin_get_info(model)->tensors; i++)
            if (griffin_get_tensor(model, i, &tensor) || tensor.offset + tensor.bytes > size) abort();
    griffin_close(model);
    return 0;
}
