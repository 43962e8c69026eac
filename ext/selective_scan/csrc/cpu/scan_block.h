// What forward and backward share: the parameters of one block of channels,
// and its delta.
#pragma once

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

// Parameters of one block and direction, [row][kBlock]: dt_proj (rank rows),
// A (state rows), D, bias. Absent ones, and channels beyond the width, are 0.
// Their gradients take the same form.
template <typename S>
struct Parameters {
  S* data;
  int64_t rank;
  int64_t state;

  S* dt_proj() const { return data; }
  S* A(int64_t n) const { return data + (rank + n) * kBlock; }
  S* D() const { return A(state); }
  S* bias() const { return A(state + 1); }
};

template <typename S>
inline void pack_parameters(const Operands& o, int64_t direction,
                            const ChannelBlock& block,
                            const Parameters<S>& packed) {
  const ScanShape& shape = o.shape;
  std::fill_n(packed.data, o.parameters() * kBlock, S(0));
  const auto* dt_proj = static_cast<const S*>(o.dt_proj);
  const auto* A = static_cast<const S*>(o.A);
  const auto* D = static_cast<const S*>(o.D);
  const auto* bias = static_cast<const S*>(o.bias);
  for (int64_t c = 0; c < block.width; ++c) {
    const int64_t p = direction * shape.channels + block.first + c;
    for (int64_t r = 0; r < shape.rank; ++r) {
      packed.dt_proj()[r * kBlock + c] = dt_proj[p * shape.rank + r];
    }
    for (int64_t n = 0; n < shape.state; ++n) {
      packed.A(n)[c] = A[p * shape.state + n];
    }
    if (D != nullptr) packed.D()[c] = D[p];
    if (bias != nullptr) packed.bias()[c] = bias[p];
  }
}

// Tokens of a tile in the order of a walk: `for (t = first; left > 0; t +=
// by)`.
struct Walk {
  int64_t first, by;

  Walk(int64_t tokens, bool backwards)
      : first(backwards ? tokens - 1 : 0), by(backwards ? -1 : 1) {}
};

// delta before softplus: dt_proj @ dt + bias, or delta + bias.
template <typename V, typename S = typename V::Scalar>
inline void make_delta(const Operands& o, const TilePlace& at,
                       const Parameters<S>& packed, S* tile) {
  if (o.shape.rank > 0) {
    const Rows<S> dt = rows_at<S>(o.dt, at);
    multiply<V>(packed.dt_proj(), o.shape.rank, dt.data, dt.token, dt.row,
                at.tokens, packed.bias(), tile);
    return;
  }
  load_tile<V>(o.delta, at, tile);
  const auto bias = BlockTuple<V>::load(packed.bias());
  for (int64_t i = 0; i < at.tokens * kBlock; i += kBlock) {
    (BlockTuple<V>::load(tile + i) + bias).store(tile + i);
  }
}

}  // namespace selective_scan::cpu::SCAN_VARIANT
