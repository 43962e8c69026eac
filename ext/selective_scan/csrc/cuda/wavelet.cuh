// Haar transform, depthwise filter of the subbands, inverse transform.
//
// A block has 16 channels of one image and a tile of cells of 2 x 2 pixels,
// at most 8 wide. Pixels become subbands in shared memory, the four of a cell
// side by side, with a border of half a filter that ends where the map does.
// Half a warp takes the 16 channels of a row of the tile: a value that it
// loads serves up to 8 results, which stay in registers until all have read
// and are then inverted and written through the same memory.
//
// The transform is orthonormal, so that its adjoint is its inverse: the
// gradient of x is the same kernel with the filters turned by 180 degrees.
// That of the filters correlates the subbands of x and of the gradient.
#pragma once

#include "around.h"
#include "gpu.cuh"

namespace selective_scan::cuda {

// n / divisor for small numbers: n * divisor below 2^24.
struct Divider {
  unsigned factor;
  __device__ explicit Divider(int divisor)
      : factor((1u << 24) / static_cast<unsigned>(divisor) + 1) {}
  __device__ int operator()(int n) const {
    return static_cast<int>(static_cast<unsigned>(n) * factor >> 24);
  }
};

// The transform, and its inverse, without the factor 1/2: pixels come and go
// as (top left, bottom left, top right, bottom right).
__device__ __forceinline__ Bands haar(const Bands& p) {
  const float low_a = p.v[0] + p.v[1], high_a = p.v[0] - p.v[1];
  const float low_b = p.v[2] + p.v[3], high_b = p.v[2] - p.v[3];
  return {{low_a + low_b, high_a + high_b, low_a - low_b, high_a - high_b}};
}

template <typename T>
struct alignas(2 * sizeof(T)) Two {
  T left, right;
};

// The pixels of a cell, zeros outside the map.
template <typename T>
__device__ __forceinline__ Bands load_cell(const Map<const T>& map,
                                              const T* at, bool right,
                                              bool below) {
  Bands p = {{0.0f, 0.0f, 0.0f, 0.0f}};
  if (map.paired) {
    const auto top = *reinterpret_cast<const Two<T>*>(at);
    p.v[0] = static_cast<float>(top.left);
    p.v[2] = static_cast<float>(top.right);
    if (below) {
      const auto next = *reinterpret_cast<const Two<T>*>(at + map.row);
      p.v[1] = static_cast<float>(next.left);
      p.v[3] = static_cast<float>(next.right);
    }
    return p;
  }
  p.v[0] = static_cast<float>(at[0]);
  if (below) p.v[1] = static_cast<float>(at[map.row]);
  if (right) p.v[2] = static_cast<float>(at[map.column]);
  if (right && below) p.v[3] = static_cast<float>(at[map.row + map.column]);
  return p;
}

template <typename T>
__device__ __forceinline__ void store_cell(const Map<T>& map, T* at,
                                           const Bands& p, bool right,
                                           bool below) {
  if (map.paired) {
    *reinterpret_cast<Two<T>*>(at) = {static_cast<T>(p.v[0]),
                                      static_cast<T>(p.v[2])};
    if (below) {
      *reinterpret_cast<Two<T>*>(at + map.row) = {static_cast<T>(p.v[1]),
                                                  static_cast<T>(p.v[3])};
    }
    return;
  }
  at[0] = static_cast<T>(p.v[0]);
  if (below) at[map.row] = static_cast<T>(p.v[1]);
  if (right) at[map.column] = static_cast<T>(p.v[2]);
  if (right && below) at[map.row + map.column] = static_cast<T>(p.v[3]);
}

// A rectangle of cells of one image and block of channels.
struct Region {
  int top, left, rows, columns, first, channels;

  // Calls use(cell, channel, row, column) for each, lanes in memory's order.
  template <typename Use>
  __device__ __forceinline__ void visit(bool pixels_first,
                                        const Use& use) const {
    const int cells = rows * columns;
    const Divider by_cells(cells), by_columns(columns);
    const int count = cells * kTileChannels;
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
      int c = i % kTileChannels, cell = i / kTileChannels;
      if (pixels_first) {
        c = by_cells(i);
        cell = i - c * cells;
      }
      const int row = by_columns(cell);
      if (c < channels) use(cell, c, top + row, left + cell - row * columns);
    }
  }
};

// Subbands of a region of a map.
template <typename T>
__device__ __forceinline__ void load_bands(const Wavelet<T>& task,
                                           const Map<const T>& map, int image,
                                           const Region& region,
                                           Bands* bands) {
  const T* base = map.data + image * map.image;
  region.visit(map.pixels_first,
               [&](int cell, int c, int row, int column) {
                 const T* at = base + (region.first + c) * map.channel +
                               2 * row * map.row + 2 * column * map.column;
                 bands[cell * kPitch + c] = haar(
                     load_cell(map, at, 2 * column + 1 < task.width,
                                  2 * row + 1 < task.height));
               });
}

// A tile, and the part of the map that its results depend on.
struct Place {
  Region tile, around;
  int image;

  template <typename T>
  __device__ Place(const Wavelet<T>& task, int block, int index, int border) {
    image = index / (task.tall * task.wide);
    const int first = block * kTileChannels;
    const int channels = min(kTileChannels, task.channels - first);
    const int top = index / task.wide % task.tall * task.rows;
    const int left = index % task.wide * task.columns;
    const int bottom = min(top + task.rows, task.cell_rows);
    const int right = min(left + task.columns, task.cell_columns);
    tile = {top, left, bottom - top, right - left, first, channels};
    const int above = top - min(border, top);
    const int before = left - min(border, left);
    around = {above,
              before,
              min(bottom + border, task.cell_rows) - above,
              min(right + border, task.cell_columns) - before,
              first,
              channels};
  }
};

template <typename T, int side>
__global__ void __launch_bounds__(kTileRows * 16, 2)
    wavelet(const SCAN_GRID_CONSTANT Wavelet<T> task) {
  constexpr int half = side / 2, taps = side * side;
  SCAN_SHARED_MEMORY(Bands, bands);
  const int tiles = task.tall * task.wide;
  const int block = static_cast<int>(blockIdx.x) / tiles;
  const int tile = static_cast<int>(blockIdx.x) % tiles;
  const Place place(task, block % task.channel_blocks,
                    block / task.channel_blocks * tiles + tile, half);
  const Region& own = place.tile;
  const Region& around = place.around;
  Bands* filters = bands + around.rows * around.columns * kPitch;
  const float* weight = task.weight + own.first * 4 * taps;
  for (int i = threadIdx.x; i < own.channels * 4 * taps;
       i += blockDim.x) {
    const int row = i / taps, tap = i - row * taps;
    Bands* to = filters + (task.turned ? taps - 1 - tap : tap) * kPitch;
    to[row / 4].v[row % 4] = weight[i];
  }
  load_bands(task, task.x, place.image, around, bands);
  __syncthreads();

  const int c = threadIdx.x % kTileChannels;
  const int row = threadIdx.x / kTileChannels;
  Bands sums[kTileColumns] = {};
  // The region's cell that the first tap of the first result reads.
  const int skipped = own.left - around.left - half;
  if (row < own.rows && c < own.channels) {
#pragma unroll 1
    for (int i = 0; i < side; ++i) {
      const int from = own.top + row + i - half - around.top;
      if (from < 0 || from >= around.rows) continue;
      Bands w[side];
#pragma unroll
      for (int j = 0; j < side; ++j) {
        w[j] = filters[(i * side + j) * kPitch + c];
      }
      const Bands* line = bands + from * around.columns * kPitch + c;
#pragma unroll
      for (int p = 0; p < kTileColumns + side - 1; ++p) {
        const int column = p + skipped;
        if (column < 0 || column >= around.columns) continue;
        const Bands value = line[column * kPitch];
#pragma unroll
        for (int j = 0; j < side; ++j) {
          const int q = p - j;
          if (q < 0 || q >= kTileColumns) continue;
#pragma unroll
          for (int b = 0; b < 4; ++b) sums[q].v[b] += w[j].v[b] * value.v[b];
        }
      }
    }
  }
  __syncthreads();
  if (row < own.rows && c < own.channels) {
#pragma unroll
    for (int q = 0; q < kTileColumns; ++q) {
      if (q >= own.columns) continue;
#pragma unroll
      for (int b = 0; b < 4; ++b) sums[q].v[b] *= 0.25f;
      bands[(row * own.columns + q) * kPitch + c] = haar(sums[q]);
    }
  }
  __syncthreads();
  const Map<T>& y = task.y;
  T* base = y.data + place.image * y.image;
  own.visit(y.pixels_first,
            [&](int cell, int channel, int i, int j) {
              T* at = base + (own.first + channel) * y.channel +
                      2 * i * y.row + 2 * j * y.column;
              store_cell(y, at, bands[cell * kPitch + channel],
                         2 * j + 1 < task.width, 2 * i + 1 < task.height);
            });
}

// A warp has a row of taps, its halves the even and the odd rows of a tile.
template <typename T, int side>
__global__ void __launch_bounds__(side * 32)
    wavelet_gradient(const SCAN_GRID_CONSTANT Wavelet<T> task) {
  constexpr int half = side / 2;
  SCAN_SHARED_MEMORY(Bands, bands);
  const int block = static_cast<int>(blockIdx.x) % task.channel_blocks;
  const int group = static_cast<int>(blockIdx.x) / task.channel_blocks;
  const int c = threadIdx.x % kTileChannels, tap_row = threadIdx.x / 32;
  const int odd = threadIdx.x / kTileChannels % 2;
  Bands* grads = bands + task.region * kPitch;
  Bands sums[side] = {};
  const int tiles = task.images * task.tall * task.wide;
  for (int index = group; index < tiles; index += task.groups) {
    const Place place(task, block, index, half);
    const Region& own = place.tile;
    const Region& around = place.around;
    load_bands(task, task.x, place.image, around, bands);
    load_bands(task, task.grad, place.image, own, grads);
    __syncthreads();
    const int skipped = own.left - around.left - half;
#pragma unroll 1
    for (int row = odd; row < own.rows; row += 2) {
      const int from = own.top + row + tap_row - half - around.top;
      if (from < 0 || from >= around.rows || c >= own.channels) continue;
      Bands g[kTileColumns];
#pragma unroll
      for (int q = 0; q < kTileColumns; ++q) {
        g[q] = {};
        if (q < own.columns) {
          g[q] = grads[(row * own.columns + q) * kPitch + c];
        }
      }
      const Bands* line = bands + from * around.columns * kPitch + c;
#pragma unroll
      for (int p = 0; p < kTileColumns + side - 1; ++p) {
        const int column = p + skipped;
        if (column < 0 || column >= around.columns) continue;
        const Bands value = line[column * kPitch];
#pragma unroll
        for (int j = 0; j < side; ++j) {
          const int q = p - j;
          if (q < 0 || q >= kTileColumns) continue;
#pragma unroll
          for (int b = 0; b < 4; ++b) sums[j].v[b] += g[q].v[b] * value.v[b];
        }
      }
    }
    __syncthreads();
  }
  const int channel = block * kTileChannels + c;
  float* to = task.weight_grad +
          ((static_cast<int64_t>(group) * task.channels + channel) * 4 * side +
           tap_row) *
              side;
#pragma unroll
  for (int j = 0; j < side; ++j) {
#pragma unroll
    for (int b = 0; b < 4; ++b) {
      const float sum = sums[j].v[b] +
                    __shfl_xor_sync(kWholeWarp, sums[j].v[b], 16, 32);
      if (odd == 0 && channel < task.channels) {
        to[b * side * side + j] = 0.25f * sum;
      }
    }
  }
}

}  // namespace selective_scan::cuda
