/* file.c - models and checkpoints of a training; see train.h. */

#include "train.h"
#include "../convert/hf_writer.h"

#include <limits.h>
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

/* The network as the converter wants it; the weights stay where they are. */
static int parts_of(training *t, model_parts *m, report *r) {
    int status = 0;
    memset(m, 0, sizeof *m);
    m->config = t->config;
    m->vocabulary = t->vocabulary;
    m->has_vocabulary = t->vocabulary.count != 0;
    for (int i = 0; status == 0 && i < t->weight_count; i++)
        status = add_weight(&m->w, &t->weights[i], r);
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
    int status;
    *image = NULL;
    if (parts_of(t, &m, &r) != 0) return complain("%s", r.text);
    status = write_model(t, &m, NULL, "f32", image, &size);
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
    int status;
    if (!t->o.output && !t->o.save_hf) return 0;
    if (parts_of(t, &m, &r) != 0) return complain("%s", r.text);
    status = (t->o.output && write_model(t, &m, t->o.output, t->o.type, NULL, NULL))
          || (t->o.save_hf && hf_write(&m, t->o.save_hf));
    release_parts(&m);
    return status;
}

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

int train_read_source(training *t, model_parts *source) {
    convert_options o = { .type = "f32", .gates = "f32", .quiet = 1 };
    report r = { "" };
    o.source = t->o.from;
    if (parts_read(source, &o, &r) != 0) return complain("%s", r.text);
    t->config = source->config;
    if (add_layers(&t->config.net, &t->o)) return 1;
    t->vocabulary = source->vocabulary;
    memset(&source->vocabulary, 0, sizeof source->vocabulary);          /* ours now */
    source->config.chat_template = NULL;
    if (!source->has_vocabulary) return complain("%s: has no vocabulary", t->o.from);
    if (t->o.save_hf && hf_can_write(&t->vocabulary, &r) != 0)
        return complain("--save-hf: %s", r.text);
    for (size_t i = 0; i < source->tensors.count; i++)
        if (source->tensors.list[i].source->type == WEIGHT_BLOCKS)
            return complain("%s: tensor '%s' of type %s cannot be used: train from floats",
                            t->o.from, source->tensors.list[i].name,
                            source->tensors.list[i].source->type_name);
    if (source->tensors.count && strcmp(source->tensors.list[source->tensors.count - 1].name,
                                        "lm_head.weight") != 0) return 0;
    return complain("%s: an output head of its own cannot be trained", t->o.from);
}

/* Null if the source has no such tensor. Names of Hugging Face begin with "model.". */
static const tensor *find_in_source(const model_parts *source, const char *name) {
    if (strncmp(name, "model.", 6) == 0) name += 6;
    for (size_t i = 0; i < source->tensors.count; i++) {
        const tensor *found = &source->tensors.list[i];
        const char *its = found->name + (strncmp(found->name, "model.", 6) == 0 ? 6 : 0);
        if (strcmp(its, name) == 0) return found;
    }
    return NULL;
}

static int ends_in(const char *text, const char *ending) {
    size_t n = strlen(text), m = strlen(ending);
    return n >= m && strcmp(text + n - m, ending) == 0;
}

/* A layer that the source does not have adds nothing to the stream yet: the network computes what
 * the source computes. */
static int ends_a_block(const char *name) {
    return ends_in(name, "linear_out.weight") || ends_in(name, "o_proj.weight")
        || ends_in(name, "down_proj.weight");
}

int train_copy_weights(training *t, const model_parts *source) {
    report r = { "" };
    for (int i = 0; i < t->weight_count; i++) {
        const net_weight *to = &t->weights[i];
        const tensor *from = find_in_source(source, to->name);
        if (from && weight_read(from->source, 0, to->count, to->value, &r) != 0)
            return complain("%s", r.text);
        if (!from && ends_a_block(to->name)) memset(to->value, 0, to->count * sizeof *to->value);
    }
    return 0;
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
    int status;
    if (!b.data) return complain("out of memory for a checkpoint");
    memcpy(start, magic, sizeof magic);
    put(&b, start, sizeof magic);
    put(&b, &number, sizeof number);
    move_all(t, &progress, &b, put);
    number = hash_bytes(0, b.data, b.at);
    put(&b, &number, sizeof number);
    status = file_replace(t->o.checkpoint, b.data, b.at);
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

int train_resume(training *t) {
    file_bytes file;
    report r = { "" };
    buffer b = { NULL, 0 };
    const char *fault;
    if (file_open(&file, t->o.checkpoint, &r) != 0) return complain("%s", r.text);
    fault = fault_of(t, &file);
    b.data = (unsigned char *)(uintptr_t)file.data;         /* only read */
    b.at = sizeof magic + sizeof(uint64_t);
    if (!fault) move_all(t, &t->progress, &b, get);
    file_close(&file);
    return fault ? complain("%s: %s", t->o.checkpoint, fault) : 0;
}
