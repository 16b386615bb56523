/* turns.c - see turns.h.
 *
 * A template is a program, which is not run: it is recognised by texts that occur in it. What the
 * rows hold was written down from the templates that the models came with, blanks included. */

#include "turns.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the formats ------------------------------------------------------------------------------
 * In a row, {bos} and {eos} are these tokens, {bos?} only if the template names it, {user} is what
 * the user said, {system} the system prompt. Of a `known_by` all must occur in the
 * template; ^ stands for a quotation mark. */

struct turn_format {
    const char *name;
    const char *known_by[2];
    const char *marks[3];                   /* tokens; a vocabulary may lack those in [] */
    int         by_marks;                   /* marks alone tell the format, without a template */
    int         always_system;              /* even an empty one */
    const char *system_if;                  /* only then the template takes a system prompt */
    const char *begin;                      /* a conversation */
    const char *first;                      /* turn, with a system prompt */
    const char *turn;                       /* any other */
    const char *after;                      /* an answer */
    const char *end;                        /* the mark that ends an answer; null: eos */
};

#define LLAMA3_USER "<|start_header_id|>user<|end_header_id|>\n\n{user}<|eot_id|>" \
                    "<|start_header_id|>assistant<|end_header_id|>\n\n"
#define LLAMA3_HEAD "<|start_header_id|>system<|end_header_id|>\n\n"
#define LLAMA3_DATE "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
#define LLAMA3_MARKS {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}
#define CHATML_USER "<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"
#define GEMMA_END   "{user}<end_of_turn>\n<start_of_turn>model\n"
#define INST_MARKS  {"[INST]", "[/INST]", NULL}
#define FOLDS       "system_message"

static const turn_format formats[] = {
    {"gemma", {"<start_of_turn>", NULL}, {"<start_of_turn>", "<end_of_turn>", NULL}, 1, 0,
     "first_user_prefix", "{bos}", "<start_of_turn>user\n{system}\n\n" GEMMA_END,
     "<start_of_turn>user\n" GEMMA_END, "<end_of_turn>\n", "<end_of_turn>"},
    {"chatml", {"<|im_start|>", NULL}, {"<|im_start|>", "<|im_end|>", NULL}, 1, 0, NULL,
     "{bos?}", "<|im_start|>system\n{system}<|im_end|>\n" CHATML_USER, CHATML_USER,
     "<|im_end|>\n", "<|im_end|>"},
    {"llama-3.1", {"<|start_header_id|>", "Cutting Knowledge Date"}, LLAMA3_MARKS, 0, 1, NULL,
     "{bos}", LLAMA3_HEAD LLAMA3_DATE "{system}<|eot_id|>" LLAMA3_USER, LLAMA3_USER, "<|eot_id|>",
     "<|eot_id|>"},
    {"llama-3", {"<|start_header_id|>", NULL}, LLAMA3_MARKS, 1, 0, NULL, "{bos}",
     LLAMA3_HEAD "{system}<|eot_id|>" LLAMA3_USER, LLAMA3_USER, "<|eot_id|>", "<|eot_id|>"},
    {"llama-2", {"[INST] ", "<<SYS>>"}, INST_MARKS, 0, 0, NULL, "",
     "{bos}[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{user} [/INST]", "{bos}[INST] {user} [/INST]",
     " {eos}", NULL},
    {"mistral-v0.3", {"^[INST] ", "^[/INST]"}, INST_MARKS, 1, 0, FOLDS, "{bos}",
     "[INST] {system}\n\n{user}[/INST]", "[INST] {user}[/INST]", "{eos}", NULL},
    {"mistral-spaced", {"^ [INST] ", "^ [/INST]"}, INST_MARKS, 0, 0, FOLDS, "{bos}",
     " [INST] {system}\n\n{user} [/INST]", " [INST] {user} [/INST]", "{eos}", NULL},
    {"mistral-v0.1", {"^[INST] ", "eos_token + ' '"}, INST_MARKS, 0, 0, FOLDS, "{bos}",
     "[INST] {system}\n\n{user} [/INST]", "[INST] {user} [/INST]", "{eos} ", NULL},
    {"mistral-v0.2", {"^[INST] ", "^ [/INST]"}, INST_MARKS, 0, 0, FOLDS, "{bos}",
     "[INST] {system}\n\n{user} [/INST]", "[INST] {user} [/INST]", "{eos}", NULL}
};

enum { FORMATS = sizeof formats / sizeof formats[0] };

const char *turns_names(void) {
    static char names[200];
    if (!*names)
        for (int i = 0; i < FORMATS; i++)
            strcat(strcat(names, i ? ", " : ""), formats[i].name);
    return names;
}

/* ---- which one ------------------------------------------------------------------------------- */

static int32_t find(const session *s, const char *piece) {
    return griffin_find_token(s->model, piece, strlen(piece));
}

/* Whether a text occurs; a ^ before it stands for a quotation mark. */
static int occurs(const char *template, const char *text) {
    const char *plain = text + (*text == '^');
    for (const char *at = template; (at = strstr(at, plain)) != NULL; at++)
        if (*text != '^' || (at > template && strchr("'\"", at[-1]))) return 1;
    return 0;
}

static int is_known(const turn_format *f, const char *template) {
    for (int i = 0; i < 2; i++)
        if (f->known_by[i] && !occurs(template, f->known_by[i])) return 0;
    return 1;
}

/* The first mark that is needed and that the vocabulary lacks; null: none. */
static const char *missing_mark(const turn_format *f, const session *s, int all) {
    for (int i = 0; i < 3 && f->marks[i]; i++)
        if ((all || f->marks[i][0] != '[') && find(s, f->marks[i]) < 0) return f->marks[i];
    return NULL;
}

static const turn_format *find_name(const char *name) {
    for (int i = 0; i < FORMATS; i++) if (!strcmp(formats[i].name, name)) return &formats[i];
    return NULL;
}

int turns_knows(const char *name) { return find_name(name) != NULL; }

static const turn_format *find_template(const char *template, const char *path) {
    for (int i = 0; i < FORMATS; i++) if (is_known(&formats[i], template)) return &formats[i];
    complain("%s: its chat template is of no format that griffin knows; --chat-format NAME takes "
             "one of %s; with --raw the model continues what you write", path, turns_names());
    return NULL;
}

static const turn_format *find_marks(const session *s, const char *path) {
    for (int i = 0; i < FORMATS; i++)
        if (formats[i].by_marks && !missing_mark(&formats[i], s, 1)) return &formats[i];
    complain("%s: the vocabulary has no turn markers, so this model was not made for conversation; "
             "with --raw it continues what you write", path);
    return NULL;
}

static const turn_format *choose(const session *s, const char *path, const char *name) {
    const char *template = s->info->chat_template;
    const turn_format *f = name ? find_name(name)
                         : *template ? find_template(template, path) : find_marks(s, path);
    if (!f) return NULL;
    const char *missing = missing_mark(f, s, 0);
    if (missing) {
        complain("%s: the vocabulary has no %s, which the turns of %s need", path, missing,
                 f->name);
        return NULL;
    }
    if (name) return f;
    if (*template) note("turns of %s, as in the file's chat template", f->name);
    else note("the file has no chat template, but the markers of %s; if the answers make no sense, "
              "try --raw", f->name);
    return f;
}

/* ---- the system prompt ----------------------------------------------------------------------- */

static char *copy_of(const char *text, size_t size) {
    char *copy = (char *)calloc(size + 1, 1);
    if (copy) memcpy(copy, text, size);
    else complain("out of memory");
    return copy;
}

/* Templates of ChatML may hold a system prompt of their own, for conversations without one. It is
 * the text between the two marks if no expression stands there. A line end may be written \n. */
static char *find_default(const char *template) {
    static const char start[] = "<|im_start|>system";
    for (const char *at = template; (at = strstr(at, start)) != NULL; at++) {
        const char *text = at + sizeof start - 1, *end = strstr(text, "<|im_end|>");
        text += *text == '\n' ? 1 : !strncmp(text, "\\n", 2) ? 2 : 0;
        if (end && end > text && !memchr(text, '\'', (size_t)(end - text))
            && !memchr(text, '"', (size_t)(end - text)) && !memchr(text, '{', (size_t)(end - text)))
            return copy_of(text, (size_t)(end - text));
    }
    return NULL;
}

/* With a name given, the template may be one of another format: then it has no say. */
static int choose_system(turns *t, const char *system) {
    const turn_format *f = t->format;
    const char *template = t->s->info->chat_template;
    int counts = *template && is_known(f, template);
    if (system && f->system_if && !(counts && strstr(template, f->system_if)))
        return complain("these turns (%s) know no system role: put the text into your first "
                        "message", f->name);
    if (!system && f->always_system) system = "";
    if (system) t->system = copy_of(system, strlen(system));
    else if (counts) t->system = find_default(template);
    return system && !t->system;
}

int turns_open(turns *t, session *s, const char *path, const char *name, const char *system) {
    const char *template = s->info->chat_template;
    memset(t, 0, sizeof *t);
    t->s = s;
    t->format = choose(s, path, name);
    if (!t->format) return 1;
    t->end = t->format->end ? find(s, t->format->end) : -1;
    t->names_bos = *template ? strstr(template, "bos_token") != NULL : s->info->add_bos;
    return choose_system(t, system);
}

void turns_free(turns *t) {
    free(t->system);
    memset(t, 0, sizeof *t);
}

/* ---- tokens ---------------------------------------------------------------------------------- */

/* A row of tokens that grows, and the text after its last token, which is not encoded yet. */
typedef struct row {
    turns      *t;
    token_list *list;
    char       *text;
    size_t      size, room;
    int         begins;                     /* nothing comes before the row */
    int         after_token;                /* the text follows a token, not text */
} row;

static int append(row *r, const char *text, size_t size) {
    if (size > r->room - r->size) {
        size_t room = 2 * (r->size + size) + 64;
        char *larger = (char *)realloc(r->text, room);
        if (!larger) return complain("out of memory");
        r->text = larger;
        r->room = room;
    }
    memcpy(r->text + r->size, text, size);
    r->size += size;
    return 0;
}

/* All text between two tokens is encoded at once, because its parts may merge. */
static int encode(row *r) {
    griffin_encoding plain;
    session *s = r->t->s;
    if (r->size == 0) return 0;
    memset(&plain, 0, sizeof plain);
    plain.no_special = plain.no_bos = 1;
    plain.continues = r->after_token ? 2 : r->list->count > 0 || !r->begins;
    int status = tokens_add_text(r->list, s, &plain, r->text, r->size);
    r->size = 0;
    r->after_token = 0;
    return status;
}

static int add_token(row *r, int32_t token) {
    if (token < 0) return 0;
    if (encode(r)) return 1;
    r->after_token = 1;
    return tokens_add(r->list, token);
}

/* The length of a word at the start of a text; 0: it is not there. */
static size_t match(const char *text, const char *word) {
    size_t n = strlen(word);
    return strncmp(text, word, n) ? 0 : n;
}

/* Adds what stands at `at`, and returns how long that is; -1 after a message. */
static int add_part(row *r, const char *at, const char *words, size_t size) {
    const turns *t = r->t;
    size_t n;
    int status = 0;
    for (int i = 0; i < 3 && t->format->marks[i]; i++) {
        int32_t id = find(t->s, t->format->marks[i]);
        n = match(at, t->format->marks[i]);
        if (n && id >= 0) return add_token(r, id) ? -1 : (int)n;
    }
    if ((n = match(at, "{bos}")) != 0) status = add_token(r, t->s->info->bos);
    else if ((n = match(at, "{bos?}")) != 0)
        status = add_token(r, t->names_bos ? t->s->info->bos : -1);
    else if ((n = match(at, "{eos}")) != 0) status = add_token(r, t->s->info->eos);
    else if ((n = match(at, "{user}")) != 0) status = append(r, words, size);
    else if ((n = match(at, "{system}")) != 0) status = append(r, t->system, strlen(t->system));
    else status = append(r, at, n = 1);
    return status ? -1 : (int)n;
}

static int add_form(row *r, const char *form, const char *words, size_t size) {
    for (int n; *form; form += n) if ((n = add_part(r, form, words, size)) < 0) return 1;
    return 0;
}

int turns_add(turns *t, token_list *list, int begins, const char *words, size_t size) {
    const turn_format *f = t->format;
    row r = { t, list, NULL, 0, 0, begins, 0 };
    int status = add_form(&r, begins ? f->begin : f->after, NULL, 0)
              || add_form(&r, begins && t->system ? f->first : f->turn, words, size) || encode(&r);
    free(r.text);
    return status;
}
