// The operators around the scan, wavelet_conv2d and gated_layer_norm: operands
// of their kernels, how they are cut into blocks, and their host side.
#pragma once

#include "../common/scan_shape.h"

namespace selective_scan::cuda {

// Blocks that keep a GPU busy: four for each of some 130 multiprocessors.
constexpr int kBusyBlocks = 528;

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
  Map<const T> x, grad;
  Map<T> y;
  const float* weight;  // (4 * channels, side, side)
  float* weight_grad;   // (groups, 4 * channels, side, side)
  int images, channels, height, width;  // in pixels
  int side;
  bool turned;  // filters by 180 degrees

  // Of the plan. Tiles are of nearly the same size.
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
// `room` bytes of shared memory hold: with their border, and the filters or
// the tile of the gradient.
template <typename T>
void plan_wavelet(Wavelet<T>& w, bool gradient, int room) {
  const auto up = [](int a, int b) { return (a + b - 1) / b; };
  const auto grown = [&](int cells, int most) {
    return static_cast<int>(smaller(cells + w.side / 2 * 2, most));
  };
  w.cell_rows = up(w.height, 2);
  w.cell_columns = up(w.width, 2);
  w.channel_blocks = up(w.channels, kTileChannels);
  w.wide = up(w.cell_columns, kTileColumns);
  w.columns = up(w.cell_columns, w.wide);
  for (int most = gradient ? kGradientRows : kTileRows; most > 0; --most) {
    w.tall = up(w.cell_rows, most);
    w.rows = up(w.cell_rows, w.tall);
    w.region = grown(w.rows, w.cell_rows) * grown(w.columns, w.cell_columns);
    const int more = gradient ? w.rows * w.columns : w.side * w.side;
    w.bytes = (w.region + more) * kPitch * static_cast<int>(sizeof(Bands));
    if (w.bytes <= room) break;
  }
  const int64_t tiles = int64_t{w.images} * w.tall * w.wide;
  const int groups = kBusyBlocks / w.channel_blocks;
  w.groups = static_cast<int>(smaller(tiles, groups > 1 ? groups : 1));
  w.blocks = (gradient ? w.groups : tiles) * w.channel_blocks;
  w.threads = 32 * (gradient ? w.side : up(w.rows, 2));
}

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

constexpr int kNormWarps = 8;

template <typename T, typename P>
struct GatedNorm {
  Tokens<const T> x, z, grad;
  Tokens<T> y, x_grad, z_grad;
  const P* weight;
  const P* bias;
  P* partials;  // (blocks, 2, channels): of weight and bias
  P eps;
  int tokens, length, channels;  // tokens of the whole batch
  bool channels_last;

  // Of the plan.
  int tiles;  // of tokens
  int blocks, warps, bytes;
};

// Plans one of the kernels; no blocks where `room` bytes of shared memory are
// too few for sums across warps and, of the gradients of weight and bias, over
// tokens.
template <typename T, typename P>
void plan_gated_norm(GatedNorm<T, P>& n, bool backward, int room) {
  n.blocks = 0;
  for (n.warps = kNormWarps; n.warps > 0; n.warps /= 2) {
    const int across = n.channels_last ? 0 : 32 * n.warps;
    const int rows = !backward ? 0 : n.channels_last ? n.warps : 1;
    const int64_t bytes = sizeof(P) * (across + int64_t{2} * rows * n.channels);
    if (bytes > room) continue;
    n.bytes = static_cast<int>(bytes);
    n.tiles = (n.tokens - 1) / (n.channels_last ? n.warps : 32) + 1;
    n.blocks = backward ? static_cast<int>(smaller(n.tiles, kBusyBlocks))
                        : n.tiles;
    return;
  }
}

template <typename T>
void launch_wavelet(const Wavelet<T>& operands, bool gradient);
template <typename T, typename P>
void launch_gated_norm(const GatedNorm<T, P>& operands, bool backward);

}  // namespace selective_scan::cuda
