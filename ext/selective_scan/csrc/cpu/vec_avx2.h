// What compilers do not make of generic vectors of 8 float32 lanes with AVX2
// and FMA.
#pragma once

#include "vec.h"

namespace selective_scan::cpu::SCAN_VARIANT {

using Vec8 = Vec<float, 8>;

SCAN_INLINE Vec8 fma(Vec8 a, Vec8 b, Vec8 c) {
  return {_mm256_fmadd_ps(a.v, b.v, c.v)};
}
SCAN_INLINE Vec8 larger(Vec8 a, Vec8 b) { return {_mm256_max_ps(a.v, b.v)}; }
SCAN_INLINE Vec8 lesser(Vec8 a, Vec8 b) { return {_mm256_min_ps(a.v, b.v)}; }
SCAN_INLINE float sum(Vec8 x) {
  const __m128 half =
      _mm_add_ps(_mm256_castps256_ps128(x.v), _mm256_extractf128_ps(x.v, 1));
  const __m128 pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)));
}

SCAN_INLINE void transpose8(const float* src, int64_t src_stride, float* dst,
                            int64_t dst_stride) {
  // Halves of rows 0..3 beside those of rows 4..7, then 4 x 4 in each lane.
  for (int half = 0; half < 2; ++half) {
    const auto rows = [&](int i) SCAN_INLINE_BODY {
      const float* low = src + i * src_stride + 4 * half;
      const float* high = low + 4 * src_stride;
      return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(low)),
                                  _mm_loadu_ps(high), 1);
    };
    const __m256 r0 = rows(0), r1 = rows(1), r2 = rows(2), r3 = rows(3);
    const __m256 a = _mm256_unpacklo_ps(r0, r1);
    const __m256 b = _mm256_unpackhi_ps(r0, r1);
    const __m256 c = _mm256_unpacklo_ps(r2, r3);
    const __m256 d = _mm256_unpackhi_ps(r2, r3);
    float* out = dst + 4 * half * dst_stride;
    _mm256_storeu_ps(out, _mm256_shuffle_ps(a, c, 0x44));
    _mm256_storeu_ps(out + dst_stride, _mm256_shuffle_ps(a, c, 0xee));
    _mm256_storeu_ps(out + 2 * dst_stride, _mm256_shuffle_ps(b, d, 0x44));
    _mm256_storeu_ps(out + 3 * dst_stride, _mm256_shuffle_ps(b, d, 0xee));
  }
}

}  // namespace selective_scan::cpu::SCAN_VARIANT
