/* test_sampler.c - the sampler keeps what it says it keeps, draws by the probabilities, and the
 * same sampler and logits always give the same token.
 *
 * After a call the logits are the weights that the draw was made by, so a plain reference that
 * sorts can be held against them. */

#include "model.h"

#define MOST 3000

static float logits[MOST];

/* ---- a model for each size of vocabulary and each set of kernels ----------------------------- */

static struct { int vocab; griffin_cpu cpu; network *n; griffin_model *m; } models[32];
static int n_models;
static griffin_cpu cpu = GRIFFIN_CPU_SCALAR;   /* that sample() uses */

/* Null where this machine has no such kernels. */
static const griffin_model *model_of(int vocab) {
    griffin_options options;
    griffin_config config = smallest_config(vocab);
    size_t size;
    int i;
    for (i = 0; i < n_models; i++)
        if (models[i].vocab == vocab && models[i].cpu == cpu) return models[i].m;
    memset(&options, 0, sizeof options);
    options.cpu = cpu;
    models[i].vocab = vocab;
    models[i].cpu = cpu;
    models[i].n = network_make(&config);
    models[i].n->file = network_file(models[i].n, &size);
    if (griffin_open_memory(&models[i].m, models[i].n->file, size, &options) < 0)
        CHECK(cpu != GRIFFIN_CPU_SCALAR, "plain C");
    n_models++;
    return models[i].m;
}

static void close_models(void) {
    while (n_models > 0) {
        griffin_close(models[--n_models].m);
        network_free(models[n_models].n);
    }
}

static griffin_sampler sampler_of(uint64_t seed, float temperature) {
    griffin_sampler s;
    memset(&s, 0, sizeof s);
    s.seed = seed;
    s.temperature = temperature;
    return s;
}

static int32_t sample(griffin_sampler *s, const float *from, int n) {
    memcpy(logits, from, (size_t)n * sizeof *logits);
    return griffin_sample(model_of(n), s, logits);
}

static uint64_t noise = 1;

static double random_number(void) {         /* 0 to 1, of another kind than the sampler's */
    noise = noise * 6364136223846793005u + 1442695040888963407u;
    return (double)(noise >> 33) / 2147483648.0;
}

static void random_logits(float *x, int n, double spread) {
    for (int i = 0; i < n; i++) x[i] = (float)((random_number() - 0.5) * spread);
}

/* ---- greedy -------------------------------------------------------------------------- */

static void test_greedy(void) {
    static const float x[] = { -1, 3, 2, 3, -INFINITY }, zeros[] = { -0.0f, 0.0f, -0.0f };
    griffin_sampler s = sampler_of(7, 0);
    CHECK(sample(&s, x, 5) == 1, "the lowest of equals");
    CHECK(s.seed == 7, "nothing was drawn");
    CHECK(s.accepted == 1 && s.recent[0] == 1, "accepted");
    CHECK(sample(&s, zeros, 3) == 0, "minus zero equals zero");
    CHECK(sample(&s, x, 1) == 0, "only one");
}

static void test_broken_logits(void) {
    static const float some[] = { NAN, -INFINITY, -5, NAN }, none[] = { NAN, -INFINITY, -NAN },
                       high[] = { 1, INFINITY, NAN, INFINITY, -INFINITY };
    int seen = 0;
    griffin_sampler s = sampler_of(1, 0);
    CHECK(sample(&s, some, 4) == 2, "greedy");
    s.temperature = 1;
    for (int i = 0; i < 50; i++) CHECK(sample(&s, some, 4) == 2, "masked tokens are never drawn");
    griffin_sampler before = s;
    CHECK(sample(&s, none, 3) == GRIFFIN_E_NO_TOKEN, "nothing to choose from");
    CHECK(memcmp(&before, &s, sizeof s) == 0, "the sampler changed");
    for (int i = 0; i < 50; i++) {
        int32_t token = sample(&s, high, 5);
        CHECK(token == 1 || token == 3, "%d is not infinite", token);
        seen |= 1 << token;
    }
    CHECK(seen == (1 << 1 | 1 << 3), "one of the infinite logits was never drawn");
    s.temperature = 1e-38f;
    CHECK(sample(&s, some, 4) == 2, "almost greedy");
}

static void check_refused(griffin_sampler s, const char *what) {
    static const float x[] = { 1, 2 };
    griffin_sampler before = s;
    CHECK(sample(&s, x, 2) == GRIFFIN_E_ARGUMENT, "%s", what);
    CHECK(memcmp(&before, &s, sizeof s) == 0, "%s changed the sampler", what);
}

static void test_arguments(void) {
    static const float bad[] = { NAN, -1, INFINITY, -INFINITY };
    for (int i = 0; i < 4; i++) {
        griffin_sampler s = sampler_of(1, 1);
        s.temperature = bad[i];              check_refused(s, "temperature");
        s.temperature = 1; s.top_p = bad[i]; check_refused(s, "top_p");
        s.top_p = 0; s.min_p = bad[i];       check_refused(s, "min_p");
        s.min_p = 0; s.repeat_penalty = bad[i]; check_refused(s, "repeat_penalty");
        s.repeat_penalty = 0; s.top_k = -1;  check_refused(s, "top_k");
        s.top_k = 0; s.repeat_last = 65;     check_refused(s, "repeat_last");
        s.repeat_last = -1;                  check_refused(s, "repeat_last");
    }
    CHECK(griffin_sample(NULL, NULL, NULL) == GRIFFIN_E_ARGUMENT, "no model");
    CHECK(griffin_sample(model_of(2), NULL, logits) == GRIFFIN_E_ARGUMENT, "no sampler");
}

/* ---- against a reference that sorts ----------------------------------------------------- */

typedef struct entry { double weight; float logit; int id; } entry;
static entry entries[MOST];

static int by_logit(const void *a, const void *b) {
    const entry *p = (const entry *)a, *q = (const entry *)b;
    if (p->logit > q->logit) return -1;
    if (p->logit < q->logit) return 1;
    return p->id - q->id;
}

/* Leaves the kept entries, sorted; returns how many. */
static int reference(const griffin_sampler *s, const float *x, int n) {
    int i, kept = n;
    double total = 0, sum = 0;
    for (i = 0; i < n; i++) { entries[i].logit = x[i]; entries[i].id = i; }
    qsort(entries, (size_t)n, sizeof *entries, by_logit);
    if (s->top_k && s->top_k < kept) kept = s->top_k;
    for (i = 0; i < kept; i++) {
        entries[i].weight = exp(((double)entries[i].logit - entries[0].logit) / s->temperature);
        total += entries[i].weight;
    }
    for (i = 0; s->top_p > 0 && s->top_p < 1 && i < kept && sum < s->top_p * total; i++) {
        sum += entries[i].weight;
    }
    if (s->top_p > 0 && s->top_p < 1) kept = i;
    while (kept > 1 && entries[kept - 1].weight < s->min_p) kept--;
    return kept;
}

static void check_kept(griffin_sampler s, const float *x, int n, const char *what) {
    int kept = reference(&s, x, n), got = 0;
    int32_t token = sample(&s, x, n);
    CHECK(token >= 0 && token < n && logits[token] > 0, "%s: drew %d", what, token);
    for (int i = 0; i < n; i++) got += logits[i] > 0;
    CHECK(got == kept, "%s: kept %d of %d, expected %d", what, got, n, kept);
    for (int i = 0; i < kept; i++) {
        double w = logits[entries[i].id], expected = entries[i].weight;
        double rounding = 2e-7 * (1 - log(expected)) * expected;    /* of the exponent, a float */
        CHECK(fabs(w - expected) <= rounding, "%s: weight %g, expected %g", what, w, expected);
    }
}

static void test_keeping(void) {
    static const int sizes[] = { 1, 2, 7, 100, MOST }, ks[] = { 0, 1, 2, 5, 40, 99, 100, 5000 };
    static const float ps[] = { 0, 1e-6f, 0.1f, 0.5f, 0.9f, 0.999f, 1 };
    static const float ms[] = { 0, 0.02f, 0.5f, 1 }, ts[] = { 0.3f, 1, 2.5f };
    static float x[MOST];
    int c, t;
    for (int a = 0; a < COUNT(sizes); a++) for (t = 0; t < COUNT(ts); t++) {
        random_logits(x, sizes[a], 20);
        for (int b = 0; b < COUNT(ks); b++) for (c = 0; c < COUNT(ps); c++) {
            griffin_sampler s = sampler_of(random_number() > 0.5, ts[t]);
            s.top_k = ks[b];
            s.top_p = ps[c];
            for (int d = 0; d < COUNT(ms); d++) {
                s.min_p = ms[d];
                check_kept(s, x, sizes[a], "random");
            }
        }
    }
}

/* Equal logits: the lowest ids stay. */
static void test_ties(void) {
    static float x[100];
    griffin_sampler s = sampler_of(3, 1);
    for (int i = 0; i < 100; i++) x[i] = (float)(i % 4);
    s.top_k = 30;
    check_kept(s, x, 100, "top_k");
    for (int i = 0; i < 100; i++) {
        CHECK((logits[i] > 0) == (i % 4 == 3 || (i % 4 == 2 && i < 20)), "entry %d", i);
    }
    s.top_k = 0;
    for (int i = 0; i < 100; i++) x[i] = 0;
    s.top_p = 0.25f;
    check_kept(s, x, 100, "top_p");
    for (int i = 0; i < 100; i++) CHECK((logits[i] > 0) == (i < 25), "entry %d", i);
    s.top_p = 0;
    s.min_p = 1;
    check_kept(s, x, 100, "min_p");
}

/* ---- drawing ------------------------------------------------------------------------------- */

static void test_distribution(void) {
    static const float x[] = { 0, 1, 2, -1, 0.5f, -INFINITY, 1.5f, -3 };
    static int counts[8];
    const int draws = 200000;
    double total = 0;
    griffin_sampler s = sampler_of(42, 1.5f);
    for (int i = 0; i < draws; i++) counts[sample(&s, x, 8)]++;
    for (int i = 0; i < 8; i++) total += exp(x[i] / 1.5);
    for (int i = 0; i < 8; i++) {
        double p = exp(x[i] / 1.5) / total, sigma = sqrt(draws * p * (1 - p));
        CHECK(fabs(counts[i] - draws * p) <= 5 * sigma, "token %d: %d draws, expected %.0f +- %.0f",
              i, counts[i], draws * p, sigma);
    }
}

/* The seed is all the randomness there is; these are for good. */
static void test_replay(void) {
    static const int32_t expected[] = { 730, 593, 210, 309, 731, 693, 496, 236 };
    static float x[1000];
    griffin_sampler s = sampler_of(1234, 1);
    int32_t first[20];
    for (int i = 0; i < 1000; i++) x[i] = (float)((i * 7919) % 1000) * 0.01f;
    s.top_p = 0.9f;
    s.repeat_penalty = 1.3f;
    for (int i = 0; i < COUNT(expected); i++) {
        int32_t token = sample(&s, x, 1000);
        CHECK(token == expected[i], "draw %d: %d, expected %d", i, token, expected[i]);
    }
    griffin_sampler copy = s;
    for (int i = 0; i < 20; i++) first[i] = sample(&s, x, 1000);
    for (int i = 0; i < 20; i++) CHECK(sample(&copy, x, 1000) == first[i], "draw %d again", i);
    CHECK(memcmp(&s, &copy, sizeof s) == 0, "the samplers went apart");
}

static void test_kernels(void) {
    static float x[MOST], weights[MOST];
    int same;
    random_logits(x, MOST, 30);
    for (int other = GRIFFIN_CPU_AVX2; other <= LAST_CPU; other++) {
        griffin_sampler s = sampler_of(9, 0.8f), t = s;
        int32_t token = sample(&s, x, MOST);
        memcpy(weights, logits, sizeof weights);
        cpu = (griffin_cpu)other;
        same = model_of(MOST) == NULL || (sample(&t, x, MOST) == token
                                          && memcmp(weights, logits, sizeof weights) == 0);
        CHECK(same, "kernels %d differ", other);
        cpu = GRIFFIN_CPU_SCALAR;
    }
}

/* ---- repetition ------------------------------------------------------------------------------ */

static void test_penalty(void) {
    static const float x[] = { 4, -4, 3, 0 };
    griffin_sampler s = sampler_of(0, 0);
    s.repeat_penalty = 2;
    CHECK(sample(&s, x, 4) == 0, "nothing was there before");
    CHECK(sample(&s, x, 4) == 2, "4 / 2 is below 3");
    CHECK(logits[0] == 2 && logits[1] == -4, "%g %g", logits[0], logits[1]);
    griffin_accept(&s, 1);
    griffin_accept(&s, 1);
    CHECK(sample(&s, x, 4) == 0, "2 is the best of 2, -8, 1.5, 0");
    CHECK(logits[0] == 2 && logits[1] == -8 && logits[2] == 1.5f, "only once for each token");
    s.repeat_last = 1;
    CHECK(sample(&s, x, 4) == 2, "only the last token counts");
    CHECK(logits[0] == 2 && logits[1] == -4, "only the last token counts");
    s.repeat_last = 0;
    for (int i = 0; i < GRIFFIN_RECENT; i++) griffin_accept(&s, 3);
    CHECK(sample(&s, x, 4) == 0 && logits[0] == 4, "all others are forgotten");
    griffin_accept(&s, -1);
    griffin_accept(&s, 1000000);
    CHECK(sample(&s, x, 4) >= 0, "tokens out of range are ignored");
    s.accepted = UINT32_MAX;
    griffin_accept(&s, 2);
    CHECK(s.recent[63] == 2 && s.accepted % GRIFFIN_RECENT == 0 && s.accepted > 0, "wrapped");
    griffin_accept(NULL, 0);
}

int main(void) {
    RUN(test_greedy);
    RUN(test_broken_logits);
    RUN(test_arguments);
    RUN(test_keeping);
    RUN(test_ties);
    RUN(test_distribution);
    RUN(test_replay);
    RUN(test_kernels);
    RUN(test_penalty);
    close_models();
    return test_end();
}
