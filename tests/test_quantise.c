/* test_quantise.c - the converter's quantiser gives the bytes of the reference quantiser.
 *
 * tests/data/quants holds 34 rows of 1024 floats that provoke every special case, and those rows
 * as the reference encodes them. Compile tools/convert/quantise.c with -O3 -march=native, too:
 * fused multiply-add must not change a byte. */

#include <float.h>
#include <math.h>

#include "test.h"
#include "tools/convert/quantise.h"

#define DATA "tests/data/quants/"

static void check_type(const char *name, const float *x, size_t count) {
    const quant_type *type = quant_find(name);
    char path[100];
    size_t size = 0, bad = 0;
    snprintf(path, sizeof path, DATA "%s.bin", name);
    unsigned char *expected = test_read(path, &size);
    CHECK(type && expected, "%s", path);
    if (!type || !expected) { free(expected); return; }
    CHECK(quant_bytes(type, count) == size, "%s: %lu bytes", name, (unsigned long)size);
    unsigned char *bytes = (unsigned char *)malloc(size);
    CHECK(quantise_row(type, x, count, bytes) == 0, "%s", name);
    for (size_t i = 0; i < size; i++) bad += bytes[i] != expected[i];
    CHECK(bad == 0, "%s: %lu of %lu bytes differ", name, (unsigned long)bad, (unsigned long)size);
    free(bytes);
    free(expected);
}

static void test_blocks(void) {
    static const char *const names[] = {"q8_0", "q4_0", "q4_1", "q5_0",
                                        "q5_1", "q4_k", "q5_k", "q6_k"};
    size_t size = 0;
    float *x = (float *)(void *)test_read(DATA "input.f32.bin", &size);
    CHECK(x && size == 34 * 1024 * 4, "%lu bytes of input", (unsigned long)size);
    for (size_t i = 0; x && i < sizeof names / sizeof names[0]; i++)
        check_type(names[i], x, size / 4);
    free(x);
}

static void test_halves(void) {
    size_t size = 0, size16 = 0;
    float *x = (float *)(void *)test_read(DATA "conv.f32bits.bin", &size);
    uint16_t *f16 = (uint16_t *)(void *)test_read(DATA "conv.f16.bin", &size16);
    uint16_t *bf16 = (uint16_t *)(void *)test_read(DATA "conv.bf16.bin", &size16);
    CHECK(x && f16 && bf16 && size == 2 * size16, "%lu and %lu bytes", (unsigned long)size,
          (unsigned long)size16);
    for (size_t i = 0; x && f16 && bf16 && i < size / 4; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], 4);
        CHECK(f16_of(x[i]) == f16[i], "%08x: %04x, not %04x", bits, f16_of(x[i]), f16[i]);
        CHECK(bf16_of(x[i]) == bf16[i], "%08x: %04x, not %04x", bits, bf16_of(x[i]), bf16[i]);
    }
    free(x);
    free(f16);
    free(bf16);
}

static const char *const every_type[] = {"f32",  "f16",  "bf16", "q8_0", "q4_0", "q4_1",
                                         "q5_0", "q5_1", "q6_0", "q4_k", "q5_k", "q6_k"};

/* A block full of one value, but for one zero. */
static int encode_filled(const char *name, float value) {
    uint8_t bytes[1024];
    float x[256];
    for (int i = 0; i < 256; i++) x[i] = i == 77 ? 0.0f : value;
    int plain = quantise_row(quant_find(name), x, 256, bytes);
    CHECK(quantise_best(quant_find(name), x, 256, bytes) == plain, "%s: a search", name);
    return plain;
}

/* F16 ends at 65504. What a scale or value cannot hold is refused, not turned into infinity. */
static void test_overflow(void) {
    for (size_t i = 0; i < sizeof every_type / sizeof every_type[0]; i++) {
        const char *name = every_type[i];
        int wide = strcmp(name, "f32") == 0 || strcmp(name, "bf16") == 0;
        CHECK(encode_filled(name, 60000.0f) == 0, "%s", name);
        CHECK(encode_filled(name, 1e9f) == (wide ? 0 : -1), "%s", name);
        CHECK(encode_filled(name, -1e9f) == (wide ? 0 : -1), "%s", name);
        CHECK(encode_filled(name, FLT_MAX) == (strcmp(name, "f32") == 0 ? 0 : -1), "%s", name);
    }
}

/* Scales whose reciprocal is infinite become zeros without an error. */
static void test_underflow(void) {
    static const float values[] = {0.0f, -0.0f, FLT_MIN, -FLT_MIN, 1e-40f, 1e-45f, 1e-20f};
    for (size_t i = 0; i < sizeof every_type / sizeof every_type[0]; i++) {
        for (size_t k = 0; k < sizeof values / sizeof values[0]; k++) {
            CHECK(encode_filled(every_type[i], values[k]) == 0, "%s of %g", every_type[i],
                  (double)values[k]);
        }
    }
    CHECK(quant_find("q3_k") == NULL && quant_find("") == NULL, "types that do not exist");
}

/* Rows of weights as networks have them: a sum of uniform numbers is about normal. */
static void test_search(void) {
    enum { N = 64 * 1024 };
    float *x = (float *)malloc(N * sizeof *x), *y = (float *)malloc(N * sizeof *y);
    uint8_t *bytes = (uint8_t *)malloc(N), *again = (uint8_t *)malloc(N);
    double error[3];
    static const struct { const char *type; int best; } ways[] = {
        {"q4_0", 0}, {"q4_0", 1}, {"q6_0", 0}
    };
    uint32_t dice = 1;
    for (int i = 0; i < N; i++) {
        x[i] = -6;
        for (int k = 0; k < 12; k++) {
            dice = dice * 1664525u + 1013904223u;
            x[i] += (float)(dice >> 8) * 0x1p-24f;
        }
    }
    for (int w = 0; w < 3; w++) {
        const quant_type *type = quant_find(ways[w].type);
        int (*quantise)(const quant_type *, const float *, uint64_t, uint8_t *) =
            ways[w].best ? quantise_best : quantise_row;
        CHECK(quantise(type, x, N, bytes) == 0, "%s", type->name);
        for (int i = 0; i < N; i += 32)     /* a block has the same bytes alone */
            quantise(type, x + i, 32, again + i / 32 * (int)type->bytes);
        CHECK(memcmp(bytes, again, (size_t)quant_bytes(type, N)) == 0, "%s: blocks", type->name);
        type->decode(bytes, y, N / 32);
        error[w] = 0;
        for (int i = 0; i < N; i++) error[w] += (double)(x[i] - y[i]) * (x[i] - y[i]) / N;
    }
    CHECK(error[1] < 0.9 * error[0], "q4_0: %g, without search %g", error[1], error[0]);
    CHECK(error[2] < 0.08 * error[1], "q6_0: %g, q4_0 %g", error[2], error[1]);
    free(x);
    free(y);
    free(bytes);
    free(again);
}

int main(void) {
    RUN(test_blocks);
    RUN(test_halves);
    RUN(test_overflow);
    RUN(test_underflow);
    RUN(test_search);
    return test_end();
}
