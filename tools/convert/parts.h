/* parts.h - the two halves of the converter: reading a model, and writing one. */

#ifndef PARTS_H
#define PARTS_H

#include "config.h"
#include "convert.h"
#include "tensors.h"
#include "vocabulary.h"
#include "weights.h"

typedef struct model_parts {
    weights      w;
    model_config config;
    char         name[200];                 /* the model's, as its file says it; "": it does not */
    tensors      tensors;                   /* their final names, and which of w they are */
    vocabulary   vocabulary;
    int          has_vocabulary;
} model_parts;

int  parts_read(model_parts *m, const convert_options *options, report *r);
void parts_free(model_parts *m);

/* Without options->output the file is written to memory, as *image, which is to be freed. */
int  parts_write(model_parts *m, const convert_options *options, char **image, size_t *size,
                 report *r);

#endif
