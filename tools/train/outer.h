/* outer.h - the mixers of HGRN2 and SUPRA, whose states are sums of outer products; part of pass.h.
 *
 *     S[t] = f o S[t-1] + v k'        o[t] = S[t] q        for each head
 *
 *     HGRN2   q = silu(zq) / sqrt(hd)   f = bound + range sigmoid(zf)   k = 1 - f
 *     SUPRA   q = rotated features      f = decay                       k = rotated ones / sqrt(hd)
 *
 * A job is a key/value head of a sequence, with the heads that use it. S is kept where a stretch of
 * tokens begins; on the way back the states of one stretch are made again, some rows at a time, so
 * that they stay in the cache. */

/* q, k and f of a stretch, or their gradients, for one head: [STRETCH][width], zeros behind the
 * head's numbers. */
typedef struct stretch { int first, count, head; real *q, *k, *f; } stretch;

/* What the two families do differently. Rows of z are those of the sequence. */
typedef struct outer_rule {
    void (*make)(const pass *p, const view *a, const stretch *s);
    void (*query_back)(const pass *p, const view *a, const stretch *s, const stretch *d);
    void (*key_back)(const pass *p, const view *a, const stretch *s, const stretch *d);
} outer_rule;

static int state_row(const pass *p) { return net_state_row(&p->n->config); }

/* Where a head's numbers of token t are among the queries, or the keys and values. */
static size_t query_at(const view *a, int head, int t) {
    return a->start + at_row(t, a->D) + (size_t)(head * a->dim);
}
static size_t key_at(const view *a, int t) { return a->kv_start + at_row(t, a->keys_row); }

static stretch take_stretch(const pass *p, real **scratch) {
    stretch s = { 0, 0, 0, NULL, NULL, NULL };
    real **rows[] = { &s.q, &s.k, &s.f };
    for (int i = 0; i < 3; i++) *rows[i] = take_zeros(scratch, STRETCH * state_row(p));
    return s;
}

static void set_stretch(stretch *s, const view *a, int first, int head) {
    s->first = first;
    s->count = net_least(STRETCH, a->T - first);
    s->head = head;
}

/* The state of a head before stretch `index`. */
static real *kept_state(const pass *p, const view *a, int head, int index) {
    size_t before = (size_t)(a->sequence * p->n->config.heads + head);
    return p->l->kept + (before * (size_t)net_kept(a->T) + (size_t)index)
                      * net_head_state(&p->n->config);
}

static void begin_states(const pass *p, const view *a) {
    size_t size = net_head_state(&p->n->config);
    const real *carried = state_of(p->n, p->l, a->sequence);
    for (int h = a->head; h < a->head + a->heads; h++) {
        real *state = kept_state(p, a, h, 0);
        if (carried) memcpy(state, carried + (size_t)h * size, size * sizeof *state);
        else memset(state, 0, size * sizeof *state);
    }
}

static void read_stretch(const pass *p, const view *a, const stretch *s) {
    real *state = kept_state(p, a, s->head, s->first / STRETCH + 1);
    int width = state_row(p);
    memcpy(state, kept_state(p, a, s->head, s->first / STRETCH),
           net_head_state(&p->n->config) * sizeof *state);
    for (int i = 0; i < s->count; i++) {
        size_t row = at_row(i, width);
        outer_step(a->dim, width, s->f + row, s->k + row, p->l->values + key_at(a, s->first + i),
                   state, state);
        outer_read(a->dim, width, s->q + row, state,
                   p->l->mixed + query_at(a, s->head, s->first + i));
    }
}

static void outer_forward(const pass *p, int index, const outer_rule *rule, real *scratch) {
    view a = view_of(p->n, p->l, index);
    stretch s = take_stretch(p, &scratch);
    begin_states(p, &a);
    for (int first = 0; first < a.T; first += STRETCH)
        for (int h = a.head; h < a.head + a.heads; h++) {
            set_stretch(&s, &a, first, h);
            rule->make(p, &a, &s);
            read_stretch(p, &a, &s);
        }
}

/* Rows e to e + rows of the states in a stretch, [count + 1][rows][width]. */
static void make_states(const pass *p, const view *a, const stretch *s, int e, int rows,
                        real *states) {
    int width = state_row(p);
    size_t size = at_row(rows, width);
    memcpy(states, kept_state(p, a, s->head, s->first / STRETCH) + at_row(e, width),
           size * sizeof *states);
    for (int i = 0; i < s->count; i++, states += size)
        outer_step(rows, width, s->f + at_row(i, width), s->k + at_row(i, width),
                   p->l->values + key_at(a, s->first + i) + e, states, states + size);
}

/* Back through a stretch of a head, for some rows of its state. */
static void stretch_back(const pass *p, const view *a, const stretch *s, const stretch *d, int e,
                         int rows, const real *states, real *dS) {
    int width = state_row(p);
    size_t size = at_row(rows, width);
    for (int i = s->count - 1; i >= 0; i--) {
        size_t row = at_row(i, width), key = key_at(a, s->first + i) + (size_t)e;
        outer_token t = { s->q + row, s->k + row, s->f + row, p->l->values + key, NULL,
                          states + (size_t)i * size, states + (size_t)(i + 1) * size,
                          d->q + row, d->k + row, d->f + row, p->n->work.d_v + key };
        t.d_o = p->n->work.d_mixed + query_at(a, s->head, s->first + i) + e;
        outer_backward(rows, width, &t, dS);
    }
}

static void clear_values(const pass *p, const view *a, int first, int count) {
    for (int t = first; t < first + count; t++)
        memset(p->n->work.d_v + key_at(a, t), 0, (size_t)a->dim * sizeof(real));
}

/* What is left of the gradients where the sequence begins. */
static void put_back_states(const pass *p, const view *a, const real *dS) {
    real *d = d_state_of(p->n, p->l, a->sequence);
    size_t size = net_head_state(&p->n->config);
    if (d) memcpy(d + (size_t)a->head * size, dS, (size_t)a->heads * size * sizeof *d);
}

/* From work.d_mixed to work.d_q, d_k, d_v. */
static void outer_back(const pass *p, int index, const outer_rule *rule, real *scratch) {
    view a = view_of(p->n, p->l, index);
    stretch s = take_stretch(p, &scratch), d = take_stretch(p, &scratch);
    int width = state_row(p), head_size = (int)net_head_state(&p->n->config);
    real *states = take(&scratch, at_row((STRETCH + 1) * STRETCH, width));
    real *dS = take_zeros(&scratch, a.heads * head_size);
    for (int first = (a.T - 1) / STRETCH * STRETCH; first >= 0; first -= STRETCH) {
        size_t used = at_row(STRETCH, width) * sizeof(real);
        memset(d.k, 0, used);
        memset(d.f, 0, used);
        clear_values(p, &a, first, net_least(STRETCH, a.T - first));
        for (int h = a.head; h < a.head + a.heads; h++) {
            real *above = dS + (h - a.head) * head_size;
            set_stretch(&s, &a, first, h);
            memset(d.q, 0, used);
            rule->make(p, &a, &s);
            for (int e = 0; e < a.dim; e += STRETCH) {
                int rows = net_least(STRETCH, a.dim - e);
                make_states(p, &a, &s, e, rows, states);
                stretch_back(p, &a, &s, &d, e, rows, states, above + at_row(e, width));
            }
            rule->query_back(p, &a, &s, &d);
        }
        rule->key_back(p, &a, &s, &d);
    }
    put_back_states(p, &a, dS);
}

/* ---- HGRN2: the queries and keys of the layer are zq and zf ---------------------------------- */

/* A document forgets all that was before it. */
static void hgrn2_make(const pass *p, const view *a, const stretch *s) {
    int width = state_row(p);
    const real *bound = p->l->floor + s->head * a->dim, *range = bound + a->D;
    real scale = 1 / (real)sqrt((real)a->dim), slope;
    for (int i = 0; i < s->count; i++) {
        const real *zq = p->l->queries + query_at(a, s->head, s->first + i);
        const real *zf = p->l->keys + key_at(a, s->first + i);
        real *restrict q = s->q + i * width, *restrict k = s->k + i * width;
        real *restrict f = s->f + i * width, old = a->position[s->first + i] ? 1 : 0;
        for (int j = 0; j < a->dim; j++) {
            q[j] = silu(zq[j], &slope) * scale;
            k[j] = range[j] * sigmoid(-zf[j]);              /* 1 - f, with all digits */
            f[j] = old * (bound[j] + range[j] * sigmoid(zf[j]));
        }
    }
}

static void hgrn2_query_back(const pass *p, const view *a, const stretch *s, const stretch *d) {
    real scale = 1 / (real)sqrt((real)a->dim), slope;
    for (int i = 0; i < s->count; i++) {
        size_t at = query_at(a, s->head, s->first + i);
        const real *zq = p->l->queries + at, *dq = d->q + i * state_row(p);
        real *restrict to = p->n->work.d_q + at;
        for (int j = 0; j < a->dim; j++) {
            silu(zq[j], &slope);
            to[j] = dq[j] * scale * slope;
        }
    }
}

/* And the lower bounds' gradient; of the tokens backwards, so the last stretch is the first. */
static void hgrn2_key_back(const pass *p, const view *a, const stretch *s, const stretch *d) {
    const real *range = p->l->floor + a->D + s->head * a->dim;
    real *restrict sums = p->n->work.floor_sums + at_row(a->sequence, a->D) + s->head * a->dim;
    if (s->first + s->count == a->T) memset(sums, 0, (size_t)a->dim * sizeof *sums);
    for (int i = 0; i < s->count; i++) {
        size_t at = key_at(a, s->first + i);
        const real *zf = p->l->keys + at, *dk = d->k + i * state_row(p);
        const real *df = d->f + i * state_row(p);
        real *restrict to = p->n->work.d_k + at, old = a->position[s->first + i] ? 1 : 0;
        for (int j = 0; j < a->dim; j++) {
            real both = old * df[j] - dk[j], below = sigmoid(-zf[j]);
            sums[j] += both * below;
            to[j] = both * range[j] * below * sigmoid(zf[j]);
        }
    }
}

static const outer_rule hgrn2_rule = { hgrn2_make, hgrn2_query_back, hgrn2_key_back };

static void hgrn2_job(void *data, int index, real *scratch) {
    outer_forward((pass *)data, index, &hgrn2_rule, scratch);
}

static void hgrn2_backward_job(void *data, int index, real *scratch) {
    outer_back((pass *)data, index, &hgrn2_rule, scratch);
}

/* ---- SUPRA: the queries and keys of the layer are the features, not yet rotated -------------- */

/* x of token t, rotated and scaled: one way, or back. */
static void turn(const net *n, int t, real way, real scale, const real *from, real *to) {
    const griffin_config *g = &n->config;
    for (int j = 0; j < g->head_dim; j++) to[j] = from[j] * scale;
    rotate(1, g->head_dim, g->rope_dims / 2, n->turns + at_row(t, g->rope_dims), way, to);
}

static void supra_make(const pass *p, const view *a, const stretch *s) {
    int width = state_row(p);
    real scale = 1 / (real)sqrt((real)a->dim), decay = p->l->decay->value[s->head];
    for (int i = 0; i < s->count; i++) {
        int t = s->first + i;
        real f = a->position[t] ? decay : 0;
        turn(p->n, t, 1, 1, p->l->queries + query_at(a, s->head, t), s->q + i * width);
        turn(p->n, t, 1, scale, p->l->keys + key_at(a, t), s->k + i * width);
        for (int j = 0; j < width; j++) s->f[i * width + j] = f;
    }
}

static void supra_query_back(const pass *p, const view *a, const stretch *s, const stretch *d) {
    for (int i = 0; i < s->count; i++)
        turn(p->n, s->first + i, -1, 1, d->q + i * state_row(p),
             p->n->work.d_q + query_at(a, s->head, s->first + i));
}

static void supra_key_back(const pass *p, const view *a, const stretch *s, const stretch *d) {
    real scale = 1 / (real)sqrt((real)a->dim);
    for (int i = 0; i < s->count; i++)
        turn(p->n, s->first + i, -1, scale, d->k + i * state_row(p),
             p->n->work.d_k + key_at(a, s->first + i));
}

static const outer_rule supra_rule = { supra_make, supra_query_back, supra_key_back };

static void supra_job(void *data, int index, real *scratch) {
    outer_forward((pass *)data, index, &supra_rule, scratch);
}

static void supra_backward_job(void *data, int index, real *scratch) {
    outer_back((pass *)data, index, &supra_rule, scratch);
}

/* ---- what a sequence leaves ------------------------------------------------------------------ */

static void keep_hgrn2(const net *n, const layer *l, int sequence, real *to) {
    size_t size = net_head_state(&n->config);
    int states = net_kept(n->length), heads = n->config.heads;
    const real *from = l->kept + (size_t)(sequence * heads * states) * size;
    for (int h = 0; h < heads; h++, from += (size_t)states * size, to += size)
        memcpy(to, from + (size_t)(states - 1) * size, size * sizeof *to);
}

/* Keys are turned back by the length of the sequence: S is linear in them. */
static void keep_supra(const net *n, const layer *l, int sequence, real *to) {
    const griffin_config *g = &n->config;
    int half = g->rope_dims / 2;
    keep_hgrn2(n, l, sequence, to);
    rotate(g->heads * g->head_dim, net_state_row(g), half, n->turns + at_row(n->length, 2 * half),
           -1, to);
}
