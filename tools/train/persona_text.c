/* persona_text.c - a text as stretches that begin where a text could; see persona.h. */

#include "persona.h"

#include <stdlib.h>
#include <string.h>

/* ---- where stretches begin ------------------------------------------------------------------- */

/* At the start of a document or a line, and after the end of a sentence. */
static int may_begin(const unsigned char *document, size_t at) {
    if (strchr(" \t\r\n", document[at])) return 0;
    if (at == 0 || document[at - 1] == '\n') return 1;
    return at > 1 && document[at - 1] == ' ' && strchr(".!?\"'", document[at - 2]);
}

/* There is room for 2^k - 1 of them. */
static int add_start(persona_text *t, size_t from, size_t end) {
    int n = t->count + 1;
    stretch *grown = t->starts;
    if ((n & (n - 1)) == 0) grown = (stretch *)realloc(grown, 2 * (size_t)n * sizeof *grown);
    if (!grown) return complain("out of memory");
    t->starts = grown;
    grown[t->count].from = from;
    grown[t->count++].end = end;
    return 0;
}

static int find_starts(persona_text *t, text_split split) {
    const unsigned char *text = t->file.data, *document;
    size_t at = 0, length;
    while ((document = document_next(text, (size_t)t->file.size, split, &at, &length)))
        for (size_t i = 0; i < length; i++)
            if (document[i] && may_begin(document, i)
                && add_start(t, (size_t)(document - text) + i, (size_t)(document - text) + length))
                return 1;
    return 0;
}

/* What is learned from ends where the rest begins. */
static void hold_out(persona_text *t, float share) {
    size_t cut = (size_t)t->file.size - (size_t)((double)t->file.size * (double)share);
    while (t->learned < t->count && t->starts[t->learned].from < cut) t->learned++;
    if (t->learned < t->count) cut = t->starts[t->learned].from;
    for (int i = 0; i < t->learned; i++)
        if (t->starts[i].end > cut) t->starts[i].end = cut;
}

/* ---- tokens ---------------------------------------------------------------------------------- */

/* As a whole text is encoded, so perhaps with bos. Its last token, if the text goes on, may be
 * another one with what follows. */
static int encode(const persona_text *t, session *s, const stretch *from, int most,
                  token_list *tokens) {
    size_t left = from->end - from->from, size = 8 * (size_t)most + 64;
    tokens->count = 0;
    if (size > left) size = left;
    while (size < left && (t->file.data[from->from + size] & 0xC0) == 0x80) size++;
    if (tokens_add_text(tokens, s, NULL, t->file.data + from->from, size)) return 1;
    if (size < left && tokens->count) tokens->count--;
    if (tokens->count > most) tokens->count = most;
    return 0;
}

/* Row `row` of a batch. What the stretch has too little is not scored. */
static int fill_row(const persona_text *t, session *s, const stretch *from, token_list *tokens,
                    int row, batch *b) {
    size_t at = (size_t)row * (size_t)b->length;
    if (encode(t, s, from, b->length + 1, tokens)) return 1;
    for (int i = 0; i < b->length; i++) {
        b->tokens[at + (size_t)i] = i < tokens->count ? tokens->data[i] : 0;
        b->targets[at + (size_t)i] = i + 1 < tokens->count ? tokens->data[i + 1] : -1;
    }
    return 0;
}

int persona_text_draw(const persona_text *t, session *s, uint64_t *dice, batch *b) {
    token_list tokens = { NULL, 0, 0 };
    int status = 0;
    for (int i = 0; !status && i < b->sequences; i++) {
        const stretch *from = &t->starts[random_below(dice, (uint64_t)t->learned)];
        status = fill_row(t, s, from, &tokens, i, b);
    }
    tokens_free(&tokens);
    return status;
}

static size_t bytes_of(session *s, const token_list *tokens) {
    char piece[2048];
    size_t bytes = 0;
    memset(&s->decoder, 0, sizeof s->decoder);
    for (int i = 0; i <= tokens->count; i++) {
        int n = griffin_decode(s->model, &s->decoder, i < tokens->count ? tokens->data[i] : -1,
                               piece, sizeof piece);
        if (n > 0) bytes += (size_t)n;
    }
    return bytes;
}

static void swap_rows(batch *b, int i, int k) {
    for (int j = 0; j < b->length; j++) {
        int32_t *x = b->tokens + j, *y = b->targets + j, kept;
        kept = x[i * b->length]; x[i * b->length] = x[k * b->length]; x[k * b->length] = kept;
        kept = y[i * b->length]; y[i * b->length] = y[k * b->length]; y[k * b->length] = kept;
    }
}

/* The next begins where one may, after the end of the one before. Then they are shuffled, so that a
 * few of them tell of all. */
static int lay_held_out(persona_text *t, session *s, int length) {
    token_list tokens = { NULL, 0, 0 };
    size_t end = 0;
    uint64_t dice = 1;
    int rows = 0, status = 0;
    if (batch_new(&t->held_out, t->count - t->learned, length)) return 1;
    for (int i = t->learned; !status && i < t->count; i++) {
        if (t->starts[i].from < end) continue;
        status = fill_row(t, s, &t->starts[i], &tokens, rows++, &t->held_out);
        end = t->starts[i].from + bytes_of(s, &tokens);
    }
    tokens_free(&tokens);
    t->held_out.sequences = rows;
    for (int i = rows - 1; i > 0; i--)
        swap_rows(&t->held_out, i, (int)random_below(&dice, (uint64_t)i + 1));
    return status;
}

int persona_text_prompt(const persona_text *t, session *s, int count, token_list *tokens) {
    token_list all = { NULL, 0, 0 };
    griffin_encoding later;
    size_t end = t->starts[t->learned - 1].end, size = 8 * (size_t)count;
    memset(&later, 0, sizeof later);
    later.no_bos = later.continues = 1;
    if (size > end) size = end;
    int status = tokens_add_text(&all, s, &later, t->file.data + end - size, size);
    for (int i = all.count > count ? all.count - count : 0; !status && i < all.count; i++)
        status = tokens_add(tokens, all.data[i]);
    tokens_free(&all);
    return status;
}

/* ---- all of it ------------------------------------------------------------------------------- */

int persona_text_open(persona_text *t, session *s, const char *path, text_split split,
                      float share, int length) {
    memset(t, 0, sizeof *t);
    if (text_open(&t->file, NULL, path) || find_starts(t, split)) return 1;
    hold_out(t, share);
    if (t->learned == 0 || t->learned == t->count)
        return complain("%s: %lu bytes are too little text: a persona needs some sentences to "
                        "learn from, and others that are held out", path, (unsigned long)t->file.size);
    if (lay_held_out(t, s, length)) return 1;
    if (batch_scored(&t->held_out) < 32)
        return complain("%s: what is held out has only %d tokens; give more text, or a larger "
                        "--hold-out", path, (int)batch_scored(&t->held_out));
    return 0;
}

void persona_text_close(persona_text *t) {
    file_close(&t->file);
    batch_free(&t->held_out);
    free(t->starts);
    memset(t, 0, sizeof *t);
}
