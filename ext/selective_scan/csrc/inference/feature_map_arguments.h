// What the operators on maps ask of their arguments, and make of them.
#pragma once

#include <string>
#include <vector>

#include "../common/operands.h"
#include "feature_map_kernels.h"

namespace selective_scan {

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

inline at::Tensor empty_map(const at::Tensor& x, at::IntArrayRef sizes) {
  return at::empty(sizes, x.options(), at::MemoryFormat::ChannelsLast);
}

// Memory of tensors that an operator made, for as long as it runs.
struct Owners {
  std::vector<at::Tensor> tensors;

  const float* keep(const at::Tensor& tensor) {
    tensors.push_back(tensor);
    return tensor.const_data_ptr<float>();
  }
  const float* parameter(const OptionalTensor& tensor, const char* name,
                         int64_t size) {
    if (!tensor.has_value()) return nullptr;
    check_float(*tensor, name);
    TORCH_CHECK_VALUE(tensor->dim() == 1 && tensor->size(0) == size, name,
                      " must have the ", size, " channels of weight, got ",
                      tensor->sizes());
    return keep(tensor->contiguous());
  }
  // A map to add to one of the given sizes.
  const float* summand(const OptionalTensor& add, at::IntArrayRef sizes) {
    if (!add.has_value()) return nullptr;
    check_float(*add, "add");
    TORCH_CHECK_VALUE(add->sizes() == sizes, "add must have the shape ", sizes,
                      " of the result, got ", add->sizes());
    return keep(add->contiguous(at::MemoryFormat::ChannelsLast));
  }
};

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
