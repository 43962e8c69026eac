// A plain C interface to the kernels around the scan.
#include "cuda_on_cpu.h"

// After the definitions that stand in for CUDA's.
#include "../../csrc/cuda/gated_norm.cuh"
#include "../../csrc/cuda/wavelet.cuh"

namespace {

using namespace selective_scan::cuda;
using cuda_on_cpu::Tensor;

// Over `rows` rows of partial sums.
template <typename P>
void sum_rows(const P* from, P* to, int64_t rows, int64_t columns) {
  std::fill_n(to, columns, P(0));
  for (int64_t i = 0; i < rows * columns; ++i) to[i % columns] += from[i];
}

template <typename T, int side>
void run_side(Wavelet<T> w, const Tensor* t, int room) {
  const auto run = [&](auto kernel, bool gradient) {
    plan_wavelet(w, gradient, room);
    cuda_on_cpu::launch({static_cast<unsigned>(w.blocks)}, w.threads, w.bytes,
                        [&] { kernel(w); });
  };
  const auto map = [&](int i, auto* data) {
    return map_of(data, t[i].strides, w.width);
  };
  const T *x = t[0], *grad = t[1];
  w.weight = t[2];
  w.weight_grad = t[6];
  w.x = map(0, x);
  w.y = map(3, static_cast<T*>(t[3]));
  run(wavelet<T, side>, false);
  w.grad = map(1, grad);
  run(wavelet_gradient<T, side>, true);
  sum_rows<float>(t[6], t[5], w.groups, 4 * w.channels * side * side);
  w.x = w.grad;
  w.y = map(4, static_cast<T*>(t[4]));
  w.turned = true;
  run(wavelet<T, side>, false);
}

template <typename T>
void run_map(const int64_t* sizes, const Tensor* t) {
  const auto size = [&](int i) { return static_cast<int>(sizes[i]); };
  Wavelet<T> w{};
  w.images = size(0);
  w.channels = size(1);
  w.height = size(2);
  w.width = size(3);
  w.side = size(4);
  if (w.side == 3) run_side<T, 3>(w, t, size(5));
  if (w.side == 5) run_side<T, 5>(w, t, size(5));
  if (w.side == 7) run_side<T, 7>(w, t, size(5));
}

template <typename T, typename P, bool kChannelsLast>
void run_tokens(const int64_t* sizes, const Tensor* t) {
  const auto place = [&](auto& tokens, int i) {
    const int64_t* s = t[i].strides;
    tokens = {t[i], s[0], s[2], static_cast<int>(s[1])};
  };
  GatedNorm<T, P> n{};
  place(n.x, 0);
  place(n.z, 1);
  place(n.grad, 2);
  n.weight = t[3];
  n.bias = t[4];
  place(n.y, 5);
  place(n.x_grad, 6);
  place(n.z_grad, 7);
  n.partials = t[9];
  n.eps = static_cast<P>(1e-5);
  n.tokens = static_cast<int>(sizes[0] * sizes[2]);
  n.channels = static_cast<int>(sizes[1]);
  n.length = static_cast<int>(sizes[2]);
  n.channels_last = kChannelsLast;
  const auto run = [&](auto kernel, bool backward) {
    plan_gated_norm(n, backward, static_cast<int>(sizes[4]));
    // Fewer blocks than tiles, so that some of them take several.
    if (backward && n.blocks > 2) n.blocks = (n.blocks + 1) / 2;
    cuda_on_cpu::launch({static_cast<unsigned>(n.blocks)}, 32 * n.warps,
                        n.bytes, [&] { kernel(n); });
  };
  run(gated_norm<T, P, kChannelsLast>, false);
  run(gated_norm_backward<T, P, kChannelsLast>, true);
  sum_rows<P>(t[9], t[8], n.blocks, 2 * n.channels);
}

template <typename T, typename P>
void run_norm(const int64_t* sizes, const Tensor* t) {
  sizes[3] != 0 ? run_tokens<T, P, true>(sizes, t)
                : run_tokens<T, P, false>(sizes, t);
}

}  // namespace

// Type: 0 for float32, 1 for float64, 2 for bfloat16.
// Sizes: images, channels, height, width, side, bytes of shared memory.
// Tensors: x, grad, weight, y, x_grad, weight_grad, its partial sums.
extern "C" void run_wavelet(int type, const int64_t* sizes,
                            const Tensor* tensors) {
  if (type == 0) run_map<float>(sizes, tensors);
  if (type == 2) run_map<c10::BFloat16>(sizes, tensors);
}

// Sizes: batch, channels, length, whether channels lie side by side, bytes of
// shared memory. Tensors: x, z, grad, weight, bias, y, x_grad, z_grad,
// gradients of weight and bias, their partial sums.
extern "C" void run_gated_norm(int type, const int64_t* sizes,
                               const Tensor* tensors) {
  if (type == 0) run_norm<float, float>(sizes, tensors);
  if (type == 1) run_norm<double, double>(sizes, tensors);
  if (type == 2) run_norm<c10::BFloat16, float>(sizes, tensors);
}
