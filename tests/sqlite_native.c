/* sqlite_native.c - what the functions of examples/sqlite must give, found in the plainest way, a
 * token at a time and without saving in between, for tests/sqlite.sh to compare with.
 *
 *     sqlite_native MODEL PERSONA
 *
 * prints SQL that fills a table native(name, text, state, number). */

#define GRIFFIN_IMPLEMENTATION
#include "../griffin.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SPACE = 1 << 14, MOST = 256 };

static griffin_model   *model;
static griffin_context *context;
static griffin_state   *state;
static griffin_sampler  sampler;
static griffin_decoder  decoder;
static float           *logits;
static int              begun;
static int32_t          last;               /* token, which is not read yet; -1: none */
static char             said[SPACE];

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

static void read_last(void) {
    if (last >= 0) check(griffin_step(context, state, last, logits), "step");
    last = -1;
}

static int encode(const char *words, int32_t *tokens) {
    griffin_encoding encoding = { .continues = begun };
    int count = griffin_encode(model, &encoding, words, strlen(words), tokens, MOST);
    check(count, words);
    return count;
}

static void hear(const char *words) {
    int32_t tokens[MOST];
    for (int i = 0, n = encode(words, tokens); i < n; i++) {
        read_last();
        last = tokens[i];
    }
    memset(&decoder, 0, sizeof decoder);
    decoder.started = 1;
    begun = 1;
}

static void speak(int count) {
    said[0] = 0;
    for (int i = 0; i < count; i++) {
        size_t length = strlen(said);
        read_last();
        last = griffin_sample(model, &sampler, logits);
        check(last, "sample");
        if (last == griffin_get_info(model)->eos) return;
        check(griffin_decode(model, &decoder, last, said + length, SPACE - length), "text");
    }
}

static void forget(void) {
    memset(state, 0, griffin_state_size(model));
    begun = 0;
    last = -1;
}

static void begin_as(const char *persona) {
    FILE *file = fopen(persona, "rb");
    void *data = allocate(1 << 24);
    if (!file) check(GRIFFIN_E_FILE, persona);
    size_t size = fread(data, 1, 1 << 24, file);
    fclose(file);
    forget();
    check(griffin_load(model, state, NULL, NULL, data, size), persona);
    free(data);
}

static void with(uint64_t seed, float temperature) {
    memset(&sampler, 0, sizeof sampler);
    sampler.seed = seed;
    sampler.temperature = temperature;
    sampler.top_p = 0.9f;
}

static void print_hex(const void *data, size_t size) {
    printf("x'");
    for (size_t i = 0; i < size; i++) printf("%02x", ((const unsigned char *)data)[i]);
    printf("'");
}

static void print_told(const char *name, int32_t token) {
    griffin_sampler s = sampler;
    memset(s.recent, 0, sizeof s.recent);
    s.recent[0] = token;
    s.accepted = 1;
    int64_t size = griffin_save(model, state, &s, &decoder, NULL, 0);
    void *data = allocate((size_t)size);
    check(griffin_save(model, state, &s, &decoder, data, (size_t)size), "save");
    printf("INSERT INTO native VALUES('%s', CAST(", name);
    print_hex(said, strlen(said));
    printf(" AS TEXT), ");
    print_hex(data, (size_t)size);
    printf(", NULL);\n");
    free(data);
}

static double sum_of_exp(void) {
    double sum = 0;
    for (int i = 0; i < griffin_get_info(model)->config.vocab; i++) sum += exp(logits[i]);
    return sum;
}

/* The text has no token that writes more or less than its bytes of it. */
static void print_score(const char *name, const char *words) {
    double bits = 0;
    int32_t tokens[MOST];
    for (int i = 0, n = encode(words, tokens); i < n; i++) {
        if (last >= 0) {
            read_last();
            bits -= log2(exp(logits[tokens[i]]) / sum_of_exp());
        }
        last = tokens[i];
    }
    printf("INSERT INTO native VALUES('%s', NULL, NULL, %.17g);\n", name,
           bits / (double)strlen(words));
}

/* The likeliest tokens, one after the other. */
static void print_next(int count) {
    read_last();
    double sum = sum_of_exp();
    for (int i = 0; i < count; i++) {
        int32_t best = 0;
        for (int32_t t = 1; t < griffin_get_info(model)->config.vocab; t++)
            if (logits[t] > logits[best]) best = t;
        printf("INSERT INTO native VALUES('next', %d, NULL, %.17g);\n", (int)best,
               exp(logits[best]) / sum);
        logits[best] = -INFINITY;
    }
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    check(griffin_open_file(&model, argv[1], NULL), argv[1]);
    size_t size = griffin_context_size(model, NULL);
    void *memory = allocate(size);
    check(griffin_context_init(&context, model, NULL, memory, size), "context");
    state  = allocate(griffin_state_size(model));
    logits = allocate((size_t)griffin_get_info(model)->config.vocab * sizeof *logits);

    printf("CREATE TABLE native(name TEXT, text TEXT, state BLOB, number REAL);\n");
    forget();
    with(7, 0.7f);
    hear("Once upon a time");
    speak(20);
    print_told("first", last);
    with(8, 0.7f);
    hear(" Then the wolf said, \"");
    speak(12);
    print_told("second", last);
    print_told("token -5", -5);             /* well formed, but nobody would save this */
    print_told("token 1e9", 1000000000);
    decoder.count = 200;
    print_told("decoder", last);
    begin_as(argv[2]);
    with(0, 0);
    hear("The pirate said, \"");
    speak(15);
    print_told("persona", last);

    forget();
    print_score("score", "The old king had three sons, and they lived in a castle.");
    begin_as(argv[2]);
    print_score("score as", "The captain came on deck with the treasure.");
    forget();
    hear("There was once a little");
    print_next(5);

    free(memory); free(state); free(logits);
    griffin_close(model);
    return 0;
}
