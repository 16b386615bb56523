/* plot.c - line plots as SVG; see plot.h. */

#include "plot.h"
#include "buffer.h"
#include "host.h"

#include <math.h>
#include <stdio.h>

enum { WIDTH = 480, HEIGHT = 340,           /* of a plot with its margins */
       LEFT = 70, RIGHT = 20, TOP = 60, BOTTOM = 56 };

static const char *const colours[] = {
    "#0060a8", "#c04000", "#208040", "#8040a0", "#806000", "#505050"
};

typedef struct frame { double x0, x1, y1, origin; } frame;  /* ranges; where the plot begins */

static frame frame_of(const plot *p, int index) {
    frame f = { 1e300, 0, 0, 0 };
    for (int i = 0; i < p->count; i++)
        for (int k = 0; k < p->lines[i].count; k++) {
            if (p->lines[i].x[k] < f.x0) f.x0 = p->lines[i].x[k];
            if (p->lines[i].x[k] > f.x1) f.x1 = p->lines[i].x[k];
            if (p->lines[i].y[k] > f.y1) f.y1 = p->lines[i].y[k];
        }
    if (!(f.x1 > f.x0)) { f.x0 = f.x1 > 0 ? f.x1 / 2 : 1; f.x1 = f.x0 * 4; }
    if (!(f.y1 > 0)) f.y1 = 1;
    f.origin = (double)index * WIDTH;
    return f;
}

static double at_x(const frame *f, double x) {
    return f->origin + LEFT + (WIDTH - LEFT - RIGHT) * log(x / f->x0) / log(f->x1 / f->x0);
}

static double at_y(const frame *f, double y) {
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * y / f->y1;
}

/* Returns the largest of 1, 2, 5, 10, ... that divides the range into four parts or more. */
static double step_of(double range) {
    double step = pow(10, floor(log10(range / 4)));
    return step * 5 <= range / 4 ? step * 5 : step * 2 <= range / 4 ? step * 2 : step;
}

static void text(byte_buffer *out, double x, double y, const char *anchor, const char *words) {
    buffer_print(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n", x, y, anchor,
                 words);
}

static void tick(byte_buffer *out, double x0, double y0, double x1, double y1) {
    buffer_print(out, "<path d=\"M%.1f %.1f L%.1f %.1f\" stroke=\"#ddd\"/>\n", x0, y0, x1, y1);
}

static void draw_axes(byte_buffer *out, const plot *p, const frame *f) {
    double bottom = HEIGHT - BOTTOM, left = f->origin + LEFT, right = f->origin + WIDTH - RIGHT;
    double step = step_of(f->y1);
    char words[32];
    for (double v = 0; v <= f->y1 * 1.0001; v += step) {
        tick(out, left, at_y(f, v), right, at_y(f, v));
        snprintf(words, sizeof words, "%g", v);
        text(out, left - 6, at_y(f, v) + 4, "end", words);
    }
    for (double v = exp2(ceil(log2(f->x0) - 1e-9)); v <= f->x1 * 1.0001; v *= 2) {
        tick(out, at_x(f, v), TOP, at_x(f, v), bottom);
        snprintf(words, sizeof words, v < 1024 ? "%g" : "%gk", v < 1024 ? v : v / 1024);
        text(out, at_x(f, v), bottom + 16, "middle", words);
    }
    buffer_print(out, "<path d=\"M%.1f %d V%.1f H%.1f\" fill=\"none\" stroke=\"#000\"/>\n",
                 left, TOP, bottom, right);
    text(out, (left + right) / 2, TOP - 40, "middle", p->title);
    text(out, (left + right) / 2, bottom + 38, "middle", p->x_label);
    buffer_print(out, "<text transform=\"translate(%.1f %.1f) rotate(-90)\" "
                 "text-anchor=\"middle\">%s</text>\n", f->origin + 16, (TOP + bottom) / 2,
                 p->y_label);
}

static void draw_line(byte_buffer *out, const plot_line *l, const frame *f, int index, int count) {
    double legend = f->origin + LEFT + (double)(WIDTH - LEFT - RIGHT) * index / count;
    buffer_print(out, "<g stroke=\"%s\" stroke-width=\"2\" fill=\"none\">\n<polyline points=\"",
                 colours[index]);
    for (int k = 0; k < l->count; k++)
        buffer_print(out, "%.1f,%.1f ", at_x(f, l->x[k]), at_y(f, l->y[k]));
    buffer_print(out, "\"/>\n");
    for (int k = 0; k < l->count; k++)
        buffer_print(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2\"/>\n", at_x(f, l->x[k]),
                     at_y(f, l->y[k]));
    buffer_print(out, "<path d=\"M%.1f %d h24\"/>\n</g>\n", legend, TOP - 18);
    text(out, legend + 30, TOP - 14, "start", l->name);
}

static void draw_plots(byte_buffer *out, const plot *plots, int count) {
    buffer_print(out, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" "
                 "width=\"%d\" height=\"%d\" font-family=\"sans-serif\" font-size=\"12\">\n"
                 "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n", count * WIDTH, HEIGHT,
                 count * WIDTH, HEIGHT);
    for (int i = 0; i < count; i++) {
        frame f = frame_of(&plots[i], i);
        draw_axes(out, &plots[i], &f);
        for (int k = 0; k < plots[i].count; k++)
            draw_line(out, &plots[i].lines[k], &f, k, plots[i].count);
    }
    buffer_print(out, "</svg>\n");
}

int plot_write(const char *path, const plot *plots, int count) {
    byte_buffer svg = { NULL, 0, 0, 0 };
    draw_plots(&svg, plots, count);
    int status = svg.failed ? complain("out of memory") : file_replace(path, svg.data, svg.size);
    buffer_free(&svg);
    return status;
}
