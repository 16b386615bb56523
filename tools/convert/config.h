/* config.h - what the .json files beside a model's weights say about it. */

#ifndef CONFIG_H
#define CONFIG_H

#include "../../griffin.h"
#include "gguf_writer.h"
#include "members.h"
#include "../shared/host.h"

enum { CONFIG_ENDS = 8 };                   /* most ids of eos_token_id */

typedef enum head_kind {
    HEAD_AS_FOUND,                          /* its own if the file has one */
    HEAD_OWN, HEAD_TIED                     /* the embedding */
} head_kind;

typedef struct model_config {
    griffin_config net;
    head_kind head;
    int   context_length;                   /* of the training, for information */
    int   is_unbounded;                     /* 1: its attention has no window; net has one */
    int   bos, eos, end_of_turn, pad;       /* ids; -1: not said */
    int   ends[CONFIG_ENDS], end_count;     /* eos_token_id: the first is eos, the second
                                             * end_of_turn, unless the vocabulary knows better */
    int   add_bos, add_eos;                 /* 0 or 1; -1: not said */
    char *chat_template;                    /* null: none */
} model_config;

/* Starts a configuration in which nothing was said; its net is that of no family. */
void config_start(model_config *c);

/* The same from the name of a published shape. */
int config_preset(model_config *c, const char *name, report *r);

/* What a config.json says of the rotation of queries and keys, in any of its places. */
typedef struct rotation {
    double base, part;                      /* of a head that is rotated */
    int    has_base, has_part;              /* 1: it was said */
    double factor;                          /* 1, or by how much slow pairs turn more slowly: */
    double context, low, high;              /* those with `low` turns or fewer in a text of so many
                                             * tokens. From `high` turns on they stay as they are */
} rotation;

/* Kinds that are not known are refused. may_stretch: "linear" and "llama3" are known. */
rotation config_rotation(members *s, double part, int may_stretch);

/* By what the angle of a pair is divided, which is `radians` for each token. */
double rotation_factor(const rotation *turn, double radians);

griffin_activation config_activation(members *s, const char *name, griffin_activation absent);

/* Adds the special tokens and the chat template of a config.json. What is said replaces what is
 * there. */
void config_take_ids(model_config *c, members *s);

/* Adds what generation_config.json, tokenizer_config.json and chat_template.jinja of a directory
 * say, where they exist. */
int config_read_companions(model_config *c, const char *directory, report *r);

/* sqrt(width), as embeddings_scale_by_sqrt_dim means it. */
float config_embedding_scale(int width);

/* Fills in a published shape: "recurrentgemma-2b" ("2b"), "recurrentgemma-9b" ("9b"), and the
 * paper's "griffin-S", "hawk-S", "mqa-S" with S of 100m 200m 400m 1.3b 3b 7b 14b (vocabulary
 * 32000). mqa is the paper's Transformer baseline: all attention. 0, or -1: no such name. */
int preset_find(griffin_config *net, const char *name);

/* Writes the configuration as the metadata that griffin.h reads. */
void config_write(const griffin_config *net, gguf_writer *g);

void config_free(model_config *c);

#endif
