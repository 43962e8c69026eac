// Operands and sizes of the CUDA kernels, for host and device code.
#pragma once

#include "../common/scan_shape.h"

namespace selective_scan::cuda {

constexpr int kThreads = 512;
// Shared memory that staged dt rows may take, in bytes.
constexpr int64_t kStagedBytes = 24576;

// T is the type in memory, P that of states and parameters.
template <typename T, typename P>
struct Operands {
  ScanShape shape;
  const T* u = nullptr;
  const T* delta = nullptr;
  const T* dt = nullptr;
  const T* B = nullptr;
  const T* C = nullptr;
  const T* grad = nullptr;
  ChannelStrides u_strides, delta_strides, grad_strides;
  RowStrides dt_strides, B_strides, C_strides;
  const P* A = nullptr;
  const P* D = nullptr;
  const P* bias = nullptr;
  const P* dt_proj = nullptr;
  // What enters each chunk: (slots, batch, chunks, state, channels), slot k
  // the states of direction k, slot directions + k their gradients. Null
  // where there is one chunk.
  P* carries = nullptr;
  int64_t staged_rows = 0;  // dt rows that shared memory has room for
  T* y = nullptr;
  ChannelStrides y_strides;
};

// Partial sums: rows (channel blocks, batch, sets, rows, length), parameters
// (batch, directions, channels, rank + state + 2) in the order dt_proj, A, D,
// bias; both start at 0.
template <typename T, typename P>
struct Gradients {
  T* u = nullptr;
  T* delta = nullptr;
  ChannelStrides u_strides, delta_strides;
  P* rows = nullptr;
  P* parameters = nullptr;
};

template <int segments, int items>
struct Layout {
  static constexpr int kSegments = segments;
  static constexpr int kItems = items;
  static constexpr int kChunk = segments * items;
  static constexpr int kChannels = kThreads / segments;
  // One word of padding in 32 keeps a thread's items in banks of their own,
  // and an odd length keeps neighbouring channels apart.
  static constexpr int kRow = kChunk + kChunk / 32;
  static constexpr int kStride = kRow | 1;
  static constexpr int kTile = kChannels * kStride;

  SCAN_HOST_DEVICE static int padded(int t) { return t + t / 32; }
  SCAN_HOST_DEVICE static int64_t chunks(const ScanShape& shape) {
    return ceil_div(shape.length, kChunk);
  }
  SCAN_HOST_DEVICE static int64_t blocks(const ScanShape& shape) {
    return count_blocks(shape, kChannels);
  }
  // Elements of shared memory: tiles, one B and one C row, staged dt rows.
  SCAN_HOST_DEVICE static int64_t shared(int tiles, int64_t staged_rows) {
    return tiles * kTile + (2 + staged_rows) * kRow;
  }
};

// dt rows to stage for a layout: all, or as many as have room.
template <typename P, typename L>
constexpr int64_t kStagedRows =
    kStagedBytes / static_cast<int64_t>(sizeof(P) * L::kRow);

template <typename P, typename L>
int64_t staged_rows(const ScanShape& shape) {
  return smaller(shape.rank, kStagedRows<P, L>);
}

// For up to 16, up to 64 and more tokens. float64 uses the first two alone,
// whose tiles fit into every GPU's shared memory.
using ShortLayout = Layout<4, 4>;
using MiddleLayout = Layout<16, 4>;
using LongLayout = Layout<32, 8>;

// Tokens of a chunk and blocks of channels, as a scan of this length has them.
struct Grid {
  int64_t chunks;
  int64_t blocks;
};

template <typename P>
Grid choose_grid(const ScanShape& shape) {
  if (shape.length <= ShortLayout::kChunk) {
    return {ShortLayout::chunks(shape), ShortLayout::blocks(shape)};
  }
  if (shape.length <= MiddleLayout::kChunk || sizeof(P) == sizeof(double)) {
    return {MiddleLayout::chunks(shape), MiddleLayout::blocks(shape)};
  }
  return {LongLayout::chunks(shape), LongLayout::blocks(shape)};
}

}  // namespace selective_scan::cuda
