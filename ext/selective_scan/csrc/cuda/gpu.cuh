// What the kernels take from the GPU, and the emulation replaces.
#pragma once

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
