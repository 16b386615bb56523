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
    for (size_t i = 0; i < w->count; i++) {
        weight_release(&w->list[i]);
        free(w->list[i].product);
        free(w->list[i].origin);
        free(w->list[i].name);
    }
    for (size_t i = 0; i < w->file_count; i++) file_close(&w->files[i]);
    free(w->list);
    free(w->files);
    memset(w, 0, sizeof *w);
}

unsigned char *weights_own(weights *w, size_t size) {
    unsigned char *memory = calloc(size ? size : 1, 1);
    file_bytes *files = realloc(w->files, (w->file_count + 1) * sizeof *files);
    if (files) w->files = files;
    if (!files || !memory) { free(memory); return NULL; }
    memset(&files[w->file_count], 0, sizeof *files);
    files[w->file_count].data = memory;
    files[w->file_count++].owned = memory;
    return memory;
}

const char *weight_origin(const weight *t) { return t->origin ? t->origin : t->name; }

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

static int read_product(const weight *t, uint64_t first, uint64_t count, float *out, report *r);

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
        for (int i = last - 1; i >= 0; i--) {
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

/* Elements that lie in this order in the file. */
static void read_plain(const weight *t, uint64_t first, uint64_t count, float *out) {
    if (t->type == WEIGHT_BLOCKS) {
        decode_blocks(t, first, count, out);
        return;
    }
    if (!is_packed(t)) {
        read_strided(t, first, count, out);
        return;
    }
    const unsigned char *p = t->data + first * (uint64_t)element_size(t->type);
    switch (t->type) {                              /* constant steps let compilers vectorise */
    case WEIGHT_F32:  widen(WEIGHT_F32, p, 4, count, out); break;
    case WEIGHT_F16:  widen(WEIGHT_F16, p, 2, count, out); break;
    case WEIGHT_BF16: widen(WEIGHT_BF16, p, 2, count, out); break;
    default:          widen(WEIGHT_F64, p, 8, count, out); break;
    }
}

/* Where row `row` of a tensor whose pairs were undone lies among those of the file. */
static uint64_t paired_row(const weight *t, uint64_t row) {
    uint64_t i = row % t->pairs, half = t->pairs / 2;
    return row - i + (i < half ? 2 * i : 2 * (i - half) + 1);
}

/* Splits [first, first + count) at the ends of rows. Returns where the first part of it lies, and
 * sets its length. */
static uint64_t next_run(const weight *t, uint64_t first, uint64_t count, uint64_t *length) {
    *length = count;
    if (!t->pairs) return first;
    uint64_t row = t->elements / t->shape[0];
    uint64_t column = first % row;
    if (*length > row - column) *length = row - column;
    return paired_row(t, first / row) * row + column;
}

void weight_copy_blocks(const weight *t, uint64_t first, uint64_t count, unsigned char *out) {
    for (uint64_t n; count; first += n, count -= n) {
        uint64_t at = next_run(t, first, count, &n);
        memcpy(out, t->data + quant_bytes(t->blocks, at), (size_t)quant_bytes(t->blocks, n));
        out += quant_bytes(t->blocks, n);
    }
}

int weight_read(const weight *t, uint64_t first, uint64_t count, float *out, report *r) {
    char name[80];
    if (t->type == WEIGHT_OTHER || first > t->elements || count > t->elements - first) {
        const char *origin = weight_origin(t);
        return report_fail(r, "tensor '%s': %s", report_name(origin, strlen(origin), name),
                           t->type == WEIGHT_OTHER ? "values of this type cannot be read"
                                                   : "has fewer elements than expected");
    }
    if (t->type == WEIGHT_PRODUCT) return read_product(t, first, count, out, r);
    for (uint64_t n; count; first += n, count -= n, out += n) {
        uint64_t at = next_run(t, first, count, &n);
        read_plain(t, at, n, out);
    }
    return 0;
}

/* ---- products ------------------------------------------------------------------------------ */

typedef struct weight_product {
    weight left, right;                     /* their names belong to others */
    float *values;                          /* null: not computed */
} weight_product;

enum { PRODUCT_ROWS = 4, PRODUCT_COLS = 8 };

/* A block of the result: `count` rows of left by PRODUCT_COLS columns, which lie one after the
 * other in `columns` [n][PRODUCT_COLS]. Every sum goes over n in order, so it does not depend on
 * blocks or threads. */
static void multiply_block(const float *left, const double *columns, uint64_t n, uint64_t count,
                           double sums[PRODUCT_ROWS][PRODUCT_COLS]) {
    memset(sums, 0, PRODUCT_ROWS * sizeof *sums);
    if (count == PRODUCT_ROWS) {
        for (uint64_t k = 0; k < n; k++, columns += PRODUCT_COLS)
            for (int i = 0; i < PRODUCT_ROWS; i++)
                for (int c = 0; c < PRODUCT_COLS; c++)
                    sums[i][c] += (double)left[(uint64_t)i * n + k] * columns[c];
        return;
    }
    for (uint64_t i = 0; i < count; i++)
        for (uint64_t k = 0; k < n; k++)
            for (int c = 0; c < PRODUCT_COLS; c++)
                sums[i][c] += (double)left[i * n + k] * columns[k * PRODUCT_COLS + (uint64_t)c];
}

/* Columns [first, first + PRODUCT_COLS) of out [rows, cols]. */
static void multiply_columns(const float *left, const float *right, float *out, uint64_t rows,
                             uint64_t n, uint64_t cols, uint64_t first, double *columns) {
    uint64_t width = cols - first < PRODUCT_COLS ? cols - first : PRODUCT_COLS;
    double sums[PRODUCT_ROWS][PRODUCT_COLS];
    memset(columns, 0, (size_t)n * PRODUCT_COLS * sizeof *columns);
    for (uint64_t k = 0; k < n; k++)
        for (uint64_t c = 0; c < width; c++)
            columns[k * PRODUCT_COLS + c] = (double)right[k * cols + first + c];
    for (uint64_t row = 0; row < rows; row += PRODUCT_ROWS) {
        uint64_t count = rows - row < PRODUCT_ROWS ? rows - row : PRODUCT_ROWS;
        multiply_block(left + row * n, columns, n, count, sums);
        for (uint64_t i = 0; i < count; i++)
            for (uint64_t c = 0; c < width; c++)
                out[(row + i) * cols + first + c] = (float)sums[i][c];
    }
}

/* -1: no memory. */
static int multiply(const float *left, const float *right, float *out, uint64_t rows, uint64_t n,
                    uint64_t cols) {
    int64_t blocks = (int64_t)((cols + PRODUCT_COLS - 1) / PRODUCT_COLS);
    int failed = 0;
#ifdef _OPENMP
    #pragma omp parallel for reduction(+ : failed)
#endif
    for (int64_t i = 0; i < blocks; i++) {
        double *columns = malloc((size_t)n * PRODUCT_COLS * sizeof *columns);
        if (columns) multiply_columns(left, right, out, rows, n, cols, (uint64_t)i * PRODUCT_COLS,
                                      columns);
        else failed++;
        free(columns);
    }
    return failed ? -1 : 0;
}

static int compute_product(const weight *t, report *r) {
    weight_product *p = t->product;
    float *left = malloc((size_t)p->left.elements * sizeof *left);
    float *right = malloc((size_t)p->right.elements * sizeof *right);
    int status = 0;
    p->values = malloc((size_t)t->elements * sizeof *p->values);
    if (!left || !right || !p->values) status = report_fail(r, "%s: out of memory", t->name);
    if (status == 0) status = weight_read(&p->left, 0, p->left.elements, left, r);
    if (status == 0) status = weight_read(&p->right, 0, p->right.elements, right, r);
    if (status == 0 && multiply(left, right, p->values, t->shape[0], p->left.shape[1],
                                t->shape[1]) != 0)
        status = report_fail(r, "%s: out of memory", t->name);
    free(left);
    free(right);
    if (status != 0) weight_release(t);
    return status;
}

static int read_product(const weight *t, uint64_t first, uint64_t count, float *out, report *r) {
    if (!t->product->values && compute_product(t, r) != 0) return -1;
    memcpy(out, t->product->values + first, (size_t)count * sizeof *out);
    return 0;
}

void weight_release(const weight *t) {
    if (!t->product) return;
    free(t->product->values);
    t->product->values = NULL;
}

/* ---- making tensors of others -------------------------------------------------------------- */

weight *weights_add_view(weights *w, const char *name, const weight *of, const char *path,
                         report *r) {
    const weight source = *of;              /* it may lie in a list that moves now */
    weight *t = weights_add(w, name, strlen(name), path, r);
    if (!t) return NULL;
    char *own_name = t->name, *origin = malloc(strlen(weight_origin(&source)) + 1);
    *t = source;
    t->name = own_name;
    t->origin = origin;
    if (origin) return strcpy(origin, weight_origin(&source)), t;
    report_fail(r, "%s: out of memory", path);
    return NULL;
}

/* Elements of a tensor per first dimension's step, in bytes of the file. */
static uint64_t step_bytes(const weight *t) {
    if (t->type == WEIGHT_BLOCKS) return quant_bytes(t->blocks, (uint64_t)t->stride[0]);
    return (uint64_t)t->stride[0] * (t->elements ? t->bytes / t->elements : 0);
}

void weight_take_rows(weight *t, uint64_t first, uint64_t count) {
    uint64_t rows = t->shape[0];
    t->data += first * step_bytes(t);
    t->shape[0] = count;
    t->elements = t->elements / rows * count;
    t->bytes = t->bytes / rows * count;
}

void weight_unpair(weight *t, uint64_t dims) { t->pairs = dims; }

weight *weights_add_product(weights *w, const char *name, const weight *left, const weight *right,
                            const char *path, report *r) {
    weight_product *p = calloc(1, sizeof *p);
    if (!p) { report_fail(r, "%s: out of memory", path); return NULL; }
    p->left = *left;
    p->right = *right;
    weight *t = weights_add_view(w, name, left, path, r);
    if (!t) { free(p); return NULL; }
    p->left.origin = p->right.origin = t->origin;
    t->type = WEIGHT_PRODUCT;
    t->type_name = "float32";
    t->product = p;
    t->pairs = 0;
    t->shape[1] = right->shape[1];
    t->stride[0] = (int64_t)t->shape[1];
    t->stride[1] = 1;
    t->elements = t->shape[0] * t->shape[1];
    t->bytes = 4 * t->elements;
    return t;
}

weight *weights_add_vector(weights *w, const char *name, const double *values, uint64_t count,
                           const char *path, report *r) {
    weight *t = weights_add(w, name, strlen(name), path, r);
    unsigned char *p = t ? weights_own(w, (size_t)count * 4) : NULL;
    if (!t) return NULL;
    if (!p) { report_fail(r, "%s: out of memory", path); return NULL; }
    t->type = WEIGHT_F32;
    t->type_name = "F32";
    t->rank = 1;
    t->shape[0] = t->elements = count;
    t->stride[0] = 1;
    t->bytes = 4 * count;
    t->data = p;
    for (uint64_t i = 0; i < count; i++, p += 4) {
        float value = (float)values[i];
        uint32_t bits;
        memcpy(&bits, &value, 4);
        for (int k = 0; k < 4; k++) p[k] = (unsigned char)(bits >> 8 * k);
    }
    return t;
}
