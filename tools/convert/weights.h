/* One source of named tensors, whatever the file: safetensors, sharded safetensors, a PyTorch
 * archive or GGUF. All of a file is checked when it is opened; shapes, strides and data can be
 * trusted. */
#ifndef WEIGHTS_H
#define WEIGHTS_H

#include "quantise.h"
#include "../shared/report.h"

typedef enum weight_type {
    WEIGHT_F32,
    WEIGHT_F16,
    WEIGHT_BF16,
    WEIGHT_F64,
    WEIGHT_BLOCKS,                  /* of GGUF: whole rows of encoded blocks */
    WEIGHT_OTHER                    /* listed, cannot be read */
} weight_type;

#define WEIGHT_RANK    8
#define WEIGHTS_LIMIT  65536        /* tensors in a file */

typedef struct weight {
    char *name;
    weight_type type;
    const char *type_name;          /* "BF16" in safetensors, "bfloat16" in PyTorch files */
    const quant_type *blocks;       /* of WEIGHT_BLOCKS */
    int rank;
    uint64_t shape[WEIGHT_RANK];
    int64_t stride[WEIGHT_RANK];    /* in elements, not negative */
    uint64_t elements;
    uint64_t bytes;                 /* of all elements, packed */
    const unsigned char *data;      /* first element, little-endian, unaligned */
    size_t file;                    /* index in weights.files */
} weight;

typedef struct weights {
    weight *list;                   /* sorted by name (strcmp); names are unique */
    size_t count, capacity;
    file_bytes *files;
    size_t file_count;
} weights;

/* All return 0, or -1 with a message and nothing to close. */
int  weights_open_safetensors(weights *w, const char *path, report *r);
int  weights_open_sharded(weights *w, const char *index_json_path, report *r);
int  weights_open_torch(weights *w, const char *path, report *r);     /* names as in the file */
int  weights_open_directory(weights *w, const char *directory, report *r);
void weights_close(weights *w);

/* The same over memory that outlives `w`; `name` stands for the path in messages. */
int  weights_open_safetensors_memory(weights *w, const void *data, uint64_t size, const char *name,
                                     report *r);
int  weights_open_torch_memory(weights *w, const void *data, uint64_t size, const char *name,
                               report *r);

const weight *weights_find(const weights *w, const char *name);

/* Elements [first, first + count) in row-major order as floats. Fails for WEIGHT_OTHER. */
int  weight_read(const weight *t, uint64_t first, uint64_t count, float *out, report *r);

/* ---- for the readers themselves ---------------------------------------------------- */

/* Appends a zeroed tensor after checking its name; null after an error. */
weight *weights_add(weights *w, const char *name, size_t length, const char *path, report *r);
/* Opens a file that lives as long as `w`; null after an error. */
const file_bytes *weights_add_file(weights *w, const char *path, report *r);
/* Ends every open function: sorts and refuses duplicates if `status` is 0, closes otherwise. */
int weights_finish(weights *w, int status, const char *path, report *r);
/* elements and bytes from shape and the bits of one element; -1 if a product does not fit. */
int weight_measure(weight *t, unsigned bits);

#endif
