/* test_grammar.c - a grammar lets exactly those tokens pass whose bytes it can derive next, at
 * every place of a text, in every vocabulary; wrong grammars are refused where they are wrong.
 *
 * The judge is a matcher that shares nothing with the library: it reads GBNF into a tree and
 * computes, for each part of the tree, the set of places where a match can end. */

#include "model.h"
#include "test.h"
#include "../tools/json.h"

/* ---- the judge ------------------------------------------------------------------------------ */

#define MOST_BYTES 120                      /* of a text */
#define MOST_TREE  4000

typedef enum tree_kind { LITERAL, CLASS, RULE, SEQUENCE, CHOICE, REPEAT } tree_kind;

/* Literals and classes are lists of ranges; the others have children. */
typedef struct tree {
    tree_kind kind;
    int child, sibling;                     /* 0: none */
    int least, most;                        /* of REPEAT; -1: no limit */
    int negated, count;
    uint32_t low[16], high[16];
    char name[24];
} tree;

typedef struct ends { unsigned char at[MOST_BYTES + 1]; } ends;    /* 1: a match can end there */

static tree nodes[MOST_TREE];
static int n_nodes;
static struct { char name[24]; int body; } rules[64];
static int n_rules;
static const char *gbnf;                    /* being read */
static const char *subject;                 /* being matched */
static int subject_length, can_go_on;

static int read_choice(void);

static void blank(void) {
    for (; *gbnf && strchr(" \t\r\n#", *gbnf); gbnf++) if (*gbnf == '#') gbnf += strcspn(gbnf, "\n");
}

static int new_node(tree_kind kind) {
    memset(&nodes[n_nodes], 0, sizeof nodes[0]);
    nodes[n_nodes].kind = kind;
    return n_nodes++;
}

static uint32_t read_character(void) {
    const char *letters = "nrt\\\"[]", *values = "\n\r\t\\\"[]", *found;
    int n = grf_utf8(gbnf, strlen(gbnf)), digits;
    uint32_t c = grf_code_point(gbnf, n);
    char hex[9] = "";
    gbnf += n;
    if (c != '\\') return c;
    found = strchr(letters, *gbnf++);
    if (found) return (uint32_t)values[found - letters];
    digits = gbnf[-1] == 'x' ? 2 : gbnf[-1] == 'u' ? 4 : 8;
    memcpy(hex, gbnf, (size_t)digits);
    gbnf += digits;
    return (uint32_t)strtoul(hex, NULL, 16);
}

static int read_range(int node, char end) {     /* 0 at the end */
    tree *t = &nodes[node];
    if (*gbnf == end) { gbnf++; return 0; }
    t->low[t->count] = t->high[t->count] = read_character();
    if (end == ']' && *gbnf == '-' && gbnf[1] != ']') { gbnf++; t->high[t->count] = read_character(); }
    t->count++;
    return 1;
}

static int read_atom(void) {
    int node;
    size_t n = strspn(gbnf, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_");
    if (*gbnf == '(') { gbnf++; node = read_choice(); gbnf++; return node; }
    if (*gbnf == '.') { gbnf++; node = new_node(CLASS); nodes[node].negated = 1; return node; }
    if (*gbnf == '"' || *gbnf == '[') {
        char end = *gbnf == '"' ? '"' : ']';
        node = new_node(end == '"' ? LITERAL : CLASS);
        gbnf++;
        if (end == ']' && *gbnf == '^') { nodes[node].negated = 1; gbnf++; }
        while (read_range(node, end)) { }
        return node;
    }
    node = new_node(RULE);
    memcpy(nodes[node].name, gbnf, n);
    gbnf += n;
    return node;
}

static int read_repeats(int node) {
    for (blank(); *gbnf && strchr("*+?{", *gbnf); blank()) {
        int outer = new_node(REPEAT);
        nodes[outer].child = node;
        nodes[outer].least = *gbnf == '+';
        nodes[outer].most = *gbnf == '?' ? 1 : -1;
        if (*gbnf++ == '{') {
            nodes[outer].least = nodes[outer].most = (int)strtol(gbnf, (char **)&gbnf, 10);
            if (*gbnf == ',') nodes[outer].most = gbnf[1] == '}' ? -1 : (int)strtol(gbnf + 1, (char **)&gbnf, 10);
            gbnf = strchr(gbnf, '}') + 1;
        }
        node = outer;
    }
    return node;
}

static int at_rule(void) {
    size_t n = strspn(gbnf, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_");
    return n && !strncmp(gbnf + n + strspn(gbnf + n, " "), "::=", 3);
}

static int read_sequence(void) {
    int node = new_node(SEQUENCE), *last = &nodes[node].child;
    for (blank(); *gbnf && *gbnf != '|' && *gbnf != ')' && !at_rule(); blank()) {
        *last = read_repeats(read_atom());
        last = &nodes[*last].sibling;
    }
    return node;
}

static int read_choice(void) {
    int node = new_node(CHOICE), *last = &nodes[node].child;
    for (;;) {
        *last = read_sequence();
        last = &nodes[*last].sibling;
        if (*gbnf != '|') return node;
        gbnf++;
    }
}

static void read_grammar(const char *text) {
    gbnf = text;
    n_nodes = 1;                            /* 0 is no node */
    n_rules = 0;
    for (blank(); *gbnf; blank()) {
        memset(rules[n_rules].name, 0, sizeof rules[0].name);
        memcpy(rules[n_rules].name, gbnf, strcspn(gbnf, " :"));
        gbnf = strstr(gbnf, "::=") + 3;
        rules[n_rules++].body = read_choice();
    }
}

static int in_class(const tree *t, uint32_t c) {
    int i, in = 0;
    for (i = 0; i < t->count; i++) in |= c >= t->low[i] && c <= t->high[i];
    return in != t->negated && c <= 0x10FFFF && (c < 0xD800 || c > 0xDFFF);
}

/* Can what is left of the subject, too short for a character, become one of the class? */
static int can_become(const tree *t, const char *text, int left) {
    const unsigned char *p = (const unsigned char *)text;
    int n = p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : 4, i;
    uint32_t c = p[0] & (0x7Fu >> n), end, least = n == 2 ? 0x80 : n == 3 ? 0x800 : 0x10000;
    for (i = 1; i < left; i++) c = c << 6 | (p[i] & 0x3F);
    end = (c + 1) << 6 * (n - left);
    for (c <<= 6 * (n - left); c < end; c++) if (c >= least && in_class(t, c)) return 1;
    return 0;
}

/* Where one character read at `at` ends; -1: it does not match. */
static int after_character(const tree *t, int at) {
    int n, left = subject_length - at;
    if (left == 0) { can_go_on = 1; return -1; }
    n = grf_utf8(subject + at, (uint64_t)left);
    if (n < 0 && !can_go_on) can_go_on = can_become(t, subject + at, left);
    return n > 0 && in_class(t, grf_code_point(subject + at, n)) ? at + n : -1;
}

static int any(const ends *e) { return memchr(e->at, 1, sizeof e->at) != NULL; }

static ends match(int node, const ends *starts);

static ends match_characters(const tree *t, const ends *starts) {
    ends out;
    int at, i, to;
    memset(&out, 0, sizeof out);
    for (at = 0; at <= subject_length; at++) {
        if (!starts->at[at]) continue;
        if (t->kind == CLASS) {
            to = after_character(t, at);
        } else {
            for (i = 0, to = at; i < t->count && to >= 0; i++) {
                tree one = *t;
                one.low[0] = one.high[0] = t->low[i];
                one.count = 1;
                to = after_character(&one, to);
            }
        }
        if (to >= 0) out.at[to] = 1;
    }
    return out;
}

static ends match_repeat(const tree *t, const ends *starts) {
    ends out, now = *starts, before;
    int round, at;
    memset(&out, 0, sizeof out);
    for (round = 0; any(&now) && (t->most < 0 || round <= t->most); round++) {
        before = out;
        for (at = 0; round >= t->least && at <= subject_length; at++) out.at[at] |= now.at[at];
        if (round > t->least && memcmp(&before, &out, sizeof out) == 0) break;
        if (round == t->most) break;
        now = match(t->child, &now);
    }
    return out;
}

static ends match(int node, const ends *starts) {
    const tree *t = &nodes[node];
    ends out = *starts, part;
    int i, at;
    if (!any(starts)) return out;
    switch (t->kind) {
    case LITERAL: case CLASS: return match_characters(t, starts);
    case REPEAT: return match_repeat(t, starts);
    case SEQUENCE:
        for (i = t->child; i; i = nodes[i].sibling) out = match(i, &out);
        return out;
    case CHOICE:
        memset(&out, 0, sizeof out);
        for (i = t->child; i; i = nodes[i].sibling) {
            part = match(i, starts);
            for (at = 0; at <= subject_length; at++) out.at[at] |= part.at[at];
        }
        return out;
    case RULE:
        for (i = 0; i < n_rules; i++) if (!strcmp(rules[i].name, t->name)) return match(rules[i].body, starts);
    }
    CHECK(0, "no rule %s", t->name);
    return out;
}

enum { DEAD, ALIVE, COMPLETE };             /* COMPLETE may be alive as well */

/* Can the text be continued (or, COMPLETE, end)? *more: can it be continued? */
static int judge(const char *text, int length, int *more) {
    ends start, out;
    int i;
    memset(&start, 0, sizeof start);
    start.at[0] = 1;
    subject = text;
    subject_length = length;
    can_go_on = 0;
    memset(&out, 0, sizeof out);
    for (i = 0; i < n_rules; i++) if (!strcmp(rules[i].name, "root")) out = match(rules[i].body, &start);
    *more = can_go_on;
    return out.at[length] ? COMPLETE : can_go_on ? ALIVE : DEAD;
}

/* ---- vocabularies without a network ----------------------------------------------------------- */

static griffin_model model;
static unsigned char *file;
static float *logits;
static char message[400];

static int open_bytes(unsigned char *data, size_t size) {
    memset(&model, 0, sizeof model);
    model.host.error = message;
    model.host.error_size = sizeof message;
    file = data;
    if (!data || grf_gguf_open(&model.file, data, size, &model.host) < 0
        || grf_vocab_load(&model.vocab, &model.file, &model.host) < 0) { printf("%s\n", message); exit(1); }
    model.info.config.vocab = model.vocab.count + 3;        /* rows of an embedding may be padded */
    logits = (float *)malloc((size_t)model.info.config.vocab * sizeof(float));
    return 0;
}

static void open_vocabulary(const char *name) {
    char path[100];
    size_t size = 0;
    snprintf(path, sizeof path, "tests/data/tokenizer/%s.gguf", name);
    file = test_read(path, &size);
    open_bytes(file, size);
}

static void close_vocabulary(void) {
    grf_vocab_free(&model.vocab, &model.host);
    grf_gguf_close(&model.file, &model.host);
    free(file);
    free(logits);
}

/* "<s>" and "</s>", then these pieces. */
static void open_pieces(const char *const *pieces, int count, int type) {
    gguf g;
    size_t size;
    int i;
    memset(&g, 0, sizeof g);
    gguf_text(&g, "tokenizer.ggml.model", "llama");
    gguf_array(&g, "tokenizer.ggml.tokens", GRF_VALUE_STRING, count + 2);
    put_text(&g.pairs, "<s>");
    put_text(&g.pairs, "</s>");
    for (i = 0; i < count; i++) put_text(&g.pairs, pieces[i]);
    gguf_array(&g, "tokenizer.ggml.scores", GRF_VALUE_F32, count + 2);
    for (i = 0; i < count + 2; i++) put_u32(&g.pairs, 0);
    gguf_array(&g, "tokenizer.ggml.token_type", GRF_VALUE_I32, count + 2);
    for (i = 0; i < count + 2; i++) put_u32(&g.pairs, (uint32_t)(i < 2 ? GRIFFIN_TOKEN_CONTROL : type));
    gguf_int(&g, "tokenizer.ggml.bos_token_id", 0);
    gguf_int(&g, "tokenizer.ggml.eos_token_id", 1);
    open_bytes(gguf_finish(&g, &size), size);
}

static griffin_grammar *grammar_of(const char *text) {
    griffin_grammar *g;
    griffin_options options;
    int error;
    memset(&options, 0, sizeof options);
    options.error = message;
    options.error_size = sizeof message;
    message[0] = 0;
    error = griffin_grammar_open(&g, &model, text, strlen(text), &options);
    CHECK((error == 0) == (g != NULL), "%d", error);
    return g;
}

/* ---- exactness ---------------------------------------------------------------------------------- */

typedef struct writing {                    /* a text on its way */
    griffin_grammar_state state;
    char text[MOST_BYTES + 300];
    int  length;
} writing;

static int is_end(int32_t token) { return token == model.vocab.eos || token == model.vocab.eot; }

static int mask(const griffin_grammar *g, const griffin_grammar_state *s) {
    int i;
    for (i = 0; i < model.info.config.vocab; i++) logits[i] = (float)i;
    return griffin_grammar_mask(g, s, logits);
}

/* The token's bytes after the text; the new length, or 0 if it has no text or is too long. */
static int append(writing *w, int32_t token) {
    int type = griffin_token_type(&model, token), n;
    if (type == GRIFFIN_TOKEN_CONTROL || type == GRIFFIN_TOKEN_UNKNOWN || is_end(token)) return 0;
    if (model.vocab.pieces[token].marker && type == GRIFFIN_TOKEN_USER_DEFINED) return 0;
    if (token == model.vocab.bos || token == model.vocab.pad) return 0;
    n = griffin_token_text(&model, token, w->text + w->length, 300);
    return n > 0 ? w->length + n : 0;
}

/* What the library allows against the judge, for all tokens. Returns what mask did. */
static int check_mask(const griffin_grammar *g, writing *w, const char *what) {
    int remaining = mask(g, &w->state), i, more, wrong = 0, count = 0;
    int complete = judge(w->text, w->length, &more) == COMPLETE;
    for (i = 0; i < model.info.config.vocab; i++) {
        int length = i < model.vocab.count ? append(w, i) : 0, expected = 0;
        if (i < model.vocab.count && is_end(i)) expected = complete;
        else if (length > MOST_BYTES) expected = logits[i] != -INFINITY;
        else if (length) expected = judge(w->text, length, &more) != DEAD;
        count += expected;
        if ((logits[i] != -INFINITY) == expected && (!expected || logits[i] == (float)i)) continue;
        if (wrong++ < 3) {
            CHECK(0, "%s: after '%.*s' token %d '%s' is %s", what, w->length, w->text, i,
                  i < model.vocab.count ? model.vocab.pieces[i].text : "", expected ? "missing" : "allowed");
        }
    }
    CHECK(remaining == (count ? count : GRIFFIN_E_NO_TOKEN), "%s: %d of %d", what, remaining, count);
    return remaining;
}

/* A random one of the tokens that remain; bytes and the end rarely. */
static int32_t choose(void) {
    int32_t best = -1;
    uint32_t top = 0;
    int i;
    for (i = 0; i < model.vocab.count; i++) {
        uint32_t draw = dice() >> 1;
        if (griffin_token_type(&model, i) == GRIFFIN_TOKEN_BYTE || is_end(i)) draw >>= 6;
        if (logits[i] != -INFINITY && draw >= top) { top = draw; best = i; }
    }
    return best;
}

static void check_accept(const griffin_grammar *g, writing *w, int32_t token) {
    griffin_grammar_state before = w->state;
    int length = append(w, token), ended, more, i;
    for (i = 0; i < 20; i++) {              /* what was masked is refused */
        int32_t other = (int32_t)(dice() % (uint32_t)model.vocab.count);
        if (logits[other] != -INFINITY) continue;
        CHECK(griffin_grammar_accept(g, &w->state, other) == GRIFFIN_E_ARGUMENT, "%d", other);
        CHECK(memcmp(&before, &w->state, sizeof before) == 0, "a refused token changed the state");
    }
    ended = griffin_grammar_accept(g, &w->state, token);
    if (is_end(token)) { CHECK(ended == 1, "%d", ended); return; }
    w->length = length;
    if (length > MOST_BYTES) return;
    CHECK(ended == (judge(w->text, length, &more) == COMPLETE), "'%.*s': %d", length, w->text, ended);
}

static void check_texts(const char *text, int texts, int tokens) {
    griffin_grammar *g = grammar_of(text);
    writing w;
    int i, n;
    CHECK(g != NULL, "%s\n%s", message, text);
    if (!g) return;
    read_grammar(text);
    for (n = 0; n < texts; n++) {
        memset(&w, 0, sizeof w);
        for (i = 0; i < tokens && w.length < MOST_BYTES / 2; i++) {
            int32_t token;
            if (check_mask(g, &w, text) < 0) break;
            token = choose();
            check_accept(g, &w, token);
            if (is_end(token)) break;
        }
    }
    griffin_grammar_close(g);
}

static const char *const small[] = {
    "root ::= \"yes\" | \"no\"",
    "root ::= [a-z]+ (\" \" [a-z]+)* \".\"",
    "root ::= \"a\"? \"b\"* \"c\"+ \"d\"{2} \"e\"{1,} \"f\"{0,2} \"g\"{2,4}",
    "root ::= a b*\na ::= \"x\" a \"y\" | \"\" # nested\nb ::= [^xy\\n]{1,3} \"!\"",
    "root ::= ( \"the \" | \"a \" ) ( \"cat\" | \"car\" | \"care\" | \"dog\" )+ | ",
    "root ::= .* \"end\"",
    "root ::= [\\u00e9\\u4e00-\\u4eff\\U0001F600-\\U0001F64F]+ [^\\x00-\\x7F]? \"caf\xC3\xA9\"",
    "root ::= word-list\nword-list ::= word (\", \" word){0,2}\nword ::= [A-Z] [a-z]*\n",
    "root ::= ((\"\")* [0-9]? (\"\" | \"-\"){0,3})*",
    "root ::= \"\\\"\" ([^\\\"\\\\] | \"\\\\\" [\\\"\\\\nt])* \"\\\"\"",
    "root ::= one two\none ::= \"a\"*\ntwo ::= \"a\"* \"b\"\nunused ::= \"q\"",
    "root ::= list\nlist ::= \"(\" list* \")\" | [\\]\\[^-] | [^-\\]a-z]",
    "root ::= \"\"", "root ::= []a] | \"x\"", "root ::= [^^]{3}"
};

static void test_exact(void) {
    static const char *const names[] = { "gemma_like", "byte_level", "llama_like" };
    int i, v;
    for (v = 0; v < 3; v++) {
        open_vocabulary(names[v]);
        for (i = 0; i < (int)(sizeof small / sizeof small[0]); i++) {
            if (strstr(small[i], "[]a]")) continue;
            check_texts(small[i], v ? 1 : 2, 8);
        }
        close_vocabulary();
    }
}

/* ---- random grammars ------------------------------------------------------------------------------ */

static char random_text[4000];

static void say(const char *text) { strncat(random_text, text, 3999 - strlen(random_text)); }

static void random_choice(int depth);

static void random_atom(int depth) {
    static const char *const atoms[] = {
        "\"a\"", "\"ab\"", "\"the\"", "\" \"", "[a-c]", "[^a-y]", "[ et]", ".", "\"\"", "[\\u0400-\\u04ff]",
        "\"\xC3\xA9\"", "[^\\x00-\\x7f]", "one", "two", "three", "one", "two"
    };
    uint32_t draw = dice() % 20;
    if (draw < 17 || depth > 3) { say(atoms[draw % 17]); return; }
    say("(");
    random_choice(depth + 1);
    say(")");
}

static void random_choice(int depth) {
    static const char *const repeats[] = { "", "", "", "", "?", "*", "+", "{2}", "{1,3}", "{0,2}", "{2,}" };
    int alternatives = 1 + (int)(dice() % 3), items;
    while (alternatives--) {
        for (items = (int)(dice() % 4); items >= 0; items--) {
            random_atom(depth);
            say(repeats[dice() % 11]);
            say(" ");
        }
        if (alternatives) say("| ");
    }
}

static void test_random(void) {
    static const char *const names[] = { "root", "one", "two", "three" };
    int round, i, used = 0;
    griffin_grammar *g;
    open_vocabulary("tiny300");
    for (round = 0; round < 400; round++) {
        random_text[0] = 0;
        for (i = 0; i < 4; i++) {
            say(names[i]);
            say(" ::= ");
            random_choice(0);
            say("\n");
        }
        g = grammar_of(random_text);
        griffin_grammar_close(g);
        CHECK(g || strstr(message, "left recursion"), "%s\n%s", message, random_text);
        if (!g || (used++, 0)) continue;
        check_texts(random_text, 1, 6);
    }
    CHECK(used > 50, "only %d of the grammars could be used", used);
    close_vocabulary();
}

int main(void) {
    RUN(test_exact);
    RUN(test_random);
    return test_end();
}
