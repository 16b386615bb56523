/* engine.c - the library and its grammars, compiled once for all commands. */

#define GRIFFIN_IMPLEMENTATION
#include "../../griffin.h"
#define GRIFFIN_GRAMMAR_IMPLEMENTATION
#include "../griffin_grammar.h"
#include "engine.h"

uint64_t engine_checksum(const void *data, size_t size) {
    return grf_hash(GRF_HASH_START, data, size);
}

int engine_watch(griffin_context *c, void (*look)(const engine_rows *x, void *user), void *user) {
    int left = 1;
    while (left > 0) {
        const grf_op *op = c->model->ops + c->op;
        if (op->kind == GRF_OP_QUANTISE && c->chunk == 0) {
            engine_rows x;
            x.matrix = op[1].out[0].name;
            x.layer = op->layer;
            x.rows = op->wanted_rows_only ? c->wanted_rows : c->rows;
            x.width = op->width;
            x.stride = (int)c->model->layout.width[op->in[0]];
            x.at = c->buffer[op->in[0]];
            look(&x, user);
        }
        left = griffin_advance(c, 1);
    }
    return left;
}
