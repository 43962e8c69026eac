// Arithmetic that all scan kernels share, for GPUs and for the emulation.
#pragma once

#include <cstdint>

namespace selective_scan::cuda {

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
