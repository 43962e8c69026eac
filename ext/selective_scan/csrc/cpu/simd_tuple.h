// A block's channels as one value: all of its vectors, operation by operation.
// The long dependent chains of exp and softplus then run side by side, more
// of them than a processor would find by looking ahead.
#pragma once

#include <cstdint>

namespace selective_scan::cpu::SCAN_VARIANT {

// Nested rather than an array: compilers keep each vector in a register.
template <typename V, int count>
struct Vectors {
  using Scalar = typename V::Scalar;
  using Rest = Vectors<V, count - 1>;
  V first;
  Rest rest;

  SCAN_INLINE static Vectors set(Scalar x) {
    return {V::set(x), Rest::set(x)};
  }
  SCAN_INLINE static Vectors load(const Scalar* p) {
    return {V::load(p), Rest::load(p + V::lanes)};
  }
  SCAN_INLINE void store(Scalar* p) const {
    first.store(p);
    rest.store(p + V::lanes);
  }
};

template <typename V>
struct Vectors<V, 1> {
  using Scalar = typename V::Scalar;
  V first;

  SCAN_INLINE static Vectors set(Scalar x) { return {V::set(x)}; }
  SCAN_INLINE static Vectors load(const Scalar* p) { return {V::load(p)}; }
  SCAN_INLINE void store(Scalar* p) const { first.store(p); }
};

template <typename V, int count>
SCAN_INLINE Vectors<V, count> operator+(const Vectors<V, count>& a,
                                        const Vectors<V, count>& b) {
  if constexpr (count == 1) {
    return {a.first + b.first};
  } else {
    return {a.first + b.first, a.rest + b.rest};
  }
}
template <typename V, int count>
SCAN_INLINE Vectors<V, count> operator-(const Vectors<V, count>& a,
                                        const Vectors<V, count>& b) {
  if constexpr (count == 1) {
    return {a.first - b.first};
  } else {
    return {a.first - b.first, a.rest - b.rest};
  }
}
template <typename V, int count>
SCAN_INLINE Vectors<V, count> operator*(const Vectors<V, count>& a,
                                        const Vectors<V, count>& b) {
  if constexpr (count == 1) {
    return {a.first * b.first};
  } else {
    return {a.first * b.first, a.rest * b.rest};
  }
}
template <typename V, int count>
SCAN_INLINE Vectors<V, count> operator/(const Vectors<V, count>& a,
                                        const Vectors<V, count>& b) {
  if constexpr (count == 1) {
    return {a.first / b.first};
  } else {
    return {a.first / b.first, a.rest / b.rest};
  }
}
// a * b + c
template <typename V, int count>
SCAN_INLINE Vectors<V, count> fma(const Vectors<V, count>& a,
                                  const Vectors<V, count>& b,
                                  const Vectors<V, count>& c) {
  if constexpr (count == 1) {
    return {fma(a.first, b.first, c.first)};
  } else {
    return {fma(a.first, b.first, c.first), fma(a.rest, b.rest, c.rest)};
  }
}
template <typename V, int count>
SCAN_INLINE Vectors<V, count> at_least(typename V::Scalar low,
                                       const Vectors<V, count>& x) {
  if constexpr (count == 1) {
    return {at_least(low, x.first)};
  } else {
    return {at_least(low, x.first), at_least(low, x.rest)};
  }
}
template <typename V, int count>
SCAN_INLINE Vectors<V, count> at_most(typename V::Scalar high,
                                      const Vectors<V, count>& x) {
  if constexpr (count == 1) {
    return {at_most(high, x.first)};
  } else {
    return {at_most(high, x.first), at_most(high, x.rest)};
  }
}
template <typename V, int count>
SCAN_INLINE Vectors<V, count> minus_abs(const Vectors<V, count>& x) {
  if constexpr (count == 1) {
    return {minus_abs(x.first)};
  } else {
    return {minus_abs(x.first), minus_abs(x.rest)};
  }
}
template <typename V, int count>
SCAN_INLINE Vectors<V, count> zero_below(const Vectors<V, count>& x,
                                         typename V::Scalar limit,
                                         const Vectors<V, count>& value) {
  if constexpr (count == 1) {
    return {zero_below(x.first, limit, value.first)};
  } else {
    return {zero_below(x.first, limit, value.first),
            zero_below(x.rest, limit, value.rest)};
  }
}
template <typename V, int count>
SCAN_INLINE Vectors<V, count> if_negative(const Vectors<V, count>& x,
                                          const Vectors<V, count>& a,
                                          const Vectors<V, count>& b) {
  if constexpr (count == 1) {
    return {if_negative(x.first, a.first, b.first)};
  } else {
    return {if_negative(x.first, a.first, b.first),
            if_negative(x.rest, a.rest, b.rest)};
  }
}
template <typename V, int count>
SCAN_INLINE Vectors<V, count> scale(const Vectors<V, count>& p,
                                    const Vectors<V, count>& shifted) {
  if constexpr (count == 1) {
    return {scale(p.first, shifted.first)};
  } else {
    return {scale(p.first, shifted.first), scale(p.rest, shifted.rest)};
  }
}

template <typename V>
using Pack = Vectors<V, kBlock / V::lanes>;

}  // namespace selective_scan::cpu::SCAN_VARIANT
