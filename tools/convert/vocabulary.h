/* vocabulary.h - the pieces, merges and rules of a tokenizer: filled by a reader, checked, and
 * written as the vocabulary of a GGUF file. */

#ifndef VOCABULARY_H
#define VOCABULARY_H

#include "../../griffin.h"
#include "gguf_writer.h"
#include "../shared/buffer.h"

enum { VOCABULARY_LIMIT = 2097152,          /* pieces */
       VOCABULARY_AROUND = 16 };            /* tokens before a text, and after it */

typedef struct slice { size_t at, length; } slice;          /* of vocabulary.text */

typedef struct piece { slice text; float score; int type; } piece;   /* a griffin_token_kind */

/* Tokens that stand before or after every text. */
typedef struct token_row { int ids[VOCABULARY_AROUND]; int count; } token_row;

typedef struct vocabulary {
    char  *text;                            /* every text, back to back */
    size_t text_size, text_room;
    piece *pieces;                          /* by id */
    size_t count, room;
    slice *merges;                          /* "left right", the first is applied first */
    size_t merge_count, merge_room;
    int    byte_level;                      /* GPT-2's alphabet of bytes */
    char   pre[32];                         /* how that splits words: a name of tokenizer.ggml.pre */
    int    ignore_merges;                   /* of such words, those that are pieces stay whole */
    int    has_scores;
    int    bos, eos, unknown, pad, end_of_turn;             /* ids; -1: none */
    token_row before, after;                /* of a text; count 0: bos and eos, if they are added */
    int    add_bos, add_eos, add_space_prefix, remove_extra_whitespaces;
    int    escape_whitespaces, whitespace_suffix;
    int    prefix_everywhere;               /* add_space_prefix counts after special pieces too, */
    int    prefix_once;                     /* but not before a space */
    int    split_at_spaces;                 /* no merge reaches over the start of a word */
    int    first_added;                     /* with scores: from this id on, pieces were added to
                                             * the model and are cut out of text; 0: none */
    int    verbatim;                        /* plain spaces of user-defined pieces are meant so */
    slice  unk_surface, charsmap;           /* empty: none */
    int    out_of_memory;                   /* remembered until the file is read */
} vocabulary;

/* ---- using ----------------------------------------------------------------------------------- */

/* Makes it as large as the model's: fills up with unused pieces; cuts the end off if `crop`, and
 * with it the merges of what is cut off. */
int  vocabulary_fit(vocabulary *v, size_t size, int crop, report *r);

/* The id of a piece with this text, of a type if not 0; -1: none. */
int  vocabulary_find(const vocabulary *v, const char *text, size_t length, int type);

/* 1 if an end of the first text is a beginning of the second, or the second is inside the first. */
int  vocabulary_overlaps(const char *a, size_t n, const char *b, size_t m);

void vocabulary_write(const vocabulary *v, const char *chat_template, gguf_writer *g);
void vocabulary_free(vocabulary *v);

/* ---- filling a zeroed vocabulary ------------------------------------------------------------- */

slice  vocabulary_keep(vocabulary *v, const void *text, size_t length);     /* a copy in v->text */
piece *vocabulary_at(vocabulary *v, size_t id);         /* made if new, all zero; null: too many */
void   vocabulary_add_merge(vocabulary *v, slice merge);
void   vocabulary_pad(vocabulary *v, size_t id);        /* makes it a piece of no meaning */
int    vocabulary_is_byte(const char *text, size_t length);                 /* <0x00> to <0xFF> */

#endif
