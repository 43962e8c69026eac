// wavelet_conv2d by PyTorch's convolutions, on any device: for float64, and
// for sides of filters that have no kernel.
#pragma once

#include <ATen/ATen.h>

#include <tuple>

namespace selective_scan {

// The Haar transform as a convolution of stride 2.
inline at::Tensor haar_filters(const at::Tensor& x) {
  const auto signs = at::tensor({1, 1, 1, 1, 1, 1, -1, -1, 1, -1, 1, -1, 1, -1,
                                 -1, 1},
                                x.options());
  return (signs.view({4, 1, 2, 2}) * 0.5).repeat({x.size(1), 1, 1, 1});
}

inline at::Tensor subbands(const at::Tensor& x) {
  const auto even =
      at::constant_pad_nd(x, {0, x.size(3) % 2, 0, x.size(2) % 2});
  return at::conv2d(even, haar_filters(x), {}, at::IntArrayRef{2, 2},
                    at::IntArrayRef{0, 0}, at::IntArrayRef{1, 1}, x.size(1));
}

inline at::Tensor plain_wavelet(const at::Tensor& map,
                                const at::Tensor& weight) {
  const auto x = map.to(weight.scalar_type());
  const int64_t half = weight.size(2) / 2;
  const auto bands = at::conv2d(
      subbands(x), weight, {}, at::IntArrayRef{1, 1},
      at::IntArrayRef{half, half}, at::IntArrayRef{1, 1}, weight.size(0));
  return at::conv_transpose2d(bands, haar_filters(x), {}, {2, 2}, {0, 0},
                              {0, 0}, x.size(1))
      .narrow(2, 0, x.size(2))
      .narrow(3, 0, x.size(3));
}

inline at::Tensor plain_wavelet_gradient(const at::Tensor& grad,
                                         const at::Tensor& x,
                                         const at::Tensor& weight) {
  const auto type = weight.scalar_type();
  const int64_t half = weight.size(2) / 2;
  return std::get<1>(at::convolution_backward(
      subbands(grad.to(type)), subbands(x.to(type)), weight, std::nullopt,
      {1, 1}, {half, half}, {1, 1}, false, {0, 0}, weight.size(0),
      {false, true, false}));
}

}  // namespace selective_scan
