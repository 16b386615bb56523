/* data.c - see data.h. */

#include "data.h"

#include <stdlib.h>
#include <string.h>

enum { BITE = 1 << 20 };                    /* bytes encoded at once, about */

/* ---- batches --------------------------------------------------------------------------------- */

int batch_new(batch *b, int sequences, int length) {
    size_t count = (size_t)sequences * (size_t)length;
    b->sequences = sequences;
    b->length = length;
    b->tokens = (int32_t *)malloc(count * sizeof *b->tokens);
    b->targets = (int32_t *)malloc(count * sizeof *b->targets);
    b->fresh = (uint8_t *)malloc(count);
    return b->tokens && b->targets && b->fresh ? 0 : complain("out of memory");
}

void batch_free(batch *b) {
    free(b->tokens);
    free(b->targets);
    free(b->fresh);
    memset(b, 0, sizeof *b);
}

int64_t batch_scored(const batch *b) {
    int64_t scored = 0;
    for (int i = 0; i < b->sequences * b->length; i++) scored += b->targets[i] >= 0;
    return scored;
}

/* splitmix64 */
uint64_t random_next(uint64_t *state) {
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

uint64_t random_below(uint64_t *state, uint64_t limit) { return random_next(state) % limit; }

/* ---- documents ------------------------------------------------------------------------------- */

static const char border[] = "<|endoftext|>";

static int is_blank(unsigned char c) { return c == ' ' || c == '\t' || c == '\r'; }

/* How many bytes at p are a border and the ends of lines around it; 0: it is none. */
static size_t border_at(const unsigned char *p, size_t left) {
    size_t n = *p == '\n', length = sizeof border - 1;
    if (left < n + length || memcmp(p + n, border, length) != 0) return 0;
    n += length;
    return n + (n < left && p[n] == '\n');
}

/* How many bytes at p separate documents: 0, if they do not. */
static size_t separator_at(const unsigned char *p, size_t left, text_split split) {
    size_t n = split == SPLIT_NONE ? 0 : border_at(p, left);
    int lines = 0;
    if (split == SPLIT_NONE || n) return n;
    if (split == SPLIT_LINES) return *p == '\n';
    if (*p == '\f') return 1;
    if (*p != '\n') return 0;
    for (; n < left && (p[n] == '\n' || is_blank(p[n])); n++) lines += p[n] == '\n';
    return lines > 2 ? n : 0;
}

const unsigned char *document_next(const unsigned char *text, size_t size, text_split split,
                                   size_t *at, size_t *length) {
    while (*at < size) {
        size_t start = *at, gap = 0;
        for (; *at < size; ++*at)
            if ((gap = separator_at(text + *at, size - *at, split)) != 0) break;
        *length = *at - start;
        *at += gap;
        if (*length) return text + start;
    }
    return NULL;
}

/* The length of what of a long text can be encoded alone: up to the last line that ends in it, or
 * else to its last space, or else to the last whole character. No piece crosses the end of a line
 * or the beginning of a word. */
static size_t bite_of(const unsigned char *text, size_t left) {
    size_t n = BITE;
    if (left <= BITE) return left;
    while (n && !(text[n - 1] == '\n' && text[n] != '\n')) n--;
    if (n) return n;
    for (n = BITE; n && text[n] != ' '; n--) {}
    if (n) return n;
    for (n = BITE; n > BITE - 3 && (text[n] & 0xC0) == 0x80; n--) {}
    return n;
}

/* There is room for 2^k - 1 documents. */
static int note_start(corpus *c) {
    int n = c->documents + 1, *first = c->first;
    if ((n & (n - 1)) == 0) first = (int *)realloc(first, 2 * (size_t)n * sizeof *first);
    if (!first) return complain("out of memory");
    c->first = first;
    first[c->documents] = c->tokens.count;
    return 0;
}

static int add_document(corpus *c, session *s, const unsigned char *text, size_t size) {
    griffin_encoding encoding;
    size_t bite;
    memset(&encoding, 0, sizeof encoding);
    encoding.no_bos = 1;
    for (size_t at = 0; at < size; at += bite) {
        bite = bite_of(text + at, size - at);
        if (tokens_add_text(&c->tokens, s, &encoding, text + at, bite)) return 1;
        encoding.continues = 1;
    }
    c->bytes += (int64_t)size;
    c->documents++;
    return note_start(c);
}

/* What a blank line is in the middle of a text. */
static int read_gap(corpus *c, session *s) {
    griffin_encoding encoding;
    memset(&encoding, 0, sizeof encoding);
    encoding.no_bos = encoding.continues = 1;
    return tokens_add_text(&c->gap, s, &encoding, "\n\n", 2);
}

int corpus_read(corpus *c, session *s, const void *text, size_t size, text_split split) {
    const unsigned char *document;
    size_t at = 0, length;
    memset(c, 0, sizeof *c);
    c->epoch = -1;
    c->bos = s->info->bos;
    c->eos = s->info->eos;
    if (c->bos < 0) return complain("the vocabulary has no token that begins a text");
    if (read_gap(c, s) || note_start(c)) return 1;
    while ((document = document_next((const unsigned char *)text, size, split, &at, &length)))
        if (add_document(c, s, document, length)) return 1;
    return 0;
}

void corpus_free(corpus *c) {
    tokens_free(&c->tokens);
    tokens_free(&c->gap);
    free(c->first);
    free(c->inputs);
    free(c->targets);
    free(c->fresh);
    memset(c, 0, sizeof *c);
}

/* ---- an epoch -------------------------------------------------------------------------------- */

static void lay_token(corpus *c, int32_t input, int32_t target, int fresh) {
    c->inputs[c->laid] = input;
    c->targets[c->laid] = target;
    c->fresh[c->laid++] = (uint8_t)fresh;
}

/* Document d; its first token comes after bos, or after a blank line; `foreseen`: which is to be
 * predicted. */
static void lay_document(corpus *c, int d, int run_on, int foreseen) {
    const int32_t *token = c->tokens.data + c->first[d];
    int count = c->first[d + 1] - c->first[d];
    if (run_on && foreseen && c->laid) c->targets[c->laid - 1] = c->gap.data[0];
    if (!run_on) lay_token(c, c->bos, token[0], 1);
    for (int i = 0; run_on && i < c->gap.count; i++)
        lay_token(c, c->gap.data[i], i + 1 < c->gap.count ? -1 : token[0], 0);
    for (int i = 0; i < count; i++)
        lay_token(c, token[i], i + 1 < count ? token[i + 1] : c->eos, 0);
}

/* Fisher and Yates. */
static void shuffle(int *order, int count, uint64_t *dice) {
    for (int i = count - 1; i > 0; i--) {
        int k = (int)random_below(dice, (uint64_t)i + 1), swapped = order[i];
        order[i] = order[k];
        order[k] = swapped;
    }
}

/* dice null: as in the text, all documents afresh. */
static int lay_epoch(corpus *c, int64_t epoch, uint64_t *dice) {
    size_t room = (size_t)c->tokens.count + (size_t)c->documents * (size_t)(c->gap.count + 1);
    int *order = (int *)malloc((size_t)c->documents * sizeof *order);
    if (!c->inputs) {
        c->inputs = (int32_t *)malloc(room * sizeof *c->inputs);
        c->targets = (int32_t *)malloc(room * sizeof *c->targets);
        c->fresh = (uint8_t *)malloc(room);
    }
    if (!order || !c->inputs || !c->targets || !c->fresh) {
        free(order);
        return complain("out of memory");
    }
    for (int d = 0; d < c->documents; d++) order[d] = d;
    if (dice) shuffle(order, c->documents, dice);
    c->epoch = epoch;
    c->laid = 0;
    for (int d = 0; d < c->documents; d++) {
        uint64_t roll = dice ? random_below(dice, 1 << 20) : 0;
        int run_on = dice && (double)roll < (double)c->run_on * (1 << 20);
        lay_document(c, order[d], run_on, (int)(roll & 1));
    }
    free(order);
    return 0;
}

/* ---- sequences ------------------------------------------------------------------------------- */

/* A row from `start` on; tokens from `count` on are not scored, and after the last comes the first.
 * `begins`: nothing comes before it. */
static void fill_row(const corpus *c, int64_t start, int64_t count, int begins, int row, batch *b) {
    for (int i = 0; i < b->length; i++) {
        size_t at = (size_t)row * (size_t)b->length + (size_t)i;
        int64_t p = (start + i) % c->laid;
        int first = begins && i == 0;
        b->tokens[at] = first ? c->bos : c->inputs[p];
        b->targets[at] = i < count ? c->targets[p] : -1;
        b->fresh[at] = first || c->fresh[p];
    }
}

/* How many of the last tokens a run says again: one, a word of a few pieces, or a sentence. */
static int run_period(uint64_t *dice) {
    switch (random_below(dice, 3)) {
    case 0:  return 1;
    case 1:  return 2 + (int)random_below(dice, 3);
    default: return 5 + (int)random_below(dice, 20);
    }
}

/* Runs are about 40 tokens long in the mean, so few of them make most of the noise. */
static void add_noise(const corpus *c, uint64_t *dice, batch *b) {
    const double one = 1u << 24, single = c->noise / 3, run = (c->noise - single) / 40;
    int left = 0, period = 0, since = 0;        /* tokens that may be said again */
    for (int i = 0; i < b->sequences * b->length; i++) {
        double roll = (double)random_below(dice, 1u << 24) / one;
        if (i % b->length == 0) left = since = 0;
        if (b->fresh[i]) {
            left = since = 0;
            continue;
        }
        if (left == 0 && roll >= single && roll < single + run) {
            period = run_period(dice);
            left = period <= since ? period + (int)random_below(dice, 62) : 0;
        }
        since++;
        if (left) {
            left--;
            b->tokens[i] = b->tokens[i - period];
        } else if (roll < single) {
            b->tokens[i] = c->tokens.data[random_below(dice, (uint64_t)c->tokens.count)];
        }
    }
}

/* An epoch has so many steps whatever runs on: what does not fill a step is left out. It begins
 * anywhere, for one document alone would be cut at the same places each time. */
int corpus_batch(corpus *c, uint64_t seed, int64_t number, batch *b) {
    int64_t step = (int64_t)b->sequences * b->length;
    int64_t steps = ((int64_t)c->tokens.count + c->documents) / step;
    if (steps == 0) steps = 1;
    int64_t epoch = number / steps;
    int64_t at = number % steps * b->length;
    uint64_t dice = seed ^ (uint64_t)epoch << 32;
    dice = random_next(&dice);
    if (epoch != c->epoch && lay_epoch(c, epoch, &dice)) return 1;
    dice = seed + (uint64_t)epoch;
    at += (int64_t)random_below(&dice, (uint64_t)c->laid);
    for (int i = 0; i < b->sequences; i++)
        fill_row(c, at + i * steps * b->length, b->length, c->afresh || number % steps == 0, i, b);
    dice = (uint64_t)number ^ seed << 40;
    if (c->noise > 0) add_noise(c, &dice, b);
    return 0;
}

int corpus_slice(corpus *c, int64_t number, batch *b) {
    int64_t start = number * b->sequences * b->length;
    if (c->epoch < 0 && lay_epoch(c, 0, NULL)) return -1;
    if (start >= c->laid) return 0;
    for (int i = 0; i < b->sequences; i++, start += b->length)
        fill_row(c, start, start < c->laid ? c->laid - start : 0, c->afresh, i, b);
    for (int i = 0; i < b->sequences * b->length; i++)
        if (b->targets[i] == c->eos) b->targets[i] = -1;
    return 1;
}
