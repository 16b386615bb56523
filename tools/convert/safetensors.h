/* safetensors.h - reads a .safetensors file, or several with their index.
 *
 * Return 0, or -1 with a message and nothing to close. */

#ifndef SAFETENSORS_H
#define SAFETENSORS_H

#include "weights.h"

int weights_open_safetensors(weights *w, const char *path, report *r);
int weights_open_sharded(weights *w, const char *index_json_path, report *r);

/* Over memory that outlives `w`; `name` stands for the path in messages. */
int weights_open_safetensors_memory(weights *w, const void *data, uint64_t size, const char *name,
                                    report *r);

#endif
