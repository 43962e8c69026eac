// A tile is kTile tokens of kBlock channels, [token][channel], in the state's
// type. Here: how tiles come from tensors and go back, and small products.
#pragma once

#include <cstdint>

namespace selective_scan::cpu::SCAN_VARIANT {

// Whether a storage type is also the state's, so that it needs no widening.
template <typename T>
constexpr bool kIsState = false;
template <>
constexpr bool kIsState<float> = true;
template <>
constexpr bool kIsState<double> = true;

template <typename V, typename T>
inline void copy_in(const T* src, int64_t stride, int64_t count,
                    typename V::Scalar* dst) {
  int64_t i = 0;
  if (stride == 1) {
    for (; i + V::lanes <= count; i += V::lanes) {
      V::load(src + i).store(dst + i);
    }
  }
  for (; i < count; ++i) dst[i] = widen(src[i * stride]);
}

template <typename V, typename T>
inline void copy_out(const typename V::Scalar* src, int64_t count, T* dst,
                     int64_t stride) {
  int64_t i = 0;
  if (stride == 1) {
    for (; i + V::lanes <= count; i += V::lanes) {
      V::load(src + i).store(dst + i);
    }
  }
  for (; i < count; ++i) narrow(src[i], dst + i * stride);
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
      for (int v = 0; v < kBlock; v += V::lanes) {
        V::load(src + t * token + v).store(tile + t * kBlock + v);
      }
    }
    return;
  }
  if (token != 1) {
    for (int64_t t = 0; t < tokens; ++t) {
      S* row = tile + t * kBlock;
      copy_in<V>(src + t * token, channel, width, row);
      for (int64_t c = width; c < kBlock; ++c) row[c] = S(0);
    }
    return;
  }
  S rows[8 * kTile];
  for (int64_t c = 0; c < kBlock; c += 8) {
    const int64_t count = smaller(8, width - c);
    const S* from = rows;
    int64_t stride = kTile;
    if constexpr (kIsState<T>) {
      if (count == 8 && tokens % 8 == 0) {
        from = src + c * channel;
        stride = channel;
      }
    }
    if (from == rows) {
      for (int64_t i = 0; i < 8; ++i) {
        if (i < count) {
          copy_in<V>(src + (c + i) * channel, 1, tokens, rows + i * kTile);
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
      for (int v = 0; v < kBlock; v += V::lanes) {
        V::load(tile + t * kBlock + v).store(dst + t * token + v);
      }
    }
    return;
  }
  if (token != 1) {
    for (int64_t t = 0; t < tokens; ++t) {
      copy_out<V>(tile + t * kBlock, width, dst + t * token, channel);
    }
    return;
  }
  S rows[8 * kTile];
  for (int64_t c = 0; c < width; c += 8) {
    const int64_t count = smaller(8, width - c);
    if constexpr (kIsState<T>) {
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
      copy_out<V>(rows + i * kTile, tokens, dst + (c + i) * channel, 1);
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
  if constexpr (kIsState<T>) {
    return {src, row, token};
  } else if (token == 1) {
    for (int64_t r = 0; r < rows; ++r) {
      copy_in<V>(src + r * row, 1, tokens, buffer + r * kTile);
    }
    return {buffer, kTile, 1};
  } else {
    for (int64_t t = 0; t < tokens; ++t) {
      copy_in<V>(src + t * token, row, rows, buffer + t * rows);
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
  constexpr int vectors = kBlock / V::lanes;
  V sum[rows][vectors];
  for (int m = 0; m < rows; ++m) {
    const auto* start = init != nullptr ? init : out + m * out_stride;
    for (int v = 0; v < vectors; ++v) {
      sum[m][v] = V::load(start + v * V::lanes);
    }
  }
  for (int64_t k = 0; k < depth; ++k) {
    for (int m = 0; m < rows; ++m) {
      const V f = V::set(factor[m * m_stride + k * k_stride]);
      for (int v = 0; v < vectors; ++v) {
        sum[m][v] = fma(f, V::load(in + k * kBlock + v * V::lanes), sum[m][v]);
      }
    }
  }
  for (int m = 0; m < rows; ++m) {
    for (int v = 0; v < vectors; ++v) {
      sum[m][v].store(out + m * out_stride + v * V::lanes);
    }
  }
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
