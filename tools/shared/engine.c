/* engine.c - the library and its grammars, compiled once for all commands. */

#define GRIFFIN_IMPLEMENTATION
#include "../../griffin.h"
#define GRIFFIN_GRAMMAR_IMPLEMENTATION
#include "../griffin_grammar.h"
