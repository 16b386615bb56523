/* rollback.c - a tale that takes back words, as games take back frames when the network was late.
 *
 *     cc -O2 examples/rollback.c -lm -o rollback && ./rollback examples/models/storyteller.gguf
 *
 * The narrator does not wait for the child, whose words arrive LATE ticks after they were said:
 * then the tale returns to the mark of that tick, what was told since [is taken back], and all goes
 * on from there. Marks are small, so one is made at every tick. Bits are compared each time: a tick
 * told again gives the logits it gave before. And a witness who heard only what counts in the end
 * has the same logits. */

#define GRIFFIN_IMPLEMENTATION
#include "../griffin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TICKS = 90, LATE = 6, MOMENTS = LATE + 1, MOST = 1024 };

static const struct { int tick; const char *words; } child[] = {
    { 12, " -- \"A dragon!\" cried the child. -- A dragon" },
    { 37, " -- \"Was he hungry?\" asked the child. -- He was" },
    { 66, " -- \"And how does it end?\" asked the child. -- At last" }
};
enum { WORDS = sizeof child / sizeof *child };

typedef struct moment {                     /* what a tick started from */
    void           *mark;
    float          *logits;
    griffin_decoder decoder;
    int             count, length;
} moment;

static griffin_model   *model;
static griffin_context *context;
static griffin_state   *state;
static float           *logits;
static griffin_sampler  sampler = { .seed = 5, .temperature = 0.7f, .top_p = 0.9f };
static griffin_decoder  decoder = { .started = 1 };
static moment           moments[MOMENTS];   /* of tick t in t % MOMENTS */
static int32_t          tokens[MOST];       /* of the tale, as it stands now */
static char             tale[8 * MOST];
static int              count, length, shown, failures;

static int check(int result, const char *what) {
    if (result >= 0) return result;
    fprintf(stderr, "%s: %s\n", what, griffin_error_string(result));
    exit(1);
}

static void *allocate(size_t size) {
    void *memory = calloc(1, size);
    if (!memory) check(GRIFFIN_E_MEMORY, "rollback");
    return memory;
}

static size_t logits_size(void) {
    return (size_t)griffin_get_info(model)->config.vocab * sizeof(float);
}

static void start(const char *path) {
    check(griffin_open_file(&model, path, NULL), path);
    size_t size = griffin_context_size(model, NULL);
    check(griffin_context_init(&context, model, NULL, allocate(size), size), path);
    state  = allocate(griffin_state_size(model));
    logits = allocate(logits_size());
    for (int i = 0; i < MOMENTS; i++) {
        moments[i].mark   = allocate(griffin_mark_size(model));
        moments[i].logits = allocate(logits_size());
    }
}

static void hear(const char *words) {
    griffin_encoding encoding = { .continues = count > 0 };
    int n = griffin_encode(model, &encoding, words, strlen(words), tokens + count, MOST - count);
    if (check(n, words) > MOST - count) check(GRIFFIN_E_SPACE, words);
    check(griffin_prefill(context, state, tokens + count, n, logits), words);
    count  += n;
    length += sprintf(tale + length, "%s", words);
}

static void tell(void) {
    int32_t token = check(griffin_sample(model, &sampler, logits), "sample");
    tokens[count++] = token;
    length += check(griffin_decode(model, &decoder, token, tale + length,
                                   sizeof tale - (size_t)length), "decode");
    check(griffin_step(context, state, token, logits), "step");
}

static void remember(moment *m) {
    check(griffin_mark(model, state, m->mark), "mark");
    memcpy(m->logits, logits, logits_size());
    m->decoder = decoder;
    m->count   = count;
    m->length  = length;
}

/* Prints what cannot be taken back any more. */
static void show(int end) {
    if (end > shown) shown += printf("%.*s", end - shown, tale + shown);
}

/* To the start of a tick; told once more, it must lead to the logits of the tick after it. */
static void go_back(int tick) {
    const moment *m = &moments[tick % MOMENTS], *next = &moments[(tick + 1) % MOMENTS];
    show(m->length);
    printf(" [%.*s ]", length - m->length, tale + m->length);
    check(griffin_rewind(model, state, m->mark), "rewind");
    check(griffin_step(context, state, tokens[m->count], logits), "step");
    failures += memcmp(logits, next->logits, logits_size()) != 0;
    check(griffin_rewind(model, state, m->mark), "rewind");
    memcpy(logits, m->logits, logits_size());
    decoder = m->decoder;
    count   = m->count;
    length  = m->length;
}

int main(int argc, char **argv) {
    start(argc > 1 ? argv[1] : "examples/models/storyteller.gguf");
    hear("Once upon a time there was");
    for (int tick = 0, next = 0; tick < TICKS; tick++) {
        remember(&moments[tick % MOMENTS]);
        if (tick >= LATE) show(moments[(tick - LATE) % MOMENTS].length);
        if (next < WORDS && tick == child[next].tick + LATE) {
            go_back(child[next].tick);
            hear(child[next++].words);
            remember(&moments[tick % MOMENTS]);
        }
        tell();
    }
    show(length);

    griffin_state *witness = allocate(griffin_state_size(model));
    float *heard = allocate(logits_size());
    check(griffin_prefill(context, witness, tokens, count, heard), "witness");
    failures += memcmp(heard, logits, logits_size()) != 0;
    printf("\n\nTaken back %d times, by marks of %d KiB where a state has %d: %s\n", WORDS,
           (int)(griffin_mark_size(model) / 1024), (int)(griffin_state_size(model) / 1024),
           failures ? "DIFFERENT bits." : "the same bits as if nothing had been.");
    return failures != 0;
}
