/* json.h - a strict parser of JSON (RFC 8259): one token a call, no tree, no recursion.
 *
 *     json_start(&j, data, size);
 *     while (json_next(&j) > JSON_END) ...          j.kind, j.text, j.integer ...
 *     if (j.kind == JSON_ERROR) ... j.error ...
 *     json_stop(&j);
 *
 * Input is UTF-8 without a byte order mark: one value, then white space only. Nesting is bounded by
 * JSON_DEPTH. Member names are unique within their object, compared after unescaping. */

#ifndef JSON_H
#define JSON_H

#include <stddef.h>
#include <stdint.h>

#define JSON_DEPTH 64

typedef enum json_kind {
    JSON_ERROR,
    JSON_END,
    JSON_OBJECT,
    JSON_OBJECT_END,
    JSON_ARRAY,
    JSON_ARRAY_END,
    JSON_KEY,
    JSON_STRING,
    JSON_INT,
    JSON_FLOAT,
    JSON_TRUE,
    JSON_FALSE,
    JSON_NULL
} json_kind;

/* A set of names, to find duplicates. Starts as all zeros; the names are copied. Names added under
 * different scopes differ. */
typedef struct names {
    unsigned char *bytes;           /* records: u32 scope, u32 length, the name */
    size_t used, room;
    size_t *slots;                  /* open addressing: 1 + offset of a record, 0 is free */
    size_t count, capacity;
    uint32_t scope;
} names;

int  names_add(names *n, const char *text, size_t length); /* 1 new, 0 known, -1 out of memory */
int  names_has(names *n, const char *text, size_t length);
void names_free(names *n);

typedef struct json {
    json_kind kind;                 /* the current token ... */
    size_t token, at;               /* ... where it starts in data, and the place behind it */
    const char *text;               /* KEY, STRING: unescaped bytes, valid until the next token */
    size_t length;
    int64_t integer;                /* INT: above 2^63 - 1 it is cut to that */
    uint64_t natural;               /* INT without a minus sign, */
    int is_natural;                 /* which this token is */
    double number;                  /* INT, FLOAT: finite, or infinite if far too large */
    char error[120];                /* ERROR: where and what; empty while all is well */

    /* private */
    const unsigned char *data;
    size_t size;
    int expects;
    int depth;
    unsigned char open[JSON_DEPTH]; /* '{' or '[' of the containers around `at` */
    uint32_t scope[JSON_DEPTH];     /* and a number for each */
    uint32_t scopes;
    names members;
    char *buffer;                   /* the last string that had an escape */
    size_t capacity;
} json;

void json_start(json *j, const void *data, size_t size);
void json_start_file(json *j, const void *data, size_t size);   /* skips a byte order mark */
json_kind json_next(json *j);
void json_stop(json *j);

/* Skips the value that starts at the current token (or that follows the current KEY); its last
 * token becomes the current one. -1 after an error. */
int  json_skip(json *j);

int  json_key_is(const json *j, const char *key);           /* a KEY with this name */
int  json_text_is(const json *j, const char *text);         /* a STRING or KEY with this text */

/* The length, 1 to 4, of the valid UTF-8 character at p, with `left` >= 1 bytes left; or 0. */
size_t utf8_length(const unsigned char *p, size_t left);

#endif
