/* bpe.h - learns a vocabulary from a text: byte pair encoding as Gemma's tokenizer has it. */

#ifndef BPE_H
#define BPE_H

#include "../shared/report.h"
#include "../convert/vocabulary.h"

enum { BPE_FEWEST = 4 + 256 + 1 };          /* special pieces, bytes, and a character */

/* Fills in a zeroed vocabulary of at most `count` pieces:
 *
 *     <pad> <eos> <bos> <unk>, <0x00> .. <0xFF>, merges in the order of learning, characters
 *
 * The score of a merge is its number, negated, so that SentencePiece's encoder repeats them in that
 * order. Pieces keep within a word and the space before it, digits stand alone, and characters that
 * found no room are spelled in bytes. Few pieces come of a short text. The same text gives the same
 * vocabulary. 0, or -1 with a message and nothing to free. */
int bpe_train(vocabulary *v, const void *text, size_t size, int count, report *r);

#endif
