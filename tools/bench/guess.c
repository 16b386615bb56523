/* guess.c - measures what guesses are worth; see guess.h. */

#include "guess.h"
#include "run.h"
#include "../griffin_grammar.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WAITING = 64, REMEMBERED = 1 << 16 };

typedef struct writer {
    bench_model     *b;
    griffin_context *context;
    void            *context_memory;
    griffin_state   *start, *state;         /* behind the prompt; written into */
    float           *first, *logits;        /* behind the prompt; [rows][V] */
    int32_t         *prompt, *tokens;
    int              prompted, count;
    griffin_grammar *grammar;
    griffin_grammar_state at;
    griffin_sampler  sampler;
    griffin_guess    guess;
    griffin_lookup   lookup;
    int32_t          waiting[WAITING];
} writer;

static int mask(float *logits, int vocab, void *user) {
    writer *w = (writer *)user;
    (void)vocab;
    return griffin_grammar_mask(w->grammar, &w->at, logits);
}

/* ---- opening --------------------------------------------------------------------------------- */

/* Tokens of a text; without a vocabulary each byte is one. */
static int read_tokens(bench_model *b, const unsigned char *text, size_t size, int continues,
                       int32_t **tokens, int *count) {
    griffin_encoding how;
    memset(&how, 0, sizeof how);
    how.continues = how.no_special = continues;
    *tokens = (int32_t *)malloc((size + 2) * sizeof **tokens);
    if (!*tokens) return complain("out of memory");
    *count = (int)size;
    if (!b->info->has_vocabulary) {
        for (size_t i = 0; i < size; i++) (*tokens)[i] = text[i] % b->info->config.vocab;
        return 0;
    }
    *count = griffin_encode(b->model, &how, (const char *)text, size, *tokens, (int)size + 2);
    if (*count > (int)size + 2) return complain("the text has more tokens than bytes");
    return *count < 0 ? bench_error(b, *count) : 0;
}

/* Where a line begins that is just "---"; else the end. */
static size_t find_answer(const file_bytes *f, size_t *behind) {
    const unsigned char *p = f->data;
    for (size_t i = 0; i + 4 <= f->size; i++)
        if ((i == 0 || p[i - 1] == '\n') && !memcmp(p + i, "---\n", 4)) {
            *behind = i + 4;
            return i;
        }
    *behind = 0;
    return 0;
}

static int read_text(writer *w, const guess_test *t) {
    file_bytes f;
    size_t answer;
    if (text_open(&f, NULL, t->path)) return 1;
    size_t prompt = find_answer(&f, &answer);
    size_t end = (size_t)f.size;
    if (end > answer && f.data[end - 1] == '\n') end--;
    if (prompt && f.data[prompt - 1] == '\n') prompt--;
    int status = read_tokens(w->b, f.data, prompt, 0, &w->prompt, &w->prompted)
              || read_tokens(w->b, f.data + answer, end - answer, 1, &w->tokens, &w->count);
    file_close(&f);
    if (!status && w->count < 2)
        status = complain("%s: there is no text to write", t->path);
    return status;
}

/* Of the tokens that a mask allows, the one that has most of the text that comes. */
static int32_t longest_token(const writer *w, const float *logits, const char *text, int left) {
    int32_t longest = -1;
    for (int32_t i = 0, most = 0; i < w->b->info->tokens; i++) {
        char piece[128];
        if (logits[i] == -INFINITY || griffin_token_type(w->b->model, i) == GRIFFIN_TOKEN_CONTROL)
            continue;
        int n = griffin_token_text(w->b->model, i, piece, sizeof piece);
        if (n <= most || n > left || n > (int)sizeof piece || memcmp(piece, text, (size_t)n))
            continue;
        most = n;
        longest = i;
    }
    return longest;
}

/* With a grammar the tokens are those that its masks let a model write. */
static int cut_by_grammar(writer *w, const char *path) {
    size_t vocab = (size_t)w->b->info->config.vocab;
    char *text = (char *)malloc((size_t)w->count * 128 + 1);
    float *logits = (float *)malloc(vocab * sizeof *logits);
    int size = 0, at = 0, n = 0, error = text && logits ? 0 : complain("out of memory");
    for (int i = 0; i < w->count && !error; i++) {
        int bytes = griffin_token_text(w->b->model, w->tokens[i], text + size, 128);
        size += bytes > 0 && bytes <= 128 ? bytes : 0;
    }
    int32_t *tokens = error ? NULL : (int32_t *)realloc(w->tokens, (size_t)(size + 1)
                                                                  * sizeof *tokens);
    if (tokens) w->tokens = tokens;
    while (at < size && !error) {
        memset(logits, 0, vocab * sizeof *logits);
        error = griffin_grammar_mask(w->grammar, &w->at, logits);
        int32_t token = error < 0 ? -1 : longest_token(w, logits, text + at, size - at);
        if (token < 0) { error = complain("%s: the text is not of this grammar", path); break; }
        error = griffin_grammar_accept(w->grammar, &w->at, token) < 0;
        at += griffin_token_text(w->b->model, token, NULL, 0);
        if (tokens) tokens[n++] = token;
    }
    w->count = n;
    free(text);
    free(logits);
    return error || !tokens;
}

static int read_grammar(writer *w, const char *path) {
    file_bytes f;
    if (!path) return 0;
    if (text_open(&f, NULL, path)) return 1;
    int error = griffin_grammar_open(&w->grammar, w->b->model, (const char *)f.data,
                                     (size_t)f.size, NULL);
    file_close(&f);
    w->sampler.mask = mask;
    w->sampler.mask_user = w;
    return error < 0 ? bench_error(w->b, error) : cut_by_grammar(w, path);
}

static int open_memory(writer *w, const guess_test *t) {
    const griffin_model *m = w->b->model;
    size_t row = (size_t)w->b->info->config.vocab * sizeof(float);
    griffin_context_options o;
    memset(&o, 0, sizeof o);
    o.jobs.width = t->threads;
    o.guesses = t->most;
    size_t size = griffin_context_size(m, &o);
    w->guess.rows = t->most + 2;
    w->context_memory = big_allocate(size);
    w->start = (griffin_state *)big_allocate(griffin_state_size(m));
    w->state = (griffin_state *)big_allocate(griffin_state_size(m));
    w->first = (float *)malloc(row);
    w->logits = (float *)malloc(row * (size_t)w->guess.rows);
    w->lookup.memory = (int32_t *)malloc(sizeof(int32_t) * REMEMBERED
                                         * (GRIFFIN_LOOKUP_LENGTHS + 1));
    if (!w->context_memory || !w->start || !w->state || !w->first || !w->logits
        || !w->lookup.memory) return complain("out of memory");
    memset(w->start, 0, griffin_state_size(m));
    memset(w->first, 0, row);
    int error = griffin_context_init(&w->context, m, &o, w->context_memory, size);
    if (!error && w->prompted)
        error = griffin_prefill(w->context, w->start, w->prompt, w->prompted, w->first);
    return error < 0 ? bench_error(w->b, error) : 0;
}

static void close_writer(writer *w) {
    griffin_grammar_close(w->grammar);
    big_release(w->context_memory);
    big_release(w->start);
    big_release(w->state);
    free(w->first);
    free(w->logits);
    free(w->lookup.memory);
    free(w->prompt);
    free(w->tokens);
}

/* ---- writing --------------------------------------------------------------------------------- */

static void begin(writer *w) {
    memcpy(w->state, w->start, griffin_state_size(w->b->model));
    memcpy(w->logits, w->first, (size_t)w->b->info->config.vocab * sizeof(float));
    memset(&w->at, 0, sizeof w->at);
}

/* What a sampler costs. That it draws something else than the text has no consequences. */
static int draw(writer *w, float *logits, int32_t token) {
    int32_t drawn = griffin_sample(w->b->model, &w->sampler, logits);
    if (drawn < 0) return bench_error(w->b, drawn);
    int error = w->grammar ? griffin_grammar_accept(w->grammar, &w->at, token) : 0;
    return error < 0 ? bench_error(w->b, error) : 0;
}

static int write_plainly(writer *w) {
    begin(w);
    for (int i = 0; i < w->count; i++) {
        if (draw(w, w->logits, w->tokens[i])) return 1;
        int error = griffin_step(w->context, w->state, w->tokens[i], w->logits);
        if (error < 0) return bench_error(w->b, error);
    }
    return 0;
}

/* What was measured of a row's cost stays from turn to turn, and nothing else does. */
static void begin_guesses(writer *w, int rows) {
    griffin_guess g;
    griffin_lookup l;
    memset(&g, 0, sizeof g);
    memset(&l, 0, sizeof l);
    begin(w);
    g.model = w->b->model;
    g.state = w->state;
    g.tokens = w->waiting;
    g.room = WAITING;
    g.logits = w->logits;
    g.rows = rows;
    g.row_cost = w->guess.row_cost;
    g.pass_time = w->guess.pass_time;
    l.memory = w->lookup.memory;
    l.size = REMEMBERED;
    memset(l.memory, 0, sizeof(int32_t) * REMEMBERED * (GRIFFIN_LOOKUP_LENGTHS + 1));
    griffin_lookup_add(&l, w->prompt, w->prompted);
    w->guess = g;
    w->lookup = l;
}

static int write_guessing(writer *w) {
    griffin_guess *g = &w->guess;
    int error = 0;
    for (int i = 0; i < w->count && error >= 0; i++) {
        if (draw(w, griffin_guess_logits(g), w->tokens[i])) return 1;
        griffin_lookup_add(&w->lookup, &w->tokens[i], 1);
        if ((error = griffin_guess_take(g, w->tokens[i])) != 0) continue;
        if (w->grammar)
            error = griffin_grammar_guess(w->grammar, &w->at, &w->sampler, w->logits, g);
        if (error >= 0) error = griffin_lookup_guess(&w->lookup, g);
        double start = seconds_now();
        if (error >= 0) error = griffin_guess_run(w->context, g, 1);
        if (error >= 0) error = griffin_guess_time(g, seconds_now() - start);
    }
    if (error >= 0) error = griffin_guess_finish(w->context, g);
    return error < 0 ? bench_error(w->b, error) : 0;
}

/* One turn: plainly, then with guesses; the first turn of all only warms up. */
static int measure(writer *w, guess_test *t, double *plain, double *guessed, double *gain) {
    for (int k = -1; k < t->repetitions; k++) {
        double start = seconds_now();
        if (write_plainly(w)) return 1;
        double middle = seconds_now();
        begin_guesses(w, t->most + 2);
        double again = seconds_now();
        if (write_guessing(w)) return 1;
        double end = seconds_now();
        if (k < 0) continue;
        plain[k] = w->count / (middle - start);
        guessed[k] = w->count / (end - again);
        gain[k] = guessed[k] / plain[k];
    }
    t->tokens = w->count;
    t->plain = quantile(plain, t->repetitions, 0.5);
    t->guessed = quantile(guessed, t->repetitions, 0.5);
    t->gain = quantile(gain, t->repetitions, 0.5);
    t->guesses = (double)w->guess.guessed;
    t->right = (double)w->guess.accepted;
    t->passes = (double)w->guess.passes;
    t->row_cost = w->guess.row_cost;
    return 0;
}

int guess_measure(bench_model *b, guess_test *t) {
    writer w;
    memset(&w, 0, sizeof w);
    w.b = b;
    size_t n = (size_t)t->repetitions;
    double *rates = (double *)malloc(3 * n * sizeof *rates);
    int status = rates ? 0 : complain("out of memory");
    if (!status) status = read_text(&w, t) || read_grammar(&w, t->grammar) || open_memory(&w, t);
    if (!status) status = measure(&w, t, rates, rates + n, rates + 2 * n);
    close_writer(&w);
    free(rates);
    return status;
}
