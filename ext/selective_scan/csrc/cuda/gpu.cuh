// What all kernels take from the GPU, which the emulation replaces, and share.
// Nothing of PyTorch but its 16-bit types is used here, so that a host
// compiler can build the kernels against an emulation of threads.
#pragma once

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define SCAN_GRID_CONSTANT __grid_constant__
// One untyped array serves every instance of the kernels.
#define SCAN_SHARED_MEMORY(type, name)                        \
  extern __shared__ __align__(16) unsigned char raw_##name[]; \
  type* const name = reinterpret_cast<type*>(raw_##name)

namespace selective_scan::cuda {

// 2 ulp; denormal results are 0.
__device__ __forceinline__ float exp2_of(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// 1 ulp.
__device__ __forceinline__ float reciprocal_of(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Without registers of 16 bits, as __bfloat1622float2 has them.
__device__ __forceinline__ float2 halves_of(__nv_bfloat162 x) {
  const unsigned bits = *reinterpret_cast<const unsigned*>(&x);
  return make_float2(__uint_as_float(bits << 16),
                     __uint_as_float(bits & 0xffff0000u));
}

// threadIdx.x, read again wherever it is asked for: what is made of it need
// not stay in registers in between.
__device__ __forceinline__ unsigned thread_index() {
  unsigned x;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(x));
  return x;
}

}  // namespace selective_scan::cuda
#endif

namespace selective_scan::cuda {

constexpr unsigned kWholeWarp = 0xffffffffu;

// log(1 + t) on [0, 1], 3e-8 relative.
__device__ __forceinline__ float log1p_of(float t) {
  float p = 5.2326899e-3f;
  p = fmaf(p, t, -2.9505219e-2f);
  p = fmaf(p, t, 7.8225918e-2f);
  p = fmaf(p, t, -1.36632427e-1f);
  p = fmaf(p, t, 1.9106005e-1f);
  p = fmaf(p, t, -2.4842982e-1f);
  p = fmaf(p, t, 3.33190978e-1f);
  p = fmaf(p, t, -4.99994934e-1f);
  return t * fmaf(p, t, 0.99999994f);
}
__device__ __forceinline__ double log1p_of(double t) { return log1p(t); }

}  // namespace selective_scan::cuda
