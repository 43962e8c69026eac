// What the operators hand to the CPU kernels, and the kernels' tables. Each
// instruction set has a table of its own, compiled in a file of its own.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>

#include "../common/scan_shape.h"
#include "../inference/feature_map_kernels.h"

#if defined(__x86_64__) || defined(__i386__)
#define SCAN_X86 1
#include <immintrin.h>
#endif

namespace selective_scan::cpu {

constexpr int kBlock = 32;  // channels that a task works on at a time
constexpr int kTile = 32;   // tokens that stay in the first-level cache

// A tensor (batch, channels, length) or rows (batch, sets, rows, length) in
// the state's type, strides in elements; the former has set == 0.
template <typename Memory>  // void or const void
struct View {
  Memory* data = nullptr;
  int64_t batch = 0, set = 0, row = 0, token = 0;

  int64_t offset(int64_t b, int64_t s, int64_t r, int64_t t) const {
    return b * batch + s * set + r * row + t * token;
  }
};

// Any of delta, dt, D, bias and dt_proj may be null. Parameters are contiguous
// and of the state's type.
struct Operands {
  ScanShape shape;
  View<const void> u, delta, dt, B, C, grad;
  const void* A = nullptr;
  const void* D = nullptr;
  const void* bias = nullptr;
  const void* dt_proj = nullptr;
  View<void> y;

  int64_t padded_length() const {
    return ceil_div(shape.length, kTile) * kTile;
  }
  // Rows dt, B and C of one set.
  int64_t rows() const { return shape.rank + 2 * shape.state; }
  // dt_proj, A, D and bias, per channel and direction.
  int64_t parameters() const { return shape.rank + shape.state + 2; }
};

// Where the backward pass writes. Partial sums start at 0: rows (block_groups,
// batch, sets, rows, padded length), parameters (batch_groups, directions,
// parameters, blocks, kBlock). Tasks depend on the shape alone, so that sums
// are taken in the same order whatever the number of threads.
struct Gradients {
  View<void> u, delta;
  void* rows = nullptr;
  void* parameters = nullptr;
  int64_t blocks = 0;        // of channels in all
  int64_t block_groups = 1;  // tasks along the channels
  int64_t batch_groups = 1;  // tasks along the batch
};

struct ScanKernels {
  // Tasks are (channel block, batch) pairs, batch fastest.
  void (*forward)(const Operands&, int64_t begin, int64_t end);
  // Tasks are (block group, batch group) pairs, batch group fastest.
  void (*backward)(const Operands&, const Gradients&, int64_t begin,
                   int64_t end);
};

// A run of at most kBlock channels, all of one group.
struct ChannelBlock {
  int64_t group = 0;
  int64_t first = 0;
  int64_t width = 0;
};

inline int64_t blocks_per_group(const ScanShape& shape) {
  return ceil_div(shape.channels / shape.groups, kBlock);
}

inline ChannelBlock channel_block(const ScanShape& shape, int64_t index) {
  const int64_t channels = shape.channels / shape.groups;
  const int64_t group = index / blocks_per_group(shape);
  const int64_t offset = index % blocks_per_group(shape) * kBlock;
  return {group, group * channels + offset,
          smaller(kBlock, channels - offset)};
}

// All kernels for one instruction set; float64 is always plain. Filter tasks
// are (image, channel block) pairs, blocks fastest. Products take at most
// kProductRows rows at a time.
struct Variant {
  const char* name;
  ScanKernels scan;
  void (*depthwise)(const FilterTask&, int64_t begin, int64_t end);
  void (*wavelet)(const FilterTask&, int64_t begin, int64_t end);
  // Adds to sums (side, side, bands, kMapBlock) what one task gives, without
  // both transforms' factors.
  void (*wavelet_gradient)(const FilterTask&, const FilterTask& grad,
                           int64_t index, float* sums);
  void (*gated_norm)(const GatedNormTask&, int64_t begin, int64_t end);
  int64_t tile_rows;  // that a product takes at once
  // Those blocks of 16 outputs that it is given.
  void (*conv)(const ConvTask&, Range rows, Range blocks);
  // Two convolutions of kernel 1, the second one of what the first one gives.
  void (*feed_forward)(const ConvTask& first, const ConvTask& second,
                       Range rows);
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
