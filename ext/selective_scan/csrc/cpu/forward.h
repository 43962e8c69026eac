// The forward pass of both operators.
#pragma once

namespace selective_scan::cpu::SCAN_VARIANT {

// One tile. `delta` is overwritten; `hidden` is carried; y gets the sum of
// C * h, D * u, and what it holds where `add`.
template <typename V, typename S = typename V::Scalar>
inline void scan_tile(S* delta, const S* u, const Parameters<S>& packed,
                      const Rows<S>& B, const Rows<S>& C, int64_t tokens,
                      bool softplus, bool backwards, bool add, S* hidden,
                      S* y) {
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
      const W decay = exp_of(W::load(delta + i) * A);
      state = fma(decay, state, W::load(drive + i) * W::set(B.at(n, t)));
      fma(W::set(C.at(n, t)), state, W::load(y + i)).store(y + i);
    }
    state.store(hidden + n * kBlock);
  }
}

template <typename V>
inline void forward(const Operands& o, int64_t begin, int64_t end) {
  using S = typename V::Scalar;
  const ScanShape& shape = o.shape;
  const int64_t directions = shape.directions;
  const int64_t tiles = ceil_div(shape.length, kTile);
  const int64_t size = o.parameters() * kBlock, states = shape.state * kBlock;
  constexpr int64_t kTileSize = kTile * kBlock;
  S* memory = scratch<S>(directions * size + states +
                         (directions > 1 ? tiles : 1) * kTileSize);
  S* const parameters = take(memory, directions * size);
  S* const hidden = take(memory, states);
  alignas(64) S delta[kTileSize], u[kTileSize];
  int64_t packed_block = -1;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t index = task / shape.batch;
    TilePlace at{};
    at.block = channel_block(shape, index);
    at.batch = task % shape.batch;
    for (int64_t k = directions - 1; k >= 0; --k) {
      const Parameters<S> packed{parameters + k * size, shape.rank,
                                 shape.state};
      if (index != packed_block) pack_parameters(o, k, at.block, packed);
      at.direction = k;
      at.set = k * shape.groups + at.block.group;
      const bool backwards = shape.reversed(k);
      std::fill_n(hidden, states, S(0));
      for (int64_t step = 0; step < tiles; ++step) {
        const int64_t tile = backwards ? tiles - 1 - step : step;
        at.first = tile * kTile;
        at.tokens = smaller(kTile, shape.length - at.first);
        load_tile<V>(o.u, at, u);
        make_delta<V>(o, at, packed, delta);
        // Directions add up; one alone needs no more than a tile.
        S* const y = memory + (directions > 1 ? tile : 0) * kTileSize;
        scan_tile<V>(delta, u, packed, rows_at<S>(o.B, at),
                     rows_at<S>(o.C, at), at.tokens, shape.softplus, backwards,
                     k < directions - 1, hidden, y);
        if (k == 0) store_tile<V>(y, at, o.y);
      }
    }
    packed_block = index;
  }
}

}  // namespace selective_scan::cpu::SCAN_VARIANT
