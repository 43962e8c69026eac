// The forward pass of both operators.
#pragma once

#include <cstdint>

namespace selective_scan::cpu::SCAN_VARIANT {

// One tile with one state. `pre` is overwritten; `hidden` is carried; y gets
// C * h + D * u, and what `before` holds where `add`.
template <typename V, bool softplus, bool add>
inline void scan_tile_one(typename V::Scalar* pre, const typename V::Scalar* u,
                          const Parameters<typename V::Scalar>& packed,
                          const SharedRows<typename V::Scalar>& rows,
                          int64_t tokens, bool backwards,
                          typename V::Scalar* hidden,
                          const typename V::Scalar* before,
                          typename V::Scalar* y) {
  using S = typename V::Scalar;
  using W = BlockTuple<V>;
  alignas(64) S decay[kTile * kBlock];
  const W A = W::load(packed.A(0)), D = W::load(packed.D());
  for (int64_t i = 0; i < tokens * kBlock; i += kBlock) {
    W delta = W::load(pre + i);
    if constexpr (softplus) delta = softplus_of(delta);
    (delta * W::load(u + i)).store(pre + i);
    exp_of(delta * A).store(decay + i);
  }
  W state = W::load(hidden);
  for (int64_t step = 0; step < tokens; ++step) {
    const int64_t t = backwards ? tokens - 1 - step : step;
    const int64_t i = t * kBlock;
    const W B = W::set(rows.B.at(0, t)), C = W::set(rows.C.at(0, t));
    state = fma(W::load(decay + i), state, W::load(pre + i) * B);
    W out = D * W::load(u + i);
    if constexpr (add) out = out + W::load(before + i);
    fma(C, state, out).store(y + i);
  }
  state.store(hidden);
}

// The same with any number of states.
template <typename V, bool softplus, bool add>
inline void scan_tile_many(typename V::Scalar* pre,
                           const typename V::Scalar* u,
                           const Parameters<typename V::Scalar>& packed,
                           const SharedRows<typename V::Scalar>& rows,
                           int64_t tokens, bool backwards,
                           typename V::Scalar* hidden,
                           const typename V::Scalar* before,
                           typename V::Scalar* y) {
  using S = typename V::Scalar;
  using W = BlockTuple<V>;
  alignas(64) S drive[kTile * kBlock];
  const W D = W::load(packed.D());
  for (int64_t i = 0; i < tokens * kBlock; i += kBlock) {
    W delta = W::load(pre + i);
    if constexpr (softplus) delta = softplus_of(delta);
    delta.store(pre + i);
    (delta * W::load(u + i)).store(drive + i);
    W out = D * W::load(u + i);
    if constexpr (add) out = out + W::load(before + i);
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
      const W decay = exp_of(W::load(pre + i) * A);
      state = fma(decay, state, W::load(drive + i) * B);
      fma(C, state, W::load(y + i)).store(y + i);
    }
    state.store(hidden + n * kBlock);
  }
}

template <typename V, bool softplus, bool add, typename... Args>
inline void scan_tile(const Parameters<typename V::Scalar>& packed,
                      typename V::Scalar* pre, const typename V::Scalar* u,
                      Args... args) {
  if (packed.state == 1) {
    scan_tile_one<V, softplus, add>(pre, u, packed, args...);
  } else {
    scan_tile_many<V, softplus, add>(pre, u, packed, args...);
  }
}

template <typename S>
inline S* forward_scratch(const ScanShape& shape) {
  const int64_t parameters = shape.directions * Parameters<S>::size(shape);
  const int64_t hidden = shape.state * kBlock;
  const int64_t sums = shape.directions > 1
                           ? ceil_div(shape.length, kTile) * kTile * kBlock
                           : 0;
  return scratch<S>(parameters + hidden + row_buffer_size(shape) + sums);
}

// One direction of one block of channels, over all tokens. The direction that
// ends writes y; one before it leaves its share in `sums`.
template <typename V, typename T>
inline void scan_direction(const Operands& o, TilePlace at,
                           const Parameters<typename V::Scalar>& packed,
                           typename V::Scalar* hidden,
                           typename V::Scalar* buffer,
                           typename V::Scalar* sums, bool begins, bool ends) {
  using S = typename V::Scalar;
  const ScanShape& shape = o.shape;
  const bool backwards = shape.reversed(at.direction);
  const int64_t tiles = ceil_div(shape.length, kTile);
  alignas(64) S pre[kTile * kBlock], u[kTile * kBlock], y[kTile * kBlock];
  for (int64_t i = 0; i < shape.state * kBlock; ++i) hidden[i] = S(0);
  for (int64_t step = 0; step < tiles; ++step) {
    at.first = (backwards ? tiles - 1 - step : step) * kTile;
    at.tokens = smaller(kTile, shape.length - at.first);
    load_u<V, T>(o, at, u);
    const auto rows = load_shared_rows<V, T>(o, at, buffer);
    make_delta<V, T>(o, at, packed, rows.dt, pre);
    S* const before = sums + at.first * kBlock;
    S* const out = ends ? y : before;
    if (!shape.softplus) {
      scan_tile<V, false, false>(packed, pre, u, rows, at.tokens, backwards,
                                 hidden, before, out);
    } else if (begins) {
      scan_tile<V, true, false>(packed, pre, u, rows, at.tokens, backwards,
                                hidden, before, out);
    } else {
      scan_tile<V, true, true>(packed, pre, u, rows, at.tokens, backwards,
                               hidden, before, out);
    }
    if (ends) {
      auto* to = static_cast<T*>(o.y) +
                 o.y_strides.at(at.batch, at.block.first, at.first);
      store_tile<V>(y, o.y_strides.channel, o.y_strides.token, at.block.width,
                    at.tokens, to);
    }
  }
}

template <typename V, typename T>
inline void forward(const Operands& o, int64_t begin, int64_t end) {
  using S = typename V::Scalar;
  const ScanShape& shape = o.shape;
  S* memory = forward_scratch<S>(shape);
  Parameters<S> packed[2];
  S* parameters[2];
  for (int64_t k = 0; k < shape.directions; ++k) {
    parameters[k] = take(memory, Parameters<S>::size(shape));
  }
  S* const hidden = take(memory, shape.state * kBlock);
  S* const buffer = take(memory, row_buffer_size(shape));
  S* const sums = memory;
  int64_t packed_block = -1;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t index = task / shape.batch;
    TilePlace at{};
    at.block = channel_block(shape, index, kBlock);
    at.batch = task % shape.batch;
    for (int64_t k = shape.directions - 1; k >= 0; --k) {
      if (index != packed_block) {
        packed[k] = pack_parameters(o, k, at.block, parameters[k]);
      }
      at.direction = k;
      at.set = shape.set(k, at.block.first);
      scan_direction<V, T>(o, at, packed[k], hidden, buffer, sums,
                           k == shape.directions - 1, k == 0);
    }
    packed_block = index;
  }
}

}  // namespace selective_scan::cpu::SCAN_VARIANT
