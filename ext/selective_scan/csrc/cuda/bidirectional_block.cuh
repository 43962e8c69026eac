// What the forward and the backward kernel of bidirectional.h share. Nothing
// of PyTorch is used, so that the emulation on a CPU runs the same source.
#pragma once

#include "bidirectional_plan.h"
#include "scan_math.cuh"

namespace selective_scan::cuda {

constexpr float kLog2e = 1.4426950408889634f;

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) {
  return __bfloat162float(x);
}

template <typename T>
struct Vector;  // two values, one load
template <>
struct Vector<float> {
  using Type = float2;
  __device__ __forceinline__ static float2 unpack(Type x) { return x; }
  __device__ __forceinline__ static Type pack(float2 x) { return x; }
  __device__ __forceinline__ static float round(float x) { return x; }
};
template <>
struct Vector<__half> {
  using Type = __half2;
  __device__ __forceinline__ static float2 unpack(Type x) {
    return __half22float2(x);
  }
  __device__ __forceinline__ static Type pack(float2 x) {
    return __float22half2_rn(x);
  }
  __device__ __forceinline__ static __half round(float x) {
    return __float2half_rn(x);
  }
};
template <>
struct Vector<__nv_bfloat16> {
  using Type = __nv_bfloat162;
  __device__ __forceinline__ static float2 unpack(Type x) {
    return __bfloat1622float2(x);
  }
  __device__ __forceinline__ static Type pack(float2 x) {
    return __float22bfloat162_rn(x);
  }
  __device__ __forceinline__ static __nv_bfloat16 round(float x) {
    return __float2bfloat16_rn(x);
  }
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
    pair = threadIdx.x & ((1 << pairs_log2) - 1);
    run = threadIdx.x >> pairs_log2;
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
  int pairs_log2, pair, run;
  int width;         // channels of the block
  int chunk;         // tokens of a full chunk
  int first, count;  // tokens of this chunk
  int block_channel;
  int channel, second;  // of the thread; the last of an odd number is doubled
  int token;            // the thread's first one in the chunk
  bool inside;
};

// Parameters of a lane's two channels.
__device__ __forceinline__ float2 load_two(const float* from, int first,
                                           int second) {
  return make_float2(from[first], from[second]);
}

// The rows of a chunk into shared memory, token-major: B, C, dt_0, dt_1, ...;
// zeros behind the rank and behind the last token. A thread keeps kWords
// neighbouring rows, and takes one token after the other.
template <typename T, int kWords>
__device__ __forceinline__ void stage_token_rows(const Bidirectional<T>& g,
                                                 const Place<T>& at, int slots,
                                                 const T* from, float* rows) {
  const int total = g.directions * slots / kWords;
  const int lanes_log2 = min(5, 32 - __clz(total - 1));
  const int start = threadIdx.x >> lanes_log2;
  const int step = blockDim.x >> lanes_log2;
  for (int q = threadIdx.x & ((1 << lanes_log2) - 1); q < total;
       q += 1 << lanes_log2) {
    const int direction = q * kWords >= slots;
    const int slot = q * kWords - direction * slots;
    const int row = slot < 2 ? g.rank + slot : slot - 2;
    const bool filled = slot < g.rank + 2;
    const T* source = from + direction * g.proj_set + row +
                      static_cast<int64_t>(start) * g.proj_token;
    float* target = rows + (direction * at.chunk + start) * slots + slot;
    const int stride = step * g.proj_token;
#pragma unroll 4
    for (int t = start; t < at.chunk; t += step) {
      if constexpr (kWords == 2) {
        float2 value = make_float2(0.f, 0.f);
        if (filled && t < at.count) {
          value = Vector<T>::unpack(
              *reinterpret_cast<const typename Vector<T>::Type*>(source));
        }
        *reinterpret_cast<float2*>(target) = value;
      } else {
        *target = filled && t < at.count ? to_float(*source) : 0.f;
      }
      source += stride;
      target += step * slots;
    }
  }
}

template <typename T>
__device__ __forceinline__ void stage_rows(const Bidirectional<T>& g,
                                           const Place<T>& at, int slots,
                                           float* rows) {
  const T* const from = g.proj + blockIdx.z * g.proj_batch +
                        static_cast<int64_t>(at.first) * g.proj_token;
  if (g.paired_rows) {
    stage_token_rows<T, 2>(g, at, slots, from, rows);
    return;
  }
  if (g.proj_row == 1) {
    stage_token_rows<T, 1>(g, at, slots, from, rows);
    return;
  }
  // A warp takes one row after the other.
  for (int q = threadIdx.x >> 5; q < g.directions * slots;
       q += blockDim.x >> 5) {
    const int direction = q >= slots;
    const int slot = q - direction * slots;
    const int row = slot < 2 ? g.rank + slot : slot - 2;
    const bool filled = slot < g.rank + 2;
    const T* const source = from + direction * g.proj_set + row * g.proj_row;
    float* const target = rows + direction * at.chunk * slots + slot;
#pragma unroll 4
    for (int t = threadIdx.x & 31; t < at.chunk; t += 32) {
      target[t * slots] =
          filled && t < at.count ? to_float(source[t * g.proj_token]) : 0.f;
    }
  }
}

// A tensor whose tokens are dense, through a tile of (tokens, channels), so
// that memory is read and written in order.
template <typename T>
__device__ __forceinline__ void stage_tile(const Bidirectional<T>& g,
                                           const Place<T>& at, const T* from,
                                           int64_t batch, int lead,
                                           float* tile) {
  from += blockIdx.z * batch + at.first;
  const int log2 = at.chunk >= 32 ? 5 : 3;
  const int mine = threadIdx.x & ((1 << log2) - 1);
  for (int c = threadIdx.x >> log2; c < at.width; c += blockDim.x >> log2) {
    const int channel = at.block_channel + c;
    const int count = channel < g.channels ? at.count : 0;
    const T* const source = from + channel * lead;
#pragma unroll 4
    for (int t = mine; t < at.chunk; t += 1 << log2) {
      tile[t * tile_stride(at.width) + c] =
          t < count ? to_float(source[t]) : 0.f;
    }
  }
}

template <typename T>
__device__ __forceinline__ void store_tile(const Bidirectional<T>& g,
                                           const Place<T>& at,
                                           const float* tile, T* to) {
  to += (static_cast<int64_t>(blockIdx.z) * g.channels + at.block_channel) *
            g.length +
        at.first;
  const int channels = min(at.width, g.channels - at.block_channel);
  const int log2 = at.chunk >= 32 ? 5 : 3;
  const int mine = threadIdx.x & ((1 << log2) - 1);
  for (int c = threadIdx.x >> log2; c < channels; c += blockDim.x >> log2) {
#pragma unroll 4
    for (int t = mine; t < at.count; t += 1 << log2) {
      to[c * g.length + t] =
          Vector<T>::round(tile[t * tile_stride(at.width) + c]);
    }
  }
}

__device__ __forceinline__ float2 tile_pair(const float* tile, int width,
                                            int token, int pair) {
  return *reinterpret_cast<const float2*>(tile + token * tile_stride(width) +
                                          2 * pair);
}

// A thread's tokens of a tensor whose channels are dense.
template <typename T>
__device__ __forceinline__ void load_pairs(
    const Place<T>& at, const T* from, int64_t batch, int lead,
    typename Vector<T>::Type (&values)[kTokens]) {
  from += blockIdx.z * batch +
          static_cast<int64_t>(at.first + at.token) * lead + at.channel;
#pragma unroll
  for (int i = 0; i < kTokens; ++i) {
    values[i] = Vector<T>::pack(make_float2(0.f, 0.f));
    if (at.inside && at.token + i < at.count) {
      values[i] =
          *reinterpret_cast<const typename Vector<T>::Type*>(from + i * lead);
    }
  }
}

template <typename T>
__device__ __forceinline__ void store_pairs(const Bidirectional<T>& g,
                                            const Place<T>& at,
                                            const float2 (&values)[kTokens],
                                            T* to) {
  to += (static_cast<int64_t>(blockIdx.z) * g.length + at.first + at.token) *
            g.channels +
        at.channel;
#pragma unroll
  for (int i = 0; i < kTokens; ++i) {
    if (at.inside && at.token + i < at.count) {
      *reinterpret_cast<typename Vector<T>::Type*>(to + i * g.channels) =
          Vector<T>::pack(values[i]);
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
    const float4* from = chunk_sums(g, at, walk, ascending ? 0 : g.chunks - 1);
    const int64_t row = gridDim.x << at.pairs_log2;
    const int64_t step = ascending ? row : -row;
#pragma unroll 4
    for (int k = 0; k < before; ++k, from += step) {
      state = walk_on(*from, state);
    }
  }
  const int step = (ascending ? 1 : -1) * (1 << at.pairs_log2);
  float4* sum = sums + ((ascending ? 0 : runs - 1) << at.pairs_log2) + at.pair;
#pragma unroll 4
  for (int k = 0; k < runs; ++k, sum += step) {
    const float4 own = *sum;
    *reinterpret_cast<float2*>(sum) = state;
    state = walk_on(own, state);
    product = times(product, make_float2(own.x, own.z));
  }
  if (g.summing) {
    *chunk_sums(g, at, walk, blockIdx.y) =
        make_float4(product.x, state.x, product.y, state.y);
  }
}

}  // namespace selective_scan::cuda
