/* tiles.c - see tiles.h. */

#include "tiles.h"

#include <string.h>

int tile_exists(const char *type) {
    const char *name;
    for (int i = 0; (name = griffin_tiling_name(i)) != NULL; i++)
        if (strcmp(type, name) == 0) return 1;
    return 0;
}

uint64_t tile_size(const quant_type *type, uint64_t cols) {
    if (!tile_exists(type->name) || cols % type->elements) return 0;
    return TILE * quant_bytes(type, cols);
}

int tile_shape(const quant_type *type, uint64_t cols, uint64_t tiles, uint64_t shape[3]) {
    shape[0] = tiles;
    shape[1] = type->elements == 1 ? cols : tile_size(type, cols);
    shape[2] = TILE;
    return type->elements == 1 ? 3 : 2;
}

const quant_type *tile_storage(const quant_type *type) {
    static const quant_type bytes = { "i8", 24, 0, 1, 1, NULL, NULL, NULL };
    return type->elements == 1 ? type : &bytes;
}

/* Where byte `i` of block `j` of row `r` is in a tile. A number is one block. Of the others the
 * scales of 32 rows, two bytes each, come first, then four bytes of each row in turn. */
static uint64_t place_of(const quant_type *type, uint64_t j, uint64_t r, uint64_t i) {
    uint64_t block = j * TILE * type->bytes;
    if (type->elements == 1) return block + r * type->bytes + i;
    if (i < 2) return block + 2 * r + i;
    return block + 2 * TILE + (i - 2) / 4 * (4 * TILE) + 4 * r + (i - 2) % 4;
}

/* Codes of q8_0 are signed in rows, and 128 more in tiles. */
static uint8_t flip_of(const quant_type *type, uint64_t i) {
    return i >= 2 && strcmp(type->name, "q8_0") == 0 ? 0x80 : 0;
}

void tile_pack(const quant_type *type, uint64_t cols, const uint8_t *rows, uint64_t count,
               uint8_t *tile) {
    uint64_t blocks = cols / type->elements;
    memset(tile, 0, (size_t)tile_size(type, cols));
    for (uint64_t i = 0; i < type->bytes; i++) {
        uint8_t flip = flip_of(type, i);
        for (uint64_t r = 0; r < count; r++)
            for (uint64_t j = 0; j < blocks; j++)
                tile[place_of(type, j, r, i)] = rows[(r * blocks + j) * type->bytes + i] ^ flip;
    }
}

void tile_unpack(const quant_type *type, uint64_t cols, const uint8_t *tile, uint64_t count,
                 uint8_t *rows) {
    uint64_t blocks = cols / type->elements;
    for (uint64_t i = 0; i < type->bytes; i++) {
        uint8_t flip = flip_of(type, i);
        for (uint64_t r = 0; r < count; r++)
            for (uint64_t j = 0; j < blocks; j++)
                rows[(r * blocks + j) * type->bytes + i] = tile[place_of(type, j, r, i)] ^ flip;
    }
}
