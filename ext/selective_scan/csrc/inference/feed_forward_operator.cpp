// The feed-forward part of a block, for inference on the CPU in float32, with
// weights that were packed once.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <algorithm>
#include <string>

#include "product_plan.h"

namespace selective_scan {
namespace {

using cpu::blocks_of;
using cpu::ConvTask;
using cpu::FeedForwardTask;
using cpu::kMapBlock;

// One of the two products of a feed-forward part whose rows are too few to
// keep all threads busy with both.
void run_product(const FeedForwardTask& part, const float* x, int64_t images,
                 int64_t channels, const float* weight, const float* bias,
                 int64_t outputs, cpu::Activation activation,
                 const float* add, float* y) {
  ConvTask task;
  task.batch = images;
  task.height = task.out_height = part.height;
  task.width = task.out_width = part.width;
  const int64_t row = part.width * channels;
  task.x = {x, part.height * row, row, channels};
  task.channels = channels;
  task.outputs = outputs;
  task.weight = weight;
  task.strassen = part.strassen;
  task.bias = bias;
  task.activation = activation;
  task.add = add;
  task.y = y;
  run_conv(task);
}

// Filter and products of a feed-forward part one after the other: each with all
// threads, which rows alone would not keep busy. Sums come in the same order as
// in the kernel, as results must not depend on the number of threads.
void run_apart(const FeedForwardTask& task, int64_t images, int64_t threads,
               const at::TensorOptions& options) {
  const int64_t rows = images * task.height * task.width;
  const float* z = task.x;
  at::Tensor filtered;
  if (task.filter) {
    const auto& kernels = cpu::map_kernels();
    filtered = at::empty({rows, task.channels}, options);
    float* values = filtered.mutable_data_ptr<float>();
    const size_t bytes = kernels.feed_forward_scratch(task) * sizeof(float);
    const int64_t most = cpu::kProductRows;
    const Pieces pieces{1, std::min(grain(9 * task.channels), most), most};
    share_work(rows, pieces, threads, [&](int64_t begin, int64_t end) {
      kernels.filter_rows(task, Range{begin, end},
                          static_cast<float*>(scratch_memory(bytes)),
                          values + begin * task.channels);
    });
    z = values;
  }
  const auto between = at::empty({rows, task.hidden}, options);
  float* values = between.mutable_data_ptr<float>();
  run_product(task, z, images, task.channels, task.first, task.first_bias,
              task.hidden, task.activation, nullptr, values);
  at::Tensor summed;
  if (task.shortcut) {
    const int64_t count = rows * task.channels;
    summed = at::empty({count}, options);
    float* sums = summed.mutable_data_ptr<float>();
    for (int64_t i = 0; i < count; ++i) sums[i] = z[i] + task.shortcut[i];
    z = sums;
  }
  run_product(task, values, images, task.hidden, task.second,
              task.second_bias, task.channels, cpu::Activation::kNone, z,
              task.y);
}

at::Tensor feed_forward_cpu(const at::Tensor& x, const at::Tensor& first,
                            const OptionalTensor& first_bias,
                            const at::Tensor& second,
                            const OptionalTensor& second_bias, int64_t hidden,
                            const std::string& activation,
                            const OptionalTensor& filter,
                            const OptionalTensor& filter_bias,
                            const OptionalTensor& add) {
  check_map(x);
  FeedForwardTask task;
  task.activation = activation_of(activation);
  task.channels = x.size(1);
  task.hidden = hidden;
  task.strassen = is_strassen(first, task.channels);
  TORCH_CHECK_VALUE(
      !task.strassen || (hidden % 2 == 0 && hidden >= kStrassenDepth),
      "hidden must be even and at least ", kStrassenDepth,
      " with weights from pack_strassen, got ", hidden);
  check_matrix(first, "first", task.channels, hidden, "hidden",
               task.strassen);
  check_matrix(second, "second", hidden, task.channels, "channels",
               task.strassen);
  std::vector<at::Tensor> owners;
  const int64_t padded = blocks_of(task.channels) * kMapBlock;
  task.first_bias = parameter(first_bias, "first_bias",
                              blocks_of(hidden) * kMapBlock, owners);
  task.second_bias = parameter(second_bias, "second_bias", padded, owners);
  if (filter.has_value()) {
    check_float(*filter, "filter");
    const auto sizes = {int64_t{3}, int64_t{3}, padded};
    TORCH_CHECK_VALUE(filter->sizes() == at::IntArrayRef(sizes),
                      "filter must be ", at::IntArrayRef(sizes),
                      " as pack_depthwise gives it, got ", filter->sizes());
    owners.push_back(filter->contiguous());
    task.filter = owners.back().const_data_ptr<float>();
  }
  TORCH_CHECK_VALUE(filter.has_value() || !filter_bias.has_value(),
                    "filter_bias must stand beside filter");
  task.filter_bias = parameter(filter_bias, "filter_bias", padded, owners);
  if (add.has_value()) {
    check_float(*add, "add");
    TORCH_CHECK_VALUE(add->sizes() == x.sizes(), "add must have the shape ",
                      x.sizes(), " of x, got ", add->sizes());
    owners.push_back(add->contiguous(at::MemoryFormat::ChannelsLast));
    task.shortcut = owners.back().const_data_ptr<float>();
  }
  const auto dense = x.contiguous(at::MemoryFormat::ChannelsLast);
  auto y = at::empty(x.sizes(), x.options(), at::MemoryFormat::ChannelsLast);
  if (y.numel() == 0) return y;
  task.x = dense.const_data_ptr<float>();
  task.y = y.mutable_data_ptr<float>();
  task.first = first.const_data_ptr<float>();
  task.second = second.const_data_ptr<float>();

  task.height = x.size(2);
  task.width = x.size(3);

  const auto& kernels = cpu::map_kernels();
  const int64_t images = x.size(0), cells = task.height * task.width;
  const int64_t threads = threads_for(images * cells, hidden, task.channels);
  const Units units = units_of(images, cells, task.strassen);
  // One block: its columns cannot be split.
  const Plan plan = make_plan(units, 1, threads);
  // Together the products spare the hidden values the way to memory and back,
  // which is worth a twelfth of the work, as measured.
  const double share =
      static_cast<double>(units.count) / static_cast<double>(threads);
  if (plan.cost > 1.08 * share) {
    run_apart(task, images, threads, x.options());
    return y;
  }
  const size_t bytes = kernels.feed_forward_scratch(task) * sizeof(float);
  run_plan(plan, units, 1, threads, [&](Range part, Range) {
    kernels.feed_forward(task, part,
                         static_cast<float*>(scratch_memory(bytes)));
  });
  return y;
}

}  // namespace

TORCH_LIBRARY_IMPL(selective_scan, CPU, m) {
  m.impl("feed_forward", &feed_forward_cpu);
}

}  // namespace selective_scan
