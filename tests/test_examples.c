/* Promise: the examples run and keep their word. What they tell is what the model tells when asked
 * in the plainest way; what they find equal, they say is equal, and fail if it is not. */

#include "griffin.h"
#include "test.h"

static const char *folder;                  /* of the programs */

/* What a program writes, without what it measures, which goes to stderr; free it. */
static char *output_of(const char *name, const char *arguments) {
    char command[512], *text = (char *)calloc(1, 1 << 16);
    snprintf(command, sizeof command, "%s%s %s", folder, name, arguments);
    FILE *pipe = popen(command, "r");
    if (!pipe || !text) abort();
    CHECK(fread(text, 1, (1 << 16) - 1, pipe) > 0, "%s is silent", name);
    CHECK(pclose(pipe) == 0, "%s failed", command);
    while (*text && text[strlen(text) - 1] == '\n') text[strlen(text) - 1] = 0;
    return text;
}

static int is_built(const char *name) {
    char path[256];
    snprintf(path, sizeof path, "%s%s", folder, name);
    FILE *program = fopen(path, "rb");
    if (program) fclose(program);
    return program != NULL;
}

static int begins_with(const char *text, const char *with) {
    return strncmp(text, with, strlen(with)) == 0;
}

/* ---- tales ---------------------------------------------------------------------------------- */

typedef struct teller {
    griffin_model   *model;
    griffin_context *context;
    griffin_state   *state;
    float           *logits;
    void            *memory;
} teller;

static teller new_teller(void) {
    teller t;
    if (griffin_open_file(&t.model, "examples/models/storyteller.gguf", NULL)) abort();
    size_t size = griffin_context_size(t.model, NULL);
    t.memory = malloc(size);
    t.state  = (griffin_state *)calloc(1, griffin_state_size(t.model));
    t.logits = (float *)malloc((size_t)griffin_get_info(t.model)->config.vocab * sizeof(float));
    if (griffin_context_init(&t.context, t.model, NULL, t.memory, size)) abort();
    return t;
}

static void free_teller(teller *t) {
    free(t->memory); free(t->state); free(t->logits);
    griffin_close(t->model);
}

/* What follows an opening, which may have been heard in two parts, longer than any example tells
 * it; free it. */
static char *tale(const char *first, const char *second, uint64_t seed) {
    enum { WORDS = 250, SPACE = 1 << 14 };
    char *text = (char *)calloc(1, SPACE);
    const char *parts[2];
    teller t = new_teller();
    griffin_sampler sampler;
    griffin_decoder decoder;
    int32_t tokens[64];
    int count;
    memset(&sampler, 0, sizeof sampler);
    memset(&decoder, 0, sizeof decoder);
    parts[0] = first;
    parts[1] = second;
    for (int i = 0; i < 2 && *parts[i]; i++) {
        griffin_encoding encoding;
        memset(&encoding, 0, sizeof encoding);
        encoding.continues = i;
        count = griffin_encode(t.model, &encoding, parts[i], strlen(parts[i]), tokens, 64);
        CHECK(griffin_prefill(t.context, t.state, tokens, count, t.logits) == 0, "%s", parts[i]);
        strcat(text, parts[i]);
    }
    sampler.seed = seed;
    sampler.temperature = 0.7f;
    sampler.top_p = 0.9f;
    decoder.started = 1;
    for (int i = 0; i < WORDS; i++) {
        size_t length = strlen(text);
        int32_t token = griffin_sample(t.model, &sampler, t.logits);
        griffin_decode(t.model, &decoder, token, text + length, SPACE - length);
        CHECK(griffin_step(t.context, t.state, token, t.logits) == 0, "token %d", token);
    }
    free_teller(&t);
    return text;
}

/* Of a tale that goes on, at least `least` bytes were told. */
static void check_told(const char *told, size_t least, const char *first, const char *second,
                       uint64_t seed) {
    char *whole = tale(first, second, seed);
    CHECK(begins_with(whole, told), "told:\n%s\nshould be:\n%s", told, whole);
    CHECK(strlen(told) >= least, "only %d bytes were told", (int)strlen(told));
    free(whole);
}

static void test_hello(void) {
    char *told = output_of("hello", "");
    check_told(told, 400, "Once upon a time", "", 2026);
    free(told);
}

/* However little time is left, a frame takes a unit; what is told does not depend on it. */
static void test_frame_budget(void) {
    char *told = output_of("frame_budget", "--frames 60");
    check_told(told, 17, "Once upon a time", "", 7);
    free(told);
}

static void test_embedded_model(void) {
    char *told = output_of("embedded_model", "");
    check_told(told, 300, "Once upon a time, in a big forest", "", 3);
    free(told);
}

static void test_cpp_host(void) {
    static const char opening[] = "A farmer had two sons. ";
    char *told = output_of("cpp_host", ""), *second = strstr(told + 1, opening);
    char *loaded = strstr(told, "\n\nSaved in ");
    CHECK(second, "only one tale");
    CHECK(loaded && strstr(loaded, " and loaded: the same mind, the same words."), "%s", told);
    if (loaded) *loaded = 0;
    if (second) {
        check_told(second, 100, opening, "The younger", 0);
        while (second[-1] == '\n') second--;
        *second = 0;
        check_told(told, 100, opening, "The elder", 0);
    }
    free(told);
}

/* ---- comparisons that the examples make themselves ------------------------------------------ */

static void check_crowd(const char *personas) {
    char *said = output_of("crowd", personas);
    const char *line = said;
    int voices = 0;
    for (; begins_with(line, "\"I,\" said the "); line = strchr(line, '\n') + 1) voices++;
    CHECK(voices == 32, "%d voices", voices);
    CHECK(strstr(said, "Alone they say the same"), "%s", said);
    free(said);
}

static void test_crowd(void) {
    check_crowd("");
    check_crowd("examples/models/storyteller.gguf examples/personas/pirate.persona "
                "examples/personas/girl.persona");
}

static void test_rollback(void) {
    char *told = output_of("rollback", "");
    CHECK(strstr(told, " ] -- \"A dragon!\" cried the child."), "%s", told);
    CHECK(strstr(told, "Taken back 3 times"), "%s", told);
    CHECK(strstr(told, "the same bits as if nothing had been."), "%s", told);
    free(told);
}

static void test_job_system(void) {
    char *said = output_of("job_system", "");
    int pieces = 0, calls = 0, threads = 0;
    CHECK(sscanf(said, "%d pieces in %d calls on %d threads", &pieces, &calls, &threads) == 3
          && pieces > 2 * calls && calls > 0 && threads > 1, "%s", said);
    CHECK(strstr(said, "the same bits"), "%s", said);
    free(said);
}

/* ---- many, and long ------------------------------------------------------------------------- */

/* With half the units that sixty characters would need: who is near waits less, nobody starves. */
static void test_director(void) {
    static const char *const levels[] = { "near ", "middling ", "far " };
    char *said = output_of("director", "--frames 200 --units 120");
    int most[3] = { 0, 0, 0 }, tokens[3];
    for (int i = 0; i < 3; i++) {
        const char *line = strstr(said, levels[i]);
        CHECK(line && sscanf(line, "%*s %d tokens, said %*f frames after they were due, at most %d",
                             &tokens[i], &most[i]) == 2 && tokens[i] > 10, "%s", said);
    }
    CHECK(most[0] < most[1] && most[1] < most[2] && most[2] < 90, "%s", said);
    CHECK(strstr(said, "60 of 60 have spoken. Alone, each says the same, to the bit."), "%s", said);
    free(said);
}

#define LOG TEST_TMP "life.log"

/* Two days, then the same calls again; `make life-test` has years. Another log has other bits. */
static void test_life(void) {
    char *lived = output_of("life", "examples/models/storyteller.gguf --log " LOG " --tokens 600");
    char *again = output_of("life", "--log " LOG " --replay");
    char command[512], *end = strstr(lived, "\n\n");
    size_t size;
    CHECK(end && strncmp(lived, again, (size_t)(end - lived)) == 0, "%s\n%s", lived, again);
    CHECK(strstr(lived, "in 2 days, 2 dreams, 2 answers taken back"), "%s", lived);
    CHECK(strstr(again, "Each night the same bits."), "%s", again);
    char *log = (char *)test_read(LOG, &size);
    FILE *f = fopen(LOG, "wb");
    char *sleep = log ? strstr(log, "sleep ") : NULL;
    CHECK(sleep && f, "no night in %s", LOG);
    if (sleep && f) {
        sleep[6] = sleep[6] == '0' ? '1' : '0';
        fwrite(log, 1, size, f);
        fclose(f);
        snprintf(command, sizeof command, "%slife --log " LOG " --replay > " LOG ".said", folder);
        CHECK(system(command) != 0, "%s", command);
    }
    free(lived); free(again); free(log);
}

int main(int argc, char **argv) {
    char path[256] = "build/";
    char *end = argc > 0 ? strstr(argv[0], "tests/test_examples") : NULL;
    if (end) snprintf(path, sizeof path, "%.*s", (int)(end - argv[0]), argv[0]);
    strcat(path, "examples/");
    folder = path;
    RUN(test_hello);
    RUN(test_frame_budget);
    RUN(test_embedded_model);
    if (is_built("cpp_host")) RUN(test_cpp_host);  /* C++ is not asked of every machine */
    RUN(test_crowd);
    RUN(test_rollback);
    RUN(test_job_system);
    RUN(test_director);
    RUN(test_life);
    return test_end();
}
