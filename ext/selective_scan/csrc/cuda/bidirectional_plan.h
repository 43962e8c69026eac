// How a bidirectional scan is cut into blocks, for the launchers and tests.
#pragma once

#include "../common/scan_shape.h"
#include "bidirectional.h"

namespace selective_scan::cuda {

struct Plan {
  int threads;     // of a block
  int pairs_log2;  // of pairs of channels in a block
  int blocks;      // of channels
  int chunks;      // of tokens
  int slots;       // words of a token's row
  int shared;      // bytes of shared memory

  int tokens() const { return (threads >> pairs_log2) * kTokens; }
  int padded_channels() const { return blocks << (pairs_log2 + 1); }
};

struct Device {
  int multiprocessors;
  int shared;  // bytes that a block may have
};

SCAN_HOST_DEVICE int tile_stride(int width) { return width + 2; }

constexpr int kPairsLog2 = 4;             // of the backward kernel
constexpr int kWidth = 2 << kPairsLog2;   // channels of its blocks
constexpr int kWarpTokens = 2 * kTokens;  // of its warps
constexpr int kPlaneStride = kWidth + 4;  // 16-byte reads without conflicts
constexpr int kPlane = kWarpTokens * kPlaneStride;
constexpr int kRegion = 2 * kPlane;  // floats of shared memory of a warp

// Floats of shared memory.
inline int64_t forward_shared(const Plan& plan, int directions) {
  const int64_t chunk = plan.tokens(), width = 2 << plan.pairs_log2;
  return 4 * directions * plan.threads +
         directions * (chunk + width) * plan.slots +
         chunk * tile_stride(width);
}
inline int64_t backward_shared(const Plan& plan, int directions) {
  const int64_t chunk = plan.tokens();
  return 8 * plan.threads + directions * (chunk + kWidth) * plan.slots +
         plan.threads / 32 * kRegion;
}

// Up to 256 tokens are one chunk. More are cut into chunks of 128 where that
// gives each multiprocessor 64 warps or more, else of 64. Where a large rank's
// rows need too much shared memory, chunks are shorter; threads is 0 where
// none fits.
inline Plan make_plan(int64_t batch, int channels, int length, int rank,
                      int directions, bool backward, const Device& device) {
  const auto up = [](int64_t a, int64_t b) {
    return static_cast<int>((a + b - 1) / b);
  };
  Plan plan{};
  plan.slots = up(rank + 2, 4) * 4;
  plan.pairs_log2 = kPairsLog2;
  if (!backward && length <= kTokens) plan.pairs_log2 = 5;
  // Blocks of 256 threads, of which a multiprocessor holds two.
  if (!backward && length > 128 && length <= 256) plan.pairs_log2 = 3;
  plan.blocks = up(channels, 2 << plan.pairs_log2);
  const int warp_tokens = kTokens * (32 >> plan.pairs_log2);
  int warps = up(length, warp_tokens);
  if (length > 256) {
    const int64_t warps_in_all = batch * plan.blocks * up(length, warp_tokens);
    warps = warps_in_all < 64 * device.multiprocessors ? 4 : 8;
  }
  for (; warps > 0; warps = warps / 2) {
    plan.threads = 32 * warps;
    const int64_t bytes = 4 * (backward ? backward_shared(plan, directions)
                                        : forward_shared(plan, directions));
    plan.shared = static_cast<int>(bytes);
    if (bytes <= device.shared) break;
  }
  if (warps == 0) return {};
  plan.chunks = up(length, plan.tokens());
  return plan;
}

// Floats of the workspace: chunk sums, and the backward pass's partial sums.
struct Workspace {
  int64_t sums, rows, parameters, D;
  int64_t total() const { return sums + rows + parameters + D; }
};

inline Workspace make_workspace(const Plan& plan, int64_t batch, int length,
                                int directions, bool backward) {
  const int64_t walks = directions * (backward ? 2 : 1);
  const int64_t channels = plan.padded_channels();
  Workspace space{};
  if (plan.chunks > 1) {
    space.sums = walks * batch * plan.chunks * channels * 2;
  }
  if (backward) {
    space.rows = plan.blocks * batch * directions * length * plan.slots;
    space.parameters =
        batch * plan.chunks * directions * channels * plan.slots;
    space.D = batch * plan.chunks * channels;
  }
  return space;
}

template <typename T>
void use_plan(Bidirectional<T>& g, const Plan& plan, const Workspace& space,
              float* memory) {
  g.pairs_log2 = plan.pairs_log2;
  g.chunks = plan.chunks;
  g.slots = plan.slots;
  g.sums = memory;
  g.grad_rows = g.sums + space.sums;
  g.grad_parameters = g.grad_rows + space.rows;
  g.grad_D = g.grad_parameters + space.parameters;
}

}  // namespace selective_scan::cuda
