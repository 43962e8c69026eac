// Depthwise filters, for inference on the CPU in float32.
#include <torch/library.h>

#include <string>

#include "../cpu/scratch.h"
#include "../cpu/work_stealing.h"
#include "feature_map_arguments.h"

namespace selective_scan {
namespace {

using cpu::FilterTask;

// Check x and weight (side, side[, bands], padded) and fill what they give.
FilterTask filter_task(const at::Tensor& x, const at::Tensor& weight) {
  check_float(x, "x");
  check_float(weight, "weight");
  TORCH_CHECK_VALUE(x.dim() == 4,
                    "x must be (batch, channels, height, width), got ",
                    x.sizes());
  FilterTask task;
  task.batch = x.size(0);
  task.channels = x.size(1);
  task.height = x.size(2);
  task.width = x.size(3);
  task.side = weight.size(0);
  task.padded = weight.size(-1);
  const int64_t whole = cpu::blocks_of(task.channels) * cpu::kMapBlock;
  TORCH_CHECK_VALUE(
      weight.is_contiguous() && weight.size(1) == task.side &&
          task.side % 2 == 1 && task.padded == whole,
      "weight must be contiguous, of an odd square side and padded to ", whole,
      " channels, got ", weight.sizes());
  return task;
}

template <typename Scratch, typename Kernel>
at::Tensor run_filter(FilterTask& task, const at::Tensor& x,
                      const at::Tensor& weight, Scratch scratch,
                      Kernel kernel) {
  const auto usable = with_adjacent_channels(x);
  auto y = empty_map(x, x.sizes());
  if (y.numel() == 0) return y;
  task.x = view_map(usable);
  task.y = {y.mutable_data_ptr<float>(), y.stride(0), y.stride(2),
            y.stride(3)};
  task.weight = weight.const_data_ptr<float>();
  const size_t bytes = scratch(task) * sizeof(float);
  const int64_t blocks = task.padded / cpu::kMapBlock;
  const int64_t work =
      task.height * task.width * task.side * task.side * cpu::kMapBlock;
  share_tasks(task.batch * blocks, grain(work),
              [&](int64_t begin, int64_t end) {
                kernel(task, begin, end,
                       static_cast<float*>(scratch_memory(bytes)));
              });
  return y;
}

at::Tensor depthwise_conv2d(const at::Tensor& x, const at::Tensor& weight,
                            const OptionalTensor& bias,
                            const std::string& activation,
                            const OptionalTensor& scale,
                            const OptionalTensor& shift) {
  TORCH_CHECK_VALUE(weight.dim() == 3,
                    "weight must be (side, side, channels), got ",
                    weight.sizes());
  auto task = filter_task(x, weight);
  Owners owners;
  task.bias = owners.parameter(bias, "bias", task.padded);
  task.scale = owners.parameter(scale, "scale", task.padded);
  task.shift = owners.parameter(shift, "shift", task.padded);
  TORCH_CHECK_VALUE(task.scale != nullptr || !shift.has_value(),
                    "shift must stand beside scale, which is None");
  task.activation = activation_of(activation);
  const auto& kernels = cpu::feature_map_kernels();
  return run_filter(task, x, weight, kernels.depthwise_scratch,
                    kernels.depthwise);
}

at::Tensor packed_wavelet_conv2d(const at::Tensor& x,
                                 const at::Tensor& weight) {
  TORCH_CHECK_VALUE(weight.dim() == 4 && weight.size(2) == 4,
                    "weight must be (side, side, 4, channels), got ",
                    weight.sizes());
  auto task = filter_task(x, weight);
  const auto& kernels = cpu::feature_map_kernels();
  return run_filter(task, x, weight, kernels.wavelet_scratch, kernels.wavelet);
}

}  // namespace

TORCH_LIBRARY_IMPL(selective_scan, CPU, m) {
  m.impl("depthwise_conv2d", &depthwise_conv2d);
  m.impl("packed_wavelet_conv2d", &packed_wavelet_conv2d);
}

}  // namespace selective_scan
