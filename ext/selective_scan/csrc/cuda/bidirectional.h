// The bidirectional scan with one state: sizes and operands of its kernels.
//
// A block works on one batch element, 2 * pairs channels and one chunk of
// tokens. A lane owns two neighbouring channels; `pairs` neighbouring lanes
// make up a run of kTokens tokens, and the runs of a block its chunk.
#pragma once

#include <cstdint>

namespace selective_scan::cuda {

constexpr int kTokens = 8;  // of a thread
// Threads of a block, at most.
constexpr int kForwardThreads = 256;
constexpr int kBackwardThreads = 512;

// T is the type in memory: float, __half or __nv_bfloat16. Offsets inside one
// batch element fit 32 bits, strides are in elements.
template <typename T>
struct Bidirectional {
  int batch, channels, length, rank, directions;
  int pairs_log2;  // of pairs of channels in a block
  int chunks;      // of tokens
  int slots;       // words of a token's row: B, C, dt and zeros
  bool summing;    // whether only the chunks' sums are wanted

  // (batch, channels, length); `lead` is the stride of the dimension that is
  // not dense: tokens where channels are last, else channels.
  const T* u;
  int64_t u_batch;
  int u_lead;
  T* y;
  // (batch, directions, rank + 2, length)
  const T* proj;
  int64_t proj_batch;
  int proj_set, proj_row, proj_token;
  bool paired_rows;     // whether two rows can be read at once
  const float* weight;  // (directions, channels, rank)
  const float* bias;    // (directions, channels), as A and D
  const float* A;
  const float* D;
  // Where there are several chunks: (directions, batch, chunks, channel pairs
  // of all blocks, 4), product of decays and state of each channel.
  float* sums;

  // Of the backward pass alone. grad lies as u does, grad_u as y. The sums
  // have two walks per direction there: states, and gradients of the states.
  const T* grad;
  int64_t grad_batch;
  int grad_lead;
  T* grad_u;
  // Partial sums, of each block of channels: rows in the order of the slots,
  // (channel blocks, batch, directions, length, slots); and of each chunk:
  // A, bias and weights, (batch * chunks, directions, channels of all blocks,
  // slots), and D, (batch * chunks, channels of all blocks).
  float* grad_rows;
  float* grad_parameters;
  float* grad_D;
};

}  // namespace selective_scan::cuda
