/* weights.h - named tensors, whatever file they come from. A reader checks all of a file when it
 * opens it; after that shapes, strides and data can be trusted. */

#ifndef WEIGHTS_H
#define WEIGHTS_H

#include "quantise.h"
#include "../shared/host.h"

typedef enum weight_type {
    WEIGHT_F32,
    WEIGHT_F16,
    WEIGHT_BF16,
    WEIGHT_F64,
    WEIGHT_BLOCKS,                          /* of GGUF: whole rows of encoded blocks */
    WEIGHT_PRODUCT,                         /* of two other matrices */
    WEIGHT_OTHER                            /* listed, cannot be read */
} weight_type;

enum { WEIGHT_RANK = 8, WEIGHTS_LIMIT = 65536 };            /* dimensions; tensors in a file */

struct weight_product;

typedef struct weight {
    char                *name;
    char                *origin;            /* the name in the file; null: the same */
    weight_type          type;
    const char          *type_name;         /* "BF16" in safetensors, "bfloat16" in PyTorch files */
    const quant_type    *blocks;            /* of WEIGHT_BLOCKS */
    int                  rank;
    uint64_t             shape[WEIGHT_RANK];
    int64_t              stride[WEIGHT_RANK];       /* in elements, not negative */
    uint64_t             elements;
    uint64_t             bytes;             /* of all elements, packed */
    const unsigned char *data;              /* first element, little-endian, unaligned */
    size_t               file;              /* index in weights.files */
    uint64_t             pairs;             /* see weight_unpair; 0: rows as they lie there */
    struct weight_product *product;         /* of WEIGHT_PRODUCT */
} weight;

typedef struct weights {
    weight     *list;                       /* sorted by name (strcmp); names are unique */
    size_t      count, capacity;
    file_bytes *files;
    size_t      file_count;
    const struct rename_row *renamed;       /* how names were changed: see rename.h */
    size_t      renamed_count;
} weights;

/* ---- reading --------------------------------------------------------------------------------- */

const weight *weights_find(const weights *w, const char *name);

/* The name in the file, for messages. */
const char *weight_origin(const weight *t);

/* Elements [first, first + count) in row-major order as floats. Fails for WEIGHT_OTHER. A product
 * is computed when it is first read, and stays until it is released. */
int weight_read(const weight *t, uint64_t first, uint64_t count, float *out, report *r);
void weight_release(const weight *t);

/* The same elements of WEIGHT_BLOCKS, whole blocks, as they are encoded. */
void weight_copy_blocks(const weight *t, uint64_t first, uint64_t count, unsigned char *out);

void weights_close(weights *w);

/* Removes from the names what torch.compile, "_orig_mod." anywhere, and data parallel training,
 * "module." before all of them, have put into them. 0, or -1 with a message and a closed list if
 * two are alike then. */
int weights_strip(weights *w, const char *path, report *r);

/* ---- filling a zeroed list ------------------------------------------------------------------- */

/* Opens a file that lives as long as `w`; null with a message after an error. */
const file_bytes *weights_add_file(weights *w, const char *path, report *r);

/* Appends a zeroed tensor after checking its name; null with a message after an error. */
weight *weights_add(weights *w, const char *name, size_t length, const char *path, report *r);

/* Fills in elements and bytes from shape and the bits of an element; -1: a product does not fit. */
int weight_measure(weight *t, unsigned bits);

/* ---- making tensors of others: parts and turns of them, products, numbers -------------------- */

/* Appends a tensor that shows what another one, perhaps of another list, shows. */
weight *weights_add_view(weights *w, const char *name, const weight *of, const char *path,
                         report *r);

/* Makes a tensor show only `count` of its rows, which are the elements of its first dimension. */
void weight_take_rows(weight *t, uint64_t first, uint64_t count);

/* Makes a tensor show its rows in another order, in groups of `dims`: 0, 2, 4 ... and then 1, 3, 5
 * ..., so that what was rotated in pairs (2 i, 2 i + 1) is rotated in halves (i, i + dims / 2). */
void weight_unpair(weight *t, uint64_t dims);

/* Appends left right, matrices [rows, n] and [n, cols], with sums in double. */
weight *weights_add_product(weights *w, const char *name, const weight *left, const weight *right,
                            const char *path, report *r);

/* Appends a vector of floats of its own, each rounded once. */
weight *weights_add_vector(weights *w, const char *name, const double *values, uint64_t count,
                           const char *path, report *r);

/* Memory that lives with the weights, as another of their files; null: there is none. */
unsigned char *weights_own(weights *w, size_t size);

/* The last call of every reader: sorts and refuses duplicates if `status` is 0, closes otherwise.
 * 0, or -1 with a message. */
int weights_finish(weights *w, int status, const char *path, report *r);

#endif
