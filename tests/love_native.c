/* love_native.c - what the three of examples/love say, told in the plainest way, for tests/love.sh
 * to compare with: each mind reads by itself, a token at a time, in full steps.
 *
 *     love_native MODEL SEED TOKENS PERSONA PERSONA PERSONA
 *
 * prints the lines that examples/love/script.lua prints. */

#define GRIFFIN_IMPLEMENTATION
#include "../griffin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MINDS = 3, LONGEST = 48, HEARD = 40, SPACE = 1 << 12 };

static const char *const names[MINDS] = { "pirate", "wolf", "girl" };

static griffin_model   *model;
static griffin_context *context;
static griffin_state   *states[MINDS];
static griffin_sampler  samplers[MINDS];
static float           *logits, *others;
static long read_tokens;

static void *allocate(size_t size) {
    void *memory = calloc(1, size);
    if (!memory) exit(1);
    return memory;
}

static void check(int64_t result, const char *what) {
    if (result >= 0) return;
    fprintf(stderr, "%s: %s\n", what, griffin_error_string((int)result));
    exit(1);
}

static void load(int i, const char *path) {
    FILE *file = fopen(path, "rb");
    void *data = allocate(1 << 24);
    if (!file) check(GRIFFIN_E_FILE, path);
    size_t size = fread(data, 1, 1 << 24, file);
    fclose(file);
    states[i] = (griffin_state *)allocate(griffin_state_size(model));
    check(griffin_load(model, states[i], NULL, NULL, data, size), path);
    free(data);
}

static void hear(const int32_t *tokens, int count, int speaker) {
    for (int i = 0; i < MINDS; i++)
        for (int t = 0; t < count; t++)
            check(griffin_step(context, states[i], tokens[t], i == speaker ? logits : others),
                  "step");
    read_tokens += count;
}

static void print_moment(int speaker, const char *said) {
    uint32_t hash = 0x811c9dc5u;
    for (int i = 0; i < griffin_get_info(model)->config.vocab; i++) {
        uint32_t word;
        memcpy(&word, logits + i, sizeof word);
        hash = (hash ^ word) * 0x01000193u;
    }
    printf("%ld %08x %s|%s\n", read_tokens, (unsigned)hash, names[speaker], said);
}

/* One turn; `ending` is what the one before left to be said, and receives what this one leaves. */
static void speak(int turn, griffin_decoder *decoder, char *ending, long limit) {
    int speaker = turn % MINDS;
    char said[SPACE] = "", words[SPACE];
    int32_t tokens[HEARD];
    griffin_encoding encoding;
    memset(&encoding, 0, sizeof encoding);
    encoding.continues = turn > 0;
    snprintf(words, sizeof words, "%.500s%sThe %s said, \"", ending, turn ? "\"\n\n" : "",
             names[speaker]);
    int count = griffin_encode(model, &encoding, words, strlen(words), tokens, HEARD);
    check(count, words);
    hear(tokens, count, speaker);
    decoder->started = 1;
    ending[0] = 0;
    for (int n = 1; print_moment(speaker, said), read_tokens < limit; n++) {
        char piece[512], *quote;
        int32_t token = griffin_sample(model, &samplers[speaker], logits);
        check(token, "sample");
        check(griffin_decode(model, decoder, token, piece, sizeof piece), "text");
        if ((quote = strpbrk(piece, "\"\n")) != NULL) {
            *quote = 0;
            strcpy(ending, piece);
        }
        if (quote || token == griffin_get_info(model)->eos || n == LONGEST) return;
        strcat(said, piece);
        hear(&token, 1, speaker);
    }
}

int main(int argc, char **argv) {
    griffin_decoder decoder;
    char ending[SPACE] = "";
    if (argc != 4 + MINDS) return 2;
    check(griffin_open_file(&model, argv[1], NULL), argv[1]);
    size_t size = griffin_context_size(model, NULL);
    void *memory = allocate(size);
    check(griffin_context_init(&context, model, NULL, memory, size), "context");
    logits = (float *)allocate((size_t)griffin_get_info(model)->config.vocab * sizeof *logits);
    others = (float *)allocate((size_t)griffin_get_info(model)->config.vocab * sizeof *others);
    for (int i = 0; i < MINDS; i++) {
        load(i, argv[4 + i]);
        samplers[i].seed = (uint64_t)(strtol(argv[2], NULL, 10) + i + 1);
        samplers[i].temperature = 0.65f;
        samplers[i].repeat_penalty = 1.15f;
        samplers[i].top_p = 0.85f;
    }
    memset(&decoder, 0, sizeof decoder);
    for (int turn = 0; read_tokens < atol(argv[3]); turn++)
        speak(turn, &decoder, ending, atol(argv[3]));
    for (int i = 0; i < MINDS; i++) free(states[i]);
    free(memory); free(logits); free(others);
    griffin_close(model);
    return 0;
}
