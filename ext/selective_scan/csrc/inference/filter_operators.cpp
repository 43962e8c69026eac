// Depthwise filters on the CPU in float32, as they are and between a Haar
// transform and its inverse; the latter in all dtypes with gradients, too.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <string>
#include <tuple>

#include "../common/map_operands.h"
#include "../common/plain_wavelet.h"
#include "../cpu/kernels.h"
#include "../cpu/work_stealing.h"
#include "feature_map_arguments.h"

namespace selective_scan {
namespace {

using cpu::FilterTask;
using cpu::kMapBlock;

int64_t padded_channels(const at::Tensor& x) {
  return cpu::blocks_of(x.size(1)) * kMapBlock;
}

// The sizes of a map, which has adjacent channels, and where it is.
FilterTask filter_task(const at::Tensor& x, int64_t side) {
  FilterTask task;
  task.batch = x.size(0);
  task.channels = x.size(1);
  task.height = x.size(2);
  task.width = x.size(3);
  task.side = side;
  task.padded = padded_channels(x);
  task.x = view_of(x, x.const_data_ptr<float>());
  return task;
}

// The same with a weight (side, side[, bands], padded).
FilterTask filter_task(const at::Tensor& x, const at::Tensor& weight) {
  check_float(weight, "weight");
  const int64_t side = weight.size(0);
  TORCH_CHECK_VALUE(
      weight.is_contiguous() && weight.size(1) == side && side % 2 == 1 &&
          weight.size(-1) == padded_channels(x),
      "weight must be contiguous, of an odd square side and padded to ",
      padded_channels(x), " channels, got ", weight.sizes());
  auto task = filter_task(x, side);
  task.weight = weight.const_data_ptr<float>();
  return task;
}

at::Tensor run_filter(FilterTask task, const at::Tensor& x,
                      void (*kernel)(const FilterTask&, int64_t, int64_t)) {
  const auto y = empty_map(x, x.sizes());
  if (y.numel() == 0) return y;
  task.y = view_of(y, y.mutable_data_ptr<float>());
  const int64_t cells = task.height * task.width * task.side * task.side;
  share_tasks(task.batch * cpu::blocks_of(task.channels),
              grain(cells * kMapBlock),
              [&](int64_t begin, int64_t end) { kernel(task, begin, end); });
  return y;
}

at::Tensor packed_wavelet_conv2d(const at::Tensor& x,
                                 const at::Tensor& weight) {
  const auto map = checked_map(x);
  TORCH_CHECK_VALUE(weight.dim() == 4 && weight.size(2) == 4,
                    "weight must be (side, side, 4, channels), got ",
                    weight.sizes());
  return run_filter(filter_task(map, weight), map,
                    cpu::current_variant().wavelet);
}

at::Tensor filtered(const at::Tensor& x, const at::Tensor& weight,
                    const at::Tensor& like) {
  if (x.scalar_type() == at::kDouble) {
    return empty_like_map(like).copy_(plain_wavelet(x, weight));
  }
  const int64_t channels = x.size(1), side = weight.size(2);
  const auto bands =
      weight.reshape({channels, 4, side, side}).permute({2, 3, 1, 0});
  const int64_t missing = padded_channels(x) - channels;
  const auto y = packed_wavelet_conv2d(
      x.to(at::kFloat), at::constant_pad_nd(bands, {0, missing}).contiguous());
  const bool fits = like.scalar_type() == at::kFloat;
  return fits && adjacent_channels(like) ? y : empty_like_map(like).copy_(y);
}

// A task has some of the images, so that sums are taken in the same order
// whatever the number of threads.
at::Tensor filter_gradient(const at::Tensor& grad, const at::Tensor& x,
                           int64_t side) {
  const auto map = with_adjacent_channels(x.to(at::kFloat));
  const auto map_grad = with_adjacent_channels(grad.to(at::kFloat));
  const auto task = filter_task(map, side),
             grads = filter_task(map_grad, side);
  const int64_t channels = x.size(1), blocks = cpu::blocks_of(channels);
  const int64_t groups = smaller(x.size(0), ceil_div(32, blocks));
  const auto sums =
      at::zeros({groups, blocks, side, side, 4, kMapBlock}, map.options());
  float* first = sums.mutable_data_ptr<float>();
  share_tasks(groups * blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float* own = first + i * side * side * 4 * kMapBlock;
      for (int64_t b = i / blocks; b < x.size(0); b += groups) {
        cpu::current_variant().wavelet_gradient(task, grads,
                                                b * blocks + i % blocks, own);
      }
    }
  });
  return (sums.sum(0) * 0.25)  // both transforms' factors
      .permute({0, 4, 3, 1, 2})
      .reshape({blocks * kMapBlock * 4, 1, side, side})
      .narrow(0, 0, 4 * channels)
      .contiguous();
}

at::Tensor wavelet_conv2d_cpu(const at::Tensor& x, const at::Tensor& weight) {
  check_wavelet(x, weight);
  return filtered(x, weight, x);
}

std::tuple<at::Tensor, at::Tensor> wavelet_conv2d_backward_cpu(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight) {
  const int64_t side = check_wavelet(x, weight);
  check_alike("grad", grad, x);
  // The transform is orthonormal: its adjoint is its inverse.
  const auto grad_x = filtered(grad, weight.flip({2, 3}), x);
  if (x.numel() == 0) {
    return {grad_x, at::zeros(weight.sizes(), weight.options())};
  }
  return {grad_x, x.scalar_type() == at::kDouble
                      ? plain_wavelet_gradient(grad, x, weight)
                      : filter_gradient(grad, x, side)};
}

}  // namespace

at::Tensor depthwise_conv2d(const at::Tensor& x, const at::Tensor& weight,
                            const OptionalTensor& bias,
                            const std::string& activation,
                            const OptionalTensor& scale,
                            const OptionalTensor& shift) {
  const auto map = checked_map(x);
  TORCH_CHECK_VALUE(weight.dim() == 3,
                    "weight must be (side, side, channels), got ",
                    weight.sizes());
  auto task = filter_task(map, weight);
  task.bias = checked_parameter(bias, "bias", task.padded);
  task.scale = checked_parameter(scale, "scale", task.padded);
  task.shift = checked_parameter(shift, "shift", task.padded);
  TORCH_CHECK_VALUE(scale.has_value() || !shift.has_value(),
                    "shift must stand beside scale, which is None");
  task.activation = activation_of(activation);
  return run_filter(task, map, cpu::current_variant().depthwise);
}

TORCH_LIBRARY_IMPL(selective_scan, CPU, m) {
  m.impl("depthwise_conv2d", &depthwise_conv2d);
  m.impl("packed_wavelet_conv2d", &packed_wavelet_conv2d);
  m.impl("wavelet_conv2d", &wavelet_conv2d_cpu);
  m.impl("wavelet_conv2d_backward", &wavelet_conv2d_backward_cpu);
}

}  // namespace selective_scan
