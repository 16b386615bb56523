#include "json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What JSON allows at the place `at`. */
enum {
    EXPECT_VALUE,                   /* at the start, or after a key, or after ',' in an array */
    EXPECT_VALUE_OR_CLOSE,          /* after '[' */
    EXPECT_KEY,                     /* after ',' in an object */
    EXPECT_KEY_OR_CLOSE,            /* after '{' */
    EXPECT_COMMA_OR_CLOSE,          /* after a value in a container */
    EXPECT_END                      /* after the root value */
};

/* ---- names ------------------------------------------------------------------------- */

enum { NAME_HEAD = 8 };             /* u32 scope, u32 length */

/* FNV-1a over a record. */
static uint64_t name_hash(const unsigned char *record, size_t size) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (; size; record++, size--) hash = (hash ^ *record) * 0x100000001b3u;
    return hash ^ hash >> 32;
}

static size_t name_size(const unsigned char *record) {
    uint32_t length;
    memcpy(&length, record + 4, 4);
    return NAME_HEAD + length;
}

/* The slot of an equal record, or the free slot where it belongs. */
static size_t *name_slot(const names *n, const unsigned char *record) {
    size_t size = name_size(record), i = (size_t)name_hash(record, size) & (n->capacity - 1);
    while (n->slots[i]) {
        const unsigned char *other = n->bytes + n->slots[i] - 1;
        if (name_size(other) == size && memcmp(other, record, size) == 0) break;
        i = (i + 1) & (n->capacity - 1);
    }
    return &n->slots[i];
}

static int names_grow_slots(names *n) {
    size_t capacity = n->capacity ? n->capacity * 2 : 64;
    size_t *slots = calloc(capacity, sizeof *slots);
    if (!slots) return -1;
    free(n->slots);
    n->slots = slots;
    n->capacity = capacity;
    for (size_t at = 0; at < n->used; at += name_size(n->bytes + at)) {
        *name_slot(n, n->bytes + at) = at + 1;
    }
    return 0;
}

static int names_grow_bytes(names *n, size_t size) {
    size_t room = n->room * 2 + size + 256;
    unsigned char *bytes = realloc(n->bytes, room);
    if (!bytes) return -1;
    n->bytes = bytes;
    n->room = room;
    return 0;
}

/* The slot of a name; its record is written where the next one belongs. Null: out of memory. */
static size_t *names_seek(names *n, const char *text, size_t length) {
    uint32_t length32 = (uint32_t)length;
    size_t size = NAME_HEAD + length;
    if (length32 != length) return NULL;
    if (n->room - n->used < size && names_grow_bytes(n, size)) return NULL;
    if (2 * n->count >= n->capacity && names_grow_slots(n)) return NULL;
    unsigned char *record = n->bytes + n->used;
    memcpy(record, &n->scope, 4);
    memcpy(record + 4, &length32, 4);
    memcpy(record + NAME_HEAD, text, length);
    return name_slot(n, record);
}

int names_add(names *n, const char *text, size_t length) {
    size_t *slot = names_seek(n, text, length);
    if (!slot) return -1;
    if (*slot) return 0;
    *slot = n->used + 1;
    n->used += NAME_HEAD + length;
    n->count++;
    return 1;
}

int names_has(names *n, const char *text, size_t length) {
    const size_t *slot = names_seek(n, text, length);
    return slot && *slot;
}

void names_free(names *n) {
    free(n->bytes);
    free(n->slots);
    memset(n, 0, sizeof *n);
}

/* ---- strings ----------------------------------------------------------------------- */

static json_kind fail(json *j, size_t at, const char *what) {
    snprintf(j->error, sizeof j->error, "offset %lu: %s", (unsigned long)at, what);
    return j->kind = JSON_ERROR;
}

/* Unicode 15, table 3-7: no overlong forms, no surrogates, nothing above U+10FFFF. */
size_t utf8_length(const unsigned char *p, size_t left) {
    size_t n = p[0] < 0x80 ? 1 : p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : 4;
    if ((p[0] >= 0x80 && p[0] < 0xC2) || p[0] > 0xF4) return 0;
    if (n > left) return 0;
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xC0) != 0x80) return 0;
    }
    if ((p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xED && p[1] > 0x9F)) return 0;
    if ((p[0] == 0xF0 && p[1] < 0x90) || (p[0] == 0xF4 && p[1] > 0x8F)) return 0;
    return n;
}

static char *utf8_put(char *out, uint32_t code) {
    if (code < 0x80) {
        *out++ = (char)code;
        return out;
    }
    if (code < 0x800) *out++ = (char)(0xC0 | code >> 6);
    else {
        if (code < 0x10000) *out++ = (char)(0xE0 | code >> 12);
        else {
            *out++ = (char)(0xF0 | code >> 18);
            *out++ = (char)(0x80 | (code >> 12 & 0x3F));
        }
        *out++ = (char)(0x80 | (code >> 6 & 0x3F));
    }
    *out++ = (char)(0x80 | (code & 0x3F));
    return out;
}

/* Reads the \uXXXX at `at`, which must end before `end`. Returns -1 if there is none. */
static int32_t read_unit(const json *j, size_t at, size_t end) {
    int32_t unit = 0;
    if (end - at < 6 || j->data[at] != '\\' || j->data[at + 1] != 'u') return -1;
    for (size_t i = at + 2; i < at + 6; i++) {
        int c = j->data[i], lower = c | 32;
        if (c >= '0' && c <= '9') unit = unit * 16 + (c - '0');
        else if (lower >= 'a' && lower <= 'f') unit = unit * 16 + (lower - 'a' + 10);
        else return -1;
    }
    return unit;
}

/* Writes what the escape at `at` stands for to *out. Returns the length of the escape, or 0 if it
 * is invalid. */
static size_t read_escape(const json *j, size_t at, size_t end, char **out) {
    static const char letters[] = "\"\\/bfnrt", bytes[] = "\"\\/\b\f\n\r\t";
    const char *letter = memchr(letters, j->data[at + 1], sizeof letters - 1);
    if (letter) {
        *(*out)++ = bytes[letter - letters];
        return 2;
    }
    int32_t high = read_unit(j, at, end);
    if (high < 0 || (high >= 0xDC00 && high < 0xE000)) return 0;
    if (high < 0xD800 || high >= 0xE000) {
        *out = utf8_put(*out, (uint32_t)high);
        return 6;
    }
    int32_t low = read_unit(j, at + 6, end);
    if (low < 0xDC00 || low >= 0xE000) return 0;
    *out = utf8_put(*out, 0x10000 + ((uint32_t)high - 0xD800) * 1024 + ((uint32_t)low - 0xDC00));
    return 12;
}

/* Unescapes [at, end) into the buffer: the result is never longer than the source. */
static json_kind unescape(json *j, size_t at, size_t end) {
    char *out;
    size_t n;
    if (end - at > j->capacity) {
        free(j->buffer);
        j->capacity = 2 * (end - at);
        j->buffer = malloc(j->capacity);
        if (!j->buffer) {
            j->capacity = 0;
            return fail(j, at, "out of memory");
        }
    }
    for (out = j->buffer; at < end; at += n) {
        n = 1;
        if (j->data[at] != '\\') *out++ = (char)j->data[at];
        else n = read_escape(j, at, end, &out);
        if (n == 0) return fail(j, at, "invalid escape");
    }
    j->text = j->buffer;
    j->length = (size_t)(out - j->buffer);
    return JSON_STRING;
}

static json_kind read_string(json *j) {
    size_t start = j->at + 1, at = start, n;
    int escapes = 0;
    while (at < j->size && j->data[at] != '"') {
        unsigned char c = j->data[at];
        if (c < 0x20) return fail(j, at, "control character in a string");
        if (c == '\\') escapes = 1;
        n = c == '\\' ? 2 : c < 0x80 ? 1 : utf8_length(j->data + at, j->size - at);
        if (n == 0) return fail(j, at, "not UTF-8");
        at += n;
    }
    if (at >= j->size) return fail(j, start - 1, "string without an end");
    j->at = at + 1;
    if (escapes) return unescape(j, start, at);
    j->text = (const char *)j->data + start;
    j->length = at - start;
    return JSON_STRING;
}

/* ---- numbers ----------------------------------------------------------------------- */

/* digits * 10^exponent. `cut`: digits that did not fit were cut off. */
typedef struct decimal {
    uint64_t digits;
    int64_t exponent;
    int cut;
} decimal;

/* One double operation is correctly rounded when both operands are exact: up to 2^53 and 10^22.
 * Beyond that the last digit may be off. */
static double decimal_value(uint64_t digits, int64_t exponent) {
    static const double power[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                   1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                   1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    double value = (double)digits;
    if (digits == 0) return 0;
    if (exponent > 400) exponent = 400;
    if (exponent < -400) exponent = -400;
    for (; exponent > 22; exponent -= 22) value *= 1e22;
    for (; exponent < -22; exponent += 22) value /= 1e22;
    return exponent < 0 ? value / power[-exponent] : value * power[exponent];
}

static int at_digit(const json *j) {
    return j->at < j->size && j->data[j->at] >= '0' && j->data[j->at] <= '9';
}

/* Reads one or more digits. Returns -1 if there is none. */
static int read_digits(json *j, decimal *d, int after_point) {
    if (!at_digit(j)) return -1;
    for (; at_digit(j); j->at++) {
        unsigned digit = (unsigned)j->data[j->at] - '0';
        if (d->cut || d->digits > (UINT64_MAX - digit) / 10) {
            d->cut = 1;
            d->exponent += !after_point;
        } else {
            d->digits = d->digits * 10 + digit;
            d->exponent -= after_point;
        }
    }
    return 0;
}

static int read_exponent(json *j, decimal *d) {
    decimal power = {0, 0, 0};
    int negative = 0;
    if (j->at < j->size && (j->data[j->at] == '+' || j->data[j->at] == '-')) {
        negative = j->data[j->at++] == '-';
    }
    if (read_digits(j, &power, 0)) return -1;
    if (power.cut || power.digits > INT64_MAX / 4) power.digits = INT64_MAX / 4;
    d->exponent += negative ? -(int64_t)power.digits : (int64_t)power.digits;
    return 0;
}

static int at_one_of(const json *j, char a, char b) {
    return j->at < j->size && (j->data[j->at] == a || j->data[j->at] == b);
}

static json_kind read_number(json *j) {
    decimal d = {0, 0, 0};
    int negative = j->data[j->at] == '-', integer = 1, bad = 0;
    j->at += (size_t)negative;
    if (at_one_of(j, '0', '0')) j->at++;
    else bad = read_digits(j, &d, 0);
    if (!bad && at_one_of(j, '.', '.')) {
        integer = 0;
        j->at++;
        bad = read_digits(j, &d, 1);
    }
    if (!bad && at_one_of(j, 'e', 'E')) {
        integer = 0;
        j->at++;
        bad = read_exponent(j, &d);
    }
    if (bad) return fail(j, j->at, "expected a digit");
    j->number = decimal_value(d.digits, d.exponent);
    if (negative) j->number = -j->number;
    if (!integer || d.cut || (negative && d.digits > (uint64_t)1 << 63)) return JSON_FLOAT;
    j->is_natural = !negative;
    j->natural = negative ? 0 : d.digits;
    j->integer = d.digits > INT64_MAX ? INT64_MAX : (int64_t)d.digits;
    if (negative) j->integer = d.digits > INT64_MAX ? INT64_MIN : -j->integer;
    return JSON_INT;
}

/* ---- tokens ------------------------------------------------------------------------ */

void json_start(json *j, const void *data, size_t size) {
    memset(j, 0, sizeof *j);
    j->data = data;
    j->size = size;
    j->kind = JSON_END;
    j->expects = EXPECT_VALUE;
    if (size > UINT32_MAX - 1) fail(j, 0, "JSON text is larger than 4 GiB");
}

void json_start_file(json *j, const void *data, size_t size) {
    size_t mark = size >= 3 && memcmp(data, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
    json_start(j, (const unsigned char *)data + mark, size - mark);
}

void json_stop(json *j) {
    free(j->buffer);
    names_free(&j->members);
    j->buffer = NULL;
}

/* Moves to the next byte that is not white space and returns it; -1 at the end. */
static int peek(json *j) {
    while (j->at < j->size) {
        unsigned char c = j->data[j->at];
        if (c != ' ' && c != '\n' && c != '\r' && c != '\t') return c;
        j->at++;
    }
    return -1;
}

static json_kind finish_value(json *j, json_kind kind) {
    if (kind != JSON_ERROR) j->expects = j->depth ? EXPECT_COMMA_OR_CLOSE : EXPECT_END;
    return j->kind = kind;
}

static json_kind open_container(json *j, int c) {
    if (j->depth == JSON_DEPTH) return fail(j, j->at, "nested too deeply");
    j->at++;
    j->scope[j->depth] = j->scopes++;
    j->open[j->depth++] = (unsigned char)c;
    j->expects = c == '{' ? EXPECT_KEY_OR_CLOSE : EXPECT_VALUE_OR_CLOSE;
    return j->kind = c == '{' ? JSON_OBJECT : JSON_ARRAY;
}

static json_kind close_container(json *j, int c) {
    int may_close = j->expects == EXPECT_COMMA_OR_CLOSE || j->expects == EXPECT_VALUE_OR_CLOSE ||
                    j->expects == EXPECT_KEY_OR_CLOSE;
    if (!may_close || j->open[j->depth - 1] != (c == '}' ? '{' : '[')) {
        return fail(j, j->at, "unexpected end of an object or array");
    }
    j->at++;
    j->depth--;
    return finish_value(j, c == '}' ? JSON_OBJECT_END : JSON_ARRAY_END);
}

static json_kind read_key(json *j, int c) {
    if (c != '"') return fail(j, j->at, "expected a member name");
    if (read_string(j) == JSON_ERROR) return JSON_ERROR;
    if (peek(j) != ':') return fail(j, j->at, "expected ':'");
    j->at++;
    j->members.scope = j->scope[j->depth - 1];
    int added = names_add(&j->members, j->text, j->length);
    if (added <= 0) return fail(j, j->token, added ? "out of memory" : "duplicate member");
    j->expects = EXPECT_VALUE;
    return j->kind = JSON_KEY;
}

static json_kind read_word(json *j, const char *word, json_kind kind) {
    size_t n = strlen(word);
    if (j->size - j->at < n || memcmp(j->data + j->at, word, n) != 0) {
        return fail(j, j->at, "expected a value");
    }
    j->at += n;
    return kind;
}

static json_kind read_value(json *j, int c) {
    switch (c) {
    case '{': case '[': return open_container(j, c);
    case '"': return finish_value(j, read_string(j));
    case 't': return finish_value(j, read_word(j, "true", JSON_TRUE));
    case 'f': return finish_value(j, read_word(j, "false", JSON_FALSE));
    case 'n': return finish_value(j, read_word(j, "null", JSON_NULL));
    default: break;
    }
    if (c == '-' || (c >= '0' && c <= '9')) return finish_value(j, read_number(j));
    return fail(j, j->at, c < 0 ? "text ends too early" : "expected a value");
}

json_kind json_next(json *j) {
    if (j->error[0]) return j->kind = JSON_ERROR;
    int c = peek(j);
    j->token = j->at;
    j->is_natural = 0;
    if (j->expects == EXPECT_END) {
        return c < 0 ? (j->kind = JSON_END) : fail(j, j->at, "text after the value");
    }
    if (j->expects == EXPECT_COMMA_OR_CLOSE && c == ',') {
        j->expects = j->open[j->depth - 1] == '{' ? EXPECT_KEY : EXPECT_VALUE;
        j->at++;
        c = peek(j);
        j->token = j->at;
    }
    if (c == '}' || c == ']') return close_container(j, c);
    if (j->expects == EXPECT_COMMA_OR_CLOSE) return fail(j, j->at, "expected ',' or a bracket");
    if (j->expects == EXPECT_KEY || j->expects == EXPECT_KEY_OR_CLOSE) return read_key(j, c);
    return read_value(j, c);
}

int json_skip(json *j) {
    int depth = j->depth;
    if (j->kind == JSON_KEY) json_next(j);
    else if (j->kind == JSON_OBJECT || j->kind == JSON_ARRAY) depth--;
    while (j->kind != JSON_ERROR && j->depth > depth) json_next(j);
    return j->kind == JSON_ERROR ? -1 : 0;
}

int json_text_is(const json *j, const char *text) {
    return (j->kind == JSON_KEY || j->kind == JSON_STRING) && strlen(text) == j->length &&
           memcmp(text, j->text, j->length) == 0;
}

int json_key_is(const json *j, const char *key) {
    return j->kind == JSON_KEY && json_text_is(j, key);
}
