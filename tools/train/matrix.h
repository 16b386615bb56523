/* matrix.h - matrix products; part of pass.h.
 *
 * The right-hand side of a product c = a b is in panels: COLS columns of all rows side by side,
 *
 *     panels[cols / COLS][terms][COLS]      zeros fill up the last panel
 *
 * so that a tile of ROWS x COLS sums in registers reads it as one stream. A term is one number of
 * each side, or, where the processor multiplies bf16, two: they are rounded and share the bits of a
 * float, the even one in the lower half. Sums are floats in both cases. */

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

#ifdef NET_BF16

enum { TERM = 2 };                          /* numbers */

/* To the nearest, to even between two: in the upper half of the result. */
static inline uint32_t rounded_bits(real x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits + 0x7FFF + (bits >> 16 & 1);
}

static inline real term_of(real even, real odd) {
    uint32_t bits = rounded_bits(even) >> 16 | (rounded_bits(odd) & 0xFFFF0000u);
    real term;
    memcpy(&term, &bits, sizeof term);
    return term;
}

static inline vec add_term(vec sum, real a, vec b) {
    return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_ps(a), (__m512bh)b);
}

#else

enum { TERM = 1 };

static inline real term_of(real x, real none) { (void)none; return x; }
static inline vec add_term(vec sum, real a, vec b) { return sum + a * b; }

#endif

static inline int terms(int depth) { return (depth + TERM - 1) / TERM; }

/* Puts numbers [depth][count], whose rows are `row` apart, into panels of `width`, `panel` apart.
 * A last row without a partner has zeros for one. Processors do not foresee short rows far from
 * each other; so they are fetched AHEAD. */
enum { AHEAD = 8 };

static inline void pack_rows(int width, int count, int depth, const real *from, size_t row,
                             real *panels, size_t panel) {
    for (int k = 0; k < depth; k += TERM, from += TERM * row, panels += width) {
        real *restrict to = panels;
        const real *odd = k + TERM <= depth ? from + (TERM - 1) * row : from;
        real scale = k + TERM <= depth;     /* of the odd row */
        int i = 0;
        for (int j = 0; k + AHEAD + TERM <= depth && j < count; j += 64 / (int)sizeof(real))
            for (int t = 0; t < TERM; t++) FETCH(from + (size_t)(AHEAD + t) * row + j);
        for (; i + width <= count; i += width, to += panel)
            for (int j = 0; j < width; j++) to[j] = term_of(from[i + j], scale * odd[i + j]);
        for (int j = 0; i < count && j < width; j++)
            to[j] = i + j < count ? term_of(from[i + j], scale * odd[i + j]) : 0;
    }
}

/* The term that begins with number k of a row. */
static inline real term_in(const real *x, int k, int depth) {
    return term_of(x[k], k + TERM <= depth ? x[k + TERM - 1] : 0);
}

/* The same of numbers [count][depth]. */
static inline void pack_columns(int width, int count, int depth, const real *from, size_t row,
                                real *panels) {
    for (int i = 0; i < count; i += width, panels += (size_t)(terms(depth) * width))
        for (int j = 0; j < width; j++) {
            const real *x = from + (size_t)(i + j) * row;
            for (int k = 0; k < depth; k += TERM)
                panels[k / TERM * width + j] = i + j < count ? term_in(x, k, depth) : 0;
        }
}

/* Rows of numbers to rows of terms. */
static void round_rows(int rows, int depth, const real *from, size_t from_row, real *restrict to,
                       size_t to_row) {
    for (int i = 0; i < rows; i++, from += from_row, to += to_row)
        for (int k = 0; k < depth; k += TERM) to[k / TERM] = term_in(from, k, depth);
}

/* One tile: c [ROWS][COLS] = start + a b. a_row 0: a is a panel of ROWS rows. */
typedef struct spot {
    int         depth;                      /* terms */
    const real *a, *b, *start;
    real       *c;
    size_t      a_row, start_row, c_row;
} spot;

/* Term (i, k) of a is at i * a_row + k * a_step. The compiler keeps `sum` in registers. */
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
            sum[i][0] = add_term(sum[i][0], x, b0);
            sum[i][1] = add_term(sum[i][1], x, b1);
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

/* c = start + a b. The left-hand side is rows of numbers; or, if a_row is 0, panels of ROWS rows,
 * a_panel terms apart. The sums start with c itself if `add`, else with the row `bias`, else with
 * 0. */
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

/* The tile of a product at row and col, and of its sums DEPTH numbers from k on; a: the left-hand
 * side there, as in spot. */
static void product_tile(const product *p, int row, int col, int k, const real *a, size_t a_row) {
    static const real zeros[COLS];
    int rows = net_least(ROWS, p->rows - row), cols = net_least(COLS, p->cols - col);
    int add = p->add || k > 0;
    spot s = { 0, NULL, NULL, NULL, NULL, 0, 0, 0 };
    s.depth = terms(net_least(DEPTH, p->depth - k));
    s.a_row = a_row;
    s.a = a;
    s.b = p->b + (size_t)(col / COLS) * p->b_panel + (size_t)(k / TERM * COLS);
    s.c_row = p->c_row;
    s.c = p->c + (size_t)row * s.c_row + col;
    s.start_row = add ? s.c_row : 0;
    s.start = add ? s.c : p->bias ? p->bias + col : zeros;
    if (rows == ROWS && cols == COLS) run_spot(&s);
    else run_edge(s, rows, cols);
}

/* From row `first` on, `rows` of them. */
static void multiply_rows(const product *p, int first, int rows, int k, const real *a,
                          size_t a_row) {
    size_t step = a_row ? ROWS * a_row : p->a_panel;
    for (int col = 0; col < p->cols; col += COLS)
        for (int row = 0; row < rows; row += ROWS)
            product_tile(p, first + row, col, k, a + (size_t)(row / ROWS) * step, a_row);
}

/* Rows on the left become terms here, some at a time. */
static void multiply(const product *p) {
    enum { LEFT_ROWS = 8 * ROWS, LEFT_ROW = DEPTH / TERM + SPREAD };
    real left[TERM > 1 ? LEFT_ROWS * LEFT_ROW : 1];
    for (int k = 0; k < p->depth; k += DEPTH) {
        const real *a = p->a + (p->a_row ? k : k / TERM * ROWS);
        if (TERM == 1 || !p->a_row) { multiply_rows(p, 0, p->rows, k, a, p->a_row); continue; }
        for (int first = 0; first < p->rows; first += LEFT_ROWS, a += LEFT_ROWS * p->a_row) {
            int rows = net_least(LEFT_ROWS, p->rows - first);
            round_rows(rows, net_least(DEPTH, p->depth - k), a, p->a_row, left, LEFT_ROW);
            multiply_rows(p, first, rows, k, left, LEFT_ROW);
        }
    }
}

/* ---- linear layers --------------------------------------------------------------------------- */

static size_t panels_size(int count, int depth) {
    return (size_t)net_rounded(count, COLS) * (size_t)terms(depth);
}

/* Both panels of one block. */
static void pack_matrix(const matrix *m, int block) {
    int rows = m->gate ? m->in : m->out, cols = m->gate ? m->out : m->in;
    const real *w = m->weight->value + (size_t)block * (size_t)rows * (size_t)cols;
    real *forward = m->forward + (size_t)block * panels_size(m->out, m->in);
    real *backward = m->backward + (size_t)block * panels_size(m->in, m->out);
    pack_columns(COLS, rows, cols, w, (size_t)cols, m->gate ? backward : forward);
    pack_rows(COLS, cols, rows, w, (size_t)cols, m->gate ? forward : backward,
              (size_t)(terms(rows) * COLS));
}

/* y = W x + b for rows of x and y, x_row and y_row numbers apart. */
static void linear(const matrix *m, int block, int rows, const real *x, size_t x_row, real *y,
                   size_t y_row, int add) {
    product p = { rows, m->out, m->in, x, x_row, 0, NULL, 0, NULL, add, y, y_row };
    p.b_panel = (size_t)(terms(m->in) * COLS);
    p.b = m->forward + (size_t)block * panels_size(m->out, m->in);
    if (m->bias) p.bias = m->bias->value + (size_t)block * (size_t)m->out;
    multiply(&p);
}

/* dx = W' dy, or that added to dx. */
static void linear_backward(const matrix *m, int block, int rows, const real *dy, size_t dy_row,
                            real *dx, size_t dx_row, int add) {
    product p = { rows, m->in, m->out, dy, dy_row, 0, NULL, 0, NULL, add, dx, dx_row };
    p.b_panel = (size_t)(terms(m->out) * COLS);
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
        p.a_panel = (size_t)(terms(p.depth) * ROWS + SPREAD);
        p.b_panel = (size_t)(terms(p.depth) * COLS + SPREAD);
        pack_rows(ROWS, p.rows, p.depth, o->a + (size_t)k * o->a_row + row, o->a_row, left,
                  p.a_panel);
        pack_rows(COLS, p.cols, p.depth, o->b + (size_t)k * o->b_row + col, o->b_row, right,
                  p.b_panel);
        multiply(&p);
    }
}
