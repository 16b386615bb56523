/* Promise: logits and states are the same bits on every instruction set, for every type of weights.
 * They are those of the naive loop, which stands here once more. */

#define GRIFFIN_IMPLEMENTATION
#include "model.h"

#ifdef _WIN32                               /* whose fmaf rounds twice */
  #define fmaf grf_fma
#endif

/* ---- the instruction sets of this machine; the first is plain C ----------------------------- */

static const grf_kernels *sets[LAST_CPU];
static griffin_cpu cpus[LAST_CPU];
static int n_sets;

static void find_sets(void) {
    for (int i = 0; i < GRF_COUNT(grf_sets); i++)
        if (grf_sets[i].cpu > LAST_CPU) { printf("a set lies behind LAST_CPU\n"); exit(1); }
    for (int i = GRIFFIN_CPU_SCALAR; i <= LAST_CPU; i++) {
        const grf_kernels *k = grf_kernels_find((griffin_cpu)i);
        if (!k) continue;
        cpus[n_sets] = (griffin_cpu)i;
        sets[n_sets++] = k;
        printf("comparing %s\n", k->name);
    }
}

static float *random_floats(int64_t n, float limit) {
    float *x = (float *)malloc((size_t)n * 4 + 4);
    for (int64_t i = 0; i < n; i++) x[i] = dice_float(limit);
    return x;
}

/* ---- linear kernels against the naive loop -------------------------------------------------- */

/* Integers from 0 to `most`, a power of 2 less 1. */
typedef enum spread { EVEN, LEAST, MOST, EITHER_END, SPREADS } spread;

static int throw_dice(spread s, int most) {
    uint32_t n = dice();
    if (s == EVEN) return (int)(n & (uint32_t)most);
    return s == MOST || (s == EITHER_END && n & 1) ? most : 0;
}

typedef struct matrix {                     /* 32 rows, once as a tile, once as numbers */
    grf_linear w;
    uint8_t   *tile;
    float     *value;                       /* [32][cols], or of blocks the integers */
    float     *scale;                       /* [32][cols / 32] of blocks */
} matrix;

static uint16_t random_half(int type) {     /* finite; a scale near 2^-7 in blocks */
    uint16_t h = (uint16_t)(dice() & 0xffff);
    if (type == GRF_BF16) return (uint16_t)((h & 0x807f) | (120 + h / 128 % 8) << 7);
    if (type == GRF_F16) return (uint16_t)((h & 0x7c00) == 0x7c00 ? h & 0x83ff : h);
    return (uint16_t)((h & 0x83ff) | 8 << 10);
}

static void put_float(matrix *m, int64_t k, int r) {
    float *value = &m->value[r * m->w.cols + k];
    uint16_t half = random_half(m->w.type);
    if (m->w.type == GRF_F32) *value = dice_float(1);
    else *value = m->w.type == GRF_F16 ? grf_float_from_f16(half) : grf_float_from_bf16(half);
    if (m->w.type == GRF_F32) memcpy(m->tile + (k * 32 + r) * 4, value, 4);
    else                      memcpy(m->tile + (k * 32 + r) * 2, &half, 2);
}

/* Column i of a block of q6_0: halves of 384 bytes, each with 128 of upper bits. */
static void put_six(uint8_t *block, int r, int i, int q) {
    uint8_t *half = block + 64 + i % 16 / 8 * 384 + r * 4 + i % 4;
    half[128 + i % 8 / 4 * 128] |= (uint8_t)((q & 15) << i / 16 * 4);
    half[0] |= (uint8_t)(q >> 4 << ((i % 8 / 4 ? 0 : 4) + i / 16 * 2));
}

/* Block j of row r, as at grf_linear in the header: 32 scales, then groups of 4 bytes a row. */
static void put_block(matrix *m, int64_t j, int r, spread weights) {
    int nibbles = m->w.type == GRF_Q4_0, six = m->w.type == GRF_Q6_0;
    int most = nibbles ? 15 : six ? 63 : 255;
    uint8_t *at = m->tile + j * 32 * (nibbles ? 18 : six ? 26 : 34);
    uint16_t half = random_half(m->w.type);
    memcpy(at + 2 * r, &half, 2);
    m->scale[r * (m->w.cols / 32) + j] = grf_float_from_f16(half);
    for (int i = 0; i < 32; i++) {
        int q = throw_dice(weights, most), place = i % (nibbles ? 16 : 32);
        uint8_t *byte = at + 64 + place / 4 * 128 + r * 4 + place % 4;
        m->value[r * m->w.cols + j * 32 + i] = (float)(q - (most + 1) / 2);
        if (six)                      put_six(at, r, i, q);
        else if (!nibbles || i < 16) *byte = (uint8_t)q;
        else                         *byte = (uint8_t)(*byte | q << 4);
    }
}

static matrix random_matrix(int type, int cols, spread weights) {
    matrix m;
    memset(&m, 0, sizeof m);
    m.w.type = type; m.w.rows = 32; m.w.cols = cols; m.w.blocks = m.w.tiles = 1;
    m.w.tile_bytes = grf_tile_bytes(type, (uint64_t)cols);
    m.w.tile = m.tile = (uint8_t *)calloc(1, (size_t)m.w.tile_bytes);
    m.value = (float *)malloc((size_t)cols * 32 * 4);
    m.scale = (float *)malloc((size_t)cols / 32 * 32 * 4 + 4);
    for (int r = 0; r < 32; r++)
        for (int64_t k = 0; k < cols; k++) {
            if (!grf_is_quantised(&m.w)) put_float(&m, k, r);
            else if (k % 32 == 0) put_block(&m, k / 32, r, weights);
        }
    return m;
}

static float naive_float(const matrix *m, int r, const float *x) {
    float acc = 0;
    for (int k = 0; k < m->w.cols; k++) acc = fmaf(m->value[r * m->w.cols + k], x[k], acc);
    return acc;
}

static float naive_block(const matrix *m, int r, const grf_q8 *x, int64_t apart) {
    float acc = 0, part = 0;
    int blocks = m->w.cols / 32;
    for (int j = 0; j < blocks; j++) {
        int32_t sum = 0;
        for (int i = 0; i < 32; i++)
            sum += (int32_t)m->value[(r * blocks + j) * 32 + i] * x->q[j % 8 * 32 + i];
        part = fmaf(m->scale[r * blocks + j], (float)sum, part);
        if (j % 8 != 7 && j != blocks - 1) continue;
        acc = fmaf(x->scale, part, acc);
        part = 0;
        x += apart;
    }
    return acc;
}

/* Rows of x as floats, with a gap between them, and quantised, with one between their groups. */
static void check_spread(int type, int cols, int rows, spread weights, spread inputs) {
    matrix m = random_matrix(type, cols, weights);
    int64_t stride = grf_pad(cols) + 32, apart = rows + 3;
    float *x = random_floats(rows * stride, 2), *out = random_floats(rows * 32, 1);
    float *want = (float *)malloc((size_t)rows * 32 * 4);
    grf_q8 *q = (grf_q8 *)calloc((size_t)(apart * (stride / GRF_GROUP + 1)), sizeof *q);
    int set, quantised = grf_is_quantised(&m.w);
    for (int64_t i = 0; i < rows * stride; i++)
        if (inputs != EVEN) x[i] = (float)throw_dice(inputs, 1) - 0.5f;
    for (int64_t i = 0; i < rows; i++) sets[0]->quantise(q + i, apart, x + i * stride, stride);
    for (int64_t i = 0; i < rows; i++)
        for (int r = 0; r < 32; r++)
            want[i * 32 + r] = quantised ? naive_block(&m, r, q + i, apart)
                                         : naive_float(&m, r, x + i * stride);
    for (set = 0; set < 3 * n_sets; set++) {       /* each set prefetches in all ways: grf_fetch */
        static const grf_fetch *const fetch[] = { &grf_fetch_zen4, &grf_fetch_zen5,
                                                  &grf_fetch_intel };
        const grf_kernels *kernels = sets[set / 3];
        int wrong = 0;
        m.w.fetch = fetch[set % 3];
        if (quantised) kernels->int_tile(out, &m.w, m.tile, q, apart, rows);
        else           kernels->float_tile(out, &m.w, m.tile, x, stride, rows);
        for (int64_t i = 0; i < rows * 32; i++) wrong += memcmp(&want[i], &out[i], 4) != 0;
        CHECK(wrong == 0, "%s, prefetching %d, type %d, %d columns, %d rows: %d of %d",
              kernels->name, set % 3, type, cols, rows, wrong, rows * 32);
    }
    free(m.tile); free(m.value); free(m.scale); free(x); free(out); free(want); free(q);
}

static void check_linear(int type, int cols, int rows) {
    check_spread(type, cols, rows, EVEN, EVEN);
}

static void test_linear(void) {
    static const int types[] = { GRF_F32, GRF_F16, GRF_BF16, GRF_Q8_0, GRF_Q4_0, GRF_Q6_0 };
    static const int floats[] = { 1, 2, 31, 33, 257, 511, 513, 1031 };
    for (int t = 0; t < GRF_COUNT(types); t++) {
        int blocks = grf_tilings[types[t]].quantised;
        for (int rows = 1; rows <= 40; rows++) check_linear(types[t], blocks ? 96 : 37, rows);
        for (int i = 0; i < GRF_COUNT(floats); i++)
            check_linear(types[t], blocks ? 32 * (4 * i + 1) : floats[i], 13);
        for (int rows = 1; rows <= 12; rows++) check_linear(types[t], blocks ? 544 : 515, rows);
        check_linear(types[t], blocks ? 544 : 515, 97);
        check_linear(types[t], blocks ? 64 : 50, 300);
    }
}

/* Sums of many products at their limits, all of one sign or not, where 16 bits might not do. */
static void test_extremes(void) {
    for (int weights = LEAST; weights < SPREADS; weights++)
        for (int inputs = LEAST; inputs < SPREADS; inputs++) {
            check_spread(GRF_Q8_0, 512, 7, (spread)weights, (spread)inputs);
            check_spread(GRF_Q4_0, 512, 7, (spread)weights, (spread)inputs);
            check_spread(GRF_Q6_0, 512, 7, (spread)weights, (spread)inputs);
        }
}

/* ---- all other kernels against plain C ------------------------------------------------------ */

enum { KERNEL_N = 272 };                    /* a multiple of 16, not of 32 */

/* The outputs of one kernel, all in a row, for the same dice. */
static int64_t run_kernel(const grf_kernels *k, int which, float limit, float *out) {
    float *a = random_floats(KERNEL_N * 16, limit), *b = random_floats(KERNEL_N, limit);
    float *h = random_floats(KERNEL_N, 1), *c = random_floats(KERNEL_N, 1);
    const float *z[16];
    uint64_t turns[32];
    int64_t n = KERNEL_N;
    for (int64_t i = 0; i < 16; i++) z[i] = a + i * n;
    for (int64_t i = 0; i < 32; i++) turns[i] = (uint64_t)dice() << 32 | dice();
    memcpy(out, a, (size_t)n * 4);
    switch (which) {
    case 0:
        n = 2 * (int64_t)sizeof(grf_q8) / 4;
        memset(out, 0, (size_t)n * 4);
        k->quantise((grf_q8 *)(void *)out, 1, a, 288);
        break;
    case 1: k->norm(out, a, b, n, 260, 1e-6f); break;
    case 2: k->conv(out, z, a, n, b, 7, n); break;
    case 3: case 4:
        for (int64_t i = 0; i < n; i++) c[i] = -8 * (c[i] * c[i]);
        k->rglru(h, out, b, a + n, a + 2 * n, c, which == 4, n);
        memcpy(out + n, h, (size_t)n * 4);
        n *= 2;
        break;
    case 5: k->rope_angles(out, out + 32, turns, (int64_t)dice() << 20, 32); n = 64; break;
    case 6: k->rope(out, a, b, h, 0.37f, 13, 101); n = 101; break;
    case 7: case 8: case 9: case 10: k->activate(out, (griffin_activation)(which - 7), n); break;
    case 11: k->multiply(out, b, n); break;
    case 12: k->soft_cap(out, 3.7f, n); break;
    case 13: case 14: k->finish(out, 23, a, b, which == 14, 5, which == 14 ? 23 : 16); break;
    case 15: n = 77; k->exp_shifted(out, a, -1.25f, (int)n); break;
    case 16: case 17: n = which == 16 ? 261 : 5; k->layer_norm(out, a, b, (int)n, 1e-5f); break;
    case 18: n = 64; k->layer_norm(out, a, NULL, (int)n, 1e-5f); break;
    case 19:
        n = 128;
        memcpy(out + n, a + n, (size_t)n * 4);
        k->gates(out, out + n, out + 2 * n, h, c, 0.125f, n);
        n *= 3;
        break;
    default: n = 0;
    }
    free(a); free(b); free(h); free(c);
    return n;
}

static void test_kernels(void) {
    static const char *const names[] = {
        "quantise", "norm", "conv", "rglru", "rglru of a fresh state", "rope_angles", "rope",
        "gelu_tanh", "gelu_erf", "silu", "relu", "multiply", "soft_cap", "finish",
        "finish by adding", "exp_shifted", "layer_norm", "layer_norm of few", "layer_norm without gain",
        "gates"
    };
    static const float limits[] = { 1, 12, 200, 1e-20f, 1e20f };
    float want[2 * KERNEL_N], got[2 * KERNEL_N];        /* room for 3 outputs of 128, too */
    for (int which = 0; which < GRF_COUNT(names); which++)
        for (int limit = 0; limit < GRF_COUNT(limits); limit++)
            for (int round = 0; round < 20; round++) {
                uint64_t dice_before = dice_state;
                int64_t n = run_kernel(sets[0], which, limits[limit], want);
                for (int set = 0; set < n_sets; set++) {    /* plain C too, for a second time */
                    dice_state = dice_before;
                    run_kernel(sets[set], which, limits[limit], got);
                    CHECK(memcmp(want, got, (size_t)n * 4) == 0, "%s, %s, values to %g",
                          sets[set]->name, names[which], (double)limits[limit]);
                }
            }
}

/* Queries over keys in up to three parts. Query i sees all but the first i % 3 and the last i % 4,
 * as rows that follow each other do. */
typedef struct attend_case { int queries, head_dim, counts[3]; } attend_case;

/* Keys and values are bf16, kept as such or widened to floats: that gives the same bits. */
static void attend(const grf_kernels *k, int type, const attend_case *t, int first, int last,
                   float *out) {
    int keys = t->counts[0] + t->counts[1] + t->counts[2], head = (t->head_dim + 15) / 16 * 16;
    float *q = random_floats(t->queries * head, 1);
    int size = type == GRF_BF16 ? 2 : 4, n = 2 * keys * (head + 16);
    float *both = random_floats(n, 1);
    float *scores = random_floats(t->queries * (keys + 32), 1);
    grf_attention a;
    memset(&a, 0, sizeof a);
    for (int i = 0; i < n; i++) {
        uint16_t half = grf_bf16_from_float(both[i]);
        if (type == GRF_BF16) memcpy((unsigned char *)both + 2 * i, &half, 2);
        else both[i] = grf_float_from_bf16(half);
    }
    a.head_dim = t->head_dim; a.head_stride = head; a.stride = 2 * (head + 16) * size; a.type = type;
    for (int i = 0; i < 3; i++) {
        int before = (i > 0 ? t->counts[0] : 0) + (i > 1 ? t->counts[1] : 0);
        a.run[i].k = (unsigned char *)both + before * a.stride;
        a.run[i].v = a.run[i].k + (head + 16) * size;
        a.run[i].count = t->counts[i];
    }
    for (int i = first; i < last; i++) {
        grf_query *query = a.query + a.queries++;
        query->q = q + i * head;
        query->score = scores + i * (keys + 32);
        query->out = out + i * t->head_dim;
        query->first = i % 3 < keys ? i % 3 : 0;
        query->end = keys - i % 4 > query->first ? keys - i % 4 : query->first + 1;
    }
    k->attend(&a);
    free(q); free(both); free(scores);
}

/* Parts are only places in memory, and queries only share them: one part gives the same bits as
 * three, and each query alone the same as all together. */
static void test_attend(void) {
    static const attend_case cases[] = {
        { 1, 16, { 1, 0, 0 } }, { 3, 12, { 0, 5, 4 } }, { 8, 64, { 70, 3, 129 } },
        { 5, 81, { 15, 16, 17 } }, { 2, 256, { 300, 0, 1 } }, { 20, 256, { 40, 7, 90 } },
        { 32, 48, { 1, 1, 1 } }, { 13, 160, { 33, 32, 31 } }
    };
    static float want[20 * 256], got[20 * 256];     /* too much for the stack of WebAssembly */
    for (int i = 0; i < GRF_COUNT(cases); i++) {
        attend_case t = cases[i], whole = t;
        size_t size = (size_t)(t.queries * t.head_dim) * 4;
        uint64_t dice_before = dice_state;
        memset(whole.counts, 0, sizeof whole.counts);
        whole.counts[i % 3] = t.counts[0] + t.counts[1] + t.counts[2];
        for (int alone = 0; alone < t.queries; alone++) {
            dice_state = dice_before;
            attend(sets[0], GRF_F32, &whole, alone, alone + 1, want);
        }
        for (int set = 0; set < 2 * n_sets; set++) {
            const grf_kernels *k = sets[set / 2];
            dice_state = dice_before;
            attend(k, set % 2 ? GRF_BF16 : GRF_F32, &t, 0, t.queries, got);
            CHECK(memcmp(want, got, size) == 0, "%s, case %d, %s", k->name, i,
                  set % 2 ? "bf16" : "f32");
        }
    }
}

/* ---- the outer-product state ---- */

enum { OUTER_ROWS = 9, OUTER_KEYS = 37, OUTER_STATE = OUTER_KEYS * 32 };

/* The definition, in the plainest loops: decays of a row differ, or are the same for all rows. */
static void plain_outer(const grf_outer *a) {
    for (int t = 0; t < a->rows; t++)
        for (int e = 0; e < 32; e++)
            for (int d = 0; d < a->keys; d++) {
                float *s = a->state + d * 32 + e, *o = a->o + t * 32 + e;
                volatile float written = a->k[t * a->k_stride + d] * a->v[t * 32 + e];
                *s = grf_fma(a->f[t * a->f_stride + d], *s, written);
                *o = grf_fma(a->q[t * a->q_stride + d], *s, *o);
            }
}

/* All rows as passes of at most `most`. k null: the plain loops. */
static void outer_passes(const grf_kernels *k, const grf_outer *all, int most) {
    grf_outer a = *all;
    memset(a.o, 0, (size_t)a.rows * 32 * 4);
    for (int t = 0; t < all->rows; t += a.rows) {
        a.rows = (int)grf_min64(most, all->rows - t);
        a.q = all->q + t * a.q_stride; a.k = all->k + t * a.k_stride;
        a.f = all->f + t * a.f_stride; a.v = all->v + t * 32; a.o = all->o + t * 32;
        if (k) k->outer(&a); else plain_outer(&a);
    }
}

static void check_outer(int keys, int f_stride) {
    static float state[OUTER_STATE], want[OUTER_STATE], o[OUTER_ROWS * 32], want_o[OUTER_ROWS * 32];
    float *random = random_floats(OUTER_ROWS * 4 * 64, 1), *start = random_floats(OUTER_STATE, 1);
    grf_outer a;
    a.q = random; a.q_stride = 64;
    a.k = random + OUTER_ROWS * 64; a.k_stride = 50;
    a.f = random + OUTER_ROWS * 128; a.f_stride = f_stride;
    a.v = random + OUTER_ROWS * 192;
    a.keys = keys; a.rows = OUTER_ROWS;
    memcpy(want, start, sizeof want);
    a.state = want; a.o = want_o;
    outer_passes(NULL, &a, OUTER_ROWS);
    a.state = state; a.o = o;
    for (int set = 0; set < n_sets; set++)
        for (int most = 1; most <= OUTER_ROWS; most++) {
            memcpy(state, start, sizeof state);
            outer_passes(sets[set], &a, most);
            CHECK(memcmp(state, want, (size_t)keys * 32 * 4) == 0
                  && memcmp(o, want_o, sizeof o) == 0, "%s, %d keys, passes of %d",
                  sets[set]->name, keys, most);
        }
    free(random); free(start);
}

static void test_outer(void) {
    static const int keys[] = { 1, 4, 8, 15, 16, 37 };
    for (int i = 0; i < GRF_COUNT(keys); i++) { check_outer(keys[i], 0); check_outer(keys[i], 40); }
}

/* ---- whole models --------------------------------------------------------------------------- */

static griffin_model *open_for(const golden *g, const char *type, griffin_cpu cpu) {
    griffin_options options;
    memset(&options, 0, sizeof options);
    options.cpu = cpu;
    return golden_open(g, type, &options);
}

/* Plain C, token by token, is what all others must equal. */
static void check_sets(const golden *g, const char *type) {
    const char *name = type ? type : "f32";
    griffin_model *plain = open_for(g, type, GRIFFIN_CPU_SCALAR);
    griffin_context *c = new_context(plain, 1, 1);
    griffin_state *state = new_state(plain), *s = new_state(plain);
    float *want = new_logits(plain, g->count), *got = new_logits(plain, g->count);
    int wrong;
    run_chunks(plain, c, state, g->tokens, g->count, 1, want);
    for (int set = 0; set < n_sets; set++) {
        griffin_model *m = open_for(g, type, cpus[set]);
        griffin_context *wide = new_context(m, 64, 1);
        memset(s, 0, griffin_state_size(m));
        run_chunks(m, wide, s, g->tokens, g->count, 0, got);
        wrong = first_difference(want, got, g->count, vocabulary(m));
        CHECK(wrong < 0, "%s %s %s: token %d", g->name, name, sets[set]->name, wrong);
        CHECK(same_states(m, s, state), "%s %s %s", g->name, name, sets[set]->name);
        free(wide);
        griffin_close(m);
    }
    free(c); free(state); free(s); free(want); free(got);
    griffin_close(plain);
}

static void test_sets(void) {
    for (int i = 0; i < ALL_GOLDENS; i++)
        for (int type = 0; type < TYPES; type++) {
            golden g = golden_read(i);
            check_sets(&g, golden_types[type]);
        }
}

int main(void) {
    find_sets();
    RUN(test_linear);
    RUN(test_extremes);
    RUN(test_kernels);
    RUN(test_attend);
    RUN(test_outer);
    RUN(test_sets);
    return test_end();
}
