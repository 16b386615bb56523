/* Promise: griffin persona learns a first state; what it writes is a saved state like any other.
 * The net's state means to the library what it means to the net; a learned one predicts its text
 * better than none; the same seed gives the same bytes; what does not fit is refused with words,
 * and Ctrl-C leaves the best so far. The gradient itself: test_train_gradients.c. */

#include "griffin.h"
#include "test.h"
#include "tools/train/persona.h"

#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WORK  TEST_TMP "persona/"
#define LOG   WORK "log.txt"
#include "command.h"
#define TEXT  WORK "text.txt"
#define MODEL WORK "model.gguf"
#define TINY  " --preset tiny --width 32 --heads 2 --layers 4 --blocks rrar --vocab 300" \
              " --window 12 --batch 4 --length 32 --threads 1 --steps 60 "

int command_train(int argc, char **argv);
int command_persona(int argc, char **argv);
int command_convert(int argc, char **argv);
int command_run(int argc, char **argv);
int command_perplexity(int argc, char **argv);

static char *self;                          /* this program */

/* ---- texts and commands ---------------------------------------------------------------------- */

static void write_file(const char *path, const void *data, size_t size) {
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(data, 1, size, f) == size, "%s", path);
    if (f) fclose(f);
}

/* Sentences about two kinds of people: the model learns both, a persona is one of them. */
static void write_sentences(const char *path, int kinds, int count) {
    static const char *const who[2][4] = {
        { "The sailor", "The captain", "A pirate", "The mate" },
        { "The baker", "The miller", "A cook", "The farmer" }
    };
    static const char *const what[2][4] = {
        { "looked at the sea", "hoisted a sail", "counted his gold", "drank some rum" },
        { "looked at the bread", "ground some corn", "counted his hens", "drank some milk" }
    };
    FILE *f = fopen(path, "wb");
    uint64_t dice = 5;
    if (!f) abort();
    for (int i = 0; i < count; i++) {
        int kind = kinds < 2 ? kinds : (int)random_below(&dice, 2);
        fprintf(f, "%s %s", who[kind][random_below(&dice, 4)], what[kind][random_below(&dice, 4)]);
        fprintf(f, ".%s", random_below(&dice, 5) ? " " : "\n");
    }
    fclose(f);
}

static int persona(const char *words) {
    char all[2048];
    snprintf(all, sizeof all, "persona --length 32 --batch 4 --threads 1 %s", words);
    return call(command_persona, all);
}

static char *logged(void) {
    size_t size;
    char *log = (char *)test_read(LOG, &size);
    return log ? log : (char *)calloc(1, 1);
}

static void check_logged(const char *words) {
    char *log = logged();
    CHECK(strstr(log, words), "should say '%s', not:\n%s", words, log);
    free(log);
}

/* The first number after the last such word in LOG; -1: there is none. */
static double number_after(const char *word) {
    char *log = logged(), *found = NULL;
    double value = -1;
    for (char *at = log; (at = strstr(at, word)) != NULL;) found = at += strlen(word);
    if (found) value = strtod(found, NULL);
    free(log);
    return value;
}

static void make_models(void) {
    mkdir("build", 0777);
    mkdir(TEST_TMP, 0777);
    mkdir(WORK, 0777);
    write_sentences(WORK "both.txt", 2, 3000);
    write_sentences(TEXT, 0, 300);
    CHECK(call(command_train, "train " WORK "both.txt -o " MODEL TINY) == 0, "a model");
    CHECK(call(command_train, "train " WORK "both.txt -o " WORK "other.gguf --seed 9" TINY) == 0,
          "another");
    CHECK(call(command_train, "train " WORK "both.txt -o " WORK "kin.gguf" TINY "--blocks rahs "
               "--steps 20") == 0, "one with states that are matrices");
    CHECK(call(command_convert, "convert " MODEL " " WORK "q8.gguf --type q8_0 -q") == 0, "q8_0");
}

/* ---- what a state means ---------------------------------------------------------------------- */

static void make_kin(void) {
    CHECK(call(command_train, "train " WORK "both.txt -o " WORK "hgrn2.gguf --preset tiny"
               " --width 64 --heads 2 --layers 2 --kind hgrn2 --vocab 300 --batch 4 --length 32 --threads 1"
               " --steps 20") == 0, "hgrn2");
    CHECK(call(command_train, "train " WORK "both.txt -o " WORK "supra.gguf --preset tiny"
               " --width 80 --heads 2 --layers 2 --kind supra --vocab 300 --batch 4 --length 32 --threads 1"
               " --steps 20") == 0, "supra");
}

typedef struct mind { session s; net *n; float *state; int32_t tokens[40]; } mind;

static int open_mind(mind *m, const char *model, griffin_kv_type kv_type) {
    command c = { "test", "", "", NULL };
    model_options o = MODEL_DEFAULTS;
    memset(m, 0, sizeof *m);
    o.path = model;
    o.kv_type = (int)kv_type;
    if (session_open(&m->s, &c, &o, NEEDS_TEXT) || !(m->n = persona_net(model, 40))) return 1;
    m->state = (float *)calloc(net_state_size(m->n), sizeof *m->state);
    for (int i = 0; i < 40; i++) m->tokens[i] = i * 7 % 290 + 4;
    return !m->state;
}

static void close_mind(mind *m) {
    free(m->state);
    net_free(m->n);
    session_close(&m->s);
}

static double distance(const float *a, const float *b, int count) {
    double most = 0;
    for (int i = 0; i < count; i++) most = fmax(most, fabs((double)a[i] - (double)b[i]));
    return most;
}

/* The net's state after `rows` tokens, taken over, predicts as the library's own does, and is at
 * the same position. */
static void check_meaning(const char *model, int rows, griffin_kv_type kv_type, double tolerance) {
    mind m;
    unsigned char *data = NULL;
    size_t size = 0;
    int32_t targets[40];
    if (open_mind(&m, model, kv_type)) { CHECK(0, "opens"); return; }
    int V = m.s.info->config.vocab;
    float *own = (float *)malloc((size_t)V * sizeof *own);
    griffin_state *state = (griffin_state *)malloc(griffin_state_size(m.s.model));
    for (int i = 0; i < 40; i++) targets[i] = -1;
    net_batch b = { 1, rows, m.tokens, targets, NULL, NULL, m.state, 0, 0 };
    net_loss(m.n, &b, NULL);
    CHECK(persona_save(m.n, m.state, rows, &m.s, &data, &size) == 0, "saves");
    CHECK(griffin_load(m.s.model, state, NULL, NULL, data, size) == GRIFFIN_OK, "loads");
    CHECK(griffin_state_position(state) == rows, "position");
    griffin_prefill(m.s.context, m.s.state, m.tokens, rows, NULL);
    CHECK(griffin_save(m.s.model, m.s.state, NULL, NULL, NULL, 0) == (int64_t)size, "its size");
    for (int i = 0; i < 20; i++) {
        griffin_step(m.s.context, m.s.state, m.tokens[20 + i], own);
        griffin_step(m.s.context, state, m.tokens[20 + i], m.s.logits);
        CHECK(distance(own, m.s.logits, V) < tolerance, "%d rows, token %d: %g", rows, i,
              distance(own, m.s.logits, V));
    }
    free(own); free(state); free(data);
    close_mind(&m);
}

static void test_meaning(void) {
    check_meaning(MODEL, 1, GRIFFIN_KV_F32, 2e-4);
    check_meaning(MODEL, 2, GRIFFIN_KV_F32, 2e-4);
    check_meaning(MODEL, 5, GRIFFIN_KV_F32, 2e-4);
    check_meaning(MODEL, 12, GRIFFIN_KV_F32, 2e-4);
    check_meaning(MODEL, 20, GRIFFIN_KV_F32, 2e-4);                /* more than the window */
    check_meaning(MODEL, 5, GRIFFIN_KV_BF16, 2e-2);
    check_meaning(WORK "kin.gguf", 1, GRIFFIN_KV_F32, 2e-4);
    check_meaning(WORK "kin.gguf", 20, GRIFFIN_KV_F32, 2e-4);
}

/* ---- learning -------------------------------------------------------------------------------- */

/* What is left of the bits a byte, at most. */
static void check_learns(const char *model, const char *more, double most) {
    char words[512];
    snprintf(words, sizeof words, TEXT " -m %s -o " WORK "a.persona --steps 20 %s", model, more);
    CHECK(persona(words) == 0, "%s", words);
    double nothing = number_after("  nothing ");
    double learned = number_after("  the persona ");
    CHECK(learned > 0 && learned < most * nothing, "%s: %g and %g bits a byte", words, nothing,
          learned);
}

static void test_kin(void) {
    make_kin();
    for (int i = 0; i < 2; i++) {
        const char *model = i ? WORK "supra.gguf" : WORK "hgrn2.gguf";
        check_meaning(model, 1, GRIFFIN_KV_F32, 2e-4);
        check_meaning(model, 7, GRIFFIN_KV_F32, 2e-4);
        check_learns(model, "--rows 2", 0.99);
    }
}

static void test_learns(void) {
    check_learns(WORK "q8.gguf", "--rows 1", 0.95);
    check_learns(WORK "q8.gguf", "--rows 16 --kv-type bf16", 0.95);
    check_learns(MODEL, "--plot " WORK "a.svg --sample 8 --prompt The", 0.95);
    CHECK(access(WORK "a.svg", R_OK) == 0, "a plot");
}

static int same_files(const char *a, const char *b) {
    size_t sizes[2] = { 0, 1 };
    unsigned char *x = test_read(a, &sizes[0]), *y = test_read(b, &sizes[1]);
    int same = x && y && sizes[0] == sizes[1] && !memcmp(x, y, sizes[0]);
    free(x);
    free(y);
    return same;
}

static void test_repeats(void) {
    static const char *const how[] = { "a.persona --seed 3", "b.persona --seed 3 --threads 2",
                                       "c.persona --seed 4" };
    for (int i = 0; i < 3; i++) {
        char words[256];
        snprintf(words, sizeof words, TEXT " -m " MODEL " --steps 6 -o " WORK "%s", how[i]);
        CHECK(persona(words) == 0, "%s", words);
    }
    CHECK(same_files(WORK "a.persona", WORK "b.persona"), "the same seed");
    CHECK(!same_files(WORK "a.persona", WORK "c.persona"), "another seed");
}

/* ---- use ------------------------------------------------------------------------------------- */

/* `run` says what a program says that loads the state and feeds the prompt as a fresh one's. */
static void test_use(void) {
    mind m;
    char said[4096] = "The";
    size_t size, length = 3;
    griffin_decoder decoder = { { 0 }, 0, 1, 0, 0 };
    CHECK(persona(TEXT " -m " MODEL " --steps 3 -o " WORK "a.persona") == 0, "a persona");
    CHECK(call(command_run, "run " MODEL " -p The -n 20 --temp 0 --carry-on -t 1 --persona " WORK
               "a.persona") == 0, "run");
    char *log = logged();
    if (open_mind(&m, MODEL, GRIFFIN_KV_F32)) { CHECK(0, "opens"); return; }
    unsigned char *data = test_read(WORK "a.persona", &size);
    CHECK(griffin_load(m.s.model, m.s.state, NULL, NULL, data, size) == GRIFFIN_OK, "loads");
    int count = griffin_encode(m.s.model, NULL, "The", 3, m.tokens, 40);
    CHECK(m.tokens[0] == m.s.info->bos, "a text begins as it does without a persona");
    griffin_prefill(m.s.context, m.s.state, m.tokens, count, m.s.logits);
    for (int i = 0; i < 20; i++) {
        griffin_sampler greedy;
        memset(&greedy, 0, sizeof greedy);
        m.s.logits[m.s.info->eos] = -INFINITY;
        int32_t token = griffin_sample(m.s.model, &greedy, m.s.logits);
        length += (size_t)griffin_decode(m.s.model, &decoder, token, said + length,
                                         sizeof said - length);
        griffin_step(m.s.context, m.s.state, token, m.s.logits);
    }
    CHECK(strncmp(log, said, length) == 0, "%s\nis not\n%s", log, said);
    free(log);
    free(data);
    close_mind(&m);
}

static float number_at(const unsigned char *data, size_t at) {
    float x;
    memcpy(&x, data + at, sizeof x);        /* on machines whose numbers lie as those of files */
    return x;
}

/* The numbers of a saved state begin at byte 48, and 8 bytes of checksum end it. */
static void check_mean(const char *a, const char *b) {
    enum { NUMBERS = 48, CHECKSUM = 8 };
    size_t sizes[2] = { 0, 1 };
    unsigned char *first = test_read(a, &sizes[0]), *second = test_read(b, &sizes[1]);
    unsigned char *mixed = (unsigned char *)malloc(sizes[0]);
    text_list both = { { a, b }, 2 };
    int wrong = 0;
    mind m;
    if (open_mind(&m, MODEL, GRIFFIN_KV_F32)) { CHECK(0, "opens"); return; }
    CHECK(sizes[0] == sizes[1] && session_personas(&m.s, &both) == 0, "mixed");
    CHECK(griffin_save(m.s.model, m.s.state, NULL, NULL, mixed, sizes[0]) == (int64_t)sizes[0],
          "saved");
    for (size_t at = NUMBERS; at + 4 <= sizes[0] - CHECKSUM; at += 4) {
        double x = (double)number_at(first, at), y = (double)number_at(second, at);
        wrong += number_at(mixed, at) != (float)(x + 0.5 * (y - x));
    }
    CHECK(wrong == 0, "%d numbers are no means", wrong);
    free(first);
    free(second);
    free(mixed);
    close_mind(&m);
}

/* Two personas together are their mean: of the same one twice, itself; of two, the mean of each
 * number, which is better for a text than the one that is not made for it. */
static void test_mixed(void) {
    static const char *const which[4] = { "a", "a.persona --persona " WORK "a", "b",
                                          "a.persona --persona " WORK "b" };
    double bits[4];
    write_sentences(WORK "cooks.txt", 1, 300);
    CHECK(persona(TEXT " -m " MODEL " --steps 15 -o " WORK "a.persona") == 0
          && persona(WORK "cooks.txt -m " MODEL " --steps 15 -o " WORK "b.persona") == 0, "two");
    for (int i = 0; i < 4; i++) {
        char words[512];
        snprintf(words, sizeof words, "perplexity " MODEL " -f " TEXT " --length 32 --persona "
                 WORK "%s.persona", which[i]);
        CHECK(call(command_perplexity, words) == 0, "%s", words);
        bits[i] = number_after("bits per byte");
    }
    CHECK(bits[0] == bits[1], "%g and %g", bits[0], bits[1]);
    CHECK(bits[3] < bits[2], "%g and %g", bits[3], bits[2]);
    check_mean(WORK "a.persona", WORK "b.persona");
    CHECK(persona(TEXT " -m " MODEL " --steps 1 --rows 2 -o " WORK "b.persona") == 0, "another");
    CHECK(call(command_run, "run " MODEL " -p The -n 3 --persona " WORK "a.persona --persona " WORK
               "b.persona") == 1, "another size");
    check_logged("can be mixed");
}

/* A mark of one persona does not fit another, whose position is the same. */
static void test_marks(void) {
    mind m;
    CHECK(persona(TEXT " -m " MODEL " --steps 2 -o " WORK "a.persona") == 0
          && persona(TEXT " -m " MODEL " --steps 2 --seed 2 -o " WORK "b.persona") == 0, "two");
    if (open_mind(&m, MODEL, GRIFFIN_KV_F32)) { CHECK(0, "opens"); return; }
    griffin_state *states[2];
    void *mark = malloc(griffin_mark_size(m.s.model));
    for (int i = 0; i < 2; i++) {
        size_t size;
        unsigned char *data = test_read(i ? WORK "b.persona" : WORK "a.persona", &size);
        states[i] = (griffin_state *)malloc(griffin_state_size(m.s.model));
        CHECK(griffin_load(m.s.model, states[i], NULL, NULL, data, size) == GRIFFIN_OK, "loads");
        free(data);
    }
    griffin_mark(m.s.model, states[0], mark);
    for (int i = 0; i < 2; i++) griffin_prefill(m.s.context, states[i], m.tokens, 3, NULL);
    CHECK(griffin_rewind(m.s.model, states[1], mark) == GRIFFIN_E_MISMATCH, "another persona");
    CHECK(griffin_rewind(m.s.model, states[0], mark) == GRIFFIN_OK, "its own");
    CHECK(griffin_state_position(states[0]) == 16, "back at its beginning");
    free(states[0]); free(states[1]); free(mark);
    close_mind(&m);
}

/* ---- what is refused ------------------------------------------------------------------------- */

static void check_refused(const char *words, const char *message) {
    int status = persona(words);
    CHECK(status == 1 || status == 2, "%s: %d", words, status);
    check_logged(message);
    CHECK(access(WORK "no.persona", F_OK) != 0, "%s left a file", words);
}

static void check_load_refused(const char *model, const char *message) {
    char words[256];
    snprintf(words, sizeof words, "run %s -p The -n 3 --persona " WORK "bad.persona", model);
    CHECK(call(command_run, words) == 1, "%s", words);
    check_logged(message);
}

static void test_refused(void) {
    size_t size;
    write_file(WORK "short.txt", "Too short. ", 11);
    write_file(WORK "empty.txt", "", 0);
    check_refused(WORK "short.txt -m " MODEL " -o " WORK "no.persona", "too little text");
    check_refused(WORK "empty.txt -m " MODEL " -o " WORK "no.persona", "too little text");
    check_refused(TEXT " -m " MODEL " --hold-out 0.001 -o " WORK "no.persona", "held out");
    check_refused(TEXT " -m " MODEL, "no output");
    check_refused(TEXT " -o " WORK "no.persona", "no model");
    check_refused("-m " MODEL " -o " WORK "no.persona", "no text");
    check_refused(TEXT " -m " TEXT " -o " WORK "no.persona", "text.txt");
    check_refused(TEXT " -m " MODEL " --time 3x -o " WORK "no.persona", "--time");
    check_refused(TEXT " -m " MODEL " --rows 0 -o " WORK "no.persona", "--rows");
    CHECK(persona(TEXT " -m " MODEL " --steps 1 -o " WORK "bad.persona") == 0, "a persona");
    check_load_refused(WORK "other.gguf", "another model");
    unsigned char *data = test_read(WORK "bad.persona", &size);
    write_file(WORK "bad.persona", data, size - 9);
    check_load_refused(MODEL, "damaged or cut");
    data[8]++;
    write_file(WORK "bad.persona", data, size);
    check_load_refused(MODEL, "newer");
    free(data);
}

/* Ctrl-C: status 130, and the file is a persona. */
static void test_interrupted(void) {
    struct timespec pause = { 0, 10000000 };
    int status = 0;
    remove(WORK "a.persona");
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        signal(SIGINT, SIG_DFL);            /* who runs the tests may ignore it */
        freopen(LOG, "wb", stdout);
        execl(self, self, "persona", TEXT, "-m", MODEL, "-o", WORK "a.persona", "--time", "1h",
              "--reports", "100000", "--length", "32", "--batch", "4", "--threads", "1",
              (char *)NULL);
        _exit(99);
    }
    while (access(WORK "a.persona", R_OK) && waitpid(child, NULL, WNOHANG) == 0)
        nanosleep(&pause, NULL);
    kill(child, SIGINT);
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 130, "%d", status);
    CHECK(call(command_run, "run " MODEL " -p The -n 3 --persona " WORK "a.persona") == 0, "runs");
}

int main(int argc, char **argv) {
    self = argv[0];
    if (argc > 1 && !strcmp(argv[1], "persona")) return command_persona(argc - 1, argv + 1);
    make_models();
    RUN(test_meaning);
    RUN(test_learns);
    RUN(test_kin);
    RUN(test_repeats);
    RUN(test_use);
    RUN(test_mixed);
    RUN(test_marks);
    RUN(test_refused);
    RUN(test_interrupted);
    return test_end();
}
