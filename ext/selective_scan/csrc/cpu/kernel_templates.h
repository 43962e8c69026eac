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
#include "gated_norm.h"
#include "../inference/products.h"
// clang-format on

namespace selective_scan::cpu::SCAN_VARIANT {

template <typename V>
const Variant& variant_of(const char* name) {
  static const Variant variant = {name,
                                  {&forward<V>, &backward<V>},
                                  &depthwise<V>,
                                  &wavelet<V>,
                                  &wavelet_gradient<V>,
                                  &gated_norm<V>,
                                  kTileRows<V>,
                                  &conv<V>,
                                  &feed_forward<V>};
  return variant;
}

}  // namespace selective_scan::cpu::SCAN_VARIANT
