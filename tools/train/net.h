/* net.h - a network of the family while it is trained: weights, exact gradients, AdamW and Muon.
 *
 *     n = net_new(&config, 256);                                the longest sequence
 *     net_initialise(n, seed);                                  or fill its weights from a file
 *     while (...) {
 *         loss = net_backward(n, &batch, 1 / 4096.0f, &scored);
 *         net_update(n, &adam);
 *     }
 *     net_free(n);
 *
 * The same calls give the same bits with any number of OpenMP threads: all sums are over fixed
 * blocks in a fixed order. One thread at a time may use a net. */

#ifndef TRAIN_NET_H
#define TRAIN_NET_H

#include "../../griffin.h"

#include <stddef.h>
#include <stdint.h>

/* Numbers are floats. The test of the gradients compiles the same source with doubles. */
#ifndef NET_REAL
  #define NET_REAL float
#endif

/* One weight, with the name and shape that Hugging Face's files give it. */
typedef struct net_weight {
    char      name[64];
    int       rank, shape[3];               /* row-major */
    size_t    count;                        /* numbers */
    int       decays;                       /* matrices do; norms, biases, taps, a_param do not */
    int       careful;                      /* a matrix whose errors a state sums up */
    int       held;                         /* 1: net_update leaves it as it is */
    NET_REAL *value, *gradient;             /* [count] */
    NET_REAL *mean, *square;                /* [count] AdamW's first and second moments; or Muon's
                                               momentum, and nothing */
} net_weight;

typedef struct net net;

/* longest: tokens in a sequence, at most; the memory for activations follows from it, since a batch
 * goes through the net in groups of about 2048 tokens. Null, after a message: no memory, or a shape
 * that cannot be trained (only tanh-GELU and SiLU are known). */
net *net_new(const griffin_config *config, int longest);

/* The same with weights that stay: no memory for their gradients and moments, two thirds of all.
 * For net_loss and net_backward_state. */
net *net_new_frozen(const griffin_config *config, int longest);
void net_free(net *n);                                      /* null is fine */

/* The papers' initialisation; gradients and moments become 0. */
void net_initialise(net *n, uint64_t seed);

/* All of them, in the order of a forward pass; returns how many. Where a file has lower_bound and
 * gate_range in each layer of HGRN2, the net has one weight, "model.lower_bounds" [layers][width],
 * as the last, and net_floor gives the two vectors [width] of a layer. */
int  net_weights(net *n, net_weight **list);
void net_floor(const griffin_config *config, const NET_REAL *lower_bounds, int layer,
               NET_REAL *lower_bound, NET_REAL *gate_range);

/* A batch. Tokens and targets must be below the vocabulary's size.
 *
 * A state is what a sequence leaves to the one that continues it: of a recurrent layer the last
 * rows before the convolution and the last h, of an attention layer the keys and values of a
 * window, of HGRN2 and SUPRA the sums of outer products. All zeros: nothing came before. Its first
 * number says how many tokens came before; rows from before these count for nothing. */
typedef struct net_batch {
    int             sequences, length;
    const int32_t  *tokens, *targets;       /* [sequences][length]; target -1 is not scored */
    const uint8_t  *fresh;                  /* the same; 1: a document begins here, and nothing
                                               before it is seen; null: none does */
    const NET_REAL *state;                  /* [sequences][net_state_size] before each sequence;
                                               null: each begins a document */
    NET_REAL       *next;                   /* and after it; other memory, or null */
    float           drop;                   /* the share of dropout; 0: none */
    uint64_t        dice;                   /* the same dice drop the same numbers */
} net_batch;

size_t net_state_size(const net *n);                        /* numbers, for one sequence */

/* net_backward adds scale * d(sum of losses)/d(weight) to the gradients. Both return the sum of the
 * cross entropies in nats, and how many targets were scored, unless scored is null. Where the
 * processor multiplies bf16, net_backward rounds what its products take, net_loss never. */
double net_backward(net *n, const net_batch *b, float scale, int64_t *scored);
double net_loss(net *n, const net_batch *b, int64_t *scored);

/* The gradient of the first state, which is a parameter like any other: writes
 * scale * d(sum of losses)/d(state) to d_state [sequences][net_state_size], where b->state is not
 * null. Rows that nothing sees get 0, and so does the count of tokens. Those of weights stay as
 * they are. */
double net_backward_state(net *n, const net_batch *b, float scale, NET_REAL *d_state,
                          int64_t *scored);

typedef struct net_adam {
    float   rate, beta1, beta2, eps;
    float   decay;                          /* times the rate is taken off weights that decay */
    float   clip;                           /* largest norm of all gradients together; 0: any */
    float   momentum;                       /* of Muon, for the matrices of layers; 0: AdamW too */
    int64_t step;                           /* updates made so far; net_update counts on */
} net_adam;

/* Clips the gradients, takes a step of AdamW or Muon with decoupled decay, and zeroes the
 * gradients. Returns their norm before clipping. If that is not finite, no weight has changed. */
double net_update(net *n, net_adam *adam);

#endif
