/* weights.c - the list of tensors and their values; see weights.h. */

#include "weights.h"

#include "../shared/checked.h"

#include <stdlib.h>
#include <string.h>

/* ---- the list ------------------------------------------------------------------------------ */

weight *weights_add(weights *w, const char *name, size_t length, const char *path, report *r) {
    char text[80];
    const char *wrong = NULL;
    if (w->count == w->capacity) {
        size_t capacity = w->capacity ? w->capacity * 2 : 64;
        weight *list = realloc(w->list, capacity * sizeof *list);
        if (!list) { report_fail(r, "%s: out of memory", path); return NULL; }
        w->list = list;
        w->capacity = capacity;
    }
    if (length == 0 || length > 65535) wrong = "tensor names have 1 to 65535 bytes";
    else if (memchr(name, 0, length)) wrong = "NUL in a tensor name";
    weight *t = &w->list[w->count];
    memset(t, 0, sizeof *t);
    if (!wrong && !(t->name = malloc(length + 1))) wrong = "out of memory";
    if (wrong) {
        report_fail(r, "%s: tensor '%s': %s", path, report_name(name, length, text), wrong);
        return NULL;
    }
    memcpy(t->name, name, length);
    t->name[length] = 0;
    t->file = w->file_count ? w->file_count - 1 : 0;
    w->count++;
    return t;
}

const file_bytes *weights_add_file(weights *w, const char *path, report *r) {
    file_bytes *files = realloc(w->files, (w->file_count + 1) * sizeof *files);
    if (!files) { report_fail(r, "%s: out of memory", path); return NULL; }
    w->files = files;
    if (file_open(&files[w->file_count], path, r)) return NULL;
    return &files[w->file_count++];
}

static int compare_names(const void *a, const void *b) {
    return strcmp(((const weight *)a)->name, ((const weight *)b)->name);
}

int weights_finish(weights *w, int status, const char *path, report *r) {
    if (status == 0 && w->count) qsort(w->list, w->count, sizeof *w->list, compare_names);
    for (size_t i = 1; status == 0 && i < w->count; i++) {
        const char *name = w->list[i].name;
        char text[80];
        if (strcmp(name, w->list[i - 1].name) != 0) continue;
        status = report_fail(r, "%s: tensor '%s' occurs twice", path,
                             report_name(name, strlen(name), text));
    }
    if (status) weights_close(w);
    return status;
}

/* Cuts a prefix off all names, if all of them have it and more. */
static int strip_prefix(weights *w, const char *prefix) {
    size_t n = strlen(prefix);
    for (size_t i = 0; i < w->count; i++)
        if (strncmp(w->list[i].name, prefix, n) != 0 || !w->list[i].name[n]) return 0;
    for (size_t i = 0; i < w->count; i++)
        memmove(w->list[i].name, w->list[i].name + n, strlen(w->list[i].name + n) + 1);
    return w->count > 0;
}

int weights_strip(weights *w, const char *path, report *r) {
    static const char compiled[] = "_orig_mod.";
    size_t n = sizeof compiled - 1;
    for (size_t i = 0; i < w->count; i++) {
        char *at = w->list[i].name;
        while ((at = strstr(at, compiled)) != NULL && at[n])
            memmove(at, at + n, strlen(at + n) + 1);
    }
    while (strip_prefix(w, "module.")) continue;
    return weights_finish(w, 0, path, r);
}

void weights_close(weights *w) {
    for (size_t i = 0; i < w->count; i++) free(w->list[i].name);
    for (size_t i = 0; i < w->file_count; i++) file_close(&w->files[i]);
    free(w->list);
    free(w->files);
    memset(w, 0, sizeof *w);
}

static int compare_key(const void *key, const void *element) {
    return strcmp(key, ((const weight *)element)->name);
}

const weight *weights_find(const weights *w, const char *name) {
    if (w->count == 0) return NULL;
    return bsearch(name, w->list, w->count, sizeof *w->list, compare_key);
}

/* Multiplies all dimensions in order, so that a zero cannot hide an overflow. */
int weight_measure(weight *t, unsigned bits) {
    uint64_t all_bits;
    t->elements = 1;
    for (int i = 0; i < t->rank; i++) {
        if (!checked_mul(t->elements, t->shape[i], &t->elements)) return -1;
    }
    if (!checked_mul(t->elements, bits, &all_bits) || all_bits % 8) return -1;
    t->bytes = all_bits / 8;
    return 0;
}

/* ---- values -------------------------------------------------------------------------------- */

static float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static double double_value(const unsigned char *p) {
    uint64_t bits = little_u64(p);
    double value;
    memcpy(&value, &bits, 8);
    return value;
}

static inline float value_of(weight_type type, const unsigned char *p) {
    switch (type) {
    case WEIGHT_F32:  return float_of(little_u32(p));
    case WEIGHT_F16:  return float_of_f16(little_u16(p));
    case WEIGHT_BF16: return float_of((uint32_t)little_u16(p) << 16);
    default:          return (float)double_value(p);
    }
}

/* Converts `count` elements that lie `step` bytes apart. */
static inline void widen(weight_type type, const unsigned char *p, int64_t step, uint64_t count,
                         float *out) {
    for (; count; count--, p += step) *out++ = value_of(type, p);
}

static int64_t element_size(weight_type type) {
    return type == WEIGHT_F64 ? 8 : type == WEIGHT_F32 ? 4 : 2;
}

static int is_packed(const weight *t) {
    uint64_t step = 1;
    for (int i = t->rank - 1; i >= 0; i--) {
        if (t->shape[i] != 1 && (uint64_t)t->stride[i] != step) return 0;
        step *= t->shape[i];
    }
    return 1;
}

/* Reads in row-major order through the strides, in runs along the last dimension. */
static void read_strided(const weight *t, uint64_t first, uint64_t count, float *out) {
    int64_t size = element_size(t->type);
    int last = t->rank - 1;
    while (count) {
        uint64_t rest = first / t->shape[last], column = first % t->shape[last];
        uint64_t length = t->shape[last] - column;
        int64_t offset = (int64_t)column * t->stride[last];
        int i;
        for (i = last - 1; i >= 0; i--) {
            offset += (int64_t)(rest % t->shape[i]) * t->stride[i];
            rest /= t->shape[i];
        }
        if (length > count) length = count;
        widen(t->type, t->data + offset * size, t->stride[last] * size, length, out);
        first += length;
        count -= length;
        out += length;
    }
}

/* Whole blocks, of which the first and the last may count in part. */
static void decode_blocks(const weight *t, uint64_t first, uint64_t count, float *out) {
    const quant_type *type = t->blocks;
    float block[256];
    while (count) {
        uint64_t skip = first % type->elements, n = type->elements - skip;
        if (n > count) n = count;
        type->decode(t->data + quant_bytes(type, first - skip), block, 1);
        memcpy(out, block + skip, (size_t)n * sizeof *out);
        first += n;
        count -= n;
        out += n;
    }
}

int weight_read(const weight *t, uint64_t first, uint64_t count, float *out, report *r) {
    char name[80];
    if (t->type == WEIGHT_OTHER || first > t->elements || count > t->elements - first) {
        return report_fail(r, "tensor '%s': %s", report_name(t->name, strlen(t->name), name),
                           t->type == WEIGHT_OTHER ? "values of this type cannot be read"
                                                   : "has fewer elements than expected");
    }
    if (t->type == WEIGHT_BLOCKS) {
        decode_blocks(t, first, count, out);
        return 0;
    }
    if (!is_packed(t)) {
        read_strided(t, first, count, out);
        return 0;
    }
    const unsigned char *p = t->data + first * (uint64_t)element_size(t->type);
    switch (t->type) {                              /* constant steps let compilers vectorise */
    case WEIGHT_F32:  widen(WEIGHT_F32, p, 4, count, out); break;
    case WEIGHT_F16:  widen(WEIGHT_F16, p, 2, count, out); break;
    case WEIGHT_BF16: widen(WEIGHT_BF16, p, 2, count, out); break;
    default:          widen(WEIGHT_F64, p, 8, count, out); break;
    }
    return 0;
}
