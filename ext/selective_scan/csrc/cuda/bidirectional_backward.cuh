// The backward kernel of the bidirectional scan with one state.
//
// With w_t = decay_t * (C_t * grad_t + w_(t+1)), the gradients of the states
// are the same recurrence, walked the other way. A direction takes three
// steps: delta, softplus's slope and the runs' sums; both walks, which give
// all gradients of a lane's channels; sums over channels and over tokens.
#pragma once

#include "bidirectional_block.cuh"

namespace selective_scan::cuda {

constexpr int kGroup = kRegion / kWidth / 4;  // quads whose sums fit

__device__ __forceinline__ float4 fused(float a, float4 b, float4 c) {
  return make_float4(fmaf(a, b.x, c.x), fmaf(a, b.y, c.y), fmaf(a, b.z, c.z),
                     fmaf(a, b.w, c.w));
}

// Sums of 2 * kHalf values over as many neighbouring lanes: lane k gets
// value k.
template <int kHalf, int kCount>
__device__ __forceinline__ float sum_over_lanes(float (&values)[kCount]) {
  const bool upper = threadIdx.x & kHalf;
#pragma unroll
  for (int k = 0; k < kHalf; ++k) {
    const float kept = upper ? values[k + kHalf] : values[k];
    const float sent = upper ? values[k] : values[k + kHalf];
    values[k] = kept + __shfl_xor_sync(kWholeWarp, sent, kHalf);
  }
  if constexpr (kHalf > 1) return sum_over_lanes<kHalf / 2>(values);
  return values[0];
}

// Sums over a warp's two runs: the first gets channel x, the second y.
__device__ __forceinline__ float sum_over_runs(float2 value, bool second) {
  const float kept = second ? value.y : value.x;
  const float sent = second ? value.x : value.y;
  return kept + __shfl_xor_sync(kWholeWarp, sent, 1 << kPairsLog2);
}

struct Shared {
  float4* sums;
  float *rows, *weights, *regions;
};

template <int kDirection, typename T>
__device__ __forceinline__ void backward_direction(
    const Bidirectional<T>& g, const Place<T>& at, const Shared& shared,
    const Two<T> (&u)[kTokens], const Two<T> (&grad)[kTokens],
    float2 (&grad_u)[kTokens]) {
  const int slots = g.slots, quads = slots / 4;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const float* const row =
      shared.rows + (kDirection * at.chunk + at.token) * slots;
  const float* const weights = shared.weights + kDirection * kWidth * slots;
  float* const region = shared.regions + warp * kRegion;
  float* const deltas =
      region + (at.run & 1) * kTokens * kPlaneStride + 2 * at.pair;
  float* const slopes = deltas + kPlane;
  const float* const own = weights + 2 * at.pair * slots;
  const float2 A = make_float2(own[1], own[slots + 1]);
  const float2 scaled = times(kLog2e, A);

  float2 x[kTokens];
  make_steps(slots, row, own, x);
  float2 product = make_float2(1.f, 1.f), state = make_float2(0.f, 0.f);
  float2 back = make_float2(0.f, 0.f);
#pragma unroll
  for (int step = 0; step < kTokens; ++step) {
    const int i = kDirection == 0 ? step : kTokens - 1 - step;
    float2 small;
    const float2 delta = make_float2(softplus_of(x[i].x, &small.x),
                                     softplus_of(x[i].y, &small.y));
    *reinterpret_cast<float2*>(deltas + i * kPlaneStride) = delta;
    *reinterpret_cast<float2*>(slopes + i * kPlaneStride) =
        make_float2(slope_of(x[i].x, small.x), slope_of(x[i].y, small.y));
    const float2 decay = exp2_of(times(delta, scaled));
    const float2 BC = *reinterpret_cast<const float2*>(row + i * slots);
    const float2 in = unpack(u[i]);
    state = fused(decay, state, times(delta, times(BC.x, in)));
    product = times(product, decay);
    back = fused(product, times(BC.y, unpack(grad[i])), back);
  }
  float4* const sums = shared.sums + threadIdx.x;
  sums[0] = make_float4(product.x, state.x, product.y, state.y);
  sums[blockDim.x] = make_float4(product.x, back.x, product.y, back.y);
  __syncthreads();
  if (warp == 0) {
    const int walk = lane >> kPairsLog2;
    fold_runs(g, at, 2 * kDirection + walk, walk == kDirection,
              shared.sums + walk * blockDim.x);
  }
  __syncthreads();
  if (g.summing) return;

  // The states, then their gradients the other way.
  state = *reinterpret_cast<const float2*>(sums);
  back = *reinterpret_cast<const float2*>(sums + blockDim.x);
  float2 before[kTokens];
  float over_channels[2 * kTokens];  // of B, then of C
#pragma unroll
  for (int step = 0; step < kTokens; ++step) {
    const int i = kDirection == 0 ? step : kTokens - 1 - step;
    const float2 delta =
        *reinterpret_cast<const float2*>(deltas + i * kPlaneStride);
    const float B = row[i * slots];
    before[i] = state;
    state = fused(exp2_of(times(delta, scaled)), state,
                  times(delta, times(B, unpack(u[i]))));
    const float2 gy = unpack(grad[i]);
    over_channels[kTokens + i] = fmaf(gy.x, state.x, gy.y * state.y);
  }
  float2 grad_A = make_float2(0.f, 0.f), grad_bias = make_float2(0.f, 0.f);
#pragma unroll
  for (int step = 0; step < kTokens; ++step) {
    const int i = kDirection == 1 ? step : kTokens - 1 - step;
    const float2 delta =
        *reinterpret_cast<const float2*>(deltas + i * kPlaneStride);
    const float2 BC = *reinterpret_cast<const float2*>(row + i * slots);
    const float2 in = unpack(u[i]);
    const float2 grad_state = fused(BC.y, unpack(grad[i]), back);
    back = times(exp2_of(times(delta, scaled)), grad_state);
    const float2 driven = times(grad_state, delta);
    over_channels[i] = fmaf(driven.x, in.x, driven.y * in.y);
    grad_u[i] = fused(BC.x, driven, grad_u[i]);
    const float2 through = times(back, before[i]);
    grad_A = fused(through, delta, grad_A);
    const float2 grad_x =
        times(*reinterpret_cast<const float2*>(slopes + i * kPlaneStride),
              fused(A, through, times(BC.x, times(grad_state, in))));
    grad_bias = make_float2(grad_bias.x + grad_x.x, grad_bias.y + grad_x.y);
    *reinterpret_cast<float2*>(deltas + i * kPlaneStride) = grad_x;
  }

  // Rows: sums over the block's channels.
  const int64_t place =
      (static_cast<int64_t>(blockIdx.x) * gridDim.z + blockIdx.z) *
          g.directions +
      kDirection;
  float* const rows_out = g.row_sums + (place * g.length + at.first) * slots;
  const float value = sum_over_lanes<kTokens>(over_channels);
  __syncwarp();
  const int token = lane & 7;
  const float* const grads = region + token * kPlaneStride;
  // trips: (quads + 3) // 4
#pragma unroll 1
  for (int q = lane >> 3; q < quads; q += 4) {
    float4 first = make_float4(0.f, 0.f, 0.f, 0.f), second = first;
    // trips: width / 8
#pragma unroll 2
    for (int c = 0; c < kWidth; c += 4) {
      const float4 a = *reinterpret_cast<const float4*>(grads + c);
      const float4 b =
          *reinterpret_cast<const float4*>(grads + kTokens * kPlaneStride + c);
      const float4* const w =
          reinterpret_cast<const float4*>(weights + c * slots) + q;
      first = fused(a.x, w[0], first);
      second = fused(b.x, w[0], second);
      first = fused(a.y, w[quads], first);
      second = fused(b.y, w[quads], second);
      first = fused(a.z, w[2 * quads], first);
      second = fused(b.z, w[2 * quads], second);
      first = fused(a.w, w[3 * quads], first);
      second = fused(b.w, w[3 * quads], second);
    }
    const int here = warp * kWarpTokens + token;
    float* const to = rows_out + here * slots + 4 * q;
    if (here < at.count) *reinterpret_cast<float4*>(to) = first;
    if (here + kTokens < at.count) {
      *reinterpret_cast<float4*>(to + kTokens * slots) = second;
    }
  }
  __syncwarp();
  const int mine = at.token + (lane & 7);  // B and C, over what stood there
  if (mine < at.count) rows_out[mine * slots + (lane >> 3 & 1)] = value;

  // Parameters: sums over the block's tokens, by way of the warps' regions.
  float2 grad_x[kTokens];
#pragma unroll
  for (int i = 0; i < kTokens; ++i) {
    grad_x[i] = *reinterpret_cast<const float2*>(deltas + i * kPlaneStride);
  }
  const bool second = at.run & 1;
  float* const parameters =
      g.parameter_sums +
      (((static_cast<int64_t>(blockIdx.z) * g.chunks + blockIdx.y) *
            g.directions +
        kDirection) *
           gridDim.x +
       blockIdx.x) *
          kWidth * slots;
  // trips: (quads + 8) // 9
#pragma unroll 1
  for (int start = 0; start < quads; start += kGroup) {
    const int stop = min(start + kGroup, quads);
    __syncwarp();
    // trips: quads
#pragma unroll 1
    for (int q = start; q < stop; ++q) {
      float4 v = make_float4(0.f, 0.f, 0.f, 0.f), w = v;
#pragma unroll
      for (int i = 0; i < kTokens; ++i) {
        const float4 r = reinterpret_cast<const float4*>(row)[i * quads + q];
        v = fused(grad_x[i].x, r, v);
        w = fused(grad_x[i].y, r, w);
      }
      if (q == 0) {  // in place of B and C
        v.x = grad_A.x;
        w.x = grad_A.y;
        v.y = grad_bias.x;
        w.y = grad_bias.y;
      }
      float4 sum;
      sum.x = sum_over_runs(make_float2(v.x, w.x), second);
      sum.y = sum_over_runs(make_float2(v.y, w.y), second);
      sum.z = sum_over_runs(make_float2(v.z, w.z), second);
      sum.w = sum_over_runs(make_float2(v.w, w.w), second);
      reinterpret_cast<float4*>(
          region)[(q - start) * kWidth + 2 * at.pair + second] = sum;
    }
    __syncthreads();
    // trips: quads * width / threads
#pragma unroll 1
    for (int k = threadIdx.x; k < (stop - start) * kWidth; k += blockDim.x) {
      float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
      const float4* from = reinterpret_cast<const float4*>(shared.regions) + k;
      // trips: warps / 4
#pragma unroll 4
      for (int n = 0; n < static_cast<int>(blockDim.x >> 5); ++n) {
        sum = fused(1.f, from[n * kRegion / 4], sum);
      }
      const int channel = k % kWidth, q = start + k / kWidth;
      reinterpret_cast<float4*>(parameters)[channel * quads + q] = sum;
    }
    __syncthreads();
  }
}

template <typename T, bool kChannelsLast>
__global__ void __launch_bounds__(kBackwardThreads)
    bidirectional_backward(const SCAN_GRID_CONSTANT Bidirectional<T> g) {
  SCAN_SHARED_MEMORY(float, memory);
  const Place<T> at(g, kPairsLog2);
  float* const rows = memory + 8 * blockDim.x;
  float* const weights = rows + g.directions * at.chunk * g.slots;
  const Shared shared{reinterpret_cast<float4*>(memory), rows, weights,
                      weights + g.directions * kWidth * g.slots};
  Two<T> u[kTokens], grad[kTokens];
  float* const tile = shared.regions + at.chunk * tile_stride(kWidth);
  if constexpr (kChannelsLast) {
    load_pairs(at, g.u, u);
    load_pairs(at, g.grad, grad);
  }
  stage_weights(g, at, shared.weights);
  stage_rows(g, at, shared.rows);
  if constexpr (!kChannelsLast) {
    stage_tile(g, at, g.u, shared.regions);
    stage_tile(g, at, g.grad, tile);
  }
  __syncthreads();
  if constexpr (!kChannelsLast) {
#pragma unroll
    for (int i = 0; i < kTokens; ++i) {
      u[i] = pack<T>(tile_pair(shared.regions, at, i));
      grad[i] = pack<T>(tile_pair(tile, at, i));
    }
    __syncthreads();
  }
  const float2 skip = skip_weights(g, at);
  float2 grad_u[kTokens], grad_D = make_float2(0.f, 0.f);
#pragma unroll
  for (int i = 0; i < kTokens; ++i) {
    const float2 gy = unpack(grad[i]);
    grad_u[i] = times(skip, gy);
    grad_D = fused(gy, unpack(u[i]), grad_D);
  }
  backward_direction<0>(g, at, shared, u, grad, grad_u);
  if (g.directions == 2) {
    backward_direction<1>(g, at, shared, u, grad, grad_u);
  }
  if (g.summing) return;
  float* const over_tokens = reinterpret_cast<float*>(shared.sums);
  const bool second = at.run & 1;
  over_tokens[(threadIdx.x >> 5) * kWidth + 2 * at.pair + second] =
      sum_over_runs(grad_D, second);
  if constexpr (kChannelsLast) {
    store_pairs(g, at, grad_u);
  } else {
#pragma unroll
    for (int i = 0; i < kTokens; ++i) {
      tile_pair(shared.regions, at, i) = grad_u[i];
    }
  }
  __syncthreads();
  if (threadIdx.x < kWidth) {
    float sum = 0.f;
    // trips: warps / 4 / warps
#pragma unroll 4
    for (int n = 0; n < static_cast<int>(blockDim.x >> 5); ++n) {
      sum += over_tokens[n * kWidth + threadIdx.x];
    }
    g.D_sums[((static_cast<int64_t>(blockIdx.z) * g.chunks + blockIdx.y) *
                  gridDim.x +
              blockIdx.x) *
                 kWidth +
             threadIdx.x] = sum;
  }
  if constexpr (!kChannelsLast) store_tile(g, at, shared.regions);
}

// The last sums over rows, as proj lies.
template <typename T>
__device__ __forceinline__ void sum_rows(const Bidirectional<T>& g, int set) {
  const int i = blockIdx.x * kTotalThreads + threadIdx.x;
  const int token = i / g.slots, slot = i % g.slots;
  if (token >= g.length || slot >= g.rank + 2) return;
  const int64_t size = static_cast<int64_t>(g.length) * g.slots;
  const float* const from = g.row_sums + set * size + i;
  float sum = 0.f;
#pragma unroll 4
  for (int k = 0; k < g.blocks; ++k) {
    sum += from[k * size * g.batch * g.directions];
  }
  const int row = slot < 2 ? g.rank + slot : slot - 2;
  const View<T>& out = g.grad_proj;
  out.data[set / g.directions * out.batch +
           out.offset(set % g.directions, row, token)] = static_cast<T>(sum);
}

// The last sums, in a fixed order: a row of blocks for each batch element and
// direction, and one for parameters.
template <typename T>
__global__ void __launch_bounds__(kTotalThreads)
    bidirectional_totals(const SCAN_GRID_CONSTANT Bidirectional<T> g) {
  SCAN_SHARED_MEMORY(float, shared);
  const int set = blockIdx.y;
  if (set < g.batch * g.directions) return sum_rows(g, set);
  const int lane = threadIdx.x % kColumns, group = threadIdx.x / kColumns;
  const int groups = kTotalThreads / kColumns;
  const int width = g.padded_channels(), chunks = g.batch * g.chunks;
  const int count = g.directions * width * g.slots;
  const int column = blockIdx.x * kColumns + lane;
  const bool skip = column >= count;  // a weight of D
  const int place = skip ? column - count : column;
  const int size = skip ? width : count;
  float sum = 0.f;
  if (place < size) {
    const float* const from = (skip ? g.D_sums : g.parameter_sums) + place;
#pragma unroll 8
    for (int k = group; k < chunks; k += groups) {
      sum += from[static_cast<int64_t>(k) * size];
    }
  }
  shared[threadIdx.x] = sum;
  __syncthreads();
  if (group > 0 || place >= size) return;
  for (int k = 1; k < groups; ++k) sum += shared[k * kColumns + lane];
  const int slot = skip ? 0 : place % g.slots;
  const int channel = skip ? place : place / g.slots % width;
  const int p = place / g.slots / width * g.channels + channel;
  if (channel >= g.channels) return;
  if (skip) {
    for (int d = 0; d < g.directions; ++d) g.grad_D[d * g.channels + p] = sum;
  } else if (slot == 0) {
    g.grad_A[p] = sum;
  } else if (slot == 1) {
    g.grad_bias[p] = sum;
  } else if (slot < g.rank + 2) {
    g.grad_weight[p * g.rank + slot - 2] = sum;
  }
}

}  // namespace selective_scan::cuda
