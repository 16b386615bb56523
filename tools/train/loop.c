/* loop.c - the training itself: steps, and reports between them; see train.h. */

#include "train.h"
#include "../shared/buffer.h"
#include "../shared/plot.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double pi = 3.14159265358979323846;

/* What only this run of the program knows. */
typedef struct run {
    training *t;
    double start;                           /* when it would have begun without interruptions */
    double step_seconds;
    int64_t first_tokens;
    double loss, bits;                      /* of the held-out text, at the last report; or 0 */
} run;

/* ---- schedule -------------------------------------------------------------------------------- */

/* How much of the run is over after some steps: by count or by clock, whichever is further. */
static double share_after(const training *t, int64_t steps) {
    double by_steps = t->o.steps ? (double)steps / t->o.steps : 0;
    double by_time = t->budget > 0 ? t->progress.seconds / t->budget : 0;
    return fmin(fmax(by_steps, by_time), 1);
}

/* Up in a line, then down along half a cosine. */
static float rate_of(const training *t) {
    double share = share_after(t, t->progress.steps + 1), warm = t->o.warmup, end = t->o.end_rate;
    double way = warm < 1 ? (share - warm) / (1 - warm) : 0;
    if (share < warm) return (float)(t->o.rate * share / warm);
    return (float)(t->o.rate * (end + (1 - end) * 0.5 * (1 + cos(pi * way))));
}

/* ---- steps ----------------------------------------------------------------------------------- */

static int next_batch(training *t) {
    uint64_t seed = (uint64_t)t->o.seed;
    if (!t->o.task) return corpus_batch(&t->text, seed, t->progress.steps, &t->batch);
    task_batch((train_task)t->o.task, seed, t->progress.steps, &t->batch);
    return 0;
}

void train_add_point(train_curve *c, int64_t step, double loss) {
    if (c->count == CURVE) return;
    c->step[c->count] = (double)step;
    c->loss[c->count++] = loss;
}

/* Points lie 2.5 % apart, since the curve is drawn over the logarithm of the steps. */
static void count_step(train_progress *p, int64_t scored, double nats, int64_t tokens) {
    const train_curve *c = &p->learned;
    p->steps++;
    p->tokens += tokens;
    p->nats += nats;
    p->scored += (double)scored;
    p->point_nats += nats;
    p->point_scored += (double)scored;
    if (c->count && (double)p->steps < 1.025 * c->step[c->count - 1]) return;
    train_add_point(&p->learned, p->steps, p->point_nats / p->point_scored);
    p->point_nats = p->point_scored = 0;
}

/* Whether the network is to see its weights as a quantised file has them. */
static int is_rounded(const training *t) {
    return t->o.quantise && share_after(t, t->progress.steps) >= 0.8;
}

/* What the sequences left is what the next ones begin with. */
static void carry(training *t) {
    float *left = t->next;
    t->next = t->state;
    t->state = left;
}

static int step(training *t) {
    const train_options *o = &t->o;
    batch *b = &t->batch;
    uint64_t dice = (uint64_t)t->progress.steps ^ (uint64_t)o->seed << 32;
    net_batch learned = { b->sequences, b->length, b->tokens, b->targets, b->fresh, t->state,
                          t->next, o->dropout, dice };
    net_adam adam = { 0, o->beta1, o->beta2, o->eps, o->decay, o->clip, o->momentum,
                      t->progress.updates };
    int64_t scored;
    adam.rate = rate_of(t);
    if (next_batch(t)) return 1;
    if ((scored = batch_scored(b)) == 0) return complain("there is nothing to learn in the text");
    if (is_rounded(t) && train_round(t)) return 1;
    double nats = net_backward(t->net, &learned, 1.0f / (float)scored, NULL);
    if (is_rounded(t)) train_unround(t);
    carry(t);
    double norm = net_update(t->net, &adam);
    if (!(fabs(nats) < INFINITY && fabs(norm) < INFINITY))
        return complain("the loss is infinite after %lld steps: try a smaller --rate",
                        (long long)t->progress.steps);
    t->progress.updates = adam.step;
    count_step(&t->progress, scored, nats, (int64_t)b->sequences * b->length);
    return 0;
}

/* ---- what is shown --------------------------------------------------------------------------- */

void train_print_duration(byte_buffer *out, double seconds) {
    long s = (long)(seconds + 0.5);
    if (s < 3600) buffer_print(out, "%ld:%02ld", s / 60, s % 60);
    else buffer_print(out, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
}

/* A line about the run, to be freed. */
static byte_buffer state_of(const run *r) {
    byte_buffer line = { NULL, 0, 0, 0 }, *out = &line;
    const train_progress *p = &r->t->progress;
    double share = share_after(r->t, p->steps);
    buffer_print(out, "%3.0f %%  step %lld", 100 * share, (long long)p->steps);
    if (p->scored > 0) buffer_print(out, "  loss %.4f", p->nats / p->scored);
    if (r->loss > 0) buffer_print(out, "  held out %.4f (%.4f bits a byte)", r->loss, r->bits);
    buffer_print(out, "  %.0f tokens/s  ",
                 r->step_seconds > 0 ? (double)(p->tokens - r->first_tokens) / r->step_seconds : 0);
    train_print_duration(out, share > 0 ? p->seconds * (1 / share - 1) : 0);
    buffer_print(out, " left");
    return line;
}

static void show_progress(const run *r) {
    byte_buffer line = state_of(r);
    if (!line.failed) progress_show("%s", (const char *)line.data);
    buffer_free(&line);
}

int train_draw(const char *path, const train_curve *learned, const train_curve *validated) {
    plot_line lines[2] = { { "training", NULL, NULL, 0 }, { "held out", NULL, NULL, 0 } };
    plot picture = { "Loss", "steps", "nats a token", NULL, 1 };
    const train_curve *curves[2] = { NULL, NULL };
    curves[0] = learned;
    curves[1] = validated;
    for (int i = 0; i < 2; i++) {
        lines[i].x = curves[i]->step;
        lines[i].y = curves[i]->loss;
        lines[i].count = (int)curves[i]->count;
    }
    picture.lines = lines;
    picture.count = 1 + (validated->count > 0);
    return plot_write(path, &picture, 1);
}

/* ---- reports --------------------------------------------------------------------------------- */

/* Mean loss of the held-out text; ends of documents are not counted, so that the bytes are those of
 * the text. */
static int validate(run *r) {
    training *t = r->t;
    const batch *b = &t->slice;
    size_t size = t->state ? net_state_size(t->net) : 0;
    float *state = (float *)calloc(2 * size + 1, sizeof *state), *before = state;
    float *after = state ? state + size : NULL;
    double nats = 0;
    int64_t sum = 0, scored = 0, limit = t->o.valid_limit ? t->o.valid_limit : INT64_MAX;
    int more = 1;
    if (!state) return complain("out of memory");
    if (is_rounded(t) && train_round(t)) { free(state); return 1; }
    for (int64_t i = 0; sum < limit; i++, sum += scored) {
        net_batch held_out = { b->sequences, b->length, b->tokens, b->targets, b->fresh,
                               size ? before : NULL, size ? after : NULL, 0, 0 };
        if ((more = corpus_slice(&t->held_out, i, &t->slice)) <= 0) break;
        nats += net_loss(t->net, &held_out, &scored);
        after = before;
        before = held_out.next;
    }
    if (is_rounded(t)) train_unround(t);
    free(state);
    double bytes = (double)t->held_out.bytes * (double)sum / (double)t->held_out.tokens.count;
    r->loss = nats / (double)sum;
    r->bits = nats / log(2.0) / bytes;
    return more < 0;
}

static int sample(training *t) {
    griffin_sampler sampler = SAMPLER_DEFAULTS;
    token_list prompt = { NULL, 0, 0 };
    session s;
    char *image;
    if (train_open(t, &s, &image)) return 1;
    sampler.seed = (uint64_t)t->o.seed;
    int status = tokens_add_text(&prompt, &s, NULL, t->o.prompt, strlen(t->o.prompt))
              || session_feed(&s, &prompt, &sampler, 1)
              || session_generate(&s, &sampler, t->o.sample, 1);
    printf("\n\n");
    tokens_free(&prompt);
    train_close(&s, image);
    return status;
}

/* The model that predicted the held-out text best is the one that is kept, or the last. */
static int report_state(run *r) {
    training *t = r->t;
    train_progress *p = &t->progress;
    int better = 1;
    if (t->held_out.tokens.count > 0) {
        if (validate(r)) return 1;
        train_add_point(&p->validated, p->steps, r->loss);
        better = p->best == 0 || r->loss < p->best;
        if (better) p->best = r->loss;
        better |= t->o.keep_last;
    }
    progress_clear();
    byte_buffer line = state_of(r);
    printf("%s\n", line.failed ? "out of memory" : (const char *)line.data);
    buffer_free(&line);
    p->nats = p->scored = 0;
    int status = output_flush();
    if (!status && t->o.task) status = task_report(t);
    if (!status && better) status = train_save(t);
    if (!status && t->o.checkpoint) status = train_checkpoint(t);
    if (!status && t->o.plot) status = train_draw(t->o.plot, &p->learned, &p->validated);
    if (!status && t->o.sample && !t->o.task && !interrupted()) status = sample(t);
    return status;
}

/* Reports come at equal shares of the run, the last one at its end. */
static int is_due(const training *t, double before) {
    double now = share_after(t, t->progress.steps);
    return now >= 1 || interrupted() || floor(now * t->o.reports) > floor(before * t->o.reports);
}

/* What another model knows already. */
static int report_source(run *r) {
    const training *t = r->t;
    if (!t->o.from || t->progress.steps || t->held_out.tokens.count == 0) return 0;
    if (validate(r)) return 1;
    printf("before the first step: held out %.4f (%.4f bits a byte)\n", r->loss, r->bits);
    return output_flush();
}

int train_run(training *t) {
    run r = { NULL, 0, 0, 0, 0, 0 };
    int status = 0;
    r.t = t;
    interrupt_catch(0);
    status = report_source(&r);
    r.start = seconds_now() - t->progress.seconds;
    r.first_tokens = t->progress.tokens;
    if (share_after(t, t->progress.steps) >= 1)
        printf("nothing is left to do: give it more --steps or --time\n");
    while (!status && !interrupted() && share_after(t, t->progress.steps) < 1) {
        double before = share_after(t, t->progress.steps), begun = seconds_now();
        status = step(t);
        t->progress.seconds = seconds_now() - r.start;
        r.step_seconds += seconds_now() - begun;
        if (status) break;
        show_progress(&r);
        if (is_due(t, before)) status = report_state(&r);
    }
    if (!status && interrupted()) return 130;
    return status;
}
