/* tokenizer_json.h - reads the tokenizer.json of Hugging Face's fast tokenizers: BPE made from
 * SentencePiece, or byte-level BPE as GPT-2 has it; merges by a list. */

#ifndef TOKENIZER_JSON_H
#define TOKENIZER_JSON_H

#include "vocabulary.h"

/* Fills in a zeroed vocabulary; data is the whole file. 0, or -1 with a message. */
int vocabulary_from_json(vocabulary *v, const void *data, size_t size, const char *path,
                         int assume_nfc, report *r);

#endif
