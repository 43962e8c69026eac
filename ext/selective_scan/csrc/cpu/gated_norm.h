// Layer norm of a token, times SiLU of its gate.
#pragma once

namespace selective_scan::cpu::SCAN_VARIANT {

// The sum of f(values) over a token's channels; of four vectors at a time, as
// one sum would wait for itself.
template <typename V, typename F>
SCAN_INLINE float sum_channels(const float* x, int64_t count, const F& f) {
  auto four = SimdTuple<V, 4>::set(0.0f);
  int64_t c = 0;
  for (; c + 4 * V::lanes <= count; c += 4 * V::lanes) {
    four = four + f(SimdTuple<V, 4>::load(x + c));
  }
  V one = (four.first + four.rest.first) +
          (four.rest.rest.first + four.rest.rest.rest.first);
  for (; c + V::lanes <= count; c += V::lanes) one = one + f(V::load(x + c));
  float total = sum(one);
  for (; c < count; ++c) total += sum(f(Vec<float, 1>::set(x[c])));
  return total;
}

template <typename V>
void gated_norm(const GatedNormTask& task, int64_t begin, int64_t end) {
  using L = SimdTuple<V, 1>;
  const float inverse = 1.0f / static_cast<float>(task.channels);
  const L one = L::set(1.0f), zero = L::set(0.0f);
  for (int64_t i = begin; i < end; ++i) {
    const int64_t b = i / task.length, t = i % task.length;
    const float* x = task.x.at(b, t, 0, 0);
    // Distances from one of the values: of values that are all alike or far
    // from 0 a sum would lose what the variance is made of.
    const float first = x[0];
    const float mean =
        inverse * sum_channels<V>(x, task.channels, [&](auto v) {
          return v - decltype(v)::set(first);
        });
    const float variance =
        inverse * sum_channels<V>(x, task.channels, [&](auto v) {
          const auto d =
              v - decltype(v)::set(first) - decltype(v)::set(mean);
          return d * d;
        });
    const L slope = L::set(1.0f / std::sqrt(variance + task.eps));
    for (int64_t c = 0; c < task.channels; c += V::lanes) {
      const int64_t count = std::min<int64_t>(V::lanes, task.channels - c);
      const auto load = [&](const float* from) SCAN_INLINE_BODY {
        return load_line<V, 1>(from, count);
      };
      const L gate = load(task.z.at(b, t, 0, c));
      const L norm = fma((load(x + c) - L::set(first) - L::set(mean)) * slope,
                         load(task.weight + c), load(task.bias + c));
      store_line(norm * gate / (one + exp_of(zero - gate)),
                 task.y.at(b, t, 0, c), count);
    }
  }
}

}  // namespace selective_scan::cpu::SCAN_VARIANT
