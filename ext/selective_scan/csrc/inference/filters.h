// Depthwise filters on maps with adjacent channels, as they are and between a
// Haar transform and its inverse.
#pragma once

#include <cstdint>
#include <cstring>

namespace selective_scan::cpu::SCAN_VARIANT {

template <typename V>
constexpr int kLine = kMapBlock / V::lanes;  // vectors of a block of channels

template <typename V>
using Line = SimdTuple<V, kLine<V>>;

constexpr int kCells = 4;            // results that share a load of a weight
constexpr int64_t kStrip = 1 << 14;  // floats of a buffer, about a cache

// The part of a map that a task holds: one block of channels of one image.
struct Patch {
  int64_t image, channel;
  int64_t width;  // channels, kMapBlock but for the last block
};

inline Patch patch_of(const FilterTask& task, int64_t index) {
  const int64_t blocks = blocks_of(task.channels);
  const int64_t channel = index % blocks * kMapBlock;
  const int64_t left = task.channels - channel;
  return {index / blocks, channel, left < kMapBlock ? left : kMapBlock};
}

// The first `width` values of N vectors, zeros in place of the others.
template <typename V, int N = kLine<V>>
SCAN_INLINE SimdTuple<V, N> load_line(const float* from, int64_t width) {
  using L = SimdTuple<V, N>;
  if (width == N * V::lanes) return L::load(from);
  if constexpr (N == 2) {
    if (width == V::lanes) {
      L line = L::set(0.0f);
      line.first = V::load(from);
      return line;
    }
  }
  alignas(64) float line[N * V::lanes] = {};
  std::memcpy(line, from, static_cast<size_t>(width) * sizeof(float));
  return L::load(line);
}

template <typename V, int N>
SCAN_INLINE void store_line(const SimdTuple<V, N>& value, float* to,
                            int64_t width) {
  if (width == N * V::lanes) {
    value.store(to);
    return;
  }
  if constexpr (N == 2) {
    if (width == V::lanes) {
      value.first.store(to);
      return;
    }
  }
  alignas(64) float line[N * V::lanes];
  value.store(line);
  std::memcpy(to, line, static_cast<size_t>(width) * sizeof(float));
}

template <typename V, int N>
SCAN_INLINE SimdTuple<V, N> silu_of(const SimdTuple<V, N>& x) {
  using L = SimdTuple<V, N>;
  const L one = L::set(1.0f);
  return x / (one + exp_of(L::set(0.0f) - x));
}

// A buffer of cells with a border of zeros, a strip of rows at a time.
struct Strip {
  int64_t rows, columns;  // results; columns rounded up to kCells
  int64_t pitch;          // cells of a buffered row
  int64_t band;           // floats of a buffered band

  Strip(const FilterTask& task, int64_t height, int64_t width, int bands) {
    columns = (width + kCells - 1) / kCells * kCells;
    pitch = columns + task.side - 1;
    const int64_t fit = kStrip / (bands * pitch * kMapBlock) - task.side + 1;
    rows = fit < 4 ? 4 : fit;
    if (rows > height) rows = height;
    band = (rows + task.side - 1) * pitch * kMapBlock;
  }
};

// kCells neighbouring results of one band. The cells under one tap are under
// the next one too, but for the first: where registers suffice they stay.
template <typename V>
SCAN_INLINE void filter_cells(const float* cells, int64_t pitch,
                              const float* weight, int64_t next, int64_t side,
                              Line<V> (&sum)[kCells]) {
  using L = Line<V>;
  constexpr bool keep = kLine<V> == 1;
  each<kCells>([&](auto q) SCAN_INLINE_BODY { sum[q.value] = L::set(0.0f); });
  for (int64_t i = 0; i < side; ++i) {
    const float* cell = cells + i * pitch * kMapBlock;
    L kept[kCells];
    each<kCells - 1>([&](auto q) SCAN_INLINE_BODY {
      if constexpr (keep) kept[q.value] = L::load(cell + q.value * kMapBlock);
    });
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC unroll 4
#endif
    for (int64_t j = 0; j < side; ++j, weight += next, cell += kMapBlock) {
      const L w = L::load(weight);
      each<kCells>([&](auto q) SCAN_INLINE_BODY {
        if constexpr (!keep || q.value == kCells - 1) {
          kept[q.value] = L::load(cell + q.value * kMapBlock);
        }
        sum[q.value] = fma(w, kept[q.value], sum[q.value]);
        if constexpr (keep && q.value > 0) kept[q.value - 1] = kept[q.value];
      });
    }
  }
}

inline void clear_cells(float* cells, int64_t count) {
  std::memset(cells, 0,
              static_cast<size_t>(count) * kMapBlock * sizeof(float));
}

inline size_t depthwise_scratch(const FilterTask& task) {
  return static_cast<size_t>(Strip(task, task.height, task.width, 1).band);
}

template <typename V>
void depthwise(const FilterTask& task, int64_t begin, int64_t end,
               float* buffer) {
  using L = Line<V>;
  const Strip strip(task, task.height, task.width, 1);
  const int64_t half = task.side / 2;
  for (int64_t index = begin; index < end; ++index) {
    const Patch at = patch_of(task, index);
    const int64_t c = at.channel;
    const L bias = task.bias ? L::load(task.bias + c) : L::set(0.0f);
    const L scale = task.scale ? L::load(task.scale + c) : L::set(1.0f);
    const L shift = task.shift ? L::load(task.shift + c) : L::set(0.0f);
    for (int64_t top = 0; top < task.height; top += strip.rows) {
      const int64_t rows = smaller(strip.rows, task.height - top);
      for (int64_t r = 0; r < rows + task.side - 1; ++r) {
        float* cells = buffer + r * strip.pitch * kMapBlock;
        const int64_t i = top + r - half;
        if (i < 0 || i >= task.height) {
          clear_cells(cells, strip.pitch);
          continue;
        }
        clear_cells(cells, half);
        for (int64_t j = 0; j < task.width; ++j) {
          load_line<V>(task.x.at(at.image, i, j, c), at.width)
              .store(cells + (half + j) * kMapBlock);
        }
        const int64_t filled = half + task.width;
        clear_cells(cells + filled * kMapBlock, strip.pitch - filled);
      }
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t j = 0; j < task.width; j += kCells) {
          L sum[kCells];
          filter_cells<V>(buffer + (r * strip.pitch + j) * kMapBlock,
                          strip.pitch, task.weight + c, task.padded,
                          task.side, sum);
          each<kCells>([&](auto q) SCAN_INLINE_BODY {
            if (j + q.value >= task.width) return;
            L value = sum[q.value] + bias;
            if (task.activation == Activation::kRelu) {
              value = at_least(0.0f, value);
            } else if (task.activation == Activation::kSilu) {
              value = silu_of(value);
            }
            if (task.scale) value = fma(value, scale, shift);
            store_line(value, task.y.at(at.image, top + r, j + q.value, c),
                       at.width);
          });
        }
      }
    }
  }
}

constexpr int kBands = 4;

inline size_t wavelet_scratch(const FilterTask& task) {
  const Strip strip(task, (task.height + 1) / 2, (task.width + 1) / 2, kBands);
  return static_cast<size_t>(kBands * (strip.band + kCells * kMapBlock));
}

// The four subbands of a cell of 2x2 pixels, without the factor 1/2.
template <typename V>
SCAN_INLINE void haar_cell(const FilterTask& task, const Patch& at, int64_t i,
                           int64_t j, float* cell, int64_t band) {
  using L = Line<V>;
  const auto pixel = [&](int64_t row, int64_t column) {
    if (row >= task.height || column >= task.width) return L::set(0.0f);
    return load_line<V>(task.x.at(at.image, row, column, at.channel),
                        at.width);
  };
  const L a = pixel(2 * i, 2 * j), b = pixel(2 * i, 2 * j + 1);
  const L c = pixel(2 * i + 1, 2 * j), d = pixel(2 * i + 1, 2 * j + 1);
  const L low_a = a + c, low_b = b + d, high_a = a - c, high_b = b - d;
  (low_a + low_b).store(cell);
  (high_a + high_b).store(cell + band);
  (low_a - low_b).store(cell + 2 * band);
  (high_a - high_b).store(cell + 3 * band);
}

// The subbands of a strip's rows from `top` on, and their border.
template <typename V>
void fill_bands(const FilterTask& task, const Patch& at, const Strip& strip,
                int64_t top, int64_t rows, float* buffer) {
  const int64_t height = (task.height + 1) / 2, width = (task.width + 1) / 2;
  const int64_t half = task.side / 2, filled = half + width;
  for (int64_t r = 0; r < rows + task.side - 1; ++r) {
    float* cells = buffer + r * strip.pitch * kMapBlock;
    const int64_t i = top + r - half;
    const bool outside = i < 0 || i >= height;
    for (int k = 0; k < kBands; ++k) {
      float* band = cells + k * strip.band;
      clear_cells(band, outside ? strip.pitch : half);
      if (!outside) {
        clear_cells(band + filled * kMapBlock, strip.pitch - filled);
      }
    }
    for (int64_t j = 0; !outside && j < width; ++j) {
      haar_cell<V>(task, at, i, j, cells + (half + j) * kMapBlock,
                   strip.band);
    }
  }
}

template <typename V>
void wavelet(const FilterTask& task, int64_t begin, int64_t end,
             float* buffer) {
  using L = Line<V>;
  const int64_t height = (task.height + 1) / 2, width = (task.width + 1) / 2;
  const Strip strip(task, height, width, kBands);
  const L quarter = L::set(0.25f);  // both transforms' factors
  for (int64_t index = begin; index < end; ++index) {
    const Patch at = patch_of(task, index);
    for (int64_t top = 0; top < height; top += strip.rows) {
      const int64_t rows = smaller(strip.rows, height - top);
      fill_bands<V>(task, at, strip, top, rows, buffer);
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t j = 0; j < width; j += kCells) {
          alignas(64) float result[kBands][kCells][kMapBlock];
          for (int k = 0; k < kBands; ++k) {
            L sum[kCells];
            filter_cells<V>(buffer + k * strip.band +
                                (r * strip.pitch + j) * kMapBlock,
                            strip.pitch,
                            task.weight + k * task.padded + at.channel,
                            kBands * task.padded, task.side, sum);
            each<kCells>([&](auto q) SCAN_INLINE_BODY {
              (sum[q.value] * quarter).store(result[k][q.value]);
            });
          }
          for (int64_t q = 0; q < kCells && j + q < width; ++q) {
            const L ll = L::load(result[0][q]), hl = L::load(result[1][q]);
            const L lh = L::load(result[2][q]), hh = L::load(result[3][q]);
            const L low_a = ll + lh, low_b = ll - lh;
            const L high_a = hl + hh, high_b = hl - hh;
            const int64_t row = 2 * (top + r), column = 2 * (j + q);
            const auto put = [&](int64_t i, int64_t l, const L& value) {
              if (i >= task.height || l >= task.width) return;
              store_line(value, task.y.at(at.image, i, l, at.channel),
                         at.width);
            };
            put(row, column, low_a + high_a);
            put(row, column + 1, low_b + high_b);
            put(row + 1, column, low_a - high_a);
            put(row + 1, column + 1, low_b - high_b);
          }
        }
      }
    }
  }
}

}  // namespace selective_scan::cpu::SCAN_VARIANT
