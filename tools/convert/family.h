/* family.h - the kinds of models that can be converted.
 *
 * Each is a row: how it is told from others, and two functions. One reads its configuration, and
 * one gives its tensors the names and shapes of tensors.c. A new kind is a new row. */

#ifndef FAMILY_H
#define FAMILY_H

#include "config.h"
#include "members.h"
#include "weights.h"

typedef struct family {
    const char *model_type;                 /* in config.json */
    const char *sign;                       /* the end of a name that only its tensors have */

    /* Fills in c, which is started, from a config.json. What is wrong makes members.failed. The
     * window of attention over everything is 0. */
    void (*configure)(members *s, model_config *c);

    /* Renames the tensors of w. 0, or -1 with a message and a closed list. */
    int (*rename)(weights *w, members *s, const griffin_config *net, const char *path,
                  report *r);
} family;

/* The family of a configuration and its tensors; null with a message if it is none of them. */
const family *family_find(const members *s, const weights *w);

void gemma_configure(members *s, model_config *c);
void hgrn2_configure(members *s, model_config *c);
void supra_configure(members *s, model_config *c);
void llama_configure(members *s, model_config *c);
void mistral_configure(members *s, model_config *c);
void qwen2_configure(members *s, model_config *c);

int gemma_rename(weights *w, members *s, const griffin_config *net, const char *path, report *r);
int hgrn2_rename(weights *w, members *s, const griffin_config *net, const char *path, report *r);
int supra_rename(weights *w, members *s, const griffin_config *net, const char *path, report *r);
int llama_rename(weights *w, members *s, const griffin_config *net, const char *path, report *r);

/* ---- the same of GGUF files of other programs, told by general.architecture ------------------ */

typedef struct gguf_family {
    const char *architecture;
    int (*configure)(const griffin_model *f, model_config *c, report *r);
    int (*rename)(weights *w, const griffin_model *f, const griffin_config *net, const char *path,
                  report *r);
} gguf_family;

/* Null: there is no such architecture. */
const gguf_family *gguf_family_find(const char *architecture, size_t length);

int llama_configure_gguf(const griffin_model *f, model_config *c, report *r);
int llama_rename_gguf(weights *w, const griffin_model *f, const griffin_config *net,
                      const char *path, report *r);

#endif
