// The forward kernel of the bidirectional scan with one state.
#pragma once

#include "bidirectional_block.cuh"

namespace selective_scan::cuda {

// dt_proj @ dt + dt_bias of a thread's tokens; kSlots == 0 for any rank.
template <typename T>
__device__ __forceinline__ void make_steps(const Bidirectional<T>& g,
                                           const Place<T>& at, int direction,
                                           const float* row,
                                           float2 (&x)[kTokens]) {
  const int p = direction * g.channels;
  const float2 bias = load_two(g.bias + p, at.channel, at.second);
#pragma unroll
  for (int i = 0; i < kTokens; ++i) x[i] = bias;
  const float* const first = g.weight + (p + at.channel) * g.rank;
  const float* const second = g.weight + (p + at.second) * g.rank;
#pragma unroll 1
  for (int r = 0; r < g.rank; r += 2) {
    const int next = min(r + 1, g.rank - 1);
    const float2 w = make_float2(first[r], second[r]);
    const float2 v = make_float2(first[next], second[next]);
#pragma unroll
    for (int i = 0; i < kTokens; ++i) {
      const float2 dt =
          *reinterpret_cast<const float2*>(row + i * g.slots + r + 2);
      x[i] = fused(dt.x, w, fused(dt.y, v, x[i]));
    }
  }
}

template <typename T, bool kChannelsLast, int kSlots>
__device__ __forceinline__ void forward_direction(
    const Bidirectional<T>& g, const Place<T>& at, const float* rows,
    int direction, float2 skip, const typename Vector<T>::Type (&u)[kTokens],
    float2 (&y)[kTokens], float2 (&reach)[kTokens], float4* sums) {
  const int slots = kSlots > 0 ? kSlots : g.slots;
  const float* const row = rows + (direction * at.chunk + at.token) * slots;
  const int p = direction * g.channels;
  float2 w[kSlots > 0 ? kSlots : 1], x[kTokens];
  float2 bias = make_float2(0.f, 0.f);
  if constexpr (kSlots > 0) {
    bias = load_two(g.bias + p, at.channel, at.second);
    const float* const first = g.weight + (p + at.channel) * g.rank;
    const float* const second = g.weight + (p + at.second) * g.rank;
#pragma unroll
    for (int r = 0; r < kSlots - 2; ++r) {
      w[r + 2] = make_float2(0.f, 0.f);
      if (r < g.rank) w[r + 2] = make_float2(first[r], second[r]);
    }
  } else {
    make_steps(g, at, direction, row, x);
  }
  const float2 A = times(kLog2e, load_two(g.A + p, at.channel, at.second));
  float2 product = make_float2(1.f, 1.f), state = make_float2(0.f, 0.f);
#pragma unroll
  for (int step = 0; step < kTokens; ++step) {
    const int i = direction == 0 ? step : kTokens - 1 - step;
    const float4* const quads =
        reinterpret_cast<const float4*>(row + i * slots);
    float4 quad = quads[0];
    const float B = quad.x, C = quad.y;
    float2 sum = bias;
    if constexpr (kSlots > 0) {
      sum = fused(quad.z, w[2], fused(quad.w, w[3], sum));
#pragma unroll
      for (int k = 1; k < kSlots / 4; ++k) {
        quad = quads[k];
        sum = fused(quad.x, w[4 * k], sum);
        sum = fused(quad.y, w[4 * k + 1], sum);
        sum = fused(quad.z, w[4 * k + 2], sum);
        sum = fused(quad.w, w[4 * k + 3], sum);
      }
    } else {
      sum = x[i];
    }
    float small;
    const float2 delta =
        make_float2(softplus_of(sum.x, &small), softplus_of(sum.y, &small));
    const float2 decay = exp2_of(times(delta, A));
    const float2 in = Vector<T>::unpack(u[i]);
    state = fused(decay, state, times(delta, times(B, in)));
    product = times(product, decay);
    y[i] = fused(C, state, direction == 0 ? times(skip, in) : y[i]);
    reach[i] = times(C, product);
  }
  sums[threadIdx.x] = make_float4(product.x, state.x, product.y, state.y);
}

// y of one chunk, or its sums alone.
template <typename T, bool kChannelsLast, int kSlots>
__device__ __forceinline__ void forward_block(const Bidirectional<T>& g,
                                              float* shared) {
  const Place<T> at(g, g.pairs_log2);
  const int slots = kSlots > 0 ? kSlots : g.slots;
  float4* const sums = reinterpret_cast<float4*>(shared);
  float* const rows = shared + 4 * g.directions * blockDim.x;
  float* const tile = rows + g.directions * at.chunk * slots;
  typename Vector<T>::Type u[kTokens];
  if constexpr (kChannelsLast) {
    load_pairs(at, g.u, g.u_batch, g.u_lead, u);
  } else {
    stage_tile(g, at, g.u, g.u_batch, g.u_lead, tile);
  }
  stage_rows(g, at, slots, rows);
  __syncthreads();
  if constexpr (!kChannelsLast) {
#pragma unroll
    for (int i = 0; i < kTokens; ++i) {
      u[i] = Vector<T>::pack(tile_pair(tile, at.width, at.token + i, at.pair));
    }
  }
  float2 skip = load_two(g.D, at.channel, at.second);
  if (g.directions == 2) {
    const float2 other = load_two(g.D + g.channels, at.channel, at.second);
    skip = make_float2(skip.x + other.x, skip.y + other.y);
  }
  float2 y[kTokens], upwards[kTokens], downwards[kTokens];
  forward_direction<T, kChannelsLast, kSlots>(g, at, rows, 0, skip, u, y,
                                              upwards, sums);
  if (g.directions == 2) {
    forward_direction<T, kChannelsLast, kSlots>(g, at, rows, 1, skip, u, y,
                                                downwards, sums + blockDim.x);
  }
  __syncthreads();
  for (int d = at.run; d < g.directions; d += blockDim.x >> at.pairs_log2) {
    fold_runs(g, at, d, d == 0, sums + d * blockDim.x);
  }
  if (g.summing) return;
  __syncthreads();
  float2 state = *reinterpret_cast<const float2*>(sums + threadIdx.x);
#pragma unroll
  for (int i = 0; i < kTokens; ++i) y[i] = fused(upwards[i], state, y[i]);
  if (g.directions == 2) {
    state = *reinterpret_cast<const float2*>(sums + blockDim.x + threadIdx.x);
#pragma unroll
    for (int i = 0; i < kTokens; ++i) y[i] = fused(downwards[i], state, y[i]);
  }
  if constexpr (kChannelsLast) {
    store_pairs(g, at, y, g.y);
  } else {
#pragma unroll
    for (int i = 0; i < kTokens; ++i) {
      *reinterpret_cast<float2*>(
          tile + (at.token + i) * tile_stride(at.width) + 2 * at.pair) = y[i];
    }
    __syncthreads();
    store_tile(g, at, tile, g.y);
  }
}

}  // namespace selective_scan::cuda
