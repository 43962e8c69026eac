// Part of a float32 map, with its channels side by side for the kernels: in
// place where they lie so, or copied to and fro.
#pragma once

#include <ATen/core/Tensor.h>

#include "../inference/feature_map_kernels.h"

namespace selective_scan {

template <typename T>
struct Slab {
  T* data;
  int64_t channel, row, column;  // strides in elements
  int64_t channels, rows, columns;
  int64_t pitch;  // floats of a copied cell
  float* copy = nullptr;

  bool in_place() const { return channel == 1; }
  int64_t floats() const { return in_place() ? 0 : rows * columns * pitch; }
  // Use and move on the memory for copies.
  void take(float*& memory) {
    copy = memory;
    memory += floats();
  }
  cpu::MapView<T> view() const {
    if (in_place()) return {data, 0, row, column};
    return {copy, 0, columns * pitch, pitch};
  }
  // Calls use(element, its copy), of a few channels at a time: as many rows
  // of memory as a cache keeps.
  template <typename Use>
  void visit(const Use& use) const {
    if (in_place()) return;
    constexpr int64_t kFew = 8;
    for (int64_t first = 0; first < channels; first += kFew) {
      const int64_t count = smaller(kFew, channels - first);
      for (int64_t i = 0; i < rows; ++i) {
        for (int64_t j = 0; j < columns; ++j) {
          T* from = data + first * channel + i * row + j * column;
          float* to = copy + (i * columns + j) * pitch + first;
          if (count == kFew) {  // so that the compiler unrolls it
            for (int c = 0; c < kFew; ++c) use(from[c * channel], to[c]);
          } else {
            for (int c = 0; c < count; ++c) use(from[c * channel], to[c]);
          }
        }
      }
    }
  }
  void load() const {
    visit([](const float& value, float& to) { to = value; });
  }
  void store() const {
    visit([](float& value, const float& from) { value = from; });
  }
};

inline Slab<const float> slab_of(const at::Tensor& x) {
  return {x.const_data_ptr<float>(), x.stride(1), x.stride(2), x.stride(3),
          x.size(1), x.size(2), x.size(3), x.size(1)};
}
inline Slab<float> mutable_slab_of(const at::Tensor& x) {
  return {x.mutable_data_ptr<float>(), x.stride(1), x.stride(2), x.stride(3),
          x.size(1), x.size(2), x.size(3), x.size(1)};
}

}  // namespace selective_scan
