/* Promise: logits and states are the same bits however tokens are cut into calls, passes and units,
 * and whoever shares a call. */

#include "model.h"

enum { CROWD = 5 };

/* Five sequences: `from` to `to` of the tokens of each, starting at another token. */
typedef struct crowd {
    griffin_model *m;
    golden g;
    int V, from[CROWD], to[CROWD];
    griffin_state *state[CROWD];
    float *logits[CROWD];                   /* [tokens][V] */
} crowd;

/* Everyone has a past of another length, so that the call starts amid windows. */
static crowd crowd_new(int model, const char *type) {
    static const int from[CROWD] = { 0, 3, 9, 20, 1 }, count[CROWD] = { 1, 11, 1, 7, 23 };
    crowd w;
    memset(&w, 0, sizeof w);
    w.g = golden_read(model);
    w.m = golden_open(&w.g, type, NULL);
    w.V = vocabulary(w.m);
    griffin_context *c = new_context(w.m, 0, 0);
    for (int i = 0; i < CROWD; i++) {
        w.from[i] = from[i];
        w.to[i] = from[i] + count[i] < w.g.count ? from[i] + count[i] : w.g.count;
        w.state[i] = new_state(w.m);
        w.logits[i] = new_logits(w.m, MOST_TOKENS);
        run_chunks(w.m, c, w.state[i], w.g.tokens, from[i], 0, NULL);
    }
    free(c);
    return w;
}

static void crowd_free(crowd *w) {
    for (int i = 0; i < CROWD; i++) { free(w->state[i]); free(w->logits[i]); }
    griffin_close(w->m);
}

static void crowd_spans(const crowd *w, griffin_span *spans) {
    for (int i = 0; i < CROWD; i++)
        spans[i] = span_of(w->state[i], w->g.tokens + w->from[i], w->to[i] - w->from[i],
                           w->logits[i]);
}

/* `alone` had every sequence by itself, token by token. */
static void check_crowd(const crowd *w, const crowd *alone, const char *how, int number) {
    int wrong;
    for (int i = 0; i < CROWD; i++) {
        wrong = first_difference(w->logits[i], alone->logits[i], w->to[i] - w->from[i], w->V);
        CHECK(wrong < 0, "%s %s %d: sequence %d, token %d", w->g.name, how, number, i, wrong);
        CHECK(same_states(w->m, w->state[i], alone->state[i]), "%s %s %d: sequence %d", w->g.name,
              how, number, i);
    }
}

static void check_passes(int model, const char *type, const crowd *alone) {
    static const int rows[] = { 5, 6, 12, 43, 64 };
    griffin_span spans[CROWD];
    for (int i = 0; i < COUNT(rows); i++)
        for (int states = 1; states <= CROWD; states += 2) {
            crowd w = crowd_new(model, type);
            griffin_context *c = new_context(w.m, rows[i], states);
            crowd_spans(&w, spans);
            CHECK(griffin_run(c, spans, CROWD) == GRIFFIN_OK, "%d rows, %d states", rows[i],
                  states);
            check_crowd(&w, alone, "rows", rows[i]);
            free(c);
            crowd_free(&w);
        }
}

static void check_units(int model, const char *type, const crowd *alone) {
    static const int units[] = { 1, 3, 7, 1000000 };
    griffin_span spans[CROWD];
    int left, before;
    for (int i = 0; i < COUNT(units); i++) {
        crowd w = crowd_new(model, type);
        griffin_context *c = new_context(w.m, 64, CROWD);
        crowd_spans(&w, spans);
        left = griffin_begin(c, spans, CROWD);
        memset(spans, 0xee, sizeof spans);  /* they were copied */
        CHECK(left > 0, "%d", left);
        do {
            before = left;
            left = griffin_advance(c, units[i]);
            CHECK(left == (before > units[i] ? before - units[i] : 0), "%d of %d left", left,
                  before);
        } while (left > 0 && left < before);
        check_crowd(&w, alone, "units", units[i]);
        free(c);
        crowd_free(&w);
    }
}

static void test_company(void) {
    for (int model = 0; model < ALL_GOLDENS; model++)
        for (int type = 0; type < TYPES && model != GOLDENS - 1; type += 3) {   /* f32 and q8_0 */
            crowd alone = crowd_new(model, golden_types[type]);
            griffin_context *c = new_context(alone.m, 0, 0);
            for (int i = 0; i < CROWD; i++)
                run_chunks(alone.m, c, alone.state[i], alone.g.tokens + alone.from[i],
                           alone.to[i] - alone.from[i], 1, alone.logits[i]);
            free(c);
            check_passes(model, golden_types[type], &alone);
            check_units(model, golden_types[type], &alone);
            crowd_free(&alone);
        }
}

int main(void) {
    RUN(test_company);
    return test_end();
}
