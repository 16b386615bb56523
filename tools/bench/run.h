/* run.h - measures a workload, each stretch of it between two looks at what the machine can
 * do at that moment.
 *
 * A step has to read every weight once, and what every sequence remembers; a prefill has to make
 * two operations for each parameter and token (of linear layers; attention is not counted). So a
 * stretch of tokens takes no less than
 *
 *     limit = max(bytes / rate of reading, operations / rate of operations)
 *
 * Both rates change within seconds for reasons outside the process. Hence: probe, run, probe, run,
 * ..., and the result is the median of run / mean of the two probes around it. A stretch in which
 * a thread had to wait for a CPU is dropped, and counted. */

#ifndef BENCH_RUN_H
#define BENCH_RUN_H

#include "model.h"

typedef struct workload {
    int     is_prompt;                      /* one pass over `tokens`; else so many steps */
    int     tokens, threads, batch, chunk;  /* chunk: tokens of a prompt in one pass */
    int64_t depth;                          /* tokens that every state has seen before */
} workload;

typedef struct sample {                     /* a stretch between two probes */
    double tokens, seconds;
    double cpu;                             /* CPU seconds of all threads for each second */
    double share;                           /* as the probes found it */
    double read, peak, limit;               /* rates of the probes; tokens/s that they allow */
    int    by_memory;                       /* it is reading that sets the limit */
    int    dropped;
} sample;

typedef struct runner {
    bench_model     *b;
    workload         w;
    griffin_context *context;
    void            *context_memory, *states;
    griffin_state   *start;                 /* of every repetition; null: a fresh one */
    griffin_span    *spans;
    int32_t         *tokens;
    float           *logits;
    double           saved_bytes;           /* of all states: what a step reads of them */
    size_t           memory;                /* of all this */
    sample          *samples;               /* of all repetitions, each so many stretches */
    int              count, stretches;
    int              stretch;               /* tokens of each sequence in a stretch */
} runner;

/* All return 0, or 1 after a message. Close a runner in any case. */
int  runner_open(runner *r, bench_model *b, const workload *w);
int  runner_repeat(runner *r);              /* measures once more */
void runner_reset(runner *r);               /* all sequences back to where they begin */
void runner_close(runner *r);

/* What runner_open needs for so many sequences, beside the model. */
size_t runner_memory(const bench_model *b, int rows, int batch);

/* What the samples say. */
double rate_of (const sample *s);           /* tokens/s */
double ratio_of(const sample *s);           /* of the limit */
double read_of (const sample *s);
double peak_of (const sample *s);
double limit_of(const sample *s);

/* The value at this part, 0 to 1, of the sorted values; sorts them. NaN if there is none. */
double quantile(double *values, int count, double part);

/* Medians are over the stretches that were not dropped; if all were, over all, or not a number if
 * `strict`. */
double runner_median(const runner *r, double (*of)(const sample *), int strict);
int    runner_kept(const runner *r);

/* Mean and deviation of tokens/s over repetitions, of the same stretches. */
void runner_rate(const runner *r, double *mean, double *deviation);

#endif
