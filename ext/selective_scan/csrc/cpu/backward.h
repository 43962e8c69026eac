// The backward pass of both operators. States are recomputed: a first walk
// notes them where each chunk of tokens starts, then the chunks are taken
// from the last to the first, recomputed into scratch and walked back.
#pragma once

namespace selective_scan::cpu::SCAN_VARIANT {

static_assert(kTile == kBlock, "a transposed tile must have the same form");

template <typename V>
class BackwardBlock {
 public:
  using S = typename V::Scalar;
  using W = BlockTuple<V>;

  BackwardBlock(const Operands& operands, const Gradients& gradients)
      : o_(operands), g_(gradients), shape_(operands.shape) {
    // About 400 KB of float32 scratch, whole tiles.
    const int64_t fit = 3072 / (2 * shape_.state + 3) / kTile * kTile;
    chunk_ = smaller(fit < kTile ? kTile : fit, o_.padded_length());
    chunks_ = ceil_div(shape_.length, chunk_);
    const int64_t directions = shape_.directions;
    const int64_t size = o_.parameters() * kBlock;
    const int64_t states = shape_.state * kBlock, tokens = chunk_ * kBlock;
    const int64_t all = directions > 1 ? o_.padded_length() * kBlock : 0;
    S* memory = scratch<S>(2 * directions * size + (chunks_ + 2) * states +
                           3 * tokens + (2 * chunk_ + 2) * states + all);
    for (int64_t k = 0; k < directions; ++k) {
      packed_[k] = {take(memory, size), shape_.rank, shape_.state};
      sums_[k] = {take(memory, size), shape_.rank, shape_.state};
    }
    hidden_ = take(memory, states);
    grad_hidden_ = take(memory, states);
    starts_ = take(memory, chunks_ * states);
    delta_ = take(memory, tokens);
    slope_ = take(memory, tokens);
    u_ = take(memory, tokens);
    decay_ = take(memory, chunk_ * states);
    states_ = take(memory, (chunk_ + 2) * states);
    grad_u_ = memory;
  }

  // A block of channels over a run of batch elements.
  void run(int64_t index, int64_t block_group, int64_t batch_group) {
    const int64_t batch = shape_.batch, groups = g_.batch_groups;
    at_.block = channel_block(shape_, index);
    for (int64_t k = 0; k < shape_.directions; ++k) {
      pack_parameters(o_, k, at_.block, packed_[k]);
      std::fill_n(sums_[k].data, o_.parameters() * kBlock, S(0));
    }
    for (at_.batch = batch_group * batch / groups;
         at_.batch < (batch_group + 1) * batch / groups; ++at_.batch) {
      for (int64_t k = shape_.directions - 1; k >= 0; --k) {
        at_.direction = k;
        at_.set = k * shape_.groups + at_.block.group;
        const int64_t place =
            (block_group * batch + at_.batch) * shape_.sets() + at_.set;
        rows_out_ =
            static_cast<S*>(g_.rows) + place * o_.rows() * o_.padded_length();
        direction();
      }
    }
    S* out =
        static_cast<S*>(g_.parameters) + index * kBlock +
        batch_group * shape_.directions * o_.parameters() * g_.blocks * kBlock;
    for (int64_t k = 0; k < shape_.directions; ++k) {
      for (int64_t p = 0; p < o_.parameters(); ++p) {
        std::copy_n(sums_[k].data + p * kBlock, kBlock, out);
        out += g_.blocks * kBlock;
      }
    }
  }

 private:
  bool backwards() const { return shape_.reversed(at_.direction); }

  void direction() {
    const int64_t size = shape_.state * kBlock;
    std::fill_n(hidden_, size, S(0));
    std::fill_n(grad_hidden_, size, S(0));
    for (int64_t step = 0; step < chunks_; ++step) {
      std::copy_n(hidden_, size, starts_ + step * size);
      recompute_chunk(step);
    }
    for (int64_t step = chunks_ - 1; step >= 0; --step) {
      if (step < chunks_ - 1) {
        std::copy_n(starts_ + step * size, size, hidden_);
        recompute_chunk(step);
      }
      for (int64_t i = ceil_div(chunk_count_, kTile) - 1; i >= 0; --i) {
        enter_tile(i);
        reverse_tile();
      }
    }
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

  // The chunk that the walk reaches as its step-th.
  void recompute_chunk(int64_t step) {
    chunk_first_ = (backwards() ? chunks_ - 1 - step : step) * chunk_;
    chunk_count_ = smaller(chunk_, shape_.length - chunk_first_);
    const int64_t start = backwards() ? chunk_count_ + 1 : 0;
    for (int64_t n = 0; n < shape_.state; ++n) {
      std::copy_n(hidden_ + n * kBlock, kBlock, state_row(n, start));
    }
    for (int64_t i = 0; i < ceil_div(chunk_count_, kTile); ++i) {
      enter_tile(i);
      recompute_tile();
    }
  }

  void recompute_tile() {
    const Parameters<S>& packed = packed_[at_.direction];
    S* const delta = delta_ + place_ * kBlock;
    S* const slope = slope_ + place_ * kBlock;
    S* const u = u_ + place_ * kBlock;
    const int64_t end = at_.tokens * kBlock;
    load_tile<V>(o_.u, at_, u);
    make_delta<V>(o_, at_, packed, delta);
    for (int64_t i = 0; shape_.softplus && i < end; i += kBlock) {
      W grows;
      softplus_of(W::load(delta + i), &grows).store(delta + i);
      grows.store(slope + i);
    }
    const Rows<S> B = rows_at<S>(o_.B, at_);
    for (int64_t n = 0; n < shape_.state; ++n) {
      S* const decay = decay_ + (n * chunk_ + place_) * kBlock;
      S* const states = state_row(n, place_ + 1);
      const W A = W::load(packed.A(n));
      for (int64_t i = 0; i < end; i += kBlock) {
        exp_of(W::load(delta + i) * A).store(decay + i);
      }
      W state = W::load(hidden_ + n * kBlock);
      const Walk walk(at_.tokens, backwards());
      for (int64_t t = walk.first, left = at_.tokens; left > 0;
           --left, t += walk.by) {
        const int64_t i = t * kBlock;
        const W drive = W::load(delta + i) * W::load(u + i);
        state = fma(W::load(decay + i), state, drive * W::set(B.at(n, t)));
        state.store(states + i);
      }
      state.store(hidden_ + n * kBlock);
    }
  }

  void reverse_tile() {
    load_tile<V>(o_.grad, at_, grad_y_);
    std::fill_n(grad_drive_, kTile * kBlock, S(0));
    std::fill_n(grad_delta_, kTile * kBlock, S(0));
    for (int64_t n = 0; n < shape_.state; ++n) reverse_state(n);
    finish_tile();
    if (shape_.rank > 0) finish_rank();
  }

  // Add gradients through state n to grad_drive_ (of delta * u) and
  // grad_delta_ (through the decay).
  void reverse_state(int64_t n) {
    const int64_t before = backwards() ? 2 : 0;
    const S* const decay = decay_ + (n * chunk_ + place_) * kBlock;
    const S* const states = state_row(n, place_ + 1);
    const S* const earlier = state_row(n, place_ + before);
    const S* const delta = delta_ + place_ * kBlock;
    const S* const u = u_ + place_ * kBlock;
    const S* const A = packed_[at_.direction].A(n);
    S* const A_sum = sums_[at_.direction].A(n);
    S* const B_out =
        rows_out_ + (shape_.rank + n) * o_.padded_length() + at_.first;
    S* const C_out = B_out + shape_.state * o_.padded_length();
    const Rows<S> Bs = rows_at<S>(o_.B, at_), Cs = rows_at<S>(o_.C, at_);
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
      const V B = V::set(Bs.at(n, t)), C = V::set(Cs.at(n, t));
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
        fma(g, B, V::load(grad_drive_ + i)).store(grad_drive_ + i);
        fma(through_decay, V::load(A + v * V::lanes), V::load(grad_delta_ + i))
            .store(grad_delta_ + i);
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

  // From the sums over states to the gradients of u and delta.
  void finish_tile() {
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
    if (ends) store_tile<V>(grad_u, at_, g_.u);
    if (g_.delta.data != nullptr) store_tile<V>(grad_delta_, at_, g_.delta);
  }

  // From the gradient of delta to those of dt_proj and dt.
  void finish_rank() {
    const Rows<S> dt = rows_at<S>(o_.dt, at_);
    const int64_t rank = shape_.rank, length = o_.padded_length();
    const S* const none = nullptr;
    multiply<V>(grad_delta_, at_.tokens, dt.data, dt.row, dt.token, rank, none,
                sums_[at_.direction].dt_proj());
    // Tokens side by side, so that the sum over channels needs no shuffles.
    std::fill(grad_delta_ + at_.tokens * kBlock, grad_delta_ + kTile * kBlock,
              S(0));
    for (int64_t t = 0; t < kTile; t += 8) {
      for (int64_t c = 0; c < kBlock; c += 8) {
        transpose8(grad_delta_ + t * kBlock + c, kBlock,
                   grad_drive_ + c * kTile + t, kTile);
      }
    }
    multiply<V>(grad_drive_, at_.block.width, packed_[at_.direction].dt_proj(),
                kBlock, 1, rank, none, rows_out_ + at_.first, length);
  }

  const Operands& o_;
  const Gradients& g_;
  const ScanShape& shape_;
  int64_t chunk_, chunks_;
  Parameters<S> packed_[2], sums_[2];
  S *hidden_, *grad_hidden_, *starts_, *delta_, *slope_, *u_, *decay_;
  S *states_, *grad_u_;
  S* rows_out_ = nullptr;
  TilePlace at_{};
  int64_t chunk_first_ = 0, chunk_count_ = 0, place_ = 0;
  alignas(64) S grad_y_[kTile * kBlock];
  alignas(64) S grad_drive_[kTile * kBlock];
  alignas(64) S grad_delta_[kTile * kBlock];
};

template <typename V>
inline void backward(const Operands& o, const Gradients& g, int64_t begin,
                     int64_t end) {
  BackwardBlock<V> worker(o, g);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t group = task / g.batch_groups;
    const int64_t last = (group + 1) * g.blocks / g.block_groups;
    for (int64_t block = group * g.blocks / g.block_groups; block < last;
         ++block) {
      worker.run(block, group, task % g.batch_groups);
    }
  }
}

}  // namespace selective_scan::cpu::SCAN_VARIANT
