// Kernels on maps as functions of tensors, for operators of other folders.
#pragma once

#include <ATen/core/Tensor.h>

namespace selective_scan {

// Haar transform, depthwise filters and the inverse transform of a float32 map
// (batch, channels, height, width), by a weight (side, side, 4, channels padded
// to whole blocks). Adjacent channels are read in place. Gives channels_last.
at::Tensor packed_wavelet_conv2d(const at::Tensor& x,
                                 const at::Tensor& weight);

// layer_norm(x) * weight + bias, times silu(z), of float32 tokens (batch,
// length, channels), contiguous. Adjacent channels are read in place.
at::Tensor gated_norm_of_tokens(const at::Tensor& x, const at::Tensor& z,
                                const at::Tensor& weight,
                                const at::Tensor& bias, double eps);

}  // namespace selective_scan
