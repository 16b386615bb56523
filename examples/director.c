/* director.c - sixty characters want to speak, and a director decides who may, by nearness.
 *
 *     cc -O2 examples/director.c -lm -o director && ./director [MODEL] [--frames N] [--units N]
 *
 * They share a pool of a few contexts. A token in flight has one of these until it is complete; it
 * stays there from frame to frame, so many tokens are in flight at once. Two rules do the rest:
 *
 *   Priority: near the listener a token is due every few frames, far away one in a second. A free
 *   context goes to the one that is most behind, by its own pace: a near one that waits for 6
 *   frames comes before a far one that waits for 50. Who waits becomes more urgent, so nobody
 *   starves.
 *   Budget: a frame has BUDGET microseconds. Its units are dealt out to the jobs in flight in
 *   proportion to their shares, and a near one has sixteen times the share of a far one.
 *
 * With --units a frame has so many units instead, and each run is the same on every machine. At the
 * end each character tells its text again, alone: same bits, whatever the director did. */

#define GRIFFIN_IMPLEMENTATION
#include "../griffin.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    CAST = 60, POOL = 8,                    /* characters; contexts that they share */
    BUDGET = 4000,                          /* microseconds of a frame in which they may think */
    ACROSS = 100,                           /* the size of the market place, in steps */
    MOST = 32, SAID = 1 << 12, FRAMES = 1 << 16
};

/* How near, in steps; frames from token to token; share of the units. */
static const struct { const char *name; double within; int pace, share; } levels[] = {
    { "near", 15, 6, 16 }, { "middling", 40, 20, 4 }, { "far", 1e9, 60, 1 }
};
enum { LEVELS = sizeof levels / sizeof *levels };

static const char *const kinds[] = { "old", "young", "tall", "little", "strange", "kind" };
static const char *const trades[] = {
    "baker", "smith", "miller", "hunter", "cook", "tailor", "soldier", "fisherman", "king", "witch"
};

typedef struct character {
    char   name[32];
    double x, y, due;                       /* where it stands; when its next token is wanted */
    int    level, in_flight, spoken;        /* tokens */
    griffin_state  *state;
    float          *logits;
    griffin_sampler sampler;
    griffin_decoder decoder;
    int32_t tokens[MOST];                   /* what it hears next */
    int     count, length;
    char    said[SAID];
} character;

typedef struct job {                        /* a context, and who thinks in it */
    griffin_context *context;
    character *who;                         /* null: nobody */
    double     used;                        /* units of this frame, by its share */
} job;

static griffin_model *model;
static character cast[CAST];
static job pool[POOL];
static double times[FRAMES];                /* of thinking in each frame, in microseconds */
static struct { long tokens; double waited, longest; } waits[LEVELS];

static int check(int result, const char *what) {
    if (result >= 0) return result;
    fprintf(stderr, "%s: %s\n", what, griffin_error_string(result));
    exit(1);
}

static void *allocate(size_t size) {
    void *memory = calloc(1, size);
    if (!memory) check(GRIFFIN_E_MEMORY, "director");
    return memory;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static griffin_context *new_context(void) {
    griffin_context_options options = { .rows = MOST };
    griffin_context *context;
    size_t size = griffin_context_size(model, &options);
    check(griffin_context_init(&context, model, &options, allocate(size), size), "context");
    return context;
}

/* ---- a character ---- */

/* At the beginning of its text, which begins with who it is. */
static void wake_up(character *c, int number) {
    char text[80];
    memset(c, 0, sizeof *c);
    snprintf(c->name, sizeof c->name, "%s %s", kinds[number / 10], trades[number % 10]);
    snprintf(text, sizeof text, "At the market the %s said, \"", c->name);
    c->x = number * 37 % ACROSS;
    c->y = number * 61 % ACROSS;
    c->due = number;                        /* they come one after the other */
    c->state  = allocate(griffin_state_size(model));
    c->logits = allocate((size_t)griffin_get_info(model)->config.vocab * sizeof(float));
    c->sampler = (griffin_sampler){ .seed = (uint64_t)number, .temperature = 0.8f, .top_p = 0.9f };
    c->decoder.started = 1;
    c->count = griffin_encode(model, NULL, text, strlen(text), c->tokens, MOST);
    if (check(c->count, text) > MOST) check(GRIFFIN_E_SPACE, text);
}

static void sleep_again(character *c) { free(c->state); free(c->logits); }

/* What it heard has been read: it says the next token, and will hear that. */
static void speak(character *c) {
    int32_t token = check(griffin_sample(model, &c->sampler, c->logits), "sample");
    if (c->length < SAID - 512)
        c->length += check(griffin_decode(model, &c->decoder, token, c->said + c->length,
                                          (size_t)(SAID - c->length)), "text");
    c->tokens[0] = token;
    c->count = 1;
    c->spoken++;
}

static griffin_span what_is_heard(const character *c) {
    return (griffin_span){ c->state, c->tokens, c->count, 0, c->logits };
}

/* ---- the director ---- */

static void look_around(int frame) {
    double x = ACROSS * (0.5 + 0.4 * sin(frame * 0.004));       /* the listener walks about */
    double y = ACROSS * (0.5 + 0.4 * cos(frame * 0.003));
    for (int i = 0; i < CAST; i++) {
        double distance = hypot(cast[i].x - x, cast[i].y - y);
        for (cast[i].level = 0; distance > levels[cast[i].level].within; ) cast[i].level++;
    }
}

/* How far it is behind, counted in the tokens that it should have said since. */
static double behind(const character *c, int frame) {
    return (frame + 1 - c->due) / levels[c->level].pace;
}

/* Those who are behind most come first. */
static void let_speak(int frame) {
    for (int p = 0; p < POOL; p++) {
        character *first = NULL;
        if (pool[p].who) continue;
        for (int i = 0; i < CAST; i++) {
            character *c = &cast[i];
            if (c->in_flight || c->due > frame) continue;
            if (!first || behind(c, frame) > behind(first, frame)) first = c;
        }
        if (!first) return;
        griffin_span span = what_is_heard(first);
        check(griffin_begin(pool[p].context, &span, 1), "begin");
        pool[p].who = first;
        first->in_flight = 1;
    }
}

/* Who has had least of this frame for its share. */
static job *next_job(void) {
    job *next = NULL;
    for (int p = 0; p < POOL; p++)
        if (pool[p].who && (!next || pool[p].used < next->used)) next = &pool[p];
    return next;
}

static void work(job *j, int frame) {
    character *c = j->who;
    j->used += 1.0 / levels[c->level].share;
    if (check(griffin_advance(j->context, 1), "advance") > 0) return;
    double waited = frame - c->due;
    speak(c);
    waits[c->level].tokens++;
    waits[c->level].waited += waited;
    waits[c->level].longest = fmax(waits[c->level].longest, waited);
    c->due = frame + levels[c->level].pace;
    c->in_flight = 0;
    j->who = NULL;
}

/* At least a unit: a game that is always late should not silence anybody. */
static void think(int frame, int units) {
    double start = now();
    for (int p = 0; p < POOL; p++) pool[p].used = 0;
    let_speak(frame);
    for (int done = 0; units ? done < units : !done || now() - start < BUDGET; done++) {
        job *j = next_job();
        if (!j) break;                      /* nothing is due: the game has the rest */
        work(j, frame);
        if (!j->who) let_speak(frame);
    }
    times[frame] = now() - start;
}

/* ---- the end ---- */

static int says_the_same_alone(griffin_context *context, const character *c, int number) {
    character alone;
    wake_up(&alone, number);
    for (int i = 0; i < c->spoken; i++) {
        check(griffin_prefill(context, alone.state, alone.tokens, alone.count, alone.logits),
              "alone");
        speak(&alone);
    }
    int same = strcmp(alone.said, c->said) == 0
            && memcmp(alone.state, c->state, griffin_state_size(model)) == 0;
    sleep_again(&alone);
    return same;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int report(int frames) {
    int same = 0, silent = 0;
    for (int i = 0; i < CAST; i++) {
        silent += cast[i].spoken == 0;
        same += says_the_same_alone(pool[0].context, &cast[i], i);
        if (cast[i].level > 0) continue;
        printf("\"%.*s\" (the %s)\n", (int)strcspn(cast[i].said, "\"\n"), cast[i].said,
               cast[i].name);
    }
    puts("");
    for (int i = 0; i < LEVELS; i++)
        printf("%-9s %5ld tokens, said %.1f frames after they were due, at most %.0f\n",
               levels[i].name, waits[i].tokens, waits[i].waited / fmax(1, (double)waits[i].tokens),
               waits[i].longest);
    printf("%d of %d have spoken. Alone, %s.\n", CAST - silent, CAST, same == CAST
           ? "each says the same, to the bit" : "some say something DIFFERENT");
    qsort(times, (size_t)frames, sizeof *times, by_size);
    fprintf(stderr, "%d frames: thinking took p50 %.0f us, p99 %.0f us, max %.0f us\n", frames,
            times[frames / 2], times[frames * 99 / 100], times[frames - 1]);
    return silent || same < CAST;
}

int main(int argc, char **argv) {
    const char *path = "examples/models/storyteller.gguf";
    int frames = 1200, units = 0;
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--frames") == 0 && i + 1 < argc) frames = atoi(argv[++i]);
        else if (strcmp(argv[i], "--units") == 0 && i + 1 < argc) units = atoi(argv[++i]);
        else path = argv[i];
    if (frames < 1 || frames > FRAMES) frames = FRAMES;
    check(griffin_open_file(&model, path, NULL), path);
    for (int i = 0; i < CAST; i++) wake_up(&cast[i], i);
    for (int p = 0; p < POOL; p++) pool[p].context = new_context();
    for (int frame = 0; frame < frames; frame++) {
        look_around(frame);
        think(frame, units);
    }
    return report(frames);
}
