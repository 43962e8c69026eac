// The kernels with AVX-512. The file is compiled for any processor; the
// pragma below lets the code after it use more, and it runs only where
// dispatch.cpp found that. Standard headers must come before the pragma: their
// inline functions may be shared with code that runs everywhere.
#include "kernels.h"
#include "../inference/feature_map_kernels.h"

#if defined(__x86_64__) || defined(_M_X64)

#define SCAN_VARIANT avx512

#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__clang__)
#pragma clang attribute push(                                         \
    __attribute__((                                                   \
        target("avx2,fma,f16c,avx512f,avx512dq,avx512bw,avx512vl"))), \
    apply_to = function)
#elif defined(__GNUC__)
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512dq,avx512bw,avx512vl")
#endif

// clang-format off: each header needs those before it
#include "vec_plain.h"
#include "vec_avx2.h"
#include "vec_avx512.h"
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

const Kernels* avx512_kernels(Storage storage) {
  using namespace avx512;
  switch (storage) {
    case Storage::kFloat:
      return kernel_table<Vec16, float>("avx512");
    case Storage::kHalf:
      return kernel_table<Vec16, Half>("avx512");
    case Storage::kBFloat16:
      return kernel_table<Vec16, BFloat16>("avx512");
    default:
      return nullptr;
  }
}

const MapKernels* avx512_map_kernels() {
  return avx512::map_kernel_table<avx512::Vec16>();
}

}  // namespace selective_scan::cpu

#if defined(__clang__)
#pragma clang attribute pop
#elif defined(__GNUC__)
#pragma GCC pop_options
#endif

#else

namespace selective_scan::cpu {

const Kernels* avx512_kernels(Storage) { return nullptr; }
const MapKernels* avx512_map_kernels() { return nullptr; }

}  // namespace selective_scan::cpu

#endif
