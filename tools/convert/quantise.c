/* quantise.c - encodes rows of floats; see quantise.h.
 *
 * Every formula is evaluated in single precision, in the order written, without fused
 * multiply-add: the published bytes of these formats depend on it. Compilers fuse on their own
 * where the machine can, unless told not to: */

#if defined(__clang__)
  #pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
  #pragma GCC optimize("fp-contract=off")
#elif defined(_MSC_VER)
  #pragma fp_contract(off)
#endif

#include "quantise.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define SIMPLE 32                           /* values in a block of the types without _k */
#define SUPER  256                          /* values in a block of the types with _k */

/* ---- small numbers ------------------------------------------------------- */

static uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

uint16_t f16_of(float value) {
    uint32_t bits = bits_of(value), sign = bits >> 16 & 0x8000, a = bits & 0x7FFFFFFF;
    if (a > 0x7F800000) return (uint16_t)(sign | 0x7E00);
    if (a >= 0x477FF000) return (uint16_t)(sign | 0x7C00);
    if (a >= 0x38800000) {                  /* a carry out of the fraction bumps the exponent */
        a -= 0x38000000;
        return (uint16_t)(sign | (a + 0x0FFF + (a >> 13 & 1)) >> 13);
    }
    if (a <= 0x33000000) return (uint16_t)sign;
    /* The result is subnormal: a multiple of 2^-24. */
    uint32_t mantissa = (a & 0x7FFFFF) | 0x800000, shift = 126 - (a >> 23);
    uint32_t result = mantissa >> shift;
    uint32_t rest = mantissa & ((1u << shift) - 1), half = 1u << (shift - 1);
    if (rest > half || (rest == half && (result & 1))) result++;
    return (uint16_t)(sign | result);
}

uint16_t bf16_of(float value) {
    uint32_t bits = bits_of(value);
    if ((bits & 0x7FFFFFFF) > 0x7F800000) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

/* a / b, or 0 where that is not a number one can go on with. */
static float ratio(float a, float b) {
    float q = a / b;
    return fabsf(q) <= FLT_MAX ? q : 0.0f;
}

static int fits_f16(float value) { return fabsf(value) <= 65504.0f; }   /* false for NaN */

/* To the nearest integer, ties to even; NaN to the lowest. Beyond 2^23 a float has no fraction
 * left, so adding 1.5 * 2^23 rounds. */
static int nearest(float value, int lowest, int highest) {
    float v = value > (float)lowest ? value : (float)lowest;
    v = v < (float)highest ? v : (float)highest;
    return (int)((v + 12582912.0f) - 12582912.0f);
}

static void put_u16(uint8_t *p, uint16_t v) {
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

/* The value of largest magnitude, with its sign, the first of them on a tie. */
static float extreme(const float *x, int n) {
    float best = 0.0f;
    for (int i = 0; i < n; i++) if (fabsf(x[i]) > fabsf(best)) best = x[i];
    return best;
}

/* ---- one value a block ----------------------------------------------------- */

static int encode_f32(const float *x, uint8_t *out) {
    uint32_t bits = bits_of(*x);
    for (int i = 0; i < 4; i++) out[i] = (uint8_t)(bits >> 8 * i);
    return 0;
}

static int encode_f16(const float *x, uint8_t *out) {
    uint16_t half = f16_of(*x);
    put_u16(out, half);
    return (half & 0x7C00) == 0x7C00 ? -1 : 0;
}

static int encode_bf16(const float *x, uint8_t *out) {
    uint16_t half = bf16_of(*x);
    put_u16(out, half);
    return (half & 0x7F80) == 0x7F80 ? -1 : 0;
}

/* ---- 32 values ---------------------------------------------------------------
 *   q8_0   f16 d, i8 q[32]                         x = q d
 *   q4_0   f16 d, nibbles[16]                      x = (q - 8) d
 *   q5_0   f16 d, u32 fifth bits, nibbles[16]      x = (q - 16) d
 *   q4_1   f16 d, f16 m, nibbles[16]               x = q d + m
 *   q5_1   f16 d, f16 m, u32 fifth bits, nibbles   x = q d + m
 * Byte j of the nibbles holds value j below and value j + 16 above. The codes are made with the
 * unrounded scale although it is stored as F16: so does the reference. */

static int encode_q8_0(const float *x, uint8_t *out) {
    float d = fabsf(extreme(x, SIMPLE)) / 127.0f, inverse = ratio(1.0f, d);
    if (!fits_f16(d)) return -1;
    put_u16(out, f16_of(d));
    for (int i = 0; i < SIMPLE; i++) out[2 + i] = (uint8_t)(int)roundf(x[i] * inverse);
    return 0;
}

static void pack_simple(const uint8_t *codes, int five_bits, uint8_t *out) {
    if (five_bits) {
        memset(out, 0, 4);
        for (int i = 0; i < SIMPLE; i++) out[i / 8] |= (uint8_t)(codes[i] >> 4 << i % 8);
        out += 4;
    }
    for (int j = 0; j < 16; j++) out[j] = (uint8_t)((codes[j] & 15) | (codes[j + 16] & 15) << 4);
}

/* Codes 0 .. 2 half - 1 around `half`; the extreme value itself gets code 0. */
static int encode_symmetric(const float *x, uint8_t *out, int half) {
    uint8_t codes[SIMPLE];
    float d = extreme(x, SIMPLE) / (float)-half, inverse = ratio(1.0f, d);
    if (!fits_f16(d)) return -1;
    for (int i = 0; i < SIMPLE; i++) {
        int code = (int)(x[i] * inverse + ((float)half + 0.5f));
        codes[i] = (uint8_t)(code < 2 * half ? code : 2 * half - 1);
    }
    put_u16(out, f16_of(d));
    pack_simple(codes, half == 16, out + 2);
    return 0;
}

/* Codes 0 .. top between the smallest and the largest value. */
static int encode_affine(const float *x, uint8_t *out, int top) {
    uint8_t codes[SIMPLE];
    float low = x[0], high = x[0];
    for (int i = 1; i < SIMPLE; i++) {
        if (x[i] < low) low = x[i];
        if (x[i] > high) high = x[i];
    }
    float d = (high - low) / (float)top;
    if (!fits_f16(d) || !fits_f16(low)) return -1;
    float inverse = ratio(1.0f, d);
    for (int i = 0; i < SIMPLE; i++) {
        int code = (int)((x[i] - low) * inverse + 0.5f);
        codes[i] = (uint8_t)(code < top ? code : top);
    }
    put_u16(out, f16_of(d));
    put_u16(out + 2, f16_of(low));
    pack_simple(codes, top == 31, out + 4);
    return 0;
}

static int encode_q4_0(const float *x, uint8_t *out) { return encode_symmetric(x, out, 8); }
static int encode_q5_0(const float *x, uint8_t *out) { return encode_symmetric(x, out, 16); }
static int encode_q4_1(const float *x, uint8_t *out) { return encode_affine(x, out, 15); }
static int encode_q5_1(const float *x, uint8_t *out) { return encode_affine(x, out, 31); }

/* ---- q4_k and q5_k: 256 values in 8 parts of 32 --------------------------------
 *   f16 d, f16 dmin, 12 bytes of 6-bit scales and minima, [q5_k: fifth bits[32],] nibbles[128]
 *   x = (d scale) q - (dmin minimum) */

/* How much an error at each of 32 values matters: more at a large one. */
static void weigh(const float *x, float *w) {
    float squares = 0.0f;
    for (int i = 0; i < 32; i++) squares += x[i] * x[i];
    float rms = sqrtf(squares / 32.0f);
    for (int i = 0; i < 32; i++) w[i] = rms + fabsf(x[i]);
}

typedef struct affine_rule { int top, steps; float first; } affine_rule;

static void affine_codes(const float *x, float low, float inverse, int top, uint8_t *codes) {
    for (int i = 0; i < 32; i++) codes[i] = (uint8_t)nearest(inverse * (x[i] - low), 0, top);
}

static float affine_error(const float *x, const float *w, float scale, float low,
                          const uint8_t *codes) {
    float sum = 0.0f;
    for (int i = 0; i < 32; i++) {
        float miss = scale * (float)codes[i] + low - x[i];
        sum += w[i] * (miss * miss);
    }
    return sum;
}

/* The least squares line x = scale code + low through the codes; low must not be above zero.
 * sums: of w and of w x. */
static int affine_line(const float *x, const float *w, const float sums[2], const uint8_t *codes,
                       float *scale, float *low) {
    float l = 0.0f, l2 = 0.0f, xl = 0.0f;
    for (int i = 0; i < 32; i++) {
        float wc = w[i] * (float)codes[i];
        l += wc;
        l2 += wc * (float)codes[i];
        xl += wc * x[i];
    }
    float determinant = sums[0] * l2 - l * l;
    if (!(determinant > 0.0f)) return 0;
    *scale = (sums[0] * xl - sums[1] * l) / determinant;
    *low = (l2 * sums[1] - l * xl) / determinant;
    if (*low > 0.0f) { *low = 0.0f; *scale = xl / l2; }
    return 1;
}

/* Returns the scale and sets the minimum, which is not negative: x is about scale code - minimum.
 * Tries rule->steps + 1 spacings around the obvious one. `low` moves with every improvement and
 * later candidates start from there, as in the reference. */
static float affine_fit(const float *x, const affine_rule *rule, float *minimum, uint8_t *codes) {
    float w[32], sums[2] = {0.0f, 0.0f}, low = x[0], high = x[0];
    weigh(x, w);
    for (int i = 0; i < 32; i++) {
        sums[0] += w[i];
        sums[1] += w[i] * x[i];
        if (x[i] < low) low = x[i];
        if (x[i] > high) high = x[i];
    }
    if (low > 0.0f) low = 0.0f;
    if (!(high > low)) {
        memset(codes, 0, 32);
        *minimum = -low;
        return 0.0f;
    }
    float inverse = (float)rule->top / (high - low);
    float scale = 1.0f / inverse;
    affine_codes(x, low, inverse, rule->top, codes);
    float best = affine_error(x, w, scale, low, codes);
    for (int k = 0; k <= rule->steps; k++) {
        uint8_t tried[32];
        float try_scale, try_low;
        inverse = (rule->first + 0.1f * (float)k + (float)rule->top) / (high - low);
        affine_codes(x, low, inverse, rule->top, tried);
        if (!affine_line(x, w, sums, tried, &try_scale, &try_low)) continue;
        float error = affine_error(x, w, try_scale, try_low, tried);
        if (!(error < best)) continue;
        best = error;
        scale = try_scale;
        low = try_low;
        memcpy(codes, tried, 32);
    }
    *minimum = -low;
    return scale;
}

/* Eight 6-bit scales and eight 6-bit minima in 12 bytes: the first four of each in the low bits
 * of bytes 0..7, the low nibbles of the others in bytes 8..11, their two top bits above the
 * first four. */
static void pack_scales(const uint8_t *scales, const uint8_t *minima, uint8_t *out) {
    for (int i = 0; i < 4; i++) {
        out[i]     = (uint8_t)(scales[i] | scales[i + 4] >> 4 << 6);
        out[i + 4] = (uint8_t)(minima[i] | minima[i + 4] >> 4 << 6);
        out[i + 8] = (uint8_t)((scales[i + 4] & 15) | (minima[i + 4] & 15) << 4);
    }
}

/* Eight non-negative numbers as multiples of a 63rd of the largest; returns that unit. */
static float six_bits(const float *values, uint8_t *codes) {
    float largest = 0.0f;
    for (int i = 0; i < 8; i++) if (values[i] > largest) largest = values[i];
    float inverse = ratio(63.0f, largest);
    for (int i = 0; i < 8; i++) codes[i] = (uint8_t)nearest(inverse * values[i], 0, 63);
    return largest / 63.0f;
}

static void pack_affine(const uint8_t *codes, int five_bits, uint8_t *out) {
    uint8_t *high = out, *low = five_bits ? out + 32 : out;
    memset(out, 0, five_bits ? 160 : 128);
    for (int i = 0; i < SUPER; i++) {
        low[i / 64 * 32 + i % 32] |= (uint8_t)((codes[i] & 15) << (i / 32 % 2 * 4));
        if (five_bits) high[i % 32] |= (uint8_t)(codes[i] >> 4 << i / 32);
    }
}

static int encode_affine_k(const float *x, uint8_t *out, const affine_rule *rule) {
    uint8_t codes[SUPER], scales[8], minima[8];
    float scale[8], minimum[8], d, dmin;
    for (int i = 0; i < 8; i++) {
        scale[i] = affine_fit(x + 32 * i, rule, &minimum[i], codes + 32 * i);
        if (!fits_f16(scale[i] / 63.0f) || !fits_f16(minimum[i] / 63.0f)) return -1;
    }
    put_u16(out, f16_of(six_bits(scale, scales)));
    put_u16(out + 2, f16_of(six_bits(minimum, minima)));
    d = float_of_f16((uint16_t)(out[0] | out[1] << 8));
    dmin = float_of_f16((uint16_t)(out[2] | out[3] << 8));
    for (int i = 0; i < SUPER; i++) {       /* again, with the scales as they are now stored */
        float step = d * (float)scales[i / 32], offset = dmin * (float)minima[i / 32];
        if (step != 0.0f) codes[i] = (uint8_t)nearest((x[i] + offset) / step, 0, rule->top);
    }
    pack_scales(scales, minima, out + 4);
    pack_affine(codes, rule->top == 31, out + 16);
    return 0;
}

static int encode_q4_k(const float *x, uint8_t *out) {
    static const affine_rule rule = {15, 20, -1.0f};
    return encode_affine_k(x, out, &rule);
}

static int encode_q5_k(const float *x, uint8_t *out) {
    static const affine_rule rule = {31, 15, -0.5f};
    return encode_affine_k(x, out, &rule);
}

/* ---- q6_k: 256 values in 16 parts of 16 ------------------------------------------
 *   low nibbles[128], high two bits[64], i8 scales[16], f16 d          x = (d scale) (q - 32) */

#define TINY 1e-15f

/* Codes for one spacing, and the sums whose quotient is their best scale, weighted by x^2. */
static void symmetric_try(const float *x, float inverse, int8_t *codes, float *xl, float *l2) {
    *xl = *l2 = 0.0f;
    for (int i = 0; i < 16; i++) {
        float w = x[i] * x[i], code = (float)(codes[i] = (int8_t)nearest(inverse * x[i], -32, 31));
        *xl += w * x[i] * code;
        *l2 += w * code * code;
    }
}

/* Returns the scale. The codes are stored with 32 added, but 0 where there is nothing to encode. */
static float symmetric_fit(const float *x, uint8_t *stored) {
    int8_t codes[16], tried[16];
    float peak = extreme(x, 16), xl, l2;
    memset(stored, 0, 16);
    if (fabsf(peak) < TINY) return 0.0f;
    symmetric_try(x, -32.0f / peak, codes, &xl, &l2);
    float scale = l2 != 0.0f ? xl / l2 : 0.0f;
    float best = scale * xl;
    for (int k = -9; k <= 9; k++) {
        if (k == 0) continue;
        symmetric_try(x, -(32.0f + 0.1f * (float)k) / peak, tried, &xl, &l2);
        if (!(l2 > 0.0f && xl * xl > best * l2)) continue;
        memcpy(codes, tried, 16);
        scale = xl / l2;
        best = scale * xl;
    }
    for (int i = 0; i < 16; i++) stored[i] = (uint8_t)(codes[i] + 32);
    return scale;
}

static void pack_q6_k(const uint8_t *codes, uint8_t *low, uint8_t *high) {
    for (int half = 0; half < 2; half++, codes += 128, low += 64, high += 32) {
        for (int l = 0; l < 64; l++) {
            low[l] = (uint8_t)((codes[l] & 15) | (codes[l + 64] & 15) << 4);
        }
        for (int l = 0; l < 32; l++) {
            high[l] = (uint8_t)(codes[l] >> 4 | codes[l + 32] >> 4 << 2
                                | codes[l + 64] >> 4 << 4 | codes[l + 96] >> 4 << 6);
        }
    }
}

static int encode_q6_k(const float *x, uint8_t *out) {
    uint8_t codes[SUPER];
    float scale[16], peak, inverse, d;
    for (int i = 0; i < 16; i++) {
        scale[i] = symmetric_fit(x + 16 * i, codes + 16 * i);
        if (!fits_f16(scale[i] / 128.0f)) return -1;
    }
    memset(out, 0, 210);
    peak = extreme(scale, 16);
    if (fabsf(peak) < TINY) return 0;
    inverse = -128.0f / peak;
    put_u16(out + 208, f16_of(1.0f / inverse));
    d = float_of_f16((uint16_t)(out[208] | out[209] << 8));
    for (int i = 0; i < SUPER; i++) {
        int stored = nearest(inverse * scale[i / 16], -128, 127);
        float step = d * (float)stored;
        out[192 + i / 16] = (uint8_t)stored;
        if (step != 0.0f) codes[i] = (uint8_t)(nearest(x[i] / step, -32, 31) + 32);
    }
    pack_q6_k(codes, out, out + 128);
    return 0;
}

/* ---- scales by search, for 32 values around zero ------------------------------------
 * Of several spacings the one that leaves the least squared error, where as in q4_k an error at a
 * larger value weighs more: those that give the extreme value a code of half - 1, half - 3/4, ...
 * half + 1 in size, below zero or above. */

enum { LANES = 8 };                         /* sums side by side, so that compilers use vectors */

static float sum_of_lanes(const float *s) {
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

/* Codes for one spacing. Returns by how much their best scale lowers the error. */
static float try_spacing(const float *x, const float *w, float half, float inverse, float *codes,
                         float *scale) {
    float xl[LANES] = {0}, l2[LANES] = {0};
    for (int i = 0; i < SIMPLE; i += LANES) {
        for (int k = 0; k < LANES; k++) {
            float v = x[i + k] * inverse;
            v = v > -half ? v : -half;
            v = v < half - 1.0f ? v : half - 1.0f;
            float code = codes[i + k] = (v + 12582912.0f) - 12582912.0f;      /* as in `nearest` */
            float weighed = w[i + k] * code;
            xl[k] += weighed * x[i + k];
            l2[k] += weighed * code;
        }
    }
    float product = sum_of_lanes(xl);
    float square = sum_of_lanes(l2);
    *scale = square > 0.0f ? product / square : 0.0f;
    return *scale * product;
}

static int search(const float *x, int half, uint8_t *stored, uint8_t *out) {
    float w[SIMPLE], codes[2][SIMPLE] = {{0}}, peak = extreme(x, SIMPLE), best = 0.0f, scale = 0.0f;
    int at = 0;
    if (!fits_f16(peak / (float)half)) return -1;
    weigh(x, w);
    for (int k = -4; k <= 4 && fabsf(peak) >= TINY; k++) {
        for (float sign = -1.0f; sign <= 1.0f; sign += 2.0f) {
            float spacing = sign * ((float)half + 0.25f * (float)k) / peak, found;
            float gain = try_spacing(x, w, (float)half, spacing, codes[!at], &found);
            if (!(gain > best)) continue;
            at = !at;
            best = gain;
            scale = found;
        }
    }
    for (int i = 0; i < SIMPLE; i++) stored[i] = (uint8_t)((int)codes[at][i] + half);
    put_u16(out, f16_of(scale));
    return fits_f16(scale) ? 0 : -1;
}

static int search_q4_0(const float *x, uint8_t *out) {
    uint8_t codes[SIMPLE];
    if (search(x, 8, codes, out) != 0) return -1;
    pack_simple(codes, 0, out + 2);
    return 0;
}

/* Our own: f16 d, then for h = 0, 8: upper bits[4], nibbles[4] of j = h and of h + 4, as in q4_0.
 * The upper bits of byte i are those of values h + i + 4, h + i + 20, h + i, h + i + 16, from bit 0
 * on.                                                                         x = (q - 32) d */
static int encode_q6_0(const float *x, uint8_t *out) {
    uint8_t codes[SIMPLE];
    if (search(x, 32, codes, out) != 0) return -1;
    out += 2;
    for (int h = 0; h < 16; h += 8, out += 12) {
        for (int i = 0; i < 4; i++) {
            const uint8_t *a = codes + h + i, *b = a + 4;
            out[i] = (uint8_t)(b[0] >> 4 | b[16] >> 4 << 2 | a[0] >> 4 << 4 | a[16] >> 4 << 6);
            out[4 + i] = (uint8_t)((a[0] & 15) | (a[16] & 15) << 4);
            out[8 + i] = (uint8_t)((b[0] & 15) | (b[16] & 15) << 4);
        }
    }
    return 0;
}

/* ---- the table --------------------------------------------------------------- */

static const quant_type types[] = {
    {"f32",   0,  0,   1,   4, encode_f32, NULL, decode_f32},
    {"f16",   1,  1,   1,   2, encode_f16, NULL, decode_f16},
    {"bf16", 30, 32,   1,   2, encode_bf16, NULL, decode_bf16},
    {"q8_0",  8,  7,  32,  34, encode_q8_0, NULL, decode_q8_0},
    {"q4_0",  2,  2,  32,  18, encode_q4_0, search_q4_0, decode_q4_0},
    {"q4_1",  3,  3,  32,  20, encode_q4_1, NULL, decode_q4_1},
    {"q5_0",  6,  8,  32,  22, encode_q5_0, NULL, decode_q5_0},
    {"q5_1",  7,  9,  32,  24, encode_q5_1, NULL, decode_q5_1},
    {"q6_0", TILES_ONLY, 18, 32, 26, encode_q6_0, NULL, decode_q6_0},
    {"q4_k", 12, 14, 256, 144, encode_q4_k, NULL, decode_q4_k},
    {"q5_k", 13, 17, 256, 176, encode_q5_k, NULL, decode_q5_k},
    {"q6_k", 14, 18, 256, 210, encode_q6_k, NULL, decode_q6_k},
    {"q2_k", 10, 10, 256,  84, NULL, NULL, decode_q2_k},
    {"q3_k", 11, 12, 256, 110, NULL, NULL, decode_q3_k}
};

const quant_type *quant_find_source(const char *name) {
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (strcmp(types[i].name, name) == 0) return &types[i];
    }
    return NULL;
}

const quant_type *quant_find(const char *name) {
    const quant_type *type = quant_find_source(name);
    return type && type->encode ? type : NULL;
}

uint64_t quant_bytes(const quant_type *type, uint64_t n) {
    return n / type->elements * type->bytes;
}

/* Blocks are encoded apart from each other, and each is the same whoever encodes it. */
static int encode_all(int (*encode)(const float *, uint8_t *), const quant_type *type,
                      const float *x, uint64_t n, uint8_t *out) {
    int64_t blocks = (int64_t)(n / type->elements);
    int failed = 0;
#ifdef _OPENMP
    #pragma omp parallel for schedule(static) reduction(|:failed) if (blocks >= 64)
#endif
    for (int64_t i = 0; i < blocks; i++)
        failed |= encode(x + i * type->elements, out + i * type->bytes) != 0;
    return failed ? -1 : 0;
}

int quantise_row(const quant_type *type, const float *x, uint64_t n, uint8_t *out) {
    return encode_all(type->encode, type, x, n, out);
}

int quantise_best(const quant_type *type, const float *x, uint64_t n, uint8_t *out) {
    return encode_all(type->search ? type->search : type->encode, type, x, n, out);
}
