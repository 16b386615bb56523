/* hf_writer.h - writes a model as Hugging Face's libraries lay one out. */

#ifndef HF_WRITER_H
#define HF_WRITER_H

#include "parts.h"

/* Whether that can be done with this network and vocabulary: 0, or -1 with a message. */
int hf_can_write(const griffin_config *net, const vocabulary *v, report *r);

/* Writes config.json, model.safetensors (f32), tokenizer.model and tokenizer_config.json into a
 * directory, and makes the directory if there is none: as transformers lays out recurrent_gemma, or
 * flash-linear-attention HGRN2, whose lower_bounds [layers][width] are given; else they are null.
 * Each file is replaced as a whole. 0, or 1 after a message. */
int hf_write(const model_parts *m, const float *lower_bounds, const char *directory);

#endif
