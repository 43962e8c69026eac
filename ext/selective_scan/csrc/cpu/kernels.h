// What the operators hand to the CPU kernels, and the kernels' tables. Each
// instruction set has a table of its own, compiled in a file of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "../common/scan_shape.h"
#include "../inference/feature_map_kernels.h"

#if defined(__x86_64__) || defined(__i386__)
#define SCAN_X86 1
#endif

namespace selective_scan::cpu {

constexpr int kBlock = 32;  // channels that a task works on at a time
constexpr int kTile = 32;   // tokens that stay in the first-level cache

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

// Where the backward pass writes. Partial sums are in the state's type and
// start at 0: rows (block_groups, batch, sets, rows, columns), parameters
// (batch_groups, directions, parameters, blocks, kBlock).
struct Gradients {
  void* u = nullptr;
  void* delta = nullptr;
  ChannelStrides u_strides, delta_strides;
  void* rows = nullptr;
  void* parameters = nullptr;
};

struct ScanKernels {
  // Tasks are (channel block, batch) pairs, batch fastest.
  void (*forward)(const Operands&, int64_t begin, int64_t end);
  // Tasks are (block group, batch group) pairs, batch group fastest.
  void (*backward)(const Operands&, const Gradients&, const BackwardPlan&,
                   int64_t begin, int64_t end);
};

// All kernels for one instruction set; float64 is always plain.
struct Variant {
  const char* name;
  ScanKernels scan_float, scan_half, scan_bfloat16;
  FeatureMapKernels feature_map;
};

const Variant& plain_variant();
const ScanKernels& plain_double_kernels();
#if defined(SCAN_X86)
const Variant& avx2_variant();
const Variant& avx512_variant();
#endif

// The variant in use: the best that the processor runs, until another is set.
const Variant& current_variant();
// By name, or 'best'. False where the processor or this build lacks it.
bool set_variant(const std::string& name);

}  // namespace selective_scan::cpu
