/* avx512.c - the arithmetic of training for AVX-512, see pass.h. */

#include "model.h"

#ifdef NET_X86

#define NET_MATH   net_avx512
#define NET_VECTOR 64
#define NET_ROWS   12

#ifdef __clang__
  #pragma clang attribute push(__attribute__((target("avx512f,avx512dq,fma"))), apply_to = function)
#else
  #pragma GCC target("avx512f,avx512dq,fma,prefer-vector-width=512")
#endif
#include "pass.h"
#ifdef __clang__
  #pragma clang attribute pop
#endif

#endif
