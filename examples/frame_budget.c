/* frame_budget.c - sixty frames a second, and somebody talks in what is left of each.
 *
 *     cc -O2 examples/frame_budget.c -lm -o frame_budget && ./frame_budget [MODEL] [--frames N]
 *
 * The scene is drawn first; then the character thinks, unit by unit, until the frame is nearly over
 * or it is far enough ahead of its own voice, which says a letter a frame. Where output is not a
 * terminal there is no scene, only what was said. */

#define GRIFFIN_IMPLEMENTATION
#include "../griffin.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    FRAME = 16667, RESERVE = 2000,          /* microseconds; a frame's end is left to the system */
    COLUMNS = 72, ROWS = 9, PAGE = 400,     /* of the scene; letters on screen */
    AHEAD = 60, SAID = 1 << 14, TIMES = 1 << 20     /* letters thought before they are said */
};

typedef struct character {
    griffin_model *model;
    griffin_context *context;
    griffin_state *state;
    float *logits;
    griffin_sampler sampler;
    griffin_decoder decoder;
    char said[SAID];
    int  thought, spoken, page;             /* letters; where the page begins */
} character;

static double times[TIMES]; static int units;       /* what each unit took, in microseconds */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static int check(int result, const char *what) {
    if (result >= 0) return result;
    fprintf(stderr, "%s: %s\n", what, griffin_error_string(result));
    exit(1);
}

static void hear(character *c, const int32_t *tokens, int count) {
    griffin_span span = { c->state, tokens, count, 0, c->logits };
    check(griffin_begin(c->context, &span, 1), "begin");
}

static void wake_up(character *c, const char *path) {
    static const char opening[] = "Once upon a time";
    int32_t tokens[32];
    check(griffin_open_file(&c->model, path, NULL), path);
    size_t size = griffin_context_size(c->model, NULL);
    c->state  = calloc(1, griffin_state_size(c->model));
    c->logits = malloc((size_t)griffin_get_info(c->model)->config.vocab * sizeof(float));
    void *memory = malloc(size);
    if (!c->state || !c->logits || !memory) check(GRIFFIN_E_MEMORY, path);
    check(griffin_context_init(&c->context, c->model, NULL, memory, size), path);
    c->sampler = (griffin_sampler){ .seed = 7, .temperature = 0.7f, .top_p = 0.9f };
    c->decoder.started = 1;
    c->thought = (int)strlen(strcpy(c->said, opening));
    int count = griffin_encode(c->model, NULL, opening, strlen(opening), tokens, 32);
    if (check(count, opening) > 32) check(GRIFFIN_E_SPACE, opening);
    hear(c, tokens, count);
}

/* One unit of a token; after its last, the next token is chosen and put in flight. */
static void think(character *c) {
    if (check(griffin_advance(c->context, 1), "advance") > 0) return;
    int32_t token = check(griffin_sample(c->model, &c->sampler, c->logits), "sample");
    c->thought += check(griffin_decode(c->model, &c->decoder, token, c->said + c->thought,
                                       (size_t)(SAID - c->thought)), "decode");
    hear(c, &token, 1);
}

/* Thinks once at least: a game that is always late should not silence anybody. */
static void think_until(character *c, double deadline) {
    double start = now();
    do {
        think(c);
        double end = now();
        if (units < TIMES) times[units++] = end - start;
        start = end;
    } while (start < deadline && c->thought < c->spoken + AHEAD);
}

/* Stars stand still, hills pass by, and somebody walks over them. */
static char scene(int row, int column, int frame) {
    double x = column + frame * 0.25;
    int hill = ROWS - 2 - (int)(2 + 1.6 * sin(x * 0.11) + 0.8 * sin(x * 0.27));
    if (row > hill) return row == hill + 1 ? '^' : '.';
    if (column == COLUMNS / 3 && row == hill) return frame / 12 % 2 ? 'A' : 'R';
    if (column == COLUMNS / 3 && row == hill - 1) return 'o';
    unsigned place = (unsigned)(row * COLUMNS + column);
    return (place * place + 7) * 2654435761u >> 26 == 0 ? '*' : ' ';
}

static void draw_words(const char *text, int count) {
    int column = 0;
    for (int i = 0; i < count; i++, column++) {
        int space = text[i] == ' ' || text[i] == '\n';
        if (space && column + (int)strcspn(text + i + 1, " \n") >= COLUMNS) column = -1;
        printf(column < 0 ? "\033[K\n" : "%c", space ? ' ' : text[i]);
    }
    printf("\033[J");
}

static void draw(character *c, int frame) {
    printf("\033[H");
    for (int row = 0; row < ROWS; row++, printf("\033[K\n"))
        for (int column = 0; column < COLUMNS; column++) putchar(scene(row, column, frame));
    if (c->spoken > c->page + PAGE && c->said[c->spoken - 1] == ' ') c->page = c->spoken;
    draw_words(c->said + c->page, c->spoken - c->page);
    fflush(stdout);
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    static character c;
    int frames = 60 * 20, shown = isatty(STDOUT_FILENO), late = 0;
    const char *path = "examples/models/storyteller.gguf";
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--frames") == 0 && i + 1 < argc) frames = atoi(argv[++i]);
        else path = argv[i];
    wake_up(&c, path);
    for (int frame = 0; frame < frames && c.thought < SAID - 512; frame++) {
        double start = now();
        if (shown) draw(&c, frame);
        think_until(&c, start + FRAME - RESERVE);
        if (c.spoken < c.thought) c.spoken++;
        double left = start + FRAME - now();
        if (left > 0) nanosleep(&(struct timespec){ 0, (long)(left * 1e3) }, NULL);
        else late++;
    }
    if (!shown) printf("%.*s\n", c.spoken, c.said);
    qsort(times, (size_t)units, sizeof *times, by_size);
    fprintf(stderr, "\n%d frames, %d late; %d units: p50 %.1f us, p99 %.1f us, max %.1f us\n",
            frames, late, units, times[units / 2], times[units / 100 * 99], times[units - !!units]);
    return 0;
}
