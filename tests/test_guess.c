/* Promise: with guesses, tokens, logits, samplers and states are those of plain decoding, to the
 * bit, whoever guesses and however often he is wrong. */

#include "vocabulary_model.h"
#include "tools/griffin_grammar.h"

enum { STEPS = 90, ROWS = 9, ROOM = 24, MOST_SEQUENCES = 5, TABLE = 64 };

static char heard[400];

static void hear(int error, const char *text, void *user) {
    (void)error; (void)user;
    snprintf(heard, sizeof heard, "%s", text);
}

/* ---- a text that is written plainly ---------------------------------------------------------- */

enum { NOBODY, ORACLE, LOOKUP, DRAFT, GRAMMAR, GRAMMAR_LOOKUP, GRAMMAR_DRAFT, GUESSERS };

static const char *const guesser_names[] = { "nobody", "oracle", "lookup", "draft", "grammar",
                                             "grammar and lookup", "grammar and draft" };

typedef struct scene {
    const griffin_model   *m;
    griffin_sampler        sampler;
    const griffin_grammar *grammar;
    const griffin_model   *smaller;         /* who drafts */
    int32_t prompt[16];
    int     prompted, limit;                /* tokens to take */
    float   row_cost;
    int     right;                          /* of 100 guesses of the oracle */
} scene;

/* What plain decoding gives. */
typedef struct plain {
    int32_t tokens[STEPS + 1];              /* taken, and the one that ended it, if one did */
    int     count, ended;
    float  *logits;                         /* [count + 1][V], after each of them */
    griffin_state  *state;
    griffin_sampler sampler;
} plain;

typedef struct masked { const griffin_grammar *g; griffin_grammar_state at; } masked;

static int mask(float *logits, int vocab, void *user) {
    masked *m = (masked *)user;
    (void)vocab;
    return griffin_grammar_mask(m->g, &m->at, logits);
}

static griffin_sampler begin_sampler(const scene *s, masked *grammar) {
    griffin_sampler sampler = s->sampler;
    memset(grammar, 0, sizeof *grammar);
    grammar->g = s->grammar;
    if (!s->grammar) return sampler;
    sampler.mask = mask;
    sampler.mask_user = grammar;
    return sampler;
}

static int is_end(const scene *s, int32_t token) {
    const griffin_info *info = griffin_get_info(s->m);
    return s->grammar && (token < 0 || token == info->eos || token == info->end_of_turn);
}

static void write_plainly(const scene *s, plain *p) {
    int V = vocabulary(s->m);
    griffin_context *c = new_context(s->m, 32, 1);
    masked grammar;
    memset(p, 0, sizeof *p);
    p->logits = (float *)calloc((size_t)(V * (STEPS + 1)), sizeof(float));
    p->state = new_state(s->m);
    p->sampler = begin_sampler(s, &grammar);
    CHECK(griffin_prefill(c, p->state, s->prompt, s->prompted, p->logits) == 0, "%s", heard);
    float *logits = new_logits(s->m, 1);
    for (; p->count < s->limit; p->count++) {
        memcpy(logits, p->logits + p->count * V, (size_t)V * sizeof(float));
        int32_t token = griffin_sample(s->m, &p->sampler, logits);
        p->tokens[p->count] = token;
        if ((p->ended = is_end(s, token))) break;
        if (s->grammar) CHECK(griffin_grammar_accept(s->grammar, &grammar.at, token) >= 0, "%s",
                              heard);
        griffin_step(c, p->state, token, p->logits + (p->count + 1) * V);
    }
    free(logits);
    p->sampler.mask_user = NULL;
    free(c);
}

static void plain_free(plain *p) { free(p->logits); free(p->state); }

/* ---- the same with guesses ------------------------------------------------------------------- */

typedef struct writer {
    const scene    *s;
    const plain    *p;
    griffin_guess  *g;
    griffin_sampler sampler;
    masked          grammar;
    griffin_lookup  lookup;
    int32_t         memory[6 * TABLE];
    griffin_odds    odds;
    griffin_draft   draft;
    masked          draft_grammar;
    float          *scratch;
    int             guesser, count, done;
} writer;

static void writer_begin(writer *w, const scene *s, const plain *p, griffin_guess *g, int guesser) {
    int V = vocabulary(s->m);
    memset(w, 0, sizeof *w);
    memset(g, 0, sizeof *g);
    w->s = s;
    w->p = p;
    w->g = g;
    w->guesser = guesser;
    w->sampler = begin_sampler(s, &w->grammar);
    w->scratch = (float *)malloc((size_t)V * sizeof(float));
    w->lookup.memory = w->memory;
    w->lookup.size = TABLE;
    g->model = s->m;
    g->state = new_state(s->m);
    g->tokens = (int32_t *)malloc(ROOM * sizeof(int32_t));
    g->logits = (float *)malloc((size_t)(V * ROWS) * sizeof(float));
    g->room = ROOM;
    g->rows = ROWS;
    g->row_cost = s->row_cost;
    w->draft.context = new_context(s->smaller, 32, 1);
    w->draft.state = new_state(s->smaller);
    w->draft.mark = malloc(griffin_mark_size(s->smaller));
    w->draft.logits = new_logits(s->smaller, 1);
    w->draft.cost = s->row_cost;
    CHECK(griffin_prefill(w->draft.context, w->draft.state, s->prompt, s->prompted, NULL) == 0,
          "%s", heard);
}

static void writer_free(writer *w) {
    free(w->g->state);
    free(w->g->tokens);
    free(w->g->logits);
    free(w->scratch);
    free(w->draft.context);
    free(w->draft.state);
    free(w->draft.mark);
    free(w->draft.logits);
}

static void add_drafts(writer *w) {
    griffin_sampler sampler = w->sampler;
    griffin_guess *g = w->g;
    int more;
    w->draft_grammar = w->grammar;
    sampler.mask_user = &w->draft_grammar;
    while ((more = griffin_draft_next(&w->draft, g, &sampler)) == 1) {
        int32_t token = g->tokens[g->known + g->guesses - 1];
        if (!w->s->grammar) continue;
        if (griffin_grammar_accept(w->s->grammar, &w->draft_grammar.at, token) < 0
            || w->draft_grammar.at.ended) break;
    }
    CHECK(more >= 0 || more == GRIFFIN_E_NO_TOKEN, "%d: %s", more, heard);
}

static void add_guesses(writer *w) {
    const plain *p = w->p;
    int i = w->count, more = 1;     /* the next token */
    if (w->guesser >= GRAMMAR && w->s->grammar)
        CHECK(griffin_grammar_guess(w->s->grammar, &w->grammar.at, &w->sampler, w->scratch,
                                    w->g) >= 0, "%s", heard);
    if (w->guesser == DRAFT || w->guesser == GRAMMAR_DRAFT) add_drafts(w);
    if (w->guesser == LOOKUP || w->guesser == GRAMMAR_LOOKUP)
        CHECK(griffin_lookup_guess(&w->lookup, w->g) >= 0, "%s", heard);
    for (; w->guesser == ORACLE && more == 1 && dice() % 9; i++) {
        int32_t token = i < p->count ? p->tokens[i] : 0;
        if (token < 0 || dice() % 100 >= (unsigned)w->s->right)
            token = (int32_t)dice() % vocabulary(w->s->m);
        more = griffin_guess_add(w->g, token < 0 ? -token : token, &w->odds);
    }
}

/* Draws and takes tokens as long as their logits are there. */
static void take_tokens(writer *w) {
    const plain *p = w->p;
    int V = vocabulary(w->s->m), there = 1;
    while (there && !w->done) {
        int certain = w->g->ready && w->g->certain;
        float *logits = griffin_guess_logits(w->g);
        CHECK(logits && (certain || !memcmp(logits, p->logits + w->count * V,
                                            (size_t)V * sizeof(float))), "logits %d", w->count);
        int32_t token = griffin_sample(w->s->m, &w->sampler, logits);
        CHECK(token == p->tokens[w->count], "%s: token %d is %d, not %d",
              guesser_names[w->guesser], w->count, (int)token, (int)p->tokens[w->count]);
        w->done = w->count == p->count || token != p->tokens[w->count];
        if (w->done) break;
        if (w->s->grammar) griffin_grammar_accept(w->s->grammar, &w->grammar.at, token);
        CHECK(griffin_lookup_add(&w->lookup, &token, 1) == 0, "%d", (int)token);
        CHECK(griffin_draft_take(&w->draft, token) == 0, "%s", heard);
        there = griffin_guess_take(w->g, token);
        CHECK(there >= 0, "%s", heard);
        w->done = ++w->count == p->count && !p->ended;
    }
    if (!w->done) add_guesses(w);
}

static void check_end(writer *w, griffin_context *c) {
    const plain *p = w->p;
    int V = vocabulary(w->s->m);
    CHECK(griffin_guess_finish(c, w->g) == 0, "%s", heard);
    CHECK(same_states(w->s->m, w->g->state, p->state), "%s: the state after %d tokens",
          guesser_names[w->guesser], w->count);
    w->sampler.mask_user = NULL;
    CHECK(!memcmp(&w->sampler, &p->sampler, sizeof p->sampler), "the sampler");
    CHECK(p->ended || !memcmp(w->g->logits, p->logits + w->count * V, (size_t)V * sizeof(float)),
          "%s: the logits after %d tokens", guesser_names[w->guesser], w->count);
}

/* Some sequences at once, each with a guesser of its own. units: of a slice; 0: whole passes. */
static void check_together(const scene *scenes, int count, int guesser, int rows, int units) {
    griffin_context_options o;
    memset(&o, 0, sizeof o);
    o.rows = rows;
    o.states = count;
    o.no_slices = !units && dice() % 4 == 0;
    o.guesses = dice() % 3 ? (int)(dice() % 20) : 0;
    griffin_context *c = new_context_with(scenes->m, &o);
    griffin_guess g[MOST_SEQUENCES];
    writer *w = (writer *)calloc((size_t)count, sizeof *w);
    plain p[MOST_SEQUENCES];
    int done = 0;
    for (int i = 0; i < count; i++) {
        const scene *s = scenes + i;
        write_plainly(s, p + i);
        writer_begin(w + i, s, p + i, g + i, guesser < 0 ? (int)(dice() % GUESSERS) : guesser);
        CHECK(griffin_prefill(c, g[i].state, s->prompt, s->prompted, g[i].logits) == 0, "%s",
              heard);
        griffin_lookup_add(&w[i].lookup, s->prompt, s->prompted);
    }
    while (done < count) {
        done = 0;
        for (int i = 0; i < count; i++) {
            if (!w[i].done) take_tokens(w + i);
            done += w[i].done;
        }
        int left = units ? griffin_guess_begin(c, g, count) : griffin_guess_run(c, g, count);
        for (; left > 0; left = griffin_advance(c, units)) {
            if (dice() % 50) continue;
            left = griffin_advance(c, INT32_MAX);
            break;
        }
        CHECK(left == 0, "%s", heard);
    }
    for (int i = 0; i < count; i++) {
        check_end(w + i, c);
        if (getenv("SHOW"))
            printf("%s: %d tokens, %d passes, %d of %d\n", guesser_names[w[i].guesser], w[i].count,
                   (int)g[i].passes, (int)g[i].accepted, (int)g[i].guessed);
        writer_free(w + i);
        plain_free(p + i);
    }
    free(w);
    free(c);
}

static const griffin_bias biases[] = { { 1, 2 }, { 3, -INFINITY }, { 5, 0.5f } };

/* Greedy, sampled, penalised and biased. */
static griffin_sampler some_sampler(int kind) {
    griffin_sampler s;
    memset(&s, 0, sizeof s);
    s.seed = dice();
    if (kind > 0) s.temperature = kind == 1 ? 0.3f : 1;
    if (kind > 1) { s.top_p = 0.9f; s.top_k = 12; s.min_p = 0.01f; }
    if (kind > 2) { s.repeat_penalty = 1.2f; s.repeat_last = 20; }
    if (kind > 3) { s.biases = biases; s.bias_count = COUNT(biases); }
    return s;
}

static scene some_scene(const griffin_model *m, const griffin_model *smaller) {
    scene s;
    memset(&s, 0, sizeof s);
    s.m = m;
    s.smaller = smaller;
    s.sampler = some_sampler((int)(dice() % 5));
    s.prompted = 1 + (int)(dice() % 16);
    for (int k = 0; k < s.prompted; k++)
        s.prompt[k] = (int32_t)(dice() % (unsigned)vocabulary(m));
    s.limit = 1 + (int)(dice() % (STEPS - 1));
    s.row_cost = dice() % 3 ? 1e-4f : 0.2f;
    s.right = (int)(dice() % 4) * 33;
    return s;
}

static void check_model(const griffin_model *m, const griffin_model *smaller) {
    for (int i = 0; i < 2 * GUESSERS; i++) {
        scene s = some_scene(m, smaller);
        check_together(&s, 1, i % GUESSERS, 32, i % 3 * 7);
    }
    for (int i = 0; i < 4; i++) {
        scene s[MOST_SEQUENCES];
        int count = 2 + i % (MOST_SEQUENCES - 1);
        for (int k = 0; k < count; k++) s[k] = some_scene(m, smaller);
        check_together(s, count, -1, ROOM * count - i % 4 * 10, i % 3 * 5);
    }
}

#define STORYTELLER "examples/models/storyteller.gguf"

static griffin_model *open_model(const char *path, int cpu) {
    griffin_options o;
    griffin_model *m;
    memset(&o, 0, sizeof o);
    o.logger.message = hear;
    o.cpu = (griffin_cpu)cpu;
    int error = griffin_open_file(&m, path, &o);
    CHECK(error == GRIFFIN_OK || error == GRIFFIN_E_UNSUPPORTED, "%s: %s", path, heard);
    return m;
}

/* The model drafts for itself, in another type. */
static void check_file(const char *name, const char *type, const char *drafts, int cpu) {
    char path[128];
    snprintf(path, sizeof path, "build/data/%s%s.gguf", name, type);
    griffin_model *m = open_model(path, cpu);
    snprintf(path, sizeof path, "build/data/%s%s.gguf", name, drafts);
    griffin_model *smaller = open_model(path, 0);
    CHECK(!m || griffin_draft_check(m, smaller) == 0, "%s", heard);
    if (m) check_model(m, smaller);
    griffin_close(m);
    griffin_close(smaller);
}

/* Recurrent, mixed and attention alone, in floats and in quants. */
static void test_models(void) {
    static const char *const names[] = { "griffin-tiny", "hawk-tiny", "griffin-paper-tiny",
                                         "attn-only-tiny", "hgrn2-tiny", "supra-tiny" };
    for (int i = 0; i < COUNT(names); i++)
        check_file(names[i], i % 2 ? ".q8_0" : "", ".q4_0", 0);
}

static void test_instruction_sets(void) {
    for (int cpu = GRIFFIN_CPU_SCALAR; cpu <= LAST_CPU; cpu++)
        check_file("griffin-tiny", ".q4_0", ".q8_0", cpu);
}

/* ---- grammars -------------------------------------------------------------------------------- */

static const char rules[] =
    "root   ::= \"{ \\\"action\\\": \" action \", \\\"target\\\": \" target words? \" }\" \n"
    "action ::= \"\\\"\" ( \"go to\" | \"speak to\" | \"fight\" | \"hide from\" ) \"\\\"\" \n"
    "target ::= \"\\\"\" ( \"king\" | \"wolf\" | \"old woman\" | \"castle\" ) \"\\\"\" \n"
    "words  ::= \", \\\"words\\\": \\\"\" [A-Z] [a-z ,']{9,50} [.!?] \"\\\"\" \n";

static const char *const more_rules[] = {
    "root ::= (\"over and over \" | \"once more \")+ \"the end.\"",
    "root ::= \"nothing but this one sentence can be written here.\"",
    "root ::= [a-z]{3,60} \".\" [\\n]+ \"\xC3\xA4\xE2\x82\xAC!\"",
};

static void check_grammar(const griffin_model *m, const char *text, int scenes) {
    const griffin_model *smaller = m;
    griffin_grammar *grammar;
    int error = griffin_grammar_open(&grammar, m, text, strlen(text), NULL);
    CHECK(error == GRIFFIN_OK, "%s", heard);
    for (int i = 0; i < scenes && !error; i++) {
        scene s = some_scene(m, smaller);
        s.grammar = grammar;
        if (i % 4) s.limit = STEPS - 1;
        check_together(&s, 1, i % GUESSERS, 32, i % 4 * 11);
    }
    griffin_grammar_close(grammar);
}

/* The storyteller, and its vocabulary with a network that costs less. */
static void test_grammars(void) {
    vocabulary_model v;
    griffin_model *m = open_model(STORYTELLER, 0);
    vocabulary_open_file(&v, STORYTELLER);
    check_grammar(m, rules, GUESSERS);
    check_grammar(v.model, rules, 28);
    for (int i = 0; i < COUNT(more_rules); i++) check_grammar(v.model, more_rules[i], 28);
    griffin_close(m);
    vocabulary_close(&v);
}

/* ---- a context that others use, too, and mistakes -------------------------------------------- */

typedef struct stage {
    griffin_model   *m;
    griffin_context *c;
    scene            s;
    plain            p;
    griffin_guess    g;
    writer           w;
} stage;

static stage *stage_new(int guesses) {
    stage *t = (stage *)calloc(1, sizeof *t);
    griffin_context_options o;
    memset(&o, 0, sizeof o);
    o.rows = 32;
    o.guesses = guesses;
    t->m = open_model("build/data/griffin-tiny.gguf", 0);
    t->c = new_context_with(t->m, &o);
    t->s = some_scene(t->m, t->m);
    t->s.limit = STEPS - 1;
    t->s.right = 66;
    t->s.row_cost = 1e-4f;
    write_plainly(&t->s, &t->p);
    writer_begin(&t->w, &t->s, &t->p, &t->g, ORACLE);
    CHECK(griffin_prefill(t->c, t->g.state, t->s.prompt, t->s.prompted, t->g.logits) == 0, "%s",
          heard);
    return t;
}

static void stage_free(stage *t) {
    writer_free(&t->w);
    plain_free(&t->p);
    free(t->c);
    griffin_close(t->m);
    free(t);
}

/* Between the passes another sequence is stepped, and jobs are begun and left: what was held is
 * lost, and the text is the same. */
static void test_interrupted(void) {
    for (int round = 0; round < 8; round++) {
        stage *t = stage_new(round % 2 * 8);
        griffin_state *other = new_state(t->m);
        for (take_tokens(&t->w); !t->w.done; take_tokens(&t->w)) {
            griffin_span span = span_of(other, t->s.prompt, t->s.prompted, NULL);
            int how = (int)(dice() % 4);
            if (how == 1) CHECK(griffin_step(t->c, other, 1, NULL) == 0, "%s", heard);
            if (how == 2) CHECK(griffin_begin(t->c, &span, 1) > 0, "%s", heard);
            if (how == 3) {
                griffin_guess_begin(t->c, &t->g, 1);    /* dropped, and begun again */
                griffin_advance(t->c, 2);
                CHECK(griffin_unit_name(t->c) == NULL || !griffin_guess_logits(&t->g),
                      "logits of half a pass");
            }
            CHECK(griffin_guess_run(t->c, &t->g, 1) == 0, "%s", heard);
            CHECK(griffin_guess_run(t->c, &t->g, 1) == 0, "nothing needs a pass");
            CHECK(griffin_advance(t->c, 9) == 0 && !griffin_unit_name(t->c), "%s", heard);
        }
        check_end(&t->w, t->c);
        CHECK(griffin_guess_finish(t->c, &t->g) == 0, "twice");
        free(other);
        stage_free(t);
    }
}

/* A pass that is left before it is complete counts for nothing: the logits are not there, and the
 * next call runs its tokens. */
static void test_half_passes(void) {
    for (int how = 0; how < 6; how++) {
        stage *t = stage_new(how % 2 * 8);
        griffin_guess *g = &t->g;
        griffin_state *other = new_state(t->m), *straight = new_state(t->m);
        int V = vocabulary(t->m);
        float *logits = (float *)malloc((size_t)V * sizeof *logits);
        griffin_span span = span_of(other, t->s.prompt, t->s.prompted, NULL);
        griffin_odds odds = { 15, 15 };
        griffin_prefill(t->c, straight, t->s.prompt, t->s.prompted, NULL);
        griffin_step(t->c, straight, 9, logits);
        CHECK(griffin_guess_logits(g) && griffin_guess_take(g, 9) == 0, "%s", heard);
        CHECK(!griffin_guess_logits(g), "the token waits for a pass");
        griffin_guess_add(g, 11, &odds);
        int units = griffin_guess_begin(t->c, g, 1);
        griffin_guess moved = *g;
        g = &moved;
        CHECK(units > 1 && griffin_advance(t->c, units - 1) == 1, "%d units", units);
        CHECK(!griffin_guess_logits(g), "one unit is left");
        if (how >= 4) griffin_step(t->c, other, 1, NULL);
        else if (how >= 2) CHECK(griffin_begin(t->c, &span, 1) > 0, "%s", heard);
        if (how % 2) {
            CHECK(griffin_guess_run(t->c, g, 1) == 0, "%s", heard);
            CHECK(!memcmp(griffin_guess_logits(g), logits, (size_t)V * sizeof *logits), "%d", how);
        }
        CHECK(griffin_guess_finish(t->c, g) == 0, "%s", heard);
        CHECK(!memcmp(g->logits, logits, (size_t)V * sizeof *logits), "%d: other logits", how);
        CHECK(!memcmp(g->state, straight, griffin_state_size(t->m)), "%d: another state", how);
        free(logits);
        free(straight);
        free(other);
        stage_free(t);
    }
}

/* After E_MISMATCH, the host can put its state back and go on: no token is lost. */
static void test_state_put_back(void) {
    stage *t = stage_new(0);
    griffin_guess *g = &t->g;
    size_t size = griffin_state_size(t->m);
    void *copy = malloc(size);
    memcpy(copy, g->state, size);
    CHECK(griffin_guess_take(g, 9) == 0, "%s", heard);
    griffin_step(t->c, g->state, 10, NULL);
    griffin_guess before = *g;
    CHECK(griffin_guess_run(t->c, g, 1) == GRIFFIN_E_MISMATCH, "the state was stepped");
    CHECK(griffin_guess_take(g, 8) == GRIFFIN_E_MISMATCH, "the state was stepped");
    CHECK(griffin_guess_finish(t->c, g) == GRIFFIN_E_MISMATCH, "the state was stepped");
    CHECK(!memcmp(&before, g, sizeof before), "the guess has changed");
    memcpy(g->state, copy, size);
    CHECK(griffin_guess_finish(t->c, g) == 0, "%s", heard);
    CHECK(griffin_state_position(g->state) == t->s.prompted + 1, "a token was lost");
    free(copy);
    stage_free(t);
}

static void test_times(void) {
    stage *t = stage_new(8);
    float cost = 0;
    for (take_tokens(&t->w); !t->w.done; take_tokens(&t->w)) {
        CHECK(griffin_guess_run(t->c, &t->g, 1) == 0, "%s", heard);
        for (int i = 0; i < 9; i++) {
            double time = 3 * (1 + 0.125 * (t->g.known + t->g.running - 1));
            CHECK(griffin_guess_time(&t->g, i % 3 ? time : 100 * time) == 0, "%s", heard);
        }
        CHECK(griffin_guess_time(&t->g, NAN) == 0 && griffin_guess_time(&t->g, -1) == 0
              && griffin_guess_time(&t->g, INFINITY) == 0, "no times");
        cost = t->g.row_cost;
    }
    CHECK(cost > 0.06f && cost < 0.25f, "%g is not about 0.125", (double)cost);
    CHECK(griffin_guess_time(NULL, 1) == GRIFFIN_E_ARGUMENT, "null");
    check_end(&t->w, t->c);
    stage_free(t);
}

static void test_refused(void) {
    stage *t = stage_new(0);
    griffin_guess *g = &t->g, twice[2];
    griffin_odds odds = { 0, 0 };
    int V = vocabulary(t->m);
    CHECK(!griffin_guess_logits(NULL), "null");
    CHECK(griffin_guess_take(NULL, 1) == GRIFFIN_E_ARGUMENT, "null");
    CHECK(griffin_guess_add(NULL, 1, NULL) == GRIFFIN_E_ARGUMENT, "null");
    CHECK(griffin_guess_run(NULL, g, 1) == GRIFFIN_E_ARGUMENT, "null");
    CHECK(griffin_guess_run(t->c, NULL, 1) == GRIFFIN_E_ARGUMENT, "null");
    CHECK(griffin_guess_begin(t->c, g, 0) == GRIFFIN_E_ARGUMENT, "none");
    CHECK(griffin_guess_finish(t->c, NULL) == GRIFFIN_E_ARGUMENT, "null");
    CHECK(griffin_guess_take(g, V) == GRIFFIN_E_ARGUMENT, "no token");
    CHECK(griffin_guess_take(g, -1) == GRIFFIN_E_ARGUMENT, "no token");
    CHECK(griffin_guess_add(g, 1, &odds) == 0, "behind nothing");
    CHECK(griffin_guess_take(g, 1) == 0, "%s", heard);
    CHECK(griffin_guess_add(g, V, &odds) == GRIFFIN_E_ARGUMENT, "no token");
    CHECK(griffin_guess_add(g, 1, NULL) == 1 && griffin_guess_add(g, 2, &odds) == 1
          && griffin_guess_add(g, 3, NULL) == 0, "certain ones come first");
    int added = 2;
    while (griffin_guess_add(g, 3, &odds) == 1) added++;
    CHECK(added == ROWS - 1, "%d of %d rows", added, ROWS);
    for (int i = 0; i < 12; i++) {          /* fields that make no sense */
        griffin_guess bad = *g;
        int *numbers[] = { &bad.known, &bad.guesses, &bad.running, &bad.certain, &bad.row,
                           &bad.room, &bad.rows };
        if (i < 7) *numbers[i] = i < 5 ? 1000000 : -1;
        if (i == 7) bad.known = -1;
        if (i == 8) bad.state = NULL;
        if (i == 9) bad.tokens = NULL;
        if (i == 10) bad.logits = NULL;
        if (i == 11) bad.row_cost = NAN;
        CHECK(griffin_guess_run(t->c, &bad, 1) == GRIFFIN_E_ARGUMENT, "%d", i);
        CHECK(griffin_guess_take(&bad, 1) == GRIFFIN_E_ARGUMENT, "%d", i);
    }
    g->tokens[2] = V;
    CHECK(griffin_guess_run(t->c, g, 1) == GRIFFIN_E_ARGUMENT, "a guess that is no token");
    g->tokens[2] = 2;
    twice[0] = twice[1] = *g;
    CHECK(griffin_guess_run(t->c, twice, 2) == GRIFFIN_E_ARGUMENT, "one state");
    CHECK(griffin_step(t->c, g->state, 1, NULL) == 0, "%s", heard);
    CHECK(griffin_step(t->c, g->state, 1, NULL) == 0, "%s", heard);
    CHECK(griffin_guess_run(t->c, g, 1) == GRIFFIN_E_MISMATCH && strstr(heard, "other calls"), "%s",
          heard);
    g->known = g->guesses = g->running = g->certain = 0;
    for (int i = 0; i < ROOM; i++) CHECK(griffin_guess_take(g, i % V) == 0, "%s", heard);
    CHECK(griffin_guess_take(g, 1) == GRIFFIN_E_SPACE, "%s", heard);
    griffin_context *small = new_context(t->m, ROOM - 1, 1);
    CHECK(griffin_guess_run(small, g, 1) == GRIFFIN_E_SPACE, "%s", heard);
    CHECK(griffin_guess_finish(small, g) == 0, "%s", heard);
    free(small);
    stage_free(t);
}

/* Whatever the memory of a lookup has, it guesses tokens that exist, or none. */
static void test_hostile_lookup(void) {
    stage *t = stage_new(8);
    griffin_lookup *l = &t->w.lookup;
    for (int round = 0; round < 300; round++) {
        griffin_guess g = t->g;
        for (int i = 0; i < 6 * TABLE; i++) t->w.memory[i] = (int32_t)(dice() << (dice() % 32));
        l->count = dice() << (dice() % 32);
        l->copied = dice() << (dice() % 32);
        for (int i = 0; i < GRIFFIN_LOOKUP_LENGTHS; i++) l->found[i] = (int32_t)dice();
        memset(l->odds, (int)(dice() % 256), sizeof l->odds);
        CHECK(griffin_guess_take(&g, 3) == 0, "%s", heard);
        CHECK(griffin_lookup_add(l, t->s.prompt, t->s.prompted) == 0, "round %d", round);
        griffin_lookup_guess(l, &g);
        CHECK(griffin_guess_run(t->c, &g, 1) == 0, "%s", heard);
        CHECK(griffin_guess_finish(t->c, &g) == 0, "%s", heard);
    }
    l->size = 48;
    CHECK(griffin_lookup_add(l, t->s.prompt, 1) == GRIFFIN_E_ARGUMENT, "not a power of 2");
    l->size = 0;
    CHECK(griffin_lookup_guess(l, &t->g) == GRIFFIN_E_ARGUMENT, "no room");
    CHECK(griffin_lookup_add(NULL, t->s.prompt, 1) == GRIFFIN_E_ARGUMENT, "null");
    CHECK(griffin_lookup_guess(NULL, &t->g) == GRIFFIN_E_ARGUMENT, "null");
    stage_free(t);
}

static int ban_all(float *logits, int vocab, void *user) {
    (void)user;
    for (int i = 0; i < vocab; i++) logits[i] = -INFINITY;
    return 0;
}

static int ban_all_but_the_first_time(float *logits, int vocab, void *user) {
    int *asked = (int *)user;
    return (*asked)++ ? ban_all(logits, vocab, NULL) : 0;
}

/* After a failure, or where no guess fits, it does nothing until it is told a token. */
static void test_drafts_wait(void) {
    for (int full = 0; full < 2; full++) {
        stage *t = stage_new(0);
        griffin_draft *d = &t->w.draft;
        griffin_sampler s = t->s.sampler;
        int asked = 0;
        d->cost = 1e-4f;
        if (full) t->g.room = 3;
        else { s.mask = ban_all_but_the_first_time; s.mask_user = &asked; }
        CHECK(griffin_guess_take(&t->g, 9) == 0 && griffin_draft_take(d, 9) == 0, "%s", heard);
        CHECK(griffin_draft_next(d, &t->g, &s) == 1, "%s", heard);
        CHECK(griffin_draft_next(d, &t->g, &s) == (full ? 0 : GRIFFIN_E_NO_TOKEN), "%s", heard);
        for (int i = 0; i < 2 * GRIFFIN_DRAFT_TOKENS; i++)
            CHECK(griffin_draft_next(d, &t->g, &s) == 0, "%s", heard);
        CHECK(griffin_draft_take(d, -5) == GRIFFIN_E_ARGUMENT, "no such token");
        CHECK(griffin_draft_take(d, vocabulary(t->m)) == GRIFFIN_E_ARGUMENT, "no such token");
        s.mask = NULL;
        CHECK(griffin_guess_run(t->c, &t->g, 1) == 0, "%s", heard);
        CHECK(griffin_guess_take(&t->g, 11) >= 0 && griffin_draft_take(d, 11) == 0, "%s", heard);
        CHECK(griffin_guess_run(t->c, &t->g, 1) == 0, "%s", heard);
        CHECK(griffin_guess_take(&t->g, 12) >= 0 && griffin_draft_take(d, 12) == 0, "%s", heard);
        CHECK(griffin_draft_next(d, &t->g, &s) == 1, "%s", heard);
        CHECK(griffin_state_position(d->state) == t->s.prompted + 3, "at %d",
              (int)griffin_state_position(d->state));
        stage_free(t);
    }
}

static void test_drafts_refused(void) {
    stage *t = stage_new(0);
    griffin_model *other = open_model(STORYTELLER, 0);
    griffin_draft nothing;
    griffin_sampler s = t->s.sampler;
    memset(&nothing, 0, sizeof nothing);
    CHECK(griffin_draft_check(t->m, other) == GRIFFIN_E_MISMATCH, "another vocabulary");
    CHECK(griffin_draft_check(t->m, NULL) == GRIFFIN_E_ARGUMENT
          && griffin_draft_check(NULL, other) == GRIFFIN_E_ARGUMENT, "null");
    CHECK(griffin_draft_take(NULL, 1) == GRIFFIN_E_ARGUMENT, "null");
    CHECK(griffin_draft_take(&nothing, 1) == GRIFFIN_E_ARGUMENT, "empty");
    CHECK(griffin_draft_next(&t->w.draft, NULL, &s) == GRIFFIN_E_ARGUMENT, "null");
    CHECK(griffin_draft_next(&t->w.draft, &t->g, NULL) == GRIFFIN_E_ARGUMENT, "null");
    CHECK(griffin_draft_next(&t->w.draft, &t->g, &s) == 0, "it was told no token");
    t->w.draft.cost = 1e-4f;
    s.mask = ban_all;
    CHECK(griffin_guess_take(&t->g, 9) == 0, "%s", heard);
    CHECK(griffin_draft_take(&t->w.draft, 9) == 0, "%s", heard);
    CHECK(griffin_draft_next(&t->w.draft, &t->g, &s) == GRIFFIN_E_NO_TOKEN, "all are banned");
    s.mask = NULL;
    CHECK(griffin_draft_next(&t->w.draft, &t->g, &s) == 0, "it has no logits any more");
    for (int i = 0; i < 3 * GRIFFIN_DRAFT_TOKENS; i++)
        CHECK(griffin_draft_take(&t->w.draft, 2) == 0, "%s", heard);
    griffin_close(other);
    stage_free(t);
}

/* A mask that leaves one token: the random numbers and the weights are those of a long way. */
static void test_only_one(void) {
    griffin_model *m = open_model("build/data/griffin-tiny.gguf", 0);
    int V = vocabulary(m);
    for (int only = 0; only < V; only++) {
        float *x = new_logits(m, 1);
        griffin_sampler s = some_sampler(2 + only % 2);
        uint64_t seed = s.seed;
        for (int i = 0; i < V; i++) x[i] = i == only ? -2.5f : -INFINITY;
        CHECK(griffin_sample(m, &s, x) == only, "%d", only);
        CHECK(s.seed == seed + 0x9E3779B97F4A7C15u, "one random number");
        for (int i = 0; i < V; i++) CHECK(x[i] == (i == only ? 1.0f : 0.0f), "%g", (double)x[i]);
        free(x);
    }
    griffin_close(m);
}

int main(void) {
    RUN(test_only_one);
    RUN(test_interrupted);
    RUN(test_half_passes);
    RUN(test_state_put_back);
    RUN(test_times);
    RUN(test_refused);
    RUN(test_hostile_lookup);
    RUN(test_drafts_refused);
    RUN(test_drafts_wait);
    RUN(test_models);
    RUN(test_instruction_sets);
    RUN(test_grammars);
    return test_end();
}
