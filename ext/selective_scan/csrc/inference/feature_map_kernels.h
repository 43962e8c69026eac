// What surrounds a scan in a network, in float32: operands of the kernels on
// maps whose channels lie side by side.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../common/scan_shape.h"

namespace selective_scan {

// This thread's scratch, aligned to 64 bytes. It is kept from call to call,
// as mapping fresh memory takes longer than a small scan.
void* scratch_memory(size_t bytes);

}  // namespace selective_scan

namespace selective_scan::cpu {

constexpr int kMapBlock = 16;  // channels of a task: one line of a cache

inline int64_t blocks_of(int64_t channels) {
  return ceil_div(channels, kMapBlock);
}

inline float* scratch_floats(int64_t count) {
  return static_cast<float*>(
      scratch_memory(static_cast<size_t>(count) * sizeof(float)));
}

struct Range {
  int64_t begin, end;
};

enum class Activation { kNone, kRelu, kSilu };

// A map (batch, height, width, channels) with adjacent channels.
template <typename T>
struct MapView {
  T* data = nullptr;
  int64_t image = 0, row = 0, column = 0;  // strides in elements

  T* at(int64_t b, int64_t i, int64_t j, int64_t c) const {
    return data + b * image + i * row + j * column + c;
  }
};

// A depthwise filter of odd side. Weights and what follows are padded to whole
// blocks of channels; any of bias, scale and shift may be null.
struct FilterTask {
  MapView<const float> x;
  MapView<float> y;
  int64_t batch = 0, channels = 0, height = 0, width = 0;
  int64_t side = 0;               // of the kernel, in cells
  int64_t padded = 0;             // channels of a row of weights
  const float* weight = nullptr;  // (side, side, bands, padded)
  const float* bias = nullptr;
  const float* scale = nullptr;
  const float* shift = nullptr;
  Activation activation = Activation::kNone;
};

// Tokens (batch, length, channels) with adjacent channels, as rows of maps.
struct GatedNormTask {
  MapView<const float> x, z;
  MapView<float> y;
  int64_t length = 0, channels = 0;
  const float* weight = nullptr;
  const float* bias = nullptr;
  float eps = 0;
};

constexpr int64_t kProductRows = 48;  // that a task takes at a time

// A dense convolution as a product: a row per result, its field of view as
// kernel_height runs of kernel_width * channels values each.
struct ConvTask {
  MapView<const float> x;
  int64_t batch = 0, channels = 0, height = 0, width = 0;
  int64_t kernel_height = 1, kernel_width = 1;
  int64_t row_stride = 1, column_stride = 1;
  int64_t top = 0, left = 0;  // cells of padding
  int64_t out_height = 0, out_width = 0, outputs = 0;
  const float* weight = nullptr;  // (blocks, runs' values, kMapBlock)
  const float* bias = nullptr;    // padded to whole blocks, or null
  const float* add[2] = {};       // (rows, outputs) each, or null
  float* y = nullptr;             // (rows, outputs)
  Activation activation = Activation::kNone;

  int64_t rows() const { return batch * out_height * out_width; }
  int64_t depth() const { return kernel_height * kernel_width * channels; }
};

}  // namespace selective_scan::cpu
