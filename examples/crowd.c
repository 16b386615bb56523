/* crowd.c - thirty-two characters think at once, and each weight is read once for all of them.
 *
 *     cc -O2 -fopenmp examples/crowd.c -lm -o crowd && ./crowd examples/models/storyteller.gguf
 *     ./crowd examples/models/storyteller.gguf examples/personas/wolf.persona ...
 *
 * What all of them know is read once, in each persona that is named; memcpy makes a crowd of these
 * minds. They hear their own names and answer, all in one griffin_run a word. Then each of them
 * does so again alone: same bits. */

#define GRIFFIN_IMPLEMENTATION
#include "../griffin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CROWD = 32, WORDS = 20, MOST = 48 };

static const char *const names[CROWD] = {
    "king", "queen", "prince", "princess", "giant", "dwarf", "witch", "fairy",
    "fox", "wolf", "bear", "lion", "raven", "cat", "horse", "goose",
    "miller", "tailor", "smith", "soldier", "shepherd", "fisherman", "hunter", "cook",
    "father", "mother", "son", "daughter", "old man", "old woman", "stranger", "robber"
};
static const char knowledge[] =
    "The king's daughter was to be married, and all the world came to the feast. "
    "One after another they stood up and spoke.\n\n";

typedef struct mind {
    griffin_state  *state;
    griffin_sampler sampler;
    griffin_decoder decoder;
    int32_t tokens[MOST];                   /* what it hears next */
    int     count;
    float  *logits;
    char    said[1024];
} mind;

static griffin_model *model;

static int check(int result, const char *what) {
    if (result >= 0) return result;
    fprintf(stderr, "%s: %s\n", what, griffin_error_string(result));
    exit(1);
}

static void *allocate(size_t size) {
    void *memory = calloc(1, size);
    if (!memory) check(GRIFFIN_E_MEMORY, "crowd");
    return memory;
}

static griffin_context *new_context(int states, void **memory) {
    griffin_context_options options = { .states = states };
    griffin_context *context;
    size_t size = griffin_context_size(model, &options);
    *memory = allocate(size);
    check(griffin_context_init(&context, model, &options, *memory, size), "context");
    return context;
}

/* A state that has read what all know; it begins in the persona of a file, or fresh. */
static griffin_state *new_common(griffin_context *context, const char *persona) {
    griffin_state *state = allocate(griffin_state_size(model));
    int32_t tokens[MOST];
    int count = griffin_encode(model, NULL, knowledge, strlen(knowledge), tokens, MOST);
    if (check(count, knowledge) > MOST) check(GRIFFIN_E_SPACE, knowledge);
    FILE *file = persona ? fopen(persona, "rb") : NULL;
    if (persona) {
        static char saved[1 << 20];
        size_t size = file ? fread(saved, 1, sizeof saved, file) : 0;
        check(griffin_load(model, state, NULL, NULL, saved, size), persona);
    }
    if (file) fclose(file);
    check(griffin_prefill(context, state, tokens, count, NULL), "prefill");
    return state;
}

/* Minds that know what the commons know, and are about to hear who they are. */
static mind *new_crowd(griffin_state *const *commons, int count) {
    const griffin_encoding onward = { .continues = 1 };
    mind *crowd = allocate(CROWD * sizeof *crowd);
    char text[64];
    for (int i = 0; i < CROWD; i++) {
        mind *m = &crowd[i];
        m->state = allocate(griffin_state_size(model));
        memcpy(m->state, commons[i % count], griffin_state_size(model));
        m->logits = allocate((size_t)griffin_get_info(model)->config.vocab * sizeof(float));
        m->sampler = (griffin_sampler){ .seed = (uint64_t)i, .temperature = 0.7f, .top_p = 0.9f };
        snprintf(text, sizeof text, "\"I,\" said the %s, \"", names[i]);
        m->count = griffin_encode(model, &onward, text, strlen(text), m->tokens, MOST);
        if (check(m->count, text) > MOST) check(GRIFFIN_E_SPACE, text);
        m->decoder.started = 1;
    }
    return crowd;
}

static void free_crowd(mind *crowd) {
    for (int i = 0; i < CROWD; i++) { free(crowd[i].state); free(crowd[i].logits); }
    free(crowd);
}

static void speak(mind *m) {
    size_t length = strlen(m->said);
    m->tokens[0] = check(griffin_sample(model, &m->sampler, m->logits), "sample");
    m->count = 1;
    check(griffin_decode(model, &m->decoder, m->tokens[0], m->said + length,
                         sizeof m->said - length), "text");
}

/* Some of the crowd hear and speak, word by word, sharing every pass over the weights. */
static void talk(griffin_context *context, mind *minds, int count) {
    griffin_span spans[CROWD];
    for (int word = 0; word < WORDS; word++) {
        for (int i = 0; i < count; i++) {
            const mind *m = &minds[i];
            spans[i] = (griffin_span){ m->state, m->tokens, m->count, 0, m->logits };
        }
        check(griffin_run(context, spans, count), "run");
        for (int i = 0; i < count; i++) speak(&minds[i]);
    }
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

int main(int argc, char **argv) {
    const char *path = argc > 1 ? argv[1] : "examples/models/storyteller.gguf";
    int count = argc > 2 ? argc - 2 : 1, same = 1;
    griffin_state **commons = allocate((size_t)count * sizeof *commons);
    void *memory[2];

    check(griffin_open_file(&model, path, NULL), path);
    griffin_context *many = new_context(CROWD, &memory[0]), *one = new_context(1, &memory[1]);
    for (int i = 0; i < count; i++) commons[i] = new_common(one, argc > 2 ? argv[2 + i] : NULL);
    mind *together = new_crowd(commons, count), *alone = new_crowd(commons, count);

    double start = seconds();
    talk(many, together, CROWD);
    double middle = seconds();
    for (int i = 0; i < CROWD; i++) talk(one, &alone[i], 1);
    double end = seconds();

    for (int i = 0; i < CROWD; i++) {
        const mind *a = &together[i], *b = &alone[i];
        printf("\"I,\" said the %s, \"%.*s\n", names[i], (int)strcspn(a->said, "\n"), a->said);
        same = same && strcmp(a->said, b->said) == 0
            && memcmp(a->state, b->state, griffin_state_size(model)) == 0;
    }
    printf("\n%s\n", same ? "Alone they say the same, and their states are the same bits."
                          : "Alone they are DIFFERENT.");
    fprintf(stderr, "%d tokens: %.0f ms together, %.0f ms one at a time\n", CROWD * WORDS,
            (middle - start) * 1e3, (end - middle) * 1e3);
    for (int i = 0; i < count; i++) free(commons[i]);
    free_crowd(together); free_crowd(alone); free(commons); free(memory[0]); free(memory[1]);
    griffin_close(model);
    return !same;
}
