/* trial.c - opens what the converter writes, so that no file is called finished that the library
 * refuses; see trial.h. */

#include "trial.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../griffin.h"
#include "../shared/host.h"

/* ---- metadata -------------------------------------------------------------------------------- */

static void report_to(griffin_options *options, report *r) {
    memset(options, 0, sizeof *options);
    r->text[0] = 0;
    options->error = r->text;
    options->error_size = sizeof r->text;
}

/* The library leaves out what it cannot read, and says why. */
static int read_metadata(const void *data, size_t size, report *r) {
    griffin_model *model;
    griffin_options options;
    report_to(&options, r);
    options.directory_only = 1;
    if (griffin_open_memory(&model, data, size, &options) != GRIFFIN_OK) return -1;
    griffin_close(model);
    return r->text[0] ? -1 : 0;
}

/* A file with the same keys and without tensors, in memory. */
int trial_metadata(const gguf_writer *g, report *r) {
    gguf_writer copy;
    memset(&copy, 0, sizeof copy);
    copy.key_count = g->key_count;
    buffer_add(&copy.keys, g->keys.data, g->keys.size);
    copy.keys.failed |= g->keys.failed;
    int status = gguf_open(&copy, NULL, r);
    if (status == 0) status = read_metadata(copy.image.data, copy.image.size, r);
    gguf_free(&copy);
    return status;
}

/* ---- a token --------------------------------------------------------------------------------- */

static int run_token(const griffin_model *model, float *logits, report *r) {
    const griffin_info *info = griffin_get_info(model);
    size_t size = griffin_context_size(model, NULL);
    void *memory = malloc(size), *state = calloc(1, griffin_state_size(model));
    griffin_context *context;
    if (!memory || !state) {
        free(memory);
        free(state);
        return report_fail(r, "out of memory to run a token: a state takes %.1f GB; --window N makes "
                           "that of attention smaller", (double)griffin_state_size(model) / 1e9);
    }
    int error = griffin_context_init(&context, model, NULL, memory, size);
    if (!error) error = griffin_step(context, (griffin_state *)state, info->bos > 0 ? info->bos : 0,
                                     logits);
    free(memory);
    free(state);
    if (error) return report_fail(r, "a token cannot be run: %s", griffin_error_string(error));
    for (int i = 0; i < info->config.vocab; i++)
        if (!isfinite(logits[i])) return report_fail(r, "logit %d of a token is not finite", i);
    return 0;
}

static int run_model(const void *data, size_t size, uint64_t *state, report *r) {
    griffin_model *model;
    griffin_options options;
    report_to(&options, r);
    if (griffin_open_memory(&model, data, size, &options) != GRIFFIN_OK) return -1;
    float *logits = (float *)malloc((size_t)griffin_get_info(model)->config.vocab * sizeof *logits);
    int status = logits ? run_token(model, logits, r) : report_fail(r, "out of memory");
    *state = griffin_state_size(model);
    free(logits);
    griffin_close(model);
    return status;
}

int trial_file(const char *path, int rows, uint64_t *state, report *r) {
    file_bytes file;
    if (file_open(&file, path, r) != 0) return -1;
    int status = rows ? read_metadata(file.data, (size_t)file.size, r)
                      : run_model(file.data, (size_t)file.size, state, r);
    file_close(&file);
    return status;
}
