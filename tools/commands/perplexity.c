/* perplexity.c - griffin perplexity: how well a model predicts a text.
 *
 * The text is one document and is read in order. The state is carried on, so every token is
 * predicted from all tokens before it, however long the text is. With --length the state is reset
 * after so many tokens: this shows how much the model gains from the tokens before.
 *
 *     loss = sum over t of  log(sum_v exp(logits[t][v])) - logits[t][token[t + 1]]         nats
 */

#include "../shared/session.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct score {
    double nats, bytes, seconds;
    int tokens;                             /* predicted so far */
} score;

static double loss(const float *logits, int vocab, int32_t next) {
    double sum = 1;                         /* the term of the largest logit */
    int top = 0;
    for (int v = 1; v < vocab; v++) if (logits[v] > logits[top]) top = v;
    for (int v = 0; v < vocab; v++) if (v != top) sum += exp((double)logits[v] - logits[top]);
    return log(sum) + logits[top] - logits[next];
}

static int smaller(int a, int b) { return a < b ? a : b; }

/* A stretch begins as a text does, and as sequences do in training: with bos, which replaces the
 * token before the stretch. */
static void start_stretch(session *s, int32_t *before) {
    memset(s->state, 0, griffin_state_size(s->model));
    if (s->info->add_bos) *before = s->info->bos;
}

/* Runs tokens [0, count - 1) in stretches of `length`. Scores how well each predicts the next. */
static int measure(session *s, token_list *list, int chunk, int length, score *r) {
    int vocab = s->info->config.vocab, total = list->count - 1, i, error;
    float *logits = (float *)malloc((size_t)chunk * (size_t)vocab * sizeof(float));
    double start = seconds_now();
    griffin_span span = { NULL, NULL, 0, 1, NULL };
    if (!logits) return complain("out of memory: try a smaller -c");
    span.state = s->state;
    span.logits = logits;
    for (i = 0, error = 0; i < total && error >= 0; i += span.count) {
        if (i % length == 0) start_stretch(s, list->data + i);
        span.tokens = list->data + i;
        span.count = smaller(chunk, smaller(total - i, length - i % length));
        error = griffin_run(s->context, &span, 1);
        for (int k = 0; k < span.count && error >= 0; k++)
            r->nats += loss(logits + (size_t)k * (size_t)vocab, vocab, list->data[i + k + 1]);
        r->tokens = i + span.count;
        progress_show("%d of %d tokens, perplexity %.3f", r->tokens, total,
                      exp(r->nats / r->tokens));
    }
    r->seconds = seconds_now() - start;
    progress_clear();
    free(logits);
    return error < 0 ? session_error(s, error) : 0;
}

/* Counts the bytes of text of the predicted tokens. */
static int count_bytes(session *s, const token_list *list, score *r) {
    char piece[2048];
    int n;
    for (int i = 0; i <= list->count; i++) {
        int32_t token = i < list->count ? list->data[i] : -1;
        n = griffin_decode(s->model, &s->decoder, token, piece, sizeof piece);
        if (n < 0) return session_error(s, n);
        if (i > 0) r->bytes += n;           /* the first token is given, not predicted */
    }
    return 0;
}

static int print_score(const score *r) {
    printf("nats per token  %.6f\n", r->nats / r->tokens);
    printf("perplexity      %.4f\n", exp(r->nats / r->tokens));
    printf("bits per byte   %.6f\n", r->nats / log(2.0) / r->bytes);
    printf("tokens          %d\nbytes           %.0f\n", r->tokens, r->bytes);
    printf("seconds         %.2f\n", r->seconds);
    return output_flush();
}

static int score_text(session *s, const file_bytes *words, int chunk, int length, int limit) {
    token_list list = { NULL, 0, 0 };
    score r = { 0, 0, 0, 0 };
    int status = tokens_add_text(&list, s, NULL, words->data, words->size);
    if (limit > 0 && limit < list.count - 1) list.count = limit + 1;
    if (!status && list.count < 2) status = complain("the text is too short to predict anything");
    if (length == 0) length = list.count;
    status = status || count_bytes(s, &list, &r) || measure(s, &list, chunk, length, &r);
    status = status || print_score(&r);
    s->prompt_tokens = r.tokens;
    s->prompt_seconds = r.seconds;
    if (!status) session_statistics(s);
    tokens_free(&list);
    return status;
}

int command_perplexity(int argc, char **argv) {
    model_options o = MODEL_DEFAULTS;
    session s;
    file_bytes words;
    const char *file = NULL;
    int chunk = 128, length = 0, limit = 0, status;
    const option table[] = {
        MODEL_OPTIONS(o),
        { "file", "f", OPTION_TEXT, &file, "FILE", "the text; without it, standard input" },
        { "chunk", "c", OPTION_COUNT, &chunk, "N", "tokens in one pass; changes no result" },
        { "length", NULL, OPTION_COUNT, &length, "N",
          "forget everything after so many tokens; 0: never" },
        { "limit", NULL, OPTION_COUNT, &limit, "N", "stop after so many tokens; 0: at the end" },
        { NULL, NULL, OPTION_END, NULL, NULL, NULL }
    };
    const command c = { "perplexity", "MODEL [-f FILE] [options]",
                        "Measures how well a model predicts a text.", table };
    if ((status = options_parse(&c, argc, argv)) >= 0) return status;
    if (chunk == 0) return options_wrong(&c, "--chunk: at least 1");
    if ((status = session_open(&s, &c, &o, NEEDS_TEXT)) != 0) return status;
    status = text_open(&words, NULL, file) || score_text(&s, &words, chunk, length, limit);
    file_close(&words);
    session_close(&s);
    return status;
}
