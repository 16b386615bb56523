/* host.h - what C99 does not have and a program needs, on POSIX and on Windows.
 *
 * Paths are UTF-8 on both. Functions that take a report return 0, or -1 with a message. */

#ifndef HOST_H
#define HOST_H

#include "report.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* To be called first: makes arguments and console UTF-8, and the standard streams binary. Asks
 * Linux for the matrix unit of x86 servers, which griffin.h then uses where there is one. */
void host_start(int *argc, char ***argv);

/* ---- files -------------------------------------------------------------------------------- */

/* The whole of a file in memory, mapped read-only where possible. `data` is never null. */
typedef struct file_bytes {
    const unsigned char *data;
    uint64_t size;
    void *owned;
    int mapped;
    char *path;                             /* of what is mapped; or null */
} file_bytes;

int  file_open(file_bytes *f, const char *path, report *r);     /* after -1 nothing is open */
void file_close(file_bytes *f);

/* This file is going to be written, so from now on it cannot be read; null: any can. The path stays
 * yours. */
void file_reserve(const char *path);

/* Opens the words themselves as they are; or else the text of the file, or of standard input for
 * null and "-". It comes without a byte order mark, and "\r\n" becomes "\n". 0, or 1 after a
 * message. */
int text_open(file_bytes *t, const char *words, const char *file);

/* A file that is being written. It grows under a temporary name in the same directory and gets its
 * name when it is complete: a failure leaves the old file whole. A new file keeps the mode of the
 * old one, and stands where a symbolic link leads. Devices, FIFOs and open descriptors are written
 * to directly. After a failure nothing is left, and nothing need be called. */
typedef struct file_output {
    FILE *stream;                           /* null: not open */
    char *path;                             /* for messages */
    char *target, *part;                    /* behind links; the temporary name, or null */
    int   is_shared;                        /* has other names or another owner: is overwritten */
} file_output;

int  file_create (file_output *o, const char *path, report *r);     /* not over a mapped file */
int  file_write  (file_output *o, const void *data, size_t size, report *r);
int  file_flush  (file_output *o, report *r);   /* who opens `part` can read all of it now */
int  file_finish (file_output *o, report *r);
void file_abandon(file_output *o);          /* the old file stays; does nothing after file_finish */

int file_replace(const char *path, const void *data, size_t size);  /* 0, or 1 after a message */

/* ---- paths -------------------------------------------------------------------------------- */

/* directory/name, and `name` in the directory of `path`; to be freed, null if out of memory. */
char *path_join(const char *directory, const char *name);
char *path_beside(const char *path, const char *name);

/* The last part of a path, without slashes at its end; to be freed, null if out of memory. */
char *path_name(const char *path);

int path_is_same(const char *one, const char *other);           /* also of one to come */

const char *path_slash(const char *path);                       /* the last one, or null */
int         path_ends_in(const char *path, const char *ending);
int         path_exists(const char *path);
int         path_is_directory(const char *path);
int         path_is_device(const char *path);                   /* neither file nor directory */

int directory_make(const char *path);                           /* 0 or -1 */

/* The only file in a directory whose name ends in `ending`, to be freed. Null with a message if
 * there is none or more than one. */
char *path_only(const char *directory, const char *ending, report *r);

/* ---- terminal ----------------------------------------------------------------------------- */

int is_terminal(FILE *stream);

/* A line on standard error that is written over the one before, five times a second at most and
 * only on a terminal; progress_clear removes it. */
void progress_show(const char *format, ...) PRINTF_LIKE(1, 2);
void progress_clear(void);

/* 0, or 1 and a message if what was printed has not arrived: a full disk, a closed pipe. */
int output_flush(void);

/* Writes to standard output at once. Where this has to wait for a reader, Ctrl-C ends it and the
 * rest is dropped. 0, or 1 after a message. */
int output_write(const char *data, size_t size);

/* The next line of standard input without its end, to be freed. It may hold NULs; one more follows.
 * Null at the end of the input and after Ctrl-C. */
char *input_line(size_t *size);

/* Ctrl-C sets a flag. A second one before it is cleared ends the program, unless it is patient. */
void interrupt_catch(int patient);
int  interrupted(void);
void interrupt_clear(void);

/* ---- time and memory ---------------------------------------------------------------------- */

double seconds_now(void);
double process_seconds(void);               /* CPU time of all threads */
double thread_seconds(void);                /* CPU time of the calling thread */
double peak_mebibytes(void);                /* the largest memory of this process so far */

uint32_t random_seed(void);                 /* differs from run to run */

/* Zeroed memory, in huge pages where the system has them; null if there is none. */
void *big_allocate(size_t size);
void  big_release(void *memory);

#endif
