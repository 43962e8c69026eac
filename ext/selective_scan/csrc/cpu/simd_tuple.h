// Vectors side by side as one value, operation by operation. The long
// dependent chains of exp and softplus then run beside each other, more of
// them than a processor would find by looking ahead.
#pragma once

#include <cstdint>

namespace selective_scan::cpu::SCAN_VARIANT {

// Nested rather than an array: compilers keep each vector in a register.
template <typename V, int N>
struct SimdTuple {
  using Scalar = typename V::Scalar;
  using Rest = SimdTuple<V, N - 1>;
  V first;
  Rest rest;

  SCAN_INLINE static SimdTuple set(Scalar x) {
    return {V::set(x), Rest::set(x)};
  }
  SCAN_INLINE static SimdTuple load(const Scalar* p) {
    return {V::load(p), Rest::load(p + V::lanes)};
  }
  SCAN_INLINE void store(Scalar* p) const {
    first.store(p);
    rest.store(p + V::lanes);
  }
};

template <typename V>
struct SimdTuple<V, 1> {
  using Scalar = typename V::Scalar;
  V first;

  SCAN_INLINE static SimdTuple set(Scalar x) { return {V::set(x)}; }
  SCAN_INLINE static SimdTuple load(const Scalar* p) { return {V::load(p)}; }
  SCAN_INLINE void store(Scalar* p) const { first.store(p); }
};

// f of the first vectors, of the second ones and so on.
template <typename V, int N, typename F, typename... More>
SCAN_INLINE SimdTuple<V, N> each_vector(const F& f, const SimdTuple<V, N>& a,
                                        const More&... more) {
  if constexpr (N == 1) {
    return {f(a.first, more.first...)};
  } else {
    return {f(a.first, more.first...),
            each_vector(f, a.rest, more.rest...)};
  }
}

#define SCAN_TUPLE template <typename V, int N> SCAN_INLINE SimdTuple<V, N>

SCAN_TUPLE operator+(const SimdTuple<V, N>& a, const SimdTuple<V, N>& b) {
  return each_vector([](V x, V y) SCAN_INLINE_BODY { return x + y; }, a, b);
}
SCAN_TUPLE operator-(const SimdTuple<V, N>& a, const SimdTuple<V, N>& b) {
  return each_vector([](V x, V y) SCAN_INLINE_BODY { return x - y; }, a, b);
}
SCAN_TUPLE operator*(const SimdTuple<V, N>& a, const SimdTuple<V, N>& b) {
  return each_vector([](V x, V y) SCAN_INLINE_BODY { return x * y; }, a, b);
}
SCAN_TUPLE operator/(const SimdTuple<V, N>& a, const SimdTuple<V, N>& b) {
  return each_vector([](V x, V y) SCAN_INLINE_BODY { return x / y; }, a, b);
}
// a * b + c
SCAN_TUPLE fma(const SimdTuple<V, N>& a, const SimdTuple<V, N>& b,
               const SimdTuple<V, N>& c) {
  return each_vector(
      [](V x, V y, V z) SCAN_INLINE_BODY { return fma(x, y, z); }, a, b, c);
}
SCAN_TUPLE at_least(typename V::Scalar low, const SimdTuple<V, N>& a) {
  return each_vector(
      [low](V x) SCAN_INLINE_BODY { return at_least(low, x); }, a);
}
SCAN_TUPLE at_most(typename V::Scalar high, const SimdTuple<V, N>& a) {
  return each_vector(
      [high](V x) SCAN_INLINE_BODY { return at_most(high, x); }, a);
}
SCAN_TUPLE minus_abs(const SimdTuple<V, N>& a) {
  return each_vector([](V x) SCAN_INLINE_BODY { return minus_abs(x); }, a);
}
SCAN_TUPLE zero_below(const SimdTuple<V, N>& a, typename V::Scalar limit,
                      const SimdTuple<V, N>& b) {
  return each_vector(
      [limit](V x, V y) SCAN_INLINE_BODY { return zero_below(x, limit, y); },
      a, b);
}
SCAN_TUPLE if_negative(const SimdTuple<V, N>& a, const SimdTuple<V, N>& b,
                       const SimdTuple<V, N>& c) {
  return each_vector(
      [](V x, V y, V z) SCAN_INLINE_BODY { return if_negative(x, y, z); }, a,
      b, c);
}
SCAN_TUPLE scale(const SimdTuple<V, N>& a, const SimdTuple<V, N>& b) {
  return each_vector([](V x, V y) SCAN_INLINE_BODY { return scale(x, y); }, a,
                     b);
}

// A number that the compiler knows, as an argument.
template <int I>
struct Index {
  static constexpr int value = I;
};

// Call f with 0 to N - 1. A loop would be unrolled too late, or not at all, for
// the compiler to keep an array in registers from one loop inside to the next.
template <int N, int I = 0, typename F>
SCAN_INLINE void each(const F& f) {
  if constexpr (I < N) {
    f(Index<I>{});
    each<N, I + 1>(f);
  }
}

// A block's channels as one value.
template <typename V>
using BlockTuple = SimdTuple<V, kBlock / V::lanes>;

}  // namespace selective_scan::cpu::SCAN_VARIANT
