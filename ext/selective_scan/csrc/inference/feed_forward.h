// Two products, with what is between them kept in the cache.
#pragma once

#include <cstdint>

namespace selective_scan::cpu::SCAN_VARIANT {

template <typename V>
void feed_forward(const ConvTask& first, const ConvTask& second, Range rows) {
  const int64_t channels = first.channels, hidden = first.outputs;
  float* values = scratch_floats(pointer_floats(2) + kProductRows * hidden);
  auto** in = reinterpret_cast<const float**>(values);
  auto** between = in + kProductRows;
  values += pointer_floats(2);
  const int64_t count = rows.end - rows.begin;
  for (int64_t i = 0; i < count; ++i) {
    in[i] = first.x.data + (rows.begin + i) * channels;
    between[i] = values + i * hidden;
  }
  Result result = result_of(first, 0);
  result.y = values;
  multiply<V>({in, count, 1, channels}, first.weight, {0, blocks_of(hidden)},
              result);
  multiply<V>({between, count, 1, hidden}, second.weight,
              {0, blocks_of(second.outputs)}, result_of(second, rows.begin));
}

}  // namespace selective_scan::cpu::SCAN_VARIANT
