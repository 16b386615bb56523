/* engine.h - what the tools need of the library beside its API. */

#ifndef ENGINE_H
#define ENGINE_H

#include <stddef.h>
#include <stdint.h>

/* The checksum of saved states, see >>state in griffin.h. */
uint64_t engine_checksum(const void *data, size_t size);

#endif
