// gated_layer_norm on the CPU: some tokens at a time, in float32; float64 by
// PyTorch's operators.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "../common/map_operands.h"
#include "scratch.h"
#include "slab.h"
#include "work_stealing.h"

namespace selective_scan {
namespace {

using cpu::GatedNormGradients;
using cpu::GatedNormTask;

constexpr int64_t kTokens = 32;  // that are copied at a time

GatedNormTask norm_task(const at::Tensor& x, const at::Tensor& weight,
                        const at::Tensor& bias, double eps) {
  GatedNormTask task;
  task.length = kTokens;
  task.channels = x.size(1);
  task.weight = weight.const_data_ptr<float>();
  task.bias = bias.const_data_ptr<float>();
  task.eps = static_cast<float>(eps);
  return task;
}

// Calls use(task, image, first token, tokens) for runs of tokens; a task has
// some of all, whatever the number of threads.
template <typename Use>
void visit_runs(const at::Tensor& x, int64_t tasks, const Use& use) {
  const int64_t runs = ceil_div(x.size(2), kTokens), all = x.size(0) * runs;
  share_tasks(tasks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      for (int64_t i = all * task / tasks; i < all * (task + 1) / tasks; ++i) {
        const int64_t first = i % runs * kTokens;
        use(task, i / runs, first, smaller(kTokens, x.size(2) - first));
      }
    }
  });
}

// The tokens of a run, of what is (batch, channels, length, 1).
template <typename T>
Slab<T> run_of(Slab<T> map, const at::Tensor& x, int64_t b, int64_t t,
               int64_t count, float*& memory) {
  map.data += b * x.stride(0) + t * x.stride(2);
  map.rows = count;
  map.take(memory);
  return map;
}

void forward(const at::Tensor& x, const at::Tensor& z,
             const GatedNormTask& task, const at::Tensor& y) {
  const auto& kernels = cpu::feature_map_kernels();
  const auto xs = slab_of(x), zs = slab_of(z);
  const auto ys = mutable_slab_of(y);
  const size_t bytes = static_cast<size_t>(3 * kTokens * task.channels) *
                       sizeof(float);
  const int64_t tasks = ceil_div(x.numel() * 16, kGrain);
  visit_runs(x, tasks, [&](int64_t, int64_t b, int64_t t, int64_t count) {
    float* memory = static_cast<float*>(scratch_memory(bytes));
    const auto in = run_of(xs, x, b, t, count, memory);
    const auto gate = run_of(zs, z, b, t, count, memory);
    const auto out = run_of(ys, y, b, t, count, memory);
    in.load();
    gate.load();
    GatedNormTask here = task;
    here.x = in.view();
    here.z = gate.view();
    here.y = out.view();
    kernels.gated_norm(here, 0, count);
    out.store();
  });
}

// Gradients of weight and bias, (2, channels).
at::Tensor backward(const at::Tensor& grad, const at::Tensor& x,
                    const at::Tensor& z, const GatedNormTask& task,
                    const at::Tensor& x_grad, const at::Tensor& z_grad) {
  const auto& kernels = cpu::feature_map_kernels();
  const auto xs = slab_of(x), zs = slab_of(z), grads = slab_of(grad);
  const auto x_grads = mutable_slab_of(x_grad);
  const auto z_grads = mutable_slab_of(z_grad);
  const int64_t padded = cpu::blocks_of(task.channels) * cpu::kMapBlock;
  const size_t bytes = static_cast<size_t>(5 * kTokens * task.channels) *
                       sizeof(float);
  const int64_t tasks = smaller(ceil_div(x.numel() * 64, kGrain), 64);
  const auto sums = at::zeros({tasks, 2, padded}, x.options());
  visit_runs(x, tasks, [&](int64_t i, int64_t b, int64_t t, int64_t count) {
    float* memory = static_cast<float*>(scratch_memory(bytes));
    const auto in = run_of(xs, x, b, t, count, memory);
    const auto gate = run_of(zs, z, b, t, count, memory);
    const auto in_grad = run_of(grads, grad, b, t, count, memory);
    const auto out = run_of(x_grads, x_grad, b, t, count, memory);
    const auto out_gate = run_of(z_grads, z_grad, b, t, count, memory);
    in.load();
    gate.load();
    in_grad.load();
    GatedNormTask here = task;
    here.x = in.view();
    here.z = gate.view();
    GatedNormGradients to;
    to.y = in_grad.view();
    to.x = out.view();
    to.z = out_gate.view();
    to.weight = sums.mutable_data_ptr<float>() + i * 2 * padded;
    to.bias = to.weight + padded;
    kernels.gated_norm_backward(here, to, 0, count);
    out.store();
    out_gate.store();
  });
  return sums.sum(0).narrow(1, 0, task.channels);
}

// (batch, channels, length) as float32 (batch, channels, length, 1).
at::Tensor wide(const at::Tensor& x) {
  return x.to(at::kFloat).unsqueeze(3);
}

at::Tensor gated_layer_norm_cpu(const at::Tensor& x, const at::Tensor& z,
                                const at::Tensor& weight,
                                const at::Tensor& bias, double eps) {
  check_gated_norm(x, z, weight, bias, eps);
  auto y = empty_like_map(x);
  if (y.numel() == 0) return y;
  if (x.scalar_type() == at::kDouble) {
    const auto norm =
        at::layer_norm(x.transpose(1, 2), {x.size(1)}, weight, bias, eps);
    return y.copy_(norm.transpose(1, 2) * at::silu(z));
  }
  const auto factor = weight.contiguous(), shift = bias.contiguous();
  const auto out = y.to(at::kFloat);
  forward(wide(x), wide(z), norm_task(x, factor, shift, eps),
          out.unsqueeze(3));
  return out.is_same(y) ? y : y.copy_(out);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>
gated_layer_norm_backward_cpu(const at::Tensor& grad, const at::Tensor& x,
                              const at::Tensor& z, const at::Tensor& weight,
                              const at::Tensor& bias, double eps) {
  check_gated_norm(x, z, weight, bias, eps);
  check_alike("grad", grad, x);
  auto grad_x = empty_like_map(x), grad_z = empty_like_map(z);
  if (x.numel() == 0) {
    return {grad_x, grad_z, at::zeros(weight.sizes(), weight.options()),
            at::zeros(bias.sizes(), bias.options())};
  }
  const int64_t channels = x.size(1);
  if (x.scalar_type() == at::kDouble) {
    const auto tokens = x.transpose(1, 2).contiguous();
    const auto [norm, mean, slope] =
        at::native_layer_norm(tokens, {channels}, weight, bias, eps);
    const auto [row_grad, weight_grad, bias_grad] =
        at::native_layer_norm_backward(
            (grad * at::silu(z)).transpose(1, 2).contiguous(), tokens,
            {channels}, mean, slope, weight, bias, {true, true, true});
    return {grad_x.copy_(row_grad.transpose(1, 2)),
            grad_z.copy_(at::silu_backward(grad * norm.transpose(1, 2), z)),
            weight_grad, bias_grad};
  }
  const auto factor = weight.contiguous(), shift = bias.contiguous();
  const auto out = grad_x.to(at::kFloat), out_gate = grad_z.to(at::kFloat);
  const auto sums =
      backward(wide(grad), wide(x), wide(z), norm_task(x, factor, shift, eps),
               out.unsqueeze(3), out_gate.unsqueeze(3));
  if (!out.is_same(grad_x)) {
    grad_x.copy_(out);
    grad_z.copy_(out_gate);
  }
  return {grad_x, grad_z, sums[0].clone(), sums[1].clone()};
}

}  // namespace

TORCH_LIBRARY_IMPL(selective_scan, CPU, m) {
  m.impl("gated_layer_norm", &gated_layer_norm_cpu);
  m.impl("gated_layer_norm_backward", &gated_layer_norm_backward_cpu);
}

}  // namespace selective_scan
