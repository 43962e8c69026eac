// Layer norm over the channels of a token, times silu of its gate.
//
// Where channels lie side by side a warp takes a token, its lanes the
// channels; elsewhere a block takes 32 tokens, lanes the tokens and warps
// the channels. Either way memory is read in order; what is read again comes
// from the caches.
#pragma once

#include "map_kernels.cuh"

namespace selective_scan::cuda {

constexpr int kNormWarps = 8;

template <typename T, typename P>
Launch norm_launch(const NormTask<T, P>& task, bool backward) {
  // Sums across warps, and of the gradients of weight and bias over tokens.
  const int across = task.channels_last ? 0 : 32 * task.warps;
  const int rows = !backward ? 0 : task.channels_last ? task.warps : 1;
  return {task.blocks, 32 * task.warps,
          static_cast<int>(sizeof(P)) * (across + rows * 2 * task.channels)};
}

// Chooses warps and blocks; no blocks where `room` bytes are too few.
template <typename T, typename P>
void fit_gated_norm(NormTask<T, P>& task, bool backward, int room) {
  const bool fits_int = task.channels < (1 << 24);
  task.warps = kNormWarps;
  while (fits_int && task.warps > 1 &&
         norm_launch(task, backward).bytes > room) {
    task.warps /= 2;
  }
  task.blocks = 0;
  if (!fits_int || norm_launch(task, backward).bytes > room) return;
  task.blocks = task.tiles();
  if (backward) task.blocks = static_cast<int>(smaller(task.blocks, kBusyBlocks));
}

__device__ __forceinline__ float exp_of_minus(float x) { return expf(-x); }
__device__ __forceinline__ double exp_of_minus(double x) { return exp(-x); }
__device__ __forceinline__ float root_of(float x) { return sqrtf(x); }
__device__ __forceinline__ double root_of(double x) { return sqrt(x); }

// The token that a thread works on, with its share of the channels.
template <typename T, typename P, bool channels_last>
struct Token {
  const NormTask<T, P>& task;
  P* sums;  // (warps, 32)
  int warp, lane, first, step, b, t;
  bool valid;

  __device__ Token(const NormTask<T, P>& from, P* memory)
      : task(from), sums(memory) {
    warp = threadIdx.x / 32;
    lane = threadIdx.x % 32;
    first = channels_last ? lane : warp;
    step = channels_last ? 32 : task.warps;
  }
  // Threads without a token take the last one, and write nothing.
  __device__ __forceinline__ void enter(int tile) {
    int token = channels_last ? tile * task.warps + warp : tile * 32 + lane;
    valid = token < task.tokens;
    if (!valid) token = task.tokens - 1;
    b = token / task.length;
    t = token - b * task.length;
  }
  // The sum over all threads that share the token, known to all of them.
  __device__ __forceinline__ P total(P sum) const {
    if constexpr (channels_last) {
      for (int distance = 16; distance > 0; distance /= 2) {
        sum += __shfl_xor_sync(kWholeWarp, sum, distance, 32);
      }
    } else {
      __syncthreads();  // the sums before have been read
      sums[warp * 32 + lane] = sum;
      __syncthreads();
      sum = 0;
      for (int w = 0; w < task.warps; ++w) sum += sums[w * 32 + lane];
    }
    return sum;
  }
};

template <typename P>
struct Gate {
  P sigmoid, value;  // value is silu
  __device__ __forceinline__ explicit Gate(P z)
      : sigmoid(P(1) / (P(1) + exp_of_minus(z))), value(z * sigmoid) {}
};

template <typename T, typename P, bool channels_last>
__global__ void __launch_bounds__(32 * kNormWarps)
    gated_norm_kernel(NormTask<T, P> task) {
  SCAN_SHARED_MEMORY(P, memory);
  Token<T, P, channels_last> token(task, memory);
  const int channels = task.channels;
  token.enter(static_cast<int>(blockIdx.x));
  const T* x = task.x.at(token.b, token.t);
  const T* z = task.z.at(token.b, token.t);
  T* y = task.y.at(token.b, token.t);
  // Distances from one of the values: of values that are all alike or far
  // from 0 a sum would lose what the variance is made of.
  const P origin = static_cast<P>(x[0]);
  P sum = 0;
#pragma unroll 4
  for (int c = token.first; c < channels; c += token.step) {
    sum += static_cast<P>(x[c * task.x.channel]) - origin;
  }
  const P mean = token.total(sum) / static_cast<P>(channels);
  sum = 0;
#pragma unroll 4
  for (int c = token.first; c < channels; c += token.step) {
    const P d = static_cast<P>(x[c * task.x.channel]) - origin - mean;
    sum += d * d;
  }
  const P slope =
      P(1) / root_of(token.total(sum) / static_cast<P>(channels) + task.eps);
  if (!token.valid) return;
#pragma unroll 4
  for (int c = token.first; c < channels; c += token.step) {
    const P d = static_cast<P>(x[c * task.x.channel]) - origin - mean;
    const Gate<P> gate(static_cast<P>(z[c * task.z.channel]));
    y[c * task.y.channel] = static_cast<T>(
        (d * slope * task.weight[c] + task.bias[c]) * gate.value);
  }
}

template <typename T, typename P, bool channels_last>
__global__ void __launch_bounds__(32 * kNormWarps)
    gated_norm_backward_kernel(NormTask<T, P> task) {
  SCAN_SHARED_MEMORY(P, memory);
  const int channels = task.channels;
  const int rows = channels_last ? task.warps : 1;
  Token<T, P, channels_last> token(task, memory + rows * 2 * channels);
  // Each channel of a row belongs to one lane or one warp.
  P* own = memory + (channels_last ? token.warp * 2 * channels : 0);
  for (int i = threadIdx.x; i < rows * 2 * channels; i += 32 * task.warps) {
    memory[i] = 0;
  }
  __syncthreads();
  const P inverse = P(1) / static_cast<P>(channels);
  const int tiles = task.tiles();
  for (int tile = static_cast<int>(blockIdx.x); tile < tiles;
       tile += task.blocks) {
    token.enter(tile);
    const T* x = task.x.at(token.b, token.t);
    const T* z = task.z.at(token.b, token.t);
    const T* g = task.grad.at(token.b, token.t);
    const P origin = static_cast<P>(x[0]);
    P sum = 0;
#pragma unroll 4
    for (int c = token.first; c < channels; c += token.step) {
      sum += static_cast<P>(x[c * task.x.channel]) - origin;
    }
    const P mean = token.total(sum) * inverse;
    // Sums of the squared distances, of the norm's gradients, and of their
    // products with the distances.
    P square = 0, plain = 0, cross = 0;
#pragma unroll 2
    for (int c = token.first; c < channels; c += token.step) {
      const P d = static_cast<P>(x[c * task.x.channel]) - origin - mean;
      const Gate<P> gate(static_cast<P>(z[c * task.z.channel]));
      const P n = static_cast<P>(g[c * task.grad.channel]) * gate.value *
                  task.weight[c];
      square += d * d;
      plain += n;
      cross += n * d;
    }
    const P slope =
        P(1) / root_of(token.total(square) * inverse + task.eps);
    plain = token.total(plain) * inverse;
    cross = token.total(cross) * inverse * slope * slope;
    T* x_grad = task.x_grad.at(token.b, token.t);
    T* z_grad = task.z_grad.at(token.b, token.t);
#pragma unroll 2
    for (int c = token.first; c < channels; c += token.step) {
      const P d = static_cast<P>(x[c * task.x.channel]) - origin - mean;
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
      if constexpr (channels_last) {
        own[c] += weight_sum;
        own[channels + c] += bias_sum;
      } else {
        // Half a warp adds up the one, half a warp the other.
        const bool upper = token.lane >= 16;
        P sent = upper ? weight_sum : bias_sum;
        P kept = upper ? bias_sum : weight_sum;
        kept += __shfl_xor_sync(kWholeWarp, sent, 16, 32);
        for (int distance = 8; distance > 0; distance /= 2) {
          kept += __shfl_xor_sync(kWholeWarp, kept, distance, 32);
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
