/* pass.h - a group of sequences through the net and back, and the steps of AdamW and Muon.
 * Included by one file for each instruction set, which says how wide vectors are.
 *
 * A pass is a row of jobs over all threads: over blocks of rows where every token is for itself;
 * over sequences and heads, or gate blocks, in the mixers; over stripes of the weights for their
 * gradients, which sum over all rows of the group at once. No sum depends on the threads. */

/* Whatever the program is built with: loops become vectors, a product and a sum may be one
 * instruction, and nobody asks whether a comparison traps. */
#ifdef __clang__
  #pragma clang fp contract(fast)
#else
  #pragma GCC optimize("O3,fp-contract=fast,no-trapping-math")
#endif

#include "matrix.h"
#include "layers.h"

typedef struct pass { net *n; layer *l; } pass;

/* Memory of a thread for one job, handed out from the front. */
static real *take(real **scratch, size_t count) {
    real *memory = *scratch;
    *scratch += (count + 15) / 16 * 16;
    return memory;
}

/* The rows of a block, and a row's place in a matrix of that width. */
static int block_rows(const net *n, int block) { return net_least(BLOCK, n->rows - block * BLOCK); }
static size_t at_row(int row, int width) { return (size_t)row * (size_t)width; }

static int kv_width(const net *n, const layer *l) {
    return net_kv_heads(&n->config, l->kind) * n->config.head_dim;
}

static norm_rule stream_norm(const net *n) {
    norm_rule rule = { 0, 0, 0 };
    rule.width = n->config.width;
    rule.eps = (real)n->config.eps;
    rule.offset = (real)n->config.norm_offset;
    return rule;
}

static real mixer_eps(const net *n) {
    return n->config.mixer_eps > 0 ? (real)n->config.mixer_eps : (real)1e-5f;
}

static int is_silu(const net *n) { return n->config.activation == GRIFFIN_SILU; }

static real *take_zeros(real **scratch, int count) {
    real *memory = take(scratch, (size_t)count);
    memset(memory, 0, (size_t)count * sizeof *memory);
    return memory;
}

/* What a layer has from before a sequence, or null. */
static const real *state_of(const net *n, const layer *l, int sequence) {
    return n->state ? n->state + (size_t)sequence * n->state_size + l->state_at : NULL;
}

/* Where the gradient of that goes, or null. */
static real *d_state_of(const net *n, const layer *l, int sequence) {
    return n->d_state ? n->d_state + (size_t)sequence * n->state_size + l->state_at : NULL;
}

/* ---- dropout ------------------------------------------------------------------------------------
 * Some of the numbers that a mixer or an MLP takes, and of those between the MLP's products, become
 * 0. The others become larger, so that the mean stays (Srivastava et al., JMLR 2014). On the way
 * back the same places of the gradients become 0. */

enum { DROP_MIXER, DROP_MLP, DROP_INNER, DROP_SITES };

/* The 32 bits of a place, by murmur3's last step. */
static inline uint32_t drop_bits(uint32_t x) {
    x = (x ^ x >> 16) * 0x85EBCA6Bu;
    x = (x ^ x >> 13) * 0xC2B2AE35u;
    return x ^ x >> 16;
}

/* Rows of x from `first` of the group on. */
static void drop(const pass *p, int site, int first, int rows, int width, real *restrict x) {
    const net *n = p->n;
    uint64_t key = n->dice + (uint64_t)((p->l - n->layers) * DROP_SITES + site + 1);
    uint32_t least = (uint32_t)((double)n->drop * 4294967296.0);
    real larger = (real)(1 / (1 - (double)n->drop));
    if (!(n->drop > 0)) return;
    key = (key ^ key >> 30) * 0xBF58476D1CE4E5B9u;
    key = (key ^ key >> 27) * 0x94D049BB133111EBu;
    uint32_t start = (uint32_t)(key >> 32) + (uint32_t)(n->first_row + first) * (uint32_t)width;
    for (int i = 0; i < rows * width; i++)
        x[i] *= drop_bits(start + (uint32_t)i) >= least ? larger : 0;
}

/* ---- panels ---------------------------------------------------------------------------------- */

static void pack_job(void *data, int index, real *scratch) {
    net *n = (net *)data;
    matrix *list[LAYER_MATRICES];
    (void)scratch;
    if (index == n->config.layers) { pack_matrix(&n->embedding, 0); return; }
    for (int i = net_matrices(&n->layers[index], list); i-- > 0;)
        for (int b = 0; b < list[i]->blocks; b++) pack_matrix(list[i], b);
}

static void prepare(net *n) { net_each(n, n->config.layers + 1, pack_job, n); }

/* ---- recurrent mixer: a job is one gate block of one sequence -------------------------------- */

typedef struct lane {                       /* the channels of a block in one sequence */
    int   block, width;
    size_t start;                           /* its first number in an [M][E] matrix */
    const int32_t *position;                /* of the sequence's tokens */
    const real *taps_bias;
    real *taps, *rate;                      /* [K][width], [width] */
    const real *earlier, *h;                /* [K - 1][E] and [E] from before the sequence */
} lane;

static lane lane_of(const pass *p, int index, real **scratch) {
    const net *n = p->n;
    const griffin_config *g = &n->config;
    lane a;
    int sequence = index / g->gate_blocks, K = g->conv_width;
    a.block = index % g->gate_blocks;
    a.width = g->lru_width / g->gate_blocks;
    int first = a.block * a.width;
    a.start = at_row(sequence * n->length, g->lru_width) + (size_t)first;
    a.position = n->position + sequence * n->length;
    a.taps_bias = p->l->taps_bias->value + first;
    a.taps = take(scratch, at_row(K, a.width));
    a.rate = take(scratch, (size_t)a.width);
    a.earlier = state_of(n, p->l, sequence);
    a.h = take_zeros(scratch, a.width);
    if (a.earlier) {
        a.h = a.earlier + at_row(K - 1, g->lru_width) + first;
        a.earlier += first;
    }
    for (int j = 0; j < a.width; j++) {
        const real *w = p->l->taps->value + at_row(first + j, K);
        double v = (double)p->l->a_param->value[first + j];
        for (int s = 0; s < K; s++) a.taps[s * a.width + j] = w[K - 1 - s];
        a.rate[j] = (real)(-(double)g->decay * (fmax(v, 0.0) + log1p(exp(-fabs(v)))));
    }
    return a;
}

static void recurrent_job(void *data, int index, real *scratch) {
    pass *p = (pass *)data;
    layer *l = p->l;
    int T = p->n->length, E = p->n->config.lru_width;
    lane a = lane_of(p, index, &scratch);
    real *c = p->n->work.c + a.start;
    conv(T, a.width, p->n->config.conv_width, a.taps, a.taps_bias, a.position, a.earlier,
         l->z + a.start, c, (size_t)E);
    linear(&l->gate_x, a.block, T, c, (size_t)E, l->gx + a.start, (size_t)E, 0);
    linear(&l->gate_a, a.block, T, c, (size_t)E, l->ga + a.start, (size_t)E, 0);
    for (int t = 0; t < T; t++) {
        size_t at = a.start + at_row(t, E);
        rglru_row(a.width, a.position[t] ? 0 : ALL, a.rate, p->n->work.c + at, l->gx + at,
                  l->ga + at, t ? l->mixed + at - E : a.h, l->mixed + at);
    }
}

/* Sums of channels over one sequence: [K + 2][E], K taps, their bias, a_param. */
static void keep_channel_sums(const pass *p, const lane *a, int sequence, const real *dtaps,
                              const real *d_rate) {
    const griffin_config *g = &p->n->config;
    int K = g->conv_width, first = a->block * a->width;
    real *sums = p->n->work.channel_sums + at_row(sequence * (K + 2), g->lru_width) + first;
    copy_block(K + 1, a->width, dtaps, (size_t)a->width, sums, (size_t)g->lru_width);
    sums += at_row(K + 1, g->lru_width);
    for (int j = 0; j < a->width; j++)
        sums[j] = -(real)g->decay * d_rate[j] * sigmoid(p->l->a_param->value[first + j]);
}

/* What is left of the gradients where the sequence begins. */
static void recurrent_backward_state(const pass *p, const lane *a, const real *dc,
                                     const real *carry, real *d_state) {
    const griffin_config *g = &p->n->config;
    int first = a->block * a->width, E = g->lru_width, K = g->conv_width;
    conv_backward_earlier(p->n->length, a->width, K, a->taps, a->position, dc, (size_t)E,
                          d_state + first);
    copy_block(1, a->width, carry, 0, d_state + at_row(K - 1, E) + first, 0);
}

/* From work.d_mixed to gradients over z, gx and ga; and c, which the gates' weights want. */
static void recurrent_backward_job(void *data, int index, real *scratch) {
    pass *p = (pass *)data;
    layer *l = p->l;
    int T = p->n->length, E = p->n->config.lru_width, K = p->n->config.conv_width;
    lane a = lane_of(p, index, &scratch);
    size_t w = (size_t)a.width, row = (size_t)E;
    real *c = p->n->work.c + a.start, *dc = p->n->work.d_c + a.start;
    real *carry = take(&scratch, w), *d_rate = take(&scratch, w);
    real *dtaps = take(&scratch, (size_t)(K + 1) * w);
    memset(carry, 0, w * sizeof *carry);
    memset(d_rate, 0, w * sizeof *d_rate);
    memset(dtaps, 0, (size_t)(K + 1) * w * sizeof *dtaps);
    conv(T, a.width, K, a.taps, a.taps_bias, a.position, a.earlier, l->z + a.start, c, row);
    for (int t = T - 1; t >= 0; t--) {
        size_t at = a.start + at_row(t, E);
        rglru_row_backward(a.width, a.position[t] ? 0 : ALL, a.rate, p->n->work.c + at,
                           p->n->work.d_mixed + at, t ? l->mixed + at - E : a.h, carry,
                           l->gx + at, l->ga + at, dc + at_row(t, E), d_rate);
    }
    linear_backward(&l->gate_x, a.block, T, l->gx + a.start, row, dc, row, 1);
    linear_backward(&l->gate_a, a.block, T, l->ga + a.start, row, dc, row, 1);
    conv_backward(T, a.width, K, a.taps, a.position, a.earlier, l->z + a.start, dc, row, dtaps);
    keep_channel_sums(p, &a, index / p->n->config.gate_blocks, dtaps, d_rate);
    real *d_state = d_state_of(p->n, l, index / p->n->config.gate_blocks);
    if (d_state) recurrent_backward_state(p, &a, dc, carry, d_state);
}

/* ---- attention mixer: a job is one key/value head of one sequence -------------------------------
 * Keys and values are counted from the first that is carried from before the sequence, if any. */

typedef struct view {                       /* of a key/value head in one sequence */
    int    sequence, head, heads;           /* the first query head that uses it, how many */
    int    T, D, dim, keys_row;
    int    before, span;                    /* carried keys; all of them */
    size_t start, kv_start, kv_first;       /* first numbers in [M][D], [M][G hd], [G hd] */
    const int32_t *position;
} view;

static view view_of(const net *n, const layer *l, int index) {
    const griffin_config *g = &n->config;
    int kv_heads = net_kv_heads(g, l->kind);
    view a;
    a.sequence = index / kv_heads;
    a.heads = g->heads / kv_heads;
    a.head = index % kv_heads * a.heads;
    a.T = n->length;
    a.D = g->width;
    a.dim = g->head_dim;
    a.keys_row = kv_width(n, l);
    a.before = n->state ? g->window : 0;
    a.span = a.before + a.T;
    a.start = at_row(a.sequence * a.T, a.D);
    a.kv_first = (size_t)(index % kv_heads * a.dim);
    a.kv_start = at_row(a.sequence * a.T, a.keys_row) + a.kv_first;
    a.position = n->position + a.sequence * a.T;
    return a;
}

/* What the queries from `first` on see: keys low (whole panels) to high, and row by row. */
typedef struct sight { int first, rows, low, high; } sight;

static int first_seen(const net *n, const view *a, int t) {
    return a->before + t - net_least(a->position[t], n->config.window);
}

static sight sight_of(const net *n, const view *a, int first) {
    sight s;
    s.first = first;
    s.rows = net_least(QUERY, a->T - first);
    s.high = a->before + first + s.rows;
    s.low = a->before + first;
    for (int t = first; t < first + s.rows; t++) s.low = net_least(s.low, first_seen(n, a, t));
    s.low = s.low / COLS * COLS;
    return s;
}

/* s [rows][high - low] = q k', keys being in panels of a column for each */
static void score(const view *a, const sight *s, const real *q, const real *key_panels,
                  real *scores) {
    product p = { s->rows, s->high - s->low, a->dim, q, (size_t)a->D, 0, NULL, 0, NULL, 0,
                  scores, 0 };
    p.b = key_panels + at_row(s->low, terms(a->dim));
    p.b_panel = (size_t)(terms(a->dim) * COLS);
    p.c_row = (size_t)p.cols;
    multiply(&p);
}

/* out [rows][dim] = factors [rows][high - low] times what the keys have, in panels of all keys */
static void gather(const view *a, const sight *s, const real *factors, const real *panels,
                   real *out) {
    product p = { s->rows, a->dim, s->high - s->low, factors, 0, 0, NULL, 0, NULL, 0, out, 0 };
    p.a_row = (size_t)p.depth;
    p.b = panels + at_row(s->low / TERM, COLS);
    p.b_panel = at_row(terms(a->span), COLS);
    p.c_row = (size_t)a->D;
    multiply(&p);
}

/* out [high - low][dim] += factors' rows, where the rows are those of queries */
static void spread(const view *a, const sight *s, const real *factors, const real *rows, real *out,
                   real *scratch) {
    outer o = { s->high - s->low, a->dim, factors, rows, 0, (size_t)a->D, NULL, 0 };
    o.a_row = (size_t)o.a_cols;
    o.c = out + at_row(s->low, a->dim);
    o.c_row = (size_t)a->dim;
    for (int row = 0; row < o.a_cols; row += STRIPE_ROWS)
        for (int col = 0; col < o.b_cols; col += STRIPE_COLS)
            add_outer(&o, s->rows, row, col, scratch);
}

/* [span][dim] keys of a head, or its values: those carried, then those of the sequence. */
static const real *join(const net *n, const view *a, const layer *l, int values, real **scratch) {
    real *rows = take(scratch, at_row(a->span, a->dim));
    const real *carried = state_of(n, l, a->sequence), *own = values ? l->values : l->keys;
    if (carried) {
        carried += (values ? at_row(a->before, a->keys_row) : 0) + a->kv_first;
        copy_block(a->before, a->dim, carried, (size_t)a->keys_row, rows, (size_t)a->dim);
    }
    copy_block(a->T, a->dim, own + a->kv_start, (size_t)a->keys_row,
               rows + at_row(a->before, a->dim), (size_t)a->dim);
    return rows;
}

/* A panel column for each key, or for each number of a head. */
static real *pack_by_key(const view *a, const real *rows, real **scratch) {
    real *panels = take(scratch, panels_size(a->span, a->dim));
    pack_columns(COLS, a->span, a->dim, rows, (size_t)a->dim, panels);
    return panels;
}

static real *pack_by_number(const view *a, const real *rows, real **scratch) {
    real *panels = take(scratch, panels_size(a->dim, a->span));
    pack_rows(COLS, a->dim, a->span, rows, (size_t)a->dim, panels, at_row(terms(a->span), COLS));
    return panels;
}

/* Scores to probabilities; `fresh`: their logarithmic sums are not known yet. */
static void weigh_rows(const pass *p, const view *a, const sight *s, int head, int fresh,
                       real *scores) {
    const griffin_config *g = &p->n->config;
    int keys = s->high - s->low;
    real scale = 1 / (real)sqrt((real)a->dim);
    for (int i = 0; i < s->rows; i++, scores += keys) {
        int t = s->first + i, from = first_seen(p->n, a, t) - s->low;
        int to = a->before + t + 1 - s->low;
        real *sum = p->l->weighing + at_row(a->sequence * a->T + t, g->heads) + head;
        if (fresh) *sum = log_sum_exp(scores + from, to - from, scale);
        weigh(keys, from, to, scale, *sum, scores);
    }
}

static void attention_job(void *data, int index, real *scratch) {
    pass *p = (pass *)data;
    view a = view_of(p->n, p->l, index);
    const real *keys = pack_by_key(&a, join(p->n, &a, p->l, 0, &scratch), &scratch);
    const real *values = pack_by_number(&a, join(p->n, &a, p->l, 1, &scratch), &scratch);
    real *scores = take(&scratch, at_row(QUERY, net_rounded(a.span, WIDEST)));
    for (int h = a.head; h < a.head + a.heads; h++)
        for (int t = 0; t < a.T; t += QUERY) {
            sight s = sight_of(p->n, &a, t);
            size_t at = a.start + at_row(t, a.D) + (size_t)(h * a.dim);
            score(&a, &s, p->l->queries + at, keys, scores);
            weigh_rows(p, &a, &s, h, 1, scores);
            gather(&a, &s, scores, values, p->l->mixed + at);
        }
}

/* Gradients of keys or values to work, and of those carried to the state, if they are wanted. */
static void put_back(const pass *p, const view *a, const real *d_rows, real *own, int values) {
    real *d = d_state_of(p->n, p->l, a->sequence);
    size_t dim = (size_t)a->dim, row = (size_t)a->keys_row;
    copy_block(a->T, a->dim, d_rows + at_row(a->before, a->dim), dim, own + a->kv_start, row);
    if (!d) return;
    d += (values ? at_row(a->before, a->keys_row) : 0) + a->kv_first;
    copy_block(a->before, a->dim, d_rows, dim, d, row);
}

/* From work.d_mixed to work.d_q, d_k, d_v. */
static void attention_backward_job(void *data, int index, real *scratch) {
    pass *p = (pass *)data;
    const work *w = &p->n->work;
    view a = view_of(p->n, p->l, index);
    const real *key_rows = join(p->n, &a, p->l, 0, &scratch);
    const real *keys = pack_by_key(&a, key_rows, &scratch);
    const real *turned_keys = pack_by_number(&a, key_rows, &scratch);
    const real *values = pack_by_key(&a, join(p->n, &a, p->l, 1, &scratch), &scratch);
    real *d_k = take_zeros(&scratch, a.span * a.dim), *d_v = take_zeros(&scratch, a.span * a.dim);
    real *scores = take(&scratch, at_row(QUERY, net_rounded(a.span, WIDEST)));
    real *d_scores = take(&scratch, at_row(QUERY, net_rounded(a.span, WIDEST)));
    for (int h = a.head; h < a.head + a.heads; h++)
        for (int t = 0; t < a.T; t += QUERY) {
            sight s = sight_of(p->n, &a, t);
            size_t at = a.start + at_row(t, a.D) + (size_t)(h * a.dim);
            int count = s.high - s.low;
            score(&a, &s, p->l->queries + at, keys, scores);
            weigh_rows(p, &a, &s, h, 0, scores);
            spread(&a, &s, scores, w->d_mixed + at, d_v, scratch);
            score(&a, &s, w->d_mixed + at, values, d_scores);
            for (int i = 0; i < s.rows; i++)
                weigh_backward(count, 1 / (real)sqrt((real)a.dim), scores + at_row(i, count),
                               d_scores + at_row(i, count));
            gather(&a, &s, d_scores, turned_keys, w->d_q + at);
            spread(&a, &s, d_scores, p->l->queries + at, d_k, scratch);
        }
    put_back(p, &a, d_k, w->d_k, 0);
    put_back(p, &a, d_v, w->d_v, 1);
}

#include "outer.h"

/* ---- before the mixers: blocks of rows ------------------------------------------------------- */

static void project(const matrix *m, int first, int rows, const real *x, real *y) {
    linear(m, 0, rows, x, (size_t)m->in, y + at_row(first, m->out), (size_t)m->out, 0);
}

/* dx = W' dy, or that added to it. */
static void project_back(const matrix *m, int first, int rows, const real *dy, real *dx, int add) {
    linear_backward(m, 0, rows, dy + at_row(first, m->out), (size_t)m->out, dx, (size_t)m->in, add);
}

static void project_recurrent(const pass *p, int first, int rows, const real *x) {
    project(&p->l->y, first, rows, x, p->l->y_in);
    project(&p->l->x, first, rows, x, p->l->z);
}

static void project_recurrent_back(const pass *p, int first, int rows, real *dx) {
    project_back(&p->l->y, first, rows, p->l->y_in, dx, 0);
    project_back(&p->l->x, first, rows, p->l->z, dx, 1);
}

static void project_heads(const pass *p, int first, int rows, const real *x) {
    project(&p->l->q, first, rows, x, p->l->queries);
    project(&p->l->k, first, rows, x, p->l->keys);
    project(&p->l->v, first, rows, x, p->l->values);
}

static void project_heads_back(const pass *p, int first, int rows, real *dx) {
    project_back(&p->l->q, first, rows, p->n->work.d_q, dx, 0);
    project_back(&p->l->k, first, rows, p->n->work.d_k, dx, 1);
    project_back(&p->l->v, first, rows, p->n->work.d_v, dx, 1);
}

/* Only differences of positions matter, so they are counted from the sequence's first. */
static void rotate_rows(const net *n, int first, int rows, int heads, real way, real *x) {
    const griffin_config *g = &n->config;
    int half = g->rope_dims / 2;
    for (int t = first; t < first + rows; t++)
        rotate(heads, g->head_dim, half, n->turns + at_row(t % n->length, 2 * half), way,
               x + at_row(t, heads * g->head_dim));
}

static void project_attention(const pass *p, int first, int rows, const real *x) {
    const griffin_config *g = &p->n->config;
    project_heads(p, first, rows, x);
    rotate_rows(p->n, first, rows, g->heads, 1, p->l->queries);
    rotate_rows(p->n, first, rows, g->kv_heads, 1, p->l->keys);
}

static void project_attention_back(const pass *p, int first, int rows, real *dx) {
    const griffin_config *g = &p->n->config;
    rotate_rows(p->n, first, rows, g->heads, -1, p->n->work.d_q);
    rotate_rows(p->n, first, rows, g->kv_heads, -1, p->n->work.d_k);
    project_heads_back(p, first, rows, dx);
}

static void project_supra(const pass *p, int first, int rows, const real *x) {
    const matrix *features[] = { &p->l->q, &p->l->k };
    project_heads(p, first, rows, x);
    for (int i = 0; i < 2; i++)
        relu(at_row(rows, features[i]->out),
             (i ? p->l->keys : p->l->queries) + at_row(first, features[i]->out));
}

static void project_supra_back(const pass *p, int first, int rows, real *dx) {
    size_t q = at_row(first, p->l->q.out), k = at_row(first, p->l->k.out);
    relu_backward(at_row(rows, p->l->q.out), p->l->queries + q, p->n->work.d_q + q);
    relu_backward(at_row(rows, p->l->k.out), p->l->keys + k, p->n->work.d_k + k);
    project_heads_back(p, first, rows, dx);
}

/* ---- after the mixers: what the output projection takes; blocks of rows ---------------------- */

/* Where the gradient of a norm's gain is summed over a block; which = 0, 1, or 2 in a mixer. */
static real *norm_sum(const net *n, int which, int block) {
    int blocks = net_pieces(n->capacity, BLOCK), D = n->config.width;
    real *sum = n->work.norm_sums + at_row(which * blocks + block, D);
    memset(sum, 0, (size_t)D * sizeof *sum);
    return sum;
}

static void add_norm_sums(net *n, int which, net_weight *gain) {
    int D = n->config.width, blocks = net_pieces(n->capacity, BLOCK);
    add_rows(net_pieces(n->rows, BLOCK), D, n->work.norm_sums + at_row(which * blocks, D),
             (size_t)D, gain->gradient);
}

/* Way back: from work.d_mixed, which is of what `finish` returned, to that of mixed; and what it
 * returned to work.product. */

static const real *finish_recurrent(const pass *p, int first, int rows, real *scratch) {
    int E = p->n->config.lru_width;
    gated(is_silu(p->n), at_row(rows, E), p->l->y_in + at_row(first, E),
          p->l->mixed + at_row(first, E), scratch);
    return scratch;
}

static void finish_recurrent_back(const pass *p, int first, int rows) {
    int E = p->n->config.lru_width;
    size_t at = at_row(first, E);
    gated_backward(is_silu(p->n), at_row(rows, E), p->l->y_in + at, p->l->mixed + at,
                   p->n->work.d_mixed + at, p->n->work.product + at);
}

static const real *finish_attention(const pass *p, int first, int rows, real *scratch) {
    (void)rows;
    (void)scratch;
    return p->l->mixed + at_row(first, p->n->config.width);
}

static void finish_attention_back(const pass *p, int first, int rows) {
    (void)p;
    (void)first;
    (void)rows;
}

static norm_rule mixer_norm(const net *n) {
    norm_rule rule = stream_norm(n);
    rule.eps = mixer_eps(n);
    return rule;
}

static const real *finish_hgrn2(const pass *p, int first, int rows, real *scratch) {
    norm(mixer_norm(p->n), rows, p->l->mixed + at_row(first, p->n->config.width),
         p->l->group_norm->value, scratch);
    return scratch;
}

static void finish_hgrn2_back(const pass *p, int first, int rows) {
    const work *w = &p->n->work;
    size_t at = at_row(first, p->n->config.width);
    const real *gain = p->l->group_norm->value;
    norm(mixer_norm(p->n), rows, p->l->mixed + at, gain, w->product + at);
    norm_backward(mixer_norm(p->n), rows, p->l->mixed + at, gain, w->d_mixed + at, NULL,
                  w->d_mixed + at, norm_sum(p->n, 2, first / BLOCK));
}

static const real *finish_supra(const pass *p, int first, int rows, real *scratch) {
    const griffin_config *g = &p->n->config;
    const real *x = p->l->mixed + at_row(first, g->width);
    for (int i = 0; i < rows * g->heads; i++)
        head_norm(g->head_dim, mixer_eps(p->n), x + at_row(i, g->head_dim),
                  scratch + at_row(i, g->head_dim));
    return scratch;
}

static void finish_supra_back(const pass *p, int first, int rows) {
    const griffin_config *g = &p->n->config;
    for (int i = 0; i < rows * g->heads; i++) {
        size_t at = at_row(first, g->width) + at_row(i, g->head_dim);
        head_norm_backward(g->head_dim, mixer_eps(p->n), p->l->mixed + at,
                           p->n->work.product + at, p->n->work.d_mixed + at);
    }
}

/* ---- gradients of weights: a job is a stripe of one of a layer's matrices -------------------- */

typedef struct harvest {                    /* all x of a matrix, and the gradients of all its y */
    const matrix *m;
    const real   *x, *dy;
    size_t        dy_row;
    int           jobs;                     /* of one block */
} harvest;

typedef struct harvests { const net *n; int rows, count; harvest list[8]; } harvests;

static void add_harvest(harvests *s, const matrix *m, const real *x, const real *dy) {
    harvest *h = &s->list[s->count++];
    h->m = m;
    h->x = x;
    h->dy = dy;
    h->dy_row = (size_t)(m->out * m->blocks);
    h->jobs = net_pieces(m->gate ? m->in : m->out, STRIPE_ROWS)
            * net_pieces(m->gate ? m->out : m->in, STRIPE_COLS);
}

/* One stripe; the job that has a row's first numbers also has its bias. */
static void harvest_stripe(const harvest *h, int rows, int block, int stripe, real *scratch) {
    const matrix *m = h->m;
    size_t in = (size_t)m->in, out = (size_t)m->out, b = (size_t)block;
    size_t x_row = in * (size_t)m->blocks, dy_row = h->dy_row;
    const real *x = h->x + b * in, *dy = h->dy + b * out;
    outer o = { m->out, m->in, dy, x, dy_row, x_row, NULL, in };
    outer turned = { m->in, m->out, x, dy, x_row, dy_row, NULL, out };
    if (m->gate) o = turned;
    o.c = m->weight->gradient + b * in * out;
    int across = net_pieces(o.b_cols, STRIPE_COLS);
    int row = stripe / across * STRIPE_ROWS, col = stripe % across * STRIPE_COLS;
    add_outer(&o, rows, row, col, scratch);
    if (!m->bias || stripe % across) return;
    real *sum = m->bias->gradient + b * out;
    if (!m->gate) add_rows(rows, net_least(STRIPE_ROWS, m->out - row), dy + row, dy_row, sum + row);
    else if (stripe == 0) add_rows(rows, m->out, dy, dy_row, sum);
}

static void harvest_job(void *data, int index, real *scratch) {
    harvests *s = (harvests *)data;
    const harvest *h = s->list;
    for (; index >= h->jobs * h->m->blocks; h++) index -= h->jobs * h->m->blocks;
    harvest_stripe(h, s->rows, index / h->jobs, index % h->jobs, scratch);
}

static void run_harvests(harvests *s) {
    int jobs = 0;
    for (int i = 0; i < s->count; i++) jobs += s->list[i].jobs * s->list[i].m->blocks;
    net_each(s->n, jobs, harvest_job, s);
}

/* ---- gradients of a mixer's weights ---------------------------------------------------------- */

static void harvest_recurrent(const pass *p, harvests *s) {
    const work *w = &p->n->work;
    add_harvest(s, &p->l->out, w->product, w->d_middle);
    add_harvest(s, &p->l->y, w->n1, p->l->y_in);
    add_harvest(s, &p->l->x, w->n1, p->l->z);
    add_harvest(s, &p->l->gate_x, w->c, p->l->gx);
    add_harvest(s, &p->l->gate_a, w->c, p->l->ga);
}

static void harvest_heads(const pass *p, harvests *s, const real *mixed) {
    const work *w = &p->n->work;
    add_harvest(s, &p->l->out, mixed, w->d_middle);
    add_harvest(s, &p->l->q, w->n1, w->d_q);
    add_harvest(s, &p->l->k, w->n1, w->d_k);
    add_harvest(s, &p->l->v, w->n1, w->d_v);
}

static void harvest_attention(const pass *p, harvests *s) { harvest_heads(p, s, p->l->mixed); }
static void harvest_outer(const pass *p, harvests *s) { harvest_heads(p, s, p->n->work.product); }

static void add_channel_sums(net *n, layer *l) {
    int E = n->config.lru_width, K = n->config.conv_width;
    for (int s = 0; s < n->rows / n->length; s++) {
        const real *sums = n->work.channel_sums + at_row(s * (K + 2), E);
        for (int k = 0; k < K; k++)
            for (int e = 0; e < E; e++)
                l->taps->gradient[e * K + K - 1 - k] += sums[k * E + e];
        add_rows(1, E, sums + at_row(K, E), 0, l->taps_bias->gradient);
        add_rows(1, E, sums + at_row(K + 1, E), 0, l->a_param->gradient);
    }
}

static void add_hgrn2_sums(net *n, layer *l) {
    int D = n->config.width;
    real *floors = n->work.d_floors + at_row((int)(l - n->layers), D);
    add_norm_sums(n, 2, l->group_norm);
    memset(floors, 0, (size_t)D * sizeof *floors);
    add_rows(n->rows / n->length, D, n->work.floor_sums, (size_t)D, floors);
}

static void no_sums(net *n, layer *l) {
    (void)n;
    (void)l;
}

/* ---- what a sequence leaves --------------------------------------------------------------- */

/* The last `count` of the rows carried and the T own ones. */
static void keep_rows(int count, int T, int width, const real *carried, const real *own, real *to) {
    for (int i = 0; i < count; i++, to += width) {
        const real *from = T + i >= count ? own + at_row(T + i - count, width)
                         : carried ? carried + at_row(T + i, width) : NULL;
        if (from) memcpy(to, from, (size_t)width * sizeof *to);
        else memset(to, 0, (size_t)width * sizeof *to);
    }
}

static void keep_recurrent(const net *n, const layer *l, int sequence, real *to) {
    int T = n->length, E = n->config.lru_width, count = n->config.conv_width - 1;
    keep_rows(count, T, E, state_of(n, l, sequence), l->z + at_row(sequence * T, E), to);
    copy_block(1, E, l->mixed + at_row(sequence * T + T - 1, E), 0, to + at_row(count, E), 0);
}

/* Keys are turned back by the length of the sequence. */
static void keep_attention(const net *n, const layer *l, int sequence, real *to) {
    const griffin_config *g = &n->config;
    int T = n->length, W = g->window, kv = kv_width(n, l), half = g->rope_dims / 2;
    const real *carried = state_of(n, l, sequence);
    size_t own = at_row(sequence * T, kv), values = at_row(W, kv);
    keep_rows(W, T, kv, carried, l->keys + own, to);
    keep_rows(W, T, kv, carried ? carried + values : NULL, l->values + own, to + values);
    for (int t = 0; t < W; t++)
        rotate(g->kv_heads, g->head_dim, half, n->turns + at_row(T, 2 * half), -1,
               to + at_row(t, kv));
}

/* ---- the kinds of mixers --------------------------------------------------------------------- */

static int gate_blocks(const net *n, const layer *l) {
    (void)l;
    return n->config.gate_blocks;
}
static int kv_heads(const net *n, const layer *l) { return net_kv_heads(&n->config, l->kind); }

typedef struct mixer {
    void (*project)(const pass *p, int first, int rows, const real *x);
    int  (*jobs)(const net *n, const layer *l);             /* of a sequence */
    net_job run;
    const real *(*finish)(const pass *p, int first, int rows, real *scratch);
    void (*finish_back)(const pass *p, int first, int rows);
    net_job run_back;
    void (*project_back)(const pass *p, int first, int rows, real *dx);
    void (*harvest)(const pass *p, harvests *s);            /* of its matrices; at most 5 */
    void (*sums)(net *n, layer *l);                         /* of its other weights */
    void (*keep)(const net *n, const layer *l, int sequence, real *to);
} mixer;

/* In the order of NET_LETTERS. */
static const mixer mixers[sizeof NET_LETTERS - 1] = {
    { project_recurrent, gate_blocks, recurrent_job, finish_recurrent, finish_recurrent_back,
      recurrent_backward_job, project_recurrent_back, harvest_recurrent, add_channel_sums,
      keep_recurrent },
    { project_attention, kv_heads, attention_job, finish_attention, finish_attention_back,
      attention_backward_job, project_attention_back, harvest_attention, no_sums, keep_attention },
    { project_heads, kv_heads, hgrn2_job, finish_hgrn2, finish_hgrn2_back, hgrn2_backward_job,
      project_heads_back, harvest_outer, add_hgrn2_sums, keep_hgrn2 },
    { project_supra, kv_heads, supra_job, finish_supra, finish_supra_back, supra_backward_job,
      project_supra_back, harvest_outer, no_sums, keep_supra }
};

/* ---- a layer, forward: before the mixer, after it; a job is a block of rows ------------------ */

static void before_mixer_job(void *data, int index, real *scratch) {
    pass *p = (pass *)data;
    int first = index * BLOCK, rows = block_rows(p->n, index), D = p->n->config.width;
    real *x = take(&scratch, at_row(BLOCK, D));
    norm(stream_norm(p->n), rows, p->l->input + at_row(first, D), p->l->norm1->value, x);
    drop(p, DROP_MIXER, first, rows, D, x);
    mixers[p->l->kind].project(p, first, rows, x);
}

/* y = x + W from + b */
static void add_linear(const matrix *m, int rows, const real *from, const real *x, real *y) {
    size_t in = (size_t)m->in, out = (size_t)m->out;
    for (int t = 0; t < rows; t++)
        for (size_t j = 0; j < out; j++)
            y[(size_t)t * out + j] = x[(size_t)t * out + j] + (m->bias ? m->bias->value[j] : 0);
    linear(m, 0, rows, from, in, y, out, 1);
}

static void after_mixer_job(void *data, int index, real *scratch) {
    pass *p = (pass *)data;
    layer *l = p->l;
    int first = index * BLOCK, rows = block_rows(p->n, index);
    int D = p->n->config.width, F = p->n->config.mlp_width;
    real *x = take(&scratch, at_row(BLOCK, D)), *m = take(&scratch, at_row(BLOCK, F));
    real *middle = l->middle + at_row(first, D);
    real *gate = l->g + at_row(first, F), *up = l->u + at_row(first, F);
    const real *mixed = mixers[l->kind].finish(p, first, rows, scratch);
    add_linear(&l->out, rows, mixed, l->input + at_row(first, D), middle);
    norm(stream_norm(p->n), rows, middle, l->norm2->value, x);
    drop(p, DROP_MLP, first, rows, D, x);
    project(&l->gate, first, rows, x, l->g);
    project(&l->up, first, rows, x, l->u);
    gated(is_silu(p->n), at_row(rows, F), gate, up, m);
    drop(p, DROP_INNER, first, rows, F, m);
    add_linear(&l->down, rows, m, middle, l->output + at_row(first, D));
}

/* ---- a layer, backward ----------------------------------------------------------------------- */

/* From work.d_out to work.d_middle and work.d_mixed. */
static void after_mixer_backward_job(void *data, int index, real *scratch) {
    pass *p = (pass *)data;
    const work *w = &p->n->work;
    layer *l = p->l;
    int first = index * BLOCK, rows = block_rows(p->n, index);
    int D = p->n->config.width, F = p->n->config.mlp_width;
    size_t at = at_row(first, D), at_f = at_row(first, F);
    real *dx = take(&scratch, at_row(BLOCK, D));
    norm(stream_norm(p->n), rows, l->middle + at, l->norm2->value, w->n2 + at);
    drop(p, DROP_MLP, first, rows, D, w->n2 + at);
    project_back(&l->down, first, rows, w->d_out, w->d_u + at_f, 0);
    drop(p, DROP_INNER, first, rows, F, w->d_u + at_f);
    gated_backward(is_silu(p->n), at_row(rows, F), l->g + at_f, l->u + at_f, w->d_u + at_f,
                   w->m + at_f);
    drop(p, DROP_INNER, first, rows, F, w->m + at_f);
    project_back(&l->gate, first, rows, l->g, dx, 0);
    project_back(&l->up, first, rows, w->d_u, dx, 1);
    drop(p, DROP_MLP, first, rows, D, dx);
    norm_backward(stream_norm(p->n), rows, l->middle + at, l->norm2->value, dx, w->d_out + at,
                  w->d_middle + at, norm_sum(p->n, 1, index));
    project_back(&l->out, first, rows, w->d_middle, w->d_mixed + at_row(first, l->out.in), 0);
    mixers[l->kind].finish_back(p, first, rows);
}

/* From the gradients of the mixer's inputs to work.d_in. */
static void before_mixer_backward_job(void *data, int index, real *scratch) {
    pass *p = (pass *)data;
    const work *w = &p->n->work;
    layer *l = p->l;
    int first = index * BLOCK, rows = block_rows(p->n, index), D = p->n->config.width;
    size_t at = at_row(first, D);
    real *dx = take(&scratch, at_row(BLOCK, D));
    norm(stream_norm(p->n), rows, l->input + at, l->norm1->value, w->n1 + at);
    drop(p, DROP_MIXER, first, rows, D, w->n1 + at);
    mixers[l->kind].project_back(p, first, rows, dx);
    drop(p, DROP_MIXER, first, rows, D, dx);
    norm_backward(stream_norm(p->n), rows, l->input + at, l->norm1->value, dx, w->d_middle + at,
                  w->d_in + at, norm_sum(p->n, 0, index));
}

static void harvest_layer(pass *p) {
    const work *w = &p->n->work;
    layer *l = p->l;
    harvests s = { p->n, p->n->rows, 0, { { NULL, NULL, NULL, 0, 0 } } };
    add_harvest(&s, &l->gate, w->n2, l->g);
    add_harvest(&s, &l->up, w->n2, w->d_u);
    add_harvest(&s, &l->down, w->m, w->d_out);
    mixers[l->kind].harvest(p, &s);
    run_harvests(&s);
}

/* ---- embedding and output head --------------------------------------------------------------- */

static void embed_job(void *data, int index, real *scratch) {
    const net *n = (const net *)data;
    int D = n->config.width, first = index * BLOCK;
    (void)scratch;
    for (int t = first; t < first + block_rows(n, index); t++) {
        const real *from = n->embedding.weight->value + at_row(n->tokens[t], D);
        real *restrict x = n->layers[0].input + at_row(t, D);
        for (int j = 0; j < D; j++) x[j] = from[j] * (real)n->config.embedding_scale;
    }
}

/* A job is a few columns: rows of the same token must not meet. */
enum { EMBED_COLS = 64 };

static void embed_backward_job(void *data, int index, real *scratch) {
    const net *n = (const net *)data;
    int D = n->config.width, first = index * EMBED_COLS, cols = net_least(EMBED_COLS, D - first);
    (void)scratch;
    for (int t = 0; t < n->rows; t++) {
        real *restrict sum = n->embedding.weight->gradient + at_row(n->tokens[t], D) + first;
        const real *dx = n->work.d_in + at_row(t, D) + first;
        for (int j = 0; j < cols; j++) sum[j] += dx[j] * (real)n->config.embedding_scale;
    }
}

typedef struct head { net *n; int first, rows; } head;      /* of the rows in work.logits */

static void final_norm_job(void *data, int index, real *scratch) {
    const net *n = (const net *)data;
    size_t at = at_row(index * BLOCK, n->config.width);
    (void)scratch;
    norm(stream_norm(n), block_rows(n, index), n->output + at, n->final_norm->value,
         n->work.n1 + at);
}

enum { LOGITS = 512, LOSSES = 16 };         /* columns, rows in a job */

static void logits_job(void *data, int index, real *scratch) {
    const head *h = (const head *)data;
    const net *n = h->n;
    int V = n->config.vocab, D = n->config.width, first = index * LOGITS;
    product p = { h->rows, 0, D, NULL, (size_t)D, 0, NULL, 0, NULL, 0, NULL, 0 };
    (void)scratch;
    p.cols = net_least(LOGITS, V - first);
    p.a = n->work.n1 + at_row(h->first, D);
    p.b = n->embedding.forward + at_row(first, terms(D));
    p.b_panel = (size_t)(terms(D) * COLS);
    p.c = n->work.logits + first;
    p.c_row = n->work.logits_row;
    multiply(&p);
}

static void losses_job(void *data, int index, real *scratch) {
    const head *h = (const head *)data;
    const net *n = h->n;
    int V = n->config.vocab;
    (void)scratch;
    for (int t = index * LOSSES; t < net_least((index + 1) * LOSSES, h->rows); t++)
        n->work.losses[h->first + t] =
            cross_entropy(V, (real)n->config.soft_cap, n->targets[h->first + t], (real)n->scale,
                          n->work.logits + (size_t)t * n->work.logits_row);
}

static void logits_backward_job(void *data, int index, real *scratch) {
    const head *h = (const head *)data;
    const net *n = h->n;
    size_t D = (size_t)n->config.width, row = n->work.logits_row;
    int first = index * BLOCK / 2;
    (void)scratch;
    linear_backward(&n->embedding, 0, net_least(BLOCK / 2, h->rows - first),
                    n->work.logits + (size_t)first * row, row,
                    n->work.n2 + (size_t)(h->first + first) * D, D, 0);
}

static void final_norm_backward_job(void *data, int index, real *scratch) {
    const net *n = (const net *)data;
    int D = n->config.width;
    size_t at = at_row(index * BLOCK, D);
    (void)scratch;
    norm_backward(stream_norm(n), block_rows(n, index), n->output + at, n->final_norm->value,
                  n->work.n2 + at, NULL, n->work.d_in + at, norm_sum(n, 0, index));
}

/* Logits, losses and all gradients of the head, HEAD rows at a time. */
static void run_head(net *n, int backward) {
    int V = n->config.vocab, blocks = net_pieces(n->rows, BLOCK);
    net_each(n, blocks, final_norm_job, n);
    for (int first = 0; first < n->rows; first += HEAD) {
        head h = { n, first, net_least(HEAD, n->rows - first) };
        harvests s = { n, h.rows, 0, { { NULL, NULL, NULL, 0, 0 } } };
        net_each(n, net_pieces(V, LOGITS), logits_job, &h);
        net_each(n, net_pieces(h.rows, LOSSES), losses_job, &h);
        if (!backward) continue;
        net_each(n, net_pieces(h.rows, BLOCK / 2), logits_backward_job, &h);
        if (n->d_state) continue;
        add_harvest(&s, &n->embedding, n->work.n1 + at_row(first, n->config.width), n->work.logits);
        s.list[0].dy_row = n->work.logits_row;
        run_harvests(&s);
    }
    if (!backward) return;
    net_each(n, blocks, final_norm_backward_job, n);
    if (!n->d_state) add_norm_sums(n, 0, n->final_norm);
}

/* A job is one sequence. */
static void keep_job(void *data, int index, real *scratch) {
    enum { MOST = 1 << 21 };                /* no window is longer */
    const net *n = (const net *)data;
    real *to = n->next + (size_t)index * n->state_size;
    int position = n->position[index * n->length + n->length - 1];
    (void)scratch;
    to[0] = (real)net_least(position + 1, MOST);
    for (int i = 0; i < n->config.layers; i++) {
        const layer *l = &n->layers[i];
        mixers[l->kind].keep(n, l, index, to + l->state_at);
    }
}

/* ---- all of it ------------------------------------------------------------------------------- */

static int mixer_jobs(const net *n, const layer *l) {
    return n->rows / n->length * mixers[l->kind].jobs(n, l);
}

static void run_layer(net *n, layer *l) {
    pass p = { n, l };
    int blocks = net_pieces(n->rows, BLOCK);
    net_each(n, blocks, before_mixer_job, &p);
    net_each(n, mixer_jobs(n, l), mixers[l->kind].run, &p);
    net_each(n, blocks, after_mixer_job, &p);
}

static void run_layer_backward(net *n, layer *l) {
    pass p = { n, l };
    int blocks = net_pieces(n->rows, BLOCK);
    real *d_out = n->work.d_out;
    n->work.d_out = n->work.d_in;           /* of the layer above */
    n->work.d_in = d_out;
    net_each(n, blocks, after_mixer_backward_job, &p);
    net_each(n, mixer_jobs(n, l), mixers[l->kind].run_back, &p);
    net_each(n, blocks, before_mixer_backward_job, &p);
    if (n->d_state) return;
    harvest_layer(&p);
    add_norm_sums(n, 0, l->norm1);
    add_norm_sums(n, 1, l->norm2);
    mixers[l->kind].sums(n, l);
}

static double run(net *n, int backward) {
    double sum = 0;
    net_each(n, net_pieces(n->rows, BLOCK), embed_job, n);
    for (int i = 0; i < n->config.layers; i++) run_layer(n, &n->layers[i]);
    if (n->next) net_each(n, n->rows / n->length, keep_job, n);
    run_head(n, backward);
    for (int t = 0; t < n->rows; t++) sum += n->work.losses[t];
    if (!backward) return sum;
    for (int i = n->config.layers - 1; i >= 0; i--) run_layer_backward(n, &n->layers[i]);
    if (n->d_state) return sum;
    net_each(n, net_pieces(n->config.width, EMBED_COLS), embed_backward_job, n);
    return sum;
}

/* ---- AdamW ----------------------------------------------------------------------------------- */

typedef struct adam_step {
    const net *n;
    const net_adam *adam;
    real clip, first, second;               /* factor of gradients; 1 / (1 - beta^step) of each */
} adam_step;

typedef struct piece { const net_weight *w; size_t start, end; } piece;

static piece piece_of(const net *n, int index) {
    piece c = { &n->weights[n->chunk_weight[index]], n->chunk_start[index], 0 };
    c.end = c.w->count - c.start < CHUNK ? c.w->count : c.start + CHUNK;
    return c;
}

static int is_for_muon(const net *n, const net_weight *w) {
    for (int i = 0; i < n->muon_count; i++) if (n->muon[i].weight == w) return 1;
    return 0;
}

static void square_job(void *data, int index, real *scratch) {
    const adam_step *s = (const adam_step *)data;
    piece c = piece_of(s->n, index);
    double sum = 0;
    (void)scratch;
    if (c.w->held) memset(c.w->gradient + c.start, 0, (c.end - c.start) * sizeof(real));
    for (size_t i = c.start; i < c.end; i += DEPTH) {
        int count = c.end - i < DEPTH ? (int)(c.end - i) : DEPTH;
        sum += (double)dot(c.w->gradient + i, c.w->gradient + i, count);
    }
    s->n->chunk_sums[index] = sum;
}

static void adam_job(void *data, int index, real *scratch) {
    const adam_step *s = (const adam_step *)data;
    piece c = piece_of(s->n, index);
    real rate = (real)s->adam->rate, b1 = (real)s->adam->beta1, b2 = (real)s->adam->beta2;
    real eps = (real)s->adam->eps, keep = 1 - rate * (c.w->decays ? (real)s->adam->decay : 0);
    real *restrict value = c.w->value, *restrict gradient = c.w->gradient;
    real *restrict mean = c.w->mean, *restrict square = c.w->square;
    (void)scratch;
    if (c.w->held || (s->adam->momentum > 0 && is_for_muon(s->n, c.w))) return;
    for (size_t i = c.start; i < c.end; i++) {
        real d = gradient[i] * s->clip;
        mean[i] = b1 * mean[i] + (1 - b1) * d;
        square[i] = b2 * square[i] + (1 - b2) * d * d;
        value[i] = keep * value[i]
                 - rate * mean[i] * s->first / (root(square[i] * s->second) + eps);
        gradient[i] = 0;
    }
}

/* ---- Muon ---------------------------------------------------------------------------------------
 * The step is the momentum, made a matrix whose singular values are all near 1 (K. Jordan, 2024) by
 * Newton and Schulz's iteration with his numbers:
 *
 *     X <- a X + (b S + c S S) X      S = X X', X [rows][cols] with no more rows than columns
 *
 * times 0.2 sqrt(the longer side): so large is a step of AdamW (Liu et al., arXiv 2502.16982), and
 * rate and decay may be the same. */

static void orthogonalise(int rows, int cols, real *restrict x, real *scratch) {
    size_t square = at_row(rows, rows);
    real *restrict s = take(&scratch, square), *restrict ss = take(&scratch, square);
    real *panels = take(&scratch, at_row(net_rounded(rows, WIDEST), net_rounded(cols, WIDEST)));
    real size = (real)sqrt(dot(x, x, rows * cols)) + (real)1e-7;
    for (int i = 0; i < rows * cols; i++) x[i] /= size;
    for (int round = 0; round < 5; round++) {
        product p = { rows, rows, cols, x, (size_t)cols, 0, panels, 0, NULL, 0, s, (size_t)rows };
        p.b_panel = (size_t)(terms(cols) * COLS);
        pack_columns(COLS, rows, cols, x, (size_t)cols, panels);
        multiply(&p);
        p.depth = rows;
        p.a = s;
        p.a_row = (size_t)rows;
        p.b_panel = (size_t)(terms(rows) * COLS);
        p.c = ss;
        pack_rows(COLS, rows, rows, s, (size_t)rows, panels, p.b_panel);
        multiply(&p);
        for (size_t i = 0; i < square; i++)
            ss[i] = (real)-4.7750 * s[i] + (real)2.0315 * ss[i];
        p.cols = cols;
        p.a = ss;
        p.add = 1;
        p.c = x;
        p.c_row = (size_t)cols;
        pack_rows(COLS, cols, rows, x, (size_t)cols, panels, p.b_panel);
        for (int i = 0; i < rows * cols; i++) x[i] *= (real)3.4445;
        multiply(&p);
    }
}

static void muon_job(void *data, int index, real *scratch) {
    const adam_step *s = (const adam_step *)data;
    const muon_part *part = &s->n->muon[index];
    const net_weight *w = part->weight;
    int turned = part->rows > part->cols;
    size_t rows = (size_t)part->rows, cols = (size_t)part->cols;
    real rate = (real)s->adam->rate, keep = 1 - rate * (real)s->adam->decay;
    real old = (real)s->adam->momentum, *x = take(&scratch, rows * cols);
    real *restrict value = w->value + part->start, *restrict gradient = w->gradient + part->start;
    real *restrict mean = w->mean + part->start;
    size_t down = turned ? 1 : cols, right = turned ? rows : 1;         /* steps in x */
    if (w->held) return;
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < cols; j++) {
            size_t at = i * cols + j;
            real d = gradient[at] * s->clip;
            mean[at] = old * mean[at] + (1 - old) * d;
            x[i * down + j * right] = old * mean[at] + (1 - old) * d;   /* Nesterov's */
            gradient[at] = 0;
        }
    orthogonalise((int)(turned ? cols : rows), (int)(turned ? rows : cols), x, scratch);
    rate *= (real)0.2 * (real)sqrt((real)(turned ? rows : cols));
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < cols; j++)
            value[i * cols + j] = keep * value[i * cols + j] - rate * x[i * down + j * right];
}

static double update(net *n, const net_adam *adam) {
    adam_step s = { n, adam, 1, 1, 1 };
    double norm = 0;
    net_each(n, n->chunks, square_job, &s);
    for (int i = 0; i < n->chunks; i++) norm += n->chunk_sums[i];
    norm = sqrt(norm);
    if (!(norm <= DBL_MAX)) return norm;
    if (adam->clip > 0 && norm > (double)adam->clip) s.clip = (real)((double)adam->clip / norm);
    s.first = (real)(1 / (1 - pow((double)adam->beta1, (double)adam->step)));
    s.second = (real)(1 / (1 - pow((double)adam->beta2, (double)adam->step)));
    net_each(n, n->chunks, adam_job, &s);
    if (adam->momentum > 0) net_each(n, n->muon_count, muon_job, &s);
    return norm;
}

const net_math NET_MATH = { prepare, run, update };
