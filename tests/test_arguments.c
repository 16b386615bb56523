/* Promise: whatever a host does wrong is refused with a named error and a message, whatever is
 * wrong with a model is said when it is opened, and nothing is changed by it. */

#include "model.h"

#include <fenv.h>
#ifdef __linux__
  #include <sys/stat.h>
  #include <unistd.h>
#endif
#ifdef __SSE__
  #include <xmmintrin.h>
#endif

/* ---- messages: the last one, as the logger and the caller's buffer got it ------------------- */

static char heard[400], noted[400];
static int heard_error = 1, heard_count;

static void hear(int error, const char *text, void *user) {
    heard_error = error;
    heard_count++;
    snprintf(heard, sizeof heard, "%s", text);
    CHECK(user == &heard, "the logger's own pointer");
}

static griffin_options listening(void) {
    griffin_options o;
    memset(&o, 0, sizeof o);
    o.logger.message = hear;
    o.logger.user = &heard;
    o.error = noted;
    o.error_size = sizeof noted;
    heard_count = 0;
    heard[0] = noted[0] = 0;
    return o;
}

/* The call gave this error, and a line about it that holds `words`. */
#define REFUSED(call, expected, words) do { \
        int64_t got_; \
        heard_count = 0; \
        heard[0] = 0; \
        got_ = (call); \
        CHECK(got_ == (expected), "%d, expected %s", (int)got_, griffin_error_string(expected)); \
        CHECK(heard_count == 1 && heard_error == (expected), "%d messages", heard_count); \
        CHECK(strstr(heard, words) != NULL, "'%s' without '%s'", heard, words); \
    } while (0)

/* ---- models that cannot be run -------------------------------------------------------------- */

/* Opens small_config() as a file without a key or tensor; `more` adds something instead. */
static int open_without(const char *without, void (*more)(gguf *g), griffin_model **m,
                        unsigned char **file) {
    griffin_config config = small_config();
    griffin_options options = listening();
    network *n = network_make(&config);
    gguf g;
    size_t size;
    memset(&g, 0, sizeof g);
    if (more) more(&g);
    g.without = without;
    network_write(n, &g);
    network_free(n);
    *file = gguf_finish(&g, &size);
    int error = griffin_open_memory(m, *file, size, &options);
    CHECK((error == 0) == (*m != NULL), "%d", error);
    return error;
}

static void check_model(const char *without, void (*more)(gguf *g), int expected,
                        const char *words) {
    griffin_model *m;
    unsigned char *file;
    int error = open_without(without, more, &m, &file);
    CHECK(error == expected, "without %s: %d, expected %d: %s", without, error, expected, heard);
    CHECK(error >= 0 || (heard_error == error && strstr(heard, words)),
          "without %s: '%s' lacks '%s'", without, heard, words);
    CHECK(error >= 0 || strcmp(heard, noted) == 0, "'%s' and '%s'", heard, noted);
    griffin_close(m);
    free(file);
}

static const char *number_key;
static int number;

static void other_number(gguf *g) { gguf_int(g, number_key, number); }

static void check_int(const char *key, int value, int expected, const char *words) {
    number_key = key;
    number = value;
    check_model(key, other_number, expected, words);
}

static void odd_activation(gguf *g) { gguf_text(g, "griffin.hidden_activation", "softsign"); }
static void number_activation(gguf *g) { gguf_int(g, "griffin.hidden_activation", 1); }
static void other_architecture(gguf *g) { gguf_text(g, "general.architecture", "llama"); }
static void text_width(gguf *g) { gguf_text(g, "griffin.embedding_length", "24"); }
static void few_blocks(gguf *g) {
    gguf_array(g, "griffin.block_types", GGUF_STRING, 1);
    put_text(&g->pairs, "recurrent");
}
static void odd_blocks(gguf *g) {
    gguf_array(g, "griffin.block_types", GGUF_STRING, 4);
    for (int i = 0; i < 4; i++) put_text(&g->pairs, i < 3 ? "recurrent" : "mamba");
}
static void number_blocks(gguf *g) {
    gguf_array(g, "griffin.block_types", GGUF_U32, 4);
    for (int i = 0; i < 4; i++) put_u32(&g->pairs, 0);
}

static void test_metadata(void) {
    check_model(NULL, NULL, GRIFFIN_OK, "");
    check_model("griffin.attention.sliding_window", NULL, GRIFFIN_E_FORMAT, "sliding_window");
    check_model("griffin.final_logit_softcapping", NULL, GRIFFIN_E_FORMAT, "softcapping");
    check_model("griffin.embedding_scale", NULL, GRIFFIN_E_FORMAT, "embedding_scale");
    check_model("griffin.block_count", NULL, GRIFFIN_E_FORMAT, "block_count");
    check_model("griffin.embedding_length", NULL, GRIFFIN_E_FORMAT, "embedding_length");
    check_model("griffin.embedding_length", text_width, GRIFFIN_E_FORMAT, "embedding_length");
    check_model("griffin.hidden_activation", NULL, GRIFFIN_OK, "");
    check_model("griffin.hidden_activation", odd_activation, GRIFFIN_E_UNSUPPORTED, "softsign");
    check_model("griffin.hidden_activation", number_activation, GRIFFIN_E_FORMAT,
                "hidden_activation");
    check_model("griffin.block_types", NULL, GRIFFIN_E_FORMAT, "block_types");
    check_model("griffin.block_types", few_blocks, GRIFFIN_E_FORMAT, "1 entries for 4 layers");
    check_model("griffin.block_types", odd_blocks, GRIFFIN_E_UNSUPPORTED, "mamba");
    check_model("griffin.block_types", number_blocks, GRIFFIN_E_FORMAT, "block_types");
    check_model("general.architecture", other_architecture, GRIFFIN_E_UNSUPPORTED, "llama");
    check_model("general.architecture", NULL, GRIFFIN_E_FORMAT, "general.architecture");
    check_int("griffin.attention.head_count", 5, GRIFFIN_E_FORMAT, "head");
    check_int("griffin.attention.head_count", 0, GRIFFIN_E_FORMAT, "head");
    check_int("griffin.attention.head_count_kv", 2, GRIFFIN_E_FORMAT, "head");
    check_int("griffin.ssm.group_count", 5, GRIFFIN_E_FORMAT, "gate blocks");
    check_int("griffin.ssm.conv_kernel", 17, GRIFFIN_E_FORMAT, "convolution");
    check_int("griffin.ssm.conv_kernel", 3, GRIFFIN_E_FORMAT,
              "conv_1d.weight' is f32 [36, 1, 4], expected f32 [36, 1, 3]");
    check_int("griffin.attention.sliding_window", 0, GRIFFIN_E_FORMAT, "window");
    check_int("griffin.rope.dimension_count", 3, GRIFFIN_E_FORMAT, "rotated");
    check_int("griffin.rope.dimension_count", 10, GRIFFIN_E_FORMAT, "rotated");
    check_int("griffin.block_count", 0, GRIFFIN_E_FORMAT, "layers");
    check_int("griffin.block_count", 2000000000, GRIFFIN_E_FORMAT, "block_count");
    check_int("griffin.embedding_length", -1, GRIFFIN_E_FORMAT, "embedding_length");
    check_int("griffin.embedding_length", 48, GRIFFIN_E_FORMAT, "expected");
    check_int("griffin.feed_forward_length", 1 << 24, GRIFFIN_E_FORMAT, "MLP width");
}

/* ---- tensors -------------------------------------------------------------------------------- */

static void extra_tensor(gguf *g) {
    float x[3] = { 1, 2, 3 };
    int three = 3;
    gguf_tensor(g, "layers.0.surprise", &three, 1, x);
}

static void test_tensors(void) {
    griffin_config config = small_config();
    network *n = network_make(&config);
    griffin_model *m;
    unsigned char *file;
    for (int i = 0; i < n->count; i++) {        /* a matrix may be in tiles of any type */
        const tensor *t = &n->tensors[i];
        check_model(t->stored, NULL, GRIFFIN_E_FORMAT, t->file + strlen("model."));
    }
    for (int i = 0; i < n->count; i++) {        /* another size, or another rank */
        griffin_options options = listening();
        tensor *t = &n->tensors[i];
        size_t size;
        if (t->taps) continue;
        if (i % 2) t->sizes[t->tiled]--; else t->sizes[t->rank++] = 1;
        file = network_file(n, &size);
        CHECK(griffin_open_memory(&m, file, size, &options) == GRIFFIN_E_FORMAT, "%s", t->stored);
        CHECK(strstr(noted, t->stored) && strstr(noted, "expected f32 ["), "%s: %s", t->stored,
              noted);
        if (i % 2) t->sizes[t->tiled]++; else t->rank--;
        free(file);
    }
    network_free(n);
    CHECK(open_without(NULL, extra_tensor, &m, &file) == GRIFFIN_OK, "%s", noted);
    CHECK(heard_count == 1 && heard_error == GRIFFIN_OK && strstr(heard, "surprise"), "'%s'",
          heard);
    griffin_close(m);
    free(file);
}

/* A file of candle's has no metadata at all; test_convert.c adds it. */
static void test_no_metadata(void) {
    const char *path = "tests/data/gguf/candle_like_v2.gguf";
    griffin_options options = listening();
    griffin_model *m;
    CHECK(griffin_open_file(&m, path, &options) == GRIFFIN_E_FORMAT && !m, "%s", noted);
    CHECK(strncmp(noted, path, strlen(path)) == 0 && strstr(noted, "general.architecture")
          && strstr(noted, "griffin convert OLD NEW"), "%s", noted);
}

/* Versions of the file format that are not known here. */
static void test_versions(void) {
    check_int("griffin.format_version", 3, GRIFFIN_E_VERSION, "this library reads 2");
    check_int("griffin.format_version", 1, GRIFFIN_E_VERSION, "griffin convert OLD NEW");
    check_model("griffin.format_version", NULL, GRIFFIN_E_VERSION, "griffin convert OLD NEW");
}

/* ---- opening -------------------------------------------------------------------------------- */

static void *no_memory(size_t size, void *user) { (void)size; (void)user; return NULL; }

static void test_opening(void) {
    griffin_options options = listening();
    griffin_model *m = NULL;
    char small[8] = "unmoved";
    CHECK(griffin_open_file(NULL, "x", NULL) == GRIFFIN_E_ARGUMENT, "nowhere to put it");
    CHECK(griffin_open_memory(NULL, "x", 1, NULL) == GRIFFIN_E_ARGUMENT, "nowhere to put it");
    REFUSED(griffin_open_file(&m, NULL, &options), GRIFFIN_E_ARGUMENT, "path");
    REFUSED(griffin_open_memory(&m, NULL, 9, &options), GRIFFIN_E_ARGUMENT, "data");
    REFUSED(griffin_open_file(&m, "tests/data/no such file", &options), GRIFFIN_E_FILE,
            "no such file");
    REFUSED(griffin_open_file(&m, "tests/data", &options), GRIFFIN_E_FILE, "tests/data");
    REFUSED(griffin_open_file(&m, "tests/test.h", &options), GRIFFIN_E_FORMAT, "GGUF");
#if defined(__unix__)                       /* read as a stream, it is just empty */
    REFUSED(griffin_open_file(&m, "/dev/null", &options), GRIFFIN_E_FILE, "/dev/null");
#endif
#ifdef __linux__                            /* nobody writes to it, and it is not waited for */
    char fifo[32];
    snprintf(fifo, sizeof fifo, "build/%ld.fifo", (long)getpid());
    CHECK(mkfifo(fifo, 0600) == 0, "%s", fifo);
    REFUSED(griffin_open_file(&m, fifo, &options), GRIFFIN_E_FILE, "regular");
    remove(fifo);
#endif
    REFUSED(griffin_open_memory(&m, "GGUF", 4, &options), GRIFFIN_E_FORMAT, "header");
    REFUSED(griffin_open_memory(&m, "", 0, &options), GRIFFIN_E_FORMAT, "GGUF");
    options.attn_keys = -1;
    REFUSED(griffin_open_memory(&m, "GGUF", 4, &options), GRIFFIN_E_ARGUMENT, "attn_keys");
    options.attn_keys = 0;
    options.allocator.allocate = no_memory;
    REFUSED(griffin_open_memory(&m, "GGUF", 4, &options), GRIFFIN_E_ARGUMENT, "both");
    options.allocator.allocate = NULL;
    options.error = small;
    options.error_size = 4;
    CHECK(griffin_open_memory(&m, "", 0, &options) < 0 && strlen(small) == 3 && small[4] == 'v',
          "'%s'", small);
    options.error_size = 0;
    CHECK(griffin_open_memory(&m, "", 0, &options) < 0 && strlen(small) == 3, "'%s'", small);
    CHECK(m == NULL, "no model");
    griffin_close(NULL);
}

/* Where addresses have 32 bits, a model whose states are larger cannot be opened. */
static void test_large_states(void) {
    griffin_config config = small_config();
    griffin_options options = listening();
    griffin_model *m = NULL;
    size_t size;
    config.head_dim = 128;
    config.heads = 1;
    config.width = 128;
    config.layers = 3;
    strcpy(config.blocks, "aaa");
    network *n = network_make(&config);
    unsigned char *file = network_file(n, &size);
    options.rewind = 1 << 20;
    if (sizeof(size_t) == 4)
        REFUSED(griffin_open_memory(&m, file, size, &options), GRIFFIN_E_UNSUPPORTED, "address");
    else
        CHECK(griffin_open_memory(&m, file, size, &options) == 0
              && griffin_state_size(m) > (uint64_t)3 << 30, "%s", noted);
    griffin_close(m);
    network_free(n);
    free(file);
}

/* A thread whose floats are not those of IEEE cannot open a model, but it can look into a file. */
static void test_arithmetic(void) {
    griffin_options options = listening();
    griffin_model *m = NULL;
    int tried = 0;
#ifdef FE_UPWARD
    if (fesetround(FE_UPWARD) == 0) {
        REFUSED(griffin_open_memory(&m, "", 0, &options), GRIFFIN_E_UNSUPPORTED, "rounded");
        tried++;
    }
    fesetround(FE_TONEAREST);
#endif
#ifdef __SSE__
    _mm_setcsr(_mm_getcsr() | 0x8000);
    REFUSED(griffin_open_memory(&m, "", 0, &options), GRIFFIN_E_UNSUPPORTED, "flush-to-zero");
    options.directory_only = 1;
    REFUSED(griffin_open_memory(&m, "", 0, &options), GRIFFIN_E_FORMAT, "GGUF");
    options.directory_only = 0;
    _mm_setcsr((_mm_getcsr() & ~0x8000u) | 0x40);       /* what comes in is flushed */
    REFUSED(griffin_open_memory(&m, "", 0, &options), GRIFFIN_E_UNSUPPORTED, "flush-to-zero");
    _mm_setcsr(_mm_getcsr() & ~0x40u);
    tried++;
#endif
    REFUSED(griffin_open_memory(&m, "", 0, &options), GRIFFIN_E_FORMAT, "GGUF");
    CHECK(tried || !m, "nothing");
}

/* ---- directories ---------------------------------------------------------------------------- */

/* The file without a network; the caller frees the bytes. */
static griffin_model *look_into(const char *path, unsigned char **file) {
    griffin_options options = listening();
    griffin_model *m = NULL;
    size_t size;
    *file = test_read(path, &size);
    options.directory_only = 1;
    CHECK(*file && griffin_open_memory(&m, *file, size, &options) == GRIFFIN_OK, "%s: %s", path,
          noted);
    return m;
}

static void check_no_network(griffin_model *m) {
    static char memory[1 << 16];
    griffin_state *s = (griffin_state *)(void *)memory;
    griffin_context *c;
    griffin_sampler sampler;
    griffin_operation operation;
    float logits[1] = { 0 };
    memset(&sampler, 0, sizeof sampler);
    memset(memory, 0, sizeof memory);
    CHECK(griffin_state_size(m) == 0 && griffin_mark_size(m) == 0
          && griffin_context_size(m, NULL) == 0, "sizes");
    REFUSED(griffin_context_init(&c, m, NULL, memory, sizeof memory), GRIFFIN_E_ARGUMENT,
            "directory_only");
    REFUSED(griffin_mark(m, s, memory + 1024), GRIFFIN_E_ARGUMENT, "directory_only");
    REFUSED(griffin_rewind(m, s, memory + 1024), GRIFFIN_E_ARGUMENT, "directory_only");
    REFUSED(griffin_save(m, s, NULL, NULL, NULL, 0), GRIFFIN_E_ARGUMENT, "directory_only");
    REFUSED(griffin_load(m, s, NULL, NULL, memory, 1024), GRIFFIN_E_ARGUMENT, "directory_only");
    REFUSED(griffin_sample(m, &sampler, logits), GRIFFIN_E_ARGUMENT, "directory_only");
    REFUSED(griffin_get_operation(m, 0, &operation), GRIFFIN_E_ARGUMENT, "operation 0 of 0");
}

/* Whatever is sound can be looked into, and has no states or contexts. */
static void test_directories(void) {
    unsigned char *file;
    griffin_tensor t;
    griffin_metadata pair;
    griffin_model *m = look_into("tests/data/gguf/candle_like_v2.gguf", &file);   /* no metadata */
    CHECK(griffin_get_info(m)->tensors > 10 && griffin_get_info(m)->config.layers == 0
          && !griffin_get_info(m)->has_vocabulary && !noted[0], "%s", noted);
    CHECK(griffin_get_tensor(m, 0, &t) == GRIFFIN_OK && t.bytes > 0, "%s", t.name);
    check_no_network(m);
    griffin_close(m);
    free(file);
    m = look_into("tests/data/gguf/malformed/t_type_63.gguf", &file);
    CHECK(griffin_get_tensor(m, 0, &t) == GRIFFIN_OK && !strcmp(t.type, "unknown") && !t.bytes
          && t.rank > 0 && t.shape[0] > 0, "'%s': %s", t.name, t.type);
    griffin_close(m);
    free(file);
    m = look_into("tests/data/gguf/vocab_only.gguf", &file);
    CHECK(griffin_get_info(m)->has_vocabulary && griffin_get_info(m)->tokens > 0
          && griffin_get_metadata(m, "tokenizer.ggml.tokens", 0, &pair) == 1, "%s", noted);
    check_no_network(m);
    griffin_close(m);
    free(file);
}

/* The configuration is there; if it is broken the file opens without, and the reason is said. */
static void test_directory_of_a_network(void) {
    griffin_config config = small_config();
    static const char *const without[] = { NULL, "griffin.embedding_scale" };
    for (int i = 0; i < 2; i++) {
        network *n = network_make(&config);
        griffin_options options = listening();
        griffin_model *m;
        gguf g;
        size_t size;
        memset(&g, 0, sizeof g);
        g.without = without[i];
        network_write(n, &g);
        unsigned char *file = gguf_finish(&g, &size);
        options.directory_only = 1;
        CHECK(griffin_open_memory(&m, file, size, &options) == GRIFFIN_OK, "%s", noted);
        CHECK(griffin_get_info(m)->config.layers == (i ? 0 : 4), "the configuration");
        CHECK(i ? strstr(noted, without[i]) != NULL : !noted[0], "'%s'", noted);
        CHECK(griffin_get_info(m)->tensors == n->count, "%d", griffin_get_info(m)->tensors);
        check_no_network(m);
        griffin_close(m);
        network_free(n);
        free(file);
    }
}

/* Of what a file says nothing but characters that can be seen reaches a message. */
static void raw_architecture(gguf *g) {
    gguf_text(g, "general.architecture", "a\x1b[2J\xff\xc2\x9b\xe2\x82\xe2\x82\xac");
}
static void raw_key(gguf *g) { gguf_text(g, "k\xff\x9bm", "x"); }

static void test_messages(void) {
    check_model("general.architecture", raw_architecture, GRIFFIN_E_UNSUPPORTED,
                "'a?[2J?" "?" "?" "?\xe2\x82\xac'");
    check_model(NULL, raw_key, GRIFFIN_E_FORMAT, "'k?" "?m'");
    for (size_t room = 1; room < 60; room++) {          /* a cut message has no half a character */
        griffin_options options = listening();
        griffin_model *m;
        options.error_size = room;
        griffin_open_file(&m, "\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac", &options);
        size_t n = strlen(noted);
        CHECK(n < room && (n >= 9 ? n == room - 1 || room > 20 : n % 3 == 0), "%d of %d", (int)n,
              (int)room);
    }
}

/* ---- what a writer of files needs ----------------------------------------------------------- */

static void test_for_writers(void) {
    griffin_config config = small_config();
    griffin_number row;
    int count = 0, activations = 0;
    for (; griffin_config_number(&config, count, &row) == 1; count++) {
        if (!strcmp(row.key, "embedding_length"))
            CHECK(row.value == 24 && row.type == GRIFFIN_VALUE_U32, "%g", row.value);
        if (!strcmp(row.key, "attention.qkv_bias"))
            CHECK(row.value == 0 && row.type == GRIFFIN_VALUE_BOOL, "%g", row.value);
        if (!strcmp(row.key, "embedding_scale"))
            CHECK(row.value == 4.90625 && row.type == GRIFFIN_VALUE_F32, "%g", row.value);
    }
    CHECK(count == 22, "%d numbers", count);
    CHECK(griffin_config_number(&config, -1, &row) == 0, "-1");
    CHECK(griffin_config_number(NULL, 0, &row) == GRIFFIN_E_ARGUMENT, "no configuration");
    CHECK(griffin_config_number(&config, 0, NULL) == GRIFFIN_E_ARGUMENT, "no room");
    CHECK(!strcmp(griffin_tiling_name(0), "f32") && !strcmp(griffin_tiling_name(4), "q4_0")
          && !strcmp(griffin_tiling_name(5), "q6_0") && !griffin_tiling_name(6)
          && !griffin_tiling_name(-1), "tilings");
    for (;; activations++) {
        const char *name = griffin_activation_name((griffin_activation)activations);
        if (!name) break;
        CHECK(griffin_find_activation(name, strlen(name)) == activations, "%s", name);
    }
    CHECK(activations == 4, "%d activations", activations);
    CHECK(griffin_find_activation("swish", 5) == GRIFFIN_SILU, "another name");
    CHECK(griffin_find_activation("swis", 4) == -1, "none");
    CHECK(griffin_find_activation(NULL, 0) == -1, "none");
}

/* ---- calls ---------------------------------------------------------------------------------- */

typedef struct scene { network *n; griffin_model *m; griffin_context *c; griffin_state *s; } scene;

static scene scene_new(void) {
    griffin_config config = small_config();
    griffin_options options = listening();
    scene w;
    w.n = network_make(&config);
    w.m = network_open(w.n, &options);
    w.c = new_context(w.m, 8, 2);
    w.s = new_state(w.m);
    return w;
}

static void scene_free(scene *w) {
    free(w->c); free(w->s);
    griffin_close(w->m);
    network_free(w->n);
}

static void test_contexts(void) {
    scene w = scene_new();
    griffin_context_options o;
    griffin_context *c;
    static const int32_t tokens[4] = { 0, 1, 2, 3 };
    static char memory[1 << 20];
    memset(&o, 0, sizeof o);
    CHECK(griffin_context_size(NULL, NULL) == 0, "no model");
    CHECK(griffin_context_init(&c, NULL, NULL, memory, sizeof memory) == GRIFFIN_E_ARGUMENT && !c,
          "no model");
    REFUSED(griffin_context_init(NULL, w.m, NULL, memory, sizeof memory), GRIFFIN_E_ARGUMENT,
            "context");
    REFUSED(griffin_context_init(&c, w.m, NULL, NULL, sizeof memory), GRIFFIN_E_ARGUMENT,
            "context");
    REFUSED(griffin_context_init(&c, w.m, NULL, memory, 100), GRIFFIN_E_SPACE, "100 bytes");
    for (o.rows = -1; o.rows < 100000; o.rows += 65538) {
        CHECK(griffin_context_size(w.m, &o) == 0, "%d rows", o.rows);
        REFUSED(griffin_context_init(&c, w.m, &o, memory, sizeof memory), GRIFFIN_E_ARGUMENT,
                "rows");
    }
    o.rows = 0;
    o.states = -1;
    CHECK(griffin_context_size(w.m, &o) == 0, "%d states", o.states);
    o.states = 3;                           /* more than rows: as many rows */
    o.rows = 1;
    CHECK(griffin_context_init(&c, w.m, &o, memory, sizeof memory) == GRIFFIN_OK, "3 rows");
    griffin_span span = span_of(w.s, tokens, 4, NULL);
    REFUSED(griffin_begin(c, &span, 1), GRIFFIN_E_SPACE, "4 tokens");
    span.count = 3;
    CHECK(griffin_begin(c, &span, 1) > 0, "3 rows");
    scene_free(&w);
}

static void test_steps(void) {
    scene w = scene_new();
    griffin_state *other = new_state(w.m), *zero = new_state(w.m);
    int32_t tokens[9] = { 0, 1, 2, 3, 4, 5, 6, 7, 8 }, wrong[3] = { 1, 19, 1 };
    griffin_span spans[3];
    memset(spans, 0, sizeof spans);
    CHECK(griffin_step(NULL, w.s, 1, NULL) == GRIFFIN_E_ARGUMENT, "no context");
    CHECK(griffin_run(NULL, spans, 1) == GRIFFIN_E_ARGUMENT, "no context");
    CHECK(griffin_begin(NULL, spans, 1) == GRIFFIN_E_ARGUMENT, "no context");
    CHECK(griffin_advance(NULL, 1) == GRIFFIN_E_ARGUMENT, "no context");
    REFUSED(griffin_step(w.c, NULL, 1, NULL), GRIFFIN_E_ARGUMENT, "state");
    REFUSED(griffin_step(w.c, w.s, -1, NULL), GRIFFIN_E_ARGUMENT, "token -1");
    REFUSED(griffin_step(w.c, w.s, 19, NULL), GRIFFIN_E_ARGUMENT, "token 19");
    REFUSED(griffin_prefill(w.c, w.s, NULL, 1, NULL), GRIFFIN_E_ARGUMENT, "token");
    REFUSED(griffin_prefill(w.c, w.s, tokens, 0, NULL), GRIFFIN_E_ARGUMENT, "token");
    REFUSED(griffin_prefill(w.c, w.s, tokens, -5, NULL), GRIFFIN_E_ARGUMENT, "token");
    REFUSED(griffin_prefill(w.c, w.s, wrong, 3, NULL), GRIFFIN_E_ARGUMENT, "token 19 at 1");
    REFUSED(griffin_run(w.c, NULL, 1), GRIFFIN_E_ARGUMENT, "span");
    REFUSED(griffin_run(w.c, spans, 0), GRIFFIN_E_ARGUMENT, "span");
    REFUSED(griffin_advance(w.c, -1), GRIFFIN_E_ARGUMENT, "-1 units");
    for (int i = 0; i < 3; i++) spans[i] = span_of(i ? w.s : other, tokens, 3, NULL);
    REFUSED(griffin_run(w.c, spans, 3), GRIFFIN_E_ARGUMENT, "share a state");
    REFUSED(griffin_begin(w.c, spans, 3), GRIFFIN_E_ARGUMENT, "share a state");
    spans[1] = span_of(w.s, wrong, 3, NULL);            /* the first span is fine, and untouched */
    REFUSED(griffin_run(w.c, spans, 2), GRIFFIN_E_ARGUMENT, "token 19");
    spans[1] = span_of(w.s, tokens, 6, NULL);
    REFUSED(griffin_begin(w.c, spans, 2), GRIFFIN_E_SPACE, "9 tokens in 2 spans");
    spans[0].count = spans[1].count = 1;
    spans[2] = span_of(zero, tokens, 1, NULL);
    REFUSED(griffin_begin(w.c, spans, 3), GRIFFIN_E_SPACE, "3 tokens in 3 spans");
    spans[0].count = 3;
    spans[1].count = 6;
    CHECK(same_states(w.m, w.s, zero) && same_states(w.m, other, zero), "nothing was written");
    CHECK(griffin_advance(w.c, 5) == 0, "nothing is in flight");
    CHECK(griffin_run(w.c, spans, 2) == GRIFFIN_OK, "griffin_run takes any number");
    ((unsigned char *)w.s)[0] ^= 1;
    REFUSED(griffin_step(w.c, w.s, 1, NULL), GRIFFIN_E_MISMATCH, "state");
    free(other); free(zero);
    scene_free(&w);
}

static int take(const void *data, size_t size, void *user) {
    (void)data; (void)size; (void)user;
    return 0;
}

static int give(void *data, size_t size, void *user) {
    (void)data; (void)size; (void)user;
    return 0;
}

static void test_states(void) {
    scene w = scene_new();
    char data[64];
    CHECK(griffin_state_size(NULL) == 0 && griffin_state_position(NULL) == 0, "nothing");
    CHECK(griffin_save(NULL, w.s, NULL, NULL, data, 64) == GRIFFIN_E_ARGUMENT, "no model");
    CHECK(griffin_load(NULL, w.s, NULL, NULL, data, 64) == GRIFFIN_E_ARGUMENT, "no model");
    REFUSED(griffin_save(w.m, NULL, NULL, NULL, data, 64), GRIFFIN_E_ARGUMENT, "state");
    REFUSED(griffin_save(w.m, w.s, NULL, NULL, data, 3), GRIFFIN_E_SPACE, "3 bytes");
    REFUSED(griffin_load(w.m, NULL, NULL, NULL, data, 64), GRIFFIN_E_ARGUMENT, "load");
    REFUSED(griffin_load(w.m, w.s, NULL, NULL, NULL, 64), GRIFFIN_E_ARGUMENT, "load");
    REFUSED(griffin_load(w.m, w.s, NULL, NULL, "no", 2), GRIFFIN_E_FORMAT, "load");
    CHECK(griffin_save_pieces(NULL, w.s, NULL, NULL, take, NULL) == GRIFFIN_E_ARGUMENT, "model");
    CHECK(griffin_load_pieces(NULL, w.s, NULL, NULL, give, NULL) == GRIFFIN_E_ARGUMENT, "model");
    REFUSED(griffin_save_pieces(w.m, NULL, NULL, NULL, take, NULL), GRIFFIN_E_ARGUMENT, "state");
    REFUSED(griffin_save_pieces(w.m, w.s, NULL, NULL, NULL, NULL), GRIFFIN_E_ARGUMENT, "save");
    REFUSED(griffin_load_pieces(w.m, w.s, NULL, NULL, NULL, NULL), GRIFFIN_E_ARGUMENT, "load");
    scene_free(&w);
}

static void test_text(void) {
    scene w = scene_new();
    griffin_sampler sampler;
    griffin_decoder decoder;
    char text[8];
    float logits[19] = { 0 };
    int32_t tokens[8];
    memset(&sampler, 0, sizeof sampler);
    memset(&decoder, 0, sizeof decoder);
    CHECK(!griffin_get_info(w.m)->has_vocabulary && griffin_encode_size(w.m, 5) == 0,
          "no vocabulary");
    REFUSED(griffin_encode(w.m, NULL, "a", 1, tokens, 8), GRIFFIN_E_VOCABULARY, "vocabulary");
    REFUSED(griffin_decode(w.m, &decoder, 1, text, 8), GRIFFIN_E_VOCABULARY, "vocabulary");
    REFUSED(griffin_token_text(w.m, 1, text, 8), GRIFFIN_E_VOCABULARY, "vocabulary");
    REFUSED(griffin_token_type(w.m, 1), GRIFFIN_E_VOCABULARY, "vocabulary");
    REFUSED(griffin_find_token(w.m, "a", 1), GRIFFIN_E_VOCABULARY, "vocabulary");
    CHECK(griffin_encode(NULL, NULL, "a", 1, tokens, 8) == GRIFFIN_E_ARGUMENT, "no model");
    CHECK(griffin_decode(NULL, &decoder, 1, text, 8) == GRIFFIN_E_ARGUMENT, "no model");
    CHECK(griffin_token_text(NULL, 1, text, 8) == GRIFFIN_E_ARGUMENT, "no model");
    CHECK(griffin_token_type(NULL, 1) == GRIFFIN_E_ARGUMENT, "no model");
    CHECK(griffin_find_token(NULL, "a", 1) == GRIFFIN_E_ARGUMENT, "no model");
    CHECK(griffin_sample(NULL, &sampler, logits) == GRIFFIN_E_ARGUMENT, "no model");
    REFUSED(griffin_sample(w.m, NULL, logits), GRIFFIN_E_ARGUMENT, "griffin_sample");
    REFUSED(griffin_sample(w.m, &sampler, NULL), GRIFFIN_E_ARGUMENT, "griffin_sample");
    griffin_accept(NULL, 1);
    scene_free(&w);
}

/* ---- asking --------------------------------------------------------------------------------- */

static void test_info(void) {
    scene w = scene_new();
    const griffin_info *info = griffin_get_info(w.m);
    griffin_tensor t;
    CHECK(griffin_get_info(NULL) == NULL, "no model");
    CHECK(griffin_get_tensor(NULL, 0, &t) == GRIFFIN_E_ARGUMENT, "no model");
    REFUSED(griffin_get_tensor(w.m, -1, &t), GRIFFIN_E_ARGUMENT, "tensor -1");
    REFUSED(griffin_get_tensor(w.m, info->tensors, &t), GRIFFIN_E_ARGUMENT, "tensor");
    REFUSED(griffin_get_tensor(w.m, 0, NULL), GRIFFIN_E_ARGUMENT, "tensor");
    CHECK(griffin_get_tensor(w.m, 0, &t) == GRIFFIN_OK
          && strcmp(t.name, "embed_tokens.weight.f32") == 0, "%s", t.name);
    CHECK(t.rank == 3 && t.shape[0] == 1 && t.shape[1] == 24 && t.shape[2] == 32
          && t.bytes == 24 * 32 * 4 && strcmp(t.type, "f32") == 0, "%s", t.type);
    CHECK(info->config.vocab == 19 && info->attn_keys == 5
          && strcmp(info->config.blocks, "rrar") == 0, "config");
    CHECK(strcmp(info->name, "") == 0 && strcmp(info->chat_template, "") == 0
          && strcmp(info->type, "f32") == 0, "texts");
    CHECK(info->bos == -1 && info->eos == -1 && info->pad == -1 && info->end_of_turn == -1,
          "no tokens");
    CHECK(griffin_version() == GRIFFIN_VERSION, "%d", griffin_version());
    scene_free(&w);
}

/* By key and by number, of every type; an array element by element. */
static void test_get_metadata(void) {
    scene w = scene_new();
    griffin_metadata m;
    int count = 0;
    CHECK(griffin_get_metadata(NULL, "x", 0, &m) == GRIFFIN_E_ARGUMENT, "no model");
    REFUSED(griffin_get_metadata(w.m, "x", 0, NULL), GRIFFIN_E_ARGUMENT, "metadata");
    CHECK(griffin_next_element(NULL) == GRIFFIN_E_ARGUMENT, "nothing");
    CHECK(griffin_get_metadata(w.m, "griffin.none", 0, &m) == 0, "a key that is not there");
    CHECK(griffin_get_metadata(w.m, NULL, -1, &m) == 0, "-1");
    while (griffin_get_metadata(w.m, NULL, count, &m) == 1) count++;
    CHECK(count > 20 && count < 40, "%d pairs", count);
    CHECK(griffin_get_metadata(w.m, NULL, 0, &m) == 1 && m.key_length == 20
          && !memcmp(m.key, "general.architecture", 20), "the first pair");
    CHECK(m.type == GRIFFIN_VALUE_STRING && !m.is_array && m.count == 1 && m.length == 7
          && !memcmp(m.text, "griffin", 7) && !griffin_next_element(&m), "a text");
    CHECK(griffin_get_metadata(w.m, "griffin.block_count", 0, &m) == 1 && m.integer == 4
          && m.number == 4 && m.type == GRIFFIN_VALUE_U32, "a number");
    CHECK(griffin_get_metadata(w.m, "griffin.embedding_scale", 0, &m) == 1 && m.number == 4.90625
          && m.type == GRIFFIN_VALUE_F32, "a float");
    CHECK(griffin_get_metadata(w.m, "griffin.attention.qkv_bias", 0, &m) == 1 && m.integer == 0
          && m.type == GRIFFIN_VALUE_BOOL, "a bool");
    CHECK(griffin_get_metadata(w.m, "griffin.block_types", 0, &m) == 1 && m.is_array
          && m.type == GRIFFIN_VALUE_STRING && m.count == 4, "an array");
    for (int i = 0; i < 4; i++) {
        CHECK(m.index == (uint64_t)i && m.length == 9
              && !memcmp(m.text, i == 2 ? "attention" : "recurrent", 9), "element %d", i);
        CHECK(griffin_next_element(&m) == (i < 3), "after element %d", i);
    }
    scene_free(&w);
}

/* Every error has a sentence of its own, and so have numbers that are no error. */
static void test_strings(void) {
    for (int i = -12; i <= 3; i++) CHECK(griffin_error_string(i)[0] != 0, "%d", i);
    for (int i = GRIFFIN_E_NO_TOKEN; i <= 0; i++)
        for (int j = GRIFFIN_E_NO_TOKEN; j < i; j++)
            CHECK(strcmp(griffin_error_string(i), griffin_error_string(j)) != 0, "%d and %d", i, j);
}

int main(void) {
    RUN(test_metadata);
    RUN(test_tensors);
    RUN(test_no_metadata);
    RUN(test_versions);
    RUN(test_opening);
    RUN(test_large_states);
    RUN(test_arithmetic);
    RUN(test_directories);
    RUN(test_directory_of_a_network);
    RUN(test_messages);
    RUN(test_for_writers);
    RUN(test_contexts);
    RUN(test_steps);
    RUN(test_states);
    RUN(test_text);
    RUN(test_info);
    RUN(test_get_metadata);
    RUN(test_strings);
    return test_end();
}
