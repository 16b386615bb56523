/* data.h - texts as sequences of tokens to learn from, in an order that a seed decides. */

#ifndef TRAIN_DATA_H
#define TRAIN_DATA_H

#include "../shared/session.h"

#include <stdint.h>

typedef struct batch {
    int      sequences, length;
    int32_t *tokens, *targets;              /* [sequences][length]; target -1 is not scored */
    uint8_t *fresh;                         /* the same; 1: a document begins here */
} batch;

int     batch_new(batch *b, int sequences, int length);     /* 0, or 1 after a message */
void    batch_free(batch *b);
int64_t batch_scored(const batch *b);                       /* targets that are not -1 */

/* Random numbers: a state and the next of its sequence; `below` from 0 to limit - 1. */
uint64_t random_next(uint64_t *state);
uint64_t random_below(uint64_t *state, uint64_t limit);

/* ---- texts ----------------------------------------------------------------------------------- */

typedef enum text_split { SPLIT_GAPS, SPLIT_LINES, SPLIT_NONE } text_split; /* "gaps|lines|none" */

/* Every document is bos, its tokens, eos. */
typedef struct corpus {
    token_list tokens;
    int64_t    bytes;                       /* of text in them */
    int        documents;
    int32_t    bos, eos;                    /* eos: -1 if it is not to be scored */
    int       *order;                       /* [tokens / length] sequences of the epoch */
    int64_t    epoch;                       /* whose order it is; -1: none yet */
} corpus;

/* Cuts a text into documents: at form feeds and where there are two or more blank lines, or into
 * its lines, or not at all. The session's model has the vocabulary. 0, or 1 after a message. */
int  corpus_read(corpus *c, session *s, const void *text, size_t size, text_split split);
void corpus_free(corpus *c);

/* The number-th batch of an endless series. An epoch is every token once, in sequences that begin
 * at other places each time and come in another order. Documents follow each other within a
 * sequence; each sequence begins with bos in place of what came before. */
int  corpus_batch(corpus *c, uint64_t seed, int64_t number, batch *b);

/* The same in the order of the text, each token once: 0 when there are no more. */
int  corpus_slice(const corpus *c, int64_t number, batch *b);

#endif
