/* model.c - what net.c and pass.h both need of a net, see model.h. */

#include "model.h"

#ifdef _OPENMP
  #include <omp.h>
#endif

static real *scratch_here(const net *n) {
#ifdef _OPENMP
    return n->scratch + (size_t)omp_get_thread_num() * n->scratch_size;
#else
    return n->scratch;
#endif
}

/* With few rows, starting the threads would cost more than they save. */
void net_each(const net *n, int count, net_job job, void *data) {
#ifdef _OPENMP
    #pragma omp parallel for schedule(dynamic, 1) num_threads(n->threads) \
        if(count > 1 && n->rows > BLOCK)
#endif
    for (int i = 0; i < count; i++) job(data, i, scratch_here(n));
}

int net_matrices(layer *l, matrix *list[LAYER_MATRICES]) {
    matrix *const all[] = { &l->y, &l->x, &l->gate_x, &l->gate_a, &l->q, &l->k, &l->v,
                            &l->out, &l->gate, &l->up, &l->down };
    int count = 0;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (all[i]->weight) list[count++] = all[i];
    return count;
}

int net_kv_heads(const griffin_config *g, int kind) {
    return NET_LETTERS[kind] == 'h' ? g->heads : g->kv_heads;
}

int net_state_row(const griffin_config *g) { return net_rounded(g->head_dim, WIDEST); }

size_t net_head_state(const griffin_config *g) {
    return (size_t)g->head_dim * (size_t)net_state_row(g);
}
