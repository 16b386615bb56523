/* turns.h - how the turns of a conversation are written, for each kind of model that was made for
 * one: a table of formats, and what finds the right row of it.
 *
 * Markers such as <|im_start|> become tokens by their ids, and the text between them is encoded as
 * plain text, so that no text that a user types becomes a marker. Llama 2 has no markers of its
 * own: its [INST] is text. */

#ifndef TURNS_H
#define TURNS_H

#include "../shared/session.h"

typedef struct turn_format turn_format;

typedef struct turns {
    session           *s;
    const turn_format *format;
    int                names_bos;           /* the template does, or without one the vocabulary */
    char              *system;              /* of the user or of the template; null: none */
    int32_t            end;                 /* the token that ends an answer; -1: none but eos */
} turns;

/* Finds the format: by `name` if that is not null, or else by the chat template of the file, or by
 * the markers in its vocabulary; and says which it took. system may be null. 0, or 1 after a
 * message. Free it in any case. */
int  turns_open(turns *t, session *s, const char *path, const char *name, const char *system);
void turns_free(turns *t);

/* Adds what comes before an answer: the end of the last one, unless the conversation begins, and
 * the words of the user. */
int  turns_add(turns *t, token_list *list, int begins, const char *words, size_t size);

/* The names of all formats: "gemma, chatml, ..." */
const char *turns_names(void);
int  turns_knows(const char *name);

#endif
