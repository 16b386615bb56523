/* bf16.c - the arithmetic of training for AVX-512 with products of bf16, see pass.h. */

#include "model.h"

#ifdef NET_X86

#include <immintrin.h>

#define NET_MATH   net_bf16
#define NET_VECTOR 64
#define NET_ROWS   12
#define NET_BF16

#ifdef __clang__
  #pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bf16,fma"))), \
                               apply_to = function)
#else
  #pragma GCC target("avx512f,avx512dq,avx512bf16,fma,prefer-vector-width=512")
#endif
#include "pass.h"
#ifdef __clang__
  #pragma clang attribute pop
#endif

#endif
