/* real_model.c - a model that others have trained, SmolLM2-135M-Instruct, says what it should. For
 * tests/real_model.sh, which fetches and converts it; it is too large for the repository.
 *
 * tests/llama_reference.py gave the values: it evaluates the file as it came, in float64. The model
 * in f32 has the same weights, so that only rounding differs. In q8_0 the inputs of all layers are
 * rounded to int8, and a few of this model's are a hundred times larger than the others. */

#include "griffin.h"
#include "test.h"

#include <math.h>

#define TOWER  "A lighthouse is a tower that shows a light to ships at sea. "
#define TOWERS TOWER TOWER TOWER TOWER

typedef struct row {
    const char *text;
    int         count;                      /* of its tokens, */
    int32_t     last[4];                    /* and the last of them */
    int32_t     best[5];                    /* the likeliest tokens after the text */
    double      logits[5];
} row;

static const row rows[] = {
    {"The capital of France is",
     5, {3575, 282, 4649, 314},
     {7042, 260, 4528, 2250, 1315}, {17.3713, 14.8886, 13.2450, 13.0095, 12.9515}},
    {"Once upon a time, in a small village by the sea,",
     13, {411, 260, 3426, 28},
     {665, 253, 260, 198, 4161}, {13.0972, 11.9562, 10.8395, 10.2450, 10.1231}},
    {"def fibonacci(n):\n    if n < 2:\n        return n\n    return",
     18, {1003, 304, 472, 1003},
     {2822, 365, 3987, 304, 216}, {20.9416, 20.5362, 20.3451, 19.4782, 17.9255}},
    {"Der Turm ist 324 m hoch; gebaut wurde er 1889 von",
     25, {40, 40, 41, 12673},
     {216, 3690, 659, 476, 267}, {7.9149, 6.5119, 4.4495, 4.3415, 4.2096}},
    {"<|im_start|>user\nWhat is 12 + 30?<|im_end|>\n<|im_start|>assistant\n",
     19, {1, 520, 9531, 198},
     {2068, 33, 504, 2427, 1348}, {35.2048, 35.1307, 33.7066, 33.1746, 33.1110}},
    {TOWERS TOWERS TOWERS "The light of a",
     172, {378, 1420, 282, 253},
     {33059, 1420, 37257, 5575, 11930}, {21.3751, 17.4782, 17.0489, 16.7194, 16.5617}}
};

enum { ROOM = 300 };

static griffin_model *model;
static griffin_context *context;
static griffin_state *state;
static void *memory;
static float *logits;

static int open_model(const char *path) {
    griffin_options options;
    memset(&options, 0, sizeof options);
    options.attn_keys = 512;                /* more than any text has, and less memory */
    int error = griffin_open_file(&model, path, &options);
    CHECK(error == GRIFFIN_OK, "%s: %s", path, griffin_error_string(error));
    if (error) return error;
    size_t size = griffin_context_size(model, NULL);
    memory = malloc(size);
    state = (griffin_state *)malloc(griffin_state_size(model));
    logits = (float *)malloc((size_t)griffin_get_info(model)->config.vocab * sizeof *logits);
    error = griffin_context_init(&context, model, NULL, memory, size);
    CHECK(error == GRIFFIN_OK, "%s: %s", path, griffin_error_string(error));
    return error;
}

static void close_model(void) {
    free(logits);
    free(state);
    free(memory);
    griffin_close(model);
}

static void check_row(const row *r, double tolerance) {
    int32_t tokens[ROOM];
    int n = griffin_encode(model, NULL, r->text, strlen(r->text), tokens, ROOM), likeliest = 0;
    CHECK(n == r->count, "%s: %d tokens", r->text, n);
    if (n != r->count) return;
    CHECK(!memcmp(tokens + n - 4, r->last, sizeof r->last), "%s: other tokens", r->text);
    memset(state, 0, griffin_state_size(model));
    int error = griffin_prefill(context, state, tokens, n, logits);
    CHECK(error >= 0, "%s: %s", r->text, griffin_error_string(error));
    for (int i = 0; i < 5; i++)
        CHECK(fabs(logits[r->best[i]] - r->logits[i]) < tolerance, "%s: token %d has %.4f, not "
              "%.4f", r->text, (int)r->best[i], logits[r->best[i]], r->logits[i]);
    for (int i = 0; i < griffin_get_info(model)->config.vocab; i++)
        if (logits[i] > logits[likeliest]) likeliest = i;
    CHECK(likeliest == r->best[0] || r->logits[0] - r->logits[1] < 2 * tolerance,
          "%s: token %d is the likeliest, not %d", r->text, likeliest, (int)r->best[0]);
}

static void check_model(const char *path, double tolerance) {
    if (open_model(path)) return;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) check_row(&rows[i], tolerance);
    close_model();
}

static void test_f32(void)  { check_model("build/real-model/f32.gguf", 0.001); }
static void test_q8_0(void) { check_model("build/real-model/q8_0.gguf", 2); }

int main(void) {
    RUN(test_f32);
    RUN(test_q8_0);
    return test_end();
}
