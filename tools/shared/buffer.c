/* buffer.c - bytes that grow at the end; see buffer.h. */

#include "buffer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Makes room for `more` bytes. Returns 0 if there is none. */
static int buffer_reserve(byte_buffer *b, size_t more) {
    if (b->failed) return 0;
    if (more <= b->room - b->size) return 1;
    size_t room = 2 * (b->size + more) + 4096;
    unsigned char *data = room > b->room ? (unsigned char *)realloc(b->data, room) : NULL;
    if (!data) { b->failed = 1; return 0; }
    b->data = data;
    b->room = room;
    return 1;
}

void buffer_add(byte_buffer *b, const void *data, size_t size) {
    if (size == 0 || !buffer_reserve(b, size)) return;
    memcpy(b->data + b->size, data, size);
    b->size += size;
}

void buffer_number(byte_buffer *b, uint64_t value, int bytes) {
    unsigned char p[8];
    for (int i = 0; i < bytes; i++) p[i] = (unsigned char)(value >> 8 * i);
    buffer_add(b, p, (size_t)bytes);
}

/* Formats twice: the first time to learn the length. */
void buffer_print(byte_buffer *b, const char *format, ...) {
    va_list values;
    va_start(values, format);
    int length = vsnprintf(NULL, 0, format, values);
    va_end(values);
    if (length < 0 || !buffer_reserve(b, (size_t)length + 1)) return;
    va_start(values, format);
    vsnprintf((char *)b->data + b->size, (size_t)length + 1, format, values);
    va_end(values);
    b->size += (size_t)length;
}

void buffer_free(byte_buffer *b) {
    free(b->data);
    memset(b, 0, sizeof *b);
}
