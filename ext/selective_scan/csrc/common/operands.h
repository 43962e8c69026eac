// Argument checks, and the operands of a scan as the kernels want them.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <initializer_list>
#include <optional>

#include "scan_shape.h"

namespace selective_scan {

using OptionalTensor = std::optional<at::Tensor>;

// float32 parameters and states, float64 ones beside float64 inputs.
inline at::ScalarType state_type(at::ScalarType input) {
  return input == at::kDouble ? at::kDouble : at::kFloat;
}

inline void check_sizes(const char* name, const at::Tensor& tensor,
                        std::initializer_list<int64_t> wanted,
                        const char* meaning) {
  TORCH_CHECK_VALUE(tensor.sizes().equals(at::IntArrayRef(wanted)), name,
                    " must have the shape ", meaning, " = ",
                    at::IntArrayRef(wanted), ", got ", tensor.sizes());
}

inline void check_like(const char* name, const at::Tensor& tensor,
                       const at::Tensor& u, at::ScalarType wanted) {
  TORCH_CHECK_VALUE(tensor.device() == u.device(), name, " is on ",
                    tensor.device(), " and u on ", u.device(),
                    "; all tensors must share one device");
  TORCH_CHECK_TYPE(tensor.scalar_type() == wanted, name,
                   " must have the dtype ", wanted, " where u has ",
                   u.scalar_type(), ", got ", tensor.scalar_type());
}

inline void check_input(const at::Tensor& u) {
  const auto type = u.scalar_type();
  TORCH_CHECK_TYPE(type == at::kFloat || type == at::kHalf ||
                       type == at::kBFloat16 || type == at::kDouble,
                   "u must be float32, float16, bfloat16 or float64, got ",
                   type);
  TORCH_CHECK_VALUE(u.dim() == 3,
                    "u must have the shape (batch, channels, length), got ",
                    u.sizes());
}

inline void check_state(int64_t state) {
  TORCH_CHECK_VALUE(state >= 1 && state <= kMaxState, "A must have 1 to ",
                    kMaxState, " states, got ", state);
}

inline ScanShape check_selective_scan(
    const at::Tensor& u, const at::Tensor& delta, const at::Tensor& A,
    const at::Tensor& B, const at::Tensor& C, const OptionalTensor& D,
    const OptionalTensor& delta_bias, bool delta_softplus, bool reverse) {
  check_input(u);
  TORCH_CHECK_VALUE(A.dim() == 2 && A.size(0) == u.size(1),
                    "A must have the shape (dim, state) with dim = ",
                    u.size(1), ", got ", A.sizes());
  TORCH_CHECK_VALUE(B.dim() == 4,
                    "B must have the shape (batch, groups, state, length), "
                    "got ",
                    B.sizes());
  ScanShape shape;
  shape.batch = u.size(0);
  shape.channels = u.size(1);
  shape.length = u.size(2);
  shape.state = A.size(1);
  shape.groups = B.size(1);
  shape.softplus = delta_softplus;
  shape.reverse = reverse;
  check_state(shape.state);
  TORCH_CHECK_VALUE(shape.groups >= 1 && shape.channels % shape.groups == 0,
                    "B has ", shape.groups,
                    " groups, which must divide dim = ", shape.channels);
  check_sizes("delta", delta, {shape.batch, shape.channels, shape.length},
              "(batch, dim, length)");
  const auto rows = {shape.batch, shape.groups, shape.state, shape.length};
  check_sizes("B", B, rows, "(batch, groups, state, length)");
  check_sizes("C", C, rows, "(batch, groups, state, length)");
  const auto type = u.scalar_type();
  check_like("delta", delta, u, type);
  check_like("B", B, u, type);
  check_like("C", C, u, type);
  check_like("A", A, u, state_type(type));
  if (D.has_value()) {
    check_sizes("D", *D, {shape.channels}, "(dim,)");
    check_like("D", *D, u, state_type(type));
  }
  if (delta_bias.has_value()) {
    check_sizes("delta_bias", *delta_bias, {shape.channels}, "(dim,)");
    check_like("delta_bias", *delta_bias, u, state_type(type));
  }
  return shape;
}

inline ScanShape check_bidirectional_scan(
    const at::Tensor& u, const at::Tensor& proj, const at::Tensor& dt_proj,
    const at::Tensor& dt_bias, const at::Tensor& A, const at::Tensor& D) {
  check_input(u);
  TORCH_CHECK_VALUE(dt_proj.dim() == 3 &&
                        (dt_proj.size(0) == 1 || dt_proj.size(0) == 2) &&
                        dt_proj.size(1) == u.size(1) && dt_proj.size(2) >= 1,
                    "dt_proj must have the shape (directions, inner, rank) "
                    "with 1 or 2 directions, inner = ",
                    u.size(1), " and rank >= 1, got ", dt_proj.sizes());
  TORCH_CHECK_VALUE(A.dim() == 3,
                    "A must have the shape (directions, inner, state), got ",
                    A.sizes());
  ScanShape shape;
  shape.batch = u.size(0);
  shape.channels = u.size(1);
  shape.length = u.size(2);
  shape.state = A.size(2);
  shape.rank = dt_proj.size(2);
  shape.directions = dt_proj.size(0);
  check_state(shape.state);
  check_sizes("A", A, {shape.directions, shape.channels, shape.state},
              "(directions, inner, state)");
  check_sizes("proj", proj,
              {shape.batch, shape.directions, shape.rank + 2 * shape.state,
               shape.length},
              "(batch, directions, rank + 2 * state, length)");
  check_sizes("dt_bias", dt_bias, {shape.directions, shape.channels},
              "(directions, inner)");
  check_sizes("D", D, {shape.directions, shape.channels},
              "(directions, inner)");
  const auto type = u.scalar_type();
  check_like("proj", proj, u, type);
  check_like("dt_proj", dt_proj, u, state_type(type));
  check_like("dt_bias", dt_bias, u, state_type(type));
  check_like("A", A, u, state_type(type));
  check_like("D", D, u, state_type(type));
  return shape;
}

inline void check_grad(const at::Tensor& grad, const at::Tensor& u) {
  TORCH_CHECK_VALUE(grad.sizes().equals(u.sizes()),
                    "grad must have u's shape ", u.sizes(), ", got ",
                    grad.sizes());
  check_like("grad", grad, u, u.scalar_type());
}

// Channels lie side by side in memory (and tokens do not).
inline bool channels_last(const at::Tensor& tensor) {
  const auto channel = tensor.dim() - 2;
  return tensor.stride(channel) == 1 && tensor.stride(channel + 1) != 1;
}

// The tensor itself where one of its last two dimensions has stride 1.
inline at::Tensor with_unit_stride(const at::Tensor& tensor) {
  const auto channel = tensor.dim() - 2;
  const bool unit =
      tensor.stride(channel) == 1 || tensor.stride(channel + 1) == 1;
  return unit ? tensor : tensor.contiguous();
}

// A new tensor of the same shape, dense, in the same one of two layouts.
inline at::Tensor empty_like_layout(const at::Tensor& tensor) {
  if (!channels_last(tensor)) {
    return at::empty(tensor.sizes(), tensor.options());
  }
  if (tensor.dim() == 3) {
    return at::empty({tensor.size(0), tensor.size(2), tensor.size(1)},
                     tensor.options())
        .transpose(1, 2);
  }
  return at::empty(
             {tensor.size(0), tensor.size(3), tensor.size(1), tensor.size(2)},
             tensor.options())
      .permute({0, 2, 3, 1});
}

inline ChannelStrides channel_strides(const at::Tensor& tensor) {
  return {tensor.stride(0), tensor.stride(1), tensor.stride(2)};
}

inline RowStrides row_strides(const at::Tensor& tensor) {
  return {tensor.stride(0), tensor.stride(1), tensor.stride(2),
          tensor.stride(3)};
}

template <typename T>
const T* optional_data(const OptionalTensor& tensor) {
  return tensor.has_value() ? tensor->const_data_ptr<T>() : nullptr;
}

inline OptionalTensor contiguous(const OptionalTensor& tensor) {
  return tensor.has_value() ? OptionalTensor(tensor->contiguous())
                            : std::nullopt;
}

}  // namespace selective_scan
