/* hello.c - the shortest useful program with griffin.h: it tells a tale.
 *
 *     cc -O2 -I. examples/hello.c -lm -o hello && ./hello examples/models/storyteller.gguf */

#define GRIFFIN_IMPLEMENTATION
#include "griffin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
    const char *path = argc > 1 ? argv[1] : "examples/models/storyteller.gguf";
    const char *opening = "Once upon a time";
    griffin_model *model;
    griffin_context *context;
    griffin_sampler sampler;
    griffin_decoder decoder = { { 0 }, 0, 0, 0, 0 };
    griffin_options options;
    int32_t token, prompt[64];
    char text[512] = "";

    memset(&options, 0, sizeof options);
    memset(&sampler, 0, sizeof sampler);                            /* zero is greedy */
    options.error = text;                                           /* words, if it fails */
    options.error_size = sizeof text;
    if (griffin_open_file(&model, path, &options)) { fprintf(stderr, "%s\n", text); return 1; }

    size_t size = griffin_context_size(model, NULL);
    griffin_state *state = (griffin_state *)calloc(1, griffin_state_size(model)); /* zero: fresh */
    float *logits = (float *)malloc((size_t)griffin_get_info(model)->config.vocab * sizeof(float));
    void *memory = malloc(size);
    if (!state || !logits || !memory) return 1;

    sampler.seed = 2026;
    sampler.temperature = 0.7f;
    sampler.top_p = 0.9f;
    griffin_context_init(&context, model, NULL, memory, size);
    int count = griffin_encode(model, NULL, opening, strlen(opening), prompt, 64);
    if (count > 64) count = GRIFFIN_E_SPACE;
    if (count < 0) { fprintf(stderr, "%s\n", griffin_error_string(count)); return 1; }
    griffin_prefill(context, state, prompt, count, logits);
    for (printf("%s", opening); count < 200; count++) {
        token = griffin_sample(model, &sampler, logits);
        if (token == griffin_get_info(model)->eos) break;           /* the tale ends here */
        griffin_decode(model, &decoder, token, text, sizeof text);
        fputs(text, stdout);
        fflush(stdout);
        griffin_step(context, state, token, logits);
    }
    puts("");
    free(memory); free(logits); free(state);
    griffin_close(model);
    return 0;
}
