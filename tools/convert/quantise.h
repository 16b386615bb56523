/* quantise.h - the number formats a GGUF file may hold, and how floats become them and back.
 *
 * A row of weights is cut into blocks of a fixed number of values; each block is encoded alone.
 * The bytes are those of the reference quantiser, whatever the compiler and its options. For some
 * types there are better scales than the reference finds: quantise_best. */

#ifndef QUANTISE_H
#define QUANTISE_H

#include <stdint.h>

typedef struct quant_type {
    const char *name;                       /* "q4_k", as the command line spells it */
    uint32_t    id;                         /* the type of a tensor in GGUF, or TILES_ONLY */
    uint32_t    file_type;                  /* what general.file_type calls a file full of it */
    uint32_t    elements, bytes;            /* of one block */
    int       (*encode)(const float *x, uint8_t *block);    /* as the reference; null: only read */
    int       (*search)(const float *x, uint8_t *block);    /* with less error; null: no such way */
    void      (*decode)(const uint8_t *blocks, float *x, uint64_t n);  /* n blocks, any address */
} quant_type;

#define TILES_ONLY 0xffffffffu              /* GGUF has no rows of this type */

/* By the command line's name; null: there is no such type, or it cannot be written. The second also
 * finds those that are only read. */
const quant_type *quant_find(const char *name);
const quant_type *quant_find_source(const char *name);

/* How many bytes n values take; n is a multiple of type->elements. */
uint64_t quant_bytes(const quant_type *type, uint64_t n);

/* Encodes n finite floats, a multiple of type->elements. 0: done; -1: a scale, or a value kept
 * as it is, is too large for the format. quantise_best searches for scales that leave less error,
 * where the type has such a search. */
int quantise_row(const quant_type *type, const float *x, uint64_t n, uint8_t *out);
int quantise_best(const quant_type *type, const float *x, uint64_t n, uint8_t *out);

uint16_t f16_of(float value);               /* to nearest, ties to even; NaN becomes 0x7E00 */
uint16_t bf16_of(float value);              /* the same; NaN keeps its upper bits */
float    float_of_f16(uint16_t half);       /* exact */

/* The decoders of the table; dequantise.c describes the blocks. */
typedef void quant_decoder(const uint8_t *blocks, float *x, uint64_t n);
quant_decoder decode_f32, decode_f16, decode_bf16, decode_q8_0, decode_q4_0, decode_q4_1,
              decode_q5_0, decode_q5_1, decode_q6_0, decode_q4_k, decode_q5_k, decode_q6_k,
              decode_q2_k, decode_q3_k;

#endif
