/* run.h - measures a workload in stretches, with a probe of the machine before and after each.
 *
 * A step must read every weight once, and the state of every sequence, and write the part of it
 * that is no ring of keys and values. A prefill must make two operations for each parameter and
 * token (of linear layers; attention is not counted). So the seconds of a stretch are not less than
 *
 *     limit = max(bytes / rate of reading, operations / rate of operations)
 *
 * Both rates change within seconds for reasons outside the process. So probes and stretches take
 * turns, and the result is the median of speed / limit, with the mean of the two probes around a
 * stretch as its limit. A stretch in which a thread waited for a CPU is dropped, and counted. */

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
    double share;                           /* probe_result.share of the probes */
    double read, peak, limit;               /* rates of the probes; tokens/s that they allow */
    int    by_memory;                       /* reading sets the limit, not arithmetic */
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
    double           saved_bytes;           /* what a step reads of all states, and writes: the
                                             * recurrent part is replaced by every step */
    size_t           memory;                /* of all this */
    sample          *samples;               /* of all repetitions, each so many stretches */
    int              count, stretches;
    int              stretch;               /* tokens of each sequence in a stretch */
} runner;

/* All return 0, or 1 after a message. Close a runner in any case. */
int  runner_open(runner *r, bench_model *b, const workload *w);
int  runner_repeat(runner *r);              /* measures once more */
void runner_close(runner *r);

/* The bytes that runner_open needs for `batch` sequences, without the model. */
size_t runner_memory(const bench_model *b, int rows, int batch);

/* What the samples say. */
double rate_of (const sample *s);           /* tokens/s */
double ratio_of(const sample *s);           /* of the limit */
double read_of (const sample *s);
double peak_of (const sample *s);
double limit_of(const sample *s);

/* Sorts the values and returns the one at this part, 0 to 1, of them. NaN if there are none. */
double quantile(double *values, int count, double part);

/* The median over the stretches that were not dropped. If all were dropped it is the median over
 * all, or NaN if `strict`. */
double runner_median(const runner *r, double (*of)(const sample *), int strict);
int    runner_kept(const runner *r);

/* Mean and standard deviation of tokens/s over the repetitions, without dropped stretches. */
void runner_rate(const runner *r, double *mean, double *deviation);

#endif
