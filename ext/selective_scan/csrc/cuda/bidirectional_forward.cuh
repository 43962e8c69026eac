// The forward kernel of the bidirectional scan with one state.
#pragma once

#include "bidirectional_block.cuh"

namespace selective_scan::cuda {

// One direction as if nothing entered the run. `reach` takes what is to be
// multiplied by that which does; of the first direction it waits in shared
// memory, as registers are few.
template <int kDirection, typename T, typename Reach>
__device__ __forceinline__ void forward_direction(
    const Bidirectional<T>& g, const Place<T>& at, const float* rows,
    const float* weights, const Two<T> (&u)[kTokens], float2 (&y)[kTokens],
    const Reach& reach, float4* sums) {
  const int slots = g.slots;
  const float* const row = rows + (kDirection * at.chunk + at.token) * slots;
  const float* const own =
      weights + (kDirection * at.width + 2 * at.pair) * slots;
  const float2 A = times(kLog2e, make_float2(own[1], own[slots + 1]));
  const float2 skip = kDirection == 0 ? skip_weights(g, at) : A;
  float2 product = make_float2(1.f, 1.f), state = make_float2(0.f, 0.f);
  constexpr int kHalf = kTokens / 2;  // of the tokens: registers are few
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int start = half == kDirection ? 0 : kHalf;
    float2 x[kHalf];
    make_steps(slots, row + start * slots, own, x);
#pragma unroll
    for (int step = 0; step < kHalf; ++step) {
      const int k = kDirection == 0 ? step : kHalf - 1 - step;
      const int i = start + k;
      const float2 BC = *reinterpret_cast<const float2*>(row + i * slots);
      float small;
      const float2 delta = make_float2(softplus_of(x[k].x, &small),
                                       softplus_of(x[k].y, &small));
      const float2 decay = exp2_of(times(delta, A));
      const float2 in = unpack(u[i]);
      state = fused(decay, state, times(delta, times(BC.x, in)));
      product = times(product, decay);
      y[i] = fused(BC.y, state, kDirection == 0 ? times(skip, in) : y[i]);
      reach(i) = times(BC.y, product);
    }
  }
  sums[at.thread] = make_float4(product.x, state.x, product.y, state.y);
}

// y of one chunk, or its sums alone.
template <typename T, bool kChannelsLast>
__global__ void __launch_bounds__(kForwardThreads, 3)
    bidirectional_forward(const SCAN_GRID_CONSTANT Bidirectional<T> g) {
  SCAN_SHARED_MEMORY(float, shared);
  const Place<T> at(g, g.pairs_log2);
  float4* const sums = reinterpret_cast<float4*>(shared);
  float* const rows = shared + 4 * g.directions * blockDim.x;
  float* const weights = rows + g.directions * at.chunk * g.slots;
  float* const tile = weights + g.directions * at.width * g.slots;
  Two<T> u[kTokens];
  if constexpr (kChannelsLast) load_pairs(at, g.u, u);
  stage_weights(g, at, weights);
  stage_rows(g, at, rows);
  if constexpr (!kChannelsLast) {
    stage_tile(g, at, g.u, tile);
  }
  __syncthreads();
  if constexpr (!kChannelsLast) {
#pragma unroll
    for (int i = 0; i < kTokens; ++i) {
      u[i] = pack<T>(tile_pair(tile, at, i));
    }
  }
  float2 y[kTokens], downwards[kTokens];
  forward_direction<0>(
      g, at, rows, weights, u, y,
      [&](int i) -> float2& { return tile_pair(tile, at, i); }, sums);
  if (g.directions == 2) {
    forward_direction<1>(
        g, at, rows, weights, u, y,
        [&](int i) -> float2& { return downwards[i]; }, sums + blockDim.x);
  }
  __syncthreads();
  const Place<T> end(g, g.pairs_log2);
  // trips: 1 / warps
  for (int d = end.run; d < g.directions; d += blockDim.x >> end.pairs_log2) {
    fold_runs(g, end, d, d == 0, sums + d * blockDim.x);
  }
  if (g.summing) return;
  __syncthreads();
  float2 state = *reinterpret_cast<const float2*>(sums + end.thread);
#pragma unroll
  for (int i = 0; i < kTokens; ++i) {
    y[i] = fused(tile_pair(tile, end, i), state, y[i]);
  }
  if (g.directions == 2) {
    state = *reinterpret_cast<const float2*>(sums + blockDim.x + end.thread);
#pragma unroll
    for (int i = 0; i < kTokens; ++i) y[i] = fused(downwards[i], state, y[i]);
  }
  if constexpr (kChannelsLast) {
    store_pairs(g, end, y);
  } else {
#pragma unroll
    for (int i = 0; i < kTokens; ++i) tile_pair(tile, end, i) = y[i];
    __syncwarp();
    store_tile(g, end, tile);
  }
}

}  // namespace selective_scan::cuda
