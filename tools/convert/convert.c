/* convert.c - griffin convert: checkpoint in, GGUF model out, one tensor at a time. */

#include "parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "added_tokens.h"
#include "balance.h"
#include "checkpoint.h"
#include "family.h"
#include "gguf_reader.h"
#include "gguf_writer.h"
#include "quantise.h"
#include "tiles.h"
#include "trial.h"
#include "../shared/host.h"
#include "../shared/options.h"

#define CHUNK 65536                         /* values converted at once, if rows are not longer */

typedef struct job {
    const convert_options *o;
    report      *r;
    model_parts *m;
    char        *directory;                 /* where the companions of the weights lie */
    const quant_type *type, *gates, *head;
    const family *family;
    members     members;                  /* of config.json, for `family` */
    char        *config_path;
    int          from_deepmind;
    gguf_writer  out;
    size_t       fallen[2];                 /* tensors that became q8_0, f16 for their rows */
    uint64_t     parameters;
    uint64_t     state;                     /* bytes of a state; 0: not known */
    float       *values;                    /* [chunk] */
    uint8_t     *bytes;                     /* the same, encoded */
    uint8_t     *tile;                      /* and packed */
} job;

/* ---- what to read ---------------------------------------------------------------------- */

static int find_directory(job *j) {
    const char *source = j->o->source, *slash = path_slash(source);
    size_t length = slash ? (size_t)(slash - source) : 0;
    if (path_is_directory(source)) length = strlen(source);
    j->directory = (char *)malloc(length + 2);
    if (!j->directory) return report_fail(j->r, "out of memory");
    memcpy(j->directory, source, length);
    j->directory[length] = 0;
    if (!length) strcpy(j->directory, slash ? "/" : ".");
    return 0;
}

static int open_weights(job *j) {
    if (weights_open(&j->m->w, j->o->source, j->r) != 0
        || weights_strip(&j->m->w, j->o->source, j->r) != 0) return -1;
    j->from_deepmind = weights_find(&j->m->w, "embedder.input_embedding") != NULL;
    return 0;
}

static int no_config(const job *j) {
    return report_fail(j->r, "%s: there is no config.json: say --config FILE or --preset NAME, the "
                       "tensors do not know the window, soft cap and scales", j->directory);
}

static int read_config_file(job *j) {
    model_config *c = &j->m->config;
    const char *path = j->o->config;
    if (!path) path = j->config_path = path_join(j->directory, "config.json");
    if (!path) return report_fail(j->r, "out of memory");
    if (!j->o->config && !path_exists(path)) return no_config(j);
    if (members_read(&j->members, path, j->r) != 0) return -1;
    j->family = family_find(&j->members, &j->m->w);
    if (!j->family) return -1;
    config_start(c);
    j->family->configure(&j->members, c);
    config_take_ids(c, &j->members);
    if (members_find(&j->members, "quantization_config"))
        members_wrong(&j->members, "quantization_config",
                      "plain weights, not those of another quantiser");
    return j->members.failed ? -1 : 0;
}

static int read_preset(job *j) {
    static members none;
    j->family = family_find(&none, &j->m->w);
    return config_preset(&j->m->config, j->o->preset, j->r);
}

static int check_id(const job *j, const char *name, int id) {
    if (id < j->m->config.net.vocab) return 0;
    return report_fail(j->r, "%s: %s %d is not below vocab_size %d", j->directory, name, id,
                       j->m->config.net.vocab);
}

static int read_config(job *j) {
    model_config *c = &j->m->config;
    if (j->o->preset && j->o->config)
        return report_fail(j->r, "--preset and --config exclude each other");
    if (j->o->preset ? read_preset(j) : read_config_file(j)) return -1;
    if (config_read_companions(c, j->directory, j->r) != 0) return -1;
    if (j->o->vocab) c->net.vocab = j->o->vocab;
    for (int i = 0; i < c->end_count; i++)
        if (check_id(j, "eos_token_id", c->ends[i]) != 0) return -1;
    return check_id(j, "bos_token_id", c->bos) || check_id(j, "pad_token_id", c->pad) ? -1 : 0;
}

/* A head equal to the embedding is a copy of it. */
static int drop_tied_head(job *j) {
    const tensor *embedding = j->m->tensors.list, *head = embedding + j->m->tensors.count - 1;
    uint64_t row = head->shape[head->rank - 1];
    head_kind kind = j->m->config.head;
    int same = 1, status = 0;
    if (strcmp(head->name, "lm_head.weight") != 0)
        return kind != HEAD_OWN ? 0 : report_fail(j->r, "tensor 'lm_head.weight' is missing");
    if (kind == HEAD_TIED) { j->m->tensors.count--; return 0; }
    float *rows = (float *)malloc(2 * (size_t)row * sizeof *rows);
    if (!rows) return report_fail(j->r, "out of memory");
    for (uint64_t i = 0; status == 0 && same && i < head->shape[0]; i++) {
        status = weight_read(head->source, i * row, row, rows, j->r);
        if (status == 0) status = weight_read(embedding->source, i * row, row, rows + row, j->r);
        if (status == 0) same = memcmp(rows, rows + row, (size_t)row * sizeof *rows) == 0;
    }
    free(rows);
    if (same) j->m->tensors.count--;
    return status;
}

static char *find_tokenizer(const job *j) {
    static const char *const names[] = {"tokenizer.model", "tokenizer.json"};
    for (int i = 0; i < 2; i++) {
        char *path = path_join(j->directory, names[i]);
        if (path && path_exists(path)) return path;
        free(path);
    }
    return NULL;
}

/* What the configuration says of a special id or rule counts more than the tokenizer's own view. */
static void prefer(int *value, int configured) {
    if (configured >= 0) *value = configured;
}

/* The pieces that end a turn of a chat, under their usual names; -1: there is none. */
static int find_turn_marker(const vocabulary *v) {
    static const char *const names[] = {"<end_of_turn>", "<|im_end|>", "<|eot_id|>"};
    int id = -1;
    for (int i = 0; i < 3 && id < 0; i++) id = vocabulary_find(v, names[i], strlen(names[i]), 0);
    return id;
}

/* A turn marker among the ends is the end of a turn, wherever it stands in the list. Then the first
 * of the others ends a text. */
static void choose_ends(model_config *c, int marker) {
    int is_listed = 0, other = -1;
    for (int i = c->end_count - 1; i >= 0; i--) {
        if (c->ends[i] == marker) is_listed = 1;
        else other = c->ends[i];
    }
    if (!is_listed) return;
    c->end_of_turn = marker;
    c->eos = other;
}

/* A file has one end of a text and one end of a turn. Names the other ids that end a text. */
static void name_other_ends(const job *j) {
    const vocabulary *v = &j->m->vocabulary;
    const model_config *c = &j->m->config;
    char name[80];
    for (int i = 0; i < c->end_count; i++) {
        int id = c->ends[i], is_kept = id == v->eos || id == v->end_of_turn;
        slice text = v->pieces[id].text;
        for (int k = 0; k < i; k++) is_kept |= c->ends[k] == id;
        if (is_kept) continue;
        fprintf(stderr, "griffin: warning: eos_token_id %d '%s' will not end a text: a file has "
                "one end of a text (%d) and one of a turn (%d)\n", id,
                report_name(v->text + text.at, text.length, name), v->eos, v->end_of_turn);
    }
}

/* An id that stays after --vocab has cut pieces off. */
static int check_special(const job *j, const char *what, int id) {
    if (id < (int)j->m->vocabulary.count) return 0;
    return report_fail(j->r, "the %s piece has the id %d, but only %lu pieces are kept", what, id,
                       (unsigned long)j->m->vocabulary.count);
}

static int check_specials(const job *j) {
    const vocabulary *v = &j->m->vocabulary;
    return check_special(j, "unknown", v->unknown) || check_special(j, "bos", v->bos)
        || check_special(j, "eos", v->eos) || check_special(j, "pad", v->pad) ? -1 : 0;
}

static int read_vocabulary(job *j) {
    vocabulary *v = &j->m->vocabulary;
    char *found = j->o->tokenizer ? NULL : find_tokenizer(j);
    const char *path = found ? found : j->o->tokenizer;
    if (!path) {
        fprintf(stderr, "griffin: warning: %s has neither tokenizer.model nor tokenizer.json; the "
                "model will know tokens, but no text\n", j->directory);
        return 0;
    }
    int status = vocabulary_read(v, path, j->o->assume_nfc, j->r);
    if (status == 0) {
        j->m->has_vocabulary = 1;
        status = added_tokens_read(v, path, j->r);
    }
    free(found);
    if (status != 0) return -1;
    if (vocabulary_fit(v, (size_t)j->m->config.net.vocab, j->o->vocab != 0, j->r) != 0) return -1;
    v->end_of_turn = find_turn_marker(v);
    choose_ends(&j->m->config, v->end_of_turn);
    prefer(&v->bos, j->m->config.bos);
    prefer(&v->eos, j->m->config.eos);
    prefer(&v->end_of_turn, j->m->config.end_of_turn);
    prefer(&v->pad, j->m->config.pad);
    prefer(&v->add_bos, j->m->config.add_bos);
    prefer(&v->add_eos, j->m->config.add_eos);
    v->add_bos &= v->bos >= 0;
    v->add_eos &= v->eos >= 0;
    if (check_specials(j) != 0) return -1;
    if (!j->o->quiet) name_other_ends(j);
    return 0;
}

/* ---- what to write ----------------------------------------------------------------------- */

/* The type that a tensor has in its file; null: one that GGUF does not know. */
static const quant_type *type_of_source(const weight *w) {
    switch (w->type) {
    case WEIGHT_F16: return quant_find("f16");
    case WEIGHT_BF16: return quant_find("bf16");
    case WEIGHT_BLOCKS: return w->blocks;
    default: return quant_find("f32");
    }
}

static int can_write(const job *j, const quant_type *type) {
    return j->o->rows ? type->id != TILES_ONLY : tile_exists(type->name);
}

/* A file without --type keeps what the library can read; the rest becomes f32, exactly. */
static const quant_type *type_kept(const job *j, const tensor *t) {
    const quant_type *type = type_of_source(t->source);
    if (t->kind == TENSOR_GATE && type->elements > 1) return quant_find("f32");
    return can_write(j, type) ? type : quant_find("f32");
}

static const quant_type *type_wanted(const job *j, const tensor *t) {
    switch (t->kind) {
    case TENSOR_GATE: return j->gates ? j->gates : type_kept(j, t);
    case TENSOR_MATRIX: return j->type ? j->type : type_kept(j, t);
    case TENSOR_CAREFUL:
        if (!j->type) return type_kept(j, t);
        return j->type->bytes < j->type->elements ? quant_find("q8_0") : j->type;
    case TENSOR_TABLE:                      /* also the output head, so it gets more bits */
        if (j->head) return j->head;
        if (!j->type) return type_kept(j, t);
        if (j->type->elements > 1 && !tile_exists(j->type->name)) return quant_find("q6_k");
        if (strcmp(j->type->name, "q4_0") != 0) return j->type;
        return quant_find(j->o->rows ? "q8_0" : "q6_0");
    case TENSOR_SMALL: break;
    }
    return quant_find("f32");
}

/* A row is whole blocks; one that is not falls back to smaller blocks. */
static const quant_type *type_of(const job *j, const tensor *t) {
    const quant_type *type = type_wanted(j, t);
    uint64_t row = t->shape[t->rank - 1];
    if (row % type->elements && type->elements > 32) type = quant_find("q8_0");
    return row % type->elements ? quant_find("f16") : type;
}

static int is_tiled(const job *j, const tensor *t) {
    return !j->o->rows && t->kind != TENSOR_SMALL;
}

/* What general.file_type says: the type of the matrices. */
static const quant_type *main_type(const job *j) {
    for (size_t i = 0; i < j->m->tensors.count; i++)
        if (j->m->tensors.list[i].kind == TENSOR_MATRIX) return type_of(j, &j->m->tensors.list[i]);
    return quant_find("f32");
}

/* A matrix is [rows, cols]; a gate is `blocks` matrices, each transposed: [blocks, cols, rows]. */
static uint64_t blocks_of(const tensor *t) { return t->kind == TENSOR_GATE ? t->shape[0] : 1; }
static uint64_t rows_of(const tensor *t) { return t->shape[t->kind == TENSOR_GATE ? 2 : 0]; }

static int write_general(job *j) {
    gguf_writer *g = &j->out;
    const quant_type *type = main_type(j);
    const char *said = j->o->name ? j->o->name : j->m->name;
    char *name = path_name(j->o->source);
    if (!name) return report_fail(j->r, "out of memory");
    gguf_string(g, "general.architecture", "griffin");
    gguf_string(g, "general.name", said[0] ? said : name);
    gguf_u32(g, "general.file_type", type->file_type);
    if (type->elements > 1) gguf_u32(g, "general.quantization_version", 2);
    gguf_u32(g, "general.alignment", GGUF_ALIGNMENT);
    free(name);
    return 0;
}

/* Other readers of GGUF look for the last two; the library does not. */
static void write_network(job *j) {
    gguf_writer *g = &j->out;
    if (!j->o->rows) gguf_u32(g, "griffin.format_version", GRIFFIN_FORMAT_VERSION);
    config_write(&j->m->config.net, g);
    gguf_u32(g, "griffin.context_length", (uint32_t)j->m->config.context_length);
    gguf_u32(g, "griffin.attention.value_length", (uint32_t)j->m->config.net.head_dim);
}

/* Names of files have no "model.", so that with the tiling behind them they stay below 64 bytes. */
static void write_info(job *j, const tensor *t) {
    const quant_type *type = type_of(j, t);
    const char *plain = strncmp(t->name, "model.", 6) == 0 ? t->name + 6 : t->name;
    char name[sizeof t->name + 8];
    uint64_t shape[3];
    int rank;
    if (!is_tiled(j, t)) {
        gguf_tensor(&j->out, plain, t->rank, t->shape, type);
        return;
    }
    snprintf(name, sizeof name, "%s.%s", plain, type->name);
    rank = tile_shape(type, t->shape[1], blocks_of(t) * ((rows_of(t) + TILE - 1) / TILE), shape);
    gguf_tensor(&j->out, name, rank, shape, tile_storage(type));
}

static void write_infos(job *j) {
    for (size_t i = 0; i < j->m->tensors.count; i++) {
        const tensor *t = &j->m->tensors.list[i];
        const quant_type *type = type_of(j, t);
        uint64_t elements = 1;
        for (int k = 0; k < t->rank; k++) elements *= t->shape[k];
        j->parameters += elements;
        if (type != type_wanted(j, t)) j->fallen[type->elements == 1]++;
        write_info(j, t);
    }
}

static void tell_fallen(const job *j) {
    static const char *const to[] = {"q8_0", "f16"};
    for (int i = 0; i < 2; i++) {
        if (j->fallen[i] && !j->o->quiet)
            fprintf(stderr, "griffin: note: rows that are not whole blocks of their type: %lu "
                    "tensor%s written as %s\n", (unsigned long)j->fallen[i],
                    j->fallen[i] == 1 ? "" : "s", to[i]);
    }
}

/* ---- the data ------------------------------------------------------------------------------ */

static void show_progress(const job *j, const char *name) {
    double written = (double)j->out.written, all = (double)j->out.data_size;
    if (!j->o->quiet)
        progress_show("%3.0f %%  %6.0f of %.0f MB  %.60s", 100 * written / all, written / 1e6,
                      all / 1e6, name);
}

static int read_values(const job *j, const tensor *t, uint64_t first, uint64_t count, float *x) {
    uint64_t cols = t->shape[t->rank - 1];
    if (weight_read(t->source, first, count, x, j->r) != 0) return -1;
    for (uint64_t i = 0; i < count; i++) {
        if (t->by_row) x[i] *= t->by_row[(first + i) / cols];
        if (t->by_column) x[i] *= t->by_column[(first + i) % cols];
        if (!isfinite(x[i]))
            return report_fail(j->r, "tensor '%s': element %llu is not finite",
                               weight_origin(t->source), (unsigned long long)(first + i));
    }
    return 0;
}

static int encode(const job *j, const tensor *t, uint64_t count) {
    const quant_type *type = type_of(j, t);
    int (*quantise)(const quant_type *, const float *, uint64_t, uint8_t *) =
        j->o->plain_scales ? quantise_row : quantise_best;
    if (quantise(type, j->values, count, j->bytes) == 0) return 0;
    return report_fail(j->r, "tensor '%s': values are too large for %s", weight_origin(t->source),
                       type->name);
}

/* Blocks that are already of the wanted type are taken as they are. */
static int encode_rows(const job *j, const tensor *t, uint64_t first, uint64_t count) {
    const quant_type *type = type_of(j, t);
    if (read_values(j, t, first, count, j->values) != 0) return -1;
    if (t->source->type != WEIGHT_BLOCKS || t->source->blocks != type || t->by_row || t->by_column)
        return encode(j, t, count);
    weight_copy_blocks(t->source, first, count, j->bytes);
    return 0;
}

/* Whole rows, as many as make a chunk or a tile. */
static uint64_t chunk_of(const job *j, const tensor *t) {
    uint64_t row = t->shape[t->rank - 1];
    if (is_tiled(j, t)) return TILE * t->shape[1];
    return row > CHUNK ? row : CHUNK / row * row;
}

static int write_rows(job *j, const tensor *t) {
    uint64_t elements = 1, chunk = chunk_of(j, t);
    for (int i = 0; i < t->rank; i++) elements *= t->shape[i];
    for (uint64_t at = 0; at < elements; at += chunk) {
        uint64_t n = elements - at < chunk ? elements - at : chunk;
        if (encode_rows(j, t, at, n) != 0) return -1;
        if (gguf_write(&j->out, j->bytes, (size_t)quant_bytes(type_of(j, t), n), j->r) != 0)
            return -1;
        show_progress(j, t->name);
    }
    return 0;
}

/* Rows `first` and on of block `block` of a gate, which is kept transposed. */
static int encode_columns(job *j, const tensor *t, uint64_t block, uint64_t first, uint64_t count) {
    uint64_t rows = rows_of(t), cols = t->shape[1];
    float column[TILE];
    for (uint64_t k = 0; k < cols; k++) {
        if (read_values(j, t, (block * cols + k) * rows + first, count, column) != 0) return -1;
        for (uint64_t i = 0; i < count; i++) j->values[i * cols + k] = column[i];
    }
    return encode(j, t, count * cols);
}

static int write_tile(job *j, const tensor *t, uint64_t block, uint64_t first) {
    const quant_type *type = type_of(j, t);
    uint64_t count = rows_of(t) - first < TILE ? rows_of(t) - first : TILE, cols = t->shape[1];
    if (t->kind == TENSOR_GATE ? encode_columns(j, t, block, first, count)
                               : encode_rows(j, t, first * cols, count * cols)) return -1;
    tile_pack(type, cols, j->bytes, count, j->tile);
    show_progress(j, t->name);
    return gguf_write(&j->out, j->tile, (size_t)tile_size(type, cols), j->r);
}

static int write_tiles(job *j, const tensor *t) {
    for (uint64_t block = 0; block < blocks_of(t); block++) {
        for (uint64_t first = 0; first < rows_of(t); first += TILE) {
            if (write_tile(j, t, block, first) != 0) return -1;
        }
    }
    return 0;
}

static int write_tensor(job *j, const tensor *t) {
    if ((is_tiled(j, t) ? write_tiles(j, t) : write_rows(j, t)) != 0) return -1;
    return gguf_pad(&j->out, j->r);
}

static int write_data(job *j) {
    uint64_t chunk = CHUNK;
    for (size_t i = 0; i < j->m->tensors.count; i++) {
        uint64_t wanted = chunk_of(j, &j->m->tensors.list[i]);
        if (wanted > chunk) chunk = wanted;
    }
    j->values = (float *)malloc((size_t)chunk * sizeof *j->values);
    j->bytes = (uint8_t *)malloc((size_t)chunk * sizeof *j->values);
    j->tile = (uint8_t *)malloc((size_t)chunk * sizeof *j->values);
    if (!j->values || !j->bytes || !j->tile) return report_fail(j->r, "out of memory");
    for (size_t i = 0; i < j->m->tensors.count; i++) {
        if (write_tensor(j, &j->m->tensors.list[i]) != 0) return -1;
        weight_release(j->m->tensors.list[i].source);
    }
    return gguf_finish(&j->out, j->r);
}

/* The message of the library, after the name of the source. */
static int no_success(const job *j) {
    char text[400];
    snprintf(text, sizeof text, "%.399s", j->r->text);
    return report_fail(j->r, "%.100s: %s", j->o->source, text);
}

/* A file gets its name after the library has opened it and run a token. What is written to memory
 * is opened by the caller, and what is written to a device cannot be read again. */
static int try_output(job *j) {
    const char *part = j->out.file.part;
    if (part && trial_file(part, j->o->rows, &j->state, j->r) != 0) return no_success(j);
    return gguf_close(&j->out, j->r);
}

/* ---- all of it ------------------------------------------------------------------------------- */

/* A type that the command line names, or null if it names none. */
static int choose_type(const job *j, const char *what, const char *name, const quant_type **type) {
    *type = name ? quant_find(name) : NULL;
    if (!name || (*type && can_write(j, *type))) return 0;
    if (!*type) return report_fail(j->r, "%s %s: there is no such type", what, name);
    if (j->o->rows) return report_fail(j->r, "%s %s: only tiles are of this type", what, name);
    return report_fail(j->r, "%s %s: griffin reads f32, f16, bf16, q8_0, q6_0 and q4_0; --rows "
                       "writes a file of this type for other readers", what, name);
}

/* Null: each tensor keeps the type that it has in a GGUF file. */
static int choose_types(job *j) {
    int keep = path_ends_in(j->o->source, ".gguf");
    const char *type = j->o->type ? j->o->type : keep ? NULL : "bf16";
    const char *gates = j->o->gates ? j->o->gates : keep ? NULL : "f32";
    j->gates = gates ? quant_find(gates) : NULL;
    if (choose_type(j, "--type", type, &j->type) != 0
        || choose_type(j, "--head", j->o->head, &j->head) != 0) return -1;
    if (!gates || (j->gates && j->gates->elements == 1)) return 0;
    return report_fail(j->r, "--gates %s: gates are f32, bf16 or f16; less would spoil the decay",
                       gates);
}

/* A file without metadata gets its configuration from --config or --preset. */
static int read_gguf(job *j) {
    if (j->o->vocab || j->o->tokenizer)
        return report_fail(j->r, "--%s: a GGUF file has its own vocabulary, which is kept",
                           j->o->vocab ? "vocab" : "tokenizer");
    if ((j->o->preset || j->o->config) && read_config(j) != 0) return -1;
    if (gguf_read(j->m, j->o->source, j->r) != 0) return -1;
    if (tensors_find(&j->m->tensors, &j->m->config.net, &j->m->w, 0, j->r) != 0) return -1;
    return drop_tied_head(j);
}

/* --window counts as the configuration does: tokens before the own one that a token sees. */
static int choose_window(const job *j) {
    griffin_config *net = &j->m->config.net;
    int attends = strchr(net->blocks, 'a') != NULL;
    if (j->o->window && (!attends || j->o->window > 1 << 20))
        return report_fail(j->r, "--window %d: expected %s", j->o->window,
                           attends ? "at most 1048576" : "a network that has attention");
    if (j->o->window) net->window = j->o->window;
    if (net->window < 1)
        return report_fail(j->r, "%s: its attention has no window: say --window N",
                           j->o->source);
    return 0;
}

static int read_files(job *j) {
    if (choose_types(j) != 0 || find_directory(j) != 0) return -1;
    if (path_ends_in(j->o->source, ".gguf")) return read_gguf(j);
    if (open_weights(j) != 0 || read_config(j) != 0) return -1;
    if (j->family->rename(&j->m->w, &j->members, &j->m->config.net, j->o->source, j->r) != 0)
        return -1;
    if (tensors_find(&j->m->tensors, &j->m->config.net, &j->m->w,
                     j->from_deepmind || j->o->vocab, j->r)) return -1;
    return drop_tied_head(j) != 0 ? -1 : read_vocabulary(j);
}

static int read_source(job *j) { return read_files(j) != 0 ? -1 : choose_window(j); }

static int write_output(job *j) {
    if (write_general(j) != 0) return -1;
    write_network(j);
    if (j->m->has_vocabulary)
        vocabulary_write(&j->m->vocabulary, j->m->config.chat_template, &j->out);
    if (trial_metadata(&j->out, j->r) != 0) return no_success(j);
    write_infos(j);
    tell_fallen(j);
    if (gguf_open(&j->out, j->o->output, j->r) != 0 || write_data(j) != 0) return -1;
    return try_output(j);
}

static void start(job *j, model_parts *m, const convert_options *o, report *r) {
    memset(j, 0, sizeof *j);
    j->m = m;
    j->o = o;
    j->r = r;
}

static void finish(job *j) {
    progress_clear();
    gguf_free(&j->out);
    members_free(&j->members);
    free(j->config_path);
    free(j->directory);
    free(j->values);
    free(j->bytes);
    free(j->tile);
}

/* A message that only names a tensor gets the file before it. */
static void name_source(const job *j) {
    if (strncmp(j->r->text, "tensor '", 8) == 0) no_success(j);
}

/* What a host should know of attention over everything. */
static void tell_window(const job *j) {
    const griffin_config *net = &j->m->config.net;
    if (!j->m->config.is_unbounded || j->o->window) return;
    fprintf(stderr, "griffin: note: this model has no sliding window, so its window is its context: "
            "a token sees %d tokens before it", net->window);
    if (j->state) fprintf(stderr, ", and a state takes %.1f MB", (double)j->state / 1e6);
    fprintf(stderr, "; --window N makes it smaller\n");
}

int parts_read(model_parts *m, const convert_options *options, report *r) {
    job j;
    memset(m, 0, sizeof *m);
    start(&j, m, options, r);
    int status = read_source(&j);
    if (status != 0) name_source(&j);
    finish(&j);
    if (status != 0) parts_free(m);
    return status;
}

int parts_write(model_parts *m, const convert_options *options, char **image, size_t *size,
                report *r) {
    job j;
    start(&j, m, options, r);
    int status = choose_types(&j) != 0 ? -1 : write_output(&j);
    if (status != 0) name_source(&j);
    if (status == 0 && !options->output) {
        *image = (char *)j.out.image.data;
        *size = j.out.image.size;
        j.out.image.data = NULL;
    }
    uint64_t bytes = j.out.data_size;
    finish(&j);
    if (status == 0 && !options->quiet) tell_window(&j);
    if (status != 0 || options->quiet) return status;
    report_print(options->output, strlen(options->output));
    printf(": %lu tensors, %llu parameters, %llu bytes of weights, %.2f bits per weight\n",
           (unsigned long)m->tensors.count, (unsigned long long)j.parameters,
           (unsigned long long)bytes, 8.0 * (double)bytes / (double)j.parameters);
    return 0;
}

void parts_free(model_parts *m) {
    vocabulary_free(&m->vocabulary);
    tensors_free(&m->tensors);
    config_free(&m->config);
    weights_close(&m->w);
}

/* Writes the model into memory, runs it there, and writes it as it was wanted. */
static int write_balanced(model_parts *m, const convert_options *o, report *r) {
    convert_options first = *o;
    char *image = NULL;
    float *factors = NULL;
    size_t size = 0;
    first.output = NULL;
    first.type = "q8_0";
    first.head = NULL;
    first.rows = 0;
    first.quiet = 1;
    int status = parts_write(m, &first, &image, &size, r);
    if (status == 0) status = balance_find(m, image, size, o->balance, &factors, r);
    free(image);
    if (status == 0) status = parts_write(m, o, NULL, NULL, r);
    free(factors);
    return status;
}

int convert(const convert_options *options, report *r) {
    model_parts m;
    if (parts_read(&m, options, r) != 0) return -1;
    int status = options->balance ? write_balanced(&m, options, r)
                                  : parts_write(&m, options, NULL, NULL, r);
    parts_free(&m);
    return status;
}

/* ---- the command --------------------------------------------------------------------------- */

int command_convert(int argc, char **argv) {
    convert_options o = {.source = NULL};
    const option options[] = {
        {"SOURCE", NULL, OPTION_WORD, &o.source, NULL, "the checkpoint, a directory or a file"},
        {"OUTPUT", NULL, OPTION_WORD, &o.output, NULL, "the model, a GGUF file"},
        {"type", "t", OPTION_TEXT, &o.type, "TYPE",
         "of most weights: f32 f16 bf16 q8_0 q6_0 q4_0 (default: a GGUF file's, else bf16)"},
        {"head", NULL, OPTION_TEXT, &o.head, "TYPE",
         "of embedding and head (default: q6_0 with q4_0, else that of --type)"},
        {"gates", NULL, OPTION_TEXT, &o.gates, "TYPE", 
         "of the recurrence's gates: f32 bf16 f16 (default: those of a GGUF file, else f32)"},
        {"tokenizer", NULL, OPTION_TEXT, &o.tokenizer, "FILE",
         "a tokenizer.model or tokenizer.json"},
        {"config", NULL, OPTION_TEXT, &o.config, "FILE", "a config.json"},
        {"preset", NULL, OPTION_TEXT, &o.preset, "NAME",
         "in place of a config.json: 2b, 9b, griffin-1.3b ..."},
        {"name", NULL, OPTION_TEXT, &o.name, "TEXT", "what the model is called"},
        {"vocab", NULL, OPTION_COUNT, &o.vocab, "N", "keep only the first N rows of the embedding"},
        {"window", NULL, OPTION_COUNT, &o.window, "N",
         "how many tokens before its own attention sees; 0: as the source has it"},
        {"assume-nfc", NULL, OPTION_FLAG, &o.assume_nfc, NULL,
         "texts are in Unicode's form NFC, for tokenizers that ask for it: Qwen, GPT-NeoX"},
        {"rows", NULL, OPTION_FLAG, &o.rows, NULL,
         "plain rows for other readers of GGUF; also of q4_1 q5_0 q5_1 q4_k q5_k q6_k"},
        {"plain-scales", NULL, OPTION_FLAG, &o.plain_scales, NULL,
         "blocks of q4_0 as other programs write them: no search for scales with less error"},
        {"balance", NULL, OPTION_TEXT, &o.balance, "FILE",
         "run the model on this text first, and make its channels alike: less is lost"},
        {"quiet", "q", OPTION_FLAG, &o.quiet, NULL, "no progress, notes and summary"},
        {NULL, NULL, OPTION_END, NULL, NULL, NULL}
    };
    const command c = {
        "convert", "SOURCE OUTPUT [options]",
        "Makes a model file from a checkpoint: a Hugging Face directory (model.safetensors or\n"
        "pytorch_model.bin, also in several files), such a file beside its config.json, a .pt\n"
        "file of DeepMind or OpenLM, or a GGUF file of griffin.h, of plain rows or of any type.\n"
        "It knows RecurrentGemma, HGRN2, SUPRA, Llama, Mistral and Qwen2 by model_type or by the\n"
        "names of their tensors, and GGUF files of architecture llama.\n\n"
        "Matrices are written in tiles, which griffin uses where they are in the file. Embedding\n"
        "and head get more bits, q6_0 with q4_0; so do f_proj of HGRN2 and q_proj and k_proj of\n"
        "SUPRA, q8_0, because a state sums up their errors. A GGUF file keeps its types where\n"
        "griffin has tiles of them, and its other weights become f32, unless there is a --type.\n\n"
        "--balance changes nothing in f32, not a bit: channels are divided by powers of two in\n"
        "one matrix and multiplied in the next. Models with a few large channels, as Llamas have\n"
        "them, lose less by 8 and 4 bits then. A plain text of some pages will do.\n\n"
        "Attention without a sliding window gets that of its context; --window sets another.\n\n"
        "Tokens that fine-tuning has added are kept: added_tokens.json, tokenizer_config.json and\n"
        "tokenizer.json beside a tokenizer.model are read. What cannot be done as the source asks\n"
        "for it is refused by its name, and the file runs a token before it gets its own.",
        options};
    report r = { "" };
    int status;
    if ((status = options_parse(&c, argc, argv)) >= 0) return status;
    if (!o.source || !o.output) return options_wrong(&c, "convert needs a source and an output");
    file_reserve(o.output);
    status = convert(&o, &r);
    file_reserve(NULL);
    if (status == 0) return 0;
    return r.text[0] == '-' ? options_wrong(&c, "%s", r.text)       /* it begins with an option */
                            : complain("%s", r.text);
}
