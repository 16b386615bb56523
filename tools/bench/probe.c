/* probe.c - how fast memory is read and how fast products are made; see probe.h.
 *
 * The threads are OpenMP's, as in the library, so that the same threads run both. */

#include "probe.h"
#include "../shared/host.h"

#include <stdint.h>
#include <string.h>

#if (defined(__x86_64__) || defined(__i386__)) && defined(__GNUC__)
  #define PROBE_X86
  #include <immintrin.h>
#elif defined(__aarch64__) && defined(__GNUC__)
  #define PROBE_NEON
  #include <arm_neon.h>
#endif

/* Each instruction set has three loops. The loop that reads combines all values into a result, so
 * that the compiler cannot leave a load out. The loops for products keep twelve independent chains
 * in registers, enough for two units with a latency of five cycles. STEP depends on its chain, so
 * that the compiler cannot compute a product once for all rounds. */

typedef uint64_t (*read_loop)(const unsigned char *p, size_t bytes);
typedef double   (*peak_loop)(int64_t rounds);

enum { CHAINS = 12, STREAM = 256 };         /* STREAM: bytes that a round of reading takes */

#define READ_LOOP(name, TARGET, vector, LOAD, COMBINE, EXTRACT) \
    TARGET static uint64_t name(const unsigned char *p, size_t bytes) { \
        enum { V = sizeof(vector) }; \
        vector a = LOAD(p), b = LOAD(p + V), c = a, d = b; \
        size_t i; \
        for (; bytes >= STREAM; bytes -= STREAM, p += STREAM) \
            for (i = 0; i < STREAM; i += 4 * V) { \
                a = COMBINE(a, LOAD(p + i));         b = COMBINE(b, LOAD(p + i + V)); \
                c = COMBINE(c, LOAD(p + i + 2 * V)); d = COMBINE(d, LOAD(p + i + 3 * V)); \
            } \
        return (uint64_t)EXTRACT(COMBINE(COMBINE(a, b), COMBINE(c, d))); \
    }

#define PEAK_LOOP(name, TARGET, vector, SET, STEP, COMBINE, EXTRACT) \
    TARGET static double name(int64_t rounds) { \
        volatile int one = 1;               /* else equal chains would become one */ \
        const vector x = SET(one), y = SET(one); \
        vector a = SET(one), b = SET(one), c = SET(one), d = SET(one), e = SET(one), \
               f = SET(one), g = SET(one), h = SET(one), i = SET(one), j = SET(one), \
               k = SET(one), l = SET(one); \
        for (; rounds > 0; rounds--) { \
            a = STEP(a, x, y); b = STEP(b, x, y); c = STEP(c, x, y); d = STEP(d, x, y); \
            e = STEP(e, x, y); f = STEP(f, x, y); g = STEP(g, x, y); h = STEP(h, x, y); \
            i = STEP(i, x, y); j = STEP(j, x, y); k = STEP(k, x, y); l = STEP(l, x, y); \
        } \
        a = COMBINE(COMBINE(a, b), COMBINE(c, d)); \
        e = COMBINE(COMBINE(e, f), COMBINE(g, h)); \
        i = COMBINE(COMBINE(i, j), COMBINE(k, l)); \
        return (double)EXTRACT(COMBINE(COMBINE(a, e), i)); \
    }

/* ---- plain C --------------------------------------------------------------------------------- */

static uint64_t load_word(const unsigned char *p) { uint64_t w; memcpy(&w, p, 8); return w; }

#define PLAIN
#define PLAIN_OR(a, b)          ((a) | (b))
#define PLAIN_ADD(a, b)         ((a) + (b))
#define PLAIN_SELF(a)           (a)
#define PLAIN_FLOAT(n)          (0.4f * (float)(n))
#define PLAIN_INT(n)            ((uint32_t)(n))
#define PLAIN_STEP(a, x, y)     ((a) * (x) + (y))
READ_LOOP(read_plain, PLAIN, uint64_t, load_word, PLAIN_OR, PLAIN_SELF)
PEAK_LOOP(f32_plain, PLAIN, float, PLAIN_FLOAT, PLAIN_STEP, PLAIN_ADD, PLAIN_SELF)
PEAK_LOOP(int8_plain, PLAIN, uint32_t, PLAIN_INT, PLAIN_STEP, PLAIN_ADD, PLAIN_SELF)

/* ---- x86 ------------------------------------------------------------------------------------- */

#ifdef PROBE_X86

#define AVX2 __attribute__((target("avx2,fma")))
#define AVX2_LOAD(p)            _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define AVX2_LOW(a)             _mm_cvtsi128_si32(_mm256_castsi256_si128(a))
#define AVX2_FLOAT(n)           _mm256_set1_ps(PLAIN_FLOAT(n))
#define AVX2_FMA(a, x, y)       _mm256_fmadd_ps(a, x, y)
#define AVX2_FLOAT_LOW(a)       _mm256_cvtss_f32(a)
/* without VNNI, exact products of bytes are made as int16: 16 products an instruction */
#define AVX2_DOT(a, x, y)       _mm256_add_epi32(_mm256_madd_epi16(a, x), y)
READ_LOOP(read_avx2, AVX2, __m256i, AVX2_LOAD, _mm256_or_si256, AVX2_LOW)
PEAK_LOOP(f32_avx2, AVX2, __m256, AVX2_FLOAT, AVX2_FMA, _mm256_add_ps, AVX2_FLOAT_LOW)
PEAK_LOOP(int8_avx2, AVX2, __m256i, _mm256_set1_epi32, AVX2_DOT, _mm256_add_epi32, AVX2_LOW)

#if defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11
  #define PROBE_VNNI 1
  #define AVX_VNNI __attribute__((target("avx2,avxvnni")))
PEAK_LOOP(int8_vnni, AVX_VNNI, __m256i, _mm256_set1_epi32, _mm256_dpbusd_avx_epi32,
          _mm256_add_epi32, AVX2_LOW)
#endif

#define AVX512 __attribute__((target("avx512f,avx512vnni")))
#define AVX512_LOAD(p)          _mm512_loadu_si512(p)
#define AVX512_LOW(a)           _mm_cvtsi128_si32(_mm512_castsi512_si128(a))
#define AVX512_FLOAT(n)         _mm512_set1_ps(PLAIN_FLOAT(n))
#define AVX512_FMA(a, x, y)     _mm512_fmadd_ps(a, x, y)
#define AVX512_FLOAT_LOW(a)     _mm_cvtss_f32(_mm512_castps512_ps128(a))
READ_LOOP(read_avx512, AVX512, __m512i, AVX512_LOAD, _mm512_or_si512, AVX512_LOW)
PEAK_LOOP(f32_avx512, AVX512, __m512, AVX512_FLOAT, AVX512_FMA, _mm512_add_ps, AVX512_FLOAT_LOW)
PEAK_LOOP(int8_avx512, AVX512, __m512i, _mm512_set1_epi32, _mm512_dpbusd_epi32, _mm512_add_epi32,
          AVX512_LOW)

#endif

/* ---- 64-bit ARM ------------------------------------------------------------------------------ */

#ifdef PROBE_NEON

#ifdef __clang__
  #define NEON_DOT __attribute__((target("dotprod")))
#else
  #define NEON_DOT __attribute__((target("arch=armv8.2-a+dotprod")))
#endif

#define NEON_LOW(a)             vgetq_lane_u64(vreinterpretq_u64_u8(a), 0)
#define NEON_FLOAT(n)           vdupq_n_f32(PLAIN_FLOAT(n))
#define NEON_FMA(a, x, y)       vfmaq_f32(y, a, x)
#define NEON_FLOAT_LOW(a)       vgetq_lane_f32(a, 0)
#define NEON_INT_LOW(a)         vgetq_lane_s32(a, 0)
#define NEON_BYTES(a)           vreinterpretq_s8_s32(a)
/* without dot products: 8 products of bytes to int16, added to int32 in pairs */
#define NEON_PAIRS(a, x, y) \
    vpadalq_s16(y, vmull_s8(vget_low_s8(NEON_BYTES(a)), vget_low_s8(NEON_BYTES(x))))
#define NEON_QUADS(a, x, y)     vdotq_s32(a, NEON_BYTES(x), NEON_BYTES(y))
READ_LOOP(read_neon, PLAIN, uint8x16_t, vld1q_u8, vorrq_u8, NEON_LOW)
PEAK_LOOP(f32_neon, PLAIN, float32x4_t, NEON_FLOAT, NEON_FMA, vaddq_f32, NEON_FLOAT_LOW)
PEAK_LOOP(int8_neon, PLAIN, int32x4_t, vdupq_n_s32, NEON_PAIRS, vaddq_s32, NEON_INT_LOW)
PEAK_LOOP(int8_dot, NEON_DOT, int32x4_t, vdupq_n_s32, NEON_QUADS, vaddq_s32, NEON_INT_LOW)

#endif

static const struct probe_set {
    const char *name;
    read_loop   read;
    peak_loop   peak[2];                    /* by probe_kind */
    int         products[2];                /* in one step of a chain */
} probe_sets[] = {
    { "scalar", read_plain,  { f32_plain,  int8_plain },  { 1, 1 } },
#ifdef PROBE_X86
    { "avx2",   read_avx2,   { f32_avx2,   int8_avx2 },   { 8, 16 } },
#ifdef PROBE_VNNI
    { "avx-vnni", read_avx2, { f32_avx2,  int8_vnni },    { 8, 32 } },
#endif
    { "avx512", read_avx512, { f32_avx512, int8_avx512 }, { 16, 64 } },
    { "amx",    read_avx512, { f32_avx512, int8_avx512 }, { 16, 64 } },     /* see below */
#endif
#ifdef PROBE_NEON
    { "neon",     read_neon, { f32_neon,   int8_neon },   { 4, 8 } },
    { "neon-dot", read_neon, { f32_neon,   int8_dot },    { 4, 16 } },
    { "neon-i8mm", read_neon, { f32_neon,  int8_dot },    { 4, 16 } },      /* see below */
#endif
};

/* The peak of sets with a matrix unit is that of their vectors: a share above 1 is the unit's gain. */
static const struct probe_set *find_set(const char *name) {
    size_t n = sizeof probe_sets / sizeof probe_sets[0];
    for (size_t i = 0; i < n; i++) if (!strcmp(probe_sets[i].name, name)) return &probe_sets[i];
    return &probe_sets[0];
}

/* ---- all threads at once --------------------------------------------------------------------- */

static volatile double probe_sink;          /* keeps the compiler from removing the loops */

typedef struct probe_work {
    const struct probe_set *set;
    const unsigned char *memory;            /* null: the peak of `kind` */
    size_t     slice;                       /* of each thread, in bytes */
    int64_t    rounds;                      /* over the slice, or of the chains */
    probe_kind kind;
} probe_work;

static double run_work(const probe_work *w, int thread) {
    uint64_t bits = 0;
    if (!w->memory) return w->set->peak[w->kind](w->rounds);
    for (int64_t i = 0; i < w->rounds; i++)
        bits |= w->set->read(w->memory + (size_t)thread * w->slice, w->slice);
    return (double)bits;
}

/* Seconds from the first thread's start to the last one's end. */
static double run_threads(const probe_work *w, int threads, double *share) {
    double first = 1e30, last = 0, least = 1;
#ifdef _OPENMP
    #pragma omp parallel for schedule(static, 1) num_threads(threads) \
        reduction(min: first, least) reduction(max: last)
#endif
    for (int i = 0; i < threads; i++) {
        double start = seconds_now(), cpu = thread_seconds();
        probe_sink = run_work(w, i);
        double end = seconds_now();
        double part = (thread_seconds() - cpu) / (end - start + 1e-9);
        if (start < first) first = start;
        if (end > last) last = end;
        if (part < least) least = part;
    }
    *share = least;
    return last - first;
}

probe_result probe_read(const char *instructions, const void *memory, size_t size, size_t bytes,
                        int threads) {
    probe_work w = { NULL, NULL, 0, 0, PROBE_F32 };
    probe_result r = { 1e18, 1 };           /* a memory too small to measure sets no limit */
    w.set = find_set(instructions);
    w.memory = (const unsigned char *)memory;
    w.slice = (size < bytes ? size : bytes) / (size_t)threads / STREAM * STREAM;
    if (w.slice == 0) return r;
    w.rounds = (int64_t)((bytes + w.slice * (size_t)threads - 1) / (w.slice * (size_t)threads));
    r.rate = (double)w.slice * (double)w.rounds * threads;
    r.rate /= run_threads(&w, threads, &r.share);
    return r;
}

probe_result probe_peak(const char *instructions, probe_kind kind, int threads) {
    enum { ROUNDS = 3 << 20 };              /* about 5 ms */
    probe_work w = { NULL, NULL, 0, ROUNDS, PROBE_F32 };
    probe_result r;
    w.set = find_set(instructions);
    w.kind = kind;
    r.rate = 2.0 * CHAINS * w.set->products[kind] * (double)w.rounds * threads;
    r.rate /= run_threads(&w, threads, &r.share);
    return r;
}
