/* Promise: threads change no bit, however many there are and in whatever order they work, and one
 * model serves many of them at once. Also meant for the thread sanitizer. */

#include "model.h"

#include <limits.h>
#include <pthread.h>

/* ---- job systems ---------------------------------------------------------------------------- */

enum { FORWARDS, BACKWARDS, SCATTERED, ORDERS };

typedef struct pool {
    int threads, order;
    int jobs, widest;                       /* calls so far; most pieces in one */
} pool;

typedef struct worker {
    void (*job)(void *data, int index);
    void *data;
    int   first, count, step, order;
} worker;

static void *work(void *argument) {
    const worker *w = (const worker *)argument;
    for (int i = w->first; i < w->count; i += w->step)
        w->job(w->data, w->order == FORWARDS ? i : w->order == BACKWARDS ? w->count - 1 - i
                        : i * 7919 % w->count);         /* 7919 is a prime, so all have a turn */
    return NULL;
}

/* Thread i of n does pieces i, i + n, i + 2 n and so on. */
static void run_pool(void (*job)(void *data, int index), void *data, int count, void *user) {
    pool *p = (pool *)user;
    pthread_t thread[8];
    worker w[8];
    p->jobs++;
    if (count > p->widest) p->widest = count;
    for (int i = 0; i < p->threads; i++) {
        w[i].job = job;
        w[i].data = data;
        w[i].count = count;
        w[i].first = i;
        w[i].step = p->threads;
        w[i].order = p->order;
        if (i > 0 && pthread_create(&thread[i], NULL, work, &w[i])) abort();
    }
    work(&w[0]);
    for (int i = 1; i < p->threads; i++) pthread_join(thread[i], NULL);
}

/* Wide enough that its matrices are cut into many pieces. */
static griffin_config wide_config(const char *blocks) {
    griffin_config c = strchr(blocks, 'h') ? kin_config(blocks) : small_config();
    c.width = 512; c.heads = 4; c.head_dim = 128; c.rope_dims = 64;
    c.lru_width = 640; c.gate_blocks = 4; c.mlp_width = 700; c.vocab = 1000; c.window = 6;
    strcpy(c.blocks, blocks);
    c.layers = 2;
    return c;
}

enum { TOKENS = 20 };

static const int32_t tokens[TOKENS] = {
    2, 391, 17, 880, 1, 999, 640, 45, 45, 45, 7, 512, 300, 91, 762, 33, 4, 650, 128, 70
};

typedef struct answer { float *logits; griffin_state *state; } answer;

static griffin_model *m;
static answer alone;                        /* one thread's, all at once */

/* Runs on any thread, so it counts no checks. */
static answer ask(const griffin_jobs *jobs, int rows, int chunk) {
    griffin_context_options o;
    griffin_context *c;
    answer a;
    memset(&o, 0, sizeof o);
    o.rows = rows;
    o.jobs.width = 1;
    if (jobs) o.jobs = *jobs;
    size_t size = griffin_context_size(m, &o);
    void *memory = malloc(size);
    if (griffin_context_init(&c, m, &o, memory, size)) abort();
    a.state = new_state(m);
    a.logits = (float *)malloc((size_t)(TOKENS * vocabulary(m)) * 4);
    for (int at = 0; at < TOKENS; at += chunk) {
        griffin_span span = span_of(a.state, tokens + at, chunk < TOKENS - at ? chunk : TOKENS - at,
                                    a.logits + at * vocabulary(m));
        if (griffin_run(c, &span, 1)) abort();
    }
    free(memory);
    return a;
}

static int is_right(const answer *a) {
    return first_difference(a->logits, alone.logits, TOKENS, vocabulary(m)) < 0
        && same_states(m, a->state, alone.state);
}

static void release(answer *a) { free(a->logits); free(a->state); }

/* ---- one call on many threads --------------------------------------------------------------- */

static void test_jobs(void) {
    for (int threads = 1; threads <= 8; threads++)
        for (int order = 0; order < ORDERS; order++)
            for (int chunk = 1; chunk <= TOKENS; chunk += 6) {
                pool p = { 0, 0, 0, 0 };
                griffin_jobs jobs;
                p.threads = threads;
                p.order = order;
                jobs.run = run_pool;
                jobs.user = &p;
                jobs.width = threads;
                answer a = ask(&jobs, 16, chunk);
                CHECK(is_right(&a), "%d threads, order %d, chunks of %d", threads, order, chunk);
                CHECK(p.jobs > 0 && p.widest > 2, "%d jobs of at most %d pieces", p.jobs, p.widest);
                release(&a);
            }
}

/* Without a hook, with whatever the build has. */
static void test_widths(void) {
    griffin_jobs jobs;
    memset(&jobs, 0, sizeof jobs);
    const int widths[] = { 0, 1, 2, 3, 4, 5, INT_MAX };     /* so many no machine can make */
    for (int i = 0; i < 7; i++) {
        jobs.width = widths[i];
        answer a = ask(&jobs, 0, widths[i] > 5 ? TOKENS : 7);
        CHECK(is_right(&a), "width %d", widths[i]);
        release(&a);
    }
}

/* ---- one model on many threads -------------------------------------------------------------- */

typedef struct caller { answer a; int chunk; } caller;

static void *call(void *argument) {
    caller *c = (caller *)argument;
    c->a = ask(NULL, 16, c->chunk);
    return NULL;
}

static void test_callers(void) {
    pthread_t thread[6];
    caller c[6];
    for (int i = 0; i < 6; i++) {
        c[i].chunk = i + 1;
        if (pthread_create(&thread[i], NULL, call, &c[i])) abort();
    }
    for (int i = 0; i < 6; i++) {
        pthread_join(thread[i], NULL);
        CHECK(is_right(&c[i].a), "caller %d", i);
        release(&c[i].a);
    }
}

/* ---- states that go from hand to hand: whoever holds one may do all with it ---------------- */

enum { SEATS = 5 };

static struct { griffin_state *state; int at, taken; } seats[SEATS];
static pthread_mutex_t door = PTHREAD_MUTEX_INITIALIZER;

static int take_seat(void) {
    int free_one = -1;
    pthread_mutex_lock(&door);
    for (int i = 0; i < SEATS; i++) if (!seats[i].taken && seats[i].at < TOKENS) free_one = i;
    if (free_one >= 0) seats[free_one].taken = 1;
    pthread_mutex_unlock(&door);
    return free_one;
}

static void leave_seat(int i) {
    pthread_mutex_lock(&door);
    seats[i].at++;
    seats[i].taken = 0;
    pthread_mutex_unlock(&door);
}

/* A token that is taken back, then the right one. Returns how many had the wrong logits. */
static int tend_seat(griffin_context *c, int i, void *mark, float *logits) {
    griffin_state *s = seats[i].state;
    int at = seats[i].at, V = vocabulary(m);
    if (griffin_mark(m, s, mark) || griffin_step(c, s, 999 - tokens[at], NULL)
        || griffin_rewind(m, s, mark) || griffin_step(c, s, tokens[at], logits)) abort();
    return memcmp(logits, alone.logits + at * V, (size_t)V * 4) != 0;
}

static void *tend(void *argument) {
    float *logits = (float *)malloc((size_t)vocabulary(m) * 4);
    size_t size = griffin_context_size(m, NULL);
    void *memory = malloc(size), *mark = malloc(griffin_mark_size(m));
    griffin_context *c;
    int i, *wrong = (int *)argument;
    if (griffin_context_init(&c, m, NULL, memory, size)) abort();
    while ((i = take_seat()) >= 0) {
        *wrong += tend_seat(c, i, mark, logits);
        leave_seat(i);
    }
    free(memory); free(mark); free(logits);
    return NULL;
}

static void test_crowd(void) {
    pthread_t thread[3];
    int wrong[3] = { 0, 0, 0 };
    memset(seats, 0, sizeof seats);
    for (int i = 0; i < SEATS; i++) seats[i].state = new_state(m);
    for (int i = 0; i < 3; i++) if (pthread_create(&thread[i], NULL, tend, &wrong[i])) abort();
    for (int i = 0; i < 3; i++) {
        pthread_join(thread[i], NULL);
        CHECK(wrong[i] == 0, "thread %d: %d wrong", i, wrong[i]);
    }
    for (int i = 0; i < SEATS; i++) {
        CHECK(griffin_state_position(seats[i].state) == TOKENS, "%d", seats[i].at);
        free(seats[i].state);
    }
}

/* Many opening at once, each its own. */
static void *open_and_close(void *argument) {
    const network *n = (const network *)argument;
    griffin_model *own = NULL;
    size_t size;
    unsigned char *file = network_file(n, &size);
    for (int i = 0; i < 5; i++) {
        if (griffin_open_memory(&own, file, size, NULL)) abort();
        griffin_close(own);
    }
    free(file);
    return NULL;
}

static void test_openers(void) {
    griffin_config config = small_config();
    network *n = network_make(&config);
    pthread_t thread[4];
    for (int i = 0; i < 4; i++) if (pthread_create(&thread[i], NULL, open_and_close, n)) abort();
    for (int i = 0; i < 4; i++) CHECK(pthread_join(thread[i], NULL) == 0, "%d", i);
    network_free(n);
}

static void test_blocks(const char *blocks) {
    griffin_config config = wide_config(blocks);
    network *n = network_make(&config);
    m = network_open(n, NULL);
    alone = ask(NULL, 64, TOKENS);
    RUN(test_jobs);
    RUN(test_widths);
    RUN(test_callers);
    RUN(test_crowd);
    release(&alone);
    griffin_close(m);
    network_free(n);
}

int main(void) {
    test_blocks("ra");
    test_blocks("hs");
    RUN(test_openers);
    return test_end();
}
