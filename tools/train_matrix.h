/* train_matrix.h - matrix products; part of train_pass.h.
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

enum { LANES = sizeof(vec) / sizeof(real), COLS = 2 * LANES, ROWS = NET_ROWS };

/* Puts numbers [depth][count], whose rows are `row` apart, into panels of `width`. Processors do not
 * foresee short rows far apart, so rows are fetched AHEAD of their turn. */
enum { AHEAD = 8 };

static inline void pack_rows(int width, int count, int depth, const real *from, size_t row,
                             real *panels) {
    for (int k = 0; k < depth; k++, from += row, panels += width) {
        real *restrict to = panels;
        int i = 0;
        for (int j = 0; k + AHEAD < depth && j < count; j += 64 / (int)sizeof(real))
            FETCH(from + AHEAD * row + j);
        for (; i + width <= count; i += width, to += (size_t)depth * (size_t)width)
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

/* c = start + a b for one tile. The compiler keeps `sum` in registers. */
static inline void tile(int depth, const real *a, size_t a_row, size_t a_step, const real *b,
                        const real *start, size_t start_row, real *c, size_t c_row) {
    vec sum[ROWS][2];
    for (size_t i = 0; i < ROWS; i++) {
        sum[i][0] = *(const loose_vec *)(start + i * start_row);
        sum[i][1] = *(const loose_vec *)(start + i * start_row + LANES);
    }
    for (size_t k = 0; k < (size_t)depth; k++, b += COLS) {
        vec b0 = *(const loose_vec *)b, b1 = *(const loose_vec *)(b + LANES);
        for (size_t i = 0; i < ROWS; i++) {
            real x = a[i * a_row + k * a_step];
            sum[i][0] += x * b0;
            sum[i][1] += x * b1;
        }
    }
    for (size_t i = 0; i < ROWS; i++) {
        *(loose_vec *)(c + i * c_row) = sum[i][0];
        *(loose_vec *)(c + i * c_row + LANES) = sum[i][1];
    }
}

static void tile_of_rows(int depth, const real *a, size_t a_row, const real *b, const real *start,
                         size_t start_row, real *c, size_t c_row) {
    tile(depth, a, a_row, 1, b, start, start_row, c, c_row);
}

static void tile_of_panel(int depth, const real *a, const real *b, const real *start,
                          size_t start_row, real *c, size_t c_row) {
    tile(depth, a, 1, ROWS, b, start, start_row, c, c_row);
}

/* c = start + a b. The left-hand side is rows; or, if a_row is 0, panels of ROWS rows. What the sums
 * start with: c itself if `add`, else the row `bias`, else 0. */
typedef struct product {
    int         rows, cols, depth;
    const real *a;
    size_t      a_row;
    const real *b;
    size_t      b_panel;                    /* numbers from one panel to the next */
    const real *bias;
    int         add;
    real       *c;
    size_t      c_row;
} product;

static void copy_block(int rows, int cols, const real *from, size_t from_row, real *restrict to,
                       size_t to_row) {
    for (int i = 0; i < rows; i++, from += from_row, to += to_row)
        for (int j = 0; j < cols; j++) to[j] = from[j];
}

/* The tile of a product at row and col, and of its sums DEPTH terms from k on. */
static void product_tile(const product *p, int row, int col, int k) {
    static const real zeros[COLS];
    int rows = net_least(ROWS, p->rows - row), cols = net_least(COLS, p->cols - col);
    int depth = net_least(DEPTH, p->depth - k), add = p->add || k > 0;
    const real *b = p->b + (size_t)(col / COLS) * p->b_panel + (size_t)k * COLS;
    real *c = p->c + (size_t)row * p->c_row + col, *to = c, part[ROWS * COLS];
    const real *start = add ? c : p->bias ? p->bias + col : zeros;
    size_t start_row = add ? p->c_row : 0, to_row = p->c_row;
    if (rows < ROWS || cols < COLS) {       /* at an edge, beside the matrix */
        memset(part, 0, sizeof part);
        if (add || p->bias) copy_block(rows, cols, start, start_row, part, COLS);
        start = to = part;
        start_row = to_row = COLS;
    }
    if (p->a_row && rows == ROWS)
        tile_of_rows(depth, p->a + (size_t)row * p->a_row + k, p->a_row, b, start, start_row, to,
                     to_row);
    else if (p->a_row) {
        real last[ROWS * DEPTH];
        memset(last, 0, sizeof last);
        copy_block(rows, depth, p->a + (size_t)row * p->a_row + k, p->a_row, last, DEPTH);
        tile_of_rows(depth, last, DEPTH, b, start, start_row, to, to_row);
    } else
        tile_of_panel(depth, p->a + (size_t)row * (size_t)p->depth + (size_t)k * ROWS, b, start,
                      start_row, to, to_row);
    if (to == part) copy_block(rows, cols, part, COLS, c, p->c_row);
}

static void multiply(const product *p) {
    for (int k = 0; k < p->depth; k += DEPTH)
        for (int col = 0; col < p->cols; col += COLS)
            for (int row = 0; row < p->rows; row += ROWS) product_tile(p, row, col, k);
}

/* ---- linear layers ------------------------------------------------------------------------- */

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
    pack_rows(COLS, cols, rows, w, (size_t)cols, m->gate ? forward : backward);
}

/* y = W x + b for rows of x and y, x_row and y_row numbers apart. */
static void linear(const matrix *m, int block, int rows, const real *x, size_t x_row, real *y,
                   size_t y_row, int add) {
    product p = { rows, m->out, m->in, x, x_row, NULL, 0, NULL, add, y, y_row };
    p.b_panel = (size_t)m->in * COLS;
    p.b = m->forward + (size_t)block * panels_size(m->out, m->in);
    if (m->bias) p.bias = m->bias->value + (size_t)block * (size_t)m->out;
    multiply(&p);
}

/* dx = W' dy, or that added to dx. */
static void linear_backward(const matrix *m, int block, int rows, const real *dy, size_t dy_row,
                            real *dx, size_t dx_row, int add) {
    product p = { rows, m->in, m->out, dy, dy_row, NULL, 0, NULL, add, dx, dx_row };
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
 * scratch: GRADIENT_SCRATCH numbers. */
enum { GRADIENT_SCRATCH = DEPTH * (STRIPE_ROWS + STRIPE_COLS) };

typedef struct outer {                      /* c [a_cols][b_cols] */
    int         a_cols, b_cols;
    const real *a, *b;
    size_t      a_row, b_row;
    real       *c;
    size_t      c_row;
} outer;

static void add_outer(const outer *o, int rows, int row, int col, real *scratch) {
    real *left = scratch, *right = scratch + DEPTH * STRIPE_ROWS;
    product p = { 0, 0, 0, left, 0, right, 0, NULL, 1, NULL, o->c_row };
    p.rows = net_least(STRIPE_ROWS, o->a_cols - row);
    p.cols = net_least(STRIPE_COLS, o->b_cols - col);
    p.c = o->c + (size_t)row * p.c_row + col;
    for (int k = 0; k < rows; k += DEPTH) {
        p.depth = net_least(DEPTH, rows - k);
        p.b_panel = (size_t)p.depth * COLS;
        pack_rows(ROWS, p.rows, p.depth, o->a + (size_t)k * o->a_row + row, o->a_row, left);
        pack_rows(COLS, p.cols, p.depth, o->b + (size_t)k * o->b_row + col, o->b_row, right);
        multiply(&p);
    }
}
