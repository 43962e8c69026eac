// A tile is kTile tokens of kBlock channels, [token][channel]. Here: how tiles
// come from tensors and go back, and small products.
#pragma once

namespace selective_scan::cpu::SCAN_VARIANT {

// A run of tokens within one tile of one block, batch element and direction.
struct TilePlace {
  ChannelBlock block;
  int64_t batch;
  int64_t direction;
  int64_t set;
  int64_t first;   // token
  int64_t tokens;  // at most kTile
};

// Copy values; by vectors where both sides are adjacent.
template <typename V, typename S = typename V::Scalar>
inline void copy_values(const S* src, int64_t src_stride, int64_t count,
                        S* dst, int64_t dst_stride) {
  int64_t i = 0;
  if (src_stride == 1 && dst_stride == 1) {
    for (; i + V::lanes <= count; i += V::lanes) {
      V::load(src + i).store(dst + i);
    }
  }
  for (; i < count; ++i) dst[i * dst_stride] = src[i * src_stride];
}

// Fill a tile. Channels beyond the block become 0, tokens beyond the place
// hold anything.
template <typename V, typename S = typename V::Scalar>
inline void load_tile(const View<const void>& from, const TilePlace& at,
                      S* tile) {
  const int64_t width = at.block.width, tokens = at.tokens;
  const S* src = static_cast<const S*>(from.data) +
                 from.offset(at.batch, 0, at.block.first, at.first);
  if (from.row == 1 && width == kBlock) {
    for (int64_t t = 0; t < tokens; ++t) {
      BlockTuple<V>::load(src + t * from.token).store(tile + t * kBlock);
    }
    return;
  }
  if (from.token != 1) {
    for (int64_t t = 0; t < tokens; ++t) {
      S* row = tile + t * kBlock;
      copy_values<V>(src + t * from.token, from.row, width, row, 1);
      for (int64_t c = width; c < kBlock; ++c) row[c] = S(0);
    }
    return;
  }
  S rows[8 * kTile];
  for (int64_t c = 0; c < kBlock; c += 8) {
    const S* start = src + c * from.row;
    int64_t stride = from.row;
    if (c + 8 > width || tokens % 8 != 0) {
      std::fill_n(rows, 8 * kTile, S(0));
      for (int64_t i = 0; i < smaller(8, width - c); ++i) {
        copy_values<V>(start + i * stride, 1, tokens, rows + i * kTile, 1);
      }
      start = rows;
      stride = kTile;
    }
    for (int64_t t = 0; t < tokens; t += 8) {
      transpose8(start + t, stride, tile + t * kBlock + c, kBlock);
    }
  }
}

// The way back; nothing beyond the place is written.
template <typename V, typename S = typename V::Scalar>
inline void store_tile(const S* tile, const TilePlace& at,
                       const View<void>& to) {
  const int64_t width = at.block.width, tokens = at.tokens;
  S* dst = static_cast<S*>(to.data) +
           to.offset(at.batch, 0, at.block.first, at.first);
  if (to.token != 1) {
    for (int64_t t = 0; t < tokens; ++t) {
      copy_values<V>(tile + t * kBlock, 1, width, dst + t * to.token, to.row);
    }
    return;
  }
  S rows[8 * kTile];
  for (int64_t c = 0; c < width; c += 8) {
    for (int64_t t = 0; t < tokens; t += 8) {
      transpose8(tile + t * kBlock + c, kBlock, rows + t, kTile);
    }
    for (int64_t i = 0; i < smaller(8, width - c); ++i) {
      copy_values<V>(rows + i * kTile, 1, tokens, dst + (c + i) * to.row, 1);
    }
  }
}

// Rows that all channels share (dt, B or C), for the tokens of one tile.
template <typename S>
struct Rows {
  const S* data;
  int64_t row;
  int64_t token;

  S at(int64_t r, int64_t t) const { return data[r * row + t * token]; }
};

template <typename S>
inline Rows<S> rows_at(const View<const void>& from, const TilePlace& at) {
  return {static_cast<const S*>(from.data) +
              from.offset(at.batch, at.set, 0, at.first),
          from.row, from.token};
}

// out[m][0..kBlock) = start + sum over k of in[k][0..kBlock) * factor[m, k];
// the start is `init` for every m or, where that is null, out itself.
template <typename V, int rows>
inline void multiply_rows(const typename V::Scalar* in, int64_t depth,
                          const typename V::Scalar* factor, int64_t m_stride,
                          int64_t k_stride, const typename V::Scalar* init,
                          typename V::Scalar* out, int64_t out_stride) {
  using W = BlockTuple<V>;
  W sum[rows];
  each<rows>([&](auto m) SCAN_INLINE_BODY {
    sum[m.value] =
        W::load(init != nullptr ? init : out + m.value * out_stride);
  });
  for (int64_t k = 0; k < depth; ++k) {
    each<rows>([&](auto m) SCAN_INLINE_BODY {
      const W f = W::set(factor[m.value * m_stride + k * k_stride]);
      sum[m.value] = fma(f, W::load(in + k * kBlock), sum[m.value]);
    });
  }
  each<rows>([&](auto m) SCAN_INLINE_BODY {
    sum[m.value].store(out + m.value * out_stride);
  });
}

template <typename V>
inline void multiply(const typename V::Scalar* in, int64_t depth,
                     const typename V::Scalar* factor, int64_t m_stride,
                     int64_t k_stride, int64_t count,
                     const typename V::Scalar* init, typename V::Scalar* out,
                     int64_t out_stride = kBlock) {
  int64_t m = 0;
  for (; m + 2 <= count; m += 2) {
    multiply_rows<V, 2>(in, depth, factor + m * m_stride, m_stride, k_stride,
                        init, out + m * out_stride, out_stride);
  }
  if (m < count) {
    multiply_rows<V, 1>(in, depth, factor + m * m_stride, m_stride, k_stride,
                        init, out + m * out_stride, out_stride);
  }
}

}  // namespace selective_scan::cpu::SCAN_VARIANT
