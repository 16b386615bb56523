/* engine.c - the library, compiled once for all commands. */

#define GRIFFIN_IMPLEMENTATION
#include "../../griffin.h"
