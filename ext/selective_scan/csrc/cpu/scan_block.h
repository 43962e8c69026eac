// What forward and backward share: the parameters and inputs of one block of
// channels.
#pragma once

#include <cstdint>

namespace selective_scan::cpu::SCAN_VARIANT {

template <typename S>
inline S* scratch(int64_t count) {
  return static_cast<S*>(
      scratch_memory(static_cast<size_t>(count) * sizeof(S)));
}

template <typename S>
inline S* take(S*& memory, int64_t count) {
  S* const taken = memory;
  memory += count;
  return taken;
}

inline int64_t row_buffer_size(const ScanShape& shape) {
  return (shape.rank + 2 * shape.state) * kTile;
}

// Parameters of one block and direction, [row][kBlock]: dt_proj (rank rows),
// A (state rows), D, bias. Absent ones, and channels beyond the width, are 0.
// Their gradients take the same form.
template <typename S>
struct Parameters {
  S* data;
  int64_t rank;
  int64_t state;

  static int64_t size(const ScanShape& shape) {
    return (shape.rank + shape.state + 2) * kBlock;
  }
  S* dt_proj() const { return data; }
  S* A(int64_t n) const { return data + (rank + n) * kBlock; }
  S* D() const { return A(state); }
  S* bias() const { return A(state + 1); }
};

template <typename S>
inline Parameters<S> pack_parameters(const Operands& o, int64_t direction,
                                     const ChannelBlock& block, S* memory) {
  const ScanShape& shape = o.shape;
  const Parameters<S> packed{memory, shape.rank, shape.state};
  for (int64_t i = 0; i < Parameters<S>::size(shape); ++i) memory[i] = S(0);
  const auto* dt_proj = static_cast<const S*>(o.dt_proj);
  const auto* A = static_cast<const S*>(o.A);
  const auto* D = static_cast<const S*>(o.D);
  const auto* bias = static_cast<const S*>(o.bias);
  for (int64_t c = 0; c < block.width; ++c) {
    const int64_t p = shape.parameter(direction, block.first + c);
    for (int64_t r = 0; r < shape.rank; ++r) {
      packed.dt_proj()[r * kBlock + c] = dt_proj[p * shape.rank + r];
    }
    for (int64_t n = 0; n < shape.state; ++n) {
      packed.A(n)[c] = A[p * shape.state + n];
    }
    if (D != nullptr) packed.D()[c] = D[p];
    if (bias != nullptr) packed.bias()[c] = bias[p];
  }
  return packed;
}

// Tokens of a tile in the order of a walk: `for (t = first; left > 0; t += by)`.
struct Walk {
  int64_t first, by;

  Walk(int64_t tokens, bool backwards)
      : first(backwards ? tokens - 1 : 0), by(backwards ? -1 : 1) {}
};

// A run of tokens within one tile of one block, batch element and direction.
struct TilePlace {
  ChannelBlock block;
  int64_t batch;
  int64_t direction;
  int64_t set;
  int64_t first;   // token
  int64_t tokens;  // at most kTile
};

template <typename V, typename T>
inline void load_u(const Operands& o, const TilePlace& at,
                   typename V::Scalar* tile) {
  const auto* u = static_cast<const T*>(o.u) +
                  o.u_strides.at(at.batch, at.block.first, at.first);
  load_tile<V>(u, o.u_strides.channel, o.u_strides.token, at.block.width,
               at.tokens, tile);
}

template <typename S>
struct SharedRows {
  Rows<S> dt, B, C;
};

template <typename V, typename T>
inline Rows<typename V::Scalar> load_set(const TilePlace& at, const void* data,
                                         const RowStrides& strides,
                                         int64_t count,
                                         typename V::Scalar* buffer) {
  const auto* first =
      static_cast<const T*>(data) + strides.at(at.batch, at.set, 0, at.first);
  return load_rows<V>(first, strides.row, strides.token, count, at.tokens,
                      buffer);
}

// The dt, B and C rows of a tile; `buffer` has row_buffer_size elements.
template <typename V, typename T>
inline SharedRows<typename V::Scalar> load_shared_rows(
    const Operands& o, const TilePlace& at, typename V::Scalar* buffer) {
  const int64_t rank = o.shape.rank, state = o.shape.state;
  SharedRows<typename V::Scalar> rows{};
  if (rank > 0) {
    rows.dt = load_set<V, T>(at, o.dt, o.dt_strides, rank, buffer);
  }
  rows.B = load_set<V, T>(at, o.B, o.B_strides, state, buffer + rank * kTile);
  rows.C = load_set<V, T>(at, o.C, o.C_strides, state,
                          buffer + (rank + state) * kTile);
  return rows;
}

// delta before softplus: dt_proj @ dt + bias, or delta + bias.
template <typename V, typename T>
inline void make_delta(const Operands& o, const TilePlace& at,
                       const Parameters<typename V::Scalar>& packed,
                       const Rows<typename V::Scalar>& dt,
                       typename V::Scalar* tile) {
  if (o.shape.rank > 0) {
    multiply<V>(packed.dt_proj(), o.shape.rank, dt.data, dt.token, dt.row,
                at.tokens, packed.bias(), tile);
    return;
  }
  const auto* delta = static_cast<const T*>(o.delta) +
                      o.delta_strides.at(at.batch, at.block.first, at.first);
  load_tile<V>(delta, o.delta_strides.channel, o.delta_strides.token,
               at.block.width, at.tokens, tile);
  const auto bias = BlockTuple<V>::load(packed.bias());
  for (int64_t i = 0; i < at.tokens * kBlock; i += kBlock) {
    (BlockTuple<V>::load(tile + i) + bias).store(tile + i);
  }
}

}  // namespace selective_scan::cpu::SCAN_VARIANT
