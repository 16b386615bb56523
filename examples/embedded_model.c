/* embedded_model.c - the weights are in the executable: no file is opened and nothing allocated.
 *
 *     cc -O2 examples/embedded_model.c -lm -o tale && cd / && ~/griffin/tale
 *
 * The assembler copies the file in, aligned, so that tiles are used where they are: opening costs
 * two hundred kilobytes of an arena. With GRIFFIN_STATIC the library is private to this file;
 * without stdio and stdlib it needs nothing from the system but memcpy and the like. */

#define GRIFFIN_STATIC
#define GRIFFIN_NO_STDIO
#define GRIFFIN_NO_STDLIB
#define GRIFFIN_IMPLEMENTATION
#include "../griffin.h"

#include <stdio.h>
#include <string.h>

#ifndef MODEL
  #define MODEL "examples/models/storyteller.gguf"  /* from where the compiler is called */
#endif

#if defined(__APPLE__)
  #define READ_ONLY ".const_data"
#elif defined(_WIN32)
  #define READ_ONLY ".section .rdata,\"dr\""
#else
  #define READ_ONLY ".section .rodata"
#endif

#define TEXT(x)  TEXT_(x)
#define TEXT_(x) #x
#define NAME(x)  TEXT(__USER_LABEL_PREFIX__) #x     /* as the linker sees it */

__asm__(READ_ONLY "\n"
        ".balign 64\n"
        ".globl " NAME(model_start) "\n" NAME(model_start) ":\n"
        ".incbin \"" MODEL "\"\n"
        ".globl " NAME(model_end) "\n" NAME(model_end) ":\n"
        ".text\n");

extern const unsigned char model_start[], model_end[];

/* Memory is handed out from the front and never taken back. */
static union { unsigned char bytes[2 << 20]; double alignment[8]; } arena;
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

int main(void) {
    static const char opening[] = "Once upon a time, in a big forest";
    griffin_options options = { .allocator = { take, keep, NULL } };
    griffin_context_options small = { .rows = 8 };
    griffin_sampler sampler = { .seed = 3, .temperature = 0.7f, .top_p = 0.9f };
    griffin_decoder decoder = { .started = 1 };
    griffin_model *model;
    griffin_context *context;
    int32_t tokens[32];
    char text[512];

    size_t size = (size_t)(model_end - model_start);
    int error = griffin_open_memory(&model, model_start, size, &options);
    if (error) { fprintf(stderr, "%s\n", griffin_error_string(error)); return 1; }

    size = griffin_context_size(model, &small);
    griffin_state *state = take(griffin_state_size(model), NULL);   /* static memory is zero */
    float *logits = take((size_t)griffin_get_info(model)->config.vocab * sizeof(float), NULL);
    void *memory = take(size, NULL);
    int count = griffin_encode(model, NULL, opening, strlen(opening), tokens, 32);
    if (!state || !logits || !memory || count < 0 || count > 32
        || griffin_context_init(&context, model, &small, memory, size) < 0) return 1;

    griffin_prefill(context, state, tokens, count, logits);
    for (printf("%s", opening); count < 120; count++) {
        int32_t token = griffin_sample(model, &sampler, logits);
        if (token == griffin_get_info(model)->eos) break;
        griffin_decode(model, &decoder, token, text, sizeof text);
        printf("%s", text);
        griffin_step(context, state, token, logits);
    }
    printf("\n");
    fprintf(stderr, "%.0f KiB of the arena, %.0f KiB of weights where they were\n",
            (double)used / 1024, (double)(model_end - model_start) / 1024);
    return 0;
}
