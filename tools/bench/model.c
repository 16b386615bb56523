/* model.c - models and states to measure; see model.h. */

#include "model.h"
#include "../convert/config.h"
#include "../convert/tensors.h"
#include "../convert/tiles.h"
#include "../convert/vocabulary.h"
#include "../shared/host.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- random weights -----------------------------------------------------------------------------
 * A float gets a random sign, a random fraction and a fixed exponent e: its magnitude is uniform in
 * [2^e, 2^(e+1)) and its root mean square 2^e sqrt(7/3). Blocks get random codes and such a float
 * as their scale. With a root mean square of 1 / sqrt(n), n weights in a row, a layer keeps the
 * scale of its input. */

static uint64_t mix(uint64_t *s) {          /* splitmix64 */
    uint64_t z = *s += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static unsigned char *fill_words(unsigned char *p, size_t bytes, uint64_t keep, uint64_t set,
                                 uint64_t *s) {
    for (size_t i = 0; i < bytes; i += 8) {
        uint64_t word = (mix(s) & keep) | set;
        memcpy(p + i, &word, 8);
    }
    return p + bytes;
}

static uint64_t exponent(double rms, int bias) {
    int e = bias + (int)floor(log2(rms / sqrt(7.0 / 3)) + 0.5);
    return (uint64_t)(e < 1 ? 1 : e);
}

static const uint64_t twice = 0x0000000100000001u, four_times = 0x0001000100010001u;

static void fill_tile(const bench_tensor *t, unsigned char *tile, uint64_t seed) {
    const unsigned char *end = tile + t->tile_bytes;
    size_t all = (size_t)t->tile_bytes, scales = 64, codes = TILE * quant_find(t->type)->bytes - 64;
    /* of v - 8, v - 32 and v - 128 */
    double rms = 1 / sqrt(t->cols), of_codes = codes == 512 ? 4.6 : codes == 768 ? 18.5 : 74;
    if (!strcmp(t->type, "f32"))
        fill_words(tile, all, 0x807fffff * twice, (exponent(rms, 127) << 23) * twice, &seed);
    else if (!strcmp(t->type, "bf16"))
        fill_words(tile, all, 0x807f * four_times, (exponent(rms, 127) << 7) * four_times, &seed);
    else if (!strcmp(t->type, "f16"))
        fill_words(tile, all, 0x83ff * four_times, (exponent(rms, 15) << 10) * four_times, &seed);
    else while (tile < end) {               /* blocks of 32 columns: scales, then codes */
        tile = fill_words(tile, scales, 0x03ff * four_times,
                          (exponent(rms / of_codes, 15) << 10) * four_times, &seed);
        tile = fill_words(tile, codes, ~(uint64_t)0, 0, &seed);
    }
}

void bench_random(const bench_tensor *t, int number, unsigned char *data, void *user) {
    uint64_t seed = *(const uint64_t *)user + ((uint64_t)number << 32);
    for (int i = 0; !t->type && i < t->rows; i++) {
        float value = t->centre + t->spread * ((float)(mix(&seed) >> 40) * 0x1p-23f - 1);
        memcpy(data + 4 * (size_t)i, &value, 4);
    }
    if (!t->type) return;
#ifdef _OPENMP
    #pragma omp parallel for schedule(static)
#endif
    for (int i = 0; i < t->tiles; i++) {
        uint64_t own = seed + (uint64_t)i;
        fill_tile(t, data + (uint64_t)i * t->tile_bytes, mix(&own));
    }
}

/* ---- the image ------------------------------------------------------------------------------- */

enum { IMAGE_HEAD = 24 };

typedef struct drawing {
    gguf_writer   file;
    bench_tensor *tensors;
    int           count;
    const char   *types[TENSOR_KINDS];      /* by tensor_kind */
    float         gain;                     /* what stored weights of norms add up to 1 with */
} drawing;

/* Random vectors are spread around a centre that keeps the network's numbers in proportion. */
static void choose_spread(const drawing *d, bench_tensor *t) {
    const struct { const char *ending; float centre, spread; } rules[] = {
        { "norm.weight", 1 - d->gain, 0.1f }, { "conv_1d.weight", 0, 0.5f },
        { "recurrent_param", -4, 2 }, { "bias", 0, 0.01f }, { "lower_bound", 0.6f, 0.2f },
        { "gate_range", 0.15f, 0.05f }, { "decay", 0.95f, 0.04f }
    };
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        size_t n = strlen(t->name), m = strlen(rules[i].ending);
        if (n < m || strcmp(t->name + n - m, rules[i].ending)) continue;
        t->centre = rules[i].centre;
        t->spread = rules[i].spread;
    }
}

static void draw_tiles(drawing *d, bench_tensor *t) {
    char name[sizeof t->name + 8];
    const quant_type *type = quant_find(t->type);
    uint64_t shape[3];
    if (!tile_size(type, (uint64_t)t->cols)) type = quant_find("f32");
    t->type = type->name;
    t->tile_bytes = tile_size(type, (uint64_t)t->cols);
    t->tiles = (t->rows / t->blocks + TILE - 1) / TILE * t->blocks;
    int rank = tile_shape(type, (uint64_t)t->cols, (uint64_t)t->tiles, shape);
    snprintf(name, sizeof name, "%s.%s", t->name, type->name);
    t->bytes = gguf_tensor(&d->file, name, rank, shape, tile_storage(type));
}

static void draw(drawing *d, const tensor *from) {
    bench_tensor *t = &d->tensors[d->count++];
    int vector = from->kind == TENSOR_SMALL;
    memset(t, 0, sizeof *t);
    snprintf(t->name, sizeof t->name, "%s", from->name + strlen("model."));
    t->blocks = from->kind == TENSOR_GATE ? (int)from->shape[0] : 1;
    t->cols = vector ? 1 : (int)from->shape[from->rank - 1];
    t->rows = 1;
    for (int i = 0; i < from->rank - !vector; i++) t->rows *= (int)from->shape[i];
    t->type = d->types[from->kind];
    t->offset = d->file.data_size;
    if (t->type) draw_tiles(d, t);
    else t->bytes = gguf_tensor(&d->file, t->name, from->rank, from->shape, quant_find("f32"));
    if (!t->type) choose_spread(d, t);
}

static int draw_all(drawing *d, const griffin_config *c, const vocabulary *v) {
    tensors list;
    if (tensors_list(&list, c) != 0) return -1;
    d->tensors = (bench_tensor *)calloc(list.count, sizeof *d->tensors);
    for (size_t i = 0; d->tensors && i < list.count; i++) draw(d, &list.list[i]);
    tensors_free(&list);
    gguf_string(&d->file, "general.architecture", "griffin");
    gguf_u32(&d->file, "general.alignment", GGUF_ALIGNMENT);
    gguf_u32(&d->file, "griffin.format_version", GRIFFIN_FORMAT_VERSION);
    config_write(c, &d->file);
    if (v) vocabulary_write(v, NULL, &d->file);
    return d->tensors && !d->file.keys.failed && !d->file.infos.failed ? 0 : -1;
}

static unsigned char *put_number(unsigned char *p, uint64_t value, int bytes) {
    for (; bytes > 0; bytes--, value >>= 8) *p++ = (unsigned char)value;
    return p;
}

/* Returns where the data begin. */
static unsigned char *write_image(bench_model *b, const gguf_writer *g) {
    size_t head = IMAGE_HEAD + g->keys.size + g->infos.size;
    size_t start = (head + GGUF_ALIGNMENT - 1) / GGUF_ALIGNMENT * GGUF_ALIGNMENT;
    b->data_size = start + (size_t)g->data_size;
    b->data = b->image = big_allocate(b->data_size);
    if (!b->image) return NULL;
    unsigned char *p = (unsigned char *)b->image;
    memcpy(p, "GGUF\3\0\0\0", 8);
    p = put_number(p + 8, g->tensor_count, 8);
    p = put_number(p, g->key_count, 8);
    if (g->keys.size) memcpy(p, g->keys.data, g->keys.size);
    memcpy(p + g->keys.size, g->infos.data, g->infos.size);
    return (unsigned char *)b->image + start;
}

int bench_image(bench_model *b, const griffin_config *config, const vocabulary *pieces,
                const char *type, const char *table_type, bench_fill *fill, void *user) {
    drawing d;
    unsigned char *data = NULL;
    memset(b, 0, sizeof *b);
    memset(&d, 0, sizeof d);
    b->type = type;
    d.gain = config->norm_offset;
    d.types[TENSOR_MATRIX] = type;
    d.types[TENSOR_TABLE] = table_type;
    d.types[TENSOR_CAREFUL] = strcmp(type, "q4_0") ? type : "q8_0";
    d.types[TENSOR_GATE] = "f32";
    if (draw_all(&d, config, pieces) == 0) data = write_image(b, &d.file);
    for (int i = 0; data && i < d.count; i++)
        fill(&d.tensors[i], i, data + d.tensors[i].offset, user);
    gguf_free(&d.file);
    free(d.tensors);
    return data ? 0 : complain("out of memory: the weights need %.1f GiB",
                               (double)b->data_size / (1 << 30));
}

/* ---- opening --------------------------------------------------------------------------------- */

int bench_file(bench_model *b, const char *path) {
    report r = { "" };
    memset(b, 0, sizeof *b);
    if (file_open(&b->file, path, &r)) return complain("%s", r.text);
    b->data = b->file.data;
    b->data_size = (size_t)b->file.size;
    return 0;
}

static void *model_allocate(size_t size, void *user) {
    bench_model *b = (bench_model *)user;
    void *memory = big_allocate(size);
    if (memory && size > b->largest_size) { b->largest = memory; b->largest_size = size; }
    return memory;
}

static void model_release(void *memory, void *user) { (void)user; big_release(memory); }

static void on_message(int error, const char *message, void *user) {
    bench_model *b = (bench_model *)user;
    if (error != GRIFFIN_OK) snprintf(b->message, sizeof b->message, "%s", message);
}

int bench_error(bench_model *b, int error) {
    complain("%s: %s", b->name, b->message[0] ? b->message : griffin_error_string(error));
    b->message[0] = 0;
    return 1;
}

/* A step reads what the model packed and the tiles in the file. Of an embedding that is not the
 * head too it reads one row. */
static void find_weights(bench_model *b) {
    const griffin_config *c = &b->info->config;
    uint64_t tiles = 0;
    griffin_tensor t;
    int has_head = 0;
    for (int i = 0; i < b->info->tensors; i++) {
        if (griffin_get_tensor(b->model, i, &t) != GRIFFIN_OK) break;
        const char *ending = strrchr(t.name, '.');
        if (!b->copy && ending && tile_exists(ending + 1)) tiles += t.bytes;
        has_head |= !strncmp(t.name, "lm_head.weight", 14);
    }
    b->head_parameters = (double)c->vocab * c->width;
    b->step_parameters = (double)b->info->parameters;
    b->step_bytes = (double)(tiles + b->info->weight_bytes);
    if (has_head) {
        b->step_bytes *= 1 - b->head_parameters / b->step_parameters;
        b->step_parameters -= b->head_parameters;
    }
    b->weights = tiles > b->info->weight_bytes ? b->data : b->largest;
    b->weights_size = tiles > b->info->weight_bytes ? b->data_size : b->largest_size;
}

int bench_open(bench_model *b, griffin_cpu cpu, int attn_keys) {
    griffin_options options;
    griffin_close(b->model);
    b->model = NULL;
    b->largest_size = 0;
    memset(&options, 0, sizeof options);
    options.allocator.allocate = model_allocate;
    options.allocator.release = model_release;
    options.allocator.user = options.logger.user = b;
    options.logger.message = on_message;
    options.cpu = cpu;
    options.attn_keys = attn_keys;
    options.copy_weights = b->copy;
    int error = griffin_open_memory(&b->model, b->data, b->data_size, &options);
    if (error < 0) return bench_error(b, error);
    b->info = griffin_get_info(b->model);
    if (!b->type) b->type = b->info->type;
    find_weights(b);
    return 0;
}

void bench_close(bench_model *b) {
    griffin_close(b->model);
    big_release(b->image);
    file_close(&b->file);
    memset(b, 0, sizeof *b);
}

/* ---- depth --------------------------------------------------------------------------------------
 * The cost of a step depends on the position only through the number of keys that attention sees.
 * So a state at a large depth is made from one with a few tokens. Its saved form (see griffin.h at
 * >>state) gets another position, and the rows of every ring are repeated until there are as many
 * as at that position. They are real keys and values of a text that repeats itself. The recurrent
 * part stays as it is. */

enum { SAVE_POSITION = 24, SAVE_BYTES = 40, SAVE_FLOATS = 48, SAVE_SUM = 8 };

static uint64_t get_number(const unsigned char *p) {
    uint64_t value = 0;
    for (int i = 7; i >= 0; i--) value = value << 8 | p[i];
    return value;
}

static uint64_t checksum(const unsigned char *p, size_t size) {     /* FNV-1a by words */
    uint64_t hash = 0xcbf29ce484222325u;
    for (; size >= 8; p += 8, size -= 8) {
        hash = (hash ^ get_number(p)) * 0x100000001b3u;
        hash ^= hash >> 29;
    }
    for (; size; p++, size--) hash = (hash ^ *p) * 0x100000001b3u;
    return hash ^ hash >> 32;
}

/* A save holds the recurrent part, then the last `rows` rows (at most `most`) of each of `rings`
 * halves of rings. All other members are in bytes. */
typedef struct save_shape { size_t recurrent, rings, row, rows, most; } save_shape;

static save_shape shape_of_save(const bench_model *b, size_t size, int64_t position) {
    const griffin_config *c = &b->info->config;
    save_shape s = { 0, 0, 0, 0, 0 };
    for (int i = 0; i < c->layers; i++) s.rings += c->blocks[i] == 'a' ? 2 : 0;
    s.row = (size_t)c->kv_heads * (size_t)((c->head_dim + 15) / 16 * 16) * 4;
    s.most = (size_t)b->info->attn_keys - 1;
    s.rows = (uint64_t)position < s.most ? (size_t)position : s.most;
    s.recurrent = size - SAVE_FLOATS - SAVE_SUM - s.rings * s.rows * s.row;
    return s;
}

/* Copies a saved form and gives it another position. Returns its size. */
static size_t deepen(unsigned char *to, const unsigned char *from, const save_shape *s,
                     int64_t position) {
    size_t want = (uint64_t)position < s->most ? (size_t)position : s->most;
    size_t at = SAVE_FLOATS + s->recurrent;
    memcpy(to, from, at);
    from += at;
    for (size_t ring = 0; ring < s->rings; ring++, from += s->rows * s->row)
        for (size_t i = 0; i < want; i++, at += s->row)
            memcpy(to + at, from + i % s->rows * s->row, s->row);
    put_number(to + SAVE_POSITION, (uint64_t)position, 8);
    put_number(to + SAVE_BYTES, at - SAVE_FLOATS, 8);
    put_number(to + at, checksum(to, at), 8);
    return at + SAVE_SUM;
}

int bench_deepen(bench_model *b, griffin_state *state, int64_t position) {
    int64_t now = griffin_state_position(state);
    int64_t size = griffin_save(b->model, state, NULL, NULL, NULL, 0);
    if (now < 1 || position < now) return complain("a state at %ld cannot be moved to %ld",
                                                   (long)now, (long)position);
    unsigned char *from = (unsigned char *)malloc((size_t)size);
    unsigned char *to = (unsigned char *)malloc((size_t)size + griffin_state_size(b->model));
    if (!from || !to) { free(from); free(to); return complain("out of memory"); }
    griffin_save(b->model, state, NULL, NULL, from, (size_t)size);
    save_shape shape = shape_of_save(b, (size_t)size, now);
    int error = griffin_load(b->model, state, NULL, NULL, to, deepen(to, from, &shape, position));
    free(from);
    free(to);
    return error < 0 ? bench_error(b, error) : 0;
}
