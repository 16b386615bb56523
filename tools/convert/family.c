/* family.c - the table of families; see family.h. */

#include "family.h"

#include <string.h>

static const family families[] = {
    {"recurrent_gemma", ".rg_lru.recurrent_param",        gemma_configure, gemma_rename},
    {"hgrn2",           ".attn.f_proj.weight",            hgrn2_configure, hgrn2_rename},
    {"openlm",          ".attention._totrain_embed.weight", supra_configure, supra_rename},
    {"llama",           ".self_attn.q_proj.weight",       llama_configure, llama_rename},
    {"mistral",         ".self_attn.q_proj.weight",       mistral_configure, llama_rename},
    {"qwen2",           ".self_attn.q_proj.bias",         qwen2_configure, llama_rename}
};

enum { FAMILIES = sizeof families / sizeof families[0] };

static int has_sign(const weights *w, const char *sign) {
    size_t n = strlen(sign);
    for (size_t i = 0; i < w->count; i++) {
        size_t m = strlen(w->list[i].name);
        if (m > n && strcmp(w->list[i].name + m - n, sign) == 0) return 1;
    }
    return 0;
}

static const family *unknown_type(const members *s, const char *found) {
    char known[300] = "", shown[80];
    for (int i = 0; i < FAMILIES; i++) {
        if (i) strcat(known, i + 1 < FAMILIES ? ", " : " or ");
        strcat(strcat(strcat(known, "\""), families[i].model_type), "\"");
    }
    report_fail(s->r, "%s: model_type: expected %s, not \"%s\"", s->path, known,
                report_name(found, strlen(found), shown));
    return NULL;
}

/* What it says counts; a file that does not say it is told by its tensors. */
const family *family_find(const members *s, const weights *w) {
    const member *type = members_find(s, "model_type");
    for (int i = 0; i < FAMILIES; i++) {
        if (type ? members_is(s, "model_type", families[i].model_type)
                 : has_sign(w, families[i].sign)) return &families[i];
    }
    return type ? unknown_type(s, type->text ? type->text : "?") : &families[0];
}

static const gguf_family gguf_families[] = {
    {"llama", llama_configure_gguf, llama_rename_gguf}
};

const gguf_family *gguf_family_find(const char *architecture, size_t length) {
    for (size_t i = 0; i < sizeof gguf_families / sizeof gguf_families[0]; i++) {
        const char *name = gguf_families[i].architecture;
        if (strlen(name) == length && memcmp(name, architecture, length) == 0)
            return &gguf_families[i];
    }
    return NULL;
}
