// gated_layer_norm on the CPU: forward in float32 by a kernel, the rest, which
// it would not speed up, by PyTorch's operators.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <tuple>

#include "../common/map_operands.h"
#include "kernels.h"
#include "work_stealing.h"

namespace selective_scan {
namespace {

// (batch, channels, length) as (batch, length, channels) in the norm's dtype.
at::Tensor tokens_of(const at::Tensor& x, const at::Tensor& weight) {
  return x.transpose(1, 2).to(weight.scalar_type());
}

// The same less its first channel, which changes no norm: of values far from 0
// PyTorch's norm would lose what the variance is made of.
at::Tensor norm_input(const at::Tensor& x, const at::Tensor& weight) {
  const auto tokens = tokens_of(x, weight);
  return (tokens - tokens.narrow(2, 0, 1)).contiguous();
}

// Tokens with adjacent channels.
at::Tensor rows_of(const at::Tensor& x, const at::Tensor& weight) {
  const auto tokens = tokens_of(x, weight);
  return tokens.stride(2) == 1 ? tokens : tokens.contiguous();
}

template <typename T>
cpu::MapView<T> view_of(const at::Tensor& rows, T* data) {
  return {data, rows.stride(0), rows.stride(1), 0};
}

void run_gated_norm(const at::Tensor& x, const at::Tensor& z,
                    const at::Tensor& weight, const at::Tensor& bias,
                    double eps, const at::Tensor& y) {
  const auto factor = weight.contiguous(), shift = bias.contiguous();
  const cpu::GatedNormTask task{view_of(x, x.const_data_ptr<float>()),
                                view_of(z, z.const_data_ptr<float>()),
                                view_of(y, y.mutable_data_ptr<float>()),
                                x.size(1),
                                x.size(2),
                                factor.const_data_ptr<float>(),
                                shift.const_data_ptr<float>(),
                                static_cast<float>(eps)};
  share_tasks(x.size(0) * x.size(1), ceil_div(kGrain, 16 * x.size(2)),
              [&](int64_t begin, int64_t end) {
                cpu::current_variant().gated_norm(task, begin, end);
              });
}

at::Tensor gated_layer_norm_cpu(const at::Tensor& x, const at::Tensor& z,
                                const at::Tensor& weight,
                                const at::Tensor& bias, double eps) {
  check_gated_norm(x, z, weight, bias, eps);
  auto y = empty_like_map(x), out = y.transpose(1, 2);
  if (y.numel() == 0) return y;
  if (weight.scalar_type() == at::kDouble) {
    at::mul_out(out,
                at::layer_norm(norm_input(x, weight), weight.sizes(), weight,
                               bias, eps),
                at::silu(tokens_of(z, weight)));
    return y;
  }
  const auto rows = rows_of(x, weight);
  const bool fits = out.scalar_type() == at::kFloat && out.stride(2) == 1;
  const auto result = fits ? out : at::empty(rows.sizes(), rows.options());
  run_gated_norm(rows, rows_of(z, weight), weight, bias, eps, result);
  if (!fits) out.copy_(result);
  return y;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>
gated_layer_norm_backward_cpu(const at::Tensor& grad, const at::Tensor& x,
                              const at::Tensor& z, const at::Tensor& weight,
                              const at::Tensor& bias, double eps) {
  check_gated_norm(x, z, weight, bias, eps);
  check_alike("grad", grad, x);
  const auto tokens = norm_input(x, weight);
  const auto gate = tokens_of(z, weight), slope = tokens_of(grad, weight);
  const auto [norm, mean, rstd] =
      at::native_layer_norm(tokens, weight.sizes(), {}, {}, eps);
  const auto scaled_slope = (slope * at::silu(gate)).contiguous();
  // The parameters' sums in there depend on the number of threads.
  const auto token_grad = std::get<0>(at::native_layer_norm_backward(
      scaled_slope, tokens, weight.sizes(), mean, rstd, weight, bias,
      {true, false, false}));
  auto grad_x = empty_like_map(x), grad_z = empty_like_map(z);
  grad_x.copy_(token_grad.transpose(1, 2));
  auto gate_grad = grad_z.transpose(1, 2);
  at::silu_backward_out(gate_grad, slope * (norm * weight + bias), gate);
  return {grad_x, grad_z, (scaled_slope * norm).sum_to_size(weight.sizes()),
          scaled_slope.sum_to_size(weight.sizes())};
}

}  // namespace

TORCH_LIBRARY_IMPL(selective_scan, CPU, m) {
  m.impl("gated_layer_norm", &gated_layer_norm_cpu);
  m.impl("gated_layer_norm_backward", &gated_layer_norm_backward_cpu);
}

}  // namespace selective_scan
