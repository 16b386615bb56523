/* avx2.c - the arithmetic of training for AVX2, see pass.h. */

#include "model.h"

#ifdef NET_X86

#define NET_MATH   net_avx2
#define NET_VECTOR 32
#define NET_ROWS   6

#ifdef __clang__
  #pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
  #pragma GCC target("avx2,fma")
#endif
#include "pass.h"
#ifdef __clang__
  #pragma clang attribute pop
#endif

#endif
