/* dequantise.c - how the number formats of a GGUF file become floats; see quantise.h.
 *
 * A row of a tensor is a sequence of blocks; all numbers are little-endian and nothing is
 * aligned. h is an IEEE half. Elements of a block are x[0], x[1], ... ; j runs over 0 .. 15,
 * l over 0 .. 31. The sizes are in the table of quantise.c.
 *
 *   f32    float x
 *   f16    h x
 *   bf16   the upper two bytes of a float
 *
 *   q8_0   0: h d      2: i8 q[32]                        x[l] = q[l] d
 *   q4_0   0: h d                          2: u8 q[16]    x[j] = (v - 8) d
 *   q4_1   0: h d      2: h m              4: u8 q[16]    x[j] = v d + m
 *   q5_0   0: h d                2: u32 H  6: u8 q[16]    x[j] = (v - 16) d
 *   q5_1   0: h d      2: h m    4: u32 H  8: u8 q[16]    x[j] = v d + m
 *          v of element j is the low nibble of q[j], of element j + 16 its high nibble; in
 *          q5 bit i of H is worth 16 in the v of element i.
 *
 *   q6_0   0: h d      2: u8 q[2][12], for halves h = 0 and 8 of j and j + 16:
 *          u8 H[4], u8 q[4] of j = h + i, u8 q[4] of j = h + i + 4, i = 0 .. 3, nibbles as in q4.
 *          H[i] is worth 16 to 48 in v: its bits 4 and 5 in that of h + i, 6 and 7 of
 *          h + i + 16, 0 and 1 of h + i + 4, 2 and 3 of h + i + 20.     x[l] = (v - 32) d
 *
 *   q4_k   0: h d      2: h dmin    4: u8 s[12]                  16: u8 q[128]
 *   q5_k   0: h d      2: h dmin    4: u8 s[12]    16: u8 H[32]  48: u8 q[128]
 *          Eight sub-blocks i of 32:  x[32 i + l] = (d scale(i)) v - (dmin min(i)).
 *          v is a nibble of q[32 (i / 2) + l], the low one for even i, the high one for odd;
 *          in q5_k bit i of H[l] adds 16. The 6-bit numbers scale(i) and min(i) lie in s:
 *              i < 4    scale = s[i] & 63                           min = s[i + 4] & 63
 *              i >= 4   scale = s[i + 4] & 15 | s[i - 4] >> 6 << 4
 *                                                      min = s[i + 4] >> 4 | s[i] >> 6 << 4
 *
 *   q6_k   0: u8 q[128]    128: u8 H[64]    192: i8 s[16]    208: h d
 *          Two halves of 128, each with 64 bytes of q, 32 of H and 8 of s. In a half the
 *          element e = 32 k + l has the low four bits of v in q[l + 32 (k & 1)], the low
 *          nibble for k < 2 and the high one otherwise; bits 2k and 2k + 1 of H[l] are its
 *          upper two:   x[e] = (d s[e / 16]) (v - 32).
 *
 *   q2_k   0: u8 s[16]    16: u8 q[64]                  80: h d    82: h dmin
 *   q3_k   0: u8 H[32]    32: u8 q[64]    96: u8 s[12]  108: h d
 *          Element e = 128 n + 32 k + l has bits 2k and 2k + 1 of q[32 n + l] as its v. In q2_k
 *              x[e] = (d (s[e / 16] & 15)) v - (dmin (s[e / 16] >> 4)).
 *          In q3_k v is 4 less unless bit 4 n + k of H[l] is set, and x[e] = (d scale(e / 16)) v.
 *              scale(i) = (s[i % 8] >> 4 (i / 8) & 15 | (s[8 + i % 4] >> 2 (i / 4) & 3) << 4) - 32
 *
 * Decoding is the same bits on every compiler, also where it fuses a product with a sum: a
 * product of a half (11 bits), a scale (at most 7) and a code (at most 5 and a sign) fits into
 * the 24 bits of a float, so it is exact, and only the sum rounds. */

#include "quantise.h"
#include "../shared/checked.h"

#include <string.h>

static float float_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* binary16: sign 1, exponent 5 (bias 15), fraction 10. Every value is exact in a float. */
/* As bits, since a 32-bit x86 that returns a float changes signalling NaN. */
static uint32_t bits_of_f16(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 0x3FF;
    if (exponent == 31) return sign | 0x7F800000 | fraction << 13;
    if (exponent) return sign | (exponent + 112) << 23 | fraction << 13;
    float tiny = (float)fraction / 16777216;                        /* 2^-24 each */
    memcpy(&exponent, &tiny, sizeof exponent);
    return sign | exponent;
}

float float_of_f16(uint16_t h) { return float_of_bits(bits_of_f16(h)); }

static void put_bits(float *to, uint32_t bits) { memcpy(to, &bits, sizeof bits); }

/* ---- blocks: each function decodes n of them, one after the other --------------- */

void decode_f32(const uint8_t *p, float *x, uint64_t n) {
    for (; n; n--, p += 4) put_bits(x++, little_u32(p));
}

void decode_f16(const uint8_t *p, float *x, uint64_t n) {
    for (; n; n--, p += 2) put_bits(x++, bits_of_f16(little_u16(p)));
}

void decode_bf16(const uint8_t *p, float *x, uint64_t n) {
    for (; n; n--, p += 2) put_bits(x++, (uint32_t)little_u16(p) << 16);
}

void decode_q8_0(const uint8_t *p, float *x, uint64_t n) {
    for (; n; n--, p += 34, x += 32) {
        float d = float_of_f16(little_u16(p));
        for (int l = 0; l < 32; l++) x[l] = (float)(int8_t)p[2 + l] * d;
    }
}

/* q4_0, q4_1, q5_0, q5_1: the same parts in the same order, some of them absent. */
static inline void decode_nibbles(const uint8_t *p, float *x, uint64_t n, int has_min,
                            int has_fifth) {
    int zero = has_min ? 0 : has_fifth ? 16 : 8;
    for (; n; n--, p += 16, x += 32) {
        float    d = float_of_f16(little_u16(p));
        float    m = has_min ? float_of_f16(little_u16(p + 2)) : 0;
        uint32_t fifth = 0;
        p += has_min ? 4 : 2;
        if (has_fifth) { fifth = little_u32(p); p += 4; }
        for (int j = 0; j < 16; j++) {
            int low  = (p[j] & 15) | (int)(fifth >> j & 1) << 4;
            int high = (p[j] >> 4) | (int)(fifth >> (j + 16) & 1) << 4;
            x[j]      = (float)(low - zero) * d;
            x[j + 16] = (float)(high - zero) * d;
        }
        if (has_min) for (int j = 0; j < 32; j++) x[j] += m;    /* else -0 must stay -0 */
    }
}

void decode_q4_0(const uint8_t *p, float *x, uint64_t n) { decode_nibbles(p, x, n, 0, 0); }
void decode_q4_1(const uint8_t *p, float *x, uint64_t n) { decode_nibbles(p, x, n, 1, 0); }
void decode_q5_0(const uint8_t *p, float *x, uint64_t n) { decode_nibbles(p, x, n, 0, 1); }
void decode_q5_1(const uint8_t *p, float *x, uint64_t n) { decode_nibbles(p, x, n, 1, 1); }

void decode_q6_0(const uint8_t *p, float *x, uint64_t n) {
    for (; n; n--, p += 26, x += 32) {
        float d = float_of_f16(little_u16(p));
        for (int j = 0; j < 16; j++) {
            const uint8_t *half = p + 2 + j / 8 * 12;
            int pair = half[4 + j % 8], upper = half[j % 4] >> (j % 8 < 4 ? 4 : 0);
            x[j]      = (float)((pair & 15) + (upper & 3) * 16 - 32) * d;
            x[j + 16] = (float)((pair >> 4) + (upper >> 2 & 3) * 16 - 32) * d;
        }
    }
}

/* Unpacks scale and minimum of sub-block i from the twelve bytes s of q4_k and q5_k. */
static void unpack_scale(const uint8_t *s, int i, int *scale, int *min) {
    if (i < 4) {
        *scale = s[i] & 63;
        *min   = s[i + 4] & 63;
    } else {
        *scale = (s[i + 4] & 15) | (s[i - 4] >> 6) << 4;
        *min   = (s[i + 4] >> 4) | (s[i] >> 6) << 4;
    }
}

/* q4_k and q5_k. */
static inline void decode_k(const uint8_t *p, float *x, uint64_t n, int has_fifth) {
    int scale, min;
    for (; n; n--, p += has_fifth ? 176 : 144) {
        float d = float_of_f16(little_u16(p)), dmin = float_of_f16(little_u16(p + 2));
        for (int i = 0; i < 8; i++) {
            const uint8_t *q = p + (has_fifth ? 48 : 16) + 32 * (i / 2);
            unpack_scale(p + 4, i, &scale, &min);
            float step = d * (float)scale;
            float base = dmin * (float)min;
            for (int l = 0; l < 32; l++) {
                int v = q[l] >> 4 * (i & 1) & 15;
                if (has_fifth) v |= (p[16 + l] >> i & 1) << 4;
                *x++ = step * (float)v - base;
            }
        }
    }
}

void decode_q4_k(const uint8_t *p, float *x, uint64_t n) { decode_k(p, x, n, 0); }
void decode_q5_k(const uint8_t *p, float *x, uint64_t n) { decode_k(p, x, n, 1); }

void decode_q6_k(const uint8_t *p, float *x, uint64_t n) {
    for (; n; n--, p += 210) {
        float d = float_of_f16(little_u16(p + 208));
        for (int e = 0; e < 256; e++) {
            int half = e / 128, k = e / 32 % 4, l = e % 32;
            int low  = p[64 * half + 32 * (k & 1) + l] >> 4 * (k / 2) & 15;
            int high = p[128 + 32 * half + l] >> 2 * k & 3;
            float step = d * (float)(int8_t)p[192 + e / 16];
            *x++ = step * (float)((low | high << 4) - 32);
        }
    }
}

void decode_q2_k(const uint8_t *p, float *x, uint64_t n) {
    for (; n; n--, p += 84) {
        float d = float_of_f16(little_u16(p + 80)), dmin = float_of_f16(little_u16(p + 82));
        for (int e = 0; e < 256; e++) {
            int v = p[16 + e / 128 * 32 + e % 32] >> 2 * (e / 32 % 4) & 3;
            float step = d * (float)(p[e / 16] & 15), base = dmin * (float)(p[e / 16] >> 4);
            *x++ = step * (float)v - base;
        }
    }
}

void decode_q3_k(const uint8_t *p, float *x, uint64_t n) {
    for (; n; n--, p += 110) {
        const uint8_t *s = p + 96;
        float d = float_of_f16(little_u16(p + 108));
        for (int e = 0; e < 256; e++) {
            int half = e / 128, k = e / 32 % 4, l = e % 32, i = e / 16;
            int v = (p[32 + 32 * half + l] >> 2 * k & 3) - (p[l] >> (4 * half + k) & 1 ? 0 : 4);
            int scale = (s[i % 8] >> 4 * (i / 8) & 15) | (s[8 + i % 4] >> 2 * (i / 4) & 3) << 4;
            *x++ = d * (float)(scale - 32) * (float)v;
        }
    }
}
