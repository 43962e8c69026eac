// The last sums of the backward pass, in a fixed order.
#pragma once

#include "bidirectional_block.cuh"
#include "bidirectional_totals.h"

namespace selective_scan::cuda {

template <typename T>
__device__ __forceinline__ void sum_rows(const Totals<T>& g, int set) {
  const int quads = g.slots / 4;
  const int i = blockIdx.x * kTotalThreads + threadIdx.x;
  if (i >= g.length * quads) return;
  const int64_t size = static_cast<int64_t>(g.length) * quads;
  const float4* from =
      reinterpret_cast<const float4*>(g.rows) + set * size + i;
  float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll 4
  for (int k = 0; k < g.blocks; ++k) {
    const float4 x = from[k * size * g.batch * g.directions];
    sum = make_float4(sum.x + x.x, sum.y + x.y, sum.z + x.z, sum.w + x.w);
  }
  const int token = i / quads, slot = i % quads * 4;
  T* const to = g.proj + set / g.directions * g.proj_batch +
                set % g.directions * static_cast<int64_t>(g.proj_set) +
                static_cast<int64_t>(token) * g.proj_token;
  const float values[4] = {sum.x, sum.y, sum.z, sum.w};
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const int row = slot + k < 2 ? g.rank + slot + k : slot + k - 2;
    if (slot + k < g.rank + 2) {
      to[static_cast<int64_t>(row) * g.proj_row] = Vector<T>::round(values[k]);
    }
  }
}

template <typename T>
__device__ __forceinline__ void sum_parameters(const Totals<T>& g,
                                               float* shared) {
  const int lane = threadIdx.x % kColumns, group = threadIdx.x / kColumns;
  const int groups = kTotalThreads / kColumns;
  const int count = g.directions * g.width * g.slots;
  const int column = blockIdx.x * kColumns + lane;
  const bool skip = column >= count;
  const int place = skip ? column - count : column;
  const int size = skip ? g.width : count;
  if (static_cast<int>(blockIdx.x) * kColumns >= count + g.width) return;
  float sum = 0.f;
  if (place < size) {
    const float* const from = (skip ? g.skips : g.parameters) + place;
#pragma unroll 8
    for (int k = group; k < g.chunks; k += groups) {
      sum += from[static_cast<int64_t>(k) * size];
    }
  }
  shared[threadIdx.x] = sum;
  __syncthreads();
  if (group > 0 || place >= size) return;
  for (int k = 1; k < groups; ++k) sum += shared[k * kColumns + lane];
  if (skip) {
    if (place >= g.channels) return;
    for (int d = 0; d < g.directions; ++d) g.D[d * g.channels + place] = sum;
    return;
  }
  const int slot = place % g.slots, channel = place / g.slots % g.width;
  const int direction = place / g.slots / g.width;
  if (channel >= g.channels || slot >= g.rank + 2) return;
  const int p = direction * g.channels + channel;
  if (slot == 0) {
    g.A[p] = sum;
  } else if (slot == 1) {
    g.bias[p] = sum;
  } else {
    g.weight[p * g.rank + slot - 2] = sum;
  }
}

template <typename T>
__device__ __forceinline__ void totals_block(const Totals<T>& g,
                                             float* shared) {
  const int set = blockIdx.y;
  if (set < g.batch * g.directions) {
    sum_rows(g, set);
  } else {
    sum_parameters(g, shared);
  }
}

}  // namespace selective_scan::cuda
