/* round.c - in the last steps the network reads its matrices as a file of int8 or int4 will
 * have them, so that they come to lie where rounding does no harm. Gradients are those of the
 * rounded values and move the exact ones (straight-through: Bengio et al., arXiv 1308.3432). */

#include "train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_VALUES = 32, BLOCK_BYTES = 34 };

/* What the converter writes in blocks: matrices, but not the gates. */
static int is_rounded(const net_weight *w) {
    return w->decays && w->rank == 2 && w->shape[1] % BLOCK_VALUES == 0;
}

static const quant_type *type_of(const net_weight *w, const quant_type *type) {
    return w->careful ? quant_find("q8_0") : type;
}

static void round_weight(const quant_type *type, net_weight *w) {
    uint8_t block[BLOCK_BYTES];
    for (size_t i = 0; i < w->count; i += BLOCK_VALUES)
        if (quantise_best(type, w->value + i, BLOCK_VALUES, block) == 0)
            type->decode(block, w->value + i, 1);
}

int train_can_round_to(const quant_type *type) {
    return type && (type == quant_find("q8_0") || type == quant_find("q4_0"));
}

/* The exact values of all matrices, one after the other: kept, or put back. */
static int move_exact(training *t, int back) {
    size_t count = 0;
    for (int i = 0; i < t->weight_count; i++) count += t->weights[i].count;
    if (!t->exact) t->exact = (float *)malloc(count * sizeof *t->exact);
    if (!t->exact) return complain("out of memory");
    for (int i = 0; i < t->weight_count; i++) {
        const net_weight *w = &t->weights[i];
        float *exact = t->exact + (count -= w->count);
        memcpy(back ? w->value : exact, back ? exact : w->value, w->count * sizeof *exact);
    }
    return 0;
}

int train_round(training *t) {
    const quant_type *type = quant_find(t->o.quantise);
    if (move_exact(t, 0)) return 1;
#ifdef _OPENMP
    #pragma omp parallel for schedule(dynamic, 1)
#endif
    for (int i = 0; i < t->weight_count; i++)
        if (is_rounded(&t->weights[i]))
            round_weight(type_of(&t->weights[i], type), &t->weights[i]);
    return 0;
}

void train_unround(training *t) { move_exact(t, 1); }
