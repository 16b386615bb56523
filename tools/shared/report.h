/* Bounded error messages, files in memory, and paths: what every tool needs. */
#ifndef REPORT_H
#define REPORT_H

#include <stddef.h>
#include <stdint.h>

typedef struct report {
    char text[512];
} report;

#if defined(__GNUC__)
#define REPORT_FORMAT __attribute__((format(printf, 2, 3)))
#else
#define REPORT_FORMAT
#endif

/* Formats the message and returns -1: `return report_fail(r, "%s: ...", path)`. Control characters
 * become '?', so that no file can speak to a terminal. */
int report_fail(report *r, const char *format, ...) REPORT_FORMAT;

/* A printable copy of a name from a file, cut where it is too long; returns `buffer`. */
const char *report_name(const char *text, size_t length, char buffer[80]);

/* The whole of a file in memory, mapped read-only where possible. `data` is never null. */
typedef struct file_bytes {
    const unsigned char *data;
    uint64_t size;
    void *owned;
    int mapped;
} file_bytes;

int  file_open(file_bytes *f, const char *path, report *r);   /* 0, or -1 and nothing to close */
void file_close(file_bytes *f);

/* directory/name, and `name` in the directory of `path`; to be freed, null if out of memory. */
char *path_join(const char *directory, const char *name);
char *path_beside(const char *path, const char *name);
int   path_exists(const char *path);
int   path_is_directory(const char *path);

/* The only file in a directory whose name ends in `ending`, to be freed. Null with a message if
 * there is none or more than one. */
char *path_only(const char *directory, const char *ending, report *r);

#endif
