/* gguf_reader.c - see gguf_reader.h; the layout stands in gguf_writer.c.
 *
 * The library opens the file without a network (directory_only): it checks the directory and
 * refuses whatever is wrong with it. From then on counts, lengths and offsets can be trusted. */

#include "gguf_reader.h"
#include "family.h"
#include "tiles.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* ---- keys ------------------------------------------------------------------------------------ */

/* 0: there is no such key, or it has another type. */
static int find(const griffin_model *f, const char *key, griffin_value_type type, int is_array,
                griffin_metadata *found) {
    return griffin_get_metadata(f, key, 0, found) == 1 && found->type == type
        && found->is_array == is_array;
}

static int flag_of(const griffin_model *f, const char *key, int standard) {
    griffin_metadata m;
    return find(f, key, GRIFFIN_VALUE_BOOL, 0, &m) ? m.integer != 0 : standard;
}

/* A copy of a text, to be freed; null if there is none. */
static char *text_of(const griffin_model *f, const char *key, report *r, int *status) {
    griffin_metadata m;
    if (!find(f, key, GRIFFIN_VALUE_STRING, 0, &m)) return NULL;
    char *text = (char *)malloc(m.length + 1);
    if (!text) { *status = report_fail(r, "out of memory"); return NULL; }
    memcpy(text, m.text, m.length);
    text[m.length] = 0;
    return text;
}

/* ---- the vocabulary -------------------------------------------------------------------------- */

static void read_pieces(vocabulary *v, const griffin_model *f) {
    griffin_metadata texts, scores, types;
    int typed = find(f, "tokenizer.ggml.token_type", GRIFFIN_VALUE_I32, 1, &types);
    v->has_scores = find(f, "tokenizer.ggml.scores", GRIFFIN_VALUE_F32, 1, &scores);
    if (!find(f, "tokenizer.ggml.tokens", GRIFFIN_VALUE_STRING, 1, &texts)) return;
    do {
        piece *new = vocabulary_at(v, (size_t)texts.index);
        if (!new) return;
        new->text = vocabulary_keep(v, texts.text, texts.length);
        new->score = v->has_scores ? (float)scores.number : 0;
        new->type = typed ? (int)types.integer : GRIFFIN_TOKEN_NORMAL;
        if (v->has_scores) griffin_next_element(&scores);
        if (typed) griffin_next_element(&types);
    } while (griffin_next_element(&texts));
}

static void read_merges(vocabulary *v, const griffin_model *f) {
    griffin_metadata merges;
    if (!find(f, "tokenizer.ggml.merges", GRIFFIN_VALUE_STRING, 1, &merges)) return;
    if (merges.count == 0) return;
    do vocabulary_add_merge(v, vocabulary_keep(v, merges.text, merges.length));
    while (griffin_next_element(&merges));
}

static void read_row(token_row *row, const griffin_model *f, const char *key) {
    griffin_metadata m;
    if (!find(f, key, GRIFFIN_VALUE_U32, 1, &m) || m.count == 0) return;
    do row->ids[row->count++] = (int)m.integer;
    while (row->count < VOCABULARY_AROUND && griffin_next_element(&m));
}

/* llama.cpp, whose files say "llama" here, puts the space before every stretch of text between
 * special tokens. */
static int is_llama(const griffin_model *f) {
    griffin_metadata m;
    return find(f, "general.architecture", GRIFFIN_VALUE_STRING, 0, &m) && m.length == 5
        && !memcmp(m.text, "llama", 5);
}

/* What is absent is what the library takes it for; it has checked what is there. */
static void read_split(vocabulary *v, const griffin_model *f) {
    griffin_metadata m;
    strcpy(v->pre, "gpt-2");
    if (find(f, "tokenizer.ggml.pre", GRIFFIN_VALUE_STRING, 0, &m) && m.length < sizeof v->pre
        && strncmp(m.text, "default", m.length)) {
        memcpy(v->pre, m.text, m.length);
        v->pre[m.length] = 0;
    }
    v->ignore_merges = flag_of(f, "griffin.tokenizer.ignore_merges", !strncmp(v->pre, "llama", 5));
}

static void read_rules(vocabulary *v, const griffin_model *f) {
    griffin_metadata m;
    if (find(f, "tokenizer.ggml.model", GRIFFIN_VALUE_STRING, 0, &m))
        v->byte_level = m.length == 4 && !memcmp(m.text, "gpt2", 4);
    read_split(v, f);
    read_row(&v->before, f, "griffin.tokenizer.tokens_before");
    read_row(&v->after, f, "griffin.tokenizer.tokens_after");
    v->unknown = -1;
    if (find(f, "tokenizer.ggml.unknown_token_id", GRIFFIN_VALUE_U32, 0, &m))
        v->unknown = (int)m.integer;
    v->add_eos = flag_of(f, "tokenizer.ggml.add_eos_token", 0);
    v->add_space_prefix = flag_of(f, "tokenizer.ggml.add_space_prefix", !v->byte_level);
    v->remove_extra_whitespaces = flag_of(f, "tokenizer.ggml.remove_extra_whitespaces", 0);
    v->escape_whitespaces = flag_of(f, "griffin.tokenizer.escape_whitespaces", 1);
    v->whitespace_suffix = flag_of(f, "griffin.tokenizer.treat_whitespace_as_suffix", 0);
    v->prefix_everywhere = flag_of(f, "griffin.tokenizer.space_prefix_everywhere",
                                   is_llama(f) && v->add_space_prefix);
    v->prefix_once = flag_of(f, "griffin.tokenizer.space_prefix_once", 0);
    v->split_at_spaces = flag_of(f, "griffin.tokenizer.split_at_spaces", 0);
    if (find(f, "griffin.tokenizer.first_added_id", GRIFFIN_VALUE_U32, 0, &m))
        v->first_added = (int)m.integer;
    v->verbatim = flag_of(f, "griffin.tokenizer.verbatim_pieces", 0);
    if (find(f, "griffin.tokenizer.unk_surface", GRIFFIN_VALUE_STRING, 0, &m))
        v->unk_surface = vocabulary_keep(v, m.text, m.length);
    if (find(f, "tokenizer.ggml.precompiled_charsmap", GRIFFIN_VALUE_U8, 1, &m))
        v->charsmap = vocabulary_keep(v, (const char *)m.data, (size_t)m.count);
}

/* What fine-tuning added to a model of SentencePiece stands after its last piece or byte. It is cut
 * out of a text, as in added_tokens.c; llama.cpp calls the special ones control tokens. */
static void settle_added(vocabulary *v) {
    size_t first = v->count;
    while (first > 0 && (v->pieces[first - 1].type == GRIFFIN_TOKEN_CONTROL
                         || v->pieces[first - 1].type == GRIFFIN_TOKEN_USER_DEFINED
                         || v->pieces[first - 1].type == GRIFFIN_TOKEN_UNUSED)) first--;
    if (first == v->count || first == 0) return;
    v->first_added = (int)first;
    v->verbatim = 1;
    for (size_t i = first; i < v->count; i++)
        if (v->pieces[i].type == GRIFFIN_TOKEN_CONTROL)
            v->pieces[i].type = GRIFFIN_TOKEN_USER_DEFINED;
}

static int read_vocabulary(model_parts *m, const griffin_model *f, report *r) {
    vocabulary *v = &m->vocabulary;
    const griffin_info *info = griffin_get_info(f);
    if (!info->has_vocabulary) return 0;
    read_rules(v, f);
    read_pieces(v, f);
    read_merges(v, f);
    if (is_llama(f) && v->has_scores) settle_added(v);
    v->bos = info->bos;
    v->eos = info->eos;
    v->pad = info->pad;
    v->end_of_turn = info->end_of_turn;
    v->add_bos = info->add_bos;
    m->has_vocabulary = 1;
    if (v->out_of_memory) return report_fail(r, "out of memory for the vocabulary");
    if (v->count <= (size_t)m->config.net.vocab) return 0;
    return report_fail(r, "%lu tokens in the vocabulary, but %d rows in the embedding",
                       (unsigned long)v->count, m->config.net.vocab);
}

/* ---- weights --------------------------------------------------------------------------------- */

static const char *without_prefix(const char *name) {
    return strncmp(name, "model.", 6) == 0 ? name + 6 : name;
}

/* What a tensor NAME.TYPE, or NAME.t32 of griffin.h 0.1, is as rows; null for any other. Tiles do
 * not say how many rows they hold. */
static const tensor *untiled(const tensors *expected, const griffin_tensor *t,
                             const quant_type **type) {
    const char *name = without_prefix(t->name), *ending = strrchr(name, '.');
    for (size_t i = 0; ending && i < expected->count; i++) {
        const tensor *e = &expected->list[i];
        const char *plain = without_prefix(e->name);
        int gate = e->kind == TENSOR_GATE;
        if (strlen(plain) != (size_t)(ending - name) || strncmp(plain, name, strlen(plain)))
            continue;
        *type = quant_find(strcmp(ending, ".t32") ? ending + 1 : t->type);
        if (!*type)                         /* bytes: their number tells the type */
            *type = quant_find(t->rank == 2 && t->shape[1] == tile_size(quant_find("q8_0"),
                               e->shape[gate ? 1 : e->rank - 1]) ? "q8_0" : "q4_0");
        return e;
    }
    return NULL;
}

static void set_shape(weight *w, int rank, const uint64_t *shape) {
    int64_t step = 1;
    w->rank = rank;
    w->elements = 1;
    for (int i = rank - 1; i >= 0; step *= (int64_t)shape[i--]) {
        w->shape[i] = shape[i];
        w->stride[i] = step;
        w->elements *= shape[i];
    }
}

static void set_type(weight *w, const quant_type *type) {
    static const struct { const char *name; weight_type type; } plain[] = {
        { "f32", WEIGHT_F32 }, { "f16", WEIGHT_F16 }, { "bf16", WEIGHT_BF16 }
    };
    w->type = WEIGHT_BLOCKS;
    w->blocks = type;
    for (int i = 0; i < 3; i++) if (!strcmp(type->name, plain[i].name)) w->type = plain[i].type;
    w->bytes = quant_bytes(type, w->elements);
}

/* Rows [cols] of numbers to columns, as a gate [blocks, cols, rows] is kept. */
static void turn(const uint8_t *from, uint8_t *to, uint64_t cols, uint64_t rows, uint64_t first,
                 uint64_t count, size_t size) {
    for (uint64_t r = 0; r < count; r++)
        for (uint64_t k = 0; k < cols; k++)
            memcpy(to + (k * rows + first + r) * size, from + (r * cols + k) * size, size);
}

static int unpack(weights *w, weight *to, const tensor *e, const quant_type *type,
                  const unsigned char *tiles, report *r) {
    int gate = e->kind == TENSOR_GATE;
    uint64_t blocks = gate ? e->shape[0] : 1, rows = e->shape[gate ? 2 : 0], cols = e->shape[1];
    uint64_t size = tile_size(type, cols), row = quant_bytes(type, cols);
    uint8_t *all = weights_own(w, (size_t)to->bytes), *part = (uint8_t *)malloc((size_t)size);
    to->data = all;
    for (uint64_t block = 0; all && part && block < blocks; block++)
        for (uint64_t first = 0; first < rows; first += TILE, tiles += size) {
            uint64_t count = rows - first < TILE ? rows - first : TILE;
            uint8_t *place = all + block * rows * row;
            tile_unpack(type, cols, tiles, count, gate ? part : place + first * row);
            if (gate) turn(part, place, cols, rows, first, count, type->bytes);
        }
    free(part);
    return all && part ? 0 : report_fail(r, "out of memory");
}

static int add_tiles(weights *w, const griffin_tensor *t, const tensor *e, const quant_type *type,
                     const unsigned char *file, report *r) {
    int gate = e->kind == TENSOR_GATE;
    uint64_t rows = e->shape[gate ? 2 : 0], cols = e->shape[1], shape[3];
    uint64_t tiles = (rows + TILE - 1) / TILE * (gate ? e->shape[0] : 1);
    int rank = tile_shape(type, cols, tiles, shape);
    if (!tile_size(type, cols) || (gate && type->elements > 1) || t->rank != rank
        || memcmp(t->shape, shape, (size_t)rank * sizeof *shape)
        || strcmp(t->type, tile_storage(type)->name))
        return report_fail(r, "tensor '%s': not %llu tiles of %llu columns", t->name,
                           (unsigned long long)tiles, (unsigned long long)cols);
    weight *to = weights_add(w, e->name, strlen(e->name), "model", r);
    if (!to) return -1;
    to->type_name = type->name;
    set_shape(to, e->rank, e->shape);
    set_type(to, type);
    return unpack(w, to, e, type, file + t->offset, r);
}

static int add_rows(weights *w, const griffin_tensor *t, const char *name,
                    const unsigned char *file, report *r) {
    const quant_type *type = quant_find_source(t->type);
    weight *to = weights_add(w, name, strlen(name), "model", r);
    if (!to) return -1;
    to->type_name = t->type;
    set_shape(to, t->rank, t->shape);
    to->type = WEIGHT_OTHER;
    if (type) set_type(to, type);
    to->data = file + t->offset;
    return 0;
}

/* Names get the prefix that Hugging Face gives them. */
static int add_own_rows(weights *w, const griffin_tensor *t, const unsigned char *file, report *r) {
    const char *name = without_prefix(t->name);
    char full[136];
    snprintf(full, sizeof full, "%s%s", strcmp(name, "lm_head.weight") ? "model." : "", name);
    return add_rows(w, t, full, file, r);
}

static int read_foreign_weights(model_parts *m, const griffin_model *f, const file_bytes *file,
                                const gguf_family *foreign, const char *path, report *r) {
    const unsigned char *data = file->data;
    griffin_tensor t;
    int status = 0;
    for (int i = 0; status == 0 && griffin_get_tensor(f, i, &t) == GRIFFIN_OK; i++)
        status = add_rows(&m->w, &t, t.name, data, r);
    if (weights_finish(&m->w, status, path, r) != 0) return -1;
    return foreign->rename(&m->w, f, &m->config.net, path, r);
}

static int read_weights(model_parts *m, const griffin_model *f, const file_bytes *file,
                        const char *path, report *r) {
    const unsigned char *data = file->data; /* reading tiles may move the list of files */
    tensors expected;
    griffin_metadata key;
    griffin_tensor t;
    int count = griffin_get_info(f)->tensors, status = 0;
    int said = griffin_get_metadata(f, "griffin.attention.qkv_bias", 0, &key) == 1;
    for (int i = 0; i < count && !said && griffin_get_tensor(f, i, &t) == GRIFFIN_OK; i++)
        if (strstr(t.name, "temporal_block.q_proj.bias")) m->config.net.qkv_bias = 1;
    if (tensors_list(&expected, &m->config.net) != 0
        || tensors_list_head(&expected, &m->config.net) != 0)
        status = report_fail(r, "out of memory");
    for (int i = 0; i < count && status == 0; i++) {
        const quant_type *type = NULL;
        griffin_get_tensor(f, i, &t);
        const tensor *e = untiled(&expected, &t, &type);
        status = e ? add_tiles(&m->w, &t, e, type, data, r) : add_own_rows(&m->w, &t, data, r);
    }
    tensors_free(&expected);
    return weights_finish(&m->w, status, path, r);
}

/* ---- all of it ------------------------------------------------------------------------------- */

/* A network of another program; null and a message: not one that is known. */
static const gguf_family *find_family(const griffin_model *f, report *r) {
    griffin_metadata m;
    if (!find(f, "general.architecture", GRIFFIN_VALUE_STRING, 0, &m)) {
        report_fail(r, "no general.architecture in the metadata: say --config FILE or --preset "
                    "NAME");
        return NULL;
    }
    const gguf_family *found = gguf_family_find(m.text, m.length);
    if (!found) report_fail(r, "architecture '%.*s', expected griffin, recurrentgemma or llama",
                             m.length < 80 ? (int)m.length : 80, m.text);
    return found;
}

/* *foreign: null for a Griffin. */
static int read_network(model_config *c, const griffin_model *f, const gguf_family **foreign,
                        report *r) {
    const griffin_config *net = &griffin_get_info(f)->config;
    griffin_metadata m;
    int found = net->layers > 0;
    *foreign = NULL;
    if (!found && c->net.layers && !find(f, "general.architecture", GRIFFIN_VALUE_STRING, 0, &m))
        return 0;                           /* --config or --preset has told it */
    if (c->net.layers)
        return report_fail(r, "--config and --preset are for files whose metadata tell no network, "
                           "but this file's do");
    free(c->chat_template);
    config_start(c);
    if (!found) {
        *foreign = find_family(f, r);
        return *foreign ? (*foreign)->configure(f, c, r) : -1;
    }
    c->net = *net;
    c->context_length = 8192;
    if (find(f, "griffin.context_length", GRIFFIN_VALUE_U32, 0, &m))
        c->context_length = (int)(m.integer & INT_MAX);
    return 0;
}

static int read_config(model_parts *parts, const griffin_model *f, const gguf_family **foreign,
                       report *r) {
    model_config *c = &parts->config;
    griffin_metadata m;
    int status = 0;
    if (read_network(c, f, foreign, r) != 0) return -1;
    c->bos = c->eos = c->end_of_turn = c->pad = c->add_bos = c->add_eos = -1;
    if (find(f, "general.name", GRIFFIN_VALUE_STRING, 0, &m) && m.length < sizeof parts->name)
        memcpy(parts->name, m.text, m.length);
    if (!c->chat_template) c->chat_template = text_of(f, "tokenizer.chat_template", r, &status);
    return status;
}

/* Keeps the first error: what the library cannot read of a configuration or a vocabulary it only
 * reports. */
static void keep_error(int error, const char *message, void *user) {
    report *r = (report *)user;
    if (error < 0 && !r->text[0]) snprintf(r->text, sizeof r->text, "%s", message);
}

static int open_directory(griffin_model **f, const file_bytes *file, report *r) {
    griffin_options options;
    memset(&options, 0, sizeof options);
    options.directory_only = 1;
    options.logger.message = keep_error;
    options.logger.user = r;
    r->text[0] = 0;
    return griffin_open_memory(f, file->data, (size_t)file->size, &options) < 0 || r->text[0]
        ? -1 : 0;
}

int gguf_read(model_parts *m, const char *path, report *r) {
    const file_bytes *added = weights_add_file(&m->w, path, r);
    const gguf_family *foreign = NULL;
    griffin_model *f;
    if (!added) return -1;
    file_bytes file = *added;
    int status = open_directory(&f, &file, r);
    if (status == 0) status = read_config(m, f, &foreign, r);
    if (status == 0) status = read_vocabulary(m, f, r);
    if (status == 0) status = foreign ? read_foreign_weights(m, f, &file, foreign, path, r)
                                      : read_weights(m, f, &file, path, r);
    if (status != 0) {
        char text[300];
        snprintf(text, sizeof text, "%.299s", r->text);
        report_fail(r, strncmp(text, path, strlen(path)) ? "%s: %s" : "%.0s%s", path, text);
    }
    griffin_close(f);
    return status;
}
