/* Feeds the readers of the converter from memory. Seeds are the test data:
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined -o fuzz_weights tests/fuzz_weights.c \
 *         tools/convert/{weights,quantise,dequantise,safetensors,torch,zip}.c \
 *         tools/shared/{json,report}.c
 *     ./fuzz_weights -max_len=8192 corpus tests/data/safetensors tests/data/pt
 */

#include "../tools/shared/json.h"
#include "../tools/convert/safetensors.h"
#include "../tools/convert/torch.h"

#include <stdlib.h>

static void read_all(int status, weights *w) {
    if (status) return;
    for (size_t i = 0; i < w->count; i++) {
        const weight *t = &w->list[i];
        float *values = malloc((size_t)t->elements * sizeof *values + 1);   /* at most the file */
        report r;
        if (!values || weights_find(w, t->name) != t) abort();
        weight_read(t, 0, t->elements, values, &r);
        free(values);
    }
    weights_close(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    weights w;
    report r;
    json j;
    read_all(weights_open_safetensors_memory(&w, data, size, "fuzz", &r), &w);
    read_all(weights_open_torch_memory(&w, data, size, "fuzz", &r), &w);
    json_start(&j, data, size);
    while (json_next(&j) > JSON_END) continue;
    json_stop(&j);
    return 0;
}
