// wavelet_conv2d and gated_layer_norm on CUDA.
#include <ATen/ops/empty.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "../common/map_operands.h"
#include "../common/plain_wavelet.h"
#include "around.h"
#include "host.h"

namespace selective_scan {
namespace {

using Norm = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

at::Tensor with_short_offsets(const at::Tensor& x) {
  if (has_short_offsets(x)) return x;
  const auto dense = x.contiguous();
  TORCH_CHECK_VALUE(has_short_offsets(dense),
                    "x has more than 2^31 elements an image: ", x.sizes());
  return dense;
}

bool has_kernel(const at::Tensor& x, int64_t side) {
  return x.scalar_type() != at::kDouble &&
         (side == 3 || side == 5 || side == 7);
}

template <typename T>
cuda::Map<T> map_of(const at::Tensor& x, T* data) {
  return cuda::map_of(data, x.strides().data(), x.size(3));
}

template <typename T>
cuda::Wavelet<T> wavelet_of(const at::Tensor& x, const at::Tensor& weight) {
  cuda::Wavelet<T> w{};
  w.x = map_of(x, x.const_data_ptr<T>());
  w.images = static_cast<int>(x.size(0));
  w.channels = static_cast<int>(x.size(1));
  w.height = static_cast<int>(x.size(2));
  w.width = static_cast<int>(x.size(3));
  w.side = static_cast<int>(weight.size(2));
  return w;
}

// `turned`: with the filters turned by 180 degrees.
at::Tensor filtered(const at::Tensor& map, const at::Tensor& weight,
                    bool turned, const at::Tensor& like) {
  auto y = empty_like_map(like);
  if (y.numel() == 0) return y;
  if (!has_kernel(map, weight.size(2))) {
    return y.copy_(
        plain_wavelet(map, turned ? weight.flip({2, 3}) : weight));
  }
  const auto x = with_short_offsets(map), filters = weight.contiguous();
  SCAN_DISPATCH_FLOAT(x, [&] {
    auto w = wavelet_of<scalar_t>(x, weight);
    w.y = map_of(y, y.mutable_data_ptr<scalar_t>());
    w.weight = filters.const_data_ptr<float>();
    w.turned = turned;
    cuda::plan_wavelet(w, false, shared_memory_of_block());
    cuda::launch_wavelet(w, false);
  });
  return y;
}

at::Tensor filter_gradient(const at::Tensor& grad, const at::Tensor& map,
                           const at::Tensor& weight) {
  if (map.numel() == 0) return at::zeros(weight.sizes(), weight.options());
  if (!has_kernel(map, weight.size(2))) {
    return plain_wavelet_gradient(grad, map, weight);
  }
  const auto x = with_short_offsets(map), grads = with_short_offsets(grad);
  at::Tensor sums;
  SCAN_DISPATCH_FLOAT(x, [&] {
    auto w = wavelet_of<scalar_t>(x, weight);
    w.grad = map_of(grads, grads.const_data_ptr<scalar_t>());
    cuda::plan_wavelet(w, true, shared_memory_of_block());
    sums = at::empty({w.groups, w.channels * 4, 1, w.side, w.side},
                     weight.options());
    w.weight_grad = sums.mutable_data_ptr<float>();
    cuda::launch_wavelet(w, true);
  });
  return sums.size(0) > 1 ? sums.sum(0) : sums.squeeze(0);
}

at::Tensor wavelet_conv2d_cuda(const at::Tensor& x, const at::Tensor& weight) {
  check_wavelet(x, weight);
  const c10::cuda::CUDAGuard guard(x.device());
  return filtered(x, weight, false, x);
}

std::tuple<at::Tensor, at::Tensor> wavelet_conv2d_backward_cuda(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight) {
  check_wavelet(x, weight);
  check_alike("grad", grad, x);
  const c10::cuda::CUDAGuard guard(x.device());
  // The transform is orthonormal: its adjoint is its inverse.
  return {filtered(grad, weight, true, x), filter_gradient(grad, x, weight)};
}

template <typename T>
cuda::Tokens<T> tokens_of(const at::Tensor& x, T* data) {
  return {data, x.stride(0), x.stride(2), static_cast<int>(x.stride(1))};
}

// y or, where there is a gradient of y, those of the arguments.
Norm run_norm(const OptionalTensor& grad, const at::Tensor& x,
              const at::Tensor& z, const at::Tensor& weight,
              const at::Tensor& bias, double eps) {
  check_gated_norm(x, z, weight, bias, eps);
  const bool backward = grad.has_value();
  if (backward) check_alike("grad", *grad, x);
  TORCH_CHECK_VALUE(x.size(0) * x.size(2) <= kLargestInt / 2,
                    "x has more than 2^30 tokens: ", x.sizes());
  const c10::cuda::CUDAGuard guard(x.device());
  const auto y = empty_like_map(x);
  const auto grad_z = backward ? empty_like_map(z) : at::Tensor();
  if (x.numel() == 0) {
    return {y, grad_z, at::zeros(weight.sizes(), weight.options()),
            at::zeros(bias.sizes(), bias.options())};
  }
  const auto xs = with_short_offsets(x), zs = with_short_offsets(z);
  const auto grads = backward ? with_short_offsets(*grad) : at::Tensor();
  const auto factor = weight.contiguous(), shift = bias.contiguous();
  at::Tensor partials;
  SCAN_DISPATCH(x, [&] {
    cuda::GatedNorm<scalar_t, State<scalar_t>> n{};
    n.x = tokens_of(xs, xs.const_data_ptr<scalar_t>());
    n.z = tokens_of(zs, zs.const_data_ptr<scalar_t>());
    n.weight = factor.const_data_ptr<State<scalar_t>>();
    n.bias = shift.const_data_ptr<State<scalar_t>>();
    n.eps = static_cast<State<scalar_t>>(eps);
    n.length = static_cast<int>(x.size(2));
    n.tokens = static_cast<int>(x.size(0)) * n.length;
    n.channels = static_cast<int>(x.size(1));
    n.channels_last = adjacent_channels(xs);
    cuda::plan_gated_norm(n, backward, shared_memory_of_block());
    TORCH_CHECK_VALUE(n.blocks > 0, "x has more channels than a GPU's shared "
                      "memory has room for: ", x.sizes());
    if (backward) {
      n.grad = tokens_of(grads, grads.const_data_ptr<scalar_t>());
      n.x_grad = tokens_of(y, y.mutable_data_ptr<scalar_t>());
      n.z_grad = tokens_of(grad_z, grad_z.mutable_data_ptr<scalar_t>());
      partials = at::empty({n.blocks, 2, n.channels}, weight.options());
      n.partials = partials.mutable_data_ptr<State<scalar_t>>();
    } else {
      n.y = tokens_of(y, y.mutable_data_ptr<scalar_t>());
    }
    cuda::launch_gated_norm(n, backward);
  });
  if (!backward) return {y, {}, {}, {}};
  return {y, grad_z, partials.select(1, 0).sum(0),
          partials.select(1, 1).sum(0)};
}

at::Tensor gated_layer_norm_cuda(const at::Tensor& x, const at::Tensor& z,
                                 const at::Tensor& weight,
                                 const at::Tensor& bias, double eps) {
  return std::get<0>(run_norm(std::nullopt, x, z, weight, bias, eps));
}

Norm gated_layer_norm_backward_cuda(const at::Tensor& grad,
                                    const at::Tensor& x, const at::Tensor& z,
                                    const at::Tensor& weight,
                                    const at::Tensor& bias, double eps) {
  return run_norm(grad, x, z, weight, bias, eps);
}

}  // namespace

TORCH_LIBRARY_IMPL(selective_scan, CUDA, m) {
  m.impl("wavelet_conv2d", &wavelet_conv2d_cuda);
  m.impl("wavelet_conv2d_backward", &wavelet_conv2d_backward_cuda);
  m.impl("gated_layer_norm", &gated_layer_norm_cuda);
  m.impl("gated_layer_norm_backward", &gated_layer_norm_backward_cuda);
}

}  // namespace selective_scan
