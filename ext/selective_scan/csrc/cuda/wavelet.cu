// wavelet_conv2d on CUDA: Haar transform, depthwise filter of the subbands,
// inverse transform.
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
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>

#include "../common/map_operands.h"
#include "../common/plain_wavelet.h"
#include "gpu.cuh"

namespace selective_scan::cuda {
namespace {

constexpr int kTileChannels = 16;
constexpr int kTileColumns = 8;
constexpr int kTileRows = 16;     // at most, two of them a warp
constexpr int kGradientRows = 8;  // likewise, for the filters' gradient
constexpr int kPitch = kTileChannels + 1;  // spreads cells over the banks

struct alignas(16) Bands {
  float v[4];
};

template <typename T>
struct Wavelet {
  View<const T> x, grad;  // (images, channels, height, width)
  View<T> y;
  const float* weight;                  // (4 * channels, side, side)
  float* weight_grad;                   // (groups, 4 * channels, side, side)
  int images, channels, height, width;  // in pixels
  bool turned;                          // filters by 180 degrees

  // Tiles are of nearly the same size.
  int cell_rows, cell_columns;  // of the map
  int tall, wide;               // tiles of an image
  int rows, columns;            // cells of a tile, at most
  int region;                   // the same with the filter's border
  int channel_blocks;
  int groups;  // of tiles, a block sums over one for the filters' gradient
  int64_t blocks;
  int threads, bytes;
};

// Plans the kernel, or that for the gradient of the filters, with tiles that
// shared memory holds: with their border, and the filters or the tile of the
// gradient.
template <typename T>
Wavelet<T> plan_wavelet(const at::Tensor& x, int side, bool gradient) {
  const auto up = [](int a, int b) { return (a + b - 1) / b; };
  const auto grown = [&](int cells, int most) {
    return std::min(cells + side / 2 * 2, most);
  };
  Wavelet<T> w{};
  w.x = view_of<const T>(x);
  w.images = static_cast<int>(x.size(0));
  w.channels = static_cast<int>(x.size(1));
  w.height = static_cast<int>(x.size(2));
  w.width = static_cast<int>(x.size(3));
  w.cell_rows = up(w.height, 2);
  w.cell_columns = up(w.width, 2);
  w.channel_blocks = up(w.channels, kTileChannels);
  w.wide = up(w.cell_columns, kTileColumns);
  w.columns = up(w.cell_columns, w.wide);
  const int room = shared_memory_of_block();
  for (int most = gradient ? kGradientRows : kTileRows; most > 0; --most) {
    w.tall = up(w.cell_rows, most);
    w.rows = up(w.cell_rows, w.tall);
    w.region = grown(w.rows, w.cell_rows) * grown(w.columns, w.cell_columns);
    const int more = gradient ? w.rows * w.columns : side * side;
    w.bytes = (w.region + more) * kPitch * static_cast<int>(sizeof(Bands));
    if (w.bytes <= room) break;
  }
  const int64_t tiles = int64_t{w.images} * w.tall * w.wide;
  const int groups = std::max(busy_blocks() / w.channel_blocks, 1);
  w.groups = static_cast<int>(smaller(tiles, groups));
  w.blocks = (gradient ? w.groups : tiles) * w.channel_blocks;
  w.threads = 32 * (gradient ? side : up(w.rows, 2));
  return w;
}

// n / divisor for small numbers: n * divisor below 2^24.
struct Divider {
  unsigned factor;
  __device__ explicit Divider(int divisor)
      : factor((1u << 24) / static_cast<unsigned>(divisor) + 1) {}
  __device__ int operator()(int n) const {
    return static_cast<int>(static_cast<unsigned>(n) * factor >> 24);
  }
};

// The transform, and its inverse, each without its factor 1/2: pixels come and
// go as (top left, bottom left, top right, bottom right).
__device__ __forceinline__ Bands haar(const Bands& p, float scale = 1.f) {
  const float low_a = p.v[0] + p.v[1], high_a = p.v[0] - p.v[1];
  const float low_b = p.v[2] + p.v[3], high_b = p.v[2] - p.v[3];
  return {{scale * (low_a + low_b), scale * (high_a + high_b),
           scale * (low_a - low_b), scale * (high_a - high_b)}};
}

__device__ __forceinline__ void add_product(const Bands& a, const Bands& b,
                                            Bands& sum) {
#pragma unroll
  for (int k = 0; k < 4; ++k) sum.v[k] += a.v[k] * b.v[k];
}

// The pixels of a cell, zeros outside the map.
template <typename T>
__device__ __forceinline__ Bands load_cell(const View<const T>& map,
                                           const T* at, bool right,
                                           bool below) {
  Bands p = {{0.0f, 0.0f, 0.0f, 0.0f}};
  const auto load_row = [&](const T* from, int row) {
    if (map.paired) {
      const float2 two = unpack(*reinterpret_cast<const Two<T>*>(from));
      p.v[row] = two.x;
      p.v[row + 2] = two.y;
    } else {
      p.v[row] = static_cast<float>(from[0]);
      if (right) p.v[row + 2] = static_cast<float>(from[map.strides[2]]);
    }
  };
  load_row(at, 0);
  if (below) load_row(at + map.strides[1], 1);
  return p;
}

template <typename T>
__device__ __forceinline__ void store_cell(const View<T>& map, T* at,
                                           const Bands& p, bool right,
                                           bool below) {
  const auto store_row = [&](T* to, int row) {
    if (map.paired) {
      *reinterpret_cast<Two<T>*>(to) =
          pack<T>(make_float2(p.v[row], p.v[row + 2]));
    } else {
      *to = static_cast<T>(p.v[row]);
      if (right) to[map.strides[2]] = static_cast<T>(p.v[row + 2]);
    }
  };
  store_row(at, 0);
  if (below) store_row(at + map.strides[1], 1);
}

// A rectangle of cells.
struct Region {
  int top, left, rows, columns;
};

// A tile of one image and block of channels, and the part of the map that its
// results depend on.
template <typename T, int side>
struct Tile {
  const Wavelet<T>& task;
  Region own, around;
  int image, first, channels;

  __device__ Tile(const Wavelet<T>& task, int block, int index) : task(task) {
    image = index / (task.tall * task.wide);
    first = block * kTileChannels;
    channels = min(kTileChannels, task.channels - first);
    const int top = index / task.wide % task.tall * task.rows;
    const int left = index % task.wide * task.columns;
    const int bottom = min(top + task.rows, task.cell_rows);
    const int right = min(left + task.columns, task.cell_columns);
    own = {top, left, bottom - top, right - left};
    const int above = top - min(side / 2, top);
    const int before = left - min(side / 2, left);
    around = {above, before, min(bottom + side / 2, task.cell_rows) - above,
              min(right + side / 2, task.cell_columns) - before};
  }

  // Calls use(cell, channel, place in the map, right, below) for each cell,
  // lanes in memory's order; the last two say whether the map goes on there.
  template <typename V, typename Use>
  __device__ __forceinline__ void visit(const Region& region,
                                        const View<V>& map,
                                        const Use& use) const {
    const int cells = region.rows * region.columns;
    const Divider by_cells(cells), by_columns(region.columns);
    const bool pixels_first = map.strides[0] != 1 || map.strides[2] == 1;
    V* const base = map.data + image * map.batch;
    for (int i = threadIdx.x; i < cells * kTileChannels; i += blockDim.x) {
      int c = i % kTileChannels, cell = i / kTileChannels;
      if (pixels_first) {
        c = by_cells(i);
        cell = i - c * cells;
      }
      if (c >= channels) continue;
      const int row = by_columns(cell), column = cell - row * region.columns;
      const int y = 2 * (region.top + row), x = 2 * (region.left + column);
      use(cell, c, base + map.offset(first + c, y, x), x + 1 < task.width,
          y + 1 < task.height);
    }
  }

  // Subbands of one of the regions of a map.
  __device__ __forceinline__ void load(const Region& region,
                                       const View<const T>& map,
                                       Bands* bands) const {
    visit(region, map,
          [&](int cell, int c, const T* at, bool right, bool below) {
            bands[cell * kPitch + c] = haar(load_cell(map, at, right, below));
          });
  }

  // Calls use(q, j, value) for the values that tap j of a row of the filter
  // has at cell q of a row of the tile.
  template <typename Use>
  __device__ __forceinline__ void meet(const Bands* bands, int c, int row,
                                       int tap_row, const Use& use) const {
    const int from = own.top + row + tap_row - side / 2 - around.top;
    if (from < 0 || from >= around.rows) return;
    const Bands* line = bands + from * around.columns * kPitch + c;
    const int skipped = own.left - around.left - side / 2;
#pragma unroll
    for (int p = 0; p < kTileColumns + side - 1; ++p) {
      const int column = p + skipped;
      if (column < 0 || column >= around.columns) continue;
      const Bands value = line[column * kPitch];
#pragma unroll
      for (int j = 0; j < side; ++j) {
        const int q = p - j;
        if (q >= 0 && q < kTileColumns) use(q, j, value);
      }
    }
  }
};

template <typename T, int side>
__global__ void __launch_bounds__(kTileRows * 16, 2)
    wavelet(const SCAN_GRID_CONSTANT Wavelet<T> task) {
  constexpr int taps = side * side;
  SCAN_SHARED_MEMORY(Bands, bands);
  const int tiles = task.tall * task.wide;
  const int block = static_cast<int>(blockIdx.x) / tiles;
  const int index = static_cast<int>(blockIdx.x) % tiles;
  const Tile<T, side> tile(task, block % task.channel_blocks,
                           block / task.channel_blocks * tiles + index);
  const Region& own = tile.own;
  Bands* filters = bands + tile.around.rows * tile.around.columns * kPitch;
  const float* weight = task.weight + tile.first * 4 * taps;
  for (int i = threadIdx.x; i < tile.channels * 4 * taps; i += blockDim.x) {
    const int row = i / taps, tap = i - row * taps;
    Bands* to = filters + (task.turned ? taps - 1 - tap : tap) * kPitch;
    to[row / 4].v[row % 4] = weight[i];
  }
  tile.load(tile.around, task.x, bands);
  __syncthreads();

  const int c = threadIdx.x % kTileChannels;
  const int row = threadIdx.x / kTileChannels;
  const bool active = row < own.rows && c < tile.channels;
  Bands sums[kTileColumns] = {};
  if (active) {
#pragma unroll 1
    for (int i = 0; i < side; ++i) {
      Bands w[side];
#pragma unroll
      for (int j = 0; j < side; ++j) {
        w[j] = filters[(i * side + j) * kPitch + c];
      }
      tile.meet(bands, c, row, i, [&](int q, int j, const Bands& value) {
        add_product(w[j], value, sums[q]);
      });
    }
  }
  __syncthreads();
  if (active) {
#pragma unroll
    for (int q = 0; q < kTileColumns; ++q) {
      if (q >= own.columns) continue;
      bands[(row * own.columns + q) * kPitch + c] = haar(sums[q], 0.25f);
    }
  }
  __syncthreads();
  tile.visit(
      own, task.y, [&](int cell, int channel, T* at, bool right, bool below) {
        store_cell(task.y, at, bands[cell * kPitch + channel], right, below);
      });
}

// A warp has a row of taps, its halves the even and the odd rows of a tile.
template <typename T, int side>
__global__ void __launch_bounds__(side * 32)
    wavelet_gradient(const SCAN_GRID_CONSTANT Wavelet<T> task) {
  SCAN_SHARED_MEMORY(Bands, bands);
  const int block = static_cast<int>(blockIdx.x) % task.channel_blocks;
  const int group = static_cast<int>(blockIdx.x) / task.channel_blocks;
  const int c = threadIdx.x % kTileChannels, tap_row = threadIdx.x / 32;
  const int odd = threadIdx.x / kTileChannels % 2;
  Bands* grads = bands + task.region * kPitch;
  Bands sums[side] = {};
  const int tiles = task.images * task.tall * task.wide;
  for (int index = group; index < tiles; index += task.groups) {
    const Tile<T, side> tile(task, block, index);
    const Region& own = tile.own;
    tile.load(tile.around, task.x, bands);
    tile.load(own, task.grad, grads);
    __syncthreads();
#pragma unroll 1
    for (int row = odd; row < own.rows; row += 2) {
      if (c >= tile.channels) continue;
      Bands g[kTileColumns];
#pragma unroll
      for (int q = 0; q < kTileColumns; ++q) {
        g[q] = {};
        if (q < own.columns) {
          g[q] = grads[(row * own.columns + q) * kPitch + c];
        }
      }
      tile.meet(bands, c, row, tap_row, [&](int q, int j, const Bands& value) {
        add_product(g[q], value, sums[j]);
      });
    }
    __syncthreads();
  }
  const int channel = block * kTileChannels + c;
  float* to =
      task.weight_grad +
      ((static_cast<int64_t>(group) * task.channels + channel) * 4 * side +
       tap_row) *
          side;
#pragma unroll
  for (int j = 0; j < side; ++j) {
#pragma unroll
    for (int b = 0; b < 4; ++b) {
      const float sum =
          sums[j].v[b] + __shfl_xor_sync(kWholeWarp, sums[j].v[b], 16, 32);
      if (odd == 0 && channel < task.channels) {
        to[b * side * side + j] = 0.25f * sum;
      }
    }
  }
}

// Calls use(side) with a constant; false for other sides.
template <typename Use>
bool with_side(int64_t side, const Use& use) {
  if (side == 3) return use(std::integral_constant<int, 3>());
  if (side == 5) return use(std::integral_constant<int, 5>());
  return side == 7 && use(std::integral_constant<int, 7>());
}

// The filtered map or, where there is a gradient of it, those of x and weight.
std::tuple<at::Tensor, at::Tensor> run(const OptionalTensor& grad,
                                       const at::Tensor& x,
                                       const at::Tensor& weight) {
  check_wavelet(x, weight);
  const bool backward = grad.has_value();
  if (backward) check_alike("grad", *grad, x);
  const c10::cuda::CUDAGuard guard(x.device());
  auto y = empty_like_map(x);
  if (x.numel() == 0) return {y, at::zeros(weight.sizes(), weight.options())};
  const auto map = with_short_offsets(backward ? *grad : x);
  const auto filters = weight.contiguous();
  at::Tensor sums;
  const auto launch_side = [&](auto constant) {
    constexpr int kSide = decltype(constant)::value;
    SCAN_DISPATCH_FLOAT(x, [&] {
      auto w = plan_wavelet<scalar_t>(map, kSide, false);
      w.y = view_of<scalar_t>(y);
      w.weight = filters.const_data_ptr<float>();
      w.turned = backward;
      launch<wavelet<scalar_t, kSide>>(w.blocks, w.threads, w.bytes, w);
      if (!backward) return;
      const auto input = with_short_offsets(x);
      w = plan_wavelet<scalar_t>(input, kSide, true);
      w.grad = view_of<const scalar_t>(map);
      sums = at::empty({w.groups, w.channels * 4, 1, kSide, kSide},
                       weight.options());
      w.weight_grad = sums.mutable_data_ptr<float>();
      launch<wavelet_gradient<scalar_t, kSide>>(w.blocks, w.threads, w.bytes,
                                                w);
    });
    return true;
  };
  if (x.scalar_type() != at::kDouble &&
      with_side(weight.size(2), launch_side)) {
    return {y, backward ? sums.sum(0) : sums};
  }
  if (!backward) return {y.copy_(plain_wavelet(x, weight)), {}};
  return {y.copy_(plain_wavelet(*grad, weight.flip({2, 3}))),
          plain_wavelet_gradient(*grad, x, weight)};
}

}  // namespace

TORCH_LIBRARY_IMPL(selective_scan, CUDA, m) {
  m.impl("wavelet_conv2d", &Operator<run>::forward);
  m.impl("wavelet_conv2d_backward", &Operator<run>::backward);
}

}  // namespace selective_scan::cuda
