// Dense 3x3 convolutions of stride 2 and padding 1 by 25 products in place of
// 36. Along one axis two results of even cells e and odd cells o,
//   y0 = k0 e0 + k1 o0 + k2 e1 and y1 = k0 e1 + k1 o1 + k2 e2,
// share one product:
//   u = (k0 + k2) e1, y0 = u + k0 (e0 - e1) + k1 o0,
//   y1 = u + k1 o1 + k2 (e2 - e1).
// Along both, a patch of 2x2 results takes 25 products of matrices with its
// signals, which are sums of its 5x5 cells, one for each pair of
// (e0 - e1, o0, e1, o1, e2 - e1) along the height and along the width.
// Source: minimal filtering as in arXiv:1509.09308 (Lavin and Gray), here of
// the two filters that a stride of 2 makes of one.
#pragma once

#include <cstdint>
#include <cstring>

namespace selective_scan::cpu::SCAN_VARIANT {

constexpr int kSide = 5;                 // cells of a patch
constexpr int kSignals = kSide * kSide;  // of a patch
constexpr int64_t kSignalFloats = 1 << 16;  // of a task: half of a large cache

// Where a signal is kept: those that are multiplied together lie together.
constexpr int kSlots[kSide][kSide] = {{9, 10, 5, 13, 14},
                                      {11, 12, 6, 15, 16},
                                      {1, 2, 0, 3, 4},
                                      {17, 18, 7, 21, 22},
                                      {19, 20, 8, 23, 24}};

// The products: of all four results, of columns, of rows, of single results.
struct HalvingStep {
  int slot, slots;
};
constexpr int kHalvingSteps = 9;
constexpr HalvingStep kSteps[kHalvingSteps] = {
    {0, 1}, {1, 2}, {3, 2}, {5, 2}, {7, 2}, {9, 4}, {13, 4}, {17, 4}, {21, 4}};
constexpr int kSingles = 5;  // the first step of single results

// Patches that a task takes at a time at most: pairs of tiles.
template <typename V>
int64_t halving_patches(const ConvTask& task) {
  constexpr int64_t kPair = 2 * kTileRows<V>;
  const int64_t fit =
      smaller(kSignalFloats / (kSignals * task.channels), kProductRows);
  return fit < kPair ? kPair : fit / kPair * kPair;
}

template <typename V>
size_t halving_scratch(const ConvTask& task) {
  return pointer_floats(kHalvingSteps) +
         static_cast<size_t>(
             blocks_of(task.channels) * kMapBlock +
             task.channels * kSignals * halving_patches<V>(task) +
             kHalvingSteps * kProductRows * kMapBlock);
}

struct PatchPlace {
  int64_t image, row, column;  // of the first result
};

inline PatchPlace patch_place(const ConvTask& task, int64_t index) {
  const int64_t columns = (task.out_width + 1) / 2;
  const int64_t rows = (task.out_height + 1) / 2;
  return {index / columns / rows, index / columns % rows * 2,
          index % columns * 2};
}

// The signals of `lanes` channels, of which `width` exist.
template <typename V>
SCAN_INLINE void make_signals(const float* const* cells, int64_t channel,
                              int64_t channels, float* to) {
  const int64_t width = smaller(channels - channel, V::lanes);
  const auto along = [&](int i, V (&s)[kSide]) {
    each<kSide>([&](auto j) SCAN_INLINE_BODY {
      s[j.value] = load_line<V, 1>(cells[i * kSide + j.value] + channel,
                                   width).first;
    });
    s[0] = s[0] - s[2];
    s[4] = s[4] - s[2];
  };
  const auto put = [&](int i, const V (&s)[kSide]) {
    each<kSide>([&](auto j) SCAN_INLINE_BODY {
      store_line<V, 1>({s[j.value]},
                       to + kSlots[i][j.value] * channels + channel, width);
    });
  };
  V middle[kSide], s[kSide];
  along(2, middle);
  put(2, middle);
  for (int odd = 1; odd < kSide; odd += 2) {
    along(odd, s);
    put(odd, s);
  }
  for (int outer = 0; outer < kSide; outer += 4) {
    along(outer, s);
    each<kSide>([&](auto j) SCAN_INLINE_BODY {
      s[j.value] = s[j.value] - middle[j.value];
    });
    put(outer, s);
  }
}

// All signals of a patch; what lies outside of the map is 0.
template <typename V>
void make_patch(const ConvTask& task, const PatchPlace& place,
                const float* zeros, float* to) {
  const float* cells[kSignals];
  for (int i = 0; i < kSide; ++i) {
    const int64_t row = 2 * place.row - 1 + i;
    for (int j = 0; j < kSide; ++j) {
      const int64_t column = 2 * place.column - 1 + j;
      const bool inside = row >= 0 && row < task.height && column >= 0 &&
                          column < task.width;
      cells[i * kSide + j] =
          inside ? task.x.at(place.image, row, column, 0) : zeros;
    }
  }
  const int64_t channels = task.channels;
  int64_t c = 0;
  for (; c + V::lanes <= channels; c += V::lanes) {
    make_signals<V>(cells, c, channels, to);
  }
  if (c == channels) return;
  // Some channels twice rather than a vector in parts.
  make_signals<V>(cells, channels < V::lanes ? 0 : channels - V::lanes,
                  channels, to);
}

// One block of outputs of `count` patches; their results are left in the sums
// of the single results.
template <typename V>
void multiply_signals(const ConvTask& task, int64_t count, int64_t block,
                      const float* const* pointers, float* sums) {
  constexpr int64_t kStep = kProductRows * kMapBlock;
  const int64_t column = block * kMapBlock;
  const float* panel =
      task.weight + block * kSignals * task.channels * kMapBlock;
  for (int step = 0; step < kHalvingSteps; ++step) {
    float* sum = sums + step * kStep;
    if (step >= kSingles) {
      const int single = step - kSingles;
      const float* of_column = sums + (1 + single % 2) * kStep;
      const float* of_row = sums + (3 + single / 2) * kStep;
      for (int64_t i = 0; i < count * kMapBlock; i += V::lanes) {
        (V::load(of_column + i) + V::load(of_row + i)).store(sum + i);
      }
    }
    // Whole vectors, of which more is computed than there are outputs.
    const bool half = task.outputs - column <= V::lanes;
    Result result{sum, kMapBlock, half ? V::lanes : kMapBlock, nullptr,
                  nullptr, Activation::kNone};
    if (step == 0 && task.bias) result.bias = task.bias + column;
    if (step >= kSingles) result.activation = task.activation;
    if (step == 1 || step == 2) result.from = sums;
    if (step >= kSingles) result.from = sum;
    multiply_columns<V>({pointers + step * kProductRows, count, 1,
                         kSteps[step].slots * task.channels},
                        panel + kSteps[step].slot * task.channels * kMapBlock,
                        result, 0);
  }
}

template <typename V>
void halving(const ConvTask& task, Range patches, float* scratch) {
  using L = Line<V>;
  constexpr int64_t kStep = kProductRows * kMapBlock;
  auto** pointers = reinterpret_cast<const float**>(scratch);
  float* zeros = scratch + pointer_floats(kHalvingSteps);
  float* signals = zeros + blocks_of(task.channels) * kMapBlock;
  float* sums = signals + kSignals * task.channels * halving_patches<V>(task);
  std::memset(zeros, 0, static_cast<size_t>(task.channels) * sizeof(float));
  PatchPlace places[kProductRows];
  const int64_t count = patches.end - patches.begin;
  for (int64_t i = 0; i < count; ++i) {
    float* to = signals + i * kSignals * task.channels;
    places[i] = patch_place(task, patches.begin + i);
    make_patch<V>(task, places[i], zeros, to);
    for (int step = 0; step < kHalvingSteps; ++step) {
      pointers[step * kProductRows + i] =
          to + kSteps[step].slot * task.channels;
    }
  }
  for (int64_t block = 0; block < blocks_of(task.outputs); ++block) {
    multiply_signals<V>(task, count, block, pointers, sums);
    const int64_t column = block * kMapBlock;
    const int64_t width =
        smaller(static_cast<int64_t>(kMapBlock), task.outputs - column);
    for (int64_t i = 0; i < count; ++i) {
      const PatchPlace& place = places[i];
      for (int single = 0; single < 4; ++single) {
        const int64_t row = place.row + single / 2;
        const int64_t cell = place.column + single % 2;
        if (row >= task.out_height || cell >= task.out_width) continue;
        float* y = task.y + ((place.image * task.out_height + row) *
                                 task.out_width + cell) * task.outputs;
        const float* sum = sums + (kSingles + single) * kStep + i * kMapBlock;
        store_line(L::load(sum), y + column, width);
      }
    }
  }
}

}  // namespace selective_scan::cpu::SCAN_VARIANT
