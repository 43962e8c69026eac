// The kernels for every processor, and for float64.
#define SCAN_VARIANT plain

#include "vec.h"
#include "kernel_templates.h"

namespace selective_scan::cpu {

// Vectors of 16 bytes are what processors of all kinds have at least.
const Variant& plain_variant() {
  return plain::variant_of<plain::Vec<float, 4>>("plain");
}

const ScanKernels& plain_double_kernels() {
  using V = plain::Vec<double, 2>;
  static const ScanKernels kernels = {&plain::forward<V>, &plain::backward<V>};
  return kernels;
}

}  // namespace selective_scan::cpu
