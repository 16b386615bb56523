/* Promise: our exp, tanh, sigmoid, softplus, log, sin and cos are within 2 units in the last place
 * of the true value, on every instruction set, and our fma is fma. */

#define GRIFFIN_IMPLEMENTATION
#include "model.h"

#include <float.h>

static double true_sigmoid(double x) { return x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x)); }
static double true_softplus(double x) { return (x > 0 ? x : 0) + log1p(exp(-fabs(x))); }
static double true_gelu_erf(double x) { return 0.5 * x * erfc(-x * sqrt(0.5)); }
static double true_silu(double x) { return x * true_sigmoid(x); }
static double true_gelu_tanh(double x) {
    return x * true_sigmoid(2 * 0.79788456080286535588 * (x + 0.044715 * x * x * x));
}

/* Error in units in the last place of the float next to y. Below the normal numbers anything
 * between 0 and the smallest of them is good. */
static double ulps(float x, double y) {
    int e;
    if (fabs(y) < FLT_MIN) return fabs((double)x) <= FLT_MIN ? 0 : 1e9;
    if (fabs(y) > FLT_MAX) return fabs((double)x) >= FLT_MAX ? 0 : 1e9;
    frexp(y, &e);
    return fabs((double)x - y) / ldexp(1, e - 24);
}

typedef struct worst { double ulp; float x; } worst;

static void note(worst *w, double ulp, float x) {
    if (!(ulp <= w->ulp)) { w->ulp = ulp; w->x = x; }
}

static void report(const char *name, worst w, double limit) {
    printf("%-22s %.2f ulp at %.9g\n", name, w.ulp, (double)w.x);
    CHECK(w.ulp <= limit, "%s(%.9g) is off by %g ulp", name, (double)w.x, w.ulp);
}

/* Each takes 16 numbers and is seen through a kernel that does nothing else to them. */
typedef void (*function)(float *x);

static const grf_kernels *kernels;          /* the best of this machine: all have the same bits */

static void f_exp(float *x) { kernels->exp_shifted(x, x, 0, 16); }
static void f_tanh(float *x) { kernels->soft_cap(x, 1, 16); }

/* h = sigmoid(i) c in a fresh state */
static void f_sigmoid(float *x) {
    float ones[16], y[16], h[16];
    for (int k = 0; k < 16; k++) ones[k] = y[k] = 1;
    kernels->rglru(h, y, x, x, ones, x, 1, 16);
    memcpy(x, h, sizeof h);
}

/* h = a 0 + sqrt(1 - a^2) c with log a = x, the gates being open */
static void f_root(float *x) {
    float ones[16], open[16], y[16], h[16];
    for (int k = 0; k < 16; k++) { ones[k] = y[k] = 1; open[k] = 100; h[k] = 0; }
    kernels->rglru(h, y, open, open, ones, x, 0, 16);
    memcpy(x, h, sizeof h);
}

static double true_root(double x) { return sqrt(-expm1(2 * x)); }

static void f_softplus(float *x) {
    for (int k = 0; k < 16; k++) x[k] = (float)grf_softplus((double)x[k]);
}

static void f_log(float *x) {
    for (int k = 0; k < 16; k++) x[k] = (float)grf_log((double)x[k]);
}

static void visit(worst *w, function f, double (*truth)(double), const float *x) {
    float y[16];
    memcpy(y, x, sizeof y);
    f(y);
    for (int k = 0; k < 16; k++) note(w, ulps(y[k], truth(x[k])), x[k]);
}

/* Every 509th of all floats from low to high, and a million evenly spaced. */
static void sweep(const char *name, function f, double (*truth)(double), float low, float high,
                  double limit) {
    worst w = { 0, 0 };
    float x[16];
    int n = 0;
    for (uint64_t i = 0; i <= 0xffffffff; i += 509) {
        x[n] = grf_float_from_bits((uint32_t)i);
        if (x[n] >= low && x[n] <= high) n++;
        if (n == 16) { visit(&w, f, truth, x); n = 0; }
    }
    for (uint64_t i = 0; i <= 1000000; i++) {
        x[i % 16] = (float)(low + ((double)high - low) * (double)i / 1000000);
        if (i % 16 == 15) visit(&w, f, truth, x);
    }
    report(name, w, limit);
}

static void test_functions(void) {
    sweep("exp",           f_exp, exp, -110, 89, 2);
    sweep("sigmoid",       f_sigmoid, true_sigmoid, -110, 110, 2);
    sweep("tanh",          f_tanh, tanh, -30, 30, 2);
    sweep("sqrt(1 - e^2x)", f_root, true_root, -50, -1e-30f, 2);
    sweep("softplus",      f_softplus, true_softplus, -80, 200, 2);
    sweep("log",           f_log, log, FLT_MIN, FLT_MAX, 2);
}

static float at(function f, float x) {
    float y[16];
    for (int k = 0; k < 16; k++) y[k] = x;
    f(y);
    return y[11];
}

/* Ends of the range */
static void test_limits(void) {
    CHECK(at(f_exp, 0) == 1 && at(f_exp, -INFINITY) == 0 && at(f_exp, INFINITY) == INFINITY, "exp");
    CHECK(at(f_exp, -1e30f) == 0 && at(f_exp, 1e30f) == INFINITY && at(f_exp, 88.7f) < INFINITY,
          "exp");
    CHECK(at(f_sigmoid, 0) == 0.5f && at(f_sigmoid, 1e30f) == 1 && at(f_sigmoid, -1e30f) == 0,
          "sigmoid");
    CHECK(at(f_tanh, 0) == 0 && at(f_tanh, 1e30f) == 1 && at(f_tanh, -INFINITY) == -1, "tanh");
    CHECK(at(f_root, 0) == 0 && at(f_root, -1e30f) == 1, "sqrt(1 - e^2x)");
    CHECK(isnan(at(f_exp, NAN)) && isnan(at(f_sigmoid, NAN)) && isnan(at(f_tanh, NAN)),
          "NaN stays");
}

/* What stands beside a logit decides how its tanh is found, but not what it is. */
static void test_soft_cap_in_company(void) {
    float alone[16], company[80], x;
    for (int i = -2000; i <= 2000; i++) {
        x = (float)i * 4e-4f;
        for (int k = 0; k < 16; k++) alone[k] = x;
        for (int k = 0; k < 80; k++) company[k] = x;
        company[i & 63] = 3;
        f_tanh(alone);
        kernels->soft_cap(company, 1, 80);
        for (int k = 0; k < 80; k++)
            CHECK(k == (i & 63) || memcmp(&alone[0], &company[k], 4) == 0, "tanh %g at %d is %g, "
                  "alone %g", (double)x, k, (double)company[k], (double)alone[0]);
    }
}

/* ---- activations: relative to the greatest slope, since they cross zero --------------------- */

static void test_activations(void) {
    static const struct {
        const char *name; griffin_activation kind; double (*truth)(double);
    } table[] = {
        { "gelu_tanh", GRIFFIN_GELU_TANH, true_gelu_tanh },
        { "gelu_erf", GRIFFIN_GELU_ERF, true_gelu_erf }, { "silu", GRIFFIN_SILU, true_silu }
    };
    for (int i = 0; i < GRF_COUNT(table); i++) {
        double absolute = 0, relative = 0, d;
        for (int j = -200000; j < 200000; j += 16) {
            float x[16], y[16];
            for (int k = 0; k < 16; k++) x[k] = y[k] = (float)(j + k) * 6e-5f;
            kernels->activate(y, table[i].kind, 16);
            for (int k = 0; k < 16; k++) {
                d = fabs(y[k] - table[i].truth(x[k]));
                absolute = fmax(absolute, d / (1 + fabs((double)x[k])));
                if (x[k] > -4 && x[k] != 0) d /= fabs(table[i].truth(x[k])); else d = 0;
                if (d > relative) relative = d;
            }
        }
        printf("%-22s %.1e of 1 + |x|, relative %.1e from -4 on\n", table[i].name, absolute,
               relative);
        CHECK(absolute <= 2.5e-7, "%s: %g", table[i].name, absolute);
    }
}

/* ---- turning -------------------------------------------------------------------------------- */

/* Sines and cosines of the fraction of a turn that the 64 bits are, from the nearest quarter. */
static void test_sine(void) {
    const long double turn = 6.283185307179586476925286766559L;
    worst s = { 0, 0 }, c = { 0, 0 };
    for (int i = 0; i < 2000000; i++) {
        uint64_t turns = (uint64_t)dice() << 32 | dice();
        int64_t position = (int64_t)((uint64_t)dice() << 8);            /* to 2^40 */
        float cosine, sine;
        double angle, both[2];
        if (i % 4 == 0) { turns >>= dice() % 64; position = 1; }        /* small angles */
        if (i % 4 == 1) { turns = (turns << 62) + (turns >> (12 + dice() % 40)); position = 1; }
        kernels->rope_angles(&cosine, &sine, &turns, position, 1);
        uint64_t phase = turns * (uint64_t)position;
        uint64_t quarter = (phase + ((uint64_t)1 << 61)) >> 62;
        angle = (double)(turn / 18446744073709551616.0L * (int64_t)(phase - (quarter << 62)));
        both[0] = sin(angle);
        both[1] = cos(angle);
        note(&s, ulps(sine, quarter & 2 ? -both[quarter & 1] : both[quarter & 1]), sine);
        note(&c, ulps(cosine, (quarter + 1) & 2 ? -both[~quarter & 1] : both[~quarter & 1]),
             cosine);
    }
    report("sin (value)", s, 2);
    report("cos (value)", c, 2);
}

/* The angles of a real model: position base^(-2i / dims), far out too. */
static void test_angles(void) {
    griffin_config config = small_config();
    config.heads = 1; config.head_dim = 24; config.rope_dims = 24;
    network *n = network_make(&config);
    griffin_model *m = network_open(n, NULL);
    for (int64_t p = 1; p < (int64_t)1 << 40; p = p * 3 + 1)
        for (int i = 0; i < 12; i++) {
            long double angle = (long double)p * powl(10000, -2.0L * i / 24);
            float cosine, sine;
            double limit = 1e-7 + 1.5e-15 * (double)angle;  /* the power is a double */
            kernels->rope_angles(&cosine, &sine, m->turns + i, p, 1);
            CHECK(fabs((double)(sine - sinl(angle))) <= limit
                  && fabs((double)(cosine - cosl(angle))) <= limit,
                  "position 3^%d or so, pair %d", (int)(log((double)p) / log(3.0)), i);
        }
    griffin_close(m);
    network_free(n);
}

/* ---- fma ------------------------------------------------------------------------------------ */

static float nasty_float(void) {
    static const uint32_t special[] = {
        0, 0x80000000, 1, 0x007fffff, 0x00800000, 0x3f800000, 0x3f800001, 0xbf7fffff, 0x4b800000,
        0x7f7fffff, 0x7f800000, 0xff800000, 0x33800000, 0xb3800001, 0x3effffff, 0x00000003
    };
    uint32_t bits = dice();
    if (bits % 4 == 0) return grf_float_from_bits(special[dice() % 16]);
    if (bits % 4 == 1) return grf_float_from_bits((bits & 0x807fffff) | (100 + dice() % 56) << 23);
    if (bits % 4 == 2) return grf_float_from_bits((bits & 0x80600003) | (110 + dice() % 34) << 23);
    return grf_float_from_bits((bits & 0x7f800000) == 0x7f800000 ? bits & 0xbfffffff : bits);
}

/* musl's and WASI's fmaf round twice where the result is subnormal, that of Windows everywhere:
 * there the word is only compared with ours. */
static int check_fma(const char *whose, float x, float a, float b, float c) {
#ifdef __GLIBC__
    float y = fmaf(a, b, c);
#else
    float y = grf_fma(a, b, c);
#endif
    int same = memcmp(&x, &y, 4) == 0 || (isnan(x) && isnan(y));
    CHECK(same, "%s(%a, %a, %a) = %a, expected %a", whose, (double)a, (double)b, (double)c,
          (double)x, (double)y);
    return same;
}

/* The scalar one, and the word of the best kernels: a convolution with one tap is nothing else. */
static void test_fma(void) {
    int same = 1;
    for (int i = 0; i < 250000 && same; i++) {
        float a[16], b[16], c[16], x[16];
        const float *z = b;
        for (int k = 0; k < 16; k++) {
            a[k] = nasty_float(); b[k] = nasty_float(); c[k] = nasty_float();
            if (k % 3 == 0) c[k] = (float)-((double)a[k] * b[k]) * (1 + dice_float(1e-6f));
        }
        kernels->conv(x, &z, a, 16, c, 1, 16);
        for (int k = 0; k < 16; k++)
            same &= check_fma(kernels->name, x[k], a[k], b[k], c[k])
                  & check_fma("grf_fma", grf_fma(a[k], b[k], c[k]), a[k], b[k], c[k]);
    }
}

int main(void) {
    kernels = grf_kernels_find(GRIFFIN_CPU_BEST);
    RUN(test_functions);
    RUN(test_limits);
    RUN(test_soft_cap_in_company);
    RUN(test_activations);
    RUN(test_sine);
    RUN(test_angles);
    RUN(test_fma);
    return test_end();
}
