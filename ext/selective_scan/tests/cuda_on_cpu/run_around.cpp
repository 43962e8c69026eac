// A plain C interface to the kernels around the scan.
#include "cuda_on_cpu.h"

// After the definitions that stand in for CUDA's.
#include "../../csrc/cuda/around.cu"

namespace {

using namespace selective_scan::cuda;
using cuda_on_cpu::Tensor;

// Over `rows` rows of partial sums.
template <typename P>
void sum_rows(const P* from, P* to, int64_t rows, int64_t columns) {
  std::fill_n(to, columns, P(0));
  for (int64_t i = 0; i < rows * columns; ++i) to[i % columns] += from[i];
}

template <typename T>
void wavelet_of(const int64_t* sizes, const Tensor* t) {
  const auto size = [&](int i) { return static_cast<int>(sizes[i]); };
  Wavelet<T> w{};
  w.images = size(0);
  w.channels = size(1);
  w.height = size(2);
  w.width = size(3);
  w.side = size(4);
  const auto run = [&](bool gradient) {
    plan_wavelet(w, gradient, size(5));
    launch_wavelet(w, gradient);
  };
  const auto map = [&](auto& to, int i) {
    to = map_of<std::remove_pointer_t<decltype(to.data)>>(
        t[i], t[i].strides, w.width);
  };
  w.weight = t[2];
  w.weight_grad = t[6];
  map(w.x, 0);
  map(w.y, 3);
  run(false);
  map(w.grad, 1);
  run(true);
  sum_rows<float>(t[6], t[5], w.groups, 4 * w.channels * w.side * w.side);
  map(w.x, 1);
  map(w.y, 4);
  w.turned = true;
  run(false);
}

template <typename T, typename P>
void norm_of(const int64_t* sizes, const Tensor* t) {
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
  n.channels_last = sizes[3] != 0;
  for (const bool backward : {false, true}) {
    plan_gated_norm(n, backward, static_cast<int>(sizes[4]));
    // Fewer blocks than tiles, so that some of them take several.
    if (backward && n.blocks > 2) n.blocks = (n.blocks + 1) / 2;
    launch_gated_norm(n, backward);
  }
  sum_rows<P>(t[9], t[8], n.blocks, 2 * n.channels);
}

}  // namespace

// Type: 0 for float32, 1 for float64, 2 for bfloat16.
// Sizes: images, channels, height, width, side, bytes of shared memory.
// Tensors: x, grad, weight, y, x_grad, weight_grad, its partial sums.
extern "C" void run_wavelet(int type, const int64_t* sizes,
                            const Tensor* tensors) {
  if (type == 0) wavelet_of<float>(sizes, tensors);
  if (type == 2) wavelet_of<c10::BFloat16>(sizes, tensors);
}

// Sizes: batch, channels, length, whether channels lie side by side, bytes of
// shared memory. Tensors: x, z, grad, weight, bias, y, x_grad, z_grad,
// gradients of weight and bias, their partial sums.
extern "C" void run_gated_norm(int type, const int64_t* sizes,
                               const Tensor* tensors) {
  if (type == 0) norm_of<float, float>(sizes, tensors);
  if (type == 1) norm_of<double, double>(sizes, tensors);
  if (type == 2) norm_of<c10::BFloat16, float>(sizes, tensors);
}
