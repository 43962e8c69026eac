// The launchers of the bidirectional kernels, one pass each. `shared` is what
// a block of the device may have, in bytes.
#pragma once

#include <cuda_runtime_api.h>

#include "bidirectional_totals.h"

namespace selective_scan::cuda {

template <typename T>
cudaError_t launch_bidirectional_forward(const Bidirectional<T>& operands,
                                         const Plan& plan, bool channels_last,
                                         int shared, cudaStream_t stream);

template <typename T>
cudaError_t launch_bidirectional_backward(const Bidirectional<T>& operands,
                                          const Plan& plan, bool channels_last,
                                          int shared, cudaStream_t stream);

template <typename T>
cudaError_t launch_bidirectional_totals(const Totals<T>& totals,
                                        cudaStream_t stream);

}  // namespace selective_scan::cuda
