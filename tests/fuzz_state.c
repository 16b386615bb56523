/* fuzz_state.c - no bytes whatever make griffin_load or griffin_load_pieces misbehave. Both take
 * the same; what they take can be saved again to the same bytes and used: stepped, sampled from and
 * decoded with.
 *
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined -I. tests/fuzz_state.c -o fuzz_state -lm
 *   ./fuzz_state -max_len=512 */

#define GRIFFIN_IMPLEMENTATION
#include "model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static griffin_model   *model;
static griffin_context *context;
static griffin_state   *state;

static void start(void) {
    griffin_config config = small_config();
    network *shape = network_make(&config);
    size_t size;
    gguf g;
    memset(&g, 0, sizeof g);
    network_write(shape, &g);
    write_vocabulary(&g);
    network_free(shape);
    unsigned char *file = gguf_finish(&g, &size);
    if (griffin_open_memory(&model, file, size, NULL)) abort();
    context = new_context(model, 4, 1);
    state = new_state(model);
}

/* A save of the right size and opening for a position of the input's choice, with the rest of the
 * input as its contents, over and over: few inputs would get that far by themselves. */
static uint8_t *well_formed(const uint8_t *data, size_t *size) {
    uint64_t position = grf_get_u64(data);
    int64_t length = position < INT64_MAX ? grf_saved_bytes(model, (int64_t)position) : 0;
    int parts = data[9] & 3;
    *size = (size_t)grf_save_size(length, parts) + (data[8] == 1);
    uint8_t *p = (uint8_t *)calloc(1, *size);
    memcpy(p, "GRIFSTAT\3\0\0\0", 12);
    grf_put_u32(p + 12, (uint32_t)parts + (data[8] == 4));
    grf_put_u64(p + 16, position && data[8] != 2 ? model->layout.saved_tag : 0);
    grf_put_u64(p + 24, position);
    grf_put_u64(p + 32, grf_get_u64(data));
    grf_put_u64(p + 40, (uint64_t)length + (data[8] == 3));
    for (int64_t i = 48; i < (int64_t)*size - 8; i++) p[i] = data[i % 16];
    return p;
}

typedef struct source { const uint8_t *at; size_t left, most; } source;

static int give(void *to, size_t size, void *user) {
    source *from = (source *)user;
    if (size > from->most) size = from->most;
    if (size > from->left) size = from->left;
    memcpy(to, from->at, size);
    from->at += size;
    from->left -= size;
    return (int)size;
}

/* In pieces of any size the result is that of the whole, and after an error the state is fresh. */
static void load_pieces(const uint8_t *data, size_t size, griffin_sampler *s, griffin_decoder *d) {
    source from = { data, size, 1 + size % 255 };
    size_t whole = griffin_state_size(model);
    memset(state, 0, whole);
    int error = griffin_load_pieces(model, state, s, d, give, &from);
    for (size_t i = 0; error < 0 && i < whole; i++) if (((uint8_t *)state)[i]) abort();
    int all = griffin_load(model, state, s, d, data, size);
    if ((error == GRIFFIN_OK && from.left == 0) != (all == GRIFFIN_OK)) abort();
}

static void load(const uint8_t *data, size_t size) {
    int parts = size < 16 ? 0 : (int)grf_get_u32(data + 12);
    griffin_sampler sampler, *s = parts & GRF_HAS_SAMPLER ? &sampler : NULL;
    griffin_decoder decoder, *d = parts & GRF_HAS_DECODER ? &decoder : NULL;
    float logits[19];
    char text[512];
    memset(&sampler, 0, sizeof sampler);
    load_pieces(data, size, s, d);
    if (griffin_load(model, state, s, d, data, size) != GRIFFIN_OK) return;
    uint8_t *again = (uint8_t *)malloc(size);
    if (griffin_save(model, state, s, d, again, size) != (int64_t)size
        || memcmp(again, data, size) != 0) abort();
    if (griffin_step(context, state, 1, logits) != GRIFFIN_OK) abort();
    if (s) griffin_sample(model, s, logits);
    if (d) griffin_decode(model, d, 4, text, sizeof text);
    free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!model) start();
    load(data, size);
    if (size < 16) return 0;
    uint8_t *formed = well_formed(data, &size);
    grf_put_u64(formed + size - 8, grf_hash(GRF_HASH_START, formed, size - 8));
    load(formed, size);
    free(formed);
    return 0;
}
