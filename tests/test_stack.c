/* Promise: every call works on a thread with a stack of 64 KiB, compiled in whatever way. With an
 * argument it prints how many bytes of it each call needs: the table in the manual.
 *
 * A thread runs on memory that is filled with a pattern. Below its stack is more of it, so that a
 * call that needs too much is found out and does no harm. */

#include "model.h"
#include "tools/griffin_grammar.h"

#include <pthread.h>

#if defined(__has_feature)
  #if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
    #define OTHER_FRAMES                    /* these make frames larger, and know the stack */
  #endif
#endif

enum { STACK = 64 * 1024, BELOW = 448 * 1024, ALL = STACK + BELOW };

static griffin_cpu cpu;                     /* the kernels of this round */
static unsigned char *file;
static size_t file_size;
static griffin_model *m, *words;            /* words: a vocabulary alone */
static griffin_context *context;
static void *memory;                        /* of the context */
static griffin_state *state, *other;
static void *mark, *save;
static int64_t save_size;
static float *logits;
static griffin_grammar *grammar;
static griffin_grammar_state at;
static char text[50000], scratch[8000000];
static int32_t tokens[60000], prompt[128];
static int result;                          /* of the call; negative: it failed */

/* ---- calls, in this order: later ones use what earlier ones have made ------------------------ */

static griffin_options options_of(int directory_only) {
    griffin_options o;
    memset(&o, 0, sizeof o);
    o.cpu = cpu;
    o.directory_only = directory_only;
    return o;
}

static void open_memory(void) {
    griffin_options o = options_of(0);
    result = griffin_open_memory(&m, file, file_size, &o);
}
static void open_file(void) {
    griffin_options o = options_of(1);
    result = griffin_open_file(&words, "tests/data/tokenizer/gemma_like.gguf", &o);
}
static void close_model(void) { griffin_close(words); words = NULL; result = 0; }
static void look(void) {
    griffin_tensor t;
    griffin_operation o;
    griffin_metadata pair;
    griffin_number n;
    for (int i = 0; i < griffin_get_info(m)->tensors; i++) griffin_get_tensor(m, i, &t);
    for (int i = 0; i < griffin_get_info(m)->operations; i++) griffin_get_operation(m, i, &o);
    for (int i = 0; griffin_get_metadata(m, NULL, i, &pair) > 0; i++)
        while (griffin_next_element(&pair) > 0) { }
    for (int i = 0; griffin_config_number(&griffin_get_info(m)->config, i, &n) > 0; i++) { }
    griffin_find_activation(griffin_activation_name(GRIFFIN_RELU), 4);
    griffin_error_string(griffin_version());
    result = griffin_tiling_name(0) && griffin_state_position(state) == 0 ? 0 : -1;
}
static void size_context(void) {
    result = -1;
    if (griffin_state_size(m) && griffin_mark_size(m) && griffin_context_size(m, NULL)) result = 0;
}
static void init_context(void) {
    griffin_context_options o;
    memset(&o, 0, sizeof o);
    o.rows = 128;
    o.states = 2;
    result = griffin_context_init(&context, m, &o, memory, griffin_context_size(m, &o));
}
static void encode(void) {
    result = griffin_encode(words, NULL, text, sizeof text, tokens, 60000);
}
static void encode_in_scratch(void) {
    griffin_encoding e;
    memset(&e, 0, sizeof e);
    e.scratch = scratch;
    e.scratch_size = sizeof scratch;
    if (griffin_encode_size(words, sizeof text) > sizeof scratch) result = -1;
    else result = griffin_encode(words, &e, text, sizeof text, tokens, 60000);
}
static void decode(void) {
    griffin_decoder d;
    char out[512];
    memset(&d, 0, sizeof d);
    for (int i = 0; i < 40; i++) result = griffin_decode(words, &d, tokens[i], out, sizeof out);
}
static void token(void) {
    char piece[64];
    griffin_token_type(words, 300);
    griffin_find_token(words, "the", 3);
    result = griffin_token_text(words, 300, piece, sizeof piece);
}
static void stop_feed(void) {
    static const char *const texts[] = { "ijk\n", "never" };
    static char out[sizeof text + GRIFFIN_STOP_BYTES];
    griffin_stop stop;
    memset(&stop, 0, sizeof stop);
    stop.texts = texts;
    stop.count = 2;
    result = griffin_stop_feed(&stop, text, sizeof text, out, sizeof out);
}
static void words_feed(void) {
    static char out[sizeof text + GRIFFIN_WORD_BYTES + 1];
    griffin_words w;
    memset(&w, 0, sizeof w);
    result = griffin_words_feed(&w, text, sizeof text, out, sizeof out);
}
static void heal(void) {
    griffin_heal heal;
    int32_t some[20];
    int count = griffin_encode(words, NULL, "Once upon a ti", 14, some, 20);
    memset(&heal, 0, sizeof heal);
    result = griffin_heal_start(&heal, words, some, count);
    int remain = result;
    if (result >= 0) result = griffin_heal_mask(logits, 1000, &heal);
    if (result >= 0) result = griffin_heal_accept(&heal, some[remain]);
}
static void ban(void) {
    static const char *const texts[] = { "ijk\n", "never" };
    griffin_ban ban;
    memset(&ban, 0, sizeof ban);
    ban.model = words;
    ban.stop.texts = texts;
    ban.stop.count = 2;
    result = griffin_ban_mask(logits, 1000, &ban);
    if (result >= 0) result = griffin_ban_accept(&ban, 300);
}
static void prefill(void) { result = griffin_prefill(context, state, prompt, 128, logits); }
static void step(void) { result = griffin_step(context, state, 5, logits); }
static void run(void) {
    griffin_span spans[2];
    spans[0] = span_of(state, prompt, 100, NULL);
    spans[1] = span_of(other, prompt, 70, NULL);
    result = griffin_run(context, spans, 2);
}
static void begin(void) {
    griffin_span span = span_of(state, prompt, 3, NULL);
    result = griffin_begin(context, &span, 1);
}
static void advance(void) {
    while (griffin_unit_name(context)) result = griffin_advance(context, 1);
}
static void make_mark(void) { result = griffin_mark(m, state, mark); }
static void rewind_state(void) { result = griffin_rewind(m, state, mark); }
static void save_state(void) {
    save_size = griffin_save(m, state, NULL, NULL, NULL, 0);
    result = griffin_save(m, state, NULL, NULL, save, (size_t)save_size) == save_size ? 0 : -1;
}
static void load_state(void) {
    result = griffin_load(m, state, NULL, NULL, save, (size_t)save_size);
}
static int write_piece(const void *data, size_t size, void *user) {
    memcpy((char *)save + save_size, data, size);
    save_size += (int64_t)size;
    (void)user;
    return 0;
}
static int read_piece(void *data, size_t size, void *user) {
    memcpy(data, (char *)save + save_size, size);
    save_size += (int64_t)size;
    (void)user;
    return (int)size;
}
static void save_pieces(void) {
    save_size = 0;
    result = griffin_save_pieces(m, state, NULL, NULL, write_piece, NULL) > 0 ? 0 : -1;
}
static void load_pieces(void) {
    for (int round = 0; round < 2; round++) {
        save_size = 0;
        memset(state, 0, griffin_state_size(m));
        result = griffin_load_pieces(m, round ? state : NULL, NULL, NULL, read_piece, NULL);
    }
}
static void sample(void) {
    griffin_sampler s;
    griffin_bias bias = { 3, -INFINITY };
    memset(&s, 0, sizeof s);
    s.temperature = 1; s.top_p = 0.9f; s.min_p = 0.01f; s.top_k = 20; s.repeat_penalty = 1.2f;
    s.biases = &bias;
    s.bias_count = 1;
    griffin_accept(&s, 1);
    result = griffin_sample(m, &s, logits);
}
static griffin_guess guess_of(void) {
    static int32_t waiting[64];
    griffin_guess g;
    memset(&g, 0, sizeof g);
    g.model = m;
    g.state = other;
    g.tokens = waiting;
    g.room = 64;
    g.logits = logits;
    g.rows = 20;
    return g;
}
static void guess(void) {
    static int32_t remembered[6 * 64];
    griffin_guess g = guess_of();
    griffin_lookup l;
    memset(&l, 0, sizeof l);
    l.memory = remembered;
    l.size = 64;
    for (int i = 0; i < 40; i++) {
        int32_t next = i % 5;
        griffin_lookup_add(&l, &next, 1);
        if (griffin_guess_take(&g, next) > 0) continue;
        griffin_lookup_guess(&l, &g);
        griffin_guess_run(context, &g, 1);
        griffin_guess_time(&g, 1);
    }
    result = griffin_guess_logits(&g) && g.accepted ? griffin_guess_finish(context, &g) : -1;
}
static void draft(void) {
    griffin_guess g = guess_of();
    griffin_sampler s;
    griffin_draft d;
    memset(&d, 0, sizeof d);
    memset(&s, 0, sizeof s);
    d.context = context;
    d.state = state;
    d.mark = mark;
    d.logits = logits;
    d.cost = 1e-3f;
    result = griffin_draft_check(m, m);
    for (int i = 0; i < 9 && result >= 0; i++) {
        griffin_guess_take(&g, i);
        griffin_draft_take(&d, i);
        result = griffin_draft_next(&d, &g, &s);
    }
}
static void guess_grammar(void) {
    griffin_guess g = guess_of();
    griffin_sampler s;
    griffin_grammar_state beginning;
    memset(&s, 0, sizeof s);
    memset(&beginning, 0, sizeof beginning);
    g.model = words;
    griffin_guess_take(&g, 1);
    result = griffin_grammar_guess(grammar, &beginning, &s, logits, &g);
}
static void refuse(void) {                  /* a message is made */
    result = griffin_step(context, state, -1, NULL) == GRIFFIN_E_ARGUMENT ? 0 : -1;
}
static void open_grammar(void) {
    static const char rules[] = "root ::= object\nobject ::= \"{\" (pair (\",\" pair)*)? \"}\"\n"
        "pair ::= string \":\" value\nvalue ::= object | string | array | [0-9]{1,500}\n"
        "array ::= \"[\" (value (\",\" value)*)? \"]\"\nstring ::= \"\\\"\" [^\"\\\\]* \"\\\"\"\n";
    result = griffin_grammar_open(&grammar, words, rules, sizeof rules - 1, NULL);
}
static void mask_grammar(void) { result = griffin_grammar_mask(grammar, &at, logits); }
static void accept_grammar(void) {
    result = griffin_grammar_accept(grammar, &at, griffin_find_token(words, "{", 1));
}
static void close_grammar(void) {
    griffin_grammar_close(grammar);
    grammar = NULL;
    result = 0;
}
static void open_schema(void) {
    static const char schema[] = "{ \"type\": \"object\", \"properties\": { \"name\": { \"type\": "
        "\"string\", \"maxLength\": 9 }, \"list\": { \"type\": \"array\", \"items\": { \"enum\": "
        "[1, null, \"x\"] } } }, \"required\": [\"name\"] }";
    result = griffin_grammar_open_schema(&grammar, words, schema, sizeof schema - 1, NULL);
    memset(&at, 0, sizeof at);
    if (!result) result = griffin_grammar_lead(grammar, &at, " ", 1);
}

static const struct { const char *name; void (*call)(void); } calls[] = {
    { "griffin_open_memory", open_memory }, { "griffin_open_file", open_file },
    { "griffin_get_...", look }, { "griffin_context_size", size_context },
    { "griffin_context_init", init_context }, { "griffin_encode", encode },
    { "griffin_encode, scratch", encode_in_scratch }, { "griffin_decode", decode },
    { "griffin_token_text ...", token }, { "griffin_stop_feed", stop_feed },
    { "griffin_words_feed", words_feed },
    { "griffin_heal_...", heal }, { "griffin_ban_...", ban },
    { "griffin_prefill", prefill }, { "griffin_step", step }, { "griffin_run", run },
    { "griffin_begin", begin }, { "griffin_advance", advance }, { "griffin_mark", make_mark },
    { "griffin_step", step }, { "griffin_rewind", rewind_state }, { "griffin_save", save_state },
    { "griffin_load", load_state }, { "griffin_save_pieces", save_pieces },
    { "griffin_load_pieces", load_pieces }, { "griffin_sample", sample },
    { "griffin_guess_...", guess },
    { "griffin_draft_...", draft }, { "an error", refuse },
    { "griffin_grammar_open", open_grammar }, { "griffin_grammar_mask", mask_grammar },
    { "griffin_grammar_guess", guess_grammar },
    { "griffin_grammar_accept", accept_grammar }, { "griffin_grammar_close", close_grammar },
    { "griffin_grammar_open_schema", open_schema }, { "griffin_grammar_close", close_grammar },
    { "griffin_close", close_model }
};

static size_t most[COUNT(calls)];           /* of the stack, over all rounds */

/* ---- a thread -------------------------------------------------------------------------------- */

static void *start(void *call) {
    (*(void (*const *)(void))call)();
    return NULL;
}

static void nothing(void) { result = 0; }

/* Bytes of the stack that were written. */
static size_t stack_of(void (*const *call)(void)) {
    static unsigned char *stack;
    pthread_attr_t attributes;
    pthread_t thread;
    size_t low = 0;
    pthread_attr_init(&attributes);
#ifndef OTHER_FRAMES
    if (!stack && posix_memalign((void **)&stack, 65536, ALL)) abort();
    memset(stack, 0x5A, ALL);
    CHECK(pthread_attr_setstack(&attributes, stack + BELOW, STACK) == 0, "64 KiB of stack");
#endif
    result = -1;
    CHECK(pthread_create(&thread, &attributes, start, (void *)(uintptr_t)call) == 0, "a thread");
    pthread_join(thread, NULL);
    pthread_attr_destroy(&attributes);
    while (stack && low < ALL && stack[low] == 0x5A) low++;
    return stack ? ALL - low : 0;
}

static void check_all(const char *path) {
    static void (*const none)(void) = nothing;
    size_t idle = stack_of(&none);
    file = test_read(path, &file_size);
    CHECK(file, "%s", path);
    if (!file) return;
    for (int i = 0; i < COUNT(calls); i++) {
        size_t used = stack_of(&calls[i].call);
        CHECK(result >= 0, "%s: %s, kernels %d: %d", path, calls[i].name, (int)cpu, result);
        CHECK(used <= STACK, "%s: %s, kernels %d: %d bytes of stack", path, calls[i].name, (int)cpu,
              (int)used);
        if (i == 0 && !m) break;            /* not the kernels of this machine */
        if (used - idle > most[i] && used > idle) most[i] = used - idle;
        if (i > 0) continue;
        memory = malloc(4000000);
        state = new_state(m);
        other = new_state(m);
        mark = malloc(griffin_mark_size(m));
        save = malloc(griffin_state_size(m) + 1000);
        logits = (float *)calloc(4096, sizeof *logits);
    }
    griffin_close(m);
    free(memory); free(state); free(other); free(mark); free(save); free(logits); free(file);
    m = NULL;
}

static int has_kernels(void) {
    griffin_options o = options_of(1);
    griffin_model *model = NULL;
    griffin_open_file(&model, "tests/data/tokenizer/gemma_like.gguf", &o);
    griffin_close(model);
    return model != NULL;
}

static void test_every_call(void) {
    static const char *const models[] = { "f32", "f16.f16", "bf16.bf16", "q8_0.q8_0", "q4_0.q4_0",
                                         "q6_0.q6_0" };
    char path[100];
    for (int i = 0; i < (int)sizeof text; i++) text[i] = "abc de fgh, ijk\n"[i % 16];
    for (int i = 0; i < COUNT(prompt); i++) prompt[i] = i * 7 % 97;
    for (int c = GRIFFIN_CPU_SCALAR; c <= LAST_CPU; c++) {
        cpu = (griffin_cpu)c;
        for (int i = 0; i < COUNT(models) && has_kernels(); i++) {
            const char *type = strchr(models[i], '.');
            snprintf(path, sizeof path, "build/data/griffin-tiny%s.gguf", type ? type : "");
            memset(&at, 0, sizeof at);
            check_all(path);
        }
    }
}

int main(int argc, char **argv) {
    (void)argv;
    RUN(test_every_call);
    for (int i = 0; argc > 1 && i < COUNT(calls); i++)
        printf("%-28s %6d\n", calls[i].name, (int)most[i]);
    return test_end();
}
