/* added_tokens.h - tokens that fine-tuning has added to a tokenizer, in files beside it. */

#ifndef ADDED_TOKENS_H
#define ADDED_TOKENS_H

#include "vocabulary.h"

/* Adds what added_tokens.json, tokenizer_config.json and, beside a tokenizer.model, tokenizer.json
 * in the directory of `path` list. 0, or -1 with a message. */
int added_tokens_read(vocabulary *v, const char *path, report *r);

#endif
