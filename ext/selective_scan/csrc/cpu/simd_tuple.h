// Vectors side by side as one value, operation by operation. The long
// dependent chains of exp and softplus then run beside each other, more of
// them than a processor would find by looking ahead.
#pragma once

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

// What there is for vectors, for tuples of them.
#define SCAN_EACH_VECTOR(name)                                       \
  template <typename V, int N, typename... More>                     \
  SCAN_INLINE SimdTuple<V, N> name(const SimdTuple<V, N>& a,         \
                                   const More&... more) {            \
    return each_vector(                                              \
        [](auto... v) SCAN_INLINE_BODY { return name(v...); }, a,    \
        more...);                                                    \
  }
SCAN_EACH_VECTOR(operator+)
SCAN_EACH_VECTOR(operator-)
SCAN_EACH_VECTOR(operator*)
SCAN_EACH_VECTOR(operator/)
SCAN_EACH_VECTOR(fma)
SCAN_EACH_VECTOR(larger)
SCAN_EACH_VECTOR(lesser)
SCAN_EACH_VECTOR(if_below)
SCAN_EACH_VECTOR(scale)

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
