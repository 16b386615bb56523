/* report.h - messages: bounded texts about what is wrong, and how a command says them. */

#ifndef REPORT_H
#define REPORT_H

#include <stddef.h>

typedef struct report {
    char text[512];
} report;

#if defined(__MINGW32__)
  #define PRINTF_LIKE(text, rest) __attribute__((format(gnu_printf, text, rest)))
#elif defined(__GNUC__)
  #define PRINTF_LIKE(text, rest) __attribute__((format(printf, text, rest)))
#else
  #define PRINTF_LIKE(text, rest)
#endif

/* Formats the message and returns -1: `return report_fail(r, "%s: ...", path)`. Control characters
 * become '?', so that no file can send commands to a terminal. */
int report_fail(report *r, const char *format, ...) PRINTF_LIKE(2, 3);

/* A printable copy of a name from a file, cut where it is too long. Returns `buffer`. */
const char *report_name(const char *text, size_t length, char buffer[80]);

/* Prints "griffin: ..." on standard error and returns 1, the status to exit with. */
int complain(const char *format, ...) PRINTF_LIKE(1, 2);

#endif
