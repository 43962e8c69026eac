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
SCAN_INLINE Vec8 half_of(Vec16 x, bool upper) {
  return {upper ? _mm512_extractf32x8_ps(x.v, 1)
                : _mm512_castps512_ps256(x.v)};
}
SCAN_INLINE float sum(Vec16 x) {
  return sum(half_of(x, false) + half_of(x, true));
}

SCAN_INLINE __m256i load_half_words(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}
SCAN_INLINE void widen(const Half* p, Vec16& to) {
  to.v = _mm512_cvtph_ps(load_half_words(p));
}
SCAN_INLINE void widen(const BFloat16* p, Vec16& to) {
  to.v = _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(load_half_words(p)), 16));
}
template <typename T>
SCAN_INLINE void narrow(Vec16 x, T* p) {
  half_of(x, false).store(p);
  half_of(x, true).store(p + 8);
}

}  // namespace selective_scan::cpu::SCAN_VARIANT
