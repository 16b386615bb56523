/* table.h - a table of results, row by row, for people (Markdown) or programs (CSV, JSON). */

#ifndef TABLE_H
#define TABLE_H

typedef enum table_format { TABLE_MD, TABLE_CSV, TABLE_JSON } table_format;     /* "md|csv|json" */

typedef enum column_kind {
    COLUMN_WORD,
    COLUMN_NUMBER,
    COLUMN_LIST                             /* numbers with spaces between; left out of Markdown */
} column_kind;

typedef struct column { const char *name; column_kind kind; } column;

typedef struct table {
    table_format  format;
    const column *columns;                  /* the last one has no name */
    int           rows;
} table;

/* Rows are printed on standard output at once. Words have neither quotes nor commas. An empty cell
 * of a number means that there is none. */
void table_begin(table *t, table_format format, const column *columns);
void table_row(table *t, const char *const *cells);
void table_end(table *t);

#endif
