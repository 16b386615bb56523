/* tensors.h - which tensors a network of the family has, under their Hugging Face names. */

#ifndef TENSORS_H
#define TENSORS_H

#include "../../griffin.h"
#include "weights.h"

typedef enum tensor_kind {
    TENSOR_SMALL,                           /* norms, biases, convolution, recurrent parameter */
    TENSOR_GATE,                            /* block-diagonal gate weights */
    TENSOR_MATRIX,                          /* the other linear layers */
    TENSOR_TABLE,                           /* embedding and output head */
    TENSOR_CAREFUL                          /* a linear layer whose errors a state sums up */
} tensor_kind;

enum { TENSOR_KINDS = TENSOR_CAREFUL + 1 };

typedef struct tensor {
    char          name[64];
    tensor_kind   kind;
    int           rank;
    uint64_t      shape[4];                 /* row-major, the last dimension fastest */
    const weight *source; /* that many values in that order, perhaps more after them */
    const float  *by_row, *by_column;       /* [shape[0]], [the last of shape]: powers of two that
                                             * the values are written times; null: as they are */
} tensor;

typedef struct tensors { tensor *list; size_t count, capacity; } tensors;

/* Finds every tensor of the network in w, in the order of a forward pass, and takes
 * net->gate_blocks from there. A missing, misshapen, unreadable or unknown tensor is an error.
 * crop: the embedding may have more rows than net->vocab; the first ones count. */
int  tensors_find(tensors *t, griffin_config *net, const weights *w, int crop, report *r);
void tensors_free(tensors *t);

/* The tensors of a network without an output head of its own, in the same order, sources being
 * null. -1: no memory. */
int tensors_list(tensors *t, const griffin_config *net);

/* Adds the output head that a network may have. */
int tensors_list_head(tensors *t, const griffin_config *net);

#endif
