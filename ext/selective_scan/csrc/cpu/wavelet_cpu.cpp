// wavelet_conv2d on the CPU: 16 channels of an image at a time in float32, by
// the kernels of the inference operators; float64 by PyTorch's operators.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "../common/map_operands.h"
#include "../inference/feature_map_kernels.h"
#include "scratch.h"
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

// A block of channels of one image, between a map of any strides and type
// and cells of kMapBlock floats.
template <typename T>
struct Slab {
  T* data;
  int64_t channel, row, column;
  int64_t width, height, columns;

  template <typename Use>
  void visit(const Use& use) const {
    for (int64_t i = 0; i < height; ++i) {
      for (int64_t j = 0; j < columns; ++j) {
        T* from = data + i * row + j * column;
        for (int64_t c = 0; c < width; ++c) {
          use(from[c * channel], (i * columns + j) * kMapBlock + c);
        }
      }
    }
  }
};

template <typename T>
Slab<T> slab_of(const at::Tensor& x, T* data, int64_t index) {
  const int64_t blocks = cpu::blocks_of(x.size(1));
  const int64_t channel = index % blocks * kMapBlock;
  return {data + index / blocks * x.stride(0) + channel * x.stride(1),
          x.stride(1),
          x.stride(2),
          x.stride(3),
          smaller(kMapBlock, x.size(1) - channel),
          x.size(2),
          x.size(3)};
}

template <typename T>
void filter_slabs(const FilterTask& task, const at::Tensor& x,
                  const at::Tensor& y) {
  const auto& kernels = cpu::map_kernels();
  const T* from = x.const_data_ptr<T>();
  T* to = y.mutable_data_ptr<T>();
  const int64_t size = x.size(2) * x.size(3) * kMapBlock;
  FilterTask one = task;
  one.batch = 1;
  one.channels = kMapBlock;
  const size_t scratch = kernels.wavelet_scratch(one);
  const size_t bytes = (2 * size + scratch) * sizeof(float);
  const int64_t work = size * task.side * task.side;
  const int64_t blocks = cpu::blocks_of(x.size(1));
  share_tasks(x.size(0) * blocks, grain(work), [&](int64_t begin,
                                                   int64_t end) {
    float* in = static_cast<float*>(scratch_memory(bytes));
    float* out = in + size;
    FilterTask here = one;
    here.x = {in, 0, x.size(3) * kMapBlock, kMapBlock};
    here.y = {out, 0, x.size(3) * kMapBlock, kMapBlock};
    for (int64_t index = begin; index < end; ++index) {
      here.weight = task.weight + index % blocks * kMapBlock;
      std::fill(in, out, 0.0f);
      slab_of(x, from, index).visit([&](const T& value, int64_t i) {
        in[i] = static_cast<float>(value);
      });
      kernels.wavelet(here, 0, 1, out + size);
      slab_of(y, to, index).visit([&](T& value, int64_t i) {
        value = static_cast<T>(out[i]);
      });
    }
  });
}

void filter_maps(FilterTask& task, const at::Tensor& x, const at::Tensor& y) {
  const auto& kernels = cpu::map_kernels();
  task.x = {x.const_data_ptr<float>(), x.stride(0), x.stride(2), x.stride(3)};
  task.y = {y.mutable_data_ptr<float>(), y.stride(0), y.stride(2),
            y.stride(3)};
  const size_t bytes = kernels.wavelet_scratch(task) * sizeof(float);
  const int64_t work = task.height * task.width * task.side * task.side *
                       kMapBlock;
  share_tasks(task.batch * cpu::blocks_of(task.channels), grain(work),
              [&](int64_t begin, int64_t end) {
                kernels.wavelet(task, begin, end,
                                static_cast<float*>(scratch_memory(bytes)));
              });
}

// The Haar transform as a convolution, and the other way.
at::Tensor haar_filters(const at::Tensor& x) {
  const auto signs = at::tensor({1, 1, 1, 1, 1, 1, -1, -1, 1, -1, 1, -1, 1, -1,
                                 -1, 1},
                                x.options())
                         .view({4, 1, 2, 2});
  return (signs * 0.5).repeat({x.size(1), 1, 1, 1});
}

at::Tensor subbands(const at::Tensor& x) {
  const auto whole =
      at::constant_pad_nd(x, {0, x.size(3) % 2, 0, x.size(2) % 2});
  return at::conv2d(whole, haar_filters(x), {}, at::IntArrayRef{2, 2},
                    at::IntArrayRef{0, 0}, at::IntArrayRef{1, 1}, x.size(1));
}

at::Tensor filter_plainly(const at::Tensor& x, const at::Tensor& weight) {
  const int64_t half = weight.size(2) / 2;
  const auto bands = at::conv2d(
      subbands(x), weight, {}, at::IntArrayRef{1, 1},
      at::IntArrayRef{half, half}, at::IntArrayRef{1, 1}, weight.size(0));
  return at::conv_transpose2d(bands, haar_filters(x), {}, {2, 2}, {0, 0},
                              {0, 0}, x.size(1))
      .narrow(2, 0, x.size(2))
      .narrow(3, 0, x.size(3));
}

at::Tensor filter(const at::Tensor& x, const at::Tensor& weight) {
  auto y = empty_like_map(x);
  if (y.numel() == 0) return y;
  if (x.scalar_type() == at::kDouble) {
    return y.copy_(filter_plainly(x, weight));
  }
  const auto packed = pack(weight);
  FilterTask task;
  task.batch = x.size(0);
  task.channels = x.size(1);
  task.height = x.size(2);
  task.width = x.size(3);
  task.side = weight.size(2);
  task.padded = packed.size(3);
  task.weight = packed.const_data_ptr<float>();
  if (x.scalar_type() == at::kHalf) {
    filter_slabs<at::Half>(task, x, y);
  } else if (x.scalar_type() == at::kBFloat16) {
    filter_slabs<at::BFloat16>(task, x, y);
  } else if (x.stride(1) == 1 && y.stride(1) == 1) {
    filter_maps(task, x, y);
  } else {
    filter_slabs<float>(task, x, y);
  }
  return y;
}

at::Tensor wavelet_conv2d_cpu(const at::Tensor& x, const at::Tensor& weight) {
  check_wavelet(x, weight);
  return filter(x, weight);
}

std::tuple<at::Tensor, at::Tensor> wavelet_conv2d_backward_cpu(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight) {
  const int64_t side = check_wavelet(x, weight);
  check_alike("grad", grad, x);
  if (x.numel() == 0) return {empty_like_map(x), at::zeros_like(weight)};
  // The transform is orthonormal: its adjoint is its inverse.
  auto grad_x = empty_like_map(x).copy_(filter(grad, weight.flip({2, 3})));
  const auto type = weight.scalar_type();
  auto grad_weight = std::get<1>(at::convolution_backward(
      subbands(grad.to(type)), subbands(x.to(type)), weight, std::nullopt, {1, 1},
      {side / 2, side / 2}, {1, 1}, false, {0, 0}, weight.size(0),
      {false, true, false}));
  return {grad_x, grad_weight};
}

}  // namespace

TORCH_LIBRARY_IMPL(selective_scan, CPU, m) {
  m.impl("wavelet_conv2d", &wavelet_conv2d_cpu);
  m.impl("wavelet_conv2d_backward", &wavelet_conv2d_backward_cpu);
}

}  // namespace selective_scan
