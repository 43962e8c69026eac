// What the operators on maps ask of their arguments, and make of them.
#pragma once

#include <ATen/ATen.h>

#include <optional>
#include <string>
#include <vector>

#include "feature_map_kernels.h"

namespace selective_scan {

using OptionalTensor = std::optional<at::Tensor>;

inline void check_float(const at::Tensor& tensor, const char* name) {
  TORCH_CHECK_TYPE(tensor.scalar_type() == at::kFloat, name,
                   " must be float32, got ", tensor.scalar_type());
}

inline void check_map(const at::Tensor& x) {
  check_float(x, "x");
  TORCH_CHECK_VALUE(x.dim() == 4 && x.size(1) > 0,
                    "x must be (batch, channels, height, width), got ",
                    x.sizes());
}

// The map with adjacent channels: itself where it has them.
inline at::Tensor with_adjacent_channels(const at::Tensor& x) {
  return x.stride(1) == 1 ? x : x.contiguous(at::MemoryFormat::ChannelsLast);
}

inline cpu::MapView<const float> view_map(const at::Tensor& x) {
  return {x.const_data_ptr<float>(), x.stride(0), x.stride(2), x.stride(3)};
}

inline const float* parameter(const OptionalTensor& tensor, const char* name,
                       int64_t size, std::vector<at::Tensor>& owners) {
  if (!tensor.has_value()) return nullptr;
  check_float(*tensor, name);
  TORCH_CHECK_VALUE(tensor->dim() == 1 && tensor->size(0) == size, name,
                    " must have the ", size, " channels of weight, got ",
                    tensor->sizes());
  owners.push_back(tensor->contiguous());
  return owners.back().const_data_ptr<float>();
}

inline cpu::Activation activation_of(const std::string& name) {
  if (name == "relu") return cpu::Activation::kRelu;
  if (name == "silu") return cpu::Activation::kSilu;
  TORCH_CHECK_VALUE(name == "none",
                    "activation must be none, relu or silu, got ", name);
  return cpu::Activation::kNone;
}

}  // namespace selective_scan
