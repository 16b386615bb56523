/* persona.h - what the parts of griffin persona share: persona.c learns a first state,
 * persona_text.c cuts a text into stretches, persona_state.c knows how the net's states and the
 * library's hang together.
 *
 * A persona is the state before the first token of a text, learned by gradients while the weights
 * stay. It stands at position `rows`, as if so many tokens had been read, which are no real ones.
 *
 * Functions that can fail print a line, "griffin: ...", and return 1. */

#ifndef PERSONA_H
#define PERSONA_H

#include "../shared/session.h"
#include "data.h"
#include "net.h"

/* ---- persona.c --------------------------------------------------------------------------- */

/* The net of a model file, its weights as floats whatever their type. Null after a message. */
net *persona_net(const char *path, int longest);

/* ---- persona_text.c ---------------------------------------------------------------------- */

/* Stretches begin where lines and sentences of a text do. */
typedef struct stretch { size_t from, end; } stretch;       /* it reaches to `end` at most */

typedef struct persona_text {
    file_bytes file;
    stretch   *starts;
    int        count, learned;              /* the first `learned` are to learn from */
    batch      held_out;                    /* the others, end to end */
} persona_text;

/* A share of the text, its end, is held out, in stretches of `length` tokens. */
int  persona_text_open(persona_text *t, session *s, const char *path, text_split split,
                       float hold_out, int length);
void persona_text_close(persona_text *t);

/* Stretches of what is learned from, which the dice choose. */
int  persona_text_draw(const persona_text *t, session *s, uint64_t *dice, batch *b);

/* The last `count` tokens before what is held out, if there are as many. */
int  persona_text_prompt(const persona_text *t, session *s, int count, token_list *tokens);

/* ---- persona_state.c --------------------------------------------------------------------- */

/* Numbers of the net's state that are learned together, and how large they are in a text. */
typedef struct state_part { size_t at, count; double scale; } state_part;

/* The parts of all layers; at most MOST_PARTS of a layer. */
enum { MOST_PARTS = 2 };
int  persona_parts(const net *n, int rows, state_part *list);

/* A state of the net with `rows` tokens before it as bytes that griffin_load takes, to be freed. */
int  persona_save(const net *n, const float *state, int rows, session *s, unsigned char **data,
                  size_t *size);

#endif
