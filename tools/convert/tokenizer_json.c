/* tokenizer_json.c - reads the tokenizer.json of Hugging Face's fast tokenizers.
 *
 * It reads BPE made from SentencePiece models, where spaces become U+2581 by a normalizer (Replace,
 * perhaps with Prepend) or by a pre_tokenizer (Metaspace), and byte-level BPE with the words of
 * GPT-2, SmolLM, Llama 3 and Qwen 2. It refuses by name whatever would change the tokens in another
 * way. */

#include "tokenizer_json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../shared/json.h"

#define SPACE "\xE2\x96\x81"                /* U+2581 */

enum { STEPS = 16 };

/* A special token of a template, and its id as the template gives it. */
typedef struct template_token { slice text; int id; } template_token;

/* Tokens before or after the text of a template. */
typedef struct template_row { slice texts[VOCABULARY_AROUND]; int count; } template_row;

/* An entry of added_tokens. */
typedef struct added_token { slice text; int is_normalized; } added_token;

typedef struct reader {
    json        j;
    vocabulary *v;
    const char *path, *part;                /* the file, and which part of it is being read */
    int         assume_nfc;                 /* of the options */
    report     *r;
    slice       unknown;                    /* its text; empty: none */
    int         byte_fallback, fuse_unknown;
    char        steps[STEPS + 1];           /* of this part: a letter for each, see step_letters */
    char        normaliser[STEPS + 1], pre_tokenizer[STEPS + 1], decoder[STEPS + 1];
    int         decoder_strips;             /* the space at the start of a text */
    const char *expression;                 /* which the pre_tokenizer splits by; null: none */
    template_row before, after;
    template_token template_tokens[STEPS];
    int         template_count;
    added_token *added;
    size_t      added_count, added_room, added_bytes;
} reader;

static int wrong(reader *in, const char *name, const char *what) {
    if (in->j.kind == JSON_ERROR) return report_fail(in->r, "%s: %s", in->path, in->j.error);
    return report_fail(in->r, "%s: %s: %s: %s", in->path, in->part, name, what);
}

/* ---- parts of the file, by rules ----------------------------------------------------------
 * A rule allows a member of a part, at any depth. It has a function that reads the value, or a list
 * of allowed values "one|two", or neither if the member has no influence. Scalar members without a
 * rule are refused; objects and arrays without a rule are walked through. */

typedef struct rule {
    const char *key, *allowed;
    int (*take)(reader *in);
    unsigned seen;                          /* bit i: the i-th allowed value occurred */
} rule;

/* Returns the number of a word in "one|two|three", or -1. */
static int word_number(const char *words, const char *word, size_t length) {
    for (int i = 0;; i++) {
        size_t n = strcspn(words, "|");
        if (n == length && memcmp(words, word, n) == 0) return i;
        if (!words[n]) return -1;
        words += n + 1;
    }
}

static int take_allowed(reader *in, rule *of) {
    const char *text = in->j.text;
    size_t length = in->j.length;
    char name[80], digits[32];
    snprintf(digits, sizeof digits, "%.9g", in->j.number);
    switch (in->j.kind) {
    case JSON_STRING: break;
    case JSON_TRUE: text = "true"; break;
    case JSON_FALSE: text = "false"; break;
    case JSON_NULL: text = "null"; break;
    case JSON_INT: case JSON_FLOAT: text = digits; break;
    default: return wrong(in, of->key, "unexpected value");
    }
    if (in->j.kind != JSON_STRING) length = strlen(text);
    int number = word_number(of->allowed, text, length);
    if (number >= 0) { of->seen |= 1u << number; return 0; }
    const char *shown = report_name(text, length, name);
    return report_fail(in->r, "%s: %s: %s '%s' is not supported", in->path, in->part, of->key,
                       shown);
}

/* The current token is a key. Afterwards it is the last token of its value, or the first token of a
 * container that the caller walks through (then it returns 1). */
static int take_member(reader *in, rule *rules) {
    rule *of = rules;
    char name[80];
    while (of->key && !json_text_is(&in->j, of->key)) of++;
    report_name(in->j.text, in->j.length, name);
    json_next(&in->j);
    if (of->key && of->take) return of->take(in);
    if (of->key && of->allowed) return take_allowed(in, of);
    if (of->key) return json_skip(&in->j) == 0 ? 0 : wrong(in, name, "unexpected value");
    if (in->j.kind == JSON_OBJECT || in->j.kind == JSON_ARRAY) return 1;
    return wrong(in, name, "not supported");
}

/* Walks through the value that starts at the current token. */
static int walk(reader *in, rule *rules) {
    int depth = 0, status = 0;
    for (;;) {
        switch (in->j.kind) {
        case JSON_OBJECT: case JSON_ARRAY: depth++; break;
        case JSON_OBJECT_END: case JSON_ARRAY_END: depth--; break;
        case JSON_KEY: status = take_member(in, rules); break;
        case JSON_ERROR: case JSON_END: return wrong(in, "the file", "ends early");
        default: break;
        }
        if (status < 0) return -1;
        if (depth == 0) return 0;
        if (status == 0) json_next(&in->j);
        status = 0;
    }
}

/* ---- pieces --------------------------------------------------------------------------------- */

/* With type 0 the piece keeps the type that it has. */
static int add_piece(reader *in, slice text, uint64_t id, int type) {
    piece *p = vocabulary_at(in->v, id < VOCABULARY_LIMIT ? (size_t)id : VOCABULARY_LIMIT);
    if (!p) return wrong(in, "id", "too large, or out of memory");
    if (p->text.length
        && (p->text.length != text.length
            || memcmp(in->v->text + p->text.at, in->v->text + text.at, text.length) != 0))
        return wrong(in, "id", "two texts share one");
    p->text = text;
    if (type) p->type = type;
    return 0;
}

/* Those that are normalized are compared with all others, so they must not be endless. */
static int remember_added(reader *in, slice text, int is_normalized) {
    in->added_bytes += text.length;
    if (in->added_bytes > 1 << 20) return wrong(in, "texts", "more than 1 MiB in all");
    if (in->added_count == in->added_room) {
        size_t room = 2 * in->added_room + 64;
        added_token *list = (added_token *)realloc(in->added, room * sizeof *list);
        if (!list) return wrong(in, "an entry", "out of memory");
        in->added = list;
        in->added_room = room;
    }
    in->added[in->added_count].text = text;
    in->added[in->added_count++].is_normalized = is_normalized;
    return 0;
}

static int take_added_token(reader *in) {
    rule rules[] = {{"single_word", "false", 0, 0},  {"lstrip", "false", 0, 0},
                    {"rstrip", "false", 0, 0},       {"normalized", "false|true", 0, 0},
                    {"special", "false|true", 0, 0}, {0, 0, 0, 0}};
    slice text = {0, 0};
    uint64_t id = VOCABULARY_LIMIT;
    while (json_next(&in->j) == JSON_KEY) {
        int is_id = json_text_is(&in->j, "id"), is_content = json_text_is(&in->j, "content");
        if (!is_id && !is_content) {
            int status = take_member(in, rules);
            if (status != 0) return status < 0 ? -1 : wrong(in, "an entry", "not supported");
            continue;
        }
        json_next(&in->j);
        if (is_id && in->j.kind == JSON_INT && in->j.is_natural) id = in->j.natural;
        if (is_content && in->j.kind == JSON_STRING)
            text = vocabulary_keep(in->v, in->j.text, in->j.length);
    }
    if (in->j.kind != JSON_OBJECT_END || !text.length) return wrong(in, "an entry", "no content");
    if (remember_added(in, text, (rules[3].seen & 2) != 0) != 0) return -1;
    return add_piece(in, text, id,
                     rules[4].seen & 2 ? GRIFFIN_TOKEN_CONTROL : GRIFFIN_TOKEN_USER_DEFINED);
}

static int take_added(reader *in) {
    in->part = "added_tokens";
    if (in->j.kind == JSON_NULL) return 0;
    if (in->j.kind != JSON_ARRAY) return wrong(in, "value", "not a list");
    while (json_next(&in->j) == JSON_OBJECT) if (take_added_token(in) != 0) return -1;
    return in->j.kind == JSON_ARRAY_END ? 0 : wrong(in, "value", "not a list of objects");
}

static int take_vocab(reader *in) {
    if (in->j.kind != JSON_OBJECT) return wrong(in, "vocab", "not an object");
    while (json_next(&in->j) == JSON_KEY) {
        slice text = vocabulary_keep(in->v, in->j.text, in->j.length);
        json_next(&in->j);
        if (in->j.kind != JSON_INT || !in->j.is_natural)
            return wrong(in, "vocab", "an id is no number");
        if (add_piece(in, text, in->j.natural, 0) != 0) return -1;
    }
    return in->j.kind == JSON_OBJECT_END ? 0 : wrong(in, "vocab", "not an object");
}

/* A merge is "left right" or ["left", "right"]. The library refuses parts that hold a space. */
static int take_merges(reader *in) {
    if (in->j.kind != JSON_ARRAY) return wrong(in, "merges", "not a list");
    for (json_next(&in->j); in->j.kind == JSON_STRING || in->j.kind == JSON_ARRAY;
         json_next(&in->j)) {
        slice right;
        int pair = in->j.kind == JSON_ARRAY;
        if (pair && json_next(&in->j) != JSON_STRING)
            return wrong(in, "merges", "not a pair of texts");
        slice merge = vocabulary_keep(in->v, in->j.text, in->j.length);
        if (pair) {
            if (json_next(&in->j) != JSON_STRING) return wrong(in, "merges", "not a pair of texts");
            vocabulary_keep(in->v, " ", 1);
            right = vocabulary_keep(in->v, in->j.text, in->j.length);
            if (json_next(&in->j) != JSON_ARRAY_END)
                return wrong(in, "merges", "not a pair of texts");
            merge.length += 1 + right.length;
        }
        vocabulary_add_merge(in->v, merge);
    }
    return in->j.kind == JSON_ARRAY_END ? 0 : wrong(in, "merges", "not a list of pairs");
}

/* ---- the parts ------------------------------------------------------------------------------
 * Most parts are one step or a Sequence of them. A part is read into one letter for each step, and
 * only the rows of letters that are listed are done as they ask. */

static const struct { const char *type; char letter; } step_letters[] = {
    {"Replace", 'R'}, {"Prepend", 'P'}, {"Split", 'S'}, {"ByteLevel", 'L'}, {"ByteFallback", 'B'},
    {"Fuse", 'F'}, {"Strip", 'T'}, {"TemplateProcessing", 'M'}, {"Metaspace", 'A'}, {"Digits", 'D'},
    {"NFC", 'N'}
};

static int take_step(reader *in) {
    char name[80];
    size_t n = strlen(in->steps);
    if (in->j.kind != JSON_STRING) return wrong(in, "type", "not a text");
    if (json_text_is(&in->j, "Sequence")) return 0;
    for (size_t i = 0; i < sizeof step_letters / sizeof step_letters[0]; i++) {
        if (!json_text_is(&in->j, step_letters[i].type)) continue;
        if (n == STEPS) return wrong(in, "steps", "too many");
        in->steps[n] = step_letters[i].letter;
        in->steps[n + 1] = 0;
        return 0;
    }
    report_name(in->j.text, in->j.length, name);
    return report_fail(in->r, "%s: %s: type '%s' is not supported", in->path, in->part, name);
}

/* Refuses a row of steps that is not one of "RB|RF|...", by the names of the steps. */
static int check_steps(reader *in, const char *steps, const char *allowed) {
    char list[200] = "";
    if (word_number(allowed, steps, strlen(steps)) >= 0) return 0;
    for (const char *p = steps; *p; p++)
        for (size_t i = 0; i < sizeof step_letters / sizeof step_letters[0]; i++)
            if (*p == step_letters[i].letter && strlen(list) + 24 < sizeof list)
                strcat(strcat(list, p == steps ? "" : ", "), step_letters[i].type);
    return report_fail(in->r, "%s: %s: %s%s not supported here", in->path, in->part,
                       *steps ? list : "no step", strlen(steps) > 1 ? " together are" : " is");
}

static int walk_part(reader *in, const char *part, rule *rules, const char *allowed) {
    in->part = part;
    in->steps[0] = 0;
    return walk(in, rules) != 0 ? -1 : check_steps(in, in->steps, allowed);
}

static int take_normaliser(reader *in) {
    rule rules[] = {{"type", 0, take_step, 0}, {"String", " ", 0, 0},
                    {"content", SPACE, 0, 0}, {"prepend", SPACE, 0, 0}, {0, 0, 0, 0}};
    if (walk_part(in, "normalizer", rules, "|R|PR|RP|N") != 0) return -1;
    strcpy(in->normaliser, in->steps);
    if (in->steps[0] != 'N') return 0;
    if (!in->assume_nfc)
        return wrong(in, "type 'NFC' is not supported", "with --assume-nfc, texts are taken to be "
                     "in this form of Unicode already");
    in->normaliser[0] = 0;
    return 0;
}

/* The expressions of a Split by Regex, and the names that tokenizer.ggml.pre has for them. */
#define WORDS_OF_GPT2   "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|" \
                        "\\s+(?!\\S)|\\s+"
#define WORDS_LIKE_LLAMA3(numbers) \
                        "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" numbers "|" \
                        " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* What a row of steps splits by. The first three do not split a byte-level text. */
static const struct { const char *steps, *expression, *pre; } splits[] = {
    {"", NULL, ""},   {"S", NULL, ""},                  {"A", NULL, ""},
    {"L", NULL, "gpt-2"}, {"DL", NULL, "smollm"},
    {"SL", WORDS_OF_GPT2, "gpt-2"}, {"SL", WORDS_LIKE_LLAMA3("\\p{N}{1,3}"), "llama-bpe"},
    {"SL", WORDS_LIKE_LLAMA3("\\p{N}"), "qwen2"}
};

static int take_expression(reader *in) {
    char shown[80];
    if (in->j.kind != JSON_STRING) return wrong(in, "Regex", "not a text");
    for (size_t i = 0; i < sizeof splits / sizeof splits[0]; i++)
        if (splits[i].expression && json_text_is(&in->j, splits[i].expression)) {
            in->expression = splits[i].expression;
            return 0;
        }
    return report_fail(in->r, "%s: %s: Regex '%s' is not supported", in->path, in->part,
                       report_name(in->j.text, in->j.length, shown));
}

/* Bit i of a rule's `seen` is its i-th allowed value. */
static int only(const rule *r, int number) { return !(r->seen & ~(1u << number)); }

/* The rules are for one step of each kind. ByteLevel splits by itself, or Split does it before. */
static int check_split(reader *in, const rule *string, const rule *behaviour, const rule *regex) {
    int by_text = strcmp(in->steps, "S") == 0, by_regex = strcmp(in->steps, "SL") == 0;
    if (by_text && (in->expression || !string->seen))
        return wrong(in, "Split", "by an expression is not supported without ByteLevel");
    if (by_regex && (!in->expression || string->seen))
        return wrong(in, "Split", "at a text is not supported before ByteLevel");
    if (!only(behaviour, by_regex)) return wrong(in, "behavior", "not supported with this pattern");
    if (by_regex && !(regex->seen & 2))
        return wrong(in, "use_regex 'true'", "not supported after Split");
    if (!only(regex, by_regex))
        return wrong(in, "use_regex 'false'", "not supported without Split");
    return 0;
}

/* prepend_scheme, or in older files add_prefix_space: a space before every stretch of text. */
static void settle_metaspace(reader *in, const rule *scheme, const rule *prefix,
                             const rule *split) {
    vocabulary *v = in->v;
    int given = scheme->seen != 0;
    v->escape_whitespaces = v->prefix_once = 1;
    v->prefix_everywhere = given ? (scheme->seen & 1) != 0 : !(prefix->seen & 1);
    v->add_space_prefix = v->prefix_everywhere || (scheme->seen & 2);
    v->split_at_spaces = !(split->seen & 1);
}

static int take_pre_tokenizer(reader *in) {
    rule rules[] = {{"String", " ", 0, 0}, {"behavior", "MergedWithPrevious|Isolated", 0, 0},
                    {"use_regex", "true|false", 0, 0}, {"add_prefix_space", "false|true", 0, 0},
                    {"prepend_scheme", "always|first|never", 0, 0}, {"split", "false|true", 0, 0},
                    {"Regex", 0, take_expression, 0}, {"type", 0, take_step, 0},
                    {"invert", "false", 0, 0}, {"individual_digits", "true", 0, 0},
                    {"replacement", SPACE, 0, 0}, {"str_rep", SPACE, 0, 0},
                    {"trim_offsets", 0, 0, 0}, {0, 0, 0, 0}};
    const char *pre = NULL;
    if (walk_part(in, "pre_tokenizer", rules, "|S|L|A|DL|SL") != 0) return -1;
    if (check_split(in, &rules[0], &rules[1], &rules[2]) != 0) return -1;
    if (strchr(in->steps, 'L') && rules[3].seen & 2)
        return wrong(in, "add_prefix_space 'true'", "not supported with ByteLevel");
    for (size_t i = 0; i < sizeof splits / sizeof splits[0]; i++)
        if (!strcmp(splits[i].steps, in->steps) && splits[i].expression == in->expression)
            pre = splits[i].pre;
    strcpy(in->v->pre, pre ? pre : "");
    strcpy(in->pre_tokenizer, in->steps);
    in->v->byte_level = in->v->pre[0] != 0;
    if (in->steps[0] == 'A') settle_metaspace(in, &rules[4], &rules[3], &rules[5]);
    return 0;
}

static int take_decoder(reader *in) {
    rule rules[] = {{"type", 0, take_step, 0}, {"String", SPACE, 0, 0}, {"content", " ", 0, 0},
                    {"start", "1", 0, 0}, {"stop", "0", 0, 0}, {"trim_offsets", 0, 0, 0},
                    {"use_regex", 0, 0, 0}, {"replacement", SPACE, 0, 0}, {"str_rep", SPACE, 0, 0},
                    {"split", 0, 0, 0}, {"add_prefix_space", "false|true", 0, 0},
                    {"prepend_scheme", "always|first|never", 0, 0}, {0, 0, 0, 0}};
    const rule *prefix = &rules[10], *scheme = &rules[11];
    if (walk_part(in, "decoder", rules, "|L|R|RB|RF|RBF|RFT|RBFT|B|BF|F|A|BA|AB|BFA|ABF") != 0)
        return -1;
    strcpy(in->decoder, in->steps);
    in->decoder_strips = strchr(in->steps, 'T') != NULL
        || (strchr(in->steps, 'A') && (scheme->seen ? !(scheme->seen & 4) : !(prefix->seen & 1)));
    return 0;
}

/* Reads a template: special tokens, the text "A", and special tokens. */
static int take_single(reader *in) {
    template_row *row = &in->before;
    if (in->j.kind != JSON_ARRAY) return wrong(in, "single", "not a list");
    while (json_next(&in->j) != JSON_ARRAY_END) {
        if (in->j.kind == JSON_ERROR) return wrong(in, "single", "not a list of objects");
        if (in->j.kind != JSON_KEY) continue;
        if (json_text_is(&in->j, "Sequence")) {
            if (row == &in->after) return wrong(in, "single", "not a template of one text");
            row = &in->after;
        }
        if (!json_text_is(&in->j, "id")) continue;
        if (json_next(&in->j) != JSON_STRING) return wrong(in, "single", "an id is no text");
        if (row == &in->after && row->count == 0 && json_text_is(&in->j, "A")) continue;
        if (row->count == VOCABULARY_AROUND) return wrong(in, "single", "too many tokens");
        row->texts[row->count++] = vocabulary_keep(in->v, in->j.text, in->j.length);
    }
    return row == &in->after ? 0 : wrong(in, "single", "not a template of one text");
}

/* {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}: one id for each. */
static int take_template_token(reader *in) {
    template_token *t = &in->template_tokens[in->template_count];
    if (in->template_count++ == STEPS) return wrong(in, "special_tokens", "too many");
    t->text = vocabulary_keep(in->v, in->j.text, in->j.length);
    if (json_next(&in->j) != JSON_OBJECT) return wrong(in, "special_tokens", "not an object");
    while (json_next(&in->j) == JSON_KEY) {
        if (!json_text_is(&in->j, "ids")) {
            if (json_skip(&in->j) != 0) break;
            continue;
        }
        if (json_next(&in->j) != JSON_ARRAY || json_next(&in->j) != JSON_INT || !in->j.is_natural)
            return wrong(in, "special_tokens", "no list of ids");
        t->id = in->j.natural < VOCABULARY_LIMIT ? (int)in->j.natural : -1;
        if (json_next(&in->j) != JSON_ARRAY_END)
            return wrong(in, "special_tokens", "several ids for one token are not supported");
    }
    return in->j.kind == JSON_OBJECT_END ? 0 : wrong(in, "special_tokens", "not an object");
}

static int take_template_tokens(reader *in) {
    if (in->j.kind != JSON_OBJECT) return wrong(in, "special_tokens", "not an object");
    while (json_next(&in->j) == JSON_KEY) if (take_template_token(in) != 0) return -1;
    return in->j.kind == JSON_OBJECT_END ? 0 : wrong(in, "special_tokens", "not an object");
}

static int take_post_processor(reader *in) {
    rule rules[] = {{"type", 0, take_step, 0},
                    {"single", 0, take_single, 0},
                    {"pair", 0, 0, 0},
                    {"special_tokens", 0, take_template_tokens, 0},
                    {"add_prefix_space", 0, 0, 0},
                    {"trim_offsets", 0, 0, 0},
                    {"use_regex", 0, 0, 0},
                    {0, 0, 0, 0}};
    return walk_part(in, "post_processor", rules, "|L|M|LM|ML");
}

static int take_unknown(reader *in) {
    if (in->j.kind == JSON_STRING) in->unknown = vocabulary_keep(in->v, in->j.text, in->j.length);
    return 0;
}

static int take_model(reader *in) {
    rule rules[] = {{"type", "BPE", 0, 0},
                    {"dropout", "null|0", 0, 0},
                    {"unk_token", 0, take_unknown, 0},
                    {"continuing_subword_prefix", "null|", 0, 0},
                    {"end_of_word_suffix", "null|", 0, 0},
                    {"fuse_unk", "false|true", 0, 0},
                    {"byte_fallback", "false|true", 0, 0},
                    {"ignore_merges", "false|null|true", 0, 0},
                    {"vocab", 0, take_vocab, 0},
                    {"merges", 0, take_merges, 0},
                    {0, 0, 0, 0}};
    in->part = "model";
    if (walk(in, rules) != 0) return -1;
    in->fuse_unknown = (rules[5].seen & 2) != 0;
    in->byte_fallback = (rules[6].seen & 2) != 0;
    in->v->ignore_merges = (rules[7].seen & 4) != 0;
    return 0;
}

/* ---- what follows from the whole ----------------------------------------------------------- */

static int find(const reader *in, slice text, int type) {
    return text.length ? vocabulary_find(in->v, in->v->text + text.at, text.length, type) : -1;
}

/* Some converters rename the byte <0x09> to a tab when the vocabulary has no tab of its own. */
static void restore_tab(reader *in) {
    int tab = vocabulary_find(in->v, "\t", 1, 0);
    if (tab < 0 || vocabulary_find(in->v, "<0x09>", 6, 0) >= 0) return;
    in->v->pieces[tab].text = vocabulary_keep(in->v, "<0x09>", 6);
}

static void settle_types(reader *in) {
    vocabulary *v = in->v;
    if (in->byte_fallback && !v->byte_level) restore_tab(in);
    v->unknown = v->byte_level ? -1 : find(in, in->unknown, 0);
    for (size_t i = 0; i < v->count; i++) {
        piece *p = &v->pieces[i];
        if (!p->text.length) vocabulary_pad(v, i);
        else if ((int)i == v->unknown) p->type = GRIFFIN_TOKEN_UNKNOWN;
        else if (in->byte_fallback && !v->byte_level
                 && vocabulary_is_byte(v->text + p->text.at, p->text.length))
            p->type = GRIFFIN_TOKEN_BYTE;
        else if (!p->type) p->type = GRIFFIN_TOKEN_NORMAL;
    }
}

/* ---- what the parts mean together ---------------------------------------------------------- */

static int refuse(reader *in, const char *part, const char *what) {
    return report_fail(in->r, "%s: %s: %s", in->path, part, what);
}

static int refuse_text(reader *in, const char *part, slice text, const char *what) {
    char name[80];
    report_name(in->v->text + text.at, text.length, name);
    return report_fail(in->r, "%s: %s: '%s' %s", in->path, part, name, what);
}

static int count_bytes(const vocabulary *v) {
    int count = 0;
    for (size_t i = 0; i < v->count; i++) count += v->pieces[i].type == GRIFFIN_TOKEN_BYTE;
    return count;
}

/* The decoder must undo what the normalizer did, and nothing else. */
static int check_decoder(reader *in) {
    const vocabulary *v = in->v;
    const char *allowed = v->byte_level ? "L"
                        : v->add_space_prefix ? "RFT|RBFT|A|BA|AB|BFA|ABF"
                        : v->escape_whitespaces ? "R|RB|RF|RBF|A|BA|AB|BFA|ABF" : "F|B|BF";
    in->part = "decoder";
    if (check_steps(in, in->decoder, allowed) != 0) return -1;
    if (in->decoder_strips != v->add_space_prefix)
        return refuse(in, "decoder", v->add_space_prefix ? "keeps the space that the text gets"
                                                         : "strips a space that no text gets");
    if (count_bytes(v) && !strchr(in->decoder, 'B'))
        return refuse(in, "decoder", "no ByteFallback, although the model has byte_fallback");
    return 0;
}

static int check_cutting(reader *in) {
    const vocabulary *v = in->v;
    int splits_at_spaces = strcmp(in->pre_tokenizer, "S") == 0;
    if (in->normaliser[0] && v->byte_level)
        return refuse(in, "normalizer", "not supported together with ByteLevel");
    if (in->normaliser[0] && in->pre_tokenizer[0] == 'A')
        return refuse(in, "normalizer", "not supported together with Metaspace");
    if (splits_at_spaces && !in->normaliser[0])
        return refuse(in, "pre_tokenizer", "Split at spaces is not supported without a normalizer "
                      "that replaces them");
    if (v->ignore_merges && !v->byte_level)
        return refuse(in, "model", "ignore_merges 'true' is not supported without ByteLevel");
    return 0;
}

/* Pieces of one of the 256 characters that stand for bytes in GPT-2's alphabet. */
static int count_byte_characters(const vocabulary *v) {
    int count = 0;
    for (size_t i = 0; i < v->count; i++) {
        const unsigned char *p = (const unsigned char *)v->text + v->pieces[i].text.at;
        size_t n = v->pieces[i].text.length;
        unsigned c = n == 1 ? p[0] : n == 2 ? (p[0] & 31u) << 6 | (p[1] & 63u) : 0;
        count += c > 32 && c < 324 && (c < 127 || c > 160) && c != 173;
    }
    return count;
}

/* Characters that are neither pieces nor bytes become one unknown token, which must exist. Bytes
 * without a piece are left out of byte-level texts, but only if no unk_token takes their place. */
static int check_unknown(reader *in) {
    const vocabulary *v = in->v;
    if (v->byte_level && in->unknown.length && count_byte_characters(v) < 256)
        return refuse_text(in, "model", in->unknown, "is unk_token, which is not supported where "
                           "bytes have no piece");
    if (v->byte_level || count_bytes(v) == 256) return 0;
    if (!in->unknown.length)
        return refuse(in, "model", "unk_token: none; dropping characters is not supported");
    if (v->unknown < 0) return refuse_text(in, "model", in->unknown, "is no piece, but unk_token");
    if (!in->fuse_unknown)
        return refuse(in, "model", "fuse_unk 'false' is not supported: neighbouring unknown "
                      "characters become one token");
    for (size_t i = 0; i < in->added_count; i++)
        if (find(in, in->added[i].text, 0) == v->unknown) return 0;
    return refuse_text(in, "model", in->unknown, "is unk_token, but no added token");
}

static int check_template(reader *in) {
    static const char part[] = "post_processor";
    const template_row *rows[] = {&in->before, &in->after};
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < rows[i]->count; k++)
            if (find(in, rows[i]->texts[k], 0) < 0)
                return refuse(in, part, "a token of the template is no piece");
    for (int i = 0; i < in->template_count; i++) {
        const template_token *t = &in->template_tokens[i];
        if (find(in, t->text, 0) != t->id)
            return refuse_text(in, part, t->text, "has another id in special_tokens");
    }
    return 0;
}

/* Normalized tokens are cut out of the text after the others, so that the order decides between
 * two that overlap. We cut out all at once. */
static int check_overlaps(reader *in, const added_token *normalized) {
    const char *text = in->v->text, *a = text + normalized->text.at;
    size_t n = normalized->text.length;
    for (size_t i = 0; i < in->added_count; i++) {
        const added_token *other = &in->added[i];
        const char *b = text + other->text.at;
        size_t m = other->text.length;
        if (!other->is_normalized
            && (vocabulary_overlaps(a, n, b, m) || vocabulary_overlaps(b, m, a, n)))
            return refuse_text(in, "added_tokens", normalized->text, "is normalized and overlaps "
                               "with one that is not, which is not supported");
    }
    return 0;
}

/* A normalizer leaves tokens without spaces as they are, unless it prepends something. */
static int check_added(reader *in) {
    const vocabulary *v = in->v;
    for (size_t i = 0; i < in->added_count; i++) {
        const added_token *t = &in->added[i];
        const char *text = v->text + t->text.at;
        size_t n = t->text.length;
        if (!t->is_normalized) continue;
        int spaces = memchr(text, ' ', n) || vocabulary_overlaps(text, n, SPACE, 3);
        if (strchr(in->normaliser, 'P') || (strchr(in->normaliser, 'R') && spaces))
            return refuse_text(in, "added_tokens", t->text, "is normalized, which is not supported "
                               "with this normalizer");
        if (check_overlaps(in, t) != 0) return -1;
    }
    return 0;
}

/* The text of an id is the text of no other one, of whatever type. */
static int check_twins(reader *in) {
    const vocabulary *v = in->v;
    names known = {0};
    int status = 0;
    for (size_t i = 0; status == 0 && i < v->count; i++)
        if (names_add(&known, v->text + v->pieces[i].text.at, v->pieces[i].text.length) != 1)
            status = refuse_text(in, "model", v->pieces[i].text, "has two ids");
    names_free(&known);
    return status;
}

static int check_all(reader *in) {
    return check_cutting(in) || check_decoder(in) || check_unknown(in) || check_template(in)
        || check_added(in) || check_twins(in) ? -1 : 0;
}

static int read_parts(reader *in) {
    rule rules[] = {{"version", 0, 0, 0}, {"truncation", 0, 0, 0}, {"padding", 0, 0, 0},
                    {"added_tokens", 0, take_added, 0}, {"normalizer", 0, take_normaliser, 0},
                    {"pre_tokenizer", 0, take_pre_tokenizer, 0},
                    {"post_processor", 0, take_post_processor, 0},
                    {"decoder", 0, take_decoder, 0}, {"model", 0, take_model, 0}, {0, 0, 0, 0}};
    if (walk(in, rules) != 0) return -1;
    return json_next(&in->j) == JSON_END ? 0 : wrong(in, "the file", "goes on");
}

/* Returns the id that stands for the row, which is bos or eos; -1: the row is empty. */
static int settle_row(const reader *in, const template_row *from, int which, token_row *row) {
    for (row->count = 0; row->count < from->count; row->count++)
        row->ids[row->count] = find(in, from->texts[row->count], 0);
    return row->count ? row->ids[which] : -1;
}

/* What follows from the whole. */
static int settle(reader *in) {
    vocabulary *v = in->v;
    if (in->normaliser[0]) {
        v->escape_whitespaces = 1;
        v->add_space_prefix = v->prefix_everywhere = strchr(in->normaliser, 'P') != NULL;
    }
    settle_types(in);
    v->bos = settle_row(in, &in->before, 0, &v->before);
    v->eos = settle_row(in, &in->after, in->after.count - 1, &v->after);
    v->add_bos = v->bos >= 0;
    v->add_eos = v->eos >= 0;
    return v->out_of_memory ? 0 : check_all(in);
}

int vocabulary_from_json(vocabulary *v, const void *data, size_t size, const char *path,
                         int assume_nfc, report *r) {
    reader in;
    memset(&in, 0, sizeof in);
    in.v = v;
    in.path = path;
    in.assume_nfc = assume_nfc;
    in.part = "the file";
    in.r = r;
    v->escape_whitespaces = 0;
    json_start_file(&in.j, data, size);
    json_next(&in.j);
    int status = read_parts(&in);
    json_stop(&in.j);
    if (status == 0 && !v->out_of_memory) status = settle(&in);
    free(in.added);
    return status;
}
