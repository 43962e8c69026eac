// Sixteen float32 lanes with AVX-512 F, DQ, BW and VL.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace selective_scan::cpu::SCAN_VARIANT {

struct Vec16 {
  using Scalar = float;
  static constexpr int lanes = 16;
  __m512 v;

  SCAN_INLINE static Vec16 set(float x) { return {_mm512_set1_ps(x)}; }
  SCAN_INLINE static Vec16 load(const float* p) {
    return {_mm512_loadu_ps(p)};
  }
  SCAN_INLINE static Vec16 load(const Half* p) {
    return {_mm512_cvtph_ps(
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
  }
  SCAN_INLINE static Vec16 load(const BFloat16* p) {
    const __m256i bits =
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return {_mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
  }
  SCAN_INLINE void store(float* p) const { _mm512_storeu_ps(p, v); }
  SCAN_INLINE void store(Half* p) const {
    _mm256_storeu_si256(
        reinterpret_cast<__m256i*>(p),
        _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  SCAN_INLINE void store(BFloat16* p) const {
    const __m512i bits = _mm512_castps_si512(v);
    const __m512i odd =
        _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_srli_epi32(
        _mm512_add_epi32(bits,
                         _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))),
        16);
    rounded =
        _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q),
                              _mm512_set1_epi32(0x7fc0));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtepi32_epi16(rounded));
  }
  SCAN_INLINE float sum() const {
    const __m256 eight =
        _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    return Vec8{eight}.sum();
  }
};

SCAN_INLINE Vec16 operator+(Vec16 a, Vec16 b) {
  return {_mm512_add_ps(a.v, b.v)};
}
SCAN_INLINE Vec16 operator-(Vec16 a, Vec16 b) {
  return {_mm512_sub_ps(a.v, b.v)};
}
SCAN_INLINE Vec16 operator*(Vec16 a, Vec16 b) {
  return {_mm512_mul_ps(a.v, b.v)};
}
SCAN_INLINE Vec16 operator/(Vec16 a, Vec16 b) {
  return {_mm512_div_ps(a.v, b.v)};
}
SCAN_INLINE Vec16 fma(Vec16 a, Vec16 b, Vec16 c) {
  return {_mm512_fmadd_ps(a.v, b.v, c.v)};
}
// maxps and minps return their second operand where one is NaN.
SCAN_INLINE Vec16 at_least(float low, Vec16 x) {
  return {_mm512_max_ps(_mm512_set1_ps(low), x.v)};
}
SCAN_INLINE Vec16 at_most(float high, Vec16 x) {
  return {_mm512_min_ps(_mm512_set1_ps(high), x.v)};
}
SCAN_INLINE Vec16 minus_abs(Vec16 x) {
  return {_mm512_or_ps(x.v, _mm512_set1_ps(-0.0f))};
}
SCAN_INLINE Vec16 zero_below(Vec16 x, float limit, Vec16 value) {
  const __mmask16 keep =
      _mm512_cmp_ps_mask(x.v, _mm512_set1_ps(limit), _CMP_NLT_UQ);
  return {_mm512_maskz_mov_ps(keep, value.v)};
}
SCAN_INLINE Vec16 if_negative(Vec16 x, Vec16 a, Vec16 b) {
  return {_mm512_mask_blend_ps(_mm512_movepi32_mask(_mm512_castps_si512(x.v)),
                               b.v, a.v)};
}
SCAN_INLINE Vec16 scale(Vec16 p, Vec16 shifted) {
  return {_mm512_castsi512_ps(_mm512_add_epi32(
      _mm512_castps_si512(p.v),
      _mm512_slli_epi32(_mm512_castps_si512(shifted.v), 23)))};
}

}  // namespace selective_scan::cpu::SCAN_VARIANT
