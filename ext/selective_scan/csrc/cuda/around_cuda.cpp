// wavelet_conv2d and gated_layer_norm on CUDA.
#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <limits>

#include "../common/map_operands.h"
#include "../common/plain_wavelet.h"
#include "around.h"

namespace selective_scan {
namespace {

template <typename T>
using State = at::opmath_type<T>;
template <typename T>
using WaveletTask = cuda::WaveletTask<T, float>;
template <typename T>
using NormTask = cuda::NormTask<T, State<T>>;

#define NORM_DISPATCH(tensor, ...)                                          \
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16,                 \
                                  (tensor).scalar_type(),                   \
                                  "gated_layer_norm", __VA_ARGS__)
#define WAVELET_DISPATCH(tensor, ...)                                       \
  AT_DISPATCH_SWITCH((tensor).scalar_type(), "wavelet_conv2d",              \
                     AT_DISPATCH_CASE(at::kFloat, __VA_ARGS__)              \
                     AT_DISPATCH_CASE(at::kHalf, __VA_ARGS__)               \
                     AT_DISPATCH_CASE(at::kBFloat16, __VA_ARGS__))

bool has_kernel(const at::Tensor& x, int64_t side) {
  return x.scalar_type() != at::kDouble &&
         (side == 3 || side == 5 || side == 7);
}

// The tensor itself where offsets within an image fit into 32 bits.
at::Tensor with_short_offsets(const at::Tensor& x) {
  const auto fits = [](const at::Tensor& tensor) {
    int64_t last = 0;
    for (int64_t d = 1; d < tensor.dim(); ++d) {
      last += tensor.size(d) * tensor.stride(d);
    }
    return last <= std::numeric_limits<int>::max();
  };
  if (fits(x)) return x;
  const auto dense = x.contiguous();
  TORCH_CHECK_VALUE(fits(dense), "x has more than 2^31 elements an image: ",
                    x.sizes());
  return dense;
}

template <typename T>
cuda::Map<T> map_of(const at::Tensor& x, T* data) {
  return cuda::map_of(data, x.strides().data(), x.size(3));
}

template <typename T>
WaveletTask<T> wavelet_task(const at::Tensor& x, const at::Tensor& weight) {
  WaveletTask<T> task;
  task.x = map_of(x, x.const_data_ptr<T>());
  task.weight = weight.const_data_ptr<State<T>>();
  task.images = static_cast<int>(x.size(0));
  task.channels = static_cast<int>(x.size(1));
  task.height = static_cast<int>(x.size(2));
  task.width = static_cast<int>(x.size(3));
  task.side = static_cast<int>(weight.size(2));
  return task;
}

// Sums over rows into one tensor, or two one after the other.
template <typename T>
void sum_rows(const at::Tensor& from, const at::Tensor& to,
              const at::Tensor& rest = {}) {
  cuda::SumTask<T> task;
  task.from = from.const_data_ptr<T>();
  task.to = to.mutable_data_ptr<T>();
  task.rows = static_cast<int>(from.size(0));
  task.columns = static_cast<int>(from.numel() / from.size(0));
  task.split = static_cast<int>(to.numel());
  if (rest.defined()) task.rest = rest.mutable_data_ptr<T>();
  C10_CUDA_CHECK(cuda::launch_sum(task, c10::cuda::getCurrentCUDAStream()));
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
  WAVELET_DISPATCH(x, [&] {
    auto task = wavelet_task<scalar_t>(x, filters);
    task.y = map_of(y, y.mutable_data_ptr<scalar_t>());
    task.turned = turned;
    C10_CUDA_CHECK(cuda::plan_wavelet(task, false));
    C10_CUDA_CHECK(
        cuda::launch_wavelet(task, false, c10::cuda::getCurrentCUDAStream()));
  });
  return y;
}

at::Tensor filter_gradient(const at::Tensor& grad, const at::Tensor& map,
                           const at::Tensor& weight) {
  if (!has_kernel(map, weight.size(2))) {
    return plain_wavelet_gradient(grad, map, weight);
  }
  const auto x = with_short_offsets(map), grads = with_short_offsets(grad);
  auto result = at::empty(weight.sizes(), weight.options());
  WAVELET_DISPATCH(x, [&] {
    auto task = wavelet_task<scalar_t>(x, weight);
    task.grad = map_of(grads, grads.const_data_ptr<scalar_t>());
    C10_CUDA_CHECK(cuda::plan_wavelet(task, true));
    const auto sums =
        task.groups > 1
            ? at::empty({task.groups, weight.numel()}, weight.options())
            : result;
    task.weight_grad = sums.mutable_data_ptr<float>();
    C10_CUDA_CHECK(
        cuda::launch_wavelet(task, true, c10::cuda::getCurrentCUDAStream()));
    if (task.groups > 1) sum_rows<float>(sums, result);
  });
  return result;
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
  const auto grad_x = filtered(grad, weight, true, x);
  return {grad_x, x.numel() > 0
                      ? filter_gradient(grad, x, weight)
                      : at::zeros(weight.sizes(), weight.options())};
}

template <typename T>
cuda::Tokens<T> tokens_of(const at::Tensor& x, T* data) {
  return {data, x.stride(0), x.stride(2), static_cast<int>(x.stride(1))};
}

template <typename T>
NormTask<T> norm_task(const at::Tensor& x, const at::Tensor& z,
                      const at::Tensor& weight, const at::Tensor& bias,
                      double eps, bool backward) {
  TORCH_CHECK_VALUE(
      x.size(0) * x.size(2) <= std::numeric_limits<int>::max() / 2,
      "x has more than 2^30 tokens: ", x.sizes());
  NormTask<T> task;
  task.x = tokens_of(x, x.const_data_ptr<T>());
  task.z = tokens_of(z, z.const_data_ptr<T>());
  task.weight = weight.const_data_ptr<State<T>>();
  task.bias = bias.const_data_ptr<State<T>>();
  task.eps = static_cast<State<T>>(eps);
  task.length = static_cast<int>(x.size(2));
  task.tokens = static_cast<int>(x.size(0)) * task.length;
  task.channels = static_cast<int>(x.size(1));
  task.channels_last = adjacent_channels(x);
  C10_CUDA_CHECK(cuda::plan_gated_norm(task, backward));
  TORCH_CHECK_VALUE(task.blocks > 0, "x has more channels than a GPU's shared "
                    "memory has room for: ", x.sizes());
  return task;
}

at::Tensor gated_layer_norm_cuda(const at::Tensor& x, const at::Tensor& z,
                                 const at::Tensor& weight,
                                 const at::Tensor& bias, double eps) {
  check_gated_norm(x, z, weight, bias, eps);
  const c10::cuda::CUDAGuard guard(x.device());
  auto y = empty_like_map(x);
  if (y.numel() == 0) return y;
  const auto xs = with_short_offsets(x), zs = with_short_offsets(z);
  const auto factor = weight.contiguous(), shift = bias.contiguous();
  NORM_DISPATCH(x, [&] {
    auto task = norm_task<scalar_t>(xs, zs, factor, shift, eps, false);
    task.y = tokens_of(y, y.mutable_data_ptr<scalar_t>());
    C10_CUDA_CHECK(cuda::launch_gated_norm(
        task, false, c10::cuda::getCurrentCUDAStream()));
  });
  return y;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>
gated_layer_norm_backward_cuda(const at::Tensor& grad, const at::Tensor& x,
                               const at::Tensor& z, const at::Tensor& weight,
                               const at::Tensor& bias, double eps) {
  check_gated_norm(x, z, weight, bias, eps);
  check_alike("grad", grad, x);
  const c10::cuda::CUDAGuard guard(x.device());
  auto grad_x = empty_like_map(x), grad_z = empty_like_map(z);
  if (x.numel() == 0) {
    return {grad_x, grad_z, at::zeros(weight.sizes(), weight.options()),
            at::zeros(bias.sizes(), bias.options())};
  }
  auto grad_weight = at::empty(weight.sizes(), weight.options());
  auto grad_bias = at::empty(bias.sizes(), bias.options());
  const auto xs = with_short_offsets(x), zs = with_short_offsets(z);
  const auto grads = with_short_offsets(grad);
  const auto factor = weight.contiguous(), shift = bias.contiguous();
  NORM_DISPATCH(x, [&] {
    auto task = norm_task<scalar_t>(xs, zs, factor, shift, eps, true);
    task.grad = tokens_of(grads, grads.const_data_ptr<scalar_t>());
    task.x_grad = tokens_of(grad_x, grad_x.mutable_data_ptr<scalar_t>());
    task.z_grad = tokens_of(grad_z, grad_z.mutable_data_ptr<scalar_t>());
    const auto partials =
        at::empty({task.blocks, 2, x.size(1)}, weight.options());
    task.partials = partials.mutable_data_ptr<State<scalar_t>>();
    C10_CUDA_CHECK(cuda::launch_gated_norm(
        task, true, c10::cuda::getCurrentCUDAStream()));
    sum_rows<State<scalar_t>>(partials, grad_weight, grad_bias);
  });
  return {grad_x, grad_z, grad_weight, grad_bias};
}

}  // namespace

TORCH_LIBRARY_IMPL(selective_scan, CUDA, m) {
  m.impl("wavelet_conv2d", &wavelet_conv2d_cuda);
  m.impl("wavelet_conv2d_backward", &wavelet_conv2d_backward_cuda);
  m.impl("gated_layer_norm", &gated_layer_norm_cuda);
  m.impl("gated_layer_norm_backward", &gated_layer_norm_backward_cuda);
}

}  // namespace selective_scan
