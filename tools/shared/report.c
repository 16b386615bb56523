/* report.c - messages; see report.h. */

#include "report.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* The number of bytes of the UTF-8 character that a text begins with, and its number; 0: none. */
static size_t decode(const unsigned char *s, size_t length, uint32_t *number) {
    static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
    size_t n = s[0] < 0x80 ? 1 : s[0] < 0xc0 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    uint32_t c = n == 1 ? s[0] : s[0] & (0x7fu >> n);
    if (s[0] > 0xf4 || n > length) return 0;
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0;
        c = c << 6 | (s[i] & 0x3f);
    }
    *number = c;
    return c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : n;
}

/* U+0080 to U+009F are control characters too. U+2028 to U+202E and U+2066 to U+2069 end lines or
 * change the direction of the text after them. */
size_t report_printable(const char *text, size_t length) {
    uint32_t c;
    size_t n = length ? decode((const unsigned char *)text, length, &c) : 0;
    if (n == 0 || c < 32 || (c >= 127 && c < 160)) return 0;
    return (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) ? 0 : n;
}

/* The NUL at the end is part of no character, so a text may be said to be 4 bytes longer. */
static void make_printable(char *text) {
    while (*text) {
        size_t n = report_printable(text, 4);
        if (n == 0) *text = '?';
        text += n ? n : 1;
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

int report_print(const char *text, size_t length) {
    int columns = 0;
    for (size_t i = 0, n; i < length; i += n ? n : 1) {
        n = report_printable(text + i, length - i);
        columns += n ? printf("%.*s", (int)n, text + i)
                     : printf("\\x%02x", (unsigned char)text[i]);
    }
    return columns;
}

void report_line(const char *start, const char *format, va_list values, const char *end) {
    char line[2048];
    vsnprintf(line, sizeof line, format, values);
    make_printable(line);
    fflush(stdout);
    fprintf(stderr, "griffin: %s%s%s\n", start, line, end);
}

int complain(const char *format, ...) {
    va_list values;
    va_start(values, format);
    report_line("", format, values, "");
    va_end(values);
    return 1;
}

void note(const char *format, ...) {
    va_list values;
    va_start(values, format);
    report_line("note: ", format, values, "");
    va_end(values);
}
