// A plain C interface to the kernels around the scan, run on the CPU in
// float32, float64 and bfloat16.
#include "cuda_on_cpu.h"

#include <cstring>

#undef __launch_bounds__
#define __launch_bounds__(...)

// After the definitions that stand in for CUDA's.
#include "../../csrc/cuda/gated_norm.cuh"
#include "../../csrc/cuda/wavelet.cuh"

namespace {

using namespace selective_scan::cuda;

struct BFloat16 {
  uint16_t bits;
  BFloat16() = default;
  explicit BFloat16(float value) {
    uint32_t wide;
    std::memcpy(&wide, &value, sizeof(wide));
    bits = static_cast<uint16_t>((wide + 0x7fffu + (wide >> 16 & 1u)) >> 16);
  }
  explicit operator float() const {
    const uint32_t wide = static_cast<uint32_t>(bits) << 16;
    float value;
    std::memcpy(&value, &wide, sizeof(value));
    return value;
  }
};

template <typename Task>
void launch(void (*kernel)(Task), const Task& task, const Launch& shape) {
  cuda_on_cpu::launch(shape.blocks, static_cast<unsigned>(shape.threads),
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

// sizes: images, channels, height, width, side, bytes of shared memory.
// pointers: x, grad, weight, y, x_grad, weight_grad, its partial sums.
// strides of x, grad, y and x_grad.
template <typename T>
void wavelet(const int64_t* sizes, void* const* pointers,
             const int64_t* strides) {
  const auto in = [&](int i) { return static_cast<const T*>(pointers[i]); };
  const auto out = [&](int i) { return static_cast<T*>(pointers[i]); };
  const int64_t width = sizes[3];
  WaveletTask<T, float> task;
  task.images = static_cast<int>(sizes[0]);
  task.channels = static_cast<int>(sizes[1]);
  task.height = static_cast<int>(sizes[2]);
  task.width = static_cast<int>(width);
  task.side = static_cast<int>(sizes[4]);
  task.weight = static_cast<const float*>(pointers[2]);
  const int room = static_cast<int>(sizes[5]);
  auto kernel = wavelet_kernel<T, 7>;
  auto gradient = wavelet_gradient_kernel<T, 7>;
  if (task.side == 3) {
    kernel = wavelet_kernel<T, 3>;
    gradient = wavelet_gradient_kernel<T, 3>;
  } else if (task.side == 5) {
    kernel = wavelet_kernel<T, 5>;
    gradient = wavelet_gradient_kernel<T, 5>;
  }
  task.x = map_of(in(0), strides, width);
  task.y = map_of(out(3), strides + 8, width);
  fit_wavelet(task, false, room);
  launch(kernel, task, wavelet_launch(task, false));
  task.x = map_of(in(1), strides + 4, width);
  task.y = map_of(out(4), strides + 12, width);
  task.turned = true;
  launch(kernel, task, wavelet_launch(task, false));
  task.x = map_of(in(0), strides, width);
  task.grad = map_of(in(1), strides + 4, width);
  fit_wavelet(task, true, room);
  task.weight_grad = static_cast<float*>(pointers[6]);
  launch(gradient, task, wavelet_launch(task, true));
  sum_rows(task.weight_grad, static_cast<float*>(pointers[5]), task.groups,
           4 * task.channels * task.side * task.side);
}

// sizes: batch, channels, length, whether channels lie side by side, bytes of
// shared memory. pointers: x, z, grad, weight, bias, y, x_grad, z_grad,
// gradients of weight and bias, their partial sums. strides of x, z, grad, y,
// x_grad, z_grad.
template <typename T, typename P>
void gated_norm(const int64_t* sizes, void* const* pointers,
                const int64_t* strides, double eps) {
  const auto place = [&](int i, auto* data) {
    using E = std::remove_pointer_t<decltype(data)>;
    const int64_t* s = strides + 3 * i;
    return Tokens<E>{data, s[0], s[2], static_cast<int>(s[1])};
  };
  const auto in = [&](int i) { return static_cast<const T*>(pointers[i]); };
  const auto out = [&](int i) { return static_cast<T*>(pointers[i]); };
  NormTask<T, P> task;
  task.x = place(0, in(0));
  task.z = place(1, in(1));
  task.grad = place(2, in(2));
  task.y = place(3, out(5));
  task.x_grad = place(4, out(6));
  task.z_grad = place(5, out(7));
  task.weight = static_cast<const P*>(pointers[3]);
  task.bias = static_cast<const P*>(pointers[4]);
  task.partials = static_cast<P*>(pointers[9]);
  task.eps = static_cast<P>(eps);
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
  sum_rows(task.partials, static_cast<P*>(pointers[8]), task.blocks,
           2 * sizes[1]);
}

}  // namespace

// `type` is 0 for float32, 1 for float64, 2 for bfloat16.
extern "C" void run_wavelet(int type, const int64_t* sizes,
                            void* const* pointers, const int64_t* strides) {
  if (type == 0) wavelet<float>(sizes, pointers, strides);
  if (type == 2) wavelet<BFloat16>(sizes, pointers, strides);
}

extern "C" void run_gated_norm(int type, const int64_t* sizes,
                               void* const* pointers, const int64_t* strides,
                               double eps) {
  if (type == 0) gated_norm<float, float>(sizes, pointers, strides, eps);
  if (type == 1) gated_norm<double, double>(sizes, pointers, strides, eps);
  if (type == 2) gated_norm<BFloat16, float>(sizes, pointers, strides, eps);
}
