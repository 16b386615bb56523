/* gguf_writer.c - see gguf_writer.h. The file is
 *
 *     "GGUF"  u32 version  u64 tensors  u64 keys
 *     keys:     string key, u32 type, value              array: u32 item type, u64 count, items
 *     tensors:  string name, u32 rank, u64 ne[rank], u32 type, u64 offset in the data
 *     zeros up to the alignment; then the data, each tensor padded to the alignment
 *
 * all little-endian; a string is a u64 length and its bytes; ne[0] is the fastest dimension. */

#include "gguf_writer.h"

#include <string.h>

/* ---- the header in memory ---------------------------------------------------- */

static void append_text(byte_buffer *b, const char *text, size_t length) {
    buffer_number(b, length, 8);
    buffer_add(b, text, length);
}

static void append_key(gguf_writer *g, const char *key, uint32_t type) {
    append_text(&g->keys, key, strlen(key));
    buffer_number(&g->keys, type, 4);
    g->key_count++;
}

void gguf_item_text(gguf_writer *g, const char *text, size_t length) {
    append_text(&g->keys, text, length);
}

void gguf_item_u32(gguf_writer *g, uint32_t value) { buffer_number(&g->keys, value, 4); }
void gguf_item_u8(gguf_writer *g, uint8_t value) { buffer_number(&g->keys, value, 1); }

void gguf_item_f32(gguf_writer *g, float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    gguf_item_u32(g, bits);
}

void gguf_text(gguf_writer *g, const char *key, const char *text, size_t length) {
    append_key(g, key, GGUF_STRING);
    gguf_item_text(g, text, length);
}

void gguf_string(gguf_writer *g, const char *key, const char *text) {
    gguf_text(g, key, text, strlen(text));
}

void gguf_u32(gguf_writer *g, const char *key, uint32_t value) {
    append_key(g, key, GGUF_U32);
    gguf_item_u32(g, value);
}

void gguf_f32(gguf_writer *g, const char *key, float value) {
    append_key(g, key, GGUF_F32);
    gguf_item_f32(g, value);
}

void gguf_bool(gguf_writer *g, const char *key, int value) {
    append_key(g, key, GGUF_BOOL);
    gguf_item_u8(g, value != 0);
}

void gguf_array(gguf_writer *g, const char *key, uint32_t item_type, uint64_t count) {
    append_key(g, key, GGUF_ARRAY);
    gguf_item_u32(g, item_type);
    buffer_number(&g->keys, count, 8);
}

static uint64_t aligned(uint64_t size) {
    return (size + GGUF_ALIGNMENT - 1) / GGUF_ALIGNMENT * GGUF_ALIGNMENT;
}

uint64_t gguf_tensor(gguf_writer *g, const char *name, int rank, const uint64_t *shape,
                     const quant_type *type) {
    uint64_t elements = 1;
    append_text(&g->infos, name, strlen(name));
    buffer_number(&g->infos, (uint64_t)rank, 4);
    for (int i = rank; i-- > 0; elements *= shape[i]) buffer_number(&g->infos, shape[i], 8);
    buffer_number(&g->infos, type->id, 4);
    buffer_number(&g->infos, g->data_size, 8);
    g->tensor_count++;
    uint64_t size = quant_bytes(type, elements);
    g->data_size += aligned(size);
    return size;
}

/* ---- the file ------------------------------------------------------------------ */

static int write_bytes(gguf_writer *g, const void *data, size_t size, report *r) {
    if (g->file.stream) return file_write(&g->file, data, size, r);
    buffer_add(&g->image, data, size);
    return g->image.failed ? report_fail(r, "out of memory") : 0;
}

static int write_zeros(gguf_writer *g, uint64_t from, report *r) {
    static const uint8_t zeros[GGUF_ALIGNMENT];
    return write_bytes(g, zeros, (size_t)(aligned(from) - from), r);
}

static int write_header(gguf_writer *g, report *r) {
    byte_buffer head = { NULL, 0, 0, 0 };
    buffer_add(&head, "GGUF", 4);
    buffer_number(&head, 3, 4);
    buffer_number(&head, g->tensor_count, 8);
    buffer_number(&head, g->key_count, 8);
    buffer_add(&head, g->keys.data, g->keys.size);
    buffer_add(&head, g->infos.data, g->infos.size);
    int result = head.failed || g->keys.failed || g->infos.failed
               ? report_fail(r, "out of memory")
               : write_bytes(g, head.data, head.size, r);
    if (result == 0) result = write_zeros(g, head.size, r);
    buffer_free(&head);
    return result;
}

int gguf_open(gguf_writer *g, const char *path, report *r) {
    if (path && file_create(&g->file, path, r)) return -1;
    return write_header(g, r);
}

int gguf_write(gguf_writer *g, const void *data, size_t size, report *r) {
    g->written += size;
    return write_bytes(g, data, size, r);
}

int gguf_pad(gguf_writer *g, report *r) {
    uint64_t from = g->written;
    g->written = aligned(from);
    return write_zeros(g, from, r);
}

int gguf_finish(gguf_writer *g, report *r) {
    if (g->written != g->data_size) return report_fail(r, "tensors are missing");
    return g->file.stream ? file_flush(&g->file, r) : 0;
}

int gguf_close(gguf_writer *g, report *r) {
    return g->file.stream ? file_finish(&g->file, r) : 0;
}

void gguf_free(gguf_writer *g) {
    file_abandon(&g->file);
    buffer_free(&g->image);
    buffer_free(&g->keys);
    buffer_free(&g->infos);
    memset(g, 0, sizeof *g);
}
