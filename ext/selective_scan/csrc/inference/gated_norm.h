// Layer norm of a token, times the activation of its gate.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

namespace selective_scan::cpu::SCAN_VARIANT {

// The sum of what `add` puts into vectors of channels, from the first on; of
// four at a time, as one sum would wait for itself.
template <typename V, typename Add>
SCAN_INLINE float sum_channels(int64_t count, const Add& add) {
  SimdTuple<V, 4> four = SimdTuple<V, 4>::set(0.0f);
  int64_t c = 0;
  for (; c + 4 * V::lanes <= count; c += 4 * V::lanes) add(four, c);
  SimdTuple<V, 1> one = {(four.first + four.rest.first) +
                       (four.rest.rest.first + four.rest.rest.rest.first)};
  for (; c + V::lanes <= count; c += V::lanes) add(one, c);
  return sum(one.first);
}

template <typename V>
void gated_norm(const GatedNormTask& task, int64_t begin, int64_t end) {
  const int64_t n = task.channels, whole = n / V::lanes * V::lanes;
  const float inverse = 1.0f / static_cast<float>(n);
  const V one = V::set(1.0f);
  for (int64_t token = begin; token < end; ++token) {
    const int64_t b = token / task.length, t = token % task.length;
    const float* x = task.x.at(b, t, 0, 0);
    const float* z = task.z.at(b, t, 0, 0);
    float* y = task.y.at(b, t, 0, 0);
    // Distances from one of the values: of values that are all alike or far
    // from 0 a sum would lose what the variance is made of.
    const float first = n > 0 ? x[0] : 0.0f;
    float sum = sum_channels<V>(whole, [&](auto& s, int64_t c) {
      using L = std::decay_t<decltype(s)>;
      s = s + (L::load(x + c) - L::set(first));
    });
    for (int64_t c = whole; c < n; ++c) sum += x[c] - first;
    const float mean = sum * inverse;
    // The mean is taken off before squaring: sums of squares would cancel.
    float square = sum_channels<V>(whole, [&](auto& s, int64_t c) {
      using L = std::decay_t<decltype(s)>;
      const L d = L::load(x + c) - L::set(first) - L::set(mean);
      s = fma(d, d, s);
    });
    for (int64_t c = whole; c < n; ++c) {
      const float d = x[c] - first - mean;
      square += d * d;
    }
    const float slope = 1.0f / std::sqrt(square * inverse + task.eps);
    for (int64_t c = 0; c < whole; c += V::lanes) {
      const V d = V::load(x + c) - V::set(first) - V::set(mean);
      const V norm = fma(d * V::set(slope), V::load(task.weight + c),
                         V::load(task.bias + c));
      const V g = V::load(z + c);
      (norm * g / (one + exp_of(V::set(0.0f) - g))).store(y + c);
    }
    for (int64_t c = whole; c < n; ++c) {
      const float norm =
          (x[c] - first - mean) * slope * task.weight[c] + task.bias[c];
      y[c] = norm * z[c] / (1.0f + std::exp(-z[c]));
    }
  }
}

}  // namespace selective_scan::cpu::SCAN_VARIANT
