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
    int r = l->recurrent, count = 0;
    list[count++] = r ? &l->y : &l->q;
    list[count++] = r ? &l->x : &l->k;
    list[count++] = r ? &l->gate_x : &l->v;
    if (r) list[count++] = &l->gate_a;
    list[count++] = &l->out;
    list[count++] = &l->gate;
    list[count++] = &l->up;
    list[count++] = &l->down;
    return count;
}
