/* deepmind.h - gives the tensors of a DeepMind checkpoint their Hugging Face names and shapes. */

#ifndef DEEPMIND_H
#define DEEPMIND_H

#include "weights.h"

/* No data is moved. Names that are not known stay. On failure w is closed. */
int weights_from_deepmind(weights *w, const char *path, report *r);

#endif
