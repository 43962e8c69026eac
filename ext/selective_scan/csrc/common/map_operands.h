// Argument checks of the operators on maps around the scan, for CPU and CUDA.
#pragma once

#include <cmath>

#include "operands.h"

namespace selective_scan {

// The side of the filters.
inline int64_t check_wavelet(const at::Tensor& x, const at::Tensor& weight) {
  check_input("x", x, 4, "(batch, channels, height, width)");
  const int64_t bands = 4 * x.size(1);
  TORCH_CHECK_VALUE(weight.dim() == 4 && weight.size(0) == bands &&
                        weight.size(1) == 1 &&
                        weight.size(2) == weight.size(3) &&
                        weight.size(2) % 2 == 1,
                    "weight must have the shape (4 * channels, 1, side, side) "
                    "with 4 * channels = ",
                    bands, " and an odd side, got ", weight.sizes());
  check_like("weight", weight, x, state_type(x.scalar_type()));
  return weight.size(2);
}

inline void check_gated_norm(const at::Tensor& x, const at::Tensor& z,
                             const at::Tensor& weight, const at::Tensor& bias,
                             double eps) {
  check_input("x", x, 3, "(batch, channels, length)");
  check_alike("z", z, x);
  check_parameter("weight", weight, x, {x.size(1)}, "(channels,)");
  check_parameter("bias", bias, x, {x.size(1)}, "(channels,)");
  TORCH_CHECK_VALUE(std::isfinite(eps) && eps >= 0,
                    "eps must be 0 or a positive number, got ", eps);
}

// Whether the channels of (batch, channels, ...) lie side by side, and the
// cells do not.
inline bool adjacent_channels(const at::Tensor& x) {
  return x.stride(1) == 1 && x.stride(-1) != 1;
}

// A new dense map of the same shape in the same one of the two layouts.
inline at::Tensor empty_like_map(const at::Tensor& x) {
  if (x.dim() == 3) return empty_like_layout(x);
  return at::empty(x.sizes(), x.options(),
                   adjacent_channels(x) ? at::MemoryFormat::ChannelsLast
                                        : at::MemoryFormat::Contiguous);
}

}  // namespace selective_scan
