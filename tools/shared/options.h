/* options.h - a command line as a table: a row for each option and word, a struct for each command.
 *
 * Before parsing the targets hold the defaults, which --help shows. */

#ifndef OPTIONS_H
#define OPTIONS_H

typedef enum option_kind {
    OPTION_FLAG,                    /* int: 1 if given */
    OPTION_COUNT,                   /* int: 0 or more */
    OPTION_THREADS,                 /* int: 0 to MOST_THREADS */
    OPTION_LIMIT,                   /* int: 0 or more, or -1: none */
    OPTION_REAL,                    /* float: 0 or more */
    OPTION_FRACTION,                /* float: 0 to 1 */
    OPTION_SEED,                    /* uint64_t; -1, all ones, stands for a random one */
    OPTION_TEXT,                    /* const char * */
    OPTION_TEXTS,                   /* text_list: may be given more than once */
    OPTION_CHOICE,                  /* int: which word of `value`, as in "one|two|three" */
    OPTION_WORD,                    /* const char *: the next word that is no option */
    OPTION_END                      /* ends the table */
} option_kind;

enum { MOST_TEXTS = 16, MOST_THREADS = 1024 };

typedef struct text_list { const char *at[MOST_TEXTS]; int count; } text_list;

typedef struct option {
    const char *name;               /* --name, or what to call a word; null in the last row */
    const char *letter;             /* -letter, or null */
    option_kind kind;
    void       *target;
    const char *value;              /* what to call the value in the help; null for flags */
    const char *help;               /* null: another spelling, not listed */
} option;

typedef struct command {
    const char   *name;
    const char   *usage;            /* what follows the name */
    const char   *about;            /* a sentence or two */
    const option *options;
} command;

/* argv[0] is the name of the command. Returns -1 to go on, or the status to exit with: 0 after
 * --help, 2 after a message about wrong usage. */
int options_parse(const command *c, int argc, char **argv);

/* A decimal number. *end is behind it, or `text` if the text begins with none. */
double options_decimal(const char *text, const char **end);

/* Says what is wrong with the command line and where help is. Returns 2, the exit status. */
int options_wrong(const command *c, const char *format, ...);

/* Files to be written must be neither among those that are read nor there twice, by whatever name.
 * Null names count as absent. Returns -1 to go on, or 2 after a message. */
int options_outputs(const command *c, const char *const *read, int reads,
                    const char *const *written, int writes);

#endif
