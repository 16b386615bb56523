/* session.h - what the commands share: an open model with one sequence, tokens, answers, timing.
 *
 * Functions that can fail print one line, "griffin: ...", and return 1, the status to exit with. */

#ifndef SESSION_H
#define SESSION_H

#include "../../griffin.h"
#include "../griffin_grammar.h"
#include "host.h"
#include "options.h"

#include <stddef.h>
#include <stdint.h>

/* ---- options of the commands that run a model ------------------------------------------- */

typedef struct model_options {
    const char *path;
    int cpu;                                /* a griffin_cpu */
    int threads, attn_keys;
    int kv_type;                            /* a griffin_kv_type */
} model_options;

#define MODEL_DEFAULTS { 0, 0, 0, 0, 0 }

/* In the order of griffin_cpu. */
#define CPU_OPTION(target) \
    { "cpu", 0, OPTION_CHOICE, &(target), \
      "best|scalar|avx2|avx-vnni|avx512|neon|neon-dot|wasm|neon-i8mm|amx", \
      "which instructions to use" }

#define MODEL_OPTIONS(o) \
    { "MODEL", 0, OPTION_WORD, &(o).path, 0, "the model, a GGUF file" }, \
    { "model", "m", OPTION_TEXT, &(o).path, "MODEL", "the same" }, \
    { "threads", "t", OPTION_THREADS, &(o).threads, "N", "threads; 0: one for each core" }, \
    CPU_OPTION((o).cpu), \
    { "attn-keys", 0, OPTION_COUNT, &(o).attn_keys, "N", \
      "keys a token sees, itself included; 0: window + 1" }, \
    { "kv-type", 0, OPTION_CHOICE, &(o).kv_type, "f32|bf16", \
      "how keys and values are kept: bf16 takes half the memory" }

#define SAMPLER_DEFAULTS { UINT64_MAX, 0.8f, 0.95f, 0.05f, 40, 1.0f, GRIFFIN_RECENT, 0, { 0 }, \
                           NULL, 0, NULL, NULL }

#define SAMPLER_OPTIONS(s) \
    { "temp", 0, OPTION_REAL, &(s).temperature, "T", "0: always the likeliest token" }, \
    { "top-k", 0, OPTION_COUNT, &(s).top_k, "K", "keep the K likeliest tokens; 0: all" }, \
    { "top-p", 0, OPTION_FRACTION, &(s).top_p, "P", "keep this much probability; 1: all" }, \
    { "min-p", 0, OPTION_FRACTION, &(s).min_p, "P", "drop what is rarer than P times the best" }, \
    { "repeat-penalty", 0, OPTION_REAL, &(s).repeat_penalty, "X", "1: off; 1.1 is mild" }, \
    { "repeat-last-n", 0, OPTION_COUNT, &(s).repeat_last, "N", "how far back it looks, to 64" }, \
    { "seed", "s", OPTION_SEED, &(s).seed, "N", "the same seed gives the same text" }

#define PERSONA_OPTION(target) \
    { "persona", 0, OPTION_TEXTS, &(target), "FILE", \
      "begin in a state of griffin persona; given more than once: in their mean" }

#define NO_PERSONAS { { 0 }, 0 }

/* What limits an answer. */
typedef struct control_options {
    const char *grammar, *schema;
    text_list stops, bans;
    int heal, words;
} control_options;

#define CONTROL_DEFAULTS { 0, 0, { { 0 }, 0 }, { { 0 }, 0 }, 0, 0 }

#define CONTROL_OPTIONS(o) \
    { "grammar", 0, OPTION_TEXT, &(o).grammar, "FILE", "write what this grammar (GBNF) allows" }, \
    { "schema", 0, OPTION_TEXT, &(o).schema, "FILE", "write JSON that this schema describes" }, \
    { "stop", 0, OPTION_TEXTS, &(o).stops, "TEXT", "end before this text; may be repeated" }, \
    { "ban", 0, OPTION_TEXTS, &(o).bans, "TEXT", "never write this text; may be repeated" }, \
    { "heal", 0, OPTION_FLAG, &(o).heal, 0, \
      "choose the prompt's last tokens again: it ends inside a word, or with a blank" }, \
    { "words", 0, OPTION_FLAG, &(o).words, 0, "show a word when it is complete" }

/* Tokens that are guessed: see griffin.h, guessing. */
typedef struct guess_options { int lookup; const char *draft; } guess_options;

#define GUESS_DEFAULTS { 0, 0 }

#define GUESS_OPTIONS(o) \
    { "lookup", 0, OPTION_COUNT, &(o).lookup, "N", \
      "guess up to N tokens from the text before: the same answer, sooner" }, \
    { "draft", 0, OPTION_TEXT, &(o).draft, "MODEL", \
      "let a smaller model of the same vocabulary guess, with the same answer" }

/* Checks what the table of options cannot, and draws a seed if none was given. Returns -1 to go on,
 * or 2 after a message. */
int sampler_prepare(const command *c, griffin_sampler *sampler);

/* ---- session ------------------------------------------------------------------------------ */

typedef struct session {
    file_bytes          file;               /* of the model */
    griffin_model      *model;
    const griffin_info *info;
    griffin_state      *state;
    griffin_state      *first;              /* the persona that all texts begin in; null: none */
    griffin_context    *context;
    void               *context_memory;
    float              *logits;             /* [guess.rows][V]; the first after the last token */
    griffin_guess       guess;              /* every answer is written by one */
    int32_t             waiting[64];        /* its tokens */
    griffin_lookup      lookup;             /* memory null: not wanted */
    struct session     *smaller;            /* the model that guesses, or null */
    griffin_draft       draft;
    griffin_grammar_state draft_grammar;    /* behind its guesses */
    griffin_decoder     decoder;
    griffin_stop        stop;               /* of an answer */
    griffin_words       words;              /* what --words holds back */
    int                 by_words;           /* --words */
    griffin_bias        no_ends[2];         /* for --ignore-eos */
    griffin_ban         ban;
    griffin_heal        heal;
    int                 heals;              /* --heal */
    int                 again;              /* bytes of the prompt that an answer writes again */
    griffin_grammar    *grammar;            /* of an answer, or null */
    griffin_grammar_state grammar_state;
    int32_t             end_of_turn;        /* that of the model, or of the turns of a chat */
    int                 may_end;            /* the grammar allows the answer to end */
    int                 is_cut;             /* the last answer had to end before that */
    int                 masks;
    double              mask_seconds, longest_mask;
    char                message[400];       /* the library's last error */
    char                why[400];           /* the network cannot be run, or "" */
    uint64_t            seed;               /* of the sampler, for the statistics */
    int                 prompt_tokens, generated_tokens;
    double              open_seconds, prompt_seconds, generated_seconds;
    double              start, first_seconds;       /* of the first prompt; until its first token */
} session;

/* ANY_FILE: if the network cannot be run, the directory of the file is opened, and `why` says why
 * that is all. There is no state and no context then. */
enum { NUMBERS_ONLY, NEEDS_TEXT, ANY_FILE };

int  session_open(session *s, const command *c, const model_options *o, int needs);
int  session_open_memory(session *s, const void *data, size_t size, int threads);   /* borrowed */
int  session_guess(session *s, const model_options *model, const guess_options *o);
int  session_personas(session *s, const text_list *paths);      /* none: texts begin afresh */
/* o outlives the session. 0, 1, or 2 if the options are wrong. */
int  session_control(session *s, const command *c, const control_options *o);
void session_close(session *s);
int  session_error(session *s, int error);              /* prints the last message; returns 1 */
void session_statistics(const session *s);              /* on stderr */

/* Writes the state to a file, and of sampler and decoder what is not null. */
int  session_save(session *s, const griffin_sampler *sampler, const griffin_decoder *decoder,
                  const char *path);

typedef struct token_list { int32_t *data; int count, capacity; } token_list;

int  tokens_add(token_list *list, int32_t token);
int  tokens_add_text(token_list *list, session *s, const griffin_encoding *encoding,
                     const void *words, uint64_t size);
void tokens_free(token_list *list);

/* Decodes a token and prints its text if `show`. -1 prints what the decoder still holds back. */
int session_show(session *s, int32_t token, int show);

/* Feeds a prompt. With `echo` it is printed, too. */
int session_feed(session *s, const token_list *tokens, griffin_sampler *sampler, int echo);

/* What happens where the model would end: the answer ends; or it goes on as if nothing were; or a
 * new text begins, with a fresh state. With a grammar, or without bos, it goes on instead. */
enum { ENDS_END, ENDS_IGNORED, ENDS_BEGIN };

/* Writes an answer to standard output, token by token, until the model ends it, a stop text occurs,
 * Ctrl-C is pressed, or it has `limit` tokens (-1: no limit). */
int session_generate(session *s, griffin_sampler *sampler, int limit, int ends);

/* Ends the line after an answer. 0, or 1 after a message. */
int session_end_line(void);

/* Forgets all that was read and said. The sampler's random numbers go on. */
void session_reset(session *s, griffin_sampler *sampler);

void session_begin_text(session *s);                    /* the state before the first token */
int  session_has_begun(const session *s);               /* it has read some */

/* What logits [vocab] say about the token that came: its cross entropy in nats. */
double logits_loss(const float *logits, int vocab, int32_t next);

/* For a limit that cut what a grammar had not finished. */
#define CUT_MESSAGE "the answer was cut after %d tokens, before it was complete; see -n"

#endif
