/* torch.h - reads PyTorch's .pt, a dict of tensors that torch.save wrote. Names stay as they are.
 *
 * Return 0, or -1 with a message and nothing to close. */

#ifndef TORCH_H
#define TORCH_H

#include "weights.h"

int weights_open_torch(weights *w, const char *path, report *r);

/* Adds the tensors of one of several files, before weights_finish. */
int weights_add_torch(weights *w, const char *path, report *r);

/* Over memory that outlives `w`; `name` stands for the path in messages. */
int weights_open_torch_memory(weights *w, const void *data, uint64_t size, const char *name,
                              report *r);

#endif
