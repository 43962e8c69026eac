// Starts a kernel on the current stream, for the .cu files.
#pragma once

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

#include <atomic>
#include <cstdint>

namespace selective_scan::cuda {

template <auto kKernel, typename Operands>
void launch(dim3 grid, int threads, int64_t shared_bytes,
            const Operands& operands) {
  if (shared_bytes > 48 * 1024) {  // more has to be allowed, once a device
    static std::atomic<uint64_t> allowed{0};  // one bit per device
    int device = 0, most = 0;
    C10_CUDA_CHECK(cudaGetDevice(&device));
    const uint64_t bit = device < 64 ? uint64_t{1} << device : 0;
    if ((allowed.load(std::memory_order_relaxed) & bit) == 0) {
      C10_CUDA_CHECK(cudaDeviceGetAttribute(
          &most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
      C10_CUDA_CHECK(cudaFuncSetAttribute(
          kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most));
      allowed.fetch_or(bit, std::memory_order_relaxed);
    }
  }
  kKernel<<<grid, threads, shared_bytes, c10::cuda::getCurrentCUDAStream()>>>(
      operands);
  C10_CUDA_CHECK(cudaGetLastError());
}

}  // namespace selective_scan::cuda
