/* json_schema.c - from JSON Schema to GBNF, see json_schema.h.
 *
 * Every schema in the file that is needed becomes a rule, s0 the outermost, in the order in which
 * they are met: there is a list of places in the file and no recursion. A schema's own keywords are
 * found first, then read again one by one. */

#include "json_schema.h"
#include "json.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct part { size_t at, end; } part;       /* of the file; end 0: there is none */

typedef enum keyword {
    TYPE, ENUM, CONST, PROPERTIES, REQUIRED, ADDITIONAL, ITEMS, MIN_ITEMS, MAX_ITEMS, MIN_LENGTH,
    MAX_LENGTH, ANY_OF, ONE_OF, REF, DEFS, DEFINITIONS, KEYWORDS
} keyword;

static const char *const keyword_names[KEYWORDS] = {
    "type", "enum", "const", "properties", "required", "additionalProperties", "items", "minItems",
    "maxItems", "minLength", "maxLength", "anyOf", "oneOf", "$ref", "$defs", "definitions"
};

static const char *const annotations[] = {
    "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly",
    "$schema", "$id", "$comment"
};

enum { OBJECT = 1, ARRAY = 2, STRING = 4, INTEGER = 8, NUMBER = 16, BOOLEAN = 32, NOTHING = 64 };

static const char *const type_names[] = {
    "object", "array", "string", "integer", "number", "boolean", "null"
};

#define COUNT(array) ((int)(sizeof (array) / sizeof (array)[0]))

typedef struct converter {
    const char *data;
    size_t   size;
    report  *r;
    int      failed;                        /* nothing happens after the first failure */
    part    *schemas;                       /* by number of their rule */
    int      count, room;
    char    *out;
    size_t   length, capacity;
} converter;

static void fail(converter *c, size_t at, const char *what, const char *name, size_t length) {
    char printable[80];
    if (c->failed) return;
    c->failed = 1;
    report_fail(c->r, "schema, byte %lu: %s%s", (unsigned long)at, what,
                name ? report_name(name, length, printable) : "");
}

/* ---- writing -------------------------------------------------------------------------------- */

static void put(converter *c, const char *text, size_t length) {
    char *grown;
    if (c->failed) return;
    if (c->capacity - c->length <= length) {
        grown = (char *)realloc(c->out, 2 * (c->length + length) + 1024);
        if (!grown) { fail(c, 0, "out of memory", NULL, 0); return; }
        c->out = grown;
        c->capacity = 2 * (c->length + length) + 1024;
    }
    memcpy(c->out + c->length, text, length);
    c->length += length;
    c->out[c->length] = 0;
}

static void print(converter *c, const char *format, ...) {
    char text[400];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    put(c, text, strlen(text));
}

/* The inside of a GBNF literal. */
static void put_literal(converter *c, const char *text, size_t length) {
    for (; length; text++, length--) {
        if ((unsigned char)*text < ' ') print(c, "\\x%02X", (unsigned)*text);
        else if (*text == '"' || *text == '\\') print(c, "\\%c", *text);
        else put(c, text, 1);
    }
}

/* A JSON string as a GBNF literal. */
static void put_name(converter *c, const char *text, size_t length) {
    char escape[8];
    print(c, "\"\\\"");
    for (; length; text++, length--) {
        unsigned char byte = (unsigned char)*text;
        if (byte < ' ') snprintf(escape, sizeof escape, "\\u%04x", byte);
        else snprintf(escape, sizeof escape, "%s%c", byte == '"' || byte == '\\' ? "\\" : "", byte);
        put_literal(c, escape, strlen(escape));
    }
    print(c, "\\\"\"");
}

/* ---- reading -------------------------------------------------------------------------------- */

static void open_part(converter *c, json *j, part p) {
    json_start(j, c->data + p.at, p.end - p.at);
}

/* The value that starts at the current token, skipped. */
static part take_part(converter *c, json *j, part in) {
    part p;
    p.at = in.at + j->token;
    if (json_skip(j)) fail(c, in.at, j->error, NULL, 0);
    p.end = in.at + j->at;
    return p;
}

/* To the next member of an object, whose name is then the current token. 0: no more. */
static int next_member(converter *c, json *j) {
    if (json_next(j) == JSON_ERROR) fail(c, 0, j->error, NULL, 0);
    return !c->failed && j->kind == JSON_KEY;
}

static part member_value(converter *c, json *j, part in) {
    json_next(j);
    return take_part(c, j, in);
}

/* The next element of an array; end 0: no more. */
static part next_element(converter *c, json *j, part in) {
    part none = { 0, 0 };
    if (json_next(j) == JSON_ERROR) fail(c, in.at, j->error, NULL, 0);
    return c->failed || j->kind == JSON_ARRAY_END ? none : take_part(c, j, in);
}

/* Opens a part that must be of this kind. */
static void open_kind(converter *c, json *j, part p, json_kind kind, const char *expected) {
    open_part(c, j, p);
    if (json_next(j) != kind) fail(c, p.at, expected, NULL, 0);
}

/* A bound such as minItems, or what it is without the keyword. */
static int read_bound(converter *c, part p, int absent) {
    json j;
    int value = absent;
    if (!p.end) return absent;
    open_kind(c, &j, p, JSON_INT, "expected a whole number");
    if (!c->failed && (!j.is_natural || j.integer > 30000))
        fail(c, p.at, "expected a number from 0 to 30000", NULL, 0);
    if (!c->failed) value = (int)j.integer;
    json_stop(&j);
    return value;
}

/* The number of the rule for a schema. */
static int rule_of(converter *c, part p) {
    part *grown;
    int i;
    for (i = 0; i < c->count; i++) if (c->schemas[i].at == p.at) return i;
    if (c->count == c->room) {
        c->room = 2 * c->room + 16;
        grown = (part *)realloc(c->schemas, (size_t)c->room * sizeof *grown);
        if (!grown) { fail(c, p.at, "out of memory", NULL, 0); return 0; }
        c->schemas = grown;
    }
    c->schemas[c->count] = p;
    return c->count++;
}

/* ---- $ref ------------------------------------------------------------------------------------ */

/* A segment of a JSON pointer against a name: ~1 stands for / and ~0 for ~. */
static int segment_is(const char *segment, size_t length, const json *j) {
    size_t i, n = 0;
    for (i = 0; i < length; i++, n++) {
        char byte = segment[i];
        if (byte == '~' && i + 1 < length) byte = segment[++i] == '1' ? '/' : '~';
        if (n >= j->length || j->text[n] != byte) return 0;
    }
    return n == j->length;
}

static part find_member(converter *c, part in, const char *segment, size_t length) {
    part found = { 0, 0 };
    json j;
    open_kind(c, &j, in, JSON_OBJECT, "expected an object");
    while (!found.end && next_member(c, &j)) {
        int here = segment_is(segment, length, &j);
        part p = member_value(c, &j, in);
        if (here) found = p;
    }
    json_stop(&j);
    return found;
}

static part resolve(converter *c, part ref) {
    part p = { 0, 0 };
    json j;
    const char *at;
    size_t length, left;
    p.end = c->size;
    open_kind(c, &j, ref, JSON_STRING, "expected a text");
    at = j.text;
    left = c->failed ? 0 : j.length;
    if (left && *at == '#') { at++; left--; }
    else if (!c->failed) fail(c, ref.at, "only a $ref that starts with # is supported", NULL, 0);
    while (left && !c->failed) {
        const char *slash = left > 1 ? (const char *)memchr(at + 1, '/', left - 1) : NULL;
        length = slash ? (size_t)(slash - at) : left;
        if (*at == '/') p = find_member(c, p, at + 1, length - 1);
        if (*at != '/' || !p.end) fail(c, ref.at, "nothing is at ", j.text, j.length);
        at += length;
        left -= length;
    }
    json_stop(&j);
    return p;
}

/* ---- values of each type --------------------------------------------------------------------- */

typedef struct property { int rule, required; char *name; size_t length; } property;

typedef struct property_list { property *at; int count, room; } property_list;

static void add_property(converter *c, property_list *list, const json *j) {
    property *grown, *p;
    if (list->count == list->room) {
        list->room = 2 * list->room + 16;
        grown = (property *)realloc(list->at, (size_t)list->room * sizeof *grown);
        if (!grown) { fail(c, 0, "out of memory", NULL, 0); return; }
        list->at = grown;
    }
    p = &list->at[list->count];
    memset(p, 0, sizeof *p);
    p->name = (char *)malloc(j->length + 1);
    if (!p->name) { fail(c, 0, "out of memory", NULL, 0); return; }
    memcpy(p->name, j->text, j->length);
    p->length = j->length;
    list->count++;
}

static void read_properties(converter *c, property_list *list, part p) {
    json j;
    open_kind(c, &j, p, JSON_OBJECT, "properties: expected an object");
    while (!c->failed && next_member(c, &j)) {
        add_property(c, list, &j);
        if (!c->failed) list->at[list->count - 1].rule = rule_of(c, member_value(c, &j, p));
    }
    json_stop(&j);
}

static void read_required(converter *c, property_list *list, part p) {
    json j;
    int i;
    if (!p.end) return;
    open_kind(c, &j, p, JSON_ARRAY, "required: expected an array");
    while (!c->failed && json_next(&j) == JSON_STRING) {
        for (i = 0; i < list->count; i++) {
            const property *q = &list->at[i];
            if (q->length == j.length && !memcmp(q->name, j.text, j.length)) break;
        }
        if (i < list->count) list->at[i].required = 1;
        else fail(c, p.at, "required, but not among the properties: ", j.text, j.length);
    }
    if (!c->failed && j.kind != JSON_ARRAY_END) fail(c, p.at, "required: expected names", NULL, 0);
    json_stop(&j);
}

/* Rules for what may follow the first i properties: sN-i-f if none of them was written, sN-i-m if
 * some were. */
static void put_members(converter *c, int rule, const property_list *list) {
    int i;
    for (i = 0; i < list->count; i++) {
        const property *p = &list->at[i];
        print(c, "s%d-%d-f ::= ", rule, i);
        put_name(c, p->name, p->length);
        print(c, " \":\" space s%d s%d-%d-m", p->rule, rule, i + 1);
        if (!p->required) print(c, " | s%d-%d-f", rule, i + 1);
        print(c, "\ns%d-%d-m ::= (\",\" space ", rule, i);
        put_name(c, p->name, p->length);
        print(c, " \":\" space s%d)%s s%d-%d-m\n", p->rule, p->required ? "" : "?", rule, i + 1);
    }
    print(c, "s%d-%d-f ::= \"\"\ns%d-%d-m ::= space\n", rule, i, rule, i);
}

static int is_true(converter *c, part p) {
    json j;
    json_kind kind;
    open_part(c, &j, p);
    kind = json_next(&j);
    json_stop(&j);
    if (kind != JSON_TRUE && kind != JSON_FALSE)
        fail(c, p.at, "additionalProperties is only supported as true or false", NULL, 0);
    return kind == JSON_TRUE;
}

static void put_object(converter *c, int rule, const part *k, converter *more) {
    property_list list = { NULL, 0, 0 };
    int open = !k[ADDITIONAL].end || is_true(c, k[ADDITIONAL]), i;
    if (!k[PROPERTIES].end && open && !k[REQUIRED].end) { print(c, "object"); return; }
    if (k[PROPERTIES].end) read_properties(c, &list, k[PROPERTIES]);
    read_required(c, &list, k[REQUIRED]);
    print(c, "\"{\" space s%d-0-f \"}\"", rule);
    if (!c->failed) put_members(more, rule, &list);
    for (i = 0; i < list.count; i++) free(list.at[i].name);
    free(list.at);
}

static void put_bounds(converter *c, int least, int most) {
    if (most < 0) print(c, "{%d,}", least > 0 ? least : 0);
    else print(c, "{%d,%d}", least > 0 ? least : 0, most);
}

static void put_array(converter *c, const part *k) {
    int least = read_bound(c, k[MIN_ITEMS], 0), most = read_bound(c, k[MAX_ITEMS], -1);
    char item[32] = "value";
    if (k[ITEMS].end) snprintf(item, sizeof item, "s%d", rule_of(c, k[ITEMS]));
    if (most >= 0 && least > most) fail(c, k[MAX_ITEMS].at, "less than minItems", NULL, 0);
    print(c, "\"[\" space ");
    if (most != 0) {
        print(c, "(%s (\",\" space %s)", item, item);
        put_bounds(c, least - 1, most < 0 ? -1 : most - 1);
        print(c, " space)%s ", least > 0 ? "" : "?");
    }
    print(c, "\"]\"");
}

static void put_string(converter *c, const part *k) {
    int least = read_bound(c, k[MIN_LENGTH], 0), most = read_bound(c, k[MAX_LENGTH], -1);
    if (most >= 0 && least > most) fail(c, k[MAX_LENGTH].at, "less than minLength", NULL, 0);
    print(c, "\"\\\"\" char");
    put_bounds(c, least, most);
    print(c, " \"\\\"\"");
}

/* ---- schemas -------------------------------------------------------------------------------- */

static unsigned type_of_name(converter *c, const json *j, size_t at) {
    int i;
    for (i = 0; i < COUNT(type_names); i++) if (json_text_is(j, type_names[i])) return 1u << i;
    fail(c, at, "type: expected a name of JSON Schema", NULL, 0);
    return 0;
}

static unsigned read_types(converter *c, const part *k) {
    unsigned types = 0;
    json j;
    if (!k[TYPE].end) {
        if (k[PROPERTIES].end || k[REQUIRED].end || k[ADDITIONAL].end) types |= OBJECT;
        if (k[ITEMS].end || k[MIN_ITEMS].end || k[MAX_ITEMS].end) types |= ARRAY;
        if (k[MIN_LENGTH].end || k[MAX_LENGTH].end) types |= STRING;
        return types;
    }
    open_part(c, &j, k[TYPE]);
    if (json_next(&j) == JSON_ARRAY) {
        while (!c->failed && json_next(&j) != JSON_ARRAY_END)
            types |= type_of_name(c, &j, k[TYPE].at);
        if (!types) fail(c, k[TYPE].at, "type: expected a name", NULL, 0);
    } else {
        types = type_of_name(c, &j, k[TYPE].at);
    }
    json_stop(&j);
    return types;
}

static unsigned type_of_value(converter *c, part p) {
    static const struct { json_kind kind; unsigned types; } kinds[] = {
        { JSON_OBJECT, OBJECT }, { JSON_ARRAY, ARRAY }, { JSON_STRING, STRING },
        { JSON_INT, INTEGER | NUMBER }, { JSON_FLOAT, NUMBER }, { JSON_TRUE, BOOLEAN },
        { JSON_FALSE, BOOLEAN }, { JSON_NULL, NOTHING }
    };
    unsigned types = 0;
    json j;
    int i;
    open_part(c, &j, p);
    json_next(&j);
    for (i = 0; i < COUNT(kinds); i++) if (kinds[i].kind == j.kind) types = kinds[i].types;
    json_stop(&j);
    return types;
}

/* A value of enum or const, as the file spells it. */
static void put_value(converter *c, part p, unsigned types) {
    if (types && !(types & type_of_value(c, p)))
        fail(c, p.at, "a value not of the given type", NULL, 0);
    print(c, "\"");
    put_literal(c, c->data + p.at, p.end - p.at);
    print(c, "\"");
}

/* The elements of enum, anyOf or oneOf as alternatives. */
static void put_choice(converter *c, part list, int are_values, unsigned types) {
    const char *between = "";
    part p;
    json j;
    open_kind(c, &j, list, JSON_ARRAY, "expected an array");
    while (!c->failed && (p = next_element(c, &j, list)).end) {
        print(c, "%s", between);
        if (are_values) put_value(c, p, types);
        else print(c, "s%d", rule_of(c, p));
        between = " | ";
    }
    if (!*between) fail(c, list.at, "expected something to choose from", NULL, 0);
    json_stop(&j);
}

static void put_types(converter *c, int rule, unsigned types, const part *k, converter *more) {
    const char *between = "";
    int i;
    if (types & NUMBER) types &= ~(unsigned)INTEGER;
    for (i = 0; i < COUNT(type_names); i++) {
        if (!(types >> i & 1)) continue;
        print(c, "%s", between);
        between = " | ";
        switch (1 << i) {
        case OBJECT: put_object(c, rule, k, more); break;
        case ARRAY:  put_array(c, k); break;
        case STRING: put_string(c, k); break;
        default: print(c, "%s", type_names[i]); break;
        }
    }
}

/* enum, const, anyOf, oneOf and $ref say everything by themselves; beside enum and const there may
 * be a type. */
static void check_alone(converter *c, const part *k) {
    int i, alone = -1;
    for (i = 0; i < KEYWORDS; i++) {
        int says_all = i == ENUM || i == CONST || i == ANY_OF || i == ONE_OF || i == REF;
        if (says_all && k[i].end) alone = i;
    }
    for (i = 0; i < DEFS && alone >= 0; i++) {
        if (i == alone || !k[i].end || (i == TYPE && alone <= CONST)) continue;
        fail(c, k[alone].at, "this keyword is not supported beside ", keyword_names[i],
             strlen(keyword_names[i]));
    }
}

static void put_schema(converter *c, int rule, const part *k, converter *more) {
    unsigned types = read_types(c, k);
    check_alone(c, k);
    if (k[REF].end) print(c, "s%d", c->failed ? 0 : rule_of(c, resolve(c, k[REF])));
    else if (k[CONST].end) put_value(c, k[CONST], types);
    else if (k[ENUM].end) put_choice(c, k[ENUM], 1, types);
    else if (k[ANY_OF].end) put_choice(c, k[ANY_OF], 0, 0);
    else if (k[ONE_OF].end) put_choice(c, k[ONE_OF], 0, 0);
    else if (types) put_types(c, rule, types, k, more);
    else print(c, "value");
}

static void note_keyword(converter *c, json *j, part in, part *keywords) {
    size_t at = in.at + j->token;
    int i, skipped = 0;
    for (i = 0; i < COUNT(annotations); i++) skipped |= json_key_is(j, annotations[i]);
    for (i = 0; i < KEYWORDS && !json_key_is(j, keyword_names[i]); i++) { }
    if (i == KEYWORDS && !skipped) {
        fail(c, at, "this keyword is not supported: ", j->text, j->length);
    } else if (skipped) {
        json_skip(j);
    } else {
        keywords[i] = member_value(c, j, in);
    }
}

/* Writes the rule of a schema and those that only it needs; they are collected in `more`. */
static void convert(converter *c, int rule) {
    part keywords[KEYWORDS], p = c->schemas[rule];
    converter more = *c;
    json j;
    json_kind kind;
    memset(keywords, 0, sizeof keywords);
    more.out = NULL;
    more.length = more.capacity = 0;
    print(c, "s%d ::= ", rule);
    open_part(c, &j, p);
    kind = json_next(&j);
    if (kind == JSON_TRUE) {
        print(c, "value");
    } else if (kind != JSON_OBJECT) {
        fail(c, p.at, j.error[0] ? j.error : "expected a schema that allows something", NULL, 0);
    } else {
        while (next_member(c, &j)) note_keyword(c, &j, p, keywords);
        if (!c->failed) put_schema(c, rule, keywords, &more);
    }
    json_stop(&j);
    print(c, "\n");
    if (more.failed) c->failed = 1;
    if (more.out) put(c, more.out, more.length);
    free(more.out);
}

static const char common_rules[] =
    "space ::= \" \"?\n"
    "value ::= object | array | string | number | boolean | null\n"
    "object ::= \"{\" space (string \":\" space value (\",\" space string \":\" space value)* "
        "space)? \"}\"\n"
    "array ::= \"[\" space (value (\",\" space value)* space)? \"]\"\n"
    "string ::= \"\\\"\" char* \"\\\"\"\n"
    "char ::= [^\"\\\\\\x00-\\x1F] | \"\\\\\" ([\"\\\\/bfnrt] | \"u\" code)\n"
    "code ::= [0-9a-cefA-CEF] hex{3} | [dD] [0-7] hex{2}\n"      /* no half of a pair */
    "hex ::= [0-9a-fA-F]\n"
    "integer ::= \"-\"? (\"0\" | [1-9] [0-9]{0,17})\n"
    "number ::= integer (\".\" [0-9]{1,17})? ([eE] [-+]? [0-9]{1,2})?\n"
    "boolean ::= \"true\" | \"false\"\n"
    "null ::= \"null\"\n";

/* The whole file must be JSON, also where no schema needs it. */
static void check_json(converter *c) {
    json j;
    json_start(&j, c->data, c->size);
    while (json_next(&j) > JSON_END) { }
    if (j.kind == JSON_ERROR) c->failed = report_fail(c->r, "schema: %s", j.error);
    json_stop(&j);
}

char *json_schema_grammar(const void *data, size_t size, report *r) {
    converter c;
    part whole = { 0, 0 };
    int rule;
    memset(&c, 0, sizeof c);
    c.data = (const char *)data;
    c.size = whole.end = size;
    c.r = r;
    check_json(&c);
    print(&c, "root ::= s0\n");
    rule_of(&c, whole);
    for (rule = 0; rule < c.count && !c.failed; rule++) convert(&c, rule);
    put(&c, common_rules, sizeof common_rules - 1);
    free(c.schemas);
    if (!c.failed) return c.out;
    free(c.out);
    return NULL;
}
