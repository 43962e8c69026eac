// The forward pass of both operators.
#pragma once

namespace selective_scan::cpu::SCAN_VARIANT {

// One tile. `delta` is overwritten; `hidden` is carried; y gets the sum of
// C * h, D * u, and what it holds where `add`.
template <typename V>
inline void scan_tile(typename V::Scalar* delta, const typename V::Scalar* u,
                      const Parameters<typename V::Scalar>& packed,
                      const SharedRows<typename V::Scalar>& rows,
                      int64_t tokens, bool softplus, bool backwards, bool add,
                      typename V::Scalar* hidden, typename V::Scalar* y) {
  using S = typename V::Scalar;
  using W = BlockTuple<V>;
  alignas(64) S drive[kTile * kBlock];
  const W D = W::load(packed.D());
  for (int64_t i = 0; i < tokens * kBlock; i += kBlock) {
    W step = W::load(delta + i), out = D * W::load(u + i);
    if (softplus) step = softplus_of(step);
    step.store(delta + i);
    (step * W::load(u + i)).store(drive + i);
    if (add) out = out + W::load(y + i);
    out.store(y + i);
  }
  for (int64_t n = 0; n < packed.state; ++n) {
    const W A = W::load(packed.A(n));
    W state = W::load(hidden + n * kBlock);
    const Walk walk(tokens, backwards);
    for (int64_t t = walk.first, left = tokens; left > 0;
         --left, t += walk.by) {
      const int64_t i = t * kBlock;
      const W B = W::set(rows.B.at(n, t)), C = W::set(rows.C.at(n, t));
      const W decay = exp_of(W::load(delta + i) * A);
      state = fma(decay, state, W::load(drive + i) * B);
      fma(C, state, W::load(y + i)).store(y + i);
    }
    state.store(hidden + n * kBlock);
  }
}

template <typename V, typename T>
inline void forward(const Operands& o, int64_t begin, int64_t end) {
  using S = typename V::Scalar;
  const ScanShape& shape = o.shape;
  const int64_t directions = shape.directions;
  const int64_t tiles = ceil_div(shape.length, kTile);
  const int64_t size = Parameters<S>::size(shape);
  const int64_t states = shape.state * kBlock;
  constexpr int64_t kTileSize = kTile * kBlock;
  S* memory = scratch<S>(directions * size + states + row_buffer_size(shape) +
                         (directions > 1 ? tiles : 1) * kTileSize);
  S* const parameters = take(memory, directions * size);
  S* const hidden = take(memory, states);
  S* const buffer = take(memory, row_buffer_size(shape));
  alignas(64) S delta[kTileSize], u[kTileSize];
  int64_t packed_block = -1;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t index = task / shape.batch;
    TilePlace at{};
    at.block = channel_block(shape, index, kBlock);
    at.batch = task % shape.batch;
    for (int64_t k = directions - 1; k >= 0; --k) {
      const Parameters<S> packed{parameters + k * size, shape.rank,
                                 shape.state};
      if (index != packed_block) pack_parameters(o, k, at.block, packed);
      at.direction = k;
      at.set = shape.set(k, at.block.first);
      const bool backwards = shape.reversed(k);
      std::fill_n(hidden, states, S(0));
      for (int64_t step = 0; step < tiles; ++step) {
        const int64_t tile = backwards ? tiles - 1 - step : step;
        at.first = tile * kTile;
        at.tokens = smaller(kTile, shape.length - at.first);
        load_u<V, T>(o, at, u);
        const auto rows = load_shared_rows<V, T>(o, at, buffer);
        make_delta<V, T>(o, at, packed, rows.dt, delta);
        // Directions add up; one alone needs no more than a tile.
        S* const y = memory + (directions > 1 ? tile : 0) * kTileSize;
        scan_tile<V>(delta, u, packed, rows, at.tokens, shape.softplus,
                     backwards, k < directions - 1, hidden, y);
        if (k == 0) {
          store_tile<V>(y, o.y_strides.channel, o.y_strides.token,
                        at.block.width, at.tokens,
                        static_cast<T*>(o.y) +
                            o.y_strides.at(at.batch, at.block.first,
                                           at.first));
        }
      }
    }
    packed_block = index;
  }
}

}  // namespace selective_scan::cpu::SCAN_VARIANT
