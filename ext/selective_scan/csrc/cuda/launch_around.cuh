// What the launches around the scan share.
#pragma once

#include <cuda_runtime_api.h>

#include "around.h"

namespace selective_scan::cuda {

// Room that a block may have, on the GPU in use.
inline cudaError_t shared_memory_of_device(int* bytes) {
  int device = 0;
  const cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  return cudaDeviceGetAttribute(
      bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
}

template <typename Task>
cudaError_t launch_around(void (*kernel)(Task), const Task& task,
                          const Launch& shape, cudaStream_t stream) {
  if (shape.bytes > 48 * 1024) {  // what every kernel may have unasked
    const cudaError_t error = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shape.bytes);
    if (error != cudaSuccess) return error;
  }
  kernel<<<static_cast<unsigned>(shape.blocks), shape.threads, shape.bytes,
           stream>>>(task);
  return cudaGetLastError();
}

}  // namespace selective_scan::cuda
