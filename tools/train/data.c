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

static int is_blank(unsigned char c) { return c == ' ' || c == '\t' || c == '\r'; }

/* How many bytes at p separate documents: 0, if they do not. */
static size_t separator_at(const unsigned char *p, size_t left, text_split split) {
    size_t n = 0;
    int lines = 0;
    if (split == SPLIT_NONE) return 0;
    if (split == SPLIT_LINES) return *p == '\n';
    if (*p == '\f') return 1;
    if (*p != '\n') return 0;
    for (; n < left && (p[n] == '\n' || is_blank(p[n])); n++) lines += p[n] == '\n';
    return lines > 2 ? n : 0;
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

static int add_document(corpus *c, session *s, const unsigned char *text, size_t size) {
    griffin_encoding encoding;
    size_t bite;
    memset(&encoding, 0, sizeof encoding);
    encoding.no_bos = 1;
    if (tokens_add(&c->tokens, c->bos)) return 1;
    for (size_t at = 0; at < size; at += bite) {
        bite = bite_of(text + at, size - at);
        if (tokens_add_text(&c->tokens, s, &encoding, text + at, bite)) return 1;
        encoding.continues = 1;
    }
    c->bytes += (int64_t)size;
    c->documents++;
    return tokens_add(&c->tokens, s->info->eos >= 0 ? s->info->eos : c->bos);
}

int corpus_read(corpus *c, session *s, const void *text, size_t size, text_split split) {
    const unsigned char *p = (const unsigned char *)text;
    size_t start = 0, at = 0, gap;
    memset(c, 0, sizeof *c);
    c->epoch = -1;
    c->bos = s->info->bos;
    c->eos = s->info->eos;
    if (c->bos < 0) return complain("the vocabulary has no token that begins a text");
    while (start < size) {
        for (gap = 0, at = start; at < size; at++)
            if ((gap = separator_at(p + at, size - at, split)) != 0) break;
        if (at > start && add_document(c, s, p + start, at - start)) return 1;
        start = at + gap;
    }
    return 0;
}

void corpus_free(corpus *c) {
    tokens_free(&c->tokens);
    free(c->order);
    memset(c, 0, sizeof *c);
}

/* ---- sequences ------------------------------------------------------------------------------- */

/* A row whose targets are `count` tokens from `start` on; after the last token comes the first. */
static void fill_row(const corpus *c, int64_t start, int64_t count, int row, batch *b) {
    const int32_t *stream = c->tokens.data;
    for (int i = 0; i < b->length; i++) {
        size_t at = (size_t)row * (size_t)b->length + (size_t)i;
        int64_t p = (start + i) % c->tokens.count;
        int32_t before = i && i < count ? stream[p ? p - 1 : c->tokens.count - 1] : c->bos;
        int scored = i < count && stream[p] != c->bos;
        b->tokens[at] = before;
        b->targets[at] = scored ? stream[p] : -1;
        b->fresh[at] = before == c->bos;
    }
}

static uint64_t seed_of(uint64_t seed, int64_t epoch) {
    uint64_t state = seed ^ (uint64_t)epoch << 32;
    return random_next(&state);
}

/* Fisher and Yates. */
static int shuffle(corpus *c, uint64_t seed, int64_t epoch, int count) {
    uint64_t state = seed_of(seed, epoch);
    if (!c->order) c->order = (int *)malloc((size_t)count * sizeof *c->order);
    if (!c->order) return complain("out of memory");
    for (int i = 0; i < count; i++) c->order[i] = i;
    for (int i = count - 1; i > 0; i--) {
        int k = (int)random_below(&state, (uint64_t)i + 1), swapped = c->order[i];
        c->order[i] = c->order[k];
        c->order[k] = swapped;
    }
    c->epoch = epoch;
    return 0;
}

int corpus_batch(corpus *c, uint64_t seed, int64_t number, batch *b) {
    int count = c->tokens.count / b->length + (c->tokens.count < b->length);
    for (int i = 0; i < b->sequences; i++) {
        int64_t q = number * b->sequences + i, epoch = q / count, phase;
        uint64_t state = seed_of(seed + 1, epoch);
        if (epoch != c->epoch && shuffle(c, seed, epoch, count)) return 1;
        phase = (int64_t)random_below(&state, (uint64_t)c->tokens.count);
        fill_row(c, phase + (int64_t)c->order[q % count] * b->length, b->length, i, b);
    }
    return 0;
}

int corpus_slice(const corpus *c, int64_t number, batch *b) {
    int64_t start = 1 + number * b->sequences * b->length, end = c->tokens.count;
    if (start >= end) return 0;
    for (int i = 0; i < b->sequences; i++, start += b->length)
        fill_row(c, start, start < end ? end - start : 0, i, b);
    for (int i = 0; i < b->sequences * b->length; i++)
        if (b->targets[i] == c->eos) b->targets[i] = -1;
    return 1;
}
