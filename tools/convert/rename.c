/* rename.c - see rename.h. */

#include "rename.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- names --------------------------------------------------------------------------------- */

static const char *without_model(const char *name) {
    return strncmp(name, "model.", 6) == 0 ? name + 6 : name;
}

/* What follows "layers.N." or "blk.N.", and N; a name without them is its own end, and N is -1. */
static const char *behind_layer(const char *name, int *layer) {
    *layer = -1;
    name = without_model(name);
    size_t start = strncmp(name, "layers.", 7) == 0 ? 7 : strncmp(name, "blk.", 4) == 0 ? 4 : 0;
    size_t digits = strspn(name + start, "0123456789");
    if (!start || digits < 1 || digits > 4 || name[start + digits] != '.') return name;
    *layer = atoi(name + start);
    return name + start + digits + 1;
}

static const char *layers_of(const renaming *n) { return n->layers ? n->layers : "layers."; }

const char *rename_final(int layer, const char *name, char text[96]) {
    if (layer >= 0) snprintf(text, 96, "model.layers.%d.%s", layer, name);
    else snprintf(text, 96, "%s%s", strcmp(name, "lm_head.weight") ? "model." : "", name);
    return text;
}

const weight *rename_find(const renaming *n, int layer, const char *name) {
    char text[120] = "model.";
    if (layer >= 0) snprintf(text, sizeof text, "model.%s%d.%s", layers_of(n), layer, name);
    else snprintf(text, sizeof text, "model.%s", name);
    const weight *t = weights_find(n->from, text);
    return t ? t : weights_find(n->from, text + 6);
}

const weight *rename_need(const renaming *n, int layer, const char *name, uint64_t rows,
                          uint64_t cols) {
    const weight *t = rename_find(n, layer, name);
    char where[32] = "", expected[64];
    if (layer >= 0) snprintf(where, sizeof where, "%s%d.", layers_of(n), layer);
    if (cols) snprintf(expected, sizeof expected, "[%llu, %llu]", (unsigned long long)rows,
                       (unsigned long long)cols);
    else snprintf(expected, sizeof expected, "[%llu]", (unsigned long long)rows);
    if (!t) {
        report_fail(n->r, "%s: tensor '%s%s' is missing, expected %s", n->path, where, name,
                    expected);
        return NULL;
    }
    if (t->type != WEIGHT_OTHER && t->rank == (cols ? 2 : 1) && t->shape[0] == rows
        && (!cols || t->shape[1] == cols)) return t;
    report_fail(n->r, "%s: tensor '%s%s': expected numbers of the shape %s", n->path, where, name,
                expected);
    return NULL;
}

/* ---- views --------------------------------------------------------------------------------- */

weight *rename_show(renaming *n, int layer, const char *name, const weight *of) {
    char text[96];
    return weights_add_view(&n->to, rename_final(layer, name, text), of, n->path, n->r);
}

int rename_vector(renaming *n, int layer, const char *name, const double *values,
                  uint64_t count) {
    char text[96];
    rename_final(layer, name, text);
    return weights_add_vector(&n->to, text, values, count, n->path, n->r) ? 0 : -1;
}

int rename_constant(renaming *n, int layer, const char *name, double value, uint64_t count) {
    double *values = (double *)malloc((size_t)count * sizeof *values);
    if (!values) return report_fail(n->r, "%s: out of memory", n->path);
    for (uint64_t i = 0; i < count; i++) values[i] = value;
    int status = rename_vector(n, layer, name, values, count);
    free(values);
    return status;
}

static int show_part(renaming *n, int layer, const rename_row *row, const weight *of,
                     const char *tail) {
    uint64_t parts = (uint64_t)row->parts, rows = of->rank ? of->shape[0] : 0;
    char name[96];
    snprintf(name, sizeof name, "%s%.40s", row->to, tail);
    if (parts && (rows == 0 || rows % parts || of->type == WEIGHT_OTHER))
        return report_fail(n->r, "%s: tensor '%s': expected %d equal parts", n->path,
                           weight_origin(of), row->parts);
    weight *t = rename_show(n, layer, name, of);
    if (t && parts) weight_take_rows(t, (uint64_t)row->part * (rows / parts), rows / parts);
    return t ? 0 : -1;
}

static int rename_one(renaming *n, const weight *of, const rename_row *rows, size_t count) {
    int layer, known = 0;
    const char *rest = behind_layer(of->name, &layer);
    for (size_t i = 0; i < count; i++) {
        size_t length = strlen(rows[i].from);
        if (strncmp(rest, rows[i].from, length) != 0) continue;
        known = 1;
        if (rows[i].to && show_part(n, layer, &rows[i], of, rest + length) != 0) return -1;
    }
    return known || weights_add_view(&n->to, of->name, of, n->path, n->r) ? 0 : -1;
}

int rename_all(renaming *n, const rename_row *rows, size_t count) {
    for (size_t i = 0; i < n->from->count; i++)
        if (rename_one(n, &n->from->list[i], rows, count) != 0) return -1;
    n->to.renamed = rows;
    n->to.renamed_count = count;
    return 0;
}

/* The files have a new owner, which may have some of its own. */
static int take_files(weights *to, weights *from) {
    size_t count = to->file_count + from->file_count;
    file_bytes *files = (file_bytes *)realloc(to->files, (count ? count : 1) * sizeof *files);
    if (!files) return -1;
    if (from->file_count)
        memcpy(files + to->file_count, from->files, from->file_count * sizeof *files);
    to->files = files;
    to->file_count = count;
    from->file_count = 0;
    return 0;
}

int rename_finish(renaming *n, int status) {
    if (status == 0 && take_files(&n->to, n->from) != 0)
        status = report_fail(n->r, "%s: out of memory", n->path);
    weights_close(n->from);
    status = weights_finish(&n->to, status, n->path, n->r);
    *n->from = n->to;
    return status;
}

/* ---- back ---------------------------------------------------------------------------------- */

const char *rename_back(const weights *w, const char *name, char text[120]) {
    int layer;
    const char *rest = behind_layer(name, &layer);
    snprintf(text, 120, "%.119s", name);
    for (size_t i = 0; i < w->renamed_count; i++) {
        const rename_row *row = &w->renamed[i];
        size_t length = row->to ? strlen(row->to) : 0;
        if (!length || strncmp(rest, row->to, length) != 0) continue;
        snprintf(text, 120, "%.*s%s%.40s", (int)(rest - name), name, row->from, rest + length);
        break;
    }
    return text;
}
