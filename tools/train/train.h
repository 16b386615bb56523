/* train.h - what the parts of griffin train share: train.c sets it up from the command line,
 * loop.c runs it, file.c saves and loads it, source.c takes over another model, round.c rounds its
 * weights, and task.c has the synthetic tasks.
 *
 * Functions that can fail print a line, "griffin: ...", and return 1. */

#ifndef TRAIN_H
#define TRAIN_H

#include "../convert/parts.h"
#include "../convert/quantise.h"
#include "../shared/buffer.h"
#include "../shared/session.h"
#include "data.h"
#include "net.h"

typedef enum train_task { TASK_NONE, TASK_COPYING, TASK_INDUCTION, TASK_RECALL } train_task;

typedef struct train_options {
    const char *corpus, *output, *save_hf, *valid, *from, *checkpoint, *plot, *prompt, *type, *name;
    const char *blocks, *time, *quantise;
    int   preset, kind, task, split;        /* kind -1: a Griffin, or what --from has */
    int   width, layers, heads, kv_heads, mlp, lru, window, vocab;
    int   length, batch;                    /* these and the sizes above, 0: as the preset has it */
    int   features, mixer_only;             /* of --from: FEATURES */
    int   steps, reports, sample, valid_limit, seed, threads, resume, keep_last, afresh;
    float rate;                             /* 0: by the width */
    float end_rate, warmup, hold_out, run_on, noise;    /* shares: of the rate, the run, the text,
                                                           its documents, and its tokens */
    float dropout;                          /* share of what mixers and MLPs take */
    float beta1, beta2, eps, decay, clip, momentum;
} train_options;

/* A curve with a point whenever there are some percent more steps: straight to a plot. */
enum { CURVE = 512 };
typedef struct train_curve {
    int64_t count;
    double  step[CURVE], loss[CURVE];
} train_curve;

/* All that a checkpoint remembers beside weights and moments; 8 bytes each, so that there are no
 * gaps. */
typedef struct train_progress {
    int64_t steps, updates, tokens;         /* updates: of AdamW */
    double  seconds;
    double  best;                           /* lowest validation loss; 0: none yet */
    double  nats, scored;                   /* since the last report */
    double  point_nats, point_scored;       /* since the last point of the curve */
    train_curve learned, validated;
} train_progress;

typedef struct training {
    train_options  o;
    model_config   config;
    vocabulary     vocabulary;              /* none for tasks */
    net           *net;
    net_weight    *weights;
    int            weight_count;
    corpus         text, held_out;
    batch          batch, slice;            /* to learn from, and of what is held out */
    float         *state, *next;            /* [batch.sequences][net_state_size] */
    float         *exact;                   /* weights while they are rounded */
    double         budget;                  /* seconds; 0: none */
    train_progress progress;
} training;

/* ---- loop.c ---------------------------------------------------------------------------- */

/* Trains until the steps or the time are used up, or until Ctrl-C: then it returns 130. */
int train_run(training *t);

/* Of griffin persona, too: a point of a curve, both curves as a picture, and times. */
void   train_add_point(train_curve *c, int64_t step, double loss);
int    train_draw(const char *path, const train_curve *learned, const train_curve *validated);
void   train_print_duration(byte_buffer *out, double seconds);
/* Whether a file can be written there. Returns -1, or 1 after a message. */
int    train_check_output(const char *path);
double train_duration(const char *text);    /* "90m", "2h", "45s" or "45" in seconds, or -1 */

/* ---- file.c ---------------------------------------------------------------------------- */

/* Opens the model as it is now, from a file of type f32 in memory. */
int  train_open(training *t, session *s, char **image);
void train_close(session *s, char *image);

/* Writes the files of --output and --save-hf. */
int train_save(training *t);

/* A checkpoint replaces the old one only when it is whole. What is read must come from a run with
 * the same network, text, batches and seed. */
int train_checkpoint(const training *t);
int train_resume(training *t);

/* ---- source.c -------------------------------------------------------------------------- */

/* Takes shape, vocabulary and weights of --from; the net is made in between. Prints what of the
 * network is copied and what is new, if anything is. */
int train_read_source(training *t, model_parts *source);
int train_copy_weights(training *t, const model_parts *source);

/* Copies a weight by name and shape. 1; 0: the source has none; -1: a message was printed. */
int source_copy(const model_parts *source, net_weight *to);

/* All of them, from a source that has these and nothing else; path: for messages. */
int source_copy_all(const model_parts *source, net_weight *list, int count, const char *path);

/* ---- round.c --------------------------------------------------------------------------- */

/* Rounds the matrices as a file of --quantise would have them, and puts the exact ones back. */
int  train_can_round_to(const quant_type *type);
int  train_round(training *t);              /* 0, or 1 after a message */
void train_unround(training *t);

/* ---- task.c ---------------------------------------------------------------------------- */

int task_vocabulary(train_task task);

/* Sequences number * sequences and on of a task. */
void task_batch(train_task task, uint64_t seed, int64_t number, batch *b);

/* Prints how many answers are right, for texts of the training length and longer ones. */
int task_report(training *t);

#endif
