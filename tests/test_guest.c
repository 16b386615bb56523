/* Promise: a guest takes nothing that it was not given. Once a model is open and the memory is
 * there, no call allocates; copies that were built differently live in one program and agree. */

#include "model.h"
#include "guest.h"

/* ---- malloc and its kin, counted wherever they are called from ------------------------------- */

#if defined(__has_feature)
  #if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
    #define OWN_MALLOC 0                    /* theirs is needed */
  #endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
  #define OWN_MALLOC 0
#endif
#ifndef OWN_MALLOC
  #define OWN_MALLOC 1
#endif

static long asked;                          /* calls since it was set to 0 */

#if OWN_MALLOC
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void  __libc_free(void *memory);

void *malloc(size_t size) { asked++; return __libc_malloc(size); }
void *calloc(size_t count, size_t size) { asked++; return __libc_calloc(count, size); }
void *realloc(void *memory, size_t size) { asked++; return __libc_realloc(memory, size); }
void  free(void *memory) { asked++; __libc_free(memory); }
#endif

static void *ask(size_t size, void *user) { (void)user; asked++; return malloc(size); }
static void give_back(void *memory, void *user) { (void)user; asked++; free(memory); }

static unsigned char *small_file(size_t *size) {
    griffin_config config = small_config();
    network *n = network_make(&config);
    gguf g;
    memset(&g, 0, sizeof g);
    network_write(n, &g);
    write_vocabulary(&g);
    network_free(n);
    return gguf_finish(&g, size);
}

/* ---- nothing is allocated ------------------------------------------------------------------- */

/* All that a host owns; made before anything is counted. */
typedef struct host {
    griffin_model   *m;
    griffin_context *c;
    griffin_state   *s, *other;
    void            *memory, *mark, *scratch, *save;
    size_t           memory_size, scratch_size, save_size;
    float            logits[64 * 19];
} host;

static void host_open(host *h, const void *file, size_t size) {
    griffin_options options;
    griffin_context_options o;
    memset(h, 0, sizeof *h);
    memset(&options, 0, sizeof options);
    memset(&o, 0, sizeof o);
    options.allocator.allocate = ask;
    options.allocator.release = give_back;
    o.states = 2;
    CHECK(griffin_open_memory(&h->m, file, size, &options) == GRIFFIN_OK, "open");
    h->s = new_state(h->m);
    h->other = new_state(h->m);
    h->memory_size = griffin_context_size(h->m, &o);
    h->memory = malloc(h->memory_size);
    h->mark = malloc(griffin_mark_size(h->m));
    h->scratch_size = griffin_encode_size(h->m, 100);
    h->scratch = malloc(h->scratch_size);
    h->save_size = griffin_state_size(h->m) + 1000;
    h->save = malloc(h->save_size);
}

static void host_close(host *h) {
    free(h->s); free(h->other); free(h->memory); free(h->mark); free(h->scratch); free(h->save);
    griffin_close(h->m);
}

/* These say whether all went well; a CHECK would allocate. */
static int encode_and_run(host *h) {
    griffin_context_options o;
    griffin_encoding encoding;
    griffin_span spans[2];
    int32_t tokens[200];
    int ok = 1;
    memset(&o, 0, sizeof o);
    memset(&encoding, 0, sizeof encoding);
    o.states = 2;
    encoding.scratch = h->scratch;
    encoding.scratch_size = h->scratch_size;
    ok &= griffin_context_init(&h->c, h->m, &o, h->memory, h->memory_size) == GRIFFIN_OK;
    int n = griffin_encode(h->m, &encoding, "abba baab abba", 14, tokens, 200);
    ok &= n > 5 && griffin_prefill(h->c, h->s, tokens, n, h->logits) == GRIFFIN_OK;
    spans[0] = span_of(h->s, tokens, n, h->logits);
    spans[1] = span_of(h->other, tokens, n, h->logits + 32 * 19);
    ok &= griffin_run(h->c, spans, 2) == GRIFFIN_OK;
    ok &= griffin_begin(h->c, spans, 2) > 0;
    while ((n = griffin_advance(h->c, 3)) > 0) { }
    return ok & (n == 0);
}

static int talk(host *h) {
    griffin_sampler sampler;
    griffin_decoder decoder;
    char text[512];
    int ok = 1;
    memset(&sampler, 0, sizeof sampler);
    memset(&decoder, 0, sizeof decoder);
    sampler.temperature = 1; sampler.top_k = 7; sampler.top_p = 0.9f; sampler.repeat_penalty = 1.1f;
    for (int i = 0; i < 12; i++) {
        int32_t token = griffin_sample(h->m, &sampler, h->logits) % 9;
        ok &= griffin_decode(h->m, &decoder, token, text, sizeof text) >= 0;
        ok &= griffin_token_text(h->m, token, text, sizeof text) >= 0;
        if (i == 5) ok &= griffin_mark(h->m, h->s, h->mark) == GRIFFIN_OK;
        ok &= griffin_step(h->c, h->s, token, h->logits) == GRIFFIN_OK;
    }
    ok &= griffin_rewind(h->m, h->s, h->mark) == GRIFFIN_OK;
    int64_t size = griffin_save(h->m, h->s, &sampler, &decoder, h->save, h->save_size);
    ok &= griffin_load(h->m, h->other, &sampler, &decoder, h->save, (size_t)size) == GRIFFIN_OK;
    ok &= griffin_step(h->c, h->other, 99, NULL) == GRIFFIN_E_ARGUMENT;      /* nor do errors */
    ok &= griffin_load(h->m, h->other, NULL, NULL, h->save, 30) == GRIFFIN_E_FORMAT;
    return ok;
}

static void test_no_allocation(void) {
    size_t size;
    unsigned char *file = small_file(&size);
    host h;
    int32_t tokens[8];
    host_open(&h, file, size);
    asked = 0;
    int ok = encode_and_run(&h) && talk(&h);
    long before = asked;
    CHECK(ok, "a call failed");
    CHECK(before == 0, "%ld calls of the allocator, or of malloc and its kin", before);
    asked = 0;
    ok = griffin_encode(h.m, NULL, "abba", 4, tokens, 8);
    before = asked;
    CHECK(ok > 1 && before == 2 + 2 * OWN_MALLOC, "without scratch: %ld calls", before);
    host_close(&h);
    free(file);
}

/* ---- copies --------------------------------------------------------------------------------- */

int prefixed_answers(const void *file, size_t size, guest_answer *a);
int static_answers(const void *file, size_t size, guest_answer *a);

static void test_copies(void) {
    static guest_answer own, prefixed, in_static;
    size_t size;
    unsigned char *file = small_file(&size);
    CHECK(guest_answers(file, size, &own) == GRIFFIN_OK, "this file's copy");
    CHECK(own.save_size > 0 && own.text[0], "'%s', %d bytes", own.text, (int)own.save_size);
    CHECK(prefixed_answers(file, size, &prefixed) == GRIFFIN_OK, "a prefixed copy");
    CHECK(static_answers(file, size, &in_static) == GRIFFIN_OK, "a static copy");
    CHECK(memcmp(&own, &prefixed, sizeof own) == 0, "'%s' and '%s'", own.text, prefixed.text);
    CHECK(memcmp(&own, &in_static, sizeof own) == 0, "'%s' and '%s'", own.text, in_static.text);
    free(file);
}

int main(void) {
    RUN(test_no_allocation);
    RUN(test_copies);
    return test_end();
}
