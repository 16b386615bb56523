/* model.h - models to measure, and states at any depth. A model comes from a file, or has any shape
 * and random weights: then it is a GGUF image in memory, whose tiles the library uses in place. */

#ifndef BENCH_MODEL_H
#define BENCH_MODEL_H

#include "../../griffin.h"
#include "../shared/host.h"

#include <stddef.h>
#include <stdint.h>

/* A tensor of an image. A matrix [rows, cols] is stored in tiles of `type`, or of f32 where that
 * type does not fit the number of columns. A vector has no tiles. */
typedef struct bench_tensor {
    char        name[64];                   /* as in a file, without the type */
    const char *type;                       /* "q4_0"; null: a vector of floats */
    int         rows, cols, blocks;         /* rows: of all blocks */
    int         tiles;
    uint64_t    tile_bytes;
    uint64_t    bytes, offset;              /* in the data of the image */
    float       centre, spread;             /* of random values */
} bench_tensor;

/* Writes the data of the tensor with this number in the image. */
typedef void bench_fill(const bench_tensor *tensor, int number, unsigned char *data, void *user);

/* Random numbers of such a size that every layer keeps the scale of its input. user: a uint64_t,
 * the seed. */
bench_fill bench_random;

struct vocabulary;                          /* of ../convert/vocabulary.h */

typedef struct bench_model {
    griffin_model      *model;              /* null until bench_open */
    const griffin_info *info;
    char        name[48];                   /* without quotes or commas */
    const char *type;                       /* of most weights */
    const void *data;                       /* the file or image */
    size_t      data_size;
    void       *image;                      /* memory of the image, or null */
    file_bytes  file;                       /* or the file */
    int         copy;                       /* 1: tiles are copied out of the file */
    void       *largest;                    /* the largest block that the model allocated */
    size_t      largest_size;
    const void *weights;                    /* where most of what a step reads lies */
    size_t      weights_size;
    double      step_bytes, step_parameters;    /* what a step reads of the model, logits and all */
    double      head_parameters;            /* the part of them that makes the logits */
    char        message[400];
} bench_model;

/* All return 0, or 1 after a message. A model can be opened again with other options. table_type is
 * that of the embedding, which is the head too; gates are f32. Null pieces: bytes are tokens. */
int  bench_image(bench_model *b, const griffin_config *config, const struct vocabulary *pieces,
                 const char *type, const char *table_type, bench_fill *fill, void *user);
int  bench_file(bench_model *b, const char *path);
int  bench_open(bench_model *b, griffin_cpu cpu, int attn_keys);
int  bench_error(bench_model *b, int error);
void bench_close(bench_model *b);

/* Moves a state that has some tokens to a later position. */
int bench_deepen(bench_model *b, griffin_state *state, int64_t position);

#endif
