// The kernels with AVX2, FMA and F16C. The file is compiled for any processor;
// the pragma below lets the code after it use more, and it runs only where
// dispatch.cpp found that. Standard headers must come before the pragma: their
// inline functions may be shared with code that runs everywhere.
#include "kernels.h"
#include "../inference/feature_map_kernels.h"

#if defined(__x86_64__) || defined(_M_X64)

#define SCAN_VARIANT avx2

#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), \
                             apply_to = function)
#elif defined(__GNUC__)
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

// clang-format off: each header needs those before it
#include "vec_plain.h"
#include "vec_avx2.h"
#include "simd_tuple.h"
#include "vec_math.h"
#include "tile.h"
#include "scan_block.h"
#include "forward.h"
#include "backward.h"
#include "../inference/filters.h"
#include "../inference/gated_norm.h"
#include "../inference/products.h"
#include "../inference/strassen.h"
#include "../inference/dense_conv.h"
#include "../inference/halving.h"
#include "../inference/feed_forward.h"
#include "../inference/feature_map_table.h"
// clang-format on

namespace selective_scan::cpu {

const Kernels* avx2_kernels(Storage storage) {
  using namespace avx2;
  switch (storage) {
    case Storage::kFloat:
      return kernel_table<Vec8, float>("avx2");
    case Storage::kHalf:
      return kernel_table<Vec8, Half>("avx2");
    case Storage::kBFloat16:
      return kernel_table<Vec8, BFloat16>("avx2");
    default:
      return nullptr;
  }
}

const MapKernels* avx2_map_kernels() {
  return avx2::map_kernel_table<avx2::Vec8>();
}

}  // namespace selective_scan::cpu

#if defined(__clang__)
#pragma clang attribute pop
#elif defined(__GNUC__)
#pragma GCC pop_options
#endif

#else

namespace selective_scan::cpu {

const Kernels* avx2_kernels(Storage) { return nullptr; }
const MapKernels* avx2_map_kernels() { return nullptr; }

}  // namespace selective_scan::cpu

#endif
