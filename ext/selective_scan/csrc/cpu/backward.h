// The backward pass of both operators. States are recomputed: a first walk
// notes them where each chunk of tokens starts, then the chunks are taken
// from the last to the first, recomputed into scratch and walked back.
#pragma once

#include <cstdint>

namespace selective_scan::cpu::SCAN_VARIANT {

static_assert(kTile == kBlock, "a transposed tile must have the same form");

// Tokens of a chunk: about 400 KB of float32 scratch, whole tiles.
inline int64_t chunk_tokens(const ScanShape& shape) {
  const int64_t fit = 3072 / (2 * shape.state + 3) / kTile * kTile;
  const int64_t padded = ceil_div(shape.length, kTile) * kTile;
  return smaller(fit < kTile ? kTile : fit, padded);
}

template <typename S>
inline S* backward_scratch(const ScanShape& shape) {
  const int64_t chunk = chunk_tokens(shape);
  const int64_t chunks = ceil_div(shape.length, chunk);
  const int64_t padded = ceil_div(shape.length, kTile) * kTile;
  const int64_t parameters = 2 * shape.directions * Parameters<S>::size(shape);
  const int64_t states = (chunks + 2) * shape.state * kBlock;
  const int64_t kept = (3 * chunk + shape.state * (2 * chunk + 2)) * kBlock;
  const int64_t sums = shape.directions > 1 ? padded * kBlock : 0;
  return scratch<S>(parameters + states + kept + row_buffer_size(shape) +
                    sums);
}

template <typename V, typename T>
class BackwardBlock {
 public:
  using S = typename V::Scalar;
  using W = BlockTuple<V>;

  BackwardBlock(const Operands& operands, const Gradients& gradients,
                const BackwardPlan& plan)
      : o_(operands), g_(gradients), plan_(plan), shape_(operands.shape) {
    chunk_ = chunk_tokens(shape_);
    chunks_ = ceil_div(shape_.length, chunk_);
    S* memory = backward_scratch<S>(shape_);
    for (int64_t k = 0; k < shape_.directions; ++k) {
      const int64_t size = Parameters<S>::size(shape_);
      packed_[k] = {take(memory, size), shape_.rank, shape_.state};
      sums_[k] = {take(memory, size), shape_.rank, shape_.state};
    }
    const int64_t states = shape_.state * kBlock;
    hidden_ = take(memory, states);
    grad_hidden_ = take(memory, states);
    starts_ = take(memory, chunks_ * states);
    delta_ = take(memory, chunk_ * kBlock);
    slope_ = take(memory, chunk_ * kBlock);
    u_ = take(memory, chunk_ * kBlock);
    decay_ = take(memory, shape_.state * chunk_ * kBlock);
    states_ = take(memory, shape_.state * (chunk_ + 2) * kBlock);
    buffer_ = take(memory, row_buffer_size(shape_));
    grad_u_ = memory;
  }

  // A block of channels over a run of batch elements.
  void run(int64_t index, int64_t block_group, int64_t batch_group,
           int64_t batch_begin, int64_t batch_end) {
    at_.block = channel_block(shape_, index, kBlock);
    for (int64_t k = 0; k < shape_.directions; ++k) {
      pack_parameters(o_, k, at_.block, packed_[k].data);
      fill(sums_[k].data, Parameters<S>::size(shape_));
    }
    for (int64_t b = batch_begin; b < batch_end; ++b) {
      at_.batch = b;
      for (int64_t k = shape_.directions - 1; k >= 0; --k) {
        at_.direction = k;
        at_.set = shape_.set(k, at_.block.first);
        const int64_t place =
            (block_group * shape_.batch + b) * shape_.sets() + at_.set;
        rows_out_ =
            static_cast<S*>(g_.rows) + place * plan_.rows * plan_.columns;
        direction();
      }
    }
    S* out = static_cast<S*>(g_.parameters) + index * kBlock +
             batch_group * shape_.directions * plan_.parameters *
                 plan_.blocks * kBlock;
    for (int64_t k = 0; k < shape_.directions; ++k) {
      for (int64_t p = 0; p < plan_.parameters; ++p) {
        copy(sums_[k].data + p * kBlock, kBlock, out);
        out += plan_.blocks * kBlock;
      }
    }
  }

 private:
  static void fill(S* memory, int64_t count) {
    for (int64_t i = 0; i < count; ++i) memory[i] = S(0);
  }
  static void copy(const S* from, int64_t count, S* to) {
    for (int64_t i = 0; i < count; ++i) to[i] = from[i];
  }

  bool backwards() const { return shape_.reversed(at_.direction); }

  void direction() {
    const int64_t size = shape_.state * kBlock;
    fill(hidden_, size);
    fill(grad_hidden_, size);
    for (int64_t step = 0; step < chunks_; ++step) {
      copy(hidden_, size, starts_ + step * size);
      recompute_chunk(step);
    }
    for (int64_t step = chunks_ - 1; step >= 0; --step) {
      if (step != chunks_ - 1) {
        copy(starts_ + step * size, size, hidden_);
        recompute_chunk(step);
      }
      reverse_chunk();
    }
  }

  // The chunk that the walk reaches as its step-th.
  void enter_chunk(int64_t step) {
    const int64_t chunk = backwards() ? chunks_ - 1 - step : step;
    chunk_first_ = chunk * chunk_;
    chunk_count_ = smaller(chunk_, shape_.length - chunk_first_);
  }

  // The tile that the walk reaches as its step-th within the chunk.
  void enter_tile(int64_t step) {
    const int64_t tiles = ceil_div(chunk_count_, kTile);
    place_ = (backwards() ? tiles - 1 - step : step) * kTile;
    at_.first = chunk_first_ + place_;
    at_.tokens = smaller(kTile, chunk_count_ - place_);
  }

  // States in scratch lie one row further than their token, so that the row
  // before (or, backwards, after) it holds what the token started from.
  S* state_row(int64_t n, int64_t row) const {
    return states_ + (n * (chunk_ + 2) + row) * kBlock;
  }

  void recompute_chunk(int64_t step) {
    enter_chunk(step);
    const int64_t start = backwards() ? chunk_count_ + 1 : 0;
    for (int64_t n = 0; n < shape_.state; ++n) {
      copy(hidden_ + n * kBlock, kBlock, state_row(n, start));
    }
    const int64_t tiles = ceil_div(chunk_count_, kTile);
    for (int64_t i = 0; i < tiles; ++i) {
      enter_tile(i);
      recompute_tile();
    }
  }

  void recompute_tile() {
    const Parameters<S>& packed = packed_[at_.direction];
    S* const delta = delta_ + place_ * kBlock;
    S* const slope = slope_ + place_ * kBlock;
    S* const u = u_ + place_ * kBlock;
    load_u<V, T>(o_, at_, u);
    const auto rows = load_shared_rows<V, T>(o_, at_, buffer_);
    make_delta<V, T>(o_, at_, packed, rows.dt, delta);
    if (shape_.softplus) {
      for (int64_t i = 0; i < at_.tokens * kBlock; i += kBlock) {
        W grows;
        softplus_of(W::load(delta + i), &grows).store(delta + i);
        grows.store(slope + i);
      }
    }
    for (int64_t n = 0; n < shape_.state; ++n) {
      recompute_states(n, delta, u, packed.A(n), rows.B);
    }
  }

  void recompute_states(int64_t n, const S* delta, const S* u, const S* A,
                        const Rows<S>& B) {
    S* const decay = decay_ + (n * chunk_ + place_) * kBlock;
    S* const states = state_row(n, place_ + 1);
    const W decay_rate = W::load(A);
    for (int64_t i = 0; i < at_.tokens * kBlock; i += kBlock) {
      exp_of(W::load(delta + i) * decay_rate).store(decay + i);
    }
    W state = W::load(hidden_ + n * kBlock);
    const Walk walk(at_.tokens, backwards());
    for (int64_t t = walk.first, left = at_.tokens; left > 0;
         --left, t += walk.by) {
      const int64_t i = t * kBlock;
      const W b = W::set(B.at(n, t));
      const W drive = W::load(delta + i) * W::load(u + i);
      state = fma(W::load(decay + i), state, drive * b);
      state.store(states + i);
    }
    state.store(hidden_ + n * kBlock);
  }

  void reverse_chunk() {
    for (int64_t i = ceil_div(chunk_count_, kTile) - 1; i >= 0; --i) {
      enter_tile(i);
      reverse_tile();
    }
  }

  void reverse_tile() {
    const auto rows = load_shared_rows<V, T>(o_, at_, buffer_);
    const auto* grad =
        static_cast<const T*>(o_.grad) +
        o_.grad_strides.at(at_.batch, at_.block.first, at_.first);
    load_tile<V>(grad, o_.grad_strides.channel, o_.grad_strides.token,
                 at_.block.width, at_.tokens, grad_y_);
    if (shape_.state == 1) {
      reverse_states<true>(0, rows);
    } else {
      fill(grad_drive_, at_.tokens * kBlock);
      fill(grad_delta_, at_.tokens * kBlock);
      for (int64_t n = 0; n < shape_.state; ++n)
        reverse_states<false>(n, rows);
    }
    finish_tile(rows);
  }

  // Gradients through state n: into grad_drive_ (of delta * u) and
  // grad_delta_ (through the decay), which one state alone simply sets.
  template <bool only>
  void reverse_states(int64_t n, const SharedRows<S>& rows) {
    const int64_t before = backwards() ? 2 : 0;
    const S* const decay = decay_ + (n * chunk_ + place_) * kBlock;
    const S* const states = state_row(n, place_ + 1);
    const S* const earlier = state_row(n, place_ + before);
    const S* const delta = delta_ + place_ * kBlock;
    const S* const u = u_ + place_ * kBlock;
    const S* const A = packed_[at_.direction].A(n);
    S* const A_sum = sums_[at_.direction].A(n);
    S* const B_out = rows_out_ + (shape_.rank + n) * plan_.columns + at_.first;
    S* const C_out = B_out + shape_.state * plan_.columns;
    constexpr int vectors = kBlock / V::lanes;
    V carried[vectors], grad_A[vectors];
    each<vectors>([&](auto v) SCAN_INLINE_BODY {
      carried[v.value] =
          V::load(grad_hidden_ + n * kBlock + v.value * V::lanes);
      grad_A[v.value] = V::set(S(0));
    });
    const Walk walk(at_.tokens, !backwards());
    for (int64_t t = walk.first, left = at_.tokens; left > 0;
         --left, t += walk.by) {
      const V B = V::set(rows.B.at(n, t));
      const V C = V::set(rows.C.at(n, t));
      V B_sum = V::set(S(0)), C_sum = V::set(S(0));
      each<vectors>([&](auto index) SCAN_INLINE_BODY {
        constexpr int v = index.value;
        const int64_t i = t * kBlock + v * V::lanes;
        const V gy = V::load(grad_y_ + i);
        const V d = V::load(delta + i);
        const V g = fma(C, gy, carried[v]);
        C_sum = fma(gy, V::load(states + i), C_sum);
        B_sum = fma(g, d * V::load(u + i), B_sum);
        carried[v] = g * V::load(decay + i);
        const V through_decay = carried[v] * V::load(earlier + i);
        grad_A[v] = fma(through_decay, d, grad_A[v]);
        V drive = g * B;
        V step_grad = through_decay * V::load(A + v * V::lanes);
        if constexpr (!only) {
          drive = drive + V::load(grad_drive_ + i);
          step_grad = step_grad + V::load(grad_delta_ + i);
        }
        drive.store(grad_drive_ + i);
        step_grad.store(grad_delta_ + i);
      });
      B_out[t] += sum(B_sum);
      C_out[t] += sum(C_sum);
    }
    each<vectors>([&](auto v) SCAN_INLINE_BODY {
      const int64_t i = v.value * V::lanes;
      carried[v.value].store(grad_hidden_ + n * kBlock + i);
      (V::load(A_sum + i) + grad_A[v.value]).store(A_sum + i);
    });
  }

  // From the sums over states to the gradients of u, delta and dt.
  void finish_tile(const SharedRows<S>& rows) {
    const bool begins = at_.direction == shape_.directions - 1;
    const bool ends = at_.direction == 0;
    const Parameters<S>& packed = packed_[at_.direction];
    const Parameters<S>& sums = sums_[at_.direction];
    const S* const delta = delta_ + place_ * kBlock;
    const S* const slope = slope_ + place_ * kBlock;
    const S* const u = u_ + place_ * kBlock;
    S* const earlier = grad_u_ + at_.first * kBlock;
    S* const grad_u = ends ? grad_drive_ : earlier;
    for (int v = 0; v < kBlock; v += V::lanes) {
      const V D = V::load(packed.D() + v);
      V grad_D = V::load(sums.D() + v), grad_bias = V::load(sums.bias() + v);
      for (int64_t i = v; i < at_.tokens * kBlock; i += kBlock) {
        const V gy = V::load(grad_y_ + i);
        const V drive = V::load(grad_drive_ + i);
        V step = fma(drive, V::load(u + i), V::load(grad_delta_ + i));
        if (shape_.softplus) step = step * V::load(slope + i);
        step.store(grad_delta_ + i);
        grad_bias = grad_bias + step;
        grad_D = fma(gy, V::load(u + i), grad_D);
        V out = fma(drive, V::load(delta + i), D * gy);
        if (!begins) out = out + V::load(earlier + i);
        out.store(grad_u + i);
      }
      grad_D.store(sums.D() + v);
      grad_bias.store(sums.bias() + v);
    }
    if (ends) {
      auto* to = static_cast<T*>(g_.u) +
                 g_.u_strides.at(at_.batch, at_.block.first, at_.first);
      store_tile<V>(grad_u, g_.u_strides.channel, g_.u_strides.token,
                    at_.block.width, at_.tokens, to);
    }
    if (g_.delta != nullptr) {
      auto* to = static_cast<T*>(g_.delta) +
                 g_.delta_strides.at(at_.batch, at_.block.first, at_.first);
      store_tile<V>(grad_delta_, g_.delta_strides.channel,
                    g_.delta_strides.token, at_.block.width, at_.tokens, to);
    }
    if (shape_.rank > 0) finish_rank(rows.dt);
  }

  void finish_rank(const Rows<S>& dt) {
    const Parameters<S>& packed = packed_[at_.direction];
    multiply<V>(grad_delta_, at_.tokens, dt.data, dt.row, dt.token,
                shape_.rank, static_cast<const S*>(nullptr),
                sums_[at_.direction].dt_proj());
    // Tokens side by side, so that the sum over channels needs no shuffles.
    fill(grad_delta_ + at_.tokens * kBlock, (kTile - at_.tokens) * kBlock);
    for (int64_t t = 0; t < kTile; t += 8) {
      for (int64_t c = 0; c < kBlock; c += 8) {
        transpose8(grad_delta_ + t * kBlock + c, kBlock,
                   grad_drive_ + c * kTile + t, kTile);
      }
    }
    multiply<V>(grad_drive_, at_.block.width, packed.dt_proj(), kBlock, 1,
                shape_.rank, static_cast<const S*>(nullptr),
                rows_out_ + at_.first, plan_.columns);
  }

  const Operands& o_;
  const Gradients& g_;
  const BackwardPlan& plan_;
  const ScanShape& shape_;
  int64_t chunk_, chunks_;
  Parameters<S> packed_[2], sums_[2];
  S *hidden_, *grad_hidden_, *starts_, *delta_, *slope_, *u_, *decay_;
  S *states_, *buffer_, *grad_u_;
  S* rows_out_ = nullptr;
  TilePlace at_{};
  int64_t chunk_first_ = 0, chunk_count_ = 0, place_ = 0;
  alignas(64) S grad_y_[kTile * kBlock];
  alignas(64) S grad_drive_[kTile * kBlock];
  alignas(64) S grad_delta_[kTile * kBlock];
};

template <typename V, typename T>
inline void backward(const Operands& o, const Gradients& g,
                     const BackwardPlan& plan, int64_t begin, int64_t end) {
  BackwardBlock<V, T> worker(o, g, plan);
  const int64_t batch = o.shape.batch;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t bg = task / plan.batch_groups;
    const int64_t group = task % plan.batch_groups;
    const int64_t first = bg * plan.blocks / plan.block_groups;
    const int64_t last = (bg + 1) * plan.blocks / plan.block_groups;
    for (int64_t block = first; block < last; ++block) {
      worker.run(block, bg, group, group * batch / plan.batch_groups,
                 (group + 1) * batch / plan.batch_groups);
    }
  }
}

}  // namespace selective_scan::cpu::SCAN_VARIANT
