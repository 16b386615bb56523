/* Promise: a state is plain bytes. memcpy forks and restores it at any moment; a saved one comes
 * back exactly, or is refused with the right error and nothing changed; a job that is dropped, or
 * whose state was changed under it, leaves no trace. */

#include "model.h"

enum { MOST = 60, SAVE_BYTES = 40000 };

static int family;                          /* of families: every test is run for each */

/* A model with a short window, and a text for it. */
typedef struct scene {
    network         *n;
    griffin_model   *m;
    griffin_context *c;
    griffin_state   *s;
    size_t           size;
    int              V;
    int32_t          tokens[MOST];
    float            logits[MOST * 19];     /* after each of them, from the start */
} scene;

static scene *scene_new(int attn_keys, float scale) {
    scene *w = (scene *)calloc(1, sizeof *w);
    griffin_options options;
    memset(&options, 0, sizeof options);
    options.attn_keys = attn_keys;
    w->n = family_make(family, scale);
    w->m = network_open(w->n, &options);
    w->c = new_context(w->m, 16, 2);
    w->s = new_state(w->m);
    w->size = griffin_state_size(w->m);
    w->V = w->n->config.vocab;
    for (int i = 0; i < MOST; i++) w->tokens[i] = (int32_t)(dice() % 19);
    run_chunks(w->m, w->c, w->s, w->tokens, MOST, 0, w->logits);
    memset(w->s, 0, w->size);
    return w;
}

static void scene_free(scene *w) {
    free(w->c); free(w->s);
    griffin_close(w->m);
    network_free(w->n);
    free(w);
}

/* Tokens [from, to) continue w->s; the logits must be those of the whole text. */
static void check_continues(scene *w, griffin_state *s, int from, int to) {
    float logits[MOST * 19];
    CHECK(griffin_state_position(s) == from, "%d", (int)griffin_state_position(s));
    run_chunks(w->m, w->c, s, w->tokens + from, to - from, 1 + (int)(dice() % 5), logits);
    int wrong = first_difference(logits, w->logits + from * w->V, to - from, w->V);
    CHECK(wrong < 0, "from %d: token %d", from, wrong);
}

static void *copy_of(const void *data, size_t size) { return memcpy(malloc(size), data, size); }

/* ---- memcpy --------------------------------------------------------------------------------- */

static void test_forks(void) {
    scene *w = scene_new(0, 1);
    griffin_state *forks[8];
    int at[8];
    for (int i = 0; i < 8; i++) { forks[i] = new_state(w->m); at[i] = 0; }
    for (int round = 0; round < 200; round++) {
        int from = (int)(dice() % 8), to = (int)(dice() % 8), end = at[from] + (int)(dice() % 12);
        if (end > MOST) end = MOST;
        if (end > at[from]) check_continues(w, forks[from], at[from], end);
        at[from] = end;
        memcpy(forks[to], forks[from], w->size);
        at[to] = at[from];
        if (dice() % 16 == 0 || end == MOST) { memset(forks[from], 0, w->size); at[from] = 0; }
    }
    for (int i = 0; i < 8; i++) free(forks[i]);
    scene_free(w);
}

/* The same tokens make the same bytes, however they came. */
static void test_bytes(void) {
    scene *w = scene_new(0, 1);
    griffin_state *other = new_state(w->m);
    for (int n = 1; n <= 20; n++) {
        memset(w->s, 0, w->size);
        memset(other, 0, w->size);
        run_chunks(w->m, w->c, w->s, w->tokens, n, 0, NULL);
        run_chunks(w->m, w->c, other, w->tokens, n, 1, NULL);
        CHECK(same_states(w->m, w->s, other), "%d tokens", n);
    }
    free(other);
    scene_free(w);
}

/* ---- save and load -------------------------------------------------------------------------- */

static griffin_sampler some_sampler(void) {
    griffin_sampler s;
    memset(&s, 0, sizeof s);
    s.seed = 0x123456789abcdefu;
    s.temperature = 1.5f; s.top_p = 0.9f; s.min_p = 0.01f; s.top_k = 12;
    s.repeat_penalty = 1.25f; s.repeat_last = 20;
    for (int i = 0; i < 70; i++) griffin_accept(&s, i * 7 % 19);
    return s;
}

static griffin_decoder some_decoder(void) { /* in the middle of a character */
    griffin_decoder d = { { 0xe2, 0x82, 0, 0 }, 2, 1, 1, 0 };
    return d;
}

static unsigned char *saved(const scene *w, const griffin_state *s, size_t *size) {
    int64_t needed = griffin_save(w->m, s, NULL, NULL, NULL, 0);
    unsigned char *data = (unsigned char *)malloc((size_t)needed);
    CHECK(griffin_save(w->m, s, NULL, NULL, data, (size_t)needed - 1) == GRIFFIN_E_SPACE,
          "one byte too few");
    CHECK(griffin_save(w->m, s, NULL, NULL, data, (size_t)needed) == needed, "%d bytes",
          (int)needed);
    *size = (size_t)needed;
    return data;
}

static void test_round_trips(void) {
    scene *w = scene_new(0, 1);
    griffin_state *back = new_state(w->m);
    size_t size, before = 0;
    for (int n = 0; n < 14; n++) {
        size_t size_again;
        memset(w->s, 0, w->size);
        if (n) run_chunks(w->m, w->c, w->s, w->tokens, n, 0, NULL);
        unsigned char *data = saved(w, w->s, &size);
        CHECK(size >= before, "%lu bytes for %d tokens", (unsigned long)size, n);
        before = size;
        memset(back, 0xee, w->size);
        CHECK(griffin_load(w->m, back, NULL, NULL, data, size) == GRIFFIN_OK, "%d tokens", n);
        unsigned char *again = saved(w, back, &size_again);
        CHECK(size_again == size && memcmp(again, data, size) == 0, "%d tokens", n);
        check_continues(w, back, n, n + 20);
        free(data); free(again);
    }
    free(back);
    scene_free(w);
}

/* Options of attention make no difference where there is none. */
static int has_attention(void) { return strchr(families[family].blocks, 'a') != NULL; }

static void check_refused(const scene *w, const void *data, size_t size, int error,
                          const char *what) {
    griffin_state *s = (griffin_state *)malloc(w->size);
    size_t changed = 0;
    memset(s, 0x77, w->size);
    CHECK(griffin_load(w->m, s, NULL, NULL, data, size) == error, "%s: %d, expected %d", what,
          griffin_load(w->m, s, NULL, NULL, data, size), error);
    for (size_t i = 0; i < w->size; i++) changed += ((unsigned char *)s)[i] != 0x77;
    CHECK(changed == 0, "%s: %lu bytes written", what, (unsigned long)changed);
    free(s);
}

static void seal(unsigned char *data, size_t size) {
    set_u64(data + size - 8, checksum(data, size - 8));
}

/* Bytes that are whole, but say something else than they should. */
static void check_sealed(const scene *w, const unsigned char *good, size_t size, int at,
                         uint64_t value, int error, const char *what) {
    unsigned char *data = (unsigned char *)copy_of(good, size);
    if (at < 16) set_u32(data + at, (uint32_t)value);
    else set_u64(data + at, value);
    seal(data, size);
    check_refused(w, data, size, error, what);
    free(data);
}

static void test_refusals(void) {
    scene *w = scene_new(0, 1), *foreign = scene_new(0, 2), *narrow = scene_new(4, 1);
    size_t size, step = family ? 211 : 1;
    run_chunks(w->m, w->c, w->s, w->tokens, 3, 0, NULL);
    unsigned char *data = saved(w, w->s, &size);
    for (size_t cut = 0; cut < size; cut += step) {
        void *exact = copy_of(data, cut);   /* so that a sanitizer sees reads past the end */
        check_refused(w, exact, cut, GRIFFIN_E_FORMAT, "truncated");
        free(exact);
    }
    for (size_t cut = 0; cut < size; cut += step) {
        int where = cut >= 8 && cut < 12 ? GRIFFIN_E_VERSION : GRIFFIN_E_FORMAT;
        data[cut] ^= (unsigned char)(1 << cut % 8);
        check_refused(w, data, size, where, "flipped");
        data[cut] ^= (unsigned char)(1 << cut % 8);
    }
    check_refused(foreign, data, size, GRIFFIN_E_MISMATCH, "foreign model");
    if (has_attention()) check_refused(narrow, data, size, GRIFFIN_E_MISMATCH, "other attn_keys");
    else CHECK(griffin_load(narrow->m, narrow->s, NULL, NULL, data, size) == GRIFFIN_OK, "keys");
    check_sealed(w, data, size, 8, 1, GRIFFIN_E_VERSION, "version 1");
    check_sealed(w, data, size, 8, 2, GRIFFIN_E_VERSION, "version 2, of griffin.h 0.1");
    check_sealed(w, data, size, 8, 4, GRIFFIN_E_VERSION, "newer version");
    check_sealed(w, data, size, 12, 1, GRIFFIN_E_FORMAT, "a sampler that is not there");
    check_sealed(w, data, size, 12, 4, GRIFFIN_E_FORMAT, "an unknown part");
    check_sealed(w, data, size, 16, 12345, GRIFFIN_E_MISMATCH, "tag");
    check_sealed(w, data, size, 16, 0, GRIFFIN_E_FORMAT, "no tag");
    check_sealed(w, data, size, 24, 0, GRIFFIN_E_FORMAT, "position 0");
    if (has_attention())                    /* one more row of keys and values */
        check_sealed(w, data, size, 24, 4, GRIFFIN_E_FORMAT, "position 4");
    check_sealed(w, data, size, 24, UINT64_MAX, GRIFFIN_E_FORMAT, "position -1");
    check_sealed(w, data, size, 24, INT64_MAX, GRIFFIN_E_FORMAT, "position without successor");
    check_sealed(w, data, size, 40, UINT64_MAX / 4, GRIFFIN_E_FORMAT, "number of bytes");
    memset(w->s, 0, w->size);
    unsigned char *fresh = saved(w, w->s, &size);
    check_sealed(w, fresh, size, 24, 1, GRIFFIN_E_FORMAT, "fresh, at 1");
    CHECK(griffin_load(foreign->m, foreign->s, NULL, NULL, fresh, size) == GRIFFIN_OK,
          "a fresh state fits all");
    free(data); free(fresh);
    scene_free(w); scene_free(foreign); scene_free(narrow);
}

/* Everything that decides what comes next: whatever token a run was saved before, the rest of it is
 * said again after loading. */
static void test_resumes(void) {
    enum { SAID = 30 };
    static unsigned char data[SAID][SAVE_BYTES];
    scene *w = scene_new(0, 1);
    griffin_sampler sampler = some_sampler();
    griffin_decoder decoder = some_decoder(), d;
    int32_t said[SAID + 1];
    int64_t size[SAID];
    float logits[19];
    run_chunks(w->m, w->c, w->s, w->tokens, 7, 0, NULL);
    said[0] = 1;
    for (int i = 0; i < SAID; i++) {
        decoder.held[1] = (unsigned char)i;
        size[i] = griffin_save(w->m, w->s, &sampler, &decoder, data[i], sizeof data[i]);
        CHECK(griffin_step(w->c, w->s, said[i], logits) == GRIFFIN_OK, "step");
        said[i + 1] = griffin_sample(w->m, &sampler, logits);
    }
    for (int i = 0; i < SAID; i++) {
        CHECK(griffin_load(w->m, w->s, &sampler, &d, data[i], (size_t)size[i]) == 0, "load");
        decoder.held[1] = (unsigned char)i;
        CHECK(memcmp(&d, &decoder, sizeof d) == 0, "the decoder before %d", i);
        for (int k = i; k < SAID; k++) {
            CHECK(griffin_step(w->c, w->s, said[k], logits) == GRIFFIN_OK, "step");
            CHECK(griffin_sample(w->m, &sampler, logits) == said[k + 1], "%d from %d", k, i);
        }
    }
    scene_free(w);
}

/* A sampler or decoder that was not saved cannot be loaded; one that is not wanted is no harm. */
static void test_parts(void) {
    scene *w = scene_new(0, 1);
    griffin_state *back = new_state(w->m), *zero = new_state(w->m);
    griffin_sampler sampler = some_sampler(), s;
    griffin_decoder decoder = some_decoder(), d;
    static unsigned char data[SAVE_BYTES];
    int right;
    run_chunks(w->m, w->c, w->s, w->tokens, 9, 0, NULL);
    for (int parts = 0; parts < 4; parts++)
        for (int wanted = 0; wanted < 4; wanted++) {
            int64_t size = griffin_save(w->m, w->s, parts & 1 ? &sampler : NULL,
                                        parts & 2 ? &decoder : NULL, data, sizeof data);
            int error;
            memset(back, 0, w->size);
            memset(&s, 0, sizeof s);
            memset(&d, 0, sizeof d);
            error = griffin_load(w->m, back, wanted & 1 ? &s : NULL, wanted & 2 ? &d : NULL, data,
                                 (size_t)size);
            if (wanted & ~parts) {
                right = error == GRIFFIN_E_MISMATCH && same_states(w->m, back, zero)
                     && s.accepted == 0 && d.count == 0;
            } else {
                right = error == GRIFFIN_OK && griffin_state_position(back) == 9
                     && s.accepted == (wanted & 1 ? sampler.accepted : 0)
                     && d.held[1] == (wanted & 2 ? decoder.held[1] : 0);
            }
            CHECK(right, "saved %d, wanted %d: %d", parts, wanted, error);
        }
    free(back); free(zero);
    scene_free(w);
}

/* The state has these floats one after the other, somewhere. */
static int holds_floats(const scene *w, const unsigned char *saved, int count) {
    float floats[3 * 4 * 64];
    int found = 0;
    for (int i = 0; i < count; i++) floats[i] = float_of(npy_u32(saved + 4 * i));
    for (int i = 0; (i + count) * 4 <= (int)w->size; i++)
        found += memcmp((const float *)(const void *)w->s + i, floats, (size_t)count * 4) == 0;
    return found == 1;
}

/* The format of version 3, byte for byte: what is saved today can be loaded tomorrow. */
static void test_bytes_of_save(void) {
    scene *w = scene_new(0, 1);
    size_t size;
    long floats = 3 * 4 * 64 + 2 * 3 * 16;  /* h and 3 rows, E padded; 3 keys and 3 values */
    run_chunks(w->m, w->c, w->s, w->tokens, 3, 0, NULL);
    unsigned char *data = saved(w, w->s, &size);
    CHECK(size == (size_t)(48 + 4 * floats + 8), "%lu bytes", (unsigned long)size);
    CHECK(memcmp(data, "GRIFSTAT\3\0\0\0\0\0\0", 16) == 0, "start");
    CHECK(get_u64(data + 24) == 3 && get_u64(data + 40) == 4 * (uint64_t)floats, "numbers");
    CHECK(holds_floats(w, data + 48, 3 * 4 * 64), "floats");
    CHECK(get_u64(data + size - 8) == checksum(data, size - 8), "checksum");
    free(data);
    scene_free(w);
}

/* The same bytes on every machine, whatever order it keeps them in. */
static void test_portable(void) {
    scene *w = scene_new(0, 1);
    griffin_sampler sampler = some_sampler();
    griffin_decoder decoder = some_decoder();
    unsigned char data[5000];
    for (int n = 0; n < MOST; n++) w->tokens[n] = n * n % 19;
    run_chunks(w->m, w->c, w->s, w->tokens, MOST, 0, NULL);
    int64_t size = griffin_save(w->m, w->s, &sampler, &decoder, data, sizeof data);
    CHECK(size == 48 + 4 * (3 * 4 * 64 + 2 * 4 * 16) + 292 + 8 + 8, "%d bytes", (int)size);
    CHECK(size > 8 && get_u64(data + size - 8) == 0x5e2590adee84364du, "checksum %08lx%08lx",
          (unsigned long)(get_u64(data + size - 8) >> 32),
          (unsigned long)(get_u64(data + size - 8) & 0xffffffffu));
    scene_free(w);
}

/* ---- in pieces ------------------------------------------------------------------------------ */

/* A file, so to speak: what was written, or is read with at most `most` bytes a call. Call number
 * fails_at (from 1) fails with FAILED. */
typedef struct tape {
    unsigned char data[SAVE_BYTES];
    size_t size, at, most;
    int    calls, fails_at;
    int    greedy;                          /* says that it read one byte more than asked for */
} tape;

enum { FAILED = -77 };

static int tape_write(const void *data, size_t size, void *user) {
    tape *t = (tape *)user;
    if (++t->calls == t->fails_at) return FAILED;
    CHECK(size > 0 && size <= GRIFFIN_PIECE && t->size + size <= SAVE_BYTES, "%d", (int)size);
    memcpy(t->data + t->size, data, size);
    t->size += size;
    return 0;
}

static int tape_read(void *data, size_t size, void *user) {
    tape *t = (tape *)user;
    size_t n = size < t->most ? size : t->most;
    if (++t->calls == t->fails_at) return FAILED;
    CHECK(size > 0 && size <= GRIFFIN_PIECE, "%d", (int)size);
    if (n > t->size - t->at) n = t->size - t->at;
    memcpy(data, t->data + t->at, n);
    t->at += n;
    return (int)n + t->greedy;
}

static int is_fresh(const scene *w, const griffin_state *s) {
    size_t used = 0;
    for (size_t i = 0; i < w->size; i++) used += ((const unsigned char *)s)[i] != 0;
    return used == 0;
}

/* A tape with a save of w->s, a sampler and a decoder; their bytes are those of griffin_save. */
static tape *new_tape(const scene *w, int parts) {
    static unsigned char data[SAVE_BYTES];
    griffin_sampler sampler = some_sampler(), *s = parts & 1 ? &sampler : NULL;
    griffin_decoder decoder = some_decoder(), *d = parts & 2 ? &decoder : NULL;
    tape *t = (tape *)calloc(1, sizeof *t);
    int64_t size = griffin_save(w->m, w->s, s, d, data, sizeof data);
    CHECK(griffin_save_pieces(w->m, w->s, s, d, tape_write, t) == size, "%d bytes", (int)size);
    CHECK((int64_t)t->size == size && memcmp(t->data, data, t->size) == 0, "%d and %d bytes",
          (int)t->size, (int)size);
    t->most = t->size;
    return t;
}

/* The same bytes as in one piece, and the same state, however little is read at once. */
static void test_pieces(void) {
    static const size_t most[] = { 4096, 47, 7, 1 };
    scene *w = scene_new(0, 1);
    griffin_state *whole = new_state(w->m), *s = new_state(w->m);
    for (int n = 0; n < 14; n += n < 5 ? 2 : 7)
        for (int parts = 0; parts < 4; parts += family ? 3 : 1) {
            griffin_sampler sampler, expected = some_sampler();
            griffin_decoder decoder, held = some_decoder();
            memset(w->s, 0, w->size);
            if (n) run_chunks(w->m, w->c, w->s, w->tokens, n, 0, NULL);
            tape *t = new_tape(w, parts);
            CHECK(griffin_load(w->m, whole, NULL, NULL, t->data, t->size) == GRIFFIN_OK, "load");
            for (int i = 0; i < (family ? 2 : COUNT(most)); i++) {
                memset(s, 0, w->size);
                memset(&sampler, 0, sizeof sampler);
                memset(&decoder, 0, sizeof decoder);
                t->most = most[i];
                t->at = 0;
                CHECK(griffin_load_pieces(w->m, NULL, NULL, NULL, tape_read, t) == 0, "check");
                CHECK(t->at == t->size, "all is read");
                t->at = 0;
                CHECK(griffin_load_pieces(w->m, s, parts & 1 ? &sampler : NULL, parts & 2 ? &decoder
                                          : NULL, tape_read, t) == GRIFFIN_OK, "%d at once",
                      (int)most[i]);
                CHECK(same_states(w->m, s, whole), "%d tokens, %d at once", n, (int)most[i]);
                CHECK(!(parts & 1) || memcmp(&sampler, &expected, sizeof sampler) == 0, "sampler");
                CHECK(!(parts & 2) || memcmp(&decoder, &held, sizeof held) == 0, "decoder");
            }
            check_continues(w, s, n, n + 20);
            free(t);
        }
    free(whole); free(s);
    scene_free(w);
}

/* Wherever the host fails, its error comes back and the state is what it was. */
static void test_pieces_fail(void) {
    scene *w = scene_new(0, 1);
    griffin_state *s = new_state(w->m), *whole = new_state(w->m);
    griffin_sampler sampler, no_sampler;
    griffin_decoder decoder, no_decoder;
    tape *other;
    int at, error = FAILED;
    run_chunks(w->m, w->c, w->s, w->tokens, 9, 0, NULL);
    void *before = copy_of(w->s, w->size);
    tape *t = new_tape(w, 3);
    for (at = 1; at <= t->calls; at++) {
        other = (tape *)calloc(1, sizeof *other);
        other->fails_at = at;
        CHECK(griffin_save_pieces(w->m, w->s, NULL, NULL, tape_write, other) == FAILED, "%d", at);
        CHECK(other->calls == at, "%d calls after a failure at %d", other->calls, at);
        free(other);
    }
    CHECK(memcmp(w->s, before, w->size) == 0, "saving has changed the state");
    memset(&sampler, 0, sizeof sampler); memset(&no_sampler, 0, sizeof sampler);
    memset(&decoder, 0, sizeof decoder); memset(&no_decoder, 0, sizeof decoder);
    t->most = 100;
    for (at = 1; error == FAILED; at++) {
        t->calls = 0; t->at = 0; t->fails_at = at;
        error = griffin_load_pieces(w->m, s, &sampler, &decoder, tape_read, t);
        if (error != FAILED) break;
        CHECK(is_fresh(w, s) && memcmp(&sampler, &no_sampler, sizeof sampler) == 0
              && memcmp(&decoder, &no_decoder, sizeof decoder) == 0, "failed at %d", at);
    }
    griffin_load(w->m, whole, NULL, NULL, t->data, t->size);
    CHECK(error == GRIFFIN_OK && at > 10 && same_states(w->m, s, whole), "%d: %d", at, error);
    CHECK(griffin_load_pieces(w->m, s, NULL, NULL, tape_read, t) == GRIFFIN_E_ARGUMENT
          && same_states(w->m, s, whole), "not fresh");
    free(t); free(s); free(whole); free(before);
    scene_free(w);
}

/* Bytes from anywhere: refused, and the state is fresh. What follows a save is not read. */
static void test_pieces_refused(void) {
    scene *w = scene_new(0, 1), *foreign = scene_new(0, 2);
    griffin_state *s = new_state(w->m);
    size_t cut, step = family ? 211 : 13;
    run_chunks(w->m, w->c, w->s, w->tokens, 3, 0, NULL);
    tape *t = new_tape(w, 0);
    size_t size = t->size;
    for (cut = 0; cut < size; cut += step) {
        t->at = 0; t->size = cut;
        CHECK(griffin_load_pieces(w->m, s, NULL, NULL, tape_read, t) == GRIFFIN_E_FORMAT
              && is_fresh(w, s), "cut at %d", (int)cut);
    }
    t->size = size;
    for (cut = 0; cut < size; cut += step) {
        int is_right;
        t->at = 0;
        t->data[cut] ^= (unsigned char)(1 << cut % 8);
        int error = griffin_load_pieces(w->m, s, NULL, NULL, tape_read, t);
        is_right = cut >= 8 && cut < 12 ? error == GRIFFIN_E_VERSION
                 : cut >= 16 && cut < 24 ? error == GRIFFIN_E_MISMATCH : error == GRIFFIN_E_FORMAT;
        CHECK(is_right && is_fresh(w, s), "flipped at %d: %d", (int)cut, error);
        t->data[cut] ^= (unsigned char)(1 << cut % 8);
    }
    t->at = 0; t->greedy = 1;
    CHECK(griffin_load_pieces(w->m, s, NULL, NULL, tape_read, t) == GRIFFIN_E_FORMAT
          && is_fresh(w, s), "more than asked for");
    t->at = 0; t->greedy = 0;
    CHECK(griffin_load_pieces(foreign->m, foreign->s, NULL, NULL, tape_read, t)
          == GRIFFIN_E_MISMATCH && is_fresh(w, foreign->s), "foreign model");
    memcpy(t->data + size, t->data, size);
    t->size = 2 * size;
    for (t->at = 0; t->at < t->size; memset(s, 0, w->size)) {
        cut = t->at;
        CHECK(griffin_load_pieces(w->m, s, NULL, NULL, tape_read, t) == GRIFFIN_OK
              && t->at == cut + size, "two in a row");
        check_continues(w, s, 3, 9);
    }
    free(t); free(s);
    scene_free(w); scene_free(foreign);
}

/* ---- jobs in flight ------------------------------------------------------------------------- */

static void test_dropped(void) {
    scene *w = scene_new(0, 1);
    griffin_state *other = new_state(w->m);
    griffin_span spans[2];
    float logits[2 * 16 * 19];
    int left, stop;
    run_chunks(w->m, w->c, w->s, w->tokens, 7, 0, NULL);
    run_chunks(w->m, w->c, other, w->tokens, 11, 0, NULL);
    void *before = copy_of(w->s, w->size);
    void *other_before = copy_of(other, w->size);
    spans[0] = span_of(w->s, w->tokens + 7, 6, logits);
    spans[1] = span_of(other, w->tokens + 11, 9, logits + 16 * 19);
    for (stop = 1; stop > 0; stop++) {
        left = griffin_begin(w->c, spans, 2);
        if (stop >= left) break;
        CHECK(griffin_advance(w->c, stop) == left - stop, "%d units", stop);
        CHECK(memcmp(w->s, before, w->size) == 0 && memcmp(other, other_before, w->size) == 0,
              "after %d of %d", stop, left);
    }
    CHECK(stop > 20, "%d units", stop);
    CHECK(griffin_advance(w->c, stop) == 0 && griffin_advance(w->c, 1) == 0,
          "the last one completes");
    CHECK(griffin_state_position(w->s) == 13 && griffin_state_position(other) == 20, "positions");
    CHECK(first_difference(logits, w->logits + 7 * 19, 6, 19) < 0, "logits");
    check_continues(w, w->s, 13, 30);
    check_continues(w, other, 20, 30);
    free(before); free(other_before); free(other);
    scene_free(w);
}

/* A state that moved on, or was replaced, since griffin_begin. */
static void test_changed(void) {
    scene *w = scene_new(0, 1);
    griffin_context *second = new_context(w->m, 4, 1);
    griffin_span span = span_of(w->s, w->tokens, 4, NULL);
    int left = griffin_begin(w->c, &span, 1);
    griffin_advance(w->c, left / 2);
    run_chunks(w->m, second, w->s, w->tokens, 1, 0, NULL);
    CHECK(griffin_advance(w->c, 1) == GRIFFIN_E_MISMATCH, "stepped");
    CHECK(griffin_advance(w->c, 1) == 0, "nothing is in flight any more");
    check_continues(w, w->s, 1, 9);
    span = span_of(w->s, w->tokens + 9, 4, NULL);
    CHECK(griffin_begin(w->c, &span, 1) > 0, "begin");
    memset(w->s, 0, w->size);
    CHECK(griffin_advance(w->c, 1000) == GRIFFIN_E_MISMATCH, "reset");
    check_continues(w, w->s, 0, 9);
    free(second);
    scene_free(w);
}

/* States of another model are refused, and so is a text from another past at the same position. */
static void test_foreign(void) {
    scene *w = scene_new(0, 1), *foreign = scene_new(4, 1), *other = scene_new(0, 2);
    run_chunks(foreign->m, foreign->c, foreign->s, w->tokens, 3, 0, NULL);
    if (has_attention()) {
        CHECK(griffin_step(w->c, foreign->s, 1, NULL) == GRIFFIN_E_MISMATCH, "other attn_keys");
        CHECK(griffin_save(w->m, foreign->s, NULL, NULL, NULL, 0) == GRIFFIN_E_MISMATCH,
              "other attn_keys");
    }
    run_chunks(other->m, other->c, other->s, w->tokens, 3, 0, NULL);
    CHECK(griffin_step(w->c, other->s, 1, NULL) == GRIFFIN_E_MISMATCH, "another model");
    run_chunks(w->m, w->c, w->s, w->tokens, 5, 0, NULL);
    griffin_span span = span_of(w->s, w->tokens + 5, 3, NULL);
    CHECK(griffin_begin(w->c, &span, 1) > 0, "begin");
    memset(w->s, 0, w->size);
    run_chunks(foreign->m, foreign->c, foreign->s, w->tokens, 2, 0, NULL);
    {
        griffin_context *second = new_context(w->m, 8, 1);
        run_chunks(w->m, second, w->s, w->tokens + 1, 5, 0, NULL);
        free(second);
    }
    CHECK(griffin_advance(w->c, 1000) == GRIFFIN_E_MISMATCH, "same position, other tokens");
    scene_free(w); scene_free(foreign); scene_free(other);
}

int main(void) {
    RUN(test_bytes_of_save);
    RUN(test_portable);
    for (; family < FAMILIES; family++) {
        RUN(test_forks);
        RUN(test_bytes);
        RUN(test_round_trips);
        RUN(test_refusals);
        RUN(test_resumes);
        RUN(test_parts);
        RUN(test_pieces);
        RUN(test_pieces_fail);
        RUN(test_pieces_refused);
        RUN(test_dropped);
        RUN(test_changed);
        RUN(test_foreign);
    }
    return test_end();
}
