/* inside_files.c - sound GGUF files say what they say; damaged ones are refused, and no byte
 * outside of the file is ever looked at (run it under a memory checker).
 *
 * tests/data/gguf/manifest.tsv lists what the sound files hold, worked out independently:
 *     file    name  version  metadata pairs  tensors
 *     kv      key  type  element type  count  elements as they are in the file, in hex
 *     tensor  name  type  rank  ne[0] .. ne[3]  offset in the file  bytes
 *             bits of the first and of the last element decoded to float, in hex */

#define GRIFFIN_IMPLEMENTATION
#include "griffin.h"
#include "test.h"

#include "tools/convert/dequantise.c"       /* in here, so that this runs where the tools do not */
#include "tools/convert/quantise.c"

#define DATA "tests/data/gguf/"

static const char *sound_files[] = {
    DATA "alltypes.gguf", DATA "align64.gguf", DATA "vocab_only.gguf",
    DATA "tiny_griffin.gguf", DATA "candle_like_v2.gguf"
};
#define SMALL 3                             /* so many of them are small */

static char message[400];
static grf_host host;

static void reset_host(void) {
    memset(&host, 0, sizeof host);
    memset(message, 0, sizeof message);
    host.file = "x";
    host.error = message;
    host.error_size = sizeof message;
}

/* The lines of a text file, split at tabs; null after the last. */
#define FIELDS 12
static char **next_line(char **rest, char **fields) {
    char *p = *rest;
    int n = 1;
    if (!p || !*p) return NULL;
    memset(fields, 0, FIELDS * sizeof *fields);
    for (fields[0] = p; *p && *p != '\n'; p++) {
        if (*p == '\t' && n < FIELDS) { *p = 0; fields[n++] = p + 1; }
    }
    *rest = *p ? p + 1 : p;
    *p = 0;
    return fields;
}

unsigned touched;                           /* not static: the reading must not be optimised away */

/* Reads every byte that a file lays claim to. */
static unsigned touch(const grf_gguf *g) {
    unsigned sum = 0;
    uint64_t j, length;
    const char *text;
    for (uint64_t i = 0; i < g->n_kv; i++) {
        const uint8_t *p = g->data + g->kv[i].offset, *end = p;
        for (j = 0; j < g->kv[i].name.length; j++) sum += (unsigned char)g->kv[i].name.text[j];
        if (g->kv[i].element_type == GRIFFIN_VALUE_STRING) {
            for (j = 0; j < g->kv[i].count; j++) end = grf_gguf_next_string(end, &text, &length);
        } else {
            end += g->kv[i].count * grf_values[g->kv[i].element_type].bytes;
        }
        while (p < end) sum += *p++;
    }
    for (uint64_t i = 0; i < g->n_tensors; i++) {
        const uint8_t *p = g->data + g->tensors[i].offset;
        for (j = 0; j < g->tensors[i].bytes; j++) sum += p[j];
        for (j = 0; j < g->tensors[i].name.length; j++)
            sum += (unsigned char)g->tensors[i].name.text[j];
    }
    return sum;
}

/* Opens bytes, touches all they claim, closes. any_type is for files that are only looked into. */
static int open_and_touch(const void *data, size_t size, int any_type) {
    grf_gguf g;
    int result = grf_gguf_open(&g, data, size, any_type, &host);
    if (result == GRIFFIN_OK) {
        touched += touch(&g);
        grf_gguf_close(&g, &host);
    }
    return result;
}

static int try_open(const void *data, size_t size) {
    return open_and_touch(data, size, 0);
}

/* ---- sound files -------------------------------------------------------------------- */

static void check_kv(const grf_gguf *g, uint64_t index, char **field) {
    const grf_kv *kv = grf_gguf_find(g, field[1]);
    const char *hex;
    uint64_t i;
    unsigned byte;
    CHECK(kv && kv == &g->kv[index], "%s: not found, or not number %d", field[1], (int)index);
    if (!kv) return;
    CHECK(kv->type == (uint32_t)atoi(field[2]), "%s: type %u", field[1], (unsigned)kv->type);
    CHECK(kv->element_type == (uint32_t)atoi(field[3]), "%s: of type %u", field[1],
          (unsigned)kv->element_type);
    CHECK(kv->count == (uint64_t)atoi(field[4]), "%s: %u", field[1], (unsigned)kv->count);
    for (i = 0, hex = field[5]; sscanf(hex, "%2x", &byte) == 1; i++, hex += 2) {
        if (g->data[kv->offset + i] == byte) continue;
        CHECK(0, "%s: byte %d is not %02x", field[1], (int)i, byte);
        break;
    }
    CHECK(*hex == 0 || *hex == '-', "%s: the value differs", field[1]);
}

static void check_tensor(const grf_gguf *g, uint64_t index, char **field) {
    const grf_tensor *t = grf_gguf_tensor(g, field[1]);
    CHECK(t && t == &g->tensors[index], "%s: not found, or not number %d", field[1], (int)index);
    if (!t) return;
    CHECK(t->type == (uint32_t)atoi(field[2]), "%s: type %u", field[1], (unsigned)t->type);
    CHECK(t->rank == atoi(field[3]), "%s: rank %d", field[1], t->rank);
    for (int i = 0; i < 4; i++) {
        CHECK(t->ne[i] == (uint64_t)atoi(field[4 + i]), "%s: ne[%d] is %u", field[1], i,
              (unsigned)t->ne[i]);
    }
    CHECK(t->offset == (uint64_t)atoi(field[8]), "%s: offset %u", field[1], (unsigned)t->offset);
    CHECK(t->bytes == (uint64_t)atoi(field[9]), "%s: %u bytes", field[1], (unsigned)t->bytes);
    CHECK(t->elements == t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3], "%s: %u elements", field[1],
          (unsigned)t->elements);
    float *x = (float *)malloc((size_t)t->elements * sizeof *x);
    const quant_type *type = quant_find(grf_format_find(t->type)->name);
    CHECK(type && quant_bytes(type, t->elements) == t->bytes, "%s: bytes", field[1]);
    type->decode(g->data + t->offset, x, t->elements / type->elements);
    CHECK(grf_bits_from_float(x[0]) == strtoul(field[10], NULL, 16), "%s: starts with %g", field[1],
          (double)x[0]);
    CHECK(grf_bits_from_float(x[t->elements - 1]) == strtoul(field[11], NULL, 16), "%s: ends with %g",
          field[1], (double)x[t->elements - 1]);
    free(x);
}

static void test_sound_files_agree_with_the_manifest(void) {
    size_t size;
    uint64_t kvs = 0, tensors = 0;
    int files = 0;
    char *manifest = (char *)test_read(DATA "manifest.tsv", &size), *rest = manifest;
    char *field[FIELDS], path[128];
    unsigned char *data = NULL;
    grf_gguf g;
    memset(&g, 0, sizeof g);
    reset_host();
    CHECK(manifest, "no manifest");
    while (next_line(&rest, field)) {
        if (strcmp(field[0], "kv") == 0) check_kv(&g, kvs++, field);
        if (strcmp(field[0], "tensor") == 0) check_tensor(&g, tensors++, field);
        if (strcmp(field[0], "file") != 0) continue;
        CHECK(kvs == g.n_kv && tensors == g.n_tensors, "%d, %d", (int)kvs, (int)tensors);
        grf_gguf_close(&g, &host);
        free(data);
        snprintf(path, sizeof path, DATA "%s", field[1]);
        data = test_read(path, &size);
        CHECK(data && grf_gguf_open(&g, data, size, 0, &host) == GRIFFIN_OK, "%s: %s", path, message);
        CHECK(g.version == (uint32_t)atoi(field[2]), "%s: version %u", path, (unsigned)g.version);
        CHECK(g.n_kv == (uint64_t)atoi(field[3]), "%s: %u pairs", path, (unsigned)g.n_kv);
        CHECK(g.n_tensors == (uint64_t)atoi(field[4]), "%s: %u", path, (unsigned)g.n_tensors);
        kvs = tensors = 0;
        files++;
    }
    CHECK(kvs == g.n_kv && tensors == g.n_tensors, "%d, %d", (int)kvs, (int)tensors);
    CHECK(files == GRF_COUNT(sound_files), "%d files", files);
    CHECK(message[0] == 0, "%s", message);
    grf_gguf_close(&g, &host);
    free(data);
    free(manifest);
}

/* ---- getters -------------------------------------------------------------------------- */

static void check_uint(const grf_gguf *g, const char *key, uint64_t max, int result,
                       uint64_t expected) {
    uint64_t value = 77;
    message[0] = 0;
    int got = grf_gguf_get_uint(g, key, max, &value, &host);
    CHECK(got == result, "%s: %d: %s", key, got, message);
    CHECK(value == expected, "%s: %u", key, (unsigned)value);
    CHECK(result >= 0 || strstr(message, key), "%s: the message is '%s'", key, message);
}

static void check_float(const grf_gguf *g, const char *key, int result, float expected) {
    float value = 77;
    message[0] = 0;
    int got = grf_gguf_get_float(g, key, &value, &host);
    CHECK(got == result, "%s: %d: %s", key, got, message);
    CHECK(value == expected, "%s: %.9g", key, (double)value);
    CHECK(result >= 0 || strstr(message, key), "%s: the message is '%s'", key, message);
}

static void check_getters(const grf_gguf *g) {
    const int wrong = GRIFFIN_E_FORMAT;
    const char *text = NULL;
    uint64_t length = 0;
    const grf_kv *array = NULL;
    int yes = 77;

    check_uint(g, "t.u8", 255, 1, 200);
    check_uint(g, "t.u16", UINT64_MAX, 1, 60000);
    check_uint(g, "t.u32", UINT64_MAX, 1, 4000000000u);
    check_uint(g, "t.u64", UINT64_MAX, 1, 9223372036854775813u);
    check_uint(g, "t.u8", 200, 1, 200);
    check_uint(g, "t.u8", 199, wrong, 77);
    check_uint(g, "t.i8", UINT64_MAX, wrong, 77);
    check_uint(g, "t.i64", UINT64_MAX, wrong, 77);
    check_uint(g, "t.f32", UINT64_MAX, wrong, 77);
    check_uint(g, "t.bool_t", UINT64_MAX, wrong, 77);
    check_uint(g, "t.a_u32", UINT64_MAX, wrong, 77);
    check_uint(g, "t.none", UINT64_MAX, 0, 77);
    check_uint(g, "", UINT64_MAX, 0, 77);

    check_float(g, "t.f32", 1, 0.1f);
    check_float(g, "t.f64", 1, (float)(1.0 / 3));
    check_float(g, "t.u8", 1, 200.0f);
    check_float(g, "t.i8", 1, -100.0f);
    check_float(g, "t.i16", 1, -30000.0f);
    check_float(g, "t.i32", 1, -2000000000.0f);
    check_float(g, "t.i64", 1, -4611686018427387904.0f);
    check_float(g, "t.u64", 1, 9223372036854775808.0f);
    check_float(g, "t.str", wrong, 77);
    check_float(g, "t.a_f32", wrong, 77);
    check_float(g, "t.none", 0, 77);

    CHECK(grf_gguf_get_bool(g, "t.bool_f", &yes, &host) == 1 && yes == 0, "%d", yes);
    CHECK(grf_gguf_get_bool(g, "t.bool_t", &yes, &host) == 1 && yes == 1, "%d", yes);
    CHECK(grf_gguf_get_bool(g, "t.u8", &yes, &host) == wrong, "%d", yes);
    CHECK(grf_gguf_get_bool(g, "t.none", &yes, &host) == 0 && yes == 1, "%d", yes);

    CHECK(grf_gguf_get_string(g, "t.none", &text, &length, &host) == 0 && !text, "%s", text);
    CHECK(grf_gguf_get_string(g, "t.str_nul", &text, &length, &host) == 1, "%s", message);
    CHECK(length == 3 && memcmp(text, "a\0b", 3) == 0, "%u bytes", (unsigned)length);
    CHECK(grf_gguf_get_string(g, "t.str_empty", &text, &length, &host) == 1, "%s", message);
    CHECK(length == 0, "%u bytes", (unsigned)length);
    CHECK(grf_gguf_get_string(g, "t.a_str", &text, &length, &host) == wrong, "%s", message);

    CHECK(grf_gguf_get_array(g, "t.none", GRIFFIN_VALUE_U8, &array, &host) == 0 && !array,
          "not null");
    CHECK(grf_gguf_get_array(g, "t.a_u8", GRIFFIN_VALUE_I8, &array, &host) == wrong, "%s", message);
    CHECK(grf_gguf_get_array(g, "t.u8", GRIFFIN_VALUE_U8, &array, &host) == wrong, "%s", message);
    CHECK(grf_gguf_get_array(g, "t.a_i32", GRIFFIN_VALUE_I32, &array, &host) == 1, "%s", message);
    CHECK(array && array->count == 2 && grf_get_u32(g->data + array->offset) == 0u - 7, "t.a_i32");
    CHECK(grf_gguf_get_array(g, "t.a_empty_str", GRIFFIN_VALUE_STRING, &array, &host) == 1, "%s",
          message);
    CHECK(array && array->count == 0, "t.a_empty_str");
}

static void check_strings(const grf_gguf *g) {
    static const char *const expected[4] = { "", "a", "bb", "\xc3\xa9" };
    const grf_kv *array = NULL;
    const char *text;
    uint64_t length;
    CHECK(grf_gguf_get_array(g, "t.a_str", GRIFFIN_VALUE_STRING, &array, &host) == 1, "%s",
          message);
    if (!array) return;
    const uint8_t *at = g->data + array->offset;
    CHECK(array->count == 4, "%u", (unsigned)array->count);
    for (uint64_t i = 0; i < array->count; i++) {
        at = grf_gguf_next_string(at, &text, &length);
        CHECK(length == strlen(expected[i]) && memcmp(text, expected[i], (size_t)length) == 0,
              "text %d is '%.*s'", (int)i, (int)length, text);
    }
}

static void test_getters(void) {
    size_t size;
    unsigned char *data = test_read(DATA "alltypes.gguf", &size);
    grf_gguf g;
    reset_host();
    CHECK(data && grf_gguf_open(&g, data, size, 0, &host) == GRIFFIN_OK, "%s", message);
    check_getters(&g);
    check_strings(&g);
    CHECK(grf_gguf_tensor(&g, "x3d") && grf_gguf_tensor(&g, "x3d")->rank == 3, "x3d");
    CHECK(!grf_gguf_tensor(&g, "x3"), "found a name that is not there");
    CHECK(!grf_gguf_tensor(&g, "x3dd"), "found a name that is not there");
    CHECK(!grf_gguf_tensor(&g, "an endless name that no file can hold, since sixty-three "
                               "bytes are the limit"), "found a name that is not there");
    grf_gguf_close(&g, &host);
    free(data);
}

/* A file of one pair "k": f64 or f32 that no float can hold as a finite number. */
static void test_numbers_must_be_finite(void) {
    static const struct { uint8_t type; uint64_t bits; } bad[] = {
        { GRIFFIN_VALUE_F32, 0x7f800000u }, { GRIFFIN_VALUE_F32, 0xffc00000u },
        { GRIFFIN_VALUE_F64, 0x7ff8000000000000u },
        { GRIFFIN_VALUE_F64, 0x47f0000000000000u }                                      /* 2^128 */
    };
    reset_host();
    for (int i = 0; i < GRF_COUNT(bad); i++) {
        uint8_t file[24 + 9 + 4 + 8];
        grf_gguf g;
        size_t size = sizeof file - (bad[i].type == GRIFFIN_VALUE_F32 ? 4 : 0);
        memset(file, 0, sizeof file);
        memcpy(file, "GGUF\3", 5);
        file[16] = 1;
        file[24] = 1;
        file[32] = 'k';
        file[33] = bad[i].type;
        grf_put_u64(file + 37, bad[i].bits);
        CHECK(grf_gguf_open(&g, file, size, 0, &host) == GRIFFIN_OK, "%d: %s", i, message);
        check_float(&g, "k", GRIFFIN_E_FORMAT, 77);
        grf_gguf_close(&g, &host);
    }
}

/* ---- damaged files ---------------------------------------------------------------------- */

static int code_of(const char *name) {
    if (strcmp(name, "VERSION") == 0) return GRIFFIN_E_VERSION;
    if (strcmp(name, "UNSUPPORTED") == 0) return GRIFFIN_E_UNSUPPORTED;
    return GRIFFIN_E_FORMAT;
}

/* Opens every file of a list, each in a block of exactly its size. */
static void check_list(const char *folder, int sound, int expected_files) {
    char path[128], *list, *rest, *field[FIELDS];
    size_t size;
    int files = 0;
    snprintf(path, sizeof path, DATA "%s/list.tsv", folder);
    rest = list = (char *)test_read(path, &size);
    CHECK(list, "%s", path);
    while (next_line(&rest, field)) {
        snprintf(path, sizeof path, DATA "%s/%s", folder, field[0]);
        unsigned char *data = test_read(path, &size);
        CHECK(data, "%s cannot be read", path);
        if (!data) continue;
        unsigned char *exact = (unsigned char *)malloc(size ? size : 1);
        memcpy(exact, data, size);
        reset_host();
        int code = try_open(exact, size);
        CHECK(code == (sound ? GRIFFIN_OK : code_of(field[1])), "%s: %d: %s", path, code, message);
        CHECK(sound || strlen(message) > 10, "%s (%s): no message", path, field[2]);
        int odd_type = strstr(message, "cannot be read") != NULL;
        CHECK(open_and_touch(exact, size, 1) == (odd_type ? GRIFFIN_OK : code), "%s: any type", path);
        files++;
        free(exact);
        free(data);
    }
    CHECK(files == expected_files, "%s: %d files", folder, files);
    free(list);
}

static void test_damaged_files_are_refused(void) { check_list("malformed", 0, 97); }
static void test_bad_vocabularies_in_sound_files(void) { check_list("malformed_vocab", 1, 23); }

static void test_every_prefix(void) {
    size_t size;
    for (int i = 0; i < SMALL; i++) {
        unsigned char *data = test_read(sound_files[i], &size);
        CHECK(data, "%s", sound_files[i]);
        for (size_t n = 0; data && n < size; n++) {
            unsigned char *exact = (unsigned char *)malloc(n ? n : 1);
            memcpy(exact, data, n);
            reset_host();
            int result = try_open(exact, n);
            CHECK(result == GRIFFIN_OK || message[0], "%s: %d bytes: no message", sound_files[i],
                  (int)n);
            CHECK(result == GRIFFIN_E_FORMAT || n + 32 > size, "%s: %d bytes of %d: %d",
                  sound_files[i], (int)n, (int)size, result);
            free(exact);
        }
        free(data);
    }
}

static void test_every_flipped_byte(void) {
    static const uint8_t flips[] = { 1, 2, 4, 8, 16, 32, 64, 128, 255 };
    size_t size;
    int refused = 0;
    for (int i = 0; i < SMALL; i++) {
        unsigned char *data = test_read(sound_files[i], &size);
        unsigned char *exact = (unsigned char *)malloc(size);
        memcpy(exact, data, size);
        for (size_t n = 0; n < size; n++) {
            for (int flip = 0; flip < GRF_COUNT(flips); flip++) {
                exact[n] ^= flips[flip];
                reset_host();
                open_and_touch(exact, size, 1);
                if (try_open(exact, size) != GRIFFIN_OK) {
                    CHECK(message[0], "%s: byte %d: no message", sound_files[i], (int)n);
                    refused++;
                }
                exact[n] ^= flips[flip];
            }
        }
        CHECK(try_open(exact, size) == GRIFFIN_OK, "%s: %s", sound_files[i], message);
        free(exact);
        free(data);
    }
    CHECK(refused > 1000, "%d", refused);
}

/* ---- memory ------------------------------------------------------------------------------ */

typedef struct ration { int left, live; size_t largest; } ration;

static void *ration_allocate(size_t size, void *user) {
    ration *r = (ration *)user;
    if (size > r->largest) r->largest = size;
    if (r->left-- <= 0) return NULL;
    r->live++;
    return malloc(size);
}

static void ration_release(void *memory, void *user) {
    ((ration *)user)->live--;
    free(memory);
}

static void ration_host(ration *r, int left) {
    reset_host();
    memset(r, 0, sizeof *r);
    r->left = left;
    host.allocator.allocate = ration_allocate;
    host.allocator.release = ration_release;
    host.allocator.user = r;
}

static void test_a_failing_allocator(void) {
    ration r;
    size_t size;
    int n, result;
    for (int i = 0; i < GRF_COUNT(sound_files); i++) {
        unsigned char *data = test_read(sound_files[i], &size);
        for (n = 0, result = -1; result < 0 && n < 20; n++) {
            ration_host(&r, n);
            result = try_open(data, size);
            CHECK(result == GRIFFIN_OK || result == GRIFFIN_E_MEMORY, "%d: %s", result, message);
            CHECK(r.live == 0, "%s: %d blocks leaked", sound_files[i], r.live);
        }
        CHECK(result == GRIFFIN_OK, "%s: %s", sound_files[i], message);
        free(data);
    }
}

/* Damaged files neither leak nor make the reader ask for much more than their own size. */
static void test_damaged_files_take_no_memory(void) {
    char path[128], *field[FIELDS];
    size_t size;
    char *list = (char *)test_read(DATA "malformed/list.tsv", &size), *rest = list;
    ration r;
    while (next_line(&rest, field)) {
        snprintf(path, sizeof path, DATA "malformed/%s", field[0]);
        unsigned char *data = test_read(path, &size);
        ration_host(&r, 20);
        CHECK(try_open(data, size) < 0, "%s was accepted", path);
        CHECK(r.live == 0, "%s: %d blocks leaked", path, r.live);
        CHECK(r.largest <= 8 * size + 512, "%s: %d bytes for %d", path, (int)r.largest, (int)size);
        free(data);
    }
    free(list);
}

/* ---- tables -------------------------------------------------------------------------------- */

static void test_table(void) {
    enum { MOST = 2000 };
    static struct { grf_name name; int number; } records[MOST];
    static char texts[MOST][8];
    grf_table table;
    reset_host();
    for (int n = 0; n < MOST; n += n < 20 ? 1 : 660) {
        CHECK(grf_table_make(&table, (uint64_t)n, &host) == GRIFFIN_OK, "%s", message);
        for (int i = 0; i < n; i++) {
            records[i].name.text = texts[i];
            records[i].name.length = (uint64_t)sprintf(texts[i], "%x", i);
            CHECK(!grf_table_find(&table, records, sizeof *records, texts[i], strlen(texts[i])),
                  "%s is there already", texts[i]);
            CHECK(grf_table_add(&table, grf_text_hash(texts[i], strlen(texts[i])), i, &host)
                  == GRIFFIN_OK, "%s", message);
        }
        for (int i = 0; i < n; i++)
            CHECK(grf_table_find(&table, records, sizeof *records, texts[i], strlen(texts[i]))
                  == &records[i], "%s of %d is lost", texts[i], n);
        CHECK(!grf_table_find(&table, records, sizeof *records, "x", 1), "x is not there");
        CHECK(!grf_table_find(&table, records, sizeof *records, "", 0), "nothing is not there");
        grf_host_release(&host, table.entries);
    }
}

/* Names whose hashes agree would make every search a long one. */
static void test_collisions(void) {
    grf_table table;
    int n = 0;
    reset_host();
    CHECK(grf_table_make(&table, 4000, &host) == GRIFFIN_OK, "%s", message);
    while (n < 4000 && grf_table_add(&table, 77, n, &host) == GRIFFIN_OK) n++;
    CHECK(n == 1001 && strstr(message, "collide"), "%d: %s", n, message);
    grf_host_release(&host, table.entries);
}

int main(void) {
    RUN(test_sound_files_agree_with_the_manifest);
    RUN(test_getters);
    RUN(test_numbers_must_be_finite);
    RUN(test_damaged_files_are_refused);
    RUN(test_bad_vocabularies_in_sound_files);
    RUN(test_every_prefix);
    RUN(test_every_flipped_byte);
    RUN(test_a_failing_allocator);
    RUN(test_damaged_files_take_no_memory);
    RUN(test_table);
    RUN(test_collisions);
    return test_end();
}
