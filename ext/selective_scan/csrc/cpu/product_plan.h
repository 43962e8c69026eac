// How the work of a product is cut among threads.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>

#include "map_arguments.h"
#include "map_kernels.h"
#include "scratch.h"
#include "share.h"

namespace selective_scan {

using cpu::kProductRows;
using cpu::Range;

// How a product is cut: into rows, or into blocks of columns too.
struct Plan {
  bool split_columns = false;
  double cost = 0;  // rows times blocks of the longest share
};

// With all columns in a piece its rows are read once. Few rows, though, do not
// divide evenly, and what a thread does alone the others wait for.
inline Plan make_plan(int64_t rows, int64_t blocks, int64_t tile,
                      int64_t threads) {
  const auto cost = [&](int64_t parts) {
    const int64_t tiles = ceil_div(ceil_div(rows, tile), threads / parts);
    return static_cast<double>(tiles * tile * ceil_div(blocks, parts));
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

// Call work(rows, blocks) for at most kProductRows rows at a time.
template <typename Work>
void run_plan(const Plan& plan, int64_t rows, int64_t blocks, int64_t tile,
              int64_t threads, const Work& work) {
  if (!plan.split_columns) {
    // The weights of a piece come from afar: two tiles should share them.
    const Pieces pieces{tile, 2 * tile, kProductRows / tile * tile};
    share_work(rows, pieces, threads, [&](int64_t begin, int64_t end) {
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

inline void check_matrix(const at::Tensor& weight, const char* name,
                         int64_t depth) {
  check_float(weight, name);
  TORCH_CHECK_VALUE(
      weight.dim() == 3 && weight.is_contiguous() &&
          weight.size(1) == depth && weight.size(2) == cpu::kMapBlock,
      name, " must be contiguous (blocks, ", depth, ", ", cpu::kMapBlock,
      ") as pack_matrix gives it, got ", weight.sizes());
}

inline void run_conv(const cpu::ConvTask& task) {
  const auto& kernels = cpu::map_kernels();
  const int64_t rows = task.batch * task.out_height * task.out_width;
  const int64_t blocks = cpu::blocks_of(task.outputs);
  const int64_t depth =
      task.kernel_height * task.kernel_width * task.channels;
  const int64_t threads = threads_for(rows, task.outputs, depth);
  const int64_t tile = kernels.tile_rows;
  const Plan plan = make_plan(rows, blocks, tile, threads);
  const size_t bytes = kernels.conv_scratch(task) * sizeof(float);
  run_plan(plan, rows, blocks, tile, threads, [&](Range part, Range columns) {
    kernels.conv(task, part, columns,
                 static_cast<float*>(scratch_memory(bytes)));
  });
}

}  // namespace selective_scan
