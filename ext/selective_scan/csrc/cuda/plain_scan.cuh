// The kernels of the plain scan, of any states, groups and types.
//
// A scan runs over a thread's items, then across its segment's neighbours by
// shuffles, then again over the items, with what comes from before known.
// States are carried from chunk to chunk upwards, their gradients downwards.
#pragma once

#include "gpu.cuh"

namespace selective_scan::cuda {

// T is the type in memory, P that of states and parameters. Tokens of all
// views are in the order of the walk: a stride is negative where it goes
// backwards.
template <typename T, typename P>
struct PlainScan {
  int batch, channels, length, state, groups;
  int chunks;
  bool softplus;
  View<const T> u, delta;  // (batch, channels, length)
  View<const T> B, C;      // (batch, groups, state, length)
  const P* A;              // (channels, state)
  const P* D;              // (channels,) or null, as bias
  const P* bias;
  View<T> y;  // without data where only the states are wanted
  // What enters each chunk, (2, batch, chunks, state, channels): states, and
  // gradients of states. Null where there is one chunk.
  P* carries;

  // Of the backward pass alone.
  View<const T> grad;
  View<T> grad_u, grad_delta;
  // Partial sums: of B and C, (blocks of a group's channels * batch * groups,
  // 2 * state, length); of A, D and bias, (batch, channels, state + 2), which
  // start at 0.
  View<P> rows;
  P* parameters;
};

// A tensor whose last dimension is tokens, in the order of the walk.
template <typename T>
View<T> walk(const at::Tensor& x, bool reverse) {
  auto view = view_of<T>(x);
  if (reverse) {
    int& step = view.strides[x.dim() - 2];
    view.data += (x.size(-1) - 1) * step;
    step = -step;
  }
  return view;
}

constexpr int kThreads = 512;

// A block has kChannels channels of one group and batch element and walks over
// chunks of kChunk tokens; a thread owns kItems tokens in a row of one
// channel, and kSegments neighbouring threads make up a channel.
template <int segments, int items>
struct Layout {
  static constexpr int kSegments = segments;
  static constexpr int kItems = items;
  static constexpr int kChunk = segments * items;
  static constexpr int kChannels = kThreads / segments;
  // One word of padding in 32 keeps a thread's items in banks of their own,
  // and an odd length keeps neighbouring channels apart.
  static constexpr int kRow = kChunk + kChunk / 32;
  static constexpr int kStride = kRow | 1;
  static constexpr int kTile = kChannels * kStride;
  // Elements of shared memory: two tiles, a row of B and one of C.
  static constexpr int kShared = 2 * (kTile + kRow);

  __device__ static int padded(int t) { return t + t / 32; }
};

// Calls use(layout) with that for up to 16, up to 64 or more tokens. float64
// has the first two alone, whose tiles fit into every GPU's shared memory.
template <typename P, typename Use>
void with_layout(int64_t length, const Use& use) {
  if (length <= 16) return use(Layout<4, 4>());
  if constexpr (sizeof(P) < sizeof(double)) {
    if (length > 64) return use(Layout<32, 8>());
  }
  use(Layout<16, 4>());
}

template <typename P>
struct Pair {
  P decay;
  P value;
};

template <typename T, typename P, typename L>
class Block {
 public:
  using Items = P[L::kItems];

  __device__ Block(const PlainScan<T, P>& operands, P* memory) : o(operands) {
    batch = static_cast<int>(blockIdx.x);
    group = static_cast<int>(blockIdx.z);
    const int in_group = o.channels / o.groups;
    const int offset = static_cast<int>(blockIdx.y) * L::kChannels;
    first_channel = group * in_group + offset;
    width = min(L::kChannels, in_group - offset);
    set = (static_cast<int64_t>(blockIdx.y) * o.batch + batch) * o.groups +
          group;
    segment = threadIdx.x % L::kSegments;
    local = threadIdx.x / L::kSegments;
    active = local < width;
    channel = first_channel + (active ? local : 0);
    tile = memory;
    second_tile = memory + L::kTile;
    B_row = second_tile + L::kTile;
    C_row = B_row + L::kRow;
  }

  __device__ void enter(int index) {
    chunk = index;
    first = chunk * L::kChunk;
    count = min(L::kChunk, o.length - first);
  }

  // Of a thread's item, in a row and in a tile.
  __device__ int place(int i) const {
    return L::padded(segment * L::kItems + i);
  }
  __device__ P& cell(P* of_tile, int i) const {
    return of_tile[local * L::kStride + place(i)];
  }

  // use(element of the tile, of the view) for the chunk, in memory's order.
  template <typename V, typename Use>
  __device__ void visit(const View<V>& view, const Use& use) {
    V* const memory =
        view.data + batch * view.batch + view.offset(first_channel, first);
    const bool tokens_first = view.strides[0] != 1;
    for (int i = threadIdx.x; i < L::kChannels * L::kChunk; i += kThreads) {
      const int c = tokens_first ? i / L::kChunk : i % L::kChannels;
      const int t = tokens_first ? i % L::kChunk : i / L::kChannels;
      use(tile[c * L::kStride + L::padded(t)], c < width && t < count,
          memory + view.offset(c, t));
    }
    __syncthreads();
  }
  __device__ void load(const View<const T>& from, Items& items) {
    visit(from, [](P& to, bool inside, const T* value) {
      to = inside ? P(*value) : P(0);
    });
    for (int i = 0; i < L::kItems; ++i) items[i] = cell(tile, i);
    __syncthreads();
  }
  __device__ void store(const Items& items, const View<T>& to) {
    for (int i = 0; i < L::kItems; ++i) cell(tile, i) = items[i];
    __syncthreads();
    visit(to, [](P value, bool inside, T* place) {
      if (inside) *place = T(value);
    });
  }

  // Steps, and softplus's slope; 0 where there is no token.
  __device__ void load_delta(Items& delta, Items& slope) {
    load(o.delta, delta);
    const P bias = o.bias != nullptr ? o.bias[channel] : P(0);
    for (int i = 0; i < L::kItems; ++i) {
      const P x = delta[i] + bias;
      delta[i] = x;
      slope[i] = P(1);
      if (o.softplus) {
        const P e = exp(x < P(0) ? x : -x);
        slope[i] = (x < P(0) ? e : P(1)) / (P(1) + e);
        delta[i] = (x < P(0) ? P(0) : x) + log1p_of(e);
      }
      const bool valid = active && segment * L::kItems + i < count;
      if (!valid) delta[i] = slope[i] = P(0);
    }
  }

  __device__ void stage(const View<const T>& from, int n, P* row) const {
    const T* const memory =
        from.data + batch * from.batch + from.offset(group, n, first);
    for (int t = threadIdx.x; t < L::kChunk; t += kThreads) {
      row[L::padded(t)] = t < count ? P(memory[t * from.strides[2]]) : P(0);
    }
  }
  // B, C and the recurrence x_i = decay_i * x_(i-1) + value_i of state n.
  // Returns A.
  __device__ P enter_state(int n, const Items& u, const Items& delta,
                           Items& decay, Items& value) {
    __syncthreads();
    stage(o.B, n, B_row);
    stage(o.C, n, C_row);
    __syncthreads();
    const P A = o.A[channel * o.state + n];
    for (int i = 0; i < L::kItems; ++i) {
      decay[i] = exp(delta[i] * A);
      value[i] = delta[i] * u[i] * B_row[place(i)];
    }
    return A;
  }

  // Solves the recurrence over the chunk, upwards or downwards, and leaves
  // x_(i-1) in `before`. What leaves the chunk goes on to the next one.
  template <bool kDown>
  __device__ void scan(int n, const Items& decay, const Items& value,
                       Items& before) const {
    Pair<P> sum{P(1), P(0)};
    for (int step = 0; step < L::kItems; ++step) {
      const int i = kDown ? L::kItems - 1 - step : step;
      sum.value = decay[i] * sum.value + value[i];
      sum.decay *= decay[i];
    }
    const int rank = kDown ? L::kSegments - 1 - segment : segment;
    for (int d = 1; d < L::kSegments; d *= 2) {
      const Pair<P> other = neighbour<kDown>(sum, d);
      if (rank >= d) {
        sum.value += sum.decay * other.value;
        sum.decay *= other.decay;
      }
    }
    const Pair<P> left = neighbour<kDown>(sum, 1);
    P x = P(0);
    if (o.chunks > 1) {
      x = *carry(kDown, n, chunk);
      const int next = kDown ? chunk - 1 : chunk + 1;
      if (active && rank == L::kSegments - 1 && next >= 0 && next < o.chunks) {
        *carry(kDown, n, next) = sum.decay * x + sum.value;
      }
    }
    if (rank > 0) x = left.decay * x + left.value;
    for (int step = 0; step < L::kItems; ++step) {
      const int i = kDown ? L::kItems - 1 - step : step;
      before[i] = x;
      x = decay[i] * x + value[i];
    }
  }

  // Adds the sum over a channel's threads to parameter `k` of the channel.
  __device__ void add_parameter(int k, P value) const {
    for (int d = L::kSegments / 2; d > 0; d /= 2) {
      value += __shfl_xor_sync(kWholeWarp, value, d, L::kSegments);
    }
    if (!active || segment > 0) return;
    const int64_t row = static_cast<int64_t>(batch) * o.channels + channel;
    o.parameters[row * (o.state + 2) + k] += value;
  }

  // Sums over the block's channels, of each token of a tile.
  __device__ void store_row(const P* of_tile, int row) const {
    for (int t = threadIdx.x; t < count; t += kThreads) {
      P sum = P(0);
      for (int c = 0; c < width; ++c) {
        sum += of_tile[c * L::kStride + L::padded(t)];
      }
      o.rows.data[set * o.rows.batch + o.rows.offset(row, first + t)] = sum;
    }
  }

  const PlainScan<T, P>& o;
  int batch, group, channel, first_channel, width;
  int chunk = 0, first = 0, count = 0;
  int segment, local;
  bool active;
  int64_t set;  // among the partial sums
  P *tile, *second_tile, *B_row, *C_row;

 private:
  __device__ P* carry(int64_t slot, int n, int which) const {
    return o.carries +
           (((slot * o.batch + batch) * o.chunks + which) * o.state + n) *
               o.channels +
           channel;
  }

  template <bool kDown>
  __device__ static Pair<P> neighbour(const Pair<P>& own, int distance) {
    const auto from = [&](P value) {
      return kDown
                 ? __shfl_down_sync(kWholeWarp, value, distance, L::kSegments)
                 : __shfl_up_sync(kWholeWarp, value, distance, L::kSegments);
    };
    return {from(own.decay), from(own.value)};
  }
};

template <typename T, typename P, typename L>
__global__ void __launch_bounds__(kThreads)
    plain_forward(const SCAN_GRID_CONSTANT PlainScan<T, P> o) {
  SCAN_SHARED_MEMORY(P, memory);
  Block<T, P, L> work(o, memory);
  typename Block<T, P, L>::Items u, delta, slope, decay, value, before, y;
  const P D = o.D != nullptr ? o.D[work.channel] : P(0);
  const int stop = o.y.data != nullptr ? o.chunks : o.chunks - 1;
  for (int chunk = 0; chunk < stop; ++chunk) {
    work.enter(chunk);
    work.load(o.u, u);
    work.load_delta(delta, slope);
    for (int i = 0; i < L::kItems; ++i) y[i] = D * u[i];
    for (int n = 0; n < o.state; ++n) {
      work.enter_state(n, u, delta, decay, value);
      work.template scan<false>(n, decay, value, before);
      for (int i = 0; i < L::kItems; ++i) {
        const P state = decay[i] * before[i] + value[i];
        y[i] += work.C_row[work.place(i)] * state;
      }
    }
    if (o.y.data != nullptr) work.store(y, o.y);
  }
}

// The states that enter the chunks are there already.
template <typename T, typename P, typename L>
__global__ void __launch_bounds__(kThreads)
    plain_backward(const SCAN_GRID_CONSTANT PlainScan<T, P> o) {
  SCAN_SHARED_MEMORY(P, memory);
  Block<T, P, L> work(o, memory);
  typename Block<T, P, L>::Items u, gy, delta, slope, decay, value, before;
  typename Block<T, P, L>::Items after, drive, step;
  const P D = o.D != nullptr ? o.D[work.channel] : P(0);
  for (int chunk = o.chunks - 1; chunk >= 0; --chunk) {
    work.enter(chunk);
    work.load(o.u, u);
    work.load(o.grad, gy);
    work.load_delta(delta, slope);
    for (int i = 0; i < L::kItems; ++i) drive[i] = step[i] = P(0);
    for (int n = 0; n < o.state; ++n) {
      const P A = work.enter_state(n, u, delta, decay, value);
      work.template scan<false>(n, decay, value, before);
      for (int i = 0; i < L::kItems; ++i) {
        work.cell(work.second_tile, i) =
            gy[i] * (decay[i] * before[i] + value[i]);
        value[i] = decay[i] * work.C_row[work.place(i)] * gy[i];
      }
      work.template scan<true>(n, decay, value, after);
      P grad_A = P(0);
      for (int i = 0; i < L::kItems; ++i) {
        const P grad_state = work.C_row[work.place(i)] * gy[i] + after[i];
        const P through_decay = grad_state * before[i] * decay[i];
        grad_A += through_decay * delta[i];
        step[i] += through_decay * A;
        drive[i] += grad_state * work.B_row[work.place(i)];
        work.cell(work.tile, i) = grad_state * delta[i] * u[i];
      }
      work.add_parameter(n, grad_A);
      __syncthreads();
      work.store_row(work.tile, n);
      work.store_row(work.second_tile, o.state + n);
    }
    P grad_D = P(0), grad_bias = P(0);
    for (int i = 0; i < L::kItems; ++i) {
      step[i] = (step[i] + drive[i] * u[i]) * slope[i];
      drive[i] = drive[i] * delta[i] + D * gy[i];
      grad_D += gy[i] * u[i];
      grad_bias += step[i];
    }
    work.add_parameter(o.state, grad_D);
    work.add_parameter(o.state + 1, grad_bias);
    __syncthreads();
    work.store(step, o.grad_delta);
    work.store(drive, o.grad_u);
  }
}

}  // namespace selective_scan::cuda
