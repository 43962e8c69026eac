// What the operators hand to the CPU kernels, and the kernels' tables. Each
// instruction set has a table of its own, compiled in a file of its own.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../common/scan_shape.h"

namespace selective_scan::cpu {

constexpr int kBlock = 32;  // channels that a task works on at a time
constexpr int kTile = 32;   // tokens that stay in the first-level cache

enum class Storage { kFloat, kHalf, kBFloat16, kDouble };

// Tensors as pointers and strides. Parameters are contiguous, in the state's
// type; any of delta, dt, D, bias, dt_proj may be null.
struct Operands {
  ScanShape shape;
  const void* u = nullptr;
  const void* delta = nullptr;
  const void* dt = nullptr;
  const void* B = nullptr;
  const void* C = nullptr;
  const void* grad = nullptr;
  ChannelStrides u_strides, delta_strides, grad_strides;
  RowStrides dt_strides, B_strides, C_strides;
  const void* A = nullptr;
  const void* D = nullptr;
  const void* bias = nullptr;
  const void* dt_proj = nullptr;
  void* y = nullptr;
  ChannelStrides y_strides;
};

// How the backward pass is cut into tasks. It depends on the shape alone, so
// that sums are taken in the same order whatever the number of threads.
struct BackwardPlan {
  int64_t blocks = 0;        // channel blocks in all
  int64_t block_groups = 0;  // tasks along the channels
  int64_t batch_groups = 0;  // tasks along the batch
  int64_t rows = 0;          // dt, B and C rows of one set
  int64_t columns = 0;       // tokens of a row of partial sums, padded
  int64_t parameters = 0;    // parameter gradients per channel and direction
};

inline int64_t at_least_one(int64_t n) { return n < 1 ? 1 : n; }

inline BackwardPlan plan_backward(const ScanShape& shape) {
  // Enough tasks for many threads, yet each worth the sums that it adds.
  const int64_t steps = shape.batch * shape.channels * shape.length;
  const int64_t tasks = at_least_one(smaller(steps / 8192, 64));
  BackwardPlan plan;
  plan.blocks = count_blocks(shape, kBlock);
  plan.batch_groups = at_least_one(smaller(shape.batch, ceil_div(tasks, 4)));
  plan.block_groups =
      at_least_one(smaller(plan.blocks, ceil_div(tasks, plan.batch_groups)));
  plan.rows = shape.rank + 2 * shape.state;
  plan.columns = ceil_div(shape.length, kTile) * kTile;
  plan.parameters = shape.rank + shape.state + 2;  // dt_proj, A, D, bias
  return plan;
}

// Where the backward pass writes. Partial sums are in the state's type and
// start at 0: rows (block_groups, batch, sets, rows, columns), parameters
// (batch_groups, blocks, directions, parameters, kBlock).
struct Gradients {
  void* u = nullptr;
  void* delta = nullptr;
  ChannelStrides u_strides, delta_strides;
  void* rows = nullptr;
  void* parameters = nullptr;
};

struct Kernels {
  const char* name;
  // Tasks are (channel block, batch) pairs, batch fastest.
  size_t (*forward_scratch)(const ScanShape&);
  void (*forward)(const Operands&, int64_t begin, int64_t end, void* scratch);
  // Tasks are (block group, batch group) pairs, batch group fastest.
  size_t (*backward_scratch)(const ScanShape&);
  void (*backward)(const Operands&, const Gradients&, const BackwardPlan&,
                   int64_t begin, int64_t end, void* scratch);
};

// The table for a type, or null where the variant is not built or lacks it.
const Kernels* plain_kernels(Storage storage);
const Kernels* avx2_kernels(Storage storage);
const Kernels* avx512_kernels(Storage storage);

enum class Variant { kPlain, kAvx2, kAvx512 };

// The best variant that this processor runs and this build holds.
Variant best_variant();
Variant current_variant();
void set_variant(Variant variant);
const char* variant_name(Variant variant);
const Kernels& kernels(Storage storage);

}  // namespace selective_scan::cpu
