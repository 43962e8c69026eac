// What the forward and the backward kernel of bidirectional.h share.
#pragma once

#include "bidirectional.h"
#include "gpu.cuh"

namespace selective_scan::cuda {

constexpr float kLog2e = 1.4426950408889634f;

// T is the type in memory.
template <typename T>
struct Bidirectional : Plan {
  int batch, channels, length, rank, directions;
  bool summing;  // whether only the chunks' sums are wanted

  View<const T> u;      // (batch, channels, length)
  View<T> y;            // in the backward pass the gradient of u
  View<const T> proj;   // (batch, directions, rank + 2, length)
  bool paired_rows;     // whether two of them can be read at once
  const float* weight;  // (directions, channels, rank)
  const float* bias;    // (directions, channels), as A and D
  const float* A;
  const float* D;
  // Where there are several chunks: (directions, batch, chunks, channel pairs
  // of all blocks, 4), product of decays and state of each channel. The
  // backward pass has two walks per direction: states, and their gradients.
  float* sums;

  // Of the backward pass alone.
  View<const T> grad;
  // Partial sums, of each block of channels: rows in the order of the slots,
  // (channel blocks, batch, directions, length, slots); and of each chunk:
  // A, bias and weights, (batch * chunks, directions, channels of all blocks,
  // slots), and D, (batch * chunks, channels of all blocks).
  float *row_sums, *parameter_sums, *D_sums;
  View<T> grad_proj;
  float *grad_weight, *grad_bias, *grad_A, *grad_D;
};

__device__ __forceinline__ float2 times(float2 a, float2 b) {
  return make_float2(a.x * b.x, a.y * b.y);
}
__device__ __forceinline__ float2 times(float a, float2 b) {
  return make_float2(a * b.x, a * b.y);
}
__device__ __forceinline__ float2 fused(float2 a, float2 b, float2 c) {
  return make_float2(fmaf(a.x, b.x, c.x), fmaf(a.y, b.y, c.y));
}
__device__ __forceinline__ float2 fused(float a, float2 b, float2 c) {
  return make_float2(fmaf(a, b.x, c.x), fmaf(a, b.y, c.y));
}
__device__ __forceinline__ float2 exp2_of(float2 x) {
  return make_float2(exp2_of(x.x), exp2_of(x.y));
}

// log(1 + e^x); `small` is e^-|x|.
__device__ __forceinline__ float softplus_of(float x, float* small) {
  *small = exp2_of(-kLog2e * fabsf(x));
  return fmaxf(x, 0.f) + log1p_of(*small);
}

// Its derivative.
__device__ __forceinline__ float slope_of(float x, float small) {
  return (x < 0.f ? small : 1.f) * reciprocal_of(1.f + small);
}

// Where a block is, and where a thread is in it.
template <typename T>
struct Place {
  __device__ Place(const Bidirectional<T>& g, int log2) {
    pairs_log2 = log2;
    thread = thread_index();
    pair = thread & ((1 << pairs_log2) - 1);
    run = thread >> pairs_log2;
    width = 2 << pairs_log2;
    chunk = (blockDim.x >> pairs_log2) * kTokens;
    first = blockIdx.y * chunk;
    count = min(chunk, g.length - first);
    block_channel = blockIdx.x * width;
    const int wanted = block_channel + 2 * pair;
    inside = wanted < g.channels;
    channel = inside ? wanted : 0;
    second = min(channel + 1, g.channels - 1);
    token = run * kTokens;
  }
  int thread, pairs_log2, pair, run;
  int width;         // channels of the block
  int chunk;         // tokens of a full chunk
  int first, count;  // tokens of this chunk
  int block_channel;
  int channel, second;  // of the thread; the last of an odd number is doubled
  int token;            // the thread's first one in the chunk
  bool inside;
};

// use(i, load(i)) for i below count, two of the loads under way at once.
template <typename Load, typename Use>
__device__ __forceinline__ void in_pairs(int count, const Load& load,
                                         const Use& use) {
#pragma unroll 1
  for (int i = 0; i < count; i += 2) {
    decltype(load(i)) values[2];
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      if (i + k < count) values[k] = load(i + k);
    }
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      if (i + k < count) use(i + k, values[k]);
    }
  }
}

// The weights of u in y, of all directions.
template <typename T>
__device__ __forceinline__ float2 skip_weights(const Bidirectional<T>& g,
                                               const Place<T>& at) {
  const float2 one = make_float2(g.D[at.channel], g.D[at.second]);
  if (g.directions == 1) return one;
  return make_float2(one.x + g.D[g.channels + at.channel],
                     one.y + g.D[g.channels + at.second]);
}

// dt_proj @ dt + dt_bias of some tokens, four rank rows at a time. Rows begin
// with B and C, and weights with the bias and A.
template <int kCount>
__device__ __forceinline__ void make_steps(int slots, const float* row,
                                           const float* weights,
                                           float2 (&x)[kCount]) {
  const int quads = slots / 4;
  const float4* const first = reinterpret_cast<const float4*>(weights);
  const float4* const second = first + quads;
  const float4* const rows = reinterpret_cast<const float4*>(row);
  const auto add = [&](int q, bool all) {
    const float4 v = first[q], w = second[q];
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const float4 r = rows[i * quads + q];
      if (all) {
        x[i] = fused(r.x, make_float2(v.x, w.x), x[i]);
        x[i] = fused(r.y, make_float2(v.y, w.y), x[i]);
      } else {
        x[i] = make_float2(v.x, w.x);
      }
      x[i] = fused(r.z, make_float2(v.z, w.z), x[i]);
      x[i] = fused(r.w, make_float2(v.w, w.w), x[i]);
    }
  };
  __syncwarp();  // bounds what the compiler loads ahead
  add(0, false);
  // trips: quads - 1
#pragma unroll 1
  for (int q = 1; q < quads; ++q) add(q, true);
}

// The rows of a chunk into shared memory, token-major: B, C, dt_0, dt_1, ...;
// zeros behind the rank and behind the last token.
template <typename T>
__device__ __forceinline__ void stage_rows(const Bidirectional<T>& g,
                                           const Place<T>& at, float* rows) {
  const View<const T>& proj = g.proj;
  const int slots = g.slots;
  const T* const from =
      proj.data + blockIdx.z * proj.batch + proj.offset(0, 0, at.first);
  if (g.paired_rows) {
    // A thread keeps two rows, and takes one token after the other.
    const int pairs = g.directions * slots / 2;
    const int lanes_log2 = min(5, 32 - __clz(pairs - 1));
    const int start = at.thread >> lanes_log2;
    const int step = blockDim.x >> lanes_log2;
    // trips: paired
    for (int q = at.thread & ((1 << lanes_log2) - 1); q < pairs;
         q += 1 << lanes_log2) {
      const int direction = 2 * q >= slots;
      const int slot = 2 * q - direction * slots;
      const int row = slot < 2 ? g.rank + slot : slot - 2;
      const int count = slot < g.rank + 2 ? at.count : 0;
      const T* source = from + proj.offset(direction, row, start);
      float* target = rows + (direction * at.chunk + start) * slots + slot;
      // trips: chunk / (threads / lanes) / 8
#pragma unroll 1
      for (int first = start; first < at.chunk; first += 8 * step) {
        Two<T> values[8];
#pragma unroll
        for (int k = 0; k < 8; ++k, source += step * proj.strides[2]) {
          values[k] = pack<T>(make_float2(0.f, 0.f));
          if (first + k * step < count) {
            values[k] = *reinterpret_cast<const Two<T>*>(source);
          }
        }
#pragma unroll
        for (int k = 0; k < 8; ++k, target += step * slots) {
          if (first + k * step < at.chunk) {
            *reinterpret_cast<float2*>(target) = unpack(values[k]);
          }
        }
      }
    }
    return;
  }
  // Lanes are tokens. The warps that share 32 tokens divide the quads.
  const int log2 = at.pairs_log2 > 3 ? at.pairs_log2 - 3 : 0;
  const int warp = at.thread >> 5, group = warp >> log2;
  const int token = 32 * group + (at.thread & 31);
  const int step =
      min(1 << log2, static_cast<int>(blockDim.x >> 5) - (group << log2));
  if (token >= at.chunk) return;
  const int quads = slots / 4, row = proj.strides[1];
  // trips: (1 - paired) * 2 * quads * 16 / width
#pragma unroll 1
  for (int q = warp - (group << log2); q < g.directions * quads; q += step) {
    const int direction = q >= quads;
    const int slot = 4 * (q - direction * quads);
    const T* const high = from + proj.offset(direction, slot, token);
    const T* const low = slot == 0 ? high + g.rank * row : high - 2 * row;
    const auto load = [&](const T* place, int k) {
      const bool filled = slot + k < g.rank + 2 && token < at.count;
      return filled ? static_cast<float>(*place) : 0.f;
    };
    *reinterpret_cast<float4*>(rows + (direction * at.chunk + token) * slots +
                               slot) =
        make_float4(load(low, 0), load(low + row, 1), load(high, 2),
                    load(high + row, 3));
  }
}

// Parameters of a block's channels as slots: bias and A, where a row has B and
// C, then the weights, and zeros.
template <typename T>
__device__ __forceinline__ void stage_weights(const Bidirectional<T>& g,
                                              const Place<T>& at,
                                              float* weights) {
  const int slots = g.slots;
  const int runs = blockDim.x >> at.pairs_log2;
  // trips: 2
  for (int d = 0; d < g.directions; ++d) {
    const int one = d * g.channels + at.channel;
    const int other = d * g.channels + at.second;
    float* const to = weights + (d * at.width + 2 * at.pair) * slots;
    // trips: slots / runs
#pragma unroll 1
    for (int slot = at.run; slot < slots; slot += runs) {
      const float* const from = slot == 0   ? g.bias
                                : slot == 1 ? g.A
                                            : g.weight + slot - 2;
      const int step = slot < 2 ? 1 : g.rank;
      const bool filled = slot < g.rank + 2;
      to[slot] = filled ? from[one * step] : 0.f;
      to[slots + slot] = filled ? from[other * step] : 0.f;
    }
  }
}

// A tensor whose tokens are dense goes through a tile of (tokens, channels),
// so that memory is read and written in order. A warp moves the words of its
// own tokens: lanes are tokens, and groups of lanes channels where it has
// fewer than 32 tokens.
template <typename T>
struct TileLanes {
  __device__ TileLanes(const Bidirectional<T>& g, const Place<T>& at) {
    const int log2 = 8 - at.pairs_log2;  // of the warp's tokens
    const int lane = at.thread & 31;
    token = ((at.thread >> 5) << log2) + (lane & ((1 << log2) - 1));
    first = lane >> log2;
    step = 32 >> log2;
    const int left = g.channels - at.block_channel - first;
    count = token < at.count ? (left + step - 1) >> (5 - log2) : 0;
    word = token * tile_stride(at.width) + first;
  }
  int token, first, step;  // channels first, first + step, ...
  int count;               // of them that there are
  int word;                // of the first in a tile
};

constexpr int kMoves = 2 * kTokens;  // words that a thread moves

template <typename T>
__device__ __forceinline__ void stage_tile(const Bidirectional<T>& g,
                                           const Place<T>& at,
                                           const View<const T>& view,
                                           float* tile) {
  const TileLanes<T> lanes(g, at);
  const T* from =
      view.data + blockIdx.z * view.batch +
      view.offset(at.block_channel + lanes.first, at.first + lanes.token);
  const int64_t step = static_cast<int64_t>(lanes.step) * view.strides[0];
  float values[kMoves];
#pragma unroll
  for (int k = 0; k < kMoves; ++k, from += step) {
    values[k] = 0.f;
    if (k < lanes.count) values[k] = static_cast<float>(*from);
  }
  tile += lanes.word;
#pragma unroll
  for (int k = 0; k < kMoves; ++k, tile += lanes.step) *tile = values[k];
}

template <typename T>
__device__ __forceinline__ void store_tile(const Bidirectional<T>& g,
                                           const Place<T>& at,
                                           const float* tile) {
  const TileLanes<T> lanes(g, at);
  T* to = g.y.data + blockIdx.z * g.y.batch +
          g.y.offset(at.block_channel + lanes.first, at.first + lanes.token);
  const int64_t step = static_cast<int64_t>(lanes.step) * g.y.strides[0];
  tile += lanes.word;
#pragma unroll
  for (int k = 0; k < kMoves; ++k, to += step, tile += lanes.step) {
    if (k < lanes.count) *to = static_cast<T>(*tile);
  }
}

// A thread's words of its token i in a tile.
template <typename T>
__device__ __forceinline__ float2& tile_pair(float* tile, const Place<T>& at,
                                             int i) {
  return *reinterpret_cast<float2*>(
      tile + (at.token + i) * tile_stride(at.width) + 2 * at.pair);
}

// A thread's tokens of a tensor whose channels are dense.
template <typename T>
__device__ __forceinline__ void load_pairs(const Place<T>& at,
                                           const View<const T>& view,
                                           Two<T> (&values)[kTokens]) {
  const T* const from = view.data + blockIdx.z * view.batch +
                        view.offset(at.channel, at.first + at.token);
#pragma unroll
  for (int i = 0; i < kTokens; ++i) {
    values[i] = pack<T>(make_float2(0.f, 0.f));
    if (at.inside && at.token + i < at.count) {
      values[i] = *reinterpret_cast<const Two<T>*>(from + i * view.strides[1]);
    }
  }
}

template <typename T>
__device__ __forceinline__ void store_pairs(const Bidirectional<T>& g,
                                            const Place<T>& at,
                                            const float2 (&values)[kTokens]) {
  T* const to = g.y.data + blockIdx.z * g.y.batch +
                g.y.offset(at.channel, at.first + at.token);
#pragma unroll
  for (int i = 0; i < kTokens; ++i) {
    if (at.inside && at.token + i < at.count) {
      *reinterpret_cast<Two<T>*>(to + i * g.y.strides[1]) = pack<T>(values[i]);
    }
  }
}

// A walk's sums, (product of decays, state) of two channels.
__device__ __forceinline__ float2 walk_on(float4 sum, float2 state) {
  return make_float2(fmaf(sum.x, state.x, sum.y), fmaf(sum.z, state.y, sum.w));
}

// The sums of a walk over this thread block's chunk, in global memory.
template <typename T>
__device__ __forceinline__ float4* chunk_sums(const Bidirectional<T>& g,
                                              const Place<T>& at, int walk,
                                              int chunk) {
  const int64_t row =
      (static_cast<int64_t>(walk) * gridDim.z + blockIdx.z) * g.chunks + chunk;
  return reinterpret_cast<float4*>(g.sums) +
         ((row * gridDim.x + blockIdx.x) << at.pairs_log2) + at.pair;
}

// The lanes of one run go over the sums of all runs, and leave what enters
// each of them in its place; before, over the chunks before this one. Where
// only sums are wanted, they write those of the chunk instead.
template <typename T>
__device__ __forceinline__ void fold_runs(const Bidirectional<T>& g,
                                          const Place<T>& at, int walk,
                                          bool ascending, float4* sums) {
  const int runs = blockDim.x >> at.pairs_log2;
  float2 state = make_float2(0.f, 0.f), product = make_float2(1.f, 1.f);
  if (g.chunks > 1 && !g.summing) {
    const int chunk = blockIdx.y;
    const int before = ascending ? chunk : g.chunks - 1 - chunk;
    const float4* const from =
        chunk_sums(g, at, walk, ascending ? 0 : g.chunks - 1);
    const int row = gridDim.x << at.pairs_log2;
    const int64_t step = ascending ? row : -row;
    // trips: 0
    in_pairs(
        before, [&](int k) { return from[k * step]; },
        [&](int, float4 sum) { state = walk_on(sum, state); });
  }
  const int step = (ascending ? 1 : -1) * (1 << at.pairs_log2);
  float4* const own =
      sums + ((ascending ? 0 : runs - 1) << at.pairs_log2) + at.pair;
  // trips: runs / 2 / folding
  in_pairs(
      runs, [&](int k) { return own[k * step]; },
      [&](int k, float4 sum) {
        *reinterpret_cast<float2*>(own + k * step) = state;
        state = walk_on(sum, state);
        product = times(product, make_float2(sum.x, sum.z));
      });
  if (g.summing) {
    *chunk_sums(g, at, walk, blockIdx.y) =
        make_float4(product.x, state.x, product.y, state.y);
  }
}

}  // namespace selective_scan::cuda
