/* inside_formats.c - weights of every number format that the converter reads decode to the
 * reference's bits, and one weight of a tile to those of its row. */

#define GRIFFIN_IMPLEMENTATION
#include "griffin.h"
#include "test.h"

#include "tools/convert/dequantise.c"       /* in here, so that this runs where the tools do not */
#include "tools/convert/quantise.c"

static unsigned char *read_part(const char *name, const char *suffix, size_t *size) {
    char path[128];
    snprintf(path, sizeof path, "tests/data/quants/%s%s", name, suffix);
    unsigned char *data = test_read(path, size);
    CHECK(data, "%s cannot be read", path);
    return data;
}

/* Decodes from an odd address, and as a whole as well as block by block. */
static void check_decoding(const quant_type *format, const char *packed, const char *decoded) {
    size_t packed_size, decoded_size, i, bad = 0;
    unsigned char *p = read_part(format->name, packed, &packed_size);
    unsigned char *expected = read_part(format->name, decoded, &decoded_size);
    if (!p || !expected) return;
    size_t blocks = packed_size / format->bytes;
    CHECK(blocks * format->bytes == packed_size, "%s: %d bytes", format->name,
          (int)packed_size);
    CHECK(blocks * format->elements * 4 == decoded_size, "%s: %d values", format->name,
          (int)decoded_size);
    unsigned char *odd = (unsigned char *)malloc(packed_size + 1);
    float *all = (float *)malloc(decoded_size);
    float *one = (float *)malloc(decoded_size);
    memcpy(odd + 1, p, packed_size);
    format->decode(odd + 1, all, blocks);
    for (i = 0; i < blocks; i++) {
        format->decode(p + i * format->bytes, one + i * format->elements, 1);
    }
    for (i = 0; i < decoded_size / 4; i++) bad += grf_bits_from_float(all[i]) != grf_get_u32(expected + 4 * i);
    CHECK(bad == 0, "%s%s: %d of %d values differ", format->name, packed, (int)bad,
          (int)decoded_size / 4);
    CHECK(memcmp(all, one, decoded_size) == 0, "%s: blocks depend on each other", format->name);
    free(p); free(expected); free(odd); free(all); free(one);
}

static void test_blocks(void) {
    int tried = 0;
    for (int i = 0; i < GRF_COUNT(types); i++) {
        const quant_type *format = &types[i];
        if (format->elements == 1 || format->id == TILES_ONLY) continue;
        if (format->encode) check_decoding(format, ".bin", ".dequant.f32.bin");
        check_decoding(format, ".random.bin", ".random.dequant.f32.bin");
        tried++;
    }
    CHECK(tried == 10, "%d block formats", tried);
}

static void test_every_half(void) {
    size_t size;
    unsigned char *expected = read_part("f16", "_all_to_f32.bin", &size);
    if (!expected) return;
    CHECK(size == 65536 * 4, "%d bytes", (int)size);
    for (size_t i = 0; i < 65536; i++) {
        uint8_t bytes[2];
        float x;
        bytes[0] = (uint8_t)i;
        bytes[1] = (uint8_t)(i >> 8);
        decode_f16(bytes, &x, 1);
        CHECK(grf_bits_from_float(x) == grf_get_u32(expected + 4 * i), "half %04x is %08x, expected %08x",
              (unsigned)i, (unsigned)grf_bits_from_float(x), (unsigned)grf_get_u32(expected + 4 * i));
    }
    free(expected);
}

/* Floats that a bf16 holds exactly come back from it; all others come back nearly. */
static void test_bf16(void) {
    size_t size, count, exact = 0;
    unsigned char *bf16 = read_part("conv", ".bf16.bin", &size);
    unsigned char *f32 = read_part("conv", ".f32bits.bin", &count);
    float x;
    if (!bf16 || !f32) return;
    count /= 4;
    CHECK(size == 2 * count, "%d bytes for %d values", (int)size, (int)count);
    for (size_t i = 0; i < count; i++) {
        uint32_t bits = grf_get_u32(f32 + 4 * i);
        if ((bits & 0x7fffffff) > 0x7f800000) continue;
        decode_bf16(bf16 + 2 * i, &x, 1);
        uint32_t back = grf_bits_from_float(x);
        CHECK(back - bits + 0x8000 <= 0x10000, "%08x came back as %08x", (unsigned)bits,
              (unsigned)back);
        if ((bits & 0xffff) == 0) {
            CHECK(back == bits, "%08x came back as %08x", (unsigned)bits, (unsigned)back);
            exact++;
        }
    }
    CHECK(exact > 0, "no exact value among %d", (int)count);
    free(bf16); free(f32);
}

static void test_f32(void) {
    static const uint8_t bytes[12] = { 0, 0, 0x60, 0x40,  1, 0, 0, 0x80,  0, 0, 0x80, 0xff };
    float x[3];
    decode_f32(bytes, x, 3);
    CHECK(x[0] == 3.5f, "%g", (double)x[0]);
    CHECK(grf_bits_from_float(x[1]) == 0x80000001u, "%08x", (unsigned)grf_bits_from_float(x[1]));
    CHECK(grf_bits_from_float(x[2]) == 0xff800000u, "%08x", (unsigned)grf_bits_from_float(x[2]));
}

/* Formats that cannot be weights are known by name, numbers without meaning are not. */
static void test_table(void) {
    static const uint32_t unknown[] = {
        4, 5, 16, 29, 31, 33, 36, 38, 39, 99, 0x7fffffff, 0xffffffff
    };
    for (int i = 0; i < GRF_COUNT(unknown); i++) {
        CHECK(!grf_format_find(unknown[i]), "type %u has a name", (unsigned)unknown[i]);
    }
    for (int i = 0; i < GRF_COUNT(grf_formats); i++) {
        CHECK(grf_format_find(grf_formats[i].id) == &grf_formats[i], "%s: its number is not unique",
              grf_formats[i].name);
    }
    CHECK(grf_format_find(15) && !grf_format_find(15)->bytes, "q8_k is for activations only");
    for (int i = 0; i < GRF_COUNT(types); i++) {
        const grf_format *format = grf_format_find(types[i].id);
        if (types[i].id == TILES_ONLY) continue;
        CHECK(format && strcmp(format->name, types[i].name) == 0, "%s", types[i].name);
        CHECK(format && format->elements == types[i].elements && format->bytes == types[i].bytes,
              "%s", types[i].name);
    }
}

/* What the library takes out of a block of 32 rows is what the format's decoder makes of a row. The
 * places of the bytes are written down here once more. */
static void test_tilings(void) {
    for (int i = 0; i < GRF_TILINGS; i++) {
        const grf_tiling *tiling = &grf_tilings[i];
        const quant_type *type = quant_find(tiling->name);
        int plain = tiling->columns == 1, columns = tiling->columns, bytes = tiling->bytes / 32;
        static uint8_t block[1088], rows[32][34];
        float x[32];
        CHECK(type && (int)type->elements == columns && (int)type->bytes == bytes, "%s",
              tiling->name);
        if (!type) continue;
        for (int r = 0; r < 32; r++)
            for (int b = 0; b < bytes; b++) {
                int to = plain ? bytes * r + b : b < 2 ? 2 * r + b
                       : 64 + (b - 2) / 4 * 128 + 4 * r + (b - 2) % 4;
                int code = (r * 37 + b * 101) & (plain || b < 2 ? 0x3f : tiling->added == 128 ? 0x7f : 0xff);
                rows[r][b] = (uint8_t)code;
                block[to] = (uint8_t)(code + (b >= 2 && tiling->added == 128 ? 128 : 0));
            }
        grf_tiles_native_order(block, (uint64_t)tiling->bytes, tiling);
        for (int r = 0; r < 32; r++) {
            type->decode(rows[r], x, 1);
            for (int c = 0; c < columns; c++)
                CHECK(tiling->weight(block, r, c) == x[c], "%s, row %d, column %d: %g, not %g",
                      tiling->name, r, c, (double)tiling->weight(block, r, c), (double)x[c]);
        }
    }
}

int main(void) {
    RUN(test_blocks);
    RUN(test_every_half);
    RUN(test_bf16);
    RUN(test_f32);
    RUN(test_table);
    RUN(test_tilings);
    return test_end();
}
