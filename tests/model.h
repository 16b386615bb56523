/* model.h - what the tests of the network share: reference models, their tokens, ways to run them,
 * a writer of GGUF files in memory, and networks of any shape with weights from a formula.
 *
 * It uses the public interface only. A test that looks inside the library, tests/inside_*.c,
 * defines GRIFFIN_IMPLEMENTATION before it includes this, and so has a copy of its own; all others
 * are linked to the library that the program uses. */

#ifndef MODEL_H
#define MODEL_H

#include "griffin.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef _WIN32                               /* lacks aligned memory that free() takes */
  #include <malloc.h>
  #define malloc(size)     _aligned_malloc(size, 64)
  #define calloc(n, size)  memset(malloc((n) * (size)), 0, (n) * (size))
  #define realloc(p, size) _aligned_realloc(p, size, 64)
  #define free(p)          _aligned_free(p)
  #define posix_memalign(memory, alignment, size) ((*(memory) = malloc(size)) == NULL)
#endif

#include "npy.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

/* ---- numbers in bytes, little-endian -------------------------------------------------------- */

static inline void set_u32(void *at, uint32_t v) {
    unsigned char *p = (unsigned char *)at;
    for (int i = 0; i < 4; i++) p[i] = (unsigned char)(v >> 8 * i);
}

static inline void set_u64(void *at, uint64_t v) {
    set_u32(at, (uint32_t)v);
    set_u32((unsigned char *)at + 4, (uint32_t)(v >> 32));
}

static inline uint64_t get_u64(const void *at) {
    const unsigned char *p = (const unsigned char *)at;
    return npy_u32(p) | (uint64_t)npy_u32(p + 4) << 32;
}

static inline uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline int is_big_endian(void) {
    uint32_t one = 1;
    unsigned char first;
    memcpy(&first, &one, 1);
    return first == 0;
}

/* The checksum at the end of a save: a variant of FNV-1a that takes 8 bytes at once. */
static inline uint64_t checksum(const void *data, size_t size) {
    const unsigned char *p = (const unsigned char *)data;
    uint64_t hash = 0xcbf29ce484222325u;
    for (; size >= 8; p += 8, size -= 8) {
        hash = (hash ^ get_u64(p)) * 0x100000001b3u;
        hash ^= hash >> 29;
    }
    for (; size; p++, size--) hash = (hash ^ *p) * 0x100000001b3u;
    return hash ^ hash >> 32;
}

/* ---- the reference models: tests/data/NAME, converted to build/data/NAME[.TYPE].gguf -------- */

#define MOST_TOKENS 256

typedef struct golden {
    const char *name, *model;               /* folder of the arrays; of the model */
    int     count;
    int32_t tokens[MOST_TOKENS];
    int32_t position[MOST_TOKENS];          /* in the document; 0 starts one */
} golden;

static const char *const golden_names[][2] = {
    { "griffin-tiny", "griffin-tiny" }, { "hawk-tiny", "hawk-tiny" },
    { "griffin-paper-tiny", "griffin-paper-tiny" }, { "rgemma-bf16", "rgemma-bf16" },
    { "attn-only-tiny", "attn-only-tiny" }, { "griffin-tiny-segments", "griffin-tiny" },
    { "hgrn2-tiny", "hgrn2-tiny" }, { "hgrn2-long", "hgrn2-tiny" },
    { "hgrn2-legacy", "hgrn2-legacy" }, { "hgrn2-nofloor", "hgrn2-nofloor" },
    { "supra-tiny", "supra-tiny" }, { "supra-tiny-mha", "supra-tiny-mha" },
    { "supra-tiny-gqa", "supra-tiny-gqa" }, { "supra-openlm", "supra-openlm" }
};
#define GOLDENS     6                       /* DeepMind's, the last in several documents; */
#define ALL_GOLDENS COUNT(golden_names)     /* then those of the kin */

static const char *const golden_types[] = {             /* null: f32 */
    NULL, "f16", "bf16", "q8_0", "q4_0", "q6_0"
};
#define TYPES COUNT(golden_types)

/* The list of whole numbers after "key": in a small JSON file. */
static inline int read_list(const char *json, const char *key, int32_t *list) {
    const char *at = strstr(json, key);
    char *end;
    int n = 0;
    if (at) at = strchr(at, '[');
    while (at && *at != ']' && n < MOST_TOKENS) {
        list[n++] = (int32_t)strtol(at + 1, &end, 10);
        at = end;
    }
    return n;
}

static inline golden golden_read(int index) {
    golden g;
    char path[256];
    size_t size = 0;
    memset(&g, 0, sizeof g);
    g.name = golden_names[index][0];
    g.model = golden_names[index][1];
    snprintf(path, sizeof path, "tests/data/%s/tokens.json", g.name);
    unsigned char *json = test_read(path, &size);
    if (json) g.count = read_list((char *)json, *json == '[' ? "[" : "\"tokens\"", g.tokens);
    if (json) read_list((char *)json, "\"segment_pos\"", g.position);
    free(json);
    CHECK(g.count > 0, "%s", path);
    return g;
}

/* Without its models a test says nothing, so it ends here. */
static inline griffin_model *golden_open(const golden *g, const char *type,
                                         const griffin_options *options) {
    griffin_model *model;
    char path[256];
    snprintf(path, sizeof path, "build/data/%s%s%s.gguf", g->model, type ? "." : "",
             type ? type : "");
    int error = griffin_open_file(&model, path, options);
    if (error) { printf("%s: %s; make builds it\n", path, griffin_error_string(error)); exit(1); }
    return model;
}

/* ---- running -------------------------------------------------------------------------------- */

static inline int vocabulary(const griffin_model *model) {
    return griffin_get_info(model)->config.vocab;
}

static inline griffin_state *new_state(const griffin_model *model) {
    return (griffin_state *)calloc(1, griffin_state_size(model));
}

static inline int same_states(const griffin_model *model, const griffin_state *a,
                              const griffin_state *b) {
    return memcmp(a, b, griffin_state_size(model)) == 0;
}

static inline float *new_logits(const griffin_model *model, int count) {
    return (float *)malloc((size_t)(count * vocabulary(model)) * sizeof(float));
}

/* A context starts where 64-byte aligned memory does, so free() gives it back. */
static inline griffin_context *new_context_with(const griffin_model *model,
                                                const griffin_context_options *o) {
    size_t size = griffin_context_size(model, o);
    griffin_context *context = NULL;
    void *memory = NULL;
    if (posix_memalign(&memory, 64, size)) exit(1);
    CHECK(griffin_context_init(&context, model, o, memory, size) == GRIFFIN_OK, "%lu",
          (unsigned long)size);
    return context;
}

static inline griffin_context *new_context(const griffin_model *model, int rows, int states) {
    griffin_context_options o;
    memset(&o, 0, sizeof o);
    o.rows = rows;
    o.states = states;
    return new_context_with(model, &o);
}

static inline griffin_span span_of(griffin_state *state, const int32_t *tokens, int count,
                                   float *logits) {
    griffin_span span;
    memset(&span, 0, sizeof span);
    span.state = state;
    span.tokens = tokens;
    span.count = count;
    span.all_logits = 1;
    span.logits = logits;
    return span;
}

/* The logits after every token, `chunk` tokens a call (0: all in one). */
static inline void run_chunks(const griffin_model *model, griffin_context *context,
                              griffin_state *state, const int32_t *tokens, int count, int chunk,
                              float *logits) {
    int V = vocabulary(model);
    for (int at = 0; at < count; at += chunk) {
        griffin_span span;
        if (chunk == 0 || chunk > count - at) chunk = count - at;
        span = span_of(state, tokens + at, chunk, logits ? logits + (long)at * V : NULL);
        CHECK(griffin_run(context, &span, 1) == GRIFFIN_OK, "at %d", at);
    }
}

/* The token after which two runs of logits differ; -1: nowhere. */
static inline int first_difference(const float *a, const float *b, int count, int V) {
    for (int t = 0; t < count; t++)
        if (memcmp(a + (long)t * V, b + (long)t * V, (size_t)V * 4) != 0) return t;
    return -1;
}

/* xorshift64: the tests' own dice */
static uint64_t dice_state = 0x9E3779B97F4A7C15u;

static inline uint32_t dice(void) {
    dice_state ^= dice_state << 13;
    dice_state ^= dice_state >> 7;
    dice_state ^= dice_state << 17;
    return (uint32_t)(dice_state >> 32);
}

static inline float dice_float(float limit) {      /* -limit to limit */
    return ((float)(dice() >> 8) / 8388608.0f - 1) * limit;
}

/* ---- writing GGUF --------------------------------------------------------------------------- */

/* The numbers that GGUF gives to types of values; 0 is its tensor type f32. */
enum { GGUF_U32 = 4, GGUF_I32 = 5, GGUF_F32 = 6, GGUF_BOOL = 7, GGUF_STRING = 8, GGUF_ARRAY = 9 };

typedef struct bytes { unsigned char *at; size_t size, capacity; } bytes;

typedef struct gguf {
    bytes       pairs, infos, data;
    uint64_t    n_pairs, n_tensors;
    const char *without;                    /* a key or tensor that is not written */
} gguf;

static inline void put(bytes *b, const void *data, size_t size) {
    if (b->size + size > b->capacity) {
        b->capacity = (b->size + size) * 2;
        b->at = (unsigned char *)realloc(b->at, b->capacity);
    }
    if (size) memcpy(b->at + b->size, data, size);
    b->size += size;
}

static inline void put_u32(bytes *b, uint32_t v) { uint8_t p[4]; set_u32(p, v); put(b, p, 4); }
static inline void put_u64(bytes *b, uint64_t v) { uint8_t p[8]; set_u64(p, v); put(b, p, 8); }
static inline void put_text(bytes *b, const char *text) {
    put_u64(b, strlen(text));
    put(b, text, strlen(text));
}

static inline int gguf_key(gguf *g, const char *key, uint32_t type) {
    if (g->without && strcmp(g->without, key) == 0) return 0;
    put_text(&g->pairs, key);
    put_u32(&g->pairs, type);
    g->n_pairs++;
    return 1;
}

static inline void gguf_int(gguf *g, const char *key, int value) {
    if (gguf_key(g, key, GGUF_U32)) put_u32(&g->pairs, (uint32_t)value);
}

static inline void gguf_float(gguf *g, const char *key, float value) {
    if (gguf_key(g, key, GGUF_F32)) put_u32(&g->pairs, bits_of(value));
}

static inline void gguf_text(gguf *g, const char *key, const char *value) {
    if (gguf_key(g, key, GGUF_STRING)) put_text(&g->pairs, value);
}

/* An array whose elements the caller puts into g->pairs. */
static inline int gguf_array(gguf *g, const char *key, uint32_t type, int count) {
    if (!gguf_key(g, key, GGUF_ARRAY)) return 0;
    put_u32(&g->pairs, type);
    put_u64(&g->pairs, (uint64_t)count);
    return 1;
}

/* f32, row-major [shape]. */
static inline void gguf_tensor(gguf *g, const char *name, const int *shape, int rank,
                               const float *values) {
    long count = 1, i;
    if (g->without && strcmp(g->without, name) == 0) return;
    put_text(&g->infos, name);
    put_u32(&g->infos, (uint32_t)rank);
    for (i = rank - 1; i >= 0; i--) { put_u64(&g->infos, (uint64_t)shape[i]); count *= shape[i]; }
    put_u32(&g->infos, 0);
    put_u64(&g->infos, g->data.size);
    g->n_tensors++;
    for (i = 0; i < count; i++) put_u32(&g->data, bits_of(values[i]));
    while (g->data.size % 32) put(&g->data, "", 1);
}

/* The file; free it. The writer is empty afterwards. */
static inline unsigned char *gguf_finish(gguf *g, size_t *size) {
    bytes file = { NULL, 0, 0 };
    put(&file, "GGUF\3\0\0\0", 8);
    put_u64(&file, g->n_tensors);
    put_u64(&file, g->n_pairs);
    put(&file, g->pairs.at, g->pairs.size);
    put(&file, g->infos.at, g->infos.size);
    while (file.size % 32) put(&file, "", 1);
    put(&file, g->data.at, g->data.size);
    free(g->pairs.at);
    free(g->infos.at);
    free(g->data.at);
    memset(g, 0, sizeof *g);
    *size = file.size;
    return file.at;
}

/* ---- networks with weights from a formula --------------------------------------------------- */

/* Each tensor has a short name, from which its values follow, and that of the file. Letters of the
 * shape are those of the configuration; n = E / B, g = G head_dim, A = H head_dim, p are the pairs
 * that are rotated; c marks taps,
 * which the file has as [E, 1, K], t those of a short convolution, [A, K]. Kinds: the letter of a
 * mixer, 'l' of every layer, '1' once. `only` says which networks have it: 'B' those with biases,
 * 'q' with qkv_bias, 'l' with LayerNorm; other letters stand in network_make_with's `extras`. */
static const struct { const char *name, *file, *shape; char kind, only; } network_tensors[] = {
    { "embed.weight",       "embed_tokens.weight",       "VD", '1', 0 },
    { "embed_norm.weight",  "embed_norm.weight",         "D",  '1', 'e' },
    { "head.weight",        "lm_head.weight",            "VD", '1', 'u' },
    { "rope_factors",       "rope_factors.weight",       "p",  '1', 'f' },
    { "final_norm.weight",  "final_norm.weight",         "D",  '1', 0 },
    { "final_norm.bias",    "final_norm.bias",           "D",  '1', 'l' },
    { "norm1.weight",       "temporal_pre_norm.weight",  "D",  'l', 0 },
    { "norm1.bias",         "temporal_pre_norm.bias",    "D",  'l', 'l' },
    { "norm2.weight",       "channel_pre_norm.weight",   "D",  'l', 0 },
    { "norm2.bias",         "channel_pre_norm.bias",     "D",  'l', 'l' },
    { "rec.x.weight",       "temporal_block.linear_x.weight",   "ED", 'r', 0 },
    { "rec.x.bias",         "temporal_block.linear_x.bias",     "E",  'r', 'B' },
    { "rec.y.weight",       "temporal_block.linear_y.weight",   "ED", 'r', 0 },
    { "rec.y.bias",         "temporal_block.linear_y.bias",     "E",  'r', 'B' },
    { "rec.out.weight",     "temporal_block.linear_out.weight", "DE", 'r', 0 },
    { "rec.out.bias",       "temporal_block.linear_out.bias",   "D",  'r', 'B' },
    { "rec.conv.weight",    "temporal_block.conv_1d.weight",    "cKE", 'r', 0 },
    { "rec.conv.bias",      "temporal_block.conv_1d.bias",      "E",  'r', 0 },
    { "rec.gate_x.weight",  "temporal_block.rg_lru.input_gate_weight",     "Bnn", 'r', 0 },
    { "rec.gate_x.bias",    "temporal_block.rg_lru.input_gate_bias",       "Bn",  'r', 0 },
    { "rec.gate_a.weight",  "temporal_block.rg_lru.recurrent_gate_weight", "Bnn", 'r', 0 },
    { "rec.gate_a.bias",    "temporal_block.rg_lru.recurrent_gate_bias",   "Bn",  'r', 0 },
    { "rec.a_param",        "temporal_block.rg_lru.recurrent_param",       "E",   'r', 0 },
    { "attn.q.weight",      "temporal_block.q_proj.weight", "AD", 'a', 0 },
    { "attn.k.weight",      "temporal_block.k_proj.weight", "gD", 'a', 0 },
    { "attn.v.weight",      "temporal_block.v_proj.weight", "gD", 'a', 0 },
    { "attn.o.weight",      "temporal_block.o_proj.weight", "DA", 'a', 0 },
    { "attn.o.bias",        "temporal_block.o_proj.bias",   "D",  'a', 'B' },
    { "attn.q.bias",        "temporal_block.q_proj.bias",   "A",  'a', 'q' },
    { "attn.k.bias",        "temporal_block.k_proj.bias",   "g",  'a', 'q' },
    { "attn.v.bias",        "temporal_block.v_proj.bias",   "g",  'a', 'q' },
    { "h.q.weight",         "temporal_block.q_proj.weight", "AD", 'h', 0 },
    { "h.f.weight",         "temporal_block.f_proj.weight", "AD", 'h', 0 },
    { "h.v.weight",         "temporal_block.v_proj.weight", "AD", 'h', 0 },
    { "h.o.weight",         "temporal_block.o_proj.weight", "DA", 'h', 0 },
    { "h.o.bias",           "temporal_block.o_proj.bias",   "D",  'h', 'B' },
    { "h.floor",            "temporal_block.lower_bound",   "A",  'h', 0 },
    { "h.range",            "temporal_block.gate_range",    "A",  'h', 0 },
    { "h.norm.weight",      "temporal_block.group_norm.weight", "A", 'h', 0 },
    { "h.norm.bias",        "temporal_block.group_norm.bias",   "A", 'h', 'b' },
    { "h.q.conv.weight",    "temporal_block.q_conv.weight", "tKA", 'h', 'c' },
    { "h.f.conv.weight",    "temporal_block.f_conv.weight", "tKA", 'h', 'c' },
    { "h.v.conv.weight",    "temporal_block.v_conv.weight", "tKA", 'h', 'c' },
    { "h.v.conv.bias",      "temporal_block.v_conv.bias",   "A",   'h', 'c' },
    { "s.q.weight",         "temporal_block.q_proj.weight", "AD", 's', 0 },
    { "s.q.bias",           "temporal_block.q_proj.bias",   "A",  's', 0 },
    { "s.k.weight",         "temporal_block.k_proj.weight", "gD", 's', 0 },
    { "s.k.bias",           "temporal_block.k_proj.bias",   "g",  's', 0 },
    { "s.v.weight",         "temporal_block.v_proj.weight", "gD", 's', 0 },
    { "s.o.weight",         "temporal_block.o_proj.weight", "DA", 's', 0 },
    { "s.o.bias",           "temporal_block.o_proj.bias",   "D",  's', 'B' },
    { "s.decay",            "temporal_block.decay",         "H",  's', 0 },
    { "s.q.norm.weight",    "temporal_block.q_norm.weight", "A",  's', 'n' },
    { "s.k.norm.weight",    "temporal_block.k_norm.weight", "A",  's', 'n' },
    { "s.k.norm.bias",      "temporal_block.k_norm.bias",   "A",  's', 'n' },
    { "mlp.gate.weight",    "mlp_block.gate_proj.weight",   "FD", 'l', 0 },
    { "mlp.gate.bias",      "mlp_block.gate_proj.bias",     "F",  'l', 'B' },
    { "mlp.up.weight",      "mlp_block.up_proj.weight",     "FD", 'l', 0 },
    { "mlp.up.bias",        "mlp_block.up_proj.bias",       "F",  'l', 'B' },
    { "mlp.down.weight",    "mlp_block.down_proj.weight",   "DF", 'l', 0 },
    { "mlp.down.bias",      "mlp_block.down_proj.bias",     "D",  'l', 'B' }
};

typedef struct tensor {
    char   name[64], file[64];              /* file: "model." and the name in a file of rows */
    char   stored[80];                      /* the name in a file that the library reads */
    int    sizes[4], rank, taps;            /* row-major, as the formula fills them; taps: 'c', 't' */
    int    tiled;                           /* a matrix: stored in tiles as NAME.f32 */
    long   count;
    float *values;
} tensor;

typedef struct network {
    griffin_config config;
    tensor tensors[256];
    int    count;
    unsigned char *file;                    /* of network_open */
} network;

static inline int network_size(const griffin_config *c, char letter) {
    switch (letter) {
    case 'V': return c->vocab;
    case 'D': return c->width;
    case 'E': return c->lru_width;
    case 'F': return c->mlp_width;
    case 'B': return c->gate_blocks;
    case 'n': return c->lru_width / c->gate_blocks;
    case 'g': return c->kv_heads * c->head_dim;
    case 'A': return c->heads * c->head_dim;
    case 'H': return c->heads;
    case 'p': return c->rope_dims / 2;
    default:  return c->conv_width;
    }
}

/* s = FNV-1a of the name; for each element s = 1664525 s + 1013904223, and the value is offset +
 * (2 s / 2^32 - 1) amplitude, of s the upper 24 bits. */
static inline void fill_by_formula(tensor *t, double norm_offset) {
    double offset = 0, amplitude = sqrt(3.0 / t->sizes[t->rank - 1]);       /* of matrices */
    const char *p;
    uint32_t s = 2166136261u;
    for (p = t->name; *p; p++) s = (s ^ (unsigned char)*p) * 16777619u;
    if (strstr(t->name, ".bias")) amplitude = 0.1;
    if (strstr(t->name, "norm")) amplitude = 0.2;
    if (strstr(t->name, "norm") && strstr(t->name, ".weight")) offset = 1 - norm_offset;
    if (strstr(t->name, "h.floor") || strstr(t->name, "h.range")) { amplitude = 0.3; offset = 0.35; }
    if (strstr(t->name, "factors")) { amplitude = 2; offset = 3; }
    if (strstr(t->name, "s.decay")) { amplitude = 0.1; offset = 0.9; }
    if (strstr(t->name, "conv.weight")) amplitude = 0.5;
    if (strstr(t->name, "a_param")) { amplitude = 2.5; offset = -4.5; }
    for (long i = 0; i < t->count; i++) {
        s = s * 1664525u + 1013904223u;
        t->values[i] = (float)(offset + (2 * ((double)(s >> 8) / 16777216.0) - 1) * amplitude);
    }
}

static inline void network_add(network *n, int kind, int layer) {
    const char *shape = network_tensors[kind].shape, *name = network_tensors[kind].name;
    tensor *t = &n->tensors[n->count++];
    char prefix[24] = "";
    memset(t, 0, sizeof *t);
    if (layer >= 0) snprintf(prefix, sizeof prefix, "layers.%d.", layer);
    snprintf(t->name, sizeof t->name, "%s%s", prefix, name);
    snprintf(t->file, sizeof t->file, "model.%s%s", prefix, network_tensors[kind].file);
    t->taps = *shape == 'c' || *shape == 't' ? *shape : 0;
    t->count = 1;
    for (shape += t->taps != 0; *shape; shape++)
        t->count *= t->sizes[t->rank++] = network_size(&n->config, *shape);
    t->tiled = t->rank > 1 && !t->taps && strstr(t->name, ".weight");
    snprintf(t->stored, sizeof t->stored, "%s%s%s", prefix, network_tensors[kind].file,
             t->tiled ? ".f32" : "");
    t->values = (float *)malloc((size_t)t->count * sizeof *t->values);
    fill_by_formula(t, n->config.norm_offset);
}

static inline int network_wants(const griffin_config *c, char only, const char *extras) {
    switch (only) {
    case 0:   return 1;
    case 'B': return !c->no_biases;
    case 'q': return c->qkv_bias;
    case 'l': return c->layer_norm;
    default:  return strchr(extras, only) != NULL;
    }
}

/* Extras: 'e' a norm of the embedding, 'u' a head of its own, 'f' factors of the angles, 'b' a bias
 * in the norm and 'c' short convolutions of HGRN2, 'n' norms of SUPRA's q and k. */
static inline network *network_make_with(const griffin_config *config, const char *extras) {
    network *n = (network *)calloc(1, sizeof *n);
    int types = (int)(sizeof network_tensors / sizeof network_tensors[0]);
    n->config = *config;
    for (int kind = 0; kind < types; kind++) {
        char which = network_tensors[kind].kind;
        if (!network_wants(config, network_tensors[kind].only, extras)) continue;
        if (which == '1') network_add(n, kind, -1);
        for (int layer = 0; layer < config->layers && which != '1'; layer++)
            if (which == 'l' || which == config->blocks[layer]) network_add(n, kind, layer);
    }
    return n;
}

static inline network *network_make(const griffin_config *config) {
    return network_make_with(config, "");
}

static inline void network_free(network *n) {
    while (n->count > 0) free(n->tensors[--n->count].values);
    free(n->file);
    free(n);
}

static inline void network_write_config(const griffin_config *c, gguf *g) {
    static const char *const activations[] = { "gelu_pytorch_tanh", "gelu", "silu", "relu" };
    gguf_text(g, "general.architecture", "griffin");
    gguf_int(g, "griffin.format_version", 2);
    gguf_int(g, "griffin.vocab_size", c->vocab);
    gguf_int(g, "griffin.embedding_length", c->width);
    gguf_int(g, "griffin.block_count", c->layers);
    gguf_int(g, "griffin.feed_forward_length", c->mlp_width);
    gguf_int(g, "griffin.attention.head_count", c->heads);
    gguf_int(g, "griffin.attention.head_count_kv", c->kv_heads);
    gguf_int(g, "griffin.attention.key_length", c->head_dim);
    gguf_int(g, "griffin.attention.sliding_window", c->window);
    gguf_int(g, "griffin.rope.dimension_count", c->rope_dims);
    gguf_int(g, "griffin.ssm.conv_kernel", c->conv_width);
    gguf_int(g, "griffin.ssm.inner_size", c->lru_width);
    gguf_int(g, "griffin.ssm.group_count", c->gate_blocks);
    gguf_float(g, "griffin.final_logit_softcapping", c->soft_cap);
    gguf_float(g, "griffin.embedding_scale", c->embedding_scale);
    gguf_float(g, "griffin.attention.layer_norm_rms_epsilon", c->eps);
    gguf_float(g, "griffin.rope.freq_base", c->rope_base);
    gguf_float(g, "griffin.rglru.c", c->decay);
    gguf_float(g, "griffin.norm_weight_offset", c->norm_offset);
    if (gguf_key(g, "griffin.attention.qkv_bias", GGUF_BOOL))
        put(&g->pairs, c->qkv_bias ? "\1" : "\0", 1);
    if (gguf_key(g, "griffin.no_biases", GGUF_BOOL)) put(&g->pairs, c->no_biases ? "\1" : "\0", 1);
    if (gguf_key(g, "griffin.layer_norm", GGUF_BOOL)) put(&g->pairs, c->layer_norm ? "\1" : "\0", 1);
    gguf_float(g, "griffin.mixer_norm_epsilon", c->mixer_eps);
    gguf_text(g, "griffin.hidden_activation", activations[c->activation]);
    if (!gguf_array(g, "griffin.block_types", GGUF_STRING, c->layers)) return;
    for (int i = 0; i < c->layers; i++)
        put_text(&g->pairs, c->blocks[i] == 'a' ? "attention" : c->blocks[i] == 'h' ? "hgrn2"
                            : c->blocks[i] == 's' ? "supra"
                            : c->blocks[i] == 'r' ? "recurrent" : "unknown");
}

/* [K][E] to [E, 1, K], or [E, K] */
static inline void write_taps(gguf *g, const tensor *t) {
    int K = t->sizes[0], E = t->sizes[1], sizes[3];
    float *turned = (float *)malloc((size_t)t->count * sizeof *turned);
    sizes[0] = E; sizes[1] = t->taps == 'c' ? 1 : K; sizes[2] = K;
    for (int e = 0; e < E; e++)
        for (int k = 0; k < K; k++) turned[e * K + k] = t->values[k * E + e];
    gguf_tensor(g, t->stored, sizes, t->taps == 'c' ? 3 : 2, turned);
    free(turned);
}

/* [rows, cols], or gates [blocks, cols, rows], as tiles [tiles, cols, 32]. Dimensions that a test
 * has added stay. */
static inline void write_tiles(gguf *g, const tensor *t) {
    int gate = strstr(t->name, "gate_") != NULL, B = gate ? t->sizes[0] : 1;
    int rows = t->sizes[gate ? 2 : 0], cols = t->sizes[1], high = (rows + 31) / 32;
    int shape[5], rank = 3 + t->rank - (gate ? 3 : 2);
    float *tiles = (float *)calloc((size_t)(B * high * cols * 32), sizeof *tiles);
    for (int b = 0; b < B; b++)
        for (int r = 0; r < rows; r++)
            for (int k = 0; k < cols; k++)
                tiles[((b * high + r / 32) * cols + k) * 32 + r % 32] =
                    t->values[gate ? (b * cols + k) * rows + r : r * cols + k];
    shape[0] = B * high; shape[1] = cols; shape[2] = 32; shape[3] = 1;
    gguf_tensor(g, t->stored, shape, rank, tiles);
    free(tiles);
}

static inline void network_write(const network *n, gguf *g) {
    network_write_config(&n->config, g);
    for (int i = 0; i < n->count; i++) {
        const tensor *t = &n->tensors[i];
        if (t->taps) write_taps(g, t);
        else if (t->tiled) write_tiles(g, t);
        else gguf_tensor(g, t->stored, t->sizes, t->rank, t->values);
    }
}

/* The shape whose logits inside_reference.c knows. */
static inline griffin_config small_config(void) {
    griffin_config c;
    memset(&c, 0, sizeof c);
    c.vocab = 19; c.width = 24; c.mlp_width = 40; c.layers = 4;
    c.heads = 3; c.kv_heads = 1; c.head_dim = 8;
    c.lru_width = 36; c.gate_blocks = 3; c.conv_width = 4;
    c.window = 4; c.rope_dims = 4; c.rope_base = 10000;
    c.eps = 1e-6f; c.norm_offset = 1; c.embedding_scale = 4.90625f; c.soft_cap = 30; c.decay = 8;
    strcpy(c.blocks, "rrar");
    return c;
}

/* The other kinds of layers: states that are matrices with padding in their tiles, heads that share
 * keys and values, full rotary. All mixers in one network, if `blocks` says so. */
static inline griffin_config kin_config(const char *blocks) {
    griffin_config c = small_config();
    c.width = 48; c.heads = 3; c.head_dim = 16; c.rope_dims = 16;
    c.no_biases = 1; c.norm_offset = 0; c.embedding_scale = 1; c.soft_cap = 0;
    c.activation = GRIFFIN_SILU;
    c.layers = (int)strlen(blocks);
    strcpy(c.blocks, blocks);
    return c;
}

/* What the promises are checked with: Griffin itself, then its kin. */
static const struct family { const char *name, *blocks, *extras; int layer_norm; } families[] = {
    { "griffin", "rrar", "", 0 },    { "hgrn2", "hhh", "u", 0 },   { "supra", "sss", "u", 0 },
    { "llama", "aaa", "u", 0 },      { "all of them", "hars", "", 0 },
    { "hgrn2 with options", "hh", "bc", 0 }, { "supra with options", "ss", "efn", 1 }
};
#define FAMILIES COUNT(families)

static inline network *family_make(int index, float embedding_scale) {
    griffin_config c = index ? kin_config(families[index].blocks) : small_config();
    c.layer_norm = families[index].layer_norm;
    c.embedding_scale = embedding_scale;
    return network_make_with(&c, families[index].extras);
}

/* A model of which only the size of its vocabulary matters, such as for sampling. */
static inline griffin_config smallest_config(int vocab) {
    griffin_config c = small_config();
    c.vocab = vocab;
    c.width = 8; c.mlp_width = 8; c.layers = 1; c.heads = 1; c.lru_width = 8; c.gate_blocks = 1;
    strcpy(c.blocks, "r");
    return c;
}

/* Nine pieces, enough for "abba". */
static inline void write_vocabulary(gguf *g) {
    static const struct { const char *text; float score; int type; } pieces[] = {
        { "<pad>", 0, 3 }, { "<eos>", 0, 3 }, { "<bos>", 0, 3 }, { "<unk>", 0, 2 }, { "a", -3, 1 },
        { "b", -4, 1 }, { "ab", -1, 1 }, { "\xE2\x96\x81", -5, 1 }, { "<turn>", 0, 4 }
    };
    int n = COUNT(pieces);
    gguf_text(g, "tokenizer.ggml.model", "llama");
    gguf_int(g, "tokenizer.ggml.bos_token_id", 2);
    gguf_int(g, "tokenizer.ggml.eos_token_id", 1);
    gguf_array(g, "tokenizer.ggml.tokens", GGUF_STRING, n);
    for (int i = 0; i < n; i++) put_text(&g->pairs, pieces[i].text);
    gguf_array(g, "tokenizer.ggml.scores", GGUF_F32, n);
    for (int i = 0; i < n; i++) put_u32(&g->pairs, bits_of(pieces[i].score));
    gguf_array(g, "tokenizer.ggml.token_type", GGUF_I32, n);
    for (int i = 0; i < n; i++) put_u32(&g->pairs, (uint32_t)pieces[i].type);
}

/* The file of a network; free it. */
static inline unsigned char *network_file(const network *n, size_t *size) {
    gguf g;
    memset(&g, 0, sizeof g);
    network_write(n, &g);
    return gguf_finish(&g, size);
}

/* The model borrows the file, which lives as long as the network: close the model first. */
static inline griffin_model *network_open(network *n, const griffin_options *options) {
    griffin_model *model = NULL;
    size_t size;
    free(n->file);
    n->file = network_file(n, &size);
    int error = griffin_open_memory(&model, n->file, size, options);
    CHECK(error == GRIFFIN_OK, "%s", griffin_error_string(error));
    return model;
}

#endif
