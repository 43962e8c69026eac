// How the work of a product is cut among threads.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>

#include "feature_map_arguments.h"
#include "feature_map_kernels.h"
#include "../cpu/scratch.h"
#include "../cpu/work_stealing.h"

namespace selective_scan {

using cpu::Range;

// What a product is cut into: rows, or pairs of them by Strassen's algorithm.
struct Units {
  int64_t count = 0;
  int64_t tile = 0;  // that are taken at once
  int64_t most = 0;  // of a task
};

inline Units units_of(int64_t images, int64_t cells, bool strassen) {
  const auto& kernels = cpu::map_kernels();
  if (!strassen) {
    return {images * cells, kernels.tile_rows, cpu::kProductRows};
  }
  return {images * ceil_div(cells, 2), kernels.tile_pairs, cpu::kPairs};
}

// How a product is cut: into units, or into blocks of columns too.
struct Plan {
  bool split_columns = false;
  double cost = 0;  // units times blocks of the longest share
};

// With all columns in a piece its rows are read once. Few rows, though, do not
// divide evenly, and what a thread does alone the others wait for.
inline Plan make_plan(const Units& units, int64_t blocks, int64_t threads) {
  const auto cost = [&](int64_t parts) {
    const int64_t tiles =
        ceil_div(ceil_div(units.count, units.tile), threads / parts);
    return static_cast<double>(tiles * units.tile * ceil_div(blocks, parts));
  };
  Plan plan{false, cost(1)};
  for (int64_t parts = 2; parts <= threads; ++parts) {
    // Reading the rows again must be worth it.
    if (threads % parts == 0 && cost(parts) < 0.97 * plan.cost) {
      plan = {true, cost(parts)};
    }
  }
  return plan;
}

// Whether a product is too small for more than one thread.
inline int64_t threads_for(int64_t rows, int64_t columns, int64_t depth) {
  return rows * columns * depth < 4 * kGrain ? 1 : at::get_num_threads();
}

// Call work(units, blocks) for at most as many units as a task takes.
template <typename Work>
void run_plan(const Plan& plan, const Units& units, int64_t blocks,
              int64_t threads, const Work& work) {
  if (!plan.split_columns) {
    // The weights of a piece come from afar: two tiles should share them.
    const Pieces pieces{units.tile, 2 * units.tile,
                        units.most / units.tile * units.tile};
    share_work(units.count, pieces, threads, [&](int64_t begin, int64_t end) {
      work(Range{begin, end}, Range{0, blocks});
    });
    return;
  }
  const int64_t cells = ceil_div(units.count, units.most) * blocks;
  share_tasks(cells, 1, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t first = begin / blocks * units.most;
      const int64_t block = begin % blocks;
      const int64_t last = std::min(blocks, block + end - begin);
      work(Range{first, std::min(first + units.most, units.count)},
           Range{block, last});
      begin += last - block;
    }
  });
}

// Values of a row from which halves of it fill vectors of any width.
constexpr int64_t kStrassenDepth = 32;

// Whether a matrix of `depth` values an output is packed for Strassen's
// algorithm.
inline bool is_strassen(const at::Tensor& weight, int64_t depth) {
  return depth >= kStrassenDepth && depth % 2 == 0 && weight.dim() == 3 &&
         weight.size(1) == depth / 2;
}

inline void check_matrix(const at::Tensor& weight, const char* name,
                         int64_t depth, int64_t outputs, const char* count,
                         bool strassen) {
  check_float(weight, name);
  if (strassen) depth /= 2;
  TORCH_CHECK_VALUE(
      weight.dim() == 3 && weight.is_contiguous() &&
          weight.size(1) == depth && weight.size(2) == cpu::kMapBlock,
      name, " must be contiguous (blocks, ", depth, ", ", cpu::kMapBlock,
      ") as ", strassen ? "pack_strassen" : "pack_matrix", " gives it, got ",
      weight.sizes());
  const auto blocks = [&] {
    return strassen ? cpu::strassen_tiles(cpu::strassen_groups(outputs),
                                          outputs)
                    : cpu::blocks_of(outputs);
  };
  TORCH_CHECK_VALUE(
      outputs > 0 && outputs <= weight.numel() && blocks() == weight.size(0),
      count, " must fit the ", weight.size(0), " blocks of ", name, ", got ",
      outputs);
}

inline void run_conv(const cpu::ConvTask& task) {
  const auto& kernels = cpu::map_kernels();
  const int64_t cells = task.out_height * task.out_width;
  const int64_t depth =
      task.kernel_height * task.kernel_width * task.channels;
  const int64_t threads =
      threads_for(task.batch * cells, task.outputs, depth);
  const int64_t blocks = task.strassen ? cpu::strassen_groups(task.outputs)
                                       : cpu::blocks_of(task.outputs);
  const Units units = units_of(task.batch, cells, task.strassen);
  const Plan plan = make_plan(units, blocks, threads);
  const size_t bytes = kernels.conv_scratch(task) * sizeof(float);
  run_plan(plan, units, blocks, threads, [&](Range part, Range columns) {
    kernels.conv(task, part, columns,
                 static_cast<float*>(scratch_memory(bytes)));
  });
}

}  // namespace selective_scan
