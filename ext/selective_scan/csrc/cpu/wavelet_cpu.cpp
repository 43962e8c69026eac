// wavelet_conv2d on the CPU: blocks of channels of an image at a time, in
// float32; float64 by PyTorch's operators.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "../common/map_operands.h"
#include "../common/plain_wavelet.h"
#include "scratch.h"
#include "slab.h"
#include "work_stealing.h"

namespace selective_scan {
namespace {

using cpu::FilterTask;
using cpu::kMapBlock;

// Weights (side, side, 4, padded) for the kernels.
at::Tensor pack(const at::Tensor& weight) {
  const int64_t channels = weight.size(0) / 4, side = weight.size(2);
  auto packed = at::zeros(
      {side, side, 4, cpu::blocks_of(channels) * kMapBlock}, weight.options());
  packed.narrow(3, 0, channels)
      .copy_(weight.reshape({channels, 4, side, side}).permute({2, 3, 1, 0}));
  return packed;
}

// A block of the channels of one image.
template <typename T>
Slab<T> block_of(Slab<T> map, int64_t image_stride, int64_t image,
                 int64_t block) {
  const int64_t first = block * kMapBlock;
  map.data += image * image_stride + first * map.channel;
  map.channels = smaller(kMapBlock, map.channels - first);
  map.pitch = kMapBlock;
  return map;
}

FilterTask block_task(const at::Tensor& x, int64_t side) {
  FilterTask task;
  task.batch = 1;
  task.channels = kMapBlock;
  task.height = x.size(2);
  task.width = x.size(3);
  task.side = side;
  return task;
}

size_t scratch_bytes(const at::Tensor& x, size_t floats) {
  // For two copies beside what the kernels take.
  const auto cells = static_cast<size_t>(x.size(2) * x.size(3));
  return (2 * cells * kMapBlock + floats) * sizeof(float);
}

void filter(const at::Tensor& x, const at::Tensor& weight,
            const at::Tensor& y) {
  const auto packed = pack(weight);
  const auto& kernels = cpu::feature_map_kernels();
  const int64_t blocks = cpu::blocks_of(x.size(1)), side = weight.size(2);
  const auto from = slab_of(x);
  const auto to = mutable_slab_of(y);
  FilterTask task = block_task(x, side);
  task.padded = packed.size(3);
  const size_t bytes = scratch_bytes(x, kernels.wavelet_scratch(task));
  const int64_t work = x.size(2) * x.size(3) * side * side * kMapBlock;
  share_tasks(
      x.size(0) * blocks, grain(work), [&](int64_t begin, int64_t end) {
        for (int64_t index = begin; index < end; ++index) {
          const int64_t image = index / blocks, block = index % blocks;
          float* memory = static_cast<float*>(scratch_memory(bytes));
          auto in = block_of(from, x.stride(0), image, block);
          auto out = block_of(to, y.stride(0), image, block);
          in.take(memory);
          out.take(memory);
          in.load();
          FilterTask here = task;
          here.channels = in.channels;
          here.x = in.view();
          here.y = out.view();
          here.weight = packed.const_data_ptr<float>() + block * kMapBlock;
          kernels.wavelet(here, 0, 1, memory);
          out.store();
        }
      });
}

// A task has some of the images, so that sums are taken in the same order
// whatever the number of threads.
at::Tensor filter_gradient(const at::Tensor& grad, const at::Tensor& x,
                           int64_t side) {
  const auto& kernels = cpu::feature_map_kernels();
  const int64_t channels = x.size(1), blocks = cpu::blocks_of(channels);
  const int64_t groups = smaller(x.size(0), ceil_div(32, blocks));
  const int64_t size = side * side * 4 * kMapBlock;
  const auto map = slab_of(x), map_grad = slab_of(grad);
  const FilterTask task = block_task(x, side), grad_task = block_task(x, 1);
  const size_t bytes =
      scratch_bytes(x, kernels.wavelet_gradient_scratch(task));
  const auto sums = at::zeros({groups, blocks, side * side, 4, kMapBlock},
                              x.options());
  share_tasks(groups * blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t block = i % blocks;
      for (int64_t b = i / blocks; b < x.size(0); b += groups) {
        float* memory = static_cast<float*>(scratch_memory(bytes));
        auto in = block_of(map, x.stride(0), b, block);
        auto in_grad = block_of(map_grad, grad.stride(0), b, block);
        in.take(memory);
        in_grad.take(memory);
        in.load();
        in_grad.load();
        FilterTask here = task, beside = grad_task;
        here.channels = beside.channels = in.channels;
        here.x = in.view();
        beside.x = in_grad.view();
        kernels.wavelet_gradient(here, beside, 0,
                                 sums.mutable_data_ptr<float>() + i * size,
                                 memory);
      }
    }
  });
  return (sums.sum(0) * 0.25)  // both transforms' factors
      .permute({0, 3, 2, 1})
      .reshape({blocks * kMapBlock * 4, 1, side, side})
      .narrow(0, 0, 4 * channels)
      .contiguous();
}

at::Tensor filtered(const at::Tensor& x, const at::Tensor& weight,
                    const at::Tensor& like) {
  auto y = empty_like_map(like);
  if (y.numel() == 0) return y;
  if (y.scalar_type() == at::kDouble) return y.copy_(plain_wavelet(x, weight));
  const auto wide = y.to(at::kFloat);
  filter(x.to(at::kFloat), weight, wide);
  return wide.is_same(y) ? y : y.copy_(wide);
}

at::Tensor wavelet_conv2d_cpu(const at::Tensor& x, const at::Tensor& weight) {
  check_wavelet(x, weight);
  return filtered(x, weight, x);
}

std::tuple<at::Tensor, at::Tensor> wavelet_conv2d_backward_cpu(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight) {
  check_wavelet(x, weight);
  check_alike("grad", grad, x);
  // The transform is orthonormal: its adjoint is its inverse.
  const auto grad_x = filtered(grad, weight.flip({2, 3}), x);
  if (x.numel() == 0) {
    return {grad_x, at::zeros(weight.sizes(), weight.options())};
  }
  return {grad_x, x.scalar_type() == at::kDouble
                      ? plain_wavelet_gradient(grad, x, weight)
                      : filter_gradient(grad.to(at::kFloat),
                                        x.to(at::kFloat), weight.size(2))};
}

}  // namespace

TORCH_LIBRARY_IMPL(selective_scan, CPU, m) {
  m.impl("wavelet_conv2d", &wavelet_conv2d_cpu);
  m.impl("wavelet_conv2d_backward", &wavelet_conv2d_backward_cpu);
}

}  // namespace selective_scan
