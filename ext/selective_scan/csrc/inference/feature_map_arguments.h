// What the operators on maps ask of their arguments.
#pragma once

#include <string>

#include "../common/operands.h"
#include "feature_map_kernels.h"

namespace selective_scan {

inline void check_float(const at::Tensor& tensor, const char* name) {
  TORCH_CHECK_TYPE(tensor.scalar_type() == at::kFloat, name,
                   " must be float32, got ", tensor.scalar_type());
}

// The map with adjacent channels: itself where it has them.
inline at::Tensor with_adjacent_channels(const at::Tensor& x) {
  return x.stride(1) == 1 ? x : x.contiguous(at::MemoryFormat::ChannelsLast);
}

inline at::Tensor checked_map(const at::Tensor& x) {
  check_float(x, "x");
  TORCH_CHECK_VALUE(x.dim() == 4 && x.size(1) > 0,
                    "x must be (batch, channels, height, width), got ",
                    x.sizes());
  return with_adjacent_channels(x);
}

inline at::Tensor empty_map(const at::Tensor& x, at::IntArrayRef sizes) {
  return at::empty(sizes, x.options(), at::MemoryFormat::ChannelsLast);
}

// A value per channel, padded to those of a weight.
inline const float* checked_parameter(const OptionalTensor& tensor,
                                      const char* name, int64_t size) {
  if (!tensor.has_value()) return nullptr;
  check_float(*tensor, name);
  TORCH_CHECK_VALUE(
      tensor->is_contiguous() && tensor->sizes() == at::IntArrayRef(size),
      name, " must be contiguous, of the ", size, " channels of weight, got ",
      tensor->sizes());
  return tensor->const_data_ptr<float>();
}

// A map to add to one of the given sizes, dense as that one.
inline OptionalTensor checked_summand(const OptionalTensor& add,
                                      at::IntArrayRef sizes) {
  if (!add.has_value()) return add;
  check_float(*add, "add");
  TORCH_CHECK_VALUE(add->sizes() == sizes, "add must have the shape ", sizes,
                    " of the result, got ", add->sizes());
  return add->contiguous(at::MemoryFormat::ChannelsLast);
}

template <typename T>
cpu::MapView<T> view_of(const at::Tensor& map, T* data) {
  return {data, map.stride(0), map.stride(2), map.stride(3)};
}

inline cpu::Activation activation_of(const std::string& name) {
  if (name == "relu") return cpu::Activation::kRelu;
  if (name == "silu") return cpu::Activation::kSilu;
  TORCH_CHECK_VALUE(name == "none",
                    "activation must be none, relu or silu, got ", name);
  return cpu::Activation::kNone;
}

// The operator, for those that begin with such a filter.
at::Tensor depthwise_conv2d(const at::Tensor& x, const at::Tensor& weight,
                            const OptionalTensor& bias,
                            const std::string& activation,
                            const OptionalTensor& scale,
                            const OptionalTensor& shift);

}  // namespace selective_scan
