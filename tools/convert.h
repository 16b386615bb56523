/* convert.h - makes a GGUF model from a checkpoint. */

#ifndef CONVERT_H
#define CONVERT_H

#include "config.h"
#include "report.h"
#include "tensors.h"
#include "vocabulary.h"
#include "weights.h"

typedef struct convert_options {
    const char *source;                     /* a directory, or a file: .safetensors, .pt, .gguf */
    const char *output;                     /* null: into memory */
    const char *type, *gates; /* of most weights; of the gates. As quant_find has them */
    const char *tokenizer, *config;         /* files in place of those beside the source, or null */
    const char *preset, *name;              /* or null */
    int         vocab;                      /* rows of the embedding to keep; 0: as configured */
    int         rows;                       /* plain rows for any reader, instead of tiles */
    int         quiet;
} convert_options;

/* 0, or -1 with a message and no trace of an output file. */
int convert(const convert_options *options, report *r);

/* ---- the two halves of it, for models that come from elsewhere or go there ------------------- */

typedef struct model_parts {
    weights      w;
    model_config config;
    tensors      tensors;                   /* which of w they are, and their final names */
    vocabulary   vocabulary;
    int          has_vocabulary;
} model_parts;

int  parts_read(model_parts *m, const convert_options *options, report *r);
void parts_free(model_parts *m);

/* Without options->output *image becomes the file, to be freed. */
int  parts_write(model_parts *m, const convert_options *options, char **image, size_t *size,
                 report *r);

#endif
