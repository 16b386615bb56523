/* source.c - what a training takes over from another model, --from; see train.h.
 *
 * It is the source's network, perhaps with more layers, and with mixers of another kind in some.
 * Weights carry over by name and shape. */

#include "train.h"
#include "../convert/hf_writer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the shape ------------------------------------------------------------------------------- */

/* More layers than the source has, of the kinds of its layers from the first on. */
static int add_layers(griffin_config *shape, const train_options *o) {
    int have = shape->layers;
    if (o->layers == 0) return 0;
    if (o->layers < have || o->layers > GRIFFIN_MAX_LAYERS)
        return complain("--layers: %s has %d, expected so many or more", o->from, have);
    for (int i = have; i < o->layers; i++) shape->blocks[i] = shape->blocks[i - have];
    shape->layers = o->layers;
    return 0;
}

/* The kinds of --kind or --blocks. HGRN2 and SUPRA need nothing that the source might not say. */
static int change_kinds(griffin_config *shape, const train_options *o) {
    size_t n = o->blocks ? strlen(o->blocks) : 0;
    for (int i = 0; n && i < shape->layers; i++) {
        char letter = o->blocks[(size_t)i % n];
        if (letter != shape->blocks[i] && !strchr("hs", letter))
            return complain("--from %s: layer %d cannot become %c, only h or s", o->from, i,
                            letter);
        shape->blocks[i] = letter;
    }
    if (strpbrk(shape->blocks, "as") || shape->kv_heads) return 0;
    shape->kv_heads = shape->heads;
    return 0;
}

static int check_source(const training *t, const model_parts *source) {
    const tensors *list = &source->tensors;
    report r = { "" };
    if (!source->has_vocabulary) return complain("%s: has no vocabulary", t->o.from);
    if (t->o.save_hf && hf_can_write(&t->config.net, &t->vocabulary, &r) != 0)
        return complain("--save-hf: %s", r.text);
    for (size_t i = 0; i < list->count; i++) {
        const weight *w = list->list[i].source;
        if (w->type == WEIGHT_BLOCKS)
            return complain("%s: tensor '%s' of type %s cannot be used: train from floats, which "
                            "griffin convert OLD NEW --type f32 makes",
                            t->o.from, list->list[i].name, w->type_name);
        if (strcmp(list->list[i].name, "lm_head.weight") == 0)
            return complain("%s: an output head of its own cannot be trained", t->o.from);
    }
    return 0;
}

int train_read_source(training *t, model_parts *source) {
    const convert_options o = { .source = t->o.from, .type = "f32", .gates = "f32", .quiet = 1 };
    report r = { "" };
    file_reserve(t->o.output);
    int failed = parts_read(source, &o, &r);
    file_reserve(NULL);
    if (failed) return complain("%s", r.text);
    t->config = source->config;
    t->vocabulary = source->vocabulary;
    memset(&source->vocabulary, 0, sizeof source->vocabulary);          /* ours now */
    source->config.chat_template = NULL;
    return add_layers(&t->config.net, &t->o) || change_kinds(&t->config.net, &t->o)
        || check_source(t, source);
}

/* ---- names ----------------------------------------------------------------------------------- */

/* Names of Hugging Face begin with "model.". */
static const char *plain(const char *name) {
    return name + (strncmp(name, "model.", 6) == 0 ? 6 : 0);
}

/* Of "layers.N.NAME" the NAME; *layer becomes N, or -1. */
static const char *part_of(const char *name, int *layer) {
    char *end;
    name = plain(name);
    *layer = -1;
    if (strncmp(name, "layers.", 7) != 0) return name;
    *layer = (int)strtol(name + 7, &end, 10);
    return end + (*end == '.');
}

static int ends_in(const char *text, const char *ending) {
    size_t n = strlen(text), m = strlen(ending);
    return n >= m && strcmp(text + n - m, ending) == 0;
}

/* A line of names, those of layers once for all of them. */
static void print_names(const char *what, const char *const *names, int count) {
    int layer, other;
    if (count) printf("%s", what);
    for (int i = 0; i < count; i++) {
        const char *part = part_of(names[i], &layer);
        int first = 1, times = 0;
        for (int k = 0; k < count && first; k++) {
            if (strcmp(part_of(names[k], &other), part) != 0) continue;
            first = k >= i;
            times++;
        }
        if (!first) continue;
        printf(i ? ", " : ": ");
        if (layer >= 0) printf("%d x ", times);
        printf("%s", part);
    }
    if (count) printf("\n");
}

/* ---- weights --------------------------------------------------------------------------------- */

static int has_shape_of(const net_weight *w, const tensor *t) {
    int same = w->rank == t->rank;
    for (int i = 0; same && i < w->rank; i++) same = (uint64_t)w->shape[i] == t->shape[i];
    return same;
}

/* Null if the source has no such tensor. */
static const tensor *find_in_source(const model_parts *source, const char *name) {
    for (size_t i = 0; i < source->tensors.count; i++)
        if (strcmp(plain(source->tensors.list[i].name), plain(name)) == 0)
            return &source->tensors.list[i];
    return NULL;
}

static int is_floor(const tensor *t) {
    return ends_in(t->name, ".lower_bound") || ends_in(t->name, ".gate_range");
}

/* Whether some of the weights come from a tensor. */
static int has_place(const net_weight *list, int count, const tensor *t) {
    for (int i = 0; i < count; i++) {
        if (ends_in(list[i].name, ".lower_bounds") && is_floor(t)) return 1;
        if (strcmp(plain(list[i].name), plain(t->name)) == 0) return has_shape_of(&list[i], t);
    }
    return 0;
}

/* ---- lower bounds ------------------------------------------------------------------------------
 * A file has p_1 + .. + p_l of layer l, and p_0 + p_l+1 + ..: differences of either are p, and a
 * log(p) gives p again. The smaller sum has more digits of it. Layers of other kinds, of which
 * nothing is known, share what lies between. */

typedef struct floors { const tensor *bound, *range; } floors;

static floors find_floors(const model_parts *source, int layer) {
    floors f;
    char name[80];
    snprintf(name, sizeof name, "layers.%d.temporal_block.lower_bound", layer);
    f.bound = find_in_source(source, name);
    snprintf(name, sizeof name, "layers.%d.temporal_block.gate_range", layer);
    f.range = find_in_source(source, name);
    return f;
}

/* The p of layers first..last, alike: `bound` and `range` before them and after. */
static void share_out(net_weight *A, int first, int last, int width, const float *before,
                      const float *after) {
    for (int c = 0; c < width; c++) {
        double up = (double)after[c] - (double)before[c];
        double down = (double)before[width + c] - (double)after[width + c];
        double p = ((double)after[c] < 0.5 ? up : down) / (last - first + 1);
        for (int l = first; l <= last; l++)
            A->value[(size_t)l * (size_t)width + (size_t)c] = (float)log(fmax(p, 1e-30));
    }
}

/* What the last of them leaves is p_0, and the part of the layers behind it. */
static void share_rest(net_weight *A, int first, int layers, int width, const float *before) {
    for (int c = 0; c < width; c++) {
        double p = (double)before[width + c] / (layers - first + 1);
        for (int l = first; l <= layers; l++)
            A->value[(size_t)(l % layers) * (size_t)width + (size_t)c] = (float)log(fmax(p, 1e-30));
    }
}

/* A of all layers from the vectors of those that have them; layer 0 has 0 and 1 in any case. */
static int recover_lower_bounds(const model_parts *source, net_weight *A) {
    int layers = A->shape[0], width = A->shape[1], first = 1, status = 0;
    size_t D = (size_t)width;
    float *before = (float *)calloc(4 * D, sizeof *before), *after = before ? before + 2 * D : NULL;
    report r = { "" };
    if (!before) return complain("out of memory");
    for (size_t c = 0; c < D; c++) before[D + c] = 1;
    for (int l = 1; !status && l < source->config.net.layers; l++) {
        floors f = find_floors(source, l);
        if (!f.bound || !f.range) continue;
        status = weight_read(f.bound->source, 0, D, after, &r)
              || weight_read(f.range->source, 0, D, after + D, &r);
        share_out(A, first, l, width, before, after);
        memcpy(before, after, 2 * D * sizeof *before);
        first = l + 1;
    }
    if (first > 1) share_rest(A, first, layers, width, before);
    free(before);
    return status ? complain("%s", r.text) : 0;
}

/* ---- copying --------------------------------------------------------------------------------- */

int source_copy(const model_parts *source, net_weight *to) {
    report r = { "" };
    const tensor *from = find_in_source(source, to->name);
    if (ends_in(to->name, ".lower_bounds") && strchr(source->config.net.blocks, 'h'))
        return recover_lower_bounds(source, to) ? -1 : 1;
    if (!from || !has_shape_of(to, from)) return 0;
    if (weight_read(from->source, 0, to->count, to->value, &r) == 0) return 1;
    complain("%s", r.text);
    return -1;
}

int source_copy_all(const model_parts *source, net_weight *list, int count, const char *path) {
    for (size_t i = 0; i < source->tensors.count; i++)
        if (!has_place(list, count, &source->tensors.list[i]))
            return complain("%s: tensor '%s' cannot be trained", path,
                            source->tensors.list[i].name);
    for (int i = 0; i < count; i++) {
        int copied = source_copy(source, &list[i]);
        if (copied < 0) return 1;
        if (!copied) return complain("%s: tensor '%s' is missing", path, list[i].name);
    }
    return 0;
}

/* A layer that the source does not have adds nothing to the stream yet: the network computes what
 * the source computes. */
static void begin_with_nothing(net_weight *w) {
    if (ends_in(w->name, "linear_out.weight") || ends_in(w->name, "o_proj.weight")
        || ends_in(w->name, "down_proj.weight"))
        memset(w->value, 0, w->count * sizeof *w->value);
}

/* ---- features of SUPRA ----------------------------------------------------------------------- */

static net_weight *find_in_layer(training *t, int layer, const char *part) {
    char name[80];
    snprintf(name, sizeof name, "model.layers.%d.temporal_block.%s", layer, part);
    for (int i = 0; i < t->weight_count; i++)
        if (strcmp(t->weights[i].name, name) == 0) return &t->weights[i];
    return NULL;
}

/* Numbers in +-1 / sqrt(n), as the paper's feature maps begin. */
static float feature(uint64_t *seed, size_t n) {
    double unit = (double)(random_next(seed) >> 11) / 9007199254740992.0;
    return (float)((2 * unit - 1) / sqrt((double)n));
}

/* w = a random square matrix times w. Those of the same seed and size are the same. */
static int mix_features(net_weight *w, uint64_t seed) {
    size_t n = (size_t)w->shape[0], cols = (size_t)w->shape[1];
    float *old = (float *)malloc(w->count * sizeof *old);
    if (!old) return complain("out of memory");
    memcpy(old, w->value, w->count * sizeof *old);
    memset(w->value, 0, w->count * sizeof *w->value);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < n; k++) {
            float f = feature(&seed, n);
            for (size_t j = 0; j < cols; j++) w->value[i * cols + j] += f * old[k * cols + j];
        }
    free(old);
    return 0;
}

/* Of a layer that was attention. As in the paper, q and k share one map if they have as many heads:
 * then both have the same size. Without maps, features are relu(q) and relu(k). */
static int make_features(training *t, int layer) {
    static const char *const parts[] = { "q_proj", "k_proj" };
    uint64_t seed = (uint64_t)t->o.seed * 1000003u + (uint64_t)layer;
    for (int i = 0; i < 2; i++) {
        char name[32];
        snprintf(name, sizeof name, "%s.weight", parts[i]);
        net_weight *weight_of = find_in_layer(t, layer, name);
        snprintf(name, sizeof name, "%s.bias", parts[i]);
        net_weight *bias = find_in_layer(t, layer, name);
        if (t->o.features && mix_features(weight_of, seed)) return 1;
        if (!t->o.features && !t->config.net.qkv_bias)
            memset(bias->value, 0, bias->count * sizeof *bias->value);
    }
    return 0;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static int has_changed(const training *t, const model_parts *source, int layer) {
    return layer >= 0 && layer < source->config.net.layers
        && t->config.net.blocks[layer] != source->config.net.blocks[layer];
}

/* With --mixer-only what was copied stays as it is, but for the mixers of another kind. */
static void hold(const training *t, const model_parts *source, net_weight *w) {
    int layer;
    const char *part = part_of(w->name, &layer);
    w->held = t->o.mixer_only
           && !(has_changed(t, source, layer) && strncmp(part, "temporal_block.", 15) == 0);
}

/* What of the source has no place in the network. A network of the same kinds would be another
 * function without it. */
static int list_left(const training *t, const model_parts *source, const char **names, int *count) {
    int layer;
    *count = 0;
    for (size_t i = 0; i < source->tensors.count; i++) {
        const tensor *its = &source->tensors.list[i];
        part_of(its->name, &layer);
        if (has_place(t->weights, t->weight_count, its)) continue;
        if (!has_changed(t, source, layer))
            return complain("%s: tensor '%s' cannot be trained", t->o.from, its->name);
        names[(*count)++] = its->name;
    }
    return 0;
}

static int copy_all(training *t, const model_parts *source, const char **names) {
    const char **taken = names, **begun = names + t->weight_count;
    const char **left = begun + t->weight_count;
    int counts[3] = { 0, 0, 0 };
    if (list_left(t, source, left, &counts[2])) return 1;
    for (int i = 0; i < t->weight_count; i++) {
        net_weight *w = &t->weights[i];
        int copied = source_copy(source, w);
        if (copied < 0) return 1;
        if (copied) hold(t, source, w);
        else begin_with_nothing(w);
        if (copied) taken[counts[0]++] = w->name;
        else begun[counts[1]++] = w->name;
    }
    for (int i = 0; i < source->config.net.layers; i++)
        if (has_changed(t, source, i) && source->config.net.blocks[i] == 'a'
            && t->config.net.blocks[i] == 's' && make_features(t, i)) return 1;
    if (counts[1] + counts[2] == 0) return 0;
    print_names("copied", taken, counts[0]);
    print_names("new", begun, counts[1]);
    print_names("left out", left, counts[2]);
    return 0;
}

int train_copy_weights(training *t, const model_parts *source) {
    size_t most = 2 * (size_t)t->weight_count + source->tensors.count;
    const char **names = (const char **)malloc(most * sizeof *names);
    int status = names ? copy_all(t, source, names) : complain("out of memory");
    free(names);
    return status;
}
