// gated_layer_norm on CUDA: layer norm over the channels of a token, times
// silu of its gate.
//
// Where channels lie side by side a warp takes a token, its lanes the
// channels; elsewhere a block takes 32 tokens, lanes the tokens and warps
// the channels. Either way memory is read in order; what is read again comes
// from the caches.
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>

#include "../common/map_operands.h"
#include "gpu.cuh"

namespace selective_scan::cuda {
namespace {

constexpr int kWarps = 8;  // of a block, at most

// Tensors are (batch, channels, length).
template <typename T, typename P>
struct GatedNorm {
  View<const T> x, z, grad;
  View<T> y, x_grad, z_grad;
  const P* weight;
  const P* bias;
  P* partials;  // (blocks, 2, channels): of weight and bias
  P eps;
  int tokens, length, channels;  // tokens of the whole batch
  int tiles;                     // of tokens
  int warps;
};

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
    x = begin(task.x);
    // Distances from one of the values: of values that are all alike or far
    // from 0 a sum would lose what the variance is made of.
    origin = static_cast<P>(x[0]);
    mean = 0;
    P sum = 0;
#pragma unroll 4
    for (int c = first; c < task.channels; c += step) sum += distance(c);
    mean = average(sum);
  }
  // The token's first channel.
  template <typename V>
  __device__ __forceinline__ V* begin(const View<V>& view) const {
    return view.data + b * view.batch + view.offset(0, t);
  }
  // Of a channel from the mean.
  __device__ __forceinline__ P distance(int c) const {
    return static_cast<P>(x[c * task.x.strides[0]]) - origin - mean;
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
__global__ void __launch_bounds__(32 * kWarps)
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
  const T* z = token.begin(task.z);
  T* y = token.begin(task.y);
#pragma unroll 4
  for (int c = token.first; c < channels; c += token.step) {
    const Gate<P> gate(static_cast<P>(z[c * task.z.strides[0]]));
    y[c * task.y.strides[0]] = static_cast<T>(
        (token.distance(c) * slope * task.weight[c] + task.bias[c]) *
        gate.value);
  }
}

template <typename T, typename P, bool kChannelsLast>
__global__ void __launch_bounds__(32 * kWarps, sizeof(P) == 4 ? 4 : 3)
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
       tile += gridDim.x) {
    token.enter(tile);
    const T* z = token.begin(task.z);
    const T* g = token.begin(task.grad);
    // Sums of the squared distances, of the norm's gradients, and of their
    // products with the distances.
    P square = 0, plain = 0, cross = 0;
#pragma unroll 2
    for (int c = token.first; c < channels; c += token.step) {
      const P d = token.distance(c);
      const Gate<P> gate(static_cast<P>(z[c * task.z.strides[0]]));
      const P n = static_cast<P>(g[c * task.grad.strides[0]]) * gate.value *
                  task.weight[c];
      square += d * d;
      plain += n;
      cross += n * d;
    }
    const P slope = P(1) / sqrt(token.average(square) + task.eps);
    plain = token.average(plain);
    cross = token.average(cross) * slope * slope;
    T* x_grad = token.begin(task.x_grad);
    T* z_grad = token.begin(task.z_grad);
#pragma unroll 2
    for (int c = token.first; c < channels; c += token.step) {
      const P d = token.distance(c);
      const P gate_in = static_cast<P>(z[c * task.z.strides[0]]);
      const P grad = static_cast<P>(g[c * task.grad.strides[0]]);
      const Gate<P> gate(gate_in);
      const P w = task.weight[c];
      P weight_sum = 0, bias_sum = 0;
      if (token.valid) {
        const P norm = d * slope * w + task.bias[c];
        const P rise = gate.sigmoid * (P(1) + gate_in * (P(1) - gate.sigmoid));
        bias_sum = grad * gate.value;
        weight_sum = bias_sum * d * slope;
        x_grad[c * task.x_grad.strides[0]] =
            static_cast<T>(slope * (bias_sum * w - plain - d * cross));
        z_grad[c * task.z_grad.strides[0]] =
            static_cast<T>(grad * norm * rise);
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

template <bool kChannelsLast, typename T, typename P>
void launch_norm(int blocks, int64_t bytes, const GatedNorm<T, P>& n,
                 bool backward) {
  backward ? launch<gated_norm_backward<T, P, kChannelsLast>>(
                 blocks, 32 * n.warps, bytes, n)
           : launch<gated_norm<T, P, kChannelsLast>>(blocks, 32 * n.warps,
                                                     bytes, n);
}

using Gradients = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

// y or, where there is a gradient of y, those of the arguments.
Gradients run(const OptionalTensor& grad, const at::Tensor& x,
              const at::Tensor& z, const at::Tensor& weight,
              const at::Tensor& bias, double eps) {
  check_gated_norm(x, z, weight, bias, eps);
  const bool backward = grad.has_value(), last = adjacent_channels(x);
  if (backward) check_alike("grad", *grad, x);
  TORCH_CHECK_VALUE(x.size(0) * x.size(2) <= kLargestInt / 2,
                    "x has more than 2^30 tokens: ", x.sizes());
  const c10::cuda::CUDAGuard guard(x.device());
  const auto y = empty_like_map(x);
  const auto grad_z = backward ? empty_like_map(z) : at::Tensor();
  if (x.numel() == 0) {
    return {y, grad_z, at::zeros(weight.sizes(), weight.options()),
            at::zeros(bias.sizes(), bias.options())};
  }
  const auto xs = with_short_offsets(x), zs = with_short_offsets(z);
  const auto grads = backward ? with_short_offsets(*grad) : xs;
  const auto factor = weight.contiguous(), shift = bias.contiguous();
  at::Tensor partials;
  SCAN_DISPATCH(x, [&] {
    using P = State<scalar_t>;
    GatedNorm<scalar_t, P> n{};
    n.x = view_of<const scalar_t>(xs);
    n.z = view_of<const scalar_t>(zs);
    n.weight = factor.const_data_ptr<P>();
    n.bias = shift.const_data_ptr<P>();
    n.eps = static_cast<P>(eps);
    n.length = static_cast<int>(x.size(2));
    n.tokens = static_cast<int>(x.size(0)) * n.length;
    n.channels = static_cast<int>(x.size(1));
    // As many warps as shared memory has room for: sums across warps and, of
    // the gradients of weight and bias, over tokens.
    int64_t bytes = 0;
    for (n.warps = kWarps; n.warps > 0; n.warps /= 2) {
      const int64_t rows = !backward ? 0 : last ? n.warps : 1;
      bytes = sizeof(P) * ((last ? 0 : 32 * n.warps) + 2 * rows * n.channels);
      if (bytes <= shared_memory_of_block()) break;
    }
    TORCH_CHECK_VALUE(n.warps > 0,
                      "x has more channels than a GPU's shared "
                      "memory has room for: ",
                      x.sizes());
    n.tiles = (n.tokens - 1) / (last ? n.warps : 32) + 1;
    int blocks = n.tiles;
    if (backward) {
      blocks = std::min(n.tiles, busy_blocks());
      n.grad = view_of<const scalar_t>(grads);
      n.x_grad = view_of<scalar_t>(y);
      n.z_grad = view_of<scalar_t>(grad_z);
      partials = at::empty({blocks, 2, n.channels}, weight.options());
      n.partials = partials.mutable_data_ptr<P>();
    } else {
      n.y = view_of<scalar_t>(y);
    }
    last ? launch_norm<true>(blocks, bytes, n, backward)
         : launch_norm<false>(blocks, bytes, n, backward);
  });
  if (!backward) return {y, {}, {}, {}};
  return {y, grad_z, partials.select(1, 0).sum(0),
          partials.select(1, 1).sum(0)};
}

}  // namespace

TORCH_LIBRARY_IMPL(selective_scan, CUDA, m) {
  m.impl("gated_layer_norm", &Operator<run>::forward);
  m.impl("gated_layer_norm_backward", &Operator<run>::backward);
}

}  // namespace selective_scan::cuda
