// Operands of the kernels around the scan, for host and device code, and
// their host side.
#pragma once

#include <cstdint>

#include "../common/scan_shape.h"

namespace selective_scan::cuda {

// A map of any strides. Offsets within an image need no more than 32 bits.
template <typename T>
struct Map {
  T* data = nullptr;
  int64_t image = 0;
  int channel = 0, row = 0, column = 0;
  bool pixels_first = false;  // neighbouring lanes take pixels, not channels
  bool paired = false;        // two pixels of a row may be taken as one
};

// A map (images, channels, height, width) from its four strides.
template <typename T>
Map<T> map_of(T* data, const int64_t* strides, int64_t width) {
  Map<T> map;
  map.data = data;
  map.image = strides[0];
  map.channel = static_cast<int>(strides[1]);
  map.row = static_cast<int>(strides[2]);
  map.column = static_cast<int>(strides[3]);
  map.pixels_first = map.channel != 1 || map.column == 1;
  const bool even = width % 2 == 0 && map.image % 2 == 0 &&
                    map.channel % 2 == 0 && map.row % 2 == 0;
  map.paired = map.column == 1 && even &&
               reinterpret_cast<uintptr_t>(data) % (2 * sizeof(T)) == 0;
  return map;
}

template <typename T, typename P>
struct WaveletTask {
  Map<const T> x, grad;
  Map<T> y;
  const P* weight = nullptr;  // (4 * channels, side, side)
  P* weight_grad = nullptr;   // (groups, 4 * channels, side, side)
  int images = 0, channels = 0, height = 0, width = 0;  // in pixels
  int side = 0;
  bool turned = false;  // filters by 180 degrees
  int tile_rows = 0;    // of cells, at most
  int groups = 1;       // of tiles, a block sums over one

  SCAN_HOST_DEVICE int cell_rows() const { return (height + 1) / 2; }
  SCAN_HOST_DEVICE int cell_columns() const { return (width + 1) / 2; }
};

// (batch, channels, length) of any strides.
template <typename T>
struct Tokens {
  T* data = nullptr;
  int64_t batch = 0, token = 0;
  int channel = 0;

  SCAN_HOST_DEVICE T* at(int b, int t) const {
    return data + b * batch + t * token;
  }
};

template <typename T, typename P>
struct NormTask {
  Tokens<const T> x, z, grad;
  Tokens<T> y, x_grad, z_grad;
  const P* weight = nullptr;
  const P* bias = nullptr;
  P* partials = nullptr;  // (blocks, 2, channels): of weight and bias
  P eps = 0;
  int tokens = 0, length = 0, channels = 0;  // tokens of the whole batch
  bool channels_last = false;
  int warps = 0, blocks = 0;

  SCAN_HOST_DEVICE int tiles() const {
    return (tokens - 1) / (channels_last ? warps : 32) + 1;
  }
};

// The shape of a launch.
struct Launch {
  int64_t blocks = 0;
  int threads = 0;
  int bytes = 0;  // of shared memory
};

// Blocks that keep a GPU busy: four for each of some 130 multiprocessors.
constexpr int64_t kBusyBlocks = 528;

// Sums of the columns of a matrix (rows, columns); those from `split` on go
// elsewhere.
template <typename P>
struct SumTask {
  const P* from = nullptr;
  P* to = nullptr;
  P* rest = nullptr;
  int rows = 0, columns = 0, split = 0;
};

#if defined(__CUDACC__) || defined(CUDART_VERSION)

// Sets tile_rows and, for the gradient of the filters, groups.
template <typename T>
cudaError_t plan_wavelet(WaveletTask<T, float>& task, bool gradient);
template <typename T>
cudaError_t launch_wavelet(const WaveletTask<T, float>& task, bool gradient,
                           cudaStream_t stream);

// Sets warps and blocks; no blocks where there are too many channels.
template <typename T, typename P>
cudaError_t plan_gated_norm(NormTask<T, P>& task, bool backward);
template <typename T, typename P>
cudaError_t launch_gated_norm(const NormTask<T, P>& task, bool backward,
                              cudaStream_t stream);

template <typename P>
cudaError_t launch_sum(const SumTask<P>& task, cudaStream_t stream);

#endif

}  // namespace selective_scan::cuda
