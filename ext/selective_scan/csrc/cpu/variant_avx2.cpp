// The kernels with AVX2, FMA and F16C. The file is compiled for any processor;
// the pragma below lets the code after it use more, and it runs only where
// dispatch.cpp found that. Standard headers must come before the pragma: their
// inline functions may be shared with code that runs everywhere.
#include "kernels.h"

#if defined(SCAN_X86)

#define SCAN_VARIANT avx2

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <immintrin.h>

#include <cmath>
#include <cstring>
#include <type_traits>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

// clang-format off: each header needs those before it
#include "vec.h"
#include "vec_avx2.h"
#include "kernel_templates.h"
// clang-format on

namespace selective_scan::cpu {

const Variant& avx2_variant() { return avx2::variant_of<avx2::Vec8>("avx2"); }

}  // namespace selective_scan::cpu

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif  // SCAN_X86
