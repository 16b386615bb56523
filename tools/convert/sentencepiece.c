/* sentencepiece.c - reads and writes SentencePiece's tokenizer.model, one protobuf message:
 *
 *     field = varint (number << 3 | wire), payload
 *     wire 0: varint   1: 8 bytes   2: varint length, bytes   5: 4 bytes */

#include "sentencepiece.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- fields of any message ------------------------------------------------------------------ */

typedef struct cursor { const unsigned char *p; size_t left; int bad; } cursor;

typedef struct field {
    uint32_t number;
    int      wire;
    uint64_t value;                         /* wire 0 and 5 */
    cursor   bytes;                         /* wire 2 */
} field;

static const unsigned char *take(cursor *c, uint64_t size) {
    const unsigned char *p = c->p;
    if (c->bad || size > c->left) { c->bad = 1; return NULL; }
    c->p += size;
    c->left -= (size_t)size;
    return p;
}

static uint64_t take_varint(cursor *c) {
    uint64_t value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
        const unsigned char *p = take(c, 1);
        if (!p) return 0;
        value |= (uint64_t)(*p & 127) << shift;
        if (*p < 128) return value;
    }
    c->bad = 1;
    return 0;
}

static uint64_t take_fixed(cursor *c, int size) {
    const unsigned char *p = take(c, (uint64_t)size);
    uint64_t value = 0;
    for (int i = 0; p && i < size; i++) value |= (uint64_t)p[i] << 8 * i;
    return value;
}

/* Reads the next field. Returns 0 at the end and when the file is damaged. */
static int take_field(cursor *c, field *f) {
    if (c->bad || c->left == 0) return 0;
    uint64_t key = take_varint(c);
    memset(f, 0, sizeof *f);
    f->wire = (int)(key & 7);
    f->number = (uint32_t)(key >> 3);
    if (f->number == 0 || key >> 3 != f->number) c->bad = 1;
    switch (f->wire) {
    case 0: f->value = take_varint(c); break;
    case 1: f->value = take_fixed(c, 8); break;
    case 5: f->value = take_fixed(c, 4); break;
    case 2:
        f->value = take_varint(c);
        f->bytes.left = (size_t)f->value;
        f->bytes.p = take(c, f->value);
        break;
    default: c->bad = 1; break;
    }
    return !c->bad;
}

/* ---- those that matter ---------------------------------------------------------------------- */

enum { UNK_NAME, BOS_NAME, EOS_NAME, PAD_NAME, NAMES };

typedef struct model {
    vocabulary *v;
    int   model_type, byte_fallback, bad;
    slice name[NAMES];                      /* empty: the usual one */
    slice denormaliser;
} model;

static uint64_t number_of(model *m, const field *f) {
    m->bad |= f->wire != 0;
    return f->value;
}

static void take_text(model *m, const field *f, slice *text) {
    m->bad |= f->wire != 2;
    if (!m->bad) *text = vocabulary_keep(m->v, f->bytes.p, f->bytes.left);
}

static void take_score(model *m, const field *f, float *score) {
    uint32_t bits = (uint32_t)f->value;
    m->bad |= f->wire != 5;
    memcpy(score, &bits, 4);
}

static void take_piece(model *m, cursor c) {
    piece *p = vocabulary_at(m->v, m->v->count);
    field f;
    if (!p) { m->bad = 1; return; }
    p->type = GRIFFIN_TOKEN_NORMAL;
    while (take_field(&c, &f)) {
        if (f.number == 1) take_text(m, &f, &p->text);
        else if (f.number == 2) take_score(m, &f, &p->score);
        else if (f.number == 3) p->type = (int)(number_of(m, &f) & 0x7FFFFFFF);
    }
    m->bad |= c.bad;
}

static void take_trainer(model *m, cursor c) {
    field f;
    while (take_field(&c, &f)) {
        if (f.number == 3) m->model_type = (int)(number_of(m, &f) & 0x7FFFFFFF);
        else if (f.number == 24) m->v->whitespace_suffix = number_of(m, &f) != 0;
        else if (f.number == 35) m->byte_fallback = number_of(m, &f) != 0;
        else if (f.number == 44) take_text(m, &f, &m->v->unk_surface);
        else if (f.number >= 45 && f.number <= 48) take_text(m, &f, &m->name[f.number - 45]);
    }
    m->bad |= c.bad;
}

static void take_normaliser(model *m, cursor c) {
    field f;
    while (take_field(&c, &f)) {
        if (f.number == 2) take_text(m, &f, &m->v->charsmap);
        else if (f.number == 3) m->v->add_space_prefix = number_of(m, &f) != 0;
        else if (f.number == 4) m->v->remove_extra_whitespaces = number_of(m, &f) != 0;
        else if (f.number == 5) m->v->escape_whitespaces = number_of(m, &f) != 0;
    }
    m->bad |= c.bad;
}

static void take_denormaliser(model *m, cursor c) {
    field f;
    while (take_field(&c, &f)) if (f.number == 2) take_text(m, &f, &m->denormaliser);
    m->bad |= c.bad;
}

static void take_model(model *m, cursor c) {
    field f;
    while (!m->bad && take_field(&c, &f)) {
        m->bad |= f.number <= 5 && f.number != 4 && f.wire != 2;
        switch (m->bad ? 0 : f.number) {
        case 1: take_piece(m, f.bytes); break;
        case 2: take_trainer(m, f.bytes); break;
        case 3: take_normaliser(m, f.bytes); break;
        case 5: take_denormaliser(m, f.bytes); break;
        default: break;
        }
    }
    m->bad |= c.bad;
}

/* ---- the vocabulary ------------------------------------------------------------------------ */

static int named(const model *m, int which, const char *usual, int type) {
    slice s = m->name[which];
    return s.length ? vocabulary_find(m->v, m->v->text + s.at, s.length, type)
                    : vocabulary_find(m->v, usual, strlen(usual), type);
}

static int first_of_type(const vocabulary *v, int type) {
    for (size_t i = 0; i < v->count; i++) if (v->pieces[i].type == type) return (int)i;
    return -1;
}

/* Texts are cut after their spaces have become U+2581, so that a user-defined piece with a plain
 * space never matches. The library is told so, because other writers mean U+2581 by it. */
static int has_plain_spaces(const vocabulary *v) {
    for (size_t i = 0; i < v->count; i++)
        if (v->pieces[i].type == GRIFFIN_TOKEN_USER_DEFINED && v->escape_whitespaces
            && memchr(v->text + v->pieces[i].text.at, ' ', v->pieces[i].text.length)) return 1;
    return 0;
}

static int check_model(const model *m, const char *path, report *r) {
    static const char *const kinds[] = {"unknown", "unigram", "BPE", "word", "char"};
    int kind = m->model_type >= 1 && m->model_type <= 4 ? m->model_type : 0;
    if (m->bad && m->v->out_of_memory) return report_fail(r, "%s: out of memory", path);
    if (m->bad) return report_fail(r, "%s: not a SentencePiece model, or damaged", path);
    if (kind != 2)
        return report_fail(r,
                           "%s: SentencePiece model type %d (%s) is not supported; only BPE (2) is",
                           path, m->model_type, kinds[kind]);
    if (m->denormaliser.length) return report_fail(r, "%s: a denormaliser is not supported", path);
    if (first_of_type(m->v, GRIFFIN_TOKEN_UNKNOWN) < 0)
        return report_fail(r, "%s: no unknown piece", path);
    if (!m->byte_fallback && first_of_type(m->v, GRIFFIN_TOKEN_BYTE) >= 0)
        return report_fail(r, "%s: byte pieces without byte_fallback", path);
    if (m->byte_fallback && first_of_type(m->v, GRIFFIN_TOKEN_BYTE) < 0)
        return report_fail(r, "%s: byte_fallback without byte pieces", path);
    return 0;
}

int vocabulary_from_sentencepiece(vocabulary *v, const void *data, size_t size, const char *path,
                                  report *r) {
    model m = {0};
    cursor c = {(const unsigned char *)data, size, 0};
    m.v = v;
    m.model_type = 1;
    v->has_scores = v->add_space_prefix = v->remove_extra_whitespaces = 1;
    take_model(&m, c);
    if (check_model(&m, path, r) != 0) return -1;
    v->unknown = first_of_type(v, GRIFFIN_TOKEN_UNKNOWN);
    v->verbatim = has_plain_spaces(v);
    v->bos = named(&m, BOS_NAME, "<s>", GRIFFIN_TOKEN_CONTROL);
    v->eos = named(&m, EOS_NAME, "</s>", GRIFFIN_TOKEN_CONTROL);
    v->pad = named(&m, PAD_NAME, "<pad>", GRIFFIN_TOKEN_CONTROL);
    v->add_bos = v->bos >= 0;
    return 0;
}

/* ---- writing ------------------------------------------------------------------------------- */

static void put_varint(byte_buffer *out, uint64_t value) {
    for (; value > 127; value >>= 7) buffer_number(out, (value & 127) | 128, 1);
    buffer_number(out, value, 1);
}

static size_t varint_size(uint64_t value) {
    size_t n = 1;
    while (value >>= 7) n++;
    return n;
}

static void put_key(byte_buffer *out, uint32_t number, int wire) {
    put_varint(out, (uint64_t)number << 3 | (unsigned)wire);
}

static void put_bytes(byte_buffer *out, uint32_t number, const void *data, size_t size) {
    put_key(out, number, 2);
    put_varint(out, size);
    buffer_add(out, data, size);
}

static void put_number(byte_buffer *out, uint32_t number, uint64_t value) {
    put_key(out, number, 0);
    put_varint(out, value);
}

static void put_piece(byte_buffer *out, const vocabulary *v, const piece *p) {
    uint32_t bits;
    size_t n = p->text.length;
    memcpy(&bits, &p->score, 4);
    put_key(out, 1, 2);
    put_varint(out, 1 + varint_size(n) + n + 5 + 2);
    put_bytes(out, 1, v->text + p->text.at, n);
    put_key(out, 2, 5);
    buffer_number(out, bits, 4);
    put_number(out, 3, (uint64_t)p->type);
}

/* Names the pieces that readers look for: unknown, bos, eos and pad. */
static void put_names(byte_buffer *out, const vocabulary *v) {
    const int ids[NAMES] = {v->unknown, v->bos, v->eos, v->pad};
    for (uint32_t i = 0; i < NAMES; i++) {
        const piece *p = ids[i] >= 0 ? &v->pieces[ids[i]] : NULL;
        if (p) put_bytes(out, 45 + i, v->text + p->text.at, p->text.length);
        put_number(out, 40 + i, (uint64_t)(int64_t)ids[i]);
    }
}

static void put_trainer(byte_buffer *out, const vocabulary *v) {
    put_number(out, 3, 2);                  /* BPE */
    put_number(out, 24, v->whitespace_suffix != 0);
    put_number(out, 35, first_of_type(v, GRIFFIN_TOKEN_BYTE) >= 0);
    if (v->unk_surface.length)
        put_bytes(out, 44, v->text + v->unk_surface.at, v->unk_surface.length);
    put_names(out, v);
}

static void put_normaliser(byte_buffer *out, const vocabulary *v) {
    put_bytes(out, 1, "identity", 8);
    if (v->charsmap.length) put_bytes(out, 2, v->text + v->charsmap.at, v->charsmap.length);
    put_number(out, 3, v->add_space_prefix != 0);
    put_number(out, 4, v->remove_extra_whitespaces != 0);
    put_number(out, 5, v->escape_whitespaces != 0);
}

void vocabulary_to_sentencepiece(const vocabulary *v, byte_buffer *out) {
    static void (*const parts[])(byte_buffer *, const vocabulary *) = {put_trainer, put_normaliser};
    for (size_t i = 0; i < v->count; i++) put_piece(out, v, &v->pieces[i]);
    for (uint32_t i = 0; i < 2; i++) {
        byte_buffer part = { NULL, 0, 0, 0 };
        parts[i](&part, v);
        put_bytes(out, 2 + i, part.data, part.size);
        out->failed |= part.failed;
        buffer_free(&part);
    }
}
