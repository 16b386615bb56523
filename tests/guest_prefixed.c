/* guest_prefixed.c - a copy under names of its own, with nothing but plain C in it. */

#define GRIFFIN_PREFIX prefixed_
#ifndef GRIFFIN_SCALAR_ONLY
  #define GRIFFIN_SCALAR_ONLY
#endif
#define GRIFFIN_NO_STDIO
#define GRIFFIN_IMPLEMENTATION
#include "guest.h"

int prefixed_answers(const void *file, size_t size, guest_answer *a);

int prefixed_answers(const void *file, size_t size, guest_answer *a) {
    return guest_answers(file, size, a);
}
