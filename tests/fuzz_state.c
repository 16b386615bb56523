/* fuzz_state.c - no bytes whatever make griffin_load misbehave, and what it takes can be saved
 * again to the same bytes and stepped.
 *
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined -I. tests/fuzz_state.c -o fuzz_state -lm
 *   ./fuzz_state -max_len=512 */

#include "model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static network         *shape;
static griffin_model   *model;
static griffin_context *context;
static griffin_state   *state;

static void start(void) {
    griffin_config config = small_config();
    shape = network_make(&config);
    model = network_open(shape, NULL);
    context = new_context(model, 4, 1);
    state = new_state(model);
}

/* A save of the right size and opening for a position of the input's choice, with the rest of the
 * input as its floats, over and over: few inputs would get that far by themselves. */
static uint8_t *well_formed(const uint8_t *data, size_t *size) {
    uint64_t position = grf_u64(data);
    int64_t floats = position < INT64_MAX ? grf_saved_floats(model, (int64_t)position) : 0, i;
    uint8_t *p;
    *size = 48 + 4 * (size_t)floats + 8 + (data[8] == 1);
    p = (uint8_t *)calloc(1, *size);
    memcpy(p, "GRIFSTAT\2\0\0\0\0\0\0", 16);
    grf_put_u64(p + 16, position && data[8] != 2 ? model->layout.saved_tag : 0);
    grf_put_u64(p + 24, position);
    grf_put_u64(p + 32, grf_u64(data));
    grf_put_u64(p + 40, (uint64_t)floats + (data[8] == 3));
    for (i = 0; i < 4 * floats; i++) p[48 + i] = data[i % 16];
    return p;
}

static void load(const uint8_t *data, size_t size) {
    uint8_t *again;
    if (griffin_load(model, state, data, size) != GRIFFIN_OK) return;
    again = (uint8_t *)malloc(size);
    if (griffin_save(model, state, again, size) != (int64_t)size
        || memcmp(again, data, size) != 0) abort();
    if (griffin_step(context, state, 1, NULL) != GRIFFIN_OK) abort();
    free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *formed;
    if (!model) start();
    load(data, size);
    if (size < 16) return 0;
    formed = well_formed(data, &size);
    grf_put_u64(formed + size - 8, grf_hash(GRF_HASH_START, formed, size - 8));
    load(formed, size);
    free(formed);
    return 0;
}
