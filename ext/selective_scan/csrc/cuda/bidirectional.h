// The bidirectional scan with one state: sizes and operands of its kernels,
// how it is cut into blocks, and their host side.
//
// A block works on one batch element, 2 * pairs channels and one chunk of
// tokens. A lane owns two neighbouring channels; `pairs` neighbouring lanes
// make up a run of kTokens tokens, and the runs of a block its chunk.
#pragma once

#include "../common/scan_shape.h"

namespace selective_scan::cuda {

constexpr int kTokens = 8;  // of a thread
// Threads of a block, at most.
constexpr int kForwardThreads = 256;
constexpr int kBackwardThreads = 512;
constexpr int kTotalThreads = 256;
constexpr int kColumns = 32;  // parameters of a block of the last sums

constexpr int kPairsLog2 = 4;             // of the backward kernel
constexpr int kWidth = 2 << kPairsLog2;   // channels of its blocks
constexpr int kWarpTokens = 2 * kTokens;  // of its warps
constexpr int kPlaneStride = kWidth + 4;  // 16-byte reads without conflicts
constexpr int kPlane = kWarpTokens * kPlaneStride;
constexpr int kRegion = 2 * kPlane;  // floats of shared memory of a warp

struct Device {
  int multiprocessors;
  int shared;  // bytes that a block may have
};

struct Plan {
  int threads;     // of a block
  int pairs_log2;  // of pairs of channels in a block
  int blocks;      // of channels
  int chunks;      // of tokens
  int slots;       // words of a token's row: B, C, dt and zeros
  int shared;      // bytes of shared memory

  SCAN_HOST_DEVICE int tokens() const {
    return (threads >> pairs_log2) * kTokens;
  }
  SCAN_HOST_DEVICE int padded_channels() const {
    return blocks << (pairs_log2 + 1);
  }
};

// (batch, directions, rank + 2, length), strides in elements.
template <typename T>
struct Rows {
  T* data;
  int64_t batch;
  int set, row, token;
};

// T is the type in memory. Offsets inside one batch element fit 32 bits,
// strides are in elements.
template <typename T>
struct Bidirectional : Plan {
  int batch, channels, length, rank, directions;
  bool channels_last;
  bool summing;  // whether only the chunks' sums are wanted

  // (batch, channels, length); `lead` is the stride of the dimension that is
  // not dense: tokens where channels are last, else channels.
  const T* u;
  int64_t u_batch;
  int u_lead;
  T* y;  // dense; in the backward pass the gradient of u
  Rows<const T> proj;
  bool paired_rows;     // whether two rows can be read at once
  const float* weight;  // (directions, channels, rank)
  const float* bias;    // (directions, channels), as A and D
  const float* A;
  const float* D;
  // Where there are several chunks: (directions, batch, chunks, channel pairs
  // of all blocks, 4), product of decays and state of each channel. The
  // backward pass has two walks per direction: states, and their gradients.
  float* sums;

  // Of the backward pass alone.
  const T* grad;
  int64_t grad_batch;
  int grad_lead;
  // Partial sums, of each block of channels: rows in the order of the slots,
  // (channel blocks, batch, directions, length, slots); and of each chunk:
  // A, bias and weights, (batch * chunks, directions, channels of all blocks,
  // slots), and D, (batch * chunks, channels of all blocks).
  float *row_sums, *parameter_sums, *D_sums;
  Rows<T> grad_proj;
  float *grad_weight, *grad_bias, *grad_A, *grad_D;
};

SCAN_HOST_DEVICE int tile_stride(int width) { return width + 2; }

// Up to 256 tokens are one chunk. More are cut into chunks of 128 where that
// gives each multiprocessor 64 warps or more, else of 64. Where a large rank's
// rows need too much shared memory, chunks are shorter; threads is 0 where
// none fits.
inline Plan make_plan(int64_t batch, int channels, int length, int rank,
                      int directions, bool backward, const Device& device) {
  const auto up = [](int64_t a, int64_t b) {
    return static_cast<int>(ceil_div(a, b));
  };
  Plan plan{};
  plan.slots = up(rank + 2, 4) * 4;
  plan.pairs_log2 = kPairsLog2;
  if (!backward && length <= kTokens) plan.pairs_log2 = 5;
  // Blocks of 256 threads, of which a multiprocessor holds two.
  if (!backward && length > 128 && length <= 256) plan.pairs_log2 = 3;
  const int width = 2 << plan.pairs_log2;
  plan.blocks = up(channels, width);
  const int warp_tokens = kTokens * (32 >> plan.pairs_log2);
  int warps = up(length, warp_tokens);
  if (length > 256) {
    const int64_t warps_in_all = batch * plan.blocks * up(length, warp_tokens);
    warps = warps_in_all < 64 * device.multiprocessors ? 4 : 8;
  }
  for (; warps > 0; warps = warps / 2) {
    plan.threads = 32 * warps;
    const int64_t chunk = plan.tokens();
    const int64_t floats =
        directions * (chunk + width) * plan.slots +
        (backward ? 8 * plan.threads + warps * kRegion
                  : 4 * directions * plan.threads + chunk * tile_stride(width));
    plan.shared = static_cast<int>(4 * floats);
    if (4 * floats <= device.shared) break;
  }
  if (warps == 0) return {};
  plan.chunks = up(length, plan.tokens());
  return plan;
}

// Gives chunk sums and partial sums their places in the workspace. Returns
// its size in floats, which does not depend on where it is.
template <typename T>
int64_t set_workspace(Bidirectional<T>& g, bool backward, float* memory) {
  const int64_t channels = g.padded_channels();
  const int64_t chunks = int64_t{g.batch} * g.chunks;
  int64_t used = 0;
  const auto take = [&](bool wanted, int64_t size) {
    float* const place = memory + used;
    used += wanted ? size : 0;
    return place;
  };
  g.sums = take(g.chunks > 1,
                g.directions * (backward ? 4 : 2) * chunks * channels);
  g.row_sums = take(backward, int64_t{g.blocks} * g.batch * g.directions *
                                  g.length * g.slots);
  g.parameter_sums =
      take(backward, chunks * g.directions * channels * g.slots);
  g.D_sums = take(backward, chunks * channels);
  return used;
}

template <typename T>
void launch_bidirectional(const Bidirectional<T>& operands, bool backward);

}  // namespace selective_scan::cuda
