// Sizes of a scan and index arithmetic, shared by CPU and CUDA.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define SCAN_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define SCAN_HOST_DEVICE inline
#endif

namespace selective_scan {

constexpr int64_t kMaxState = 256;

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

  bool reversed(int64_t direction) const {
    return (direction == 1) != reverse;
  }
  // Directions of the bidirectional scan or groups of the plain one: what has
  // rows dt, B, C of its own.
  int64_t sets() const { return directions * groups; }
};

SCAN_HOST_DEVICE int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

SCAN_HOST_DEVICE int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}

}  // namespace selective_scan
