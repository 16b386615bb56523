/* npy.h - reads the reference arrays: .npy files of float32 or int64 in C order, and .npz files,
 * which are zips of them that store without compressing. Whatever they hold becomes float. */

#ifndef NPY_H
#define NPY_H

#include "test.h"

#include <math.h>
#include <stdint.h>

typedef struct npy {
    int    rank;
    long   shape[4];
    long   count;                           /* elements; 0: could not be read */
    float *at;                              /* free it */
} npy;

static inline uint32_t npy_u32(const unsigned char *p) {
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* 0: "\x93NUMPY" 1 0   8: u16 n   10: text of n bytes, such as
 * {'descr': '<f4', 'fortran_order': False, 'shape': (48, 97), }   then the elements */
static inline npy npy_parse(const unsigned char *p, size_t size) {
    npy a = { 0, { 0 }, 0, NULL };
    char text[256], *at;
    size_t n = size > 10 && memcmp(p, "\x93NUMPY\x01", 7) == 0 ? p[8] | (size_t)p[9] << 8 : 0;
    if (n == 0 || n >= sizeof text || n > size - 10) return a;
    memcpy(text, p + 10, n);
    text[n] = 0;
    long wide = strstr(text, "'<i8'") != NULL;
    at = strstr(text, "'shape': (");
    if (!at || (!wide && !strstr(text, "'<f4'"))) return a;
    a.count = 1;
    for (at += 10; a.rank < 4 && *at >= '0' && *at <= '9'; at += strspn(at, ", ")) {
        a.shape[a.rank] = strtol(at, &at, 10);
        a.count *= a.shape[a.rank++];
    }
    if ((size_t)a.count > (size - 10 - n) / (wide ? 8 : 4)) { a.count = 0; return a; }
    a.at = (float *)malloc((size_t)a.count * sizeof *a.at);
    p += 10 + n;
    for (long i = 0; i < a.count; i++) {
        uint32_t bits = npy_u32(p + i * (wide ? 8 : 4));
        if (wide) a.at[i] = (float)bits;
        else memcpy(&a.at[i], &bits, 4);
    }
    return a;
}

static inline npy npy_read(const char *path) {
    size_t size = 0;
    unsigned char *data = test_read(path, &size);
    npy a = npy_parse(data, data ? size : 0);
    CHECK(a.count > 0, "%s", path);
    free(data);
    return a;
}

/* The central directory, at the offset that the last 22 bytes tell, has records of
 *   0: "PK\1\2"   20: u32 bytes   28: u16 name   30: u16 extra   32: u16 comment
 *   42: u32 offset of the member, whose data follow 30 bytes, u16 (at 26) name and u16 extra */
static inline npy npz_get(const unsigned char *zip, size_t size, const char *name) {
    npy none = { 0, { 0 }, 0, NULL };
    size_t at = size > 22 ? npy_u32(zip + size - 6) : size, length = strlen(name);
    while (at + 46 < size && memcmp(zip + at, "PK\1\2", 4) == 0) {
        const unsigned char *record = zip + at;
        size_t n = npy_u32(record + 28) & 65535, bytes = npy_u32(record + 20);
        at += 46 + n + (npy_u32(record + 30) & 65535) + (npy_u32(record + 32) & 65535);
        if (n != length + 4 || memcmp(record + 46, name, length) != 0) continue;
        const unsigned char *member = zip + npy_u32(record + 42);
        member += 30 + (npy_u32(member + 26) & 65535) + (npy_u32(member + 28) & 65535);
        return npy_parse(member, bytes);
    }
    CHECK(0, "no array '%s'", name);
    return none;
}

/* The standard deviation of all elements. */
static inline double npy_deviation(const npy *a) {
    double sum = 0, squares = 0;
    for (long i = 0; i < a->count; i++) {
        sum += (double)a->at[i];
        squares += (double)a->at[i] * (double)a->at[i];
    }
    sum /= (double)a->count;
    return sqrt(squares / (double)a->count - sum * sum);
}

#endif
