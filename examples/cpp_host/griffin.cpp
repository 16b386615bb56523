/* The library, compiled as C++ in a translation unit of its own. */

#define GRIFFIN_IMPLEMENTATION
#include "griffin.h"
