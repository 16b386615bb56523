/* trial.h - what the library says of a file that the converter has made. */

#ifndef TRIAL_H
#define TRIAL_H

#include "gguf_writer.h"

/* Looks at the metadata alone, before the weights are written. 0, or -1 with a message. */
int trial_metadata(const gguf_writer *g, report *r);

/* Opens the finished file and runs a token. Files of rows are not for the library: of them it
 * reads the configuration and the vocabulary. *state becomes the bytes of a state, if a token was
 * run. 0, or -1 with a message. */
int trial_file(const char *path, int rows, uint64_t *state, report *r);

#endif
