/* engine.h - what the tools need of the library beside its API. */

#ifndef ENGINE_H
#define ENGINE_H

#include "../../griffin.h"

/* The checksum of saved states, see >>state in griffin.h. */
uint64_t engine_checksum(const void *data, size_t size);

/* Inputs that become int8: rows of floats, read by matrices of a layer (-1: of none). */
typedef struct engine_rows {
    const char  *matrix;                    /* "mlp_block.down_proj"; the first, if it is several */
    int          layer, rows, width, stride;
    const float *at;
} engine_rows;

/* Finishes the pass that griffin_begin has begun, and shows all such rows on the way. 0, or an
 * error of griffin_advance. */
int engine_watch(griffin_context *context, void (*look)(const engine_rows *x, void *user),
                 void *user);

#endif
