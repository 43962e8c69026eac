// The host side of the bidirectional scan with one state.
#pragma once

#include "../common/operands.h"

namespace selective_scan::cuda {

// Whether the kernels of bidirectional.h take the scan: one state, no
// float64, offsets that 32 bits hold. The general kernel takes the others.
bool takes_bidirectional(const ScanShape& shape, const at::Tensor& u);

at::Tensor bidirectional_forward(const ScanShape& shape, const at::Tensor& u,
                                 const at::Tensor& proj,
                                 const at::Tensor& dt_proj,
                                 const at::Tensor& dt_bias,
                                 const at::Tensor& A, const at::Tensor& D);

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor,
           at::Tensor>
bidirectional_backward(const ScanShape& shape, const at::Tensor& grad,
                       const at::Tensor& u, const at::Tensor& proj,
                       const at::Tensor& dt_proj, const at::Tensor& dt_bias,
                       const at::Tensor& A, const at::Tensor& D);

}  // namespace selective_scan::cuda
