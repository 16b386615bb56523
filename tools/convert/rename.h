/* rename.h - gives the tensors of a checkpoint the names and shapes of tensors.c.
 *
 * Only names and views change; the data stays where it is in the file. */

#ifndef RENAME_H
#define RENAME_H

#include "../../griffin.h"
#include "weights.h"

/* A name that begins with `from`, behind "model." and "layers.N." or "blk.N.", begins with `to`
 * instead. Null: the tensor is not shown by itself. With `parts` the result is part number `part`
 * of so many equal ones, each of them whole rows. */
typedef struct rename_row {
    const char *from, *to;
    int part, parts;
} rename_row;

/* Zero-initialise but for the first four. */
typedef struct renaming {
    weights              *from;             /* sorted; taken over by rename_finish */
    const griffin_config *net;
    const char           *path;             /* for messages */
    report               *r;
    const char           *layers;           /* before the number of a layer; null: "layers." */
    weights               to;
} renaming;

/* Shows every tensor under its new name, or its own where no row fits. 0, or -1 with a message. */
int rename_all(renaming *n, const rename_row *rows, size_t count);

/* Puts the result in place of the source. After -1, which a status of -1 gives too, it is closed. */
int rename_finish(renaming *n, int status);

/* A tensor of the source: `name` behind "model." and, if layer >= 0, its "layers.N."; null if
 * absent. */
const weight *rename_find(const renaming *n, int layer, const char *name);

/* The same of this shape, cols 0 being a vector's; null with a message if it is not. */
const weight *rename_need(const renaming *n, int layer, const char *name, uint64_t rows,
                          uint64_t cols);

/* The final name of `name` in a layer; at most 95 bytes. Returns `text`. */
const char *rename_final(int layer, const char *name, char text[96]);

/* Add to the result, under a final name of a layer. Null or -1 with a message. */
weight *rename_show(renaming *n, int layer, const char *name, const weight *of);
int     rename_vector(renaming *n, int layer, const char *name, const double *values,
                      uint64_t count);
int     rename_constant(renaming *n, int layer, const char *name, double value, uint64_t count);

/* What a final name was before: how the file spells a tensor that is missing. Returns `text`. */
const char *rename_back(const weights *w, const char *name, char text[120]);

#endif
