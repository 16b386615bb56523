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
    WEIGHT_OTHER                            /* listed, cannot be read */
} weight_type;

enum { WEIGHT_RANK = 8, WEIGHTS_LIMIT = 65536 };            /* dimensions; tensors in a file */

typedef struct weight {
    char                *name;
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
} weight;

typedef struct weights {
    weight     *list;                       /* sorted by name (strcmp); names are unique */
    size_t      count, capacity;
    file_bytes *files;
    size_t      file_count;
} weights;

/* ---- reading --------------------------------------------------------------------------------- */

const weight *weights_find(const weights *w, const char *name);

/* Elements [first, first + count) in row-major order as floats. Fails for WEIGHT_OTHER. */
int weight_read(const weight *t, uint64_t first, uint64_t count, float *out, report *r);

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

/* The last call of every reader: sorts and refuses duplicates if `status` is 0, closes otherwise.
 * 0, or -1 with a message. */
int weights_finish(weights *w, int status, const char *path, report *r);

#endif
