/* report.c - messages; see report.h. */

#include "report.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void make_printable(char *text) {
    for (; *text; text++) {
        if ((unsigned char)*text < 32 || *text == 127) *text = '?';
    }
}

int report_fail(report *r, const char *format, ...) {
    va_list values;
    va_start(values, format);
    vsnprintf(r->text, sizeof r->text, format, values);
    va_end(values);
    make_printable(r->text);
    return -1;
}

const char *report_name(const char *text, size_t length, char buffer[80]) {
    size_t n = length < 80 ? length : 76;
    for (size_t i = 0; i < n; i++) buffer[i] = text[i] ? text[i] : '?';
    memcpy(buffer + n, n < length ? "..." : "", n < length ? 4 : 1);
    make_printable(buffer);
    return buffer;
}

int complain(const char *format, ...) {
    va_list values;
    fflush(stdout);
    fprintf(stderr, "griffin: ");
    va_start(values, format);
    vfprintf(stderr, format, values);
    va_end(values);
    fprintf(stderr, "\n");
    return 1;
}
