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

struct Moments {
  float first, mean, slope;  // mean of the distances from `first`
};

template <typename V>
SCAN_INLINE Moments moments(const float* x, int64_t n, float eps) {
  const int64_t whole = n / V::lanes * V::lanes;
  const float inverse = 1.0f / static_cast<float>(n);
  // Distances from one of the values: of values that are all alike or far
  // from 0 a sum would lose what the variance is made of.
  const float first = x[0];
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
  return {first, mean, 1.0f / std::sqrt(square * inverse + eps)};
}

// Call use(channel, count, distances from the mean, gates, their sigmoids) for
// a token's vectors of channels, the last one filled up.
template <typename V, typename Use>
SCAN_INLINE void visit_channels(const GatedNormTask& task, const float* x,
                                const float* z, const Moments& stats,
                                const Use& use) {
  using L = SimdTuple<V, 1>;
  const L one = L::set(1.0f), zero = L::set(0.0f);
  const L first = L::set(stats.first), mean = L::set(stats.mean);
  for (int64_t c = 0; c < task.channels; c += V::lanes) {
    const int64_t count = smaller(V::lanes, task.channels - c);
    const L gate = load_line<V, 1>(z + c, count);
    use(c, count, load_line<V, 1>(x + c, count) - first - mean, gate,
        one / (one + exp_of(zero - gate)));
  }
}

template <typename V>
void gated_norm(const GatedNormTask& task, int64_t begin, int64_t end) {
  using L = SimdTuple<V, 1>;
  for (int64_t token = begin; token < end; ++token) {
    const int64_t b = token / task.length, t = token % task.length;
    const float* x = task.x.at(b, t, 0, 0);
    float* y = task.y.at(b, t, 0, 0);
    const Moments stats = moments<V>(x, task.channels, task.eps);
    const L slope = L::set(stats.slope);
    visit_channels<V>(
        task, x, task.z.at(b, t, 0, 0), stats,
        [&](int64_t c, int64_t count, const L& d, const L& gate,
            const L& sigmoid) SCAN_INLINE_BODY {
          const L norm = fma(d * slope, load_line<V, 1>(task.weight + c, count),
                             load_line<V, 1>(task.bias + c, count));
          store_line<V, 1>(norm * gate * sigmoid, y + c, count);
        });
  }
}

}  // namespace selective_scan::cpu::SCAN_VARIANT
