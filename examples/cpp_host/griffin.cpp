/* The library, compiled as C++11 in a translation unit of its own. */

#define GRIFFIN_IMPLEMENTATION
#include "../../griffin.h"
