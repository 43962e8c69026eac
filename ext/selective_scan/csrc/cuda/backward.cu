#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include "kernel_attributes.h"
#include "launch.h"
#include "scan_kernels.cuh"

namespace selective_scan::cuda {
namespace {

template <typename T, typename P, typename L>
cudaError_t launch(Operands<T, P> operands, const Gradients<T, P>& gradients,
                   cudaStream_t stream) {
  const ScanShape& shape = operands.shape;
  operands.staged_rows = staged_rows<P, L>(shape);
  constexpr auto kernel = backward_kernel<T, P, L>;
  const auto bytes =
      static_cast<int>(sizeof(P) * L::shared(2, operands.staged_rows));
  const cudaError_t error = allow_shared_memory<kernel>(
      static_cast<int>(sizeof(P) * L::shared(2, kStagedRows<P, L>)));
  if (error != cudaSuccess) return error;
  const auto blocks = static_cast<unsigned>(shape.batch * L::blocks(shape));
  kernel<<<blocks, kThreads, bytes, stream>>>(operands, gradients);
  return cudaGetLastError();
}

}  // namespace

template <typename T, typename P>
cudaError_t launch_backward(const Operands<T, P>& operands,
                            const Gradients<T, P>& gradients,
                            cudaStream_t stream) {
  const int64_t length = operands.shape.length;
  if (length <= ShortLayout::kChunk) {
    return launch<T, P, ShortLayout>(operands, gradients, stream);
  }
  if constexpr (sizeof(P) < sizeof(double)) {
    if (length > MiddleLayout::kChunk) {
      return launch<T, P, LongLayout>(operands, gradients, stream);
    }
  }
  return launch<T, P, MiddleLayout>(operands, gradients, stream);
}

#define SCAN_INSTANCE(T, P)                   \
  template cudaError_t launch_backward<T, P>( \
      const Operands<T, P>&, const Gradients<T, P>&, cudaStream_t)
SCAN_INSTANCE(float, float);
SCAN_INSTANCE(c10::Half, float);
SCAN_INSTANCE(c10::BFloat16, float);
SCAN_INSTANCE(double, double);
#undef SCAN_INSTANCE

}  // namespace selective_scan::cuda
