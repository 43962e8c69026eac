// What surrounds a scan in a network, for inference in float32: operands of
// the kernels on maps whose channels lie side by side, and their table.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../common/scan_shape.h"

namespace selective_scan::cpu {

constexpr int kMapBlock = 16;  // channels of a task: one line of a cache

inline int64_t blocks_of(int64_t channels) {
  return ceil_div(channels, kMapBlock);
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

// Rows of `channels` values: y = norm(x) * silu(z).
struct GatedNormTask {
  MapView<const float> x, z;  // rows are tokens, columns unused
  MapView<float> y;
  int64_t length = 0, channels = 0;
  const float* weight = nullptr;
  const float* bias = nullptr;
  float eps = 0;
};

// Gradients of y, x and z, and of weight and bias in whole blocks of channels,
// to which they are added.
struct GatedNormGradients {
  MapView<const float> y;
  MapView<float> x, z;
  float* weight = nullptr;
  float* bias = nullptr;
};

constexpr int64_t kProductRows = 48;  // that a task takes at a time

// A dense convolution as a product: a row per result, its field of view as
// kernel_height runs of kernel_width * channels values each.
struct ConvTask {
  MapView<const float> x;
  int64_t x_channel = 1;  // stride between channels in elements
  int64_t batch = 0, channels = 0, height = 0, width = 0;
  int64_t kernel_height = 1, kernel_width = 1;
  int64_t row_stride = 1, column_stride = 1;
  int64_t top = 0, left = 0;  // cells of padding
  int64_t out_height = 0, out_width = 0, outputs = 0;
  const float* weight = nullptr;  // (blocks, runs' values, kMapBlock)
  const float* bias = nullptr;    // padded to whole blocks, or null
  const float* add = nullptr;     // (rows, outputs), or null
  float* y = nullptr;             // (rows, outputs)
  Activation activation = Activation::kNone;
};

// y = z + second(activation(first(z))) + shortcut, rows of `channels` values;
// z is x or what a depthwise 3x3 filter makes of it.
struct FeedForwardTask {
  const float* x = nullptr;
  float* y = nullptr;
  const float* shortcut = nullptr;  // as x, or null
  int64_t channels = 0, hidden = 0;
  int64_t height = 0, width = 0;       // of an image, for the filter
  const float* filter = nullptr;       // (3, 3, padded), or null
  const float* filter_bias = nullptr;  // padded, or null
  const float* first = nullptr;        // (blocks, channels, kMapBlock)
  const float* first_bias = nullptr;   // padded, or null
  const float* second = nullptr;       // (blocks, hidden, kMapBlock)
  const float* second_bias = nullptr;  // padded, or null
  Activation activation = Activation::kNone;
};

// Filter tasks are (image, channel block) pairs, blocks fastest; those of the
// norm are tokens of all images. Products take at most kProductRows rows at a
// time, a convolution's those blocks of 16 outputs that it is given.
struct FeatureMapKernels {
  size_t (*depthwise_scratch)(const FilterTask&);
  void (*depthwise)(const FilterTask&, int64_t begin, int64_t end, float*);
  size_t (*wavelet_scratch)(const FilterTask&);
  void (*wavelet)(const FilterTask&, int64_t begin, int64_t end, float*);
  size_t (*wavelet_gradient_scratch)(const FilterTask&);
  void (*wavelet_gradient)(const FilterTask&, const FilterTask& grads,
                           int64_t index, float* sums, float*);
  void (*gated_norm)(const GatedNormTask&, int64_t begin, int64_t end);
  void (*gated_norm_backward)(const GatedNormTask&, const GatedNormGradients&,
                              int64_t begin, int64_t end);
  int64_t tile_rows;  // that a product takes at once
  size_t (*conv_scratch)(const ConvTask&);
  void (*conv)(const ConvTask&, Range rows, Range blocks, float*);
  size_t (*feed_forward_scratch)(const FeedForwardTask&);
  void (*filter_rows)(const FeedForwardTask&, Range rows, float*, float* to);
  void (*feed_forward)(const FeedForwardTask&, Range rows, float*);
};

// The table of the variant in use.
const FeatureMapKernels& feature_map_kernels();

}  // namespace selective_scan::cpu
