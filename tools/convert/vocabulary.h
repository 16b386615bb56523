/* vocabulary.h - reads a tokenizer's file and writes it as the vocabulary of a GGUF file.
 *
 * Two kinds of file are understood: SentencePiece's tokenizer.model (BPE; order of merges by
 * score), and the tokenizer.json of Hugging Face's fast tokenizers (BPE made from SentencePiece, or
 * byte-level BPE as GPT-2 has it; order of merges by a list). */

#ifndef VOCABULARY_H
#define VOCABULARY_H

#include "gguf_writer.h"
#include "../shared/buffer.h"

enum { PIECE_NORMAL = 1, PIECE_UNKNOWN, PIECE_CONTROL, PIECE_USER, PIECE_UNUSED, PIECE_BYTE };

typedef struct slice { size_t at, length; } slice;          /* of vocabulary.text */

typedef struct piece { slice text; float score; int type; } piece;

typedef struct vocabulary {
    char  *text;                            /* every text, back to back */
    size_t text_size, text_room;
    piece *pieces;                          /* by id */
    size_t count, room;
    slice *merges;                          /* "left right", the first is applied first */
    size_t merge_count, merge_room;
    int    byte_level;                      /* GPT-2's alphabet of bytes */
    int    has_scores;
    int    bos, eos, unknown, pad, end_of_turn;             /* ids; -1: none */
    int    add_bos, add_eos, add_space_prefix, remove_extra_whitespaces;
    int    escape_whitespaces, whitespace_suffix;
    slice  unk_surface, charsmap;           /* empty: none */
    int    out_of_memory;                   /* remembered until the file is read */
} vocabulary;

/* 0, or -1 with a message and nothing to free. */
int  vocabulary_read(vocabulary *v, const char *path, report *r);

/* Makes it as large as the model's: fills up with unused pieces; cuts the end off if `crop`. */
int  vocabulary_fit(vocabulary *v, size_t size, int crop, report *r);

/* The id of a piece with this text, of a type if not 0; -1: none. */
int  vocabulary_find(const vocabulary *v, const char *text, size_t length, int type);

void vocabulary_write(const vocabulary *v, const char *chat_template, gguf_writer *g);
void vocabulary_free(vocabulary *v);

/* As a tokenizer.model; the vocabulary has scores. */
void vocabulary_to_sentencepiece(const vocabulary *v, byte_buffer *out);

/* ---- for the readers themselves ------------------------------------------------------------ */

#define VOCABULARY_LIMIT 2097152            /* pieces */

/* Both fill in a zeroed vocabulary; data is the whole file. */
int vocabulary_from_sentencepiece(vocabulary *v, const void *data, size_t size, const char *path,
                                  report *r);
int vocabulary_from_json(vocabulary *v, const void *data, size_t size, const char *path, report *r);

slice  vocabulary_keep(vocabulary *v, const void *text, size_t length);     /* a copy in v->text */
piece *vocabulary_at(vocabulary *v, size_t id);         /* made if new, all zero; null: too many */
void   vocabulary_add_merge(vocabulary *v, slice merge);
void vocabulary_pad(vocabulary *v, size_t id); /* makes it a piece that stands for nothing */
int    vocabulary_is_byte(const char *text, size_t length);                 /* <0x00> to <0xFF> */

#endif
