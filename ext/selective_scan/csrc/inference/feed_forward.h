// The feed-forward part of a block, after its depthwise filter where one stands
// before it, with what is between kept in the cache.
#pragma once

#include <cstdint>
#include <cstring>

namespace selective_scan::cpu::SCAN_VARIANT {

constexpr int kTaps = 9;  // of a 3x3 filter

// Whole lines, so that what comes next is aligned as this is.
inline size_t filter_scratch(const FeedForwardTask& task) {
  if (!task.filter) return 0;
  return pointer_floats(kTaps) +
         static_cast<size_t>(blocks_of(task.channels) * kMapBlock);
}

// Values of all rows between the products and, where they are not those of the
// map, before them.
inline int64_t own_values(const FeedForwardTask& task) {
  const bool own_rows = task.filter || task.shortcut;
  return kProductRows * (task.hidden + (own_rows ? task.channels : 0));
}

inline size_t feed_forward_scratch(const FeedForwardTask& task) {
  return filter_scratch(task) + pointer_floats(2) +
         static_cast<size_t>(own_values(task));
}

// The cells under a filter on each of some rows, nine by nine.
inline void find_cells(const FeedForwardTask& task, Range rows,
                       const float* zeros, const float** cells) {
  int64_t column = rows.begin % task.width;
  int64_t row = rows.begin / task.width % task.height;
  for (int64_t r = rows.begin; r < rows.end; ++r, cells += kTaps) {
    for (int k = 0; k < kTaps; ++k) {
      const int64_t i = k / 3 - 1, j = k % 3 - 1;
      const bool inside = row + i >= 0 && row + i < task.height &&
                          column + j >= 0 && column + j < task.width;
      cells[k] = inside
                     ? task.x + (r + i * task.width + j) * task.channels
                     : zeros;
    }
    if (++column == task.width) {
      column = 0;
      if (++row == task.height) row = 0;
    }
  }
}

// Filter rows into `to`, (rows, channels).
template <typename V>
void filter_rows(const FeedForwardTask& task, Range rows, float* scratch,
                 float* to) {
  using L = SimdTuple<V, 1>;
  auto** cells = reinterpret_cast<const float**>(scratch);
  float* zeros = scratch + pointer_floats(kTaps);
  std::memset(zeros, 0, static_cast<size_t>(task.channels) * sizeof(float));
  find_cells(task, rows, zeros, cells);
  const int64_t count = rows.end - rows.begin, channels = task.channels;
  const int64_t padded = blocks_of(channels) * kMapBlock;
  for (int64_t c = 0; c < channels; c += V::lanes) {
    const int64_t width = smaller(channels - c, V::lanes);
    const L bias =
        task.filter_bias ? L::load(task.filter_bias + c) : L::set(0.0f);
    L weight[kTaps];
    each<kTaps>([&](auto k) SCAN_INLINE_BODY {
      weight[k.value] = L::load(task.filter + k.value * padded + c);
    });
    const auto filter = [&](int64_t whole) {
      for (int64_t r = 0; r < count; ++r) {
        L sum = bias;
        each<kTaps>([&](auto k) SCAN_INLINE_BODY {
          sum = fma(weight[k.value],
                    load_line<V, 1>(cells[r * kTaps + k.value] + c, whole),
                    sum);
        });
        store_line(sum, to + r * channels + c, whole);
      }
    };
    if (width == V::lanes) {
      filter(V::lanes);
    } else {
      filter(width);
    }
  }
}

template <typename V>
void feed_forward(const FeedForwardTask& task, Range rows, float* scratch) {
  auto** in = reinterpret_cast<const float**>(scratch + filter_scratch(task));
  auto** between = in + kProductRows;
  float* hidden = scratch + filter_scratch(task) + pointer_floats(2);
  float* own = hidden + kProductRows * task.hidden;
  const int64_t count = rows.end - rows.begin, channels = task.channels;
  const int64_t start = rows.begin * channels;
  const float* z = task.x + start;
  if (task.filter) {
    filter_rows<V>(task, rows, scratch, own);
    z = own;
  }
  for (int64_t i = 0; i < count; ++i) {
    in[i] = z + i * channels;
    between[i] = hidden + i * task.hidden;
  }
  multiply<V>({in, count, 1, channels}, task.first,
              {0, blocks_of(task.hidden)},
              {hidden, task.hidden, task.hidden, task.first_bias, nullptr,
               task.activation});
  if (task.shortcut) {
    const float* shortcut = task.shortcut + start;
    const int64_t values = count * channels;
    int64_t i = 0;
    for (; i + V::lanes <= values; i += V::lanes) {
      (V::load(z + i) + V::load(shortcut + i)).store(own + i);
    }
    for (; i < values; ++i) own[i] = z[i] + shortcut[i];
    z = own;
  }
  multiply<V>({between, count, 1, task.hidden}, task.second,
              {0, blocks_of(channels)},
              {task.y + start, channels, channels, task.second_bias, z,
               Activation::kNone});
}

}  // namespace selective_scan::cpu::SCAN_VARIANT
