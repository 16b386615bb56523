/* job_system.c - a small thread pool behind griffin_jobs, as a game engine has one already.
 *
 *     cc -O2 -pthread examples/job_system.c -lm -o job_system
 *     ./job_system examples/models/storyteller.gguf
 *
 * Whoever waits spins for some microseconds, because the next call comes soon, and then sleeps,
 * because it may not. The caller waits for pieces, not for threads: one that wakes too late is
 * missed by nobody. Reads a text with the pool and without it: same bits. */

#define GRIFFIN_IMPLEMENTATION
#include "../griffin.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 4, SPINS = 4000 };           /* threads, the caller being one; looks before sleep */

/* The ticket is the number of the call and, in its lower half, how many pieces nobody has taken.
 * One that was read in an earlier call can therefore never be exchanged for a piece of this one. */
typedef struct pool {
    pthread_t       threads[WIDTH];         /* the first is unused: the caller */
    pthread_mutex_t lock;
    pthread_cond_t  changed;
    void          (*job)(void *data, int index);
    void           *data;
    uint64_t        ticket;
    int             unfinished;             /* pieces that have not returned */
    int             stop;
    long            calls, pieces;          /* for the report */
} pool;

#define LOAD(x)     __atomic_load_n(&(x), __ATOMIC_ACQUIRE)
#define STORE(x, v) __atomic_store_n(&(x), v, __ATOMIC_RELEASE)

static int work_or_stop(pool *p) { return (uint32_t)LOAD(p->ticket) > 0 || LOAD(p->stop); }
static int all_finished(pool *p) { return LOAD(p->unfinished) == 0; }

static void wait_until(pool *p, int (*ready)(pool *)) {
    for (int i = 0; i < SPINS; i++) if (ready(p)) return;
    pthread_mutex_lock(&p->lock);
    while (!ready(p)) pthread_cond_wait(&p->changed, &p->lock);
    pthread_mutex_unlock(&p->lock);
}

static void wake_all(pool *p) {
    pthread_mutex_lock(&p->lock);           /* nobody is between looking and sleeping now */
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
}

static void take_pieces(pool *p) {
    uint64_t ticket = LOAD(p->ticket);
    while ((uint32_t)ticket > 0) {
        void (*job)(void *, int) = LOAD(p->job);
        void *data = LOAD(p->data);
        if (!__atomic_compare_exchange_n(&p->ticket, &ticket, ticket - 1, 0, __ATOMIC_ACQ_REL,
                                         __ATOMIC_ACQUIRE)) continue;
        job(data, (int)(uint32_t)ticket - 1);
        if (__atomic_sub_fetch(&p->unfinished, 1, __ATOMIC_ACQ_REL) == 0) wake_all(p);
        ticket = LOAD(p->ticket);
    }
}

static void *worker(void *user) {
    pool *p = user;
    while (!LOAD(p->stop)) {
        wait_until(p, work_or_stop);
        take_pieces(p);
    }
    return NULL;
}

/* The hook itself. */
static void run_jobs(void (*job)(void *data, int index), void *data, int count, void *user) {
    pool *p = user;
    p->calls++;
    p->pieces += count;
    STORE(p->job, job);
    STORE(p->data, data);
    STORE(p->unfinished, count);
    STORE(p->ticket, ((LOAD(p->ticket) >> 32) + 1) << 32 | (uint32_t)count);
    wake_all(p);
    take_pieces(p);
    wait_until(p, all_finished);
}

static void start(pool *p) {
    memset(p, 0, sizeof *p);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->changed, NULL);
    for (int i = 1; i < WIDTH; i++)
        if (pthread_create(&p->threads[i], NULL, worker, p)) exit(1);
}

static void stop(pool *p) {
    STORE(p->stop, 1);
    wake_all(p);
    for (int i = 1; i < WIDTH; i++) pthread_join(p->threads[i], NULL);
    pthread_cond_destroy(&p->changed);
    pthread_mutex_destroy(&p->lock);
}

static const char text[] =
    "There was once a poor woodcutter who lived with his wife and three daughters in a little hut "
    "on the edge of a lonely forest. One morning as he was about to go to his work, he said to his "
    "wife, \"Let our eldest daughter bring me my dinner into the forest, or I shall never get my "
    "work done, and so that she may not miss her way, I will take a bag of millet with me.\"";

/* Reads the text and returns the logits after it; free them. */
static float *read_text(const griffin_model *model, const griffin_jobs *jobs) {
    griffin_context_options options = { .jobs = *jobs };
    griffin_context *context;
    size_t size = griffin_context_size(model, &options);
    void *memory = malloc(size), *state = calloc(1, griffin_state_size(model));
    float *logits = malloc((size_t)griffin_get_info(model)->config.vocab * sizeof(float));
    int32_t tokens[256];
    int count = griffin_encode(model, NULL, text, strlen(text), tokens, 256);
    if (!state || !logits || count > 256
        || griffin_context_init(&context, model, &options, memory, size) < 0
        || griffin_prefill(context, state, tokens, count, logits) < 0) exit(1);
    free(memory); free(state);
    return logits;
}

int main(int argc, char **argv) {
    const char *path = argc > 1 ? argv[1] : "examples/models/storyteller.gguf";
    griffin_model *model;
    pool p;
    int error = griffin_open_file(&model, path, NULL);
    if (error) { fprintf(stderr, "%s: %s\n", path, griffin_error_string(error)); return 1; }

    start(&p);
    float *alone  = read_text(model, &(griffin_jobs){ .width = 1 });
    float *shared = read_text(model, &(griffin_jobs){ run_jobs, &p, WIDTH });
    stop(&p);

    int same = memcmp(alone, shared, (size_t)griffin_get_info(model)->config.vocab * 4) == 0;
    printf("%ld pieces in %ld calls on %d threads: %s\n", p.pieces, p.calls, WIDTH,
           same ? "the same bits as on one" : "DIFFERENT from one");
    free(alone); free(shared);
    griffin_close(model);
    return !same;
}
