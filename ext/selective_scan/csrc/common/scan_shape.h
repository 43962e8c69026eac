// Sizes, strides and index arithmetic of a scan, shared by CPU and CUDA.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define SCAN_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define SCAN_HOST_DEVICE inline
#endif

namespace selective_scan {

constexpr int64_t kMaxState = 256;

// Strides in elements of a (batch, channels, length) tensor.
struct ChannelStrides {
  int64_t batch = 0;
  int64_t channel = 0;
  int64_t token = 0;

  SCAN_HOST_DEVICE int64_t at(int64_t b, int64_t c, int64_t t) const {
    return b * batch + c * channel + t * token;
  }
};

// Strides in elements of a (batch, sets, rows, length) tensor. A set is one
// direction of the bidirectional scan, or one group of the plain one: the
// rows that a run of channels shares.
struct RowStrides {
  int64_t batch = 0;
  int64_t set = 0;
  int64_t row = 0;
  int64_t token = 0;

  SCAN_HOST_DEVICE int64_t at(int64_t b, int64_t s, int64_t r,
                              int64_t t) const {
    return b * batch + s * set + r * row + t * token;
  }
};

// One problem for both operators. The bidirectional scan has groups == 1 and
// rank > 0 (delta is made from rank rows); the plain scan has directions == 1
// and rank == 0 (delta is given).
struct ScanShape {
  int64_t batch = 0;
  int64_t channels = 0;
  int64_t length = 0;
  int64_t state = 0;
  int64_t rank = 0;
  int64_t directions = 1;
  int64_t groups = 1;
  bool softplus = true;
  bool reverse = false;

  SCAN_HOST_DEVICE bool reversed(int64_t direction) const {
    return (direction == 1) != reverse;
  }
  // The token that a direction visits at a given step of its walk.
  SCAN_HOST_DEVICE int64_t token(int64_t direction, int64_t step) const {
    return reversed(direction) ? length - 1 - step : step;
  }
  SCAN_HOST_DEVICE int64_t channels_per_group() const {
    return channels / groups;
  }
  SCAN_HOST_DEVICE int64_t set(int64_t direction, int64_t channel) const {
    return direction * groups + channel / channels_per_group();
  }
  SCAN_HOST_DEVICE int64_t sets() const { return directions * groups; }
  // Index of a channel's entry in the (directions, channels) parameters.
  SCAN_HOST_DEVICE int64_t parameter(int64_t direction,
                                     int64_t channel) const {
    return direction * channels + channel;
  }
};

SCAN_HOST_DEVICE int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

SCAN_HOST_DEVICE int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}

// A run of at most `size` channels, all of one group.
struct ChannelBlock {
  int64_t group = 0;
  int64_t first = 0;
  int64_t width = 0;
};

SCAN_HOST_DEVICE int64_t count_blocks(const ScanShape& shape, int64_t size) {
  return shape.groups * ceil_div(shape.channels_per_group(), size);
}

SCAN_HOST_DEVICE ChannelBlock channel_block(const ScanShape& shape,
                                            int64_t index, int64_t size) {
  const int64_t per_group = ceil_div(shape.channels_per_group(), size);
  const int64_t offset = index % per_group * size;
  ChannelBlock block;
  block.group = index / per_group;
  block.first = block.group * shape.channels_per_group() + offset;
  block.width = smaller(size, shape.channels_per_group() - offset);
  return block;
}

}  // namespace selective_scan
