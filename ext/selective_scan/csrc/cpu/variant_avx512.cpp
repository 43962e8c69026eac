// The kernels with AVX-512; see variant_avx2.cpp for the order of things.
#define SCAN_VARIANT avx512

#include "kernels.h"

#if defined(SCAN_X86)

#if defined(__clang__)
#pragma clang attribute push(                                               \
    __attribute__((target("avx2,fma,avx512f,avx512dq,avx512bw,avx512vl"))), \
    apply_to = function)
#else
// A false alarm of GCC 12 about its own intrinsics.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC target("avx2,fma,avx512f,avx512dq,avx512bw,avx512vl")
#endif

#include "vec_avx512.h"
#include "kernel_templates.h"

namespace selective_scan::cpu {

const Variant& avx512_variant() {
  return avx512::variant_of<avx512::Vec16>("avx512");
}

}  // namespace selective_scan::cpu

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif  // SCAN_X86
