/* test_train.c - griffin train keeps its promises around the network: text becomes tokens that the
 * library agrees with, a run that was killed goes on as if nothing had happened, what is trained is
 * what is written, and nothing whole is ever replaced by something broken.
 *
 * The command runs in this process where it returns, and in a child of this very program where it
 * is to be killed. Files are made in TEST_TMP. */

#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "griffin.h"
#include "test.h"
#include "tools/train/bpe.h"
#include "tools/shared/json.h"
#include "tools/train/train.h"

#define WORK  TEST_TMP "train/"
#define TEXT  WORK "text.txt"
#define LOG   WORK "log.txt"
#include "command.h"
#define SIZES " --preset tiny --width 32 --heads 2 --layers 3 --vocab 300 --window 16 --batch 4" \
              " --length 32 --threads 1 "

int command_train(int argc, char **argv);
int command_perplexity(int argc, char **argv);
int command_convert(int argc, char **argv);

static char *self;                          /* this program */

static const char tale[] =
    "Once upon a time there was a miller who had three sons, a mill, an ass and a cat. The sons "
    "had to grind, the ass had to fetch the corn and carry the flour, and the cat had to catch "
    "the mice. When the miller died, the three sons shared what there was: the eldest got the "
    "mill, the second the ass, and nothing was left for the third but the cat.\n\n"
    "\"I have come off badly,\" he said to himself; \"my brothers can mill and ride, but what can "
    "I do with a cat? Have a pair of gloves made of its fur, and then it is all over.\" But the "
    "cat, who had understood it all, began to speak: \"You need not kill me for 2 bad gloves. "
    "Only have a pair of boots made for me, and you shall soon be helped.\"\n";

/* ---- running commands ------------------------------------------------------------------------ */

static void write_file(const char *path, const void *data, size_t size) {
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(data, 1, size, f) == size, "%s", path);
    if (f) fclose(f);
}

static void copy_file(const char *from, const char *to) {
    size_t size = 0;
    unsigned char *data = test_read(from, &size);
    write_file(to, data, size);
    free(data);
}

static void make_folders(void) {
    mkdir("build", 0777);
    mkdir(TEST_TMP, 0777);
    mkdir(WORK, 0777);
    write_file(TEXT, tale, sizeof tale - 1);
}

static int train(const char *words) {
    char all[2048];
    snprintf(all, sizeof all, "train" SIZES "%s", words);
    return call(command_train, all);
}

/* The number after the last such word in LOG; -1: there is none. */
static double logged(const char *word) {
    size_t size = 0;
    char *log = (char *)test_read(LOG, &size), *at = log, *found = NULL;
    double value = -1;
    while (at && (at = strstr(at, word)) != NULL) found = at += strlen(word);
    if (found) value = strtod(found, NULL);
    free(log);
    return value;
}

static int log_says(const char *words) {
    size_t size = 0;
    char *log = (char *)test_read(LOG, &size);
    for (size_t i = 0; log && i < size; i++) if (!log[i]) log[i] = '.';
    int found = log && strstr(log, words) != NULL;
    free(log);
    return found;
}

static int same_files(const char *a, const char *b) {
    size_t sizes[2] = { 0, 1 };
    unsigned char *x = test_read(a, &sizes[0]), *y = test_read(b, &sizes[1]);
    int same = x && y && sizes[0] == sizes[1] && !memcmp(x, y, sizes[0]);
    free(x);
    free(y);
    return same;
}

/* The same command in another process; limit: of the size of files, or 0. */
static pid_t start(const char *words, rlim_t limit) {
    char copy[2048], *argv[64];
    pid_t child;
    snprintf(copy, sizeof copy, "%s train" SIZES "%s", self, words);
    fflush(stdout);
    if ((child = fork()) != 0) return child;
    split_words(copy, argv);
    if (limit) {
        struct rlimit most = { limit, limit };
        setrlimit(RLIMIT_FSIZE, &most);
        signal(SIGXFSZ, SIG_IGN);
    }
    freopen(LOG, "wb", stdout);
    freopen(LOG, "ab", stderr);
    execv(self, argv);
    _exit(99);
}

static int end_of(pid_t child) {
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* Waits for a file, so long as the child lives. */
static void await_file(const char *path, pid_t child) {
    struct timespec pause = { 0, 1000000 };
    while (!path_exists(path) && waitpid(child, NULL, WNOHANG) == 0) nanosleep(&pause, NULL);
}

static griffin_model *open_model(const char *path) {
    griffin_model *model = NULL;
    CHECK(griffin_open_file(&model, path, NULL) == GRIFFIN_OK, "%s", path);
    return model;
}

/* ---- tokens ---------------------------------------------------------------------------------- */

static const char mixed[] =
    "Na\xC3\xAFve caf\xC3\xA9s don't cost 1234 \xE2\x82\xAC; \xE2\x80\x9Cso what?\xE2\x80\x9D said "
    "the cat's cat,   and the cat sat and sat.\n\n\n\tEnd \xF0\x9F\x98\x80\xF0\x9F\x98\x80.\r\n";

/* Broken bytes as the library reads them: each becomes U+FFFD. */
static size_t mend(const unsigned char *from, size_t size, char *to) {
    size_t n, length = 0;
    for (size_t at = 0; at < size; at += n ? n : 1) {
        n = utf8_length(from + at, size - at);
        memcpy(to + length, n ? (const char *)from + at : "\xEF\xBF\xBD", n ? n : 3);
        length += n ? n : 3;
    }
    return length;
}

static void check_round_trip(const griffin_model *model, const void *text, size_t size) {
    static int32_t tokens[4096];
    static char wanted[4096], got[4096];
    griffin_decoder decoder;
    size_t length = 0, expected = mend((const unsigned char *)text, size, wanted);
    int count = griffin_encode(model, NULL, (const char *)text, size, tokens, 4096);
    memset(&decoder, 0, sizeof decoder);
    for (int i = 0; i <= count; i++)
        length += (size_t)griffin_decode(model, &decoder, i < count ? tokens[i] : -1, got + length,
                                         sizeof got - length);
    CHECK(length == expected && !memcmp(got, wanted, length), "%lu bytes came back as %lu",
          (unsigned long)expected, (unsigned long)length);
}

static size_t put_utf8(unsigned c, unsigned char *to) {
    if (c < 0x80) { to[0] = (unsigned char)c; return 1; }
    if (c < 0x800) {
        to[0] = (unsigned char)(0xC0 | c >> 6);
        to[1] = (unsigned char)(0x80 | (c & 63));
        return 2;
    }
    to[0] = (unsigned char)(0xE0 | c >> 12);
    to[1] = (unsigned char)(0x80 | (c >> 6 & 63));
    to[2] = (unsigned char)(0x80 | (c & 63));
    return 3;
}

static void test_tokens_come_back_as_text(void) {
    griffin_model *model;
    unsigned char bytes[1024];
    uint64_t state = 7;
    write_file(WORK "mixed.txt", mixed, sizeof mixed - 1);
    CHECK(train(WORK "mixed.txt -o " WORK "mixed.gguf --steps 1 --hold-out 0") == 0, "trains");
    if ((model = open_model(WORK "mixed.gguf")) == NULL) return;
    for (unsigned c = 0; c < 256; c++) {
        bytes[0] = (unsigned char)c;
        check_round_trip(model, bytes, 1);
    }
    for (unsigned c = 1; c < 0xD800; c += c < 0x3000 ? 1 : 37) {
        if (c == 0x2581) continue;                          /* stands for a space */
        check_round_trip(model, bytes, put_utf8(c, bytes));
    }
    check_round_trip(model, mixed, sizeof mixed - 1);
    check_round_trip(model, tale, sizeof tale - 1);
    for (int i = 0; i < 200; i++) {
        size_t size = (size_t)random_below(&state, sizeof bytes);
        for (size_t k = 0; k < size; k++) bytes[k] = (unsigned char)random_next(&state);
        check_round_trip(model, bytes, size);
    }
    griffin_close(model);
}

/* The definition: of all neighbours whose text is a piece the one with the best score, the leftmost
 * of these, is merged, until there are none. */
static int encode_naively(const vocabulary *v, const char *text, size_t size, int32_t *tokens) {
    static char spaced[8192];
    size_t first[4096], length = 0;
    int count = 0, best;
    for (size_t at = 0, n; at < size; at += n) {
        n = utf8_length((const unsigned char *)text + at, size - at);
        first[count++] = length;
        int blank = text[at] == ' ';
        memcpy(spaced + length, blank ? "\xE2\x96\x81" : text + at, blank ? 3 : n);
        length += blank ? 3 : n;
    }
    first[count] = length;
    do {
        best = -1;
        float score = 0;
        for (int i = 0; i + 1 < count; i++) {
            int id = vocabulary_find(v, spaced + first[i], first[i + 2] - first[i],
                                     GRIFFIN_TOKEN_NORMAL);
            if (id < 0 || (best >= 0 && v->pieces[id].score <= score)) continue;
            best = i;
            score = v->pieces[id].score;
        }
        if (best < 0) break;
        memmove(first + best + 1, first + best + 2, (size_t)(count - best - 1) * sizeof *first);
        count--;
    } while (best >= 0);
    int written = 0;
    for (int i = 0; i < count; i++) {
        int id = vocabulary_find(v, spaced + first[i], first[i + 1] - first[i],
                                 GRIFFIN_TOKEN_NORMAL);
        if (id >= 0) { tokens[written++] = id; continue; }
        for (size_t k = first[i]; k < first[i + 1]; k++)
            tokens[written++] = 4 + (unsigned char)spaced[k];
    }
    return written;
}

static void check_encoding(const griffin_model *model, const vocabulary *v, const char *text) {
    static int32_t wanted[8192], got[8192];
    griffin_encoding encoding;
    int count = encode_naively(v, text, strlen(text), wanted);
    memset(&encoding, 0, sizeof encoding);
    encoding.no_bos = 1;
    int n = griffin_encode(model, &encoding, text, strlen(text), got, 8192);
    CHECK(n == count && !memcmp(got, wanted, (size_t)n * sizeof *got), "%d tokens, not %d", n,
          count);
}

static void test_tokens_are_the_encoders(void) {
    vocabulary v;
    report r;
    griffin_model *model;
    memset(&v, 0, sizeof v);
    CHECK(bpe_train(&v, tale, sizeof tale - 1, 400, &r) == 0, "%s", r.text);
    CHECK(train(TEXT " -o " WORK "tale.gguf --steps 1 --hold-out 0 --vocab 400") == 0, "trains");
    CHECK(v.count > 330 && v.count <= 400, "%lu pieces", (unsigned long)v.count);
    if ((model = open_model(WORK "tale.gguf")) == NULL) return;
    CHECK(vocabulary_find(&v, "\xE2\x96\x81the", 6, GRIFFIN_TOKEN_NORMAL) > 0, "frequent words");
    for (size_t i = 0; i < v.count; i++) {
        CHECK(v.pieces[i].score == (i < 260 ? 0 : -(float)(i - 260)), "the order of merges");
        int id = griffin_find_token(model, v.text + v.pieces[i].text.at, v.pieces[i].text.length);
        CHECK(id == (int)i, "piece %lu is %d", (unsigned long)i, id);
    }
    check_encoding(model, &v, tale);
    check_encoding(model, &v, mixed);
    check_encoding(model, &v, "the thethe  catthe 2had");
    vocabulary_free(&v);
    griffin_close(model);
}

static void test_vocabularies_repeat(void) {
    vocabulary v[2];
    report r;
    memset(v, 0, sizeof v);
    for (int i = 0; i < 2; i++)
        CHECK(bpe_train(&v[i], tale, sizeof tale - 1, 350, &r) == 0, "%s", r.text);
    CHECK(v[0].text_size == v[1].text_size && !memcmp(v[0].text, v[1].text, v[0].text_size),
          "another vocabulary");
    for (size_t i = 260; i < v[0].count; i++) {
        const char *text = v[0].text + v[0].pieces[i].text.at;
        size_t n = v[0].pieces[i].text.length;
        CHECK(n == 1 || !memchr(text, '2', n), "a digit stands alone, not in '%.*s'", (int)n, text);
        CHECK(n <= 3 || !memchr(text + 1, '\xE2', n - 1), "a space begins '%.*s'", (int)n, text);
    }
    vocabulary_free(&v[0]);
    vocabulary_free(&v[1]);
    CHECK(bpe_train(&v[0], tale, sizeof tale - 1, 260, &r) == -1 && strstr(r.text, "261"), "few");
}

/* ---- batches --------------------------------------------------------------------------------- */

/* A corpus of 9 documents of 3 to 11 tokens; every token occurs once. 2 is bos, 1 eos, 3 the
 * gap. */
enum { DOCUMENTS = 9, TOKENS = 63 };

static void make_corpus(corpus *c, float run_on) {
    static int32_t tokens[TOKENS], gap[1] = { 3 };
    static int first[DOCUMENTS + 1];
    memset(c, 0, sizeof *c);
    for (int i = 0; i < TOKENS; i++) tokens[i] = 10 + i;
    for (int d = 0; d < DOCUMENTS; d++) first[d + 1] = first[d] + 3 + d;
    c->tokens.data = tokens;
    c->tokens.count = TOKENS;
    c->gap.data = gap;
    c->gap.count = 1;
    c->first = first;
    c->documents = DOCUMENTS;
    c->bos = 2;
    c->eos = 1;
    c->epoch = -1;
    c->run_on = run_on;
}

static void free_epoch(corpus *c) {
    free(c->inputs);
    free(c->targets);
    free(c->fresh);
}

static int is_last(int32_t token) {         /* of its document */
    for (int d = 0, end = 10; d < DOCUMENTS; d++) if (token == (end += 3 + d) - 1) return 1;
    return 0;
}

/* Rows are streams: each token is followed by the next of its document, across batches too. */
static void check_epoch(float run_on, uint64_t seed, int *begun) {
    enum { LENGTH = 4, ROWS = 2, STEPS = (TOKENS + DOCUMENTS) / (LENGTH * ROWS) };
    int seen[100] = { 0 }, repeated = 0, missed = 0, order_differs = 0;
    int32_t before[ROWS] = { 0 };
    corpus c, other;
    batch b[2];
    make_corpus(&c, run_on);
    make_corpus(&other, run_on);
    for (int i = 0; i < 2; i++) CHECK(batch_new(&b[i], ROWS, LENGTH) == 0, "memory");
    for (int n = 0; n < STEPS; n++) {
        corpus_batch(&c, seed, n, &b[0]);
        corpus_batch(&other, seed + 1, n, &b[1]);
        order_differs |= memcmp(b[0].targets, b[1].targets, sizeof(int32_t) * ROWS * LENGTH) != 0;
        for (int i = 0; i < ROWS * LENGTH; i++) {
            int32_t token = b[0].tokens[i], target = b[0].targets[i], *last = &before[i / LENGTH];
            int starts = token == 2 || token == 3;
            if (target > 3 && seen[target]++) repeated++;
            CHECK(target != 2, "bos is not predicted");
            CHECK(b[0].fresh[i] == (token == 2), "bos, and only bos, begins afresh");
            if (n || i % LENGTH)
                CHECK(token == *last || (starts && *last == 1), "%d follows %d", token, *last);
            if (!starts) CHECK(is_last(token) ? target == 1 || target == 3 : target == token + 1,
                               "%d before %d", token, target);
            *last = target;
            begun[token == 3] += starts;
            begun[2] += target == 3;
        }
    }
    for (int i = 10; i < 10 + TOKENS; i++) missed += seen[i] == 0;
    CHECK(repeated == 0 && missed <= ROWS, "%d twice, %d never", repeated, missed);
    CHECK(order_differs, "another seed has another order");
    batch_free(&b[0]);
    batch_free(&b[1]);
    free_epoch(&c);
    free_epoch(&other);
}

static void test_an_epoch_is_every_document_once(void) {
    int begun[3] = { 0, 0, 0 };             /* afresh, after a blank line, after a foreseen one */
    check_epoch(0, 5, begun);
    CHECK(begun[0] >= DOCUMENTS && begun[1] == 0, "all afresh, not %d and %d", begun[0], begun[1]);
    memset(begun, 0, sizeof begun);
    check_epoch(1, 5, begun);
    CHECK(begun[0] <= 2 && begun[1] >= DOCUMENTS - 2, "all run on, not %d and %d", begun[0],
          begun[1]);
    memset(begun, 0, sizeof begun);
    for (uint64_t seed = 0; seed < 20; seed++) check_epoch(0.5f, 2 * seed, begun);
    CHECK(begun[0] > 60 && begun[1] > 60, "both, not %d and %d", begun[0], begun[1]);
    CHECK(begun[2] > 20 && begun[2] < begun[1] - 20, "%d of %d foreseen", begun[2], begun[1]);
}

static int is_said_again(const int32_t *row, int column) {
    for (int back = 1; back <= 24 && back <= column; back++)
        if (row[column] == row[column - back]) return 1;
    return 0;
}

/* The share is right, the wrong tokens are of the text (3 is its blank line), most of them say
 * again what was just read, and what is predicted is untouched. */
static void test_noise_is_only_read(void) {
    enum { LENGTH = 64, ROWS = 2, STEPS = 500, SCORED = LENGTH * ROWS * STEPS };
    int wrong = 0, alone = 0;
    corpus noisy, plain;
    batch b[2];
    make_corpus(&noisy, 0.9f);
    make_corpus(&plain, 0.9f);
    noisy.noise = 0.1f;
    for (int i = 0; i < 2; i++) CHECK(batch_new(&b[i], ROWS, LENGTH) == 0, "memory");
    for (int n = 0; n < STEPS; n++) {
        corpus_batch(&noisy, 1, n, &b[0]);
        corpus_batch(&plain, 1, n, &b[1]);
        CHECK(memcmp(b[0].targets, b[1].targets, sizeof(int32_t) * LENGTH * ROWS) == 0
              && memcmp(b[0].fresh, b[1].fresh, LENGTH * ROWS) == 0, "targets stay");
        for (int i = 0; i < LENGTH * ROWS; i++) {
            int32_t token = b[0].tokens[i];
            if (token == b[1].tokens[i]) continue;
            CHECK((token == 3 || (token >= 10 && token < 10 + TOKENS)) && !b[0].fresh[i],
                  "token %d", token);
            wrong++;
            alone += !is_said_again(b[0].tokens + i / LENGTH * LENGTH, i % LENGTH);
        }
    }
    CHECK(wrong > SCORED / 20 && wrong < SCORED / 10, "%d of %d", wrong, SCORED);
    CHECK(alone > wrong / 5 && alone < wrong * 3 / 5, "%d of %d alone", alone, wrong);
    batch_free(&b[0]);
    batch_free(&b[1]);
    free_epoch(&noisy);
    free_epoch(&plain);
}

static void test_documents_end_where_they_should(void) {
    static const struct { const char *text, *documents; text_split split; } texts[] = {
        { "a\nb\n<|endoftext|>\nc", "[a\nb][c]", SPLIT_GAPS },
        { "<|endoftext|>\na<|endoftext|>b\n<|endoftext|>\n<|endoftext|>\n", "[a][b]", SPLIT_GAPS },
        { "a\n\nb\n\n\nc\fd\n", "[a\n\nb][c][d\n]", SPLIT_GAPS },
        { "a\nb\n<|endoftext|>\nc\n\n", "[a][b][c]", SPLIT_LINES },
        { "a\n\n\nb<|endoftext|>", "[a\n\n\nb<|endoftext|>]", SPLIT_NONE },
        { "<|endoftext", "[<|endoftext]", SPLIT_GAPS }
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        char got[100] = "";
        const unsigned char *text = (const unsigned char *)texts[i].text, *document;
        size_t at = 0, size = strlen(texts[i].text), length;
        while ((document = document_next(text, size, texts[i].split, &at, &length)))
            snprintf(got + strlen(got), sizeof got - strlen(got), "[%.*s]", (int)length, document);
        CHECK(!strcmp(got, texts[i].documents), "%s, not %s", got, texts[i].documents);
    }
}

/* Eight keys with a value each; later each key once more, and its value is the answer. */
static void check_recall(const int32_t *tokens, const int32_t *targets, int length) {
    int asked = 0;
    for (int i = 0; i < 16; i++) CHECK(targets[i] == -1, "no question at %d", i);
    for (int i = 16; i < length; i++) {
        int pair = 0;
        if (tokens[i] == 0) { CHECK(targets[i] == -1, "noise at %d", i); continue; }
        while (pair < 16 && tokens[pair] != tokens[i]) pair += 2;
        CHECK(pair < 16 && targets[i] == tokens[pair + 1] && targets[i] >= 33, "answer at %d", i);
        for (int k = 16; k < i; k++) CHECK(tokens[k] != tokens[i], "asked twice, at %d", i);
        asked++;
    }
    CHECK(asked == 8, "%d questions", asked);
}

static void test_answers_of_tasks_are_right(void) {
    enum { LENGTH = 64, ROWS = 8 };
    batch b;
    CHECK(batch_new(&b, ROWS, LENGTH) == 0, "memory");
    task_batch(TASK_COPYING, 3, 0, &b);
    for (int row = 0; row < ROWS; row++) {
        const int32_t *tokens = b.tokens + row * LENGTH, *targets = b.targets + row * LENGTH;
        int answer = LENGTH - 16;
        for (int i = 0; i < LENGTH - 16; i++)
            if (tokens[i] >= 2) CHECK(targets[answer++] == tokens[i], "colour %d", i);
        CHECK(answer == LENGTH && batch_scored(&b) == 16 * ROWS, "16 answers");
    }
    task_batch(TASK_INDUCTION, 3, 0, &b);
    for (int row = 0; row < ROWS; row++) {
        const int32_t *tokens = b.tokens + row * LENGTH;
        int signal = 0;
        while (tokens[signal] != 1) signal++;
        CHECK(signal < LENGTH - 2 && tokens[LENGTH - 1] == 1, "one signal before the last");
        CHECK(b.targets[row * LENGTH + LENGTH - 1] == tokens[signal + 1], "what came after it");
    }
    CHECK(batch_scored(&b) == ROWS, "one answer each");
    batch_free(&b);
    CHECK(batch_new(&b, ROWS, LENGTH) == 0, "memory");
    task_batch(TASK_RECALL, 3, 0, &b);
    for (int row = 0; row < ROWS; row++) check_recall(b.tokens + row * LENGTH,
                                                      b.targets + row * LENGTH, LENGTH);
    CHECK(batch_scored(&b) == 8 * ROWS, "8 answers");
    batch_free(&b);
    CHECK(train("--task recall --kind hgrn2 --steps 3 --reports 1 -o " WORK "task.gguf") == 0
          && log_says("right at 512"), "trains");
    CHECK(train("--task induction --steps 3 --reports 1 -o " WORK "task.gguf") == 0, "trains");
    CHECK(log_says("right at 512"), "accuracies for longer texts");
}

/* ---- training -------------------------------------------------------------------------------- */

static void test_a_paragraph_is_learned_by_heart(void) {
    char words[512];
    CHECK(train(TEXT " -o " WORK "heart.gguf --steps 1 --hold-out 0") == 0, "trains");
    double first = logged("loss ");
    CHECK(train(TEXT " -o " WORK "heart.gguf --steps 200 --rate 0.02 --length 128 --hold-out 0"
                " --plot " WORK "heart.svg") == 0, "trains");
    double last = logged("loss ");
    CHECK(first > 5 && last < 0.3 && last > 0, "from %g to %g", first, last);
    snprintf(words, sizeof words, "perplexity -m %s -f %s", WORK "heart.gguf", TEXT);
    CHECK(call(command_perplexity, words) == 0, "runs");
    CHECK(logged("nats per token") < 0.5, "the library knows it: %g", logged("nats per token"));
    CHECK(path_exists(WORK "heart.svg"), "a plot");
}

/* A rate at which the held-out text is soon predicted worse. */
static void test_the_best_model_is_kept_or_the_last(void) {
#define RASH TEXT " --name m --steps 8 --rate 1 -o " WORK
    CHECK(train(RASH "best.gguf --reports 8") == 0, "trains");
    CHECK(train(RASH "last.gguf --reports 8 --keep-last") == 0, "trains");
    CHECK(train(RASH "once.gguf --reports 1") == 0, "trains");
    CHECK(!same_files(WORK "best.gguf", WORK "last.gguf"), "two models");
    CHECK(same_files(WORK "once.gguf", WORK "last.gguf"), "the only report's is the last");
#undef RASH
}

/* What train says of the held-out text, and perplexity of the model. */
static void check_same_loss(const char *options, const char *measured) {
    char words[512];
    snprintf(words, sizeof words, TEXT " -o " WORK "m.gguf --valid " WORK "valid.txt --steps 20"
             " --length 8 --reports 1 %s", options);
    CHECK(train(words) == 0, "trains");
    double loss = logged("held out ");
    double bits = logged("(");
    snprintf(words, sizeof words, "perplexity -m " WORK "m.gguf -f " WORK "valid.txt -c 3 %s",
             measured);
    CHECK(call(command_perplexity, words) == 0, "measures");
    CHECK(fabs(loss - logged("nats per token")) < 1e-4, "%s: %g, not %g", options,
          logged("nats per token"), loss);
    CHECK(fabs(bits - logged("bits per byte")) < 1e-4, "%s: %g, not %g", options,
          logged("bits per byte"), bits);
}

/* Documents with nothing before them, or stretches of one document. */
static void test_the_loss_is_the_librarys(void) {
    static const char held_out[] = "The cat said: \"a mill has no flour\", and was gone.";
    static const char documents[] = "The cat said: \"a mill has no flour\".\n<|endoftext|>\n"
                                    "The sons shared boots.\n\n\nThe cat ground the corn.\n";
    write_file(WORK "valid.txt", held_out, sizeof held_out - 1);
    check_same_loss("--afresh", "--length 8");
    check_same_loss("", "");
    check_same_loss("--kind hgrn2", "");
    check_same_loss("--kind supra", "");
    check_same_loss("--blocks rahs", "");
    write_file(WORK "valid.txt", documents, sizeof documents - 1);
    check_same_loss("", "--split gaps");
    check_same_loss("--run-on 1", "--split gaps");
    double afresh = logged("nats per token");
    CHECK(call(command_perplexity, "perplexity -m " WORK "m.gguf -f " WORK "valid.txt --split gaps"
               " --run-on") == 0 && logged("bytes") == 83, "%g bytes", logged("bytes"));
    CHECK(logged("nats per token") > 0 && fabs(logged("nats per token") - afresh) > 1e-4,
          "what came before changes nothing: %g", afresh);
}

/* In the last fifth the held-out loss is that of the rounded network, and the file is exact. */
static void test_steps_for_rounded_weights(void) {
    static const struct { const char *type; double apart; } types[] = {
        { "q8_0", 0.01 }, { "q4_0", 0.05 }                  /* activations are rounded there too */
    };
    for (int i = 0; i < 2; i++) {
        char words[512];
        snprintf(words, sizeof words, TEXT " -o " WORK "r.gguf --steps 150 --rate 0.02 --reports 1"
                 " --valid " TEXT " --quantise %s --type %s", types[i].type, types[i].type);
        CHECK(train(words) == 0, "trains");
        double loss = logged("held out ");
        CHECK(call(command_perplexity, "perplexity -m " WORK "r.gguf -f " TEXT) == 0, "measures");
        CHECK(fabs(loss - logged("nats per token")) < types[i].apart, "%s: %g, not %g",
              types[i].type, logged("nats per token"), loss);
    }
}

static void test_models_move_to_other_layouts_and_back(void) {
    CHECK(train(TEXT " -o " WORK "m.gguf --name m --steps 3 --save-hf " WORK "hf") == 0, "trains");
    CHECK(call(command_convert, "convert " WORK "hf " WORK "hf.gguf --type f32 --name m") == 0,
          "reads a directory");
    CHECK(same_files(WORK "m.gguf", WORK "hf.gguf"), "the directory is the same model");
    CHECK(call(command_convert, "convert " WORK "m.gguf " WORK "r.gguf --type f32 --name m") == 0,
          "reads a GGUF file");
    CHECK(same_files(WORK "m.gguf", WORK "r.gguf"), "the file is the same model");
    CHECK(call(command_train, "train --from " WORK "hf " TEXT " -o " WORK "f.gguf --name m "
               "--steps 1 --rate 1e-30 --hold-out 0") == 0, "goes on from a directory");
    CHECK(same_files(WORK "m.gguf", WORK "f.gguf"), "without learning it stays");
    CHECK(call(command_train, "train --from " WORK "m.gguf " TEXT " -o " WORK "f.gguf --steps 1"
               " --type q8_0 --hold-out 0 --length 32") == 0, "goes on from a file");
    CHECK(call(command_train, "train --from " WORK "f.gguf " TEXT " -o " WORK "g.gguf --steps 1")
          == 1 && log_says("cannot be used"), "not from int8");
}

/* What a model predicts after some tokens. */
static float *logits_of(const char *path, int *count) {
    griffin_model *model = open_model(path);
    griffin_context_options o;
    memset(&o, 0, sizeof o);
    size_t size = griffin_context_size(model, &o), state_size = griffin_state_size(model);
    void *memory = NULL;
    griffin_context *context;
    if (posix_memalign(&memory, 64, size)) exit(1);
    CHECK(griffin_context_init(&context, model, &o, memory, size) == GRIFFIN_OK, "a context");
    griffin_state *state = (griffin_state *)calloc(1, state_size);
    *count = griffin_get_info(model)->config.vocab;
    float *logits = (float *)malloc((size_t)*count * sizeof *logits);
    for (int i = 0; i < 20; i++) griffin_step(context, state, 4 + i * 7 % 250, logits);
    free(state);
    free(memory);
    griffin_close(model);
    return logits;
}

/* flash-linear-attention's layout, also with layers of attention. */
static void check_hgrn2_layout(const char *options) {
    char words[512];
    int counts[2];
    snprintf(words, sizeof words, TEXT " -o " WORK "h.gguf --kind hgrn2 --steps 20 --save-hf " WORK
             "fla --valid " TEXT " --reports 1 %s", options);
    CHECK(train(words) == 0, "%s", options);
    double loss = logged("held out ");
    CHECK(call(command_convert, "convert " WORK "fla " WORK "fla.gguf --type f32") == 0,
          "%s: reads a directory", options);
    float *own = logits_of(WORK "h.gguf", &counts[0]);
    float *its = logits_of(WORK "fla.gguf", &counts[1]);
    CHECK(counts[0] == counts[1] && !memcmp(own, its, (size_t)counts[0] * sizeof *own),
          "%s: the same logits", options);
    free(own);
    free(its);
    for (int i = 0; i < 3; i++) {
        static const char *const from[] = { "h.gguf", "fla", "h.gguf --layers 5" };
        snprintf(words, sizeof words, "train --from " WORK "%s " TEXT " -o " WORK "f.gguf --steps 1"
                 " --rate 1e-30 --reports 1 --valid " TEXT " --length 32 --batch 4", from[i]);
        CHECK(call(command_train, words) == 0 && fabs(logged("before the first step: held out ")
              - loss) < 1e-3, "%s: goes on from %s", options, from[i]);
    }
}

static void test_hgrn2_moves_to_other_layouts_and_back(void) {
    check_hgrn2_layout("");
    check_hgrn2_layout("--blocks hah");
    CHECK(train(TEXT " -o " WORK "h.gguf --kind supra --steps 1 --save-hf " WORK "none") == 1
          && log_says("there is no layout for these blocks"), "SUPRA has none");
}

/* Attention becomes recurrent: what fits is copied and named, and the loss falls. */
static void check_uptraining(const char *options, const char *copied, const char *begun,
                             double trained) {
    char words[512];
    snprintf(words, sizeof words, "train --from " WORK "a.gguf " TEXT " -o " WORK "s.gguf --steps 40"
             " --rate 0.01 --reports 1 --valid " TEXT " --length 32 --batch 4 %s", options);
    CHECK(call(command_train, words) == 0, "%s", options);
    CHECK(log_says(copied) && log_says(begun), "%s: '%s' and '%s'", options, copied, begun);
    double before = logged("before the first step: held out ");
    double after = logged("  held out ");
    CHECK(before > trained && after < before && after > 0, "%s: from %g by %g to %g", options,
          trained, before, after);
    CHECK(call(command_perplexity, "perplexity -m " WORK "s.gguf -f " TEXT) == 0
          && fabs(logged("nats per token") - after) < 1e-3, "%s: the library says %g, not %g",
          options, logged("nats per token"), after);
}

static void test_attention_becomes_recurrent(void) {
    CHECK(train(TEXT " -o " WORK "a.gguf --kind attention --steps 150 --rate 0.01 --valid " TEXT
                " --reports 1") == 0, "trains");
    double loss = logged("held out ");
    check_uptraining("--kind supra", "3 x temporal_block.k_proj.weight", "new: 3 x "
                     "temporal_block.q_proj.bias", loss);
    check_uptraining("--kind supra --features random", "copied: embed_tokens.weight", "new: ",
                     loss);
    check_uptraining("--kind supra --mixer-only", "copied: embed_tokens.weight", "new: ", loss);
    check_uptraining("--kind hgrn2", "3 x temporal_block.q_proj.weight", "left out: 3 x "
                     "temporal_block.k_proj.weight", loss);
    check_uptraining("--blocks aas", "3 x temporal_block.o_proj.weight", "new: 1 x ", loss);
    CHECK(call(command_train, "train --from " WORK "a.gguf " TEXT " -o " WORK "s.gguf --kind hawk")
          == 1 && log_says("layer 0 cannot become r"), "only what needs nothing else");
}

static void test_layers_are_added_without_a_change(void) {
    CHECK(train(TEXT " -o " WORK "m.gguf --steps 20 --valid " TEXT) == 0, "trains");
    double loss = logged("held out ");
    CHECK(call(command_train, "train --from " WORK "m.gguf --layers 5 " TEXT " -o " WORK "f.gguf "
               "--steps 1 --rate 1e-30 --reports 1 --valid " TEXT " --length 32 --batch 4") == 0
          && log_says("in 5 layers"), "goes on with more layers");
    CHECK(fabs(loss - logged("held out ")) < 1e-3, "%g, not %g", logged("held out "), loss);
    CHECK(call(command_train, "train --from " WORK "m.gguf --layers 2 " TEXT " -o " WORK "g.gguf")
          == 1 && log_says("has 3, expected so many or more"), "not with fewer");
}

/* ---- accidents ------------------------------------------------------------------------------- */

#define LONG TEXT " --steps 60 --reports 30 --hold-out 0.1 --name m "

static void check_killed(const char *options, int sent) {
    char words[512];
    snprintf(words, sizeof words, LONG "%s -o " WORK "whole.gguf", options);
    CHECK(train(words) == 0, "trains");
    remove(WORK "ck");
    snprintf(words, sizeof words, LONG "%s -o " WORK "killed.gguf --resume --checkpoint " WORK "ck",
             options);
    pid_t child = start(words, 0);
    await_file(WORK "ck", child);
    kill(child, sent);
    int end = end_of(child);
    CHECK(end == 0 || end == 130 || end == -SIGKILL || end == -SIGINT, "ended with %d", end);
    CHECK(train(words) == 0, "goes on");
    CHECK(same_files(WORK "whole.gguf", WORK "killed.gguf"), "%s: not the same after signal %d",
          options, sent);
}

static void test_a_killed_run_goes_on_exactly(void) {
    check_killed("", SIGKILL);
    check_killed("--run-on 0.5 --muon 0.9 --quantise q4_0 --dropout 0.1 --noise 0.1", SIGKILL);
    check_killed("--afresh", SIGKILL);
    check_killed("--blocks ash --muon 0.9 --dropout 0.2", SIGKILL);
    check_killed("", SIGINT);
}

/* The limit lets nothing through, or the model, which is written first, but not the checkpoint. */
static void check_full_disk(rlim_t limit, int model_changes) {
    int end;
    remove(WORK "ck");
    CHECK(train(TEXT " --steps 6 --reports 3 -o " WORK "m.gguf --checkpoint " WORK "ck") == 0,
          "trains");
    copy_file(WORK "ck", WORK "ck.old");
    copy_file(WORK "m.gguf", WORK "m.old");
    end = end_of(start(TEXT " --steps 20 --reports 3 -o " WORK "m.gguf --resume --checkpoint " WORK
                       "ck", limit));
    CHECK(end == 1 && log_says("File too large"), "ended with %d", end);
    CHECK(same_files(WORK "ck", WORK "ck.old"), "the checkpoint changed");
    CHECK(same_files(WORK "m.gguf", WORK "m.old") != model_changes, "the model, limit %ld",
          (long)limit);
}

static void test_a_full_disk_leaves_what_is_there(void) {
    size_t size = 0;
    check_full_disk(20000, 0);
    free(test_read(WORK "ck", &size));
    check_full_disk(size - 1, 1);
}

/* Refused, with these words, and the file stays. */
static void check_refused(const char *path, const char *options, const char *expected) {
    char words[512];
    size_t before = 0, after = 0;
    unsigned char *old = test_read(path, &before);
    snprintf(words, sizeof words, TEXT " --steps 6 -o " WORK "x.gguf --resume --checkpoint %s %s",
             path, options);
    CHECK(train(words) == 1 && log_says(expected), "should say '%s'", expected);
    unsigned char *new = test_read(path, &after);
    CHECK(before == after && !memcmp(old, new, before), "%s changed", path);
    free(old);
    free(new);
}

static void test_damaged_checkpoints_are_refused(void) {
    size_t size = 0;
    remove(WORK "ck");
    CHECK(train(TEXT " --steps 2 -o " WORK "x.gguf --checkpoint " WORK "ck") == 0, "trains");
    CHECK(train(TEXT " --steps 2 -o " WORK "x.gguf --checkpoint " WORK "ck") == 1
          && log_says("exists already"), "is not overwritten by a new run");
    unsigned char *data = test_read(WORK "ck", &size);
    for (size_t at = 0; at < size; at += size / 7) {
        data[at] ^= 16;
        write_file(WORK "bad", data, size);
        check_refused(WORK "bad", "", at ? "damaged" : "not a checkpoint");
        data[at] ^= 16;
    }
    write_file(WORK "bad", data, size - 1);
    check_refused(WORK "bad", "", "damaged");
    write_file(WORK "bad", data, 20);
    check_refused(WORK "bad", "", "damaged");
    write_file(WORK "bad", data, 0);
    check_refused(WORK "bad", "", "not a checkpoint");
    check_refused(WORK "ck", "--width 64", "another network");
    check_refused(WORK "ck", "--seed 2", "another network");
    check_refused(WORK "ck", "--valid " TEXT, "another network");   /* then it learns all of it */
    free(data);
}

/* Where 8 bytes of the progress are, what is put there, and where the checksum fits again. */
static void test_forged_checkpoints_are_refused(void) {
    const double nan = NAN;
    int64_t numbers[8] = { -1, -1, INT64_MAX, 0, -1, 600, -300000, 1000000 };
    const size_t places[8] = {
        offsetof(train_progress, steps), offsetof(train_progress, updates),
        offsetof(train_progress, tokens), offsetof(train_progress, seconds),
        offsetof(train_progress, learned), offsetof(train_progress, learned),
        offsetof(train_progress, validated), offsetof(train_progress, validated)
    };
    size_t size = 0;
    memcpy(&numbers[3], &nan, 8);
    remove(WORK "ck");
    CHECK(train(TEXT " --steps 2 -o " WORK "x.gguf --checkpoint " WORK "ck") == 0, "trains");
    unsigned char *data = test_read(WORK "ck", &size), old[8];
    for (int i = 0; i < 8; i++) {
        unsigned char *at = data + sizeof "griffin training 1" + 8 + places[i];
        uint64_t hash = 0;
        memcpy(old, at, 8);
        memcpy(at, &numbers[i], 8);
        for (size_t k = 0; k < size - 8; k++) hash = (hash ^ data[k]) * 1099511628211u;
        memcpy(data + size - 8, &hash, 8);
        write_file(WORK "bad", data, size);
        check_refused(WORK "bad", "", "damaged");
        memcpy(at, old, 8);
    }
    free(data);
}

static void check_corpus(const void *data, size_t size, int status, const char *expected) {
    write_file(WORK "odd.txt", data, size);
    remove(WORK "odd.gguf");
    CHECK(train(WORK "odd.txt -o " WORK "odd.gguf --steps 2 --sample 5") == status, "%s", expected);
    CHECK(log_says(expected), "should say '%s'", expected);
    CHECK(path_exists(WORK "odd.gguf") == !status, "an output or none");
    CHECK(!path_exists(WORK "odd.gguf.part"), "a partial file");
}

static void test_odd_texts(void) {
    static unsigned char noise[20000];
    uint64_t state = 1;
    for (size_t i = 0; i < sizeof noise; i++) noise[i] = (unsigned char)random_next(&state);
    check_corpus("", 0, 1, "there is no text to learn");
    check_corpus("\n\n\n \n\f\n\n\n", 9, 1, "there is no text to learn");
    check_corpus("x", 1, 0, "100 %");
    check_corpus(noise, sizeof noise, 0, "100 %");
    memset(noise, 'a', sizeof noise);
    check_corpus(noise, sizeof noise, 0, "100 %");
    memset(noise, 0, sizeof noise);
    check_corpus(noise, sizeof noise, 0, "100 %");
}

static void test_wrong_use_is_explained(void) {
    static const struct { const char *words, *says; int status; } uses[] = {
        { "-o " WORK "x.gguf", "no text", 2 },
        { TEXT, "no output", 2 },
        { TEXT " --task copying", "neither a text", 2 },
        { TEXT " -o " WORK "none/x.gguf", "cannot create", 1 },
        { TEXT " -o " WORK, "is a directory", 1 },
        { WORK "none.txt -o " WORK "x.gguf", "cannot be opened", 1 },
        { WORK " -o " WORK "x.gguf", "is a directory", 1 },
        { TEXT " -o " WORK "x.gguf --type q9", "no such type", 2 },
        { TEXT " -o " WORK "x.gguf --quantise q5_0", "q8_0 or q4_0", 2 },
        { TEXT " -o " WORK "x.gguf --muon 1", "less than 1", 2 },
        { TEXT " -o " WORK "x.gguf --time soon", "not like 90m", 2 },
        { TEXT " -o " WORK "x.gguf --blocks rax", "not made of r, a, h and s", 2 },
        { TEXT " -o " WORK "x.gguf --mixer-only", "need --from", 2 },
        { TEXT " -o " WORK "x.gguf --kind supra --save-hf " WORK "none", "no layout", 1 },
        { TEXT " -o " WORK "x.gguf --heads 3", "multiple of 4", 2 },
        { TEXT " -o " WORK "x.gguf --vocab 200", "--vocab", 2 },
        { TEXT " -o " WORK "x.gguf --from " WORK "hf", "decides about the shape", 2 },
        { TEXT " -o " WORK "x.gguf --resume", "--checkpoint", 2 },
        { TEXT " -o " WORK "x.gguf --dropout 1", "less than 1", 2 }
    };
    for (size_t i = 0; i < sizeof uses / sizeof uses[0]; i++) {
        remove(WORK "x.gguf");
        int status = train(uses[i].words);
        CHECK(status == uses[i].status && log_says(uses[i].says), "%s: %d, should say '%s'",
              uses[i].words, status, uses[i].says);
        CHECK(!path_exists(WORK "x.gguf"), "%s leaves a file", uses[i].words);
    }
}

int main(int argc, char **argv) {
    if (argc > 1) return command_train(argc - 1, argv + 1);
    self = argv[0];
    make_folders();
    RUN(test_tokens_come_back_as_text);
    RUN(test_tokens_are_the_encoders);
    RUN(test_vocabularies_repeat);
    RUN(test_an_epoch_is_every_document_once);
    RUN(test_noise_is_only_read);
    RUN(test_documents_end_where_they_should);
    RUN(test_answers_of_tasks_are_right);
    RUN(test_a_paragraph_is_learned_by_heart);
    RUN(test_the_best_model_is_kept_or_the_last);
    RUN(test_the_loss_is_the_librarys);
    RUN(test_steps_for_rounded_weights);
    RUN(test_models_move_to_other_layouts_and_back);
    RUN(test_hgrn2_moves_to_other_layouts_and_back);
    RUN(test_attention_becomes_recurrent);
    RUN(test_layers_are_added_without_a_change);
    RUN(test_a_killed_run_goes_on_exactly);
    RUN(test_a_full_disk_leaves_what_is_there);
    RUN(test_damaged_checkpoints_are_refused);
    RUN(test_forged_checkpoints_are_refused);
    RUN(test_odd_texts);
    RUN(test_wrong_use_is_explained);
    return test_end();
}
