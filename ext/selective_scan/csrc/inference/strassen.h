// Products by Strassen's algorithm in Winograd's form. Rows are taken two by
// two, and so are halves of their values and blocks of columns; then 7
// products of matrices serve in place of 8. With rows (a1, a2) and (b1, b2)
// and weights (w11, w12; w21, w22),
//   s1 = b1 + b2, s2 = s1 - a1, s3 = a1 - b1, s4 = a2 - s2,
//   t1 = w12 - w11, t2 = w22 - t1, t3 = w22 - w12, t4 = t2 - w21,
//   p = a1 w11, u = p + s2 t2, v = u + s3 t3, z = u + s1 t1,
// the results are p + a2 w21 and z + s4 w22 of the first row, v - b2 t4 and
// v + s1 t1 = v + z - u of the second. Weights come as (w11, t2, t3, t1, -t4,
// w22, w21), pair of blocks by pair of blocks; what blocks are left follow as
// they are.
// Source: Winograd, On multiplication of 2x2 matrices, 1971.
#pragma once

#include <cstdint>

namespace selective_scan::cpu::SCAN_VARIANT {

constexpr int kFactors = 7;  // products of matrices

// Pairs of rows of a tile of sums.
template <typename V>
constexpr int kPairTile = V::lanes == 16 ? 12 : 6;
static_assert(kPairs % 12 == 0);

// Sums that are kept, of all pairs and one block of columns each.
enum Kept {
  kNone = -1,
  kP,
  kU,
  kV,
  kZ,
  kFirstLeft,
  kFirstRight,
  kSecondLeft,
  kKept  // how many there are
};
constexpr int64_t kKeptFloats = kPairs * kMapBlock;

// What a product is added to, and what that makes.
struct StrassenStep {
  Kept from, to;
};
constexpr StrassenStep kStrassenSteps[kFactors] = {
    {kNone, kP},       {kP, kU},          {kU, kV},        {kU, kZ},
    {kV, kSecondLeft}, {kZ, kFirstRight}, {kP, kFirstLeft}};

// The rows of some pairs, counted from `rows.begin`, and after them the last
// pair again. Pairs are neighbours of one image, so that no image touches
// another one's results; the last cell of an odd number of them is paired with
// itself. Its second result, stored before the first one, does not stay.
struct RowPairs {
  int64_t count = 0;
  Range rows{0, 0};
  int64_t place[2][kPairs];
};

inline RowPairs row_pairs(Range pairs, int64_t cells) {
  const int64_t of_image = ceil_div(cells, 2);
  RowPairs result;
  result.count = pairs.end - pairs.begin;
  for (int64_t i = 0; i < result.count; ++i) {
    const int64_t pair = pairs.begin + i;
    const int64_t cell = pair % of_image * 2;
    const int64_t row = pair / of_image * cells + cell;
    if (i == 0) result.rows.begin = row;
    const int64_t first = row - result.rows.begin;
    result.place[0][i] = first;
    result.place[1][i] = first + (cell + 1 < cells ? 1 : 0);
    result.rows.end = row + result.place[1][i] - first + 1;
  }
  for (int64_t i = result.count; i < kPairs; ++i) {
    for (auto& place : result.place) place[i] = place[result.count - 1];
  }
  return result;
}

inline size_t strassen_scratch(int64_t depth) {
  return pointer_floats(kFactors) +
         static_cast<size_t>(kKept * kKeptFloats + 4 * kPairs * (depth / 2));
}

// The sums s1 to s4 of a pair, `step` values apart.
template <typename V>
void add_pair(const float* a, const float* b, int64_t half, float* sums,
              int64_t step) {
  const auto add = [&](int64_t k) SCAN_INLINE_BODY {
    const V a1 = V::load(a + k), a2 = V::load(a + half + k);
    const V b1 = V::load(b + k), b2 = V::load(b + half + k);
    const V s1 = b1 + b2, s2 = s1 - a1;
    s1.store(sums + k);
    s2.store(sums + step + k);
    (a1 - b1).store(sums + 2 * step + k);
    (a2 - s2).store(sums + 3 * step + k);
  };
  int64_t k = 0;
  for (; k + V::lanes <= half; k += V::lanes) add(k);
  // Some values twice rather than a vector in parts.
  if (k < half) add(half - V::lanes);
}

// One of the products for R pairs, of the first of which `values` are.
template <typename V, int R, bool ahead>
SCAN_INLINE void strassen_tile(const float* const* values, int64_t half,
                               const float* weight, const float* from,
                               float* to) {
  using L = Line<V>;
  L sum[R];
  if (from) {
    each<R>([&](auto r) SCAN_INLINE_BODY {
      sum[r.value] = L::load(from + r.value * kMapBlock);
    });
  } else {
    each<R>([&](auto r) SCAN_INLINE_BODY { sum[r.value] = L::set(0.0f); });
  }
  add_products<ahead>(values, 0, half, weight, sum);
  each<R>([&](auto r) SCAN_INLINE_BODY {
    sum[r.value].store(to + r.value * kMapBlock);
  });
}

// Put the four results of each pair together from what was kept.
template <typename V>
void finish_pairs(const RowPairs& pairs, const float* kept, int64_t column,
                  const Result& result) {
  using L = Line<V>;
  L bias[2] = {L::set(0.0f), L::set(0.0f)};
  if (result.bias) {
    bias[0] = L::load(result.bias + column);
    bias[1] = L::load(result.bias + column + kMapBlock);
  }
  for (int64_t i = 0; i < pairs.count; ++i) {
    const auto sum = [&](Kept which) SCAN_INLINE_BODY {
      return L::load(kept + which * kKeptFloats + i * kMapBlock);
    };
    const auto store = [&](L (&value)[2], int64_t row) SCAN_INLINE_BODY {
      const int64_t place = row * result.pitch + column;
      each<2>([&](auto n) SCAN_INLINE_BODY {
        value[n.value] = value[n.value] + bias[n.value];
      });
      activate(result.activation, value);
      each<2>([&](auto n) SCAN_INLINE_BODY {
        const int64_t at = place + n.value * kMapBlock;
        if (result.add) {
          value[n.value] = value[n.value] + L::load(result.add + at);
        }
        value[n.value].store(result.y + at);
      });
    };
    L second[2] = {sum(kSecondLeft), sum(kV) + (sum(kZ) - sum(kU))};
    store(second, pairs.place[1][i]);
    L first[2] = {sum(kFirstLeft), sum(kFirstRight)};
    store(first, pairs.place[0][i]);
  }
}

// Pairs of blocks and then single ones, of which `groups` are a range; rows
// are one run of an even number of values.
template <typename V>
void multiply_strassen(const RowTable& rows, const RowPairs& pairs,
                       const float* weight, Range groups,
                       const Result& result, float* scratch) {
  const int64_t half = rows.length / 2;
  auto** pointers = reinterpret_cast<const float**>(scratch);
  float* kept = scratch + pointer_floats(kFactors);
  float* sums = kept + kKept * kKeptFloats;
  const int64_t step = kPairs * half;
  // A tile that goes on takes the last pair again, as place has it.
  constexpr int kHalf = kPairTile<V> / 2;
  const int64_t halves =
      pairs.count > kHalf ? ceil_div(pairs.count, kHalf) : 2;
  for (int64_t i = 0; i < halves * kHalf; ++i) {
    const float* a = rows.pointers[pairs.place[0][i]];
    const float* b = rows.pointers[pairs.place[1][i]];
    float* s = sums + i * half;
    add_pair<V>(a, b, half, s, step);
    const float* values[kFactors] = {a,        s + step,     s + 2 * step, s,
                                     b + half, s + 3 * step, a + half};
    for (int f = 0; f < kFactors; ++f) {
      pointers[f * kProductRows + i] = values[f];
    }
  }
  const int64_t whole = paired_blocks(result.width) / 2;
  const bool ahead = rows.length * result.width > kNearWeights;
  for (int64_t group = groups.begin; group < groups.end; ++group) {
    const float* panel =
        weight + strassen_tiles(group, result.width) * half * kMapBlock;
    if (group >= whole) {
      multiply_columns<V>(rows, panel, result, (group + whole) * kMapBlock);
      continue;
    }
    for (int f = 0; f < kFactors; ++f, panel += half * kMapBlock) {
      const StrassenStep& s = kStrassenSteps[f];
      const float* const* values = pointers + f * kProductRows;
      const float* from =
          s.from == kNone ? nullptr : kept + s.from * kKeptFloats;
      float* to = kept + s.to * kKeptFloats;
      int64_t i = 0;
      const auto run = [&](auto tile, auto ahead) SCAN_INLINE_BODY {
        strassen_tile<V, tile.value, ahead.value>(
            values + i, half, panel, from ? from + i * kMapBlock : nullptr,
            to + i * kMapBlock);
        i += tile.value;
      };
      if (ahead) run(Index<kPairTile<V>>{}, Index<1>{});
      while (i + kHalf < pairs.count) run(Index<kPairTile<V>>{}, Index<0>{});
      if (i < pairs.count) run(Index<kHalf>{}, Index<0>{});
    }
    finish_pairs<V>(pairs, kept, 2 * group * kMapBlock, result);
  }
}

}  // namespace selective_scan::cpu::SCAN_VARIANT
