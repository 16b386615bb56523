/* engine.c - the library and its grammars, compiled once for all commands. */

#define GRIFFIN_IMPLEMENTATION
#include "../../griffin.h"
#define GRIFFIN_GRAMMAR_IMPLEMENTATION
#include "../griffin_grammar.h"
#include "engine.h"

uint64_t engine_checksum(const void *data, size_t size) {
    return grf_hash(GRF_HASH_START, data, size);
}
