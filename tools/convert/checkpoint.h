/* checkpoint.h - opens what others have made, whatever the kind of file.
 *
 * Return 0, or -1 with a message and nothing to close. */

#ifndef CHECKPOINT_H
#define CHECKPOINT_H

#include "vocabulary.h"
#include "weights.h"

/* A .safetensors file, an index of several, a .pt file, or a directory that holds one of them. */
int weights_open(weights *w, const char *source, report *r);

/* A tokenizer.model or a tokenizer.json. Of the latter some want texts in Unicode's form NFC, which
 * is refused unless texts are assumed to be in it already. */
int vocabulary_read(vocabulary *v, const char *path, int assume_nfc, report *r);

#endif
