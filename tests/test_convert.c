/* test_convert.c - the converter writes every tensor where a reader finds it, refuses whatever does
 * not fit by its name, and leaves nothing behind when it fails.
 *
 * What it writes is read by the library, which knows nothing of the converter. Broken checkpoints
 * are made here from sound ones, in TEST_TMP.
 *
 * tests/data/convert_tokenizer.model and .json are the same vocabulary in two forms, the ids are
 * those of the reference tokenizers; convert_byte_level.json is made up, in the form of GPT-2's. */

#include <math.h>
#include <sys/stat.h>

#include "griffin.h"
#include "test.h"
#include "tools/convert/parts.h"
#include "tools/shared/json.h"
#include "tools/convert/checkpoint.h"
#include "tools/convert/safetensors.h"

#define DATA "tests/data/"
#define WORK TEST_TMP "convert"
#define OUT  WORK "/out.gguf"

static report message;

static void make_folders(void) {
    mkdir("build", 0777);
    mkdir(TEST_TMP, 0777);
    mkdir(WORK, 0777);
}

static convert_options plain(const char *source, const char *output) {
    convert_options o;
    memset(&o, 0, sizeof o);
    o.source = source;
    o.output = output;
    o.type = "f32";
    o.gates = "f32";
    o.quiet = 1;
    return o;
}

static int convert_plain(const char *source) {
    convert_options o = plain(source, OUT);
    remove(OUT);
    return convert(&o, &message);
}

/* Nothing was written, and the message says this. */
static void check_refused(int status, const char *words) {
    CHECK(status == -1 && strstr(message.text, words), "'%s' should be about '%s'", message.text,
          words);
    CHECK(!path_exists(OUT), "an output file although: %s", message.text);
    CHECK(!path_exists(OUT ".part"), "a partial file although: %s", message.text);
}

static griffin_model *open_output(void) {
    static char error[400];
    griffin_model *model = NULL;
    griffin_options options;
    memset(&options, 0, sizeof options);
    options.error = error;
    options.error_size = sizeof error;
    CHECK(griffin_open_file(&model, OUT, &options) == GRIFFIN_OK, "%s", error);
    return model;
}

static void write_file(const char *path, const void *data, size_t size) {
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(data, 1, size, f) == size, "%s", path);
    if (f) fclose(f);
}

/* ---- sound models --------------------------------------------------------------------------- */

/* Where element `i` of a matrix [rows, cols], or of gates [blocks, cols, rows], is in its tiles. */
static uint64_t place_in_tiles(const weight *source, uint64_t i) {
    int gate = source->rank == 3;
    uint64_t rows = source->shape[gate ? 2 : 0], cols = source->shape[1], block = i / (rows * cols);
    uint64_t rest = i % (rows * cols), row = gate ? rest % rows : rest / cols;
    uint64_t col = gate ? rest / rows : rest % cols, high = (rows + 31) / 32;
    return ((block * high + row / 32) * cols + col) * 32 + row % 32;
}

/* The values of a tensor in the file are those of the source as floats; zeros fill its tiles. */
static void check_tensor(const unsigned char *file, const griffin_tensor *t, const weights *w) {
    size_t n = strlen(t->name);
    int tiled = n > 4 && strcmp(t->name + n - 4, ".f32") == 0;
    char name[80];
    snprintf(name, sizeof name, "model.%.*s", (int)n - (tiled ? 4 : 0), t->name);
    const weight *source = weights_find(w, name);
    CHECK(source != NULL, "%s came from nowhere", t->name);
    if (!source) return;
    if (!tiled)
        CHECK(source->rank == t->rank && memcmp(source->shape, t->shape, (size_t)t->rank * 8) == 0
              && t->bytes == 4 * source->elements, "%s has another shape", t->name);
    if (!tiled && t->bytes != 4 * source->elements) return;
    float *values = (float *)malloc((size_t)source->elements * 4);
    float *expected = (float *)calloc((size_t)t->bytes, 1);
    CHECK(weight_read(source, 0, source->elements, values, &message) == 0, "%s", message.text);
    for (uint64_t i = 0; i < source->elements; i++) {
        uint64_t at = tiled ? place_in_tiles(source, i) : i;
        CHECK(at < t->bytes / 4, "%s has too few tiles", t->name);
        if (at < t->bytes / 4) expected[at] = values[i];
    }
    CHECK(memcmp(file + t->offset, expected, (size_t)t->bytes) == 0, "%s has other values",
          t->name);
    free(values);
    free(expected);
}

static void check_tensors(const griffin_model *model, const weights *w) {
    size_t size = 0;
    unsigned char *file = test_read(OUT, &size);
    int count = griffin_get_info(model)->tensors;
    CHECK(file && count == (int)w->count, "%d tensors of %lu", count, (unsigned long)w->count);
    for (int i = 0; file && i < count; i++) {
        griffin_tensor t;
        CHECK(griffin_get_tensor(model, i, &t) == GRIFFIN_OK && strcmp(t.type, "f32") == 0, "%d",
              i);
        CHECK(t.offset % 32 == 0 && t.offset + t.bytes <= size, "%s", t.name);
        check_tensor(file, &t, w);
    }
    free(file);
}

static void check_model(const char *directory) {
    weights w;
    CHECK(convert_plain(directory) == 0, "%s", message.text);
    griffin_model *model = open_output();
    CHECK(weights_open(&w, directory, &message) == 0, "%s", message.text);
    if (model) check_tensors(model, &w);
    weights_close(&w);
    griffin_close(model);
}

static void test_floats_are_kept(void) {
    check_model(DATA "griffin-tiny");
    check_model(DATA "hawk-tiny");
    check_model(DATA "griffin-paper-tiny");
    check_model(DATA "rgemma-bf16");
    check_model(DATA "attn-only-tiny");
}

static void test_configuration(void) {
    griffin_model *model;
    CHECK(convert_plain(DATA "griffin-tiny") == 0, "%s", message.text);
    if (!(model = open_output())) return;
    const griffin_config *c = &griffin_get_info(model)->config;
    CHECK(c->vocab == 97 && c->width == 64 && c->mlp_width == 192 && c->layers == 5, "sizes");
    CHECK(c->heads == 4 && c->kv_heads == 1 && c->head_dim == 16 && c->rope_dims == 8, "heads");
    CHECK(c->lru_width == 64 && c->gate_blocks == 4 && c->conv_width == 4, "recurrence");
    CHECK(c->window == 8 && c->soft_cap == 30.0f && c->embedding_scale == 8.0f, "functions");
    CHECK(c->eps == 1e-6f && c->rope_base == 10000.0f && c->decay == 8.0f, "constants");
    CHECK(strcmp(c->blocks, "rrarr") == 0, "%s", c->blocks);
    CHECK(strcmp(griffin_get_info(model)->name, "griffin-tiny") == 0, "%s",
          griffin_get_info(model)->name);
    griffin_close(model);
}

/* No scale and no cap, which some files write as null. */
static void test_plain_configuration(void) {
    griffin_model *model;
    CHECK(convert_plain(DATA "hawk-tiny") == 0, "%s", message.text);
    if (!(model = open_output())) return;
    const griffin_config *c = &griffin_get_info(model)->config;
    CHECK(c->soft_cap == 0.0f && c->embedding_scale == 1.0f, "%g and %g", (double)c->soft_cap,
          (double)c->embedding_scale);
    CHECK(c->width == 48 && c->lru_width == 80 && strcmp(c->blocks, "rrr") == 0, "sizes");
    griffin_close(model);
}

/* ---- types --------------------------------------------------------------------------------- */

/* The type of a matrix stands behind its name, that of a vector is the tensor's. */
static const char *type_in_output(const griffin_model *model, const char *name) {
    static griffin_tensor t;
    size_t n = strlen(name);
    for (int i = 0; griffin_get_tensor(model, i, &t) == GRIFFIN_OK; i++) {
        if (strcmp(t.name, name) == 0) return t.type;
        if (strncmp(t.name, name, n) == 0 && t.name[n] == '.') return t.name + n + 1;
    }
    return "none";
}

static void check_types(const char *type, const char *matrix, const char *embedding) {
    convert_options o = plain(DATA "griffin-tiny", OUT);
    griffin_model *model;
    o.type = type;
    o.gates = "bf16";
    CHECK(convert(&o, &message) == 0, "%s", message.text);
    if (!(model = open_output())) return;
    const char *found = type_in_output(model, "layers.1.mlp_block.down_proj.weight");
    CHECK(strcmp(found, matrix) == 0, "%s: matrices are %s", type, found);
    found = type_in_output(model, "embed_tokens.weight");
    CHECK(strcmp(found, embedding) == 0, "%s: the embedding is %s", type, found);
    found = type_in_output(model, "layers.0.temporal_block.rg_lru.input_gate_weight");
    CHECK(strcmp(found, "bf16") == 0, "%s: gates are %s", type, found);
    found = type_in_output(model, "layers.0.temporal_block.rg_lru.input_gate_bias");
    CHECK(strcmp(found, "f32") == 0, "%s: gate biases are %s", type, found);
    griffin_close(model);
}

/* Rows of 192 and 64 values: no multiples of 256. */
static void test_types(void) {
    check_types("f32", "f32", "f32");
    check_types("f16", "f16", "f16");
    check_types("bf16", "bf16", "bf16");
    check_types("q8_0", "q8_0", "q8_0");
    check_types("q4_0", "q4_0", "q6_0");
    check_types("q6_0", "q6_0", "q6_0");
}

/* The types that the library has no tiles of are for other readers, so in rows. Everything that a
 * file can hold in rows comes back as the same numbers: those of the same type in tiles too, all
 * others as f32. */
static int read_output(model_parts *m, const char *path) {
    convert_options o = plain(path, NULL);
    int status = parts_read(m, &o, &message);
    CHECK(status == 0, "%s", message.text);
    return status;
}

static void check_same_values(const model_parts *a, const model_parts *b) {
    CHECK(a->w.count == b->w.count, "%lu tensors", (unsigned long)b->w.count);
    for (size_t i = 0; i < a->w.count && i < b->w.count; i++) {
        const weight *s = &a->w.list[i], *t = &b->w.list[i];
        float *x = (float *)malloc((size_t)s->elements * 4);
        float *y = (float *)malloc((size_t)t->elements * 4);
        CHECK(strcmp(s->name, t->name) == 0 && s->elements == t->elements, "%s", s->name);
        CHECK(weight_read(s, 0, s->elements, x, &message) == 0, "%s", message.text);
        CHECK(weight_read(t, 0, t->elements, y, &message) == 0, "%s", message.text);
        CHECK(s->elements != t->elements || memcmp(x, y, (size_t)s->elements * 4) == 0,
              "%s: other values", s->name);
        free(x);
        free(y);
    }
}

static void check_rows(const char *type, const char *matrix, const char *tiled) {
    static const char matrix_name[] = "model.layers.1.mlp_block.down_proj.weight";
    convert_options o = plain(DATA "griffin-tiny", WORK "/rows.gguf");
    model_parts rows, tiles;
    griffin_model *model;
    o.type = type;
    o.rows = 1;
    CHECK(convert(&o, &message) == 0, "%s", message.text);
    o = plain(WORK "/rows.gguf", OUT);
    o.type = o.gates = NULL;
    CHECK(convert(&o, &message) == 0, "%s", message.text);
    griffin_close(open_output());
    if (read_output(&rows, WORK "/rows.gguf") != 0) return;
    CHECK(strcmp(weights_find(&rows.w, matrix_name)->type_name, matrix) == 0, "%s", type);
    if (read_output(&tiles, OUT) == 0) {
        check_same_values(&rows, &tiles);
        parts_free(&tiles);
    }
    parts_free(&rows);
    if (!(model = open_output())) return;
    CHECK(strcmp(type_in_output(model, matrix_name + strlen("model.")), tiled) == 0, "%s: %s", type,
          type_in_output(model, matrix_name + strlen("model.")));
    griffin_close(model);
}

static void test_rows(void) {
    check_rows("f32", "f32", "f32");
    check_rows("f16", "f16", "f16");
    check_rows("bf16", "bf16", "bf16");
    check_rows("q8_0", "q8_0", "q8_0");
    check_rows("q4_0", "q4_0", "q4_0");
    check_rows("q4_1", "q4_1", "f32");
    check_rows("q5_0", "q5_0", "f32");
    check_rows("q5_1", "q5_1", "f32");
    check_rows("q4_k", "q8_0", "q8_0");     /* rows of 192 are no multiple of 256 */
    check_rows("q6_k", "q8_0", "q8_0");
}

static void check_step(const griffin_model *model) {
    size_t size = griffin_context_size(model, NULL);
    void *memory = malloc(size), *state = calloc(1, griffin_state_size(model));
    griffin_context *c;
    float logits[64];
    CHECK(griffin_context_init(&c, model, NULL, memory, size) == GRIFFIN_OK, "context");
    CHECK(griffin_step(c, (griffin_state *)state, 63, logits) == GRIFFIN_OK
          && isfinite(logits[0]), "a finite logit");
    free(memory);
    free(state);
}

/* A file of candle's: rows of several types, and no metadata. */
static void test_no_metadata(void) {
    static const char config[] =
        "{\"vocab_size\": 64, \"hidden_size\": 256, \"intermediate_size\": 512,"
        " \"num_hidden_layers\": 3, \"num_attention_heads\": 1, \"num_key_value_heads\": 1,"
        " \"attention_window_size\": 4, \"eos_token_id\": 1}";
    convert_options o = plain(DATA "gguf/candle_like_v2.gguf", OUT);
    model_parts source, result;
    griffin_model *model;
    o.type = o.gates = NULL;
    remove(OUT);
    check_refused(convert(&o, &message), "no general.architecture");
    write_file(WORK "/candle.json", config, sizeof config - 1);
    o.config = WORK "/candle.json";
    CHECK(convert(&o, &message) == 0, "%s", message.text);
    if (!(model = open_output())) return;
    CHECK(strcmp(griffin_get_info(model)->config.blocks, "rra") == 0, "blocks");
    check_step(model);
    griffin_close(model);
    if (parts_read(&source, &o, &message) != 0) { CHECK(0, "%s", message.text); return; }
    if (read_output(&result, OUT) == 0) {
        check_same_values(&source, &result);
        parts_free(&result);
    }
    parts_free(&source);
}

/* What the library's reader of directories lets pass, the converter takes or refuses by a message:
 * a file with tiles of griffin.h 0.1, with a bit flipped in every 41st byte of its directory. */
static void test_damaged_sources(void) {
    static const char path[] = WORK "/damaged.gguf";
    convert_options o = plain(path, NULL);
    size_t size = 0;
    unsigned char *file = test_read(DATA "gguf/old/griffin-tiny.q4_0.gguf", &size);
    int refused = 0;
    for (size_t at = 0; file && at < 12000; at += 41) {
        model_parts m;
        file[at] ^= (unsigned char)(1 << at % 8);
        write_file(path, file, size);
        message.text[0] = 0;
        if (parts_read(&m, &o, &message) == 0) parts_free(&m);
        else { CHECK(message.text[0], "byte %lu: no message", (unsigned long)at); refused++; }
        file[at] ^= (unsigned char)(1 << at % 8);
    }
    CHECK(refused > 100, "%d files were refused", refused);
    free(file);
}

static void test_presets(void) {
    griffin_config config;
    CHECK(preset_find(&config, "griffin-5b") < 0, "no such size");
    CHECK(preset_find(&config, "recurrentgemma-2b") == 0 && config.layers == 26, "2b");
}

static void test_unknown_types(void) {
    convert_options o = plain(DATA "griffin-tiny", OUT);
    remove(OUT);
    o.type = "q2_k";
    check_refused(convert(&o, &message), "--type q2_k");
    o.type = "q4_1";
    check_refused(convert(&o, &message), "--rows");
    o.rows = 1;
    o.type = "q6_0";
    check_refused(convert(&o, &message), "only tiles");
    o.type = "q8_0";
    o.head = "q9";
    check_refused(convert(&o, &message), "--head q9");
    o.rows = 0;
    o.head = NULL;
    o.type = "f32";
    o.gates = "q8_0";
    check_refused(convert(&o, &message), "--gates q8_0");
}

/* ---- edited models ------------------------------------------------------------------------- */

/* A text with the first occurrence of a part replaced; the caller frees it. */
static char *replaced(const char *text, const char *from, const char *to) {
    const char *at = strstr(text, from);
    char *copy = (char *)malloc(strlen(text) + strlen(to) + 1);
    CHECK(at != NULL, "'%s' is not there", from);
    if (!at) return strcpy(copy, text);
    memcpy(copy, text, (size_t)(at - text));
    strcpy(copy + (at - text), to);
    strcat(copy, at + strlen(from));
    return copy;
}

static void edit_config(const char *from, const char *to) {
    size_t size = 0;
    char *text = (char *)test_read(DATA "griffin-tiny/config.json", &size);
    char *edited = replaced(text, from, to);
    write_file(WORK "/config.json", edited, strlen(edited));
    free(text);
    free(edited);
}

/* griffin-tiny's tensors with a change in the header, a tensor at the end, or neither. */
static void edit_tensors(const char *from, const char *to, const char *added, const float *values,
                         size_t count) {
    size_t size = 0;
    unsigned char *file = test_read(DATA "griffin-tiny/model.safetensors", &size);
    char *text, *edited, entry[300];
    size_t header = (size_t)(file[0] | file[1] << 8);
    size_t data = size - 8 - header;
    text = (char *)calloc(header + 1, 1);
    memcpy(text, file + 8, header);
    edited = replaced(text, from, to);
    free(text);
    while (edited[strlen(edited) - 1] == ' ') edited[strlen(edited) - 1] = 0;
    if (added) {
        edited[strlen(edited) - 1] = 0;
        snprintf(entry, sizeof entry, ",%s,\"data_offsets\":[%lu,%lu]}}", added,
                 (unsigned long)data, (unsigned long)(data + 4 * count));
        edited = (char *)realloc(edited, strlen(edited) + sizeof entry);
        strcat(edited, entry);
    }
    size_t n = strlen(edited);
    unsigned char *out = (unsigned char *)calloc(8 + n + data + 4 * count, 1);
    for (int i = 0; i < 8; i++) out[i] = (unsigned char)((uint64_t)n >> 8 * i);
    memcpy(out + 8, edited, n);
    memcpy(out + 8 + n, file + 8 + header, data);
    if (added) memcpy(out + 8 + n + data, values, 4 * count);
    write_file(WORK "/model.safetensors", out, 8 + n + data + 4 * count);
    free(edited);
    free(file);
    free(out);
}

static void same_tensors(void) { edit_tensors("{", "{", NULL, NULL, 0); }
static void same_config(void) { edit_config("{", "{"); }

static void test_misfits_are_named(void) {
    const float zero = 0.0f;
    same_config();
    edit_tensors("layers.3.channel_pre_norm", "layers.3.channel_pre_nurm", NULL, NULL, 0);
    check_refused(convert_plain(WORK), "'model.layers.3.channel_pre_norm.weight' is missing");
    edit_tensors("model.embed_tokens.weight", "model.embad_tokens.weight", NULL, NULL, 0);
    check_refused(convert_plain(WORK), "'model.embed_tokens.weight' is missing");
    edit_tensors("\"shape\":[97,64]", "\"shape\":[64,97]", NULL, NULL, 0);
    check_refused(convert_plain(WORK),
                  "'model.embed_tokens.weight': shape [64, 97] instead of [97, 64]");
    edit_tensors("{", "{", "\"model.layers.0.extra\":{\"dtype\":\"F32\",\"shape\":[1]",
                 &zero, 1);
    check_refused(convert_plain(WORK), "'model.layers.0.extra' is not part of this network");
    edit_config("\"num_hidden_layers\": 5", "\"num_hidden_layers\": 4");
    same_tensors();
    check_refused(convert_plain(WORK), "'model.layers.4.");
    edit_config("\"attention_bias\": false", "\"attention_bias\": true");
    check_refused(convert_plain(WORK), "'model.layers.2.temporal_block.q_proj.bias' is missing");
    edit_config("\"attention\"\n", "\"recurrent\"\n");
    check_refused(convert_plain(WORK),
                  "'model.layers.2.temporal_block.linear_y.weight' is missing");
    remove(WORK "/config.json");
    check_refused(convert_plain(WORK), "config.json");
}

/* Overwrites an element of a tensor in the edited file. */
static void poke(const char *name, size_t element, float value) {
    size_t size = 0;
    unsigned char *file = test_read(WORK "/model.safetensors", &size);
    weights w;
    CHECK(weights_open_safetensors_memory(&w, file, size, "memory", &message) == 0, "%s",
          message.text);
    const weight *t = weights_find(&w, name);
    CHECK(t != NULL, "%s", name);
    if (t) memcpy(file + (t->data - file) + 4 * element, &value, 4);
    weights_close(&w);
    write_file(WORK "/model.safetensors", file, size);
    free(file);
}

static void test_wild_values_are_named(void) {
    static const char name[] = "model.layers.1.mlp_block.up_proj.weight";
    convert_options o = plain(WORK, OUT);
    same_config();
    same_tensors();
    poke(name, 777, NAN);
    check_refused(convert_plain(WORK),
                  "'model.layers.1.mlp_block.up_proj.weight': element 777 is not finite");
    poke(name, 777, -INFINITY);
    check_refused(convert_plain(WORK), "element 777 is not finite");
    poke(name, 777, 1e30f);
    o.type = "q8_0";
    check_refused(convert(&o, &message),
                  "'model.layers.1.mlp_block.up_proj.weight': values are too large for q8_0");
    CHECK(convert_plain(WORK) == 0, "%s", message.text);
}

static void test_bare_names(void) {
    griffin_model *model;
    size_t size = 0;
    unsigned char *file = test_read(DATA "griffin-tiny/model.safetensors", &size);
    char *p;
    same_config();
    size_t header = (size_t)(file[0] | file[1] << 8);
    for (p = (char *)file + 8; (p = strstr(p, "\"model.")) != NULL && p < (char *)file + 8 + header;
         p++) {
        memmove(p + 1, p + 7, header + 8 - (size_t)(p + 7 - (char *)file));
        memset(file + 8 + header - 6, ' ', 6);
    }
    write_file(WORK "/model.safetensors", file, size);
    free(file);
    CHECK(convert_plain(WORK) == 0, "%s", message.text);
    if (!(model = open_output())) return;
    CHECK(strcmp(type_in_output(model, "layers.4.mlp_block.down_proj.bias"), "f32") == 0,
          "prefix");
    griffin_close(model);
}

/* A head equal to the embedding is dropped, another one is kept, names without use are ignored. */
static void test_heads(void) {
    static const char entry[] = "\"lm_head.weight\":{\"dtype\":\"F32\",\"shape\":[97,64]";
    static const char unused[] = "\"model.normalizer\":{\"dtype\":\"F32\",\"shape\":[1]";
    static float values[97 * 64];
    griffin_model *model;
    weights w;
    same_config();
    CHECK(weights_open(&w, DATA "griffin-tiny", &message) == 0, "%s", message.text);
    weight_read(weights_find(&w, "model.embed_tokens.weight"), 0, 97 * 64, values, &message);
    weights_close(&w);
    for (int i = 0; i < 3; i++) {
        edit_tensors("{", "{", i < 2 ? entry : unused, values, i < 2 ? 97 * 64 : 1);
        CHECK(convert_plain(WORK) == 0, "%s", message.text);
        if (!(model = open_output())) return;
        CHECK(strcmp(type_in_output(model, "lm_head.weight"), i == 1 ? "f32" : "none") == 0, "%d",
              i);
        griffin_close(model);
        values[5] += 1.0f;
    }
}

/* ---- configurations ------------------------------------------------------------------------ */

static void test_broken_configurations(void) {
    static const char *const cases[][3] = {
        {"\"hidden_size\": 64", "\"hidden_size\": 63", "hidden_size 63"},
        {"\"hidden_size\": 64", "\"hidden_size\": 64.5", "hidden_size: expected a whole number"},
        {"\"hidden_size\": 64", "\"hidden_size\": 0", "hidden_size: expected"},
        {"\"hidden_size\": 64", "\"hidden_size\": null", "hidden_size: expected"},
        {"\"hidden_size\": 64", "\"hidden_size\": 1e99", "hidden_size: expected"},
        {"\"hidden_size\": 64", "\"hidden_size\": \"64\"", "hidden_size: expected"},
        {"\"hidden_size\": 64", "\"hidden_size\": 64, \"hidden_size\": 64", "duplicate member"},
        {"\"hidden_size\": 64,", "\"hidden_size\": 64", "config.json"},
        {"\"head_dim\": 16", "\"head_dim\": 15", "head_dim 15"},
        {"\"intermediate_size\": 384", "\"intermediate_size\": 383",
         "intermediate_size 383 is not even"},
        {"\"num_key_value_heads\": 1", "\"num_key_value_heads\": 3", "num_key_value_heads 3"},
        {"\"num_hidden_layers\": 5", "\"num_hidden_layers\": 1025", "num_hidden_layers: expected"},
        {"\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": 0", "rms_norm_eps: expected"},
        {"\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": 1.0", "rms_norm_eps: expected"},
        {"\"partial_rotary_factor\": 0.5", "\"partial_rotary_factor\": 0.2",
         "partial_rotary_factor"},
        {"\"attention_bias\": false", "\"attention_bias\": 0",
         "attention_bias: expected true or false"},
        {"gelu_pytorch_tanh", "mish", "hidden_activation: expected"},
        {"\"model_type\": \"recurrent_gemma\"", "\"model_type\": \"mamba\"",
         "model_type: expected"},
        {"\"attention\"\n", "\"mamba\"\n", "block_types: expected"},
        {"\"lru_width\": 64", "\"_block_types\": [\"recurrent\"]",
         "block_types and _block_types differ"},
        {"\"lru_width\": 64", "\"quantization_config\": {}", "quantization_config"},
        {"\"lru_width\": 64", "\"rope_parameters\": {\"rope_type\": \"yarn\"}",
         "rope_type: expected"},
        {"\"lru_width\": 64", "\"rope_parameters\": 5", "rope_parameters: expected"},
        {"\"lru_width\": 64", "\"lru_width\": 62", "blocks divide lru_width 62"},
        {"\"eos_token_id\": 1", "\"eos_token_id\": 97",
         "eos_token_id 97 is not below vocab_size 97"},
        {"\"eos_token_id\": 1", "\"eos_token_id\": [1, 107]", "eos_token_id 107 is not below"},
        {"\"eos_token_id\": 1", "\"eos_token_id\": []", "eos_token_id: expected"},
        {"\"bos_token_id\": 2", "\"bos_token_id\": -1", "bos_token_id: expected"}
    };
    same_tensors();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        edit_config(cases[i][0], cases[i][1]);
        check_refused(convert_plain(WORK), cases[i][2]);
    }
}

static void test_other_spellings(void) {
    static const char *const cases[][2] = {
        {"\"hidden_size\": 64", "\"hidden_size\": 64.0"},
        {"\"block_types\"", "\"_block_types\""},
        {"\"rope_theta\": 10000.0",
         "\"rope_parameters\": {\"rope_theta\": 1e4, \"rope_type\": \"default\"}"},
        {"\"lru_width\": 64", "\"lru_width\": null, \"unknown\": {\"a\": [1, {}]}"},
        {"\"eos_token_id\": 1", "\"eos_token_id\": [1, 7]"},
        {"\"logits_soft_cap\": 30.0", "\"logits_soft_cap\": 30"}
    };
    same_tensors();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        griffin_model *model;
        edit_config(cases[i][0], cases[i][1]);
        CHECK(convert_plain(WORK) == 0, "%s: %s", cases[i][1], message.text);
        if (!(model = open_output())) continue;
        CHECK(griffin_get_info(model)->config.rope_base == 10000.0f
              && strcmp(griffin_get_info(model)->config.blocks, "rrarr") == 0
              && griffin_get_info(model)->config.soft_cap == 30.0f, "%s", cases[i][1]);
        griffin_close(model);
    }
}

/* ---- places -------------------------------------------------------------------------------- */

static void test_bad_places(void) {
    convert_options o = plain(DATA "griffin-tiny", WORK "/no/such/folder/out.gguf");
    remove(OUT);
    check_refused(convert(&o, &message), "cannot create");
    o.output = WORK;
    check_refused(convert(&o, &message), "is a directory");
    o.output = OUT;
    o.source = WORK "/no-such-source";
    check_refused(convert(&o, &message), "no-such-source");
    o.source = DATA "griffin-tiny/config.json";
    check_refused(convert(&o, &message), "neither");
    o.source = DATA "griffin-tiny";
    if (!path_exists("/dev/full")) return;
    o.output = "/dev/full";
    check_refused(convert(&o, &message), "cannot write");
    CHECK(path_exists("/dev/full") && !path_exists("/dev/full.part"), "the device was replaced");
}

/* ---- DeepMind's names ---------------------------------------------------------------------- */

static uint32_t crc32_of(const unsigned char *p, size_t size) {
    uint32_t crc = 0xFFFFFFFF;
    for (; size; p++, size--) {
        crc ^= *p;
        for (int i = 0; i < 8; i++) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320 : 0);
    }
    return ~crc;
}

/* The checksum of a tensor's values in the output, as bf16 if the source was. */
static uint32_t checksum(const model_parts *m, const char *name, int bf16) {
    const weight *t = weights_find(&m->w, name);
    size_t size = bf16 ? 2 : 4;
    if (!t) return 0;
    float *values = (float *)malloc((size_t)t->elements * 4);
    unsigned char *bytes = (unsigned char *)malloc((size_t)t->elements * 4);
    CHECK(weight_read(t, 0, t->elements, values, &message) == 0, "%s", message.text);
    for (size_t i = 0; i < t->elements; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], 4);
        for (size_t k = 0; k < size; k++)
            bytes[size * i + k] = (unsigned char)(bits >> (8 * (4 - size + k)));
    }
    uint32_t crc = crc32_of(bytes, (size_t)t->elements * size);
    free(values);
    free(bytes);
    return crc;
}

/* Follows the manifest of tests/data/pt; returns how many tensors "after_mapping" lists. */
static int check_mapping(const model_parts *m, json *j) {
    char name[100] = "";
    int count = 0, listed = 0, bf16 = 0;
    while (json_next(j) > JSON_END) {
        if (j->kind != JSON_KEY) continue;
        if (json_text_is(j, "after_mapping")) listed = 1;
        else if (json_text_is(j, "file")) listed = 0;
        else if (listed && json_text_is(j, "name")) {
            json_next(j);
            snprintf(name, sizeof name, "%.*s", (int)j->length, j->text);
        } else if (listed && json_text_is(j, "dtype")) {
            json_next(j);
            bf16 = json_text_is(j, "bfloat16");
        } else if (listed && json_text_is(j, "contiguous_crc32")) {
            json_next(j);
            CHECK(strtoul(j->text, NULL, 16) == checksum(m, name, bf16), "%s", name);
            count++;
        }
    }
    CHECK(j->kind == JSON_END, "%s", j->error);
    return count;
}

static const char deepmind_config[] =
    "{\"vocab_size\": 20, \"hidden_size\": 16, \"intermediate_size\": 48, \"num_hidden_layers\": 3,"
    " \"num_attention_heads\": 2, \"num_key_value_heads\": 1, \"lru_width\": 16,"
    " \"attention_window_size\": 4, \"eos_token_id\": 1}";

static void test_deepmind_names(void) {
    convert_options o = plain(DATA "pt/deepmind_names.pt", OUT);
    size_t manifest_size = 0;
    model_parts m;
    unsigned char *manifest = test_read(DATA "pt/manifest.json", &manifest_size);
    griffin_model *model;
    json j;
    write_file(WORK "/deepmind.json", deepmind_config, sizeof deepmind_config - 1);
    o.config = WORK "/deepmind.json";
    CHECK(convert(&o, &message) == 0, "%s", message.text);
    if (!manifest || !(model = open_output())) { CHECK(0, "no manifest or no model"); return; }
    if (read_output(&m, OUT) != 0) return;
    json_start(&j, manifest, manifest_size);
    int count = check_mapping(&m, &j);
    parts_free(&m);
    CHECK(count == griffin_get_info(model)->tensors && count > 50, "%d tensors", count);
    CHECK(griffin_get_info(model)->config.gate_blocks == 2, "gate blocks");
    json_stop(&j);
    griffin_close(model);
    free(manifest);
}

static void test_deepmind_needs_a_configuration(void) {
    convert_options o = plain(DATA "pt/deepmind_names.pt", OUT);
    griffin_model *model;
    remove(OUT);
    check_refused(convert(&o, &message), "--preset");
    o.preset = "2b";
    check_refused(convert(&o, &message), "'model.");
    o.preset = "5b";
    check_refused(convert(&o, &message), "there is no such preset");
    o.preset = NULL;
    o.config = WORK "/deepmind.json";
    o.vocab = 21;
    check_refused(convert(&o, &message), "shape [20, 16] instead of [21, 16]");
    o.vocab = 17;
    CHECK(convert(&o, &message) == 0, "%s", message.text);
    if (!(model = open_output())) return;
    CHECK(griffin_get_info(model)->config.vocab == 17, "padding rows are cropped");
    griffin_close(model);
}

/* ---- vocabularies -------------------------------------------------------------------------- */

/* griffin-tiny with another embedding: the old one hides behind a name that is ignored. */
static void make_model_of(int vocab) {
    float *rows = (float *)calloc((size_t)vocab * 64, sizeof *rows);
    char entry[100], config[60];
    snprintf(entry, sizeof entry,
             "\"model.embed_tokens.weight\":{\"dtype\":\"F32\",\"shape\":[%d,64]", vocab);
    snprintf(config, sizeof config, "\"vocab_size\": %d", vocab);
    edit_tensors("model.embed_tokens.weight", "model.normalizer", entry, rows, (size_t)vocab * 64);
    edit_config("\"vocab_size\": 97", config);
    free(rows);
}

static int convert_with(const char *tokenizer, int vocab) {
    convert_options o = plain(WORK, OUT);
    o.tokenizer = tokenizer;
    o.vocab = vocab;
    remove(OUT);
    return convert(&o, &message);
}

static void check_text(const griffin_model *model, const char *text, const int32_t *ids,
                       int count) {
    int32_t tokens[64];
    int n = griffin_encode(model, NULL, text, strlen(text), tokens, 64);
    CHECK(n == count && memcmp(tokens, ids, (size_t)count * sizeof *ids) == 0,
          "'%s' makes %d tokens", text, n);
}

static const int32_t hello[] = {2,   1321, 2949, 2949, 2941, 641, 504,
                                519, 482,  2947, 2910, 2949, 2904};
static const int32_t lines[] = {2, 2910, 850, 2956, 230, 108, 2910, 850, 2960, 230, 108};
static const int32_t cyrillic[] = {2,   2998, 2979, 2977, 425, 395,  2976, 426,
                                   347, 2916, 2899, 425,  405, 2977, 2979, 2934};

static void check_vocabulary(const char *tokenizer) {
    griffin_model *model;
    CHECK(convert_with(tokenizer, 0) == 0, "%s", message.text);
    if (!(model = open_output())) return;
    check_text(model, "HELLO World hElLo", hello, 13);
    check_text(model, "line1\r\nline2\r\n", lines, 11);
    check_text(model, "\xD0\x9F\xD1\x80\xD0\xB8\xD0\xB2\xD0\xB5\xD1\x82, \xD0\xBC\xD0\xB8\xD1\x80!",
               cyrillic, 16);
    CHECK(griffin_get_info(model)->bos == 2 && griffin_get_info(model)->eos == 1, "special ids");
    CHECK(griffin_get_info(model)->end_of_turn == 107, "%d", griffin_get_info(model)->end_of_turn);
    CHECK(griffin_token_type(model, 226) == GRIFFIN_TOKEN_BYTE, "the tab");
    CHECK(griffin_token_type(model, 3) == GRIFFIN_TOKEN_UNKNOWN, "the unknown piece");
    CHECK(griffin_token_type(model, 3001) == GRIFFIN_TOKEN_UNUSED, "padding");
    griffin_close(model);
}

static void test_tokenizer_model(void) {
    make_model_of(3002);
    check_vocabulary(DATA "convert_tokenizer.model");
}

static void test_tokenizer_json(void) {
    make_model_of(3002);
    check_vocabulary(DATA "convert_tokenizer.json");
}

static void test_byte_level(void) {
    static const int32_t ids[] = {259, 264, 0, 265};
    griffin_model *model;
    make_model_of(266);
    CHECK(convert_with(DATA "convert_byte_level.json", 0) == 0, "%s", message.text);
    if (!(model = open_output())) return;
    check_text(model, "hello world!<|endoftext|>", ids, 4);
    griffin_close(model);
}

static void test_vocabulary_sizes(void) {
    make_model_of(2999);
    check_refused(convert_with(DATA "convert_tokenizer.model", 0),
                  "3000 pieces, more than the 2999 rows");
    CHECK(convert_with(DATA "convert_tokenizer.model", 2998) == 0, "%s", message.text);
    CHECK(convert_with(NULL, 0) == 0, "%s", message.text);
}

/* Anything that would change the tokens without our knowledge is refused. */
static void test_foreign_tokenizers(void) {
    static const char *const cases[][3] = {
        {"\"normalizer\":null", "\"normalizer\":{\"type\":\"NFC\"}", "type 'NFC' is not supported"},
        {"\"pre_tokenizer\":{\n\"type\":\"ByteLevel\"", "\"pre_tokenizer\":{\n\"type\":\"Digits\"",
         "Digits is not supported here"},
        {"\"use_regex\":true", "\"use_regex\":false", "use_regex 'false'"},
        {"\"type\":\"BPE\"", "\"type\":\"Unigram\"", "type 'Unigram' is not supported"},
        {"\"dropout\":null", "\"dropout\":0.1", "dropout"},
        {"\"end_of_word_suffix\":\"\"", "\"end_of_word_suffix\":\"</w>\"", "end_of_word_suffix"},
        {"\"lstrip\":false", "\"lstrip\":true", "lstrip"},
        {"\"h e\"", "\"h  e\"", "merges: entry 0"},
        {"\"h e\"", "\"he\"", "merges: entry 0"},
        {"\"h e\"", "[\"h\",\"\"]", "merges: entry 0"},
        {"\"h e\"", "\"e h\"", "merges: entry 0"},
        {"\"h e\"", "\"l l\"", "merges: entry 1"},
        {"\"hello\":259", "\"hello\":258", "two texts share one"},
        {"\"hello\":259", "\"hello\":2097152", "too large"},
        {"\"hello\":259", "\"hello\":-1", "no number"},
        {"\"version\"", "\"version", "tokenizer.json"}
    };
    size_t size = 0;
    char *text = (char *)test_read(DATA "convert_byte_level.json", &size);
    make_model_of(266);
    for (size_t i = 0; text && i < sizeof cases / sizeof cases[0]; i++) {
        char *edited = replaced(text, cases[i][0], cases[i][1]);
        write_file(WORK "/foreign-tokenizer.json", edited, strlen(edited));
        free(edited);
        check_refused(convert_with(WORK "/foreign-tokenizer.json", 0), cases[i][2]);
    }
    free(text);
}

/* Every beginning of a tokenizer.model is refused or read, never more. */
static void test_cut_tokenizer_model(void) {
    size_t size = 0;
    unsigned char *file = test_read(DATA "convert_tokenizer.model", &size);
    make_model_of(3000);
    for (size_t n = 0; file && n < size; n += 997) {
        write_file(WORK "/cut.model", file, n);
        check_refused(convert_with(WORK "/cut.model", 0), "cut.model");
    }
    free(file);
}

static void test_chat_template(void) {
    static const char text[] =
        "{\"add_bos_token\": false, \"chat_template\": [{\"name\": \"tool_use\", "
        "\"template\": \"no\"}, {\"name\": \"default\", \"template\": \"<start_of_turn>\\n\"}]}";
    static const char stops[] = "{\"eos_token_id\": [1, 108], \"_from_model_config\": true}";
    griffin_model *model;
    make_model_of(3000);
    write_file(WORK "/tokenizer_config.json", text, sizeof text - 1);
    write_file(WORK "/generation_config.json", stops, sizeof stops - 1);
    CHECK(convert_with(DATA "convert_tokenizer.model", 0) == 0, "%s", message.text);
    remove(WORK "/tokenizer_config.json");
    remove(WORK "/generation_config.json");
    if (!(model = open_output())) return;
    CHECK(strcmp(griffin_get_info(model)->chat_template, "<start_of_turn>\n") == 0, "template");
    CHECK(griffin_get_info(model)->end_of_turn == 108, "%d", griffin_get_info(model)->end_of_turn);
    CHECK(!griffin_get_info(model)->add_bos, "add_bos");
    griffin_close(model);
}

int main(void) {
    make_folders();
    RUN(test_floats_are_kept);
    RUN(test_configuration);
    RUN(test_plain_configuration);
    RUN(test_types);
    RUN(test_rows);
    RUN(test_no_metadata);
    RUN(test_damaged_sources);
    RUN(test_presets);
    RUN(test_unknown_types);
    RUN(test_misfits_are_named);
    RUN(test_wild_values_are_named);
    RUN(test_bare_names);
    RUN(test_heads);
    RUN(test_broken_configurations);
    RUN(test_other_spellings);
    RUN(test_bad_places);
    RUN(test_deepmind_names);
    RUN(test_deepmind_needs_a_configuration);
    RUN(test_tokenizer_model);
    RUN(test_tokenizer_json);
    RUN(test_byte_level);
    RUN(test_vocabulary_sizes);
    RUN(test_foreign_tokenizers);
    RUN(test_cut_tokenizer_model);
    RUN(test_chat_template);
    return test_end();
}
