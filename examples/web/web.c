/* web.c - what griffin.js calls: the library in a WebAssembly module that imports nothing.
 *
 * All that a story is, its state, the logits after it and a half decoded character, lies in one
 * block of bytes without pointers. The page copies it to remember a moment, and copies it back to
 * return there; this file need not know. Zeros are the beginning. */

#define GRIFFIN_NO_STDIO
#define GRIFFIN_NO_STDLIB
#define GRIFFIN_IMPLEMENTATION
#include "../../griffin.h"

#ifdef __wasm__
  #define EXPORT(name) __attribute__((export_name(#name)))
#else
  #define EXPORT(name)                      /* the test builds it for this machine, too */
#endif

#ifndef ARENA
  #define ARENA (24 << 20)                  /* all memory there is; the model takes 6 MiB of it */
#endif

enum { ROWS = 16, WAITING = 4100 };         /* tokens in a pass; heard and not yet read */

typedef struct story {
    griffin_decoder decoder;
    unsigned char   padding[64 - sizeof(griffin_decoder)];
    /* then the state, then the logits */
} story;

static struct {
    griffin_model   *model;
    griffin_context *context;
    story           *story;
    griffin_state   *state;
    float           *logits;
    griffin_sampler  sampler;
    int32_t waiting[WAITING];
    int     next, count;                    /* of those waiting */
    int     units;                          /* of the pass in flight */
    int64_t first;                          /* position before the first token: a persona's, or 0 */
    char    error[256];
} page;

static union { unsigned char bytes[ARENA]; double alignment[8]; } arena;
static size_t used;

static void *take(size_t size, void *user) {
    void *memory = arena.bytes + used;
    (void)user;
    size = (size + 63) & ~(size_t)63;
    if (size > sizeof arena - used) return NULL;
    used += size;
    return memory;
}

static void keep(void *memory, void *user) { (void)memory; (void)user; }

/* Room for the model's bytes, or for text; null: no more. */
EXPORT(reserve) void *page_reserve(size_t size) { return take(size, NULL); }

EXPORT(story) void *page_story(void) { return page.story; }
EXPORT(logits) float *page_logits(void) { return page.logits; }
EXPORT(logits_size) size_t page_logits_size(void) {
    return (size_t)griffin_get_info(page.model)->config.vocab * sizeof(float);
}
EXPORT(story_size) size_t page_story_size(void) {
    return sizeof(story) + griffin_state_size(page.model) + page_logits_size();
}
EXPORT(error) const char *page_error(void) { return page.error; }
EXPORT(position) int page_position(void) {
    return (int)(griffin_state_position(page.state) - page.first);
}

/* Returns 0 or a griffin_error. */
EXPORT(open) int page_open(const void *file, size_t size, uint32_t seed) {
    griffin_options options = { .allocator = { take, keep, NULL } };
    griffin_context_options rows = { .rows = ROWS };
    options.error = page.error;
    options.error_size = sizeof page.error;
    int error = griffin_open_memory(&page.model, file, size, &options);
    if (error) return error;
    size_t scratch = griffin_context_size(page.model, &rows);
    void *memory = take(scratch, NULL);
    page.story = take(page_story_size(), NULL);
    if (!memory || !page.story) return GRIFFIN_E_MEMORY;
    page.state  = (griffin_state *)(page.story + 1);
    page.logits = (float *)((unsigned char *)page.state + griffin_state_size(page.model));
    page.sampler = (griffin_sampler){ .seed = seed, .temperature = 0.7f, .top_p = 0.9f };
    return griffin_context_init(&page.context, page.model, &rows, memory, scratch);
}

/* Tales begin in this persona, a saved state, from now on; size 0: in none. Ends the one that is
 * told. Returns 0 or a griffin_error. */
EXPORT(persona) int page_persona(const void *file, size_t size) {
    memset(page.story, 0, page_story_size());
    page.next = page.count = page.units = 0;
    int error = size ? griffin_load(page.model, page.state, NULL, NULL, file, size) : GRIFFIN_OK;
    page.first = griffin_state_position(page.state);
    return error;
}

/* A unit of what is to be done, a fraction of a millisecond; returns 0 when all is done. */
EXPORT(work) int page_work(void) {
    int left = page.count - page.next;
    if (page.units == 0 && left > 0) {
        int count = left < ROWS ? left : ROWS;
        griffin_span span = { page.state, page.waiting + page.next, count, 0,
                              count == left ? page.logits : NULL };
        page.units = griffin_begin(page.context, &span, 1);
        page.next += count;
    } else if (page.units > 0) {
        page.units = griffin_advance(page.context, 1);
    }
    return page.units > 0 || page.count > page.next;
}

/* After work has returned 0: text to be read by its next calls; returns how many tokens. */
EXPORT(listen) int page_listen(const char *text, size_t length) {
    griffin_encoding encoding = { .continues = page_position() > 0 };
    size_t mark = used;                     /* what encoding allocates is given back at once */
    int count = griffin_encode(page.model, &encoding, text, length, page.waiting, WAITING);
    used = mark;
    if (count < 0) return count;
    if (count > WAITING) return GRIFFIN_E_SPACE;
    page.next = 0;
    page.count = count;
    page.story->decoder.started = 1;
    return count;
}

/* After work has returned 0: chooses a token, lets it be read, and writes what it adds to the
 * text; returns how many bytes. */
EXPORT(speak) int page_speak(char *text, size_t capacity) {
    int32_t token = griffin_sample(page.model, &page.sampler, page.logits);
    if (token < 0) return token;
    page.waiting[0] = token;
    page.next = 0;
    page.count = 1;
    return griffin_decode(page.model, &page.story->decoder, token, text, capacity);
}

/* Forgets what is waiting and in flight, for when the page copies another moment back. */
EXPORT(drop) void page_drop(void) { page.next = page.count = page.units = 0; }
