/* run.c - measures a workload; see run.h. */

#include "run.h"
#include "probe.h"
#include "../shared/host.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { REAL = 64 };                         /* tokens that a deep state has really read */

/* ---- a workload and its memory --------------------------------------------------------------- */

static griffin_context_options context_options(int threads, int rows, int states) {
    griffin_context_options options;
    memset(&options, 0, sizeof options);
    options.rows = rows;
    options.states = states;
    options.jobs.width = threads;
    return options;
}

static int open_context(bench_model *b, const griffin_context_options *options, void **memory,
                        griffin_context **context) {
    size_t size = griffin_context_size(b->model, options);
    *memory = big_allocate(size);
    if (!*memory) return complain("out of memory");
    int error = griffin_context_init(context, b->model, options, *memory, size);
    return error < 0 ? bench_error(b, error) : 0;
}

static size_t state_stride(const bench_model *b) {
    return (griffin_state_size(b->model) + 63) / 64 * 64;
}

size_t runner_memory(const bench_model *b, int rows, int batch) {
    griffin_context_options options = context_options(1, rows, batch);
    return griffin_context_size(b->model, &options)
         + (size_t)batch * (state_stride(b) + 4 * (size_t)b->info->config.vocab);
}

/* Makes a state at the position `depth`, which has read at most REAL tokens. */
static int make_start(runner *r) {
    int count = r->w.depth < REAL ? (int)r->w.depth : REAL;
    griffin_context_options options = context_options(r->w.threads, REAL, 1);
    griffin_context *context;
    void *memory = NULL;
    if (count == 0) return 0;
    r->start = (griffin_state *)big_allocate(state_stride(r->b));
    if (!r->start) return complain("out of memory");
    r->memory += state_stride(r->b);
    int error = open_context(r->b, &options, &memory, &context);
    if (!error) error = griffin_prefill(context, r->start, r->tokens, count, NULL);
    big_release(memory);
    if (error) return error < 0 ? bench_error(r->b, error) : error;
    return r->w.depth > count ? bench_deepen(r->b, r->start, r->w.depth) : 0;
}

void runner_close(runner *r) {
    big_release(r->context_memory);
    big_release(r->states);
    big_release(r->start);
    big_release(r->logits);
    free(r->spans);
    free(r->tokens);
    free(r->samples);
    memset(r, 0, sizeof *r);
}

static void aim_spans(runner *r) {
    size_t stride = state_stride(r->b), vocab = (size_t)r->b->info->config.vocab;
    for (int i = 0; i < r->w.batch; i++) {
        r->spans[i].state = (griffin_state *)(void *)((unsigned char *)r->states
                                                      + (size_t)i * stride);
        r->spans[i].tokens = r->tokens;
        r->spans[i].count = 1;
        r->spans[i].logits = r->logits + (size_t)i * vocab;
    }
}

/* All sequences go back to where they begin. */
static void reset(runner *r) {
    size_t size = griffin_state_size(r->b->model);
    for (int i = 0; i < r->w.batch; i++) {
        if (r->start) memcpy(r->spans[i].state, r->start, size);
        else memset(r->spans[i].state, 0, size);
    }
}

int runner_open(runner *r, bench_model *b, const workload *w) {
    int rows = w->is_prompt ? w->chunk : w->batch, vocab = b->info->config.vocab;
    griffin_context_options options = context_options(w->threads, rows, w->batch);
    size_t batch = (size_t)w->batch;
    memset(r, 0, sizeof *r);
    r->b = b;
    r->w = *w;
    r->memory = runner_memory(b, rows, w->batch);
    r->states = big_allocate(batch * state_stride(b));
    r->logits = (float *)big_allocate(batch * (size_t)vocab * 4);
    r->spans = (griffin_span *)calloc(batch, sizeof *r->spans);
    r->tokens = (int32_t *)malloc(((size_t)w->tokens + REAL) * sizeof *r->tokens);
    if (!r->states || !r->logits || !r->spans || !r->tokens) return complain("out of memory");
    for (int i = 0; i < w->tokens + REAL; i++) r->tokens[i] = (int32_t)((int64_t)i * 7919 % vocab);
    aim_spans(r);
    if (open_context(b, &options, &r->context_memory, &r->context) || make_start(r)) return 1;
    reset(r);
    r->saved_bytes = (double)griffin_save(b->model, r->spans[0].state, NULL, NULL, NULL, 0);
    r->saved_bytes = w->batch * (r->saved_bytes + (double)griffin_mark_size(b->model));
    return 0;
}

/* ---- measuring ------------------------------------------------------------------------------- */

static int run(runner *r, int at, int count) {
    int error = 0;
    if (r->w.is_prompt)
        error = griffin_prefill(r->context, r->spans[0].state, r->tokens + at, count,
                                at + count == r->w.tokens ? r->logits : NULL);
    for (int i = at; !r->w.is_prompt && i < at + count && error >= 0; i++) {
        for (int k = 0; k < r->w.batch; k++) r->spans[k].tokens = r->tokens + (i + k) % r->w.tokens;
        error = griffin_run(r->context, r->spans, r->w.batch);
    }
    return error < 0 ? bench_error(r->b, error) : 0;
}

typedef struct demand { double bytes, operations; } demand;

/* What tokens [at, at + count) need at least. */
static demand demand_of(const runner *r, int at, int count) {
    const bench_model *b = r->b;
    int tokens = r->w.is_prompt ? count : count * r->w.batch, passes = r->w.is_prompt ? 1 : count;
    int heads = r->w.is_prompt ? at + count == r->w.tokens : tokens;   /* rows of logits */
    double no_head = heads ? 0 : b->step_bytes * b->head_parameters / b->step_parameters;
    demand d;
    d.bytes = passes * (b->step_bytes - no_head + r->saved_bytes);
    d.operations = 2 * (b->step_parameters - b->head_parameters) * tokens
                 + 2 * b->head_parameters * heads;
    return d;
}

typedef struct limits { probe_result read, peak; } limits;

static limits probe(const runner *r) {
    const bench_model *b = r->b;
    size_t bytes = (size_t)fmin(fmax(b->step_bytes, 128 << 20), 1 << 30);
    limits l;
    l.read = probe_read(b->info->kernels, b->weights, b->weights_size, bytes, r->w.threads);
    l.peak = probe_peak(b->info->kernels, b->type[0] == 'q' ? PROBE_INT8 : PROBE_F32,
                        r->w.threads);
    return l;
}

/* Measures one stretch. `before` is the probe before it and becomes the probe after it. */
static int take_sample(runner *r, int at, int count, limits *before) {
    sample *s = &r->samples[r->count++];
    double start = seconds_now(), cpu = process_seconds();
    demand d = demand_of(r, at, count);
    if (run(r, at, count)) return 1;
    s->seconds = seconds_now() - start;
    s->cpu = (process_seconds() - cpu) / s->seconds;
    limits after = probe(r);
    s->tokens = count * (r->w.is_prompt ? 1 : r->w.batch);
    s->share = fmin(fmin(before->read.share, before->peak.share),
                    fmin(after.read.share, after.peak.share));
    s->read = (before->read.rate + after.read.rate) / 2;
    s->peak = (before->peak.rate + after.peak.rate) / 2;
    s->by_memory = d.bytes / s->read > d.operations / s->peak;
    s->limit = s->tokens / fmax(d.bytes / s->read, d.operations / s->peak);
    *before = after;
    return 0;
}

/* Threads that wait for one another may sleep. So the CPU time of a stretch is compared with that
 * of the best stretch of the same run, not with its wall time. */
static void drop_disturbed(runner *r) {
    double best = 0;
    for (int i = 0; i < r->count; i++) best = fmax(best, r->samples[i].cpu);
    for (int i = 0; i < r->count; i++)
        r->samples[i].dropped = r->samples[i].share < 0.9 || r->samples[i].cpu < 0.9 * best;
}

/* Sets the length of a stretch: a chunk of a prompt, or steps for a quarter of a second. The runs
 * that find it also warm the caches. */
static int find_stretch(runner *r) {
    r->stretch = r->w.is_prompt ? (int)fmin(r->w.chunk, r->w.tokens) : 1;
    if (run(r, 0, r->stretch)) return 1;
    if (r->w.is_prompt) return 0;
    double start = seconds_now();
    if (run(r, 0, 1)) return 1;
    r->stretch = (int)fmin(r->w.tokens, 1 + 0.25 / (seconds_now() - start + 1e-6));
    return 0;
}

static int make_room(runner *r) {
    r->stretches = (r->w.tokens + r->stretch - 1) / r->stretch;
    size_t size = ((size_t)r->count + (size_t)r->stretches) * sizeof *r->samples;
    sample *samples = (sample *)realloc(r->samples, size);
    if (!samples) return complain("out of memory");
    r->samples = samples;
    return 0;
}

int runner_repeat(runner *r) {
    if ((!r->stretch && find_stretch(r)) || make_room(r)) return 1;
    reset(r);
    limits before = probe(r);
    for (int at = 0; at < r->w.tokens; at += r->stretch) {
        int count = r->w.tokens - at < r->stretch ? r->w.tokens - at : r->stretch;
        if (take_sample(r, at, count, &before)) return 1;
    }
    drop_disturbed(r);
    return 0;
}

/* ---- what the samples say -------------------------------------------------------------------- */

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

double quantile(double *values, int count, double part) {
    qsort(values, (size_t)count, sizeof *values, ascending);
    return count ? values[(int)(part * (count - 1) + 0.5)] : NAN;
}

double rate_of(const sample *s) { return s->tokens / s->seconds; }
double ratio_of(const sample *s) { return rate_of(s) / s->limit; }
double read_of(const sample *s) { return s->read; }
double peak_of(const sample *s) { return s->peak; }
double limit_of(const sample *s) { return s->limit; }

int runner_kept(const runner *r) {
    int n = 0;
    for (int i = 0; i < r->count; i++) n += !r->samples[i].dropped;
    return n;
}

double runner_median(const runner *r, double (*of)(const sample *), int strict) {
    double *values = (double *)malloc(((size_t)r->count + 1) * sizeof *values);
    int n = 0, all = !strict && runner_kept(r) == 0;
    if (!values) return NAN;
    for (int i = 0; i < r->count; i++)
        if (all || !r->samples[i].dropped) values[n++] = of(&r->samples[i]);
    double result = quantile(values, n, 0.5);
    free(values);
    return result;
}

void runner_rate(const runner *r, double *mean, double *deviation) {
    double sum = 0, squares = 0;
    int n = 0, all = runner_kept(r) == 0;
    for (int i = 0; i < r->count; i += r->stretches) {
        double tokens = 0, seconds = 0;
        for (int k = i; k < i + r->stretches; k++)
            if (all || !r->samples[k].dropped) {
                tokens += r->samples[k].tokens;
                seconds += r->samples[k].seconds;
            }
        if (seconds <= 0) continue;
        sum += tokens / seconds;
        squares += tokens / seconds * (tokens / seconds);
        n++;
    }
    *mean = sum / n;
    *deviation = n > 1 ? sqrt(fmax(0, (squares - sum * sum / n) / (n - 1))) : 0;
}
