/* gguf_writer.h - writes a GGUF file, version 3, one tensor at a time.
 *
 * Zero-initialise the writer, describe everything, then stream:
 *
 *     gguf_string(&g, "general.architecture", "griffin");       ... the metadata, in file order
 *     gguf_tensor(&g, name, rank, shape, type);                 ... every tensor
 *     gguf_open(&g, path, r);                                   the header is on the disk
 *     gguf_write(&g, data, size, r); gguf_pad(&g, r);           ... each tensor, in the same order
 *     gguf_finish(&g, r);                                       all of it is on the disk
 *     gguf_close(&g, r);                                        the file gets its name
 *     gguf_free(&g);                                            always; removes an unfinished file
 *
 * Half a model never has a model's name: see file_output. With a null path the file is made in
 * memory. */

#ifndef GGUF_WRITER_H
#define GGUF_WRITER_H

#include <stdint.h>

#include "quantise.h"
#include "../shared/buffer.h"
#include "../shared/host.h"
#include "../shared/report.h"

#define GGUF_ALIGNMENT 64                  /* a cache line, so that weights can be used in place */

enum { GGUF_U8 = 0, GGUF_U32 = 4, GGUF_I32 = 5, GGUF_F32 = 6, GGUF_BOOL = 7, GGUF_STRING = 8,
       GGUF_ARRAY = 9 };

typedef struct gguf_writer {
    byte_buffer keys, infos;                /* the two lists of the header */
    byte_buffer image;                      /* with a null path: the file in memory */
    uint64_t    key_count, tensor_count;
    uint64_t    data_size, written;         /* of the data section: planned, done */
    file_output file;
} gguf_writer;

void gguf_text  (gguf_writer *g, const char *key, const char *text, size_t length);
void gguf_string(gguf_writer *g, const char *key, const char *text);
void gguf_u32   (gguf_writer *g, const char *key, uint32_t value);
void gguf_f32   (gguf_writer *g, const char *key, float value);
void gguf_bool  (gguf_writer *g, const char *key, int value);

/* An array is its head and then `count` items of its type. */
void gguf_array    (gguf_writer *g, const char *key, uint32_t item_type, uint64_t count);
void gguf_item_text(gguf_writer *g, const char *text, size_t length);
void gguf_item_u32 (gguf_writer *g, uint32_t value);        /* also i32 */
void gguf_item_f32 (gguf_writer *g, float value);
void gguf_item_u8  (gguf_writer *g, uint8_t value);

/* shape is row-major, its last dimension a multiple of type->elements. Returns the data's bytes. */
uint64_t gguf_tensor(gguf_writer *g, const char *name, int rank, const uint64_t *shape,
                     const quant_type *type);

int  gguf_open (gguf_writer *g, const char *path, report *r);
int  gguf_write(gguf_writer *g, const void *data, size_t size, report *r);
int  gguf_pad  (gguf_writer *g, report *r);
int  gguf_finish(gguf_writer *g, report *r);
int  gguf_close(gguf_writer *g, report *r);
void gguf_free (gguf_writer *g);

#endif
