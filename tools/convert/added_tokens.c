/* added_tokens.c - reads the lists of added tokens; see added_tokens.h.
 *
 *     added_tokens.json        {"<|im_start|>": 60, ...}
 *     tokenizer_config.json    {"added_tokens_decoder": {"60": {"content": "<|im_start|>", ...}}}
 *     tokenizer.json           {"added_tokens": [{"id": 60, "content": "<|im_start|>", ...}]}
 *
 * Such tokens are cut out of a text before anything else, whether they are special or not. So they
 * become user-defined pieces. The stretches of text between them are cut into pieces one by one.
 * Where the model says so, each gets a space of its own before it, unless tokenizer_config.json
 * says "legacy": false: then only the beginning of a text gets one. */

#include "added_tokens.h"

#include <stdlib.h>
#include <string.h>

#include "../shared/host.h"
#include "../shared/json.h"

typedef struct token { char *text; size_t length; uint64_t id; int strips; } token;

typedef struct reader {
    json        j;
    vocabulary *v;
    size_t      old_count;                  /* pieces of the tokenizer itself */
    const char *path;
    report     *r;
    int         legacy;
} reader;

static int wrong(reader *in, const char *what) {
    return report_fail(in->r, "%s: %s", in->path, in->j.kind == JSON_ERROR ? in->j.error : what);
}

static int refuse(reader *in, const token *t, const char *what) {
    char name[80];
    return report_fail(in->r, "%s: added token %llu '%s': %s", in->path, (unsigned long long)t->id,
                       report_name(t->text, t->length, name), what);
}

/* ---- adding ---------------------------------------------------------------------------------- */

/* The longest piece at a place of the text is found, but the added one should be. */
static int is_hidden(const reader *in, const token *t) {
    for (size_t i = 0; in->v->has_scores && i < in->old_count; i++) {
        const piece *p = &in->v->pieces[i];
        if (p->type == GRIFFIN_TOKEN_USER_DEFINED && p->text.length > t->length
            && memcmp(in->v->text + p->text.at, t->text, t->length) == 0) return 1;
    }
    return 0;
}

static int add_piece(reader *in, const token *t) {
    vocabulary *v = in->v;
    if (vocabulary_find(v, t->text, t->length, 0) >= 0)
        return refuse(in, t, "another piece has this text");
    if (is_hidden(in, t)) return refuse(in, t, "a user-defined piece begins with it");
    piece *p = vocabulary_at(v, (size_t)t->id);
    if (!p) return refuse(in, t, "out of memory");
    slice text = vocabulary_keep(v, t->text, t->length);
    p->text = text;
    p->type = GRIFFIN_TOKEN_USER_DEFINED;
    return 0;
}

/* Whether it is the text of a piece, in which U+2581 may stand for a space. */
static int is_text_of(const vocabulary *v, const piece *p, const token *t) {
    const char *text = v->text + p->text.at;
    size_t at = 0;
    for (size_t i = 0; i < t->length; i++) {
        size_t left = p->text.length - at;
        int space = t->text[i] == ' ' && left >= 3 && memcmp(text + at, "\xE2\x96\x81", 3) == 0;
        if (!space && (left == 0 || text[at] != t->text[i])) return 0;
        at += space ? 3 : 1;
    }
    return at == p->text.length;
}

/* A piece that is listed again may have been an ordinary one. */
static int add_again(reader *in, const token *t, piece *p) {
    if (!is_text_of(in->v, p, t))
        return refuse(in, t, "the tokenizer has another piece of this id; --tokenizer FILE says "
                      "which file counts");
    if (p->type == GRIFFIN_TOKEN_NORMAL || p->type == GRIFFIN_TOKEN_UNUSED)
        p->type = GRIFFIN_TOKEN_USER_DEFINED;
    return 0;
}

static int add(reader *in, const token *t) {
    vocabulary *v = in->v;
    piece *p = t->id < v->count ? &v->pieces[t->id] : NULL;
    if (t->id >= VOCABULARY_LIMIT) return refuse(in, t, "the id is too large");
    if (t->length == 0) return refuse(in, t, "no text");
    int status = p && p->text.length ? add_again(in, t, p) : add_piece(in, t);
    if (status == 0 && t->strips && v->pieces[t->id].type == GRIFFIN_TOKEN_USER_DEFINED)
        return refuse(in, t, "lstrip, rstrip and single_word are not supported");
    return status;
}

/* ---- reading --------------------------------------------------------------------------------- */

static int keep(reader *in, token *t) {
    free(t->text);
    t->length = in->j.length;
    t->text = (char *)malloc(t->length + 1);
    if (!t->text) return wrong(in, "out of memory");
    memcpy(t->text, in->j.text, t->length);
    return 0;
}

/* The id as the text of a key: up to seven digits. */
static int take_key_id(reader *in, token *t) {
    t->id = 0;
    for (size_t i = 0; i < in->j.length; i++) {
        char c = in->j.text[i];
        if (c < '0' || c > '9' || i == 7) return wrong(in, "added_tokens_decoder: not an id");
        t->id = 10 * t->id + (uint64_t)(c - '0');
    }
    return in->j.length ? 0 : wrong(in, "added_tokens_decoder: not an id");
}

/* {"content": "...", "lstrip": false, ...}, perhaps with an id. */
static int take_entry(reader *in, token *t) {
    if (in->j.kind != JSON_OBJECT) return wrong(in, "an added token is no object");
    while (json_next(&in->j) == JSON_KEY) {
        int text = json_text_is(&in->j, "content"), id = json_text_is(&in->j, "id");
        int strip = json_text_is(&in->j, "lstrip") || json_text_is(&in->j, "rstrip")
                 || json_text_is(&in->j, "single_word");
        json_next(&in->j);
        if (text && in->j.kind == JSON_STRING) { if (keep(in, t) != 0) return -1; }
        else if (id && !in->j.is_natural) return wrong(in, "an id is no number");
        else if (id) t->id = in->j.natural;
        else if (strip && in->j.kind == JSON_TRUE) t->strips = 1;
        else if (json_skip(&in->j) != 0) break;
    }
    if (in->j.kind != JSON_OBJECT_END) return wrong(in, "an added token is no object");
    return t->text ? add(in, t) : wrong(in, "an added token without content");
}

/* added_tokens_decoder */
static int take_by_id(reader *in) {
    if (json_next(&in->j) == JSON_NULL) return 0;
    if (in->j.kind != JSON_OBJECT) return wrong(in, "added_tokens_decoder: not an object");
    while (json_next(&in->j) == JSON_KEY) {
        token t = {NULL, 0, 0, 0};
        int status = take_key_id(in, &t);
        if (status == 0) { json_next(&in->j); status = take_entry(in, &t); }
        free(t.text);
        if (status != 0) return -1;
    }
    return in->j.kind == JSON_OBJECT_END ? 0 : wrong(in, "added_tokens_decoder: not an object");
}

/* added_tokens */
static int take_list(reader *in) {
    if (json_next(&in->j) == JSON_NULL) return 0;
    if (in->j.kind != JSON_ARRAY) return wrong(in, "added_tokens: not a list");
    while (json_next(&in->j) == JSON_OBJECT) {
        token t = {NULL, 0, VOCABULARY_LIMIT, 0};
        int status = take_entry(in, &t);
        free(t.text);
        if (status != 0) return -1;
    }
    return in->j.kind == JSON_ARRAY_END ? 0 : wrong(in, "added_tokens: not a list of objects");
}

/* The current token is a key of the file. In added_tokens.json it is the text of a token. */
static int take_text(reader *in) {
    token t = {NULL, 0, 0, 0};
    int status = keep(in, &t);
    if (status == 0 && (json_next(&in->j) != JSON_INT || !in->j.is_natural))
        status = wrong(in, "an id is no number");
    t.id = in->j.natural;
    if (status == 0) status = add(in, &t);
    free(t.text);
    return status;
}

static int take_member(reader *in) {
    if (json_text_is(&in->j, "added_tokens_decoder")) return take_by_id(in);
    if (json_text_is(&in->j, "added_tokens")) return take_list(in);
    int legacy = json_text_is(&in->j, "legacy");
    if (json_skip(&in->j) != 0) return wrong(in, "not JSON");
    if (legacy && in->j.kind == JSON_FALSE) in->legacy = 0;
    return 0;
}

static int read_file(reader *in, int (*take)(reader *in)) {
    file_bytes file;
    int status = 0;
    if (file_open(&file, in->path, in->r) != 0) return -1;
    json_start_file(&in->j, file.data, (size_t)file.size);
    if (json_next(&in->j) != JSON_OBJECT) status = wrong(in, "not an object");
    while (status == 0 && json_next(&in->j) == JSON_KEY) status = take(in);
    if (status == 0 && in->j.kind != JSON_OBJECT_END) status = wrong(in, "not an object");
    json_stop(&in->j);
    file_close(&file);
    return status;
}

int added_tokens_read(vocabulary *v, const char *path, report *r) {
    static const struct { const char *name; int (*take)(reader *in); } files[] = {
        {"added_tokens.json", take_text}, {"tokenizer_config.json", take_member},
        {"tokenizer.json", take_member}
    };
    reader in = {{0}, v, v->count, NULL, r, 1};
    int status = 0, count = v->has_scores ? 3 : 2;  /* a tokenizer.json has listed its own */
    for (int i = 0; status == 0 && i < count; i++) {
        char *beside = path_beside(path, files[i].name);
        in.path = beside;
        if (!beside) status = report_fail(r, "%s: out of memory", path);
        else if (path_exists(beside)) status = read_file(&in, files[i].take);
        free(beside);
    }
    for (size_t i = in.old_count; status == 0 && i < v->count; i++)
        if (!v->pieces[i].text.length) vocabulary_pad(v, i);
    if (v->has_scores) v->prefix_everywhere = v->add_space_prefix && in.legacy;
    if (v->has_scores && v->count > in.old_count) {
        v->first_added = (int)in.old_count;
        v->verbatim = 1;
    }
    return status;
}
