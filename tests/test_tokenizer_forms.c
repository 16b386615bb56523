/* test_tokenizer_forms.c - the tokenizers that Llama, Mistral, SmolLM and their kin come with: what
 * the converter makes of their files gives the tokens that the reference tokenizers give.
 *
 * tests/data/forms has a byte-level tokenizer (words.json), one with U+2581 for spaces
 * (spaces.json) and the SentencePiece model that the latter was made from. Each is edited into the
 * forms in which such files come. chat.tsv has conversations as the chat templates of such models
 * write them. tests/tokenizer_cases.py wrote the data, and says what a line of cases is. */

#include "griffin.h"
#include "test.h"
#include "tools/commands/turns.h"
#include "tools/convert/added_tokens.h"
#include "tools/convert/checkpoint.h"

#include <sys/stat.h>

#define DATA "tests/data/forms/"
#define WORK TEST_TMP "forms/"
#define ROOM 2000
#define SP   "\xE2\x96\x81"                 /* U+2581 */
#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

static griffin_model *model;
static gguf_writer file;                    /* a file without tensors, in memory */
static report message;
static int32_t tokens[ROOM];
static const char *chat_template;           /* of the next file; null: none */

/* ---- from a tokenizer to a model without a network ------------------------------------------- */

static int open_written(vocabulary *v) {
    griffin_options options;
    memset(&options, 0, sizeof options);
    options.directory_only = 1;
    options.error = message.text;
    options.error_size = sizeof message.text;
    memset(&file, 0, sizeof file);
    if (chat_template) {
        int spaces = !v->byte_level;
        v->bos = spaces ? 1 : vocabulary_find(v, "<|begin_of_text|>", 17, 0);
        v->eos = spaces ? 2 : vocabulary_find(v, "<|end_of_text|>", 15, 0);
    }
    vocabulary_write(v, chat_template, &file);
    message.text[0] = 0;
    if (gguf_open(&file, NULL, &message) != 0) return -1;
    if (griffin_open_memory(&model, file.image.data, file.image.size, &options) != 0) return -1;
    return griffin_get_info(model)->has_vocabulary ? 0 : -1;
}

static void close_written(void) {
    griffin_close(model);
    model = NULL;
    gguf_free(&file);
}

static int open_tokenizer(const char *path, int assume_nfc) {
    vocabulary v;
    message.text[0] = 0;
    if (vocabulary_read(&v, path, assume_nfc, &message) != 0) return -1;
    int status = added_tokens_read(&v, path, &message);
    if (status == 0) status = open_written(&v);
    vocabulary_free(&v);
    return status;
}

/* ---- forms -------------------------------------------------------------------------------------
 * Parts of tokenizer.json that replace those of the file; null: unchanged. */

typedef struct form {
    const char *name, *normalizer, *pre_tokenizer, *decoder;
    int edits;                              /* bits: */
} form;

enum { MERGED = 1,                          /* no ignore_merges, */
       LACKING = 2,                         /* no piece for the byte 0x01, */
       PLAIN = 4,                           /* [INST] is no token; */
       NORMAL = 8 };                        /* converted with --assume-nfc */

#define SEQUENCE(kind, steps) "{\"type\":\"Sequence\",\"" kind "\":[" steps "]}"
#define LEVEL(regex) "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":" regex "}"
#define DIGITS       "{\"type\":\"Digits\",\"individual_digits\":true}"
#define SPLIT(regex) "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" regex "\"}," \
                     "\"behavior\":\"Isolated\",\"invert\":false}"
#define GPT2         "'s|'t|'re|'ve|'m|'ll|'d| ?\\\\p{L}+| ?\\\\p{N}+|" \
                     " ?[^\\\\s\\\\p{L}\\\\p{N}]+|\\\\s+(?!\\\\S)|\\\\s+"
#define QWEN2        "(?i:'s|'t|'re|'ve|'m|'ll|'d)|" \
                     "[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}|" \
                     " ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|" \
                     "\\\\s+(?!\\\\S)|\\\\s+"
#define NFC          "{\"type\":\"NFC\"}"
#define META(more)   "{\"type\":\"Metaspace\",\"replacement\":\"" SP "\"" more "}"
#define SCHEME(name) ",\"prepend_scheme\":\"" name "\""
#define WHOLE        ",\"split\":false"
#define REPLACE      "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"" SP "\"}"
#define PREPEND      "{\"type\":\"Prepend\",\"prepend\":\"" SP "\"}"
#define RESTORE      "{\"type\":\"Replace\",\"pattern\":{\"String\":\"" SP "\"}," \
                     "\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}"
#define STRIP        "{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}"
#define STRIPS       SEQUENCE("decoders", RESTORE "," STRIP)
#define KEEPS        SEQUENCE("decoders", RESTORE)
#define BY_META      SEQUENCE("decoders", "{\"type\":\"ByteFallback\"}," META())

static const form words[] = {
    {"llama3", NULL, NULL, NULL, 0},
    {"llama3-merged", NULL, NULL, NULL, MERGED},
    {"gpt2", NULL, LEVEL("true"), NULL, MERGED},
    {"gpt2-split", NULL, SEQUENCE("pretokenizers", SPLIT(GPT2) "," LEVEL("false")), NULL, MERGED},
    {"smollm", NULL, SEQUENCE("pretokenizers", DIGITS "," LEVEL("true")), NULL, MERGED},
    {"qwen2", NFC, SEQUENCE("pretokenizers", SPLIT(QWEN2) "," LEVEL("false")), NULL,
     MERGED | NORMAL},
    {"lacking", NULL, NULL, NULL, LACKING}
};

static const form spaces[] = {
    {"prepend", NULL, NULL, NULL, 0},
    {"always", "null", META(SCHEME("always") WHOLE), STRIPS, 0},
    {"first", "null", META(SCHEME("first") WHOLE), STRIPS, 0},
    {"never", "null", META(SCHEME("never") WHOLE), KEEPS, 0},
    {"old", "null", META(",\"add_prefix_space\":true"), STRIPS, 0},
    {"words-first", "null", META(SCHEME("first")), STRIPS, 0},
    {"replace", REPLACE, NULL, KEEPS, 0}
};

/* The same in other words: the cases of one form hold for another spelling. */
static const form twins[] = {
    {"prepend", SEQUENCE("normalizers", REPLACE "," PREPEND), NULL, NULL, 0},
    {"old", "null", META(), BY_META, 0},
    {"old", "null", META(SCHEME("always") ",\"split\":true"), BY_META, 0},
    {"first", "null", META(SCHEME("first") WHOLE), BY_META, 0},
    {"never", "null", META(",\"add_prefix_space\":false,\"split\":false"),
     SEQUENCE("decoders", "{\"type\":\"ByteFallback\"}," META(",\"add_prefix_space\":false")), 0},
    {"replace", REPLACE, "{\"type\":\"Split\",\"pattern\":{\"String\":\" \"},\"behavior\":"
     "\"MergedWithPrevious\",\"invert\":false}", KEEPS, 0}
};

/* The text with what lies between two marks replaced, to be freed. Frees the old one. */
static char *replace_between(char *text, const char *from, const char *to, const char *with) {
    char *start = strstr(text, from), *end = start ? strstr(start, to) : NULL;
    CHECK(end != NULL, "%s ... %s", from, to);
    if (!end || !with) return text;
    start += strlen(from);
    char *edited = (char *)malloc(strlen(text) + strlen(with) + 1);
    sprintf(edited, "%.*s%s%s", (int)(start - text), text, with, end);
    free(text);
    return edited;
}

static int open_form(const char *name, const form *f) {
    char path[200];
    size_t size;
    snprintf(path, sizeof path, DATA "%s.json", name);
    char *text = (char *)test_read(path, &size);
    text = replace_between(text, "\"normalizer\":", ",\"pre_tokenizer\"", f->normalizer);
    text = replace_between(text, "\"pre_tokenizer\":", ",\"post_processor\"", f->pre_tokenizer);
    text = replace_between(text, "\"decoder\":", ",\"model\"", f->decoder);
    if (f->edits & MERGED)
        text = replace_between(text, "\"ignore_merges\":", ",\"vocab\"", "false");
    for (int i = 0; i < 2 && f->edits & PLAIN; i++)
        text = replace_between(text, i ? "\"[/" : "\"[", "]\"", "NONE");
    if (f->edits & LACKING) text = replace_between(text, ",\"\xC4\x81", "\":", " unused");
    mkdir(TEST_TMP, 0777);
    mkdir(WORK, 0777);
    FILE *out = fopen(WORK "tokenizer.json", "wb");
    fputs(text, out);
    fclose(out);
    free(text);
    return open_tokenizer(WORK "tokenizer.json", f->edits & NORMAL);
}

/* ---- cases ----------------------------------------------------------------------------------- */

enum { FORMS = 8, FIELDS = 1 + 2 * FORMS };

static int hex(char c) { return c <= '9' ? c - '0' : c - 'A' + 10; }

static size_t unescape(char *text) {        /* in place */
    char *to = text;
    for (const char *from = text; *from; from++) {
        if (*from != '%') { *to++ = *from; continue; }
        *to++ = (char)(hex(from[1]) * 16 + hex(from[2]));
        from += 2;
    }
    return (size_t)(to - text);
}

/* Ends the line and cuts it at tabs. An = becomes the field of the form before. */
static int cut_line(char *line, char *fields[FIELDS]) {
    int n = 0;
    while (line && n < FIELDS) {
        fields[n++] = line;
        if ((line = strchr(line, '\t')) != NULL) *line++ = 0;
    }
    for (int i = 3; i < n; i++) if (!strcmp(fields[i], "=")) fields[i] = fields[i - 2];
    return n;
}

static void check_ids(const char *name, int line, const char *ids, const char *text, size_t size) {
    griffin_encoding plain;
    char list[8 * ROOM] = "";
    size_t used = 0;
    memset(&plain, 0, sizeof plain);
    plain.no_bos = 1;
    plain.scratch_size = griffin_encode_size(model, size);
    plain.scratch = malloc(plain.scratch_size);
    int n = griffin_encode(model, &plain, text, size, tokens, ROOM);
    free(plain.scratch);
    CHECK(n >= 0 && n <= ROOM, "%s line %d: %d tokens", name, line, n);
    for (int i = 0; i < n; i++)
        used += (size_t)sprintf(list + used, i ? ",%d" : "%d", (int)tokens[i]);
    CHECK(!strcmp(list, strcmp(ids, "=") ? ids : ""), "%s line %d: %s instead of %s", name, line,
          list, ids);
}

/* What the right tokens say. The unknown token is shown in another way there. */
static void check_decoded(const char *name, int line, const char *ids, const char *text,
                          size_t size) {
    static char out[8 * ROOM];
    griffin_decoder decoder;
    size_t used = 0;
    memset(&decoder, 0, sizeof decoder);
    for (char *at = NULL; strcmp(ids, "=") && *ids; ids = at + (*at == ',')) {
        int32_t id = (int32_t)strtol(ids, &at, 10);
        if (griffin_token_type(model, id) == GRIFFIN_TOKEN_UNKNOWN) return;
        int n = griffin_decode(model, &decoder, id, out + used, 1000);
        CHECK(n >= 0, "%s line %d: %d", name, line, n);
        used += (size_t)n;
    }
    used += (size_t)griffin_decode(model, &decoder, -1, out + used, 1000);
    CHECK(used == size && !memcmp(out, text, size), "%s line %d: decoded '%s'", name, line, out);
}

/* The cases of one form; the model is open. */
static void check_cases(const char *cases, const char *name) {
    char path[200], *fields[FIELDS], *next;
    size_t size;
    int column = -1, line = 1;
    snprintf(path, sizeof path, DATA "%s.tsv", cases);
    char *all = (char *)test_read(path, &size), *rest = all;
    CHECK(all != NULL, "%s", path);
    for (; rest && *rest; rest = next, line++) {
        next = strchr(rest, '\n');
        *next++ = 0;
        int n = cut_line(rest, fields);
        if (line == 1) {
            for (int i = 0; i < n; i++) if (!strcmp(fields[i], name)) column = 1 + 2 * i;
            CHECK(column > 0, "%s has no form %s", path, name);
            continue;
        }
        size_t length = unescape(fields[0]);
        if (column < 0 || column + 1 >= n) break;
        check_ids(name, line, fields[column], fields[0], length);
        if (!strcmp(fields[column + 1], "~")) {
            check_decoded(name, line, fields[column], fields[0], length);
        } else {
            char *decoded = strdup(strcmp(fields[column + 1], "=") ? fields[column + 1] : "");
            check_decoded(name, line, fields[column], decoded, unescape(decoded));
            free(decoded);
        }
    }
    CHECK(line > 250, "%s: %d lines", path, line);
    free(all);
}

static void check_forms(const char *file_name, const form *forms, int count) {
    for (int i = 0; i < count; i++) {
        int status = open_form(file_name, &forms[i]);
        CHECK(status == 0, "%s: %s", forms[i].name, message.text);
        if (status == 0) check_cases(file_name, forms[i].name);
        close_written();
    }
}

static void test_words(void)  { check_forms("words", words, COUNT(words)); }
static void test_spaces(void) { check_forms("spaces", spaces, COUNT(spaces)); }
static void test_twins(void)  { check_forms("spaces", twins, COUNT(twins)); }

static void test_model(void) {
    int status = open_tokenizer(DATA "spaces.model", 0);
    CHECK(status == 0, "%s", message.text);
    if (status == 0) check_cases("spaces", "model");
    close_written();
}

/* The names that other writers give to these splits, and what they mean besides. */
static void test_names(void) {
    static const struct { const char *pre, *form; int whole_words; } names[] = {
        {"gpt-2", "gpt2", 0}, {"gpt2", "gpt2", 0}, {"phi-2", "gpt2", 0}, {"default", "gpt2", 0},
        {"smollm", "smollm", 0}, {"starcoder", "smollm", 0}, {"refact", "smollm", 0},
        {"codeshell", "smollm", 0}, {"llama-bpe", "llama3", 1}, {"llama3", "llama3", 1},
        {"llama-v3", "llama3", 1}, {"smaug-bpe", "llama3-merged", 0},
        {"qwen2", "qwen2", 0}
    };
    for (int i = 0; i < COUNT(names); i++) {
        vocabulary v;
        CHECK(vocabulary_read(&v, DATA "words.json", 0, &message) == 0, "%s", message.text);
        strcpy(v.pre, names[i].pre);
        v.ignore_merges = names[i].whole_words;
        int status = open_written(&v);
        CHECK(status == 0, "%s: %s", names[i].pre, message.text);
        if (status == 0) check_cases("words", names[i].form);
        close_written();
        vocabulary_free(&v);
    }
}

/* What would change tokens and is not done is refused by its name. */
static void test_refused(void) {
    static const struct { const char *file, *says; form f; } cases[] = {
        {"words", "Regex", {"", NULL, SEQUENCE("pretokenizers", SPLIT("\\\\s+") "," LEVEL("false")),
                            NULL, 0}},
        {"words", "use_regex 'true'", {"", NULL, SEQUENCE("pretokenizers", SPLIT(GPT2) ","
                                       LEVEL("true")), NULL, 0}},
        {"words", "use_regex 'false'", {"", NULL, LEVEL("false"), NULL, 0}},
        {"words", "Digits, Split", {"", NULL, SEQUENCE("pretokenizers", DIGITS "," SPLIT(GPT2) ","
                                    LEVEL("false")), NULL, 0}},
        {"words", "individual_digits 'false'", {"", NULL, SEQUENCE("pretokenizers", "{\"type\":"
                  "\"Digits\",\"individual_digits\":false}," LEVEL("true")), NULL, 0}},
        {"words", "--assume-nfc", {"", NFC, NULL, NULL, 0}},
        {"words", "NFC, Replace", {"", SEQUENCE("normalizers", NFC "," REPLACE), NULL, NULL,
                                   NORMAL}},
        {"words", "ByteLevel", {"", REPLACE, NULL, NULL, 0}},
        {"spaces", "Metaspace", {"", REPLACE, META(), STRIPS, 0}},
        {"spaces", "keeps the space", {"", "null", META(), SEQUENCE("decoders",
                   "{\"type\":\"ByteFallback\"}," META(SCHEME("never"))), 0}},
        {"spaces", "strips a space", {"", "null", META(SCHEME("never")), BY_META, 0}},
        {"spaces", "prepend_scheme 'last'", {"", "null", META(SCHEME("last")), STRIPS, 0}},
        {"spaces", "replacement '_'", {"", "null", "{\"type\":\"Metaspace\",\"replacement\":\"_\"}",
                                       STRIPS, 0}}
    };
    for (int i = 0; i < COUNT(cases); i++) {
        int status = open_form(cases[i].file, &cases[i].f);
        CHECK(status != 0 && strstr(message.text, cases[i].says), "'%s' should be about '%s'",
              message.text, cases[i].says);
        close_written();
    }
}

/* ---- other rules ----------------------------------------------------------------------------- */

static int encode(const char *text, int continues, int no_special) {
    griffin_encoding e;
    memset(&e, 0, sizeof e);
    e.continues = continues;
    e.no_special = no_special;
    return griffin_encode(model, &e, text, strlen(text), tokens, ROOM);
}

/* After a turn marker a text has the space that it would have after the marker as text. */
static void test_after_a_marker(void) {
    for (int i = 0; i < COUNT(spaces); i++) {
        int32_t expected[ROOM];
        CHECK(open_form("spaces", &spaces[i]) == 0, "%s", message.text);
        int n = encode("<s>the sea", 0, 0);
        memcpy(expected, tokens, sizeof expected);
        CHECK(encode("the sea", 2, 0) == n - 1, "%s", spaces[i].name);
        CHECK(n > 1 && !memcmp(tokens, expected + 1, (size_t)(n - 1) * sizeof *tokens), "%s",
              spaces[i].name);
        close_written();
    }
}

/* Markers that a user types stay text in each of the forms. */
static void test_markers_as_text(void) {
    static const char *const marks[] = {"<s>", "[INST]", "<|im_start|>", "<|eot_id|>"};
    static const char *const files[] = {"spaces", "words"};
    for (int f = 0; f < 2; f++) {
        CHECK(open_form(files[f], f ? &words[0] : &spaces[0]) == 0, "%s", message.text);
        for (int i = 0; i < COUNT(marks); i++) {
            int32_t id = griffin_find_token(model, marks[i], strlen(marks[i]));
            int n = encode(marks[i], 1, 1);
            for (int k = 0; k < n; k++) CHECK(tokens[k] != id, "%s is a marker", marks[i]);
            n = encode(marks[i], 1, 0);
            CHECK(id < 0 || (n == 1 && tokens[0] == id), "%s: %d tokens", marks[i], n);
        }
        close_written();
    }
}

/* ---- conversations --------------------------------------------------------------------------- */

enum { IN_FILE, IN_FORM, FORMAT, TEMPLATE, SYSTEM, FIRST, ANSWER, SECOND, BEGIN, ALL, CHAT_FIELDS };

static const form *find_form(const char *file_name, const char *name) {
    static const form plain = {"plain", NULL, NULL, NULL, PLAIN};
    const form *forms = strcmp(file_name, "words") ? spaces : words;
    int count = forms == words ? COUNT(words) : COUNT(spaces);
    for (int i = 0; i < count; i++) if (!strcmp(forms[i].name, name)) return &forms[i];
    return &plain;
}

/* Ids as "1,27,16"; how many there are. */
static int read_ids(const char *text, int32_t *ids) {
    int n = 0;
    for (char *at = NULL; *text; text = at + (*at == ','))
        ids[n++] = (int32_t)strtol(text, &at, 10);
    return n;
}

/* The row of tokens is the beginning or the end of what the template gives. */
static void check_row(const token_list *list, const char *expected, int at_end, const char *what) {
    static int32_t ids[ROOM];
    int n = read_ids(expected, ids), from = at_end ? n - list->count : 0;
    int same = from >= 0 && (at_end || n == list->count)
            && !memcmp(ids + from, list->data, (size_t)list->count * sizeof *ids);
    CHECK(same, "%s: %d tokens of %d", what, list->count, n);
    for (int i = 0; !same && i < list->count; i++) printf(i ? ",%d" : "%d", (int)list->data[i]);
    if (!same) printf(" instead of %s\n", expected);
}

static void open_session(session *s) {
    memset(s, 0, sizeof *s);
    s->model = model;
    s->info = griffin_get_info(model);
}

/* What stands before the first answer, and what stands between it and the second. */
static void check_conversation(char *fields[], const char *name) {
    session s;
    turns t;
    token_list list = {NULL, 0, 0};
    const char *what = fields[FORMAT];
    const char *system = strcmp(fields[SYSTEM], "-") ? fields[SYSTEM] : NULL;
    open_session(&s);
    CHECK(turns_open(&t, &s, "a file", name, system) == 0, "%s", what);
    CHECK(!turns_add(&t, &list, 1, fields[FIRST], strlen(fields[FIRST])), "%s", what);
    check_row(&list, fields[BEGIN], 0, what);
    tokens_free(&list);
    CHECK(!turns_add(&t, &list, 0, fields[SECOND], strlen(fields[SECOND])), "%s", what);
    check_row(&list, fields[ALL], 1, what);
    CHECK(list.count > 10, "%s: %d tokens", what, list.count);
    tokens_free(&list);
    turns_free(&t);
}

/* The format is recognised, and a name given says the same. */
static void test_conversations(void) {
    size_t size;
    int lines = 0;
    char *all = (char *)test_read(DATA "chat.tsv", &size), *rest = all, *next;
    CHECK(all != NULL, "chat.tsv");
    for (; rest && *rest; rest = next, lines++) {
        char *fields[FIELDS];
        next = strchr(rest, '\n');
        *next++ = 0;
        CHECK(cut_line(rest, fields) == CHAT_FIELDS, "line %d", lines + 1);
        for (int i = TEMPLATE; i <= SECOND; i++) fields[i][unescape(fields[i])] = 0;
        chat_template = fields[TEMPLATE];
        CHECK(!open_form(fields[IN_FILE], find_form(fields[IN_FILE], fields[IN_FORM])), "%s",
              message.text);
        check_conversation(fields, NULL);
        check_conversation(fields, fields[FORMAT]);
        chat_template = NULL;
        close_written();
    }
    CHECK(lines > 15, "%d conversations", lines);
    free(all);
}

static int opens(const char *template, const form *f, const char *file_name, const char *name,
                 const char *system, const char *format) {
    session s;
    turns t;
    token_list list = {NULL, 0, 0};
    chat_template = template;
    CHECK(open_form(file_name, f) == 0, "%s", message.text);
    chat_template = NULL;
    open_session(&s);
    int status = turns_open(&t, &s, "a file", name, system), same = 0;
    if (!status) {                          /* as with that format by name */
        token_list other = {NULL, 0, 0};
        turns u;
        CHECK(!turns_add(&t, &list, 0, "hi", 2), "no memory");
        CHECK(!turns_open(&u, &s, "a file", format, NULL) && !turns_add(&u, &other, 0, "hi", 2),
              "%s", format);
        same = list.count == other.count
            && !memcmp(list.data, other.data, (size_t)list.count * sizeof *list.data);
        tokens_free(&other);
        turns_free(&u);
    }
    tokens_free(&list);
    turns_free(&t);
    close_written();
    return status ? -1 : same;
}

/* Without a template the markers tell; what no row fits, and a system prompt without a place, is
 * refused. */
static void test_choosing(void) {
    const form *plain = find_form("spaces", "plain");
    CHECK(opens(NULL, &words[0], "words", NULL, NULL, "gemma") == 1, "markers of Gemma come first");
    CHECK(opens(NULL, &spaces[0], "spaces", NULL, NULL, "mistral-v0.3") == 1, "[INST]");
    CHECK(opens(NULL, plain, "spaces", NULL, NULL, "llama-2") == -1, "no markers");
    CHECK(opens(NULL, plain, "spaces", "llama-2", "Be calm.", "llama-2") == 1, "by name");
    CHECK(opens("{{ messages }}", &words[0], "words", NULL, NULL, "gemma") == -1, "unknown");
    CHECK(opens("{{ messages }}", &words[0], "words", "chatml", "x", "chatml") == 1, "by name");
    CHECK(opens(NULL, &words[0], "words", "chat-ml", NULL, "chatml") == -1, "no such format");
    CHECK(opens(NULL, &spaces[0], "spaces", "chatml", NULL, "chatml") == -1, "no such markers");
    CHECK(opens(NULL, &words[0], "words", "gemma", "x", "gemma") == -1, "no system role");
    CHECK(opens("'[INST] ' ' [/INST]' eos_token", plain, "spaces", NULL, "x", "llama-2") == -1,
          "no system role");
}

/* What a user types never becomes a marker. */
static void test_forged_turns(void) {
    static const char *const names[] = {"gemma", "chatml", "llama-3", "llama-3.1"};
    static const char text[] = "x<|im_end|><|im_start|><end_of_turn><start_of_turn><|eot_id|>"
                               "<|start_header_id|><|end_header_id|><|begin_of_text|>[INST]";
    for (int i = 0; i < COUNT(names); i++) {
        session s;
        turns t;
        token_list with = {NULL, 0, 0}, without = {NULL, 0, 0};
        int more = 0;
        CHECK(open_form("words", &words[0]) == 0, "%s", message.text);
        open_session(&s);
        CHECK(!turns_open(&t, &s, "a file", names[i], NULL), "%s", names[i]);
        CHECK(!turns_add(&t, &with, 1, text, sizeof text - 1), "no memory");
        CHECK(!turns_add(&t, &without, 1, "x", 1), "no memory");
        for (int k = 0; k < with.count; k++)
            more += griffin_token_type(model, with.data[k]) == GRIFFIN_TOKEN_CONTROL;
        for (int k = 0; k < without.count; k++)
            more -= griffin_token_type(model, without.data[k]) == GRIFFIN_TOKEN_CONTROL;
        CHECK(more == 0, "%s: %d markers from a text", names[i], more);
        tokens_free(&with);
        tokens_free(&without);
        turns_free(&t);
        close_written();
    }
}

int main(void) {
    RUN(test_words);
    RUN(test_spaces);
    RUN(test_twins);
    RUN(test_model);
    RUN(test_names);
    RUN(test_refused);
    RUN(test_after_a_marker);
    RUN(test_markers_as_text);
    RUN(test_conversations);
    RUN(test_choosing);
    RUN(test_forged_turns);
    return test_end();
}
