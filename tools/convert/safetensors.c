/* safetensors.c - single and sharded safetensors files; see safetensors.h. */

#include "safetensors.h"
#include "torch.h"

#include "../shared/checked.h"
#include "../shared/json.h"

#include <stdlib.h>
#include <string.h>

/* ---- safetensors ------------------------------------------------------------------------------
 *     0    u64   N
 *     8    N     JSON: {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...}
 *     8+N        the data, without holes
 */

enum { HEADER_LIMIT = 100000000 };

enum { HAS_TYPE = 1, HAS_SHAPE = 2, HAS_RANGE = 4, HAS_ALL = 7 };

static const struct element_type {
    const char *name;
    unsigned bits;
    weight_type type;
} element_types[] = {
    {"F32", 32, WEIGHT_F32},       {"F16", 16, WEIGHT_F16},       {"BF16", 16, WEIGHT_BF16},
    {"F64", 64, WEIGHT_F64},       {"I64", 64, WEIGHT_OTHER},     {"U64", 64, WEIGHT_OTHER},
    {"I32", 32, WEIGHT_OTHER},     {"U32", 32, WEIGHT_OTHER},     {"I16", 16, WEIGHT_OTHER},
    {"U16", 16, WEIGHT_OTHER},     {"I8", 8, WEIGHT_OTHER},       {"U8", 8, WEIGHT_OTHER},
    {"BOOL", 8, WEIGHT_OTHER},     {"C64", 64, WEIGHT_OTHER},     {"F8_E4M3", 8, WEIGHT_OTHER},
    {"F8_E5M2", 8, WEIGHT_OTHER},  {"F8_E8M0", 8, WEIGHT_OTHER},  {"F8_E4M3FNUZ", 8, WEIGHT_OTHER},
    {"F4", 4, WEIGHT_OTHER},       {"F6_E2M3", 6, WEIGHT_OTHER},  {"F6_E3M2", 6, WEIGHT_OTHER},
    {"F8_E5M2FNUZ", 8, WEIGHT_OTHER}
};

typedef struct header {
    json json;
    weights *w;
    const char *path;
    report *r;
    const unsigned char *buffer;        /* the data */
    uint64_t buffer_size;
    weight *tensor;                     /* the entry being read */
    const struct element_type *type;
    uint64_t range[2];
} header;

static int bad_json(header *h) {
    return report_fail(h->r, "%s: header: %s", h->path, h->json.error);
}

/* Reports what is wrong with the current entry, or the JSON error that is the cause. */
static int bad_entry(header *h, const char *what) {
    const char *name = h->tensor->name;
    char text[80];
    if (h->json.kind == JSON_ERROR) return bad_json(h);
    return report_fail(h->r, "%s: tensor '%s', header offset %lu: %s", h->path,
                       report_name(name, strlen(name), text), (unsigned long)h->json.token, what);
}

/* Reads an array of at most `limit` naturals below 2^63. Returns their number, or -1. */
static int read_naturals(json *j, uint64_t *list, int limit) {
    int count = 0;
    if (json_next(j) != JSON_ARRAY) return -1;
    while (json_next(j) == JSON_INT) {
        if (count == limit || !j->is_natural || j->natural > INT64_MAX) return -1;
        list[count++] = j->natural;
    }
    return j->kind == JSON_ARRAY_END ? count : -1;
}

static int read_type(header *h) {
    if (json_next(&h->json) != JSON_STRING) return bad_entry(h, "dtype is not a string");
    for (size_t i = 0; i < sizeof element_types / sizeof element_types[0]; i++) {
        if (!json_text_is(&h->json, element_types[i].name)) continue;
        h->type = &element_types[i];
        h->tensor->type = h->type->type;
        h->tensor->type_name = h->type->name;
        return 0;
    }
    return bad_entry(h, "unknown dtype");
}

/* Reads a member of an entry, starting at its key. `seen` collects which members were found. */
static int read_member(header *h, int *seen) {
    json *j = &h->json;
    if (json_key_is(j, "dtype")) {
        *seen |= HAS_TYPE;
        return read_type(h);
    }
    if (json_key_is(j, "shape")) {
        *seen |= HAS_SHAPE;
        h->tensor->rank = read_naturals(j, h->tensor->shape, WEIGHT_RANK);
        return h->tensor->rank < 0 ? bad_entry(h, "shape is not a list of up to 8 sizes") : 0;
    }
    if (json_key_is(j, "data_offsets")) {
        *seen |= HAS_RANGE;
        if (read_naturals(j, h->range, 2) == 2) return 0;
        return bad_entry(h, "data_offsets is not a pair of offsets");
    }
    return json_skip(j) ? bad_json(h) : 0;
}

/* If there are elements, the product of all sizes fits, so no stride can overflow. If there are
 * none, strides stay 0. */
static void pack_strides(weight *t) {
    uint64_t step = 1;
    for (int i = t->rank - 1; t->elements && i >= 0; i--) {
        t->stride[i] = (int64_t)step;
        step *= t->shape[i];
    }
}

static int read_entry(header *h) {
    json *j = &h->json;
    int seen = 0;
    h->tensor = weights_add(h->w, j->text, j->length, h->path, h->r);
    if (!h->tensor) return -1;
    if (json_next(j) != JSON_OBJECT) return bad_entry(h, "is not an object");
    while (json_next(j) == JSON_KEY) {
        if (read_member(h, &seen)) return -1;
    }
    if (j->kind != JSON_OBJECT_END) return bad_json(h);
    if (seen != HAS_ALL) return bad_entry(h, "needs dtype, shape and data_offsets");
    if (weight_measure(h->tensor, h->type->bits)) return bad_entry(h, "size does not fit");
    if (h->range[0] > h->range[1] || h->range[1] > h->buffer_size) {
        return bad_entry(h, "data_offsets are reversed or beyond the file");
    }
    if (h->range[1] - h->range[0] != h->tensor->bytes) {
        return bad_entry(h, "data_offsets do not match the shape");
    }
    pack_strides(h->tensor);
    h->tensor->data = h->buffer + h->range[0];
    return 0;
}

/* "__metadata__" holds strings only. None of them is used. */
static int read_metadata(header *h) {
    json *j = &h->json;
    if (json_next(j) == JSON_OBJECT) {
        while (json_next(j) == JSON_KEY && json_next(j) == JSON_STRING) continue;
    }
    if (j->kind == JSON_ERROR) return bad_json(h);
    if (j->kind == JSON_OBJECT_END) return 0;
    return report_fail(h->r, "%s: __metadata__ is not an object of strings", h->path);
}

static int read_header(header *h) {
    json *j = &h->json;
    size_t first = h->w->count;
    if (json_next(j) != JSON_OBJECT) return bad_json(h);
    while (json_next(j) == JSON_KEY) {
        int status = json_key_is(j, "__metadata__") ? read_metadata(h) : read_entry(h);
        if (status) return -1;
        if (h->w->count - first > WEIGHTS_LIMIT) {
            return report_fail(h->r, "%s: more than %d tensors", h->path, WEIGHTS_LIMIT);
        }
    }
    if (j->kind == JSON_OBJECT_END) json_next(j);
    return j->kind == JSON_END ? 0 : bad_json(h);
}

static int compare_places(const void *a, const void *b) {
    const weight *x = a, *y = b;
    if (x->data != y->data) return x->data < y->data ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

/* Sorted by offset, the tensors must fill the buffer: no hole, no overlap, nothing at the end. */
static int check_places(header *h, size_t first) {
    size_t count = h->w->count - first;
    weight *list = count ? h->w->list + first : NULL;
    uint64_t at = 0;
    char text[80];
    if (count) qsort(list, count, sizeof *list, compare_places);
    for (size_t i = 0; i < count; i++) {
        uint64_t begin = (uint64_t)(list[i].data - h->buffer);
        if (begin != at) {
            return report_fail(h->r, "%s: tensor '%s': data starts at %llu, expected %llu", h->path,
                               report_name(list[i].name, strlen(list[i].name), text),
                               (unsigned long long)begin, (unsigned long long)at);
        }
        at += list[i].bytes;
    }
    if (at == h->buffer_size) return 0;
    return report_fail(h->r, "%s: the data has %llu bytes, the tensors %llu", h->path,
                       (unsigned long long)h->buffer_size, (unsigned long long)at);
}

static int read_safetensors(weights *w, const unsigned char *data, uint64_t size, const char *path,
                            report *r) {
    header h;
    size_t first = w->count;
    if (size < 10) return report_fail(r, "%s: too short for safetensors", path);
    uint64_t n = little_u64(data);
    if (n < 2 || n > HEADER_LIMIT || n > size - 8 || data[8] != '{') {
        return report_fail(r, "%s: not a safetensors file: bad header", path);
    }
    memset(&h, 0, sizeof h);
    h.w = w;
    h.path = path;
    h.r = r;
    h.buffer = data + 8 + n;
    h.buffer_size = size - 8 - n;
    json_start(&h.json, data + 8, (size_t)n);
    int status = read_header(&h);
    json_stop(&h.json);
    return status ? status : check_places(&h, first);
}

int weights_open_safetensors_memory(weights *w, const void *data, uint64_t size, const char *name,
                                    report *r) {
    memset(w, 0, sizeof *w);
    return weights_finish(w, read_safetensors(w, data, size, name, r), name, r);
}

static int add_safetensors(weights *w, const char *path, report *r) {
    const file_bytes *file = weights_add_file(w, path, r);
    return file ? read_safetensors(w, file->data, file->size, path, r) : -1;
}

int weights_open_safetensors(weights *w, const char *path, report *r) {
    memset(w, 0, sizeof *w);
    return weights_finish(w, add_safetensors(w, path, r), path, r);
}

/* ---- shards ------------------------------------------------------------------------------------
 *     {"metadata": ..., "weight_map": {"tensor": "model-00001-of-00002.safetensors", ...}}
 *
 * Older ones are PyTorch's files, "pytorch_model-00001-of-00002.bin".
 */

enum { SHARD_LIMIT = 4096 };

typedef struct map_entry {
    char *tensor, *shard;
    size_t file;
} map_entry;

typedef struct shard_map {
    map_entry *list;
    size_t count, capacity;
} shard_map;

static char *copy_text(const json *j) {
    char *copy = malloc(j->length + 1);
    if (!copy) return NULL;
    memcpy(copy, j->text, j->length);
    copy[j->length] = 0;
    return copy;
}

static map_entry *map_add(shard_map *map) {
    if (map->count == map->capacity) {
        size_t capacity = map->capacity ? map->capacity * 2 : 64;
        map_entry *list = realloc(map->list, capacity * sizeof *list);
        if (!list) return NULL;
        map->list = list;
        map->capacity = capacity;
    }
    memset(&map->list[map->count], 0, sizeof *map->list);
    return &map->list[map->count++];
}

static void map_free(shard_map *map) {
    for (size_t i = 0; i < map->count; i++) {
        free(map->list[i].tensor);
        free(map->list[i].shard);
    }
    free(map->list);
}

static int has_ending(const char *text, size_t length, const char *ending) {
    size_t n = strlen(ending);
    return length > n && memcmp(text + length - n, ending, n) == 0;
}

/* Whether a name is a plain file name, which cannot lead out of the directory. */
static int is_shard_name(const char *text, size_t length) {
    if (!has_ending(text, length, ".safetensors") && !has_ending(text, length, ".bin")) return 0;
    if (length > 255) return 0;
    for (size_t i = 0; i < length; i++) {
        if (text[i] == '/' || text[i] == '\\' || text[i] == ':' || text[i] == 0) return 0;
    }
    return 1;
}

static int read_map(json *j, shard_map *map, const char *path, report *r) {
    char text[80];
    if (json_next(j) != JSON_OBJECT) return report_fail(r, "%s: weight_map: no object", path);
    while (json_next(j) == JSON_KEY) {
        map_entry *entry = map_add(map);
        int bad = !entry || memchr(j->text, 0, j->length) || !(entry->tensor = copy_text(j));
        if (bad) return report_fail(r, "%s: weight_map: bad name or out of memory", path);
        if (json_next(j) != JSON_STRING || !is_shard_name(j->text, j->length)) {
            if (j->kind != JSON_STRING) return report_fail(r, "%s: shard is not a string", path);
            return report_fail(r, "%s: shard '%s' is not a plain *.safetensors or *.bin name", path,
                               report_name(j->text, j->length, text));
        }
        entry->shard = copy_text(j);
        if (!entry->shard) return report_fail(r, "%s: out of memory", path);
    }
    return 0;
}

static int read_index(json *j, shard_map *map, const char *path, report *r) {
    int found = 0;
    if (json_next(j) != JSON_OBJECT) return report_fail(r, "%s: not a JSON object", path);
    while (json_next(j) == JSON_KEY) {
        int is_map = json_key_is(j, "weight_map");
        found |= is_map;
        if (is_map ? read_map(j, map, path, r) : json_skip(j)) break;
    }
    if (j->kind == JSON_OBJECT_END && json_next(j) == JSON_END) {
        return found ? 0 : report_fail(r, "%s: weight_map is missing", path);
    }
    return j->kind == JSON_ERROR ? report_fail(r, "%s: %s", path, j->error) : -1;
}

static int compare_shards(const void *a, const void *b) {
    return strcmp(((const map_entry *)a)->shard, ((const map_entry *)b)->shard);
}

static int add_shard(weights *w, const char *path, report *r) {
    return has_ending(path, strlen(path), ".bin") ? weights_add_torch(w, path, r)
                                                  : add_safetensors(w, path, r);
}

/* Opens every distinct shard once, in the order of their names. */
static int open_shards(weights *w, shard_map *map, const char *index_path, report *r) {
    if (map->count) qsort(map->list, map->count, sizeof *map->list, compare_shards);
    for (size_t i = 0; i < map->count; i++) {
        map_entry *entry = &map->list[i];
        if (i == 0 || compare_shards(entry, entry - 1) != 0) {
            char *path = path_beside(index_path, entry->shard);
            int status = path && w->file_count < SHARD_LIMIT ? add_shard(w, path, r)
                         : report_fail(r, "%s: out of memory or too many shards", index_path);
            free(path);
            if (status) return -1;
        }
        entry->file = w->file_count - 1;
    }
    return 0;
}

/* Checks that every tensor of the map lies in its shard, and that the shards hold no others. */
static int check_map(const weights *w, const shard_map *map, const char *path, report *r) {
    for (size_t i = 0; i < map->count; i++) {
        const map_entry *entry = &map->list[i];
        const weight *t = weights_find(w, entry->tensor);
        char name[80];
        if (t && t->file == entry->file) continue;
        return report_fail(r, "%s: tensor '%s' is not in %s", path,
                           report_name(entry->tensor, strlen(entry->tensor), name), entry->shard);
    }
    if (w->count == map->count) return 0;
    return report_fail(r, "%s: the shards hold %lu tensors, weight_map names %lu", path,
                       (unsigned long)w->count, (unsigned long)map->count);
}

int weights_open_sharded(weights *w, const char *index_json_path, report *r) {
    const char *path = index_json_path;
    file_bytes index;
    shard_map map = {NULL, 0, 0};
    json j;
    memset(w, 0, sizeof *w);
    if (file_open(&index, path, r)) return -1;
    json_start_file(&j, index.data, (size_t)index.size);
    int status = read_index(&j, &map, path, r);
    json_stop(&j);
    file_close(&index);
    if (status == 0) status = open_shards(w, &map, path, r);
    status = weights_finish(w, status, path, r);
    if (status == 0 && check_map(w, &map, path, r)) {
        weights_close(w);
        status = -1;
    }
    map_free(&map);
    return status;
}
