// Stands in for PyTorch's header: one device, of a size that the tests choose.
#pragma once

#include <c10/core/Device.h>
#include <c10/util/Exception.h>

#define C10_CUDA_CHECK(call) call

enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrMaxSharedMemoryPerBlockOptin,
};
extern "C" {
inline int device_attributes[] = {132, 232448};  // of an H100
}

inline void cudaGetDevice(int*) {}
inline void cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) {
  *value = device_attributes[which];
}

namespace c10::cuda {
struct CUDAGuard {
  explicit CUDAGuard(Device) {}
};
}  // namespace c10::cuda
