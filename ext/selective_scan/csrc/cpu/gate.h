// Layer norm of a token, times the activation of its gate.
#pragma once

#include <cmath>
#include <cstdint>

namespace selective_scan::cpu::SCAN_VARIANT {

template <typename V>
void gate(const GateTask& task, int64_t begin, int64_t end) {
  const int64_t n = task.channels, whole = n / V::lanes * V::lanes;
  const float inverse = 1.0f / static_cast<float>(n);
  const V one = V::set(1.0f);
  for (int64_t token = begin; token < end; ++token) {
    const int64_t b = token / task.length, t = token % task.length;
    const float* x = task.x.at(b, t, 0, 0);
    const float* z = task.z.at(b, t, 0, 0);
    float* y = task.y.at(b, t, 0, 0);
    V sums = V::set(0.0f);
    for (int64_t c = 0; c < whole; c += V::lanes) sums = sums + V::load(x + c);
    float sum = sums.sum();
    for (int64_t c = whole; c < n; ++c) sum += x[c];
    const float mean = sum * inverse;
    // The mean is taken off before squaring: sums of squares would cancel.
    V squares = V::set(0.0f);
    for (int64_t c = 0; c < whole; c += V::lanes) {
      const V d = V::load(x + c) - V::set(mean);
      squares = fma(d, d, squares);
    }
    float square = squares.sum();
    for (int64_t c = whole; c < n; ++c) {
      square += (x[c] - mean) * (x[c] - mean);
    }
    const float slope = 1.0f / std::sqrt(square * inverse + task.eps);
    for (int64_t c = 0; c < whole; c += V::lanes) {
      const V norm = fma((V::load(x + c) - V::set(mean)) * V::set(slope),
                         V::load(task.weight + c), V::load(task.bias + c));
      const V g = V::load(z + c);
      (norm * g / (one + exp_of(V::set(0.0f) - g))).store(y + c);
    }
    for (int64_t c = whole; c < n; ++c) {
      const float norm =
          (x[c] - mean) * slope * task.weight[c] + task.bias[c];
      y[c] = norm * z[c] / (1.0f + std::exp(-z[c]));
    }
  }
}

}  // namespace selective_scan::cpu::SCAN_VARIANT
