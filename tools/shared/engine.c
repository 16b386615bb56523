/* engine.c - the library and its grammars, compiled once for all commands; and what engine.h opens
 * of the library. */

#define GRIFFIN_IMPLEMENTATION
#include "../../griffin.h"
#define GRIFFIN_GRAMMAR_IMPLEMENTATION
#include "../griffin_grammar.h"
#include "engine.h"

struct engine_file { grf_gguf gguf; };

static grf_host host_of(report *r) {
    grf_host host;
    memset(&host, 0, sizeof host);
    host.error = r->text;
    host.error_size = sizeof r->text;
    return host;
}

int engine_open(engine_file **file, const void *data, size_t size, report *r) {
    grf_host host = host_of(r);
    *file = (engine_file *)malloc(sizeof **file);
    if (!*file) { grf_fail_memory(&host, sizeof **file); return -1; }
    if (grf_gguf_open(&(*file)->gguf, data, size, &host) == GRIFFIN_OK) return 0;
    free(*file);
    *file = NULL;
    return -1;
}

void engine_close(engine_file *file) {
    report unused;
    grf_host host = host_of(&unused);
    if (file) grf_gguf_close(&file->gguf, &host);
    free(file);
}

int engine_metadata(const engine_file *file, const char *key, int index, griffin_metadata *m) {
    return grf_metadata_get(&file->gguf, key, index, m);
}

int engine_tensor(const engine_file *file, int index, griffin_tensor *t) {
    if (index < 0 || (uint64_t)index >= file->gguf.n_tensors) return 0;
    grf_tensor_get(&file->gguf, index, t);
    return 1;
}

int engine_config(const engine_file *file, griffin_config *config, report *r) {
    static const char *const family[] = { "griffin.", "recurrentgemma.", "recurrent_gemma.",
                                          "recurrent-gemma." };
    grf_host host = host_of(r);
    griffin_metadata name;
    if (!grf_metadata_get(&file->gguf, "general.architecture", 0, &name) || !name.text) return 0;
    for (int i = 0; i < GRF_COUNT(family); i++)
        if (strlen(family[i]) == name.length + 1 && !memcmp(family[i], name.text, name.length))
            return grf_config_read(&file->gguf, family[i], config, &host) < 0 ? -1 : 1;
    grf_fail(&host, GRIFFIN_E_UNSUPPORTED, "architecture '%t', expected griffin or recurrentgemma",
             name.text, name.length);
    return -1;
}

int engine_vocabulary(const engine_file *file, griffin_info *info, report *r) {
    grf_host host = host_of(r);
    grf_vocab vocab;
    int error;
    memset(&vocab, 0, sizeof vocab);
    error = grf_vocab_load(&vocab, &file->gguf, &host);
    info->has_vocabulary = vocab.count > 0;
    info->bos = vocab.bos;
    info->eos = vocab.eos;
    info->end_of_turn = vocab.eot;
    info->pad = vocab.pad;
    info->add_bos = vocab.add_bos;
    grf_vocab_free(&vocab, &host);
    return error < 0 ? -1 : info->has_vocabulary;
}

typedef char engine_version_is_the_library_s[ENGINE_FILE_VERSION == GRF_FILE_VERSION ? 1 : -1];

int engine_number_of(const griffin_config *config, int index, engine_number *number) {
    if (index < 0 || index >= GRF_COUNT(grf_config_rows)) return 0;
    number->key = grf_config_rows[index].key;
    number->kind = grf_config_rows[index].kind;
    number->value = grf_config_number(config, &grf_config_rows[index]);
    return 1;
}

const char *engine_activation_name(griffin_activation activation) {
    int i = 0;
    while (grf_activations[i].value != activation) i++;
    return grf_activations[i].name;
}

int engine_activation_find(const char *name, size_t length) {
    int row = grf_activation_find(name, length);
    return row < 0 ? -1 : (int)grf_activations[row].value;
}

int engine_has_tiling(const char *type) {
    for (int i = 0; i < GRF_TILINGS; i++) if (!strcmp(type, grf_tilings[i].name)) return 1;
    return 0;
}
