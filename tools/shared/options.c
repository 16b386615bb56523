/* options.c - parses a command line by its table; see options.h. */

#include "options.h"
#include "host.h"
#include "report.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- values: each parser takes the whole text or nothing, and says if it did -------------- */

/* The functions of C skip white space before a number, and take "-5" for a huge one. */
static int begins_number(const char *text) {
    return *text == '-' || *text == '+' || *text == '.' || (*text >= '0' && *text <= '9');
}

static int parse_integer(const char *text, int least, int most, int *value) {
    char *end;
    errno = 0;
    long number = strtol(text, &end, 10);
    if (!begins_number(text) || end == text || *end || errno) return 0;
    if (number < least || number > most) return 0;
    *value = (int)number;
    return 1;
}

double options_decimal(const char *text, const char **end) {
    const char *digits = text + (*text == '-' || *text == '+');
    int hexadecimal = digits[0] == '0' && (digits[1] == 'x' || digits[1] == 'X');
    char *behind;
    double number = strtod(text, &behind);
    *end = begins_number(text) && !hexadecimal ? behind : text;
    return number;
}

static int parse_real(const char *text, double most, float *value) {
    const char *end;
    double number = options_decimal(text, &end);
    if (end == text || *end) return 0;
    if (!(number >= 0 && number <= most)) return 0;         /* NaN too */
    *value = (float)number;
    return 1;
}

static int parse_seed(const char *text, uint64_t *value) {
    char *end;
    errno = 0;
    *value = strtoull(text, &end, 10);
    if (!begins_number(text) || end == text || *end || errno) return 0;
    return *text != '-' || !strcmp(text, "-1");
}

static int parse_choice(const char *text, const char *words, int *value) {
    size_t length = strlen(text);
    for (int i = 0; ; i++, words++) {
        size_t n = strcspn(words, "|");
        if (n == length && !memcmp(words, text, length)) {
            *value = i;
            return 1;
        }
        words += n;
        if (!*words) return 0;
    }
}

static int add_text(text_list *list, const char *text) {
    if (list->count == MOST_TEXTS) return 0;
    list->at[list->count++] = text;
    return 1;
}

static int parse_value(const option *o, const char *text) {
    switch (o->kind) {
    case OPTION_COUNT:    return parse_integer(text, 0, INT_MAX, (int *)o->target);
    case OPTION_THREADS:  return parse_integer(text, 0, MOST_THREADS, (int *)o->target);
    case OPTION_LIMIT:    return parse_integer(text, -1, INT_MAX, (int *)o->target);
    case OPTION_REAL:     return parse_real(text, 1e6, (float *)o->target);
    case OPTION_FRACTION: return parse_real(text, 1, (float *)o->target);
    case OPTION_SEED:     return parse_seed(text, (uint64_t *)o->target);
    case OPTION_CHOICE:   return parse_choice(text, o->value, (int *)o->target);
    case OPTION_TEXT:
    case OPTION_WORD:     *(const char **)o->target = text; return 1;
    case OPTION_TEXTS:    return add_text((text_list *)o->target, text);
    case OPTION_FLAG: case OPTION_END: break;
    }
    return 0;
}

static const char *expectation(const option *o) {
    switch (o->kind) {
    case OPTION_THREADS:  return "a whole number from 0 to 1024";
    case OPTION_SEED:     return "a whole number of 64 bits, or -1 for a random one";
    case OPTION_LIMIT:    return "a whole number up to 2147483647, or -1 for no limit";
    case OPTION_REAL:     return "a number that is not negative";
    case OPTION_FRACTION: return "a number from 0 to 1";
    case OPTION_CHOICE:   return o->value;
    case OPTION_TEXTS:    return "one of at most 16";
    default:              return "a whole number from 0 to 2147483647";
    }
}

/* ---- help ------------------------------------------------------------------ */

static void print_default(const option *o) {
    const char *word = o->value;
    switch (o->kind) {
    case OPTION_COUNT: case OPTION_THREADS:
    case OPTION_LIMIT:                      printf(" (default: %d)", *(int *)o->target); break;
    case OPTION_REAL: case OPTION_FRACTION: printf(" (default: %g)", *(float *)o->target); break;
    case OPTION_SEED:                       printf(" (default: -1, random)"); break;
    case OPTION_CHOICE:
        for (int i = *(int *)o->target; i > 0; i--) word = strchr(word, '|') + 1;
        printf(" (default: %.*s)", (int)strcspn(word, "|"), word);
        break;
    case OPTION_FLAG: case OPTION_TEXT: case OPTION_TEXTS: case OPTION_WORD: case OPTION_END:
        break;
    }
}

static void print_row(const option *o) {
    int n = o->kind == OPTION_WORD ? printf("  %s", o->name)
          : o->letter ? printf("  -%s, --%s", o->letter, o->name) : printf("      --%s", o->name);
    if (o->value) n += printf(" %s", o->value);
    if (n > 27) n = printf("\n") - 1;
    printf("%*s%s", 29 - n, "", o->help);
    print_default(o);
    printf("\n");
}

static void print_help(const command *c) {
    printf("usage: griffin %s %s\n\n%s\n\n", c->name, c->usage, c->about);
    for (const option *o = c->options; o->kind != OPTION_END; o++)
        if (o->help) print_row(o);
    printf("  -h, --help                 this text\n");
}

int options_wrong(const command *c, const char *format, ...) {
    char where[64];
    va_list values;
    snprintf(where, sizeof where, "; see: griffin %s --help", c->name);
    va_start(values, format);
    report_line("", format, values, where);
    va_end(values);
    return 2;
}

int options_outputs(const command *c, const char *const *read, int reads,
                    const char *const *written, int writes) {
    for (int i = 0; i < writes; i++) {
        if (!written[i]) continue;
        for (int k = 0; k < reads; k++)
            if (read[k] && path_is_same(read[k], written[i]))
                return options_wrong(c, "%s: is what is read", written[i]);
        for (int k = 0; k < i; k++)
            if (written[k] && path_is_same(written[k], written[i]))
                return options_wrong(c, "%s: cannot be written twice", written[i]);
    }
    return -1;
}

/* ---- parsing --------------------------------------------------------------- */

/* Finds the row for "-n3", a letter and its number. */
static const option *find_joined(const command *c, const char *name, const char **value) {
    if (!name[0] || !strchr("0123456789", name[1 + (name[1] == '-')])) return NULL;
    for (const option *o = c->options; name[1] && o->kind != OPTION_END; o++) {
        if (o->kind == OPTION_WORD || o->kind == OPTION_FLAG || !o->letter) continue;
        if (o->letter[0] != name[0] || o->letter[1]) continue;
        *value = name + 1;
        return o;
    }
    return NULL;
}

/* Finds the row for "--temp", "--temp=1" or "-t". *value points to what follows a '='. */
static const option *find(const command *c, const char *word, const char **value) {
    int is_long = word[1] == '-';
    const char *name = word + 1 + is_long;
    size_t length = is_long ? strcspn(name, "=") : strlen(name);
    *value = name[length] ? name + length + 1 : NULL;
    for (const option *o = c->options; o->kind != OPTION_END; o++) {
        const char *known = is_long ? o->name : o->letter;
        if (o->kind != OPTION_WORD && known && strlen(known) == length
            && !memcmp(known, name, length)) return o;
    }
    return is_long ? NULL : find_joined(c, name, value);
}

/* Parses the option at argv[*at] and its value. Returns -1, or 2 after a message. */
static int parse_option(const command *c, int argc, char **argv, int *at) {
    const char *word = argv[*at], *value;
    const option *o = find(c, word, &value);
    if (!o) return options_wrong(c, "%s has no option %s", c->name, word);
    if (o->kind == OPTION_FLAG) {
        if (value) return options_wrong(c, "--%s takes no value", o->name);
        *(int *)o->target = 1;
        return -1;
    }
    if (!value && ++*at < argc) value = argv[*at];
    if (!value) return options_wrong(c, "%s needs a value", word);
    if (!parse_value(o, value))
        return options_wrong(c, "--%s: '%s' is not %s", o->name, value, expectation(o));
    return -1;
}

/* The value of an option may be "-h". */
static int asks_for_help(const command *c, int argc, char **argv) {
    const char *value;
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] != '-' || !argv[i][1]) continue;
        if (!strcmp(argv[i], "-h") || !strcmp(argv[i], "--help")) return 1;
        const option *o = find(c, argv[i], &value);
        if (o && o->kind != OPTION_FLAG && !value) i++;
    }
    return 0;
}

int options_parse(const command *c, int argc, char **argv) {
    const option *word = c->options;                        /* the row of the next word */
    int status;
    if (asks_for_help(c, argc, argv)) {                     /* before the defaults change */
        print_help(c);
        return 0;
    }
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] == '-' && argv[i][1]) {
            if ((status = parse_option(c, argc, argv, &i)) >= 0) return status;
            continue;
        }
        while (word->kind != OPTION_WORD && word->kind != OPTION_END) word++;
        if (word->kind == OPTION_END || *(const char **)word->target)   /* or -m was given */
            return options_wrong(c, "%s: '%s' is one word too many", c->name, argv[i]);
        parse_value(word++, argv[i]);
    }
    return -1;
}
