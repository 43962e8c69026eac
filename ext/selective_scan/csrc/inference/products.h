// Dense convolutions as products with matrices that were packed once.
#pragma once

namespace selective_scan::cpu::SCAN_VARIANT {

// Rows of a tile of sums: with one block of columns they fill the registers.
template <typename V>
constexpr int kTileRows = V::lanes == 16  ? 14
                          : V::lanes == 8 ? 6
                                          : 3;

// The same with half a block: a sum for every step that a product takes until
// its result is there, and as many pointers as the processor holds.
constexpr int kHalfTileRows = 8;

// Weights of a matrix that are near enough. Those of a larger one come from
// afar: the next ones are called while some are multiplied.
constexpr int64_t kNearWeights = 1 << 17;

// Rows as pointers to `runs` runs of `length` adjacent values each; run t of
// row i is at pointers[t * kProductRows + i].
struct RowTable {
  const float* const* pointers;
  int64_t count, runs, length;
};

// R rows of N vectors of one block of columns: their products with the block's
// weights, then what the task makes of sums. With `ahead`, as many weights
// after those of a run are called.
template <typename V, int N, int R, bool ahead = false>
SCAN_INLINE void multiply_tile(const RowTable& rows, int64_t row,
                               const float* weight, const ConvTask& task,
                               int64_t result, int64_t column) {
  using L = SimdTuple<V, N>;
  const int64_t width = smaller(N * V::lanes, task.outputs - column);
  const int64_t start = (result + row) * task.outputs + column;
  const L bias = task.bias ? L::load(task.bias + column) : L::set(0.0f);
  L sum[R];
  each<R>([&](auto r) SCAN_INLINE_BODY { sum[r.value] = bias; });
  for (int64_t t = 0; t < rows.runs; ++t) {
    const float* x[R];
    each<R>([&](auto r) SCAN_INLINE_BODY {
      x[r.value] = rows.pointers[t * kProductRows + row + r.value];
    });
    // Multiply-adds are the bound, until another thread of the core takes its
    // instructions: then each one that the loop itself needs counts.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC unroll 4
#endif
    for (int64_t k = 0; k < rows.length; ++k, weight += kMapBlock) {
      const L w = L::load(weight);
      if constexpr (ahead) {
        __builtin_prefetch(weight + rows.length * kMapBlock, 0, 2);
      }
      each<R>([&](auto r) SCAN_INLINE_BODY {
        sum[r.value] = fma(w, L::set(x[r.value][k]), sum[r.value]);
      });
    }
  }
  activate(task.activation, sum);
  for (const float* map : task.add) {
    if (map == nullptr) continue;
    each<R>([&](auto r) SCAN_INLINE_BODY {
      sum[r.value] =
          sum[r.value] +
          load_line<V, N>(map + start + r.value * task.outputs, width);
    });
  }
  each<R>([&](auto r) SCAN_INLINE_BODY {
    store_line(sum[r.value], task.y + start + r.value * task.outputs, width);
  });
}

// The same for the last rows, fewer than R.
template <typename V, int N, int R>
SCAN_INLINE void multiply_rest(const RowTable& rows, int64_t row,
                               const float* weight, const ConvTask& task,
                               int64_t result, int64_t column) {
  if constexpr (R > 1) {
    if (rows.count - row < R) {
      multiply_rest<V, N, R - 1>(rows, row, weight, task, result, column);
      return;
    }
  }
  multiply_tile<V, N, R>(rows, row, weight, task, result, column);
}

// All rows of one block of columns.
template <typename V, int N, int R>
void multiply_block(const RowTable& rows, const float* weight,
                    const ConvTask& task, int64_t result, int64_t column) {
  int64_t row = 0;
  if (task.depth() * task.outputs > kNearWeights && rows.count >= R) {
    multiply_tile<V, N, R, true>(rows, row, weight, task, result, column);
    row = R;
  }
  for (; row < rows.count; row += R) {
    multiply_rest<V, N, R>(rows, row, weight, task, result, column);
  }
}

// Some blocks of columns of the results from row `result` on.
template <typename V>
void multiply(const RowTable& rows, const ConvTask& task, int64_t result,
              Range blocks) {
  constexpr int N = kLine<V>;
  for (int64_t block = blocks.begin; block < blocks.end; ++block) {
    const int64_t column = block * kMapBlock;
    const float* weight = task.weight + column * rows.runs * rows.length;
    if (N == 2 && task.outputs - column <= V::lanes) {
      multiply_block<V, 1, kHalfTileRows>(rows, weight, task, result, column);
    } else {
      multiply_block<V, N, kTileRows<V>>(rows, weight, task, result, column);
    }
  }
}

// Room for the pointers of a table of rows.
inline int64_t pointer_floats(int64_t runs) {
  return runs * kProductRows * int64_t{sizeof(float*) / sizeof(float)};
}

// Copy one run of a field of view, zeros where it is outside of the map.
inline void gather_run(const ConvTask& task, int64_t image, int64_t row,
                       int64_t left, float* to) {
  const auto bytes = static_cast<size_t>(task.channels) * sizeof(float);
  for (int64_t column = left; column < left + task.kernel_width; ++column) {
    if (row < 0 || row >= task.height || column < 0 || column >= task.width) {
      std::memset(to, 0, bytes);
    } else {
      std::memcpy(to, task.x.at(image, row, column, 0), bytes);
    }
    to += task.channels;
  }
}

// Where the runs of the fields of view of some rows are: in the map, where
// they lie in memory as they are needed, or in copies beside it.
inline void find_fields(const ConvTask& task, Range rows,
                        const float** pointers, float* copies) {
  const bool adjacent =
      task.kernel_width == 1 || task.x.column == task.channels;
  int64_t line = rows.begin / task.out_width;
  int64_t column = rows.begin % task.out_width;
  for (int64_t i = 0; i < rows.end - rows.begin; ++i) {
    const int64_t image = line / task.out_height;
    const int64_t top = line % task.out_height * task.row_stride - task.top;
    const int64_t left = column * task.column_stride - task.left;
    const bool inside = left >= 0 && left + task.kernel_width <= task.width;
    for (int64_t t = 0; t < task.kernel_height; ++t) {
      const int64_t row = top + t;
      const float*& pointer = pointers[t * kProductRows + i];
      if (adjacent && inside && row >= 0 && row < task.height) {
        pointer = task.x.at(image, row, left, 0);
      } else {
        gather_run(task, image, row, left, copies);
        pointer = copies;
        copies += task.kernel_width * task.channels;
      }
    }
    if (++column == task.out_width) {
      column = 0;
      ++line;
    }
  }
}

template <typename V>
void conv(const ConvTask& task, Range rows, Range blocks) {
  const int64_t run = task.kernel_width * task.channels;
  const int64_t pointers = pointer_floats(task.kernel_height);
  float* memory = scratch_floats(pointers + kProductRows * task.depth());
  auto** fields = reinterpret_cast<const float**>(memory);
  find_fields(task, rows, fields, memory + pointers);
  multiply<V>({fields, rows.end - rows.begin, task.kernel_height, run}, task,
              rows.begin, blocks);
}

// Two products, with what is between them kept in the cache.
template <typename V>
void feed_forward(const ConvTask& first, const ConvTask& second, Range rows) {
  const int64_t count = rows.end - rows.begin, hidden = first.outputs;
  float* memory = scratch_floats(pointer_floats(2) + kProductRows * hidden);
  auto** in = reinterpret_cast<const float**>(memory);
  auto** between = in + kProductRows;
  ConvTask local = first;
  local.y = memory + pointer_floats(2);
  for (int64_t i = 0; i < count; ++i) {
    in[i] = first.x.data + (rows.begin + i) * first.channels;
    between[i] = local.y + i * hidden;
  }
  multiply<V>({in, count, 1, first.channels}, local, 0,
              {0, blocks_of(hidden)});
  multiply<V>({between, count, 1, hidden}, second, rows.begin,
              {0, blocks_of(second.outputs)});
}

}  // namespace selective_scan::cpu::SCAN_VARIANT
