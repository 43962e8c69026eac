#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <cuda_runtime_api.h>

#include "gated_norm.cuh"
// clang-format off: after the kernels
#include "launch_around.cuh"
// clang-format on

namespace selective_scan::cuda {
namespace {

template <typename T, typename P>
cudaError_t launch(const NormTask<T, P>& task, bool backward,
                   cudaStream_t stream) {
  auto kernel = gated_norm_kernel<T, P, false>;
  if (backward) {
    kernel = task.channels_last ? gated_norm_backward_kernel<T, P, true>
                                : gated_norm_backward_kernel<T, P, false>;
  } else if (task.channels_last) {
    kernel = gated_norm_kernel<T, P, true>;
  }
  return launch_around(kernel, task, norm_launch(task, backward), stream);
}

}  // namespace

template <typename T, typename P>
cudaError_t plan_gated_norm(NormTask<T, P>& task, bool backward) {
  int room = 0;
  const cudaError_t error = shared_memory_of_device(&room);
  fit_gated_norm(task, backward, room);
  return error;
}

template <typename T, typename P>
cudaError_t launch_gated_norm(const NormTask<T, P>& task,
                              cudaStream_t stream) {
  return launch(task, false, stream);
}

template <typename T, typename P>
cudaError_t launch_gated_norm_backward(const NormTask<T, P>& task,
                                       cudaStream_t stream) {
  return launch(task, true, stream);
}

template <typename P>
cudaError_t launch_sum(const SumTask<P>& task, cudaStream_t stream) {
  return launch_around(sum_rows_kernel<P>, task, sum_launch(task), stream);
}

#define SCAN_INSTANCE(T, P)                                              \
  template cudaError_t plan_gated_norm<T, P>(NormTask<T, P>&, bool);     \
  template cudaError_t launch_gated_norm<T, P>(const NormTask<T, P>&,    \
                                               cudaStream_t);            \
  template cudaError_t launch_gated_norm_backward<T, P>(                 \
      const NormTask<T, P>&, cudaStream_t)
SCAN_INSTANCE(float, float);
SCAN_INSTANCE(c10::Half, float);
SCAN_INSTANCE(c10::BFloat16, float);
SCAN_INSTANCE(double, double);
#undef SCAN_INSTANCE
template cudaError_t launch_sum<float>(const SumTask<float>&, cudaStream_t);
template cudaError_t launch_sum<double>(const SumTask<double>&, cudaStream_t);

}  // namespace selective_scan::cuda
