// exp, softplus and its slope on vectors.
#pragma once

#include <cmath>

namespace selective_scan::cpu::SCAN_VARIANT {

// e^x for x <= 88.7, about 1e-7 relative; `low` keeps the exponent in range.
template <typename V>
SCAN_INLINE V exp_within(V x, float low) {
  // Adding 1.5 * 2^23 leaves the nearest integer in the low bits.
  const V magic = V::set(12582912.0f);
  const V shifted = fma(at_least(low, x), V::set(1.44269504f), magic);
  const V n = shifted - magic;
  // ln 2 in two parts, so that n * ln 2 loses nothing.
  V r = fma(n, V::set(-0.693359375f), at_least(low, x));
  r = fma(n, V::set(2.12194440e-4f), r);
  V p = V::set(1.3836742e-3f);
  p = fma(p, r, V::set(8.3748987e-3f));
  p = fma(p, r, V::set(4.16682325e-2f));
  p = fma(p, r, V::set(1.66664198e-1f));
  p = fma(p, r, V::set(4.9999991e-1f));
  p = fma(p, r, V::set(1.0f));
  p = fma(p, r, V::set(1.0f));
  return scale(p, shifted);
}

// e^x; 0 below float's normal range, float's largest values above it.
template <typename V>
SCAN_INLINE V exp_of(V x) {
  const float low = -87.33f;
  return zero_below(x, low, exp_within(at_most(88.72f, x), low));
}

// log(1 + t) / t for 0 <= t <= 1, 3e-8 relative.
template <typename V>
SCAN_INLINE V log1p_ratio(V t) {
  V p = V::set(5.2326899e-3f);
  p = fma(p, t, V::set(-2.9505219e-2f));
  p = fma(p, t, V::set(7.8225918e-2f));
  p = fma(p, t, V::set(-1.36632427e-1f));
  p = fma(p, t, V::set(1.9106005e-1f));
  p = fma(p, t, V::set(-2.4842982e-1f));
  p = fma(p, t, V::set(3.33190978e-1f));
  p = fma(p, t, V::set(-4.99994934e-1f));
  return fma(p, t, V::set(0.99999994f));
}

// log(1 + e^x); `slope`, where wanted, becomes its derivative.
template <typename V>
SCAN_INLINE V softplus_of(V x, V* slope = nullptr) {
  const V e = exp_within(minus_abs(x), -87.33f);
  if (slope != nullptr) {
    const V s = V::set(1.0f) / (V::set(1.0f) + e);
    *slope = if_negative(x, e * s, s);
  }
  return fma(e, log1p_ratio(e), at_least(0.0f, x));
}

SCAN_INLINE PlainVec<double> exp_of(PlainVec<double> x) {
  for (double& lane : x.v) lane = std::exp(lane);
  return x;
}

SCAN_INLINE PlainVec<double> softplus_of(PlainVec<double> x,
                                         PlainVec<double>* slope = nullptr) {
  PlainVec<double> result;
  for (int i = 0; i < PlainVec<double>::lanes; ++i) {
    const double e = std::exp(-std::fabs(x.v[i]));
    result.v[i] = (x.v[i] > 0 ? x.v[i] : 0.0) + std::log1p(e);
    if (x.v[i] != x.v[i]) result.v[i] = x.v[i];
    if (slope != nullptr) slope->v[i] = (x.v[i] < 0 ? e : 1.0) / (1.0 + e);
  }
  return result;
}

template <int count>
SCAN_INLINE Vectors<PlainVec<double>, count> exp_of(
    const Vectors<PlainVec<double>, count>& x) {
  if constexpr (count == 1) {
    return {exp_of(x.first)};
  } else {
    return {exp_of(x.first), exp_of(x.rest)};
  }
}

template <int count>
SCAN_INLINE Vectors<PlainVec<double>, count> softplus_of(
    const Vectors<PlainVec<double>, count>& x,
    Vectors<PlainVec<double>, count>* slope = nullptr) {
  auto* first = slope != nullptr ? &slope->first : nullptr;
  if constexpr (count == 1) {
    return {softplus_of(x.first, first)};
  } else {
    auto* rest = slope != nullptr ? &slope->rest : nullptr;
    return {softplus_of(x.first, first), softplus_of(x.rest, rest)};
  }
}

}  // namespace selective_scan::cpu::SCAN_VARIANT
