// The bidirectional scan with one state: sizes of its kernels, and how it is
// cut into blocks.
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
    const int64_t floats = directions * (chunk + width) * plan.slots +
                           (backward ? 8 * plan.threads + warps * kRegion
                                     : 4 * directions * plan.threads +
                                           chunk * tile_stride(width));
    plan.shared = static_cast<int>(4 * floats);
    if (4 * floats <= device.shared) break;
  }
  if (warps == 0) return {};
  plan.chunks = up(length, plan.tokens());
  return plan;
}

}  // namespace selective_scan::cuda
