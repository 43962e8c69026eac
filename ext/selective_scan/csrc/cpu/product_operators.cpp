// Dense convolutions and feed-forward parts, for inference on the CPU in
// float32, with weights that were packed once.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <algorithm>
#include <string>

#include "map_arguments.h"
#include "map_kernels.h"
#include "scratch.h"
#include "share.h"

namespace selective_scan {
namespace {

using cpu::blocks_of;
using cpu::ConvTask;
using cpu::FeedForwardTask;
using cpu::kMapBlock;
using cpu::kProductRows;
using cpu::Range;

// No sum or product of sizes below it leaves 64 bits.
constexpr int64_t kLargestSide = int64_t{1} << 20;

// How a product is cut: into rows, or into blocks of columns too.
struct Plan {
  int64_t threads = 1;  // of rows; columns are split among all
  bool split_columns = false;
  double cost = 0;  // rows times blocks of the longest share
};

// With all columns in a piece its rows are read once. Few rows, though, do not
// divide evenly, and what a thread does alone the others wait for.
Plan make_plan(int64_t rows, int64_t blocks, int64_t tile, int64_t threads) {
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

// Whether a product is too small for more than one thread.
int64_t threads_for(int64_t rows, int64_t columns, int64_t depth) {
  return rows * columns * depth < 4 * kGrain ? 1 : at::get_num_threads();
}

// Call work(rows, blocks) for at most kProductRows rows at a time.
template <typename Work>
void run_plan(const Plan& plan, int64_t rows, int64_t blocks, int64_t tile,
              const Work& work) {
  if (!plan.split_columns) {
    // The weights of a piece come from afar: two tiles should share them.
    const Pieces pieces{tile, 2 * tile, kProductRows / tile * tile};
    share_work(rows, pieces, plan.threads, [&](int64_t begin, int64_t end) {
      work(Range{begin, end}, Range{0, blocks});
    });
    return;
  }
  const int64_t cells = ceil_div(rows, kProductRows) * blocks;
  share_tasks(cells, 1, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t row = begin / blocks * kProductRows;
      const int64_t block = begin % blocks;
      const int64_t last = std::min(blocks, block + end - begin);
      work(Range{row, std::min(row + kProductRows, rows)},
           Range{block, last});
      begin += last - block;
    }
  });
}

void check_matrix(const at::Tensor& weight, const char* name, int64_t depth) {
  check_float(weight, name);
  TORCH_CHECK_VALUE(
      weight.dim() == 3 && weight.is_contiguous() &&
          weight.size(1) == depth && weight.size(2) == kMapBlock,
      name, " must be contiguous (blocks, ", depth, ", ", kMapBlock,
      ") as pack_matrix gives it, got ", weight.sizes());
}

void run_conv(const ConvTask& task) {
  const auto& kernels = cpu::map_kernels();
  const int64_t rows = task.batch * task.out_height * task.out_width;
  const int64_t blocks = blocks_of(task.outputs);
  const int64_t depth =
      task.kernel_height * task.kernel_width * task.channels;
  const int64_t threads = threads_for(rows, task.outputs, depth);
  const int64_t tile = kernels.tile_rows;
  const Plan plan = make_plan(rows, blocks, tile, threads);
  const size_t bytes = kernels.conv_scratch(task) * sizeof(float);
  run_plan(plan, rows, blocks, tile, [&](Range part, Range columns) {
    kernels.conv(task, part, columns,
                 static_cast<float*>(scratch_memory(bytes)));
  });
}

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

at::Tensor dense_conv2d_cpu(const at::Tensor& x, const at::Tensor& weight,
                            const OptionalTensor& bias, int64_t channels,
                            at::IntArrayRef kernel_size,
                            at::IntArrayRef stride, at::IntArrayRef padding,
                            const std::string& activation,
                            const OptionalTensor& add) {
  check_float(x, "x");
  TORCH_CHECK_VALUE(x.dim() == 4 && x.size(1) > 0,
                    "x must be (batch, channels, height, width), got ",
                    x.sizes());
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
  TORCH_CHECK_VALUE(weight.dim() == 3 && weight.size(1) % cells == 0,
                    "weight must be (blocks, ", kernel_size[0], " * ",
                    kernel_size[1], " * channels, ", kMapBlock,
                    ") as pack_matrix gives it, got ", weight.sizes());
  TORCH_CHECK_VALUE(weight.size(1) / cells == x.size(1), "weight is for ",
                    weight.size(1) / cells, " channels, got x of ",
                    x.sizes());
  ConvTask task;
  task.activation = activation_of(activation);
  task.batch = x.size(0);
  task.channels = x.size(1);
  task.height = x.size(2);
  task.width = x.size(3);
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
  task.outputs = channels;
  check_matrix(weight, "weight", weight.size(1));
  TORCH_CHECK_VALUE(channels > 0 && blocks_of(channels) == weight.size(0),
                    "channels must fit the ", weight.size(0),
                    " blocks of weight, got ", channels);
  std::vector<at::Tensor> owners;
  task.bias =
      parameter(bias, "bias", weight.size(0) * kMapBlock, owners);
  auto y = at::empty({task.batch, channels, task.out_height, task.out_width},
                     x.options(), at::MemoryFormat::ChannelsLast);
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
  task.weight = weight.const_data_ptr<float>();
  task.y = y.mutable_data_ptr<float>();
  run_conv(task);
  return y;
}

// One of the two products of a feed-forward part whose rows are too few to
// keep all threads busy with both.
void run_product(const float* x, int64_t rows, int64_t channels,
                 const float* weight, const float* bias, int64_t outputs,
                 cpu::Activation activation, const float* add, float* y) {
  ConvTask task;
  task.x = {x, rows * channels, channels, channels};
  task.batch = task.width = task.out_width = 1;
  task.height = task.out_height = rows;
  task.channels = channels;
  task.outputs = outputs;
  task.weight = weight;
  task.bias = bias;
  task.activation = activation;
  task.add = add;
  task.y = y;
  run_conv(task);
}

at::Tensor feed_forward_cpu(const at::Tensor& x, const at::Tensor& first,
                            const OptionalTensor& first_bias,
                            const at::Tensor& second,
                            const OptionalTensor& second_bias, int64_t hidden,
                            const std::string& activation) {
  check_float(x, "x");
  TORCH_CHECK_VALUE(x.dim() == 4 && x.size(1) > 0,
                    "x must be (batch, channels, height, width), got ",
                    x.sizes());
  FeedForwardTask task;
  task.activation = activation_of(activation);
  task.channels = x.size(1);
  task.hidden = hidden;
  check_matrix(first, "first", task.channels);
  TORCH_CHECK_VALUE(hidden > 0 && blocks_of(hidden) == first.size(0),
                    "hidden must fit the ", first.size(0),
                    " blocks of first, got ", hidden);
  check_matrix(second, "second", hidden);
  TORCH_CHECK_VALUE(second.size(0) == blocks_of(task.channels),
                    "second must have blocks for the ", task.channels,
                    " channels of x, got ", second.sizes());
  std::vector<at::Tensor> owners;
  task.first_bias =
      parameter(first_bias, "first_bias", first.size(0) * kMapBlock, owners);
  task.second_bias = parameter(second_bias, "second_bias",
                               second.size(0) * kMapBlock, owners);
  const auto dense = x.contiguous(at::MemoryFormat::ChannelsLast);
  auto y = at::empty(x.sizes(), x.options(), at::MemoryFormat::ChannelsLast);
  if (y.numel() == 0) return y;
  task.x = dense.const_data_ptr<float>();
  task.y = y.mutable_data_ptr<float>();
  task.first = first.const_data_ptr<float>();
  task.second = second.const_data_ptr<float>();

  const auto& kernels = cpu::map_kernels();
  const int64_t rows = x.size(0) * x.size(2) * x.size(3);
  const int64_t threads = threads_for(rows, hidden, task.channels);
  const int64_t tile = kernels.tile_rows;
  // One block: its columns cannot be split.
  const Plan plan = make_plan(rows, 1, tile, threads);
  // Together the products spare the hidden values the way to memory and back,
  // which is worth a twelfth of the work, as measured.
  const double share = static_cast<double>(rows) / static_cast<double>(threads);
  if (plan.cost > 1.08 * share) {
    auto between = at::empty({rows, hidden}, x.options());
    float* values = between.mutable_data_ptr<float>();
    run_product(task.x, rows, task.channels, task.first, task.first_bias,
                hidden, task.activation, nullptr, values);
    run_product(values, rows, hidden, task.second, task.second_bias,
                task.channels, cpu::Activation::kNone, task.x, task.y);
    return y;
  }
  const size_t bytes = kernels.feed_forward_scratch(task) * sizeof(float);
  run_plan(plan, rows, 1, tile, [&](Range part, Range) {
    kernels.feed_forward(task, part,
                         static_cast<float*>(scratch_memory(bytes)));
  });
  return y;
}

}  // namespace

TORCH_LIBRARY_IMPL(selective_scan, CPU, m) {
  m.impl("dense_conv2d", &dense_conv2d_cpu);
  m.impl("feed_forward", &feed_forward_cpu);
}

}  // namespace selective_scan
