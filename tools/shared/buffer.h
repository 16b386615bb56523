/* buffer.h - bytes that grow at the end. Zero-initialise one, and free it when done. */

#ifndef BUFFER_H
#define BUFFER_H

#include "report.h"

#include <stddef.h>
#include <stdint.h>

typedef struct byte_buffer {
    unsigned char *data;
    size_t size, room;
    int    failed;                          /* memory was too small once: nothing more is added */
} byte_buffer;

void buffer_add(byte_buffer *b, const void *data, size_t size);
void buffer_number(byte_buffer *b, uint64_t value, int bytes);                   /* little-endian */
void buffer_print(byte_buffer *b, const char *format, ...) PRINTF_LIKE(2, 3);
void buffer_free(byte_buffer *b);

#endif
