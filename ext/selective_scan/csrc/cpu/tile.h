// A tile is kTile tokens of kBlock channels, [token][channel], in the state's
// type. Here: how tiles come from tensors and go back, and small products.
#pragma once

namespace selective_scan::cpu::SCAN_VARIANT {

// Whether a storage type is also the state's, so that it needs no widening.
template <typename V, typename T>
constexpr bool kIsState = std::is_same_v<T, typename V::Scalar>;

// Copy values, widened or narrowed; vectors where both sides are adjacent.
template <typename V, typename From, typename To>
inline void copy_values(const From* src, int64_t src_stride, int64_t count,
                        To* dst, int64_t dst_stride) {
  int64_t i = 0;
  if (src_stride == 1 && dst_stride == 1) {
    for (; i + V::lanes <= count; i += V::lanes) {
      V::load(src + i).store(dst + i);
    }
  }
  for (; i < count; ++i) {
    dst[i * dst_stride] = static_cast<To>(src[i * src_stride]);
  }
}

// Fill a tile from channels (stride `channel`) and tokens (stride `token`).
// Channels beyond `width` become 0, tokens beyond `tokens` stay as they are.
template <typename V, typename T>
inline void load_tile(const T* src, int64_t channel, int64_t token,
                      int64_t width, int64_t tokens,
                      typename V::Scalar* tile) {
  using S = typename V::Scalar;
  if (channel == 1 && width == kBlock) {
    for (int64_t t = 0; t < tokens; ++t) {
      each<kBlock / V::lanes>([&](auto v) SCAN_INLINE_BODY {
        constexpr int c = v.value * V::lanes;
        V::load(src + t * token + c).store(tile + t * kBlock + c);
      });
    }
    return;
  }
  if (token != 1) {
    for (int64_t t = 0; t < tokens; ++t) {
      S* row = tile + t * kBlock;
      copy_values<V>(src + t * token, channel, width, row, 1);
      for (int64_t c = width; c < kBlock; ++c) row[c] = S(0);
    }
    return;
  }
  S rows[8 * kTile];
  for (int64_t c = 0; c < kBlock; c += 8) {
    const int64_t count = smaller(8, width - c);
    const S* from = rows;
    int64_t stride = kTile;
    if constexpr (kIsState<V, T>) {
      if (count == 8 && tokens % 8 == 0) {
        from = src + c * channel;
        stride = channel;
      }
    }
    if (from == rows) {
      for (int64_t i = 0; i < 8; ++i) {
        if (i < count) {
          copy_values<V>(src + (c + i) * channel, 1, tokens,
                         rows + i * kTile, 1);
        } else {
          for (int64_t t = 0; t < tokens; ++t) rows[i * kTile + t] = S(0);
        }
        for (int64_t t = tokens; t % 8 != 0; ++t) rows[i * kTile + t] = S(0);
      }
    }
    for (int64_t t = 0; t < tokens; t += 8) {
      transpose8(from + t, stride, tile + t * kBlock + c, kBlock);
    }
  }
}

// The way back; nothing beyond `width` and `tokens` is written.
template <typename V, typename T>
inline void store_tile(const typename V::Scalar* tile, int64_t channel,
                       int64_t token, int64_t width, int64_t tokens, T* dst) {
  using S = typename V::Scalar;
  if (channel == 1 && width == kBlock) {
    for (int64_t t = 0; t < tokens; ++t) {
      each<kBlock / V::lanes>([&](auto v) SCAN_INLINE_BODY {
        constexpr int c = v.value * V::lanes;
        V::load(tile + t * kBlock + c).store(dst + t * token + c);
      });
    }
    return;
  }
  if (token != 1) {
    for (int64_t t = 0; t < tokens; ++t) {
      copy_values<V>(tile + t * kBlock, 1, width, dst + t * token, channel);
    }
    return;
  }
  S rows[8 * kTile];
  for (int64_t c = 0; c < width; c += 8) {
    const int64_t count = smaller(8, width - c);
    if constexpr (kIsState<V, T>) {
      if (count == 8 && tokens % 8 == 0) {
        for (int64_t t = 0; t < tokens; t += 8) {
          transpose8(tile + t * kBlock + c, kBlock, dst + c * channel + t,
                     channel);
        }
        continue;
      }
    }
    for (int64_t t = 0; t < tokens; t += 8) {
      transpose8(tile + t * kBlock + c, kBlock, rows + t, kTile);
    }
    for (int64_t i = 0; i < count; ++i) {
      copy_values<V>(rows + i * kTile, 1, tokens, dst + (c + i) * channel, 1);
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

// Float rows stay in place; others are widened into `buffer`, which holds
// kTile elements a row.
template <typename V, typename T>
inline Rows<typename V::Scalar> load_rows(const T* src, int64_t row,
                                          int64_t token, int64_t rows,
                                          int64_t tokens,
                                          typename V::Scalar* buffer) {
  if constexpr (kIsState<V, T>) {
    return {src, row, token};
  } else if (token == 1) {
    for (int64_t r = 0; r < rows; ++r) {
      copy_values<V>(src + r * row, 1, tokens, buffer + r * kTile, 1);
    }
    return {buffer, kTile, 1};
  } else {
    for (int64_t t = 0; t < tokens; ++t) {
      copy_values<V>(src + t * token, row, rows, buffer + t * rows, 1);
    }
    return {buffer, 1, rows};
  }
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
