// The same with AVX-512 F, DQ, BW and VL for 16 lanes.
#pragma once

#include "vec_avx2.h"

namespace selective_scan::cpu::SCAN_VARIANT {

using Vec16 = Vec<float, 16>;

SCAN_INLINE Vec16 fma(Vec16 a, Vec16 b, Vec16 c) {
  return {_mm512_fmadd_ps(a.v, b.v, c.v)};
}
SCAN_INLINE Vec16 larger(Vec16 a, Vec16 b) { return {_mm512_max_ps(a.v, b.v)}; }
SCAN_INLINE Vec16 lesser(Vec16 a, Vec16 b) { return {_mm512_min_ps(a.v, b.v)}; }
SCAN_INLINE float sum(Vec16 x) {
  return sum(Vec8{_mm512_castps512_ps256(x.v)} +
             Vec8{_mm512_extractf32x8_ps(x.v, 1)});
}

}  // namespace selective_scan::cpu::SCAN_VARIANT
