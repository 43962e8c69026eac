#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "bidirectional_launch.h"
#include "gpu.cuh"
#include "kernel_attributes.h"
// After what the kernels take from the GPU.
#include "bidirectional_backward.cuh"
#include "bidirectional_totals.cuh"

namespace selective_scan::cuda {

template <typename T, bool kChannelsLast>
__global__ void __launch_bounds__(kBackwardThreads)
    bidirectional_backward(const __grid_constant__ Bidirectional<T> g) {
  extern __shared__ __align__(16) float shared_memory[];
  backward_block<T, kChannelsLast>(g, shared_memory);
}

template <typename T>
__global__ void __launch_bounds__(kTotalThreads)
    bidirectional_totals(const __grid_constant__ Totals<T> g) {
  __shared__ float shared_memory[kTotalThreads];
  totals_block(g, shared_memory);
}

namespace {

template <typename T, bool kChannelsLast>
cudaError_t launch(Bidirectional<T> g, const Plan& plan, int shared,
                   cudaStream_t stream) {
  constexpr auto kernel = bidirectional_backward<T, kChannelsLast>;
  const cudaError_t error = allow_shared_memory<kernel>(shared);
  if (error != cudaSuccess) return error;
  const dim3 grid(plan.blocks, plan.chunks, g.batch);
  if (plan.chunks > 1) {
    g.summing = true;
    kernel<<<grid, plan.threads, plan.shared, stream>>>(g);
    g.summing = false;
  }
  kernel<<<grid, plan.threads, plan.shared, stream>>>(g);
  return cudaGetLastError();
}

}  // namespace

template <typename T>
cudaError_t launch_bidirectional_backward(const Bidirectional<T>& g,
                                          const Plan& plan, bool channels_last,
                                          int shared, cudaStream_t stream) {
  return channels_last ? launch<T, true>(g, plan, shared, stream)
                       : launch<T, false>(g, plan, shared, stream);
}

template <typename T>
cudaError_t launch_bidirectional_totals(const Totals<T>& g,
                                        cudaStream_t stream) {
  bidirectional_totals<T><<<totals_grid(g), kTotalThreads, 0, stream>>>(g);
  return cudaGetLastError();
}

#define SCAN_INSTANCE(T)                                                \
  template cudaError_t launch_bidirectional_backward<T>(                \
      const Bidirectional<T>&, const Plan&, bool, int, cudaStream_t);   \
  template cudaError_t launch_bidirectional_totals<T>(const Totals<T>&, \
                                                      cudaStream_t)
SCAN_INSTANCE(float);
SCAN_INSTANCE(__half);
SCAN_INSTANCE(__nv_bfloat16);
#undef SCAN_INSTANCE

}  // namespace selective_scan::cuda
