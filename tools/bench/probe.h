/* probe.h - what the machine can do at this moment: how fast it reads memory, and how many
 * products it computes in a second. A speed is only meaningful beside the limit of that moment. */

#ifndef BENCH_PROBE_H
#define BENCH_PROBE_H

#include <stddef.h>

typedef struct probe_result {
    double rate;                            /* of all threads together, per second */
    double share;                           /* of its time that each thread had a CPU: the least */
} probe_result;

/* Instruction sets have the names of griffin_info.kernels. An unknown name means plain C. */

/* Bytes a second: reads `bytes` in all, more than once if `size` is less. Each thread reads its own
 * part of the memory from start to end. */
probe_result probe_read(const char *instructions, const void *memory, size_t size, size_t bytes,
                        int threads);

/* Operations a second, of floats or of bytes with sums in int32. A multiply-add counts as two. */
typedef enum probe_kind { PROBE_F32, PROBE_INT8 } probe_kind;

probe_result probe_peak(const char *instructions, probe_kind kind, int threads);

#endif
