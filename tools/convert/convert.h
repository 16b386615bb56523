/* convert.h - makes a GGUF model from a checkpoint. */

#ifndef CONVERT_H
#define CONVERT_H

#include "../shared/report.h"

typedef struct convert_options {
    const char *source;                     /* a directory, or a file: .safetensors, .pt, .gguf */
    const char *output;                     /* null: into memory */
    const char *type, *gates;               /* of most weights, and of the gates: see quant_find;
                                             * null: what a GGUF file has, else bf16 and f32 */
    const char *tokenizer, *config;         /* files in place of those beside the source, or null */
    const char *preset, *name;              /* or null */
    int         vocab;                      /* rows of the embedding to keep; 0: as configured */
    int         rows;                       /* plain rows for other readers, instead of tiles */
    int         quiet;
    int         plain_scales;               /* of q4_0: those of other programs, without search */
    const char *head;                       /* type of embedding and head; null: as type says */
    int         window;                     /* of attention; 0: as the source has it */
    int         assume_nfc;                 /* see vocabulary_read */
    const char *balance;                    /* a text: see balance.h; or null */
} convert_options;

/* 0, or -1 with a message and no trace of an output file. */
int convert(const convert_options *options, report *r);

#endif
