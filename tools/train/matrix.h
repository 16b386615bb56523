/* matrix.h - matrix products; part of pass.h.
 *
 * The right-hand side of a product c = a b is in panels: COLS columns of all rows side by side,
 *
 *     panels[cols / COLS][depth][COLS]      zeros fill up the last panel
 *
 * so that a tile of ROWS x COLS sums in registers reads it as one stream. */

/* gcc and clang know vectors without intrinsics, unless floats are computed as something longer. */
#if defined(__GNUC__) && FLT_EVAL_METHOD == 0
typedef real vec __attribute__((vector_size(NET_VECTOR)));
typedef vec loose_vec __attribute__((aligned(sizeof(real)), may_alias));
#define FETCH(p) __builtin_prefetch(p)
#else
typedef real vec;
typedef vec loose_vec;
#define FETCH(p) ((void)(p))
#endif

#ifdef __clang__                            /* gcc does it unasked */
#define UNROLLED _Pragma("clang loop unroll(full)")
#else
#define UNROLLED
#endif

enum { LANES = sizeof(vec) / sizeof(real), COLS = 2 * LANES, ROWS = NET_ROWS };

/* Puts numbers [depth][count], whose rows are `row` apart, into panels of `width`, `panel` apart.
 * Processors do not foresee short rows far from each other; so they are fetched AHEAD. */
enum { AHEAD = 8 };

static inline void pack_rows(int width, int count, int depth, const real *from, size_t row,
                             real *panels, size_t panel) {
    for (int k = 0; k < depth; k++, from += row, panels += width) {
        real *restrict to = panels;
        int i = 0;
        for (int j = 0; k + AHEAD < depth && j < count; j += 64 / (int)sizeof(real))
            FETCH(from + AHEAD * row + j);
        for (; i + width <= count; i += width, to += panel)
            for (int j = 0; j < width; j++) to[j] = from[i + j];
        for (int j = 0; i < count && j < width; j++) to[j] = i + j < count ? from[i + j] : 0;
    }
}

/* The same of numbers [count][depth]. */
static inline void pack_columns(int width, int count, int depth, const real *from, size_t row,
                                real *panels) {
    for (int i = 0; i < count; i += width, panels += (size_t)depth * (size_t)width)
        for (int j = 0; j < width; j++)
            for (int k = 0; k < depth; k++)
                panels[k * width + j] = i + j < count ? from[(size_t)(i + j) * row + (size_t)k] : 0;
}

/* One tile: c [ROWS][COLS] = start + a b. a_row 0: a is a panel of ROWS rows. */
typedef struct spot {
    int         depth;
    const real *a, *b, *start;
    real       *c;
    size_t      a_row, start_row, c_row;
} spot;

/* Number (i, k) of a is at i * a_row + k * a_step. The compiler keeps `sum` in registers. */
static inline void run_tile(const spot *s, size_t a_row, size_t a_step) {
    const real *a = s->a, *b = s->b;
    vec sum[ROWS][2];
    UNROLLED for (size_t i = 0; i < ROWS; i++) {
        sum[i][0] = *(const loose_vec *)(s->start + i * s->start_row);
        sum[i][1] = *(const loose_vec *)(s->start + i * s->start_row + LANES);
    }
    for (size_t k = 0; k < (size_t)s->depth; k++, b += COLS) {
        vec b0 = *(const loose_vec *)b, b1 = *(const loose_vec *)(b + LANES);
        UNROLLED for (size_t i = 0; i < ROWS; i++) {
            real x = a[i * a_row + k * a_step];
            sum[i][0] += x * b0;
            sum[i][1] += x * b1;
        }
    }
    UNROLLED for (size_t i = 0; i < ROWS; i++) {
        *(loose_vec *)(s->c + i * s->c_row) = sum[i][0];
        *(loose_vec *)(s->c + i * s->c_row + LANES) = sum[i][1];
    }
}

static void run_spot(const spot *s) {
    if (s->a_row) run_tile(s, s->a_row, 1);
    else run_tile(s, 1, ROWS);
}

static void copy_block(int rows, int cols, const real *from, size_t from_row, real *restrict to,
                       size_t to_row) {
    for (int i = 0; i < rows; i++, from += from_row, to += to_row)
        for (int j = 0; j < cols; j++) to[j] = from[j];
}

/* A tile that sticks out of the matrix is made beside it. */
static void run_edge(spot s, int rows, int cols) {
    real part[ROWS * COLS] = { 0 }, last[ROWS * DEPTH] = { 0 }, *c = s.c;
    size_t c_row = s.c_row;
    copy_block(rows, cols, s.start, s.start_row, part, COLS);
    if (s.a_row) {
        copy_block(rows, s.depth, s.a, s.a_row, last, DEPTH);
        s.a = last;
        s.a_row = DEPTH;
    }
    s.start = s.c = part;
    s.start_row = s.c_row = COLS;
    run_spot(&s);
    copy_block(rows, cols, part, COLS, c, c_row);
}

/* c = start + a b. The left-hand side is rows; or, if a_row is 0, panels of ROWS rows, a_panel
 * numbers apart. The sums start with c itself if `add`, else with the row `bias`, else with 0. */
typedef struct product {
    int         rows, cols, depth;
    const real *a;
    size_t      a_row, a_panel;
    const real *b;
    size_t      b_panel;                    /* numbers from one panel to the next */
    const real *bias;
    int         add;
    real       *c;
    size_t      c_row;
} product;

/* The tile of a product at row and col, and of its sums DEPTH terms from k on. */
static void product_tile(const product *p, int row, int col, int k) {
    static const real zeros[COLS];
    int rows = net_least(ROWS, p->rows - row), cols = net_least(COLS, p->cols - col);
    int add = p->add || k > 0;
    spot s = { 0, NULL, NULL, NULL, NULL, 0, 0, 0 };
    s.depth = net_least(DEPTH, p->depth - k);
    s.a_row = p->a_row;
    s.a = p->a + (s.a_row ? (size_t)row * s.a_row + (size_t)k
                          : (size_t)(row / ROWS) * p->a_panel + (size_t)k * ROWS);
    s.b = p->b + (size_t)(col / COLS) * p->b_panel + (size_t)k * COLS;
    s.c_row = p->c_row;
    s.c = p->c + (size_t)row * s.c_row + col;
    s.start_row = add ? s.c_row : 0;
    s.start = add ? s.c : p->bias ? p->bias + col : zeros;
    if (rows == ROWS && cols == COLS) run_spot(&s);
    else run_edge(s, rows, cols);
}

static void multiply(const product *p) {
    for (int k = 0; k < p->depth; k += DEPTH)
        for (int col = 0; col < p->cols; col += COLS)
            for (int row = 0; row < p->rows; row += ROWS) product_tile(p, row, col, k);
}

/* ---- linear layers --------------------------------------------------------------------------- */

static size_t panels_size(int count, int depth) {
    return (size_t)net_rounded(count, COLS) * (size_t)depth;
}

/* Both panels of one block. */
static void pack_matrix(const matrix *m, int block) {
    int rows = m->gate ? m->in : m->out, cols = m->gate ? m->out : m->in;
    const real *w = m->weight->value + (size_t)block * (size_t)rows * (size_t)cols;
    real *forward = m->forward + (size_t)block * panels_size(m->out, m->in);
    real *backward = m->backward + (size_t)block * panels_size(m->in, m->out);
    pack_columns(COLS, rows, cols, w, (size_t)cols, m->gate ? backward : forward);
    pack_rows(COLS, cols, rows, w, (size_t)cols, m->gate ? forward : backward,
              (size_t)rows * COLS);
}

/* y = W x + b for rows of x and y, x_row and y_row numbers apart. */
static void linear(const matrix *m, int block, int rows, const real *x, size_t x_row, real *y,
                   size_t y_row, int add) {
    product p = { rows, m->out, m->in, x, x_row, 0, NULL, 0, NULL, add, y, y_row };
    p.b_panel = (size_t)m->in * COLS;
    p.b = m->forward + (size_t)block * panels_size(m->out, m->in);
    if (m->bias) p.bias = m->bias->value + (size_t)block * (size_t)m->out;
    multiply(&p);
}

/* dx = W' dy, or that added to dx. */
static void linear_backward(const matrix *m, int block, int rows, const real *dy, size_t dy_row,
                            real *dx, size_t dx_row, int add) {
    product p = { rows, m->in, m->out, dy, dy_row, 0, NULL, 0, NULL, add, dx, dx_row };
    p.b_panel = (size_t)m->out * COLS;
    p.b = m->backward + (size_t)block * panels_size(m->in, m->out);
    multiply(&p);
}

/* sum += the sum of rows of x. */
static void add_rows(int rows, int cols, const real *x, size_t x_row, real *restrict sum) {
    for (int r = 0; r < rows; r++, x += x_row)
        for (int j = 0; j < cols; j++) sum[j] += x[j];
}

/* c += a' b over all rows, for the STRIPE_ROWS x STRIPE_COLS numbers of c from row and col on.
 * scratch: GRADIENT_SCRATCH numbers; SPREAD is between panels, for what is a page apart crowds the
 * cache. */

typedef struct outer {                      /* c [a_cols][b_cols] */
    int         a_cols, b_cols;
    const real *a, *b;
    size_t      a_row, b_row;
    real       *c;
    size_t      c_row;
} outer;

static void add_outer(const outer *o, int rows, int row, int col, real *scratch) {
    real *left = scratch, *right = scratch + (DEPTH + SPREAD) * STRIPE_ROWS;
    product p = { 0, 0, 0, left, 0, 0, right, 0, NULL, 1, NULL, o->c_row };
    p.rows = net_least(STRIPE_ROWS, o->a_cols - row);
    p.cols = net_least(STRIPE_COLS, o->b_cols - col);
    p.c = o->c + (size_t)row * p.c_row + col;
    for (int k = 0; k < rows; k += DEPTH) {
        p.depth = net_least(DEPTH, rows - k);
        p.a_panel = (size_t)p.depth * ROWS + SPREAD;
        p.b_panel = (size_t)p.depth * COLS + SPREAD;
        pack_rows(ROWS, p.rows, p.depth, o->a + (size_t)k * o->a_row + row, o->a_row, left,
                  p.a_panel);
        pack_rows(COLS, p.cols, p.depth, o->b + (size_t)k * o->b_row + col, o->b_row, right,
                  p.b_panel);
        multiply(&p);
    }
}
