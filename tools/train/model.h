/* model.h - what the parts of a net share: net.c makes it, pass.h runs it.
 *
 * Letters are those of griffin.h: D width, E recurrent width, F MLP width, K taps, H heads, G
 * key/value heads, hd numbers of a head, V vocabulary. M is the tokens of a group: sequences that
 * go through the net together. Activations are row-major, a row for each token of the group.
 *
 * Kinds of blocks differ in their mixer alone. A kind is a row in each of two tables, in the order
 * of NET_LETTERS: `kinds` in net.c has what makes it, `mixers` in pass.h how it runs. */

#ifndef TRAIN_MODEL_H
#define TRAIN_MODEL_H

#include "net.h"

#include <float.h>
#include <string.h>
#include <tgmath.h>                         /* sqrt and the like are those of `real` */

typedef NET_REAL real;

enum {
    GROUP = 2048,                           /* tokens, if a sequence is not longer than that */
    BLOCK = 96,                             /* rows in a piece of work */
    HEAD  = 384,                            /* rows whose logits exist at the same time */
    QUERY = 48,                             /* rows of attention scores that do */
    DEPTH = 256,                            /* of a sum, before other sums get their turn */
    STRIPE_ROWS = 264, STRIPE_COLS = 384,   /* of a weight gradient in a piece of work */
    SPREAD = 16,                            /* numbers between what would be a page apart */
    GRADIENT_SCRATCH = (DEPTH + SPREAD) * (STRIPE_ROWS + STRIPE_COLS),
    CHUNK = 1 << 16,                        /* numbers updated in a piece of work */
    STRETCH = 32,                           /* tokens from one state of a head that is kept to the
                                               next, and rows of a state that are worked on */
    WIDEST = 32                             /* columns of a panel are a divisor of it */
};

/* A linear layer y = W x + b, or several side by side (the gates' blocks), each on its own part of
 * the channels. Weights are [out][in]; those of gates [block][in][out]. */
typedef struct matrix {
    net_weight *weight, *bias;              /* bias may be null */
    int         in, out, blocks;            /* numbers of one block */
    int         gate;
    real       *forward, *backward;         /* W and its transpose in panels, see matrix.h */
} matrix;

#define NET_LETTERS "rahs"                  /* recurrent, attention, HGRN2, SUPRA */

typedef struct layer {
    int         kind;                       /* its letter's place in NET_LETTERS */
    net_weight *norm1, *norm2;
    matrix      y, x, gate_x, gate_a;       /* r */
    net_weight *taps, *taps_bias, *a_param;
    matrix      q, k, v;                    /* a, h, s; k: f_proj of h */
    net_weight *group_norm;                 /* h */
    real       *floor;                      /* h: [2][D] the lower bounds of its gates, and what is
                                               between them and 1 */
    net_weight *decay;                      /* s: [H], which nothing trains */
    matrix      out, gate, up, down;        /* all */

    /* What the backward pass wants to know, and where it then leaves gradients: */
    real *input, *middle;                   /* [M][D] before the mixer, after it */
    real *y_in, *z, *gx, *ga;               /* [M][E] before GELU; conv input; the gates */
    real *queries, *keys, *values;          /* [M][D], [M][G hd] twice: a: rotated; h: as their
                                               projections have them; s: after relu */
    real *weighing;                         /* a: [M][H] log of the sum of exp(scores) */
    real *kept;                             /* h, s: [sequences][H][stretches + 1][hd][wide] states
                                               before each stretch, and the last; see outer.h */
    real *mixed;                            /* [M][E] h, or [M][D] the heads side by side */
    real *g, *u;                            /* [M][F] the two MLP branches, the gate before its
                                               activation */
    real *output;                           /* the next layer's input */

    /* Where this layer's part of a state begins: [K - 1][E] rows before the convolution, then
     * [E] of h; or keys and values, [window][G hd] each; or [H][hd][wide] sums of outer products.
     * Keys are rotated as if the next sequence began at position 0. */
    size_t state_at;
} layer;

/* Gradients and inputs of one layer's matrices, for all rows of a group. */
typedef struct work {
    real *d_out, *d_middle, *d_in;          /* [M][D] of the residual stream */
    real *n1, *n2;                          /* [M][D] norms, normalised */
    real *m, *d_u;                          /* [M][F] input of down; of u */
    real *product;                          /* [M][E or D] input of out */
    real *d_mixed;                          /* [M][E or D] */
    real *c, *d_c;                          /* [M][E] convolution output */
    real *d_q, *d_k, *d_v;                  /* as queries, keys, values */
    real  *logits;                          /* [HEAD][logits_row], then their gradients */
    size_t logits_row;                      /* V and SPREAD, at least */
    real *norm_sums;                        /* [3][M / BLOCK][D] gradients of norms by blocks */
    real *channel_sums;                     /* [sequences][K + 2][E] of taps, bias, a_param */
    real *floor_sums;                       /* [sequences][D] of a layer's lower bounds */
    real *d_floors;                         /* [layers][D] of all of them */
    double *losses;                         /* [M] */
} work;

/* What Muon updates together: a matrix [rows][cols] in a weight, from number `start` on. */
typedef struct muon_part { net_weight *weight; size_t start; int rows, cols; } muon_part;

struct net {
    griffin_config config;
    net_weight *weights;
    int         weight_count;
    matrix      embedding;
    net_weight *final_norm;
    net_weight *lower_bounds;               /* [layers][D]; null without HGRN2, see net_floors */
    layer      *layers;
    real       *output;                     /* [M][D] after the last layer */
    work        work;
    real       *turns;                      /* [longest + 1][rope_dims] cosines, then sines */
    double     *chunk_sums;                 /* of squared gradients, by chunks */
    int        *chunk_weight;               /* the weight and the place in it where one begins */
    size_t     *chunk_start;
    int         chunks;
    muon_part  *muon;
    int         muon_count;
    real       *scratch;                    /* [threads][scratch_size] */
    size_t      scratch_size;
    int         threads, longest, capacity; /* capacity: most tokens of a group */
    int         kept_states;                /* most of a head in a group; 0: no layer keeps any */
    void       *memory;
    const struct net_math *math, *exact;    /* to learn with, and to measure losses with */

    int         frozen;                     /* weights have values, and nothing else */
    size_t      state_size;                 /* numbers; the first: tokens of the document so far */

    /* the group at hand */
    const int32_t *tokens, *targets;        /* [M] */
    int32_t       *position;                /* [M] in its document */
    const real    *state;                   /* [sequences][state_size], or null */
    real          *next;                    /* the same */
    real          *d_state;                 /* the same: its gradient is wanted, not the weights' */
    int            length, rows, first_row; /* first_row: of the group in its batch */
    double         scale;
    float          drop;                    /* dropout, see net_batch */
    uint64_t       dice;
};

/* The arithmetic, compiled for an instruction set. */
typedef struct net_math {
    void   (*prepare)(net *n);                          /* puts the matrices into panels */
    double (*run)(net *n, int backward);                /* a group; the sum of its losses */
    double (*update)(net *n, const net_adam *adam);     /* what net_update says */
} net_math;

extern const net_math net_plain;
#if defined(__x86_64__) && defined(__GNUC__) && !defined(GRIFFIN_SCALAR_ONLY)
  #define NET_X86 1
  extern const net_math net_avx2, net_avx512, net_bf16;
#endif

/* Calls job(data, 0..count-1, scratch) on all threads; scratch is the thread's own. */
typedef void (*net_job)(void *data, int index, real *scratch);
void net_each(const net *n, int count, net_job job, void *data);

/* The linear layers of a layer; returns how many. */
enum { LAYER_MATRICES = 8 };
int net_matrices(layer *l, matrix *list[LAYER_MATRICES]);

/* The heads of keys and values in a layer: HGRN2 has them all. */
int net_kv_heads(const griffin_config *g, int kind);

/* Numbers of a row of a head's state, and of all of it. */
int    net_state_row(const griffin_config *g);
size_t net_head_state(const griffin_config *g);

static inline int net_pieces(int count, int size) { return (count + size - 1) / size; }
static inline int net_rounded(int count, int size) { return net_pieces(count, size) * size; }
static inline int net_least(int a, int b) { return a < b ? a : b; }

/* The states that are kept of a head in a sequence of that length. */
static inline int net_kept(int length) { return net_pieces(length, STRETCH) + 1; }

#endif
