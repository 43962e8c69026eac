// What the host side of all operators on CUDA shares.
#pragma once

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAGuard.h>

#include <limits>

namespace selective_scan {

// The type of parameters and sums.
template <typename T>
using State = at::opmath_type<T>;

#define SCAN_DISPATCH(tensor, ...)                                          \
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16,                 \
                                  (tensor).scalar_type(), "selective_scan", \
                                  __VA_ARGS__)
// Without float64.
#define SCAN_DISPATCH_FLOAT(tensor, ...)                         \
  AT_DISPATCH_SWITCH((tensor).scalar_type(), "selective_scan",   \
                     AT_DISPATCH_CASE(at::kFloat, __VA_ARGS__)   \
                     AT_DISPATCH_CASE(at::kHalf, __VA_ARGS__)    \
                     AT_DISPATCH_CASE(at::kBFloat16, __VA_ARGS__))

constexpr int64_t kLargestInt = std::numeric_limits<int>::max();

// Offsets inside one batch element fit 32 bits.
inline bool has_short_offsets(const at::Tensor& x) {
  int64_t reach = 0;
  for (int64_t d = 1; d < x.dim(); ++d) reach += x.size(d) * x.stride(d);
  return reach <= kLargestInt;
}

inline int device_attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  C10_CUDA_CHECK(cudaGetDevice(&device));
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&value, attribute, device));
  return value;
}
// Bytes that a block may have.
inline int shared_memory_of_block() {
  return device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
}

}  // namespace selective_scan
