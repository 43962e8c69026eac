// Dense convolutions, for inference on the CPU in float32, with weights that
// were packed once.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <algorithm>
#include <string>
#include <vector>

#include "product_plan.h"

namespace selective_scan {
namespace {

using cpu::blocks_of;
using cpu::ConvTask;
using cpu::kMapBlock;

// No sum or product of sizes below it leaves 64 bits.
constexpr int64_t kLargestSide = int64_t{1} << 20;

int64_t results(int64_t size, int64_t padding, int64_t kernel, int64_t stride,
                const char* side) {
  TORCH_CHECK_VALUE(stride > 0 && padding >= 0 && padding < kLargestSide,
                    "stride must be positive and padding from 0 to ",
                    kLargestSide - 1, ", got ", stride, " and ", padding,
                    " for the ", side);
  const int64_t room = size + 2 * padding - kernel;
  TORCH_CHECK_VALUE(room >= 0, "x is too small for kernel_size: ", side, " ",
                    size, " with padding ", padding, " against ", kernel);
  return room / stride + 1;
}

// What a map and the weight of `depth` values an output say of a convolution.
ConvTask conv_task(const at::Tensor& x, const at::Tensor& weight,
                   const OptionalTensor& bias, int64_t channels,
                   const std::string& activation, int64_t depth,
                   bool strassen, std::vector<at::Tensor>& owners) {
  ConvTask task;
  task.strassen = strassen;
  task.activation = activation_of(activation);
  task.batch = x.size(0);
  task.channels = x.size(1);
  task.height = x.size(2);
  task.width = x.size(3);
  task.outputs = channels;
  check_matrix(weight, "weight", depth, channels, "channels", strassen);
  task.weight = weight.const_data_ptr<float>();
  task.bias =
      parameter(bias, "bias", blocks_of(channels) * kMapBlock, owners);
  return task;
}

at::Tensor empty_result(const at::Tensor& x, ConvTask& task) {
  auto y = at::empty(
      {task.batch, task.outputs, task.out_height, task.out_width},
      x.options(), at::MemoryFormat::ChannelsLast);
  task.y = y.mutable_data_ptr<float>();
  return y;
}

at::Tensor dense_conv2d_cpu(const at::Tensor& x, const at::Tensor& weight,
                            const OptionalTensor& bias, int64_t channels,
                            at::IntArrayRef kernel_size,
                            at::IntArrayRef stride, at::IntArrayRef padding,
                            const std::string& activation,
                            const OptionalTensor& add) {
  check_map(x);
  TORCH_CHECK_VALUE(
      kernel_size.size() == 2 && stride.size() == 2 && padding.size() == 2,
      "kernel_size, stride and padding must be two numbers each, got ",
      kernel_size, ", ", stride, " and ", padding);
  TORCH_CHECK_VALUE(std::min(kernel_size[0], kernel_size[1]) > 0 &&
                        std::max(kernel_size[0], kernel_size[1]) <
                            kLargestSide,
                    "kernel_size must be from 1 to ", kLargestSide - 1,
                    ", got ", kernel_size);
  const int64_t cells = kernel_size[0] * kernel_size[1];
  const bool strassen = cells == 1 && is_strassen(weight, x.size(1));
  TORCH_CHECK_VALUE(
      strassen || (weight.dim() == 3 && weight.size(1) % cells == 0),
      "weight must be (blocks, ", kernel_size[0], " * ", kernel_size[1],
      " * channels, ", kMapBlock, ") as pack_matrix gives it, got ",
      weight.sizes());
  TORCH_CHECK_VALUE(strassen || weight.size(1) / cells == x.size(1),
                    "weight is for ", weight.size(1) / cells,
                    " channels, got x of ", x.sizes());
  std::vector<at::Tensor> owners;
  ConvTask task =
      conv_task(x, weight, bias, channels, activation, cells * x.size(1),
                strassen, owners);
  task.kernel_height = kernel_size[0];
  task.kernel_width = kernel_size[1];
  task.row_stride = stride[0];
  task.column_stride = stride[1];
  task.top = padding[0];
  task.left = padding[1];
  task.out_height = results(task.height, padding[0], kernel_size[0],
                            stride[0], "height");
  task.out_width =
      results(task.width, padding[1], kernel_size[1], stride[1], "width");
  const auto y = empty_result(x, task);
  if (add.has_value()) {
    check_float(*add, "add");
    TORCH_CHECK_VALUE(add->sizes() == y.sizes(), "add must have the shape ",
                      y.sizes(), " of the result, got ", add->sizes());
    owners.push_back(add->contiguous(at::MemoryFormat::ChannelsLast));
    task.add = owners.back().const_data_ptr<float>();
  }
  if (y.numel() == 0) return y;
  task.x = view_map(x);
  task.x_channel = x.stride(1);
  run_conv(task);
  return y;
}

at::Tensor halving_conv2d_cpu(const at::Tensor& x, const at::Tensor& weight,
                              const OptionalTensor& bias, int64_t channels,
                              const std::string& activation) {
  check_map(x);
  TORCH_CHECK_VALUE(x.size(2) > 0 && x.size(3) > 0,
                    "x must have a height and a width, got ", x.sizes());
  constexpr int64_t kProducts = 25;  // of a patch
  std::vector<at::Tensor> owners;
  ConvTask task = conv_task(x, weight, bias, channels, activation,
                            kProducts * x.size(1), false, owners);
  task.out_height = (task.height + 1) / 2;
  task.out_width = (task.width + 1) / 2;
  const auto y = empty_result(x, task);
  if (y.numel() == 0) return y;
  const auto usable = with_adjacent_channels(x);
  task.x = view_map(usable);

  const auto& kernels = cpu::map_kernels();
  const int64_t patches =
      task.batch * ((task.out_height + 1) / 2) * ((task.out_width + 1) / 2);
  const int64_t threads =
      threads_for(patches, channels, kProducts * task.channels);
  const int64_t tile = kernels.tile_rows;
  const size_t bytes = kernels.halving_scratch(task) * sizeof(float);
  const Pieces pieces{tile, 2 * tile, kernels.halving_patches(task)};
  share_work(patches, pieces, threads, [&](int64_t begin, int64_t end) {
    kernels.halving(task, Range{begin, end},
                    static_cast<float*>(scratch_memory(bytes)));
  });
  return y;
}

}  // namespace

TORCH_LIBRARY_IMPL(selective_scan, CPU, m) {
  m.impl("dense_conv2d", &dense_conv2d_cpu);
  m.impl("halving_conv2d", &halving_conv2d_cpu);
}

}  // namespace selective_scan
