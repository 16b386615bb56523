/* Promise: with kv_type bf16 a state keeps keys and values in half the memory, each rounded to the
 * nearest, ties to even; all that is promised of states and of bits holds for it too. */

#define GRIFFIN_IMPLEMENTATION
#include "model.h"

/* ---- rounding ------------------------------------------------------------------------------- */

/* Of the two bf16 around x the nearer one, by exact distances in double. */
static uint16_t nearest(float x) {
    uint16_t below = (uint16_t)(grf_bits_from_float(x) >> 16), above = (uint16_t)(below + 1);
    double to_below = fabs((double)x - (double)grf_float_from_bf16(below));
    double to_above = fabs((double)grf_float_from_bf16(above) - (double)x);
    if ((above & 0x7fff) == 0x7f80)                     /* as if the numbers went on */
        to_above = fabs(ldexp(x < 0 ? -1 : 1, 128) - (double)x);
    if (to_below == to_above) return below & 1 ? above : below;
    return to_below < to_above ? below : above;
}

static void test_rounding(void) {
    static const uint32_t low[] = { 0, 1, 0x1234, 0x7fff, 0x8000, 0x8001, 0xcafe, 0xffff };
    int wrong = 0;
    for (uint32_t high = 0; high < 0x10000; high++)
        for (int i = 0; i < GRF_COUNT(low); i++) {
            float x = grf_float_from_bits(high << 16 | low[i]);
            uint16_t got = grf_bf16_from_float(x);
            if (x != x) wrong += (got & 0x7fff) <= 0x7f80;
            else if (x - x != 0) wrong += got != high;  /* infinite */
            else wrong += got != nearest(x);
        }
    CHECK(wrong == 0, "%d of %d", wrong, 0x10000 * GRF_COUNT(low));
}

/* ---- what a state holds --------------------------------------------------------------------- */

static griffin_model *open_kv(network *n, griffin_kv_type kv) {
    griffin_options options;
    memset(&options, 0, sizeof options);
    options.kv_type = kv;
    return network_open(n, &options);
}

/* The keys and values of a first layer are those of the f32 state, rounded. */
static void test_rings(void) {
    griffin_config config = small_config();
    int32_t tokens[11];
    float logits[11 * 19], rounded[11 * 19];
    int wrong = 0;
    strcpy(config.blocks, "aara");
    network *n = network_make(&config);
    network *half_n = network_make(&config);
    griffin_model *m = open_kv(n, GRIFFIN_KV_F32);
    griffin_model *half = open_kv(half_n, GRIFFIN_KV_BF16);
    griffin_context *c = new_context(m, 0, 0), *d = new_context(half, 0, 0);
    griffin_state *s = new_state(m), *h = new_state(half);
    for (int i = 0; i < 11; i++) tokens[i] = (int32_t)(dice() % 19);
    run_chunks(m, c, s, tokens, 11, 0, logits);
    run_chunks(half, d, h, tokens, 11, 0, rounded);
    for (int which = 0; which < 2; which++)
        for (int p = 0; p < 11; p++)
            for (int i = 0; i < 16; i++) {
                float x;
                uint16_t got;
                memcpy(&x, grf_state_ring(m, s, 0, which, p) + 4 * i, 4);
                memcpy(&got, grf_state_ring(half, h, 0, which, p) + 2 * i, 2);
                wrong += got != grf_bf16_from_float(x);
            }
    CHECK(wrong == 0, "%d of %d", wrong, 2 * 11 * 16);
    CHECK(memcmp(logits, rounded, sizeof logits) != 0, "nothing was rounded");
    for (int i = 0; i < 11 * 19; i++) wrong += fabsf(logits[i] - rounded[i]) > 0.2f;
    CHECK(wrong == 0, "%d logits are far off", wrong);
    CHECK(griffin_state_size(m) - griffin_state_size(half) == 3 * 2 * 20 * 16 * 2, "%d and %d",
          (int)griffin_state_size(m), (int)griffin_state_size(half));
    CHECK(griffin_get_info(half)->kv_type == GRIFFIN_KV_BF16
          && griffin_mark_size(half) == griffin_mark_size(m), "info");
    CHECK(griffin_step(d, s, 1, NULL) == GRIFFIN_E_MISMATCH, "a state of the other kind");
    free(c); free(d); free(s); free(h);
    griffin_close(m); griffin_close(half);
    network_free(n); network_free(half_n);
}

static void test_refused(void) {
    griffin_config config = small_config();
    network *n = network_make(&config);
    griffin_options options;
    griffin_model *m;
    size_t size;
    unsigned char *file = network_file(n, &size);
    memset(&options, 0, sizeof options);
    options.kv_type = (griffin_kv_type)2;
    CHECK(griffin_open_memory(&m, file, size, &options) == GRIFFIN_E_ARGUMENT, "kv_type 2");
    free(file);
    network_free(n);
}

/* ---- the same bits -------------------------------------------------------------------------- */

static griffin_model *golden_kv(const golden *g, griffin_cpu cpu) {
    griffin_options options;
    griffin_model *m;
    char path[256];
    memset(&options, 0, sizeof options);
    options.kv_type = GRIFFIN_KV_BF16;
    options.cpu = cpu;
    snprintf(path, sizeof path, "build/data/%s.gguf", g->model);
    return griffin_open_file(&m, path, &options) == GRIFFIN_OK ? m : NULL;
}

/* Plain C, token by token, against every instruction set, any chunks, and company in the call. */
static void check_golden(int index) {
    static const int chunks[] = { 0, 1, 3, 7 };
    golden g = golden_read(index);
    griffin_model *plain = golden_kv(&g, GRIFFIN_CPU_SCALAR);
    griffin_context *c = new_context(plain, 1, 1);
    griffin_state *alone = new_state(plain), *s = new_state(plain), *other = new_state(plain);
    float *want = new_logits(plain, g.count), *got = new_logits(plain, g.count);
    int sets = 0;
    run_chunks(plain, c, alone, g.tokens, g.count, 1, want);
    for (int cpu = GRIFFIN_CPU_SCALAR; cpu <= LAST_CPU; cpu++) {
        griffin_model *m = golden_kv(&g, (griffin_cpu)cpu);
        griffin_span spans[2];
        if (!m) continue;
        sets++;
        griffin_context *wide = new_context(m, 64, 2);
        for (int i = 0; i < GRF_COUNT(chunks); i++) {
            memset(s, 0, griffin_state_size(m));
            run_chunks(m, wide, s, g.tokens, g.count, chunks[i], got);
            CHECK(first_difference(want, got, g.count, vocabulary(m)) < 0
                  && same_states(m, s, alone), "%s, %s, chunks of %d", g.name,
                  m->kernels->name, chunks[i]);
        }
        memset(s, 0, griffin_state_size(m));
        memset(other, 0, griffin_state_size(m));
        spans[0] = span_of(other, g.tokens + 1, g.count - 1, NULL);
        spans[1] = span_of(s, g.tokens, g.count, got);
        CHECK(griffin_run(wide, spans, 2) == GRIFFIN_OK, "run");
        CHECK(first_difference(want, got, g.count, vocabulary(m)) < 0 && same_states(m, s, alone),
              "%s, %s, in company", g.name, m->kernels->name);
        free(wide);
        griffin_close(m);
    }
    CHECK(sets > 0, "no kernels");
    free(c); free(alone); free(s); free(other); free(want); free(got);
    griffin_close(plain);
}

static void test_same_bits(void) {
    for (int i = 0; i < GOLDENS - 1; i++) check_golden(i);
}

/* ---- marks and saves ------------------------------------------------------------------------ */

static void test_sequences(void) {
    griffin_config config = small_config();
    network *n = network_make(&config), *other_n = network_make(&config);
    griffin_model *m = open_kv(n, GRIFFIN_KV_BF16), *other = open_kv(other_n, GRIFFIN_KV_F32);
    griffin_context *c = new_context(m, 0, 0);
    griffin_state *s = new_state(m), *t = new_state(m), *foreign = new_state(other);
    unsigned char data[5000], again[5000];
    int32_t tokens[30];
    float want[30 * 19], got[30 * 19];
    void *mark = malloc(griffin_mark_size(m));
    for (int i = 0; i < 30; i++) tokens[i] = (int32_t)(dice() % 19);
    run_chunks(m, c, t, tokens, 30, 0, want);
    run_chunks(m, c, s, tokens, 12, 5, got);
    int64_t size = griffin_save(m, s, NULL, NULL, data, sizeof data);
    CHECK(size == 48 + 4 * 3 * 4 * 64 + 2 * 2 * 4 * 16 + 8, "%d bytes", (int)size);
    CHECK(griffin_mark(m, s, mark) == GRIFFIN_OK, "mark");
    run_chunks(m, c, s, tokens, 16, 3, NULL);
    CHECK(griffin_rewind(m, s, mark) == GRIFFIN_OK, "rewind");
    CHECK(griffin_save(m, s, NULL, NULL, again, sizeof again) == size
          && memcmp(data, again, (size_t)size) == 0, "saved after going astray");
    run_chunks(m, c, s, tokens + 12, 18, 4, got);
    CHECK(first_difference(want + 12 * 19, got, 18, 19) < 0, "rewound");
    CHECK(griffin_load(m, s, NULL, NULL, data, (size_t)size) == GRIFFIN_OK, "load");
    run_chunks(m, c, s, tokens + 12, 18, 4, got);
    CHECK(first_difference(want + 12 * 19, got, 18, 19) < 0, "loaded");
    CHECK(griffin_load(other, foreign, NULL, NULL, data, (size_t)size) == GRIFFIN_E_MISMATCH,
          "into the other kind");
    free(mark); free(c); free(s); free(t); free(foreign);
    griffin_close(m); griffin_close(other);
    network_free(n); network_free(other_n);
}

int main(void) {
    RUN(test_rounding);
    RUN(test_rings);
    RUN(test_refused);
    RUN(test_same_bits);
    RUN(test_sequences);
    return test_end();
}
