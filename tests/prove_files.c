/* prove_files.c - where fuzzing only samples, a bounded model checker (cbmc, Kroening and others)
 * looks at every input: no access outside of the bytes that were given or of the memory that was
 * allocated, no overflow of signed numbers, no shift or division that is not defined, and no loop
 * that goes on (--unwinding-assertions). `make prove` runs each function below that is named
 * prove_...; tests/prove.sh has the command and says how long an input each is proved for. Where no
 * cbmc is installed, `sh tests/cbmc.sh build/cbmc` gets one.
 *
 *     prove_place     where a tensor lies: all offsets and sizes, no limit of length
 *     prove_shape     number format and shape of a tensor: all of them, with names of any 1 to 63
 *                     bytes
 *     prove_cursor    the reads that everything stands on, anywhere in LENGTH bytes
 *     prove_tensor    a directory entry of a tensor, anywhere in LENGTH bytes
 *     prove_key, prove_value    the two parts of a metadata pair, anywhere in LENGTH bytes
 *     prove_pair      a metadata pair around these two, anywhere in LENGTH bytes
 *     prove_header    the header, and what is allocated for any counts in it
 *     prove_state     a saved state, whatever the host gives of it, into a small model
 *     prove_skip      the same, where only the sampler and the decoder are wanted
 *     prove_read      a piece of LENGTH bytes at most, from a host that returns anything
 *     prove_save      a save in memory, of LENGTH bytes at most: is it one?
 *
 * Some functions are replaced. Messages are left out (fail_), since their text has no bearing on
 * what is read. A hash may be any number (hash_), so checksums fit and names
 * collide in every way. A ring has 4 slots, so the slot of a position needs no division (slot_),
 * which would be hard for the solver. */

#define GRIFFIN_IMPLEMENTATION
#define GRIFFIN_SCALAR_ONLY
#define GRIFFIN_NO_STDIO
#include "griffin.h"

#include <stdlib.h>

#ifndef LENGTH
  #define LENGTH 24
#endif

uint64_t nondet_u64(void);                  /* any number: cbmc knows the name */
int      nondet_int(void);

int fail_(const grf_host *host, int error, const char *format, ...);
int fail_(const grf_host *host, int error, const char *format, ...) {
    (void)host; (void)format;
    return error;
}

int fail_tensor_(const grf_host *host, int error, const grf_tensor *t, const char *format, ...);
int fail_tensor_(const grf_host *host, int error, const grf_tensor *t, const char *format, ...) {
    (void)host; (void)t; (void)format;
    return error;
}

/* cbmc has no memchr. */
void *memchr(const void *bytes, int byte, size_t size) {
    const unsigned char *p = (const unsigned char *)bytes;
    for (size_t i = 0; i < size; i++) if (p[i] == (unsigned char)byte) return (void *)(p + i);
    return NULL;
}

uint64_t hash_start_(uint64_t hash, const uint8_t *p, size_t size);
uint64_t hash_start_(uint64_t hash, const uint8_t *p, size_t size) {
    (void)hash; (void)p; (void)size;
    return nondet_u64();
}

uint64_t hash_(uint64_t hash, const void *data, size_t size);
uint64_t hash_(uint64_t hash, const void *data, size_t size) {
    (void)hash; (void)data; (void)size;
    return nondet_u64();
}

int64_t slot_(const griffin_model *m, int64_t position);
int64_t slot_(const griffin_model *m, int64_t position) {
    __CPROVER_assert(m->layout.slots == 4 && position >= 0, "a remainder, taken bit by bit");
    return position & 3;
}

static void *take(size_t size, void *user) { (void)user; return malloc(size); }
static void  give(void *memory, void *user) { (void)user; free(memory); }

static grf_host any_host(void) {
    grf_host host;
    memset(&host, 0, sizeof host);
    host.allocator.allocate = take;
    host.allocator.release = give;
    return host;
}

static uint8_t *any_bytes(uint64_t *size) {
    *size = nondet_u64();
    __CPROVER_assume(*size <= LENGTH);
    uint8_t *data = (uint8_t *)malloc((size_t)*size);
    __CPROVER_assume(data != NULL);
    return data;
}

static grf_cursor any_cursor(void) {
    grf_cursor c;
    c.data = any_bytes(&c.size);
    c.at = nondet_u64();
    c.ended = nondet_int();
    __CPROVER_assume(c.at <= c.size);
    return c;
}

void prove_cursor(void) {
    grf_cursor c = any_cursor();
    grf_cursor_u32(&c);
    grf_name name = grf_cursor_text(&c);
    grf_cursor_u64(&c);
    __CPROVER_assert(c.at <= c.size, "the cursor stays in the file");
    if (name.length)
        __CPROVER_assert((uint64_t)((const uint8_t *)name.text - c.data) + name.length <= c.size,
                         "and so does a text");
}

/* A key anywhere in the bytes. */
void prove_key(void) {
    grf_cursor c = any_cursor();
    grf_kv kv;
    kv.name.text = (const char *)c.data + c.at;
    __CPROVER_assume(kv.name.length <= c.size - c.at);
    grf_gguf_check_key(&kv);
}

/* A value that begins anywhere in the bytes, of any type and number of elements. */
void prove_value(void) {
    grf_cursor c = any_cursor();
    grf_kv kv;
    __CPROVER_assume(!c.ended);             /* as prove_pair shows */
    __CPROVER_assume(kv.element_type < GRF_VALUES && grf_values[kv.element_type].bytes);
    if (grf_gguf_check_value(&c, &kv)) return;
    __CPROVER_assert(c.at <= c.size, "the value lies in the file");
}

/* In the place of the two checks before: any answer, any end in the bytes. */
const char *key_(const grf_kv *kv);
const char *key_(const grf_kv *kv) { (void)kv; return nondet_int() ? "wrong" : NULL; }

const char *value_(grf_cursor *c, const grf_kv *kv);
const char *value_(grf_cursor *c, const grf_kv *kv) {
    uint64_t to = nondet_u64();
    (void)kv;
    __CPROVER_assert(!c->ended, "the check of a value begins inside the bytes");
    __CPROVER_assume(to >= c->at && to <= c->size);
    c->at = to;
    return nondet_int() ? "wrong" : NULL;
}

void prove_pair(void) {
    grf_host host = any_host();
    grf_cursor c = any_cursor();
    grf_kv kv;
    if (grf_gguf_read_kv(&c, &kv, &host) != GRIFFIN_OK) return;
    __CPROVER_assert(c.at <= c.size && kv.offset <= c.at, "the value lies in the file");
}

void prove_tensor(void) {
    grf_host host = any_host();
    grf_cursor c = any_cursor();
    grf_tensor t;
    if (grf_gguf_read_tensor(&c, &t, &host) != GRIFFIN_OK) return;
    __CPROVER_assert(c.at <= c.size && t.rank >= 1 && t.rank <= 4, "1 to 4 dimensions");
}

void prove_shape(void) {
    grf_host host = any_host();
    grf_tensor t;
    grf_gguf g;
    char name[63];
    memset(&g, 0, sizeof g);
    g.any_type = nondet_int();
    t.name.text = name;
    t.name.length = nondet_u64();
    __CPROVER_assume(t.name.length >= 1 && t.name.length <= 63);
    grf_gguf_check_shape(&g, &t, &host);
}

void prove_place(void) {
    grf_host host = any_host();
    grf_tensor t[2];
    grf_gguf g;
    memset(&g, 0, sizeof g);
    uint64_t start = nondet_u64(), alignment = nondet_u64();
    g.tensors = t;
    g.size = nondet_u64();
    __CPROVER_assume(g.size <= INT64_MAX && start <= g.size);
    __CPROVER_assume(alignment >= 8 && alignment <= 65536);
    __CPROVER_assume(t[0].offset <= g.size && t[0].bytes <= g.size - t[0].offset);
    if (grf_gguf_place(&g, &t[1], start, alignment, &host) != GRIFFIN_OK) return;
    __CPROVER_assert(t[1].offset >= start && t[1].offset <= g.size
                     && t[1].bytes <= g.size - t[1].offset, "it lies in the data section");
    __CPROVER_assert(t[1].offset >= t[0].offset + t[0].bytes, "and behind the one before");
}

void prove_header(void) {
    grf_host host = any_host();
    grf_cursor c = any_cursor();
    grf_gguf g;
    memset(&g, 0, sizeof g);
    __CPROVER_assume(c.at == 0);
    if (grf_gguf_read_header(&g, &c, &host) != GRIFFIN_OK) return;
    __CPROVER_assert(g.n_kv * 13 + g.n_tensors * 24 <= c.size - 24, "counts that the file backs");
    if (grf_gguf_allocate(&g, &host) == GRIFFIN_OK) grf_gguf_close(&g, &host);
}

/* What a host gives: any bytes, as the memory that they go to has any at the beginning, or an
 * error. */
void read_(const griffin_model *m, grf_pieces *p, uint8_t *data, size_t size);
void read_(const griffin_model *m, grf_pieces *p, uint8_t *data, size_t size) {
    (void)m;
    __CPROVER_assert(__CPROVER_w_ok(data, size), "room for a piece");
    if (!p->error && nondet_int()) p->error = GRIFFIN_E_FORMAT;
}

/* One recurrent layer of 2 numbers, and one of attention that sees 3 keys of 8 bytes: the saved
 * bytes are 56, 80 or 96, and 8 more with a decoder. */
static void any_model(griffin_model *m, size_t state) {
    m->info.attn_keys = 3;
    m->info.state_bytes = state;
    m->layout.slots = 4;
    m->layout.kv_row = 8;
    m->layout.kv_size = 4;
    m->layout.ring_bytes = 64;
    m->layout.attention_layers = 1;
    m->layout.recurrent_floats = 2;
    m->layout.saved_tag = nondet_u64();
}

enum { STATE = sizeof(griffin_state) + 8 + 2 * 4 * 8 + 8 };

static void load(griffin_state *s) {
    static griffin_model m;
    static grf_pieces pieces;
    griffin_sampler sampler;
    griffin_decoder decoder;
    any_model(&m, STATE);
    pieces.checked = nondet_int();
    if (grf_state_load(&m, s, nondet_int() ? &sampler : NULL, nondet_int() ? &decoder : NULL,
                       &pieces)) return;
    __CPROVER_assert(!s || s->position >= 0, "a position");
}

void prove_skip(void) { load(NULL); }

void prove_state(void) {
    griffin_state *s = (griffin_state *)malloc(STATE);
    __CPROVER_assume(s != NULL);
    load(s);
}

void prove_save(void) {
    static griffin_model m;
    uint64_t size;
    uint8_t *data = any_bytes(&size);
    any_model(&m, 0);
    if (grf_save_check(&m, data, (size_t)size)) return;
    __CPROVER_assert(size >= 56, "a save");
}

/* A host may return anything; what it wrote is its own affair. */
static int any_read(void *data, size_t size, void *user) {
    (void)user;
    __CPROVER_assert(__CPROVER_w_ok(data, size), "room for what is asked for");
    return nondet_int();
}

void prove_read(void) {
    static griffin_model m;
    static grf_pieces pieces;
    uint64_t size;
    uint8_t *data = any_bytes(&size);
    pieces.read = any_read;
    grf_pieces_read(&m, &pieces, data, (size_t)size);
}
