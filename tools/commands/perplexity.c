/* perplexity.c - griffin perplexity: how well a model predicts a text.
 *
 * The text is one document and is read in order. The state is carried on, so every token is
 * predicted from all tokens before it, however long the text is. With --length the state is reset
 * after so many tokens: this shows how much the model gains from the tokens before. With --split
 * the text is several documents. Each is read with nothing before it, as griffin train does, or,
 * with --run-on, after all the others.
 *
 *     loss = sum over t of  log(sum_v exp(logits[t][v])) - logits[t][token[t + 1]]         nats
 */

#include "../shared/session.h"
#include "../train/data.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct score {
    double nats, bytes, seconds;
    int tokens;                             /* predicted so far */
} score;

typedef struct perplexity_options {
    int chunk, length, limit, split, run_on;
} perplexity_options;

static int smaller(int a, int b) { return a < b ? a : b; }

/* A stretch begins as a text does, and as sequences do in training: with bos, which replaces the
 * token before the stretch. */
static void start_stretch(session *s, int32_t *before) {
    session_begin_text(s);
    if (s->info->add_bos) *before = s->info->bos;
}

/* Runs all tokens but the last, in stretches of o->length, and scores what those from `first` on
 * say about the one after them. runs_on: the first stretch goes on in the state that is there. */
static int measure(session *s, token_list *list, int first, int runs_on,
                   const perplexity_options *o, float *logits, score *r) {
    int vocab = s->info->config.vocab, total = list->count - 1, i, error;
    int length = o->length ? o->length : list->count;
    double start = seconds_now();
    griffin_span span = { NULL, NULL, 0, 1, NULL };
    span.state = s->state;
    span.logits = logits;
    for (i = 0, error = 0; i < total && error >= 0; i += span.count) {
        if (i % length == 0 && (i || !runs_on)) start_stretch(s, list->data + i);
        span.tokens = list->data + i;
        span.count = smaller(o->chunk, smaller(total - i, length - i % length));
        error = griffin_run(s->context, &span, 1);
        for (int k = 0; k < span.count && error >= 0; k++) {
            if (i + k < first) continue;
            r->nats += logits_loss(logits + (size_t)k * (size_t)vocab, vocab,
                                   list->data[i + k + 1]);
            r->tokens++;
        }
        if (error >= 0)
            progress_show("%d tokens, perplexity %.3f", r->tokens, exp(r->nats / r->tokens));
    }
    r->seconds += seconds_now() - start;
    progress_clear();
    return error < 0 ? session_error(s, error) : 0;
}

/* The bytes that the predicted tokens stand for: all but those up to `first`. */
static int count_bytes(session *s, const token_list *list, int first, score *r) {
    char piece[2048];
    int n;
    for (int i = 0; i <= list->count; i++) {
        int32_t token = i < list->count ? list->data[i] : -1;
        n = griffin_decode(s->model, &s->decoder, token, piece, sizeof piece);
        if (n < 0) return session_error(s, n);
        if (i > first) r->bytes += n;
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

/* A document with nothing before it, or with a blank line between it and the one before. */
static int score_document(session *s, const void *text, size_t size, const perplexity_options *o,
                          float *logits, score *r) {
    token_list list = { NULL, 0, 0 };
    griffin_encoding later;
    int runs_on = o->run_on && r->tokens > 0, first = 0, left = o->limit - r->tokens, status = 0;
    memset(&later, 0, sizeof later);
    later.no_bos = later.continues = 1;
    if (runs_on) {
        status = tokens_add_text(&list, s, &later, "\n\n", 2);
        first = list.count - 1;
        later.continues = 0;
    }
    status = status || tokens_add_text(&list, s, runs_on ? &later : NULL, text, size);
    if (o->limit > 0 && left < list.count - first - 1) list.count = first + left + 1;
    if (!status && list.count > first + 1)
        status = count_bytes(s, &list, first, r)
              || measure(s, &list, first, runs_on, o, logits, r);
    tokens_free(&list);
    return status;
}

static int score_text(session *s, const file_bytes *words, const perplexity_options *o) {
    float *logits = (float *)malloc((size_t)o->chunk * (size_t)s->info->config.vocab
                                    * sizeof(float));
    score r = { 0, 0, 0, 0 };
    const unsigned char *document;
    size_t at = 0, size;
    int status = logits ? 0 : complain("out of memory: try a smaller -c");
    while (!status && (o->limit == 0 || r.tokens < o->limit)
           && (document = document_next(words->data, (size_t)words->size, (text_split)o->split,
                                        &at, &size)))
        status = score_document(s, document, size, o, logits, &r);
    if (!status && !r.tokens) status = complain("the text is too short to predict anything");
    status = status || print_score(&r);
    s->prompt_tokens = r.tokens;
    s->prompt_seconds = r.seconds;
    if (!status) session_statistics(s);
    free(logits);
    return status;
}

int command_perplexity(int argc, char **argv) {
    model_options o = MODEL_DEFAULTS;
    session s;
    file_bytes words;
    const char *file = NULL;
    text_list personas = NO_PERSONAS;
    perplexity_options p = { 128, 0, 0, SPLIT_NONE, 0 };
    int status;
    const option table[] = {
        MODEL_OPTIONS(o),
        { "file", "f", OPTION_TEXT, &file, "FILE", "the text; without it, standard input" },
        PERSONA_OPTION(personas),
        { "chunk", "c", OPTION_COUNT, &p.chunk, "N", "tokens in one pass; changes no result" },
        { "length", NULL, OPTION_COUNT, &p.length, "N",
          "forget everything after so many tokens; 0: never" },
        { "limit", NULL, OPTION_COUNT, &p.limit, "N", "stop after so many tokens; 0: at the end" },
        { "split", NULL, OPTION_CHOICE, &p.split, SPLITS,
          "into documents, as griffin train does" },
        { "run-on", NULL, OPTION_FLAG, &p.run_on, NULL,
          "keep the state from one document to the next" },
        { NULL, NULL, OPTION_END, NULL, NULL, NULL }
    };
    const command c = { "perplexity", "MODEL [-f FILE] [options]",
                        "Measures how well a model predicts a text.", table };
    if ((status = options_parse(&c, argc, argv)) >= 0) return status;
    if (p.chunk == 0) return options_wrong(&c, "--chunk: at least 1");
    if ((status = session_open(&s, &c, &o, NEEDS_TEXT)) != 0) return status;
    status = text_open(&words, NULL, file) || session_personas(&s, &personas)
          || score_text(&s, &words, &p);
    file_close(&words);
    session_close(&s);
    return status;
}
