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

typedef enum text_split { SPLIT_GAPS, SPLIT_LINES, SPLIT_NONE } text_split;
#define SPLITS "gaps|lines|none"            /* their names as the choices of an option */

/* The next document of a text from *at on; then *at is where the one after it may begin. Returns
 * where it begins, or null if there are no more. Documents end at a line <|endoftext|>, at form
 * feeds and where there are two or more blank lines; or each line is one, or all of the text is. */
const unsigned char *document_next(const unsigned char *text, size_t size, text_split split,
                                   size_t *at, size_t *length);

typedef struct corpus {
    token_list tokens;                      /* of all documents */
    int       *first;                       /* [documents + 1] where each begins; and the end */
    token_list gap;                         /* a blank line: what parts documents that run on */
    int64_t    bytes;                       /* of text in them */
    int        documents;
    int32_t    bos, eos;                    /* eos: -1 if there is none */
    float      run_on;                      /* see corpus_batch */
    float      noise;                       /* the same */
    int        afresh;                      /* each sequence begins with bos, and nothing before */

    /* The documents of an epoch, in its order, as a batch has them: */
    int64_t    epoch;                       /* -1: none yet */
    int32_t   *inputs, *targets;            /* [laid] */
    uint8_t   *fresh;
    int64_t    laid;
} corpus;

/* The session's model has the vocabulary. 0, or 1 after a message. */
int  corpus_read(corpus *c, session *s, const void *text, size_t size, text_split split);
void corpus_free(corpus *c);

/* The number-th batch of an endless series. An epoch is every document once, in an order of its
 * own. Each row of the batch is a stream: its sequence goes on where that of the batch before
 * ended, from the beginning of an epoch to its end. A document begins afresh, with bos; or, a share
 * `run_on` of them, after a blank line, with what came before still in the state. Its end is eos,
 * which is predicted and never read; for half of those that another runs on from, it is the blank
 * line, so that a network that must not say eos says that, and begins anew.
 *
 * Of the tokens that are read, a share `noise` is replaced. A third of them are replaced one by
 * one, by others of the text. The rest are runs that say the last 1 to 24 tokens again and again.
 * What is to be predicted stays as it is. A network that has seen this comes back from a wrong
 * word, and from one that it repeats. */
int  corpus_batch(corpus *c, uint64_t seed, int64_t number, batch *b);

/* The same in the order of the text, each document afresh, and as one stream through all rows of
 * all batches: 0 when there is no more, -1 after a message. Ends of documents are not scored. */
int  corpus_slice(corpus *c, int64_t number, batch *b);

#endif
