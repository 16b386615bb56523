/* guest.h - what a copy of the library makes of a model, for files that each have another copy. */

#ifndef GUEST_H
#define GUEST_H

#include "griffin.h"

#include <stdlib.h>
#include <string.h>

#define GUEST_TOKENS 24

typedef struct guest_answer {
    float         logits[19];               /* after the last token */
    int32_t       tokens[GUEST_TOKENS];
    char          text[256];
    unsigned char save[8192];
    int64_t       save_size;
} guest_answer;

/* The text goes through everything that a host calls. Returns the first error. */
static inline int guest_answers(const void *file, size_t size, guest_answer *a) {
    griffin_model *model;
    griffin_context *context;
    griffin_sampler sampler;
    griffin_decoder decoder;
    int n = 0, error = griffin_open_memory(&model, file, size, NULL);
    if (error) return error;
    memset(a, 0, sizeof *a);
    memset(&sampler, 0, sizeof sampler);
    memset(&decoder, 0, sizeof decoder);
    sampler.temperature = 2;
    size = griffin_context_size(model, NULL);
    void *memory = malloc(size);
    griffin_state *state = (griffin_state *)calloc(1, griffin_state_size(model));
    error = griffin_context_init(&context, model, NULL, memory, size);
    if (!error) error = griffin_step(context, state, 2, a->logits);
    for (int i = 0; i < GUEST_TOKENS && !error; i++) {
        a->tokens[i] = griffin_sample(model, &sampler, a->logits);
        error = griffin_step(context, state, a->tokens[i], a->logits);
        if (!error && a->tokens[i] < 9)
            n += griffin_decode(model, &decoder, a->tokens[i], a->text + n,
                                sizeof a->text - (size_t)n);
    }
    if (!error)
        a->save_size = griffin_save(model, state, &sampler, &decoder, a->save, sizeof a->save);
    free(memory);
    free(state);
    griffin_close(model);
    return error;
}

#endif
