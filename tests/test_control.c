/* test_control.c - a host has the last word on what is written: biases and bans, a mask hook, and
 * stop texts that are found wherever the stream is cut; words are not shown half. */

#include "model.h"

#define V 50

static griffin_model *model;
static float logits[V];
static char message[400];

static griffin_sampler sampler_of(float temperature, const griffin_bias *biases, int count) {
    griffin_sampler s;
    memset(&s, 0, sizeof s);
    s.seed = 11;
    s.temperature = temperature;
    s.biases = biases;
    s.bias_count = count;
    return s;
}

/* Token i has logit i / 10. */
static int32_t sample(griffin_sampler *s) {
    for (int i = 0; i < V; i++) logits[i] = (float)i * 0.1f;
    message[0] = 0;
    return griffin_sample(model, s, logits);
}

static void hear(int error, const char *text, void *user) {
    (void)error; (void)user;
    snprintf(message, sizeof message, "%s", text);
}

/* ---- biases -------------------------------------------------------------------------------- */

static void test_biases(void) {
    static const griffin_bias biases[] = { { 3, 5 }, { 7, -INFINITY }, { 9, 2 }, { 9, 2.9f } };
    griffin_sampler s = sampler_of(0, biases, 1);
    CHECK(sample(&s) == 3, "5.3 is the greatest");
    s.bias_count = 4;
    CHECK(sample(&s) == 9, "biases of one token add up");
    s.repeat_penalty = 2;
    CHECK(sample(&s) == 49, "9 and 3 came before");
}

/* Greedy and stochastic never take what is banned, nor a forced token that is banned too. */
static void test_bans(void) {
    griffin_bias bans[V + 1];
    for (int i = 0; i < V - 1; i++) { bans[i].token = V - 1 - i; bans[i].bias = -INFINITY; }
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < V; i++) {
            griffin_sampler s = sampler_of(round ? 3.0f : 0, bans, i);
            int32_t token = sample(&s);
            CHECK(token >= 0 && token < V - i, "%d of %d bans: %d", i, round, token);
            if (!round) CHECK(token == V - 1 - i, "greedy with %d bans: %d", i, token);
        }
    }
    bans[V - 1].token = V - 1;
    bans[V - 1].bias = INFINITY;
    for (int round = 0; round < 2; round++) {
        griffin_sampler s = sampler_of(round ? 1.0f : 0, bans, V);
        CHECK(sample(&s) == 0, "a banned token stays banned");
    }
}

static void test_all_banned(void) {
    griffin_bias bans[V];
    for (int i = 0; i < V; i++) { bans[i].token = i; bans[i].bias = -INFINITY; }
    for (int round = 0; round < 2; round++) {
        griffin_sampler s = sampler_of(round ? 1.0f : 0, bans, V), before = s;
        CHECK(sample(&s) == GRIFFIN_E_NO_TOKEN && message[0], "nothing is left");
        CHECK(memcmp(&s, &before, sizeof s) == 0, "the sampler changed");
    }
}

static void test_wrong_biases(void) {
    static const griffin_bias wrong[] = { { -1, 1 }, { V, 1 }, { 1, NAN } };
    griffin_sampler s;
    for (int i = 0; i < 3; i++) {
        s = sampler_of(0, &wrong[i], 1);
        CHECK(sample(&s) == GRIFFIN_E_ARGUMENT && strstr(message, "biases[0]"), "%d", i);
        CHECK(s.accepted == 0 && logits[1] < 0.2f, "something changed");
    }
    s = sampler_of(0, NULL, 1);
    CHECK(sample(&s) == GRIFFIN_E_ARGUMENT, "null");
    s = sampler_of(0, wrong, -1);
    CHECK(sample(&s) == GRIFFIN_E_ARGUMENT, "negative");
}

/* ---- the mask hook -------------------------------------------------------------------------- */

static int only(float *x, int n, void *user) {      /* the token *user; negative: an error */
    int token = *(const int *)user;
    CHECK(n == V, "%d", n);
    CHECK(x[5] == -INFINITY, "biases come first");
    for (int i = 0; i < n; i++) if (i != token) x[i] = -INFINITY;
    return token < 0 ? GRIFFIN_E_MISMATCH : 0;
}

static void test_mask(void) {
    static const griffin_bias ban = { 5, -INFINITY };
    int token;
    for (int round = 0; round < 2; round++) {
        griffin_sampler s = sampler_of(round ? 2.0f : 0, &ban, 1);
        s.repeat_penalty = 3;
        s.top_k = 5;
        s.mask = only;
        s.mask_user = &token;
        for (token = 0; token < V; token++) {
            CHECK(sample(&s) == (token == 5 ? GRIFFIN_E_NO_TOKEN : token), "%d", token);
        }
        CHECK(s.accepted == V - 1, "%u", s.accepted);
        token = -1;
        CHECK(sample(&s) == GRIFFIN_E_MISMATCH, "the mask's own error");
        CHECK(s.accepted == V - 1, "%u", s.accepted);
    }
}

/* ---- stop texts ------------------------------------------------------------------------------ */

#define MOST 4096

/* What may be shown of a text, found by plain search; *found as in griffin_stop. */
static size_t shown_by_search(const char *text, const char *const *texts, int count, int *found) {
    size_t length = strlen(text), end, best = 0;
    *found = 0;
    for (end = 1; end <= length && !*found; end++) {
        for (int i = 0; i < count; i++) {
            size_t n = strlen(texts[i]);
            if (n > end || n <= best || memcmp(text + end - n, texts[i], n) != 0) continue;
            *found = i + 1;
            best = n;
        }
    }
    return *found ? end - 1 - best : length;
}

/* No byte is held back that could be shown. */
static int holds_a_start(const griffin_stop *stop) {
    int starts = stop->held_count == 0;
    for (int i = 0; i < stop->count; i++) {
        starts |= (size_t)stop->held_count < strlen(stop->texts[i])
               && memcmp(stop->held, stop->texts[i], (size_t)stop->held_count) == 0;
    }
    return starts;
}

/* Feeds a text in two parts and then byte by byte; through copies of the struct, as rewinding
 * would. Returns what was shown. */
static size_t feed(const char *text, size_t cut, int by_bytes, griffin_stop *stop, char *shown) {
    size_t length = strlen(text), at = 0, size = 0;
    stop->found = 0;
    while (at < length && !stop->found) {
        size_t n = by_bytes ? 1 : at < cut ? cut - at : length - at;
        griffin_stop copy = *stop;
        int written = griffin_stop_feed(&copy, text + at, n, shown + size, MOST - size);
        CHECK(written >= 0 && written <= (int)n + GRIFFIN_STOP_BYTES, "%d", written);
        CHECK(copy.found || copy.used == (int)n, "%d", copy.used);
        CHECK(holds_a_start(&copy), "%.*s", copy.held_count, copy.held);
        at += (size_t)copy.used;
        size += (size_t)written;
        *stop = copy;
    }
    if (!stop->found) size += (size_t)griffin_stop_feed(stop, NULL, 0, shown + size, MOST - size);
    CHECK(stop->held_count == 0 && shown[size] == 0, "nothing stays behind");
    return size;
}

static void check_stops(const char *text, const char *const *texts, int count) {
    static char shown[MOST];
    size_t size;
    int found;
    size_t expected = shown_by_search(text, texts, count, &found);
    for (size_t cut = 0; cut <= strlen(text); cut++) {
        griffin_stop stop;
        memset(&stop, 0, sizeof stop);
        stop.texts = texts;
        stop.count = count;
        size = feed(text, cut, cut == 0, &stop, shown);
        int end = stop.found;
        CHECK(size == expected && memcmp(shown, text, size) == 0,
              "'%s' cut at %d: '%s', %d bytes expected", text, (int)cut, shown, (int)expected);
        if (found) CHECK(end == found, "'%s' cut at %d: %d, not %d", text, (int)cut, end, found);
    }
}

static void test_stops(void) {
    static const char *const turns[] = { "\n\nUser:", "<end>", "</" },
                      *const nested[] = { "abcd", "bc" }, *const selfish[] = { "aab", "aaaab" },
                      *const same_end[] = { "b", "ab", "cab" }, *const letters[] = { "\xC3\xA9!" };
    check_stops("", turns, 3);
    check_stops("no stop at all", turns, 3);
    check_stops("an answer\n\nUser: more", turns, 3);
    check_stops("almost\n\nUse\n\n\nUser:", turns, 3);
    check_stops("<en<end", turns, 3);
    check_stops("a < b <end>", turns, 3);
    check_stops("x</s>", turns, 3);
    check_stops("xabcd", nested, 2);
    check_stops("xabxabdabc", nested, 2);
    check_stops("aaaaaaaaab", selfish, 2);
    check_stops("aaaab", selfish, 2);
    check_stops("ccab", same_end, 3);
    check_stops("na\xC3\xAFve caf\xC3\xA9 caf\xC3\xA9!", letters, 1);
    check_stops("anything", NULL, 0);
}

/* All texts of up to 9 letters a and b against all pairs of a few stop texts. */
static void test_stops_everywhere(void) {
    static const char *const texts[] = { "a", "ab", "ba", "aab", "abab", "babb", "aaaa", "bbab" };
    const char *pair[2];
    char text[10];
    int n, bits;
    for (int i = 0; i < 8; i++) {
        for (int j = 0; j < 8; j++) {
            pair[0] = texts[i];
            pair[1] = texts[j];
            for (n = 7, bits = 0; bits < 1 << n; bits++) {
                for (int k = 0; k < n; k++) text[k] = (char)('a' + (bits >> k & 1));
                text[n] = 0;
                check_stops(text, pair, i == j ? 1 : 2);
            }
        }
    }
}

/* After a stop text the stream goes on behind it. */
static void test_stop_again(void) {
    static const char *const texts[] = { "--" };
    static const char text[] = "one--two---three-";
    char shown[MOST];
    griffin_stop stop;
    size_t at = 0;
    int size = 0, count = 0;
    memset(&stop, 0, sizeof stop);
    stop.texts = texts;
    stop.count = 1;
    while (at < sizeof text - 1) {
        size += griffin_stop_feed(&stop, text + at, sizeof text - 1 - at, shown + size,
                                  sizeof shown - (size_t)size);
        at += (size_t)stop.used;
        count += stop.found;
    }
    CHECK(count == 2 && stop.held_count == 1, "%d stops", count);
    size += griffin_stop_feed(&stop, NULL, 0, shown + size, sizeof shown - (size_t)size);
    CHECK(strcmp(shown, "onetwo-three-") == 0 && size == 13, "%s", shown);
}

static void test_wrong_stops(void) {
    static char longest[GRIFFIN_STOP_BYTES + 2];
    static const char *const words[] = { "stop" };
    const char *text = longest;
    char out[8];
    griffin_stop stop;
    memset(longest, 'x', GRIFFIN_STOP_BYTES);
    memset(&stop, 0, sizeof stop);
    stop.texts = &text;
    stop.count = 1;
    CHECK(griffin_stop_feed(&stop, "xx", 2, out, 8) == 0 && stop.held_count == 2, "longest");
    longest[GRIFFIN_STOP_BYTES] = 'x';
    CHECK(griffin_stop_feed(&stop, "x", 1, out, 8) == GRIFFIN_E_ARGUMENT, "too long");
    text = "";
    CHECK(griffin_stop_feed(&stop, "x", 1, out, 8) == GRIFFIN_E_ARGUMENT, "empty");
    text = NULL;
    CHECK(griffin_stop_feed(&stop, "x", 1, out, 8) == GRIFFIN_E_ARGUMENT, "null");
    stop.texts = words;
    CHECK(griffin_stop_feed(NULL, "x", 1, out, 8) == GRIFFIN_E_ARGUMENT, "no struct");
    CHECK(griffin_stop_feed(&stop, "x", 1, NULL, 0) == GRIFFIN_E_ARGUMENT, "no room at all");
    griffin_stop before = stop;
    CHECK(griffin_stop_feed(&stop, "sto sto", 7, out, 6) == GRIFFIN_E_SPACE, "little room");
    CHECK(memcmp(&before, &stop, sizeof stop) == 0, "something changed");
    CHECK(griffin_stop_feed(&stop, "sto sto", 7, out, 7) == 6 && !strcmp(out, "xxsto "), "%s", out);
    stop.held_count = GRIFFIN_STOP_BYTES;
    CHECK(griffin_stop_feed(&stop, "x", 1, out, 8) == GRIFFIN_E_ARGUMENT, "damaged");
}

/* ---- whole words --------------------------------------------------------------------------- */

/* Where a word may end. */
static int ends_word(const char *text, int length) {
    unsigned char last = (unsigned char)text[length - 1];
    if (strchr(" \n\t", last)) return 1;
    return length >= 3 && (unsigned char)text[length - 3] >= 0xE3;      /* three bytes */
}

/* However whole characters come, the text comes whole, and in whole words of at most 12 bytes. */
static void test_words(void) {
    static const char *const parts[] = {
        "a", "the", " ", " ", "\n", "\t", "na\xC3\xAF""ve", "\xE4\xB8\xAD", "\xE2\x80\x94", "king,"
    };
    enum { ROUNDS = 300, PARTS = 60 };
    for (int round = 0; round < ROUNDS; round++) {
        griffin_words w;
        char all[8 * PARTS] = "", shown[8 * PARTS + 1] = "";
        int n = 0, size = 0, whole = 0, released = 0;
        memset(&w, 0, sizeof w);
        w.most = round % 3 ? 0 : 12;
        for (int i = 0; i < PARTS; i++) {
            char piece[100] = "", out[100 + GRIFFIN_WORD_BYTES + 1];
            for (int k = (int)(dice() % 4); k > 0; k--) strcat(piece, parts[dice() % 10]);
            strcat(all, piece);
            n = griffin_words_feed(&w, piece, strlen(piece), out, strlen(piece)
                                   + GRIFFIN_WORD_BYTES + 1);
            CHECK(n >= 0 && n == (int)strlen(out), "%d", n);
            strcat(shown, out);
            size = (int)strlen(all);
            for (whole = size; whole > released && !ends_word(all, whole); ) whole--;
            if (size - whole > (w.most ? w.most : GRIFFIN_WORD_BYTES)) whole = size;
            released = whole;
            CHECK((int)strlen(shown) == whole, "%d bytes are whole words, %s", whole, shown);
        }
        n = griffin_words_feed(&w, NULL, 0, shown + strlen(shown), sizeof shown - strlen(shown));
        CHECK(strcmp(shown, all) == 0 && w.held_count == 0, "%s", shown);
    }
}

static void test_wrong_words(void) {
    griffin_words w;
    char out[16];
    memset(&w, 0, sizeof w);
    CHECK(griffin_words_feed(&w, "half", 4, out, 1) == 0 && !out[0], "half a word");
    griffin_words before = w;
    CHECK(griffin_words_feed(&w, " time", 5, out, 5) == GRIFFIN_E_SPACE, "little room");
    CHECK(memcmp(&w, &before, sizeof w) == 0, "changed");
    CHECK(griffin_words_feed(&w, " time", 5, out, 6) == 5 && !strcmp(out, "half "), "%s", out);
    CHECK(griffin_words_feed(NULL, "x", 1, out, 8) == GRIFFIN_E_ARGUMENT, "no struct");
    CHECK(griffin_words_feed(&w, "x", 1, NULL, 0) == GRIFFIN_E_ARGUMENT, "no room at all");
    w.most = GRIFFIN_WORD_BYTES + 1;
    CHECK(griffin_words_feed(&w, "x", 1, out, 8) == GRIFFIN_E_ARGUMENT, "more than fits");
    w.most = 0;
    w.held_count = GRIFFIN_WORD_BYTES + 1;
    CHECK(griffin_words_feed(&w, "x", 1, out, 8) == GRIFFIN_E_ARGUMENT, "damaged");
    w.held_count = -1;
    CHECK(griffin_words_feed(&w, "x", 1, out, 8) == GRIFFIN_E_ARGUMENT, "damaged");
}

int main(void) {
    griffin_config config = smallest_config(V);
    network *n = network_make(&config);
    griffin_options options;
    memset(&options, 0, sizeof options);
    options.logger.message = hear;
    model = network_open(n, &options);
    RUN(test_biases);
    RUN(test_bans);
    RUN(test_all_banned);
    RUN(test_wrong_biases);
    RUN(test_mask);
    RUN(test_stops);
    RUN(test_stops_everywhere);
    RUN(test_stop_again);
    RUN(test_wrong_stops);
    RUN(test_words);
    RUN(test_wrong_words);
    griffin_close(model);
    network_free(n);
    return test_end();
}
