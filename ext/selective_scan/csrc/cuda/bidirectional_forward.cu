#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "bidirectional_launch.h"
#include "gpu.cuh"
#include "kernel_attributes.h"
// After what the kernels take from the GPU.
#include "bidirectional_forward.cuh"

namespace selective_scan::cuda {

template <typename T, bool kChannelsLast>
__global__ void __launch_bounds__(kForwardThreads, 3)
    bidirectional_forward(const __grid_constant__ Bidirectional<T> g) {
  extern __shared__ __align__(16) float shared_memory[];
  forward_block<T, kChannelsLast>(g, shared_memory);
}

namespace {

template <typename T, bool kChannelsLast>
cudaError_t launch(Bidirectional<T> g, const Plan& plan, int shared,
                   cudaStream_t stream) {
  constexpr auto kernel = bidirectional_forward<T, kChannelsLast>;
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
cudaError_t launch_bidirectional_forward(const Bidirectional<T>& g,
                                         const Plan& plan, bool channels_last,
                                         int shared, cudaStream_t stream) {
  return channels_last ? launch<T, true>(g, plan, shared, stream)
                       : launch<T, false>(g, plan, shared, stream);
}

#define SCAN_INSTANCE(T)                                \
  template cudaError_t launch_bidirectional_forward<T>( \
      const Bidirectional<T>&, const Plan&, bool, int, cudaStream_t)
SCAN_INSTANCE(float);
SCAN_INSTANCE(__half);
SCAN_INSTANCE(__nv_bfloat16);
#undef SCAN_INSTANCE

}  // namespace selective_scan::cuda
