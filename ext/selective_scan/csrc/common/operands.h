// Argument checks, and the operands of a scan as the kernels want them.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <initializer_list>
#include <optional>
#include <utility>

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

// What stands beside an operator's first input.
inline void check_like(const char* name, const at::Tensor& tensor,
                       const at::Tensor& input, at::ScalarType wanted) {
  TORCH_CHECK_VALUE(tensor.device() == input.device(), name, " is on ",
                    tensor.device(), " and the input on ", input.device(),
                    "; all tensors must share one device");
  TORCH_CHECK_TYPE(tensor.scalar_type() == wanted, name,
                   " must have the dtype ", wanted, " where the input has ",
                   input.scalar_type(), ", got ", tensor.scalar_type());
}

inline void check_input(const char* name, const at::Tensor& input,
                        int64_t dims, const char* meaning) {
  const auto type = input.scalar_type();
  TORCH_CHECK_TYPE(type == at::kFloat || type == at::kHalf ||
                       type == at::kBFloat16 || type == at::kDouble,
                   name, " must be float32, float16, bfloat16 or float64, got ",
                   type);
  TORCH_CHECK_VALUE(input.dim() == dims, name, " must have the shape ",
                    meaning, ", got ", input.sizes());
}

// A second tensor, as a gradient, of the first one's shape and dtype.
inline void check_alike(const char* name, const at::Tensor& tensor,
                        const at::Tensor& input) {
  TORCH_CHECK_VALUE(tensor.sizes().equals(input.sizes()), name,
                    " must have the input's shape ", input.sizes(), ", got ",
                    tensor.sizes());
  check_like(name, tensor, input, input.scalar_type());
}

// A parameter, in the dtype of the states.
inline void check_parameter(const char* name, const OptionalTensor& tensor,
                            const at::Tensor& input,
                            std::initializer_list<int64_t> wanted,
                            const char* meaning) {
  if (!tensor.has_value()) return;
  check_sizes(name, *tensor, wanted, meaning);
  check_like(name, *tensor, input, state_type(input.scalar_type()));
}

inline void check_state(int64_t state) {
  TORCH_CHECK_VALUE(state >= 1 && state <= kMaxState, "A must have 1 to ",
                    kMaxState, " states, got ", state);
}

inline ScanShape check_selective_scan(
    const at::Tensor& u, const at::Tensor& delta, const at::Tensor& A,
    const at::Tensor& B, const at::Tensor& C, const OptionalTensor& D,
    const OptionalTensor& delta_bias, bool delta_softplus, bool reverse) {
  check_input("u", u, 3, "(batch, channels, length)");
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
  check_alike("delta", delta, u);
  const auto rows = {shape.batch, shape.groups, shape.state, shape.length};
  const auto type = u.scalar_type();
  for (const auto& [name, tensor] : {std::pair("B", B), std::pair("C", C)}) {
    check_sizes(name, tensor, rows, "(batch, groups, state, length)");
    check_like(name, tensor, u, type);
  }
  check_like("A", A, u, state_type(type));
  check_parameter("D", D, u, {shape.channels}, "(dim,)");
  check_parameter("delta_bias", delta_bias, u, {shape.channels}, "(dim,)");
  return shape;
}

inline ScanShape check_bidirectional_scan(
    const at::Tensor& u, const at::Tensor& proj, const at::Tensor& dt_proj,
    const at::Tensor& dt_bias, const at::Tensor& A, const at::Tensor& D) {
  check_input("u", u, 3, "(batch, channels, length)");
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
  check_sizes("proj", proj,
              {shape.batch, shape.directions, shape.rank + 2 * shape.state,
               shape.length},
              "(batch, directions, rank + 2 * state, length)");
  check_like("proj", proj, u, u.scalar_type());
  const int64_t directions = shape.directions, inner = shape.channels;
  check_like("dt_proj", dt_proj, u, state_type(u.scalar_type()));
  check_parameter("A", A, u, {directions, inner, shape.state},
                  "(directions, inner, state)");
  check_parameter("dt_bias", dt_bias, u, {directions, inner},
                  "(directions, inner)");
  check_parameter("D", D, u, {directions, inner}, "(directions, inner)");
  return shape;
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
  return at::empty(tensor.movedim(-1, 1).sizes(), tensor.options())
      .movedim(1, -1);
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
