#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <cuda_runtime_api.h>

#include "wavelet.cuh"
// clang-format off: after the kernels
#include "launch_around.cuh"
// clang-format on

namespace selective_scan::cuda {
namespace {

template <typename T, typename P>
cudaError_t launch(const WaveletTask<T, P>& task, bool gradient,
                   cudaStream_t stream) {
  auto kernel = gradient ? plain_wavelet_gradient_kernel<T, P>
                         : plain_wavelet_kernel<T, P>;
  if constexpr (sizeof(P) == sizeof(float)) {
    if (task.side == 3) {
      kernel = gradient ? wavelet_gradient_kernel<T, P, 3>
                        : wavelet_kernel<T, P, 3>;
    } else if (task.side == 5) {
      kernel = gradient ? wavelet_gradient_kernel<T, P, 5>
                        : wavelet_kernel<T, P, 5>;
    } else if (task.side == 7) {
      kernel = gradient ? wavelet_gradient_kernel<T, P, 7>
                        : wavelet_kernel<T, P, 7>;
    }
  }
  return launch_around(kernel, task, wavelet_launch(task, gradient), stream);
}

}  // namespace

template <typename T, typename P>
cudaError_t plan_wavelet(WaveletTask<T, P>& task, bool gradient) {
  int room = 0;
  const cudaError_t error = shared_memory_of_device(&room);
  fit_wavelet(task, gradient, room);
  return error;
}

template <typename T, typename P>
cudaError_t launch_wavelet(const WaveletTask<T, P>& task,
                           cudaStream_t stream) {
  return launch(task, false, stream);
}

template <typename T, typename P>
cudaError_t launch_wavelet_gradient(const WaveletTask<T, P>& task,
                                    cudaStream_t stream) {
  return launch(task, true, stream);
}

#define SCAN_INSTANCE(T, P)                                                  \
  template cudaError_t plan_wavelet<T, P>(WaveletTask<T, P>&, bool);         \
  template cudaError_t launch_wavelet<T, P>(const WaveletTask<T, P>&,        \
                                            cudaStream_t);                   \
  template cudaError_t launch_wavelet_gradient<T, P>(                        \
      const WaveletTask<T, P>&, cudaStream_t)
SCAN_INSTANCE(float, float);
SCAN_INSTANCE(c10::Half, float);
SCAN_INSTANCE(c10::BFloat16, float);
SCAN_INSTANCE(double, double);
#undef SCAN_INSTANCE

}  // namespace selective_scan::cuda
