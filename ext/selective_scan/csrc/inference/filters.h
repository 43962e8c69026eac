// Depthwise filters on maps with adjacent channels, as they are and between a
// Haar transform and its inverse.
#pragma once

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

template <typename L, int R>
SCAN_INLINE void activate(Activation activation, L (&sum)[R]) {
  if (activation == Activation::kRelu) {
    each<R>([&](auto r) SCAN_INLINE_BODY {
      sum[r.value] = larger(L::set(0.0f), sum[r.value]);
    });
  } else if (activation == Activation::kSilu) {
    each<R>([&](auto r) SCAN_INLINE_BODY {
      sum[r.value] = silu_of(sum[r.value]);
    });
  }
}

// A buffer of cells with a border of zeros, a strip of rows at a time.
struct Strip {
  int64_t rows, columns;  // results; columns rounded up to kCells
  int64_t pitch;          // cells of a buffered row
  int64_t band;           // floats of a buffered band
  float* cells;

  Strip(int64_t side, int64_t height, int64_t width, int64_t bands) {
    columns = ceil_div(width, kCells) * kCells;
    pitch = columns + side - 1;
    const int64_t fit = kStrip / (bands * pitch * kMapBlock) - side + 1;
    rows = smaller(fit < 4 ? 4 : fit, height);
    band = (rows + side - 1) * pitch * kMapBlock;
    cells = scratch_floats(bands * band);
  }
  float* at(int64_t k, int64_t row, int64_t column) const {
    return cells + k * band + (row * pitch + column) * kMapBlock;
  }
};

inline void clear_cells(float* cells, int64_t count) {
  std::memset(cells, 0,
              static_cast<size_t>(count) * kMapBlock * sizeof(float));
}

// Fill `count` bands from band k on with the rows of a map of cells from `top`
// on and their border; make(i, j, to) puts a cell into each of them.
template <typename Make>
SCAN_INLINE void fill_strip(const Strip& strip, int64_t side, int64_t k,
                            int64_t count, int64_t height, int64_t width,
                            int64_t top, const Make& make) {
  const int64_t half = side / 2, filled = half + width;
  const int64_t rows = smaller(strip.rows, height - top);
  for (int64_t r = 0; r < rows + side - 1; ++r) {
    const int64_t i = top + r - half;
    const bool outside = i < 0 || i >= height;
    for (int64_t band = k; band < k + count; ++band) {
      clear_cells(strip.at(band, r, 0), outside ? strip.pitch : half);
      if (outside) continue;
      clear_cells(strip.at(band, r, filled), strip.pitch - filled);
    }
    for (int64_t j = 0; !outside && j < width; ++j) {
      make(i, j, strip.at(k, r, half + j));
    }
  }
}

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

// Filter the bands of a patch, a map of `height` times `width` cells. Calls
// finish(k, i, j, sums) for kCells results of band k from (i, j) on.
template <typename V, int bands, typename Make, typename Finish>
SCAN_INLINE void filter_patch(const FilterTask& task, const Patch& at,
                              int64_t height, int64_t width, const Make& make,
                              const Finish& finish) {
  const Strip strip(task.side, height, width, bands);
  for (int64_t top = 0; top < height; top += strip.rows) {
    fill_strip(strip, task.side, 0, bands, height, width, top, make);
    for (int64_t i = top; i < smaller(top + strip.rows, height); ++i) {
      for (int64_t j = 0; j < width; j += kCells) {
        for (int k = 0; k < bands; ++k) {
          Line<V> sum[kCells];
          filter_cells<V>(strip.at(k, i - top, j), strip.pitch,
                          task.weight + k * task.padded + at.channel,
                          bands * task.padded, task.side, sum);
          finish(k, i, j, sum);
        }
      }
    }
  }
}

template <typename V>
void depthwise(const FilterTask& task, int64_t begin, int64_t end) {
  using L = Line<V>;
  for (int64_t index = begin; index < end; ++index) {
    const Patch at = patch_of(task, index);
    const int64_t c = at.channel;
    const L bias = task.bias ? L::load(task.bias + c) : L::set(0.0f);
    const L scale = task.scale ? L::load(task.scale + c) : L::set(1.0f);
    const L shift = task.shift ? L::load(task.shift + c) : L::set(0.0f);
    filter_patch<V, 1>(
        task, at, task.height, task.width,
        [&](int64_t i, int64_t j, float* to) SCAN_INLINE_BODY {
          load_line<V>(task.x.at(at.image, i, j, c), at.width).store(to);
        },
        [&](int, int64_t i, int64_t j, L (&sum)[kCells]) SCAN_INLINE_BODY {
          each<kCells>([&](auto q) SCAN_INLINE_BODY {
            if (j + q.value >= task.width) return;
            L value[] = {sum[q.value] + bias};
            activate(task.activation, value);
            if (task.scale) value[0] = fma(value[0], scale, shift);
            store_line(value[0], task.y.at(at.image, i, j + q.value, c),
                       at.width);
          });
        });
  }
}

constexpr int kBands = 4;

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

template <typename V>
void wavelet(const FilterTask& task, int64_t begin, int64_t end) {
  using L = Line<V>;
  const int64_t height = ceil_div(task.height, 2);
  const int64_t width = ceil_div(task.width, 2);
  const int64_t band = Strip(task.side, height, width, kBands).band;
  const L quarter = L::set(0.25f);  // both transforms' factors
  alignas(64) float result[kBands][kCells][kMapBlock];
  for (int64_t index = begin; index < end; ++index) {
    const Patch at = patch_of(task, index);
    filter_patch<V, kBands>(
        task, at, height, width,
        [&](int64_t i, int64_t j, float* to) SCAN_INLINE_BODY {
          haar_cell<V>(task, at, i, j, to, band);
        },
        [&](int k, int64_t i, int64_t j, L (&sum)[kCells]) SCAN_INLINE_BODY {
          each<kCells>([&](auto q) SCAN_INLINE_BODY {
            (sum[q.value] * quarter).store(result[k][q.value]);
          });
          if (k + 1 < kBands) return;
          for (int64_t q = 0; q < kCells && j + q < width; ++q) {
            const L ll = L::load(result[0][q]), hl = L::load(result[1][q]);
            const L lh = L::load(result[2][q]), hh = L::load(result[3][q]);
            const L low_a = ll + lh, low_b = ll - lh;
            const L high_a = hl + hh, high_b = hl - hh;
            const int64_t row = 2 * i, column = 2 * (j + q);
            const auto put = [&](int64_t y, int64_t x, const L& value) {
              if (y >= task.height || x >= task.width) return;
              store_line(value, task.y.at(at.image, y, x, at.channel),
                         at.width);
            };
            put(row, column, low_a + high_a);
            put(row, column + 1, low_b + high_b);
            put(row + 1, column, low_a - high_a);
            put(row + 1, column + 1, low_b - high_b);
          }
        });
  }
}

// Adds the products of `rows` times `width` cells with those `taps`
// neighbouring ones to the sums of kBands bands each.
template <typename V, int taps>
SCAN_INLINE void correlate(const float* grads, const float* cells,
                           int64_t pitch, int64_t rows, int64_t width,
                           float* sums) {
  using L = Line<V>;
  constexpr int64_t next = kBands * kMapBlock;
  L sum[taps];
  each<taps>([&](auto t) SCAN_INLINE_BODY {
    sum[t.value] = L::load(sums + t.value * next);
  });
  for (int64_t r = 0; r < rows; ++r) {
    const float* g = grads + r * pitch * kMapBlock;
    const float* x = cells + r * pitch * kMapBlock;
    for (int64_t j = 0; j < width; ++j, g += kMapBlock, x += kMapBlock) {
      const L grad = L::load(g);
      each<taps>([&](auto t) SCAN_INLINE_BODY {
        sum[t.value] =
            fma(grad, L::load(x + t.value * kMapBlock), sum[t.value]);
      });
    }
  }
  each<taps>([&](auto t) SCAN_INLINE_BODY {
    sum[t.value].store(sums + t.value * next);
  });
}

template <typename V>
void wavelet_gradient(const FilterTask& task, const FilterTask& grad,
                      int64_t index, float* sums) {
  const Patch at = patch_of(task, index);
  const int64_t height = ceil_div(task.height, 2);
  const int64_t width = ceil_div(task.width, 2);
  const int64_t side = task.side, half = side / 2;
  // The bands of the map, then those of the gradient.
  const Strip strip(side, height, width, 2 * kBands);
  for (int64_t top = 0; top < height; top += strip.rows) {
    for (const FilterTask* part : {&task, &grad}) {
      fill_strip(strip, side, part == &task ? 0 : kBands, kBands, height,
                 width, top, [&](int64_t i, int64_t j, float* to) {
                   haar_cell<V>(*part, at, i, j, to, strip.band);
                 });
    }
    const int64_t rows = smaller(strip.rows, height - top);
    for (int64_t k = 0; k < kBands; ++k) {
      const float* grads = strip.at(kBands + k, half, half);
      for (int64_t i = 0; i < side; ++i) {
        for (int64_t j = 0; j < side;) {
          const float* cells = strip.at(k, i, j);
          float* sum = sums + ((i * side + j) * kBands + k) * kMapBlock;
          if (side - j < 3) {
            correlate<V, 1>(grads, cells, strip.pitch, rows, width, sum);
            j += 1;
          } else {
            correlate<V, 3>(grads, cells, strip.pitch, rows, width, sum);
            j += 3;
          }
        }
      }
    }
  }
}

}  // namespace selective_scan::cpu::SCAN_VARIANT
