// gated_layer_norm on the CPU: float32 forwards by the kernel of the
// inference operators, the rest by PyTorch's.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "../common/map_operands.h"
#include "../inference/feature_map_kernels.h"
#include "work_stealing.h"

namespace selective_scan {
namespace {

using cpu::GateTask;

// Tokens (batch, length, channels) with adjacent channels, in the state's type.
at::Tensor rows_of(const at::Tensor& x) {
  const auto rows = x.transpose(1, 2).to(state_type(x.scalar_type()));
  return rows.stride(2) == 1 ? rows : rows.contiguous();
}

at::Tensor gated_layer_norm_cpu(const at::Tensor& x, const at::Tensor& z,
                                const at::Tensor& weight,
                                const at::Tensor& bias, double eps) {
  check_gated_norm(x, z, weight, bias, eps);
  auto y = empty_like_map(x);
  if (y.numel() == 0) return y;
  const auto rows = rows_of(x), gates = rows_of(z);
  if (x.scalar_type() == at::kDouble) {
    const auto norm = at::layer_norm(rows, {x.size(1)}, weight, bias, eps);
    return y.copy_((norm * at::silu(gates)).transpose(1, 2));
  }
  const auto out = adjacent_channels(x) && x.scalar_type() == at::kFloat
                       ? y.transpose(1, 2)
                       : at::empty(rows.sizes(), rows.options());
  const auto factor = weight.contiguous(), shift = bias.contiguous();
  GateTask task;
  task.length = x.size(2);
  task.channels = x.size(1);
  task.weight = factor.const_data_ptr<float>();
  task.bias = shift.const_data_ptr<float>();
  task.eps = static_cast<float>(eps);
  task.x = {rows.const_data_ptr<float>(), rows.stride(0), rows.stride(1), 0};
  task.z = {gates.const_data_ptr<float>(), gates.stride(0), gates.stride(1),
            0};
  task.y = {out.mutable_data_ptr<float>(), out.stride(0), out.stride(1), 0};
  const auto& kernels = cpu::map_kernels();
  share_tasks(x.size(0) * task.length, grain(16 * task.channels),
              [&](int64_t begin, int64_t end) {
                kernels.gate(task, begin, end);
              });
  if (out.const_data_ptr() != y.const_data_ptr()) y.copy_(out.transpose(1, 2));
  return y;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>
gated_layer_norm_backward_cpu(const at::Tensor& grad, const at::Tensor& x,
                              const at::Tensor& z, const at::Tensor& weight,
                              const at::Tensor& bias, double eps) {
  check_gated_norm(x, z, weight, bias, eps);
  check_alike("grad", grad, x);
  auto grad_x = empty_like_map(x), grad_z = empty_like_map(z);
  if (x.numel() == 0) {
    return {grad_x, grad_z, at::zeros_like(weight), at::zeros_like(bias)};
  }
  const auto rows = rows_of(x), gates = rows_of(z), grads = rows_of(grad);
  const int64_t channels = x.size(1);
  const auto [norm, mean, slope] =
      at::native_layer_norm(rows, {channels}, weight, bias, eps);
  const auto [row_grad, weight_grad, bias_grad] =
      at::native_layer_norm_backward(grads * at::silu(gates), rows, {channels},
                                     mean, slope, weight, bias,
                                     {true, true, true});
  grad_x.copy_(row_grad.transpose(1, 2));
  grad_z.copy_(at::silu_backward(grads * norm, gates).transpose(1, 2));
  return {grad_x, grad_z, weight_grad, bias_grad};
}

}  // namespace

TORCH_LIBRARY_IMPL(selective_scan, CPU, m) {
  m.impl("gated_layer_norm", &gated_layer_norm_cpu);
  m.impl("gated_layer_norm_backward", &gated_layer_norm_backward_cpu);
}

}  // namespace selective_scan
