/* plot.h - line plots as SVG. */

#ifndef PLOT_H
#define PLOT_H

typedef struct plot_line {
    const char   *name;
    const double *x, *y;
    int           count;
} plot_line;

/* x has a logarithmic scale with ticks at powers of two; y begins at zero. Words must not hold "<",
 * ">" or "&". */
typedef struct plot {
    const char      *title, *x_label, *y_label;
    const plot_line *lines;
    int              count;                 /* of lines, at most 6 */
} plot;

/* Writes `count` plots side by side. 0, or 1 after a message. */
int plot_write(const char *path, const plot *plots, int count);

#endif
