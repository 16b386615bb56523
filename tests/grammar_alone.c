/* grammar_alone.c - griffin_grammar.h where no implementation of griffin.h is: make check-all compiles
 * it as C99 and as C++11, with all warnings, by gcc and clang. */

#include "griffin.h"
#define GRIFFIN_GRAMMAR_IMPLEMENTATION
#include "tools/griffin_grammar.h"
