// A plain C interface to the kernels around the scan, in float32, float64 and
// bfloat16.
#include "cuda_on_cpu.h"

// After the definitions that stand in for CUDA's.
#include "../../csrc/cuda/gated_norm.cuh"
#include "../../csrc/cuda/wavelet.cuh"

namespace {

using namespace selective_scan::cuda;
using cuda_on_cpu::Tensor;

template <typename Task>
void launch(void (*kernel)(Task), const Task& task, const Launch& shape) {
  cuda_on_cpu::launch({static_cast<unsigned>(shape.blocks)},
                      static_cast<unsigned>(shape.threads),
                      static_cast<size_t>(shape.bytes),
                      [&] { kernel(task); });
}

template <typename P>
void sum_rows(const P* from, P* to, int64_t rows, int64_t columns) {
  SumTask<P> task;
  task.from = from;
  task.to = to;
  task.rows = static_cast<int>(rows);
  task.columns = static_cast<int>(columns);
  task.split = task.columns / 2;
  task.rest = to + task.split;
  launch(sum_rows_kernel<P>, task, sum_launch(task));
}

// Sizes: images, channels, height, width, side, bytes of shared memory.
// Tensors: x, grad, weight, y, x_grad, weight_grad, its partial sums.
template <typename T>
void wavelet(const int64_t* sizes, const Tensor* t) {
  const auto size = [&](int i) { return static_cast<int>(sizes[i]); };
  const auto map = [&](int i, auto* data) {
    return map_of(data, t[i].strides, sizes[3]);
  };
  const T *x = t[0], *grad = t[1];
  T *y = t[3], *x_grad = t[4];
  const int room = size(5);
  WaveletTask<T, float> task;
  task.images = size(0);
  task.channels = size(1);
  task.height = size(2);
  task.width = size(3);
  task.side = size(4);
  task.weight = t[2];
  auto kernel = wavelet_kernel<T, 7>;
  auto gradient = wavelet_gradient_kernel<T, 7>;
  if (task.side == 3) {
    kernel = wavelet_kernel<T, 3>;
    gradient = wavelet_gradient_kernel<T, 3>;
  } else if (task.side == 5) {
    kernel = wavelet_kernel<T, 5>;
    gradient = wavelet_gradient_kernel<T, 5>;
  }
  task.x = map(0, x);
  task.y = map(3, y);
  fit_wavelet(task, false, room);
  launch(kernel, task, wavelet_launch(task, false));
  task.x = map(1, grad);
  task.y = map(4, x_grad);
  task.turned = true;
  launch(kernel, task, wavelet_launch(task, false));
  task.x = map(0, x);
  task.grad = map(1, grad);
  fit_wavelet(task, true, room);
  task.weight_grad = t[6];
  launch(gradient, task, wavelet_launch(task, true));
  sum_rows<float>(task.weight_grad, t[5], task.groups,
                  4 * task.channels * task.side * task.side);
}

// Sizes: batch, channels, length, whether channels lie side by side, bytes of
// shared memory. Tensors: x, z, grad, weight, bias, y, x_grad, z_grad,
// gradients of weight and bias, their partial sums.
template <typename T, typename P>
void gated_norm(const int64_t* sizes, const Tensor* t) {
  const auto place = [&](auto& tokens, int i) {
    const int64_t* s = t[i].strides;
    tokens = {t[i], s[0], s[2], static_cast<int>(s[1])};
  };
  NormTask<T, P> task;
  place(task.x, 0);
  place(task.z, 1);
  place(task.grad, 2);
  task.weight = t[3];
  task.bias = t[4];
  place(task.y, 5);
  place(task.x_grad, 6);
  place(task.z_grad, 7);
  task.partials = t[9];
  task.eps = static_cast<P>(1e-5);
  task.tokens = static_cast<int>(sizes[0] * sizes[2]);
  task.channels = static_cast<int>(sizes[1]);
  task.length = static_cast<int>(sizes[2]);
  task.channels_last = sizes[3] != 0;
  const int room = static_cast<int>(sizes[4]);
  fit_gated_norm(task, false, room);
  launch(task.channels_last ? gated_norm_kernel<T, P, true>
                            : gated_norm_kernel<T, P, false>,
         task, norm_launch(task, false));
  fit_gated_norm(task, true, room);
  // Fewer blocks than tiles, so that some of them take several.
  if (task.blocks > 2) task.blocks = (task.blocks + 1) / 2;
  launch(task.channels_last ? gated_norm_backward_kernel<T, P, true>
                            : gated_norm_backward_kernel<T, P, false>,
         task, norm_launch(task, true));
  sum_rows<P>(task.partials, t[8], task.blocks, 2 * sizes[1]);
}

}  // namespace

// Type: 0 for float32, 1 for float64, 2 for bfloat16.
extern "C" void run_wavelet(int type, const int64_t* sizes,
                            const Tensor* tensors) {
  if (type == 0) wavelet<float>(sizes, tensors);
  if (type == 2) wavelet<__nv_bfloat16>(sizes, tensors);
}

extern "C" void run_gated_norm(int type, const int64_t* sizes,
                               const Tensor* tensors) {
  if (type == 0) gated_norm<float, float>(sizes, tensors);
  if (type == 1) gated_norm<double, double>(sizes, tensors);
  if (type == 2) gated_norm<__nv_bfloat16, float>(sizes, tensors);
}
