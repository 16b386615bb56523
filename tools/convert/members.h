/* members.h - the members of a config.json, by name.
 *
 * A member of an object in the root object is called "outer.inner", an element of a list "list.0".
 * Each question says what stands for an absent member and what is allowed. The first wrong answer
 * makes the message, which names file, member and expectation; the questions after it get the
 * value for absent members, so that only members.failed need be looked at, once, at the end. */

#ifndef MEMBERS_H
#define MEMBERS_H

#include "../shared/report.h"

typedef struct member {
    char  *name, *text;                     /* text: of a string, else null */
    int    kind;                            /* a json_kind: JSON_OBJECT, JSON_TRUE ... */
    double number;                          /* of a number */
} member;

typedef struct members {
    member    *list;
    size_t      count, capacity;
    const char *path;                       /* of the file, for messages */
    report     *r;
    int         failed;
} members;

/* 0, or -1 with a message and nothing to free. `path` must outlive the members. */
int  members_read(members *s, const char *path, report *r);
void members_free(members *s);

/* Null: there is no such member, or it is null. */
const member *members_find(const members *s, const char *name);

/* 1: the member is there, be it null. */
int members_has(const members *s, const char *name);

int         members_whole (members *s, const char *name, int absent, int lowest, int highest);
double      members_number(members *s, const char *name, double absent, double lowest,
                            double highest);
int         members_truth (members *s, const char *name, int absent);
const char *members_text  (members *s, const char *name, const char *absent);

/* 1: the member is the text. */
int members_is(const members *s, const char *name, const char *text);

/* What this program cannot do: the member must be absent, null, false, 0, or `harmless`, a text or
 * null. */
void members_refuse(members *s, const char *name, const char *harmless, const char *expected);

/* Reports "FILE: NAME: expected EXPECTED", unless something was wrong before. Returns -1. */
int members_wrong(members *s, const char *name, const char *expected);

/* The same with "FILE: " before a text of any kind: members that do not fit together. */
int members_conflict(members *s, const char *format, ...) PRINTF_LIKE(2, 3);

#endif
