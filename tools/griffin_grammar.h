/* griffin_grammar.h - v0.1.0 - a model writes only what a grammar or a JSON schema allows
 *
 * Use it when a program reads what a model of griffin.h writes: the answer is then always complete,
 * and always of the form that you asked for. It is a guest of griffin.h and calls only functions
 * that any program can call. C99 or C++11, libc, nothing else. Copy it beside griffin.h, and in one
 * source file write
 *
 *     #include "griffin.h"
 *     #define GRIFFIN_GRAMMAR_IMPLEMENTATION
 *     #include "griffin_grammar.h"
 *
 * In all other files leave out the second line. griffin.h always comes first. The two
 * implementations may be in one source file or in two. MIT or public domain, as griffin.h.
 *
 *
 * QUICK START
 *
 *     griffin_grammar *g;
 *     griffin_grammar_open(&g, model, "root ::= \"yes\" | \"no\"", 21, NULL);
 *     griffin_grammar_state at;  memset(&at, 0, sizeof at);               zero is the beginning
 *     const griffin_info *info = griffin_get_info(model);
 *     ...
 *         griffin_grammar_mask(g, &at, logits);                           forbids what does not fit
 *         token = griffin_sample(model, &sampler, logits);
 *         if (token < 0 || token == info->eos || token == info->end_of_turn) break;      it may end
 *         griffin_grammar_accept(g, &at, token);
 *         griffin_step(context, state, token, logits);
 *
 * A state is bytes, as a griffin_state is: copy both, and both rewind.
 *
 *
 * FUNCTIONS
 *
 *     griffin_grammar_open          reads a grammar, for one model
 *     griffin_grammar_open_schema   the same from a JSON schema
 *     griffin_grammar_close         gives its memory back
 *     griffin_grammar_size          bytes of memory that it takes
 *     griffin_grammar_mask          sets the logits of all tokens that do not fit to -INFINITY
 *     griffin_grammar_accept        tells the state which token was written
 *     griffin_grammar_guess         adds what must follow to the guesses of griffin.h
 *     griffin_grammar_lead          the first tokens write the end of the prompt again
 *
 *
 * GRAMMARS are GBNF texts, as llama.cpp has them, in UTF-8
 *
 *     root  ::= "{" space name ":" [0-9]{1,3} "}"      # literals, classes, repetition
 *     name  ::= "\"" ( [^"\\] | "\\" . )* "\""         # groups, alternatives, any character
 *     space ::= " "?                                   # also * + {2} {2,}
 *
 * A text begins with the rule "root". Literals and classes may contain \n \r \t \\ \" \[ \] \xNN
 * \uNNNN \UNNNNNNNN. Line ends are white space. A rule must not lead back to itself before it has
 * read something. A grammar has at most 256 KB of text, 16384 rules, and 60000 steps, where a
 * literal has a step for each byte and a repetition has copies of what it repeats.
 *
 * The mask reads every token to its last byte, whatever literals or parts of characters it spans.
 * Control tokens and turn markers never fit. eos and end_of_turn fit where the text may end.
 *
 * A grammar that opens never fails inside the text: from every place that a mask leads to, a text
 * of the grammar can be completed, if the vocabulary has a token for each byte. For this
 *
 *     a rule that no text can leave is refused, and a place with more than 2048 ways to go on
 *     no text is inside of more than 511 rules at a time, where a call that ends a rule does not
 *         count: a mask leads back before, so that JSON ends at arrays about 500 deep
 *     readings that stay different share the 512 entries of a state: the rules they are inside of,
 *         and a place for each. What does not fit is left out; the first alternatives stay, and the
 *         one that can end soonest. The state's `narrowed` is 1 then. So a mask may allow too
 *         little, but never too much
 *
 * Of the tokens that fit, a mask allows those that the tokenizer could have written there, since a
 * model knows only these: see >>choice. Where only others fit, they are allowed.
 * griffin_grammar_accept takes every token that fits.
 *
 *
 * SCHEMAS are JSON texts, of which this is understood
 *
 *     type                   one name or several
 *     enum, const            values are written as the schema spells them; for an escape, the
 *                            character itself fits too
 *     properties, required, additionalProperties
 *                            properties are written in their order, and no others. Without any,
 *                            the schema of additionalProperties is that of all values
 *     items, minItems, maxItems, minLength, maxLength
 *                            items is one schema for all; bounds up to about 29000
 *     minimum, maximum, exclusiveMinimum, exclusiveMaximum
 *                            whole numbers, for type integer
 *     format                 date, time, date-time or uuid
 *     pattern                characters, . [...] (...) | * + ? {m,n}, \d \w \s, and ^ $ at the ends
 *     anyOf, oneOf           any of them fits
 *     allOf                  of objects: all their properties
 *     $ref                   "#" and a place in the same schema, such as "#/$defs/name"
 *
 * What only describes, such as title, is skipped. Any other keyword is an error that names it. So
 * is a schema that requires itself, since no text of it would end.
 *
 *
 * COST AND MEMORY
 *
 * A mask for JSON takes 0.15 to 0.6 ms in a vocabulary of 256000 tokens, whose models take 50 ms
 * and more for a step, and 0.003 ms in one of 2000. It takes the same where a text can be read
 * in many ways: equal readings are merged, and what one of them allows is not looked at again. Many
 * readings that stay different cost time: 300 of them took up to 160 ms (`griffin bench --masks`).
 * A mask takes at most about 400 million steps; then it leaves out long tokens.
 * A grammar keeps about 30 bytes for each token (7.5 MB for 256000) and needs as much again while
 * it opens. Opening takes 0.4 s then, 1 s with long bounded repetitions, and some seconds at most.
 * Nothing is allocated after opening. No function uses more than 56 KB of stack.
 *
 *
 * THREADS
 *
 * Nobody writes a grammar after it is opened, so threads share it freely, as they share the model,
 * which must stay open as long. A state belongs to one call at a time. There are no globals.
 *
 *
 * ERRORS
 *
 * The functions return the error codes of griffin.h. The logger receives a line about each: in a
 * grammar with line and column, in a schema with the byte and the JSON pointer. A failed open also
 * writes it to griffin_options.error.
 *
 *
 * BUILD OPTIONS, defined before the implementation
 *
 *     GRIFFIN_GRAMMAR_STATIC   all functions are static: a private copy in one source file
 *     GRIFFIN_GRAMMAR_API      what stands before every declaration, say for a DLL
 *     GRIFFIN_NO_STDLIB        no malloc, as in griffin.h: an allocator is then needed
 *
 *
 * CONTENTS   >>api   >>basics   >>program   >>compiler   >>merger   >>limits   >>trie
 *            >>threads   >>walk   >>choice   >>cache   >>schema   >>public
 */

/* ================================================================= >>api */

#ifndef GRIFFIN_GRAMMAR_H
#define GRIFFIN_GRAMMAR_H

#ifndef GRIFFIN_H
  #error "griffin_grammar.h: include griffin.h first"
#endif

#ifndef GRIFFIN_GRAMMAR_API
  #ifdef GRIFFIN_GRAMMAR_STATIC
    #define GRIFFIN_GRAMMAR_API static inline
  #else
    #define GRIFFIN_GRAMMAR_API extern
  #endif
#endif

#ifdef GRIFFIN_PREFIX               /* other names for the linker, as in griffin.h */
  #define GRG_PREFIXED_AS(prefix, name) prefix##name
  #define GRG_PREFIXED_BY(prefix, name) GRG_PREFIXED_AS(prefix, name)
  #define GRG_PREFIXED(name) GRG_PREFIXED_BY(GRIFFIN_PREFIX, name)
  #define griffin_grammar_open        GRG_PREFIXED(griffin_grammar_open)
  #define griffin_grammar_open_schema GRG_PREFIXED(griffin_grammar_open_schema)
  #define griffin_grammar_close       GRG_PREFIXED(griffin_grammar_close)
  #define griffin_grammar_size        GRG_PREFIXED(griffin_grammar_size)
  #define griffin_grammar_mask        GRG_PREFIXED(griffin_grammar_mask)
  #define griffin_grammar_accept      GRG_PREFIXED(griffin_grammar_accept)
  #define griffin_grammar_guess       GRG_PREFIXED(griffin_grammar_guess)
  #define griffin_grammar_lead        GRG_PREFIXED(griffin_grammar_lead)
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct griffin_grammar griffin_grammar;

#define GRIFFIN_GRAMMAR_FRAMES 512          /* rules a text can be inside of, plus alternatives that
                                             * have begun alike */

typedef struct griffin_grammar_frame { uint16_t position, below; } griffin_grammar_frame;

/* How far a text has come: plain bytes, all zero before its first token. Copy it together with the
 * griffin_state. */
typedef struct griffin_grammar_state {
    uint64_t grammar;                       /* a hash of its text; 0: nothing was accepted yet */
    uint16_t frames, places, ended;
    uint16_t narrowed;                      /* 1: readings were left out, see GRAMMARS; not set by
                                             * a mask that leaves out tokens to save time */
    int32_t  last;                          /* 1 + the token that was written last; 0: none yet */
    uint32_t unfinished;                    /* the bytes of a character that is not complete */
    griffin_grammar_frame frame[GRIFFIN_GRAMMAR_FRAMES];
    uint32_t leading;                       /* bytes that come before the text of the grammar */
    char     lead[GRIFFIN_HEAL_BYTES];
} griffin_grammar_state;

/* Of the options only allocator, logger, error and error_size count. Without an allocator or a
 * logger there, and with options null, the model's are used. On failure *grammar is null. E_FORMAT:
 * the text is wrong, and the message says where. E_VOCABULARY: the model has no vocabulary. */
GRIFFIN_GRAMMAR_API int griffin_grammar_open(griffin_grammar **grammar, const griffin_model *model,
                                             const char *text, size_t length,
                                             const griffin_options *options);

/* Only JSON texts that the schema describes will fit. */
GRIFFIN_GRAMMAR_API int griffin_grammar_open_schema(griffin_grammar **grammar,
                                                    const griffin_model *model,
                                                    const char *schema, size_t length,
                                                    const griffin_options *options);

GRIFFIN_GRAMMAR_API void griffin_grammar_close(griffin_grammar *grammar);      /* null is fine */
GRIFFIN_GRAMMAR_API uint64_t griffin_grammar_size(const griffin_grammar *grammar);

/* Sets the logits [vocab] of all tokens that must not come next to -INFINITY. Returns how many
 * tokens remain. E_NO_TOKEN: none remains (in a vocabulary with a token for each byte that happens
 * only after the end). E_MISMATCH: the state is of another grammar. */
GRIFFIN_GRAMMAR_API int griffin_grammar_mask(const griffin_grammar *grammar,
                                             const griffin_grammar_state *state, float *logits);

/* Moves the state on by a token. Returns 1 if the text may end there, else 0. E_ARGUMENT: the token
 * cannot follow. E_SPACE: it would open too many rules; no mask allows it. The state is then as it
 * was. */
GRIFFIN_GRAMMAR_API int griffin_grammar_accept(const griffin_grammar *grammar,
                                               griffin_grammar_state *state, int32_t token);

/* Where the grammar leaves one token after the known tokens of a griffin_guess, it adds this token
 * as certain, then the next one, and so on: names, quotes and brackets of JSON then go through the
 * model in one pass, without their logits. The sampler's mask must be griffin_grammar_mask, and
 * nothing before it may ban a token but the sampler's biases. scratch has [vocab] floats. Returns
 * how many it added. */
GRIFFIN_GRAMMAR_API int griffin_grammar_guess(const griffin_grammar *grammar,
                                              const griffin_grammar_state *state,
                                              const griffin_sampler *sampler, float *scratch,
                                              griffin_guess *guess);

/* Says that the next tokens write these bytes, at most GRIFFIN_HEAL_BYTES, before the text of the
 * grammar begins, perhaps inside the same token. For token healing: call it for a fresh state, with
 * the text that griffin_heal_start took back. */
GRIFFIN_GRAMMAR_API int griffin_grammar_lead(const griffin_grammar *grammar,
                                             griffin_grammar_state *state,
                                             const char *text, size_t length);

#ifdef __cplusplus
}
#endif
#endif /* GRIFFIN_GRAMMAR_H */
/* ================================================================= end of header part */

#if defined(GRIFFIN_GRAMMAR_IMPLEMENTATION) && !defined(GRIFFIN_GRAMMAR_IMPLEMENTED)
#define GRIFFIN_GRAMMAR_IMPLEMENTED

/* ================================================================= >>basics
 * Errors, memory, characters. */

#include <math.h>
#include <stdarg.h>
#include <string.h>
#ifndef GRIFFIN_NO_STDLIB
  #include <stdlib.h>
#endif

/* ---- messages ------------------------------------------------------------------------------- */

typedef struct grg_line { char text[320]; size_t length; } grg_line;

/* Unprintable bytes become '?', since grammars may come from anywhere and messages go to
 * terminals. */
static void grg_line_put(grg_line *line, const char *text, size_t length) {
    for (size_t i = 0; i < length && line->length + 1 < sizeof line->text; i++) {
        unsigned char c = (unsigned char)text[i];
        line->text[line->length++] = (c < 32 || c == 127) ? '?' : (char)c;
    }
    line->text[line->length] = 0;
}

static void grg_line_number(grg_line *line, uint64_t value) {
    char digits[24];
    size_t at = sizeof digits;
    do { digits[--at] = (char)('0' + value % 10); value /= 10; } while (value);
    grg_line_put(line, digits + at, sizeof digits - at);
}

/* Reports an error and returns it. The allocator, the logger and the text for the message are those
 * of `hooks`. The format knows
 *     %s  const char *     %t  const char *, size_t     %d  int, not negative     %u  uint64_t */
static int grg_fail(const griffin_options *hooks, int error, const char *format, ...) {
    grg_line line;
    va_list values;
    line.length = 0;
    va_start(values, format);
    for (; *format; format++) {
        if (*format != '%') { grg_line_put(&line, format, 1); continue; }
        format++;
        if (*format == 'd') grg_line_number(&line, (uint64_t)va_arg(values, int));
        if (*format == 'u') grg_line_number(&line, va_arg(values, uint64_t));
        if (*format == 's' || *format == 't') {
            const char *text = va_arg(values, const char *);
            grg_line_put(&line, text, *format == 't' ? va_arg(values, size_t) : strlen(text));
        }
    }
    va_end(values);
    if (hooks->logger.message) hooks->logger.message(error, line.text, hooks->logger.user);
    if (hooks->error && hooks->error_size) {
        size_t n = line.length < hooks->error_size ? line.length : hooks->error_size - 1;
        memcpy(hooks->error, line.text, n);
        hooks->error[n] = 0;
    }
    return error;
}

/* ---- memory --------------------------------------------------------------------------------- */

/* Null after a message. */
static void *grg_allocate(const griffin_options *hooks, uint64_t size) {
    void *memory = NULL;
    if (size == 0) size = 1;
    if (size <= (uint64_t)((size_t)-1 >> 1)) {
        if (hooks->allocator.allocate)
            memory = hooks->allocator.allocate((size_t)size, hooks->allocator.user);
#ifndef GRIFFIN_NO_STDLIB
        else memory = malloc((size_t)size);
#endif
    }
    if (!memory)
        grg_fail(hooks, GRIFFIN_E_MEMORY, "the allocator could not give %u bytes", size);
    return memory;
}

static void grg_release(const griffin_options *hooks, void *memory) {
    if (!memory) return;
    if (hooks->allocator.allocate) hooks->allocator.release(memory, hooks->allocator.user);
#ifndef GRIFFIN_NO_STDLIB
    else free(memory);
#endif
}

#define GRG_HASH_START 0xcbf29ce484222325u

/* FNV-1a: the hash of a text and of what follows it. */
static uint64_t grg_hash_more(uint64_t hash, const char *text, size_t length) {
    for (; length; text++, length--) hash = (hash ^ (unsigned char)*text) * 0x100000001b3u;
    return hash;
}

static uint64_t grg_hash(const char *text, size_t length) {     /* 0 stands for no text */
    return grg_hash_more(GRG_HASH_START, text, length) | 1;
}

/* ---- characters ----------------------------------------------------------------------------- */

#define GRG_LAST_CHARACTER 0x10FFFF

/* Bytes of the character at `text`, of which left >= 1 are there: 1 to 4; 0 if no valid character
 * starts so; -1 if one may, but the text ends first. Valid means no overlong form, no surrogate, at
 * most U+10FFFF. */
static int grg_utf8_length(const char *text, uint64_t left) {
    const unsigned char *p = (const unsigned char *)text;
    unsigned low = 0x80, high = 0xBF;       /* of the second byte */
    if (p[0] < 0x80) return 1;
    if (p[0] < 0xC2 || p[0] > 0xF4) return 0;
    int length = p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : 4;
    if (p[0] == 0xE0) low  = 0xA0;
    if (p[0] == 0xED) high = 0x9F;
    if (p[0] == 0xF0) low  = 0x90;
    if (p[0] == 0xF4) high = 0x8F;
    for (int i = 1; i < length; i++, low = 0x80, high = 0xBF) {
        if ((uint64_t)i == left) return -1;
        if (p[i] < low || p[i] > high) return 0;
    }
    return length;
}

/* The code point of a valid character of n bytes. */
static uint32_t grg_utf8_code_point(const char *text, int n) {
    const unsigned char *p = (const unsigned char *)text;
    uint32_t c = n == 1 ? p[0] : p[0] & (0x7Fu >> n);
    for (int i = 1; i < n; i++) c = c << 6 | (p[i] & 0x3F);
    return c;
}

/* Writes the bytes of a character. Returns how many. */
static int grg_utf8_write(uint32_t c, unsigned char bytes[4]) {
    static const uint8_t first[4] = { 0, 0xC0, 0xE0, 0xF0 };
    int more = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    bytes[0] = (unsigned char)(first[more] | c >> 6 * more);
    for (int i = 1; i <= more; i++) bytes[i] = (unsigned char)(0x80 | (c >> 6 * (more - i) & 0x3F));
    return more + 1;
}

/* The value of hexadecimal digits, of which `left` bytes are there; -1 if they are not. */
static int64_t grg_hex(const char *text, size_t left, int digits) {
    int64_t value = 0;
    if (left < (size_t)digits) return -1;
    for (int i = 0; i < digits; i++) {
        int d = (unsigned char)text[i], letter = d | 32;
        if (d >= '0' && d <= '9') value = value * 16 + (d - '0');
        else if (letter >= 'a' && letter <= 'f') value = value * 16 + (letter - 'a' + 10);
        else return -1;
    }
    return value;
}

/* ================================================================= >>program
 * A grammar becomes a program that reads bytes (Thompson 1968, with calls):
 *
 *     BYTE b       reads this byte
 *     SET n        reads a character of a class, whose table begins at row n
 *     TAIL n       reads a further byte of a character, by row n
 *     SPLIT a      goes on behind it and at a
 *     JUMP a       goes on at a
 *     CALL a       goes on at a, and behind it after the RETURN
 *     RETURN
 *
 * A text has several readings at a time, because alternatives may begin alike. Each is a thread: a
 * position in the program and the calls around it. Calls are frames { position, below } in one
 * array that all threads share; `below` is 1 + the index of the frame further out, or 0.
 *
 * A class is a table over UTF-8. A row has 64 entries, for the low six bits of a byte. An entry is
 * 0 if no character of the class goes on so, 1 if the character is complete, and n + 2 if row n
 * reads the next byte. The first byte of a character can be any of 256, so a SET has four rows in
 * succession. A character of several bytes is a call: its first byte calls the TAIL of the row for
 * the next one, and the TAIL that completes the character returns. So a thread inside a character
 * is a thread like any other. */

#define GRG_MOST_TEXT   262144              /* bytes of a grammar or a schema */
#define GRG_MOST_CODES  60000
#define GRG_MOST_ROWS   1024
#define GRG_MOST_RULES  16384
#define GRG_MOST_GROUPS 64                  /* within each other */
#define GRG_MOST_RANGES 256                 /* in a class */

enum grg_kind { GRG_BYTE, GRG_SET, GRG_TAIL, GRG_SPLIT, GRG_JUMP, GRG_CALL, GRG_RETURN };

typedef struct grg_code {
    uint8_t  kind, byte;
    uint16_t need;                          /* so many calls will be open at a time, at least, on
                                             * the way from here to the RETURN of the rule */
    int32_t  to;                            /* a row; or a position, which is relative, or a rule,
                                             * until the program is linked */
    uint32_t at;                            /* where the text has it */
} grg_code;

/* ================================================================= >>compiler
 * From the text of a grammar to the program. */

typedef struct grg_rule  { uint32_t name, length, start; } grg_rule;    /* start: 1 + code, or 0 */
typedef struct grg_group { int start, alternative, jumps; uint32_t at; } grg_group;
typedef struct grg_range { uint32_t low, high; } grg_range;

/* Reports what is wrong in a grammar that was made from something else, in the words of that. */
typedef int grg_translator(void *user, uint32_t at, const char *what);

typedef struct grg_compiler {
    const griffin_options *hooks;
    grg_translator *translate;              /* or null */
    void           *translate_user;
    const char *text;
    uint32_t  length, at;
    int       error;                        /* the first one; nothing happens after it */
    int       n_codes, n_rows, n_rules, n_ranges, depth;
    int       rule;                         /* being read, or -1; in the end where root begins */
    int       atom;                         /* where what may be repeated starts, or -1 */
    grg_group groups[GRG_MOST_GROUPS];
    grg_range ranges[GRG_MOST_RANGES + 2];
    grg_rule  rules[GRG_MOST_RULES];
    grg_code  codes[GRG_MOST_CODES + GRG_MOST_ROWS];
    uint16_t  rows[GRG_MOST_ROWS][64];
    uint32_t  rests[GRG_MOST_CODES + GRG_MOST_ROWS];    /* of each code: see >>limits */

    /* for the search of left recursion */
    uint8_t   reached[GRG_MOST_CODES];      /* from the start of its rule without reading a byte */
    uint16_t  stack[GRG_MOST_CODES];        /* codes to look at */
    int       stacked;
    int       reading;                      /* the search goes on behind codes that read */
    uint16_t  first_call[GRG_MOST_RULES];   /* 1 + a reached call of the rule, or 0 */
    uint16_t  next_call[GRG_MOST_CODES];    /* the next one of the same rule */
    uint8_t   empty[GRG_MOST_RULES];        /* the rule can be left, so far as was searched */
    uint8_t   searched[GRG_MOST_RULES];     /* 1: its search has begun; 2: it is done */
    uint16_t  path[GRG_MOST_RULES + 1];     /* rules whose search has begun, from the outside in */
} grg_compiler;

static void grg_wrong(grg_compiler *c, uint32_t at, const char *what) {
    int line = 1, column = 1;
    if (c->error) return;
    if (c->translate) { c->error = c->translate(c->translate_user, at, what); return; }
    for (uint32_t i = 0; i < at; i++) {
        column += ((unsigned char)c->text[i] & 0xC0) != 0x80;
        if (c->text[i] == '\n') { line++; column = 1; }
    }
    uint32_t n = 0;                         /* bytes of the excerpt */
    while (at + n < c->length && n < 24 && c->text[at + n] != '\n') n++;
    while (n && at + n < c->length && ((unsigned char)c->text[at + n] & 0xC0) == 0x80) n--;
    c->error = grg_fail(c->hooks, GRIFFIN_E_FORMAT, "grammar, line %d, column %d, at '%t': %s",
                        line, column, c->text + at, (size_t)n, what);
}

static char grg_here(const grg_compiler *c) { return c->at < c->length ? c->text[c->at] : '\0'; }

/* ---- emitting ------------------------------------------------------------------------------- */

static int grg_has_room(grg_compiler *c, uint64_t more) {
    if (!c->error && (uint64_t)c->n_codes + more > GRG_MOST_CODES)
        grg_wrong(c, c->at, "the grammar is too large: more than 60000 steps");
    return !c->error;
}

static void grg_emit(grg_compiler *c, int kind, int byte, int to) {
    grg_code *code = &c->codes[c->n_codes];
    if (!grg_has_room(c, 1)) return;
    code->kind = (uint8_t)kind;
    code->byte = (uint8_t)byte;
    code->to   = to;
    code->at   = c->at;
    c->n_codes++;
}

static void grg_insert_split(grg_compiler *c, int where, int to) {
    int last = c->n_codes;
    grg_emit(c, GRG_SPLIT, 0, to);
    if (c->error) return;
    grg_code split = c->codes[last];
    memmove(c->codes + where + 1, c->codes + where, (size_t)(last - where) * sizeof split);
    c->codes[where] = split;
}

/* ---- groups and rules ----------------------------------------------------------------------- */

static void grg_open_group(grg_compiler *c) {
    grg_group *group = &c->groups[c->depth];
    if (c->depth == GRG_MOST_GROUPS) { grg_wrong(c, c->at, "groups nest deeper than 64"); return; }
    group->start = group->alternative = c->n_codes;
    group->jumps = -1;
    group->at = c->at;
    c->depth++;
    c->atom = -1;
}

/* Alternatives so far end with jumps to the end of the group. Each jump holds the index of the one
 * before it until the end is known. */
static void grg_alternate(grg_compiler *c) {
    grg_group *group = &c->groups[c->depth - 1];
    grg_insert_split(c, group->alternative, c->n_codes - group->alternative + 2);
    grg_emit(c, GRG_JUMP, 0, group->jumps);
    group->jumps = c->n_codes - 1;
    group->alternative = c->n_codes;
    c->atom = -1;
}

static void grg_close_group(grg_compiler *c) {
    const grg_group *group = &c->groups[--c->depth];
    for (int jump = c->error ? -1 : group->jumps, before; jump >= 0; jump = before) {
        before = c->codes[jump].to;
        c->codes[jump].to = c->n_codes - jump;
    }
    c->atom = group->start;
}

/* Behind white space and comments. */
static uint32_t grg_behind_blank(const grg_compiler *c, uint32_t at) {
    for (; at < c->length; at++) {
        if (c->text[at] == '#')
            while (at < c->length && c->text[at] != '\n' && c->text[at] != '\r') at++;
        if (at == c->length || !memchr(" \t\r\n", c->text[at], 4)) return at;
    }
    return at;
}

static void grg_skip_blank(grg_compiler *c) { c->at = grg_behind_blank(c, c->at); }

static uint32_t grg_name_length(const grg_compiler *c) {
    uint32_t n = 0;
    for (; c->at + n < c->length; n++) {
        char d = c->text[c->at + n];
        if (!((d >= 'a' && d <= 'z') || (d >= 'A' && d <= 'Z') || (d >= '0' && d <= '9')
              || d == '-' || d == '_')) break;
    }
    return n;
}

/* The end of the ::= behind a name of n bytes; 0 if there is none. */
static uint32_t grg_definition_end(const grg_compiler *c, uint32_t n) {
    uint32_t at = grg_behind_blank(c, c->at + n);
    return n && c->length - at >= 3 && memcmp(c->text + at, "::=", 3) == 0 ? at + 3 : 0;
}

static int grg_find_rule(const grg_compiler *c, const char *name, uint32_t length) {
    for (int i = 0; i < c->n_rules; i++) {
        const grg_rule *r = &c->rules[i];
        if (r->length == length && memcmp(c->text + r->name, name, length) == 0) return i;
    }
    return -1;
}

/* The number of the rule whose name of n bytes comes next; a new one if it was never mentioned. */
static int grg_rule_here(grg_compiler *c, uint32_t n) {
    int rule = grg_find_rule(c, c->text + c->at, n);
    if (rule >= 0) return rule;
    if (c->n_rules == GRG_MOST_RULES) {
        grg_wrong(c, c->at, "more than 16384 rules");
        return 0;
    }
    c->rules[c->n_rules].name   = c->at;
    c->rules[c->n_rules].length = n;
    c->rules[c->n_rules].start  = 0;
    return c->n_rules++;
}

static void grg_end_rule(grg_compiler *c) {
    if (c->rule < 0 || c->error) return;
    if (c->depth > 1) grg_wrong(c, c->groups[c->depth - 1].at, "this group is not closed");
    else grg_close_group(c);
    grg_emit(c, GRG_RETURN, 0, c->rule);
}

static void grg_begin_rule(grg_compiler *c, uint32_t n) {
    grg_end_rule(c);
    c->rule = grg_rule_here(c, n);
    if (c->rules[c->rule].start) grg_wrong(c, c->at, "this rule is defined twice");
    c->rules[c->rule].start = (uint32_t)c->n_codes + 1;
    c->depth = 0;
    grg_open_group(c);
    c->at = grg_definition_end(c, n);
}

/* ---- repetition ----------------------------------------------------------------------------- */

/* Replaces the last atom by `least` to `most` of it, -1 being no limit. The copies are made behind
 * it and then moved down. */
static void grg_repeat(grg_compiler *c, int least, int most) {
    int start = c->atom, end = c->n_codes, length = end - start;
    int copies = most >= 0 ? most : least > 0 ? least : 1;
    if (start < 0) grg_wrong(c, c->at, "there is nothing to repeat");
    if (c->error || !grg_has_room(c, (uint64_t)(length + 1) * (uint64_t)(copies + 1))) return;
    for (int i = 0; i < copies; i++) {
        int past = most < 0 ? length + 2 : (most - i) * (length + 1);
        if (i >= least) grg_emit(c, GRG_SPLIT, 0, past);
        memcpy(c->codes + c->n_codes, c->codes + start, (size_t)length * sizeof(grg_code));
        c->n_codes += length;
    }
    if (most < 0 && least > 0) grg_emit(c, GRG_SPLIT, 0, -length);
    if (most < 0 && least == 0) grg_emit(c, GRG_JUMP, 0, -(length + 1));
    memmove(c->codes + start, c->codes + end, (size_t)(c->n_codes - end) * sizeof(grg_code));
    c->n_codes -= length;
}

static int grg_count_here(grg_compiler *c) {
    int n = 0, digits = 0;
    grg_skip_blank(c);
    for (; grg_here(c) >= '0' && grg_here(c) <= '9' && n < GRG_MOST_CODES; c->at++, digits++)
        n = 10 * n + (c->text[c->at] - '0');
    if (!digits || n >= GRG_MOST_CODES) grg_wrong(c, c->at, "expected a number below 60000");
    grg_skip_blank(c);
    return n;
}

static void grg_repeat_bounds(grg_compiler *c) {    /* {m} {m,} {m,n} */
    uint32_t at = c->at++;
    int least = grg_count_here(c), most = least;
    if (grg_here(c) == ',') {
        c->at++;
        grg_skip_blank(c);
        most = grg_here(c) == '}' ? -1 : grg_count_here(c);
    }
    if (!c->error && grg_here(c) != '}') grg_wrong(c, c->at, "expected }");
    if (most >= 0 && most < least) grg_wrong(c, at, "the bounds are the wrong way round");
    c->at++;
    grg_repeat(c, least, most);
}

/* ---- characters and literals ---------------------------------------------------------------- */

static uint32_t grg_hex_here(grg_compiler *c, int digits) {
    uint32_t start = c->at - 2;             /* the backslash */
    int64_t value = grg_hex(c->text + c->at, c->length - c->at, digits);
    if (value < 0) { grg_wrong(c, start, "expected more hexadecimal digits"); return 0; }
    if (value > GRG_LAST_CHARACTER || value >> 11 == 0xD800 >> 11)
        grg_wrong(c, start, "this is not a character of Unicode");
    c->at += (uint32_t)digits;
    return (uint32_t)value;
}

/* The next character of a literal or class, which must not be at the end of the text. */
static uint32_t grg_character_here(grg_compiler *c) {
    int n = grg_utf8_length(c->text + c->at, c->length - c->at);
    uint32_t character = grg_utf8_code_point(c->text + c->at, n);
    c->at += (uint32_t)n;
    if (character != '\\') return character;
    c->at++;
    switch (c->at <= c->length ? c->text[c->at - 1] : 0) {
    case 'x': return grg_hex_here(c, 2);
    case 'u': return grg_hex_here(c, 4);
    case 'U': return grg_hex_here(c, 8);
    case 't': return '\t';
    case 'r': return '\r';
    case 'n': return '\n';
    case '\\': case '"': case '[': case ']': return (unsigned char)c->text[c->at - 1];
    default: grg_wrong(c, c->at - 2, "expected \\x \\u \\U \\t \\r \\n \\\\ \\\" \\[ or \\]");
    }
    return 0;
}

static void grg_literal(grg_compiler *c) {
    uint32_t opened = c->at++;
    int start = c->n_codes;
    while (!c->error && grg_here(c) != '"') {
        unsigned char bytes[4];
        if (c->at >= c->length) { grg_wrong(c, opened, "this literal is not closed"); return; }
        int n = grg_utf8_write(grg_character_here(c), bytes);
        for (int i = 0; i < n; i++) grg_emit(c, GRG_BYTE, bytes[i], 0);
    }
    c->at++;
    c->atom = start;
}

/* ---- classes -------------------------------------------------------------------------------- */

/* Ranges are kept sorted, with gaps between them. */
static void grg_add_range(grg_compiler *c, uint32_t low, uint32_t high) {
    grg_range *r = c->ranges;
    int from = 0, to;
    while (from < c->n_ranges && r[from].high + 1 < low) from++;
    for (to = from; to < c->n_ranges && r[to].low <= high + 1; to++) {
        if (r[to].low  < low)  low  = r[to].low;
        if (r[to].high > high) high = r[to].high;
    }
    if (from == to && c->n_ranges >= GRG_MOST_RANGES) {
        grg_wrong(c, c->at, "more than 256 ranges in a class");
        return;
    }
    memmove(r + from + 1, r + to, (size_t)(c->n_ranges - to) * sizeof *r);
    r[from].low  = low;
    r[from].high = high;
    c->n_ranges += 1 - (to - from);
}

static void grg_complement(grg_compiler *c) {
    uint32_t next = 0;
    int n = 0;
    for (int i = 0; i < c->n_ranges; i++) {
        uint32_t low = next;
        next = c->ranges[i].high + 1;
        if (c->ranges[i].low == low) continue;
        c->ranges[n].high = c->ranges[i].low - 1;
        c->ranges[n++].low = low;
    }
    if (next <= GRG_LAST_CHARACTER) {
        c->ranges[n].low = next;
        c->ranges[n++].high = GRG_LAST_CHARACTER;
    }
    c->n_ranges = n;
}

/* Of the characters low to high the class has 0 none, 1 some, 2 all. */
static int grg_cover(const grg_compiler *c, uint32_t low, uint32_t high) {
    int from = 0, to = c->n_ranges;         /* the first range that ends at low or later */
    while (from < to) {
        int middle = (from + to) / 2;
        if (c->ranges[middle].high < low) from = middle + 1; else to = middle;
    }
    if (from == c->n_ranges || c->ranges[from].low > high) return 0;
    return c->ranges[from].low <= low && c->ranges[from].high >= high ? 2 : 1;
}

/* The number of the first of these rows. Classes that need the same rows share them. */
static int grg_keep_rows(grg_compiler *c, const uint16_t *rows, int count) {
    size_t size = (size_t)count * sizeof c->rows[0];
    for (int i = 0; i + count <= c->n_rows; i++)
        if (memcmp(c->rows[i], rows, size) == 0) return i;
    if (c->n_rows + count > GRG_MOST_ROWS) {
        grg_wrong(c, c->at, "the classes of the grammar are too complicated");
        return 0;
    }
    memcpy(c->rows[c->n_rows], rows, size);
    c->n_rows += count;
    return c->n_rows - count;
}

/* The entry for a start of characters that has `level` more bytes to come. The characters are those
 * from `first` on, but at least `least`, since longer spellings of smaller ones are not UTF-8.
 * Calls itself for the next byte, three times at most. */
static uint16_t grg_entry(grg_compiler *c, int level, uint32_t first, uint32_t least) {
    uint32_t last = first + ((uint32_t)1 << 6 * level) - 1;
    uint16_t row[64];
    int cover = last < least ? 0 : grg_cover(c, first < least ? least : first, last);
    if (first < least && cover) cover = 1;
    if (!cover || !level) return cover != 0;
    row[0] = grg_entry(c, level - 1, first, least);
    for (uint32_t b = 1; b < 64; b++)
        row[b] = cover == 2 ? row[0]
               : grg_entry(c, level - 1, first + (b << 6 * (level - 1)), least);
    return (uint16_t)(grg_keep_rows(c, row, 1) + 2);
}

/* The ranges, or all but them, as a SET. Halves of surrogate pairs are not characters. */
static void grg_emit_set(grg_compiler *c, int negated) {
    uint16_t rows[256];
    int any = 0;
    if (!negated) grg_complement(c);
    grg_add_range(c, 0xD800, 0xDFFF);
    grg_complement(c);
    for (uint32_t b = 0; b < 256; b++) {
        rows[b] = b < 0x80 ? grg_entry(c, 0, b, 0)
                : b < 0xC2 ? (uint16_t)0
                : b < 0xE0 ? grg_entry(c, 1, (b & 0x1F) << 6, 0x80)
                : b < 0xF0 ? grg_entry(c, 2, (b & 0x0F) << 12, 0x800)
                : b < 0xF5 ? grg_entry(c, 3, (b & 0x07) << 18, 0x10000) : (uint16_t)0;
        any |= rows[b];
    }
    if (!any) grg_wrong(c, c->at, "nothing is in this class");
    c->atom = c->n_codes;
    grg_emit(c, GRG_SET, 0, grg_keep_rows(c, rows, 4));
    c->n_ranges = 0;
}

static void grg_class(grg_compiler *c) {
    uint32_t opened = c->at++;
    int negated = grg_here(c) == '^';
    c->at += (uint32_t)negated;
    if (grg_here(c) == ']') grg_wrong(c, opened, "an empty class");
    while (!c->error && grg_here(c) != ']') {
        if (c->at >= c->length) { grg_wrong(c, opened, "this class is not closed"); return; }
        uint32_t low = grg_character_here(c), high = low;
        if (grg_here(c) == '-' && c->at + 1 < c->length && c->text[c->at + 1] != ']') {
            c->at++;
            high = grg_character_here(c);
        }
        if (high < low) grg_wrong(c, opened, "a range of this class is the wrong way round");
        grg_add_range(c, low, high);
    }
    c->at++;
    if (!c->error) grg_emit_set(c, negated);
}

/* ---- the text ------------------------------------------------------------------------------- */

static void grg_sign(grg_compiler *c) {
    switch (grg_here(c)) {
    case '"': grg_literal(c); return;
    case '[': grg_class(c); return;
    case '{': grg_repeat_bounds(c); return;
    case '.':
        grg_add_range(c, 0, GRG_LAST_CHARACTER);
        grg_emit_set(c, 0);
        break;
    case '*': grg_repeat(c, 0, -1); break;
    case '+': grg_repeat(c, 1, -1); break;
    case '?': grg_repeat(c, 0, 1); break;
    case '|': grg_alternate(c); break;
    case '(': grg_open_group(c); break;
    case ')':
        if (c->depth > 1) grg_close_group(c);
        else grg_wrong(c, c->at, "there is no group to close");
        break;
    default: grg_wrong(c, c->at, "expected a literal, class, group or rule");
    }
    c->at++;
}

static void grg_read_rules(grg_compiler *c) {
    for (grg_skip_blank(c); !c->error && c->at < c->length; grg_skip_blank(c)) {
        uint32_t n = grg_name_length(c);
        if (grg_definition_end(c, n)) {
            grg_begin_rule(c, n);
        } else if (c->rule < 0) {
            grg_wrong(c, c->at, "expected a rule, name ::= ...");
        } else if (n) {
            c->atom = c->n_codes;
            grg_emit(c, GRG_CALL, 0, grg_rule_here(c, n));
            c->at += n;
        } else {
            grg_sign(c);
        }
    }
    grg_end_rule(c);
}

/* ---- left recursion --------------------------------------------------------------------------
 * A rule must not call itself before a byte was read, or a mask would never come to an end. First
 * all codes are marked that are reached from the start of their rule without reading. A call that
 * is reached lets the code behind it be reached when the called rule can be empty, which may be
 * found out later; until then the call waits in the list of its rule. */

static void grg_reach(grg_compiler *c, int code) {
    if (c->reached[code]) return;
    c->reached[code] = 1;
    c->stack[c->stacked++] = (uint16_t)code;
}

static void grg_reach_all(grg_compiler *c) {
    for (int i = 0; i < c->n_rules; i++) grg_reach(c, (int)c->rules[i].start - 1);
    while (c->stacked) {
        int at = c->stack[--c->stacked], to = c->codes[at].to;
        switch (c->codes[at].kind) {
        case GRG_SPLIT: grg_reach(c, at + 1); grg_reach(c, at + to); break;
        case GRG_JUMP: grg_reach(c, at + to); break;
        case GRG_CALL:
            c->next_call[at] = c->first_call[to];
            c->first_call[to] = (uint16_t)(at + 1);
            if (c->empty[to]) grg_reach(c, at + 1);
            break;
        case GRG_RETURN:                    /* `to` is the rule that it leaves */
            if (c->empty[to]) break;
            c->empty[to] = 1;
            for (int call = c->first_call[to]; call; call = c->next_call[call - 1])
                grg_reach(c, call);         /* the number of the call + 1: the code behind it */
            break;
        default:
            if (c->reading) grg_reach(c, at + 1);
            break;
        }
    }
}

/* The same search through all codes finds rules that no text can leave. */
static void grg_refuse_endless(grg_compiler *c) {
    memset(c->reached, 0, sizeof c->reached);
    memset(c->first_call, 0, sizeof c->first_call);
    memset(c->empty, 0, sizeof c->empty);
    c->reading = 1;
    grg_reach_all(c);
    for (int i = 0; i < c->n_rules; i++)
        if (!c->empty[i]) grg_wrong(c, c->rules[i].name, "no text of this rule comes to an end");
}

/* Follows reached calls depth first. A call of a rule whose search has begun but is not done leads
 * back to that rule. */
static void grg_refuse_left_recursion(grg_compiler *c, int rule) {
    int depth = 0;
    if (c->searched[rule]) return;
    c->stack[depth] = (uint16_t)(c->rules[rule].start - 1);
    c->path[depth++] = (uint16_t)rule;
    c->searched[rule] = 1;
    while (depth && !c->error) {
        int at = c->stack[depth - 1]++;
        if (c->codes[at].kind == GRG_RETURN) c->searched[c->path[--depth]] = 2;
        if (c->codes[at].kind != GRG_CALL || !c->reached[at]) continue;
        int called = c->codes[at].to;
        if (c->searched[called] == 1) {
            grg_wrong(c, c->codes[at].at, "left recursion, this rule leads back to itself");
        } else if (!c->searched[called]) {
            c->searched[called] = 1;
            c->stack[depth] = (uint16_t)(c->rules[called].start - 1);
            c->path[depth++] = (uint16_t)called;
        }
    }
}

/* ---- linking -------------------------------------------------------------------------------- */

/* Makes positions absolute. A call that is followed by nothing but a return needs no frame and
 * becomes a jump. The TAILs of all rows are put at the end. */
static void grg_link(grg_compiler *c) {
    for (int i = 0; i < c->n_codes; i++)
        if (c->codes[i].kind == GRG_SPLIT || c->codes[i].kind == GRG_JUMP) c->codes[i].to += i;
    for (int i = 0; i < c->n_codes; i++) {
        grg_code *code = &c->codes[i];
        if (code->kind != GRG_CALL) continue;
        code->to = (int32_t)c->rules[code->to].start - 1;
        int next = i + 1;
        while (c->codes[next].kind == GRG_JUMP) next = c->codes[next].to;
        if (c->codes[next].kind == GRG_RETURN) code->kind = GRG_JUMP;
    }
    for (int row = 0; row < c->n_rows; row++) {
        grg_code *tail = &c->codes[c->n_codes + row];
        tail->kind = GRG_TAIL;
        tail->to = row;
    }
    c->rule = (int)c->rules[c->rule].start - 1;
}

/* ================================================================= >>merger
 * Alternatives that begin alike, such as 600 words or objects, would be one thread each until they
 * differ. So the program is built anew from sets of its positions, as one makes an automaton
 * deterministic: a state is a set of positions that read, call or return, and all of them that read
 * the same byte, use the same class or call the same rule lead to one state. Classes that overlap
 * stay apart, since they are different.
 *
 * That may need far more states than the rule has positions. Such a rule keeps its positions as
 * they are: each is a state (`apart`). Where even that does not fit, the program stays as it
 * was. */

#define GRG_LEAVE 0xFFFF                    /* stands for all RETURNs in a set */

typedef struct grg_set {
    uint32_t items, count;                  /* positions, in ascending order */
    uint32_t edges, n_edges;
    uint32_t hash, next;                    /* next: 1 + another set of the same hash, or 0 */
    int32_t  place;                         /* in the new program, or -1 */
    int      apart;
} grg_set;

typedef struct grg_edge { uint8_t kind, byte; int32_t to; uint32_t set, at; } grg_edge;

typedef struct grg_merger {
    grg_compiler *c;
    uint32_t  n_sets, n_items, n_edges, most_sets, most_items, most_edges;
    grg_set  *sets;
    grg_edge *edges;
    uint16_t *items;
    uint8_t  *taken;                        /* an item has its edge */
    uint32_t *stamps;                       /* of each position: the set that last reached it */
    uint32_t  stamp;
    uint32_t  heads[1024];                  /* by hash: 1 + a set, or 0 */
    uint32_t *entry;                        /* of each position: 1 + the set of a rule, or 0 */
    grg_code *out;
    int       n_out, stacked;
} grg_merger;

/* ---- sets ----------------------------------------------------------------------------------- */

/* Adds to the new set, whose items stand behind those of all others, what a position leads to
 * without reading. Returns how many items it has. */
static uint32_t grg_reach_items(grg_merger *m, int position, uint32_t count) {
    grg_compiler *c = m->c;
    uint16_t *items = m->items + m->n_items;
    int stacked = 0;
    c->stack[stacked++] = (uint16_t)position;
    while (stacked) {
        int at = c->stack[--stacked];
        const grg_code *code = &c->codes[at];
        if (m->stamps[at] == m->stamp) continue;
        m->stamps[at] = m->stamp;
        if (code->kind == GRG_SPLIT || code->kind == GRG_JUMP) {
            if (stacked + 2 > GRG_MOST_CODES) return m->most_items;
            c->stack[stacked++] = (uint16_t)code->to;
            if (code->kind == GRG_SPLIT) c->stack[stacked++] = (uint16_t)(at + 1);
            continue;
        }
        uint16_t item = code->kind == GRG_RETURN ? GRG_LEAVE : (uint16_t)at;
        uint32_t i = count;
        if (item == GRG_LEAVE && count && items[count - 1] == item) continue;
        if (m->n_items + ++count >= m->most_items) return m->most_items;
        for (; i && items[i - 1] > item; i--) items[i] = items[i - 1];
        items[i] = item;
    }
    return count;
}

/* The set whose items are behind those of all others: 1 + its number; 0: there is no room. */
static uint32_t grg_keep_set(grg_merger *m, uint32_t count, int apart) {
    const uint16_t *items = m->items + m->n_items;
    uint32_t hash = (uint32_t)grg_hash_more(GRG_HASH_START + (uint64_t)apart, (const char *)items,
                                            count * sizeof *items);
    uint32_t *head = &m->heads[hash % 1024];
    if (m->n_items + count >= m->most_items || m->n_sets == m->most_sets) return 0;
    for (uint32_t i = *head; i; i = m->sets[i - 1].next) {
        const grg_set *s = &m->sets[i - 1];
        if (s->hash == hash && s->count == count && s->apart == apart
            && !memcmp(m->items + s->items, items, count * sizeof *items)) return i;
    }
    grg_set *s = &m->sets[m->n_sets++];
    s->items = m->n_items;
    s->count = count;
    s->edges = s->n_edges = 0;
    s->hash  = hash;
    s->next  = *head;
    s->place = -1;
    s->apart = apart;
    *head = m->n_sets;
    memset(m->taken + m->n_items, 0, count);
    m->n_items += count;
    return m->n_sets;
}

static int grg_same_edge(const grg_code *a, const grg_code *b) {
    return a->kind == b->kind && a->byte == b->byte && (a->kind == GRG_BYTE || a->to == b->to);
}

/* Finds where a set leads. Returns 0 if there is no room. */
static int grg_find_edges(grg_merger *m, uint32_t number) {
    grg_set s = m->sets[number];
    s.edges = m->n_edges;
    for (uint32_t i = 0; i < s.count; i++) {
        const uint16_t *items = m->items + s.items;
        if (items[i] == GRG_LEAVE || m->taken[s.items + i]) continue;
        const grg_code *code = &m->c->codes[items[i]];
        uint32_t count = 0, most = s.apart ? i + 1 : s.count;
        m->stamp++;
        for (uint32_t k = i; k < most; k++) {
            if (items[k] == GRG_LEAVE || !grg_same_edge(code, &m->c->codes[items[k]])) continue;
            m->taken[s.items + k] = 1;
            count = grg_reach_items(m, items[k] + 1, count);
            if (count == m->most_items) return 0;
        }
        if (m->n_edges == m->most_edges) return 0;
        grg_edge *edge = &m->edges[m->n_edges++];
        edge->kind = code->kind;
        edge->byte = code->byte;
        edge->to   = code->to;
        edge->at   = code->at;
        edge->set  = grg_keep_set(m, count, s.apart);
        if (!edge->set--) return 0;
    }
    s.n_edges = m->n_edges - s.edges;
    m->sets[number] = s;
    return 1;
}

/* ---- rules ---------------------------------------------------------------------------------- */

/* Forgets the sets from n_sets on. */
static void grg_forget_sets(grg_merger *m, uint32_t n_sets, uint32_t n_items, uint32_t n_edges) {
    while (m->n_sets > n_sets) {
        const grg_set *s = &m->sets[--m->n_sets];
        m->heads[s->hash % 1024] = s->next;
    }
    m->n_items = n_items;
    m->n_edges = n_edges;
}

/* All states of a rule that begins at a position. Returns 0 if they do not fit. */
static int grg_find_states(grg_merger *m, int position, int apart, uint32_t most) {
    uint32_t from = m->n_sets;
    m->stamp++;
    uint32_t count = grg_reach_items(m, position, 0);
    uint32_t set = count == m->most_items ? 0 : grg_keep_set(m, count, apart);
    if (!set) return 0;
    m->entry[position] = set;
    for (uint32_t i = from; i < m->n_sets; i++)
        if (i > from + most || !grg_find_edges(m, i)) return 0;
    return 1;
}

static int grg_find_rule_states(grg_merger *m, int position) {
    uint32_t sets = m->n_sets, items = m->n_items, edges = m->n_edges;
    if (m->entry[position]) return 1;
    if (grg_find_states(m, position, 0, (uint32_t)m->c->n_codes + 64)) return 1;
    grg_forget_sets(m, sets, items, edges);
    return grg_find_states(m, position, 1, m->most_sets);
}

/* ---- the new program ------------------------------------------------------------------------ */

static void grg_emit_state(grg_merger *m, int kind, int byte, int32_t to, uint32_t at) {
    grg_code *code = &m->out[m->n_out];
    if (m->n_out < GRG_MOST_CODES) m->n_out++;
    code->kind = (uint8_t)kind;
    code->byte = (uint8_t)byte;
    code->to   = to;
    code->at   = at;
}

/* Writes a state, and behind it the state of its last edge, and so on, as long as these are new.
 * Jumps and calls hold the number of a set until all are written. */
static void grg_emit_states(grg_merger *m, uint32_t number) {
    for (;;) {
        grg_set *s = &m->sets[number];
        int leaves = s->count && m->items[s->items + s->count - 1] == GRG_LEAVE;
        s->place = m->n_out;
        const grg_edge *e = &m->edges[s->edges];
        if (leaves && s->n_edges) grg_emit_state(m, GRG_SPLIT, 0, m->n_out + 2, e->at);
        if (leaves) grg_emit_state(m, GRG_RETURN, 0, 0, 0);
        if (!s->n_edges) return;
        for (uint32_t i = 0; i < s->n_edges; i++, e++) {
            int last = i + 1 == s->n_edges;
            int32_t to = e->kind == GRG_CALL ? (int32_t)m->entry[e->to] - 1 : e->to;
            if (!last) grg_emit_state(m, GRG_SPLIT, 0, m->n_out + 3, e->at);
            grg_emit_state(m, e->kind, e->byte, to, e->at);
            if (last && m->sets[e->set].place < 0) { number = e->set; break; }
            grg_emit_state(m, GRG_JUMP, 0, (int32_t)e->set, e->at);
            if (last) return;
        }
    }
}

static int grg_emit_program(grg_merger *m) {
    grg_compiler *c = m->c;
    uint32_t root = m->entry[c->rule] - 1;
    grg_emit_states(m, root);
    for (uint32_t i = 0; i < m->n_sets; i++) if (m->sets[i].place < 0) grg_emit_states(m, i);
    if (m->n_out == GRG_MOST_CODES) return 0;
    for (int i = 0; i < m->n_out; i++) {
        grg_code *code = &m->out[i];
        if (code->kind == GRG_JUMP || code->kind == GRG_CALL) code->to = m->sets[code->to].place;
    }
    memmove(c->codes + m->n_out, c->codes + c->n_codes, (size_t)c->n_rows * sizeof *c->codes);
    memcpy(c->codes, m->out, (size_t)m->n_out * sizeof *c->codes);
    c->n_codes = m->n_out;
    c->rule = m->sets[root].place;
    return 1;
}

/* Builds the program of a linked one, if it fits. */
static void grg_merge_states(grg_compiler *c) {
    uint64_t n = (uint64_t)c->n_codes, size = 0;
    grg_merger *m = (grg_merger *)grg_allocate(c->hooks, sizeof *m);
    if (!m) { c->error = GRIFFIN_E_MEMORY; return; }
    memset(m, 0, sizeof *m);
    m->c = c;
    m->most_sets  = (uint32_t)(2 * n + 64);
    m->most_items = (uint32_t)(16 * n + 1024);
    m->most_edges = (uint32_t)(4 * n + 256);
    size = m->most_sets * sizeof *m->sets + m->most_edges * sizeof *m->edges
         + GRG_MOST_CODES * sizeof *m->out + 2 * n * sizeof *m->stamps + 3 * m->most_items;
    m->sets = (grg_set *)grg_allocate(c->hooks, size);
    if (m->sets) {
        m->edges  = (grg_edge *)(m->sets + m->most_sets);
        m->out    = (grg_code *)(m->edges + m->most_edges);
        m->stamps = (uint32_t *)(m->out + GRG_MOST_CODES);
        m->entry  = m->stamps + n;
        m->items  = (uint16_t *)(m->entry + n);
        m->taken  = (uint8_t *)(m->items + m->most_items);
        memset(m->stamps, 0, (size_t)(2 * n) * sizeof *m->stamps);
        int fits = grg_find_rule_states(m, c->rule);
        for (uint32_t i = 0; i < m->n_edges && fits; i++)
            if (m->edges[i].kind == GRG_CALL) fits = grg_find_rule_states(m, m->edges[i].to);
        if (fits) grg_emit_program(m);
    } else {
        c->error = GRIFFIN_E_MEMORY;
    }
    grg_release(c->hooks, m->sets);
    grg_release(c->hooks, m);
}

/* ================================================================= >>limits
 * A text never comes to where its grammar cannot go on. For this no reading is followed that could
 * not end within the frames of a state, and what one reading can do next finds room. Where readings
 * are left out, the one that can end soonest stays. */

#define GRG_DEEPEST   (GRIFFIN_GRAMMAR_FRAMES - 1)      /* frames of a reading; and its place */
#define GRG_MOST_OPEN 2048                  /* threads of a closure: see >>threads */

/* The way out of a position leads to the RETURN of its rule. Of all ways it is inside of the fewest
 * rules, and of these it reads the fewest bytes: `rest`, where a character of a class counts as 4.
 * A SPLIT has it at `to` where its `byte` is 1. Every byte that is read on the ways out of a
 * position and of its frames makes the sum of their `rest` smaller: so they lead to the end. */
#define GRG_NO_WAY   0x400000
#define GRG_FARTHEST (GRG_NO_WAY - 1)       /* stands for all larger numbers, so that sums over the
                                             * frames of a reading stay within 32 bits */

static uint32_t grg_add_rests(uint32_t a, uint32_t b) {
    if (a == GRG_NO_WAY || b == GRG_NO_WAY) return GRG_NO_WAY;
    return a + b < GRG_FARTHEST ? a + b : GRG_FARTHEST;
}

static int grg_improve_need(grg_compiler *c, grg_code *code) {
    unsigned next = code[1].need, to = 0, need = next;
    if (code->kind >= GRG_SPLIT && code->kind <= GRG_CALL) to = c->codes[code->to].need;
    switch (code->kind) {
    case GRG_SET:    if (!next) need = 1; break;                /* for a TAIL */
    case GRG_SPLIT:  if (to < next) need = to; break;
    case GRG_JUMP:   need = to; break;
    case GRG_CALL:   if (to + 1 > next) need = to + 1; break;
    case GRG_RETURN: need = 0; break;
    default: break;
    }
    if (need >= code->need || need > GRG_DEEPEST) return 0;
    code->need = (uint16_t)need;
    return 1;
}

static int grg_improve_rest(grg_compiler *c, grg_code *code) {
    int at = (int)(code - c->codes), to = at + 1;
    uint32_t rest = c->rests[at + 1];
    if (code->kind >= GRG_SPLIT && code->kind <= GRG_CALL) to = code->to;
    int leaves = c->codes[to].need == code->need
              && (code[1].need != code->need || c->rests[to] < rest);
    switch (code->kind) {
    case GRG_BYTE:   rest = grg_add_rests(rest, 1); break;
    case GRG_SET:    rest = grg_add_rests(rest, 4); break;
    case GRG_SPLIT:  if (leaves) rest = c->rests[to]; break;
    case GRG_JUMP:   rest = c->rests[to]; break;
    case GRG_CALL:   rest = grg_add_rests(rest, c->rests[to]); break;
    case GRG_RETURN: rest = 0; break;
    default: break;
    }
    if (rest >= c->rests[at]) return 0;
    c->rests[at] = rest;
    if (code->kind == GRG_SPLIT) code->byte = (uint8_t)leaves;
    return 1;
}

/* Passes in both directions improve the numbers until none changes. */
static void grg_improve_all(grg_compiler *c, int (*improve)(grg_compiler *c, grg_code *code)) {
    for (int up = 0, changed = 1; changed; up = !up) {
        changed = 0;
        for (int i = 0; i < c->n_codes; i++)
            changed |= improve(c, &c->codes[up ? i : c->n_codes - 1 - i]);
    }
}

/* Every code begins without a way out. */
static void grg_find_needs(grg_compiler *c) {
    for (int i = 0; i < c->n_codes; i++) {
        c->codes[i].need = 0xFFFF;
        c->rests[i] = GRG_NO_WAY;
    }
    for (int row = 0; row < c->n_rows; row++) {                 /* a TAIL leads to rows before it */
        uint32_t *rests = c->rests + c->n_codes;
        int b = 0;
        while (b < 63 && !c->rows[row][b]) b++;
        rests[row] = c->rows[row][b] < 2 ? 1 : rests[c->rows[row][b] - 2] + 1;
    }
    grg_improve_all(c, grg_improve_need);
    grg_improve_all(c, grg_improve_rest);
    if (c->codes[c->rule].need > GRG_DEEPEST)
        grg_wrong(c, 0, "every text is inside of more than 511 rules somewhere");
}

/* Counts the threads that come from one at a position before a byte is read, as far as its rule
 * goes: known[position] = 1 + the count; and 0x8000 if the rule can end before. Returns -1, or the
 * start of a rule that must be counted before. */
static int grg_count_open(grg_compiler *c, uint16_t *known, int position) {
    int count = 0, leaves = 0, missing = -1;
    grg_reach(c, position);
    for (int i = 0; i < c->stacked && missing < 0 && count <= GRG_MOST_OPEN; i++) {
        int at = c->stack[i];
        const grg_code *code = &c->codes[at];
        count++;
        leaves |= code->kind == GRG_RETURN;
        if (code->kind == GRG_SPLIT) grg_reach(c, at + 1);
        if (code->kind == GRG_SPLIT || code->kind == GRG_JUMP) grg_reach(c, code->to);
        if (code->kind != GRG_CALL) continue;
        if (!known[code->to]) missing = code->to;
        count += (known[code->to] & 0x7FFF) - 1;
        if (known[code->to] & 0x8000) grg_reach(c, at + 1);
    }
    while (c->stacked) c->reached[c->stack[--c->stacked]] = 0;
    if (count > GRG_MOST_OPEN)
        grg_wrong(c, c->codes[position].at, "there are more than 2048 ways to go on here");
    if (missing < 0) known[position] = (uint16_t)((count + 1) | (leaves ? 0x8000 : 0));
    return missing;
}

/* Counts at the beginning and behind all codes that read or call. */
static void grg_refuse_wide(grg_compiler *c) {
    uint16_t *known = c->next_call;
    memset(known, 0, sizeof c->next_call);
    memset(c->reached, 0, sizeof c->reached);
    for (int i = -1; i + 1 < c->n_codes && !c->error; i++) {
        int depth = 1;
        if (i >= 0 && c->codes[i].kind > GRG_TAIL && c->codes[i].kind != GRG_CALL) continue;
        c->path[0] = (uint16_t)(i < 0 ? c->rule : i + 1);
        while (depth && !c->error) {
            int missing = grg_count_open(c, known, c->path[depth - 1]);
            if (missing < 0) depth--;
            else c->path[depth++] = (uint16_t)missing;
        }
    }
}

static int grg_compile(grg_compiler *c) {
    c->rule = c->atom = -1;
    uint32_t start = c->length >= 3 && !memcmp(c->text, "\xEF\xBB\xBF", 3) ? 3 : 0;   /* a BOM */
    for (int n; c->at < c->length; c->at += (uint32_t)n) {
        n = grg_utf8_length(c->text + c->at, c->length - c->at);
        if (n <= 0) { grg_wrong(c, c->at, "this is not UTF-8"); return c->error; }
    }
    c->at = start;
    grg_read_rules(c);
    for (int i = 0; i < c->n_rules; i++)
        if (!c->rules[i].start) grg_wrong(c, c->rules[i].name, "there is no rule of this name");
    c->rule = grg_find_rule(c, "root", 4);
    if (c->rule < 0) grg_wrong(c, c->length, "there is no rule 'root' to begin with");
    if (c->error) return c->error;
    grg_reach_all(c);
    for (int i = 0; i < c->n_rules; i++) grg_refuse_left_recursion(c, i);
    if (!c->error) grg_refuse_endless(c);
    if (!c->error) grg_link(c);
    if (!c->error) grg_merge_states(c);
    if (!c->error) grg_find_needs(c);
    if (!c->error) grg_refuse_wide(c);
    return c->error;
}

/* ================================================================= >>trie
 * The bytes of all tokens as a tree, so that a mask reads bytes that tokens share only once. Nodes
 * stand in preorder: all nodes below a node follow it. Tokens stand in the same order: those that
 * end at node i have the numbers from its `first` to that of node i + 1. */

#define GRG_MOST_NODES    (1 << 24)
#define GRG_LONGEST_TOKEN 256

typedef struct grg_trie_node {
    uint32_t next_byte;                     /* next << 8 | byte; next: the first not below it */
    uint32_t first;                         /* number of the first token that ends here or below */
} grg_trie_node;

/* The tokens that may follow a position, as far as its rule decides: see >>walk. */
typedef struct grg_cached_set {
    uint32_t *ranges;                       /* [2 n_ranges] numbers of tokens, first and end; */
    uint32_t *undecided;                    /* nodes, in the same block of memory */
    uint32_t  n_ranges, n_undecided;
    int       open, kept;                   /* what its walk took of most_open and most_kept */
} grg_cached_set;

#define GRG_MOST_SETS 64

#ifndef GRG_FEW_TOKENS                      /* tests change it */
  #define GRG_FEW_TOKENS 64                 /* so few fit: the text is almost determined */
#endif
#define GRG_MOST_FORCED 40                  /* bytes that are encoded to see how they start */
#define GRG_MOST_STARTS 8                   /* different first bytes for which this is done */
#define GRG_FEW_STARTS  256                 /* tokens that such texts start with */
#define GRG_ENCODER     8192                /* bytes of scratch for griffin_encode */

struct griffin_grammar {
    const griffin_model *model;
    const griffin_info  *info;
    griffin_options hooks;                  /* allocator, logger; error while it opens */
    uint64_t       id;                      /* a hash of the text; not 0 */
    uint64_t       size;                    /* of all allocations */

    grg_code      *codes;                   /* [n_codes + n_rows] last the TAIL of each row */
    uint32_t      *rests;                   /* [n_codes + n_rows] the way out: see >>limits */
    uint16_t     (*rows)[64];
    int            n_codes, n_rows, root;

    grg_trie_node *trie;                    /* [0] is the root, [n_nodes] ends it */
    uint32_t       n_nodes;
    int32_t       *order;                   /* [info->tokens] by number; those without text last */
    uint32_t       n_numbered;

    uint32_t      *partners;                /* [info->tokens + 1] where a token's list starts */
    int32_t       *merging;                 /* the tokens that it would have merged with */
    int32_t        byte_token[256];         /* or -1 */
    int32_t        spare[256];              /* byte tokens whose characters all have pieces */
    uint32_t       n_spare;
    int            encodes;                 /* short texts can be encoded on the stack */

    uint16_t      *set_of;                  /* [n_codes + n_rows] 1 + the position's set, or 0 */
    grg_cached_set sets[GRG_MOST_SETS];
    int            n_sets;
};

static void *grg_grammar_allocate(griffin_grammar *g, uint64_t count, size_t each) {
    void *memory = grg_allocate(&g->hooks, count * each);
    if (memory) g->size += count * each;
    return memory;
}

/* Control tokens and turn markers have no text that a grammar could mean. */
static int grg_has_text(const griffin_grammar *g, int32_t token) {
    const griffin_info *info = g->info;
    switch (griffin_token_type(g->model, token)) {
    case GRIFFIN_TOKEN_BYTE: return 1;
    case GRIFFIN_TOKEN_UNKNOWN: case GRIFFIN_TOKEN_CONTROL: case GRIFFIN_TOKEN_MARKER: return 0;
    default: return token != info->bos && token != info->eos && token != info->end_of_turn
                 && token != info->pad;
    }
}

/* ---- sorting tokens by their bytes ---------------------------------------------------------- */

typedef struct grg_sorter {
    char     *bytes;                        /* of token i: from starts[i] to starts[i + 1] */
    uint32_t *starts;
    int32_t  *from, *to;
} grg_sorter;

static uint32_t grg_token_bytes(const grg_sorter *s, int32_t token, const char **bytes) {
    *bytes = s->bytes + s->starts[token];
    return s->starts[token + 1] - s->starts[token];
}

/* How many bytes two tokens share at their start. */
static uint32_t grg_shared(const grg_sorter *s, int32_t a, int32_t b) {
    const char *p, *q;
    uint32_t m = grg_token_bytes(s, a, &p), n = grg_token_bytes(s, b, &q), i = 0;
    while (i < m && i < n && p[i] == q[i]) i++;
    return i;
}

static int grg_sorts_before(const grg_sorter *s, int32_t a, int32_t b) {
    const char *p, *q;
    uint32_t m = grg_token_bytes(s, a, &p), n = grg_token_bytes(s, b, &q);
    int order = memcmp(p, q, m < n ? m : n);
    return order ? order < 0 : m < n;
}

/* Merges runs of doubling length. The result is in `from`. */
static void grg_sort_tokens(grg_sorter *s, int64_t count) {
    for (int64_t run = 1; run < count; run *= 2) {
        int32_t *other = s->from;
        for (int64_t start = 0, to = 0; start < count; start += 2 * run) {
            int64_t middle = start + run < count ? start + run : count;
            int64_t end = middle + run < count ? middle + run : count;
            for (int64_t a = start, b = middle; to < end; to++) {
                int right = a == middle || (b < end && grg_sorts_before(s, s->from[b], s->from[a]));
                s->to[to] = s->from[right ? b++ : a++];
            }
        }
        s->from = s->to;
        s->to = other;
    }
}

/* ---- building the trie ---------------------------------------------------------------------- */

/* The bytes of all tokens, one after another; those without text have none. */
static int grg_collect_bytes(griffin_grammar *g, grg_sorter *s) {
    uint64_t total = 0;
    for (int32_t token = 0; token < g->info->tokens; token++) {
        int n = grg_has_text(g, token) ? griffin_token_text(g->model, token, NULL, 0) : 0;
        if (n > GRG_LONGEST_TOKEN)
            return grg_fail(&g->hooks, GRIFFIN_E_UNSUPPORTED, "token %d has %d bytes, more than "
                            "the %d that grammars work with", (int)token, n, GRG_LONGEST_TOKEN);
        s->starts[token] = (uint32_t)total;
        total += (uint64_t)n;
    }
    s->starts[g->info->tokens] = (uint32_t)total;
    s->bytes = (char *)grg_allocate(&g->hooks, total);
    if (!s->bytes) return GRIFFIN_E_MEMORY;
    for (int32_t token = 0; token < g->info->tokens; token++) {
        size_t n = s->starts[token + 1] - s->starts[token];
        if (n) griffin_token_text(g->model, token, s->bytes + s->starts[token], n);
    }
    return GRIFFIN_OK;
}

static void grg_fill_trie(griffin_grammar *g, const grg_sorter *s) {
    uint32_t open[GRG_LONGEST_TOKEN + 1];   /* nodes on the way from the root to the last one */
    uint32_t depth = 0, n = 1;
    open[0] = 0;
    g->trie[0].first = 0;
    for (uint32_t i = 0; i < g->n_numbered; i++) {
        const char *bytes;
        uint32_t length = grg_token_bytes(s, g->order[i], &bytes);
        uint32_t shared = i ? grg_shared(s, g->order[i - 1], g->order[i]) : 0;
        for (; depth > shared; depth--) g->trie[open[depth]].next_byte |= n << 8;
        while (depth < length) {
            g->trie[n].next_byte = (uint8_t)bytes[depth];
            g->trie[n].first = i;
            open[++depth] = n++;
        }
    }
    for (; depth; depth--) g->trie[open[depth]].next_byte |= n << 8;
    g->trie[0].next_byte = g->trie[n].next_byte = n << 8;
    g->trie[n].first = g->n_numbered;
}

static int grg_number_tokens(griffin_grammar *g, grg_sorter *s) {
    int32_t others = g->info->tokens;
    int error = grg_collect_bytes(g, s);
    if (error) return error;
    for (int32_t token = 0; token < g->info->tokens; token++) {
        if (s->starts[token + 1] > s->starts[token]) s->from[g->n_numbered++] = token;
        else g->order[--others] = token;
    }
    grg_sort_tokens(s, g->n_numbered);
    memcpy(g->order, s->from, g->n_numbered * sizeof *g->order);
    uint64_t nodes = 1;
    for (uint32_t i = 0; i < g->n_numbered; i++) {
        const char *bytes;
        nodes += grg_token_bytes(s, g->order[i], &bytes);
        if (i) nodes -= grg_shared(s, g->order[i - 1], g->order[i]);
    }
    if (nodes >= GRG_MOST_NODES)
        return grg_fail(&g->hooks, GRIFFIN_E_UNSUPPORTED, "the vocabulary has too much text");
    g->n_nodes = (uint32_t)nodes;
    g->trie = (grg_trie_node *)grg_grammar_allocate(g, nodes + 1, sizeof *g->trie);
    if (!g->trie) return GRIFFIN_E_MEMORY;
    grg_fill_trie(g, s);
    return GRIFFIN_OK;
}

/* ---- what a tokenizer would not have written ------------------------------------------------
 * A tokenizer merges two tokens whenever their texts together are a piece. So it never writes the
 * one behind the other, and a model has not seen it: see >>choice. */

typedef struct grg_texts {                  /* a hash table of the normal pieces */
    const grg_sorter *s;
    int32_t *slots;                         /* 1 + a token, or 0 */
    uint32_t mask;
} grg_texts;

static int32_t *grg_text_slot(const grg_texts *t, const char *text, uint32_t n, uint64_t hash) {
    uint32_t i = (uint32_t)(hash ^ hash >> 32) & t->mask;
    for (; t->slots[i]; i = (i + 1) & t->mask) {
        const char *bytes;
        if (grg_token_bytes(t->s, t->slots[i] - 1, &bytes) == n && !memcmp(bytes, text, n)) break;
    }
    return &t->slots[i];
}

/* Counts the pairs of normal pieces that are a piece together: starts[left]. With `merging` it
 * writes the right ones there, each list from its end down. */
static void grg_find_pairs(const griffin_grammar *g, const grg_texts *t, uint32_t *starts,
                           int32_t *merging) {
    for (uint32_t i = 0; i < g->n_numbered; i++) {
        int type = griffin_token_type(g->model, g->order[i]);
        const char *text;
        uint32_t n = grg_token_bytes(t->s, g->order[i], &text);
        uint64_t hash = GRG_HASH_START;
        if (type != GRIFFIN_TOKEN_NORMAL && type != GRIFFIN_TOKEN_USER_DEFINED) continue;
        for (uint32_t k = 1; k < n; k++) {
            hash = grg_hash_more(hash, text + k - 1, 1);
            int32_t left = *grg_text_slot(t, text, k, hash), right = 0;
            if (left) right = *grg_text_slot(t, text + k, n - k,
                                             grg_hash_more(GRG_HASH_START, text + k, n - k));
            if (!right) continue;
            if (!merging) starts[left - 1]++;
            else merging[--starts[left - 1]] = right - 1;
        }
    }
}

static int grg_build_pairs(griffin_grammar *g, const grg_sorter *s) {
    uint64_t count = (uint64_t)g->info->tokens, size = 4, total = 0;
    grg_texts t;
    while (size < 2 * count) size *= 2;
    t.s = s;
    t.mask = (uint32_t)size - 1;
    g->partners = (uint32_t *)grg_grammar_allocate(g, count + 1, sizeof *g->partners);
    if (!g->partners) return GRIFFIN_E_MEMORY;
    t.slots = (int32_t *)grg_allocate(&g->hooks, size * sizeof *t.slots);
    if (!t.slots) return GRIFFIN_E_MEMORY;
    memset(t.slots, 0, (size_t)size * sizeof *t.slots);
    memset(g->partners, 0, (size_t)(count + 1) * sizeof *g->partners);
    for (uint32_t i = 0; i < g->n_numbered; i++) {
        const char *text;
        uint32_t n = grg_token_bytes(s, g->order[i], &text);
        if (griffin_token_type(g->model, g->order[i]) != GRIFFIN_TOKEN_NORMAL) continue;
        *grg_text_slot(&t, text, n, grg_hash_more(GRG_HASH_START, text, n)) = g->order[i] + 1;
    }
    grg_find_pairs(g, &t, g->partners, NULL);
    for (uint64_t i = 0; i <= count; i++) {
        total += g->partners[i];
        g->partners[i] = (uint32_t)total;
    }
    g->merging = (int32_t *)grg_grammar_allocate(g, total, sizeof *g->merging);
    if (g->merging) grg_find_pairs(g, &t, g->partners, g->merging);
    grg_release(&g->hooks, t.slots);
    return g->merging ? GRIFFIN_OK : GRIFFIN_E_MEMORY;
}

/* The node below this one that a byte leads to; 0: none. */
static uint32_t grg_child(const griffin_grammar *g, uint32_t node, uint8_t byte) {
    uint32_t end = g->trie[node].next_byte >> 8;
    for (uint32_t i = node + 1; i < end; i = g->trie[i].next_byte >> 8)
        if ((uint8_t)g->trie[i].next_byte == byte) return i;
    return 0;
}

/* Does a piece end here, rather than only the token of a byte? */
static int grg_has_piece(const griffin_grammar *g, uint32_t node) {
    for (uint32_t i = g->trie[node].first; node && i < g->trie[node + 1].first; i++)
        if (griffin_token_type(g->model, g->order[i]) != GRIFFIN_TOKEN_BYTE) return 1;
    return 0;
}

/* Bytes of characters with pieces of their own: those below 0x80, and the first bytes of characters
 * of two bytes, where all 64 have pieces. */
static void grg_find_spare_bytes(griffin_grammar *g) {
    for (int i = 0; i < 256; i++) g->byte_token[i] = -1;
    g->encodes = griffin_encode_size(g->model, 2 * GRG_MOST_FORCED) <= GRG_ENCODER;
    for (uint32_t i = 0; i < g->n_numbered; i++) {
        char byte = 0;
        if (griffin_token_type(g->model, g->order[i]) != GRIFFIN_TOKEN_BYTE) continue;
        if (griffin_token_text(g->model, g->order[i], &byte, 1) != 1) continue;
        g->byte_token[(unsigned char)byte] = g->order[i];
    }
    for (int b = 0; b < 0xE0; b++) {
        uint32_t node = g->byte_token[b] < 0 ? 0 : grg_child(g, 0, (uint8_t)b), more;
        int spare = b < 0x80 ? grg_has_piece(g, node) : b >= 0xC2 && node;
        for (int c = 0x80; c < 0xC0 && spare && b >= 0x80; c++) {
            more = grg_child(g, node, (uint8_t)c);
            spare = more && grg_has_piece(g, more);
        }
        if (spare) g->spare[g->n_spare++] = g->byte_token[b];
    }
}

static int grg_build_trie(griffin_grammar *g) {
    uint64_t count = (uint64_t)g->info->tokens;
    uint32_t *scratch = (uint32_t *)grg_allocate(&g->hooks, count * 12 + 4);
    grg_sorter s;
    int error = GRIFFIN_E_MEMORY;
    if (!scratch) return error;
    s.bytes = NULL;
    s.starts = scratch;
    s.from = (int32_t *)scratch + count + 1;
    s.to = s.from + count;
    g->order = (int32_t *)grg_grammar_allocate(g, count, sizeof *g->order);
    if (g->order) error = grg_number_tokens(g, &s);
    if (!error) error = grg_build_pairs(g, &s);
    if (!error) grg_find_spare_bytes(g);
    grg_release(&g->hooks, s.bytes);
    grg_release(&g->hooks, scratch);
    return error;
}

/* ================================================================= >>threads
 * Reading a byte takes two steps. The closure of some threads are the threads that can read, to
 * which they lead without reading. Advancing these by a byte gives the threads that have read it.
 * Both append to one array, in which a caller keeps as many earlier stages as it needs. */

/* Arrived, open and arrived next, and the ways out of the last two. */
#define GRG_MOST_THREADS (GRG_MOST_OPEN + 2 * GRIFFIN_GRAMMAR_FRAMES + 2)
/* Of a state, one of each open thread, and of a way out. */
#define GRG_MOST_FRAMES  (GRG_MOST_OPEN + 2 * GRIFFIN_GRAMMAR_FRAMES)

typedef griffin_grammar_frame grg_thread;   /* a position and 1 + its innermost frame, or 0 */

#define GRG_CHAINS     512
#define GRG_SHORT_LIST 24                   /* threads that are looked through */

/* Readings that do not fit are left out: then `full` is set. What is left out depends only on the
 * threads and on the bytes read, so that a mask and an accept agree. But a mask keeps more stages:
 * where it has no room for another one, `spent` is set, and it reads no further there. */
typedef struct grg_threads {                /* 37 KB */
    const griffin_grammar *g;
    int        n_threads, n_frames;
    int        most_open, most_kept, deepest;   /* limits of closures and states */
    int        open, kept;                  /* what was taken of these limits so far */
    int        base;                        /* frames that a state keeps in any case */
    int        most;                        /* threads of the list that grows now */
    int        returned;                    /* the last closure left the outermost rule */
    int        full, spent, deep;           /* deep: a reading was left out that could not end */
    uint64_t   steps;                       /* of a walk */
    grg_thread thread[GRG_MOST_THREADS];
    griffin_grammar_frame frame[GRG_MOST_FRAMES];
    uint16_t   chain[GRG_CHAINS];           /* by hash: 1 + the newest frame, or 0 */
    uint16_t   older[GRG_MOST_FRAMES];      /* 1 + the next older frame of the same hash, or 0 */
    int        n_listed;                    /* the same for threads of a long list, if this is */
    uint16_t   listed[GRG_CHAINS];          /* n_threads */
    uint16_t   listed_before[GRG_MOST_OPEN + 1];        /* from the start of the list */
} grg_threads;

static void grg_threads_start(grg_threads *t, const griffin_grammar *g) {
    t->g = g;
    t->n_threads = t->n_frames = t->n_listed = t->open = t->kept = t->base = 0;
    t->returned = t->full = t->spent = t->deep = 0;
    t->steps = 0;
    t->most_open = GRG_MOST_OPEN;
    t->most_kept = t->most = GRIFFIN_GRAMMAR_FRAMES;
    t->deepest   = GRG_DEEPEST;
    memset(t->chain, 0, sizeof t->chain);
}

static uint32_t grg_slot(uint32_t position, uint32_t below) {
    return (position * 37 + below * 101) % GRG_CHAINS;
}

static uint16_t *grg_chain(grg_threads *t, uint32_t position, uint32_t below) {
    return &t->chain[grg_slot(position, below)];
}

/* Forgets the frames from `frames` on. */
static void grg_drop_frames(grg_threads *t, int frames) {
    while (t->n_frames > frames) {
        const griffin_grammar_frame *f = &t->frame[--t->n_frames];
        *grg_chain(t, f->position, f->below) = t->older[t->n_frames];
    }
}

/* Can a reading end whose rule needs so many calls more? */
static int grg_can_end(const grg_threads *t, uint32_t below, int need) {
    if (t->n_frames + need <= t->deepest) return 1;
    for (; below && need <= t->deepest; below = t->frame[below - 1].below) need++;
    return need <= t->deepest;
}

static void grg_list_thread(grg_threads *t, int from, int i) {
    uint16_t *head = &t->listed[grg_slot(t->thread[i].position, t->thread[i].below)];
    t->listed_before[i - from] = *head;
    *head = (uint16_t)(i + 1);
    t->n_listed = i + 1;
}

/* Is the thread in the list that starts at `from`? */
static int grg_has_thread(grg_threads *t, int from, uint32_t position, uint32_t below) {
    if (t->n_threads - from < GRG_SHORT_LIST) {
        for (int i = from; i < t->n_threads; i++)
            if (t->thread[i].position == position && t->thread[i].below == below) return 1;
        return 0;
    }
    if (t->n_listed != t->n_threads) {
        memset(t->listed, 0, sizeof t->listed);
        for (int i = from; i < t->n_threads; i++) grg_list_thread(t, from, i);
    }
    for (int i = t->listed[grg_slot(position, below)]; i; i = t->listed_before[i - 1 - from])
        if (t->thread[i - 1].position == position && t->thread[i - 1].below == below) return 1;
    return 0;
}

/* Adds a thread unless it is there already, from `from` on. */
static void grg_add_thread(grg_threads *t, int from, uint32_t position, uint32_t below) {
    int i = t->n_threads;
    if (!grg_can_end(t, below, t->g->codes[position].need)) { t->deep = 1; return; }
    if (grg_has_thread(t, from, position, below)) return;
    if (i - from >= t->most) { t->full = 1; return; }
    if (i == GRG_MOST_THREADS) t->spent = 1;
    if (t->spent) { t->full = 1; return; }
    t->thread[i].position = (uint16_t)position;
    t->thread[i].below    = (uint16_t)below;
    t->n_threads++;
    if (i - from >= GRG_SHORT_LIST) grg_list_thread(t, from, i);
    else t->n_listed = 0;
}

/* Equal frames are one frame, so that equal threads are found to be equal, however they arose. */
static uint32_t grg_push_frame(grg_threads *t, uint32_t position, uint32_t below) {
    uint16_t *chain = grg_chain(t, position, below);
    for (uint32_t i = *chain; i; i = t->older[i - 1])
        if (t->frame[i - 1].position == position && t->frame[i - 1].below == below) return i;
    if (t->n_frames == GRG_MOST_FRAMES) { t->full = t->spent = 1; return below; }
    t->frame[t->n_frames].position = (uint16_t)position;
    t->frame[t->n_frames].below    = (uint16_t)below;
    t->older[t->n_frames] = *chain;
    *chain = (uint16_t)++t->n_frames;
    return *chain;
}

/* Adds a thread that has read something. It goes on as far as there is only one way, so that
 * threads which are going to be equal are found to be equal. */
static void grg_arrive(grg_threads *t, int from, uint32_t position, uint32_t below) {
    for (;;) {
        const grg_code *code = &t->g->codes[position];
        if (code->kind == GRG_JUMP) {
            position = (uint32_t)code->to;
        } else if (code->kind == GRG_RETURN && below) {
            position = t->frame[below - 1].position;
            below    = t->frame[below - 1].below;
        } else {
            break;
        }
    }
    grg_add_thread(t, from, position, below);
}

static void grg_return(grg_threads *t, int from, uint32_t below) {
    grg_arrive(t, from, t->frame[below - 1].position, t->frame[below - 1].below);
}

/* One step of the closure: where a thread leads that cannot read. */
static void grg_expand(grg_threads *t, int from, grg_thread p) {
    const grg_code *code = &t->g->codes[p.position];
    switch (code->kind) {
    case GRG_SPLIT:
        grg_add_thread(t, from, p.position + 1u, p.below);
        grg_add_thread(t, from, (uint32_t)code->to, p.below);
        break;
    case GRG_JUMP: grg_add_thread(t, from, (uint32_t)code->to, p.below); break;
    case GRG_CALL:
        grg_add_thread(t, from, (uint32_t)code->to, grg_push_frame(t, p.position + 1u, p.below));
        break;
    case GRG_RETURN:
        if (!p.below) t->returned = 1;
        else grg_return(t, from, p.below);
        break;
    default: break;
    }
}

/* The entry of the rows for a byte that a SET or a TAIL reads; 0: it does not. */
static inline uint32_t grg_row_entry(const griffin_grammar *g, const grg_code *code, uint8_t byte) {
    if (code->kind == GRG_TAIL) return byte >> 6 == 2 ? g->rows[code->to][byte & 63] : 0u;
    return g->rows[code->to + (byte >> 6)][byte & 63];
}

static int grg_reads(const griffin_grammar *g, grg_thread p, uint8_t byte) {
    const grg_code *code = &g->codes[p.position];
    return code->kind == GRG_BYTE ? code->byte == byte : grg_row_entry(g, code, byte) != 0;
}

/* Of `count` threads, from `first` on, the one that can end soonest; with a byte, of those that
 * read it. Returns -1 if there is none. */
static int grg_find_nearest(grg_threads *t, int first, int count, int byte) {
    const uint32_t *rests = t->g->rests;
    uint32_t least = 0xFFFFFFFF, below = 0, rest_below = 0;
    int nearest = -1;
    for (int i = first + count - 1; i >= first; i--) {      /* the last are often the nearest */
        grg_thread p = t->thread[i];
        if (p.below != below) {
            below = p.below;
            rest_below = 0;
            for (uint32_t f = below; f; f = t->frame[f - 1].below, t->steps++)
                rest_below += rests[t->frame[f - 1].position];
        }
        if (rests[p.position] + rest_below >= least
            || !grg_can_end(t, below, t->g->codes[p.position].need)
            || (byte >= 0 && !grg_reads(t->g, p, (uint8_t)byte))) continue;
        least = rests[p.position] + rest_below;
        nearest = i;
    }
    return nearest;
}

/* Takes the way out of a thread, up to where it reads or leaves the outermost rule. */
static void grg_add_way_out(grg_threads *t, int from, grg_thread p) {
    const uint32_t *rests = t->g->rests;
    uint32_t position = p.position, below = p.below;
    for (; t->g->codes[position].kind > GRG_TAIL; t->steps++) {
        const grg_code *code = &t->g->codes[position];
        uint32_t to = (uint32_t)code->to;
        if (rests[position] == GRG_NO_WAY || t->spent) return;
        switch (code->kind) {
        case GRG_SPLIT: position = code->byte ? to : position + 1; break;
        case GRG_JUMP:  position = to; break;
        case GRG_CALL:
            if (rests[to]) below = grg_push_frame(t, position + 1, below);
            position = rests[to] ? to : position + 1;
            break;
        default:
            if (!below) { t->returned = 1; return; }
            position = t->frame[below - 1].position;
            below    = t->frame[below - 1].below;
        }
    }
    t->most = t->most_open + 1;
    grg_add_thread(t, from, position, below);
}

/* Appends the closure of `count` threads, from `arrived` on. Returns how many can read. One thread
 * after the other leads to others inside its rule, then behind it. Where there are too many, none
 * of them may read: then the way out still does, or leaves the outermost rule. */
static int grg_closure(grg_threads *t, int arrived, int count) {
    int from = t->n_threads, n = from, inside = from, behind = from, full = t->full;
    t->returned = t->full = t->spent = 0;
    t->most = t->most_open;
    for (int i = 0; i < count; i++) {
        grg_add_thread(t, from, t->thread[arrived + i].position, t->thread[arrived + i].below);
        while (behind < t->n_threads && !t->full) {
            int leave = inside == t->n_threads;
            grg_thread p = t->thread[leave ? behind++ : inside++];
            if (leave == (t->g->codes[p.position].kind == GRG_RETURN)) grg_expand(t, from, p);
        }
    }
    if (t->n_threads - from > t->open) t->open = t->n_threads - from;
    for (int i = from; i < t->n_threads; i++)
        if (t->g->codes[t->thread[i].position].kind <= GRG_TAIL) t->thread[n++] = t->thread[i];
    t->n_threads = n;
    if (t->full) {
        int nearest = grg_find_nearest(t, arrived, count, -1);
        if (nearest >= 0) grg_add_way_out(t, from, t->thread[nearest]);
    }
    t->full |= full;
    return t->n_threads - from;
}

static void grg_advance_thread(grg_threads *t, int from, grg_thread p, uint8_t byte) {
    const griffin_grammar *g = t->g;
    const grg_code *code = &g->codes[p.position];
    uint32_t behind = p.position + 1u;
    if (code->kind == GRG_BYTE) {
        if (code->byte == byte) grg_arrive(t, from, behind, p.below);
        return;
    }
    uint32_t entry = grg_row_entry(g, code, byte), tail = (uint32_t)g->n_codes + entry - 2;
    if (!entry) return;
    if (code->kind == GRG_TAIL) {
        if (entry == 1) grg_return(t, from, p.below);
        else grg_add_thread(t, from, tail, p.below);
    } else {
        if (entry == 1) grg_arrive(t, from, behind, p.below);
        else grg_add_thread(t, from, tail, grg_push_frame(t, behind, p.below));
    }
}

/* Marks the frames of a thread. Returns how many of them were not marked before. */
static int grg_mark_frames(const grg_threads *t, uint8_t *needed, uint32_t below) {
    int count = 0;
    for (; below && !needed[below]; below = t->frame[below - 1].below, count++) needed[below] = 1;
    return count;
}

/* Of the threads from `from` on, how far do the first ones find room in a state? `last`, unless it
 * is null, has its room there before. */
static int grg_find_room(const grg_threads *t, int from, const grg_thread *last) {
    uint8_t needed[GRG_MOST_FRAMES + 1];
    int room = t->most_kept - t->base, i = from;
    memset(needed, 0, (size_t)t->n_frames + 1);
    memset(needed + 1, 1, (size_t)t->base);
    if (last) room -= 1 + grg_mark_frames(t, needed, last->below);
    for (; i < t->n_threads; i++) {
        room -= 1 + grg_mark_frames(t, needed, t->thread[i].below);
        if (room < 0) break;
    }
    return i;
}

/* Keeps those that find room. */
static void grg_keep_threads(grg_threads *t, int from) {
    int kept = t->n_frames + t->n_threads - from;
    if (t->n_threads > from && kept > t->kept) t->kept = kept;
    if (kept <= t->most_kept) return;
    int end = grg_find_room(t, from, NULL);
    if (end < t->n_threads) t->full = 1;
    t->kept = t->most_kept;
    t->n_threads = end;
}

static int grg_advance(grg_threads *t, int open, int count, uint8_t byte);

/* Keeps what the open thread that can end soonest becomes, too, perhaps instead of others. */
static void grg_keep_nearest(grg_threads *t, int from, int open, int count, uint8_t byte) {
    int nearest = grg_find_nearest(t, open, count, byte), end = t->n_threads;
    if (nearest < 0 || !grg_advance(t, nearest, 1, byte)) return;
    grg_thread last = t->thread[end];
    t->n_threads = end;
    for (int i = from; i < end; i++)
        if (memcmp(&t->thread[i], &last, sizeof last) == 0) return;
    t->n_threads = grg_find_room(t, from, &last);
    t->thread[t->n_threads++] = last;
}

/* Appends what `count` threads of a closure, from `open` on, become by a byte. Returns how many.
 * One alone always fits. */
static int grg_advance(grg_threads *t, int open, int count, uint8_t byte) {
    int from = t->n_threads, full = t->full;
    t->full = t->spent = 0;
    t->most = GRIFFIN_GRAMMAR_FRAMES;
    for (int i = 0; i < count; i++) grg_advance_thread(t, from, t->thread[open + i], byte);
    grg_keep_threads(t, from);
    if (t->full && !t->spent && count > 1) grg_keep_nearest(t, from, open, count, byte);
    t->full |= full;
    return t->n_threads - from;
}

/* ---- states --------------------------------------------------------------------------------- */

static int grg_frame_ok(const griffin_grammar *g, griffin_grammar_frame f, int frames) {
    return f.position < g->n_codes + g->n_rows && f.below <= frames
        && (g->codes[f.position].kind != GRG_TAIL || f.below);
}

/* Whatever a state contains, nothing outside of it is read, and every walk ends. */
static int grg_check_state(const griffin_grammar *g, const griffin_grammar_state *s,
                           const char *function) {
    int n = s->frames + s->places, ok = n <= GRIFFIN_GRAMMAR_FRAMES && s->last >= 0
                                     && s->last <= g->info->tokens
                                     && s->leading <= GRIFFIN_HEAL_BYTES;
    if (ok && s->grammar == 0 && n + s->ended == 0) return GRIFFIN_OK;
    for (int i = 0; ok && i < n; i++)
        ok = grg_frame_ok(g, s->frame[i], i < s->frames ? i : s->frames);
    if (ok && s->grammar == g->id) return GRIFFIN_OK;
    return grg_fail(&g->hooks, GRIFFIN_E_MISMATCH, "%s: the state is of another grammar, or "
                    "damaged", function);
}

/* Returns how many threads the state has. */
static int grg_resume(grg_threads *t, const griffin_grammar *g, const griffin_grammar_state *s) {
    grg_threads_start(t, g);
    if (s->grammar == 0) {
        grg_arrive(t, 0, (uint32_t)g->root, 0);
    } else {
        for (int i = 0; i < s->frames; i++) {
            t->frame[i] = s->frame[i];
            uint16_t *chain = grg_chain(t, t->frame[i].position, t->frame[i].below);
            t->older[i] = *chain;
            *chain = (uint16_t)++t->n_frames;
        }
        memcpy(t->thread, s->frame + s->frames, s->places * sizeof *t->thread);
        t->n_threads = s->places;
    }
    return t->n_threads;
}

/* Keeps in the state the threads from `from` on, which fit, and the frames that they need. */
static void grg_suspend(const grg_threads *t, int from, griffin_grammar_state *s) {
    uint16_t moved[GRG_MOST_FRAMES + 1];    /* of 1 + a frame: is it needed; then 1 + its index */
    int n = 0;
    memset(moved, 0, sizeof moved);
    for (int i = from; i < t->n_threads; i++) moved[t->thread[i].below] = 1;
    for (int i = t->n_frames; i > 0; i--) if (moved[i]) moved[t->frame[i - 1].below] = 1;
    moved[0] = 0;
    for (int i = 1; i <= t->n_frames; i++) {
        griffin_grammar_frame f = t->frame[i - 1];
        if (!moved[i]) continue;
        f.below = moved[f.below];
        s->frame[n++] = f;
        moved[i] = (uint16_t)n;
    }
    s->frames = (uint16_t)n;
    s->places = (uint16_t)(t->n_threads - from);
    for (int i = from; i < t->n_threads; i++) {
        s->frame[n].position = t->thread[i].position;
        s->frame[n++].below  = moved[t->thread[i].below];
    }
    memset(s->frame + n, 0, (size_t)(GRIFFIN_GRAMMAR_FRAMES - n) * sizeof *s->frame);
}

/* Takes up the state, and says if the text may end there. */
static int grg_may_end(grg_threads *t, const griffin_grammar *g, const griffin_grammar_state *s) {
    int threads = grg_resume(t, g, s), frames = t->n_frames;
    grg_closure(t, 0, threads);
    t->n_threads = threads;
    grg_drop_frames(t, frames);
    return t->returned;
}

/* Returns 1 if the state has moved on, 0 if the byte cannot follow, or E_SPACE: the byte may fit,
 * but the reading could not end within the frames of a state. */
static int grg_accept_byte(grg_threads *t, const griffin_grammar *g, griffin_grammar_state *s,
                           uint8_t byte) {
    int threads = grg_resume(t, g, s), open = grg_closure(t, 0, threads), from = t->n_threads;
    if (!grg_advance(t, threads, open, byte)) return t->deep ? GRIFFIN_E_SPACE : 0;
    s->grammar = g->id;
    s->narrowed = (uint16_t)(s->narrowed | t->full);
    grg_suspend(t, from, s);
    return 1;
}

/* The bytes of an unfinished character, after one more; 0: it is complete. The text is UTF-8, since
 * grammars are. */
static uint32_t grg_unfinished(uint32_t bytes, uint8_t byte) {
    if (!bytes) return byte < 0xC2 ? 0 : byte;
    bytes = bytes << 8 | byte;
    if (bytes < 0x10000) return bytes < 0xE000 ? 0 : bytes;
    return bytes < 0xF00000 ? 0 : bytes < 0x1000000 ? bytes : 0;
}

static int grg_accept_lead(griffin_grammar_state *s, char byte) {
    if (s->lead[0] != byte) return 0;
    memmove(s->lead, s->lead + 1, --s->leading);
    s->lead[s->leading] = 0;
    return 1;
}

static int grg_accept_token(grg_threads *t, const griffin_grammar *g, griffin_grammar_state *s,
                            int32_t token) {
    char bytes[GRG_LONGEST_TOKEN];
    int moved = 0;
    if (token == g->info->eos || token == g->info->end_of_turn) {
        uint16_t narrowed = s->narrowed;
        if (s->leading || !grg_may_end(t, g, s)) return 0;
        memset(s, 0, sizeof *s);
        s->grammar = g->id;
        s->narrowed = narrowed;
        s->ended = 1;
        return 1;
    }
    int n = grg_has_text(g, token) ? griffin_token_text(g->model, token, bytes, sizeof bytes) : 0;
    for (int i = 0; i < n; i++) {
        moved = s->leading ? grg_accept_lead(s, bytes[i])
                           : grg_accept_byte(t, g, s, (uint8_t)bytes[i]);
        if (moved <= 0) return moved;
        s->unfinished = grg_unfinished(s->unfinished, (uint8_t)bytes[i]);
    }
    s->last = token + 1;
    return moved;
}

/* ================================================================= >>walk
 * Which tokens may follow is found by one walk through the trie, in the order of the tokens'
 * numbers. Each node on the way down has the threads that have read the bytes up to it. Where a
 * thread is alive, the tokens that end there may follow. Where none is alive, the nodes below are
 * skipped. All tokens between two that may follow are forbidden.
 *
 * Such a walk is long where nearly everything may follow, as inside a string. But as long as it
 * does not leave the rule in which it began, it is always the same. So it is done once for each
 * position, when the grammar is opened (>>cache). The cached set of a position has the tokens that
 * were found. It also has the undecided nodes, at which the rule returned: there the calls around
 * decide what follows. A mask takes the tokens of cached sets as they are. Its walk only reads on
 * with the threads that have no set, and at undecided nodes it is joined by the threads that return
 * there. */

#define GRG_MOST_CACHED 8                   /* threads of a mask whose sets are used */
#define GRG_NO_NODE     0xFFFFFFFFu
#define GRG_MOST_STEPS  50000000            /* of threads, for all cached sets together */
#define GRG_MASK_STEPS  200000000           /* and for a mask */

/* What a cached set is made of stays within these limits. A mask that uses sets holds as much less
 * itself as they took, so that an accept, which reads on with all threads together, has room. */
#define GRG_CACHED_OPEN    128
#define GRG_CACHED_KEPT    32
#define GRG_CACHED_DEEPEST 96

/* A thread with a cached set: the ranges and the undecided nodes that the walk has not reached yet.
 * There are no such nodes if no calls are around the thread. */
typedef struct grg_cached_thread {
    uint32_t below;
    const uint32_t *range, *ranges_end;
    const uint32_t *ahead;                  /* the range at the node of the walk, or behind it */
    const uint32_t *node, *nodes_end;
} grg_cached_thread;

/* A node on the way down: `n_arrived` threads came to it; the closure of these is n_open threads.
 * Below the node both arrays are filled from n_threads and n_frames on. */
typedef struct grg_level {
    uint32_t end;                           /* the first node that is not below */
    uint16_t arrived, n_arrived, open, n_open, n_threads, n_frames;
    int      returned;
} grg_level;

typedef struct grg_walk {                   /* scratch of a mask, on the stack */
    float    *logits;
    uint32_t  next;                         /* tokens with lower numbers are done with */
    int       forbidden;                    /* how many of them */
    grg_cached_thread cached[GRG_MOST_CACHED];
    int       n_cached;
    uint32_t  undecided;                    /* the next undecided node of any of these, or none */

    grg_cached_set *found;                  /* not for a mask, but to fill this set; or null */
    uint32_t  most;                         /* numbers that fit into each of its arrays */
    uint32_t  visited;                      /* nodes */

    union {
        grg_level level[GRG_LONGEST_TOKEN + 2];
        unsigned char encoder[GRG_ENCODER]; /* scratch of griffin_encode, after the walk */
    } scratch;
    grg_threads t;
} grg_walk;

/* For a mask with logits, to fill a set with `found`; the other is null. */
static void grg_walk_start(grg_walk *w, const griffin_grammar *g, float *logits,
                           grg_cached_set *found) {
    grg_threads_start(&w->t, g);
    w->logits = logits;
    w->found = found;
    w->most = g->n_numbered / 2;
    w->next = w->visited = 0;
    w->forbidden = w->n_cached = 0;
    w->undecided = GRG_NO_NODE;
}

/* ---- tokens, in the order of their numbers -------------------------------------------------- */

/* Forbids the tokens from w->next to `end` that no cached set has. */
static void grg_forbid_until(grg_walk *w, uint32_t end) {
    while (w->next < end) {
        uint32_t allowed = w->next, stop = end;
        for (int k = 0; k < w->n_cached; k++) {
            grg_cached_thread *c = &w->cached[k];
            while (c->range < c->ranges_end && c->range[1] <= w->next) c->range += 2;
            if (c->range == c->ranges_end) continue;
            if (c->range[0] > w->next) { if (c->range[0] < stop) stop = c->range[0]; }
            else if (c->range[1] > allowed) allowed = c->range[1];
        }
        if (allowed > w->next) { w->next = allowed; continue; }
        w->forbidden += (int)(stop - w->next);
        while (w->next < stop) w->logits[w->t.g->order[w->next++]] = -INFINITY;
    }
}

static void grg_found_range(grg_walk *w, uint32_t first, uint32_t end) {
    grg_cached_set *set = w->found;
    uint32_t *range = set->ranges + 2 * set->n_ranges;
    if (set->n_ranges && range[-1] == first) { range[-1] = end; return; }
    if (2 * set->n_ranges + 2 > w->most) { w->t.full = 1; return; }
    range[0] = first;
    range[1] = end;
    set->n_ranges++;
}

/* Whatever the calls around an undecided node would allow below it, all of it may be allowed
 * already. Drops these nodes, as far as the walk is done with what is below: up to `done`. */
static void grg_drop_decided(const griffin_grammar *g, grg_cached_set *set, uint32_t done) {
    const uint32_t *range = set->ranges, *end = range + 2 * set->n_ranges;
    uint32_t n = 0;
    for (uint32_t i = 0; i < set->n_undecided; i++) {
        uint32_t node = set->undecided[i], next = g->trie[node].next_byte >> 8;
        while (range < end && range[1] <= g->trie[node].first) range += 2;
        if (next > done || range == end || range[0] > g->trie[node].first
            || range[1] < g->trie[next].first) set->undecided[n++] = node;
    }
    set->n_undecided = n;
}

static void grg_found_undecided(grg_walk *w, uint32_t node) {
    if (w->found->n_undecided == w->most) grg_drop_decided(w->t.g, w->found, node);
    if (w->found->n_undecided == w->most) w->t.full = 1;
    else w->found->undecided[w->found->n_undecided++] = node;
}

static void grg_allow(grg_walk *w, uint32_t first, uint32_t end) {
    if (first == end) return;
    if (w->found) { grg_found_range(w, first, end); return; }
    grg_forbid_until(w, first);
    if (w->next < end) w->next = end;
}

/* ---- undecided nodes ------------------------------------------------------------------------ */

static void grg_find_undecided(grg_walk *w) {
    w->undecided = GRG_NO_NODE;
    for (int k = 0; k < w->n_cached; k++) {
        const grg_cached_thread *c = &w->cached[k];
        if (c->node < c->nodes_end && *c->node < w->undecided) w->undecided = *c->node;
    }
}

/* Are all tokens from `first` to `end` in a cached set? Both only grow from call to call. */
static int grg_is_decided(grg_walk *w, uint32_t first, uint32_t end) {
    for (int k = 0; k < w->n_cached; k++) {
        grg_cached_thread *c = &w->cached[k];
        while (c->ahead < c->ranges_end && c->ahead[1] <= first) c->ahead += 2;
        if (c->ahead < c->ranges_end && c->ahead[0] <= first && c->ahead[1] >= end) return 1;
    }
    return 0;
}

/* Forgets the undecided nodes before this one. */
static void grg_skip_undecided(grg_walk *w, uint32_t node) {
    if (w->undecided >= node) return;
    for (int k = 0; k < w->n_cached; k++) {
        grg_cached_thread *c = &w->cached[k];
        while (c->node < c->nodes_end && *c->node < node) c->node++;
    }
    grg_find_undecided(w);
}

/* Adds the threads that return at this node to those that have arrived there, from `from` on. */
static void grg_join_undecided(grg_walk *w, int from, uint32_t node) {
    for (int k = 0; k < w->n_cached; k++) {
        grg_cached_thread *c = &w->cached[k];
        if (c->node == c->nodes_end || *c->node != node) continue;
        c->node++;
        grg_return(&w->t, from, c->below);
    }
    grg_find_undecided(w);
}

/* ---- the walk ------------------------------------------------------------------------------- */

/* Goes down to a node at which the threads from `arrived` on have arrived. If these are the threads
 * that had arrived one level above, as in a loop such as [^"]*, their closure is known. Returns 0
 * if there is no room or time. */
static int grg_enter(grg_walk *w, grg_level *l, const grg_level *above, int arrived,
                     uint32_t end) {
    grg_threads *t = &w->t;
    int count = t->n_threads - arrived;
    if (above && above->n_arrived == count
        && memcmp(t->thread + above->arrived, t->thread + arrived,
                  (size_t)count * sizeof(grg_thread)) == 0) {
        t->n_threads = above->n_threads;
        *l = *above;
    } else {
        l->arrived   = (uint16_t)arrived;
        l->n_arrived = (uint16_t)count;
        l->open      = (uint16_t)t->n_threads;
        l->n_open    = (uint16_t)grg_closure(t, arrived, count);
        l->n_threads = (uint16_t)t->n_threads;
        l->n_frames  = (uint16_t)t->n_frames;
        l->returned  = t->returned;
    }
    l->end = end;
    if (t->steps > (w->found ? GRG_MOST_STEPS : GRG_MASK_STEPS)) t->full = t->spent = 1;
    return !t->spent;
}

/* Goes through what is below a node, at which the threads in w->t have arrived. */
static void grg_walk_trie(grg_walk *w, uint32_t root) {
    const grg_trie_node *trie = w->t.g->trie;
    grg_threads *t = &w->t;
    grg_level *l = w->scratch.level;
    uint32_t end = trie[root].next_byte >> 8, next;
    if (w->undecided == 0) grg_join_undecided(w, 0, 0);
    grg_enter(w, l, NULL, 0, end);
    if (w->found && l->returned) grg_found_undecided(w, 0);
    for (uint32_t i = root + 1; i < end; i = next) {
        if (t->full && (w->found || w->n_cached)) break;
        while (i >= l->end) l--;
        t->n_threads = l->n_threads;
        grg_drop_frames(t, l->n_frames);
        next = trie[i].next_byte >> 8;
        if (w->n_cached && grg_is_decided(w, trie[i].first, trie[next].first)) {
            grg_skip_undecided(w, next);    /* all tokens below are allowed already */
            if (!l->n_open) next = w->undecided < l->end ? w->undecided : l->end;
            continue;
        }
        t->steps += (uint64_t)l->n_open;
        if (next == i + 1 && l->n_open) {   /* nothing is below */
            int k = 0;
            while (k < l->n_open && !grg_reads(t->g, t->thread[l->open + k],
                                               (uint8_t)trie[i].next_byte)) k++;
            if (k == l->n_open) continue;
            grg_allow(w, trie[i].first, trie[i + 1].first);
            w->visited++;
            continue;
        }
        if (grg_advance(t, l->open, l->n_open, (uint8_t)trie[i].next_byte)) {
            grg_allow(w, trie[i].first, trie[i + 1].first);
            w->visited++;
        }
        if (i == w->undecided) {
            grg_join_undecided(w, l->n_threads, i);
            grg_keep_threads(t, l->n_threads);
        }
        if (t->n_threads > l->n_threads) {
            if (t->spent) continue;
            if (!grg_enter(w, l + 1, l, l->n_threads, next)) continue;
            l++;
            if (w->found && l->returned) grg_found_undecided(w, i);
            next = i + 1;
        } else {                            /* no thread lives below, up to an undecided node */
            if (!l->n_open) next = l->end;  /* nor anywhere else on this level */
            if (w->undecided >= next) continue;
            if (l->n_open) {                /* go there on a level that has no threads */
                grg_enter(w, l + 1, NULL, l->n_threads, next);
                l++;
            }
            next = w->undecided;
        }
    }
}

/* Takes the threads with cached sets out of those of the walk. */
static void grg_use_cached(grg_walk *w, const griffin_grammar_state *state) {
    const griffin_grammar *g = w->t.g;
    int n = 0;                              /* threads that the walk begins with */
    for (int i = 0; i < w->t.n_threads; i++) {
        grg_thread p = w->t.thread[i];
        int number = w->n_cached < GRG_MOST_CACHED ? g->set_of[p.position] : 0;
        const grg_cached_set *set = &g->sets[number ? number - 1 : 0];
        if (!number || state->frames + set->kept > w->t.most_kept) {
            w->t.thread[n++] = p;
            continue;
        }
        w->t.most_open -= set->open;
        w->t.most_kept -= set->kept;
        grg_cached_thread *c = &w->cached[w->n_cached++];
        c->below = p.below;
        c->range = set->ranges;
        c->ahead = set->ranges;
        c->ranges_end = set->ranges + 2 * set->n_ranges;
        c->node = set->undecided;
        c->nodes_end = set->undecided + (p.below ? set->n_undecided : 0);
    }
    w->t.n_threads = n;
    w->t.base = w->n_cached ? state->frames : 0;
    grg_find_undecided(w);
}

/* Masks all tokens that have text. The threads of the state are in w->t. Returns how many remain.
 * What is too much beside cached sets is done again without them, just as an accept does it. */
static int grg_mask_text(grg_walk *w, const griffin_grammar_state *state) {
    const griffin_grammar *g = w->t.g;
    if (state->frames <= GRG_DEEPEST - GRG_CACHED_DEEPEST) grg_use_cached(w, state);
    grg_walk_trie(w, 0);
    if (w->t.full && w->n_cached) {
        grg_walk_start(w, g, w->logits, NULL);
        grg_resume(&w->t, g, state);
        grg_walk_trie(w, 0);
    }
    grg_forbid_until(w, g->n_numbered);
    return (int)g->n_numbered - w->forbidden;
}

/* The same while other text comes first: of the tokens that go beyond it, what is behind it must
 * fit. Cached sets are of no use, since they begin at the root. */
static int grg_mask_lead(grg_walk *w, const char *lead, uint32_t leading) {
    const griffin_grammar *g = w->t.g;
    uint32_t node = 0, i = 0;
    for (; i < leading && (!i || node); i++) {
        node = grg_child(g, node, (uint8_t)lead[i]);
        if (node) grg_allow(w, g->trie[node].first, g->trie[node + 1].first);
    }
    if (node && i == leading) grg_walk_trie(w, node);
    grg_forbid_until(w, g->n_numbered);
    return (int)g->n_numbered - w->forbidden;
}

/* ================================================================= >>choice
 * Of the tokens that fit, those are preferred that a tokenizer could have written, because a model
 * was trained on these alone. Forbidden are, unless nothing else is left,
 *
 *     the tokens of bytes, for a character that has a piece
 *     a token that together with the last one is a piece
 *     a token for the start of a text that must follow, if the tokenizer starts it with another
 *
 * Every text of the grammar can still be written, since its own tokens are never forbidden. */

#define GRG_MOST_TRIES 1024                 /* bytes that are read to find out */

typedef struct grg_search {                 /* for a character that fits and has no piece */
    grg_threads *t;
    int tries;
} grg_search;

/* Is there one that goes on with this byte? `count` threads, from `arrived` on, and the node stand
 * where its bytes so far led to. Calls itself for the next byte, three times at most. */
static int grg_rare_character(grg_search *s, int arrived, int count, uint32_t node,
                              uint32_t unfinished, uint8_t byte) {
    grg_threads *t = s->t;
    int threads = t->n_threads, frames = t->n_frames, found = 0;
    if (--s->tries < 0) return 1;
    int open = grg_closure(t, arrived, count), next = t->n_threads;
    int alive = grg_advance(t, threads, open, byte);
    node = grg_child(t->g, node, byte);
    unfinished = grg_unfinished(unfinished, byte);
    if (t->full || (alive && !node)) found = 1;
    else if (alive && !unfinished) found = !grg_has_piece(t->g, node);
    for (int b = 0x80; b < 0xC0 && alive && unfinished && !found; b++)
        found = grg_rare_character(s, next, alive, node, unfinished, (uint8_t)b);
    t->n_threads = threads;
    grg_drop_frames(t, frames);
    return found;
}

/* Lists the bytes from 0x80 on that fit, but only for characters with pieces. */
static uint32_t grg_find_needless(grg_threads *t, const griffin_grammar *g,
                                  const griffin_grammar_state *state, const float *logits,
                                  int32_t list[128]) {
    int threads = grg_resume(t, g, state), shift = 24;
    uint32_t node = 0, n = 0, known = 1;
    for (; shift >= 0 && known; shift -= 8) {
        if (!(state->unfinished >> shift)) continue;
        node = grg_child(g, node, (uint8_t)(state->unfinished >> shift));
        known = node != 0;
    }
    for (int b = 0x80; b < 0x100 && known; b++) {
        grg_search s = { t, GRG_MOST_TRIES };
        int32_t token = g->byte_token[b];
        if (token < 0 || logits[token] == -INFINITY) continue;
        if (!grg_rare_character(&s, 0, threads, node, state->unfinished, (uint8_t)b))
            list[n++] = token;
    }
    return n;
}

/* Forbids these tokens if others remain. Returns how many remain. */
static int grg_forbid(const int32_t *tokens, uint32_t count, float *logits, int remaining) {
    int fit = 0;
    for (uint32_t i = 0; i < count; i++) fit += logits[tokens[i]] != -INFINITY;
    if (!fit || fit >= remaining) return remaining;
    for (uint32_t i = 0; i < count; i++) logits[tokens[i]] = -INFINITY;
    return remaining - fit;
}

/* Reads on from `count` threads as long as only one byte can follow, and writes these bytes behind
 * the n that are in the text. Returns how many there are then. *complete: nothing can follow. */
static int grg_forced_text(grg_threads *t, int count, char *text, int n, int *complete) {
    *complete = 0;
    while (n < GRG_MOST_FORCED) {
        int from = t->n_threads, open = grg_closure(t, from - count, count);
        *complete = open == 0 && !t->full;
        if (!open || t->returned || t->full) break;
        const grg_code *codes = t->g->codes, *first = &codes[t->thread[from].position];
        for (int i = 0; i < open; i++) {
            const grg_code *code = &codes[t->thread[from + i].position];
            if (code->kind != GRG_BYTE || code->byte != first->byte) return n;
        }
        text[n++] = (char)first->byte;
        count = grg_advance(t, from, open, first->byte);
        if (t->full) break;
    }
    return n;
}

/* The token with which the tokenizer starts a text of n bytes behind `before` others; -1 if that
 * depends on what follows, or if it does not cut there. */
static int32_t grg_first_token(unsigned char scratch[GRG_ENCODER], const griffin_grammar *g,
                               const char *text, int before, int n, int complete) {
    int32_t tokens[2 * GRG_MOST_FORCED + GRG_LONGEST_TOKEN];
    griffin_encoding how;
    int at = 0, i = 0, most = (int)(sizeof tokens / sizeof tokens[0]);
    memset(&how, 0, sizeof how);
    how.continues = how.no_special = 1;
    how.scratch = scratch;
    how.scratch_size = GRG_ENCODER;
    int count = griffin_encode(g->model, &how, text, (size_t)(before + n), tokens, most);
    if (count < 0 || count > most) return -1;
    for (; i < count && at < before; i++) {
        char bytes[GRG_LONGEST_TOKEN];
        int length = griffin_token_text(g->model, tokens[i], bytes, sizeof bytes);
        if (length > before - at || memcmp(bytes, text + at, (size_t)length) != 0) return -1;
        at += length;
    }
    return at == before && i + 1 + !complete <= count ? tokens[i] : -1;
}

/* Adds to a list the other tokens that start a text of n bytes, which the tokenizer starts with
 * `first`. */
static uint32_t grg_list_starts(const griffin_grammar *g, const char *text, int n, int32_t first,
                                int32_t *list, uint32_t count, uint32_t most) {
    uint32_t node = 0;
    for (int i = 0; i < n; i++) {
        node = grg_child(g, node, (uint8_t)text[i]);
        if (!node) break;
        for (uint32_t k = g->trie[node].first; k < g->trie[node + 1].first; k++)
            if (g->order[k] != first && count < most) list[count++] = g->order[k];
    }
    return count;
}

/* Lists the tokens that start texts which must follow, but not as the tokenizer does it. The
 * threads of the state are in w->t. */
static uint32_t grg_find_miscut(grg_walk *w, const griffin_grammar *g,
                                const griffin_grammar_state *state, const float *logits,
                                int32_t *list, uint32_t most) {
    char text[GRG_LONGEST_TOKEN + GRG_MOST_FORCED];
    uint8_t starts[GRG_MOST_STARTS];
    grg_threads *t = &w->t;
    unsigned char *scratch = w->scratch.encoder;
    int from = t->n_threads, open = grg_closure(t, 0, from), n_starts = 0, before = 0;
    int threads = t->n_threads, frames = t->n_frames;
    uint32_t count = 0;
    if (state->last && !state->unfinished)
        before = griffin_token_text(g->model, state->last - 1, text, GRG_LONGEST_TOKEN);
    if (before < 0 || before > GRG_MOST_FORCED) before = 0;
    for (int i = 0; i < open && n_starts < GRG_MOST_STARTS; i++) {
        const grg_code *code = &g->codes[t->thread[from + i].position];
        if (code->kind != GRG_BYTE || memchr(starts, code->byte, (size_t)n_starts)) continue;
        starts[n_starts++] = code->byte;
        text[before] = (char)code->byte;
        int alive = grg_advance(t, from, open, code->byte), complete;
        int n = grg_forced_text(t, alive, text + before, 1, &complete);
        int32_t first = grg_first_token(scratch, g, text, before, n, complete);
        if (first < 0) first = grg_first_token(scratch, g, text + before, 0, n, complete);
        if (first >= 0 && logits[first] != -INFINITY)
            count = grg_list_starts(g, text + before, n, first, list, count, most);
        t->n_threads = threads;
        grg_drop_frames(t, frames);
    }
    return count;
}

/* Of the `remaining` tokens forbids those that a tokenizer would not have written. */
static int grg_prefer(grg_walk *w, const griffin_grammar *g, const griffin_grammar_state *state,
                      float *logits, int remaining) {
    if (state->leading) return grg_forbid(g->spare, g->n_spare, logits, remaining);
    if ((state->unfinished || remaining <= GRG_FEW_TOKENS)) {
        int32_t list[128];
        uint32_t n = grg_find_needless(&w->t, g, state, logits, list);
        remaining = grg_forbid(list, n, logits, remaining);
    }
    remaining = grg_forbid(g->spare, g->n_spare, logits, remaining);
    if (remaining > 1 && remaining <= GRG_FEW_TOKENS && g->encodes) {
        int32_t list[GRG_FEW_STARTS];
        grg_resume(&w->t, g, state);
        uint32_t n = grg_find_miscut(w, g, state, logits, list, GRG_FEW_STARTS);
        remaining = grg_forbid(list, n, logits, remaining);
    }
    if (!state->last) return remaining;
    const uint32_t *list = g->partners + state->last - 1;
    return grg_forbid(g->merging + list[0], list[1] - list[0], logits, remaining);
}

/* ================================================================= >>cache
 * Cached sets for the positions that a text can stop at. */

#ifndef GRG_LONG_WALK                       /* tests make it small */
  #define GRG_LONG_WALK 1024                /* nodes that make a set worthwhile */
#endif

/* Walks from a position whose calls are not known. `found` lends its arrays, which hold half as
 * many numbers as there are tokens: where that is too little, nothing would be won. */
static int grg_cache_position(griffin_grammar *g, int position, grg_cached_set found,
                              uint64_t *steps) {
    grg_cached_set *set = &g->sets[g->n_sets];
    grg_thread start = { (uint16_t)position, 0 };
    grg_walk w;
    grg_walk_start(&w, g, NULL, &found);
    w.t.steps = *steps;
    w.t.most_open = GRG_CACHED_OPEN;
    w.t.most_kept = GRG_CACHED_KEPT;
    w.t.deepest   = GRG_CACHED_DEEPEST;
    w.t.thread[w.t.n_threads++] = start;
    grg_walk_trie(&w, 0);
    *steps = w.t.steps;
    if (w.t.full || w.t.deep || w.visited < GRG_LONG_WALK) return GRIFFIN_OK;
    grg_drop_decided(g, &found, g->n_nodes);
    set->open        = w.t.open;
    set->kept        = w.t.kept;
    set->n_ranges    = found.n_ranges;
    set->n_undecided = found.n_undecided;
    uint64_t numbers = 2 * (uint64_t)set->n_ranges + set->n_undecided;
    set->ranges = (uint32_t *)grg_grammar_allocate(g, numbers, sizeof *set->ranges);
    if (!set->ranges) return GRIFFIN_E_MEMORY;
    set->undecided = set->ranges + 2 * set->n_ranges;
    memcpy(set->ranges, found.ranges, 8 * (size_t)set->n_ranges);
    memcpy(set->undecided, found.undecided, 4 * (size_t)set->n_undecided);
    g->set_of[position] = (uint16_t)++g->n_sets;
    return GRIFFIN_OK;
}

/* The walk is short where the rule ends, and where only a byte can follow that few tokens start
 * with. */
static int grg_is_short_walk(const griffin_grammar *g, const grg_code *code) {
    if (code->kind != GRG_BYTE) return code->kind == GRG_RETURN;
    uint32_t node = grg_child(g, 0, code->byte);
    return !node || (g->trie[node].next_byte >> 8) - node < GRG_LONG_WALK;
}

/* A text stops behind a code that reads or calls, or at the beginning, which is i == -1. */
static int grg_build_cache(griffin_grammar *g) {
    uint64_t codes = (uint64_t)g->n_codes, half = g->n_numbered / 2;
    uint32_t *scratch = (uint32_t *)grg_allocate(&g->hooks, 8 * half + codes);
    uint64_t steps = 0;
    int error = GRIFFIN_OK;
    if (!scratch) return GRIFFIN_E_MEMORY;
    grg_cached_set found = { scratch, scratch + half, 0, 0, 0, 0 };
    uint8_t *done = (uint8_t *)(scratch + 2 * half);
    memset(done, 0, (size_t)codes);
    for (int i = -1; i + 1 < g->n_codes && !error && g->n_sets < GRG_MOST_SETS; i++) {
        int at = i < 0 ? g->root : i + 1;
        if (i >= 0 && g->codes[i].kind > GRG_TAIL && g->codes[i].kind != GRG_CALL) continue;
        while (g->codes[at].kind == GRG_JUMP) at = g->codes[at].to;
        if (done[at] || grg_is_short_walk(g, &g->codes[at])) continue;
        done[at] = 1;
        error = grg_cache_position(g, at, found, &steps);
    }
    grg_release(&g->hooks, scratch);
    return error;
}

/* ================================================================= >>schema
 * From a JSON schema to the text of a grammar. The whole schema is checked to be JSON first. All
 * that follows trusts this: a value is a pointer to its first byte, and reading on from there
 * cannot fail. Each schema within the schema that is needed becomes a rule, in the order in which
 * they are met: s0 is the outermost one. */

#define GRG_JSON_DEPTH 64

enum grg_keyword {
    GRG_TYPE, GRG_ENUM, GRG_CONST, GRG_PROPERTIES, GRG_REQUIRED, GRG_ADDITIONAL, GRG_ITEMS,
    GRG_MIN_ITEMS, GRG_MAX_ITEMS, GRG_MIN_LENGTH, GRG_MAX_LENGTH, GRG_MINIMUM, GRG_MAXIMUM,
    GRG_ABOVE, GRG_BELOW, GRG_FORMAT, GRG_PATTERN, GRG_ALL_OF, GRG_ANY_OF, GRG_ONE_OF, GRG_REF,
    GRG_DEFS, GRG_DEFINITIONS, GRG_KEYWORDS
};

static const char *const grg_keyword_names[GRG_KEYWORDS] = {
    "type", "enum", "const", "properties", "required", "additionalProperties", "items", "minItems",
    "maxItems", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum",
    "exclusiveMaximum", "format", "pattern", "allOf", "anyOf", "oneOf", "$ref", "$defs",
    "definitions"
};

static const char *const grg_annotations[] = {
    "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly",
    "$schema", "$id", "$comment"
};

/* Sets of types are sums of these, in the order of the names. */
enum grg_type {
    GRG_OBJECT = 1, GRG_ARRAY = 2, GRG_STRING = 4, GRG_INTEGER = 8, GRG_NUMBER = 16,
    GRG_BOOLEAN = 32, GRG_NULL = 64
};

static const char *const grg_type_names[] = {
    "object", "array", "string", "integer", "number", "boolean", "null"
};

#define GRG_COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

typedef struct grg_property { const char *name; int rule, required; } grg_property;

typedef struct grg_schema {
    const griffin_options *hooks;
    const char *text, *end;
    const char *at;                         /* while the text is checked */
    int         error;                      /* the first one; nothing happens after it */
    int         is_json;                    /* the text was checked */
    int         n_rules, n_properties;
    const char *rules[GRG_MOST_RULES];      /* where the schema of each rule stands */
    size_t      rule_starts[GRG_MOST_RULES];/* and where its text in the grammar begins */
    grg_property properties[GRG_MOST_RULES];/* of the object that is being written; their number is
                                             * -1 for what is not an object with rules of its own */
    size_t      length;
    char        grammar[GRG_MOST_TEXT];
} grg_schema;

static void grg_put_place(const grg_schema *c, const char *at, grg_line *line);

static void grg_wrong_name(grg_schema *c, const char *at, const char *what, const char *name,
                           size_t length) {
    if (c->error) return;
    grg_line place;
    place.length = 0;
    place.text[0] = 0;
    if (c->is_json) grg_put_place(c, at, &place);
    c->error = grg_fail(c->hooks, GRIFFIN_E_FORMAT, "schema, byte %u%s: %s%t",
                        (uint64_t)(at - c->text), place.text, what, name, length);
}

static void grg_wrong_at(grg_schema *c, const char *at, const char *what) {
    grg_wrong_name(c, at, what, "", 0);
}

/* ---- strings of JSON, which begin at a quote
 * -------------------------------------------------- */

/* What a string means, byte by byte. */
typedef struct grg_string { const char *at; unsigned char bytes[4]; int count, used; } grg_string;

static grg_string grg_string_at(const char *quote) {
    grg_string s;
    memset(&s, 0, sizeof s);
    s.at = quote + 1;
    return s;
}

/* -1 at the end. */
static int grg_next_byte(grg_string *s) {
    static const char letters[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    if (s->used < s->count) return s->bytes[s->used++];
    if (*s->at == '"') return -1;
    if (*s->at != '\\') return (unsigned char)*s->at++;
    if (s->at[1] != 'u') {
        s->at += 2;
        return values[strchr(letters, s->at[-1]) - letters];
    }
    uint32_t c = (uint32_t)grg_hex(s->at + 2, 4, 4);
    s->at += 6;
    if (c >> 11 == 0xD800 >> 11) {
        c = 0x10000 + ((c - 0xD800) << 10) + ((uint32_t)grg_hex(s->at + 2, 4, 4) - 0xDC00);
        s->at += 6;
    }
    s->count = grg_utf8_write(c, s->bytes);
    s->used = 1;
    return s->bytes[0];
}

static int grg_string_is(const char *quote, const char *text) {
    grg_string s = grg_string_at(quote);
    for (; *text; text++) if (grg_next_byte(&s) != (unsigned char)*text) return 0;
    return grg_next_byte(&s) < 0;
}

static int grg_same_strings(const char *quote, const char *other) {
    grg_string a = grg_string_at(quote), b = grg_string_at(other);
    for (;;) {
        int byte = grg_next_byte(&a);
        if (byte != grg_next_byte(&b)) return 0;
        if (byte < 0) return 1;
    }
}

/* ---- checking that it is JSON: RFC 8259 ----------------------------------------------------- */

static void grg_not_json(grg_schema *c, const char *what) { grg_wrong_at(c, c->at, what); }

/* The next byte that is not white space; 0 at the end. */
static int grg_json_peek(grg_schema *c) {
    while (c->at < c->end && memchr(" \t\r\n", *c->at, 4)) c->at++;
    return c->at < c->end ? (unsigned char)*c->at : 0;
}

static int grg_json_take(grg_schema *c, const char *bytes) {    /* 1 if one of them is here */
    if (c->at == c->end || !*c->at || !strchr(bytes, *c->at)) return 0;
    c->at++;
    return 1;
}

/* Returns the unit of a \uXXXX at p, or -1. */
static int64_t grg_json_unit(const char *p, const char *end) {
    return end - p >= 6 && p[0] == '\\' && p[1] == 'u' ? grg_hex(p + 2, 4, 4) : -1;
}

/* Bytes of the escape at p; 0: it is wrong. Units of surrogate pairs come in pairs. */
static int grg_json_escape(const char *p, const char *end) {
    if (end - p >= 2 && p[1] && strchr("\"\\/bfnrt", p[1])) return 2;
    int64_t high = grg_json_unit(p, end);
    if (high < 0) return 0;
    if (high >> 11 != 0xD800 >> 11) return 6;
    int64_t low = grg_json_unit(p + 6, end);
    return high < 0xDC00 && low >= 0xDC00 && low < 0xE000 ? 12 : 0;
}

static void grg_check_string(grg_schema *c) {
    const char *start = c->at++;
    while (c->at < c->end && *c->at != '"') {
        int is_escape = *c->at == '\\';
        int n = is_escape ? grg_json_escape(c->at, c->end)
                          : grg_utf8_length(c->at, (uint64_t)(c->end - c->at));
        if ((unsigned char)*c->at < 0x20) grg_not_json(c, "control character in a string");
        else if (n <= 0) grg_not_json(c, is_escape ? "invalid escape" : "not UTF-8");
        if (c->error) return;
        c->at += n;
    }
    if (c->at < c->end) c->at++;
    else grg_wrong_at(c, start, "string without an end");
}

static void grg_check_digits(grg_schema *c) {
    if (!grg_json_take(c, "0123456789")) grg_not_json(c, "expected a digit");
    while (grg_json_take(c, "0123456789")) { }
}

static void grg_check_number(grg_schema *c) {
    grg_json_take(c, "-");
    if (!grg_json_take(c, "0")) grg_check_digits(c);
    if (grg_json_take(c, ".")) grg_check_digits(c);
    if (grg_json_take(c, "eE")) {
        grg_json_take(c, "+-");
        grg_check_digits(c);
    }
}

static void grg_check_word(grg_schema *c) {
    static const char *const words[] = { "true", "false", "null" };
    for (int i = 0; i < 3; i++) {
        size_t n = strlen(words[i]);
        if ((size_t)(c->end - c->at) < n || memcmp(c->at, words[i], n) != 0) continue;
        c->at += n;
        return;
    }
    grg_not_json(c, c->at == c->end ? "text ends too early" : "expected a value");
}

/* A member's name and its colon. Meanwhile `properties` holds the names of all objects that are
 * open, those of this one from `from` on. */
static void grg_check_name(grg_schema *c, int from) {
    if (grg_json_peek(c) != '"') { grg_not_json(c, "expected a member name"); return; }
    const char *name = c->at;
    grg_check_string(c);
    for (int i = from; i < c->n_properties && !c->error; i++)
        if (grg_same_strings(c->properties[i].name, name))
            grg_wrong_at(c, name, "duplicate member");
    if (c->n_properties == GRG_MOST_RULES)
        grg_wrong_at(c, name, "more than 16384 members");
    if (c->error) return;
    c->properties[c->n_properties++].name = name;
    grg_json_peek(c);
    if (!grg_json_take(c, ":")) grg_not_json(c, "expected ':'");
}

/* Calls itself for values inside, GRG_JSON_DEPTH times at most. */
static void grg_check_value(grg_schema *c, int depth) {
    int first = grg_json_peek(c);
    if (first == '"') { grg_check_string(c); return; }
    if (first == '-' || (first >= '0' && first <= '9')) { grg_check_number(c); return; }
    if (first != '{' && first != '[') { grg_check_word(c); return; }
    if (depth == GRG_JSON_DEPTH) { grg_not_json(c, "nested too deeply"); return; }
    const char *close = first == '{' ? "}" : "]";
    int names = c->n_properties;            /* those of this object come behind */
    c->at++;
    grg_json_peek(c);
    if (grg_json_take(c, close)) return;
    while (!c->error) {
        if (first == '{') {
            grg_check_name(c, names);
            if (c->error) return;
        }
        grg_check_value(c, depth + 1);
        grg_json_peek(c);
        if (grg_json_take(c, close)) break;
        if (!grg_json_take(c, ",")) grg_not_json(c, "expected ',' or a bracket");
    }
    c->n_properties = names;
}

/* ---- reading JSON that was checked ---------------------------------------------------------- */

static const char *grg_skip_space(const grg_schema *c, const char *p) {
    while (p < c->end && memchr(" \t\r\n", *p, 4)) p++;
    return p;
}

/* Behind the value at p. */
static const char *grg_skip_value(const grg_schema *c, const char *p) {
    int depth = 0;
    do {
        if (*p == '"') {
            for (p++; *p != '"'; p++) p += *p == '\\';
            p++;
        } else if (*p == '{' || *p == '[') {
            depth++;
            p++;
        } else if (*p == '}' || *p == ']') {
            depth--;
            p++;
        } else {                            /* a number, a word; or what stands between values */
            p++;
            while (p < c->end && !memchr(" \t\r\n,:]}[{\"", *p, 11)) p++;
        }
    } while (depth);
    return p;
}

/* The first element of an array, or the first name of an object; null if it is empty. */
static const char *grg_first(const grg_schema *c, const char *container) {
    const char *p = grg_skip_space(c, container + 1);
    return *p == ']' || *p == '}' ? NULL : p;
}

/* The element or the name behind a value; null: that was the last. */
static const char *grg_next(const grg_schema *c, const char *value) {
    const char *p = grg_skip_space(c, grg_skip_value(c, value));
    return *p == ',' ? grg_skip_space(c, p + 1) : NULL;
}

static const char *grg_value_of(const grg_schema *c, const char *name) {
    return grg_skip_space(c, grg_skip_space(c, grg_skip_value(c, name)) + 1);
}

/* The value of a keyword of a schema, or null. */
static const char *grg_find_keyword(const grg_schema *c, const char *schema, const char *keyword) {
    for (const char *name = grg_first(c, schema), *value; name; name = grg_next(c, value)) {
        value = grg_value_of(c, name);
        if (grg_string_is(name, keyword)) return value;
    }
    return NULL;
}

static unsigned grg_types_of_value(const grg_schema *c, const char *value) {
    switch (*value) {
    case '{': return GRG_OBJECT;
    case '[': return GRG_ARRAY;
    case '"': return GRG_STRING;
    case 't': case 'f': return GRG_BOOLEAN;
    case 'n': return GRG_NULL;
    default: break;
    }
    for (const char *end = grg_skip_value(c, value); value < end; value++)
        if (strchr(".eE", *value)) return GRG_NUMBER;
    return GRG_INTEGER | GRG_NUMBER;
}

/* Writes the JSON pointer of what stands at a place: ", at #/properties/age". */
static void grg_put_place(const grg_schema *c, const char *at, grg_line *line) {
    const char *value = grg_skip_space(c, c->text), *inner;
    grg_line_put(line, ", at #", 6);
    for (; value && value < at; value = inner) {
        uint64_t index = 0;
        int named = *value == '{';
        inner = NULL;
        if (!named && *value != '[') return;
        for (const char *p = grg_first(c, value), *v; p && !inner; p = grg_next(c, v), index++) {
            v = named ? grg_value_of(c, p) : p;
            if (at < p || at >= grg_skip_value(c, v)) continue;
            grg_line_put(line, "/", 1);
            if (named) grg_line_put(line, p + 1, (size_t)(grg_skip_value(c, p) - p) - 2);
            else grg_line_number(line, index);
            inner = v;
        }
    }
}

/* An error about something, with the string at `quote` as it is spelled. */
static void grg_wrong_string(grg_schema *c, const char *at, const char *what, const char *quote) {
    grg_wrong_name(c, at, what, quote + 1, (size_t)(grg_skip_value(c, quote) - quote) - 2);
}

/* ---- writing the grammar -------------------------------------------------------------------- */

static void grg_put(grg_schema *c, const char *text, size_t length) {
    if (length > sizeof c->grammar - c->length)
        grg_wrong_at(c, c->text, "the grammar of this schema is too large");
    if (c->error) return;
    memcpy(c->grammar + c->length, text, length);
    c->length += length;
}

static void grg_print(grg_schema *c, const char *format, ...) { /* %d: the next int, not negative */
    va_list values;
    va_start(values, format);
    for (; *format; format++) {
        grg_line number;
        number.length = 0;
        if (*format != '%') { grg_put(c, format, 1); continue; }
        format++;
        grg_line_number(&number, (uint64_t)va_arg(values, int));
        grg_put(c, number.text, number.length);
    }
    va_end(values);
}

/* A byte inside a literal of the grammar. */
static void grg_put_byte(grg_schema *c, int byte) {
    char text[4] = { '\\', 'x', '0', 0 };
    if (byte < ' ') {
        text[2] = (char)('0' + byte / 16);
        text[3] = "0123456789ABCDEF"[byte % 16];
        grg_put(c, text, 4);
    } else {
        text[1] = (char)byte;
        if (byte == '"' || byte == '\\') grg_put(c, text, 2);
        else grg_put(c, text + 1, 1);
    }
}

/* A name and the colon. It is spelled in one way, whatever escapes the schema has in it. */
static void grg_put_name(grg_schema *c, const char *quote) {
    grg_string s = grg_string_at(quote);
    grg_print(c, "\"\\\"");
    for (int byte = grg_next_byte(&s); byte >= 0; byte = grg_next_byte(&s)) {
        if (byte < ' ') {
            grg_print(c, "\\\\u00%d", byte / 16);
            grg_put(c, &"0123456789abcdef"[byte % 16], 1);
        } else {
            if (byte == '"' || byte == '\\') grg_put_byte(c, '\\');
            grg_put_byte(c, byte);
        }
    }
    grg_print(c, "\\\"\" \":\" space ");
}

/* ---- keywords ------------------------------------------------------------------------------- */

/* A bound such as minItems, or what it is without the keyword. */
static int grg_bound(grg_schema *c, const char *value, int absent) {
    int n = 0;
    if (!value) return absent;
    if (!(grg_types_of_value(c, value) & GRG_INTEGER))
        grg_wrong_at(c, value, "expected a whole number");
    for (const char *p = value; p < c->end && *p >= '0' && *p <= '9' && n <= 30000; p++)
        n = 10 * n + (*p - '0');
    if (*value == '-' || n > 30000)
        grg_wrong_at(c, value, "expected a number from 0 to 30000");
    return n;
}

/* The number of the rule for a schema. */
static int grg_rule_of(grg_schema *c, const char *schema) {
    size_t n = (size_t)(grg_skip_value(c, schema) - schema);
    for (int i = 0; i < c->n_rules; i++)    /* schemas of the same text are one */
        if (n <= (size_t)(c->end - c->rules[i]) && !memcmp(c->rules[i], schema, n)) return i;
    if (c->n_rules == GRG_MOST_RULES) {
        grg_wrong_at(c, schema, "more than 16384 schemas in the schema");
        return 0;
    }
    c->rules[c->n_rules] = schema;
    return c->n_rules++;
}

/* The next byte of a $ref, where %NN stands for a byte; -1 at its end. */
static int grg_ref_byte(grg_string *s) {
    int byte = grg_next_byte(s);
    grg_string ahead = *s;
    char digits[2];
    if (byte != '%') return byte;
    for (int i = 0; i < 2; i++) digits[i] = (char)grg_next_byte(&ahead);
    if (grg_hex(digits, 2, 2) < 0) return byte;
    *s = ahead;
    return (int)grg_hex(digits, 2, 2);
}

/* The next byte of a segment of a JSON pointer, where ~1 stands for / and ~0 for ~; -1 at its
 * end. */
static int grg_segment_byte(grg_string *s) {
    int byte = grg_ref_byte(s);
    if (byte == '~') return grg_ref_byte(s) == '1' ? '/' : '~';
    return byte == '/' ? -1 : byte;
}

static const char *grg_find_element(const grg_schema *c, const char *array, grg_string segment) {
    int index = 0, digits = 0, byte = grg_segment_byte(&segment);
    for (; byte >= '0' && byte <= '9' && index < GRG_MOST_TEXT; byte = grg_segment_byte(&segment)) {
        if (digits++ && !index) return NULL;
        index = 10 * index + (byte - '0');
    }
    if (byte >= 0 || !digits) return NULL;
    const char *p = grg_first(c, array);
    for (; p && index; index--) p = grg_next(c, p);
    return p;
}

static const char *grg_find_member(const grg_schema *c, const char *object, grg_string segment) {
    for (const char *name = grg_first(c, object), *value; name; name = grg_next(c, value)) {
        grg_string a = grg_string_at(name), b = segment;
        int byte = grg_next_byte(&a), other = grg_segment_byte(&b);
        while (byte == other && byte >= 0) {
            byte = grg_next_byte(&a);
            other = grg_segment_byte(&b);
        }
        value = grg_value_of(c, name);
        if (byte == other) return value;
    }
    return NULL;
}

/* The schema that a $ref means. */
static const char *grg_resolve(grg_schema *c, const char *ref) {
    const char *place = grg_skip_space(c, c->text);
    if (*ref != '"') { grg_wrong_at(c, ref, "expected a text"); return place; }
    grg_string s = grg_string_at(ref);
    if (grg_next_byte(&s) != '#') {
        grg_wrong_at(c, ref, "only a $ref that starts with # is supported");
        return place;
    }
    int byte = grg_ref_byte(&s);
    while (place && byte == '/') {
        place = *place == '{' ? grg_find_member(c, place, s)
              : *place == '[' ? grg_find_element(c, place, s) : NULL;
        do byte = grg_ref_byte(&s); while (byte >= 0 && byte != '/');
    }
    if (!place || byte >= 0) grg_wrong_string(c, ref, "nothing is at ", ref);
    return place ? place : c->rules[0];
}

static unsigned grg_type_of_name(grg_schema *c, const char *value, const char *at) {
    for (int i = 0; *value == '"' && i < GRG_COUNT(grg_type_names); i++)
        if (grg_string_is(value, grg_type_names[i])) return 1u << i;
    grg_wrong_at(c, at, "type: expected a name of JSON Schema");
    return 0;
}

/* The types that a schema names or, if it names none, to which its keywords belong. */
static unsigned grg_types(grg_schema *c, const char *const *k) {
    unsigned types = 0;
    if (!k[GRG_TYPE]) {
        if (k[GRG_PROPERTIES] || k[GRG_REQUIRED] || k[GRG_ADDITIONAL]
            || k[GRG_ALL_OF]) types |= GRG_OBJECT;
        if (k[GRG_ITEMS] || k[GRG_MIN_ITEMS] || k[GRG_MAX_ITEMS]) types |= GRG_ARRAY;
        if (k[GRG_MIN_LENGTH] || k[GRG_MAX_LENGTH] || k[GRG_FORMAT] || k[GRG_PATTERN])
            types |= GRG_STRING;
        return types;
    }
    if (*k[GRG_TYPE] != '[') return grg_type_of_name(c, k[GRG_TYPE], k[GRG_TYPE]);
    for (const char *p = grg_first(c, k[GRG_TYPE]); p; p = grg_next(c, p))
        types |= grg_type_of_name(c, p, k[GRG_TYPE]);
    if (!types) grg_wrong_at(c, k[GRG_TYPE], "type: expected a name");
    return types;
}

/* enum, const, anyOf, oneOf and $ref say everything by themselves; beside enum and const there may
 * be a type. */
static void grg_check_alone(grg_schema *c, const char *const *k) {
    static const int says_all[] = { GRG_ENUM, GRG_CONST, GRG_ANY_OF, GRG_ONE_OF, GRG_REF };
    int alone = -1;
    for (int i = 0; i < GRG_COUNT(says_all); i++) if (k[says_all[i]]) alone = says_all[i];
    for (int i = 0; i < GRG_DEFS && alone >= 0; i++) {
        if (i == alone || !k[i] || (i == GRG_TYPE && alone <= GRG_CONST)) continue;
        grg_wrong_name(c, k[alone], "this keyword is not supported beside ", grg_keyword_names[i],
                         strlen(grg_keyword_names[i]));
    }
}

/* ---- values of each type -------------------------------------------------------------------- */

static void grg_read_properties(grg_schema *c, const char *object) {
    if (*object != '{') { grg_wrong_at(c, object, "properties: expected an object"); return; }
    for (const char *name = grg_first(c, object), *value; name; name = grg_next(c, value)) {
        grg_property *p = &c->properties[c->n_properties];
        value = grg_value_of(c, name);
        p->name = name;
        p->required = 0;
        p->rule = grg_rule_of(c, value);
        if (c->error) return;
        c->n_properties++;                  /* not more than there are rules */
    }
}

static void grg_read_required(grg_schema *c, const char *array) {
    if (*array != '[') { grg_wrong_at(c, array, "required: expected an array"); return; }
    for (const char *p = grg_first(c, array); p && !c->error; p = grg_next(c, p)) {
        int i = 0;
        if (*p != '"') { grg_wrong_at(c, array, "required: expected names"); return; }
        while (i < c->n_properties && !grg_same_strings(c->properties[i].name, p)) i++;
        if (i < c->n_properties) c->properties[i].required = 1;
        else grg_wrong_string(c, array, "required, but not among the properties: ", p);
    }
}

static void grg_find_keywords(grg_schema *c, const char *schema, const char **k);

/* The properties of an object and of its parts in allOf; then, with `required`, which of them are
 * required. Calls itself for the parts. */
static void grg_read_parts(grg_schema *c, const char *const *k, int depth, int required) {
    for (int i = 0; i < GRG_DEFS; i++) {
        if (!k[i] || i == GRG_TYPE || i == GRG_PROPERTIES || i == GRG_REQUIRED || i == GRG_ALL_OF)
            continue;
        if (i == GRG_ADDITIONAL && *k[i] == 't') continue;
        grg_wrong_name(c, k[i], "allOf is only supported for objects, and without ",
                       grg_keyword_names[i], strlen(grg_keyword_names[i]));
    }
    if (k[GRG_TYPE] && grg_types(c, k) != GRG_OBJECT)
        grg_wrong_at(c, k[GRG_TYPE], "allOf is only supported for objects");
    if (c->error) return;
    if (!required && k[GRG_PROPERTIES]) {
        int before = c->n_properties;
        grg_read_properties(c, k[GRG_PROPERTIES]);
        for (int i = before; i < c->n_properties; i++)
            for (int j = 0; j < before; j++)
                if (grg_same_strings(c->properties[i].name, c->properties[j].name))
                    grg_wrong_string(c, c->properties[i].name, "in two parts of allOf: ",
                                     c->properties[i].name);
    }
    if (required && k[GRG_REQUIRED]) grg_read_required(c, k[GRG_REQUIRED]);
    if (!k[GRG_ALL_OF] || c->error) return;
    if (*k[GRG_ALL_OF] != '[' || depth == 8) {
        grg_wrong_at(c, k[GRG_ALL_OF], depth ? "allOf nests too deeply" : "expected an array");
        return;
    }
    if (!grg_first(c, k[GRG_ALL_OF])) grg_wrong_at(c, k[GRG_ALL_OF], "allOf: expected objects");
    for (const char *p = grg_first(c, k[GRG_ALL_OF]); p && !c->error; p = grg_next(c, p)) {
        const char *inner[GRG_KEYWORDS], *schema = p;
        memset(inner, 0, sizeof inner);
        for (int hops = 0; hops < 8 && *schema == '{'; hops++) {
            const char *ref = grg_find_keyword(c, schema, "$ref");
            if (!ref) break;
            schema = grg_resolve(c, ref);
        }
        if (*schema != '{') { grg_wrong_at(c, p, "allOf: expected objects"); return; }
        grg_find_keywords(c, schema, inner);
        if (!c->error) grg_read_parts(c, inner, depth + 1, required);
    }
}

static void grg_put_object(grg_schema *c, int rule, const char *const *k) {
    const char *more = k[GRG_ADDITIONAL];
    if (k[GRG_ALL_OF]) {
        c->n_properties = 0;
        grg_read_parts(c, k, 0, 0);
        grg_read_parts(c, k, 0, 1);
        grg_print(c, "\"{\" space s%d-0-f", rule);
        return;
    }
    if (more && !(grg_types_of_value(c, more) & (GRG_BOOLEAN | GRG_OBJECT)))
        grg_wrong_at(c, more, "additionalProperties: expected a schema");
    if (!k[GRG_PROPERTIES] && !k[GRG_REQUIRED] && (!more || *more != 'f')) {
        int value = more && *more == '{' ? grg_rule_of(c, more) : -1;
        if (value < 0) grg_print(c, "object");
        else grg_print(c, "\"{\" space (string \":\" space s%d (\",\" space string \":\" space s%d)* "
                       "space)? \"}\"", value, value);
        return;
    }
    c->n_properties = 0;
    if (k[GRG_PROPERTIES]) grg_read_properties(c, k[GRG_PROPERTIES]);
    if (k[GRG_REQUIRED]) grg_read_required(c, k[GRG_REQUIRED]);
    grg_print(c, "\"{\" space s%d-0-f", rule);
}

static void grg_put_value(grg_schema *c, const char *value, unsigned types);

/* A value by its rule. A constant is written out: so objects that begin alike are merged. */
static void grg_put_rule(grg_schema *c, int rule) {
    const char *schema = c->rules[rule];
    const char *value = *schema == '{' ? grg_find_keyword(c, schema, "const") : NULL;
    const char *types = value ? grg_find_keyword(c, schema, "type") : NULL;
    if (value && !types) grg_put_value(c, value, 0);
    else grg_print(c, "s%d", rule);
}

/* Rules for what may follow the first i properties of the object: sN-i-f if none of them was
 * written, sN-i-m if some were. */
static void grg_put_properties(grg_schema *c, int rule) {
    int i;
    for (i = 0; i < c->n_properties; i++) {
        const grg_property *p = &c->properties[i];
        grg_print(c, "s%d-%d-f ::= ", rule, i);
        grg_put_name(c, p->name);
        grg_put_rule(c, p->rule);
        grg_print(c, " s%d-%d-m", rule, i + 1);
        if (!p->required) grg_print(c, " | s%d-%d-f", rule, i + 1);
        grg_print(c, "\ns%d-%d-m ::= (\",\" space ", rule, i);
        grg_put_name(c, p->name);
        grg_put_rule(c, p->rule);
        grg_print(c, p->required ? ") s%d-%d-m\n" : ")? s%d-%d-m\n", rule, i + 1);
    }
    grg_print(c, "s%d-%d-f ::= \"}\"\ns%d-%d-m ::= space \"}\"\n", rule, i, rule, i);
}

static void grg_put_repeat(grg_schema *c, int least, int most) {    /* most < 0: no limit */
    if (most < 0) grg_print(c, "{%d,}", least);
    else grg_print(c, "{%d,%d}", least, most);
}

static void grg_put_item(grg_schema *c, int item) {     /* a value by its rule; -1: any */
    if (item < 0) grg_print(c, "value");
    else grg_print(c, "s%d", item);
}

static void grg_put_array(grg_schema *c, const char *const *k) {
    int least = grg_bound(c, k[GRG_MIN_ITEMS], 0), most = grg_bound(c, k[GRG_MAX_ITEMS], -1);
    if (k[GRG_ITEMS] && *k[GRG_ITEMS] == '[') {
        grg_wrong_at(c, k[GRG_ITEMS], "items: a list of schemas (a tuple) is not supported, only "
                     "one schema for all items");
        return;
    }
    int item = k[GRG_ITEMS] ? grg_rule_of(c, k[GRG_ITEMS]) : -1;
    if (most >= 0 && least > most)
        grg_wrong_at(c, k[GRG_MAX_ITEMS], "less than minItems");
    grg_print(c, "\"[\" space ");
    if (most != 0) {
        grg_print(c, "(");
        grg_put_item(c, item);
        grg_print(c, " (\",\" space ");
        grg_put_item(c, item);
        grg_print(c, ")");
        grg_put_repeat(c, least > 0 ? least - 1 : 0, most < 0 ? -1 : most - 1);
        grg_print(c, least > 0 ? " space) " : " space)? ");
    }
    grg_print(c, "\"]\"");
}

static void grg_put_string(grg_schema *c, const char *const *k) {
    int least = grg_bound(c, k[GRG_MIN_LENGTH], 0), most = grg_bound(c, k[GRG_MAX_LENGTH], -1);
    if (most >= 0 && least > most)
        grg_wrong_at(c, k[GRG_MAX_LENGTH], "less than minLength");
    grg_print(c, "\"\\\"\" char");
    grg_put_repeat(c, least, most);
    grg_print(c, " \"\\\"\"");
}

/* ---- integers between bounds ---------------------------------------------------------------- */

#define GRG_LARGEST 999999999999999999      /* 18 digits, as `integer` has */

/* The bound in a keyword, moved by `step`; `absent` without it. */
static int64_t grg_integer_bound(grg_schema *c, const char *value, int64_t step, int64_t absent) {
    int64_t n = 0;
    if (!value) return absent;
    if (!(grg_types_of_value(c, value) & GRG_INTEGER)) {
        grg_wrong_at(c, value, "only whole numbers are supported here");
        return absent;
    }
    for (const char *p = value + (*value == '-'); p < c->end && *p >= '0' && *p <= '9'; p++) {
        if (n > GRG_LARGEST / 10) { grg_wrong_at(c, value, "more than 18 digits"); return absent; }
        n = 10 * n + (*p - '0');
    }
    return (*value == '-' ? -n : n) + step;
}

static void grg_put_digit(grg_schema *c, int low, int high) {
    if (low == high) grg_print(c, "\"%d\" ", low);
    else grg_print(c, "[%d-%d] ", low, high);
}

/* Numbers of `digits` digits from low to high. `power` is 10 to the number of digits behind the
 * first. Calls itself for these, and goes deep in two branches at most. */
static void grg_put_digits(grg_schema *c, int64_t low, int64_t high, int digits, int64_t power) {
    int first = (int)(low / power), last = (int)(high / power);
    int64_t low_rest = low % power, high_rest = high % power;
    if (digits == 1) { grg_put_digit(c, first, last); return; }
    if (low_rest == 0 && high_rest == power - 1) {
        grg_put_digit(c, first, last);
        grg_print(c, "[0-9]{%d} ", digits - 1);
        return;
    }
    if (first == last) {
        grg_put_digit(c, first, first);
        grg_put_digits(c, low_rest, high_rest, digits - 1, power / 10);
        return;
    }
    grg_print(c, "(");
    grg_put_digit(c, first, first);
    grg_put_digits(c, low_rest, power - 1, digits - 1, power / 10);
    if (first + 1 < last) {
        grg_print(c, "| ");
        grg_put_digit(c, first + 1, last - 1);
        grg_print(c, "[0-9]{%d} ", digits - 1);
    }
    grg_print(c, "| ");
    grg_put_digit(c, last, last);
    grg_put_digits(c, 0, high_rest, digits - 1, power / 10);
    grg_print(c, ") ");
}

/* Numbers from low >= 0 to high, by their number of digits. */
static void grg_put_natural(grg_schema *c, int64_t low, int64_t high) {
    const char *between = "";
    int64_t power = 1;
    grg_print(c, "(");
    for (int digits = 1; power <= high && digits <= 18; digits++, power *= 10) {
        int64_t least = digits == 1 ? 0 : power, most = 10 * power - 1;
        if (low > most) continue;
        grg_print(c, between);
        grg_put_digits(c, low > least ? low : least, high < most ? high : most, digits, power);
        between = "| ";
    }
    if (high == 0) grg_print(c, "\"0\"");
    grg_print(c, ")");
}

static void grg_put_integer(grg_schema *c, const char *const *k) {
    int64_t low = grg_integer_bound(c, k[GRG_MINIMUM], 0, -GRG_LARGEST);
    int64_t above = grg_integer_bound(c, k[GRG_ABOVE], 1, -GRG_LARGEST);
    int64_t high = grg_integer_bound(c, k[GRG_MAXIMUM], 0, GRG_LARGEST);
    int64_t below = grg_integer_bound(c, k[GRG_BELOW], -1, GRG_LARGEST);
    const char *at = k[GRG_BELOW] ? k[GRG_BELOW] : k[GRG_MAXIMUM] ? k[GRG_MAXIMUM]
                   : k[GRG_ABOVE] ? k[GRG_ABOVE] : k[GRG_MINIMUM];
    if (!at) { grg_print(c, "integer"); return; }
    if (above > low) low = above;
    if (below < high) high = below;
    if (low > high) grg_wrong_at(c, at, "no whole number is between the bounds");
    if (c->error) return;
    grg_print(c, "(");
    if (low < 0) {
        grg_print(c, "\"-\" ");
        grg_put_natural(c, high < 0 ? -high : 1, -low);
    }
    if (low < 0 && high >= 0) grg_print(c, " | ");
    if (high >= 0) grg_put_natural(c, low > 0 ? low : 0, high);
    grg_print(c, ")");
}

/* ---- formats of strings --------------------------------------------------------------------- */

static void grg_put_format(grg_schema *c, const char *const *k) {
    static const char *const formats[] = { "date", "time", "date-time", "uuid" };
    if (k[GRG_MIN_LENGTH] || k[GRG_MAX_LENGTH])
        grg_wrong_at(c, k[GRG_FORMAT], "format is not supported beside minLength and maxLength");
    for (int i = 0; i < GRG_COUNT(formats); i++) {
        if (*k[GRG_FORMAT] != '"' || !grg_string_is(k[GRG_FORMAT], formats[i])) continue;
        grg_print(c, "\"\\\"\" ");
        grg_print(c, formats[i]);
        grg_print(c, " \"\\\"\"");
        return;
    }
    grg_wrong_at(c, k[GRG_FORMAT], "format: only date, time, date-time and uuid are supported");
}

/* ---- values --------------------------------------------------------------------------------- */

/* Writes a character of a string as one spells it who escapes nothing without need. */
static void grg_put_character(grg_schema *c, const unsigned char *bytes, int n) {
    static const char letters[] = "bfnrt", values[] = "\b\f\n\r\t";
    const char *short_escape = *bytes ? strchr(values, *bytes) : NULL;
    if (short_escape) {
        grg_put_byte(c, '\\');
        grg_put_byte(c, letters[short_escape - values]);
    } else if (*bytes < ' ') {
        grg_print(c, "\\\\u00%d", *bytes / 16);
        grg_put(c, &"0123456789abcdef"[*bytes % 16], 1);
    } else {
        if (*bytes == '"' || *bytes == '\\') grg_put_byte(c, '\\');
        for (int i = 0; i < n; i++) grg_put_byte(c, bytes[i]);
    }
}

/* An escape of a schema may be written as there, or as the character that it means. Returns the
 * end of the escape. */
static const char *grg_put_escape(grg_schema *c, const char *at) {
    grg_string s = grg_string_at(at - 1);
    unsigned char bytes[4];
    int n = 0;
    do bytes[n++] = (unsigned char)grg_next_byte(&s); while (s.used < s.count && n < 4);
    grg_print(c, "\" (\"");
    grg_put_character(c, bytes, n);
    grg_print(c, "\" | \"");
    for (; at < s.at; at++) grg_put_byte(c, (unsigned char)*at);
    grg_print(c, "\") \"");
    return at;
}

/* A value of enum or const, as the schema spells it. */
static void grg_put_value(grg_schema *c, const char *value, unsigned types) {
    if (types && !(types & grg_types_of_value(c, value)))
        grg_wrong_at(c, value, "a value not of the given type");
    grg_print(c, "\"");
    for (const char *end = grg_skip_value(c, value); value < end; ) {
        if (*value == '\\') value = grg_put_escape(c, value);
        else grg_put_byte(c, (unsigned char)*value++);
    }
    grg_print(c, "\"");
}

/* The elements of enum, anyOf or oneOf as alternatives. */
static void grg_put_choice(grg_schema *c, const char *array, int are_values, unsigned types) {
    const char *between = "";
    if (*array != '[') { grg_wrong_at(c, array, "expected an array"); return; }
    for (const char *p = grg_first(c, array); p && !c->error; p = grg_next(c, p), between = " | ") {
        grg_print(c, between);
        if (are_values) grg_put_value(c, p, types);
        else grg_print(c, "s%d", grg_rule_of(c, p));
    }
    if (!*between) grg_wrong_at(c, array, "expected something to choose from");
}

/* ---- regular expressions --------------------------------------------------------------------
 * Characters, . and classes of ASCII, \d \w \s, groups, |, * + ? {m,n}; ^ and $ where the
 * expression begins and ends. The characters " and \ are escaped in the text, and control
 * characters never match. */

#define GRG_MOST_PATTERN 1024

typedef struct grg_pattern { grg_schema *c; const char *quote, *at, *end; int depth; } grg_pattern;

static void grg_wrong_pattern(grg_pattern *p, const char *what) {
    grg_wrong_name(p->c, p->quote, "this regular expression is not supported: ", what,
                   strlen(what));
    p->at = p->end;
}

/* Adds what a letter behind a backslash means to a set of ASCII characters; 0: nothing. */
static int grg_pattern_class(int letter, uint8_t set[128]) {
    static const char *const members[] = {
        "0123456789", "_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", " "
    };
    int k = letter == 'd' ? 0 : letter == 'w' ? 1 : letter == 's' ? 2 : -1;
    if (k < 0) return 0;
    for (const char *m = members[k]; *m; m++) set[(int)*m] = 1;
    return 1;
}

/* Is this an escape that stands for the character itself? */
static int grg_pattern_plain(int c) { return c && strchr("^$\\.*+?()[]{}|/-\"'`~!@#%&=:;,<> ", c); }

/* Any of the set; and of what is not ASCII, if `others`. */
static void grg_put_pattern_set(grg_pattern *p, const uint8_t set[128], int others) {
    int quote = set[(int)'"'], backslash = set[(int)'\\'];
    int any = others;
    for (int i = ' '; i < 128; i++) any |= set[i] && i != '"' && i != '\\';
    grg_print(p->c, "(");
    if (any) {
        grg_print(p->c, "[");
        for (int i = ' '; i < 128; i++) {
            char hex[5] = { '\\', 'x', "0123456789ABCDEF"[i / 16], "0123456789ABCDEF"[i % 16], 0 };
            if (set[i] && i != '"' && i != '\\') grg_print(p->c, hex);
        }
        grg_print(p->c, others ? "\\u0080-\\U0010FFFF]" : "]");
    }
    if (quote) grg_print(p->c, any ? " | \"\\\\\\\"\"" : "\"\\\\\\\"\"");
    if (backslash) grg_print(p->c, any || quote ? " | \"\\\\\\\\\"" : "\"\\\\\\\\\"");
    if (!any && !quote && !backslash) grg_wrong_pattern(p, "a class of nothing");
    grg_print(p->c, ")");
}

static void grg_pattern_brackets(grg_pattern *p) {      /* behind the [ */
    uint8_t set[128];
    int negated = p->at < p->end && *p->at == '^';
    memset(set, 0, sizeof set);
    for (p->at += negated; p->at < p->end && *p->at != ']'; ) {
        int low = (unsigned char)*p->at++;
        if (low == '\\' && p->at < p->end) {
            low = (unsigned char)*p->at++;
            if (grg_pattern_class(low, set)) continue;
            if (!grg_pattern_plain(low)) { grg_wrong_pattern(p, "an escape in a class"); return; }
        }
        int high = low;
        if (p->end - p->at >= 2 && *p->at == '-' && p->at[1] != ']' && p->at[1] != '\\') {
            high = (unsigned char)p->at[1];
            p->at += 2;
        }
        if (low < ' ' || high > 127 || high < low) { grg_wrong_pattern(p, "a range"); return; }
        for (; low <= high; low++) set[low] = 1;
    }
    if (p->at == p->end) { grg_wrong_pattern(p, "a class without an end"); return; }
    p->at++;
    for (int i = 0; i < 128 && negated; i++) set[i] = !set[i];
    grg_put_pattern_set(p, set, negated);
}

static void grg_pattern_choice(grg_pattern *p);

static void grg_pattern_group(grg_pattern *p) {         /* behind the ( */
    if (p->end - p->at >= 2 && p->at[0] == '?') {
        if (p->at[1] != ':') { grg_wrong_pattern(p, "(?"); return; }
        p->at += 2;
    }
    if (++p->depth > 20) { grg_wrong_pattern(p, "deeper groups"); return; }
    grg_print(p->c, "(");
    grg_pattern_choice(p);
    grg_print(p->c, ")");
    p->depth--;
    if (p->at == p->end) grg_wrong_pattern(p, "a group without an end");
    else p->at++;
}

static void grg_pattern_atom(grg_pattern *p) {
    uint8_t set[128];
    int b = (unsigned char)*p->at++;
    memset(set, 0, sizeof set);
    if (b == '[') { grg_pattern_brackets(p); return; }
    if (b == '(') { grg_pattern_group(p); return; }
    if (b == '.') {
        memset(&set[(int)' '], 1, 128 - ' ');
        grg_put_pattern_set(p, set, 1);
        return;
    }
    if (strchr("*+?{}^$]", b) && b) { grg_wrong_pattern(p, "a sign in this place"); return; }
    if (b == '\\') {
        b = p->at < p->end ? (unsigned char)*p->at++ : 0;
        if (grg_pattern_class(b, set)) { grg_put_pattern_set(p, set, 0); return; }
        if (!grg_pattern_plain(b)) { grg_wrong_pattern(p, "this escape"); return; }
    }
    if (b < ' ') { grg_wrong_pattern(p, "a control character"); return; }
    if (b < 0x80) { set[b] = 1; grg_put_pattern_set(p, set, 0); return; }
    grg_print(p->c, "\"");
    grg_put_byte(p->c, b);
    while (p->at < p->end && (*p->at & 0xC0) == 0x80) grg_put_byte(p->c, (unsigned char)*p->at++);
    grg_print(p->c, "\"");
}

static void grg_pattern_repeat(grg_pattern *p) {
    const char *end = p->at + 1;
    if (p->at == p->end || !*p->at || !strchr("*+?{", *p->at)) { grg_print(p->c, " "); return; }
    if (*p->at == '{') {
        while (end < p->end && ((*end >= '0' && *end <= '9') || *end == ',')) end++;
        if (end == p->end || *end != '}') { grg_wrong_pattern(p, "these braces"); return; }
        end++;
    }
    grg_put(p->c, p->at, (size_t)(end - p->at));
    grg_print(p->c, " ");
    p->at = end + (end < p->end && *end == '?');        /* what it prefers makes no difference */
}

/* Alternatives. At the outermost level each may start with ^ and end with $. */
static void grg_pattern_choice(grg_pattern *p) {
    for (;;) {
        int starts = p->at < p->end && *p->at == '^' && !p->depth, ends = 0;
        p->at += starts;
        if (!starts && !p->depth) grg_print(p->c, "char* ");
        grg_print(p->c, "\"\" ");
        while (p->at < p->end && *p->at != '|' && *p->at != ')' && !ends) {
            ends = *p->at == '$' && !p->depth && (p->at + 1 == p->end || p->at[1] == '|');
            if (ends) { p->at++; break; }
            grg_pattern_atom(p);
            grg_pattern_repeat(p);
        }
        if (!ends && !p->depth) grg_print(p->c, "char* ");
        if (p->at < p->end && *p->at == ')' && !p->depth) grg_wrong_pattern(p, "a lone )");
        if (p->at == p->end || *p->at != '|') return;
        grg_print(p->c, "| ");
        p->at++;
    }
}

static void grg_put_pattern(grg_schema *c, const char *const *k) {
    char text[GRG_MOST_PATTERN];
    grg_pattern p = { c, k[GRG_PATTERN], text, text, 0 };
    int n = 0;
    if (*p.quote != '"') { grg_wrong_at(c, p.quote, "pattern: expected a text"); return; }
    if (k[GRG_MIN_LENGTH] || k[GRG_MAX_LENGTH] || k[GRG_FORMAT])
        grg_wrong_at(c, p.quote, "pattern is not supported beside minLength, maxLength and format");
    grg_string s = grg_string_at(p.quote);
    for (int b = grg_next_byte(&s); b >= 0; b = grg_next_byte(&s)) {
        if (n == GRG_MOST_PATTERN) { grg_wrong_at(c, p.quote, "pattern: too long"); return; }
        text[n++] = (char)b;
    }
    p.end = text + n;
    grg_print(c, "\"\\\"\" (");
    grg_pattern_choice(&p);
    grg_print(c, ") \"\\\"\"");
}

/* ---- schemas -------------------------------------------------------------------------------- */

static void grg_put_types(grg_schema *c, int rule, unsigned types, const char *const *k) {
    const char *between = "";
    if (types & GRG_NUMBER) types &= ~(unsigned)GRG_INTEGER;
    for (int i = 0; i < GRG_COUNT(grg_type_names); i++) {
        if (!(types >> i & 1)) continue;
        grg_print(c, between);
        between = " | ";
        switch (1 << i) {
        case GRG_OBJECT: grg_put_object(c, rule, k); break;
        case GRG_ARRAY:  grg_put_array(c, k); break;
        case GRG_STRING:
            if (k[GRG_PATTERN]) grg_put_pattern(c, k);
            else if (k[GRG_FORMAT]) grg_put_format(c, k);
            else grg_put_string(c, k);
            break;
        case GRG_INTEGER: grg_put_integer(c, k); break;
        case GRG_NUMBER:
            for (int b = GRG_MINIMUM; b <= GRG_BELOW; b++)
                if (k[b]) grg_wrong_at(c, k[b], "bounds are only supported for type integer");
            grg_print(c, "number");
            break;
        default: grg_print(c, grg_type_names[i]); break;
        }
    }
}

static void grg_find_keywords(grg_schema *c, const char *schema, const char **k) {
    for (const char *name = grg_first(c, schema), *value; name; name = grg_next(c, value)) {
        int i = 0, skipped = 0;
        value = grg_value_of(c, name);
        for (int a = 0; a < GRG_COUNT(grg_annotations); a++)
            skipped |= grg_string_is(name, grg_annotations[a]);
        if (skipped) continue;
        while (i < GRG_KEYWORDS && !grg_string_is(name, grg_keyword_names[i])) i++;
        if (i == GRG_KEYWORDS) grg_wrong_string(c, name, "this keyword is not supported: ", name);
        else k[i] = value;
        if (c->error) return;
    }
}

/* What a rule says, and the rules that only it needs. */
static void grg_put_schema(grg_schema *c, int rule, const char *schema) {
    const char *k[GRG_KEYWORDS];
    memset(k, 0, sizeof k);
    c->n_properties = -1;
    grg_print(c, "s%d ::= ", rule);
    if (*schema == '{') grg_find_keywords(c, schema, k);
    else if (*schema != 't')
        grg_wrong_at(c, schema, "expected a schema that allows something");
    if (c->error) return;
    unsigned types = grg_types(c, k);
    for (int b = GRG_MINIMUM; b <= GRG_BELOW; b++)
        if (k[b] && !(types & (GRG_INTEGER | GRG_NUMBER)))
            grg_wrong_at(c, k[b], "bounds are only supported for type integer");
    grg_check_alone(c, k);
    if (c->error) return;
    if (k[GRG_REF]) grg_print(c, "s%d", grg_rule_of(c, grg_resolve(c, k[GRG_REF])));
    else if (k[GRG_CONST]) grg_put_value(c, k[GRG_CONST], types);
    else if (k[GRG_ENUM]) grg_put_choice(c, k[GRG_ENUM], 1, types);
    else if (k[GRG_ANY_OF]) grg_put_choice(c, k[GRG_ANY_OF], 0, 0);
    else if (k[GRG_ONE_OF]) grg_put_choice(c, k[GRG_ONE_OF], 0, 0);
    else if (types) grg_put_types(c, rule, types, k);
    else grg_print(c, "value");
    grg_print(c, "\n");
    if (c->n_properties >= 0) grg_put_properties(c, rule);
}

static const char grg_common_rules[] =
    "space ::= \" \"?\n"
    "value ::= object | array | string | number | boolean | null\n"
    "object ::= \"{\" space (string \":\" space value (\",\" space string \":\" space value)* "
        "space)? \"}\"\n"
    "array ::= \"[\" space (value (\",\" space value)* space)? \"]\"\n"
    "string ::= \"\\\"\" char* \"\\\"\"\n"
    "char ::= [^\"\\\\\\x00-\\x1F] | \"\\\\\" ([\"\\\\/bfnrt] | \"u\" code)\n"
    "code ::= [0-9a-cefA-CEF] hex{3} | [dD] [0-7] hex{2}\n"      /* no half of a surrogate pair */
    "hex ::= [0-9a-fA-F]\n"
    "integer ::= \"-\"? (\"0\" | [1-9] [0-9]{0,17})\n"
    "number ::= integer (\".\" [0-9]{1,17})? ([eE] [-+]? [0-9]{1,2})?\n"
    "date ::= [0-9]{4} \"-\" ("
        "(\"0\" [13578] | \"1\" [02]) \"-\" ([0-2] [1-9] | [1-3] \"0\" | \"31\") | "
        "(\"0\" [469] | \"11\") \"-\" ([0-2] [1-9] | [1-3] \"0\") | "
        "\"02-\" ([01] [1-9] | [12] \"0\" | \"2\" [1-8])) | leap \"-02-29\"\n"
    "leap ::= [0-9]{2} (\"0\" [48] | [2468] [048] | [13579] [26]) | "
        "([02468] [048] | [13579] [26]) \"00\"\n"
    "time ::= ([01] [0-9] | \"2\" [0-3]) \":\" [0-5] [0-9] \":\" [0-5] [0-9] "
        "(\".\" [0-9]{1,9})? (\"Z\" | [-+] ([01] [0-9] | \"2\" [0-3]) \":\" [0-5] [0-9])\n"
    "date-time ::= date \"T\" time\n"
    "uuid ::= hex{8} \"-\" hex{4} \"-\" hex{4} \"-\" hex{4} \"-\" hex{12}\n"
    "boolean ::= \"true\" | \"false\"\n"
    "null ::= \"null\"\n";

static int grg_convert_schema(grg_schema *c) {
    c->at = c->text;
    grg_check_value(c, 0);
    grg_json_peek(c);
    if (c->at < c->end) grg_not_json(c, "text after the value");
    if (c->error) return c->error;
    c->is_json = 1;
    grg_print(c, "root ::= s0\n");
    grg_rule_of(c, grg_skip_space(c, c->text));
    for (int rule = 0; rule < c->n_rules && !c->error; rule++) {
        c->rule_starts[rule] = c->length;
        grg_put_schema(c, rule, c->rules[rule]);
    }
    grg_put(c, grg_common_rules, sizeof grg_common_rules - 1);
    return c->error;
}

/* What is wrong with the grammar is wrong with the schema whose rule has the place. */
static int grg_translate(void *user, uint32_t at, const char *what) {
    static const char *const large[] = {
        "maxLength", "maxItems", "minLength", "minItems", "pattern", "enum", "anyOf", "oneOf"
    };
    grg_schema *c = (grg_schema *)user;
    int rule = c->n_rules - 1;
    while (rule > 0 && c->rule_starts[rule] > at) rule--;
    const char *schema = c->rules[rule], *culprit = NULL;
    for (int i = 0; i < GRG_COUNT(large) && !culprit && *schema == '{'; i++)
        culprit = grg_find_keyword(c, schema, large[i]);
    if (!strncmp(what, "left", 4))
        grg_wrong_at(c, schema, "this schema leads back to itself before it describes anything");
    else if (!strncmp(what, "no text", 7))
        grg_wrong_at(c, schema, "this schema requires itself, so no text of it comes to an end");
    else
        grg_wrong_name(c, culprit ? culprit : schema, "too much for one schema: ",
                       what, strlen(what));
    return c->error;
}

/* ================================================================= >>public */

static int grg_keep_program(griffin_grammar *g, const grg_compiler *c) {
    uint64_t codes = (uint64_t)(c->n_codes + c->n_rows), rows = (uint64_t)c->n_rows;
    g->codes  = (grg_code *)grg_grammar_allocate(g, codes, sizeof *g->codes);
    g->rests  = (uint32_t *)grg_grammar_allocate(g, codes, sizeof *g->rests);
    g->rows   = (uint16_t (*)[64])grg_grammar_allocate(g, rows, sizeof *g->rows);
    g->set_of = (uint16_t *)grg_grammar_allocate(g, codes, sizeof *g->set_of);
    if (!g->codes || !g->rests || !g->rows || !g->set_of) return GRIFFIN_E_MEMORY;
    memcpy(g->codes, c->codes, (size_t)codes * sizeof *g->codes);
    memcpy(g->rests, c->rests, (size_t)codes * sizeof *g->rests);
    memcpy(g->rows, c->rows, (size_t)rows * sizeof *g->rows);
    memset(g->set_of, 0, (size_t)codes * sizeof *g->set_of);
    g->n_codes = c->n_codes;
    g->n_rows  = c->n_rows;
    g->root    = c->rule;
    return GRIFFIN_OK;
}

static int grg_check_length(const griffin_grammar *g, const char *what, size_t length) {
    if (length <= GRG_MOST_TEXT) return GRIFFIN_OK;
    return grg_fail(&g->hooks, GRIFFIN_E_FORMAT, "%s: %u bytes, at most %d are read", what,
                    (uint64_t)length, GRG_MOST_TEXT);
}

static int grg_read_rules_of(griffin_grammar *g, const char *text, size_t length,
                             grg_translator *translate, void *user) {
    grg_compiler *c = (grg_compiler *)grg_allocate(&g->hooks, sizeof *c);
    if (!c) return GRIFFIN_E_MEMORY;
    memset(c, 0, sizeof *c);
    c->hooks = &g->hooks;
    c->translate = translate;
    c->translate_user = user;
    c->text = text;
    c->length = (uint32_t)length;
    g->id = grg_hash(text, length);
    int error = grg_compile(c);
    if (!error) error = grg_keep_program(g, c);
    grg_release(&g->hooks, c);
    return error;
}

static int grg_read_grammar(griffin_grammar *g, const char *text, size_t length) {
    int error = grg_check_length(g, "grammar", length);
    return error ? error : grg_read_rules_of(g, text, length, NULL, NULL);
}

static int grg_read_schema(griffin_grammar *g, const char *text, size_t length) {
    int error = grg_check_length(g, "schema", length);
    if (error) return error;
    grg_schema *c = (grg_schema *)grg_allocate(&g->hooks, sizeof *c);
    if (!c) return GRIFFIN_E_MEMORY;
    c->hooks = &g->hooks;
    c->text = text;
    c->end = text + length;
    if (length >= 3 && !memcmp(text, "\xEF\xBB\xBF", 3)) c->text += 3;   /* a BOM */
    c->error = c->n_rules = c->n_properties = c->is_json = 0;
    c->length = 0;
    error = grg_convert_schema(c);
    if (!error) error = grg_read_rules_of(g, c->grammar, c->length, grg_translate, c);
    grg_release(&g->hooks, c);
    return error;
}

/* Allocator and logger of the options or, where these have none, of the model. */
static griffin_options grg_hooks(const griffin_info *info, const griffin_options *options) {
    griffin_options hooks;
    memset(&hooks, 0, sizeof hooks);
    hooks.allocator = info->allocator;
    hooks.logger    = info->logger;
    if (!options) return hooks;
    if (options->allocator.allocate) hooks.allocator = options->allocator;
    if (options->logger.message) hooks.logger = options->logger;
    hooks.error      = options->error;
    hooks.error_size = options->error_size;
    return hooks;
}

typedef int grg_reader(griffin_grammar *g, const char *text, size_t length);

static int grg_open(griffin_grammar **grammar, const griffin_model *model, const char *text,
                    size_t length, const griffin_options *options, grg_reader *read,
                    const char *function) {
    if (grammar) *grammar = NULL;
    if (!model) return GRIFFIN_E_ARGUMENT;
    const griffin_info *info = griffin_get_info(model);
    griffin_options hooks = grg_hooks(info, options);
    if (!info->tokens)
        return grg_fail(&hooks, GRIFFIN_E_VOCABULARY, "%s: the model has no vocabulary", function);
    if (!grammar || (!text && length))
        return grg_fail(&hooks, GRIFFIN_E_ARGUMENT, "%s: argument out of range", function);
    griffin_grammar *g = (griffin_grammar *)grg_allocate(&hooks, sizeof *g);
    if (!g) return GRIFFIN_E_MEMORY;
    memset(g, 0, sizeof *g);
    g->model = model;
    g->info  = info;
    g->hooks = hooks;
    g->size  = sizeof *g;
    int error = read(g, text ? text : "", length);
    if (!error) error = grg_build_trie(g);
    if (!error) error = grg_build_cache(g);
    g->hooks.error = NULL;                  /* the caller's text may be gone after opening */
    if (error) griffin_grammar_close(g);
    else *grammar = g;
    return error;
}

GRIFFIN_GRAMMAR_API int griffin_grammar_open(griffin_grammar **grammar, const griffin_model *model,
                                             const char *text, size_t length,
                                             const griffin_options *options) {
    return grg_open(grammar, model, text, length, options, grg_read_grammar,
                    "griffin_grammar_open");
}

GRIFFIN_GRAMMAR_API int griffin_grammar_open_schema(griffin_grammar **grammar,
                                                    const griffin_model *model,
                                                    const char *schema, size_t length,
                                                    const griffin_options *options) {
    return grg_open(grammar, model, schema, length, options, grg_read_schema,
                    "griffin_grammar_open_schema");
}

GRIFFIN_GRAMMAR_API void griffin_grammar_close(griffin_grammar *g) {
    if (!g) return;
    griffin_options hooks = g->hooks;
    for (int i = 0; i < g->n_sets; i++) grg_release(&hooks, g->sets[i].ranges);
    grg_release(&hooks, g->codes);
    grg_release(&hooks, g->rests);
    grg_release(&hooks, g->rows);
    grg_release(&hooks, g->set_of);
    grg_release(&hooks, g->trie);
    grg_release(&hooks, g->order);
    grg_release(&hooks, g->partners);
    grg_release(&hooks, g->merging);
    grg_release(&hooks, g);
}

GRIFFIN_GRAMMAR_API uint64_t griffin_grammar_size(const griffin_grammar *g) {
    return g ? g->size : 0;
}

/* The walk is scratch. */
static int grg_mask(grg_walk *w, const griffin_grammar *g, const griffin_grammar_state *state,
                    float *logits) {
    float kept[2] = { 0, 0 };
    int banned = 0;
    if (!g) return GRIFFIN_E_ARGUMENT;
    if (!state || !logits) return grg_fail(&g->hooks, GRIFFIN_E_ARGUMENT, "grammar: null pointer");
    int error = grg_check_state(g, state, "griffin_grammar_mask");
    if (error) return error;
    const griffin_info *info = g->info;
    int32_t ends[2] = { info->eos, info->end_of_turn == info->eos ? -1 : info->end_of_turn };
    for (int i = 0; i < 2; i++) if (ends[i] >= 0) kept[i] = logits[ends[i]];
    grg_walk_start(w, g, logits, NULL);
    int may_end = grg_may_end(&w->t, g, state) && !state->leading;
    w->t.full = w->t.deep = 0;
    int remaining = state->leading ? grg_mask_lead(w, state->lead, state->leading)
                                   : grg_mask_text(w, state);
    for (int i = (int)g->n_numbered; i < info->tokens; i++) logits[g->order[i]] = -INFINITY;
    for (int i = info->tokens; i < info->config.vocab; i++) logits[i] = -INFINITY;
    for (int i = 0; i < 2; i++) {
        if (!may_end || ends[i] < 0) continue;
        logits[ends[i]] = kept[i];
        if (kept[i] != -INFINITY) remaining++;
        else banned++;                      /* by the caller: it is no way out */
    }
    if (remaining > 1) remaining = grg_prefer(w, g, state, logits, remaining);
    remaining += banned;
    if (remaining) return remaining;
    return grg_fail(&g->hooks, GRIFFIN_E_NO_TOKEN, "griffin_grammar_mask: %s",
                    state->ended ? "the text has ended"
                    : may_end ? "the text is complete, and the model has no token to end it"
                    : "no token of the vocabulary can continue the text");
}

GRIFFIN_GRAMMAR_API int griffin_grammar_mask(const griffin_grammar *g,
                                             const griffin_grammar_state *state, float *logits) {
    grg_walk w;
    return grg_mask(&w, g, state, logits);
}

GRIFFIN_GRAMMAR_API int griffin_grammar_accept(const griffin_grammar *g,
                                               griffin_grammar_state *state, int32_t token) {
    grg_threads t;
    if (!g) return GRIFFIN_E_ARGUMENT;
    if (!state || token < 0 || token >= g->info->tokens)
        return grg_fail(&g->hooks, GRIFFIN_E_ARGUMENT, "griffin_grammar_accept: argument out of "
                        "range");
    int moved = grg_check_state(g, state, "griffin_grammar_accept");
    if (moved < 0) return moved;
    griffin_grammar_state s = *state;
    moved = grg_accept_token(&t, g, &s, token);
    if (moved == 0)
        return grg_fail(&g->hooks, GRIFFIN_E_ARGUMENT, "griffin_grammar_accept: token %d cannot "
                        "follow", (int)token);
    if (moved < 0)
        return grg_fail(&g->hooks, moved, "griffin_grammar_accept: token %d leads into more than "
                        "%d rules", (int)token, GRG_DEEPEST);
    int may_end = s.ended || (!s.leading && grg_may_end(&t, g, &s));
    if (!s.ended && !s.leading) s.narrowed = (uint16_t)(s.narrowed | t.full);
    *state = s;
    return may_end;
}

GRIFFIN_GRAMMAR_API int griffin_grammar_lead(const griffin_grammar *g,
                                             griffin_grammar_state *state,
                                             const char *text, size_t length) {
    if (!g) return GRIFFIN_E_ARGUMENT;
    if (!state || (!text && length) || length > GRIFFIN_HEAL_BYTES || state->grammar
        || state->leading)
        return grg_fail(&g->hooks, GRIFFIN_E_ARGUMENT, "griffin_grammar_lead: at most %d bytes, "
                        "for a fresh state", GRIFFIN_HEAL_BYTES);
    if (length) memcpy(state->lead, text, length);
    state->leading = (uint32_t)length;
    return GRIFFIN_OK;
}

/* Can one byte alone follow, and the text not end? It takes much less time than a mask. */
static int grg_is_forced(grg_threads *t, const griffin_grammar *g,
                         const griffin_grammar_state *state) {
    char text[GRG_MOST_FORCED];
    int complete, threads = grg_resume(t, g, state);
    return grg_forced_text(t, threads, text, GRG_MOST_FORCED - 1, &complete) == GRG_MOST_FORCED;
}

/* The only token that a mask leaves; -1: there are others, or none. */
static int32_t grg_forced_token(grg_walk *w, const griffin_grammar *g,
                                const griffin_grammar_state *state,
                                const griffin_sampler *sampler, float *logits) {
    int32_t only = -1;
    int vocab = g->info->config.vocab;
    if (state->leading || !grg_is_forced(&w->t, g, state)) return -1;
    memset(logits, 0, (size_t)vocab * sizeof *logits);
    for (int i = 0; i < sampler->bias_count; i++)
        if (sampler->biases[i].token >= 0 && sampler->biases[i].token < vocab)
            logits[sampler->biases[i].token] += sampler->biases[i].bias;
    if (grg_mask(w, g, state, logits) < 0) return -1;
    for (int i = 0; i < vocab; i++) {
        if (logits[i] == -INFINITY) continue;
        if (only >= 0) return -1;
        only = i;
    }
    return only;
}

GRIFFIN_GRAMMAR_API int griffin_grammar_guess(const griffin_grammar *g,
                                              const griffin_grammar_state *state,
                                              const griffin_sampler *sampler, float *scratch,
                                              griffin_guess *guess) {
    grg_walk w;
    if (!g) return GRIFFIN_E_ARGUMENT;
    if (!state || !sampler || !scratch || !guess)
        return grg_fail(&g->hooks, GRIFFIN_E_ARGUMENT, "griffin_grammar_guess: null pointer");
    if (guess->model != g->model)
        return grg_fail(&g->hooks, GRIFFIN_E_MISMATCH, "griffin_grammar_guess: the grammar is of "
                        "another model");
    int error = grg_check_state(g, state, "griffin_grammar_guess"), count = 0;
    if (error) return error;
    griffin_grammar_state at = *state;
    for (; !at.ended; count++) {
        int32_t token = grg_forced_token(&w, g, &at, sampler, scratch);
        if (token < 0 || griffin_guess_add(guess, token, NULL) != 1
            || grg_accept_token(&w.t, g, &at, token) <= 0) break;
    }
    return count;
}

#endif /* GRIFFIN_GRAMMAR_IMPLEMENTATION */
