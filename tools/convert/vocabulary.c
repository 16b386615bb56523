/* vocabulary.c - a vocabulary in memory: filled, checked and written; see vocabulary.h. */

#include "vocabulary.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../shared/json.h"

/* ---- growing --------------------------------------------------------------------------- */

/* Returns the list with room for `wanted` items, or unchanged if there is no memory. */
static void *grown(vocabulary *v, void *list, size_t *room, size_t wanted, size_t size) {
    if (wanted <= *room) return list;
    void *larger = realloc(list, (2 * wanted + 64) * size);
    if (!larger) { v->out_of_memory = 1; return list; }
    *room = 2 * wanted + 64;
    return larger;
}

slice vocabulary_keep(vocabulary *v, const void *text, size_t length) {
    slice kept = {v->text_size, length};
    v->text = (char *)grown(v, v->text, &v->text_room, v->text_size + length, 1);
    if (v->out_of_memory) kept.length = 0;
    if (kept.length) memcpy(v->text + kept.at, text, length);
    v->text_size += kept.length;
    return kept;
}

piece *vocabulary_at(vocabulary *v, size_t id) {
    if (id >= VOCABULARY_LIMIT) return NULL;
    if (id < v->count) return &v->pieces[id];
    v->pieces = (piece *)grown(v, v->pieces, &v->room, id + 1, sizeof *v->pieces);
    if (v->out_of_memory) return NULL;
    memset(v->pieces + v->count, 0, (id + 1 - v->count) * sizeof *v->pieces);
    v->count = id + 1;
    return &v->pieces[id];
}

void vocabulary_add_merge(vocabulary *v, slice merge) {
    v->merges = (slice *)grown(v, v->merges, &v->merge_room, v->merge_count + 1, sizeof *v->merges);
    if (!v->out_of_memory) v->merges[v->merge_count++] = merge;
}

void vocabulary_pad(vocabulary *v, size_t id) {
    piece *p = vocabulary_at(v, id);
    char name[32];
    int length = snprintf(name, sizeof name, "[PAD%lu]", (unsigned long)id);
    if (!p) return;
    p->type = GRIFFIN_TOKEN_UNUSED;
    p->score = -10000.0f;
    p->text = vocabulary_keep(v, name, (size_t)length);
}

void vocabulary_free(vocabulary *v) {
    free(v->text);
    free(v->pieces);
    free(v->merges);
    memset(v, 0, sizeof *v);
}

/* ---- looking --------------------------------------------------------------------------- */

int vocabulary_find(const vocabulary *v, const char *text, size_t length, int type) {
    for (size_t i = 0; i < v->count; i++) {
        const piece *p = &v->pieces[i];
        if (p->text.length == length && (type == 0 || p->type == type)
            && memcmp(v->text + p->text.at, text, length) == 0) return (int)i;
    }
    return -1;
}

int vocabulary_overlaps(const char *a, size_t n, const char *b, size_t m) {
    for (size_t at = 0; at < n; at++) {
        size_t common = n - at < m ? n - at : m;
        if (memcmp(a + at, b, common) == 0) return 1;
    }
    return 0;
}

static int is_upper_hex(char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F'); }

int vocabulary_is_byte(const char *text, size_t length) {
    return length == 6 && memcmp(text, "<0x", 3) == 0 && text[5] == '>'
        && is_upper_hex(text[3]) && is_upper_hex(text[4]);
}

/* Both halves of a merge and the whole are pieces. */
static int merge_is_known(const vocabulary *v, slice merge, names *pieces) {
    const char *text = v->text + merge.at, *space = (const char *)memchr(text, ' ', merge.length);
    size_t left = space ? (size_t)(space - text) : 0, right = merge.length - left - 1;
    char whole[65536];
    if (!space || left + right > sizeof whole) return 0;
    memcpy(whole, text, left);
    memcpy(whole + left, space + 1, right);
    return names_has(pieces, text, left) && names_has(pieces, space + 1, right)
        && names_has(pieces, whole, left + right);
}

/* Cuts off the pieces from `size` on, and the merges that need one of them. */
static void crop_pieces(vocabulary *v, size_t size) {
    names pieces = {0};
    size_t kept = 0;
    v->count = size;
    if ((size_t)v->first_added >= size) v->first_added = 0;
    for (size_t i = 0; i < size; i++)
        if (names_add(&pieces, v->text + v->pieces[i].text.at, v->pieces[i].text.length) < 0)
            v->out_of_memory = 1;
    for (size_t i = 0; i < v->merge_count; i++)
        if (merge_is_known(v, v->merges[i], &pieces)) v->merges[kept++] = v->merges[i];
    v->merge_count = kept;
    names_free(&pieces);
}

int vocabulary_fit(vocabulary *v, size_t size, int crop, report *r) {
    if (v->count > size && !crop)
        return report_fail(r,
                           "the vocabulary has %lu pieces, more than the %lu rows of the embedding",
                           (unsigned long)v->count, (unsigned long)size);
    if (size > VOCABULARY_LIMIT)
        return report_fail(r, "a vocabulary of %lu pieces, more than %d", (unsigned long)size,
                           VOCABULARY_LIMIT);
    if (v->count > size) crop_pieces(v, size);
    while (v->count < size && !v->out_of_memory) vocabulary_pad(v, v->count);
    return v->out_of_memory ? report_fail(r, "out of memory") : 0;
}

/* ---- writing ----------------------------------------------------------------------------- */

static void write_pieces(const vocabulary *v, gguf_writer *g) {
    gguf_array(g, "tokenizer.ggml.tokens", GGUF_STRING, v->count);
    for (size_t i = 0; i < v->count; i++) {
        gguf_item_text(g, v->text + v->pieces[i].text.at, v->pieces[i].text.length);
    }
    if (v->has_scores) {
        gguf_array(g, "tokenizer.ggml.scores", GGUF_F32, v->count);
        for (size_t i = 0; i < v->count; i++) gguf_item_f32(g, v->pieces[i].score);
    }
    gguf_array(g, "tokenizer.ggml.token_type", GGUF_I32, v->count);
    for (size_t i = 0; i < v->count; i++) gguf_item_u32(g, (uint32_t)v->pieces[i].type);
    if (v->has_scores) return;
    gguf_array(g, "tokenizer.ggml.merges", GGUF_STRING, v->merge_count);
    for (size_t i = 0; i < v->merge_count; i++) {
        gguf_item_text(g, v->text + v->merges[i].at, v->merges[i].length);
    }
}

static void write_id(gguf_writer *g, const char *key, int id) {
    if (id >= 0) gguf_u32(g, key, (uint32_t)id);
}

/* `usual` alone needs no list. */
static void write_row(gguf_writer *g, const char *key, const token_row *row, int usual) {
    if (row->count == 0 || (row->count == 1 && row->ids[0] == usual)) return;
    gguf_array(g, key, GGUF_U32, (uint64_t)row->count);
    for (int i = 0; i < row->count; i++) gguf_item_u32(g, (uint32_t)row->ids[i]);
}

static void write_rules(const vocabulary *v, gguf_writer *g) {
    gguf_bool(g, "tokenizer.ggml.add_bos_token", v->add_bos);
    gguf_bool(g, "tokenizer.ggml.add_eos_token", v->add_eos);
    if (v->add_bos) write_row(g, "griffin.tokenizer.tokens_before", &v->before, v->bos);
    if (v->add_eos) write_row(g, "griffin.tokenizer.tokens_after", &v->after, v->eos);
    gguf_bool(g, "tokenizer.ggml.add_space_prefix", v->add_space_prefix);
    gguf_bool(g, "tokenizer.ggml.remove_extra_whitespaces", v->remove_extra_whitespaces);
    if (!v->charsmap.length) return;
    gguf_array(g, "tokenizer.ggml.precompiled_charsmap", GGUF_U8, v->charsmap.length);
    for (size_t i = 0; i < v->charsmap.length; i++) {
        gguf_item_u8(g, (uint8_t)v->text[v->charsmap.at + i]);
    }
}

void vocabulary_write(const vocabulary *v, const char *chat_template, gguf_writer *g) {
    gguf_string(g, "tokenizer.ggml.model", v->byte_level ? "gpt2" : "llama");
    gguf_string(g, "tokenizer.ggml.pre", v->byte_level ? v->pre : "default");
    write_pieces(v, g);
    write_id(g, "tokenizer.ggml.bos_token_id", v->bos);
    write_id(g, "tokenizer.ggml.eos_token_id", v->eos);
    write_id(g, "tokenizer.ggml.unknown_token_id", v->unknown);
    write_id(g, "tokenizer.ggml.padding_token_id", v->pad);
    write_id(g, "tokenizer.ggml.eot_token_id", v->end_of_turn);
    write_rules(v, g);
    if (chat_template) gguf_string(g, "tokenizer.chat_template", chat_template);
    if (v->byte_level) {
        gguf_bool(g, "griffin.tokenizer.ignore_merges", v->ignore_merges);
        return;
    }
    gguf_bool(g, "griffin.tokenizer.escape_whitespaces", v->escape_whitespaces);
    gguf_bool(g, "griffin.tokenizer.treat_whitespace_as_suffix", v->whitespace_suffix);
    if (v->prefix_everywhere) gguf_bool(g, "griffin.tokenizer.space_prefix_everywhere", 1);
    if (v->prefix_once) gguf_bool(g, "griffin.tokenizer.space_prefix_once", 1);
    if (v->split_at_spaces) gguf_bool(g, "griffin.tokenizer.split_at_spaces", 1);
    if (v->first_added > 0)
        gguf_u32(g, "griffin.tokenizer.first_added_id", (uint32_t)v->first_added);
    if (v->verbatim) gguf_bool(g, "griffin.tokenizer.verbatim_pieces", 1);
    if (!v->unk_surface.length) return;
    gguf_text(g, "griffin.tokenizer.unk_surface", v->text + v->unk_surface.at,
              v->unk_surface.length);
}
