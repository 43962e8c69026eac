// The last sums of the bidirectional scan's gradients: sizes and operands.
#pragma once

#include "bidirectional_plan.h"

namespace selective_scan::cuda {

constexpr int kTotalThreads = 256;
constexpr int kColumns = 32;  // parameters of a block

// The partial sums are those of Bidirectional, and so is proj's layout.
template <typename T>
struct Totals {
  int batch, channels, length, rank, directions, slots;
  int blocks;  // of channels
  int width;   // their channels
  int chunks;  // of all batch elements
  const float* rows;
  const float* parameters;
  const float* skips;
  T* proj;
  int64_t proj_batch;
  int proj_set, proj_row, proj_token;
  float *weight, *bias, *A, *D;
};

template <typename T>
Totals<T> make_totals(const Bidirectional<T>& g, const Plan& plan) {
  Totals<T> totals{};
  totals.batch = g.batch;
  totals.channels = g.channels;
  totals.length = g.length;
  totals.rank = g.rank;
  totals.directions = g.directions;
  totals.slots = plan.slots;
  totals.blocks = plan.blocks;
  totals.width = plan.padded_channels();
  totals.chunks = g.batch * plan.chunks;
  totals.rows = g.grad_rows;
  totals.parameters = g.grad_parameters;
  totals.skips = g.grad_D;
  totals.proj_batch = g.proj_batch;
  totals.proj_set = g.proj_set;
  totals.proj_row = g.proj_row;
  totals.proj_token = g.proj_token;
  return totals;
}

// One row of blocks for each batch element and direction, one for parameters.
template <typename T>
dim3 totals_grid(const Totals<T>& g) {
  const unsigned rows =
      (g.length * (g.slots / 4) + kTotalThreads - 1) / kTotalThreads;
  const unsigned parameters =
      (g.width * (g.directions * g.slots + 1) + kColumns - 1) / kColumns;
  return dim3{rows > parameters ? rows : parameters,
              static_cast<unsigned>(g.batch * g.directions + 1), 1};
}

}  // namespace selective_scan::cuda
