/* gguf_reader.c - see gguf_reader.h; the layout stands in gguf_writer.c.
 *
 * The library opens the file first and refuses whatever is wrong with it: from then on counts,
 * lengths and offsets can be trusted. What it does not tell, the vocabulary with its scores, is
 * looked up in the file's keys. */

#include "gguf_reader.h"
#include "../shared/checked.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define TILED ".t32"
enum { TILE = 32 };

/* ---- keys ------------------------------------------------------------------------------------ */

typedef struct value {
    uint32_t type;                          /* of an array: of its items */
    uint64_t count;
    const unsigned char *at;
} value;

static const unsigned char *after_text(const unsigned char *p) { return p + 8 + little_u64(p); }

static const unsigned char *after_items(const value *v) {
    static const unsigned char sizes[] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };
    const unsigned char *p = v->at;
    if (v->type != GGUF_STRING) return p + v->count * sizes[v->type];
    for (uint64_t i = 0; i < v->count; i++) p = after_text(p);
    return p;
}

/* 0: there is no such key, or it has another type. */
static int find_key(const unsigned char *file, const char *name, uint32_t type, value *found) {
    const unsigned char *p = file + 24, *key;
    uint64_t left = little_u64(file + 16);
    value v = { 0, 0, NULL };
    for (; left; left--, p = after_items(&v)) {
        key = p;
        p = after_text(p);
        v.type = little_u32(p);
        v.count = 1;
        v.at = p + 4;
        if (v.type == GGUF_ARRAY) {
            v.type = little_u32(p + 4);
            v.count = little_u64(p + 8);
            v.at = p + 16;
        }
        if (little_u64(key) == strlen(name) && !memcmp(key + 8, name, strlen(name))) break;
    }
    *found = v;
    return left && v.type == type;
}

static int flag_of(const unsigned char *file, const char *name, int standard) {
    value v;
    return find_key(file, name, GGUF_BOOL, &v) ? *v.at != 0 : standard;
}

/* ---- the vocabulary -------------------------------------------------------------------------- */

static float float_at(const unsigned char *p) {
    uint32_t bits = little_u32(p);
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

static void read_pieces(vocabulary *v, const unsigned char *file) {
    value texts, scores, types;
    const unsigned char *p;
    int typed = find_key(file, "tokenizer.ggml.token_type", GGUF_I32, &types);
    v->has_scores = find_key(file, "tokenizer.ggml.scores", GGUF_F32, &scores);
    if (!find_key(file, "tokenizer.ggml.tokens", GGUF_STRING, &texts)) return;
    p = texts.at;
    for (uint64_t i = 0; i < texts.count; i++, p = after_text(p)) {
        piece *new = vocabulary_at(v, (size_t)i);
        if (!new) return;
        new->text = vocabulary_keep(v, p + 8, (size_t)little_u64(p));
        new->score = v->has_scores ? float_at(scores.at + 4 * i) : 0;
        new->type = typed ? (int)little_u32(types.at + 4 * i) : GRIFFIN_TOKEN_NORMAL;
    }
}

static void read_merges(vocabulary *v, const unsigned char *file) {
    value merges;
    const unsigned char *p;
    if (!find_key(file, "tokenizer.ggml.merges", GGUF_STRING, &merges)) return;
    p = merges.at;
    for (uint64_t i = 0; i < merges.count; i++, p = after_text(p))
        vocabulary_add_merge(v, vocabulary_keep(v, p + 8, (size_t)little_u64(p)));
}

/* What is absent is what the library takes it for. */
static void read_rules(vocabulary *v, const unsigned char *file) {
    value found;
    if (find_key(file, "tokenizer.ggml.model", GGUF_STRING, &found))
        v->byte_level = little_u64(found.at) == 4 && !memcmp(found.at + 8, "gpt2", 4);
    v->unknown = -1;
    if (find_key(file, "tokenizer.ggml.unknown_token_id", GGUF_U32, &found))
        v->unknown = (int)little_u32(found.at);
    v->add_eos = flag_of(file, "tokenizer.ggml.add_eos_token", 0);
    v->add_space_prefix = flag_of(file, "tokenizer.ggml.add_space_prefix", !v->byte_level);
    v->remove_extra_whitespaces = flag_of(file, "tokenizer.ggml.remove_extra_whitespaces", 0);
    v->escape_whitespaces = flag_of(file, "griffin.tokenizer.escape_whitespaces", 1);
    v->whitespace_suffix = flag_of(file, "griffin.tokenizer.treat_whitespace_as_suffix", 0);
    if (find_key(file, "griffin.tokenizer.unk_surface", GGUF_STRING, &found))
        v->unk_surface = vocabulary_keep(v, found.at + 8, (size_t)little_u64(found.at));
    if (find_key(file, "tokenizer.ggml.precompiled_charsmap", GGUF_U8, &found))
        v->charsmap = vocabulary_keep(v, found.at, (size_t)found.count);
}

static int read_vocabulary(model_parts *m, const unsigned char *file, const griffin_info *info,
                           report *r) {
    vocabulary *v = &m->vocabulary;
    read_rules(v, file);
    read_pieces(v, file);
    read_merges(v, file);
    v->bos = info->bos;
    v->eos = info->eos;
    v->pad = info->pad;
    v->end_of_turn = info->end_of_turn;
    v->add_bos = info->add_bos;
    m->has_vocabulary = 1;
    return v->out_of_memory ? report_fail(r, "out of memory for the vocabulary") : 0;
}

/* ---- weights --------------------------------------------------------------------------------- */

typedef struct source {
    griffin_model       *model;
    const unsigned char *file;
    tensors              expected;          /* tiles do not say how many rows they hold */
} source;

static int is_tiled(const char *name) {
    size_t n = strlen(name), m = strlen(TILED);
    return n > m && !strcmp(name + n - m, TILED);
}

static const tensor *expected_of(const source *s, const griffin_tensor *t) {
    for (size_t i = 0; i < s->expected.count; i++) {
        const char *name = s->expected.list[i].name;
        if (!strncmp(name, t->name, strlen(name)) && !strcmp(t->name + strlen(name), TILED))
            return &s->expected.list[i];
    }
    return NULL;
}

static void set_shape(weight *w, int rank, const uint64_t *shape) {
    int64_t step = 1;
    w->rank = rank;
    for (int i = rank - 1; i >= 0; step *= (int64_t)shape[i--]) {
        w->shape[i] = shape[i];
        w->stride[i] = step;
    }
}

static void set_type(weight *w, const char *name) {
    static const struct { const char *name; weight_type type; } types[] = {
        { "f32", WEIGHT_F32 }, { "f16", WEIGHT_F16 }, { "bf16", WEIGHT_BF16 }
    };
    w->type_name = name;
    w->type = WEIGHT_OTHER;
    for (int i = 0; i < 3; i++) if (!strcmp(name, types[i].name)) w->type = types[i].type;
}

/* Tiles [tiles][cols][32] as rows. A gate is several matrices, each with tiles of its own, and is
 * kept transposed: [blocks][cols][rows]. */
static void untile(const unsigned char *tiles, const tensor *t, size_t size, unsigned char *to) {
    int gate = t->kind == TENSOR_GATE;
    size_t blocks = gate ? (size_t)t->shape[0] : 1, rows = (size_t)t->shape[gate ? 2 : 0];
    size_t cols = (size_t)t->shape[1], padded = (rows + TILE - 1) / TILE * TILE;
    for (size_t i = 0; i < blocks * rows * cols; i++) {
        size_t block = i / (rows * cols), rest = i % (rows * cols);
        size_t row = gate ? rest % rows : rest / cols, col = gate ? rest / rows : rest % cols;
        size_t from = ((block * padded + row) / TILE * cols + col) * TILE + row % TILE;
        memcpy(to + i * size, tiles + from * size, size);
    }
}

/* The untiled values live with the weights, as another of their files. */
static const unsigned char *take_tiles(weights *w, const source *s, const griffin_tensor *t,
                                       const tensor *wanted, weight *to) {
    size_t size = to->type == WEIGHT_F32 ? 4 : 2;
    unsigned char *rows = (unsigned char *)malloc((size_t)to->elements * size);
    file_bytes *files = (file_bytes *)realloc(w->files, (w->file_count + 1) * sizeof *files);
    if (files) w->files = files;
    if (!files || !rows) { free(rows); return NULL; }
    memset(&files[w->file_count], 0, sizeof *files);
    files[w->file_count].data = rows;
    files[w->file_count++].owned = rows;
    untile(s->file + t->offset, wanted, size, rows);
    return rows;
}

static int add_tensor(weights *w, const source *s, const griffin_tensor *t, report *r) {
    const tensor *wanted = is_tiled(t->name) ? expected_of(s, t) : NULL;
    const char *name = wanted ? wanted->name : t->name;
    weight *to = weights_add(w, name, strlen(name), "model", r);
    if (!to) return -1;
    set_type(to, t->type);
    set_shape(to, wanted ? wanted->rank : t->rank, wanted ? wanted->shape : t->shape);
    if (weight_measure(to, to->type == WEIGHT_F32 ? 32 : 16) != 0)
        return report_fail(r, "tensor '%s' is too large", name);
    to->data = s->file + t->offset;
    if (!wanted || to->type == WEIGHT_OTHER) return 0;
    to->data = take_tiles(w, s, t, wanted, to);
    return to->data ? 0 : report_fail(r, "out of memory");
}

static int read_weights(model_parts *m, source *s, const char *path, report *r) {
    int count = griffin_get_info(s->model)->tensors, status = 0;
    griffin_tensor t;
    if (tensors_list(&s->expected, &m->config.net) != 0) return report_fail(r, "out of memory");
    for (int i = 0; i < count && status == 0; i++) {
        griffin_get_tensor(s->model, i, &t);
        status = add_tensor(&m->w, s, &t, r);
    }
    tensors_free(&s->expected);
    return weights_finish(&m->w, status, path, r);
}

/* ---- all of it ------------------------------------------------------------------------------- */

static int read_config(model_config *c, const source *s, report *r) {
    const griffin_info *info = griffin_get_info(s->model);
    size_t length = strlen(info->chat_template);
    value found;
    c->net = info->config;
    c->activation = config_activation(info->config.activation);
    c->context_length = 8192;
    if (find_key(s->file, "griffin.context_length", GGUF_U32, &found))
        c->context_length = (int)(little_u32(found.at) & INT_MAX);
    c->bos = c->eos = c->end_of_turn = c->pad = c->add_bos = c->add_eos = -1;
    if (length && !(c->chat_template = (char *)malloc(length + 1)))
        return report_fail(r, "out of memory");
    if (length) memcpy(c->chat_template, info->chat_template, length + 1);
    return 0;
}

int gguf_read(model_parts *m, const char *path, report *r) {
    const file_bytes *file = weights_add_file(&m->w, path, r);
    griffin_options options;
    source s;
    int status;
    memset(&options, 0, sizeof options);
    memset(&s, 0, sizeof s);
    if (!file) return -1;
    options.error = r->text;
    options.error_size = sizeof r->text;
    s.file = file->data;
    if (griffin_open_memory(&s.model, file->data, (size_t)file->size, &options) < 0) {
        char text[300];
        snprintf(text, sizeof text, "%.299s", r->text);
        return report_fail(r, "%s: %s", path, text);
    }
    status = read_config(&m->config, &s, r);
    if (status == 0 && griffin_get_info(s.model)->has_vocabulary)
        status = read_vocabulary(m, s.file, griffin_get_info(s.model), r);
    if (status == 0) status = read_weights(m, &s, path, r);
    griffin_close(s.model);
    return status;
}
