// The kernels with AVX2 and FMA. The file is compiled for any processor;
// the pragma below lets the code after it use more, and it runs only where
// dispatch.cpp found that. Standard headers, which kernels.h includes, must come
// before it: their inline functions may be shared with code that runs anywhere.
#define SCAN_VARIANT avx2

#include "kernels.h"

#if defined(SCAN_X86)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), \
                             apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

#include "vec_avx2.h"
#include "kernel_templates.h"

namespace selective_scan::cpu {

const Variant& avx2_variant() { return avx2::variant_of<avx2::Vec8>("avx2"); }

}  // namespace selective_scan::cpu

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif  // SCAN_X86
