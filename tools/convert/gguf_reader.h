/* gguf_reader.h - takes a GGUF model apart, so that it can be converted or trained further. */

#ifndef GGUF_READER_H
#define GGUF_READER_H

#include "parts.h"

/* Fills in zeroed parts, all but the list of tensors. Weights may be in rows of any type of
 * quantise.h, or in tiles of any version of griffin.h. A file without metadata needs m->config from
 * elsewhere, else it has none. 0, or -1 with a message; then free what is there. */
int gguf_read(model_parts *m, const char *path, report *r);

#endif
