// What the kernels around the scan share. Nothing of PyTorch is used here, so
// that a host compiler can build them against an emulation of threads.
#pragma once

#include "around.h"

#if defined(__CUDACC__) && !defined(SCAN_SHARED_MEMORY)
// One untyped array serves every instance of the kernels.
#define SCAN_SHARED_MEMORY(type, name)                        \
  extern __shared__ __align__(16) unsigned char raw_##name[]; \
  type* const name = reinterpret_cast<type*>(raw_##name)
#endif

namespace selective_scan::cuda {

constexpr unsigned kWholeWarp = 0xffffffffu;

// In a fixed order: a block has 32 columns, a warp every 32nd row.
constexpr int kSumWarps = 32;

template <typename P>
Launch sum_launch(const SumTask<P>& task) {
  return {ceil_div(task.columns, 32), 32 * kSumWarps,
          static_cast<int>(sizeof(P)) * 32 * kSumWarps};
}

template <typename P>
__global__ void __launch_bounds__(32 * kSumWarps)
    sum_rows_kernel(SumTask<P> task) {
  SCAN_SHARED_MEMORY(P, sums);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int column = static_cast<int>(blockIdx.x) * 32 + lane;
  P sum = 0;
  if (column < task.columns) {
    for (int r = warp; r < task.rows; r += kSumWarps) {
      sum += task.from[static_cast<int64_t>(r) * task.columns + column];
    }
  }
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (warp > 0 || column >= task.columns) return;
  for (int w = 1; w < kSumWarps; ++w) sum += sums[w * 32 + lane];
  if (column < task.split) {
    task.to[column] = sum;
  } else {
    task.rest[column - task.split] = sum;
  }
}

}  // namespace selective_scan::cuda
