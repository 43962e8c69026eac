// The kernels' host side: explicit instances live in the .cu files, which
// include no more of PyTorch than its 16-bit types.
#pragma once

#include <cuda_runtime_api.h>

#include "layout.h"

namespace selective_scan::cuda {

template <typename T, typename P>
cudaError_t launch_forward(const Operands<T, P>& operands,
                           cudaStream_t stream);

template <typename T, typename P>
cudaError_t launch_backward(const Operands<T, P>& operands,
                            const Gradients<T, P>& gradients,
                            cudaStream_t stream);

}  // namespace selective_scan::cuda
