/* test_heal.c - texts that must not be written are written in no tokens, and a prompt that ends
 * inside a word goes on as if its end had been chosen with what follows. In all kinds of
 * vocabularies, against plain searches through the texts of all tokens. */

#include "vocabulary_model.h"
#include "tools/griffin_grammar.h"

static const char *const vocabularies[] = { "gemma_like", "gemma_like_merges", "llama_like",
                                            "byte_level", "tiny300", "unused" };

static const char *const prompts[] = {
    "Once upon a ti", "Once upon a ", "a  ", "unbeliev", "the\n\n", "x = [1, 2, ", "The qu", "An",
    "caf\xC3\xA9", "\xE6\x97\xA5\xE6\x9C\xAC", "    ", "if (x) {\n    ", "", "his brother's wi"
};

static vocabulary_model v;
static float logits[40000];
static uint64_t chance = 1;

static unsigned draw(unsigned below) {      /* xorshift */
    chance ^= chance << 13; chance ^= chance >> 7; chance ^= chance << 17;
    return (unsigned)(chance >> 33) % below;
}

static void draw_logits(void) {
    for (int i = 0; i < v.info->config.vocab; i++) logits[i] = (float)draw(4000) * 0.001f;
}

/* The bytes of a token that a text can be made of; 0: of none, or of a marker. */
static int text_of(int32_t token, char *text, size_t capacity) {
    int type = griffin_token_type(v.model, token);
    if (type == GRIFFIN_TOKEN_CONTROL || type == GRIFFIN_TOKEN_UNKNOWN
        || type == GRIFFIN_TOKEN_MARKER) return 0;
    return griffin_token_text(v.model, token, text, capacity);
}

static int32_t token_of_byte(char byte) {
    char text[2];
    for (int32_t i = 0; i < v.info->tokens; i++)
        if (text_of(i, text, 2) == 1 && text[0] == byte) return i;
    return -1;
}

/* ---- healing ------------------------------------------------------------------------------- */

static int fits(const griffin_heal *h, int32_t token) {
    char text[400] = "";
    int n = text_of(token, text, sizeof text);
    return n > 0 && !memcmp(text, h->text, (size_t)(n < h->count ? n : h->count));
}

/* Only what fits passes; something does; and bytes only where no piece fits as well. */
static int check_mask(const griffin_heal *h, const char *prompt) {
    int passed = 0;
    for (int32_t i = 0; i < v.info->config.vocab; i++) {
        if (logits[i] == -INFINITY) continue;
        passed++;
        if (i >= v.info->tokens || !fits(h, i)) {
            CHECK(0, "after '%s' token %d passes", prompt, (int)i);
            return 0;
        }
    }
    CHECK(passed > 0, "nothing can follow '%s'", prompt);
    return passed;
}

/* Draws tokens until the prompt is whole again. Returns how many bytes were written. */
static int write_again(griffin_heal *h, const char *prompt, char *written, size_t capacity) {
    griffin_sampler s;
    int n = 0, known = 0, again = h->count;
    memset(&s, 0, sizeof s);
    s.seed = chance;
    s.temperature = 1;
    s.mask = griffin_heal_mask;
    s.mask_user = h;
    while (h->count) {
        draw_logits();
        griffin_heal alone = *h;
        CHECK(griffin_heal_mask(logits, v.info->config.vocab, &alone) == 0, "a mask");
        if (!check_mask(h, prompt)) return -1;
        int32_t token = griffin_sample(v.model, &s, logits);
        if (token < 0) { CHECK(0, "'%s': %d", prompt, (int)token); return -1; }
        n += griffin_token_text(v.model, token, written + n, capacity - (size_t)n);
        int used = griffin_heal_accept(h, token);
        CHECK(used > 0, "'%s', token %d: %d", prompt, (int)token, used);
        known += used;
    }
    CHECK(known == again, "%d bytes of %d were known", known, again);
    return n;
}

static void heal(const char *prompt) {
    int32_t tokens[200];
    griffin_heal h;
    char text[400], written[800];
    int count = griffin_encode(v.model, NULL, prompt, strlen(prompt), tokens, 200), n = 0;
    memset(&h, 0, sizeof h);
    int remain = griffin_heal_start(&h, v.model, tokens, count);
    CHECK(remain >= (count > 0) && remain <= count, "'%s': %d of %d", prompt, remain, count);
    for (int i = remain; i < count; i++)
        n += griffin_token_text(v.model, tokens[i], text + n, sizeof text - (size_t)n);
    CHECK(n == h.count && !memcmp(text, h.text, (size_t)n), "'%s': what was taken back", prompt);
    for (int round = 0; round < 20; round++) {
        griffin_heal copy = h;
        int length = write_again(&copy, prompt, written, sizeof written);
        CHECK(length >= n && !memcmp(written, text, (size_t)n), "'%s' is not continued", prompt);
    }
}

static void test_every_prompt(void) {
    for (int i = 0; i < COUNT(vocabularies); i++) {
        vocabulary_open(&v, vocabularies[i]);
        for (int k = 0; k < COUNT(prompts); k++) heal(prompts[k]);
        vocabulary_close(&v);
    }
}

/* A longer piece decides how far back it goes: the first token from which the rest of the prompt is
 * the beginning of a piece. */
static void test_how_far(void) {
    char piece[400], text[400];
    for (int i = 0; i < COUNT(vocabularies); i++) {
        vocabulary_open(&v, vocabularies[i]);
        for (int k = 0; k < COUNT(prompts); k++) {
            int32_t tokens[200];
            griffin_heal h;
            int count = griffin_encode(v.model, NULL, prompts[k], strlen(prompts[k]), tokens, 200);
            memset(&h, 0, sizeof h);
            int remain = griffin_heal_start(&h, v.model, tokens, count), expected = count, n = 0;
            for (int at = count - 1; at > 0; at--) {
                int length = text_of(tokens[at], piece, sizeof piece);
                if (length < 1 || n + length > GRIFFIN_HEAL_BYTES) break;
                memmove(text + length, text, (size_t)n);
                memcpy(text, piece, (size_t)length);
                n += length;
                for (int32_t t = 0; t < v.info->tokens; t++) {
                    int type = griffin_token_type(v.model, t);
                    if (type != GRIFFIN_TOKEN_NORMAL && type != GRIFFIN_TOKEN_USER_DEFINED)
                        continue;
                    length = griffin_token_text(v.model, t, piece, sizeof piece);
                    if (length > n && !memcmp(piece, text, (size_t)n)) expected = at;
                }
            }
            CHECK(remain == expected, "%s, '%s': %d tokens remain, not %d", vocabularies[i],
                  prompts[k], remain, expected);
        }
        vocabulary_close(&v);
    }
}

/* With everything banned that fits well, what else fits is left; with that banned, nothing. */
static void test_no_dead_end(void) {
    static float others[40000];
    int32_t tokens[100];
    griffin_heal h;
    vocabulary_open(&v, "gemma_like");
    int count = griffin_encode(v.model, NULL, "Once upon a ti", 14, tokens, 100);
    memset(&h, 0, sizeof h);
    griffin_heal_start(&h, v.model, tokens, count);
    draw_logits();
    CHECK(griffin_heal_mask(logits, v.info->config.vocab, &h) == 0, "a mask");
    int n = v.info->config.vocab;
    for (int i = 0; i < n; i++) others[i] = logits[i] == -INFINITY ? 1 : -INFINITY;
    CHECK(griffin_heal_mask(others, v.info->config.vocab, &h) == 0, "bytes are left");
    int byte = v.bytes[(unsigned char)h.text[0]];
    CHECK(byte >= 0 && others[byte] > -INFINITY && logits[byte] == -INFINITY, "a byte is the last");
    for (int i = 0; i < n; i++)
        others[i] = others[i] == -INFINITY && logits[i] == -INFINITY ? 1 : -INFINITY;
    CHECK(griffin_heal_mask(others, v.info->config.vocab, &h) == GRIFFIN_E_NO_TOKEN, "none");
    vocabulary_close(&v);
}

/* What is drawn after it, with the seed of the sampler, is what a sampler draws that never heard of
 * it; and nothing changes where the prompt ends well. */
static void test_it_ends(void) {
    griffin_heal h;
    griffin_sampler a;
    vocabulary_open(&v, "gemma_like");
    memset(&h, 0, sizeof h);
    memset(&a, 0, sizeof a);
    a.seed = 7;
    a.temperature = 1;
    griffin_sampler b = a;
    a.mask = griffin_heal_mask;
    a.mask_user = &h;
    h.model = v.model;
    for (int i = 0; i < 50; i++) {
        static float other[40000];
        draw_logits();
        memcpy(other, logits, sizeof other);
        CHECK(griffin_sample(v.model, &a, logits) == griffin_sample(v.model, &b, other), "%d", i);
        CHECK(griffin_heal_accept(&h, i) == 0, "nothing is taken back");
    }
    vocabulary_close(&v);
}

/* The texts of a grammar begin inside a token that also writes the end of the prompt. */
static void test_beside_a_grammar(void) {
    static const char rules[] = "root ::= (\"me\" | \"ny\") \" \" [a-z]+ \".\"?";
    static const char *const names[] = { "gemma_like", "byte_level", "tiny300" };
    for (int i = 0; i < COUNT(names); i++) {
        int32_t tokens[100];
        char text[2000] = "";
        griffin_grammar *g = NULL;
        griffin_grammar_state at, plain;
        griffin_heal h;
        vocabulary_open(&v, names[i]);
        CHECK(griffin_grammar_open(&g, v.model, rules, sizeof rules - 1, NULL) == 0, "opens");
        int count = griffin_encode(v.model, NULL, "Once upon a ti", 14, tokens, 100);
        for (int round = 0; round < 30 && g; round++) {
            int n = 0, used = 0, may_end = 0;
            memset(&h, 0, sizeof h);
            memset(&at, 0, sizeof at);
            memset(&plain, 0, sizeof plain);
            griffin_heal_start(&h, v.model, tokens, count);
            griffin_heal start = h;
            CHECK(griffin_grammar_lead(g, &at, h.text, (size_t)h.count) == 0, "leads");
            for (int k = 0; k < 6; k++) {
                draw_logits();
                CHECK(griffin_grammar_mask(g, &at, logits) > 0, "a grammar's mask");
                int error = griffin_heal_mask(logits, v.info->config.vocab, &h);
                int32_t best = 0;
                if (error) { CHECK(0, "%s: %d", names[i], error); break; }
                for (int32_t t = 1; t < v.info->tokens; t++) if (logits[t] > logits[best]) best = t;
                if (best == v.info->eos || best == v.info->end_of_turn) break;
                n += griffin_token_text(v.model, best, text + n, sizeof text - (size_t)n);
                may_end = griffin_grammar_accept(g, &at, best);
                used += griffin_heal_accept(&h, best);
                CHECK(may_end >= 0, "token %d: %d", (int)best, may_end);
            }
            CHECK(h.count == 0 && used == start.count && !memcmp(text, start.text, (size_t)used),
                  "%s: the prompt's end is there again", names[i]);
            for (int k = used; k < n; k++) {        /* the rest, byte by byte, is of the grammar */
                int32_t t = token_of_byte(text[k]);
                CHECK(griffin_grammar_accept(g, &plain, t) >= 0, "%s: '%.*s'", names[i], n, text);
            }
        }
        griffin_grammar_close(g);
        vocabulary_close(&v);
    }
}

static void test_wrong_arguments(void) {
    griffin_heal h;
    griffin_ban b;
    int32_t token = 5;
    vocabulary_open(&v, "tiny300");
    memset(&h, 0, sizeof h);
    memset(&b, 0, sizeof b);
    CHECK(griffin_heal_start(NULL, v.model, &token, 1) == GRIFFIN_E_ARGUMENT, "null");
    CHECK(griffin_heal_start(&h, NULL, &token, 1) == GRIFFIN_E_ARGUMENT, "null");
    CHECK(griffin_heal_start(&h, v.model, NULL, 1) == GRIFFIN_E_ARGUMENT, "null");
    token = 100000;
    CHECK(griffin_heal_start(&h, v.model, &token, 1) == GRIFFIN_E_ARGUMENT, "no token");
    CHECK(griffin_heal_start(&h, v.model, NULL, 0) == 0 && !h.count, "an empty prompt");
    h.count = GRIFFIN_HEAL_BYTES + 1;
    CHECK(griffin_heal_mask(logits, 10, &h) == GRIFFIN_E_ARGUMENT, "too many bytes");
    CHECK(griffin_heal_accept(&h, 5) == GRIFFIN_E_ARGUMENT, "too many bytes");
    h.count = 1;
    h.text[0] = 'a';
    CHECK(griffin_heal_accept(&h, token_of_byte('b')) == GRIFFIN_E_ARGUMENT && h.count == 1, "another");
    CHECK(griffin_heal_accept(&h, token_of_byte('a')) == 1 && h.count == 0, "a byte");
    CHECK(griffin_heal_mask(NULL, 10, &h) == GRIFFIN_E_ARGUMENT, "null");
    CHECK(griffin_ban_mask(logits, 10, &b) == GRIFFIN_E_ARGUMENT, "no model");
    b.model = v.model;
    CHECK(griffin_ban_mask(logits, 10, &b) == 0, "no texts");
    b.stop.count = 1;
    CHECK(griffin_ban_mask(logits, 10, &b) == GRIFFIN_E_ARGUMENT, "texts are null");
    CHECK(griffin_ban_accept(NULL, 1) == GRIFFIN_E_ARGUMENT, "null");
    vocabulary_close(&v);
}

/* ---- bans ---------------------------------------------------------------------------------- */

/* However unlikely all other tokens are, no spelling of a banned text is left. */
static void test_no_spelling_is_left(void) {
    static const char *const texts[] = { "the", " upon", "a\n", "\xC3\xA9", "ab" };
    for (int i = 0; i < COUNT(vocabularies); i++) {
        static char text[100000];
        size_t n = 0;
        griffin_ban ban;
        vocabulary_open(&v, vocabularies[i]);
        memset(&ban, 0, sizeof ban);
        ban.model = v.model;
        ban.stop.texts = texts;
        ban.stop.count = COUNT(texts);
        memset(text, 0, sizeof text);
        for (int k = 0; k < 400; k++) {
            draw_logits();
            const char *wanted = texts[draw(COUNT(texts))];
            for (int32_t t = 0; t < v.info->tokens; t++) {
                char piece[400] = "";
                int length = text_of(t, piece, sizeof piece);
                for (int from = 0; length > 0 && length < 400 && wanted[from]; from++)
                    if (!strncmp(piece, wanted + from, (size_t)length)) logits[t] += 50;
                if (length <= 0) logits[t] = -100;
            }
            CHECK(griffin_ban_mask(logits, v.info->config.vocab, &ban) == 0, "a mask");
            int32_t best = 0;
            for (int32_t t = 1; t < v.info->tokens; t++) if (logits[t] > logits[best]) best = t;
            n += (size_t)griffin_token_text(v.model, best, text + n, sizeof text - n);
            CHECK(griffin_ban_accept(&ban, best) == 0, "accepts");
        }
        for (int k = 0; k < COUNT(texts); k++)
            CHECK(!strstr(text, texts[k]), "%s: '%s' was written", vocabularies[i], texts[k]);
        vocabulary_close(&v);
    }
}

/* Only tokens that would complete a text are forbidden: the others keep their logits. */
static void test_only_what_completes(void) {
    static const char *const texts[] = { "the" };
    vocabulary_open(&v, "gemma_like");
    for (int held = 0; held < 3; held++) {
        griffin_ban ban;
        char text[500] = "";
        memset(&ban, 0, sizeof ban);
        ban.model = v.model;
        ban.stop.texts = texts;
        ban.stop.count = 1;
        for (int i = 0; i < held; i++)
            CHECK(griffin_ban_accept(&ban, v.bytes[(unsigned char)texts[0][i]]) == 0, "a byte");
        memset(logits, 0, sizeof logits);
        CHECK(griffin_ban_mask(logits, v.info->config.vocab, &ban) == 0, "a mask");
        for (int32_t t = 0; t < v.info->tokens; t++) {
            memset(text, 0, sizeof text);
            memcpy(text, texts[0], (size_t)held);
            text_of(t, text + held, sizeof text - 4);
            CHECK((logits[t] == -INFINITY) == (strstr(text, "the") != NULL), "%d bytes before, "
                  "token %d", held, (int)t);
        }
    }
    vocabulary_close(&v);
}

/* Bytes that the prompt has already do not count again, and all masks of a chain are asked. */
static int forbid_five(float *x, int vocab, void *user) {
    if (vocab > 5) x[5] = -INFINITY;
    ++*(int *)user;
    return 0;
}

static void test_chain(void) {
    static const char *const texts[] = { "ti", "im" };
    int32_t tokens[100];
    int asked = 0;
    griffin_heal h;
    griffin_ban ban;
    vocabulary_open(&v, "gemma_like");
    int count = griffin_encode(v.model, NULL, "Once upon a ti", 14, tokens, 100);
    memset(&h, 0, sizeof h);
    memset(&ban, 0, sizeof ban);
    ban.model = v.model;
    ban.stop.texts = texts;
    ban.stop.count = 2;
    ban.mask = forbid_five;
    ban.mask_user = &asked;
    h.mask = griffin_ban_mask;
    h.mask_user = &ban;
    for (int i = 0; i < count; i++) griffin_ban_accept(&ban, tokens[i]);
    griffin_heal_start(&h, v.model, tokens, count);
    ban.again = h.count;
    CHECK(h.count > 0 && h.mask == griffin_ban_mask, "the chain stays");
    draw_logits();
    CHECK(griffin_heal_mask(logits, v.info->config.vocab, &h) == 0 && asked == 1, "all are asked");
    int left = 0;
    for (int32_t t = 0; t < v.info->tokens; t++) {
        char text[400] = "";
        if (logits[t] == -INFINITY) continue;
        left++;
        text_of(t, text, sizeof text - 1);
        CHECK(!strstr(text, "im"), "'%s' would write 'im'", text);
    }
    CHECK(left > 0, "'ti' itself can be written");
    vocabulary_close(&v);
}

int main(void) {
    RUN(test_every_prompt);
    RUN(test_how_far);
    RUN(test_no_dead_end);
    RUN(test_it_ends);
    RUN(test_beside_a_grammar);
    RUN(test_wrong_arguments);
    RUN(test_no_spelling_is_left);
    RUN(test_only_what_completes);
    RUN(test_chain);
    return test_end();
}
