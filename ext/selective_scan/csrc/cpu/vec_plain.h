// Vectors as plain arrays: any processor, any compiler; also float64.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

// A call would pass vectors through memory, at many times the cost. With
// sanitizers it may: their checks, inlined, take minutes to compile.
// SCAN_INLINE_BODY does the same for a lambda, after its arguments.
#if defined(__SANITIZE_ADDRESS__)
#define SCAN_INLINE inline
#define SCAN_INLINE_BODY
#elif defined(_MSC_VER)
#define SCAN_INLINE __forceinline
#define SCAN_INLINE_BODY
#else
#define SCAN_INLINE inline __attribute__((always_inline))
#define SCAN_INLINE_BODY __attribute__((always_inline))
#endif

namespace selective_scan::cpu::SCAN_VARIANT {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

inline float bits_to_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}
inline uint32_t float_to_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

inline float widen(float x) { return x; }
inline double widen(double x) { return x; }
inline float widen(BFloat16 x) {
  return bits_to_float(static_cast<uint32_t>(x.bits) << 16);
}
inline float widen(Half x) {
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16;
  const uint32_t rest = x.bits & 0x7fffu;
  if (rest < 0x0400u) {  // zero and subnormals, exact in float32
    return bits_to_float(sign |
                         float_to_bits(static_cast<float>(rest) * 0x1p-24f));
  }
  const uint32_t rebias = rest >= 0x7c00u ? 0x70000000u : 0x38000000u;
  return bits_to_float(sign | ((rest << 13) + rebias));
}

inline void narrow(float x, float* out) { *out = x; }
inline void narrow(double x, double* out) { *out = x; }
inline void narrow(float x, BFloat16* out) {
  const uint32_t bits = float_to_bits(x);
  const uint32_t nearest_even = 0x7fffu + ((bits >> 16) & 1u);
  out->bits = x != x ? uint16_t{0x7fc0}
                     : static_cast<uint16_t>((bits + nearest_even) >> 16);
}
inline void narrow(float x, Half* out) {
  const uint32_t bits = float_to_bits(x);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u;
  } else if (magnitude >= 0x477ff000u) {  // rounds beyond 65504
    half = 0x7c00u;
  } else if (magnitude < 0x38800000u) {
    // Adding 0.5 leaves the subnormal's bits, rounded to nearest even.
    half = float_to_bits(bits_to_float(magnitude) + 0.5f) - 0x3f000000u;
  } else {
    const uint32_t nearest_even = 0xfffu + ((magnitude >> 13) & 1u);
    half = (magnitude - 0x38000000u + nearest_even) >> 13;
  }
  out->bits = static_cast<uint16_t>(sign | half);
}

template <typename S>
struct PlainVec {
  using Scalar = S;
  static constexpr int lanes = 8;
  S v[lanes];

  static PlainVec set(S x) {
    PlainVec r;
    for (int i = 0; i < lanes; ++i) r.v[i] = x;
    return r;
  }
  template <typename T>
  static PlainVec load(const T* p) {
    PlainVec r;
    for (int i = 0; i < lanes; ++i) r.v[i] = widen(p[i]);
    return r;
  }
  template <typename T>
  void store(T* p) const {
    for (int i = 0; i < lanes; ++i) narrow(v[i], p + i);
  }
  S sum() const {
    return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
  }
};

#define SCAN_PLAIN_OPERATOR(op)                                             \
  template <typename S>                                                     \
  SCAN_INLINE PlainVec<S> operator op(const PlainVec<S>& a,                 \
                                      const PlainVec<S>& b) {               \
    PlainVec<S> r;                                                          \
    for (int i = 0; i < PlainVec<S>::lanes; ++i) r.v[i] = a.v[i] op b.v[i]; \
    return r;                                                               \
  }
SCAN_PLAIN_OPERATOR(+)
SCAN_PLAIN_OPERATOR(-)
SCAN_PLAIN_OPERATOR(*)
SCAN_PLAIN_OPERATOR(/)
#undef SCAN_PLAIN_OPERATOR

// a * b + c
template <typename S>
SCAN_INLINE PlainVec<S> fma(const PlainVec<S>& a, const PlainVec<S>& b,
                            const PlainVec<S>& c) {
  PlainVec<S> r;
  for (int i = 0; i < PlainVec<S>::lanes; ++i)
    r.v[i] = a.v[i] * b.v[i] + c.v[i];
  return r;
}
// Lane-wise bounds; NaN in x stays NaN.
template <typename S>
SCAN_INLINE PlainVec<S> at_least(S low, const PlainVec<S>& x) {
  PlainVec<S> r;
  for (int i = 0; i < PlainVec<S>::lanes; ++i)
    r.v[i] = low > x.v[i] ? low : x.v[i];
  return r;
}
template <typename S>
SCAN_INLINE PlainVec<S> at_most(S high, const PlainVec<S>& x) {
  PlainVec<S> r;
  for (int i = 0; i < PlainVec<S>::lanes; ++i)
    r.v[i] = high < x.v[i] ? high : x.v[i];
  return r;
}
template <typename S>
SCAN_INLINE PlainVec<S> minus_abs(const PlainVec<S>& x) {
  PlainVec<S> r;
  for (int i = 0; i < PlainVec<S>::lanes; ++i) r.v[i] = -std::fabs(x.v[i]);
  return r;
}
// x < limit ? 0 : value
template <typename S>
SCAN_INLINE PlainVec<S> zero_below(const PlainVec<S>& x, S limit,
                                   const PlainVec<S>& value) {
  PlainVec<S> r;
  for (int i = 0; i < PlainVec<S>::lanes; ++i)
    r.v[i] = x.v[i] < limit ? S(0) : value.v[i];
  return r;
}
// x < 0 ? a : b
template <typename S>
SCAN_INLINE PlainVec<S> if_negative(const PlainVec<S>& x, const PlainVec<S>& a,
                                    const PlainVec<S>& b) {
  PlainVec<S> r;
  for (int i = 0; i < PlainVec<S>::lanes; ++i)
    r.v[i] = x.v[i] < S(0) ? a.v[i] : b.v[i];
  return r;
}
// p * 2^n, n in the low bits of `shifted`
SCAN_INLINE PlainVec<float> scale(const PlainVec<float>& p,
                                  const PlainVec<float>& shifted) {
  PlainVec<float> r;
  for (int i = 0; i < PlainVec<float>::lanes; ++i) {
    r.v[i] = bits_to_float(float_to_bits(p.v[i]) +
                           (float_to_bits(shifted.v[i]) << 23));
  }
  return r;
}

// dst[t][c] = src[c][t] for 8 x 8 elements
template <typename S>
void transpose8(const S* src, int64_t src_stride, S* dst, int64_t dst_stride) {
  for (int c = 0; c < 8; ++c) {
    for (int t = 0; t < 8; ++t) {
      dst[t * dst_stride + c] = src[c * src_stride + t];
    }
  }
}

}  // namespace selective_scan::cpu::SCAN_VARIANT
