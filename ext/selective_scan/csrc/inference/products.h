// Products with matrices that were packed once.
#pragma once

#include <cstdint>
#include <cstring>

namespace selective_scan::cpu::SCAN_VARIANT {

// Rows of a tile of sums: with one block of columns they fill the registers.
template <typename V>
constexpr int kTileRows = V::lanes == 16 ? 14 : V::lanes == 8 ? 6 : 3;

// The same with half a block: a sum for every step that a product takes until
// its result is there, and as many pointers as the processor holds.
constexpr int kHalfTileRows = 8;

// Values of a row that a block of weights meets at a time: with them it stays
// in the first-level cache.
constexpr int64_t kDepth = 384;

// Weights of a matrix that are near enough: beyond them the next ones are
// called while some are multiplied.
constexpr int64_t kNearWeights = 1 << 17;

// Rows as pointers to `runs` runs of `length` adjacent values each; run t of
// row i is at pointers[t * kProductRows + i].
struct RowTable {
  const float* const* pointers;
  int64_t count, runs, length;
};

// What becomes of the sums of a row: bias first, then the rest.
struct Result {
  float* y;
  int64_t width;  // columns, and values from row to row
  const float* bias;
  const float* add[2];  // as y, or null
  Activation activation;
};

inline Result result_of(const ConvTask& task, int64_t row) {
  const int64_t start = row * task.outputs;
  const auto at = [&](auto* map) { return map ? map + start : map; };
  return {at(task.y),
          task.outputs,
          task.bias,
          {at(task.add[0]), at(task.add[1])},
          task.activation};
}

// A part of all runs: `length` values from `offset` on of each of `runs` runs.
struct Pass {
  int64_t run, runs, offset, length;
  bool first, last;
};

// The pass after one that ended at the given run and offset.
inline Pass next_pass(const RowTable& rows, int64_t run, int64_t offset) {
  Pass pass{run, 1, offset, rows.length, run == 0 && offset == 0, false};
  if (rows.length > kDepth) {
    const int64_t pieces = ceil_div(rows.length, kDepth);
    const int64_t piece = ceil_div(rows.length, pieces);
    pass.length = smaller(piece, rows.length - offset);
  } else if (rows.length > 0) {
    pass.runs = smaller(kDepth / rows.length, rows.runs - run);
  }
  pass.last = run + pass.runs == rows.runs &&
              offset + pass.length == rows.length;
  return pass;
}

// Have a line of memory on its way to the second-level cache.
SCAN_INLINE void call_line(const float* line) {
#if defined(__GNUC__)
  __builtin_prefetch(line, 0, 2);
#endif
}

// To the sums of R rows of N vectors, add products of `length` values of each
// row with weights. Returns the end of the weights. With `ahead`, as many
// weights after those are called.
template <bool ahead, typename V, int N, int R>
SCAN_INLINE const float* add_products(const float* const* rows,
                                      int64_t offset, int64_t length,
                                      const float* weight,
                                      SimdTuple<V, N> (&sum)[R]) {
  using L = SimdTuple<V, N>;
  const float* x[R];
  each<R>([&](auto r) SCAN_INLINE_BODY {
    x[r.value] = rows[r.value] + offset;
  });
  // Multiply-adds are the bound, until another thread of the core takes its
  // instructions: then each one that the loop itself needs counts.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC unroll 4
#endif
  for (int64_t k = 0; k < length; ++k, weight += kMapBlock) {
    const L w = L::load(weight);
    if constexpr (ahead) call_line(weight + length * kMapBlock);
    each<R>([&](auto r) SCAN_INLINE_BODY {
      sum[r.value] = fma(w, L::set(x[r.value][k]), sum[r.value]);
    });
  }
  return weight;
}

// R rows of N vectors of one block of columns.
template <typename V, int N, int R, bool ahead = false>
SCAN_INLINE void tile(const float* const* pointers, const Pass& pass,
                      const float* weight, const Result& result, int64_t row,
                      int64_t column) {
  using L = SimdTuple<V, N>;
  const int64_t width =
      smaller(static_cast<int64_t>(N * V::lanes), result.width - column);
  float* y = result.y + row * result.width + column;
  L sum[R];
  if (pass.first) {
    const L bias =
        result.bias ? L::load(result.bias + column) : L::set(0.0f);
    each<R>([&](auto r) SCAN_INLINE_BODY { sum[r.value] = bias; });
  } else {
    each<R>([&](auto r) SCAN_INLINE_BODY {
      sum[r.value] = load_line<V, N>(y + r.value * result.width, width);
    });
  }
  for (int64_t t = 0; t < pass.runs; ++t) {
    weight = add_products<ahead>(pointers + t * kProductRows, pass.offset,
                                 pass.length, weight, sum);
  }
  if (pass.last) {
    activate(result.activation, sum);
    for (const float* add : result.add) {
      if (!add) continue;
      add += row * result.width + column;
      each<R>([&](auto r) SCAN_INLINE_BODY {
        sum[r.value] =
            sum[r.value] +
            load_line<V, N>(add + r.value * result.width, width);
      });
    }
  }
  each<R>([&](auto r) SCAN_INLINE_BODY {
    store_line(sum[r.value], y + r.value * result.width, width);
  });
}

// The same for a number of rows that the compiler does not know.
template <typename V, int N, int R>
SCAN_INLINE void tile_of(int64_t count, const float* const* pointers,
                         const Pass& pass, const float* weight,
                         const Result& result, int64_t row, int64_t column) {
  if constexpr (R > 1) {
    if (count < R) {
      tile_of<V, N, R - 1>(count, pointers, pass, weight, result, row, column);
      return;
    }
  }
  tile<V, N, R>(pointers, pass, weight, result, row, column);
}

// All rows of one block of columns, R at a time.
template <typename V, int N, int R>
void multiply_block(const RowTable& rows, const float* panel,
                    const Result& result, int64_t column) {
  const bool ahead = rows.runs * rows.length * result.width > kNearWeights;
  for (int64_t run = 0, offset = 0; run < rows.runs;) {
    const Pass pass = next_pass(rows, run, offset);
    const float* part = panel + (run * rows.length + offset) * kMapBlock;
    const float* const* pointers = rows.pointers + run * kProductRows;
    int64_t row = 0;
    if (ahead && rows.count >= R) {
      tile<V, N, R, true>(pointers, pass, part, result, 0, column);
      row = R;
    }
    for (; row < rows.count; row += R) {
      tile_of<V, N, R>(rows.count - row, pointers + row, pass, part, result,
                       row, column);
    }
    offset += pass.length;
    if (offset == rows.length) {
      run += pass.runs;
      offset = 0;
    }
  }
}

// The same for as much of the block as holds columns.
template <typename V>
void multiply_columns(const RowTable& rows, const float* panel,
                      const Result& result, int64_t column) {
  if constexpr (kLine<V> == 2) {
    if (result.width - column <= V::lanes) {
      multiply_block<V, 1, kHalfTileRows>(rows, panel, result, column);
      return;
    }
  }
  multiply_block<V, kLine<V>, kTileRows<V>>(rows, panel, result, column);
}

template <typename V>
void multiply(const RowTable& rows, const float* weight, Range blocks,
              const Result& result) {
  const int64_t depth = rows.runs * rows.length;
  for (int64_t block = blocks.begin; block < blocks.end; ++block) {
    multiply_columns<V>(rows, weight + block * depth * kMapBlock, result,
                        block * kMapBlock);
  }
}

// Room for the pointers of a table of rows.
inline int64_t pointer_floats(int64_t runs) {
  return runs * kProductRows * int64_t{sizeof(float*) / sizeof(float)};
}

}  // namespace selective_scan::cpu::SCAN_VARIANT
