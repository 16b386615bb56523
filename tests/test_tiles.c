/* Promise: a model opens without a copy of its weights, and gives the same bits wherever it lies.
 * What is in rows or in the tiles of griffin.h 0.1 is refused by a tensor's name and by the command
 * that converts it; the converter then makes the same file as from the checkpoint. Whatever does
 * not fit is refused by the tensor's name. */

#include <sys/stat.h>

#include "model.h"
#include "tools/convert/convert.h"

#define FOLDER TEST_TMP "tiles"

/* ---- the same model twice -------------------------------------------------------------------- */

/* tests/data/NAME as FOLDER/NAME.TYPE.tiles or .rows; the caller frees the bytes. */
static unsigned char *converted(const char *name, const char *type, const char *gates, int rows,
                                char *path, size_t *size) {
    convert_options o;
    report r;
    char source[200];
    snprintf(source, sizeof source, "tests/data/%s", name);
    snprintf(path, 200, FOLDER "/%s.%s.%s.gguf", name, type, rows ? "rows" : "tiles");
    memset(&o, 0, sizeof o);
    o.source = source;
    o.output = path;
    o.type = type;
    o.gates = gates;
    o.rows = rows;
    o.quiet = 1;
    o.plain_scales = 1;                     /* as griffin.h 0.1 had them ... */
    o.head = strcmp(type, "q4_0") ? NULL : "q8_0";                  /* ... and as rows can have */
    CHECK(convert(&o, &r) == 0, "%s", r.text);
    unsigned char *file = test_read(path, size);
    if (!file) exit(1);
    return file;
}

/* Everything after the tag, which tells the files apart. */
static int same_but_tags(const griffin_model *m, const griffin_state *a, const griffin_state *b) {
    const size_t tag = 8;
    return memcmp((const char *)a + tag, (const char *)b + tag, griffin_state_size(m) - tag) == 0;
}

static void check_same(const griffin_model *a, const griffin_model *b, const golden *g) {
    const griffin_info *i = griffin_get_info(a), *k = griffin_get_info(b);
    int V = vocabulary(a);
    size_t floats = (size_t)(g->count * V);
    float *x = (float *)malloc(floats * 4), *y = (float *)malloc(floats * 4);
    griffin_context *c = new_context(a, 0, 0), *d = new_context(b, 0, 0);
    griffin_state *s = new_state(a), *t = new_state(b);
    CHECK(i->parameters == k->parameters, "%lu", (unsigned long)k->parameters);
    CHECK(strcmp(i->type, k->type) == 0, "%s and %s", i->type, k->type);
    CHECK(memcmp(&i->config, &k->config, sizeof i->config) == 0, "the configuration");
    run_chunks(a, c, s, g->tokens, g->count, 0, x);
    run_chunks(b, d, t, g->tokens, g->count, 3, y);
    int at = first_difference(x, y, g->count, V);
    CHECK(at < 0, "%s, %s: logits differ at %d", g->name, i->type, at);
    CHECK(same_but_tags(a, s, t), "%s, %s: the states differ", g->name, i->type);
    free(x); free(y); free(c); free(d); free(s); free(t);
}

static int is_tiles(const griffin_tensor *t) {
    static const char *const tilings[] = { ".f32", ".f16", ".bf16", ".q8_0", ".q4_0",
                                           ".q6_0" };
    const char *ending = strrchr(t->name, '.');
    for (int i = 0; ending && i < 6; i++) if (!strcmp(ending, tilings[i])) return 1;
    return 0;
}

/* Of all tensors in tiles, which all matrices are. */
static uint64_t tile_bytes(const griffin_model *m) {
    griffin_tensor t;
    uint64_t total = 0;
    for (int i = 0; i < griffin_get_info(m)->tensors; i++) {
        CHECK(griffin_get_tensor(m, i, &t) == GRIFFIN_OK, "%d", i);
        CHECK(t.offset % 64 == 0, "%s at %lu", t.name, (unsigned long)t.offset);
        CHECK(is_tiles(&t) || t.rank == 1 || strstr(t.name, "bias") || strstr(t.name, "conv_1d"),
              "%s is not in tiles", t.name);
        if (is_tiles(&t)) total += t.bytes;
    }
    return total;
}

/* Opening fails with this error, and the message has all the words. */
static void check_old(const char *path, int expected, const char *a, const char *b) {
    char error[400] = "";
    griffin_model *m = NULL;
    griffin_options options;
    memset(&options, 0, sizeof options);
    options.error = error;
    options.error_size = sizeof error;
    CHECK(griffin_open_file(&m, path, &options) == expected && !m, "%s: %s", path, error);
    CHECK(strstr(error, path) && strstr(error, a) && strstr(error, b)
          && strstr(error, "griffin convert OLD NEW"), "'%s' should tell of %s and %s", error, a,
          b);
}

/* The converter, told nothing about types, makes `file` of the model at `path`. */
static void check_converted(const char *path, const unsigned char *file, size_t size) {
    static const char out[] = FOLDER "/again.gguf";
    convert_options o;
    report r;
    size_t again_size = 0;
    memset(&o, 0, sizeof o);
    o.source = path;
    o.output = out;
    o.quiet = 1;
    CHECK(convert(&o, &r) == 0, "%s", r.text);
    unsigned char *again = test_read(out, &again_size);
    CHECK(again && again_size == size && memcmp(again, file, size) == 0, "%s: another file", path);
    free(again);
}

static void check_pair(const char *name, const char *type, const char *gates, const golden *g) {
    char path[200], rows_path[200];
    size_t size, rows_size;
    unsigned char *file = converted(name, type, gates, 0, path, &size);
    griffin_model *mapped = NULL, *embedded = NULL, *copied = NULL;
    griffin_options options;
    if (strcmp(type, "q6_0") != 0) {        /* of which there are tiles only */
        free(converted(name, type, gates, 1, rows_path, &rows_size));
        check_old(rows_path, GRIFFIN_E_UNSUPPORTED, "'embed_tokens.weight'", "in rows, of type ");
        check_converted(rows_path, file, size);
    }
    check_converted(path, file, size);
    memset(&options, 0, sizeof options);
    options.copy_weights = 1;
    CHECK(griffin_open_file(&mapped, path, NULL) == GRIFFIN_OK, "%s", path);
    CHECK(griffin_open_memory(&embedded, file, size, NULL) == GRIFFIN_OK, "%s", path);
    CHECK(griffin_open_file(&copied, path, &options) == GRIFFIN_OK, "%s", path);
    if (mapped && embedded && copied) {
        const griffin_info *i = griffin_get_info(mapped);
        check_same(mapped, embedded, g);
        check_same(mapped, copied, g);
        CHECK(is_big_endian()
              || griffin_get_info(copied)->weight_bytes == i->weight_bytes + tile_bytes(mapped),
              "%s: %lu bytes copied", path, (unsigned long)griffin_get_info(copied)->weight_bytes);
    }
    griffin_close(mapped); griffin_close(embedded); griffin_close(copied);
    free(file);
}

static void test_same_bits(void) {
    for (int i = 0; i < GOLDENS; i++) {
        golden g = golden_read(i);
        if (strcmp(g.name, g.model) != 0) continue;
        for (int type = 0; type < TYPES; type++)
            check_pair(g.model, golden_types[type] ? golden_types[type] : "f32", "f32", &g);
    }
}

static void test_narrow_gates(void) {
    golden g = golden_read(1);              /* blocks of 20 channels */
    check_pair(g.model, "q8_0", "bf16", &g);
    check_pair(g.model, "f32", "f16", &g);
}

/* Files that griffin.h 0.1 wrote: a prefix in the names, tiles without the name of their type. */
static void test_old_files(void) {
    static const char *const files[][3] = {
        { "griffin-tiny", "q4_0", "model.embed_tokens.weight.t32" },
        { "hawk-tiny", "f16", "model.embed_tokens.weight.t32" }
    };
    for (int i = 0; i < 2; i++) {
        char path[200], old[200];
        size_t size;
        unsigned char *file = converted(files[i][0], files[i][1], "f32", 0, path, &size);
        snprintf(old, sizeof old, "tests/data/gguf/old/%s.%s.gguf", files[i][0], files[i][1]);
        check_old(old, GRIFFIN_E_VERSION, files[i][2], "0.1");
        check_converted(old, file, size);
        free(file);
    }
}

/* A program may hold the file at any address. */
static void test_any_address(void) {
    golden g = golden_read(0);
    for (int type = 0; type < TYPES; type++)
        for (int cpu = GRIFFIN_CPU_SCALAR; cpu <= LAST_CPU; cpu++) {
            char path[200];
            size_t size;
            unsigned char *file =
                converted(g.model, golden_types[type] ? golden_types[type] : "f32", "f32", 0, path,
                          &size);
            unsigned char *odd = (unsigned char *)malloc(size + 1);
            griffin_model *a = NULL, *b = NULL;
            griffin_options options;
            memset(&options, 0, sizeof options);
            options.cpu = (griffin_cpu)cpu;
            memcpy(odd + 1, file, size);
            griffin_open_memory(&a, file, size, NULL);
            griffin_open_memory(&b, odd + 1, size, &options);
            if (a && b) check_same(a, b, &g);
            griffin_close(a); griffin_close(b);
            free(file); free(odd);
        }
}

/* ---- memory ---------------------------------------------------------------------------------- */

typedef struct counter { size_t live, largest; } counter;

static void *count_allocate(size_t size, void *user) {
    counter *c = (counter *)user;
    size_t *memory = (size_t *)malloc(size + 16);
    if (!memory) return NULL;
    *memory = size;
    c->live += size;
    if (c->largest < size) c->largest = size;
    return (char *)memory + 16;
}

static void count_release(void *memory, void *user) {
    size_t *start = (size_t *)(void *)((char *)memory - 16);
    ((counter *)user)->live -= *start;
    free(start);
}

/* The shipped model: no block of the allocator's is a twentieth of its weights, during the opening
 * or after. */
static void test_no_copy(void) {
    static const char path[] = "examples/models/storyteller.gguf";
    size_t size = 0;
    unsigned char *file = test_read(path, &size);
    CHECK(file != NULL, "%s", path);
    for (int in_memory = 0; file && in_memory < 2; in_memory++) {
        griffin_model *m = NULL;
        griffin_options options;
        counter c = { 0, 0 };
        memset(&options, 0, sizeof options);
        options.allocator.allocate = count_allocate;
        options.allocator.release = count_release;
        options.allocator.user = &c;
        int error = in_memory ? griffin_open_memory(&m, file, size, &options)
                              : griffin_open_file(&m, path, &options);
        CHECK(error == GRIFFIN_OK, "%s: %s", path, griffin_error_string(error));
        if (error) break;
        uint64_t tiles = tile_bytes(m);
        CHECK(tiles > size / 2, "%lu bytes in tiles", (unsigned long)tiles);
        CHECK(c.largest < tiles / 20, "a block of %lu bytes", (unsigned long)c.largest);
        CHECK(griffin_get_info(m)->weight_bytes < tiles / 20, "more than vectors were packed");
        CHECK(c.live < tiles / 10, "%lu bytes kept", (unsigned long)c.live);
        griffin_close(m);
        CHECK(c.live == 0, "%lu bytes left", (unsigned long)c.live);
    }
    free(file);
}

/* ---- damage ---------------------------------------------------------------------------------- */

/* Where the info of a tensor goes on after its name: u32 rank, u64 ne[rank], u32 type. */
static unsigned char *after_name(unsigned char *file, const char *name) {
    size_t n = strlen(name);
    unsigned char *at = file;
    while (memcmp(at, name, n) != 0) at++;
    return at + n;
}

static void check_refused(const unsigned char *file, size_t size, const char *name,
                          const char *words) {
    char error[400] = "";
    griffin_model *m = NULL;
    griffin_options options;
    memset(&options, 0, sizeof options);
    options.error = error;
    options.error_size = sizeof error;
    CHECK(griffin_open_memory(&m, file, size, &options) < 0 && !m, "%s: %s", name, words);
    CHECK(strstr(error, name) && strstr(error, words), "'%s' should tell of %s: %s", error, name,
          words);
    griffin_close(m);
}

/* Adds to byte `at` of what follows the name in the info. */
static void check_change(unsigned char *file, size_t size, const char *name, int at, int add,
                         const char *words) {
    unsigned char *byte = after_name(file, name) + at;
    *byte = (unsigned char)(*byte + add);
    check_refused(file, size, name, words);
    *byte = (unsigned char)(*byte - add);
}

static void test_damaged_floats(void) {
    static const char name[] = "layers.1.mlp_block.down_proj.weight.f32";       /* [2, 192, 32] */
    static const char gate[] = "layers.1.temporal_block.rg_lru.input_gate_weight.f32";
    char path[200];
    size_t size;
    unsigned char *file = converted("griffin-tiny", "f32", "f32", 0, path, &size);
    check_change(file, size, name, 4, -16, "expected f32 [2, 192, 32]");
    check_change(file, size, name, 12, -1, "expected f32 [2, 192, 32]");
    check_change(file, size, name, 20, -1, "expected f32 [2, 192, 32]");
    check_change(file, size, name, 20, 1, "before the end of");
    check_change(file, size, name, 28, 3, "expected f32 [2, 192, 32]");          /* q4_1 */
    check_change(file, size, name, 28, 12, "row length 32");                     /* q4_k */
    check_change(file, size, name, 28, 25, "cannot be read");                    /* i16 */
    check_change(file, size, gate, 20, -1, "expected f32 [4, 16, 32]");
    check_change(file, size, gate, 12, -1, "expected f32 [4, 16, 32]");
    free(file);
}

static void test_damaged_blocks(void) {
    static const char name[] = "layers.1.mlp_block.down_proj.weight.q8_0";      /* [2, 6528] */
    char path[200];
    size_t size, end;
    unsigned char *file = converted("griffin-tiny", "q8_0", "f32", 0, path, &size);
    griffin_model *m = NULL;
    griffin_tensor t;
    int i;
    check_change(file, size, name, 4, -32, "expected i8 [2, 6528]");
    check_change(file, size, name, 12, -1, "expected i8 [2, 6528]");
    check_change(file, size, name, 20, 1, "cannot be read");                     /* i16 */
    unsigned char *at = after_name(file, name);
    at[-1] = '3';                           /* bytes, but no tiles */
    check_refused(file, size, "down_proj.weight.q8_3", "cannot be read");
    at[-1] = '0';
    CHECK(griffin_open_memory(&m, file, size, NULL) == GRIFFIN_OK, "undamaged again");
    for (i = 0, end = 0; m && griffin_get_tensor(m, i, &t) == GRIFFIN_OK; i++)
        if (strcmp(t.name, name) == 0) end = (size_t)(t.offset + t.bytes);
    griffin_close(m);
    check_refused(file, end - 1, name, "past the end");
    free(file);
}

/* Gates of one block or of several as tiles of blocks, whose sizes are all right. */
static void test_quantised_gates(void) {
    static const char *const gates[] = {
        "layers.0.temporal_block.rg_lru.input_gate_weight.q8_0",
        "layers.1.temporal_block.rg_lru.recurrent_gate_weight.q4_0"
    };
    for (int i = 0; i < 4; i++) {
        const char *name = gates[i % 2];
        griffin_config config = small_config();
        config.gate_blocks = 1 + i / 2;
        config.lru_width = 32 * config.gate_blocks;
        network *n = network_make(&config);
        size_t size, plain = strlen(name) - 5;          /* without ".q8_0" */
        for (int k = 0; k < n->count; k++) {
            tensor *t = &n->tensors[k];
            if (strncmp(t->stored, name, plain)) continue;
            snprintf(t->stored, sizeof t->stored, "%s", name);
            t->tiled = 0;
            t->rank = 2;
            t->sizes[0] = config.gate_blocks;           /* tiles, of so many bytes */
            t->sizes[1] = i % 2 ? 576 : 1088;
            t->values = (float *)realloc(t->values, 4 * 2 * 1088);
            memset(t->values, 0, 4 * 2 * 1088);
        }
        unsigned char *file = network_file(n, &size);
        check_change(file, size, name, 20, 24, "gates are quantised");              /* to i8 */
        free(file);
        network_free(n);
    }
}

/* ---- both ------------------------------------------------------------------------------------ */

static void remember(int error, const char *text, void *user) {
    if (error == GRIFFIN_OK) snprintf((char *)user, 400, "%s", text);
}

/* A matrix in rows beside the same in tiles is like any other tensor that has no use. */
static void test_tiles_win(void) {
    static const char name[] = "embed_tokens.weight";
    static const int shape[] = { 19, 24 };
    griffin_config config = small_config();
    network *n = network_make(&config);
    float want[19], got[19];
    char heard[400] = "";
    griffin_model *m;
    griffin_options options;
    memset(&options, 0, sizeof options);
    options.logger.message = remember;
    options.logger.user = heard;
    for (int pass = 0; pass < 2; pass++) {
        size_t size;
        gguf g;
        memset(&g, 0, sizeof g);
        network_write(n, &g);
        if (pass) gguf_tensor(&g, name, shape, 2, n->tensors[0].values);
        unsigned char *file = gguf_finish(&g, &size);
        CHECK(griffin_open_memory(&m, file, size, &options) == GRIFFIN_OK, "pass %d", pass);
        griffin_context *c = new_context(m, 0, 0);
        griffin_state *s = new_state(m);
        CHECK(griffin_step(c, s, 7, pass ? got : want) == GRIFFIN_OK, "step");
        free(c); free(s); griffin_close(m); free(file);
        CHECK(pass ? strstr(heard, "ignored") && strstr(heard, name) : !heard[0], "'%s'", heard);
    }
    CHECK(memcmp(want, got, sizeof want) == 0, "%g and %g", (double)want[0], (double)got[0]);
    network_free(n);
}

int main(void) {
    mkdir("build", 0777);
    mkdir(TEST_TMP, 0777);
    mkdir(FOLDER, 0777);
    RUN(test_same_bits);
    RUN(test_narrow_gates);
    RUN(test_old_files);
    RUN(test_any_address);
    if (!is_big_endian()) RUN(test_no_copy);
    RUN(test_damaged_floats);
    RUN(test_damaged_blocks);
    RUN(test_quantised_gates);
    RUN(test_tiles_win);
    return test_end();
}
