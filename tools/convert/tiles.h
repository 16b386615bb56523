/* tiles.h - matrices as the library reads them: in tiles of 32 rows, described in griffin.h at
 * >>network. A tensor NAME in tiles is called NAME.TYPE. */

#ifndef TILES_H
#define TILES_H

#include "../../griffin.h"
#include "quantise.h"

enum { TILE = 32 };                         /* rows */

int tile_exists(const char *type);          /* 1: the library has tiles of this type */

/* Bytes of a tile; 0: the library has no tiles of this type, or not of so many columns. */
uint64_t tile_size(const quant_type *type, uint64_t cols);

/* Numbers are a tensor [tiles, cols, 32] of their type, blocks are bytes [tiles, tile_size]. Fills
 * in the shape and returns its rank. */
int tile_shape(const quant_type *type, uint64_t cols, uint64_t tiles, uint64_t shape[3]);

/* What such a tensor is made of, in GGUF: the type itself, or bytes. */
const quant_type *tile_storage(const quant_type *type);

/* 1 to 32 rows, each encoded as in a GGUF tensor of the type, to a tile that is filled up with
 * zeros; and back. */
void tile_pack(const quant_type *type, uint64_t cols, const uint8_t *rows, uint64_t count,
               uint8_t *tile);
void tile_unpack(const quant_type *type, uint64_t cols, const uint8_t *tile, uint64_t count,
                 uint8_t *rows);

#endif
