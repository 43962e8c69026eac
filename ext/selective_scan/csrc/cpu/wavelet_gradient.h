// The gradient of the filters between a Haar transform and its inverse.
#pragma once

#include <cstdint>

namespace selective_scan::cpu::SCAN_VARIANT {

// The strips of a map's subbands and of those of its gradient.
struct GradientStrips {
  int64_t height, width;
  Strip map, grad;

  explicit GradientStrips(const FilterTask& task)
      : height((task.height + 1) / 2),
        width((task.width + 1) / 2),
        map(task, height, width, kBands),
        grad(map) {
    grad.pitch = grad.columns;
    grad.band = grad.rows * grad.pitch * kMapBlock;
  }
};

inline size_t wavelet_gradient_scratch(const FilterTask& task) {
  const GradientStrips strips(task);
  return static_cast<size_t>(kBands * (strips.map.band + strips.grad.band));
}

// Adds the products of cells and those `taps` neighbouring ones to `sums`.
template <typename V, int taps>
SCAN_INLINE void correlate(const float* grads, int64_t grad_pitch,
                           const float* cells, int64_t pitch, int64_t rows,
                           int64_t width, float* sums, int64_t next) {
  using L = Line<V>;
  L sum[taps];
  for (int t = 0; t < taps; ++t) sum[t] = L::load(sums + t * next);
  for (int64_t r = 0; r < rows; ++r) {
    const float* g = grads + r * grad_pitch * kMapBlock;
    const float* x = cells + r * pitch * kMapBlock;
    for (int64_t j = 0; j < width; ++j, g += kMapBlock, x += kMapBlock) {
      const L grad = L::load(g);
      for (int t = 0; t < taps; ++t) {
        sum[t] = fma(grad, L::load(x + t * kMapBlock), sum[t]);
      }
    }
  }
  for (int t = 0; t < taps; ++t) sum[t].store(sums + t * next);
}

// Adds to sums (side, side, bands, kMapBlock) what one patch gives, without
// both transforms' factors.
template <typename V>
void wavelet_gradient(const FilterTask& task, const FilterTask& grads,
                      int64_t index, float* sums, float* buffer) {
  const Patch at = patch_of(task, index);
  const GradientStrips strips(task);
  const Strip& map = strips.map;
  const Strip& grad = strips.grad;
  float* grad_cells = buffer + kBands * map.band;
  const int64_t side = task.side, next = kBands * kMapBlock;
  for (int64_t top = 0; top < strips.height; top += map.rows) {
    const int64_t rows = smaller(map.rows, strips.height - top);
    fill_bands<V>(task, at, map, top, rows, buffer);
    fill_bands<V>(grads, at, grad, top, rows, grad_cells);
    for (int64_t k = 0; k < kBands; ++k) {
      for (int64_t i = 0; i < side; ++i) {
        const auto add = [&](auto correlation, int64_t j) SCAN_INLINE_BODY {
          correlation(grad_cells + k * grad.band, grad.pitch,
                      buffer + k * map.band + (i * map.pitch + j) * kMapBlock,
                      map.pitch, rows, strips.width,
                      sums + (i * side + j) * next + k * kMapBlock, next);
        };
        if (side == 3) {
          add(correlate<V, 3>, 0);
        } else if (side == 5) {
          add(correlate<V, 5>, 0);
        } else if (side == 7) {
          add(correlate<V, 7>, 0);
        } else {
          for (int64_t j = 0; j < side; ++j) add(correlate<V, 1>, j);
        }
      }
    }
  }
}

}  // namespace selective_scan::cpu::SCAN_VARIANT
