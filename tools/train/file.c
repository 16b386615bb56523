/* file.c - models and checkpoints of a training; see train.h. */

#include "train.h"
#include "../convert/hf_writer.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- models ---------------------------------------------------------------------------------- */

static int add_weight(weights *w, const net_weight *from, report *r) {
    weight *to = weights_add(w, from->name, strlen(from->name), "the network", r);
    int64_t stride = 1;
    if (!to) return -1;
    to->type = WEIGHT_F32;
    to->type_name = "F32";
    to->rank = from->rank;
    for (int i = from->rank - 1; i >= 0; stride *= from->shape[i--]) {
        to->shape[i] = (uint64_t)from->shape[i];
        to->stride[i] = stride;
    }
    to->elements = from->count;
    to->bytes = 4 * to->elements;
    to->data = (const unsigned char *)from->value;
    return 0;
}

/* [layers][width], or null. */
static const float *lower_bounds(const training *t) {
    const net_weight *last = &t->weights[t->weight_count - 1];
    return strcmp(last->name, "model.lower_bounds") == 0 ? last->value : NULL;
}

/* The two vectors of a layer that stand for lower_bounds in a file. */
static int add_floor(const training *t, weights *w, int layer, float *room, double *values,
                     report *r) {
    static const char *const names[] = { "lower_bound", "gate_range" };
    const griffin_config *shape = &t->config.net;
    uint64_t D = (uint64_t)shape->width;
    net_floor(shape, lower_bounds(t), layer, room, room + D);
    for (int i = 0; i < 2; i++) {
        char name[64];
        snprintf(name, sizeof name, "model.layers.%d.temporal_block.%s", layer, names[i]);
        for (uint64_t j = 0; j < D; j++) values[j] = (double)room[i * (int)D + (int)j];
        if (!weights_add_vector(w, name, values, D, "the network", r)) return -1;
    }
    return 0;
}

static int add_floors(const training *t, weights *w, report *r) {
    size_t D = (size_t)t->config.net.width;
    double *values = (double *)malloc(2 * D * sizeof *values);
    float *room = (float *)malloc(2 * D * sizeof *room);
    int status = values && room ? 0 : report_fail(r, "out of memory");
    for (int i = 0; status == 0 && i < t->config.net.layers; i++)
        if (t->config.net.blocks[i] == 'h') status = add_floor(t, w, i, room, values, r);
    free(values);
    free(room);
    return status;
}

/* The network as the converter wants it; the weights stay where they are. */
static int parts_of(training *t, model_parts *m, report *r) {
    int status = 0;
    memset(m, 0, sizeof *m);
    m->config = t->config;
    m->vocabulary = t->vocabulary;
    m->has_vocabulary = t->vocabulary.count != 0;
    for (int i = 0; status == 0 && i < t->weight_count; i++)
        status = t->weights[i].value == lower_bounds(t) ? add_floors(t, &m->w, r)
                                                        : add_weight(&m->w, &t->weights[i], r);
    if (weights_finish(&m->w, status, "the network", r) != 0) return -1;
    status = tensors_find(&m->tensors, &m->config.net, &m->w, 0, r);
    if (status != 0) weights_close(&m->w);
    return status;
}

static void release_parts(model_parts *m) {
    tensors_free(&m->tensors);
    weights_close(&m->w);
}

static const char *name_of(const training *t) {
    const char *path = t->o.name ? t->o.name : t->o.output ? t->o.output : "griffin";
    const char *slash = strrchr(path, '/');
    return slash && slash[1] && path != t->o.name ? slash + 1 : path;
}

/* To a file, or with a null path into memory. */
static int write_model(training *t, model_parts *m, const char *path, const char *type,
                       char **image, size_t *size) {
    convert_options o = { .source = "", .gates = "f32", .quiet = 1 };
    report r = { "" };
    o.output = path;
    o.type = type;
    o.name = name_of(t);
    return parts_write(m, &o, image, size, &r) != 0 ? complain("%s", r.text) : 0;
}

int train_open(training *t, session *s, char **image) {
    model_parts m;
    report r = { "" };
    size_t size = 0;
    *image = NULL;
    if (parts_of(t, &m, &r) != 0) return complain("%s", r.text);
    int status = write_model(t, &m, NULL, "f32", image, &size);
    release_parts(&m);
    if (!status) status = session_open_memory(s, *image, size, t->o.threads);
    if (status) free(*image);
    return status;
}

void train_close(session *s, char *image) {
    session_close(s);
    free(image);
}

int train_save(training *t) {
    model_parts m;
    report r = { "" };
    if (!t->o.output && !t->o.save_hf) return 0;
    if (parts_of(t, &m, &r) != 0) return complain("%s", r.text);
    int status = (t->o.output && write_model(t, &m, t->o.output, t->o.type, NULL, NULL))
              || (t->o.save_hf && hf_write(&m, lower_bounds(t), t->o.save_hf));
    release_parts(&m);
    return status;
}

/* ---- checkpoints -------------------------------------------------------------------------------
 * In the byte order of the machine:
 *
 *     "griffin training 1"  u64 hash of what must be the same  train_progress
 *     for each weight: values, means, squares
 *     the state that is carried                                u64 hash of everything before */

static const char magic[] = "griffin training 1";

typedef struct buffer { unsigned char *data; size_t at; } buffer;

static uint64_t hash_bytes(uint64_t h, const void *data, size_t size) {
    const unsigned char *p = (const unsigned char *)data;
    for (size_t i = 0; i < size; i++) h = (h ^ p[i]) * 1099511628211u;
    return h;
}

/* What decides where a training goes; rates and budgets may change on the way. */
static uint64_t identity_of(const training *t) {
    const int numbers[] = { t->o.length, t->o.batch, t->o.seed, t->o.task, t->o.afresh };
    uint64_t h = hash_bytes(14695981039346656037u, numbers, sizeof numbers);
    h = hash_bytes(h, &t->config.net, sizeof t->config.net);
    h = hash_bytes(h, t->text.tokens.data, (size_t)t->text.tokens.count * sizeof(int32_t));
    return hash_bytes(h, t->vocabulary.text, t->vocabulary.text_size);
}

static size_t state_bytes(const training *t) {
    return t->state ? (size_t)t->o.batch * net_state_size(t->net) * sizeof *t->state : 0;
}

static size_t checkpoint_size(const training *t) {
    size_t size = sizeof magic + sizeof(uint64_t) + sizeof t->progress + sizeof(uint64_t);
    for (int i = 0; i < t->weight_count; i++) size += 3 * t->weights[i].count * sizeof(float);
    return size + state_bytes(t);
}

/* Between memory and file: one list of what is in a checkpoint, for both directions. */
typedef void mover(buffer *b, void *data, size_t size);

static void put(buffer *b, void *data, size_t size) {
    memcpy(b->data + b->at, data, size);
    b->at += size;
}

static void get(buffer *b, void *data, size_t size) {
    memcpy(data, b->data + b->at, size);
    b->at += size;
}

static void move_all(const training *t, train_progress *progress, buffer *b, mover *move) {
    move(b, progress, sizeof *progress);
    for (int i = 0; i < t->weight_count; i++) {
        const net_weight *w = &t->weights[i];
        move(b, w->value, w->count * sizeof *w->value);
        move(b, w->mean, w->count * sizeof *w->mean);
        move(b, w->square, w->count * sizeof *w->square);
    }
    if (t->state) move(b, t->state, state_bytes(t));
}

int train_checkpoint(const training *t) {
    train_progress progress = t->progress;
    uint64_t number = identity_of(t);
    char start[sizeof magic];
    buffer b = { (unsigned char *)malloc(checkpoint_size(t)), 0 };
    if (!b.data) return complain("out of memory for a checkpoint");
    memcpy(start, magic, sizeof magic);
    put(&b, start, sizeof magic);
    put(&b, &number, sizeof number);
    move_all(t, &progress, &b, put);
    number = hash_bytes(0, b.data, b.at);
    put(&b, &number, sizeof number);
    int status = file_replace(t->o.checkpoint, b.data, b.at);
    free(b.data);
    return status;
}

static const char *fault_of(const training *t, const file_bytes *f) {
    uint64_t identity, hash, expected = identity_of(t);
    if (f->size < sizeof magic || memcmp(f->data, magic, sizeof magic) != 0)
        return "not a checkpoint of a training";
    if (f->size < sizeof magic + 16) return "damaged";
    memcpy(&identity, f->data + sizeof magic, 8);
    memcpy(&hash, f->data + f->size - 8, 8);
    if (hash != hash_bytes(0, f->data, (size_t)f->size - 8)) return "damaged";
    if (identity != expected || f->size != checkpoint_size(t))
        return "made with another network, text, seed or size of batches";
    return NULL;
}

static int is_count(int64_t n, int64_t most) { return n >= 0 && n <= most; }

/* A checksum is no secret: what comes from outside is checked. */
static int is_possible(const train_progress *p) {
    const int64_t most = (int64_t)1 << 53;
    const double *numbers[] = { &p->seconds, &p->best, &p->nats, &p->scored, &p->point_nats,
                                &p->point_scored };
    for (int i = 0; i < 6; i++) if (!(fabs(*numbers[i]) < 1e300)) return 0;
    return is_count(p->steps, most) && is_count(p->updates, most) && is_count(p->tokens, most)
        && p->seconds >= 0 && is_count(p->learned.count, CURVE)
        && is_count(p->validated.count, CURVE);
}

int train_resume(training *t) {
    file_bytes file;
    report r = { "" };
    buffer b = { NULL, sizeof magic + sizeof(uint64_t) };
    train_progress progress;
    if (file_open(&file, t->o.checkpoint, &r) != 0) return complain("%s", r.text);
    const char *fault = fault_of(t, &file);
    b.data = (unsigned char *)(uintptr_t)file.data;         /* only read */
    if (!fault) {
        memcpy(&progress, file.data + b.at, sizeof progress);
        if (!is_possible(&progress)) fault = "damaged";
    }
    if (!fault) move_all(t, &t->progress, &b, get);
    file_close(&file);
    return fault ? complain("%s: %s", t->o.checkpoint, fault) : 0;
}
