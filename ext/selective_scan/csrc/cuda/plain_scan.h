// The plain scan, of any states, groups and types: operands and block shapes
// of its kernels, and their host side.
#pragma once

#include "../common/scan_shape.h"

namespace selective_scan::cuda {

// A tensor of any strides, in elements.
template <typename T>
struct View {
  T* data = nullptr;
  int64_t strides[4] = {};

  SCAN_HOST_DEVICE T* at(int64_t i, int64_t j, int64_t k,
                         int64_t l = 0) const {
    return data + i * strides[0] + j * strides[1] + k * strides[2] +
           l * strides[3];
  }
};

// A tensor whose last dimension is tokens, in the order of the walk.
template <typename T>
View<T> walk(T* data, const int64_t* strides, int dims, int64_t length,
             bool reverse) {
  View<T> view;
  for (int d = 0; d < dims; ++d) view.strides[d] = strides[d];
  int64_t& step = view.strides[dims - 1];
  view.data = data + (reverse ? (length - 1) * step : 0);
  step = reverse ? -step : step;
  return view;
}

// T is the type in memory, P that of states and parameters. Tokens of all
// views are in the order of the walk: a stride is negative where it goes
// backwards.
template <typename T, typename P>
struct PlainScan {
  int64_t batch, channels, length, state, groups;
  bool softplus;
  View<const T> u, delta;  // (batch, channels, length)
  View<const T> B, C;      // (batch, groups, state, length)
  const P* A;              // (channels, state)
  const P* D;              // (channels,) or null, as bias
  const P* bias;
  View<T> y;  // without data where only the states are wanted
  // What enters each chunk, (2, batch, chunks, state, channels): states, and
  // gradients of states. Null where there is one chunk.
  P* carries;

  // Of the backward pass alone.
  View<const T> grad;
  View<T> grad_u, grad_delta;
  // Partial sums: of B and C, (channel blocks * batch * groups, 2 * state,
  // length); of A, D and bias, (batch, channels, state + 2), which start at 0.
  View<P> rows;
  P* parameters;
};

constexpr int kThreads = 512;

// A block has kChannels channels of one group and walks over chunks of
// kChunk tokens; a thread owns kItems tokens in a row of one channel, and
// kSegments neighbouring threads make up a channel.
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
  template <typename Scan>
  SCAN_HOST_DEVICE static int64_t blocks(const Scan& o) {
    return o.groups * ceil_div(o.channels / o.groups, kChannels);
  }
  template <typename Scan>
  SCAN_HOST_DEVICE static int64_t chunks(const Scan& o) {
    return ceil_div(o.length, kChunk);
  }
  // Elements of shared memory: two tiles, a row of B and one of C.
  static constexpr int kShared = 2 * (kTile + kRow);
};

// Calls use(layout) with that for up to 16, up to 64 or more tokens. float64
// has the first two alone, whose tiles fit into every GPU's shared memory.
template <typename T, typename P, typename Use>
auto with_layout(const PlainScan<T, P>& o, const Use& use) {
  if (o.length <= 16) return use(Layout<4, 4>());
  if constexpr (sizeof(P) < sizeof(double)) {
    if (o.length > 64) return use(Layout<32, 8>());
  }
  return use(Layout<16, 4>());
}

template <typename T, typename P>
void launch_plain_scan(const PlainScan<T, P>& operands, bool backward);

}  // namespace selective_scan::cuda
