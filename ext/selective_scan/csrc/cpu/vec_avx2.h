// Eight float32 lanes with AVX2, FMA and F16C.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace selective_scan::cpu::SCAN_VARIANT {

struct Vec8 {
  using Scalar = float;
  static constexpr int lanes = 8;
  __m256 v;

  SCAN_INLINE static Vec8 set(float x) { return {_mm256_set1_ps(x)}; }
  SCAN_INLINE static Vec8 load(const float* p) { return {_mm256_loadu_ps(p)}; }
  SCAN_INLINE static Vec8 load(const Half* p) {
    return {
        _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
  }
  SCAN_INLINE static Vec8 load(const BFloat16* p) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16))};
  }
  SCAN_INLINE void store(float* p) const { _mm256_storeu_ps(p, v); }
  SCAN_INLINE void store(Half* p) const {
    _mm_storeu_si128(
        reinterpret_cast<__m128i*>(p),
        _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  SCAN_INLINE void store(BFloat16* p) const {
    const __m256i bits = _mm256_castps_si256(v);
    const __m256i odd =
        _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i rounded = _mm256_srli_epi32(
        _mm256_add_epi32(bits,
                         _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))),
        16);
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    rounded = _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc0), nan);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm_packus_epi32(_mm256_castsi256_si128(rounded),
                                      _mm256_extracti128_si256(rounded, 1)));
  }
  SCAN_INLINE float sum() const {
    const __m128 half =
        _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)));
  }
};

SCAN_INLINE Vec8 operator+(Vec8 a, Vec8 b) {
  return {_mm256_add_ps(a.v, b.v)};
}
SCAN_INLINE Vec8 operator-(Vec8 a, Vec8 b) {
  return {_mm256_sub_ps(a.v, b.v)};
}
SCAN_INLINE Vec8 operator*(Vec8 a, Vec8 b) {
  return {_mm256_mul_ps(a.v, b.v)};
}
SCAN_INLINE Vec8 operator/(Vec8 a, Vec8 b) {
  return {_mm256_div_ps(a.v, b.v)};
}
SCAN_INLINE Vec8 fma(Vec8 a, Vec8 b, Vec8 c) {
  return {_mm256_fmadd_ps(a.v, b.v, c.v)};
}
// maxps and minps return their second operand where one is NaN.
SCAN_INLINE Vec8 at_least(float low, Vec8 x) {
  return {_mm256_max_ps(_mm256_set1_ps(low), x.v)};
}
SCAN_INLINE Vec8 at_most(float high, Vec8 x) {
  return {_mm256_min_ps(_mm256_set1_ps(high), x.v)};
}
SCAN_INLINE Vec8 minus_abs(Vec8 x) {
  return {_mm256_or_ps(x.v, _mm256_set1_ps(-0.0f))};
}
SCAN_INLINE Vec8 zero_below(Vec8 x, float limit, Vec8 value) {
  const __m256 keep = _mm256_cmp_ps(x.v, _mm256_set1_ps(limit), _CMP_NLT_UQ);
  return {_mm256_and_ps(keep, value.v)};
}
SCAN_INLINE Vec8 if_negative(Vec8 x, Vec8 a, Vec8 b) {
  return {_mm256_blendv_ps(b.v, a.v, x.v)};
}
SCAN_INLINE Vec8 scale(Vec8 p, Vec8 shifted) {
  return {_mm256_castsi256_ps(_mm256_add_epi32(
      _mm256_castps_si256(p.v),
      _mm256_slli_epi32(_mm256_castps_si256(shifted.v), 23)))};
}

SCAN_INLINE void transpose8(const float* src, int64_t src_stride, float* dst,
                            int64_t dst_stride) {
  // Halves of rows 0..3 beside those of rows 4..7, then 4 x 4 in each lane.
  __m256 r[8];
  for (int i = 0; i < 4; ++i) {
    for (int half = 0; half < 2; ++half) {
      const float* low = src + i * src_stride + 4 * half;
      const float* high = low + 4 * src_stride;
      r[i + 4 * half] = _mm256_insertf128_ps(
          _mm256_castps128_ps256(_mm_loadu_ps(low)), _mm_loadu_ps(high), 1);
    }
  }
  for (int half = 0; half < 2; ++half) {
    const __m256* q = r + 4 * half;
    const __m256 a = _mm256_unpacklo_ps(q[0], q[1]);
    const __m256 b = _mm256_unpackhi_ps(q[0], q[1]);
    const __m256 c = _mm256_unpacklo_ps(q[2], q[3]);
    const __m256 d = _mm256_unpackhi_ps(q[2], q[3]);
    float* out = dst + 4 * half * dst_stride;
    _mm256_storeu_ps(out, _mm256_shuffle_ps(a, c, 0x44));
    _mm256_storeu_ps(out + dst_stride, _mm256_shuffle_ps(a, c, 0xee));
    _mm256_storeu_ps(out + 2 * dst_stride, _mm256_shuffle_ps(b, d, 0x44));
    _mm256_storeu_ps(out + 3 * dst_stride, _mm256_shuffle_ps(b, d, 0xee));
  }
}

}  // namespace selective_scan::cpu::SCAN_VARIANT
