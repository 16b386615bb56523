/* Promise: the matrix unit of x86 servers gives the bits of plain C. Machines without one run the
 * kernel too: here its instructions are plain C, written from their description in Intel's manual.
 * It needs AVX-512 all the same; without it, there is nothing to compare. */

#include <stdint.h>
#include <string.h>

typedef struct { uint8_t at[64]; } grf_amx_config;

static struct { int on, rows[8], bytes[8]; uint8_t at[8][16][64]; } unit;
static int faults;                          /* where a processor would stop the program */

static void amx_begin(const grf_amx_config *c) {
    memset(&unit, 0, sizeof unit);
    unit.on = c->at[0] == 1 && c->at[1] == 0;
    for (int i = 0; i < 8; i++) {
        unit.bytes[i] = c->at[16 + 2 * i] | c->at[17 + 2 * i] << 8;
        unit.rows[i] = c->at[48 + i];
        unit.on &= unit.bytes[i] <= 64 && unit.rows[i] <= 16;
    }
    faults += !unit.on;
}

static void amx_end(void) { memset(&unit, 0, sizeof unit); }

static void amx_zero(int c) {
    faults += !unit.on || !unit.rows[c];
    memset(unit.at[c], 0, sizeof unit.at[c]);
}

static void amx_load(int a, const void *from, size_t stride) {
    faults += !unit.on || !unit.rows[a];
    memset(unit.at[a], 0, sizeof unit.at[a]);
    for (int r = 0; r < unit.rows[a]; r++)
        memcpy(unit.at[a][r], (const uint8_t *)from + (size_t)r * stride, (size_t)unit.bytes[a]);
}

static void amx_store(int c, void *to, size_t stride) {
    faults += !unit.on || !unit.rows[c];
    for (int r = 0; r < unit.rows[c]; r++)
        memcpy((uint8_t *)to + (size_t)r * stride, unit.at[c][r], (size_t)unit.bytes[c]);
}

/* C [rows][bytes / 4] += A [rows][4 k] times B [k][bytes / 4][4], both of signed bytes */
static void amx_dot(int c, int a, int b) {
    faults += !unit.on || unit.rows[c] != unit.rows[a] || unit.bytes[a] != 4 * unit.rows[b]
              || unit.bytes[c] != unit.bytes[b];
    for (int m = 0; m < unit.rows[c]; m++)
        for (int n = 0; n < unit.bytes[c] / 4; n++) {
            int32_t sum;
            memcpy(&sum, &unit.at[c][m][4 * n], 4);
            for (int k = 0; k < unit.bytes[a]; k++)
                sum += (int8_t)unit.at[a][m][k] * (int8_t)unit.at[b][k / 4][4 * n + k % 4];
            memcpy(&unit.at[c][m][4 * n], &sum, 4);
        }
}

#define GRF_AMX_BEGIN(config)            amx_begin(config)
#define GRF_AMX_END()                    amx_end()
#define GRF_AMX_ZERO(c)                  amx_zero(c)
#define GRF_AMX_LOAD(a, from, stride)    amx_load(a, from, stride)
#define GRF_AMX_STORE(c, to, stride)     amx_store(c, to, stride)
#define GRF_AMX_DOT(c, a, b)             amx_dot(c, a, b)

#define GRIFFIN_IMPLEMENTATION
#include "griffin.h"
#include "test.h"

static uint32_t dice_state = 1;

static uint32_t dice(void) { return (dice_state = dice_state * 1664525u + 1013904223u) >> 8; }

#ifdef GRF_AMX
/* Random codes and scales near 2^-7; activations as they come out of `quantise`, in groups that lie
 * further apart than there are rows. */
static void check(int type, int cols, int rows) {
    const grf_kernels *plain = grf_kernels_find(GRIFFIN_CPU_SCALAR);
    int apart = rows + 3, stride = (int)grf_pad(cols), groups = (cols + GRF_GROUP - 1) / GRF_GROUP;
    grf_linear w;
    memset(&w, 0, sizeof w);
    w.type = type; w.rows = 32; w.cols = cols; w.blocks = w.tiles = 1;
    w.fetch = &grf_fetch_intel;
    w.tile_bytes = grf_tile_bytes(type, (uint64_t)cols);
    uint8_t *tile = (uint8_t *)malloc((size_t)w.tile_bytes);
    float *x = (float *)malloc((size_t)stride * 4);
    grf_q8 *q = (grf_q8 *)calloc((size_t)(apart * groups), sizeof *q);
    float *want = (float *)malloc((size_t)rows * 128), *got = (float *)malloc((size_t)rows * 128);
    for (uint64_t i = 0; i < w.tile_bytes; i++) tile[i] = (uint8_t)dice();
    for (uint64_t i = 0; i < w.tile_bytes; i += (uint64_t)grf_tilings[type].bytes)
        for (int r = 0; r < 32; r++)
            tile[i + 2 * (uint64_t)r + 1] = (uint8_t)(0x20 | (dice() & 0x83));
    for (int m = 0; m < rows; m++) {
        for (int k = 0; k < stride; k++) x[k] = (float)(dice() & 1023) / 512 - 1;
        plain->quantise(q + m, apart, x, stride);
    }
    plain->int_tile(want, &w, tile, q, apart, rows);
    grf_int_tile_amx(got, &w, tile, q, apart, rows);
    CHECK(memcmp(want, got, (size_t)rows * 128) == 0, "%s, %d columns, %d rows",
          grf_tilings[type].name, cols, rows);
    CHECK(faults == 0 && !unit.on, "%s, %d rows: %d faults", grf_tilings[type].name, rows, faults);
    free(tile); free(x); free(q); free(want); free(got);
}
#endif

static void test_emulated(void) {
#ifdef GRF_AMX
    static const int rows[] = { 1, 9, 10, 11, 15, 16, 17, 25, 26, 31, 32, 40, 96 };
    static const int cols[] = { 32, 64, 224, 256, 288, 544 };
    int here = grf_kernels_find(GRIFFIN_CPU_AVX512) != NULL;
    for (int type = GRF_Q8_0; here && type < GRF_TILINGS; type++)
        for (int i = 0; i < GRF_COUNT(rows); i++)
            for (int k = 0; k < GRF_COUNT(cols); k++) check(type, cols[k], rows[i]);
#else
    int here = 0;
    (void)dice;
#endif
    printf(here ? "compared the order of AMX\n" : "no AVX-512 here: nothing to compare\n");
    CHECK(grf_kernels_find(GRIFFIN_CPU_SCALAR), "plain C is there");
}

int main(void) {
    RUN(test_emulated);
    return test_end();
}
