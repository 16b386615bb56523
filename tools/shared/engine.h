/* engine.h - what the converter shares with the library beyond its API: the reader of a GGUF file's
 * directory, which takes hostile bytes, the table of the configuration's keys and the tilings. So
 * each of them is written once, in griffin.h. */

#ifndef ENGINE_H
#define ENGINE_H

#include "../../griffin.h"
#include "report.h"

/* ---- files, of any version and with any types ------------------------------------------------ */

typedef struct engine_file engine_file;

/* Checks the directory. The file borrows the data. 0, or -1 with a message. */
int  engine_open(engine_file **file, const void *data, size_t size, report *r);
void engine_close(engine_file *file);

int engine_metadata(const engine_file *file, const char *key, int index, griffin_metadata *m);
int engine_tensor(const engine_file *file, int index, griffin_tensor *t);      /* 0: no more */

/* Both return 1, 0 if the file says nothing about it, or -1 with a message. The keys may be those
 * of any architecture of the family. Of the vocabulary only bos, eos, end_of_turn, pad and add_bos
 * are filled in. */
int engine_config(const engine_file *file, griffin_config *config, report *r);
int engine_vocabulary(const engine_file *file, griffin_info *info, report *r);

/* ---- what a file is made of ------------------------------------------------------------------ */

enum { ENGINE_FILE_VERSION = 2 };           /* of griffin.format_version */

typedef struct engine_number {
    const char *key;                        /* after "griffin." */
    char        kind;                       /* 'i' whole, 'f' float, 'b' bool */
    double      value;
} engine_number;

/* The index-th number of a configuration; 0: there are no more. */
int engine_number_of(const griffin_config *config, int index, engine_number *number);

const char *engine_activation_name(griffin_activation activation);
int         engine_activation_find(const char *name, size_t length);           /* -1: none */

int engine_has_tiling(const char *type);    /* 1 if the library has tiles of this type */

#endif
