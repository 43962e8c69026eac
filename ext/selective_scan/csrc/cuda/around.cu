#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <cuda_runtime_api.h>

#include "gated_norm.cuh"
#include "wavelet.cuh"

namespace selective_scan::cuda {
namespace {

// Shared memory that a block may have, on the GPU in use.
cudaError_t find_room(int* bytes) {
  int device = 0;
  const cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  return cudaDeviceGetAttribute(
      bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
}

template <typename Task>
cudaError_t launch(void (*kernel)(Task), const Task& task, const Launch& shape,
                   cudaStream_t stream) {
  if (shape.bytes > 48 * 1024) {  // what every kernel may have unasked
    const cudaError_t error = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shape.bytes);
    if (error != cudaSuccess) return error;
  }
  kernel<<<static_cast<unsigned>(shape.blocks), shape.threads, shape.bytes,
           stream>>>(task);
  return cudaGetLastError();
}

}  // namespace

template <typename T>
cudaError_t plan_wavelet(WaveletTask<T, float>& task, bool gradient) {
  int room = 0;
  const cudaError_t error = find_room(&room);
  fit_wavelet(task, gradient, room);
  return error;
}

template <typename T>
cudaError_t launch_wavelet(const WaveletTask<T, float>& task, bool gradient,
                           cudaStream_t stream) {
  auto kernel =
      gradient ? wavelet_gradient_kernel<T, 7> : wavelet_kernel<T, 7>;
  if (task.side == 3) {
    kernel = gradient ? wavelet_gradient_kernel<T, 3> : wavelet_kernel<T, 3>;
  } else if (task.side == 5) {
    kernel = gradient ? wavelet_gradient_kernel<T, 5> : wavelet_kernel<T, 5>;
  }
  return launch(kernel, task, wavelet_launch(task, gradient), stream);
}

template <typename T, typename P>
cudaError_t plan_gated_norm(NormTask<T, P>& task, bool backward) {
  int room = 0;
  const cudaError_t error = find_room(&room);
  fit_gated_norm(task, backward, room);
  return error;
}

template <typename T, typename P>
cudaError_t launch_gated_norm(const NormTask<T, P>& task, bool backward,
                              cudaStream_t stream) {
  auto kernel = task.channels_last ? gated_norm_kernel<T, P, true>
                                   : gated_norm_kernel<T, P, false>;
  if (backward) {
    kernel = task.channels_last ? gated_norm_backward_kernel<T, P, true>
                                : gated_norm_backward_kernel<T, P, false>;
  }
  return launch(kernel, task, norm_launch(task, backward), stream);
}

template <typename P>
cudaError_t launch_sum(const SumTask<P>& task, cudaStream_t stream) {
  return launch(sum_rows_kernel<P>, task, sum_launch(task), stream);
}

#define WAVELET_INSTANCE(T)                                               \
  template cudaError_t plan_wavelet(WaveletTask<T, float>&, bool);        \
  template cudaError_t launch_wavelet(const WaveletTask<T, float>&, bool, \
                                      cudaStream_t)
#define NORM_INSTANCE(T, P)                                               \
  template cudaError_t plan_gated_norm(NormTask<T, P>&, bool);            \
  template cudaError_t launch_gated_norm(const NormTask<T, P>&, bool,     \
                                         cudaStream_t)
WAVELET_INSTANCE(float);
WAVELET_INSTANCE(c10::Half);
WAVELET_INSTANCE(c10::BFloat16);
NORM_INSTANCE(float, float);
NORM_INSTANCE(c10::Half, float);
NORM_INSTANCE(c10::BFloat16, float);
NORM_INSTANCE(double, double);
#undef WAVELET_INSTANCE
#undef NORM_INSTANCE
template cudaError_t launch_sum(const SumTask<float>&, cudaStream_t);
template cudaError_t launch_sum(const SumTask<double>&, cudaStream_t);

}  // namespace selective_scan::cuda
