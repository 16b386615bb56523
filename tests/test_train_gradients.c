/* Promise: training uses the exact gradients. The source of the net, compiled here with doubles,
 * agrees with central differences in every tensor, so in every component: Griffin, Hawk,
 * attention, HGRN2 and SUPRA alone and mixed, with documents that begin in the middle, states from
 * an earlier text, sizes that fill no vector, and batches larger than any block of the
 * computation. */

#define NET_REAL double
#ifndef GRIFFIN_SCALAR_ONLY
  #define GRIFFIN_SCALAR_ONLY               /* the plain arithmetic is enough */
#endif
#include "../tools/train/model.c"
#include "../tools/train/net.c"
#include "../tools/train/plain.c"

#include "test.h"

static uint64_t dice_seed = 1;

static int roll(int sides) { return (int)(uniform(&dice_seed) * sides); }

static griffin_config shape(const char *blocks) {
    griffin_config c;
    memset(&c, 0, sizeof c);
    c.vocab = 23; c.width = 24; c.mlp_width = 28; c.layers = (int)strlen(blocks);
    c.heads = 4; c.kv_heads = 1; c.head_dim = 6;
    c.lru_width = 20; c.gate_blocks = 4; c.conv_width = 4;
    c.window = 5; c.rope_dims = 4; c.rope_base = 100;
    c.eps = 1e-4f; c.norm_offset = 1; c.embedding_scale = 4.875f; c.soft_cap = 5; c.decay = 8;
    strcpy(c.blocks, blocks);
    return c;
}

/* A net whose every weight matters, and a batch for it, perhaps with states. */
typedef struct scene {
    net      *n;
    int       sequences, length;
    int32_t  *tokens, *targets;
    uint8_t  *fresh;
    double   *state;
    float     drop;
} scene;

static int is_fixed(const net_weight *w) { return strstr(w->name, ".decay") != NULL; }

/* Features of SUPRA that stay on their side of 0, since a difference across it is no slope. */
static void part_features(layer *l) {
    matrix *const features[] = { &l->q, &l->k };
    for (int i = 0; l->decay && i < 2; i++) {
        fill_normal(features[i]->weight, 0.1 / features[i]->in, &dice_seed);
        for (int j = 0; j < features[i]->out; j++)
            features[i]->bias->value[j] = (j % 2 ? 1 : -1) * (1.5 + uniform(&dice_seed));
    }
}

static scene scene_new(const griffin_config *config, int sequences, int length) {
    scene s = { net_new(config, length), sequences, length, NULL, NULL, NULL, NULL, 0 };
    int count = sequences * length;
    for (int i = 0; i < s.n->weight_count; i++) {
        net_weight *w = &s.n->weights[i];
        if (strstr(w->name, "recurrent_param") || is_fixed(w)) continue;
        if (!w->decays) fill_normal(w, strstr(w->name, "conv_1d.weight") ? 0.3 : 0.05, &dice_seed);
    }
    for (int i = 0; i < config->layers; i++) part_features(&s.n->layers[i]);
    s.tokens = (int32_t *)malloc((size_t)count * sizeof *s.tokens);
    s.targets = (int32_t *)malloc((size_t)count * sizeof *s.targets);
    s.fresh = (uint8_t *)malloc((size_t)count);
    for (int i = 0; i < count; i++) {
        s.tokens[i] = roll(config->vocab);
        s.targets[i] = roll(8) ? roll(config->vocab) : -1;
        s.fresh[i] = roll(7) == 0;
    }
    return s;
}

static void scene_free(scene *s) {
    net_free(s->n);
    free(s->tokens); free(s->targets); free(s->fresh); free(s->state);
}

static net_batch batch_of(const scene *s) {
    net_batch b = { s->sequences, s->length, s->tokens, s->targets, s->fresh, s->state, NULL,
                    s->drop, 1 };
    return b;
}

static double loss(const scene *s) {
    net_batch b = batch_of(s);
    return net_loss(s->n, &b, NULL);
}

static double backward(const scene *s, float scale) {
    net_batch b = batch_of(s);
    return net_backward(s->n, &b, scale, NULL);
}

/* The states that the batch leaves, before new ones. */
static void read_before(scene *s) {
    net_batch b = batch_of(s);
    double *state = (double *)malloc((size_t)s->sequences * net_state_size(s->n) * sizeof *state);
    b.next = state;
    net_loss(s->n, &b, NULL);
    free(s->state);
    s->state = state;
}

/* The loss some way along the direction, of weights from first to last. */
static double loss_along(const scene *s, int first, int last, double *const *direction,
                         double way) {
    double result = 0;
    for (int round = 0; round < 2; round++) {
        for (int i = first; i < last; i++)
            for (size_t j = 0; j < s->n->weights[i].count; j++)
                s->n->weights[i].value[j] += (round ? -way : way) * direction[i][j];
        if (!round) result = loss(s);
    }
    return result;
}

/* The norm of heads takes the scale out of SUPRA's features, so their gradients are as small as the
 * rounding of a hundred nats in a difference. */
static int has_small_slopes(const net *n, int index) {
    const char *name = n->weights[index].name;
    int number;
    return sscanf(name, "model.layers.%d.", &number) == 1 && n->config.blocks[number] == 's'
        && strstr(name, "_proj.bias");
}

/* Gradients of weights first..last-1 along a random direction, against a difference of fourth
 * order. */
static void check_direction(const scene *s, int first, int last, double step) {
    const double rounding = has_small_slopes(s->n, first) ? 1e-13 / step : 0;
    double *direction[256], got = 0, size = 0;
    for (int i = first; i < last; i++) {
        const net_weight *w = &s->n->weights[i];
        direction[i] = (double *)malloc(w->count * sizeof(double));
        for (size_t j = 0; j < w->count; j++) {
            direction[i][j] = is_fixed(w) ? 0 : 2 * uniform(&dice_seed) - 1;
            got += w->gradient[j] * direction[i][j];
            size += fabs(w->gradient[j]);
        }
    }
    double expected = (8 * (loss_along(s, first, last, direction, step)
                            - loss_along(s, first, last, direction, -step))
                       - (loss_along(s, first, last, direction, 2 * step)
                          - loss_along(s, first, last, direction, -2 * step))) / (12 * step);
    CHECK(size > 1e-3, "%s has no gradient", s->n->weights[first].name);
    CHECK(fabs(got - expected) <= 1e-7 * (size + fabs(expected)) + rounding,
          "%s: %.12g instead of %.12g", s->n->weights[first].name, got, expected);
    for (int i = first; i < last; i++) free(direction[i]);
}

/* Each tensor by itself. Gradients are for twice the loss, and halved again. */
static void check_scene(const griffin_config *config, int length, int before) {
    scene s = scene_new(config, 3, length);
    for (int i = 0; i < before; i++) read_before(&s);
    double whole = backward(&s, 0.5f);
    double again = backward(&s, 0.5f);
    CHECK(whole == again && whole == loss(&s), "%g, %g and %g", whole, again, loss(&s));
    for (int i = 0; i < s.n->weight_count; i++) {
        if (is_fixed(&s.n->weights[i])) continue;
        for (int round = 0; round < 3; round++) check_direction(&s, i, i + 1, 1e-4);
    }
    scene_free(&s);
}

/* From nothing; and from states, of two sequences where one is shorter than the window. */
static void check_tensors(const griffin_config *config) {
    check_scene(config, 17, 0);
    check_scene(config, 17, 1);
    check_scene(config, 3, 2);
}

static void test_griffin(void) {
    griffin_config c = shape("rrar");
    check_tensors(&c);
}

static void test_hawk(void) {
    griffin_config c = shape("rr");
    c.soft_cap = 0;
    c.conv_width = 2;
    c.gate_blocks = 1;
    check_tensors(&c);
}

static void test_attention(void) {
    griffin_config c = shape("aaa");
    c.kv_heads = 2;
    c.qkv_bias = 1;
    c.norm_offset = 0;
    check_tensors(&c);
    c.rope_dims = 0;
    c.qkv_bias = 0;                         /* without rotation, a bias of k changes nothing */
    c.window = 100;
    check_tensors(&c);
}

/* Skeletons of the two: no biases, a plain gain, SiLU. */
static griffin_config plain_shape(const char *blocks) {
    griffin_config c = shape(blocks);
    c.norm_offset = 0;
    c.embedding_scale = 1;
    c.soft_cap = 0;
    c.no_biases = 1;
    c.activation = GRIFFIN_SILU;
    return c;
}

/* Without what other kinds of blocks need; and with more tokens than a stretch. */
static void test_hgrn2(void) {
    griffin_config c = plain_shape("hhh");
    c.kv_heads = 4;
    c.window = c.lru_width = c.gate_blocks = c.conv_width = c.rope_dims = 0;
    check_tensors(&c);
    check_scene(&c, 2 * STRETCH + 3, 1);
    c.heads = c.kv_heads = 2;
    c.width = 70; c.head_dim = 35;          /* more rows of a state than are worked on at once */
    c.mixer_eps = 1e-3f;
    check_scene(&c, 9, 1);
}

static void test_supra(void) {
    griffin_config c = plain_shape("ss");
    c.window = c.lru_width = c.gate_blocks = c.conv_width = 0;
    c.rope_dims = 6;
    check_tensors(&c);
    c.kv_heads = 2;
    check_scene(&c, 2 * STRETCH + 3, 1);
    c.rope_dims = 0;
    c.kv_heads = 4;
    check_tensors(&c);
}

/* Each beside the others, in Griffin's skeleton. */
static void test_hybrids(void) {
    griffin_config c = shape("rsah");
    check_tensors(&c);
    c.rope_dims = 6;
    check_scene(&c, STRETCH + 1, 1);
}

/* More tokens than a group, a block, or a window has; more words than a stripe; wide enough for
 * several blocks of each sum. */
static void test_large(void) {
    griffin_config c = shape("rahs");
    c.vocab = 530;
    c.width = 40; c.head_dim = 10;
    c.mlp_width = 270;
    c.window = 70;
    scene s = scene_new(&c, 8, 300);
    for (int i = 0; i < s.sequences * s.length; i++) s.fresh[i] = roll(150) == 0;
    for (int i = 0; i < s.sequences; i++) s.fresh[i * s.length] = (uint8_t)(i % 2);
    read_before(&s);
    backward(&s, 1);
    check_direction(&s, 0, s.n->weight_count, 1e-6);
    scene_free(&s);
}

/* Dropout is a factor of each number, the same forward and back; in sequences that take more than
 * a group, too. A third of the numbers of any row are dropped. */
static void test_dropout(void) {
    griffin_config c = shape("rahs");
    scene s = scene_new(&c, 9, 300);
    pass p = { s.n, &s.n->layers[1] };
    int dropped = 0;
    read_before(&s);
    double without = loss(&s);
    s.drop = 1 / 3.0f;
    double with = backward(&s, 1);
    CHECK(with == loss(&s) && fabs(with - without) > 1e-3 * without, "%g and %g", with, without);
    check_direction(&s, 0, s.n->weight_count, 1e-6);
    for (int i = 1; !strstr(s.n->weights[i].name, "layers.3"); i++)
        check_direction(&s, i, i + 1, 1e-5);
    for (int site = 0; site < DROP_SITES; site++) {
        double row[3000];
        for (int i = 0; i < 3000; i++) row[i] = 1;
        drop(&p, site, 7, 3, 1000, row);
        for (int i = 0; i < 3000; i++) {
            dropped += row[i] == 0;
            CHECK(row[i] == 0 || fabs(row[i] - 1.5) < 1e-6, "%g", row[i]);
        }
    }
    CHECK(dropped > 2850 && dropped < 3150, "%d of 9000 dropped", dropped);
    scene_free(&s);
}

/* A document reads the same alone, and after another one. */
static void test_documents(void) {
    griffin_config c = shape("rra");
    scene s = scene_new(&c, 1, 20);
    double second;
    memset(s.fresh, 0, 20);
    s.fresh[8] = 1;
    double both = loss(&s);
    double first = net_loss(s.n, &(net_batch){ .sequences = 1, .length = 8, .tokens = s.tokens,
                                               .targets = s.targets }, NULL);
    second = net_loss(s.n, &(net_batch){ .sequences = 1, .length = 12, .tokens = s.tokens + 8,
                                         .targets = s.targets + 8 }, NULL);
    CHECK(fabs(both - first - second) < 1e-12 * both, "%.17g and %.17g", both, first + second);
    scene_free(&s);
}

/* A text reads the same in one sequence, and in pieces that carry the state. */
static void check_pieces(const char *blocks, int length) {
    enum { ALL_OF_IT = 24 };
    griffin_config c = shape(blocks);
    scene s = scene_new(&c, 1, ALL_OF_IT);
    size_t size = net_state_size(s.n);
    double pieces = 0, *state = (double *)calloc(2 * size, sizeof *state);
    memset(s.fresh, 0, ALL_OF_IT);
    s.fresh[10] = 1;
    double whole = loss(&s);
    for (int at = 0, turn = 0; at < ALL_OF_IT; at += length, turn = !turn) {
        net_batch b = { 1, length, s.tokens + at, s.targets + at, s.fresh + at,
                        state + (turn ? size : 0), state + (turn ? 0 : size), 0, 0 };
        pieces += net_loss(s.n, &b, NULL);
    }
    CHECK(fabs(whole - pieces) < 1e-12 * whole, "%s in pieces of %d: %.17g and %.17g", blocks,
          length, whole, pieces);
    free(state);
    scene_free(&s);
}

static void test_state(void) {
    for (int length = 1; length <= 12; length++) {
        if (24 % length) continue;
        check_pieces("rr", length);
        check_pieces("aa", length);
        check_pieces("rra", length);
        check_pieces("hh", length);
        check_pieces("ss", length);
        check_pieces("rash", length);
    }
}

/* ---- the first state ------------------------------------------------------------------------- */

/* The gradient of numbers first..last-1 of the state before sequence 1. */
static void check_state_part(scene *s, const double *d_state, size_t first, size_t last) {
    size_t size = net_state_size(s->n);
    double *state = s->state + size, step = 1e-4, way[4] = { 1, -1, 2, -2 }, found[4];
    double got = 0, all = 0, *direction = (double *)malloc(size * sizeof *direction);
    for (size_t i = first; i < last; i++) {
        direction[i] = 2 * uniform(&dice_seed) - 1;
        got += d_state[size + i] * direction[i];
        all += fabs(d_state[size + i]);
    }
    for (int k = 0; k < 4; k++) {
        for (size_t i = first; i < last; i++) state[i] += way[k] * step * direction[i];
        found[k] = loss(s);
        for (size_t i = first; i < last; i++) state[i] -= way[k] * step * direction[i];
    }
    double expected = (8 * (found[0] - found[1]) - (found[2] - found[3])) / (12 * step);
    CHECK(all > 1e-4, "%lu: no gradient", (unsigned long)first);
    CHECK(fabs(got - expected) <= 1e-7 * (all + fabs(expected)), "%lu: %.12g instead of %.12g",
          (unsigned long)first, got, expected);
    free(direction);
}

/* All parts of the state of every layer; and the weights' gradients stay. frozen: the net has none.
 * As many tokens as `before` came before. */
static void check_first_state(const char *blocks, int length, int before, int frozen) {
    griffin_config c = shape(blocks);
    scene s = scene_new(&c, 3, length);
    size_t size = net_state_size(s.n);
    double *d_state = (double *)calloc(3 * size, sizeof *d_state);
    for (int t = 0; t < 3 * length; t++) {
        s.fresh[t] = t % length == length - 1;
        if (s.targets[t] < 0) s.targets[t] = 0;             /* short ones must count, too */
    }
    read_before(&s);
    for (size_t i = 0; i < 3 * size; i++)
        s.state[i] = i % size ? s.state[i] + 0.3 * (2 * uniform(&dice_seed) - 1) : before;
    net_batch b = batch_of(&s);
    s.n->frozen = frozen;
    double result = net_backward_state(s.n, &b, 1, d_state, NULL);
    CHECK(result == loss(&s), "%g", result);
    for (int i = 0; i < s.n->weight_count; i++)
        for (size_t j = 0; j < s.n->weights[i].count; j++)
            if (s.n->weights[i].gradient[j] != 0) { CHECK(0, "%s", s.n->weights[i].name); break; }
    for (int i = 0; i < c.layers; i++) {
        size_t at = s.n->layers[i].state_at, end = i + 1 < c.layers ? s.n->layers[i + 1].state_at
                                                                    : size;
        size_t middle = blocks[i] == 'r' ? end - (size_t)c.lru_width : (at + end) / 2;
        check_state_part(&s, d_state, at, middle);
        check_state_part(&s, d_state, middle, end);
    }
    CHECK(d_state[size] == 0, "the count of tokens has no gradient");
    free(d_state);
    scene_free(&s);
}

static void test_first_state(void) {
    check_first_state("rrar", 9, 7, 0);
    check_first_state("rrar", 2, 1, 1);
    check_first_state("rr", 4, 2, 0);
    check_first_state("aa", 6, 3, 0);
    check_first_state("ra", 70, 5, 0);
    check_first_state("hs", STRETCH + 5, 2, 0);
    check_first_state("rahs", 5, 3, 1);
    check_first_state("hs", 6, 3, 0);
    check_first_state("sh", 40, 5, 1);
}

/* A document that begins with the sequence sees nothing of a state. */
static void test_unseen_state(void) {
    griffin_config c = shape("rash");
    scene s = scene_new(&c, 3, 8);
    size_t size = net_state_size(s.n);
    double *d_state = (double *)malloc(3 * size * sizeof *d_state);
    read_before(&s);
    for (int i = 0; i < 3; i++) s.fresh[i * 8] = 1;
    net_batch b = batch_of(&s);
    net_backward_state(s.n, &b, 1, d_state, NULL);
    for (size_t i = 0; i < 3 * size; i++)
        if (d_state[i] != 0) { CHECK(0, "%lu: %g", (unsigned long)i, d_state[i]); break; }
    CHECK(1, "no gradient");
    free(d_state);
    scene_free(&s);
}

/* sqrt(1 - a^2) has no slope at a = 1; the reference's largest one is 1000. */
static void test_bounded_root(void) {
    for (int i = 0; i < 2; i++) {
        double rate = i ? -1e-3 : -1e-12, c = 0.5, dh = 1, before = 0, carry = 0, d_rate = 0, dc;
        double gx = 0.5, ga = 0.5, v = -expm1(2 * rate * ga);
        double slope = i ? 1 / (2 * sqrt(v)) : 1000;
        double expected = slope * dh * c * gx * (-2 * (1 - v)) * ga;
        rglru_row_backward(1, 0, &rate, &c, &dh, &before, &carry, &gx, &ga, &dc, &d_rate);
        CHECK(fabs(d_rate / expected - 1) < 1e-12, "%g instead of %g", d_rate, expected);
    }
}

/* One step of AdamW on one weight, by its definition; and clipping. */
static void test_update(void) {
    griffin_config c = shape("r");
    scene s = scene_new(&c, 2, 9);
    net_adam adam = { 0.01f, 0.9f, 0.99f, 1e-8f, 0.1f, 0.5f, 0, 0 };
    double squares = 0, value[2], d[2];
    const int at = 7;
    net_weight *w[2] = { s.n->embedding.weight, s.n->final_norm };
    backward(&s, 1);
    for (int i = 0; i < s.n->weight_count; i++)
        for (size_t j = 0; j < s.n->weights[i].count; j++)
            squares += s.n->weights[i].gradient[j] * s.n->weights[i].gradient[j];
    for (int i = 0; i < 2; i++) { value[i] = w[i]->value[at]; d[i] = w[i]->gradient[at]; }
    double norm = net_update(s.n, &adam);
    CHECK(fabs(norm - sqrt(squares)) < 1e-12 * norm, "%g", norm);
    CHECK(adam.step == 1, "%d", (int)adam.step);
    for (int i = 0; i < 2; i++) {
        double clipped = d[i] * (double)adam.clip / norm;   /* moments are unbiased at step 1 */
        double expected = value[i] * (1 - (i ? 0 : (double)adam.rate * (double)adam.decay))
                        - (double)adam.rate * clipped / (fabs(clipped) + (double)adam.eps);
        CHECK(fabs(w[i]->value[at] - expected) < 1e-9, "%.12g instead of %.12g",
              w[i]->value[at], expected);
        CHECK(w[i]->gradient[at] == 0, "not zeroed");
    }
    value[0] = w[0]->value[0];
    w[0]->gradient[5] = NAN;
    CHECK(isnan(net_update(s.n, &adam)) && w[0]->value[0] == value[0], "moved by a NaN");
    scene_free(&s);
}

/* A matrix that keeps the length of all vectors, about: its singular values are near 1. */
static void check_orthogonal(int rows, int cols) {
    double x[40 * 40], scratch[5 * 64 * 64], v[40], w[40];
    for (int i = 0; i < rows * cols; i++) x[i] = 1e3 * (2 * uniform(&dice_seed) - 1);
    orthogonalise(rows, cols, x, scratch);
    for (int round = 0; round < 20; round++) {
        double before = 0, after = 0;
        for (int i = 0; i < rows; i++) v[i] = 2 * uniform(&dice_seed) - 1;
        for (int j = 0; j < cols; j++) w[j] = 0;
        for (int i = 0; i < rows; i++) {
            before += v[i] * v[i];
            for (int j = 0; j < cols; j++) w[j] += v[i] * x[i * cols + j];
        }
        for (int j = 0; j < cols; j++) after += w[j] * w[j];
        CHECK(after > 0.4 * before && after < 1.6 * before, "%d x %d: %g times as long", rows, cols,
              sqrt(after / before));
    }
}

static void test_muon(void) {
    griffin_config c = shape("ra");
    scene s = scene_new(&c, 2, 9);
    net_adam adam = { 0.01f, 0.9f, 0.99f, 1e-8f, 0, 0, 0.9f, 0 };
    const net_weight *w[2] = { s.n->layers[1].up.weight, s.n->embedding.weight };
    double before[2];
    check_orthogonal(8, 28);
    check_orthogonal(1, 5);
    backward(&s, 1);
    for (int i = 0; i < 2; i++) before[i] = w[i]->value[0];
    net_update(s.n, &adam);
    for (int i = 0; i < 2; i++) CHECK(w[i]->value[0] != before[i], "%s stays", w[i]->name);
    CHECK(w[0]->square[0] == 0 && w[1]->square[0] > 0, "only AdamW has squares");
    CHECK(w[0]->gradient[0] == 0, "not zeroed");
    scene_free(&s);
}

/* What is held stays, and does not count for the norm; the rest moves. */
static void check_held(float momentum) {
    griffin_config c = shape("hs");
    scene s = scene_new(&c, 2, 9);
    net_adam adam = { 0.01f, 0.9f, 0.99f, 1e-8f, 0.1f, 0, momentum, 0 };
    net_weight *held[2] = { s.n->layers[0].up.weight, s.n->embedding.weight };
    const net_weight *free_one = s.n->layers[1].q.weight;
    double before[3], all, rest;
    backward(&s, 1);
    all = net_update(s.n, &adam);
    for (int i = 0; i < 2; i++) { before[i] = held[i]->value[3]; held[i]->held = 1; }
    before[2] = free_one->value[3];
    backward(&s, 1);
    rest = net_update(s.n, &adam);
    for (int i = 0; i < 2; i++)
        CHECK(held[i]->value[3] == before[i] && held[i]->gradient[3] == 0, "%s", held[i]->name);
    CHECK(free_one->value[3] != before[2] && rest < all, "%g of %g", rest, all);
    scene_free(&s);
}

static void test_held(void) {
    check_held(0);
    check_held(0.9f);
}

int main(void) {
    RUN(test_griffin);
    RUN(test_hawk);
    RUN(test_attention);
    RUN(test_hgrn2);
    RUN(test_supra);
    RUN(test_hybrids);
    RUN(test_large);
    RUN(test_dropout);
    RUN(test_documents);
    RUN(test_state);
    RUN(test_first_state);
    RUN(test_unseen_state);
    RUN(test_bounded_root);
    RUN(test_update);
    RUN(test_muon);
    RUN(test_held);
    return test_end();
}
