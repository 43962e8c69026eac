// gated_layer_norm on the CPU by PyTorch's operators, at no loss of speed.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <tuple>

#include "../common/map_operands.h"

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

at::Tensor gated_layer_norm_cpu(const at::Tensor& x, const at::Tensor& z,
                                const at::Tensor& weight,
                                const at::Tensor& bias, double eps) {
  check_gated_norm(x, z, weight, bias, eps);
  auto y = empty_like_map(x), out = y.transpose(1, 2);
  at::mul_out(out,
              at::layer_norm(norm_input(x, weight), weight.sizes(), weight,
                             bias, eps),
              at::silu(tokens_of(z, weight)));
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
