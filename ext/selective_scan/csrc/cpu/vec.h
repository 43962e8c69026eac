// Vectors of N lanes, as the compiler's own vector types: any processor, and
// float64 too. vec_avx2.h and vec_avx512.h add what their compilers do not find.
#pragma once

#include "kernels.h"

// A call would pass vectors through memory, at many times the cost. With
// sanitizers it may: their checks, inlined, take minutes to compile.
// SCAN_INLINE_BODY does the same for a lambda, after its arguments.
#if defined(__SANITIZE_ADDRESS__)
#define SCAN_INLINE inline
#define SCAN_INLINE_BODY
#else
#define SCAN_INLINE inline __attribute__((always_inline))
#define SCAN_INLINE_BODY __attribute__((always_inline))
#endif

namespace selective_scan::cpu::SCAN_VARIANT {

template <typename S, int N>
struct Vec {
  using Scalar = S;
  static constexpr int lanes = N;
  using Bits = std::conditional_t<sizeof(S) == 4, uint32_t, uint64_t>;
  typedef S Lanes __attribute__((vector_size(N * sizeof(S))));
  typedef Bits Words __attribute__((vector_size(N * sizeof(S))));
  typedef S Memory __attribute__((vector_size(N * sizeof(S)),
                                  aligned(sizeof(S)), may_alias));
  Lanes v;

  SCAN_INLINE static Vec set(S x) { return {x - Lanes{}}; }
  SCAN_INLINE static Vec load(const S* p) {
    return {*reinterpret_cast<const Memory*>(p)};
  }
  SCAN_INLINE void store(S* p) const { *reinterpret_cast<Memory*>(p) = v; }
  SCAN_INLINE Words words() const { return reinterpret_cast<Words>(v); }
};

#define SCAN_VECTOR template <typename S, int N> SCAN_INLINE

SCAN_VECTOR Vec<S, N> operator+(Vec<S, N> a, Vec<S, N> b) {
  return {a.v + b.v};
}
SCAN_VECTOR Vec<S, N> operator-(Vec<S, N> a, Vec<S, N> b) {
  return {a.v - b.v};
}
SCAN_VECTOR Vec<S, N> operator*(Vec<S, N> a, Vec<S, N> b) {
  return {a.v * b.v};
}
SCAN_VECTOR Vec<S, N> operator/(Vec<S, N> a, Vec<S, N> b) {
  return {a.v / b.v};
}
// a * b + c
SCAN_VECTOR Vec<S, N> fma(Vec<S, N> a, Vec<S, N> b, Vec<S, N> c) {
  return {a.v * b.v + c.v};
}
// The larger and the smaller one, b where one is NaN.
SCAN_VECTOR Vec<S, N> larger(Vec<S, N> a, Vec<S, N> b) {
  return {a.v > b.v ? a.v : b.v};
}
SCAN_VECTOR Vec<S, N> lesser(Vec<S, N> a, Vec<S, N> b) {
  return {a.v < b.v ? a.v : b.v};
}
// x < y ? a : b
SCAN_VECTOR Vec<S, N> if_below(Vec<S, N> x, Vec<S, N> y, Vec<S, N> a,
                               Vec<S, N> b) {
  return {x.v < y.v ? a.v : b.v};
}
// p * 2^n, n in the low bits of `shifted`
SCAN_VECTOR Vec<S, N> scale(Vec<S, N> p, Vec<S, N> shifted) {
  return {reinterpret_cast<typename Vec<S, N>::Lanes>(
      p.words() + (shifted.words() << 23))};
}
SCAN_VECTOR S sum(Vec<S, N> x) {
  for (int half = N / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) x.v[i] += x.v[i + half];
  }
  return x.v[0];
}

// dst[t][c] = src[c][t] for 8 x 8 elements
template <typename S>
inline void transpose8(const S* src, int64_t src_stride, S* dst,
                       int64_t dst_stride) {
  for (int c = 0; c < 8; ++c) {
    for (int t = 0; t < 8; ++t) {
      dst[t * dst_stride + c] = src[c * src_stride + t];
    }
  }
}

}  // namespace selective_scan::cpu::SCAN_VARIANT
