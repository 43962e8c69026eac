// Dense convolutions as products.
#pragma once

#include <cstdint>
#include <cstring>

namespace selective_scan::cpu::SCAN_VARIANT {

// One run of a field of view, zeros where it is outside.
inline void gather_run(const ConvTask& task, int64_t image, int64_t row,
                       int64_t left, float* to) {
  const auto bytes = [](int64_t n) {
    return static_cast<size_t>(n) * sizeof(float);
  };
  const int64_t channels = task.channels;
  if (row < 0 || row >= task.height) {
    std::memset(to, 0, bytes(task.kernel_width * channels));
    return;
  }
  for (int64_t j = 0; j < task.kernel_width; ++j, to += channels) {
    const int64_t column = left + j;
    if (column < 0 || column >= task.width) {
      std::memset(to, 0, bytes(channels));
      continue;
    }
    const float* from = task.x.at(image, row, column, 0);
    if (task.x_channel == 1) {
      std::memcpy(to, from, bytes(channels));
    } else {
      for (int64_t c = 0; c < channels; ++c) to[c] = from[c * task.x_channel];
    }
  }
}

// Where the runs of the fields of view of some rows are: in the map, or in
// copies beside it.
inline void find_fields(const ConvTask& task, Range rows,
                        const float** pointers, float* copies) {
  const int64_t run = task.kernel_width * task.channels;
  // Runs that lie in memory as they are needed are not copied.
  const bool adjacent = task.x_channel == 1 &&
                        (task.kernel_width == 1 ||
                         task.x.column == task.channels);
  int64_t column = rows.begin % task.out_width;
  int64_t place = rows.begin / task.out_width % task.out_height;
  int64_t image = rows.begin / task.out_width / task.out_height;
  const int64_t count = rows.end - rows.begin;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t top = place * task.row_stride - task.top;
    const int64_t left = column * task.column_stride - task.left;
    const bool inside = left >= 0 && left + task.kernel_width <= task.width;
    for (int64_t t = 0; t < task.kernel_height; ++t) {
      const int64_t row = top + t;
      const float*& pointer = pointers[t * kProductRows + i];
      if (adjacent && inside && row >= 0 && row < task.height) {
        pointer = task.x.at(image, row, left, 0);
      } else {
        gather_run(task, image, row, left, copies);
        pointer = copies;
        copies += run;
      }
    }
    if (++column == task.out_width) {
      column = 0;
      if (++place == task.out_height) {
        place = 0;
        ++image;
      }
    }
  }
}

template <typename V>
void conv(const ConvTask& task, Range rows, Range blocks) {
  const int64_t run = task.kernel_width * task.channels;
  const int64_t pointers = pointer_floats(task.kernel_height);
  float* memory = scratch_floats(pointers + kProductRows * task.depth());
  auto** fields = reinterpret_cast<const float**>(memory);
  find_fields(task, rows, fields, memory + pointers);
  multiply<V>({fields, rows.end - rows.begin, task.kernel_height, run},
              task.weight, blocks, result_of(task, rows.begin));
}

}  // namespace selective_scan::cpu::SCAN_VARIANT
