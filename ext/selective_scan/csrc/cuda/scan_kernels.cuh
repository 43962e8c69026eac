// The CUDA kernels. Nothing of PyTorch is used here, so that a host compiler
// can build them against an emulation of threads and shuffles and test them.
//
// A thread block works on one batch element and a few channels. The tokens
// are cut into chunks of kSegments * kItems. A thread owns kItems tokens in
// a row of one channel; kSegments neighbouring threads make up a channel.
// A scan runs over a thread's items, then across its segment's neighbours by
// shuffles, then again over the items, with what comes from the left known.
//
// Both directions are added before y is written once. Where there are
// several chunks, a first walk over them finds, per chunk, what the walks
// that run against the main one carry into it.
#pragma once

#include "layout.h"
#include "scan_math.cuh"

#if defined(__CUDACC__)
#define SCAN_GRID_CONSTANT __grid_constant__
// One untyped array serves every instance of the kernels.
#define SCAN_SHARED_MEMORY(type, name)                        \
  extern __shared__ __align__(16) unsigned char raw_##name[]; \
  type* const name = reinterpret_cast<type*>(raw_##name)
#endif

namespace selective_scan::cuda {

constexpr unsigned kAllLanes = 0xffffffffu;

template <typename P>
struct Pair {
  P decay;
  P value;
};

__device__ __forceinline__ float exp_of(float x) { return expf(x); }
__device__ __forceinline__ double exp_of(double x) { return exp(x); }

// log(1 + e^x) and its derivative.
template <typename P>
__device__ __forceinline__ P softplus_of(P x, P* slope) {
  const P e = exp_of(x < P(0) ? x : -x);
  *slope = (x < P(0) ? e : P(1)) / (P(1) + e);
  return (x < P(0) ? P(0) : x) + log1p_of(e);
}

template <typename T, typename P, typename L>
class Block {
 public:
  __device__ Block(const Operands<T, P>& operands, P* memory, int tiles)
      : o(operands), shape(operands.shape) {
    const auto blocks = static_cast<unsigned>(L::blocks(shape));
    batch = static_cast<int>(blockIdx.x / blocks);
    block_index = static_cast<int>(blockIdx.x % blocks);
    const ChannelBlock block = channel_block(shape, block_index, L::kChannels);
    block_first = static_cast<int>(block.first);
    block_width = static_cast<int>(block.width);
    segment = threadIdx.x % L::kSegments;
    local = threadIdx.x / L::kSegments;
    active = local < block_width;
    channel = block_first + (active ? local : 0);
    chunks = static_cast<int>(L::chunks(shape));
    tile = memory;
    second_tile = memory + L::kTile;
    B_row = memory + tiles * L::kTile;
    C_row = B_row + L::kRow;
    dt_rows = C_row + L::kRow;
  }

  __device__ void enter(int index) {
    chunk = index;
    first = chunk * L::kChunk;
    count = static_cast<int>(smaller(L::kChunk, shape.length - first));
  }

  __device__ bool valid(int i) const {
    return active && segment * L::kItems + i < count;
  }
  __device__ int place(int i) const {
    return L::padded(segment * L::kItems + i);
  }

  // Items from a tensor, through a tile so that memory is read in order.
  __device__ void load(const T* from, const ChannelStrides& strides,
                       P (&items)[L::kItems]) {
    from += strides.at(batch, block_first, first);
    const bool tokens_first = strides.token == 1;
    for (int i = threadIdx.x; i < L::kChannels * L::kChunk; i += kThreads) {
      const int c = tokens_first ? i / L::kChunk : i % L::kChannels;
      const int t = tokens_first ? i % L::kChunk : i / L::kChannels;
      const bool inside = c < block_width && t < count;
      tile[c * L::kStride + L::padded(t)] =
          inside ? P(from[c * strides.channel + t * strides.token]) : P(0);
    }
    __syncthreads();
    for (int i = 0; i < L::kItems; ++i) {
      items[i] = tile[local * L::kStride + place(i)];
    }
    __syncthreads();
  }

  __device__ void store(const P (&items)[L::kItems], T* to,
                        const ChannelStrides& strides) {
    for (int i = 0; i < L::kItems; ++i) {
      tile[local * L::kStride + place(i)] = items[i];
    }
    __syncthreads();
    to += strides.at(batch, block_first, first);
    const bool tokens_first = strides.token == 1;
    for (int i = threadIdx.x; i < L::kChannels * L::kChunk; i += kThreads) {
      const int c = tokens_first ? i / L::kChunk : i % L::kChannels;
      const int t = tokens_first ? i % L::kChunk : i / L::kChannels;
      if (c < block_width && t < count) {
        to[c * strides.channel + t * strides.token] =
            T(tile[c * L::kStride + L::padded(t)]);
      }
    }
    __syncthreads();
  }

  // Rows that the block's channels share, into shared memory. The caller
  // synchronises, before and after.
  __device__ void stage(const T* from, const RowStrides& strides, int set,
                        int64_t row, int rows, P* to) const {
    from += strides.at(batch, set, row, first);
    const bool tokens_first = strides.token == 1;
    for (int i = threadIdx.x; i < rows * L::kChunk; i += kThreads) {
      const int r = tokens_first ? i / L::kChunk : i % rows;
      const int t = tokens_first ? i % L::kChunk : i / rows;
      to[r * L::kRow + L::padded(t)] =
          t < count ? P(from[r * strides.row + t * strides.token]) : P(0);
    }
  }

  __device__ P dt_value(int set, int r, int i) const {
    if (r < o.staged_rows) return dt_rows[r * L::kRow + place(i)];
    const int t = segment * L::kItems + i;
    return t < count ? P(o.dt[o.dt_strides.at(batch, set, r, first + t)])
                     : P(0);
  }

  // Steps of a direction, and softplus's slope; 0 where there is no token.
  __device__ void make_delta(int direction, P (&delta)[L::kItems],
                             P (&slope)[L::kItems]) {
    const int64_t p = shape.parameter(direction, channel);
    const P bias = o.bias != nullptr ? o.bias[p] : P(0);
    if (shape.rank > 0) {
      const int set = static_cast<int>(shape.set(direction, block_first));
      __syncthreads();
      stage(o.dt, o.dt_strides, set, 0, static_cast<int>(o.staged_rows),
            dt_rows);
      __syncthreads();
      for (int i = 0; i < L::kItems; ++i) delta[i] = bias;
      for (int r = 0; r < shape.rank; ++r) {
        const P weight = o.dt_proj[p * shape.rank + r];
        for (int i = 0; i < L::kItems; ++i) {
          delta[i] += weight * dt_value(set, r, i);
        }
      }
    } else {
      load(o.delta, o.delta_strides, delta);
      for (int i = 0; i < L::kItems; ++i) delta[i] += bias;
    }
    for (int i = 0; i < L::kItems; ++i) {
      slope[i] = P(1);
      if (shape.softplus) delta[i] = softplus_of(delta[i], &slope[i]);
      if (!valid(i)) delta[i] = slope[i] = P(0);
    }
  }

  __device__ void stage_B_and_C(int direction, int n) {
    const int set = static_cast<int>(shape.set(direction, block_first));
    __syncthreads();
    stage(o.B, o.B_strides, set, n, 1, B_row);
    stage(o.C, o.C_strides, set, n, 1, C_row);
    __syncthreads();
  }

  __device__ P* carry(int slot, int n, int which) const {
    return o.carries +
           (((slot * shape.batch + batch) * chunks + which) * shape.state +
            n) *
               shape.channels +
           channel;
  }

  // Solve x_i = decay_i * x_(i-1) + value_i over the chunk, upwards or
  // downwards, and leave x_(i-1) in `before`. What enters the chunk comes
  // from carry slot `slot`; where `pass_on`, what leaves it goes on to the
  // next chunk on the way.
  __device__ void scan(bool downwards, const P (&decay)[L::kItems],
                       const P (&value)[L::kItems], int slot, int n,
                       bool pass_on, P (&before)[L::kItems]) const {
    Pair<P> sum{P(1), P(0)};
    for (int step = 0; step < L::kItems; ++step) {
      // Both indices are constants once the loop is unrolled.
      const P a = downwards ? decay[L::kItems - 1 - step] : decay[step];
      const P b = downwards ? value[L::kItems - 1 - step] : value[step];
      sum.value = a * sum.value + b;
      sum.decay *= a;
    }
    const int rank = downwards ? L::kSegments - 1 - segment : segment;
    for (int d = 1; d < L::kSegments; d *= 2) {
      const Pair<P> other = neighbour(sum, downwards, d);
      if (rank >= d) {
        sum.value += sum.decay * other.value;
        sum.decay *= other.decay;
      }
    }
    const Pair<P> left = neighbour(sum, downwards, 1);
    P x = P(0);
    if (chunks > 1) x = *carry(slot, n, chunk);
    if (pass_on && chunks > 1) {
      const int next = downwards ? chunk - 1 : chunk + 1;
      if (active && rank == L::kSegments - 1 && next >= 0 && next < chunks) {
        *carry(slot, n, next) = sum.decay * x + sum.value;
      }
    }
    if (rank > 0) x = left.decay * x + left.value;
    for (int step = 0; step < L::kItems; ++step) {
      if (downwards) {
        const int i = L::kItems - 1 - step;
        before[i] = x;
        x = decay[i] * x + value[i];
      } else {
        before[step] = x;
        x = decay[step] * x + value[step];
      }
    }
  }

  // The sum over a channel's threads, in each of them.
  __device__ static P channel_sum(P value) {
    for (int d = L::kSegments / 2; d > 0; d /= 2) {
      value += __shfl_xor_sync(kAllLanes, value, d, L::kSegments);
    }
    return value;
  }

  const Operands<T, P>& o;
  const ScanShape& shape;
  // 32 bits hold each of these (and save registers); offsets take 64.
  int batch, block_index, channel, chunks;
  int chunk = 0, first = 0, count = 0;
  int block_first, block_width;
  int segment, local;
  bool active;
  P *tile, *second_tile, *B_row, *C_row, *dt_rows;

 private:
  __device__ static Pair<P> neighbour(const Pair<P>& own, bool downwards,
                                      int distance) {
    Pair<P> other;
    if (downwards) {
      other.decay =
          __shfl_down_sync(kAllLanes, own.decay, distance, L::kSegments);
      other.value =
          __shfl_down_sync(kAllLanes, own.value, distance, L::kSegments);
    } else {
      other.decay =
          __shfl_up_sync(kAllLanes, own.decay, distance, L::kSegments);
      other.value =
          __shfl_up_sync(kAllLanes, own.value, distance, L::kSegments);
    }
    return other;
  }
};

// One direction of one chunk: states go on, and y takes C * h where `output`.
template <typename T, typename P, typename L, bool output>
__device__ void forward_chunk(Block<T, P, L>& work, int direction,
                              bool pass_on, const P (&u)[L::kItems],
                              P (&y)[L::kItems]) {
  const ScanShape& shape = work.shape;
  const int64_t p = shape.parameter(direction, work.channel);
  const bool downwards = shape.reversed(direction);
  P delta[L::kItems], slope[L::kItems], decay[L::kItems], value[L::kItems];
  P before[L::kItems];
  work.make_delta(direction, delta, slope);
  for (int n = 0; n < shape.state; ++n) {
    work.stage_B_and_C(direction, n);
    const P A = work.o.A[p * shape.state + n];
    for (int i = 0; i < L::kItems; ++i) {
      decay[i] = exp_of(delta[i] * A);
      value[i] = delta[i] * u[i] * work.B_row[work.place(i)];
    }
    work.scan(downwards, decay, value, direction, n, pass_on, before);
    if constexpr (output) {
      for (int i = 0; i < L::kItems; ++i) {
        y[i] += work.C_row[work.place(i)] * (decay[i] * before[i] + value[i]);
      }
    }
  }
  if constexpr (output) {
    const P D = work.o.D != nullptr ? work.o.D[p] : P(0);
    for (int i = 0; i < L::kItems; ++i) y[i] += D * u[i];
  }
}

template <typename T, typename P, typename L>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const SCAN_GRID_CONSTANT Operands<T, P> operands) {
  SCAN_SHARED_MEMORY(P, memory);
  Block<T, P, L> work(operands, memory, 1);
  const ScanShape& shape = operands.shape;
  P u[L::kItems], y[L::kItems];
  if (shape.directions == 2) {
    for (int chunk = work.chunks - 1; chunk > 0; --chunk) {
      work.enter(chunk);
      work.load(operands.u, operands.u_strides, u);
      forward_chunk<T, P, L, false>(work, 1, true, u, y);
    }
  }
  for (int step = 0; step < work.chunks; ++step) {
    work.enter(shape.reverse ? work.chunks - 1 - step : step);
    work.load(operands.u, operands.u_strides, u);
    for (int i = 0; i < L::kItems; ++i) y[i] = P(0);
    for (int k = 0; k < shape.directions; ++k) {
      forward_chunk<T, P, L, true>(work, k, k == 0, u, y);
    }
    __syncthreads();
    work.store(y, operands.y, operands.y_strides);
  }
}

// Sums over the block's channels of one value per token, to a partial row.
template <typename T, typename P, typename L>
__device__ void store_row(const Block<T, P, L>& work, const P* tile, P* row) {
  for (int t = threadIdx.x; t < work.count; t += kThreads) {
    P sum = P(0);
    for (int c = 0; c < work.block_width; ++c) {
      sum += tile[c * L::kStride + L::padded(t)];
    }
    row[work.first + t] = sum;
  }
}

// The first walk of the backward pass: states of direction 0 and, where there
// are two, gradients of the states of direction 1.
template <typename T, typename P, typename L>
__device__ void carry_chunk(Block<T, P, L>& work) {
  const ScanShape& shape = work.shape;
  P u[L::kItems], unused[L::kItems];
  work.load(work.o.u, work.o.u_strides, u);
  forward_chunk<T, P, L, false>(work, 0, true, u, unused);
  if (shape.directions < 2) return;
  P gy[L::kItems], delta[L::kItems], slope[L::kItems], decay[L::kItems];
  P value[L::kItems], before[L::kItems];
  __syncthreads();
  work.load(work.o.grad, work.o.grad_strides, gy);
  work.make_delta(1, delta, slope);
  const int64_t p = shape.parameter(1, work.channel);
  for (int n = 0; n < shape.state; ++n) {
    work.stage_B_and_C(1, n);
    const P A = work.o.A[p * shape.state + n];
    for (int i = 0; i < L::kItems; ++i) {
      decay[i] = exp_of(delta[i] * A);
      value[i] = decay[i] * work.C_row[work.place(i)] * gy[i];
    }
    work.scan(!shape.reversed(1), decay, value, 3, n, true, before);
  }
}

template <typename T, typename P, typename L>
__device__ void backward_chunk(Block<T, P, L>& work,
                               const Gradients<T, P>& gradients, int direction,
                               const P (&u)[L::kItems],
                               const P (&gy)[L::kItems], P (&gu)[L::kItems]) {
  const ScanShape& shape = work.shape;
  const Operands<T, P>& o = work.o;
  const int64_t p = shape.parameter(direction, work.channel);
  const int set = static_cast<int>(shape.set(direction, work.block_first));
  const bool downwards = shape.reversed(direction);
  const int64_t rows = shape.rank + 2 * shape.state;
  P* const row_out =
      gradients.rows +
      (((work.block_index * shape.batch + work.batch) * shape.sets() + set) *
       rows) *
          shape.length;
  P* const parameter_out =
      gradients.parameters +
      ((work.batch * shape.directions + direction) * shape.channels +
       work.channel) *
          (shape.rank + shape.state + 2);
  const bool adds = work.active && work.segment == 0;

  P delta[L::kItems], slope[L::kItems], decay[L::kItems], value[L::kItems];
  P before[L::kItems], after[L::kItems], drive[L::kItems], step[L::kItems];
  work.make_delta(direction, delta, slope);
  for (int i = 0; i < L::kItems; ++i) drive[i] = step[i] = P(0);
  for (int n = 0; n < shape.state; ++n) {
    work.stage_B_and_C(direction, n);
    const P A = o.A[p * shape.state + n];
    for (int i = 0; i < L::kItems; ++i) {
      decay[i] = exp_of(delta[i] * A);
      value[i] = delta[i] * u[i] * work.B_row[work.place(i)];
    }
    // Of two directions, 0 has its states from the first walk and 1 finds
    // them on this one; with the gradients of the states it is the reverse.
    work.scan(downwards, decay, value, direction, n, direction == 1, before);
    for (int i = 0; i < L::kItems; ++i) {
      work.second_tile[work.local * L::kStride + work.place(i)] =
          gy[i] * (decay[i] * before[i] + value[i]);
      value[i] = decay[i] * work.C_row[work.place(i)] * gy[i];
    }
    work.scan(!downwards, decay, value,
              static_cast<int>(shape.directions) + direction, n,
              direction == 0, after);
    P grad_A = P(0);
    for (int i = 0; i < L::kItems; ++i) {
      const P grad_state = work.C_row[work.place(i)] * gy[i] + after[i];
      const P through_decay = grad_state * before[i] * decay[i];
      grad_A += through_decay * delta[i];
      step[i] += through_decay * A;
      drive[i] += grad_state * work.B_row[work.place(i)];
      work.tile[work.local * L::kStride + work.place(i)] =
          grad_state * delta[i] * u[i];
    }
    grad_A = work.channel_sum(grad_A);
    if (adds) parameter_out[shape.rank + n] += grad_A;
    __syncthreads();
    store_row(work, work.tile, row_out + (shape.rank + n) * shape.length);
    store_row(work, work.second_tile,
              row_out + (shape.rank + shape.state + n) * shape.length);
  }

  const P D = o.D != nullptr ? o.D[p] : P(0);
  P grad_D = P(0), grad_bias = P(0);
  for (int i = 0; i < L::kItems; ++i) {
    step[i] = (step[i] + drive[i] * u[i]) * slope[i];
    gu[i] += drive[i] * delta[i] + D * gy[i];
    grad_D += gy[i] * u[i];
    grad_bias += step[i];
  }
  grad_D = work.channel_sum(grad_D);
  grad_bias = work.channel_sum(grad_bias);
  if (adds) {
    parameter_out[shape.rank + shape.state] += grad_D;
    parameter_out[shape.rank + shape.state + 1] += grad_bias;
  }
  __syncthreads();
  if (gradients.delta != nullptr) {
    work.store(step, gradients.delta, gradients.delta_strides);
  }
  if (shape.rank == 0) return;
  for (int r = 0; r < shape.rank; ++r) {
    P sum = P(0);
    for (int i = 0; i < L::kItems; ++i) {
      sum += step[i] * work.dt_value(set, r, i);
    }
    sum = work.channel_sum(sum);
    if (adds) parameter_out[r] += sum;
  }
  for (int i = 0; i < L::kItems; ++i) {
    work.tile[work.local * L::kStride + work.place(i)] = step[i];
  }
  __syncthreads();
  const P* weights =
      o.dt_proj + shape.parameter(direction, work.block_first) * shape.rank;
  for (int i = threadIdx.x; i < shape.rank * L::kChunk; i += kThreads) {
    const int r = i / L::kChunk, t = i % L::kChunk;
    if (t >= work.count) continue;
    P sum = P(0);
    for (int c = 0; c < work.block_width; ++c) {
      sum += weights[c * shape.rank + r] *
             work.tile[c * L::kStride + L::padded(t)];
    }
    row_out[r * shape.length + work.first + t] = sum;
  }
  __syncthreads();
}

template <typename T, typename P, typename L>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(const SCAN_GRID_CONSTANT Operands<T, P> operands,
                    const SCAN_GRID_CONSTANT Gradients<T, P> gradients) {
  SCAN_SHARED_MEMORY(P, memory);
  Block<T, P, L> work(operands, memory, 2);
  const ScanShape& shape = operands.shape;
  const int last = work.chunks - 1;
  for (int step = 0; step < last; ++step) {
    work.enter(shape.reverse ? last - step : step);
    carry_chunk(work);
    __syncthreads();
  }
  P u[L::kItems], gy[L::kItems], gu[L::kItems];
  for (int step = 0; step <= last; ++step) {
    work.enter(shape.reverse ? step : last - step);
    work.load(operands.u, operands.u_strides, u);
    work.load(operands.grad, operands.grad_strides, gy);
    for (int i = 0; i < L::kItems; ++i) gu[i] = P(0);
    for (int k = 0; k < shape.directions; ++k) {
      backward_chunk(work, gradients, k, u, gy, gu);
    }
    __syncthreads();
    work.store(gu, gradients.u, gradients.u_strides);
  }
}

}  // namespace selective_scan::cuda
