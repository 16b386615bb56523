/* Promise: in whatever order a host calls the functions, logits and states are those of one token
 * after the other.
 *
 * Dice play the host. It has a few texts, contexts of several shapes, and bookmarks. It does what
 * is allowed: steps, prefills, calls for many texts, jobs in slices that it forgets or disturbs,
 * forks, saves, rewinds, guesses and mistakes. Each state has a plain one beside it, which only
 * griffin_step writes. For a longer look than that of `make test`:
 *
 *     build/tests/test_any_order WORLDS SEED */

#include "model.h"

enum { TEXTS = 5, CONTEXTS = 3, BOOKMARKS = 6, MOST = 150, MANY = 30, V = 19, ROOM = 12, ROWS = 6 };

static char heard[400];

static void hear(int error, const char *text, void *user) {
    (void)error; (void)user;
    snprintf(heard, sizeof heard, "%s", text);
}

/* ---- a world --------------------------------------------------------------------------------- */

typedef struct text {
    griffin_state *state, *plain;           /* the host's; the one that griffin_step alone wrote */
    float   logits[V];                      /* after the last token */
    int32_t tokens[MOST];
    int     count;
    int     oldest;                         /* the first position that a mark can bring it to */
    griffin_guess *guess;                   /* null: it does not guess; else `state` is behind */
    griffin_draft *draft;                   /* of its guesses, by the same model */
    griffin_odds   odds[2];
    char    certain[MOST + 1];              /* was the token at this position a certain guess? */
} text;

typedef struct bookmark {
    void           *mark;
    griffin_state  *plain;
    float   logits[V];
    int32_t tokens[MOST];
    int     count, made;
} bookmark;

/* A job of griffin_begin, or with guesses a pass of griffin_guess_begin. */
typedef struct job {
    int     texts, text[TEXTS], counts[TEXTS], all[TEXTS], at[TEXTS];
    int32_t tokens[TEXTS][MANY];
    float  *logits[TEXTS];                  /* null: not wanted */
    int32_t before[TEXTS][MOST];            /* the texts where it began */
} job;

typedef struct world {
    griffin_model   *m;
    griffin_context *c[CONTEXTS], *plain, *drafts;
    griffin_context_options o[CONTEXTS];
    text     text[TEXTS];
    bookmark bookmark[BOOKMARKS];
    job      job[CONTEXTS];
    int      rewind;
    size_t   size;                          /* of a state */
    void    *copy;                          /* of a state */
} world;

/* The planned token at a position: what a right guess is. */
static int32_t planned(const text *t, int ahead) {
    uint32_t hash = (uint32_t)(t->count + ahead) * 2654435761u;
    return (int32_t)((hash >> 20) % V);
}

static void run_backwards(void (*run)(void *data, int index), void *data, int count, void *user) {
    (void)user;
    while (count-- > 0) run(data, count);
}

static griffin_options some_options(world *w) {
    griffin_options o;
    memset(&o, 0, sizeof o);
    o.logger.message = hear;
    o.cpu = (griffin_cpu)(dice() % (LAST_CPU + 1));
    o.kv_type = dice() % 2 ? GRIFFIN_KV_BF16 : GRIFFIN_KV_F32;
    o.attn_keys = dice() % 2 ? 4 : 0;
    o.rewind = w->rewind = 1 + (int)(dice() % 16);
    return o;
}

static griffin_model *open_with_any(network *n, griffin_options o) {
    griffin_model *m = NULL;
    size_t size;
    free(n->file);
    n->file = network_file(n, &size);
    if (griffin_open_memory(&m, n->file, size, &o)) {      /* not of this processor */
        o.cpu = GRIFFIN_CPU_BEST;
        CHECK(griffin_open_memory(&m, n->file, size, &o) == 0, "%s", heard);
    }
    return m;
}

static void world_begin(world *w, network *n) {
    memset(w, 0, sizeof *w);
    w->m = open_with_any(n, some_options(w));
    w->size = griffin_state_size(w->m);
    w->copy = malloc(w->size);
    w->plain = new_context(w->m, 1, 1);
    w->drafts = new_context(w->m, 5, 1);
    for (int i = 0; i < CONTEXTS; i++) {
        griffin_context_options *o = &w->o[i];
        o->states = 1 + (int)(dice() % TEXTS);
        o->rows = o->states + (int)(dice() % 20);
        o->no_slices = dice() % 4 == 0;
        if (dice() % 2) o->jobs.run = run_backwards;
        if (dice() % 2 && griffin_mark_size(w->m) < w->size / 2) o->guesses = (int)(dice() % 8);
        w->c[i] = new_context_with(w->m, o);
    }
    for (int i = 0; i < TEXTS; i++) {
        w->text[i].state = new_state(w->m);
        w->text[i].plain = new_state(w->m);
    }
    for (int i = 0; i < BOOKMARKS; i++) {
        w->bookmark[i].mark = malloc(griffin_mark_size(w->m));
        w->bookmark[i].plain = new_state(w->m);
    }
}

static void guess_free(text *t) {
    if (!t->guess) return;
    free(t->guess->tokens);
    free(t->guess->logits);
    free(t->guess);
    free(t->draft->state);
    free(t->draft->mark);
    free(t->draft->logits);
    free(t->draft);
    t->guess = NULL;
    t->draft = NULL;
}

static void job_forget(job *j) {
    for (int i = 0; i < j->texts; i++) free(j->logits[i]);
    memset(j, 0, sizeof *j);
}

static void world_end(world *w) {
    for (int i = 0; i < CONTEXTS; i++) { job_forget(&w->job[i]); free(w->c[i]); }
    for (int i = 0; i < TEXTS; i++) {
        guess_free(&w->text[i]);
        free(w->text[i].state);
        free(w->text[i].plain);
    }
    for (int i = 0; i < BOOKMARKS; i++) { free(w->bookmark[i].mark); free(w->bookmark[i].plain); }
    free(w->plain);
    free(w->drafts);
    free(w->copy);
    griffin_close(w->m);
}

/* ---- what must be true ----------------------------------------------------------------------- */

/* The plain way: the text is longer by this token. */
static void plainly(world *w, text *t, int32_t token) {
    CHECK(griffin_step(w->plain, t->plain, token, t->logits) == 0, "%s", heard);
    t->certain[t->count] = 0;
    t->tokens[t->count++] = token;
}

/* As marks and saves of the host must see it. */
static void moved(const world *w, text *t) {
    if (t->oldest < t->count - w->rewind) t->oldest = t->count - w->rewind;
}

static void check_text(world *w, text *t, const char *what) {
    int64_t size = griffin_save(w->m, t->plain, NULL, NULL, NULL, 0);
    unsigned char *a = (unsigned char *)malloc((size_t)size);
    unsigned char *b = (unsigned char *)malloc((size_t)size);
    CHECK(griffin_state_position(t->state) == t->count, "%s: %ld of %d", what,
          (long)griffin_state_position(t->state), t->count);
    CHECK(griffin_save(w->m, t->plain, NULL, NULL, a, (size_t)size) == size
          && griffin_save(w->m, t->state, NULL, NULL, b, (size_t)size) == size
          && memcmp(a, b, (size_t)size) == 0, "%s: another state after %d", what, t->count);
    free(a);
    free(b);
}

/* The plain way for some tokens, and a comparison of the logits that a call gave. */
static void follow(world *w, text *t, const int32_t *tokens, int count, int all,
                   const float *logits, const char *what) {
    for (int i = 0; i < count; i++) {
        plainly(w, t, tokens[i]);
        if (!logits || (!all && i < count - 1)) continue;
        CHECK(memcmp(logits + (all ? i * V : 0), t->logits, sizeof t->logits) == 0,
              "%s: other logits at %d", what, t->count);
    }
    moved(w, t);
    check_text(w, t, what);
}

/* ---- what a host does ------------------------------------------------------------------------ */

static int any(int below) { return (int)(dice() % (uint32_t)below); }

/* A text that does not guess and has room for `count` tokens, or null. */
static text *some_text(world *w, int count) {
    text *t = &w->text[any(TEXTS)];
    return t->guess || t->count + count > MOST ? NULL : t;
}

static void some_tokens(int32_t *tokens, int count) {
    for (int i = 0; i < count; i++) tokens[i] = any(V);
}

static void do_step(world *w) {
    text *t = some_text(w, 1);
    int32_t token = any(V);
    float logits[V];
    int c = any(CONTEXTS), wanted = any(3);
    if (!t) return;
    job_forget(&w->job[c]);
    CHECK(griffin_step(w->c[c], t->state, token, wanted ? logits : NULL) == 0, "%s", heard);
    follow(w, t, &token, 1, 0, wanted ? logits : NULL, "step");
}

static void do_prefill(world *w) {
    int32_t tokens[MANY];
    int count = 1 + any(MANY), c = any(CONTEXTS), wanted = any(3);
    text *t = some_text(w, count);
    float logits[V];
    if (!t) return;
    some_tokens(tokens, count);
    job_forget(&w->job[c]);
    CHECK(griffin_prefill(w->c[c], t->state, tokens, count, wanted ? logits : NULL) == 0, "%s",
          heard);
    follow(w, t, tokens, count, 0, wanted ? logits : NULL, "prefill");
}

/* Some texts with some tokens each; returns how many texts. */
static int some_spans(world *w, job *j, griffin_span *spans, int most) {
    int first = any(TEXTS), wanted = 1 + any(TEXTS);
    memset(j, 0, sizeof *j);
    for (int i = 0; i < TEXTS && j->texts < wanted; i++) {
        int n = j->texts, index = (first + i) % TEXTS;
        text *t = &w->text[index];
        j->counts[n] = 1 + any(most);
        if (t->guess || t->count + j->counts[n] > MOST) continue;
        some_tokens(j->tokens[n], j->counts[n]);
        j->text[n] = index;
        j->at[n] = t->count;
        memcpy(j->before[n], t->tokens, sizeof t->tokens);
        j->all[n] = any(2);
        if (any(3)) j->logits[n] = (float *)malloc((size_t)(MANY * V) * sizeof(float));
        spans[n] = span_of(t->state, j->tokens[n], j->counts[n], j->logits[n]);
        spans[n].all_logits = j->all[n];
        j->texts++;
    }
    return j->texts;
}

static void job_done(world *w, job *j, const char *what) {
    for (int i = 0; i < j->texts; i++)
        follow(w, &w->text[j->text[i]], j->tokens[i], j->counts[i], j->all[i], j->logits[i], what);
    job_forget(j);
}

static void do_run(world *w) {
    griffin_span spans[TEXTS];
    int c = any(CONTEXTS);
    job j;
    if (some_spans(w, &j, spans, MANY)) {
        job_forget(&w->job[c]);
        CHECK(griffin_run(w->c[c], spans, j.texts) == 0, "%s", heard);
    }
    job_done(w, &j, "run");
}

static void do_begin(world *w) {
    griffin_span spans[TEXTS];
    int c = any(CONTEXTS), rows = 0;
    job j;
    if (!some_spans(w, &j, spans, 6)) return;
    for (int i = 0; i < j.texts; i++) rows += j.counts[i];
    int fits = rows <= w->o[c].rows && j.texts <= w->o[c].states && !w->o[c].no_slices;
    int left = griffin_begin(w->c[c], spans, j.texts);
    CHECK(fits ? left > 0 : left == GRIFFIN_E_SPACE, "begin: %d, %s", left, heard);
    if (!fits) { job_forget(&j); return; }         /* and the job before goes on */
    job_forget(&w->job[c]);
    w->job[c] = j;
}

/* Are the texts of a job where they were when it began? */
static int is_undisturbed(const world *w, const job *j) {
    for (int i = 0; i < j->texts; i++) {
        const text *t = &w->text[j->text[i]];
        int position = (int)griffin_state_position(t->state);
        if (position != j->at[i]
            || memcmp(t->tokens, j->before[i], (size_t)position * sizeof *t->tokens) != 0) return 0;
    }
    return 1;
}

static int has_job(const world *w, const text *t) {
    for (int c = 0; c < CONTEXTS; c++)
        for (int i = 0; i < w->job[c].texts; i++)
            if (w->text + w->job[c].text[i] == t) return 1;
    return 0;
}

static void do_advance(world *w) {
    int c = any(CONTEXTS), units = 1 + any(60);
    job *j = &w->job[c];
    if (!j->texts) return;                  /* a pass of guesses may be there */
    int fine = is_undisturbed(w, j), left = griffin_advance(w->c[c], units);
    CHECK(fine ? left >= 0 : left == GRIFFIN_E_MISMATCH, "advance: %d, %s", left, heard);
    if (left < 0) job_forget(j);
    if (left <= 0) CHECK(!griffin_unit_name(w->c[c]), "a job is left");
    if (left == 0) job_done(w, j, "advance");
}

/* ---- texts come and go ---- */

static void do_fresh(world *w) {
    text *t = some_text(w, 0);
    if (!t || t->count < MOST / 2) return;
    memset(t->state, 0, w->size);
    memset(t->plain, 0, w->size);
    t->count = t->oldest = 0;
}

static void do_fork(world *w) {
    text *from = some_text(w, 0), *to = some_text(w, 0);
    if (!from || !to || from == to) return;
    griffin_state *state = to->state, *plain = to->plain;
    *to = *from;
    to->state = state;
    to->plain = plain;
    memcpy(to->state, from->state, w->size);
    memcpy(to->plain, from->plain, w->size);
}

typedef struct source { const unsigned char *at; size_t left; } source;

static int give(void *to, size_t size, void *user) {
    source *from = (source *)user;
    if (size > from->left) size = from->left;
    if (size > 1) size = 1 + dice() % size;
    memcpy(to, from->at, size);
    from->at += size;
    from->left -= size;
    return (int)size;
}

static void do_save(world *w) {
    text *from = some_text(w, 0), *to = some_text(w, 0);
    if (!from || !to) return;
    int64_t size = griffin_save(w->m, from->state, NULL, NULL, NULL, 0);
    unsigned char *data = (unsigned char *)malloc((size_t)size);
    source pieces = { data, (size_t)size };
    CHECK(griffin_save(w->m, from->state, NULL, NULL, data, (size_t)size) == size, "%s", heard);
    data[size / 2] ^= 1;                    /* a damaged one changes nothing */
    CHECK(griffin_load(w->m, to->state, NULL, NULL, data, (size_t)size) < 0, "damaged");
    check_text(w, to, "damaged save");
    data[size / 2] ^= 1;
    int error;
    if (any(2)) error = griffin_load(w->m, to->state, NULL, NULL, data, (size_t)size);
    else {
        memset(to->state, 0, w->size);
        error = griffin_load_pieces(w->m, to->state, NULL, NULL, give, &pieces);
    }
    CHECK(error == 0, "%s", heard);
    free(data);
    if (from != to) {
        memcpy(to->plain, from->plain, w->size);
        memcpy(to->tokens, from->tokens, sizeof to->tokens);
        memcpy(to->logits, from->logits, sizeof to->logits);
        to->count = from->count;
    }
    to->oldest = to->count;
    check_text(w, to, "load");
}

static void do_mark(world *w) {
    text *t = some_text(w, 0);
    bookmark *b = &w->bookmark[any(BOOKMARKS)];
    if (!t) return;
    CHECK(griffin_mark(w->m, t->state, b->mark) == 0, "%s", heard);
    memcpy(b->plain, t->plain, w->size);
    memcpy(b->tokens, t->tokens, sizeof b->tokens);
    memcpy(b->logits, t->logits, sizeof b->logits);
    b->count = t->count;
    b->made = 1;
}

static int is_on_the_way(const text *t, const bookmark *b) {
    return b->made && b->count <= t->count && b->count >= t->oldest
        && memcmp(b->tokens, t->tokens, (size_t)b->count * sizeof *b->tokens) == 0;
}

/* Half of the bookmarks are any, and most of these do not fit. */
static void do_rewind(world *w) {
    text *t = some_text(w, 0);
    int index = any(BOOKMARKS);
    if (!t || !w->bookmark[index].made) return;
    for (int i = any(2) * BOOKMARKS; i > 0 && !is_on_the_way(t, &w->bookmark[index]); i--)
        index = (index + 1) % BOOKMARKS;
    const bookmark *b = &w->bookmark[index];
    int fits = is_on_the_way(t, b);
    int error = griffin_rewind(w->m, t->state, b->mark);
    CHECK(error == (fits ? 0 : GRIFFIN_E_MISMATCH), "rewind from %d, %d to %d: %d", t->count,
          t->oldest, b->count, error);
    if (!error) {
        t->count = b->count;
        memcpy(t->plain, b->plain, w->size);
        memcpy(t->logits, b->logits, sizeof t->logits);
    }
    check_text(w, t, "rewind");
}

/* ---- guesses ---- */

/* Until griffin_guess_finish the state is the guesser's, so no job may be left that writes it. */
static void do_guess(world *w) {
    text *t = some_text(w, 40);
    if (!t || !t->count || has_job(w, t)) return;
    griffin_guess *g = t->guess = (griffin_guess *)calloc(1, sizeof *g);
    g->model = w->m;
    g->state = t->state;
    g->room = 2 + any(ROOM - 1);
    g->rows = 1 + any(ROWS);
    g->row_cost = any(2) ? 0.01f : 0.5f;
    g->tokens = (int32_t *)malloc((size_t)g->room * sizeof(int32_t));
    g->logits = (float *)malloc((size_t)(g->rows * V) * sizeof(float));
    memcpy(g->logits, t->logits, sizeof t->logits);
    griffin_draft *d = t->draft = (griffin_draft *)calloc(1, sizeof *d);
    d->context = w->drafts;
    d->state = new_state(w->m);
    d->mark = malloc(griffin_mark_size(w->m));
    d->logits = new_logits(w->m, 1);
    d->cost = 0.01f;
    d->odds.tried = d->odds.right = 15;
    memcpy(d->state, t->state, w->size);
    t->odds[0].tried = t->odds[0].right = 15;
    memset(t->certain, 0, sizeof t->certain);
    check_text(w, t, "guess");
}

static text *some_guesser(world *w) {
    text *t = &w->text[any(TEXTS)];
    return t->guess ? t : NULL;
}

static void check_guess(text *t, const char *what) {
    static const float zeros[V];
    const float *logits = griffin_guess_logits(t->guess);
    if (!logits) return;
    CHECK(memcmp(logits, t->logits, sizeof t->logits) == 0
          || (t->certain[t->count] && memcmp(logits, zeros, sizeof zeros) == 0),
          "%s: other logits at %d", what, t->count);
}

static void do_take(world *w) {
    text *t = some_guesser(w);
    if (!t || t->count == MOST || (!griffin_guess_logits(t->guess) && any(4))) return;
    griffin_guess before = *t->guess;
    int certain = t->certain[t->count];
    int32_t token = certain || any(5) ? planned(t, 0) : any(V);
    if (!certain && before.guesses && any(2)) token = before.tokens[before.known];
    int taken = griffin_guess_take(t->guess, token);
    if (taken == GRIFFIN_E_SPACE) {
        CHECK(before.known == before.room && !memcmp(&before, t->guess, sizeof before), "no space");
        return;
    }
    CHECK(taken == 0 || taken == 1, "%s", heard);
    CHECK(griffin_draft_take(t->draft, token) == 0, "%s", heard);
    char after = t->certain[t->count + 1];
    plainly(w, t, token);
    CHECK(!taken == !griffin_guess_logits(t->guess), "take: %d", taken);
    t->certain[t->count] = after && taken;
    check_guess(t, "take");
}

/* Guesses what is planned, or now and then something else; some guesses are certain. */
static void do_add(world *w) {
    text *t = some_guesser(w);
    if (!t) return;
    griffin_guess *g = t->guess;
    for (int n = any(6); n >= 0; n--) {
        int at = t->count + g->guesses, certain = any(4) == 0;
        if (griffin_guess_logits(g) || at >= MOST) return;
        int32_t token = certain || any(6) ? planned(t, g->guesses) : any(V);
        int added = griffin_guess_add(g, token, certain ? NULL : &t->odds[any(8) == 0]);
        CHECK(added == 0 || added == 1, "%s", heard);
        if (added && certain) t->certain[at] = 1;
    }
}

/* The draft guesses, more often than it should be asked. */
static void do_draft(world *w) {
    text *t = some_guesser(w);
    griffin_sampler sampler;
    if (!t) return;
    memset(&sampler, 0, sizeof sampler);
    for (int n = any(9); n >= 0; n--) {
        int added = griffin_draft_next(t->draft, t->guess, &sampler);
        CHECK(added == 0 || added == 1, "draft: %d, %s", added, heard);
    }
}

/* One pass for one text or more, at once or in slices. */
static void do_pass(world *w) {
    int c = any(CONTEXTS), wanted = any(2) ? 1 : w->o[c].states, count = 0, known = 0, pass = 0;
    text *texts[TEXTS];
    griffin_guess together[TEXTS];
    for (int i = 0; i < TEXTS && count < wanted; i++) {
        text *t = &w->text[i];
        if (!t->guess || any(3) == 0) continue;
        texts[count] = t;
        together[count++] = *t->guess;
        pass += !griffin_guess_logits(t->guess);
        known += griffin_guess_logits(t->guess) ? 0 : t->guess->known;
    }
    if (!count) return;
    int slices = any(2);
    int result = slices ? griffin_guess_begin(w->c[c], together, count)
                        : griffin_guess_run(w->c[c], together, count);
    for (int i = 0; i < count; i++) *texts[i]->guess = together[i];
    int fits = known <= w->o[c].rows && !(slices && w->o[c].no_slices);
    if (result == GRIFFIN_E_SPACE) CHECK(!fits, "pass: %s", heard);
    else CHECK(slices && pass ? result > 0 : result == 0, "pass: %d, %s", result, heard);
    if (result >= 0 && pass) job_forget(&w->job[c]);
    if (result > 0) result = griffin_advance(w->c[c], any(2) ? 1000 : any(result) + 1);
    for (int i = 0; i < count; i++) {
        if (result == 0) CHECK(griffin_guess_logits(texts[i]->guess) != NULL, "no logits");
        check_guess(texts[i], "pass");
    }
}

static void do_finish(world *w) {
    text *t = some_guesser(w);
    if (!t) return;
    int c = any(CONTEXTS), ran = t->guess->known > 0;
    CHECK(griffin_guess_finish(w->c[c], t->guess) == 0, "%s", heard);
    if (ran && griffin_unit_name(w->c[c]) == NULL) job_forget(&w->job[c]);
    if (!t->certain[t->count])
        CHECK(memcmp(t->guess->logits, t->logits, sizeof t->logits) == 0, "finish: other logits");
    guess_free(t);
    moved(w, t);
    check_text(w, t, "finish");
}

/* Other calls change the state of a text that guesses: an error, and nothing lost. */
static void do_disturb(world *w) {
    text *t = some_guesser(w);
    if (!t || !t->guess->known) return;
    griffin_guess before = *t->guess;
    memcpy(w->copy, t->state, w->size);
    CHECK(griffin_step(w->plain, t->state, (before.tokens[0] + 1) % V, NULL) == 0, "%s", heard);
    CHECK(griffin_guess_finish(w->c[any(CONTEXTS)], t->guess) == GRIFFIN_E_MISMATCH, "disturbed");
    CHECK(memcmp(&before, t->guess, sizeof before) == 0, "a guess has changed");
    memcpy(t->state, w->copy, w->size);
}

/* ---- mistakes: nothing changes ---- */

static void do_mistake(world *w) {
    text *t = some_text(w, 0);
    int32_t bad[2] = { 1, V };
    int c = any(CONTEXTS);
    if (!t) return;
    griffin_span twice[2] = { span_of(t->state, bad, 1, NULL), span_of(t->state, bad, 1, NULL) };
    memcpy(w->copy, t->state, w->size);
    CHECK(griffin_step(w->c[c], t->state, V, NULL) == GRIFFIN_E_ARGUMENT, "token");
    CHECK(griffin_prefill(w->c[c], t->state, bad, 2, NULL) == GRIFFIN_E_ARGUMENT, "token");
    CHECK(griffin_prefill(w->c[c], t->state, bad, 0, NULL) == GRIFFIN_E_ARGUMENT, "none");
    CHECK(griffin_run(w->c[c], twice, 2) == GRIFFIN_E_ARGUMENT, "twice");
    CHECK(griffin_begin(w->c[c], twice, 2) == GRIFFIN_E_ARGUMENT, "twice");
    CHECK(memcmp(w->copy, t->state, w->size) == 0, "a mistake has changed a state");
}

static const struct { void (*act)(world *w); int share; } acts[] = {
    { do_step, 6 }, { do_prefill, 2 }, { do_run, 3 }, { do_begin, 3 }, { do_advance, 12 },
    { do_fresh, 2 }, { do_fork, 2 }, { do_save, 2 }, { do_mark, 8 }, { do_rewind, 6 },
    { do_guess, 4 }, { do_take, 32 }, { do_add, 14 }, { do_draft, 8 }, { do_pass, 16 },
    { do_finish, 1 }, { do_disturb, 1 }, { do_mistake, 1 }
};

static int worlds = 4 * FAMILIES;

static void test_any_order(void) {
    int shares = 0;
    for (int i = 0; i < COUNT(acts); i++) shares += acts[i].share;
    for (int i = 0; i < worlds && !test_failures; i++) {
        network *n = family_make(i % FAMILIES, 1);
        world *w = (world *)malloc(sizeof *w);
        world_begin(w, n);
        for (int k = 0; k < 600 && !test_failures; k++) {
            int act = 0, at = any(shares);
            while (at >= acts[act].share) at -= acts[act++].share;
            acts[act].act(w);
        }
        CHECK(test_failures == 0, "in world %d, %s", i, families[i % FAMILIES].name);
        world_end(w);
        free(w);
        network_free(n);
    }
}

int main(int argc, char **argv) {
    if (argc > 1) worlds = atoi(argv[1]);
    if (argc > 2) dice_state ^= (uint64_t)atoi(argv[2]) << 32;
    RUN(test_any_order);
    return test_end();
}
