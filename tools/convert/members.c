/* members.c - see members.h. */

#include "members.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../shared/host.h"
#include "../shared/json.h"

/* ---- reading ------------------------------------------------------------------------------- */

enum { NAME_LIMIT = 200 };                  /* members with longer names are of no use */

typedef struct path_part { size_t length; int is_list, index; } path_part;

typedef struct walk {
    members  *s;
    json      j;
    char      name[NAME_LIMIT];             /* of the member that is read */
    size_t    length;                       /* NAME_LIMIT: it is too long */
    path_part open[JSON_DEPTH];             /* the containers around it */
    int       depth;
} walk;

static char *copy_text(const char *text, size_t length) {
    char *copy = (char *)malloc(length + 1);
    if (!copy) return NULL;
    memcpy(copy, text, length);
    copy[length] = 0;
    return copy;
}

static member *add(members *s) {
    if (s->count == s->capacity) {
        size_t capacity = s->capacity ? 2 * s->capacity : 64;
        member *list = (member *)realloc(s->list, capacity * sizeof *list);
        if (!list) return NULL;
        s->list = list;
        s->capacity = capacity;
    }
    memset(&s->list[s->count], 0, sizeof *s->list);
    return &s->list[s->count++];
}

static int no_memory(const walk *w) { return report_fail(w->s->r, "%s: out of memory", w->s->path); }

/* Keeps the current value under its name. Names and texts become C strings. */
static int keep(walk *w) {
    const json *j = &w->j;
    if (w->length == NAME_LIMIT || w->depth == 0) return 0;
    if (memchr(w->name, 0, w->length) || (j->kind == JSON_STRING && memchr(j->text, 0, j->length)))
        return report_fail(w->s->r, "%s: a name or text holds a NUL", w->s->path);
    member *m = add(w->s);
    if (!m || !(m->name = copy_text(w->name, w->length))) return no_memory(w);
    m->kind = (int)j->kind;
    m->number = j->number;
    if (j->kind == JSON_STRING && !(m->text = copy_text(j->text, j->length))) return no_memory(w);
    return 0;
}

/* The name of a member is that of its container, a dot, and its own. */
static void name_member(walk *w, const char *text, size_t length) {
    size_t at = w->open[w->depth - 1].length;
    int dot = w->depth > 1;
    w->length = NAME_LIMIT;
    if (at >= NAME_LIMIT || length >= NAME_LIMIT - at - (size_t)dot) return;
    if (dot) w->name[at++] = '.';
    memcpy(w->name + at, text, length);
    w->length = at + length;
}

static void name_element(walk *w) {
    char index[16];
    path_part *list = &w->open[w->depth - 1];
    name_member(w, index, (size_t)snprintf(index, sizeof index, "%d", list->index++));
}

static int is_value(json_kind kind) {
    return kind != JSON_KEY && kind != JSON_OBJECT_END && kind != JSON_ARRAY_END;
}

/* One token. */
static int take(walk *w) {
    json_kind kind = w->j.kind;
    int in_list = w->depth > 0 && w->open[w->depth - 1].is_list;
    if (in_list && is_value(kind)) name_element(w);
    if (kind == JSON_KEY) name_member(w, w->j.text, w->j.length);
    if (kind == JSON_OBJECT_END || kind == JSON_ARRAY_END) w->depth--;
    if (!is_value(kind)) return 0;
    if (keep(w) != 0) return -1;
    if (kind == JSON_OBJECT || kind == JSON_ARRAY) {
        path_part *opened = &w->open[w->depth++];
        opened->length = w->length;
        opened->is_list = kind == JSON_ARRAY;
        opened->index = 0;
    }
    return 0;
}

static int read_members(walk *w) {
    members *s = w->s;
    if (json_next(&w->j) == JSON_OBJECT) {
        do if (take(w) != 0) return -1;
        while (json_next(&w->j) > JSON_END);
        if (w->j.kind == JSON_END) return 0;
    }
    if (w->j.kind == JSON_ERROR) return report_fail(s->r, "%s: %s", s->path, w->j.error);
    return report_fail(s->r, "%s: the file: expected an object", s->path);
}

int members_read(members *s, const char *path, report *r) {
    file_bytes file;
    walk w;
    memset(s, 0, sizeof *s);
    memset(&w, 0, sizeof w);
    s->path = path;
    s->r = r;
    w.s = s;
    if (file_open(&file, path, r) != 0) return -1;
    json_start_file(&w.j, file.data, (size_t)file.size);
    int status = read_members(&w);
    json_stop(&w.j);
    file_close(&file);
    if (status != 0) members_free(s);
    return status;
}

void members_free(members *s) {
    for (size_t i = 0; i < s->count; i++) {
        free(s->list[i].name);
        free(s->list[i].text);
    }
    free(s->list);
    memset(s, 0, sizeof *s);
}

/* ---- asking -------------------------------------------------------------------------------- */

const member *members_find(const members *s, const char *name) {
    for (size_t i = 0; i < s->count; i++) {
        const member *m = &s->list[i];
        if (strcmp(m->name, name) == 0) return m->kind == JSON_NULL ? NULL : m;
    }
    return NULL;
}

int members_has(const members *s, const char *name) {
    for (size_t i = 0; i < s->count; i++) if (strcmp(s->list[i].name, name) == 0) return 1;
    return 0;
}

int members_wrong(members *s, const char *name, const char *expected) {
    if (!s->failed) report_fail(s->r, "%s: %s: expected %s", s->path, name, expected);
    s->failed = 1;
    return -1;
}

int members_conflict(members *s, const char *format, ...) {
    char text[300];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    if (!s->failed) report_fail(s->r, "%s: %s", s->path, text);
    s->failed = 1;
    return -1;
}

static int is_number(const member *m) { return m->kind == JSON_INT || m->kind == JSON_FLOAT; }

double members_number(members *s, const char *name, double absent, double lowest,
                       double highest) {
    const member *m = members_find(s, name);
    char expected[80];
    if (!m) return absent;
    if (is_number(m) && m->number >= lowest && m->number <= highest) return m->number;
    snprintf(expected, sizeof expected, "a number from %.10g to %.10g", lowest, highest);
    members_wrong(s, name, expected);
    return absent;
}

int members_whole(members *s, const char *name, int absent, int lowest, int highest) {
    const member *m = members_find(s, name);
    char expected[80];
    if (!m) return absent;
    if (is_number(m) && m->number >= lowest && m->number <= highest
        && m->number == floor(m->number)) return (int)m->number;
    snprintf(expected, sizeof expected, "a whole number from %d to %d", lowest, highest);
    members_wrong(s, name, expected);
    return absent;
}

int members_truth(members *s, const char *name, int absent) {
    const member *m = members_find(s, name);
    if (!m) return absent;
    if (m->kind == JSON_TRUE || m->kind == JSON_FALSE) return m->kind == JSON_TRUE;
    members_wrong(s, name, "true or false");
    return absent;
}

const char *members_text(members *s, const char *name, const char *absent) {
    const member *m = members_find(s, name);
    if (!m) return absent;
    if (m->text) return m->text;
    members_wrong(s, name, "a text");
    return absent;
}

int members_is(const members *s, const char *name, const char *text) {
    const member *m = members_find(s, name);
    return m && m->text && strcmp(m->text, text) == 0;
}

void members_refuse(members *s, const char *name, const char *harmless, const char *expected) {
    const member *m = members_find(s, name);
    if (!m || m->kind == JSON_FALSE || (is_number(m) && m->number == 0)) return;
    if (harmless && members_is(s, name, harmless)) return;
    members_wrong(s, name, expected);
}
