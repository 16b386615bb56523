/* table.c - a table of results; see table.h. */

#include "table.h"

#include <stdio.h>

static void md_line(const table *t, const char *const *cells) {
    for (int i = 0; t->columns[i].name; i++)
        if (t->columns[i].kind != COLUMN_LIST)
            printf(t->columns[i].kind == COLUMN_NUMBER ? "| %*s " : "| %-*s ",
                   cells ? 10 : 1, cells ? cells[i] : t->columns[i].name);
    printf("|\n");
}

static void md_head(const table *t) {
    md_line(t, NULL);
    for (int i = 0; t->columns[i].name; i++)
        if (t->columns[i].kind != COLUMN_LIST)
            printf(t->columns[i].kind == COLUMN_NUMBER ? "| ---: " : "| --- ");
    printf("|\n");
}

static void csv_line(const table *t, const char *const *cells) {
    for (int i = 0; t->columns[i].name; i++)
        printf(i ? ",%s" : "%s", cells ? cells[i] : t->columns[i].name);
    printf("\n");
}

static void json_list(const char *cell) {
    putchar('[');
    for (; *cell; cell++) if (*cell == ' ') printf(", "); else putchar(*cell);
    putchar(']');
}

static void json_line(const table *t, const char *const *cells) {
    printf("%s\n  { ", t->rows ? "," : "");
    for (int i = 0; t->columns[i].name; i++) {
        printf("%s\"%s\": ", i ? ", " : "", t->columns[i].name);
        if (t->columns[i].kind == COLUMN_LIST) json_list(cells[i]);
        else if (t->columns[i].kind == COLUMN_WORD) printf("\"%s\"", cells[i]);
        else printf("%s", cells[i][0] ? cells[i] : "null");
    }
    printf(" }");
}

void table_begin(table *t, table_format format, const column *columns) {
    t->format = format;
    t->columns = columns;
    t->rows = 0;
}

static void print_head(const table *t) {
    switch (t->format) {
    case TABLE_MD:   md_head(t); break;
    case TABLE_CSV:  csv_line(t, NULL); break;
    case TABLE_JSON: printf("["); break;
    }
}

void table_row(table *t, const char *const *cells) {
    if (t->rows == 0) print_head(t);
    switch (t->format) {
    case TABLE_MD:   md_line(t, cells); break;
    case TABLE_CSV:  csv_line(t, cells); break;
    case TABLE_JSON: json_line(t, cells); break;
    }
    t->rows++;
    fflush(stdout);
}

void table_end(table *t) {
    if (t->format == TABLE_JSON) printf(t->rows ? "\n]\n" : "[]\n");
}
