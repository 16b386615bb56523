/* probe.h - what the machine can do at this moment: how fast memory is read, and how many
 * products a second are possible. A speed means little without the limit measured beside it. */

#ifndef BENCH_PROBE_H
#define BENCH_PROBE_H

#include <stddef.h>

typedef struct probe_result {
    double rate;                            /* of all threads together, per second */
    double share;                           /* of the time that the unluckiest thread had a CPU */
} probe_result;

/* Instructions are named as griffin_info.kernels names them; a name that is not known here gives
 * plain C. */

/* Bytes: reads `bytes` of them in all, from the memory of `size` over and over if that is less.
 * Each thread reads one forward stream. */
probe_result probe_read(const char *instructions, const void *memory, size_t size, size_t bytes,
                        int threads);

/* Operations, a multiply-add being two: of floats, or of products of bytes summed in int32. */
typedef enum probe_kind { PROBE_F32, PROBE_INT8 } probe_kind;

probe_result probe_peak(const char *instructions, probe_kind kind, int threads);

#endif
