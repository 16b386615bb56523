/* report.h - messages: bounded texts about what is wrong, and how a command says them. */

#ifndef REPORT_H
#define REPORT_H

#include <stdarg.h>
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

/* What a file says is not sent to a terminal as it is: its bytes could be commands to it. Returns
 * the number of bytes of the character that the text begins with, or 0 if it is a control character
 * or not UTF-8. */
size_t report_printable(const char *text, size_t length);

/* Formats the message and returns -1: `return report_fail(r, "%s: ...", path)`. What is not
 * printable becomes '?'. */
int report_fail(report *r, const char *format, ...) PRINTF_LIKE(2, 3);

/* A printable copy of a name from a file, cut where it is too long. Returns `buffer`. */
const char *report_name(const char *text, size_t length, char buffer[80]);

/* Prints a text from a file on standard output. A byte that is not printable becomes \xNN. Returns
 * the number of bytes that were printed. */
int report_print(const char *text, size_t length);

/* Print "griffin: ..." and "griffin: note: ..." on standard error, printable. complain returns 1,
 * the status to exit with. */
int  complain(const char *format, ...) PRINTF_LIKE(1, 2);
void note(const char *format, ...) PRINTF_LIKE(1, 2);
void report_line(const char *start, const char *format, va_list values, const char *end);

#endif
