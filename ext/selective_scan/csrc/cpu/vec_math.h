// exp, softplus and its slope, for a vector or a tuple of them.
#pragma once

namespace selective_scan::cpu::SCAN_VARIANT {

template <typename V>
constexpr bool kIsDouble = std::is_same_v<typename V::Scalar, double>;

// A polynomial in x, its highest coefficient first.
template <typename V, typename... Rest>
SCAN_INLINE V polynomial(V x, V value, Rest... rest) {
  ((value = fma(value, x, V::set(rest))), ...);
  return value;
}

// e^x for x <= 88.7, about 1e-7 relative; `low` keeps the exponent in range.
template <typename V>
SCAN_INLINE V exp_within(V x, float low) {
  // Adding 1.5 * 2^23 leaves the nearest integer in the low bits.
  const V magic = V::set(12582912.0f);
  const V bound = larger(V::set(low), x);
  const V shifted = fma(bound, V::set(1.44269504f), magic);
  const V n = shifted - magic;
  // ln 2 in two parts, so that n * ln 2 loses nothing.
  V r = fma(n, V::set(-0.693359375f), bound);
  r = fma(n, V::set(2.12194440e-4f), r);
  const V p = polynomial(r, V::set(1.3836742e-3f), 8.3748987e-3f,
                         4.16682325e-2f, 1.66664198e-1f, 4.9999991e-1f, 1.0f,
                         1.0f);
  return scale(p, shifted);
}

// f of each lane, for float64; no use in inlining what calls the C library.
template <typename V, typename F>
V each_lane(V x, const F& f) {
  constexpr int count = sizeof(V) / sizeof(double);
  alignas(64) double lanes[count];
  x.store(lanes);
  for (double& lane : lanes) lane = f(lane);
  return V::load(lanes);
}

// e^x; 0 below float's normal range, float's largest values above it.
template <typename V>
SCAN_INLINE V exp_of(V x) {
  if constexpr (kIsDouble<V>) {
    return each_lane(x, [](double lane) { return std::exp(lane); });
  } else {
    const float low = -87.33f;
    const V zero = V::set(0);
    return if_below(x, V::set(low), zero,
                    exp_within(lesser(V::set(88.72f), x), low));
  }
}

// log(1 + e^x); `slope`, where wanted, becomes its derivative.
template <typename V>
SCAN_INLINE V softplus_of(V x, V* slope = nullptr) {
  using S = typename V::Scalar;
  const V zero = V::set(0);
  V e, ratio;  // log(1 + e) / e for 0 <= e <= 1
  if constexpr (kIsDouble<V>) {
    e = exp_of(lesser(x, zero - x));
    ratio = each_lane(e, [](double lane) {
      return lane > 0 ? std::log1p(lane) / lane : 1.0;
    });
  } else {
    e = exp_within(lesser(x, zero - x), -87.33f);
    ratio = polynomial(e, V::set(5.2326899e-3f), -2.9505219e-2f,
                       7.8225918e-2f, -1.36632427e-1f, 1.9106005e-1f,
                       -2.4842982e-1f, 3.33190978e-1f, -4.99994934e-1f,
                       0.99999994f);
  }
  if (slope != nullptr) {
    const V s = V::set(S(1)) / (V::set(S(1)) + e);
    *slope = if_below(x, zero, e * s, s);
  }
  return fma(e, ratio, larger(zero, x));
}

}  // namespace selective_scan::cpu::SCAN_VARIANT
