/* tokenizer_json.c - reads the tokenizer.json of Hugging Face's fast tokenizers.
 *
 * It reads BPE made from SentencePiece models (spaces become U+2581) and GPT-2's byte-level BPE. It
 * refuses by name whatever would change the tokens in another way. */

#include "tokenizer_json.h"

#include <stdio.h>
#include <string.h>

#include "../shared/json.h"

#define SPACE "\xE2\x96\x81"                /* U+2581 */

typedef struct reader {
    json        j;
    vocabulary *v;
    const char *path, *part;                /* the file, and which part of it is being read */
    report     *r;
    slice       bos, eos, unknown;          /* their texts; empty: none */
    int         byte_fallback;
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
    char name[80];
    switch (in->j.kind) {
    case JSON_STRING: break;
    case JSON_TRUE: text = "true"; break;
    case JSON_FALSE: text = "false"; break;
    case JSON_NULL: text = "null"; break;
    case JSON_INT: case JSON_FLOAT: text = in->j.number == 0.0 ? "0" : "a number"; break;
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
        slice merge, right;
        int pair = in->j.kind == JSON_ARRAY;
        if (pair && json_next(&in->j) != JSON_STRING)
            return wrong(in, "merges", "not a pair of texts");
        merge = vocabulary_keep(in->v, in->j.text, in->j.length);
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

/* ---- the parts ------------------------------------------------------------------------------ */

static int take_normaliser(reader *in) {
    rule rules[] = {{"type", "Sequence|Replace|Prepend", 0, 0}, {"String", " ", 0, 0},
                    {"content", SPACE, 0, 0}, {"prepend", SPACE, 0, 0}, {0, 0, 0, 0}};
    in->part = "normalizer";
    if (walk(in, rules) != 0) return -1;
    in->v->escape_whitespaces = (rules[0].seen & 2) != 0;
    in->v->add_space_prefix |= (rules[0].seen & 4) != 0;
    return 0;
}

static int take_pre_tokenizer(reader *in) {
    rule rules[] = {{"type", "Split|ByteLevel|Sequence", 0, 0}, {"String", " ", 0, 0},
                    {"behavior", "MergedWithPrevious", 0, 0}, {"invert", "false", 0, 0},
                    {"add_prefix_space", "false|true", 0, 0}, {"trim_offsets", 0, 0, 0},
                    {"use_regex", "true", 0, 0}, {0, 0, 0, 0}};
    in->part = "pre_tokenizer";
    if (walk(in, rules) != 0) return -1;
    in->v->byte_level = (rules[0].seen & 2) != 0;
    if (in->v->byte_level && (rules[0].seen & 1))
        return wrong(in, "Split", "not supported with ByteLevel");
    in->v->add_space_prefix |= (rules[4].seen & 2) != 0;
    return 0;
}

/* Reads a template: special tokens before the text "A" and after it. */
static int take_single(reader *in) {
    slice *next = &in->bos;
    if (in->j.kind != JSON_ARRAY) return wrong(in, "single", "not a list");
    while (json_next(&in->j) != JSON_ARRAY_END) {
        if (in->j.kind == JSON_ERROR) return wrong(in, "single", "not a list of objects");
        if (in->j.kind != JSON_KEY) continue;
        if (json_text_is(&in->j, "Sequence")) next = &in->eos;
        if (!json_text_is(&in->j, "id")) continue;
        if (json_next(&in->j) == JSON_STRING && !json_text_is(&in->j, "A"))
            *next = vocabulary_keep(in->v, in->j.text, in->j.length);
    }
    return 0;
}

static int take_post_processor(reader *in) {
    rule rules[] = {{"type", "TemplateProcessing|ByteLevel|Sequence", 0, 0},
                    {"single", 0, take_single, 0},
                    {"pair", 0, 0, 0},
                    {"special_tokens", 0, 0, 0},
                    {"add_prefix_space", 0, 0, 0},
                    {"trim_offsets", 0, 0, 0},
                    {"use_regex", 0, 0, 0},
                    {0, 0, 0, 0}};
    in->part = "post_processor";
    return walk(in, rules);
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
                    {"fuse_unk", 0, 0, 0},
                    {"byte_fallback", "false|true", 0, 0},
                    {"ignore_merges", "false|null", 0, 0},
                    {"vocab", 0, take_vocab, 0},
                    {"merges", 0, take_merges, 0},
                    {0, 0, 0, 0}};
    in->part = "model";
    if (walk(in, rules) != 0) return -1;
    in->byte_fallback = (rules[6].seen & 2) != 0;
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

int vocabulary_from_json(vocabulary *v, const void *data, size_t size, const char *path,
                         report *r) {
    reader in;
    rule rules[] = {{"version", 0, 0, 0}, {"truncation", 0, 0, 0}, {"padding", 0, 0, 0},
                    {"added_tokens", 0, take_added, 0}, {"normalizer", 0, take_normaliser, 0},
                    {"pre_tokenizer", 0, take_pre_tokenizer, 0},
                    {"post_processor", 0, take_post_processor, 0}, {"decoder", 0, 0, 0},
                    {"model", 0, take_model, 0}, {0, 0, 0, 0}};
    memset(&in, 0, sizeof in);
    in.v = v;
    in.path = path;
    in.part = "the file";
    in.r = r;
    v->escape_whitespaces = 0;
    json_start_file(&in.j, data, size);
    json_next(&in.j);
    int status = walk(&in, rules);
    if (status == 0 && json_next(&in.j) != JSON_END) status = wrong(&in, "the file", "goes on");
    json_stop(&in.j);
    if (status != 0 || v->out_of_memory) return status;
    if (v->byte_level && v->escape_whitespaces)
        return report_fail(r, "%s: a normalizer together with ByteLevel is not supported", path);
    settle_types(&in);
    v->bos = find(&in, in.bos, 0);
    v->eos = find(&in, in.eos, 0);
    v->add_bos = v->bos >= 0;
    v->add_eos = v->eos >= 0;
    return 0;
}
