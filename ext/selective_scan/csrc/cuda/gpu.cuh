// What all operators on CUDA share, and take from the GPU; an emulation on
// the CPU replaces what __CUDACC__ guards.
#pragma once

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <c10/cuda/CUDAGuard.h>
#include <torch/library.h>

#include <algorithm>
#include <limits>
#include <tuple>
#include <type_traits>
#include <vector>

#include "../common/operands.h"

#if defined(__CUDACC__)
#include <c10/cuda/CUDAStream.h>
#include <c10/util/CallOnce.h>
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

// Without float64.
#define SCAN_DISPATCH_FLOAT(tensor, ...)                         \
  AT_DISPATCH_SWITCH((tensor).scalar_type(), "selective_scan",   \
                     AT_DISPATCH_CASE(at::kFloat, __VA_ARGS__)   \
                     AT_DISPATCH_CASE(at::kHalf, __VA_ARGS__)    \
                     AT_DISPATCH_CASE(at::kBFloat16, __VA_ARGS__))
#define SCAN_DISPATCH(tensor, ...)                                          \
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16,                 \
                                  (tensor).scalar_type(), "selective_scan", \
                                  __VA_ARGS__)

namespace selective_scan::cuda {

constexpr unsigned kWholeWarp = 0xffffffffu;
constexpr int64_t kLargestInt = std::numeric_limits<int>::max();

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

// Two values that are loaded as one.
template <typename T>
using Two = std::conditional_t<
    std::is_same_v<T, c10::Half>, __half2,
    std::conditional_t<std::is_same_v<T, c10::BFloat16>, __nv_bfloat162,
                       float2>>;

__device__ __forceinline__ float2 unpack(float2 x) { return x; }
__device__ __forceinline__ float2 unpack(__half2 x) {
  return __half22float2(x);
}
__device__ __forceinline__ float2 unpack(__nv_bfloat162 x) {
  return halves_of(x);
}
template <typename T>
__device__ __forceinline__ Two<T> pack(float2 x) {
  if constexpr (std::is_same_v<T, c10::Half>) {
    return __float22half2_rn(x);
  } else if constexpr (std::is_same_v<T, c10::BFloat16>) {
    return __float22bfloat162_rn(x);
  } else {
    return x;
  }
}

// The type of parameters and sums.
template <typename T>
using State = at::opmath_type<T>;

// Whether two neighbours along a dimension can be read at once.
inline bool is_paired(const at::Tensor& x, int64_t dim) {
  bool paired = x.stride(dim) == 1 && x.size(dim) % 2 == 0;
  for (int64_t d = 0; d < x.dim(); ++d) {
    paired = paired && (d == dim || x.stride(d) % 2 == 0);
  }
  const auto address = reinterpret_cast<uintptr_t>(x.const_data_ptr());
  return paired && address % (2 * x.element_size()) == 0;
}

// A tensor of any strides, in elements, the first one that of the batch.
// Offsets inside one batch element fit 32 bits.
template <typename T>
struct View {
  T* data;
  int64_t batch;
  int strides[3];
  bool paired;  // along the last dimension

  SCAN_HOST_DEVICE int offset(int i, int j, int k = 0) const {
    return i * strides[0] + j * strides[1] + k * strides[2];
  }
};

template <typename T>
View<T> view_of(const at::Tensor& x) {
  View<T> view{};
  if constexpr (std::is_const_v<T>) {
    view.data = x.const_data_ptr<std::remove_const_t<T>>();
  } else {
    view.data = x.mutable_data_ptr<T>();
  }
  view.batch = x.stride(0);
  for (int64_t d = 1; d < x.dim(); ++d) {
    view.strides[d - 1] = static_cast<int>(x.stride(d));
  }
  view.paired = is_paired(x, x.dim() - 1);
  return view;
}

inline bool has_short_offsets(const at::Tensor& x) {
  int64_t reach = 0;
  for (int64_t d = 1; d < x.dim(); ++d) reach += x.size(d) * x.stride(d);
  return reach <= kLargestInt;
}

// The tensor or a dense copy, as a view wants it.
inline at::Tensor with_short_offsets(const at::Tensor& x) {
  if (has_short_offsets(x)) return x;
  const auto dense = x.contiguous();
  TORCH_CHECK_VALUE(has_short_offsets(dense), "a batch element may have up to "
                    "2^31 values, got a tensor of the shape ", x.sizes());
  return dense;
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
// Blocks that keep the GPU busy.
inline int busy_blocks() {
  return 4 * device_attribute(cudaDevAttrMultiProcessorCount);
}

// An operator and its backward from a function that returns the result or,
// where it gets the result's gradient, those of the arguments.
template <auto kRun>
struct Operator;
template <typename Results, typename... Arguments,
          Results (*kRun)(const OptionalTensor&, Arguments...)>
struct Operator<kRun> {
  static at::Tensor forward(Arguments... arguments) {
    return std::get<0>(kRun(std::nullopt, arguments...));
  }
  static Results backward(const at::Tensor& grad, Arguments... arguments) {
    return kRun(grad, arguments...);
  }
};

#if defined(__CUDACC__)
// Starts a kernel on the current stream.
template <auto kKernel, typename Operands>
void launch(dim3 grid, int threads, int64_t shared_bytes,
            const Operands& operands) {
  // More than 48 KB of shared memory have to be allowed, once a device.
  static c10::once_flag allowed[C10_COMPILE_TIME_MAX_GPUS];
  c10::call_once(allowed[c10::cuda::current_device()], [] {
    C10_CUDA_CHECK(cudaFuncSetAttribute(
        kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
        shared_memory_of_block()));
  });
  kKernel<<<grid, threads, shared_bytes, c10::cuda::getCurrentCUDAStream()>>>(
      operands);
  C10_CUDA_CHECK(cudaGetLastError());
}
#endif

}  // namespace selective_scan::cuda
