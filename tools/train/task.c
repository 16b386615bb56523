/* task.c - synthetic tasks: can a network look things up in its context?
 *
 * Two of the Griffin paper's section 6.2, with a vocabulary of 18: noise, a signal, and sixteen
 * colours.
 *
 *     copying     noise with 16 colours strewn in, then 16 signals: name the colours in order
 *     induction   colours with one signal among them, then the signal: name what came after it
 *
 * And multi-query associative recall (Arora et al., arXiv 2312.04927), which the HGRN2 paper uses,
 * with noise, 32 keys and 32 values.
 *
 *     recall      8 keys, each followed by its value, then noise with the same keys strewn in in
 *                 another order: name the value of each
 *
 * Only the answers are scored. */

#include "train.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NOISE, SIGNAL, FIRST_COLOUR, COLOURS = 16, COPIED = 16, TRIALS = 64 };
enum { FIRST_KEY = 1, KEYS = 32, FIRST_VALUE = FIRST_KEY + KEYS, VALUES = 32, PAIRS = 8 };

static int32_t any_colour(uint64_t *state) {
    return FIRST_COLOUR + (int32_t)random_below(state, COLOURS);
}

/* Colours take the places that a fair draw without replacement gives them. */
static void fill_copying(int32_t *tokens, int32_t *targets, int length, uint64_t *state) {
    int room = length - COPIED, left = COPIED;
    for (int i = 0; i < room; i++) {
        int here = random_below(state, (uint64_t)(room - i)) < (uint64_t)left;
        tokens[i] = here ? any_colour(state) : NOISE;
        if (here) targets[length - left--] = tokens[i];
    }
    for (int i = room; i < length; i++) tokens[i] = SIGNAL;
}

static void fill_induction(int32_t *tokens, int32_t *targets, int length, uint64_t *state) {
    int signal = (int)random_below(state, (uint64_t)length - 2);
    for (int i = 0; i < length; i++) tokens[i] = any_colour(state);
    tokens[signal] = tokens[length - 1] = SIGNAL;
    targets[length - 1] = tokens[signal + 1];
}

/* PAIRS different keys. */
static void draw_keys(int32_t *keys, uint64_t *state) {
    for (int i = 0; i < KEYS; i++) keys[i] = i;
    for (int i = 0; i < PAIRS; i++) {
        int other = i + (int)random_below(state, (uint64_t)(KEYS - i));
        int32_t key = keys[other];
        keys[other] = keys[i];
        keys[i] = key;
    }
}

/* In the mean, questions lie as far apart as there is room. */
static void fill_recall(int32_t *tokens, int32_t *targets, int length, uint64_t *state) {
    int32_t keys[KEYS], values[PAIRS];
    int left = PAIRS;
    draw_keys(keys, state);
    for (int i = 0; i < PAIRS; i++) {
        values[i] = FIRST_VALUE + (int32_t)random_below(state, VALUES);
        tokens[2 * i] = FIRST_KEY + keys[i];
        tokens[2 * i + 1] = values[i];
    }
    for (int i = 2 * PAIRS; i < length; i++) {
        int which = (int)random_below(state, (uint64_t)(length - i));
        tokens[i] = NOISE;
        if (which >= left) continue;
        tokens[i] = FIRST_KEY + keys[which];
        targets[i] = values[which];
        keys[which] = keys[--left];
        values[which] = values[left];
    }
}

static const struct {
    void (*fill)(int32_t *tokens, int32_t *targets, int length, uint64_t *state);
    int vocabulary;
} tasks[] = {
    { NULL, 0 },
    { fill_copying, FIRST_COLOUR + COLOURS },
    { fill_induction, FIRST_COLOUR + COLOURS },
    { fill_recall, FIRST_VALUE + VALUES }
};

int task_vocabulary(train_task task) { return tasks[task].vocabulary; }

void task_batch(train_task task, uint64_t seed, int64_t number, batch *b) {
    memset(b->fresh, 0, (size_t)b->sequences * (size_t)b->length);
    for (int i = 0; i < b->sequences; i++) {
        size_t at = (size_t)i * (size_t)b->length;
        uint64_t state = seed * 0x9E3779B97F4A7C15u + (uint64_t)(number * b->sequences + i);
        state = random_next(&state);
        for (int k = 0; k < b->length; k++) b->targets[at + (size_t)k] = -1;
        tasks[task].fill(b->tokens + at, b->targets + at, b->length, &state);
        b->fresh[at] = 1;
    }
}

/* ---- how well it does, according to the library ---------------------------------------------- */

static int best_of(const float *logits, int count) {
    int best = 0;
    for (int v = 1; v < count; v++) if (logits[v] > logits[best]) best = v;
    return best;
}

/* One sequence through a fresh state. Returns how many answers are right, or a negative error. */
static int right_answers(session *s, const batch *b, float *logits) {
    griffin_span span = { NULL, NULL, 0, 1, NULL };
    int right = 0, words = s->info->config.vocab, error;
    memset(s->state, 0, griffin_state_size(s->model));
    span.state = s->state;
    span.tokens = b->tokens;
    span.count = b->length;
    span.logits = logits;
    if ((error = griffin_run(s->context, &span, 1)) < 0) return error;
    for (int i = 0; i < b->length; i++, logits += words)
        right += b->targets[i] >= 0 && best_of(logits, words) == b->targets[i];
    return right;
}

/* Trials that were not trained on, the same every time. */
static int measure(session *s, train_task task, int length, double *share) {
    batch b = { 0, 0, NULL, NULL, NULL };
    size_t count = (size_t)length * (size_t)task_vocabulary(task);
    float *logits = (float *)malloc(count * sizeof *logits);
    int64_t right = 0, asked = 0;
    int status = batch_new(&b, 1, length) || (!logits && complain("out of memory"));
    for (int i = 0; !status && i < TRIALS; i++) {
        int n;
        task_batch(task, UINT64_MAX, i, &b);
        if ((n = right_answers(s, &b, logits)) < 0) status = session_error(s, n);
        right += n;
        asked += batch_scored(&b);
    }
    *share = (double)right / (double)(asked ? asked : 1);
    free(logits);
    batch_free(&b);
    return status;
}

int task_report(training *t) {
    session s;
    char *image;
    int status = 0;
    if (train_open(t, &s, &image)) return 1;
    for (int times = 1; !status && times <= 16; times *= 2) {
        double share;
        status = measure(&s, (train_task)t->o.task, times * t->o.length, &share);
        if (!status) printf("%s%5.1f %% right at %d", times > 1 ? ", " : "  ", 100 * share,
                            times * t->o.length);
    }
    printf("\n");
    train_close(&s, image);
    return status ? status : output_flush();
}
