/* persona.c - griffin persona: a text and a model in, the first state of a character out.
 *
 * The state before the first token is a parameter like any other. The weights stay, and AdamW takes
 * steps down the gradient of the loss of stretches of the text, which all begin in that state. See
 * persona.h. */

#include "persona.h"
#include "train.h"
#include "../shared/buffer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#endif

int command_persona(int argc, char **argv);

static const double pi = 3.14159265358979323846;

typedef struct persona_options {
    model_options model;
    const char *text, *output, *plot, *prompt, *time;
    int   rows, length, batch, split;
    int   steps, reports, sample, seed;
    float rate, hold_out;
} persona_options;

typedef struct persona {
    persona_options o;
    session      s;
    net         *n;
    persona_text text;
    batch        batch;
    state_part  *parts;
    int          part_count;
    size_t       size;                      /* numbers in a state */
    float       *first, *best;              /* [size] what is learned; what is kept */
    float       *states, *gradients;        /* [batch][size] */
    double      *mean, *square;             /* [size] moments of AdamW */
    double       budget, seconds;           /* 0: no limit; used */
    int64_t      steps, learned_tokens;
    double       nats, scored;              /* since the last report */
    double       lowest, last, bits;        /* loss of what is held out; the last as bits a byte */
    double       held_out_bytes;
    train_curve  learned, validated;
} persona;

/* ---- the net --------------------------------------------------------------------------------- */

net *persona_net(const char *path, int longest) {
    const convert_options o = { .source = path, .type = "f32", .gates = "f32", .quiet = 1 };
    model_parts source;
    report r = { "" };
    net *n = NULL;
    net_weight *list = NULL;
    int count = 0;
    if (parts_read(&source, &o, &r) != 0) { complain("%s", r.text); return NULL; }
    if (source.tensors.count
        && strcmp(source.tensors.list[source.tensors.count - 1].name, "lm_head.weight") == 0)
        complain("%s: cannot learn through an output head of its own", path);
    else n = net_new_frozen(&source.config.net, longest);
    if (n) count = net_weights(n, &list);
    if (n && source_copy_all(&source, list, count, path)) { net_free(n); n = NULL; }
    parts_free(&source);
    return n;
}

/* ---- the first state ------------------------------------------------------------------------- */

static void repeat_state(const persona *p, const float *state) {
    for (int i = 0; i < p->o.batch; i++)
        memcpy(p->states + (size_t)i * p->size, state, p->size * sizeof *state);
}

static double mean_square(const persona *p, const state_part *part, const float *states) {
    double sum = 0;
    for (int i = 0; i < p->o.batch; i++)
        for (size_t k = part->at; k < part->at + part->count; k++) {
            double x = (double)states[(size_t)i * p->size + k];
            sum += x * x;
        }
    return sum / (double)part->count / p->o.batch;
}

/* It begins as the state that the beginning of a text leaves. Steps are relative to the size that a
 * part has after longer ones. */
static int first_guess(persona *p, uint64_t *dice) {
    batch *b = &p->batch;
    net_batch text = { 1, p->o.rows, b->tokens, b->targets, NULL, NULL, p->first, 0, 0 };
    if (persona_text_draw(&p->text, &p->s, dice, b)) return 1;
    net_loss(p->n, &text, NULL);
    repeat_state(p, p->first);
    text.sequences = b->sequences;
    text.length = b->length;
    text.next = p->gradients;
    net_loss(p->n, &text, NULL);
    for (int i = 0; i < p->part_count; i++) {
        double size = sqrt(mean_square(p, &p->parts[i], p->gradients));
        p->parts[i].scale = size > 1e-6 ? size : 1e-6;
    }
    memcpy(p->best, p->first, p->size * sizeof *p->best);
    return 0;
}

/* ---- steps ----------------------------------------------------------------------------------- */

static double share_after(const persona *p, int64_t steps) {
    double by_steps = p->o.steps ? (double)steps / p->o.steps : 0;
    double by_time = p->budget > 0 ? p->seconds / p->budget : 0;
    return fmin(fmax(by_steps, by_time), 1);
}

/* Up in a line, then down along half a cosine. */
static double rate_of(const persona *p) {
    const double warm = 0.05, end = 0.02;
    double share = share_after(p, p->steps + 1);
    if (share < warm) return (double)p->o.rate * share / warm;
    share = (share - warm) / (1 - warm);
    return (double)p->o.rate * (end + (1 - end) * 0.5 * (1 + cos(pi * share)));
}

static void update_part(persona *p, const state_part *part, double rate) {
    const double beta1 = 0.9, beta2 = 0.98;
    double first = 1 - pow(beta1, (double)p->steps + 1);
    double second = 1 - pow(beta2, (double)p->steps + 1);
    for (size_t k = part->at; k < part->at + part->count; k++) {
        double d = 0, *m = &p->mean[k], *v = &p->square[k];
        for (int i = 0; i < p->o.batch; i++) d += (double)p->gradients[(size_t)i * p->size + k];
        *m = beta1 * *m + (1 - beta1) * d;
        *v = beta2 * *v + (1 - beta2) * d * d;
        p->first[k] -= (float)(rate * part->scale * (*m / first) / (sqrt(*v / second) + 1e-12));
    }
}

static int step(persona *p, uint64_t *dice) {
    batch *b = &p->batch;
    net_batch text = { b->sequences, b->length, b->tokens, b->targets, NULL, p->states, NULL, 0,
                       0 };
    double rate = rate_of(p), nats;
    int64_t scored;
    if (persona_text_draw(&p->text, &p->s, dice, b)) return 1;
    repeat_state(p, p->first);
    nats = net_backward_state(p->n, &text, 1 / (float)(b->sequences * b->length), p->gradients,
                              &scored);
    if (!(fabs(nats) < INFINITY) || scored == 0)
        return complain("the loss is infinite after %lld steps: try a smaller --rate",
                        (long long)p->steps);
    for (int i = 0; i < p->part_count; i++) update_part(p, &p->parts[i], rate);
    p->steps++;
    p->learned_tokens += (int64_t)b->sequences * b->length;
    p->nats += nats;
    p->scored += (double)scored;
    return 0;
}

/* ---- what is held out ------------------------------------------------------------------------ */

/* How many of its stretches a report measures. */
static int reported(const persona *p) {
    enum { MOST = 16 };
    return p->text.held_out.sequences < MOST ? p->text.held_out.sequences : MOST;
}

/* Nats a token of those, by the net; o->batch stretches at once. */
static double held_out_loss(persona *p) {
    const batch *all = &p->text.held_out;
    double nats = 0;
    int64_t sum = 0, scored;
    repeat_state(p, p->first);
    for (int i = 0; i < reported(p); i += p->o.batch) {
        size_t at = (size_t)i * (size_t)all->length;
        int left = reported(p) - i;
        net_batch text = { left < p->o.batch ? left : p->o.batch, all->length, all->tokens + at,
                           all->targets + at, NULL, p->states, NULL, 0, 0 };
        nats += net_loss(p->n, &text, &scored);
        sum += scored;
    }
    p->bits = nats / log(2.0) / p->held_out_bytes;
    return nats / (double)sum;
}

/* ---- what the model makes of it --------------------------------------------------------------
 * Measured with the library, so with the weights and inputs as they are rounded there. */

enum { NEAR = 64, FEED = 64 };              /* tokens at the beginning of a stretch; in a call */

typedef struct score { double nats[2], bytes[2]; } score;   /* of the near ones, of the others */

/* The bytes of the text that a token stands for, after others. */
static int token_bytes(session *s, int32_t token) {
    char text[2048];
    int n = griffin_decode(s->model, &s->decoder, token, text, sizeof text);
    return n > 0 ? n : 0;
}

/* One stretch, from s->state on; `before` >= 0 stands for its first token, which is bos. */
static int score_stretch(session *s, const batch *b, int row, int32_t before, float *logits,
                         score *r) {
    int32_t *tokens = b->tokens + (size_t)row * (size_t)b->length;
    const int32_t *targets = b->targets + (size_t)row * (size_t)b->length;
    int32_t kept = tokens[0];
    int error = GRIFFIN_OK, vocab = s->info->config.vocab;
    griffin_span span = { NULL, NULL, 0, 1, NULL };
    span.state = s->state;
    span.logits = logits;
    memset(&s->decoder, 0, sizeof s->decoder);
    s->decoder.started = 1;
    if (before >= 0) tokens[0] = before;
    for (int i = 0; i < b->length && targets[i] >= 0 && error >= 0; i += span.count) {
        span.tokens = tokens + i;
        for (span.count = 0; span.count < FEED && i + span.count < b->length
                             && targets[i + span.count] >= 0;) span.count++;
        error = griffin_run(s->context, &span, 1);
        for (int k = 0; k < span.count && error >= 0; k++) {
            int far = i + k >= NEAR;
            r->nats[far] += logits_loss(logits + (size_t)k * (size_t)vocab, vocab, targets[i + k]);
            r->bytes[far] += token_bytes(s, targets[i + k]);
        }
    }
    tokens[0] = kept;
    return error < 0 ? session_error(s, error) : 0;
}

/* All stretches, each from `first` on (null: fresh). */
static int score_all(persona *p, const griffin_state *first, int32_t before, score *r) {
    session *s = &p->s;
    const batch *b = &p->text.held_out;
    size_t size = griffin_state_size(s->model);
    float *logits = (float *)malloc(FEED * (size_t)s->info->config.vocab * sizeof *logits);
    int status = logits ? 0 : complain("out of memory");
    memset(r, 0, sizeof *r);
    for (int i = 0; !status && i < b->sequences && !interrupted(); i++) {
        if (first) memcpy(s->state, first, size);
        else memset(s->state, 0, size);
        status = score_stretch(s, b, i, before, logits, r);
    }
    free(logits);
    return status;
}

static void print_score(const char *what, const score *r) {
    double nats = r->nats[0] + r->nats[1], bytes = r->bytes[0] + r->bytes[1];
    printf("  %-26s%8.4f%18.4f", what, nats / log(2.0) / bytes,
           r->nats[0] / log(2.0) / r->bytes[0]);
    if (r->bytes[1] > 0) printf("%18.4f", r->nats[1] / log(2.0) / r->bytes[1]);
    printf("\n");
}

/* 512 tokens of the text in place of the persona; the last of them is fed with each stretch. */
static int score_prompt(persona *p, griffin_state *first) {
    enum { PROMPT = 512 };
    token_list tokens = { NULL, 0, 0 };
    score r;
    int error = GRIFFIN_OK;
    if (p->s.info->add_bos && tokens_add(&tokens, p->s.info->bos)) return 1;
    int status = persona_text_prompt(&p->text, &p->s, PROMPT, &tokens);
    memset(first, 0, griffin_state_size(p->s.model));
    if (!status && tokens.count > 1)
        error = griffin_prefill(p->s.context, first, tokens.data, tokens.count - 1, NULL);
    if (error < 0) status = session_error(&p->s, error);
    if (!status && tokens.count > 1
        && !(status = score_all(p, first, p->s.info->add_bos ? tokens.data[tokens.count - 1] : -1,
                                &r)))
        print_score("512 tokens of the text", &r);
    tokens_free(&tokens);
    return status;
}

/* The state in the file, as the library takes it. */
static int load_best(persona *p, griffin_state *state) {
    unsigned char *data = NULL;
    size_t size;
    int error = 0, status = persona_save(p->n, p->best, p->o.rows, &p->s, &data, &size);
    if (!status) error = griffin_load(p->s.model, state, NULL, NULL, data, size);
    free(data);
    return error < 0 ? session_error(&p->s, error) : status;
}

static int compare(persona *p) {
    griffin_state *first = (griffin_state *)malloc(griffin_state_size(p->s.model));
    score r;
    int status = first ? 0 : complain("out of memory");
    if (!status) status = score_all(p, NULL, -1, &r);
    if (!status && !interrupted()) {
        printf("\nheld out, bits a byte, in stretches of up to %d tokens:\n"
               "  %-26s%8s%15s %d%18s\n", p->o.length, "what comes before", "all", "first", NEAR,
               "others");
        print_score("nothing", &r);
        status = score_prompt(p, first);
    }
    if (!status && !interrupted()) status = load_best(p, first) || score_all(p, first, -1, &r);
    if (!status && !interrupted()) print_score("the persona", &r);
    free(first);
    return status ? status : output_flush();
}

/* ---- reports --------------------------------------------------------------------------------- */

static byte_buffer line_of(const persona *p) {
    byte_buffer line = { NULL, 0, 0, 0 }, *out = &line;
    double share = share_after(p, p->steps);
    buffer_print(out, "%3.0f %%  step %lld", 100 * share, (long long)p->steps);
    if (p->scored > 0) buffer_print(out, "  loss %.4f", p->nats / p->scored);
    if (p->last > 0) buffer_print(out, "  held out %.4f (%.4f bits a byte)", p->last, p->bits);
    buffer_print(out, "  %.0f tokens/s  ",
                 p->seconds > 0 ? (double)p->learned_tokens / p->seconds : 0);
    train_print_duration(out, share > 0 ? p->seconds * (1 / share - 1) : 0);
    buffer_print(out, " left");
    return line;
}

static int write_best(persona *p) {
    unsigned char *data = NULL;
    size_t size = 0;
    int status = persona_save(p->n, p->best, p->o.rows, &p->s, &data, &size)
              || file_replace(p->o.output, data, size);
    free(data);
    return status;
}

static int sample(persona *p) {
    griffin_sampler sampler = SAMPLER_DEFAULTS;
    token_list prompt = { NULL, 0, 0 };
    int status = load_best(p, p->s.state);
    sampler.seed = (uint64_t)p->o.seed;
    memset(&p->s.decoder, 0, sizeof p->s.decoder);
    status = status || tokens_add_text(&prompt, &p->s, NULL, p->o.prompt, strlen(p->o.prompt))
          || session_feed(&p->s, &prompt, &sampler, 1)
          || session_generate(&p->s, &sampler, p->o.sample, ENDS_END);
    printf("\n\n");
    tokens_free(&prompt);
    return status;
}

/* The state that predicts what is held out best is kept; the first guess is the first of them. */
static int report_state(persona *p) {
    double loss = held_out_loss(p);
    int status = 0, better = p->lowest == 0 || loss < p->lowest;
    p->last = loss;
    if (better) {
        p->lowest = loss;
        memcpy(p->best, p->first, p->size * sizeof *p->best);
        status = write_best(p);
    }
    if (p->scored > 0) train_add_point(&p->learned, p->steps, p->nats / p->scored);
    train_add_point(&p->validated, p->steps ? p->steps : 1, loss);
    progress_clear();
    byte_buffer line = line_of(p);
    printf("%s%s\n", line.failed ? "out of memory" : (const char *)line.data,
           better ? "" : ", not better");
    buffer_free(&line);
    p->nats = p->scored = 0;
    status = status || output_flush();
    if (!status && p->o.plot && p->steps)
        status = train_draw(p->o.plot, &p->learned, &p->validated);
    if (!status && p->o.sample && !interrupted()) status = sample(p);
    return status;
}

static int is_due(const persona *p, double before) {
    double now = share_after(p, p->steps);
    return now >= 1 || interrupted() || floor(now * p->o.reports) > floor(before * p->o.reports);
}

static int learn(persona *p, uint64_t *dice) {
    double start = seconds_now();
    int status = report_state(p);
    while (!status && !interrupted() && share_after(p, p->steps) < 1) {
        double before = share_after(p, p->steps);
        status = step(p, dice);
        p->seconds = seconds_now() - start;
        if (status) break;
        byte_buffer line = line_of(p);
        if (!line.failed) progress_show("%s", (const char *)line.data);
        buffer_free(&line);
        if (is_due(p, before)) status = report_state(p);
    }
    if (!status && !interrupted()) status = compare(p);
    if (status) return status;
    if (interrupted()) printf("stopped; the best so far is in ");
    report_print(p->o.output, strlen(p->o.output));
    printf("\n");
    return output_flush() ? 1 : interrupted() ? 130 : 0;
}

/* ---- the command ----------------------------------------------------------------------------- */

static int allocate(persona *p) {
    size_t all = (p->size = net_state_size(p->n)) * (size_t)p->o.batch;
    p->first = (float *)calloc(p->size, sizeof *p->first);
    p->best = (float *)calloc(p->size, sizeof *p->best);
    p->states = (float *)calloc(all, sizeof *p->states);
    p->gradients = (float *)calloc(all, sizeof *p->gradients);
    p->mean = (double *)calloc(p->size, sizeof *p->mean);
    p->square = (double *)calloc(p->size, sizeof *p->square);
    p->parts = (state_part *)calloc(MOST_PARTS * (size_t)p->s.info->config.layers,
                                    sizeof *p->parts);
    if (batch_new(&p->batch, p->o.batch, p->o.length)) return 1;
    if (!p->first || !p->best || !p->states || !p->gradients || !p->mean || !p->square || !p->parts)
        return complain("out of memory");
    p->part_count = persona_parts(p->n, p->o.rows, p->parts);
    return 0;
}

static void release(persona *p) {
    net_free(p->n);
    persona_text_close(&p->text);
    batch_free(&p->batch);
    free(p->first);
    free(p->best);
    free(p->states);
    free(p->gradients);
    free(p->mean);
    free(p->square);
    free(p->parts);
    session_close(&p->s);
}

/* The bytes that the scored tokens of a report stand for. */
static double count_bytes(persona *p) {
    const batch *b = &p->text.held_out;
    double bytes = 0;
    for (int i = 0; i < reported(p) * b->length; i++) {
        if (i % b->length == 0) {
            memset(&p->s.decoder, 0, sizeof p->s.decoder);
            p->s.decoder.started = 1;
        }
        if (b->targets[i] >= 0) bytes += token_bytes(&p->s, b->targets[i]);
    }
    return bytes;
}

static void print_summary(const persona *p) {
    size_t numbers = 0;
    for (int i = 0; i < p->part_count; i++) numbers += p->parts[i].count;
    printf("%lu numbers to learn; %d places to begin, %d stretches and %d tokens held out\n",
           (unsigned long)numbers, p->text.learned, p->text.held_out.sequences,
           (int)batch_scored(&p->text.held_out));
}

static int run(const command *c, persona *p) {
    const persona_options *o = &p->o;
    uint64_t dice = (uint64_t)o->seed;
    if (session_open(&p->s, c, &o->model, NEEDS_TEXT)) return 1;
    if (!(p->n = persona_net(o->model.path, o->length))) return 1;
    int status = persona_text_open(&p->text, &p->s, o->text, (text_split)o->split, o->hold_out,
                                   o->length)
              || allocate(p) || first_guess(p, &dice);
    if (status) return status;
    p->held_out_bytes = count_bytes(p);
    print_summary(p);
    interrupt_catch(0);
    return output_flush() ? 1 : learn(p, &dice);
}

static int check(const command *c, persona_options *o, double *budget) {
    *budget = o->time ? train_duration(o->time) : o->steps ? 0 : 60;
    if (*budget < 0) return options_wrong(c, "--time: '%s' is not like 90m, 2h or 45s", o->time);
    if (!o->model.path) return options_wrong(c, "no model: name a file with -m");
    if (!o->text) return options_wrong(c, "no text: name a file");
    if (!o->output) return options_wrong(c, "no output: name a file with -o");
    const char *read[] = { o->text, o->model.path }, *written[] = { o->output, o->plot };
    if (options_outputs(c, read, 2, written, 2) >= 0) return 2;
    if (o->rows < 1 || o->rows > 1024) return options_wrong(c, "--rows: 1 to 1024");
    if (o->length < o->rows || o->length > 1 << 16)
        return options_wrong(c, "--length: %d to %d", o->rows, 1 << 16);
    if (o->batch < 1 || o->batch > 1 << 12) return options_wrong(c, "--batch: 1 to %d", 1 << 12);
    if (o->hold_out <= 0 || o->hold_out > 0.5f)
        return options_wrong(c, "--hold-out: more than 0, at most 0.5");
    return train_check_output(o->plot);
}

int command_persona(int argc, char **argv) {
    persona *p = (persona *)calloc(1, sizeof *p);
    persona_options *o = p ? &p->o : NULL;
    if (!p) return complain("out of memory");
    *o = (persona_options){ .prompt = "", .rows = 16, .length = 256, .batch = 16, .reports = 10,
                            .seed = 1, .rate = 0.3f, .hold_out = 0.1f };
    const option table[] = {
        { "TEXT", NULL, OPTION_WORD, &o->text, NULL, "what the character has said and lived" },
        { "model", "m", OPTION_TEXT, &o->model.path, "MODEL", "the model, a GGUF file" },
        { "output", "o", OPTION_TEXT, &o->output, "FILE", "the persona, a saved state" },
        { "time", NULL, OPTION_TEXT, &o->time, "T", "for so long: 5m, 45s (default: 1m)" },
        { "steps", NULL, OPTION_COUNT, &o->steps, "N", "or for so many steps; 0: by time" },
        { "rate", NULL, OPTION_REAL, &o->rate, "X",
          "highest learning rate, relative to the size of a state's numbers" },
        { "rows", NULL, OPTION_COUNT, &o->rows, "N",
          "keys and values that attention layers learn; also the state's position" },
        { "length", NULL, OPTION_COUNT, &o->length, "N", "tokens in a stretch of the text" },
        { "batch", NULL, OPTION_COUNT, &o->batch, "N", "stretches in a step" },
        { "split", NULL, OPTION_CHOICE, &o->split, SPLITS, "the text's documents, as in train" },
        { "hold-out", NULL, OPTION_FRACTION, &o->hold_out, "P",
          "so much of the text, its end, is only for measuring" },
        { "reports", NULL, OPTION_COUNT, &o->reports, "N", "how often that is done" },
        { "plot", NULL, OPTION_TEXT, &o->plot, "FILE", "draw the loss curve, an SVG file" },
        { "sample", NULL, OPTION_COUNT, &o->sample, "N", "tokens to tell with each report" },
        { "prompt", "p", OPTION_TEXT, &o->prompt, "TEXT", "how samples begin" },
        { "seed", "s", OPTION_COUNT, &o->seed, "N", "the same seed gives the same persona" },
        { "threads", "t", OPTION_THREADS, &o->model.threads, "N", "threads; 0: one for each core" },
        CPU_OPTION(o->model.cpu),
        { "kv-type", NULL, OPTION_CHOICE, &o->model.kv_type, "f32|bf16",
          "of the states that it is for: how they keep keys and values" },
        { NULL, NULL, OPTION_END, NULL, NULL, NULL }
    };
    const command c = { "persona", "TEXT -m MODEL.gguf -o FILE.persona [options]",
        "Makes a character from a text: the state before the first token learns what it is like,\n"
        "and the weights stay. The file is a saved state of a few kilobytes. griffin_load gives a\n"
        "state that takes the place of a fresh one: any text can follow, and a token costs what it\n"
        "did. `griffin run --persona FILE` begins in it. Of all reports, the state that best\n"
        "predicts the part of the text that is held out is kept. Ctrl-C finishes a step and ends.",
        table };
    int status = options_parse(&c, argc, argv);
    if (status < 0) status = check(&c, o, &p->budget);
#ifdef _OPENMP
    if (status < 0 && o->model.threads) omp_set_num_threads(o->model.threads);
#endif
    if (status < 0) {
        status = run(&c, p);
        release(p);
    }
    free(p);
    return status;
}
