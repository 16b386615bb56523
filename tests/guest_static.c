/* guest_static.c - a private copy, whose functions no other file sees. */

#define GRIFFIN_STATIC
#define GRIFFIN_NO_MMAP
#define GRIFFIN_IMPLEMENTATION
#include "guest.h"

int static_answers(const void *file, size_t size, guest_answer *a);

int static_answers(const void *file, size_t size, guest_answer *a) {
    return guest_answers(file, size, a);
}
