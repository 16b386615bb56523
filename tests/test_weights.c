/* Promise: the readers of the converter (JSON, safetensors, shards, .pt) accept every valid file
 * with the right names, types, shapes and values, refuse every malformed one with a message, and
 * never read outside a file (run this under a sanitizer). */

#include "test.h"

#include "../tools/shared/checked.h"
#include "../tools/shared/json.h"
#include "../tools/convert/checkpoint.h"
#include "../tools/convert/safetensors.h"
#include "../tools/convert/torch.h"

#include <math.h>

#define DATA "tests/data/"

typedef int (*memory_opener)(weights *w, const void *data, uint64_t size, const char *name,
                             report *r);

static memory_opener opener_of(const char *path) {
    size_t n = strlen(path);
    if (strcmp(path + n - 3, ".pt") == 0) return weights_open_torch_memory;
    return weights_open_safetensors_memory;
}

static int open_any(weights *w, const char *path, report *r) {
    size_t n = strlen(path);
    if (strcmp(path + n - 3, ".pt") == 0) return weights_open_torch(w, path, r);
    if (strcmp(path + n - 5, ".json") == 0) return weights_open_sharded(w, path, r);
    return weights_open_safetensors(w, path, r);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static json_kind last_kind(const char *text, size_t size) {
    unsigned char *copy = malloc(size ? size : 1);
    json j;
    memcpy(copy, text, size);
    json_start(&j, copy, size);
    while (json_next(&j) > JSON_END) continue;
    json_kind kind = j.kind;
    CHECK((kind == JSON_ERROR) == (j.error[0] != 0), "%s", text);
    CHECK(json_next(&j) == kind, "the end of %s does not last", text);
    json_stop(&j);
    free(copy);
    return kind;
}

static void test_json_grammar(void) {
    static const char *good[] = {
        "0", "-0", "12", "1e5", "1.5E-3", "\"\"", " \t\r\n[ ] ", "{}", "[[],{}]", "true", "false",
        "null", "{\"a\":1,\"b\":[1,2,{\"a\":3}]}", "[\"\\u00e9\\ud83d\\ude00\"]",
        "\"\xF4\x8F\xBF\xBF\"", "{\"\":0}", "[{\"a\":0},{\"a\":0}]"
    };
    static const char *bad[] = {
        "", " ", "01", "+1", "1.", ".5", "1e", "1e+", "-", "--1", "0x1", "1 2", "[1,]", "[,1]",
        "[1 2]", "{\"a\":1,}", "{,}", "{\"a\"}", "{\"a\" 1}", "{a:1}", "{1:1}", "['a']", "[", "]",
        "{", "}", "[}", "{]", "[1}", "{\"a\":}", "\"", "\"a", "\"\\", "\"\\\"", "\"\\x\"",
        "\"\\u12\"", "\"\\u12g4\"",
        "\"\\ud800\"", "\"\\ud800\\n\"", "\"\\ud800\\ud800\"", "\"\\udc00\"", "\"\n\"", "\"\x80\"",
        "\"\xC0\x80\"", "\"\xC3\"", "\"\xED\xA0\x80\"", "\"\xF4\x90\x80\x80\"", "\"\xE0\x80\x80\"",
        "\"\xF0\x80\x80\x80\"", "\"\xF8\x88\x80\x80\x80\"", "tru", "truE", "nul", "NaN", "Infinity",
        "// a\n1", "/**/1", "\xEF\xBB\xBF[]", "[1]]", "[1],", "1\v", "{\"a\":1,\"a\":2}",
        "{\"a\":1,\"\\u0061\":2}", "{\"b\":{\"x\":1,\"y\":2,\"x\":3}}", "[1,\xA0 2]"
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        CHECK(last_kind(good[i], strlen(good[i])) == JSON_END, "refused: %s", good[i]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK(last_kind(bad[i], strlen(bad[i])) == JSON_ERROR, "accepted: %s", bad[i]);
    }
    CHECK(last_kind("1\0", 2) == JSON_ERROR, "NUL after the value");
    CHECK(last_kind("\"\0\"", 3) == JSON_ERROR, "NUL in a string");
}

static void test_json_depth(void) {
    char text[2 * (JSON_DEPTH + 1)];
    memset(text, '[', JSON_DEPTH);
    memset(text + JSON_DEPTH, ']', JSON_DEPTH);
    CHECK(last_kind(text, 2 * JSON_DEPTH) == JSON_END, "%d levels", JSON_DEPTH);
    memset(text, '[', JSON_DEPTH + 1);
    memset(text + JSON_DEPTH + 1, ']', JSON_DEPTH + 1);
    CHECK(last_kind(text, sizeof text) == JSON_ERROR, "%d levels", JSON_DEPTH + 1);
}

static void test_json_strings(void) {
    static const char text[] =
        "\"a\\\"b\\\\\\/\\b\\f\\n\\r\\t\\u0000\\u007f\\u0080\\u07FF\\u0800\\uffff\\ud800\\udc00z\"";
    static const char expected[] =
        "a\"b\\/\b\f\n\r\t\0\x7F\xC2\x80\xDF\xBF\xE0\xA0\x80\xEF\xBF\xBF\xF0\x90\x80\x80z";
    json j;
    json_start(&j, text, sizeof text - 1);
    CHECK(json_next(&j) == JSON_STRING, "%s", j.error);
    CHECK(j.length == sizeof expected - 1 && memcmp(j.text, expected, j.length) == 0, "unescaped");
    CHECK(json_next(&j) == JSON_END, "%s", j.error);
    json_stop(&j);
}

static void test_json_numbers(void) {
    static const struct { const char *text; json_kind kind; double number; } cases[] = {
        {"0", JSON_INT, 0}, {"-7", JSON_INT, -7}, {"1e6", JSON_FLOAT, 1e6},
        {"9007199254740993", JSON_INT, 9007199254740992.0}, {"1e-06", JSON_FLOAT, 1e-06},
        {"10000.0", JSON_FLOAT, 10000.0}, {"30.0", JSON_FLOAT, 30},
        {"0.07692307692307693", JSON_FLOAT, 0.07692307692307693}, {"-0.5", JSON_FLOAT, -0.5},
        {"1E22", JSON_FLOAT, 1e22}, {"123456789e-22", JSON_FLOAT, 123456789e-22},
        {"0.1", JSON_FLOAT, 0.1}, {"0e999999999999999999999", JSON_FLOAT, 0},
        {"1e-999999999999999999999", JSON_FLOAT, 0}, {"1e999999999999999999", JSON_FLOAT, HUGE_VAL},
        {"18446744073709551616", JSON_FLOAT, 18446744073709551616.0},
        {"-9223372036854775809", JSON_FLOAT, -9223372036854775808.0}
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json j;
        json_start(&j, cases[i].text, strlen(cases[i].text));
        CHECK(json_next(&j) == cases[i].kind, "%s is of kind %d", cases[i].text, (int)j.kind);
        CHECK(j.number == cases[i].number, "%s gave %.17g", cases[i].text, j.number);
        json_stop(&j);
    }
}

static void test_json_integers(void) {
    static const struct {
        const char *text;
        int64_t integer;
        uint64_t natural;
        int is_natural;
    } cases[] = {
        {"0", 0, 0, 1}, {"-0", 0, 0, 0}, {"-1", -1, 0, 0},
        {"9223372036854775807", INT64_MAX, INT64_MAX, 1}, {"-9223372036854775808", INT64_MIN, 0, 0},
        {"9223372036854775808", INT64_MAX, (uint64_t)1 << 63, 1},
        {"18446744073709551615", INT64_MAX, UINT64_MAX, 1}
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json j;
        json_start(&j, cases[i].text, strlen(cases[i].text));
        CHECK(json_next(&j) == JSON_INT, "%s", cases[i].text);
        CHECK(j.integer == cases[i].integer && j.natural == cases[i].natural &&
              j.is_natural == cases[i].is_natural, "%s", cases[i].text);
        json_stop(&j);
    }
}

static void test_json_skip(void) {
    static const char text[] = "{\"a\":{\"b\":[1,{\"c\":[]}]},\"d\":7,\"e\":[[2],3]}";
    json j;
    json_start(&j, text, sizeof text - 1);
    json_next(&j);
    CHECK(json_next(&j) == JSON_KEY && json_key_is(&j, "a") && !json_key_is(&j, "ab"), "key a");
    CHECK(json_skip(&j) == 0 && j.kind == JSON_OBJECT_END, "from a key over an object");
    CHECK(json_next(&j) == JSON_KEY && json_key_is(&j, "d"), "key d");
    CHECK(json_skip(&j) == 0 && j.kind == JSON_INT && j.integer == 7, "over a number");
    CHECK(json_next(&j) == JSON_KEY && json_next(&j) == JSON_ARRAY, "array e");
    CHECK(json_skip(&j) == 0 && j.kind == JSON_ARRAY_END, "over the array itself");
    CHECK(json_next(&j) == JSON_OBJECT_END && json_next(&j) == JSON_END, "the end");
    json_stop(&j);
}

static void test_names(void) {
    names n;
    char text[16];
    memset(&n, 0, sizeof n);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 5000; i++) {
            int length = snprintf(text, sizeof text, "name%d", i);
            n.scope = (uint32_t)i % 2;
            int added = names_add(&n, text, (size_t)length);
            CHECK(added == !round, "%s in round %d", text, round);
        }
    }
    n.scope = 1;
    CHECK(names_add(&n, "name0", 5) == 1, "the same name in another scope");
    CHECK(names_add(&n, "", 0) == 1 && names_add(&n, "", 0) == 0, "an empty name");
    names_free(&n);
}

/* ---- valid files ----------------------------------------------------------------------------- */

static uint32_t crc32_of(uint32_t crc, const unsigned char *p, uint64_t size) {
    int bit;
    for (crc = ~crc; size; size--, p++) {
        for (crc ^= *p, bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
    }
    return ~crc;
}

/* The address of an element by its row-major number, in the plainest way. */
static const unsigned char *element_at(const weight *t, uint64_t number, uint64_t size) {
    uint64_t offset = 0;
    for (int i = t->rank - 1; i >= 0; i--) {
        offset += number % t->shape[i] * (uint64_t)t->stride[i];
        number /= t->shape[i];
    }
    return t->data + offset * size;
}

static uint32_t crc_of_tensor(const weight *t) {
    uint64_t size = t->elements ? t->bytes / t->elements : 0;
    uint32_t crc = 0;
    for (uint64_t i = 0; i < t->elements; i++) crc = crc32_of(crc, element_at(t, i, size), size);
    return crc;
}

/* Reads in pieces of all sizes up to 7 and compares with one read of everything. */
static void check_pieces(const weight *t) {
    uint64_t count;
    float all[4096], part[8];
    report r;
    CHECK(t->elements <= 4096 && weight_read(t, 0, t->elements, all, &r) == 0, "%s", t->name);
    for (uint64_t first = 0; first < t->elements; first++) {
        count = first % 7 + 1;
        if (count > t->elements - first) count = t->elements - first;
        CHECK(weight_read(t, first, count, part, &r) == 0, "%s: %s", t->name, r.text);
        CHECK(memcmp(part, all + first, count * sizeof(float)) == 0, "%s at %d", t->name,
              (int)first);
    }
    CHECK(weight_read(t, t->elements, 0, part, &r) == 0, "%s: nothing at the end", t->name);
    CHECK(weight_read(t, t->elements, 1, part, &r) < 0, "%s: one too many", t->name);
    CHECK(weight_read(t, t->elements + 1, 0, part, &r) < 0, "%s: beyond", t->name);
    CHECK(weight_read(t, 1, UINT64_MAX, part, &r) < 0, "%s: wrapping count", t->name);
}

/* The members of one tensor of a manifest against the tensor. `t` is set when its name comes. */
static void check_first(json *j, const weight *t) {
    float value;
    report r;
    uint64_t i = 0;
    json_next(j);
    for (; json_next(j) != JSON_ARRAY_END && j->kind != JSON_ERROR; i++) {
        if (t->type == WEIGHT_OTHER || j->kind == JSON_NULL) continue;
        CHECK(weight_read(t, i, 1, &value, &r) == 0 && value == (float)j->number, "%s: %g, not %g",
              t->name, (double)value, j->number);
    }
}

static void check_shape(json *j, const weight *t) {
    int rank = 0;
    json_next(j);
    while (json_next(j) == JSON_INT) {
        CHECK(rank < t->rank && t->shape[rank] == j->natural, "%s: size %d", t->name, rank);
        rank++;
    }
    CHECK(rank == t->rank, "%s: rank %d, not %d", t->name, t->rank, rank);
}

static void check_member(json *j, const weight *t) {
    char crc[16];
    snprintf(crc, sizeof crc, "%08lx", (unsigned long)crc_of_tensor(t));
    if (json_key_is(j, "shape")) { check_shape(j, t); return; }
    if (json_key_is(j, "first")) { check_first(j, t); return; }
    if (json_key_is(j, "dtype")) {
        json_next(j);
        CHECK(json_text_is(j, t->type_name), "%s is %s", t->name, t->type_name);
    } else if (json_key_is(j, "crc32") || json_key_is(j, "contiguous_crc32")) {
        json_next(j);
        CHECK(json_text_is(j, crc), "%s has CRC-32 %s", t->name, crc);
    } else if (json_key_is(j, "nbytes") || json_key_is(j, "contiguous_nbytes")) {
        json_next(j);
        CHECK(j->natural == t->bytes, "%s: not %d bytes", t->name, (int)j->natural);
    } else json_skip(j);
}

/* A tensor entry of a manifest starts with its name. */
static void check_tensor(json *j, const weights *w) {
    char name[256];
    CHECK(json_next(j) == JSON_KEY && json_key_is(j, "name"), "manifest: name first");
    json_next(j);
    snprintf(name, sizeof name, "%.*s", (int)j->length, j->text);
    const weight *t = weights_find(w, name);
    CHECK(t != NULL, "tensor %s is missing", name);
    while (json_next(j) == JSON_KEY) {
        if (t) check_member(j, t);
        else json_skip(j);
    }
    if (t && t->type != WEIGHT_OTHER) check_pieces(t);
}

/* A file entry starts with its path, relative to the manifest. */
static void check_file(json *j, const char *directory) {
    char path[256];
    weights w;
    report r;
    size_t count = 0;
    json_next(j);
    json_next(j);
    snprintf(path, sizeof path, "%s%.*s", directory, (int)j->length, j->text);
    if (open_any(&w, path, &r)) { CHECK(0, "%s", r.text); memset(&w, 0, sizeof w); }
    while (json_next(j) == JSON_KEY) {
        if (!json_key_is(j, "tensors")) { json_skip(j); continue; }
        json_next(j);
        for (; json_next(j) == JSON_OBJECT; count++) check_tensor(j, &w);
    }
    CHECK(w.count == count, "%s has %d tensors, not %d", path, (int)w.count, (int)count);
    weights_close(&w);
}

static void check_manifest(const char *directory) {
    char path[256];
    size_t size, files = 0;
    json j;
    snprintf(path, sizeof path, "%smanifest.json", directory);
    unsigned char *text = test_read(path, &size);
    CHECK(text != NULL, "%s cannot be read", path);
    if (!text) return;
    json_start(&j, text, size);
    json_next(&j);
    for (; json_next(&j) == JSON_OBJECT; files++) check_file(&j, directory);
    CHECK(files > 4 && j.kind == JSON_ARRAY_END, "%s: %d files; %s", path, (int)files, j.error);
    json_stop(&j);
    free(text);
}

static void test_valid_safetensors(void) { check_manifest(DATA "safetensors/"); }
static void test_valid_torch(void) { check_manifest(DATA "pt/"); }

static void test_directories(void) {
    weights w;
    report r;
    CHECK(weights_open(&w, DATA "safetensors/sharded", &r) == 0, "%s", r.text);
    CHECK(w.count == 6 && w.file_count == 2, "%d tensors", (int)w.count);
    weights_close(&w);
    CHECK(weights_open(&w, DATA "pt/single/", &r) == 0, "%s", r.text);
    CHECK(w.count == 1, "%d tensors", (int)w.count);
    weights_close(&w);
    CHECK(weights_open(&w, DATA "pt", &r) < 0 && r.text[0], "several .pt files");
    CHECK(weights_open(&w, DATA "safetensors", &r) < 0 && r.text[0], "no model");
    CHECK(weights_open(&w, DATA "none", &r) < 0 && r.text[0], "no such directory");
    CHECK(weights_open_safetensors(&w, DATA "safetensors", &r) < 0 && r.text[0], "a directory");
    CHECK(weights_open_torch(&w, DATA "none.pt", &r) < 0 && r.text[0], "no such file");
}

/* ---- what trainings save ------------------------------------------------------------------------
 * tests/data/pt/training: the tensors model.a, [1, 2], and model.b, [3, 4, 5], in pickles of other
 * protocols, with other names, and beside what else is saved. */

static void test_checkpoints_of_trainings(void) {
    static const char *files[] = {"protocol4", "protocol5", "compiled", "beside"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[256];
        float values[3] = {0, 0, 0};
        weights w;
        report r = {""};
        snprintf(path, sizeof path, DATA "pt/training/%s.pt", files[i]);
        if (weights_open(&w, path, &r) != 0 || weights_strip(&w, path, &r) != 0) {
            CHECK(0, "%s", r.text);
            continue;
        }
        const weight *a = weights_find(&w, "model.a"), *b = weights_find(&w, "model.b");
        CHECK(w.count == 2 && a && b, "%s: %d tensors, '%s'", path, (int)w.count, w.list[0].name);
        CHECK(b && weight_read(b, 0, 3, values, &r) == 0 && values[0] == 3 && values[2] == 5,
              "%s: %g", path, (double)values[0]);
        weights_close(&w);
    }
}

static void test_globals_are_named(void) {
    static const char *files[] = {"namespace", "namespace4"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[256];
        weights w;
        report r = {""};
        snprintf(path, sizeof path, DATA "pt/training/%s.pt", files[i]);
        CHECK(weights_open(&w, path, &r) < 0, "%s is accepted", path);
        CHECK(strstr(r.text, "'argparse.Namespace'") && strstr(r.text, "state_dict()"), "%s",
              r.text);
    }
}

static const char *strip_names(const char *first, const char *second, weights *w, report *r) {
    memset(w, 0, sizeof *w);
    weights_add(w, first, strlen(first), "names", r);
    weights_add(w, second, strlen(second), "names", r);
    return weights_strip(w, "names", r) == 0 ? w->list[0].name : "";
}

/* Names are only changed where it is safe, and never so that two are alike. */
static void test_prefixes_of_names(void) {
    static const char *cases[][3] = {
        {"module.a", "module.b", "a"}, {"module.module.a", "module.module.b", "a"},
        {"module.a", "b", "b"}, {"module.", "module.b", "module."}, {"_orig_mod.a", "b", "a"},
        {"model._orig_mod.a", "model.b", "model.a"}, {"module._orig_mod.a", "module.b", "a"},
        {"_orig_mod.", "z", "_orig_mod."}, {"_orig_mod.a", "a", ""}
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        weights w;
        report r = {""};
        const char *name = strip_names(cases[i][0], cases[i][1], &w, &r);
        CHECK(strcmp(name, cases[i][2]) == 0, "%s, %s: '%s'", cases[i][0], cases[i][1], name);
        weights_close(&w);
    }
}

static double half_of(unsigned h) {
    int exponent = (int)(h >> 10 & 31), fraction = (int)(h & 1023);
    double value = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    if (exponent == 31) value = fraction ? (double)NAN : (double)INFINITY;
    return h & 0x8000 ? -value : value;
}

static void test_all_16_bit_values(void) {
    static unsigned char bytes[2 * 65536];
    static float halves[65536], brains[65536];
    weight t;
    report r;
    for (unsigned i = 0; i < sizeof bytes; i++) bytes[i] = (unsigned char)(i & 1 ? i >> 9 : i >> 1);
    memset(&t, 0, sizeof t);
    t.name = (char *)"all";
    t.rank = 1;
    t.shape[0] = t.elements = 65536;
    t.stride[0] = 1;
    t.data = bytes;
    t.type = WEIGHT_F16;
    CHECK(weight_read(&t, 0, 65536, halves, &r) == 0, "%s", r.text);
    t.type = WEIGHT_BF16;
    CHECK(weight_read(&t, 0, 65536, brains, &r) == 0, "%s", r.text);
    for (unsigned i = 0; i < 65536; i++) {
        uint32_t bits;
        float half = (float)half_of(i);
        memcpy(&bits, &brains[i], 4);
        CHECK(bits == (uint32_t)i << 16, "bf16 %04x gave %08lx", i, (unsigned long)bits);
        CHECK(isnan(half) ? isnan(halves[i]) : memcmp(&half, &halves[i], 4) == 0, "f16 %04x", i);
    }
    t.type = WEIGHT_OTHER;
    CHECK(weight_read(&t, 0, 1, halves, &r) < 0 && r.text[0], "another type");
}

/* ---- hostile files --------------------------------------------------------------------------- */

/* Every file in the table of a malformed/README.md, opened as a file and as exactly its bytes. */
static void check_malformed(const char *directory, int expected) {
    char path[256];
    size_t size, file_size;
    unsigned char *data;
    int files = 0;
    snprintf(path, sizeof path, "%sREADME.md", directory);
    unsigned char *table = test_read(path, &size);
    CHECK(table != NULL, "%s cannot be read", path);
    char *line = table ? strstr((char *)table, "| --- |") : NULL;
    while (line && (line = strstr(line, "\n| ")) != NULL) {
        weights w;
        report r = {""};
        line++;
        snprintf(path, sizeof path, "%s%.*s", directory, (int)strcspn(line + 2, " "), line + 2);
        files++;
        CHECK(open_any(&w, path, &r) < 0, "accepted: %.80s", line);
        CHECK(r.text[0] && strstr(r.text, path), "no message for %s: %s", path, r.text);
        data = test_read(path, &file_size);
        CHECK(data != NULL, "%s cannot be read", path);
        data = data ? realloc(data, file_size ? file_size : 1) : NULL;
        if (data) CHECK(opener_of(path)(&w, data, file_size, "m", &r) < 0, "accepted: %.80s", line);
        free(data);
    }
    CHECK(files == expected, "%s lists %d files", directory, files);
    free(table);
}

static void test_malformed_safetensors(void) { check_malformed(DATA "safetensors/malformed/", 68); }
static void test_malformed_torch(void) { check_malformed(DATA "pt/malformed/", 46); }

static void test_malformed_indexes(void) {
    static const char *kinds[] = {"absolute", "backslash", "escape", "missing_file", "no_map",
                                  "missing_tensor", "not_string", "unmentioned", "shard"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        char path[256];
        weights w;
        report r = {""};
        snprintf(path, sizeof path, DATA "safetensors/sharded/bad_%s.index.json", kinds[i]);
        CHECK(weights_open_sharded(&w, path, &r) < 0, "accepted: %s", path);
        CHECK(r.text[0] != 0, "no message for %s", path);
    }
}

/* Opens a copy that ends where its memory ends; if it is accepted, everything in it is read. */
static int survives(const char *path, const unsigned char *data, size_t size) {
    unsigned char *copy = malloc(size ? size : 1);
    weights w;
    report r = {""};
    memcpy(copy, data, size);
    int status = opener_of(path)(&w, copy, size, "m", &r);
    for (size_t i = 0; status == 0 && i < w.count; i++) {
        static float values[4096];
        const weight *t = &w.list[i];
        CHECK(t->elements <= size, "%s has %d elements", t->name, (int)t->elements);
        crc_of_tensor(t);
        if (t->elements <= 4096) weight_read(t, 0, t->elements, values, &r);
    }
    if (status == 0) weights_close(&w);
    else CHECK(r.text[0] != 0, "no message");
    free(copy);
    return status;
}

static void test_prefixes_and_flips(void) {
    static const char *paths[] = {
        DATA "safetensors/mixed.safetensors", DATA "safetensors/empties.safetensors",
        DATA "safetensors/metadata_only.safetensors", DATA "pt/mixed.pt", DATA "pt/pairs.pt",
        DATA "pt/nested.pt", DATA "pt/single/zip64.pt", DATA "pt/linear_with_build.pt",
        DATA "pt/training/protocol4.pt", DATA "pt/training/compiled.pt"
    };
    size_t size;
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        unsigned char *data = test_read(paths[i], &size);
        CHECK(data != NULL, "%s cannot be read", paths[i]);
        for (size_t at = 0; data && at < size; at++) {
            static const unsigned char flips[] = {0x01, 0x20, 0x80, 0xFF};
            CHECK(survives(paths[i], data, at) < 0, "%s: accepted up to %d", paths[i], (int)at);
            for (size_t k = 0; k < sizeof flips; k++) {
                data[at] ^= flips[k];
                survives(paths[i], data, size);
                data[at] ^= flips[k];
            }
        }
        free(data);
    }
}

static void test_messages_are_printable(void) {
    report r;
    char buffer[80], name[100];
    CHECK(report_fail(&r, "%s", "a\x1B[31m\nb") == -1, "returns -1");
    CHECK(strcmp(r.text, "a?[31m?b") == 0, "%s", r.text);
    memset(name, 'x', sizeof name);
    report_name(name, sizeof name, buffer);
    CHECK(strlen(buffer) == 79 && strcmp(buffer + 76, "...") == 0, "%s", buffer);
    report_name(name, 79, buffer);
    CHECK(strlen(buffer) == 79 && buffer[78] == 'x', "%s", buffer);
    CHECK(strcmp(report_name("a\0b\n", 4, buffer), "a?b?") == 0, "%s", buffer);
}

int main(void) {
    RUN(test_json_grammar);
    RUN(test_json_depth);
    RUN(test_json_strings);
    RUN(test_json_numbers);
    RUN(test_json_integers);
    RUN(test_json_skip);
    RUN(test_names);
    RUN(test_valid_safetensors);
    RUN(test_valid_torch);
    RUN(test_directories);
    RUN(test_checkpoints_of_trainings);
    RUN(test_globals_are_named);
    RUN(test_prefixes_of_names);
    RUN(test_all_16_bit_values);
    RUN(test_malformed_safetensors);
    RUN(test_malformed_torch);
    RUN(test_malformed_indexes);
    RUN(test_prefixes_and_flips);
    RUN(test_messages_are_printable);
    return test_end();
}
