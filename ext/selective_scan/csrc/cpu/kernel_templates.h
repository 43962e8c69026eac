// All kernels, over the vectors of one instruction set; included once by each
// variant_*.cpp, which names the namespace by SCAN_VARIANT.
#pragma once

// clang-format off: each header needs those before it
#include "simd_tuple.h"
#include "vec_math.h"
#include "tile.h"
#include "scan_block.h"
#include "forward.h"
#include "backward.h"
#include "../inference/filters.h"
#include "../inference/gated_norm.h"
#include "wavelet_gradient.h"
#include "gated_norm_backward.h"
#include "../inference/products.h"
#include "../inference/dense_conv.h"
#include "../inference/feed_forward.h"
// clang-format on

namespace selective_scan::cpu::SCAN_VARIANT {

template <typename V, typename T>
constexpr ScanKernels scan_kernels() {
  return {&forward_scratch<V>, &forward<V, T>, &backward_scratch<V>,
          &backward<V, T>};
}

template <typename V>
const Variant& variant_of(const char* name) {
  static const Variant variant = {
      name,
      scan_kernels<V, float>(),
      scan_kernels<V, Half>(),
      scan_kernels<V, BFloat16>(),
      {&depthwise_scratch, &depthwise<V>, &wavelet_scratch, &wavelet<V>,
       &wavelet_gradient_scratch, &wavelet_gradient<V>, &gated_norm<V>,
       &gated_norm_backward<V>, kTileRows<V>, &conv_scratch, &conv<V>,
       &feed_forward_scratch, &filter_rows<V>, &feed_forward<V>}};
  return variant;
}

}  // namespace selective_scan::cpu::SCAN_VARIANT
