/* balance.h - channels made alike, so that int8 inputs lose less.
 *
 * Inputs of int8 and int4 weights are rounded in groups of 256 that share a scale, so one large
 * channel takes the digits of 255 others. Here a channel of the input of a mixer or an MLP is
 * divided by a power of two in the gain of the norm before it, and a channel between the matrices
 * of an MLP in up_proj; the matrices that read it are multiplied. In f32 the network computes the
 * same bits as before. */

#ifndef BALANCE_H
#define BALANCE_H

#include "parts.h"

/* Runs the model of the image, which was written from m with weights of int8, on a text, and
 * chooses the powers: see tensor.by_row, tensor.by_column. They live in *factors, to be freed after
 * m was written. 0, or -1 with a message. */
int balance_find(model_parts *m, const void *image, size_t size, const char *text, float **factors,
                 report *r);

#endif
