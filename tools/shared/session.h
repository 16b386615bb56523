/* session.h - what the commands share: an open model with one sequence, tokens, answers, timing.
 *
 * Functions that can fail print one line, "griffin: ...", and return 1, the status to exit with. */

#ifndef SESSION_H
#define SESSION_H

#include "../../griffin.h"
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

#define MODEL_OPTIONS(o) \
    { "model", "m", OPTION_TEXT, &(o).path, "FILE", "the model, a GGUF file" }, \
    { "threads", "t", OPTION_COUNT, &(o).threads, "N", "threads; 0: one for each core" }, \
    { "cpu", 0, OPTION_CHOICE, &(o).cpu, "best|scalar|avx2|avx-vnni|avx512|neon|neon-dot|wasm", \
      "the instructions to use" }, \
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

/* What bounds an answer. */
typedef struct control_options { const char *grammar, *schema; text_list stops; } control_options;

#define CONTROL_DEFAULTS { 0, 0, { { 0 }, 0 } }

#define CONTROL_OPTIONS(o) \
    { "grammar", 0, OPTION_TEXT, &(o).grammar, "FILE", "write what this grammar (GBNF) allows" }, \
    { "schema", 0, OPTION_TEXT, &(o).schema, "FILE", "write JSON that this schema describes" }, \
    { "stop", 0, OPTION_TEXTS, &(o).stops, "TEXT", "end before this text; may be repeated" }

/* Checks what the table cannot and draws a seed where none was given. Returns -1, or 2. */
int sampler_prepare(const command *c, griffin_sampler *sampler);

/* ---- session ------------------------------------------------------------------------------ */

typedef struct session {
    griffin_model      *model;
    const griffin_info *info;
    griffin_state      *state;
    griffin_context    *context;
    void               *context_memory;
    float              *logits;             /* [V], after the last token */
    griffin_decoder     decoder;
    griffin_stop        stop;               /* of an answer */
    griffin_bias        no_ends[2];         /* for --ignore-eos */
    griffin_grammar    *grammar;            /* of an answer, or null */
    griffin_grammar_state grammar_state;
    int                 may_end;            /* as far as the grammar is concerned */
    int                 masks;
    double              mask_seconds, longest_mask;
    char                message[400];       /* the library's last error */
    uint64_t            seed;               /* of the sampler, for the statistics */
    int                 prompt_tokens, generated_tokens;
    double              open_seconds, prompt_seconds, generated_seconds;
    double              start, first_seconds;       /* of the first prompt, until its answer */
} session;

enum { NUMBERS_ONLY, NEEDS_TEXT };

int  session_open(session *s, const command *c, const model_options *o, int needs);
int  session_open_memory(session *s, const void *data, size_t size, int threads);   /* borrowed */
int  session_control(session *s, const control_options *o);     /* o must outlive the session */
void session_close(session *s);
int  session_error(session *s, int error);              /* complains about a failed griffin call */
void session_statistics(const session *s);              /* on stderr */

typedef struct token_list { int32_t *data; int count, capacity; } token_list;

int  tokens_add(token_list *list, int32_t token);
int  tokens_add_text(token_list *list, session *s, const griffin_encoding *encoding,
                     const void *words, uint64_t size);
void tokens_free(token_list *list);

/* Decodes a token, -1 to bring out what the decoder holds back, and prints its text if `show`. */
int session_show(session *s, int32_t token, int show);

/* Feeds a prompt; with echo it is printed as the model reads it. */
int session_feed(session *s, const token_list *tokens, griffin_sampler *sampler, int echo);

/* Streams an answer to standard output until it ends, comes to a stop text, is interrupted, or has
 * `limit` tokens. */
int session_generate(session *s, griffin_sampler *sampler, int limit, int ignore_ends);

#endif
