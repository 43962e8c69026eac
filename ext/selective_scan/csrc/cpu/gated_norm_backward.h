// The gradients of a token's layer norm times the activation of its gate.
#pragma once

#include <cstdint>

namespace selective_scan::cpu::SCAN_VARIANT {

template <typename V>
void gated_norm_backward(const GatedNormTask& task,
                         const GatedNormGradients& grads, int64_t begin,
                         int64_t end) {
  using L = SimdTuple<V, 1>;
  const L one = L::set(1.0f);
  for (int64_t token = begin; token < end; ++token) {
    const int64_t b = token / task.length, t = token % task.length;
    const float* x = task.x.at(b, t, 0, 0);
    const float* z = task.z.at(b, t, 0, 0);
    const float* g = grads.y.at(b, t, 0, 0);
    float* x_grad = grads.x.at(b, t, 0, 0);
    float* z_grad = grads.z.at(b, t, 0, 0);
    const Moments stats = moments<V>(x, task.channels, task.eps);
    const float inverse = 1.0f / static_cast<float>(task.channels);
    // Sums of the norm's gradients, and of their products with distances.
    L plain = L::set(0.0f), cross = L::set(0.0f);
    visit_channels<V>(
        task, x, z, stats,
        [&](int64_t c, int64_t count, const L& d, const L& gate,
            const L& sigmoid) SCAN_INLINE_BODY {
          const L n = load_line<V, 1>(g + c, count) * gate * sigmoid *
                      load_line<V, 1>(task.weight + c, count);
          plain = plain + n;
          cross = fma(n, d, cross);
        });
    const L slope = L::set(stats.slope);
    const L mean = L::set(sum(plain.first) * inverse);
    const L along =
        L::set(sum(cross.first) * inverse * stats.slope * stats.slope);
    visit_channels<V>(
        task, x, z, stats,
        [&](int64_t c, int64_t count, const L& d, const L& gate,
            const L& sigmoid) SCAN_INLINE_BODY {
          const L weight = load_line<V, 1>(task.weight + c, count);
          const L bias = load_line<V, 1>(task.bias + c, count);
          const L grad = load_line<V, 1>(g + c, count);
          const L by_gate = grad * gate * sigmoid, norm = d * slope;
          store_line<V, 1>(slope * (by_gate * weight - mean - d * along),
                           x_grad + c, count);
          store_line<V, 1>(grad * fma(norm, weight, bias) * sigmoid *
                               fma(gate, one - sigmoid, one),
                           z_grad + c, count);
          fma(by_gate, norm, L::load(grads.weight + c))
              .store(grads.weight + c);
          (L::load(grads.bias + c) + by_gate).store(grads.bias + c);
        });
  }
}

}  // namespace selective_scan::cpu::SCAN_VARIANT
