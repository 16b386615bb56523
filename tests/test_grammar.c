/* test_grammar.c - a grammar lets exactly those tokens pass whose bytes it can derive next and
 * which a tokenizer could have written, at every place of a text, in every vocabulary; wrong
 * grammars are refused where they are wrong.
 *
 * The judge is a matcher that shares nothing with the library: it reads GBNF into a tree and
 * computes, for each part of the tree, the set of places where a match can end. */

#include "griffin.h"
#define GRIFFIN_GRAMMAR_STATIC
#define GRIFFIN_GRAMMAR_IMPLEMENTATION
static int few_tokens;                      /* 0: no look ahead, see test_words */
#define GRG_FEW_TOKENS few_tokens
#define GRG_LONG_WALK 8                     /* so that almost every position has a cached set */
#include "../tools/griffin_grammar.h"
#include "test.h"
#include "vocabulary_model.h"
#include "../tools/shared/json.h"

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
    for (; *gbnf && strchr(" \t\r\n#", *gbnf); gbnf++) {
        if (*gbnf == '#') gbnf += strcspn(gbnf, "\n");
    }
}

static int new_node(tree_kind kind) {
    memset(&nodes[n_nodes], 0, sizeof nodes[0]);
    nodes[n_nodes].kind = kind;
    return n_nodes++;
}

static uint32_t read_character(void) {
    const char *letters = "nrt\\\"[]", *values = "\n\r\t\\\"[]";
    int n = grg_utf8_length(gbnf, strlen(gbnf));
    uint32_t c = grg_utf8_code_point(gbnf, n);
    char hex[9] = "";
    gbnf += n;
    if (c != '\\') return c;
    const char *found = strchr(letters, *gbnf++);
    if (found) return (uint32_t)values[found - letters];
    int digits = gbnf[-1] == 'x' ? 2 : gbnf[-1] == 'u' ? 4 : 8;
    memcpy(hex, gbnf, (size_t)digits);
    gbnf += digits;
    return (uint32_t)strtoul(hex, NULL, 16);
}

static int read_range(int node, char end) {     /* 0 at the end */
    tree *t = &nodes[node];
    if (*gbnf == end) { gbnf++; return 0; }
    t->low[t->count] = t->high[t->count] = read_character();
    if (end == ']' && *gbnf == '-' && gbnf[1] != ']') {
        gbnf++;
        t->high[t->count] = read_character();
    }
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

static int read_number(void) { return (int)strtol(gbnf, (char **)&gbnf, 10); }

static int read_repeats(int node) {
    for (blank(); *gbnf && strchr("*+?{", *gbnf); blank()) {
        int outer = new_node(REPEAT);
        nodes[outer].child = node;
        nodes[outer].least = *gbnf == '+';
        nodes[outer].most = *gbnf == '?' ? 1 : -1;
        if (*gbnf++ == '{') {
            nodes[outer].least = nodes[outer].most = read_number();
            if (*gbnf == ',') nodes[outer].most = *++gbnf == '}' ? -1 : read_number();
            gbnf++;
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
    int in = 0;
    for (int i = 0; i < t->count; i++) in |= c >= t->low[i] && c <= t->high[i];
    return in != t->negated && c <= 0x10FFFF && (c < 0xD800 || c > 0xDFFF);
}

/* Can what is left of the subject, too short for a character, become one of the class? */
static int can_become(const tree *t, const char *text, int left) {
    const unsigned char *p = (const unsigned char *)text;
    int n = p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : 4;
    uint32_t c = p[0] & (0x7Fu >> n), least = n == 2 ? 0x80 : n == 3 ? 0x800 : 0x10000;
    for (int i = 1; i < left; i++) c = c << 6 | (p[i] & 0x3F);
    uint32_t end = (c + 1) << 6 * (n - left);
    for (c <<= 6 * (n - left); c < end; c++) if (c >= least && in_class(t, c)) return 1;
    return 0;
}

/* Where one character read at `at` ends; -1: it does not match. */
static int after_character(const tree *t, int at) {
    int left = subject_length - at;
    if (left == 0) { can_go_on = 1; return -1; }
    int n = grg_utf8_length(subject + at, (uint64_t)left);
    if (n < 0 && !can_go_on) can_go_on = can_become(t, subject + at, left);
    return n > 0 && in_class(t, grg_utf8_code_point(subject + at, n)) ? at + n : -1;
}

static int any(const ends *e) { return memchr(e->at, 1, sizeof e->at) != NULL; }

static ends match(int node, const ends *starts);

static ends match_characters(const tree *t, const ends *starts) {
    ends out;
    int i, to;
    memset(&out, 0, sizeof out);
    for (int at = 0; at <= subject_length; at++) {
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
    memset(&out, 0, sizeof out);
    for (int round = 0; any(&now) && (t->most < 0 || round <= t->most); round++) {
        before = out;
        for (int at = 0; round >= t->least && at <= subject_length; at++) out.at[at] |= now.at[at];
        if (round > t->least && memcmp(&before, &out, sizeof out) == 0) break;
        if (round == t->most) break;
        now = match(t->child, &now);
    }
    return out;
}

static ends match_rule(const char *name, const ends *starts) {
    ends none;
    for (int i = 0; i < n_rules; i++) {
        if (!strcmp(rules[i].name, name)) return match(rules[i].body, starts);
    }
    memset(&none, 0, sizeof none);
    return none;
}

static ends match(int node, const ends *starts) {
    const tree *t = &nodes[node];
    ends out = *starts, part;
    if (!any(starts)) return out;
    switch (t->kind) {
    case LITERAL: case CLASS: return match_characters(t, starts);
    case REPEAT: return match_repeat(t, starts);
    case SEQUENCE:
        for (int i = t->child; i; i = nodes[i].sibling) out = match(i, &out);
        return out;
    case CHOICE:
        memset(&out, 0, sizeof out);
        for (int i = t->child; i; i = nodes[i].sibling) {
            part = match(i, starts);
            for (int at = 0; at <= subject_length; at++) out.at[at] |= part.at[at];
        }
        return out;
    case RULE:
        return match_rule(t->name, starts);
    }
    return out;
}

enum { DEAD, ALIVE, COMPLETE };             /* COMPLETE may be alive as well */

/* Can the text be continued (or, COMPLETE, end)? *more: can it be continued? */
static int judge(const char *text, int length, int *more) {
    ends start;
    memset(&start, 0, sizeof start);
    start.at[0] = 1;
    subject = text;
    subject_length = length;
    can_go_on = 0;
    ends out = match_rule("root", &start);
    *more = can_go_on;
    return out.at[length] ? COMPLETE : can_go_on ? ALIVE : DEAD;
}

/* ---- vocabularies ---------------------------------------------------------------------------- */

static vocabulary_model v;
static float *logits;
static char message[400];
static int ambiguous;                       /* the grammars may be */

static void learn_pieces(void);

static void new_logits_for_all(void) {
    logits = (float *)malloc((size_t)v.info->config.vocab * sizeof(float));
    learn_pieces();
}

static void open_vocabulary(const char *name) {
    vocabulary_open(&v, name);
    new_logits_for_all();
}

static void close_vocabulary(void) {
    vocabulary_close(&v);
    free(logits);
}

/* "<s>" and, unless has_end is 0, "</s>" to end a text, then these pieces. */
static void open_pieces(const char *const *pieces, int count, int has_end) {
    gguf g;
    memset(&g, 0, sizeof g);
    gguf_text(&g, "tokenizer.ggml.model", "llama");
    gguf_array(&g, "tokenizer.ggml.tokens", GRIFFIN_VALUE_STRING, count + 2);
    put_text(&g.pairs, "<s>");
    put_text(&g.pairs, "</s>");
    for (int i = 0; i < count; i++) put_text(&g.pairs, pieces[i]);
    gguf_array(&g, "tokenizer.ggml.scores", GRIFFIN_VALUE_F32, count + 2);
    for (int i = 0; i < count + 2; i++) put_u32(&g.pairs, 0);
    gguf_array(&g, "tokenizer.ggml.token_type", GRIFFIN_VALUE_I32, count + 2);
    for (int i = 0; i < count + 2; i++)
        put_u32(&g.pairs, i < 2 ? GRIFFIN_TOKEN_CONTROL : GRIFFIN_TOKEN_NORMAL);
    gguf_int(&g, "tokenizer.ggml.bos_token_id", 0);
    if (has_end) gguf_int(&g, "tokenizer.ggml.eos_token_id", 1);
    vocabulary_finish(&v, &g, count + 2);
    new_logits_for_all();
}

static griffin_grammar *grammar_of(const char *text) {
    griffin_grammar *g;
    griffin_options options;
    memset(&options, 0, sizeof options);
    options.error = message;
    options.error_size = sizeof message;
    message[0] = 0;
    int error = griffin_grammar_open(&g, v.model, text, strlen(text), &options);
    CHECK((error == 0) == (g != NULL), "%d", error);
    return g;
}

/* ---- exactness ------------------------------------------------------------------------------- */

typedef struct writing {                    /* a text on its way */
    griffin_grammar_state state;
    char text[MOST_BYTES + 300];
    int  length, last;                      /* last: the last token; counts once length > 0 */
} writing;

static int is_end(int32_t token) { return token == v.info->eos || token == v.info->end_of_turn; }

static int mask(const griffin_grammar *g, const griffin_grammar_state *s) {
    for (int i = 0; i < v.info->config.vocab; i++) logits[i] = (float)i;
    return griffin_grammar_mask(g, s, logits);
}

/* The token's bytes after the text; the new length, or 0 if it has no text or is too long. */
static int append(writing *w, int32_t token) {
    int type = griffin_token_type(v.model, token);
    if (type == GRIFFIN_TOKEN_CONTROL || type == GRIFFIN_TOKEN_UNKNOWN || is_end(token)) return 0;
    if (type == GRIFFIN_TOKEN_MARKER) return 0;
    if (token == v.info->bos || token == v.info->pad) return 0;
    int n = griffin_token_text(v.model, token, w->text + w->length, 300);
    return n > 0 ? w->length + n : 0;
}

/* The texts of all tokens, and which of them a tokenizer can write. */
static char piece_text[4000][32];
static int piece_type[4000];

static void learn_pieces(void) {
    memset(piece_text, 0, sizeof piece_text);
    for (int i = 0; i < v.info->tokens; i++) {
        piece_type[i] = griffin_token_type(v.model, i);
        griffin_token_text(v.model, i, piece_text[i], 31);
    }
}

/* Is this text a piece, rather than only the token of a byte? */
static int is_piece(const char *text, int n) {
    for (int i = 0; i < v.info->tokens; i++) {
        if (piece_text[i][0] == text[0] && piece_text[i][n] == 0 && !memcmp(piece_text[i], text,
            (size_t)n) && (piece_type[i] == GRIFFIN_TOKEN_NORMAL
                           || piece_type[i] == GRIFFIN_TOKEN_USER_DEFINED)) return 1;
    }
    return 0;
}

static int would_have_merged(int32_t left, int32_t right) {
    char both[65];
    if (piece_type[left] != GRIFFIN_TOKEN_NORMAL) return 0;
    if (piece_type[right] != GRIFFIN_TOKEN_NORMAL || !piece_text[right][0]) return 0;
    strcpy(both, piece_text[left]);
    strcat(both, piece_text[right]);
    return strlen(both) < 32 && is_piece(both, (int)strlen(both));
}

/* Of the tokens that fit, takes away those that a tokenizer would not have written, as long as
 * others remain. For bytes from 0x80 on the library is trusted here: see test_bytes. */
static int prefer(const writing *w, char *fits, int remaining) {
    static char bad[4000];
    int i, count;
    for (int round = 0; round < 3; round++) {
        for (i = 0, count = 0; i < v.info->tokens; i++) {
            int byte = (unsigned char)piece_text[i][0];
            int is_byte = piece_type[i] == GRIFFIN_TOKEN_BYTE;
            bad[i] = 0;
            if (!fits[i]) continue;
            if (round == 0) bad[i] = is_byte && byte >= 0x80 && logits[i] == -INFINITY;
            if (round == 1) bad[i] = is_byte && byte < 0x80 && is_piece(piece_text[i], 1);
            if (round == 2) bad[i] = w->length && would_have_merged(w->last, i);
            count += bad[i];
        }
        if (count == remaining) continue;
        for (i = 0; i < v.info->tokens; i++) fits[i] = (char)(fits[i] && !bad[i]);
        remaining -= count;
    }
    return remaining;
}

/* Did the state or its mask leave out readings? */
static int is_narrowed(const griffin_grammar *g, const griffin_grammar_state *s) {
    static float other[4003];
    static grg_walk w;
    if (s->narrowed) return 1;
    grg_walk_start(&w, g, other, NULL);
    grg_resume(&w.t, g, s);
    grg_mask_text(&w, s);
    return w.t.full;
}

/* What the library allows against the judge, for all tokens. Where readings were left out, it may
 * allow less. Returns what mask did. */
static int check_mask(const griffin_grammar *g, writing *w, const char *what) {
    static char fits[4003];
    int narrowed = ambiguous && is_narrowed(g, &w->state);
    int remaining = mask(g, &w->state), more, wrong = 0, count = 0;
    int complete = judge(w->text, w->length, &more) == COMPLETE;
    if (narrowed) CHECK(remaining > 0, "%s: %d after '%.*s'", what, remaining, w->length, w->text);
    for (int i = 0; i < v.info->config.vocab; i++) {
        int length = i < v.info->tokens ? append(w, i) : 0;
        fits[i] = 0;
        if (i < v.info->tokens && is_end(i)) fits[i] = (char)complete;
        else if (length > MOST_BYTES) fits[i] = (char)(logits[i] != -INFINITY);
        else if (length) fits[i] = judge(w->text, length, &more) != DEAD;
        count += fits[i];
    }
    if (!narrowed) count = prefer(w, fits, count);
    for (int i = 0; i < v.info->config.vocab; i++) {
        int expected = fits[i];
        if (narrowed && logits[i] == -INFINITY) continue;
        if ((logits[i] != -INFINITY) == expected && (!expected || logits[i] == (float)i)) continue;
        if (wrong++ < 3) {
            CHECK(0, "%s: after '%.*s' token %d should %sbe allowed", what, w->length, w->text, i,
                  expected ? "" : "not ");
        }
    }
    CHECK(narrowed || remaining == (count ? count : GRIFFIN_E_NO_TOKEN), "%s: %d, not %d", what,
          remaining, count);
    return remaining;
}

/* A random one of the tokens that remain; bytes and the end rarely. */
static int32_t choose(void) {
    int32_t best = -1;
    uint32_t top = 0;
    for (int i = 0; i < v.info->tokens; i++) {
        uint32_t draw = dice() >> 1;
        if (griffin_token_type(v.model, i) == GRIFFIN_TOKEN_BYTE || is_end(i)) draw >>= 6;
        if (logits[i] != -INFINITY && draw >= top) { top = draw; best = i; }
    }
    return best;
}

static int check_accept(const griffin_grammar *g, writing *w, int32_t token) {
    griffin_grammar_state before = w->state;
    int length = append(w, token), more;
    for (int i = 0; i < 20; i++) {              /* what does not fit is refused */
        int32_t other = (int32_t)(dice() % (uint32_t)v.info->tokens);
        int n = append(w, other);
        if (logits[other] != -INFINITY || n > MOST_BYTES) continue;
        if (n && judge(w->text, n, &more) != DEAD) continue;
        CHECK(griffin_grammar_accept(g, &w->state, other) == GRIFFIN_E_ARGUMENT, "%d", other);
        CHECK(memcmp(&before, &w->state, sizeof before) == 0, "a refused token changed the state");
    }
    append(w, token);
    int ended = griffin_grammar_accept(g, &w->state, token);
    if (is_end(token)) { CHECK(ended == 1, "%d", ended); return 0; }
    CHECK(ended >= 0, "'%.*s': %d", length, w->text, ended);
    w->length = length;
    w->last = token;
    if (length > MOST_BYTES) return 0;
    CHECK(ambiguous || !w->state.narrowed, "'%.*s': narrowed", length, w->text);
    CHECK(ended == (judge(w->text, length, &more) == COMPLETE)
          || (ambiguous && !ended && w->state.narrowed), "'%.*s': %d", length, w->text, ended);
    return 1;
}

static void check_texts(const char *text, int texts, int tokens) {
    griffin_grammar *g = grammar_of(text);
    writing w;
    CHECK(g != NULL, "%s\n%s", message, text);
    if (!g) return;
    read_grammar(text);
    for (int n = 0; n < texts; n++) {
        memset(&w, 0, sizeof w);
        for (int i = 0; i < tokens && w.length < MOST_BYTES / 2; i++) {
            if (check_mask(g, &w, text) < 0 || !check_accept(g, &w, choose())) break;
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
    "root ::= \"\"", "root ::= [^^]{3}", "root ::= [a-z]{0,3} | ([0-9]{2,} \"x\"){2,3}"
};

static void test_exact(void) {
    static const char *const vocabularies[] = { "gemma_like", "byte_level", "llama_like" };
    for (int k = 0; k < 3; k++) {
        open_vocabulary(vocabularies[k]);
        for (int i = 0; i < (int)(sizeof small / sizeof small[0]); i++) {
            check_texts(small[i], k ? 1 : 2, 8);
        }
        close_vocabulary();
    }
}

/* ---- random grammars ------------------------------------------------------------------------- */

static char random_text[4000];

static void say(const char *text) { strncat(random_text, text, 3999 - strlen(random_text)); }

static void random_choice(int depth);

static void random_atom(int depth) {
    static const char *const atoms[] = {
        "\"a\"", "\"ab\"", "\"the\"", "\" \"", "[a-c]", "[^a-y]", "[ et]", ".", "\"\"",
        "[\\u0400-\\u04ff]", "\"\xC3\xA9\"", "[^\\x00-\\x7f]", "one", "two", "three", "one", "two"
    };
    uint32_t draw = dice() % 20;
    if (draw < 17 || depth > 3) { say(atoms[draw % 17]); return; }
    say("(");
    random_choice(depth + 1);
    say(")");
}

static void random_choice(int depth) {
    static const char *const repeats[] = {
        "", "", "", "", "?", "*", "+", "{2}", "{1,3}", "{0,2}", "{2,}"
    };
    int alternatives = 1 + (int)(dice() % 3);
    while (alternatives--) {
        for (int items = (int)(dice() % 4); items >= 0; items--) {
            random_atom(depth);
            say(repeats[dice() % 11]);
            say(" ");
        }
        if (alternatives) say("| ");
    }
}

static void test_random(void) {
    static const char *const heads[] = { "root", "one", "two", "three" };
    int used = 0;
    griffin_grammar *g;
    open_vocabulary("tiny300");
    ambiguous = 1;
    for (int round = 0; round < 200; round++) {
        random_text[0] = 0;
        for (int i = 0; i < 4; i++) {
            say(heads[i]);
            say(" ::= ");
            random_choice(0);
            say("\n");
        }
        g = grammar_of(random_text);
        griffin_grammar_close(g);
        CHECK(g || strstr(message, "left recursion") || strstr(message, "comes to an end"),
              "%s\n%s", message, random_text);
        if (!g || (used++, 0)) continue;
        check_texts(random_text, 1, 6);
    }
    ambiguous = 0;
    CHECK(used > 25, "only %d of the grammars could be used", used);
    close_vocabulary();
}

/* ---- states are plain bytes ------------------------------------------------------------------ */

static const char json_rules[] =
    "root ::= value\n"
    "value ::= object | array | string | number | (\"true\" | \"false\" | \"null\") ws\n"
    "object ::= \"{\" ws ( string \":\" ws value (\",\" ws string \":\" ws value)* )? \"}\" ws\n"
    "array ::= \"[\" ws ( value (\",\" ws value)* )? \"]\" ws\n"
    "string ::= \"\\\"\" ( [^\"\\\\\\x7F\\x00-\\x1F] | \"\\\\\" code )* \"\\\"\" ws\n"
    "code ::= [\"\\\\bfnrt] | \"u\" [0-9a-fA-F]{4}\n"
    "number ::= \"-\"? ([0-9] | [1-9] [0-9]{0,15}) (\".\" [0-9]+)? ([eE] [-+]? [0-9]{1,3})? ws\n"
    "ws ::= | \" \" | \"\\n\" [ \\t]{0,20}\n";

/* Writes bytes by byte tokens. Returns the last accept. */
static int write_bytes(const griffin_grammar *g, griffin_grammar_state *s, const char *text) {
    int moved = 0;
    for (; *text && moved >= 0; text++) {
        moved = griffin_grammar_accept(g, s, v.bytes[(unsigned char)*text]);
    }
    return moved;
}

static void test_rewind(void) {
    static const char text[] =
        "{\"a\": [1, 2.5e3, {\"b\\u00e9\": \"\xE4\xB8\x80\"}], \"c\": null} ";
    griffin_grammar_state states[sizeof text], s;
    open_vocabulary("gemma_like");
    griffin_grammar *g = grammar_of(json_rules);
    size_t size = (size_t)v.info->config.vocab * sizeof(float);
    float *first = (float *)malloc(size);
    memset(states, 0, sizeof states);
    for (size_t i = 0; i + 1 < sizeof text; i++) {
        char byte[2] = { text[i], 0 };
        states[i + 1] = states[i];
        CHECK(write_bytes(g, &states[i + 1], byte) == (i + 3 >= sizeof text), "at %d", (int)i);
    }
    for (size_t k = 0; k < 200; k++) {             /* from anywhere to anywhere else */
        size_t from = dice() % (sizeof text - 1), to = from + dice() % (sizeof text - from);
        memcpy(&s, &states[from], sizeof s);
        mask(g, &s);
        memcpy(first, logits, size);
        for (size_t i = from; i < to; i++) {
            char byte[2] = { text[i], 0 };
            write_bytes(g, &s, byte);
        }
        CHECK(memcmp(&s, &states[to], sizeof s) == 0, "%d to %d", (int)from, (int)to);
        memcpy(&s, &states[from], sizeof s);
        mask(g, &s);
        CHECK(memcmp(first, logits, size) == 0, "%d", (int)from);
    }
    free(first);
    griffin_grammar_close(g);
    close_vocabulary();
}

/* Any bytes may be in a state: an error or an answer, but no harm and no endless walk. */
static void test_damaged_states(void) {
    griffin_grammar_state s, good;
    int refused = 0;
    open_vocabulary("llama_like");
    griffin_grammar *g = grammar_of(json_rules);
    griffin_grammar *other = grammar_of("root ::= \"x\"*");
    memset(&good, 0, sizeof good);
    CHECK(write_bytes(g, &good, "[[{\"a\":\"\xC3\xA9") == 0, "%s", message);
    CHECK(mask(other, &good) == GRIFFIN_E_MISMATCH, "another grammar");
    CHECK(griffin_grammar_accept(other, &good, 9) == GRIFFIN_E_MISMATCH, "another grammar");
    for (int round = 0; round < 20000; round++) {
        int flips = 1 + (int)(dice() % 4), used = 24 + 4 * (good.frames + good.places);
        s = good;
        while (flips--) {
            ((unsigned char *)&s)[8 + dice() % (uint32_t)(used - 8)] = (unsigned char)dice();
        }
        if (mask(g, &s) == GRIFFIN_E_MISMATCH) refused++;
        griffin_grammar_accept(g, &s, v.bytes[dice() & 255]);
    }
    CHECK(refused > 10000, "only %d of the damaged states were refused", refused);
    griffin_grammar_close(g);
    griffin_grammar_close(other);
    close_vocabulary();
}

/* ---- limits ---------------------------------------------------------------------------------- */

static void test_nesting(void) {
    griffin_grammar_state s, before;
    int depth, moved = 0;
    open_vocabulary("llama_like");
    griffin_grammar *g = grammar_of("root ::= list\nlist ::= \"[\" list? \"]\"");
    memset(&s, 0, sizeof s);
    for (depth = 0; depth < 1000 && moved >= 0; depth++) {
        before = s;
        moved = write_bytes(g, &s, "[");
    }
    CHECK(moved == GRIFFIN_E_SPACE && depth > 500 && depth < 520, "%d at %d", moved, depth);
    CHECK(memcmp(&s, &before, sizeof s) == 0, "the state changed");
    for (depth--; depth > 0; depth--) {
        CHECK(mask(g, &s) > 0, "depth %d", depth);
        moved = write_bytes(g, &s, "]");
    }
    CHECK(moved == 1 && mask(g, &s) == 1, "closed again");
    griffin_grammar_close(g);
    close_vocabulary();
}

/* Right recursion is no nesting, and many alternatives are no problem. */
static void test_long(void) {
    static char many[40000];
    griffin_grammar_state s;
    int i;
    open_vocabulary("llama_like");
    griffin_grammar *g = grammar_of("root ::= \"ab\" root | \"!\"");
    memset(&s, 0, sizeof s);
    for (i = 0; i < 3000; i++) CHECK(write_bytes(g, &s, "ab") == 0 && s.frames == 0, "at %d", i);
    CHECK(write_bytes(g, &s, "!") == 1, "the end");
    griffin_grammar_close(g);
    strcpy(many, "root ::= \"word\"");
    for (i = 0; i < 400; i++) sprintf(many + strlen(many), " | \"word number %d\"", i);
    g = grammar_of(many);
    memset(&s, 0, sizeof s);
    CHECK(mask(g, &s) > 0, "%s", message);
    CHECK(write_bytes(g, &s, "word") == 1 && write_bytes(g, &s, " number 3") == 1, "%s", message);
    CHECK(mask(g, &s) > 10, "a digit or the end");
    griffin_grammar_close(g);
    for (i = 0, strcpy(many, "root ::= \"a\""); i < 5000; i++) strcat(many, "|\"a\"");
    g = grammar_of(many);
    memset(&s, 0, sizeof s);
    CHECK(mask(g, &s) > 0, "thousands of ways that are one");
    CHECK(griffin_grammar_accept(g, &s, v.bytes['a']) == 1, "here too");
    griffin_grammar_close(g);
    close_vocabulary();
}

/* Vocabularies without a token for each byte can come to an end that no grammar asked for. */
static void test_dead_ends(void) {
    static const char *const pieces[] = { "ab", "b", "bc", "\xC3\xA9", "a" };
    griffin_grammar_state s;
    open_pieces(pieces, 5, 1);
    memset(&s, 0, sizeof s);
    griffin_grammar *g = grammar_of("root ::= \"abd\"");
    CHECK(mask(g, &s) == 2, "ab and a");
    CHECK(griffin_grammar_accept(g, &s, 2) == 0, "ab");
    CHECK(mask(g, &s) == GRIFFIN_E_NO_TOKEN, "no d");
    griffin_grammar_close(g);
    memset(&s, 0, sizeof s);
    g = grammar_of("root ::= \"b\" | \"bc\"");
    CHECK(mask(g, &s) == 2 && logits[3] == 3 && logits[4] == 4, "b and bc");
    CHECK(griffin_grammar_accept(g, &s, 4) == 1, "bc");
    CHECK(mask(g, &s) == 1 && logits[1] == 1, "the end");
    CHECK(griffin_grammar_accept(g, &s, 1) == 1 && s.ended, "eos");
    CHECK(mask(g, &s) == GRIFFIN_E_NO_TOKEN, "after the end");
    CHECK(griffin_grammar_accept(g, &s, 1) == GRIFFIN_E_ARGUMENT, "nothing may follow");
    griffin_grammar_close(g);
    close_vocabulary();
    open_pieces(pieces, 5, 0);
    CHECK(v.info->eos == -1, "%d", v.info->eos);
    g = grammar_of("root ::= \"b\" | \"bc\"");
    memset(&s, 0, sizeof s);
    CHECK(griffin_grammar_accept(g, &s, 4) == 1, "complete");
    CHECK(mask(g, &s) == GRIFFIN_E_NO_TOKEN, "complete, but there is no token to say so");
    griffin_grammar_close(g);
    close_vocabulary();
}

/* ---- no failure inside a text ---------------------------------------------------------------- */

/* Random texts of a grammar with too many readings, or too deep ones: a mask allows something at
 * every place, and what it allows can be accepted. Returns how many texts were narrowed. */
static int check_never(const char *text, int texts, int tokens) {
    griffin_grammar *g = grammar_of(text);
    int narrowed = 0;
    CHECK(g != NULL, "%s: %.60s", message, text);
    for (int n = 0; g && n < texts; n++) {
        griffin_grammar_state s;
        memset(&s, 0, sizeof s);
        for (int i = 0; i < tokens && !s.ended; i++) {
            int remaining = mask(g, &s);
            CHECK(remaining > 0, "%.60s: %d at %d", text, remaining, i);
            int moved = griffin_grammar_accept(g, &s, choose());
            CHECK(moved >= 0, "%.60s: %d at %d", text, moved, i);
            if (remaining <= 0 || moved < 0) break;
        }
        narrowed += s.narrowed;
    }
    griffin_grammar_close(g);
    return narrowed;
}

/* Rules r0 to rN - 1, each of which calls the next one inside of brackets. */
static char *nested_rules(char *text, int count) {
    char *at = text + sprintf(text, "root ::= r0\n");
    for (int i = 0; i < count; i++) at += sprintf(at, "r%d ::= \"[\" r%d \"]\"\n", i, i + 1);
    sprintf(at, "r%d ::= \"x\"", count);
    return text;
}

/* So many rules that begin at one place, each followed by something. */
static char *wide_rules(char *text, int count) {
    char *at = text + sprintf(text, "root ::= (r0");
    for (int i = 1; i < count; i++) at += sprintf(at, "|r%d", i);
    at += sprintf(at, ") \".\"\n");
    for (int i = 0; i < count; i++) at += sprintf(at, "r%d ::= \"%d\" [a-z]+\n", i, i);
    return text;
}

/* Behind every "(" is a choice of ten chains of 200 rules each. */
static char *chains(char *text) {
    char *at = text + sprintf(text, "root ::= \"(\" (root");
    for (int c = 'a'; c <= 'j'; c++) at += sprintf(at, " | %c0", c);
    at += sprintf(at, ") \")\"\n");
    for (int c = 'a'; c <= 'j'; c++) {
        for (int i = 0; i < 199; i++) at += sprintf(at, "%c%d ::= %c%d \".\"\n", c, i, c, i + 1);
        at += sprintf(at, "%c199 ::= \"a\"\n", c);
    }
    return text;
}

/* So many rules that read nothing, each followed by another, behind every "a". */
static char *empty_rules(char *text) {
    static const char head[] = "root ::= x \"!\"\nx ::= \"a\" x n | \"b\"\ne ::= \"\"\nn ::= ";
    char *at = text + sprintf(text, "%s", head);
    for (int i = 0; i < 10; i++) at += sprintf(at, i ? " | e%d e" : "e%d e", i);
    for (int i = 0; i < 10; i++) at += sprintf(at, "\ne%d ::= \"\"", i);
    return text;
}

/* Does the last mask allow a token that starts with this byte? */
static int allows(char byte) {
    int i = 0;
    while (i < v.info->tokens && (logits[i] == -INFINITY || piece_text[i][0] != byte)) i++;
    return i < v.info->tokens;
}

/* Writes a byte `count` times. At every place a mask allows it. */
static void write_many(const griffin_grammar *g, griffin_grammar_state *s, const char *byte,
                       int count) {
    int moved = 0;
    for (int i = 0; i < count && moved >= 0; i++) {
        int remaining = mask(g, s);
        CHECK(remaining > 0 && allows(*byte), "'%s' at %d: %d", byte, i, remaining);
        moved = write_bytes(g, s, byte);
        CHECK(moved >= 0, "'%s' at %d: %d", byte, i, moved);
    }
}

/* The calls of one closure fill an array that has the rules of the state, too. */
static void test_many_calls(void) {
    static char text[200000];
    griffin_grammar_state s;
    griffin_grammar *g;
    few_tokens = 64;
    open_vocabulary("llama_like");
    CHECK((g = grammar_of(chains(text))) != NULL, "%s", message);
    memset(&s, 0, sizeof s);
    write_many(g, &s, "(", 100);
    CHECK(!s.narrowed, "there is one reading so far");
    write_many(g, &s, "a", 1);
    CHECK(s.narrowed, "ten chains are too much for a state");
    write_many(g, &s, ".", 199);
    write_many(g, &s, ")", 100);
    CHECK(mask(g, &s) == 1 && griffin_grammar_accept(g, &s, v.info->eos) == 1, "the end");
    CHECK(s.ended && s.narrowed, "the end forgets that readings were left out");
    griffin_grammar_close(g);
    close_vocabulary();
    few_tokens = 0;
}

/* A closure is full before anything in it can read. */
static void test_many_returns(void) {
    static char text[1000];
    griffin_grammar_state s;
    griffin_grammar *g;
    few_tokens = 64;
    open_vocabulary("llama_like");
    CHECK((g = grammar_of(empty_rules(text))) != NULL, "%s", message);
    memset(&s, 0, sizeof s);
    write_many(g, &s, "a", 150);
    CHECK(!s.narrowed, "there is one reading so far");
    write_many(g, &s, "b", 1);
    CHECK(s.narrowed, "the mask leaves out readings");
    write_many(g, &s, "!", 1);
    CHECK(mask(g, &s) == 1, "the end");
    griffin_grammar_close(g);
    close_vocabulary();
    few_tokens = 0;
}

/* Where readings are left out, the way to the end stays. */
static void test_ways_out(void) {
    static const char sums[] =
        "root ::= e \"!\"\ne ::= [0-9]+ (\"+\" e)? ws nl*\nws ::= \" \"*\nnl ::= \"\\n\"";
    griffin_grammar_state s, end;
    griffin_grammar *g;
    open_vocabulary("llama_like");
    CHECK((g = grammar_of(sums)) != NULL, "%s", message);
    memset(&s, 0, sizeof s);
    for (int i = 0; i < 320; i++) CHECK(write_bytes(g, &s, i ? "+1" : "1") == 0, "term %d", i);
    CHECK(s.narrowed, "320 terms");
    for (int i = 0; i < 100; i++) {
        CHECK(mask(g, &s) > 0 && allows('!'), "no way out at %d", i);
        end = s;
        CHECK(write_bytes(g, &end, "!") == 1 && mask(g, &end) == 1, "no end at %d", i);
        if (write_bytes(g, &s, dice() % 3 ? " " : "\n") < 0) break;
    }
    griffin_grammar_close(g);
    close_vocabulary();
}

static void test_never(void) {
    static const char *const readings[] = {
        "root ::= [a-z ]{0,700} [a-z0-9 ]{0,700} [a-z.]{0,700} \"!\"",
        "root ::= s \"!\"\ns ::= (\"a\" | [a-c]) (s | t)? t? | \" \"\nt ::= [a-e] s? s? \"x\"?",
        "root ::= (\"the \" | \"x\" | a)+ a{1,30}\na ::= [a-z] b? a? | \"\"\n"
        "b ::= [^\\n]{0,40} a [a-z]*",
        "root ::= e\ne ::= n (o e)* (o n | p)*\nn ::= [a-z]+ | \"(\" e \")\" | \"(\" n* \")\"\n"
        "o ::= [ -+]\np ::= [ -*] [a-z] e"
    };
    static char text[200000];
    griffin_grammar_state s;
    int narrowed = 0;
    open_vocabulary("llama_like");
    for (int i = 0; i < 4; i++) narrowed += check_never(readings[i], 2, 60);
    CHECK(narrowed > 0, "readings were never left out");
    griffin_grammar *g = grammar_of(readings[0]);
    memset(&s, 0, sizeof s);
    for (int i = 0; i < 600; i++) CHECK(write_bytes(g, &s, "a") == 0, "at %d", i);
    CHECK(s.narrowed && mask(g, &s) > 0 && write_bytes(g, &s, "a0.!") == 1, "%s", message);
    griffin_grammar_close(g);
    check_never(nested_rules(text, 505), 1, 1100);
    CHECK(!grammar_of(nested_rules(text, 520)) && strstr(message, "511 rules"), "%s", message);
    g = grammar_of(wide_rules(text, 600));
    memset(&s, 0, sizeof s);
    CHECK(g && mask(g, &s) > 0 && write_bytes(g, &s, "599ab.") == 1, "%s", message);
    griffin_grammar_close(g);
    CHECK(!grammar_of(wide_rules(text, 3000)) && strstr(message, "2048 ways"), "%s", message);
    close_vocabulary();
}

/* ---- what is refused ------------------------------------------------------------------------- */

static void test_errors(void) {
    static const struct { const char *text, *words; } wrong[] = {
        { "", "line 1, column 1, at '': there is no rule 'root'" },
        { "# nothing\n", "no rule 'root'" },
        { "start ::= \"a\"", "no rule 'root'" },
        { "\"a\"", "line 1, column 1, at '\"a\"': expected a rule" },
        { "root = \"a\"", "line 1, column 1" },
        { "root ::= \"a\"\nroot ::= \"b\"", "line 2, column 1, at 'root ::= \"b\"': "
          "this rule is defined twice" },
        { "root ::= a\n  b\n", "line 1, column 10, at 'a': there is no rule of this name" },
        { "root ::= \"\xC3\xA9\" rest", "line 1, column 14, at 'rest'" },
        { "root ::= \"a", "column 10, at '\"a': this literal is not closed" },
        { "root ::= [a", "this class is not closed" },
        { "root ::= []", "an empty class" },
        { "root ::= [^\\x00-\\U0010FFFF]", "nothing is in this class" },
        { "root ::= [z-a]", "wrong way round" },
        { "root ::= (\"a\"", "column 10, at '(\"a\"': this group is not closed" },
        { "root ::= (\"a\"\nb ::= \"c\"", "line 1, column 10" },
        { "root ::= \"a\")", "column 13, at ')': there is no group to close" },
        { "root ::= *", "nothing to repeat" },
        { "root ::= \"a\" | +", "nothing to repeat" },
        { "root ::= \"a\"{3,2}", "wrong way round" },
        { "root ::= \"a\"{x}", "expected a number" },
        { "root ::= \"a\"{2", "expected }" },
        { "root ::= \"a\"{99999999999999999999}", "expected a number below" },
        { "root ::= \"a\"{30000}{30000}", "too large" },
        { "root ::= \"\\q\"", "column 11, at '\\q\"': expected \\x" },
        { "root ::= \"\\x1\"", "more hexadecimal digits" },
        { "root ::= \"\\uD800\"", "not a character" },
        { "root ::= \"\\UFFFFFFFF\"", "not a character" },
        { "root ::= \"\\", "expected \\x" },
        { "root ::= \"\xFF\"", "column 11, at '\xFF\"': this is not UTF-8" },
        { "root ::= \"a\" %", "column 14, at '%': expected a literal" },
        { "root ::= root \"a\"", "column 10, at 'root \"a\"': left recursion" },
        { "root ::= a\na ::= b? c\nb ::= \"x\"\nc ::= \"\" a \"y\"", "left recursion" },
        { "root ::= (\"a\" | (\"b\"* root)) \"c\"", "at 'root)) \"c\"': left recursion" },
        { "root ::= \"a\"\nx ::= y\ny ::= x", "left recursion" },
        { "root ::= \"a\" | list\nlist ::= \"[\" list \"]\"",
          "line 1, column 16, at 'list': no text of this rule comes to an end" },
        { "root ::= \"a\" root", "no text of this rule comes to an end" }
    };
    open_vocabulary("llama_like");
    for (int i = 0; i < (int)(sizeof wrong / sizeof wrong[0]); i++) {
        griffin_grammar *g = grammar_of(wrong[i].text);
        CHECK(!g && strstr(message, wrong[i].words), "'%s': '%s'", wrong[i].text, message);
        griffin_grammar_close(g);
    }
    close_vocabulary();
}

/* Much of everything is refused or read, but quickly. */
static void test_large(void) {
    static const char *const parts[] = {
        "(", "\"a\"|", "[a]", "a ", "a(", "\"a\"{9}", "[^a]{5}", "[\\u1000-\\u8000]"
    };
    static char text[400000];
    open_vocabulary("llama_like");
    for (int i = 0; i < 8; i++) {
        strcpy(text, "root ::= ");
        while (strlen(text) < 60000) {
            size_t n = strlen(text);
            for (size_t k = 0; k < 1000; k++) { strcpy(text + n, parts[i]); n += strlen(parts[i]); }
        }
        griffin_grammar *g = grammar_of(text);
        CHECK(g || message[0], "%d", i);
        griffin_grammar_close(g);
    }
    memset(text, ' ', sizeof text - 1);
    CHECK(!grammar_of(text) && strstr(message, "at most"), "%s", message);
    close_vocabulary();
}

static int allowed_allocations, live;

static void *allocate(size_t size, void *user) {
    (void)user;
    if (allowed_allocations-- <= 0) return NULL;
    live++;
    return malloc(size);
}

static void release(void *memory, void *user) {
    (void)user;
    live--;
    free(memory);
}

static void note(int error, const char *text, void *user) {
    (void)error; (void)user;
    snprintf(message, sizeof message, "%s", text);
}

static void test_allocator(void) {
    griffin_options options;
    griffin_grammar *g = NULL;
    int n, error = -1;
    open_vocabulary("gemma_like");
    memset(&options, 0, sizeof options);
    options.allocator.allocate = allocate;
    options.allocator.release = release;
    for (n = 0; error < 0 && n < 100; n++) {
        allowed_allocations = n;
        error = griffin_grammar_open(&g, v.model, json_rules, sizeof json_rules - 1, &options);
        CHECK(!error || (error == GRIFFIN_E_MEMORY && !g && !live), "%d: %d, %d left", n, error,
              live);
    }
    CHECK(n > 5 && !error && griffin_grammar_size(g) > 10000, "%d allocations", n);
    griffin_grammar_close(g);
    CHECK(live == 0, "%d left", live);
    close_vocabulary();
}

static void test_arguments(void) {
    griffin_grammar_state s;
    griffin_grammar *g;
    float x[8];
    gguf writer;
    open_vocabulary("llama_like");
    memset(&s, 0, sizeof s);
    CHECK(griffin_grammar_open(NULL, v.model, "", 0, NULL) == GRIFFIN_E_ARGUMENT, "nowhere");
    CHECK(griffin_grammar_open(&g, NULL, "", 0, NULL) == GRIFFIN_E_ARGUMENT && !g, "no model");
    CHECK(griffin_grammar_open(&g, v.model, NULL, 1, NULL) == GRIFFIN_E_ARGUMENT && !g, "no text");
    g = grammar_of("root ::= \"a\"");
    CHECK(griffin_grammar_mask(NULL, &s, x) == GRIFFIN_E_ARGUMENT, "no grammar");
    CHECK(griffin_grammar_mask(g, NULL, x) == GRIFFIN_E_ARGUMENT, "no state");
    CHECK(griffin_grammar_mask(g, &s, NULL) == GRIFFIN_E_ARGUMENT, "no logits");
    CHECK(griffin_grammar_accept(NULL, &s, 1) == GRIFFIN_E_ARGUMENT, "no grammar");
    CHECK(griffin_grammar_accept(g, NULL, 1) == GRIFFIN_E_ARGUMENT, "no state");
    CHECK(griffin_grammar_accept(g, &s, -1) == GRIFFIN_E_ARGUMENT, "no token");
    CHECK(griffin_grammar_accept(g, &s, 2000) == GRIFFIN_E_ARGUMENT, "no such token");
    CHECK(griffin_grammar_accept(g, &s, 1) == GRIFFIN_E_ARGUMENT, "eos too early");
    CHECK(griffin_grammar_size(NULL) == 0, "no grammar");
    griffin_grammar_close(g);
    griffin_grammar_close(NULL);
    close_vocabulary();
    memset(&writer, 0, sizeof writer);
    vocabulary_finish(&v, &writer, 0);
    CHECK(griffin_grammar_open(&g, v.model, "", 0, NULL) == GRIFFIN_E_VOCABULARY, "numbers only");
    vocabulary_close(&v);
}

/* What a grammar takes from the model: which tokens have text, and where memory and messages go. */
static void test_model(void) {
    static const char piece[] = "<end_of_turn>";
    griffin_options options;
    griffin_model *other;
    griffin_grammar *g;
    open_vocabulary("gemma_like");
    CHECK(v.info->tokens + 3 == v.info->config.vocab, "%d", v.info->tokens);
    CHECK(griffin_token_type(v.model, griffin_find_token(v.model, piece, sizeof piece - 1))
          == GRIFFIN_TOKEN_MARKER, "a turn marker");
    CHECK(!v.info->allocator.allocate && !v.info->logger.message, "none were given");
    memset(&options, 0, sizeof options);
    options.allocator.allocate = allocate;
    options.allocator.release = release;
    options.logger.message = note;
    allowed_allocations = 1000000;
    CHECK(griffin_open_memory(&other, v.file, (size_t)v.info->file_bytes, &options) == 0, "again");
    CHECK(griffin_get_info(other)->logger.message == note, "the logger of the model");
    int before = live;
    message[0] = 0;
    CHECK(griffin_grammar_open(&g, other, "root ::= x", 10, NULL) == GRIFFIN_E_FORMAT, "no rule");
    CHECK(strstr(message, "there is no rule of this name") && live == before, "'%s'", message);
    CHECK(griffin_grammar_open(&g, other, "root ::= \"a\"", 12, NULL) == 0, "%s", message);
    CHECK(live > before, "the allocator of the model");
    griffin_grammar_close(g);
    griffin_close(other);
    CHECK(live == 0, "%d left", live);
    close_vocabulary();
}

/* ---- JSON ------------------------------------------------------------------------------------ */

/* A token of this character that may be written, or -1. */
static int32_t allowed(char c) {
    for (int i = 0; i < v.info->tokens; i++)
        if (piece_text[i][0] == c && !piece_text[i][1] && logits[i] != -INFINITY) return i;
    return -1;
}

/* A token that helps to come to an end: where q fits we are inside a string. */
static int32_t closing(void) {
    const char *c = allowed('q') >= 0 ? "\"" : "}]\"0:n";
    if (logits[v.info->eos] != -INFINITY) return v.info->eos;
    for (; *c; c++) if (allowed(*c) >= 0) return allowed(*c);
    return choose();
}

/* Random texts of a grammar, ended after `tokens` tokens; each must be good JSON. */
static void check_json(const griffin_grammar *g, int texts, int tokens) {
    static char text[20000];
    int i, length;
    for (int n = 0; n < texts; n++) {
        griffin_grammar_state s;
        json_kind last;
        json j;
        memset(&s, 0, sizeof s);
        for (i = 0, length = 0; !s.ended && i < 2000; i++) {
            CHECK(mask(g, &s) > 0, "%.*s", length, text);
            int32_t token = i < tokens ? choose() : closing();
            CHECK(griffin_grammar_accept(g, &s, token) >= 0, "%.*s", length, text);
            if (!s.ended) length += griffin_token_text(v.model, token, text + length, 300);
        }
        json_start(&j, text, (size_t)length);
        while ((last = json_next(&j)) > JSON_END) { }
        CHECK(s.ended && (last == JSON_END || strstr(j.error, "duplicate")
                          || strstr(j.error, "too deeply")), "%s: %.*s", j.error, length, text);
        json_stop(&j);
    }
}

/* JSON in C is easier to read with ' for ". */
static char *quoted(const char *text, size_t length, char out[400]) {
    size_t i;
    for (i = 0; i < length; i++) out[i] = (char)(text[i] == '\'' ? '"' : text[i]);
    out[i] = 0;
    return out;
}

static griffin_grammar *schema_grammar(const char *schema) {
    char buffer[400];
    griffin_grammar *g;
    griffin_options options;
    memset(&options, 0, sizeof options);
    options.error = message;
    options.error_size = sizeof message;
    message[0] = 0;
    griffin_grammar_open_schema(&g, v.model, quoted(schema, strlen(schema), buffer), strlen(schema),
                                &options);
    return g;
}

static void test_json(void) {
    open_vocabulary("gemma_like");
    griffin_grammar *g = schema_grammar("{}");
    CHECK(g != NULL, "%s", message);
    check_json(g, 60, 60);
    griffin_grammar_close(g);
    close_vocabulary();
}

/* Texts that the schema describes, and texts that it does not, separated by line ends. */
static void test_schemas(void) {
    static const struct { const char *schema, *good, *bad; } cases[] = {
        { "{}", "1\n'x'\n[]\n{'a': [true, null]}\n-0.5e7", "\n01\n[1,]\ntru\n{a:1}" },
        { "true", "null", "nul" },
        { "{'type': 'integer'}", "0\n-12", "1.5\n'1'\n007\n-" },
        { "{'type': 'number'}", "0\n-12.25\n1e3", "1.\n.5\n+1" },
        { "{'type': ['boolean', 'null']}", "true\nnull", "0" },
        { "{'type': 'string', 'minLength': 2, 'maxLength': 3}",
          "'ab'\n'\xC3\xA9\\n\xE4\xB8\x80'", "'a'\n'abcd'\nab" },
        { "{'type': 'string', 'maxLength': 0}", "''", "'a'" },
        { "{'type': 'string'}", "'\\u00e9\\'\\\\'", "'\\ud800'\n'\\x'\n'\t'" },
        { "{'enum': ['a b', 3, null, {'q':[1]}]}", "'a b'\n3\nnull\n{'q':[1]}", "'a'\n4\n{}" },
        { "{'const': 'a\\'\\u00e9\\n'}", "'a\\'\\u00e9\\n'", "'a'" },
        { "{'type': 'array', 'items': {'type': 'integer'}, 'minItems': 1, 'maxItems': 3}",
          "[1]\n[1, 2,3]\n[ 1 ]", "[]\n[1,2,3,4]\n['a']" },
        { "{'type': 'array', 'maxItems': 0}", "[]\n[ ]", "[1]" },
        { "{'minItems': 2}", "[1,'x']\n[[],{},3]", "[1]" },
        { "{'type': 'object', 'properties': {'a': {'type': 'integer'}, 'b': {'const': 1}, "
          "'c': true}, 'required': ['b']}",
          "{'b': 1}\n{'a': 5, 'b': 1}\n{'a':5,'b':1,'c':[{}]}\n{'b':1, 'c': 0 }",
          "{}\n{'a': 5}\n{'b': 1, 'a': 5}\n{'b':1,}\n{'b':1,'d':1}" },
        { "{'properties': {'a': true, 'b': true}}",
          "{}\n{ }\n{'a':1}\n{'b':1}\n{'a':1, 'b':2}", "{'b':1,'a':2}\n{,}" },
        { "{'type': 'object', 'additionalProperties': false}", "{}", "{'a':1}" },
        { "{'additionalProperties': {'type': 'integer'}}",
          "{}\n{ }\n{'a':1}\n{'a': 1, 'b':2 }", "{'a':'x'}\n{'a':1,}\n{1:1}" },
        { "{'additionalProperties': {'additionalProperties': {'const': 'x'}}}",
          "{'a': {'b':'x'},'c':{}}", "{'a':'x'}" },
        { "{'properties': {'a': {'const': 1}}, 'additionalProperties': {'type': 'string'}}",
          "{}\n{'a': 1}", "{'a':'x'}\n{'b':'x'}" },
        { "{'type': 'object'}", "{}\n{'x': {'y': 1}}", "[]" },
        { "{'properties': {'say \\'\\\\\\u0001': {'const': 0}}, "
          "'required': ['say \\'\\\\\\u0001']}",
          "{'say \\'\\\\\\u0001':0}", "{'say':0}" },
        { "{'anyOf': [{'type': 'integer'}, {'type': 'array', 'items': {'$ref': '#'}}]}",
          "1\n[]\n[[1], [[2]]]", "'a'\n[true]" },
        { "{'oneOf': [{'$ref': '#/$defs/a~1b~0/x'}], '$defs': {'a/b~': {'x': {'const': 5}}}}",
          "5", "6" },
        { "{'$ref': '#/definitions/tree', 'definitions': {'tree': {'title': 't', 'properties': "
          "{'left': {'$ref': '#/definitions/tree'}, 'n': {'type': 'number'}}, "
          "'required': ['n']}}}",
          "{'n':1}\n{'left': {'left':{'n':2},'n':3}, 'n':1}", "{'left':{},'n':1}" },
        { "{'properties':{'l':{'anyOf':[{'type':'null'},{'$ref':'#/properties/l/anyOf/0'}]}}}",
          "{'l':null}", "{'l':1}" },
        { "{'$ref': '#/%24defs/a%20b', '$defs': {'a b': {'const': 1}}}", "1", "2" },
        { "{'type': 'integer', 'minimum': -12, 'maximum': 345}",
          "-12\n-9\n0\n7\n99\n100\n299\n345", "-13\n-20\n346\n1000\n-0\n05\n350" },
        { "{'type': 'integer', 'exclusiveMinimum': 99}", "100\n250\n123456789", "99\n5\n-100" },
        { "{'type': 'integer', 'exclusiveMaximum': -5, 'minimum': -1000}",
          "-6\n-10\n-1000", "-5\n-1001\n0" },
        { "{'type': ['integer', 'null'], 'minimum': 0, 'maximum': 0}", "0\nnull", "1\n-0" },
        { "{'format': 'date'}", "'2024-02-29'\n'1999-12-31'", "'2023-02-29'\n'2024-04-31'" },
        { "{'type': 'string', 'format': 'date-time'}",
          "'2024-01-01T23:59:00Z'\n'2024-10-20T00:00:00.5+01:30'", "'2024-01-01'" },
        { "{'format': 'time'}", "'12:00:00Z'", "'24:00:00Z'\n'12:00'" },
        { "{'format': 'uuid'}", "'123e4567-e89b-12d3-a456-426614174000'", "'123e4567'" },
        { "{'pattern': '^[a-c]+(-\\\\d{2}|x.y)?$'}", "'abc'\n'a-12'\n'cx\xC3\xA9y'",
          "''\n'd'\n'a-1'\n'axy'" },
        { "{'pattern': 'b+'}", "'b'\n'abba'", "''\n'ac'" },
        { "{'type': 'string', 'pattern': '^(?:a|[^a-z])$'}",
          "'a'\n'Q'\n'\\\\'\n'\\''", "'b'\n'\\'" },
        { "{'allOf': [{'$ref': '#/$defs/n'}, {'properties': {'b': {'type': 'null'}}}], "
          "'required': ['b'], '$defs': {'n': {'type': 'object', 'properties': {'a': {'const': 1}}, "
          "'required': ['a']}}}", "{'a':1,'b':null}", "{'a':1}\n{'b':null}" },
        { "{'enum': ['\\u00e9a', 'x\\/y']}", "'\xC3\xA9" "a'\n'\\u00e9a'\n'x/y'\n'x\\/y'", "'a'" }
    };
    open_vocabulary("llama_like");
    for (int i = 0; i < (int)(sizeof cases / sizeof cases[0]); i++) {
        griffin_grammar *g = schema_grammar(cases[i].schema);
        CHECK(g != NULL, "%s: %s", cases[i].schema, message);
        for (int good = 1; g && good >= 0; good--) {
            const char *at = good ? cases[i].good : cases[i].bad;
            for (int more = 1; more; more = *at++) {
                griffin_grammar_state s;
                char line[400];
                memset(&s, 0, sizeof s);
                int complete = write_bytes(g, &s, quoted(at, strcspn(at, "\n"), line)) == 1;
                at += strcspn(at, "\n");
                CHECK(complete == good, "%s: %s", cases[i].schema, line);
            }
        }
        if (g) check_json(g, 5, 20);
        griffin_grammar_close(g);
    }
    close_vocabulary();
}

static const char *many(char *text, const char *begin, const char *format, int count,
                        const char *end) {
    char *at = text + sprintf(text, "%s", begin);
    for (int i = 0; i < count; i++) {
        at += sprintf(at, i ? "," : "");
        at += sprintf(at, format, i, i);
    }
    strcpy(at, end);
    return text;
}

/* Values and objects that begin alike are one reading until they differ; what is too much is
 * refused when it is opened. */
static void test_many(void) {
    static char text[200000];
    griffin_grammar *g;
    griffin_grammar_state s;
    griffin_options options;
    open_vocabulary("llama_like");
    many(text, "{\"enum\":[", "\"i%d\"", 900, "]}");
    CHECK(griffin_grammar_open_schema(&g, v.model, text, strlen(text), NULL) == 0, "an enum");
    memset(&s, 0, sizeof s);
    CHECK(mask(g, &s) > 0 && write_bytes(g, &s, "\"i") == 0 && s.places == 1, "%d", s.places);
    CHECK(mask(g, &s) >= 10 && write_bytes(g, &s, "899\"") == 1, "%s", message);
    griffin_grammar_close(g);
    many(text, "{\"anyOf\":[", "{\"type\":\"object\",\"properties\":{\"kind\":{\"const\":\"k%d\"},"
         "\"v%d\":{\"type\":\"integer\"}},\"required\":[\"kind\"]}", 600, "]}");
    CHECK(griffin_grammar_open_schema(&g, v.model, text, strlen(text), NULL) == 0, "objects");
    memset(&s, 0, sizeof s);
    CHECK(mask(g, &s) > 0 && write_bytes(g, &s, "{ \"kind\": \"k5") == 0, "%s", message);
    int largest = s.places + s.frames;
    CHECK(largest < 8, "%d", largest);
    CHECK(write_bytes(g, &s, "9\", \"v59\": 7 }") == 1, "%s", message);
    griffin_grammar_close(g);
    memset(&options, 0, sizeof options);
    options.error = message;
    options.error_size = sizeof message;
    many(text, "{\"items\":{\"enum\":[", "\"a long word %d\"", 5000, "]}}");
    CHECK(griffin_grammar_open_schema(&g, v.model, text, strlen(text), &options) < 0
          && strstr(message, "at #/items/enum: ") && strstr(message, "60000"), "%s", message);
    close_vocabulary();
}

/* A tokenizer would write none of these. */
static void test_bytes(void) {
    griffin_grammar_state s;
    open_vocabulary("llama_like");
    griffin_grammar *g = grammar_of("root ::= [^\"]* \"\\\"\"");
    memset(&s, 0, sizeof s);
    CHECK(mask(g, &s) > 0, "%s", message);
    for (int i = 0; i < 128; i++) {
        char c = (char)i;
        if (i && is_piece(&c, 1)) CHECK(logits[v.bytes[i]] == -INFINITY, "byte %d", i);
        else if (i != '"') CHECK(logits[v.bytes[i]] != -INFINITY, "byte %d", i);
    }
    CHECK(logits[v.bytes[0xF0]] != -INFINITY, "characters without a piece");
    CHECK(write_bytes(g, &s, "\xF0\x9F") == 0 && mask(g, &s) == 64, "the third byte");
    griffin_grammar_close(g);
    g = grammar_of("root ::= \"\\U0001F600\"");
    memset(&s, 0, sizeof s);
    for (int n = 0; n < 4; n++) {               /* nothing else is left */
        static const char *const parts[] = { "\xF0", "\x9F", "\x98", "\x80" };
        CHECK(mask(g, &s) == 1 && write_bytes(g, &s, parts[n]) == (n == 3), "byte %d", n);
    }
    griffin_grammar_close(g);
    close_vocabulary();
}

/* Text that must come is written as the tokenizer writes it. */
static void test_words(void) {
    static const char text[] = "the old woman and her children went home";
    griffin_grammar_state s;
    griffin_encoding how;
    int32_t tokens[64];
    char line[100];
    int k, count = 0;
    few_tokens = 64;
    open_vocabulary("llama_like");
    memset(&how, 0, sizeof how);
    how.continues = 1;
    int n = griffin_encode(v.model, &how, text, strlen(text), tokens, 64);
    sprintf(line, "root ::= \"%s\"", text);
    griffin_grammar *g = grammar_of(line);
    memset(&s, 0, sizeof s);
    for (int i = 0; i < n; i++) {
        int remaining = mask(g, &s);
        for (k = 0, count = 0; k < v.info->tokens; k++) count += logits[k] != -INFINITY;
        CHECK(count == remaining && count >= 1 && logits[tokens[i]] != -INFINITY, "%d", i);
        CHECK(count == 1, "token %d of %d: %d are left", i, n, count);
        CHECK(griffin_grammar_accept(g, &s, tokens[i]) == (i + 1 == n), "%d", i);
    }
    griffin_grammar_close(g);
    close_vocabulary();
    few_tokens = 0;
}

/* Blanks and line ends where white space is, and marks of byte order. */
static void test_blanks(void) {
    static const char *const same[] = {
        "root ::= \"a\"{2, 3}", "root ::= \"a\"{ 2 ,3 }", "root ::= \"a\"{2,\n3}",
        "\xEF\xBB\xBFroot ::= \"a\"{2,3}", "root\r\n ::= # some\r \"a\"{2,3}\r\n"
    };
    griffin_grammar *g;
    griffin_grammar_state s;
    open_vocabulary("llama_like");
    for (int i = 0; i < (int)(sizeof same / sizeof same[0]); i++) {
        g = grammar_of(same[i]);
        memset(&s, 0, sizeof s);
        CHECK(g && write_bytes(g, &s, "aaa") == 1, "%s: %s", same[i], message);
        griffin_grammar_close(g);
    }
    CHECK(griffin_grammar_open_schema(&g, v.model, "\xEF\xBB\xBF{}", 5, NULL) == 0, "a schema");
    griffin_grammar_close(g);
    close_vocabulary();
}

static void test_wrong_schemas(void) {
    static const struct { const char *schema, *words; } wrong[] = {
        { "", "byte 0" },
        { "[1", "byte 2" },
        { "{} x", "byte 3: text after the value" },
        { "{'type': 'null',}", "byte 16: expected a member name" },
        { "{'const': 01}", "expected ',' or a bracket" },
        { "{'const': 1.}", "expected a digit" },
        { "{'const': '\\ud83d'}", "byte 11: invalid escape" },
        { "{'const': 'a", "byte 10: string without an end" },
        { "{'const': '\xFF'}", "byte 11: not UTF-8" },
        { "{'const': {'a': 1, '\\u0061': 2}}", "byte 19: duplicate member" },
        { "{'default': [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
          "too deeply" },
        { "[]", "expected a schema" },
        { "false", "expected a schema" },
        { "{'type': 'string', 'multipleOf': 2}",
          "byte 19, at #/multipleOf: this keyword is not supported: multipleOf" },
        { "{'pattern': '(?=a)'}", "at #/pattern: this regular expression is not supported: (?" },
        { "{'pattern': '(a'}", "a group without an end" },
        { "{'pattern': 'a{x}'}", "these braces" },
        { "{'pattern': '[^'}", "a class without an end" },
        { "{'pattern': '\\\\1'}", "this escape" },
        { "{'type': 'number', 'minimum': 1}", "minimum" },
        { "{'items': {'format': 'email'}}", "at #/items/format: format: only date" },
        { "{'properties': {'a': {'items': [{'type': 'null'}]}}}",
          "at #/properties/a/items: items: a list of schemas (a tuple) is not supported" },
        { "{'properties': {'a': {'$ref': '#'}}, 'required': ['a']}",
          "at #: this schema requires itself" },
        { "{'type': 'number', 'minimum': 3}", "at #/minimum: bounds are only supported for type" },
        { "{'type': 'integer', 'minimum': 3, 'exclusiveMaximum': 3}", "no whole number" },
        { "{'type': 'integer', 'maximum': 2.5}", "only whole numbers" },
        { "{'allOf': [{'type': 'string'}]}", "at #/allOf/0/type: allOf is only supported for" },
        { "{'allOf': [{'properties': {'a': {}}}, {'properties': {'a': true}}]}", "two parts" },
        { "{'allOf': []}", "allOf" },
        { "{'not': {}}", "not" },
        { "{'uniqueItems': true}", "uniqueItems" },
        { "{'type': 'text'}", "type: expected a name" },
        { "{'type': []}", "type: expected" },
        { "{'type': 3}", "type: expected" },
        { "{'additionalProperties': 1}", "#/additionalProperties: additionalProperties: expected" },
        { "{'additionalProperties': {'not': {}}}", "#/additionalProperties/not" },
        { "{'required': ['a']}", "required, but not among the properties: a" },
        { "{'properties': {}, 'required': [1]}", "required: expected names" },
        { "{'properties': []}", "properties: expected an object" },
        { "{'enum': []}", "something to choose from" },
        { "{'anyOf': {}}", "expected an array" },
        { "{'type': 'string', 'enum': [1]}", "not of the given type" },
        { "{'const': 1, 'minLength': 3}", "not supported beside minLength" },
        { "{'anyOf': [{}], 'type': 'null'}", "not supported beside type" },
        { "{'minLength': -1}", "expected a number from 0" },
        { "{'minLength': 'a'}", "expected a whole number" },
        { "{'minLength': 3, 'maxLength': 2}", "less than minLength" },
        { "{'minItems': 3, 'maxItems': 2}", "less than minItems" },
        { "{'$ref': 'other.json'}", "starts with #" },
        { "{'$ref': '#/x'}", "nothing is at #/x" },
        { "{'$ref': '#x'}", "nothing is at" },
        { "{'$ref': '#'}", "byte 0, at #: this schema leads back to itself" },
        { "{'type': 'string', 'maxLength': 30000}", "too large" }
    };
    open_vocabulary("llama_like");
    for (int i = 0; i < (int)(sizeof wrong / sizeof wrong[0]); i++) {
        griffin_grammar *g = schema_grammar(wrong[i].schema);
        CHECK(!g && strstr(message, wrong[i].words), "%s: '%s'", wrong[i].schema, message);
        griffin_grammar_close(g);
    }
    close_vocabulary();
}

int main(void) {
    RUN(test_exact);
    RUN(test_random);
    RUN(test_rewind);
    RUN(test_damaged_states);
    RUN(test_nesting);
    RUN(test_long);
    RUN(test_dead_ends);
    RUN(test_never);
    RUN(test_many_calls);
    RUN(test_many_returns);
    RUN(test_ways_out);
    RUN(test_errors);
    RUN(test_large);
    RUN(test_allocator);
    RUN(test_arguments);
    RUN(test_model);
    RUN(test_json);
    RUN(test_schemas);
    RUN(test_wrong_schemas);
    RUN(test_many);
    RUN(test_bytes);
    RUN(test_words);
    RUN(test_blanks);
    return test_end();
}
