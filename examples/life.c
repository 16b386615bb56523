/* life.c - a character that is kept for years: a million tokens in one state of fixed size.
 *
 *     cc -O2 examples/life.c -lm -o life
 *     ./life [MODEL] [--log LOG] [--tokens N] [--persona FILE]
 *     ./life [MODEL] [--log LOG] --replay
 *
 * It begins as a persona. By day it hears what happens and answers; it takes back an answer, to
 * give another; it dreams, in a fork that is thrown away. At night it is saved to LOG.save, in
 * pieces, and the state is set to zero; in the morning it is loaded. LOG keeps the calls, not the
 * words that were said, and of each save its checksum. A replay makes the same calls again, but for
 * dreams and what was taken back, which leave no trace: every checksum must be the same. */

#define GRIFFIN_IMPLEMENTATION
#include "../griffin.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LINE = 512, TOKENS = 200, SAID = 1 << 12, TALKS = 6, ANSWER = 18, DREAM = 20, REGRET = 12 };

typedef struct life {
    griffin_model   *model;
    griffin_context *context;
    griffin_state   *state, *fork;
    void            *mark;
    float           *logits, *other_logits;
    griffin_sampler  sampler;
    griffin_decoder  decoder;
    griffin_bias     no_end;                /* of the text: it goes on */
    FILE *log;
    const char *save;                       /* the path */
    char  line[LINE];                       /* of the log, in a replay */
    char  said[SAID];                       /* on the last day that it said something */
    long  said_on, tokens, days, dreams, regrets;
} life;

/* ---- errors, memory, time ---- */

static void fail(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

static int64_t check(int64_t result, const char *what) {
    if (result < 0) fail(what, griffin_error_string((int)result));
    return result;
}

static void *allocate(size_t size) {
    void *memory = calloc(1, size);
    if (!memory) fail("life", "out of memory");
    return memory;
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* ---- saves, through a file and in pieces ---- */

typedef struct output { FILE *file; unsigned char end[8]; } output;     /* the last bytes written */

static int write_piece(const void *data, size_t size, void *user) {
    output *o = (output *)user;
    if (size >= 8) memcpy(o->end, (const unsigned char *)data + size - 8, 8);
    return fwrite(data, 1, size, o->file) == size ? 0 : GRIFFIN_E_FILE;
}

static int read_piece(void *data, size_t size, void *user) {
    FILE *file = (FILE *)user;
    size_t n = fread(data, 1, size, file);
    return ferror(file) ? GRIFFIN_E_FILE : (int)n;
}

/* Whoever looks at the file, at any moment, finds the save of last night or of this one. Returns
 * its checksum: the last piece ends with it. */
static uint64_t save(life *l) {
    char part[LINE + 16];
    uint64_t sum = 0;
    output o;
    snprintf(part, sizeof part, "%s.part", l->save);
    o.file = fopen(part, "wb");
    if (!o.file) fail(part, "cannot be written");
    check(griffin_save_pieces(l->model, l->state, &l->sampler, &l->decoder, write_piece, &o), part);
    if (fclose(o.file) || rename(part, l->save)) fail(l->save, "cannot be written");
    for (int i = 0; i < 8; i++) sum |= (uint64_t)o.end[i] << 8 * i;
    return sum;
}

/* A persona has neither sampler nor decoder. */
static void load(life *l, const char *path, griffin_sampler *sampler, griffin_decoder *decoder) {
    FILE *file = fopen(path, "rb");
    if (!file) fail(path, "cannot be read");
    memset(l->state, 0, griffin_state_size(l->model));
    check(griffin_load_pieces(l->model, l->state, sampler, decoder, read_piece, file), path);
    fclose(file);
}

/* ---- what can happen to it: each is a line of the log ---- */

static void hear(life *l, const char *words) {
    griffin_encoding onward = { .continues = l->tokens > 0 };
    int32_t tokens[TOKENS];
    int count = griffin_encode(l->model, &onward, words, strlen(words), tokens, TOKENS);
    if (check(count, words) > TOKENS) fail(words, "too long");
    check(griffin_prefill(l->context, l->state, tokens, count, l->logits), words);
    l->tokens += count;
    if (l->said_on != l->days) l->said[0] = 0;
    l->said_on = l->days;
    if (strlen(l->said) + 2 < SAID) strcat(l->said, "\n");
}

/* Draws tokens into any state. What it says is kept if there is room. */
static void tell(life *l, griffin_state *state, float *logits, griffin_sampler *sampler,
                 griffin_decoder *decoder, int count, char *said) {
    for (int i = 0; i < count; i++) {
        char text[512];
        int32_t token = (int32_t)check(griffin_sample(l->model, sampler, logits), "sample");
        check(griffin_decode(l->model, decoder, token, text, sizeof text), "text");
        if (said && strlen(said) + strlen(text) < SAID) strcat(said, text);
        check(griffin_step(l->context, state, token, logits), "step");
    }
}

static void say(life *l, int count) {
    tell(l, l->state, l->logits, &l->sampler, &l->decoder, count, l->said);
    l->tokens += count;
}

static void copy_logits(life *l) {
    memcpy(l->other_logits, l->logits,
           (size_t)griffin_get_info(l->model)->config.vocab * sizeof(float));
}

static void dream(life *l, int count) {
    griffin_sampler sampler = l->sampler;
    griffin_decoder decoder = l->decoder;
    memcpy(l->fork, l->state, griffin_state_size(l->model));
    copy_logits(l);
    tell(l, l->fork, l->other_logits, &sampler, &decoder, count, NULL);
    l->dreams++;
}

/* Says something, and takes it back. */
static void regret(life *l, int count) {
    griffin_sampler sampler = l->sampler;
    griffin_decoder decoder = l->decoder;
    check(griffin_mark(l->model, l->state, l->mark), "mark");
    copy_logits(l);
    tell(l, l->state, l->other_logits, &sampler, &decoder, count, NULL);
    check(griffin_rewind(l->model, l->state, l->mark), "rewind");
    l->regrets++;
}

/* What no save holds of a sampler. */
static void forbid_the_end(life *l) {
    l->no_end.token = griffin_get_info(l->model)->eos;
    l->no_end.bias = -INFINITY;
    l->sampler.biases = &l->no_end;
    l->sampler.bias_count = l->no_end.token >= 0;
}

/* A night: what is not in the save is gone. Logits are not in it, so a day begins with words. */
static uint64_t sleep_over(life *l) {
    uint64_t sum = save(l);
    memset(&l->sampler, 0, sizeof l->sampler);
    memset(&l->decoder, 0, sizeof l->decoder);
    load(l, l->save, &l->sampler, &l->decoder);
    forbid_the_end(l);
    l->days++;
    return sum;
}

/* ---- days ---- */

static const char *const people[] = {
    "mother", "old man", "teacher", "cook", "boy next door", "postman", "farmer", "aunt", "doctor",
    "neighbour"
};
static const char *const events[] = {
    "It rained all night, and in the morning the garden was full of water.",
    "A letter came, and nobody knew who had sent it.", "The cat brought a mouse into the kitchen.",
    "There was a big noise in the attic.", "The first snow fell, and everybody ran outside.",
    "A stranger stood at the gate and asked for some bread.", "The lamp went out.",
    "On the table there was a cake with nine candles.", "The dog did not come home."
};
static const char *const questions[] = {
    "What do you think of it?", "Where have you been?", "Will you help me?", "Who told you so?",
    "Are you happy?", "Do you remember what I said?", "Shall we go there again?"
};
#define ONE_OF(list, number) list[(number) % (sizeof list / sizeof *list)]

static uint64_t dice(uint64_t *seed) {
    uint64_t z = *seed += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    return (z ^ z >> 27) >> 33;
}

static void live_a_day(life *l, uint64_t *chance) {
    char words[LINE];
    for (int talk = 0; talk < TALKS; talk++) {
        snprintf(words, sizeof words, "%s %s The %s saw it and told the %s. \"%s\" asked the %s. "
                 "The girl said, \"", ONE_OF(events, dice(chance)), ONE_OF(events, dice(chance)),
                 ONE_OF(people, dice(chance)), ONE_OF(people, dice(chance)),
                 ONE_OF(questions, dice(chance)), ONE_OF(people, dice(chance)));
        fprintf(l->log, "hear %s\n", words);
        hear(l, words);
        if (talk == 1) { fprintf(l->log, "regret %d\n", REGRET); regret(l, REGRET); }
        fprintf(l->log, "say %d\n", ANSWER);
        say(l, ANSWER);
    }
    fprintf(l->log, "dream %d\n", DREAM);
    dream(l, DREAM);
    fprintf(l->log, "sleep %016llx\n", (unsigned long long)sleep_over(l));
}

static void live(life *l, long tokens) {
    uint64_t chance = 1;
    double start = seconds(), day = 0;
    while (l->tokens < tokens || l->days == 0) {
        double morning = seconds();
        live_a_day(l, &chance);
        if (l->days == 1) day = seconds() - morning;
        if (l->tokens >= tokens)
            fprintf(stderr, "%.1f s; the first day took %.1f ms, the last one %.1f ms\n",
                    seconds() - start, day * 1e3, (seconds() - morning) * 1e3);
    }
}

/* One call of the log. Returns whether the bits are those that they were. */
static int call_again(life *l, const char *call, const char *with) {
    long count = strtol(with, NULL, 10);
    if (!strcmp(call, "hear")) hear(l, with);
    else if (!strcmp(call, "say") && count > 0 && count < TOKENS) say(l, (int)count);
    else if (!strcmp(call, "sleep")) return sleep_over(l) == strtoull(with, NULL, 16);
    else if (strcmp(call, "dream") && strcmp(call, "regret")) fail(call, "no such call");
    return 1;
}

static void replay(life *l) {
    while (fgets(l->line, sizeof l->line, l->log)) {
        char *with = strchr(l->line, ' ');
        l->line[strcspn(l->line, "\n")] = 0;
        if (!with) fail(l->line, "not a line of the log");
        *with++ = 0;
        if (!call_again(l, l->line, with)) {
            printf("On day %ld the bits are DIFFERENT.\n", l->days);
            exit(1);
        }
    }
}

/* ---- from birth on ---- */

static void be_born(life *l, const char *path, const char *persona) {
    check(griffin_open_file(&l->model, path, NULL), path);
    size_t floats = (size_t)griffin_get_info(l->model)->config.vocab * sizeof(float);
    size_t size = griffin_context_size(l->model, NULL);
    check(griffin_context_init(&l->context, l->model, NULL, allocate(size), size), path);
    l->state = allocate(griffin_state_size(l->model));
    l->fork = allocate(griffin_state_size(l->model));
    l->mark = allocate(griffin_mark_size(l->model));
    l->logits = allocate(floats);
    l->other_logits = allocate(floats);
    load(l, persona, NULL, NULL);
    l->sampler.seed = 11;
    l->sampler.temperature = 0.8f;
    l->sampler.top_p = 0.9f;
    l->decoder.started = 1;
    forbid_the_end(l);
}

int main(int argc, char **argv) {
    const char *model = "examples/models/storyteller.gguf", *log = "build/life.log";
    const char *persona = "examples/personas/girl.persona";
    char path[LINE];
    long tokens = 20000;
    int again = 0;
    static life l;
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--tokens") && i + 1 < argc) tokens = atol(argv[++i]);
        else if (!strcmp(argv[i], "--log") && i + 1 < argc) log = argv[++i];
        else if (!strcmp(argv[i], "--persona") && i + 1 < argc) persona = argv[++i];
        else if (!strcmp(argv[i], "--replay")) again = 1;
        else model = argv[i];
    if (strlen(log) > sizeof path - 8) fail(log, "too long");
    snprintf(path, sizeof path, "%s.save", log);
    l.save = path;
    be_born(&l, model, persona);
    l.log = fopen(log, again ? "r" : "w");
    if (!l.log) fail(log, "cannot be opened");
    if (again) replay(&l);
    else live(&l, tokens);
    if (fclose(l.log)) fail(log, "cannot be written");
    printf("%s\n\n%ld tokens in %ld days, %ld dreams, %ld answers taken back; ", l.said, l.tokens,
           l.days, l.dreams, l.regrets);
    printf("a state of %ld KiB.\n", (long)(griffin_state_size(l.model) / 1024));
    if (again) printf("Each night the same bits.\n");
    return 0;
}
