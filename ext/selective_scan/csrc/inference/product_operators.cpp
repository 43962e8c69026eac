// Dense convolutions and the feed-forward part of a block, for inference on
// the CPU in float32, with weights that were packed once.
#include <torch/library.h>

#include <algorithm>

#include "../cpu/work_stealing.h"
#include "feature_map_arguments.h"

namespace selective_scan {
namespace {

using cpu::blocks_of;
using cpu::ConvTask;
using cpu::kMapBlock;
using cpu::kProductRows;
using cpu::Range;

// No sum or product of sizes below it leaves 64 bits.
constexpr int64_t kLargestSide = int64_t{1} << 20;

// How the work of a product is cut among threads: into rows, or into blocks of
// columns too.
struct Plan {
  int64_t threads = 1;
  bool split_columns = false;
  double cost = 0;  // rows times blocks of the longest share
};

// With all columns in a piece its rows are read once. Few rows, though, do not
// divide evenly, and what a thread does alone the others wait for.
Plan make_plan(int64_t rows, int64_t blocks, int64_t work) {
  const int64_t tile = cpu::feature_map_kernels().tile_rows;
  const int64_t threads = work < 4 * kGrain ? 1 : at::get_num_threads();
  const auto cost = [&](int64_t parts) {
    const int64_t tiles = ceil_div(ceil_div(rows, tile), threads / parts);
    return static_cast<double>(tiles * tile * ceil_div(blocks, parts));
  };
  Plan plan{threads, false, cost(1)};
  for (int64_t parts = 2; parts <= threads; ++parts) {
    // Reading the rows again must be worth it.
    if (threads % parts == 0 && cost(parts) < 0.97 * plan.cost) {
      plan = {threads, true, cost(parts)};
    }
  }
  return plan;
}

// Call work(rows, blocks) for at most as many rows as a task takes.
template <typename Work>
void run_plan(const Plan& plan, int64_t rows, int64_t blocks,
              const Work& work) {
  if (!plan.split_columns) {
    // The weights of a piece come from afar: two tiles should share them.
    const int64_t tile = cpu::feature_map_kernels().tile_rows;
    const Pieces pieces{tile, 2 * tile, kProductRows / tile * tile};
    share_work(rows, pieces, plan.threads, [&](int64_t begin, int64_t end) {
      work(Range{begin, end}, Range{0, blocks});
    });
    return;
  }
  const int64_t cells = ceil_div(rows, kProductRows) * blocks;
  share_tasks(cells, 1, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t first = begin / blocks * kProductRows;
      const int64_t block = begin % blocks;
      const int64_t last = std::min(blocks, block + end - begin);
      work(Range{first, std::min(first + kProductRows, rows)},
           Range{block, last});
      begin += last - block;
    }
  });
}

const float* check_matrix(const at::Tensor& weight, const char* name,
                          int64_t depth, int64_t outputs, const char* count) {
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

void run_conv(const ConvTask& task) {
  const auto& kernels = cpu::feature_map_kernels();
  const int64_t rows = task.rows(), blocks = blocks_of(task.outputs);
  run_plan(make_plan(rows, blocks, rows * task.outputs * task.depth()), rows,
           blocks, [&](Range part, Range columns) {
             kernels.conv(task, part, columns);
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

// A convolution of kernel 1, but for its weight.
ConvTask conv_task(const at::Tensor& x, int64_t outputs) {
  ConvTask task;
  task.x = {x.const_data_ptr<float>(), x.stride(0), x.stride(2), x.stride(3)};
  task.x_channel = x.stride(1);
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
  check_map(x);
  TORCH_CHECK_VALUE(
      kernel_size.size() == 2 && stride.size() == 2 && padding.size() == 2,
      "kernel_size, stride and padding must be two numbers each, got ",
      kernel_size, ", ", stride, " and ", padding);
  Owners owners;
  auto task = conv_task(x, channels);
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
  task.activation = activation_of(activation);
  task.weight =
      check_matrix(weight, "weight", task.depth(), channels, "channels");
  task.bias = owners.parameter(bias, "bias", weight.size(0) * kMapBlock);
  const auto y =
      empty_map(x, {task.batch, channels, task.out_height, task.out_width});
  task.add[0] = owners.summand(add, y.sizes());
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
  check_map(x);
  Owners owners;
  const int64_t channels = x.size(1), padded = blocks_of(channels) * kMapBlock;
  const float* weight =
      check_matrix(first, "first", channels, hidden, "hidden");
  const float* back = check_matrix(second, "second", hidden, channels, "x");
  if (filter.has_value()) {
    check_sizes("filter", *filter, {3, 3, padded}, "(3, 3, padded channels)");
    check_float(*filter, "filter");
  }
  TORCH_CHECK_VALUE(filter.has_value() || !filter_bias.has_value(),
                    "filter_bias must stand beside filter");
  owners.parameter(filter_bias, "filter_bias", padded);
  const auto z =
      filter.has_value()
          ? depthwise_conv2d(x, filter->contiguous(), filter_bias, "none", {},
                             {})
          : x.contiguous(at::MemoryFormat::ChannelsLast);
  auto one = conv_task(z, hidden);
  one.weight = weight;
  one.bias =
      owners.parameter(first_bias, "first_bias", first.size(0) * kMapBlock);
  one.activation = activation_of(activation);
  auto y = empty_map(x, x.sizes());
  auto two = conv_task(y, channels);
  two.channels = hidden;
  two.weight = back;
  two.bias = owners.parameter(second_bias, "second_bias", padded);
  two.add[0] = z.const_data_ptr<float>();
  two.add[1] = owners.summand(add, x.sizes());
  if (y.numel() == 0) return y;
  two.y = y.mutable_data_ptr<float>();

  const int64_t rows = one.rows();
  // One block: its columns cannot be split.
  const Plan plan = make_plan(rows, 1, rows * hidden * channels);
  // Together the products spare the hidden values the way to memory and back,
  // which is worth a twelfth of the work, as measured.
  const double share =
      static_cast<double>(rows) / static_cast<double>(plan.threads);
  if (plan.cost > 1.08 * share) {
    // Rows too few to keep all threads busy: each product with all threads.
    const auto between = empty_map(
        x, {x.size(0), hidden, x.size(2), x.size(3)});
    one.y = between.mutable_data_ptr<float>();
    two.x = conv_task(between, channels).x;
    run_conv(one);
    run_conv(two);
    return y;
  }
  run_plan(plan, rows, 1, [&](Range part, Range) {
    cpu::feature_map_kernels().feed_forward(one, two, part);
  });
  return y;
}

}  // namespace

TORCH_LIBRARY_IMPL(selective_scan, CPU, m) {
  m.impl("dense_conv2d", &dense_conv2d);
  m.impl("feed_forward", &feed_forward);
}

}  // namespace selective_scan
