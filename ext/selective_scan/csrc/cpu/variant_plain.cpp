// The kernels in plain C++, for every processor and for float64.
#define SCAN_VARIANT plain

#include "kernels.h"
#include "../inference/feature_map_kernels.h"
// clang-format off: each header needs those before it
#include "vec_plain.h"
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

const Kernels* plain_kernels(Storage storage) {
  using namespace plain;
  switch (storage) {
    case Storage::kDouble:
      return kernel_table<PlainVec<double>, double>("plain");
    case Storage::kHalf:
      return kernel_table<PlainVec<float>, Half>("plain");
    case Storage::kBFloat16:
      return kernel_table<PlainVec<float>, BFloat16>("plain");
    default:
      return kernel_table<PlainVec<float>, float>("plain");
  }
}

const MapKernels* plain_map_kernels() {
  return plain::map_kernel_table<plain::PlainVec<float>>();
}

}  // namespace selective_scan::cpu
