/* masks.h - what the masks of grammars cost, in the vocabulary of a file or in a made-up one. */

#ifndef BENCH_MASKS_H
#define BENCH_MASKS_H

#include "../shared/table.h"

/* Prints a row for each of some grammars. With path null the vocabulary has `pieces` made-up
 * pieces. 0, or 1 after a message. */
int bench_masks(const char *path, int pieces, table_format format, int repetitions);

#endif
