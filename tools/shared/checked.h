/* checked.h - numbers from files that cannot be trusted: arithmetic that notices an overflow, and
 * little-endian bytes. */

#ifndef CHECKED_H
#define CHECKED_H

#include <stdint.h>

static inline int checked_mul(uint64_t a, uint64_t b, uint64_t *product) {
    if (a != 0 && b > UINT64_MAX / a) return 0;
    *product = a * b;
    return 1;
}

static inline int checked_add(uint64_t a, uint64_t b, uint64_t *sum) {
    if (b > UINT64_MAX - a) return 0;
    *sum = a + b;
    return 1;
}

static inline uint16_t little_u16(const unsigned char *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t little_u32(const unsigned char *p) {
    return (uint32_t)little_u16(p) | (uint32_t)little_u16(p + 2) << 16;
}

static inline uint64_t little_u64(const unsigned char *p) {
    return (uint64_t)little_u32(p) | (uint64_t)little_u32(p + 4) << 32;
}

#endif
