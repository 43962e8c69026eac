// Dense convolutions and the feed-forward part of a block, for inference on
// the CPU in float32, with weights that were packed once.
#include <torch/library.h>

#include <algorithm>

#include "../cpu/kernels.h"
#include "../cpu/work_stealing.h"
#include "feature_map_arguments.h"

namespace selective_scan {
namespace {

using cpu::blocks_of;
using cpu::ConvTask;
using cpu::kMapBlock;
using cpu::kProductRows;

// No sum or product of sizes below it leaves 64 bits.
constexpr int64_t kLargestSide = int64_t{1} << 20;

const float* checked_matrix(const at::Tensor& weight, const char* name,
                            int64_t depth, int64_t outputs,
                            const char* count) {
  check_float(weight, name);
  TORCH_CHECK_VALUE(weight.dim() == 3 && weight.is_contiguous() &&
                        weight.size(1) == depth && weight.size(2) == kMapBlock,
                    name, " must be contiguous (blocks, ", depth, ", ",
                    kMapBlock, ") as pack_matrix gives it, got ",
                    weight.sizes());
  TORCH_CHECK_VALUE(outputs > 0 && outputs <= weight.numel() &&
                        blocks_of(outputs) == weight.size(0),
                    count, " must fit the ", weight.size(0), " blocks of ",
                    name, ", got ", outputs);
  return weight.const_data_ptr<float>();
}

// Tiles of rows that a task takes.
int64_t tiles_of_task() {
  return kProductRows / cpu::current_variant().tile_rows;
}

void run_conv(const ConvTask& task) {
  const auto& kernels = cpu::current_variant();
  const int64_t rows = task.rows(), blocks = blocks_of(task.outputs);
  const int64_t piece = tiles_of_task() * kernels.tile_rows;
  const int64_t work = piece * task.depth() * kMapBlock;
  // Blocks fastest: those of the same rows are one task.
  share_tasks(ceil_div(rows, piece) * blocks, grain(work / 2),
              [&](int64_t begin, int64_t end) {
                while (begin < end) {
                  const int64_t first = begin / blocks * piece;
                  const int64_t block = begin % blocks;
                  const int64_t last = std::min(blocks, block + end - begin);
                  kernels.conv(task, {first, std::min(first + piece, rows)},
                               {block, last});
                  begin += last - block;
                }
              });
}

int64_t results(int64_t size, int64_t padding, int64_t kernel, int64_t stride,
                const char* side) {
  TORCH_CHECK_VALUE(
      kernel > 0 && kernel < kLargestSide && stride > 0 && padding >= 0 &&
          padding < kLargestSide,
      "kernel_size and stride must be positive and padding from 0, all below ",
      kLargestSide, ", got ", kernel, ", ", stride, " and ", padding,
      " for the ", side);
  const int64_t room = size + 2 * padding - kernel;
  TORCH_CHECK_VALUE(room >= 0, "x is too small for kernel_size: ", side, " ",
                    size, " with padding ", padding, " against ", kernel);
  return room / stride + 1;
}

// A convolution of kernel 1, but for its weight and its results.
ConvTask conv_task(const at::Tensor& x, int64_t outputs) {
  ConvTask task;
  task.x = view_of(x, x.const_data_ptr<float>());
  task.batch = x.size(0);
  task.channels = x.size(1);
  task.height = task.out_height = x.size(2);
  task.width = task.out_width = x.size(3);
  task.outputs = outputs;
  return task;
}

at::Tensor dense_conv2d(const at::Tensor& x, const at::Tensor& weight,
                        const OptionalTensor& bias, int64_t channels,
                        at::IntArrayRef kernel_size, at::IntArrayRef stride,
                        at::IntArrayRef padding, const std::string& activation,
                        const OptionalTensor& add) {
  const auto map = checked_map(x);
  TORCH_CHECK_VALUE(
      kernel_size.size() == 2 && stride.size() == 2 && padding.size() == 2,
      "kernel_size, stride and padding must be two numbers each, got ",
      kernel_size, ", ", stride, " and ", padding);
  auto task = conv_task(map, channels);
  task.kernel_height = kernel_size[0];
  task.kernel_width = kernel_size[1];
  task.row_stride = stride[0];
  task.column_stride = stride[1];
  task.top = padding[0];
  task.left = padding[1];
  task.out_height =
      results(task.height, padding[0], kernel_size[0], stride[0], "height");
  task.out_width =
      results(task.width, padding[1], kernel_size[1], stride[1], "width");
  task.activation = activation_of(activation);
  task.weight =
      checked_matrix(weight, "weight", task.depth(), channels, "channels");
  task.bias = checked_parameter(bias, "bias", weight.size(0) * kMapBlock);
  const auto y =
      empty_map(x, {task.batch, channels, task.out_height, task.out_width});
  const auto summand = checked_summand(add, y.sizes());
  task.add[0] = optional_data<float>(summand);
  if (y.numel() == 0) return y;
  task.y = y.mutable_data_ptr<float>();
  run_conv(task);
  return y;
}

at::Tensor feed_forward(const at::Tensor& x, const at::Tensor& first,
                        const OptionalTensor& first_bias,
                        const at::Tensor& second,
                        const OptionalTensor& second_bias, int64_t hidden,
                        const std::string& activation,
                        const OptionalTensor& filter,
                        const OptionalTensor& filter_bias,
                        const OptionalTensor& add) {
  const auto map = checked_map(x);
  const int64_t channels = x.size(1), padded = blocks_of(channels) * kMapBlock;
  const float* weight =
      checked_matrix(first, "first", channels, hidden, "hidden");
  const float* back = checked_matrix(second, "second", hidden, channels, "x");
  checked_parameter(filter_bias, "filter_bias", padded);
  if (filter.has_value()) {
    check_sizes("filter", *filter, {3, 3, padded}, "(3, 3, padded channels)");
    check_float(*filter, "filter");
  }
  TORCH_CHECK_VALUE(filter.has_value() || !filter_bias.has_value(),
                    "filter_bias must stand beside filter");
  const auto z =
      filter.has_value()
          ? depthwise_conv2d(map, *filter, filter_bias, "none", {}, {})
          : map.contiguous(at::MemoryFormat::ChannelsLast);
  auto one = conv_task(z, hidden);
  one.weight = weight;
  one.bias =
      checked_parameter(first_bias, "first_bias", first.size(0) * kMapBlock);
  one.activation = activation_of(activation);
  auto y = empty_map(x, x.sizes());
  auto two = conv_task(y, channels);
  two.channels = hidden;
  two.weight = back;
  two.bias = checked_parameter(second_bias, "second_bias", padded);
  two.add[0] = z.const_data_ptr<float>();
  const auto summand = checked_summand(add, x.sizes());
  two.add[1] = optional_data<float>(summand);
  if (y.numel() == 0) return y;
  two.y = y.mutable_data_ptr<float>();

  const auto& kernels = cpu::current_variant();
  const int64_t rows = one.rows(), threads = at::get_num_threads();
  if (rows < 2 * kernels.tile_rows * threads) {
    // Rows too few for all threads: both products with all columns apart.
    const auto between =
        empty_map(x, {x.size(0), hidden, x.size(2), x.size(3)});
    one.y = between.mutable_data_ptr<float>();
    two.x = view_of(between, between.const_data_ptr<float>());
    run_conv(one);
    run_conv(two);
    return y;
  }
  // The weights come from afar: two tiles should share them.
  const int64_t tile = kernels.tile_rows;
  share_tasks(ceil_div(rows, tile), 2, [&](int64_t begin, int64_t end) {
    for (; begin < end; begin += tiles_of_task()) {
      const int64_t last = std::min(begin + tiles_of_task(), end);
      kernels.feed_forward(one, two,
                           {begin * tile, std::min(last * tile, rows)});
    }
  });
  return y;
}

}  // namespace

TORCH_LIBRARY_IMPL(selective_scan, CPU, m) {
  m.impl("dense_conv2d", &dense_conv2d);
  m.impl("feed_forward", &feed_forward);
}

}  // namespace selective_scan
