/* sentencepiece.h - reads and writes SentencePiece's tokenizer.model (BPE; merges by score). */

#ifndef SENTENCEPIECE_H
#define SENTENCEPIECE_H

#include "vocabulary.h"

/* Fills in a zeroed vocabulary; data is the whole file. 0, or -1 with a message. */
int vocabulary_from_sentencepiece(vocabulary *v, const void *data, size_t size, const char *path,
                                  report *r);

/* The vocabulary must have scores. */
void vocabulary_to_sentencepiece(const vocabulary *v, byte_buffer *out);

#endif
