/* plain.c - the arithmetic of training for any processor, see pass.h. */

#include "model.h"

#define NET_MATH   net_plain
#define NET_VECTOR 16                       /* bytes; what SSE2 and NEON have, others imitate */
#define NET_ROWS   6                        /* 2 NET_ROWS + 3 vectors should fit the registers */

#include "pass.h"
