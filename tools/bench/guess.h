/* guess.h - measures what guesses are worth on a real text.
 *
 * The text plays the model: its tokens are taken as if they had been drawn, once with griffin_step
 * after every token and once with guesses, in turns. A greedy sampler looks at the logits all the
 * same. So any model can be measured, also one of random weights, on any text: the guesses are as
 * right, and cost as much, as they would if the model had written it. */

#ifndef BENCH_GUESS_H
#define BENCH_GUESS_H

#include "model.h"

typedef struct guess_test {
    const char *path;                       /* the text; what stands before a line "---" is the
                                             * prompt, which is not measured */
    const char *grammar;                    /* a file with the grammar of the text, or null */
    int most, threads, repetitions;         /* guesses in a pass */

    int    tokens;                          /* results: written, */
    double plain, guessed, gain;            /* medians of tokens/s, and of their ratio in a turn */
    double guesses, right, passes;          /* of a turn */
    double row_cost;                        /* as griffin_guess_time has it in the end */
} guess_test;

/* Returns 0, or 1 after a message. */
int guess_measure(bench_model *b, guess_test *t);

#endif
