/* Promise: a mark, a few kilobytes, takes a state back exactly: what follows has the same bits, and
 * saves the same bytes, as if the state had never gone astray. A mark that cannot do that is
 * refused, and the state left alone. */

#include "model.h"

enum { TEXT = 60, V = 19 };

static char heard[400];

static void hear(int error, const char *text, void *user) {
    (void)error; (void)user;
    snprintf(heard, sizeof heard, "%s", text);
}

/* A model, a text, and what a state that just reads it gives and saves after each token. */
typedef struct scene {
    network         *n;
    griffin_model   *m;
    griffin_context *c;
    int32_t          tokens[TEXT];
    float            logits[TEXT * V];
    unsigned char   *save[TEXT + 1];
    int64_t          save_size[TEXT + 1];
} scene;

static unsigned char *saved(const griffin_model *m, const griffin_state *s, int64_t *size) {
    *size = griffin_save(m, s, NULL, NULL, NULL, 0);
    unsigned char *data = (unsigned char *)malloc((size_t)*size);
    CHECK(griffin_save(m, s, NULL, NULL, data, (size_t)*size) == *size, "%d bytes", (int)*size);
    return data;
}

static scene *scene_new(const char *blocks, int attn_keys, int rewind) {
    scene *w = (scene *)calloc(1, sizeof *w);
    int is_kin = strchr(blocks, 'h') || strchr(blocks, 's');
    griffin_config config = is_kin ? kin_config(blocks) : small_config();
    griffin_options options;
    strcpy(config.blocks, blocks);
    memset(&options, 0, sizeof options);
    options.attn_keys = attn_keys;
    options.rewind = rewind;
    options.logger.message = hear;
    w->n = network_make(&config);
    w->m = network_open(w->n, &options);
    w->c = new_context(w->m, 40, 1);
    griffin_state *s = new_state(w->m);
    for (int i = 0; i < TEXT; i++) w->tokens[i] = (int32_t)(dice() % V);
    for (int i = 0; i <= TEXT; i++) {
        w->save[i] = saved(w->m, s, &w->save_size[i]);
        if (i < TEXT) run_chunks(w->m, w->c, s, w->tokens + i, 1, 0, w->logits + i * V);
    }
    free(s);
    return w;
}

static void scene_free(scene *w) {
    for (int i = 0; i <= TEXT; i++) free(w->save[i]);
    free(w->c);
    griffin_close(w->m);
    network_free(w->n);
    free(w);
}

static void *new_mark(const scene *w, const griffin_state *s) {
    void *mark = malloc(griffin_mark_size(w->m));       /* exactly, for the address sanitizer */
    CHECK(griffin_mark(w->m, s, mark) == GRIFFIN_OK, "%s", heard);
    return mark;
}

static void check_rewind(const scene *w, griffin_state *s, const void *mark) {
    CHECK(griffin_rewind(w->m, s, mark) == GRIFFIN_OK, "%s", heard);
}

static void load(const scene *w, griffin_state *s, int at) {
    int error = griffin_load(w->m, s, NULL, NULL, w->save[at], (size_t)w->save_size[at]);
    CHECK(error == GRIFFIN_OK, "%s", heard);
}

/* Reads on in the text, in calls of at most `chunk`; it must be as if nothing had happened. */
static void read_on(const scene *w, griffin_state *s, int count, int chunk) {
    int from = (int)griffin_state_position(s);
    float logits[TEXT * V];
    int64_t size;
    if (count > TEXT - from) count = TEXT - from;
    run_chunks(w->m, w->c, s, w->tokens + from, count, chunk, logits);
    int wrong = first_difference(logits, w->logits + from * V, count, V);
    CHECK(wrong < 0, "%s, from %d: token %d", w->n->config.blocks, from, wrong);
    unsigned char *save = saved(w->m, s, &size);
    CHECK(size == w->save_size[from + count] && !memcmp(save, w->save[from + count], (size_t)size),
          "%s: saved after %d", w->n->config.blocks, from + count);
    free(save);
}

/* Tokens that are not in the text. */
static void go_astray(const scene *w, griffin_state *s, int count, int chunk) {
    int32_t tokens[TEXT];
    int at = (int)griffin_state_position(s);
    for (int i = 0; i < count; i++)
        tokens[i] = (at + i < TEXT ? w->tokens[at + i] + 1 + (int32_t)(dice() % (V - 1)) : 0) % V;
    run_chunks(w->m, w->c, s, tokens, count, chunk, NULL);
}

/* ---- exactly -------------------------------------------------------------------------------- */

static int up_to(int most) { return 1 + (int)(dice() % (unsigned)most); }

static void check_walks(const char *blocks, int attn_keys, int rewind) {
    scene *w = scene_new(blocks, attn_keys, rewind);
    griffin_state *s = new_state(w->m);
    int most = griffin_get_info(w->m)->rewind;
    CHECK(most == (rewind ? rewind : 16), "%d", most);
    for (int walk = 0; walk < 12; walk++) {
        memset(s, 0, griffin_state_size(w->m));
        while (griffin_state_position(s) < TEXT - most) {
            int away = up_to(most), chunk = (int)(dice() % 3) * up_to(most);
            void *mark = new_mark(w, s);
            if (dice() % 3) go_astray(w, s, away, chunk);   /* else the right tokens, too early */
            else run_chunks(w->m, w->c, s, w->tokens + griffin_state_position(s), away, chunk, NULL);
            check_rewind(w, s, mark);
            read_on(w, s, dice() % 4 ? up_to(6) : up_to(30), (int)(dice() % 3) * up_to(9));
            free(mark);
        }
    }
    free(s);
    scene_free(w);
}

/* The window of these models is 4, so rings of 5 to 70 slots go round, and calls are longer than a
 * window or than a ring. */
static void test_griffin(void) {
    check_walks("rrar", 0, 0);
    check_walks("rrar", 0, 1);
    check_walks("rrar", 0, 3);
    check_walks("rrar", 0, 29);
}
static void test_hawk(void) { check_walks("rrrr", 0, 0); check_walks("rrrr", 0, 1); }
static void test_attention(void) { check_walks("aaaa", 0, 7); check_walks("aaaa", 1, 2); }
static void test_kin(void) {
    check_walks("hhh", 0, 0);
    check_walks("sss", 0, 1);
    check_walks("hars", 0, 29);
}

/* Without attention no row is ever lost: going back thousands of tokens costs 8 bytes for each. */
static void test_far_back(void) {
    enum { BACK = 3000 };
    scene *w = scene_new("hs", 0, BACK), *usual = scene_new("hs", 0, 0);
    griffin_state *s = new_state(w->m);
    CHECK(griffin_state_size(w->m) - griffin_state_size(usual->m) == 8 * (BACK - 16), "%d bytes",
          (int)griffin_state_size(w->m));
    CHECK(griffin_mark_size(w->m) == 64 + 4 * 2 * 3 * 16 * 32, "%d", (int)griffin_mark_size(w->m));
    read_on(w, s, 20, 0);
    void *mark = new_mark(w, s);
    while (griffin_state_position(s) < 20 + BACK) go_astray(w, s, 40, 40);
    check_rewind(w, s, mark);
    read_on(w, s, 30, 7);
    free(mark); free(s);
    scene_free(w); scene_free(usual);
}

/* A mark for each of the last tokens, used in any order from there back. */
static void test_many_marks(void) {
    scene *w = scene_new("rrar", 0, 0);
    griffin_state *s = new_state(w->m);
    void *mark[TEXT];
    for (int i = 0; i < 40; i++) { mark[i] = new_mark(w, s); read_on(w, s, 1, 0); }
    for (int at = 39; at >= 24; at -= up_to(3)) {
        check_rewind(w, s, mark[at]);
        CHECK(griffin_state_position(s) == at, "%d", (int)griffin_state_position(s));
        check_rewind(w, s, mark[at]);
    }
    CHECK(griffin_rewind(w->m, s, mark[23]) == GRIFFIN_E_MISMATCH, "one before the oldest");
    read_on(w, s, 30, 0);
    for (int i = 0; i < 40; i++) free(mark[i]);
    free(s);
    scene_free(w);
}

/* A mark serves every state with the same past, such as forks, and those loaded before it. */
static void test_forks(void) {
    scene *w = scene_new("rrar", 0, 0);
    griffin_state *s = new_state(w->m), *fork = new_state(w->m);
    load(w, s, 20);
    memcpy(fork, s, griffin_state_size(w->m));
    void *mark = new_mark(w, fork);
    go_astray(w, s, 16, 5);
    go_astray(w, fork, 9, 2);
    check_rewind(w, s, mark);
    check_rewind(w, fork, mark);
    read_on(w, s, 20, 3);
    read_on(w, fork, 20, 7);
    free(mark); free(fork); free(s);
    scene_free(w);
}

static void test_far_out(void) {            /* where positions no longer fit 32 bits */
    scene *w = scene_new("rrar", 0, 5);
    griffin_state *s = new_state(w->m);
    unsigned char *data = w->save[20];
    size_t size = (size_t)w->save_size[20];
    float once[12 * V], again[12 * V];
    set_u64(data + 24, ((uint64_t)1 << 61) + 3);
    set_u64(data + size - 8, checksum(data, size - 8));
    load(w, s, 20);
    run_chunks(w->m, w->c, s, w->tokens, 4, 1, NULL);
    void *mark = new_mark(w, s);
    run_chunks(w->m, w->c, s, w->tokens, 5, 2, once);
    check_rewind(w, s, mark);
    run_chunks(w->m, w->c, s, w->tokens, 5, 0, again);
    CHECK(first_difference(once, again, 5, V) < 0, "logits");
    free(mark); free(s);
    scene_free(w);
}

/* To before the first token: the state is as fresh as one of zeros, and fits any model again. */
static void test_to_the_start(void) {
    scene *w = scene_new("rrar", 0, 0), *other = scene_new("rrar", 3, 0);
    griffin_state *s = new_state(w->m);
    void *mark = new_mark(w, s);
    int64_t size;
    go_astray(w, s, 16, 0);
    check_rewind(w, s, mark);
    unsigned char *data = saved(w->m, s, &size);
    CHECK(size == w->save_size[0] && memcmp(data, w->save[0], (size_t)size) == 0, "fresh");
    CHECK(griffin_load(other->m, s, NULL, NULL, data, (size_t)size) == GRIFFIN_OK, "%s", heard);
    read_on(other, s, TEXT, 13);
    free(data); free(mark); free(s);
    scene_free(w); scene_free(other);
}

/* ---- refused -------------------------------------------------------------------------------- */

static void check_refused(const scene *w, griffin_state *s, const void *mark, const char *why) {
    size_t size = griffin_state_size(w->m);
    void *before = memcpy(malloc(size), s, size);
    heard[0] = 0;
    CHECK(griffin_rewind(w->m, s, mark) == GRIFFIN_E_MISMATCH && strstr(heard, why),
          "'%s' without '%s'", heard, why);
    CHECK(memcmp(s, before, size) == 0, "%s: the state was changed", why);
    free(before);
}

static void test_refusals(void) {
    scene *w = scene_new("rrar", 0, 4), *keys = scene_new("rrar", 3, 4),
          *more = scene_new("rrar", 0, 5);
    griffin_state *s = new_state(w->m), *t = new_state(w->m);
    griffin_state *k = new_state(keys->m), *r = new_state(more->m);
    void *later;
    read_on(w, s, 10, 0);
    void *mark = new_mark(w, s);
    go_astray(w, t, 10, 0);
    check_refused(w, t, mark, "another text");          /* at the very position, */
    go_astray(w, t, 3, 0);
    check_refused(w, t, mark, "another text");          /* and later */
    read_on(w, s, 4, 0);
    later = new_mark(w, s);
    check_rewind(w, s, mark);
    check_refused(w, s, later, "has not been there");
    go_astray(w, s, 4, 0);
    check_refused(w, s, later, "another text");
    memset(s, 0, griffin_state_size(w->m));
    read_on(w, s, 15, 0);
    check_refused(w, s, mark, "too long ago");
    check_rewind(w, s, later);
    check_refused(w, s, mark, "too long ago");          /* going back makes nobody younger */
    load(w, s, 12);
    check_refused(w, s, mark, "too long ago");
    memset(s, 0, griffin_state_size(w->m));
    check_refused(w, s, mark, "has not been there");

    read_on(keys, k, 10, 0);
    void *foreign = new_mark(keys, k);
    read_on(w, s, 10, 0);
    check_refused(w, s, foreign, "another model");
    free(foreign);
    read_on(more, r, 10, 0);
    foreign = new_mark(more, r);
    check_refused(w, s, foreign, "other options");
    memset(foreign, 0xff, griffin_mark_size(more->m));
    check_refused(w, s, foreign, "another model");
    CHECK(griffin_rewind(w->m, k, mark) == GRIFFIN_E_MISMATCH, "a state of another model");
    CHECK(griffin_mark(w->m, k, foreign) == GRIFFIN_E_MISMATCH, "a state of another model");
    read_on(w, s, 20, 0);
    free(foreign); free(mark); free(later);
    free(s); free(t); free(k); free(r);
    scene_free(w); scene_free(keys); scene_free(more);
}

static void test_arguments(void) {
    scene *w = scene_new("rrar", 0, 0);
    griffin_state *s = new_state(w->m);
    void *mark = new_mark(w, s);
    griffin_options options;
    griffin_model *m;
    CHECK(griffin_mark_size(NULL) == 0, "no model");
    CHECK(griffin_mark(NULL, s, mark) == GRIFFIN_E_ARGUMENT
          && griffin_rewind(NULL, s, mark) == GRIFFIN_E_ARGUMENT, "no model");
    CHECK(griffin_mark(w->m, NULL, mark) == GRIFFIN_E_ARGUMENT
          && griffin_rewind(w->m, NULL, mark) == GRIFFIN_E_ARGUMENT, "no state");
    CHECK(griffin_mark(w->m, s, NULL) == GRIFFIN_E_ARGUMENT
          && griffin_rewind(w->m, s, NULL) == GRIFFIN_E_ARGUMENT, "no mark");
    memset(&options, 0, sizeof options);
    options.logger.message = hear;
    for (options.rewind = -1; options.rewind < 1 << 21; options.rewind += (1 << 20) + 2) {
        CHECK(griffin_open_memory(&m, "", 0, &options) == GRIFFIN_E_ARGUMENT, "%d",
              options.rewind);
        CHECK(strstr(heard, "rewind is") != NULL, "%s", heard);
    }
    free(mark); free(s);
    scene_free(w);
}

/* A job whose state is rewound under it ends; the state stays where it was put. */
static void test_in_flight(void) {
    scene *w = scene_new("rrar", 0, 0);
    griffin_state *s = new_state(w->m);
    read_on(w, s, 8, 0);
    void *mark = new_mark(w, s);
    read_on(w, s, 3, 0);
    griffin_span span = span_of(s, w->tokens, 5, NULL);
    CHECK(griffin_begin(w->c, &span, 1) > 1 && griffin_advance(w->c, 1) > 0, "%s", heard);
    check_rewind(w, s, mark);
    CHECK(griffin_advance(w->c, 1000) == GRIFFIN_E_MISMATCH, "%s", heard);
    read_on(w, s, 30, 4);
    free(mark); free(s);
    scene_free(w);
}

/* ---- sizes ---------------------------------------------------------------------------------- */

static void test_sizes(void) {
    scene *w = scene_new("rrar", 0, 0), *more = scene_new("rrar", 0, 20);
    const griffin_info *i = griffin_get_info(w->m), *k = griffin_get_info(more->m);
    CHECK(i->mark_bytes == griffin_mark_size(w->m) && i->state_bytes == griffin_state_size(w->m),
          "%d and %d", (int)i->mark_bytes, (int)i->state_bytes);
    CHECK(i->mark_bytes == 64 + 3 * 4 * 64 * 4, "%d", (int)i->mark_bytes);
    CHECK(k->mark_bytes == i->mark_bytes, "%d", (int)k->mark_bytes);
    CHECK(k->state_bytes - i->state_bytes == 4 * (2 * 16 * 4 + 8), "%d",
          (int)(k->state_bytes - i->state_bytes));
    scene_free(w); scene_free(more);
}

int main(void) {
    RUN(test_griffin);
    RUN(test_hawk);
    RUN(test_attention);
    RUN(test_kin);
    RUN(test_far_back);
    RUN(test_many_marks);
    RUN(test_forks);
    RUN(test_far_out);
    RUN(test_to_the_start);
    RUN(test_refusals);
    RUN(test_arguments);
    RUN(test_in_flight);
    RUN(test_sizes);
    return test_end();
}
