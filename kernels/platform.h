// The few operations whose bits must agree on host and device.
//
// Every function here is one correctly rounded IEEE operation (or a bit cast), so code written with
// them gives the same bits on any vector width and on CUDA, provided that the compiler is told not
// to contract a*b+c by itself (-ffp-contract=off, nvcc -fmad=false).
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define TR_HD __host__ __device__ __forceinline__
// Stands before a TR_HD template that calls a function argument, which may be for either side.
#define TR_CALLS_ARGUMENT _Pragma("nv_exec_check_disable")
#else
#define TR_HD inline __attribute__((always_inline))
#define TR_CALLS_ARGUMENT
#endif

namespace topreach::kernels {

TR_HD float fused(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
  return __fmaf_rn(a, b, c);
#else
  return __builtin_fmaf(a, b, c);
#endif
}

TR_HD double fused(double a, double b, double c) {
#if defined(__CUDA_ARCH__)
  return __fma_rn(a, b, c);
#else
  return __builtin_fma(a, b, c);
#endif
}

TR_HD float square_root(float a) {
#if defined(__CUDA_ARCH__)
  return __fsqrt_rn(a);
#else
  return __builtin_sqrtf(a);
#endif
}

TR_HD float quotient(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fdiv_rn(a, b);
#else
  return a / b;
#endif
}

TR_HD uint32_t bits_of(float a) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(a);
#else
  return __builtin_bit_cast(uint32_t, a);
#endif
}

TR_HD float float_of(uint32_t a) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(a);
#else
  return __builtin_bit_cast(float, a);
#endif
}

}  // namespace topreach::kernels
