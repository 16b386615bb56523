/* host.h - what the commands want of the system: messages, files, Ctrl-C, time and memory. */

#ifndef HOST_H
#define HOST_H

#include "report.h"

#include <stddef.h>

/* Prints "griffin: ..." and returns 1. */
int complain(const char *format, ...);

/* The words themselves, or the file, or all of standard input; file_close when done. */
int text_open(file_bytes *t, const char *words, const char *file);

/* Writes the whole file under a temporary name first, so that a failure leaves the old one. */
int file_replace(const char *path, const void *data, size_t size);

/* 0, or a message if what was printed has not arrived: a full disk, a closed pipe. */
int output_flush(void);

double seconds_now(void);

/* Ctrl-C sets a flag; a second one before it is cleared ends the program. */
void interrupt_catch(void);
int  interrupted(void);
void interrupt_clear(void);

double peak_mebibytes(void);             /* of this process, so far */

#endif
