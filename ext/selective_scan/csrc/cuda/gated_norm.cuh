// Layer norm over the channels of a token, times silu of its gate.
//
// Where channels lie side by side a warp takes a token, its lanes the
// channels; elsewhere a block takes 32 tokens, lanes the tokens and warps
// the channels. Either way memory is read in order; what is read again comes
// from the caches.
#pragma once

#include "around.h"
#include "gpu.cuh"

namespace selective_scan::cuda {

// The token that a thread works on, with its share of the channels.
template <typename T, typename P, bool kChannelsLast>
struct Token {
  const GatedNorm<T, P>& task;
  P* sums;  // (warps, 32)
  int warp, lane, first, step, b, t;
  bool valid;
  const T* x;
  P inverse, origin, mean;

  __device__ Token(const GatedNorm<T, P>& from, P* memory)
      : task(from), sums(memory) {
    warp = threadIdx.x / 32;
    lane = threadIdx.x % 32;
    first = kChannelsLast ? lane : warp;
    step = kChannelsLast ? 32 : task.warps;
    inverse = P(1) / static_cast<P>(task.channels);
  }
  // Threads without a token take the last one, and write nothing.
  __device__ __forceinline__ void enter(int tile) {
    int token = kChannelsLast ? tile * task.warps + warp : tile * 32 + lane;
    valid = token < task.tokens;
    if (!valid) token = task.tokens - 1;
    b = token / task.length;
    t = token - b * task.length;
    x = task.x.at(b, t);
    // Distances from one of the values: of values that are all alike or far
    // from 0 a sum would lose what the variance is made of.
    origin = static_cast<P>(x[0]);
    mean = 0;
    P sum = 0;
#pragma unroll 4
    for (int c = first; c < task.channels; c += step) sum += distance(c);
    mean = average(sum);
  }
  // Of a channel from the mean.
  __device__ __forceinline__ P distance(int c) const {
    return static_cast<P>(x[c * task.x.channel]) - origin - mean;
  }
  // Over all channels, known to all threads that share the token.
  __device__ __forceinline__ P average(P sum) const {
    if constexpr (kChannelsLast) {
      for (int lanes = 16; lanes > 0; lanes /= 2) {
        sum += __shfl_xor_sync(kWholeWarp, sum, lanes, 32);
      }
    } else {
      __syncthreads();  // the sums before have been read
      sums[warp * 32 + lane] = sum;
      __syncthreads();
      sum = 0;
      for (int w = 0; w < task.warps; ++w) sum += sums[w * 32 + lane];
    }
    return sum * inverse;
  }
};

template <typename P>
struct Gate {
  P sigmoid, value;  // value is silu
  __device__ __forceinline__ explicit Gate(P z)
      : sigmoid(P(1) / (P(1) + exp(-z))), value(z * sigmoid) {}
};

template <typename T, typename P, bool kChannelsLast>
__global__ void __launch_bounds__(32 * kNormWarps)
    gated_norm(const SCAN_GRID_CONSTANT GatedNorm<T, P> task) {
  SCAN_SHARED_MEMORY(P, memory);
  Token<T, P, kChannelsLast> token(task, memory);
  const int channels = task.channels;
  token.enter(static_cast<int>(blockIdx.x));
  P square = 0;
#pragma unroll 4
  for (int c = token.first; c < channels; c += token.step) {
    const P d = token.distance(c);
    square += d * d;
  }
  const P slope = P(1) / sqrt(token.average(square) + task.eps);
  if (!token.valid) return;
  const T* z = task.z.at(token.b, token.t);
  T* y = task.y.at(token.b, token.t);
#pragma unroll 4
  for (int c = token.first; c < channels; c += token.step) {
    const Gate<P> gate(static_cast<P>(z[c * task.z.channel]));
    y[c * task.y.channel] = static_cast<T>(
        (token.distance(c) * slope * task.weight[c] + task.bias[c]) *
        gate.value);
  }
}

template <typename T, typename P, bool kChannelsLast>
__global__ void __launch_bounds__(32 * kNormWarps, sizeof(P) == 4 ? 5 : 3)
    gated_norm_backward(const SCAN_GRID_CONSTANT GatedNorm<T, P> task) {
  SCAN_SHARED_MEMORY(P, memory);
  const int channels = task.channels;
  const int rows = kChannelsLast ? task.warps : 1;
  Token<T, P, kChannelsLast> token(task, memory + rows * 2 * channels);
  // Each channel of a row belongs to one lane or one warp.
  P* own = memory + (kChannelsLast ? token.warp * 2 * channels : 0);
  for (int i = threadIdx.x; i < rows * 2 * channels; i += 32 * task.warps) {
    memory[i] = 0;
  }
  __syncthreads();
  for (int tile = static_cast<int>(blockIdx.x); tile < task.tiles;
       tile += task.blocks) {
    token.enter(tile);
    const T* z = task.z.at(token.b, token.t);
    const T* g = task.grad.at(token.b, token.t);
    // Sums of the squared distances, of the norm's gradients, and of their
    // products with the distances.
    P square = 0, plain = 0, cross = 0;
#pragma unroll 2
    for (int c = token.first; c < channels; c += token.step) {
      const P d = token.distance(c);
      const Gate<P> gate(static_cast<P>(z[c * task.z.channel]));
      const P n = static_cast<P>(g[c * task.grad.channel]) * gate.value *
                  task.weight[c];
      square += d * d;
      plain += n;
      cross += n * d;
    }
    const P slope = P(1) / sqrt(token.average(square) + task.eps);
    plain = token.average(plain);
    cross = token.average(cross) * slope * slope;
    T* x_grad = task.x_grad.at(token.b, token.t);
    T* z_grad = task.z_grad.at(token.b, token.t);
#pragma unroll 2
    for (int c = token.first; c < channels; c += token.step) {
      const P d = token.distance(c);
      const P gate_in = static_cast<P>(z[c * task.z.channel]);
      const P grad = static_cast<P>(g[c * task.grad.channel]);
      const Gate<P> gate(gate_in);
      const P w = task.weight[c];
      P weight_sum = 0, bias_sum = 0;
      if (token.valid) {
        const P norm = d * slope * w + task.bias[c];
        const P rise = gate.sigmoid * (P(1) + gate_in * (P(1) - gate.sigmoid));
        bias_sum = grad * gate.value;
        weight_sum = bias_sum * d * slope;
        x_grad[c * task.x_grad.channel] =
            static_cast<T>(slope * (bias_sum * w - plain - d * cross));
        z_grad[c * task.z_grad.channel] = static_cast<T>(grad * norm * rise);
      }
      if constexpr (kChannelsLast) {
        own[c] += weight_sum;
        own[channels + c] += bias_sum;
      } else {
        // Half a warp adds up the one, half a warp the other.
        const bool upper = token.lane >= 16;
        P sent = upper ? weight_sum : bias_sum;
        P kept = upper ? bias_sum : weight_sum;
        kept += __shfl_xor_sync(kWholeWarp, sent, 16, 32);
        for (int lanes = 8; lanes > 0; lanes /= 2) {
          kept += __shfl_xor_sync(kWholeWarp, kept, lanes, 32);
        }
        if (token.lane % 16 == 0) own[(upper ? channels : 0) + c] += kept;
      }
    }
  }
  __syncthreads();
  P* to = task.partials + static_cast<int64_t>(blockIdx.x) * 2 * channels;
  for (int i = threadIdx.x; i < 2 * channels; i += 32 * task.warps) {
    P sum = 0;
    for (int row = 0; row < rows; ++row) sum += memory[row * 2 * channels + i];
    to[i] = sum;
  }
}

}  // namespace selective_scan::cuda
