// The operators on the CPU: operands for the kernels, threads, final sums.
#include <ATen/Parallel.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <string>
#include <tuple>
#include <vector>

#include "../common/operands.h"
#include "kernels.h"
#include "work_stealing.h"

namespace selective_scan {
namespace {

using cpu::BackwardPlan;
using cpu::Gradients;
using cpu::Operands;
using cpu::ScanKernels;

const ScanKernels& kernels_for(const at::Tensor& tensor) {
  const auto& variant = cpu::current_variant();
  switch (tensor.scalar_type()) {
    case at::kDouble:
      return cpu::plain_double_kernels();
    case at::kHalf:
      return variant.scan_half;
    case at::kBFloat16:
      return variant.scan_bfloat16;
    default:
      return variant.scan_float;
  }
}

// Operands with what they point into.
struct Inputs {
  Operands operands;
  std::vector<at::Tensor> owners;

  const void* keep(const at::Tensor& tensor) {
    owners.push_back(tensor);
    return tensor.const_data_ptr();
  }
  const void* keep(const OptionalTensor& tensor) {
    return tensor.has_value() ? keep(tensor->contiguous()) : nullptr;
  }
  void set_u(const at::Tensor& u) {
    const auto usable = with_unit_stride(u);
    operands.u = keep(usable);
    operands.u_strides = channel_strides(usable);
  }
  void set_grad(const at::Tensor& grad) {
    const auto usable = with_unit_stride(grad);
    operands.grad = keep(usable);
    operands.grad_strides = channel_strides(usable);
  }
  void set_y(const at::Tensor& y) {
    operands.y = y.mutable_data_ptr();
    operands.y_strides = channel_strides(y);
  }
};

Inputs plain_inputs(const ScanShape& shape, const at::Tensor& u,
                    const at::Tensor& delta, const at::Tensor& A,
                    const at::Tensor& B, const at::Tensor& C,
                    const OptionalTensor& D,
                    const OptionalTensor& delta_bias) {
  Inputs in;
  in.operands.shape = shape;
  in.set_u(u);
  const auto steps = with_unit_stride(delta);
  in.operands.delta = in.keep(steps);
  in.operands.delta_strides = channel_strides(steps);
  in.operands.B = in.keep(B);
  in.operands.B_strides = row_strides(B);
  in.operands.C = in.keep(C);
  in.operands.C_strides = row_strides(C);
  in.operands.A = in.keep(A.contiguous());
  in.operands.D = in.keep(D);
  in.operands.bias = in.keep(delta_bias);
  return in;
}

Inputs fused_inputs(const ScanShape& shape, const at::Tensor& u,
                    const at::Tensor& proj, const at::Tensor& dt_proj,
                    const at::Tensor& dt_bias, const at::Tensor& A,
                    const at::Tensor& D) {
  Inputs in;
  in.operands.shape = shape;
  in.set_u(u);
  const auto* rows = static_cast<const char*>(in.keep(proj));
  const auto row_bytes =
      proj.stride(2) * static_cast<int64_t>(proj.element_size());
  in.operands.dt = rows;
  in.operands.B = rows + shape.rank * row_bytes;
  in.operands.C = rows + (shape.rank + shape.state) * row_bytes;
  in.operands.dt_strides = row_strides(proj);
  in.operands.B_strides = in.operands.C_strides = in.operands.dt_strides;
  in.operands.dt_proj = in.keep(dt_proj.contiguous());
  in.operands.bias = in.keep(dt_bias.contiguous());
  in.operands.A = in.keep(A.contiguous());
  in.operands.D = in.keep(D.contiguous());
  return in;
}

at::Tensor forward(Inputs& in, const at::Tensor& u) {
  auto y = empty_like_layout(u);
  if (y.numel() == 0) return y;
  in.set_y(y);
  const Operands& operands = in.operands;
  const ScanKernels& kernels = kernels_for(u);
  const int64_t tasks =
      count_blocks(operands.shape, cpu::kBlock) * operands.shape.batch;
  share_tasks(tasks, 1, [&](int64_t begin, int64_t end) {
    kernels.forward(operands, begin, end);
  });
  return y;
}

int64_t at_least_one(int64_t n) { return n < 1 ? 1 : n; }

BackwardPlan plan_backward(const ScanShape& shape) {
  // Enough tasks for many threads, yet each worth the sums that it adds.
  const int64_t steps = shape.batch * shape.channels * shape.length;
  const int64_t tasks = at_least_one(smaller(steps / 8192, 64));
  BackwardPlan plan;
  plan.blocks = count_blocks(shape, cpu::kBlock);
  plan.batch_groups = at_least_one(smaller(shape.batch, ceil_div(tasks, 4)));
  plan.block_groups =
      at_least_one(smaller(plan.blocks, ceil_div(tasks, plan.batch_groups)));
  plan.rows = shape.rank + 2 * shape.state;
  plan.columns = ceil_div(shape.length, cpu::kTile) * cpu::kTile;
  plan.parameters = shape.rank + shape.state + 2;  // dt_proj, A, D, bias
  return plan;
}

// Partial sums of the backward pass, see cpu::Gradients.
struct Partials {
  BackwardPlan plan;
  at::Tensor rows;
  at::Tensor parameters;
};

Partials backward(Inputs& in, const at::Tensor& grad, const at::Tensor& grad_u,
                  const at::Tensor& grad_delta) {
  in.set_grad(grad);
  const Operands& operands = in.operands;
  const ScanShape& shape = operands.shape;
  Partials partials;
  partials.plan = plan_backward(shape);
  const BackwardPlan& plan = partials.plan;
  const auto options = grad.options().dtype(state_type(grad.scalar_type()));
  partials.rows = at::zeros(
      {plan.block_groups, shape.batch, shape.sets(), plan.rows, plan.columns},
      options);
  partials.parameters =
      at::zeros({plan.batch_groups, shape.directions, plan.parameters,
                 plan.blocks, cpu::kBlock},
                options);
  if (grad_u.numel() == 0) return partials;
  Gradients gradients;
  gradients.u = grad_u.mutable_data_ptr();
  gradients.u_strides = channel_strides(grad_u);
  if (grad_delta.defined()) {
    gradients.delta = grad_delta.mutable_data_ptr();
    gradients.delta_strides = channel_strides(grad_delta);
  }
  gradients.rows = partials.rows.mutable_data_ptr();
  gradients.parameters = partials.parameters.mutable_data_ptr();
  const ScanKernels& kernels = kernels_for(grad);
  share_tasks(plan.block_groups * plan.batch_groups, 1,
              [&](int64_t begin, int64_t end) {
                kernels.backward(operands, gradients, plan, begin, end);
              });
  return partials;
}

// Add what each group of tasks left, in order, whatever the number of threads.
template <typename S>
void add_to_first(S* groups, int64_t count, int64_t size) {
  at::parallel_for(0, size, kGrain / count, [&](int64_t begin, int64_t end) {
    for (int64_t g = 1; g < count; ++g) {
      const S* const more = groups + g * size;
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) groups[i] += more[i];
    }
  });
}

at::Tensor add_groups(const at::Tensor& partial) {
  const int64_t count = partial.size(0), size = partial.numel() / count;
  if (partial.scalar_type() == at::kDouble) {
    add_to_first(partial.mutable_data_ptr<double>(), count, size);
  } else {
    add_to_first(partial.mutable_data_ptr<float>(), count, size);
  }
  return partial[0];
}

// Sum rows over block groups, and give `count` from the first on to `out`.
void finish_rows(const at::Tensor& sum, int64_t first, const at::Tensor& out) {
  out.copy_(sum.narrow(2, first, out.size(2)).narrow(3, 0, out.size(3)));
}

// Sum parameters over batch groups: (directions, parameters, channels).
at::Tensor finish_parameters(const ScanShape& shape,
                             const Partials& partials) {
  const auto sum = add_groups(partials.parameters);
  const int64_t padded = sum.numel() / (sum.size(0) * sum.size(1));
  // The last block of a group may be wider than what is left of its channels.
  return sum
      .view({sum.size(0), sum.size(1), shape.groups, padded / shape.groups})
      .narrow(3, 0, shape.channels_per_group())
      .reshape({sum.size(0), sum.size(1), shape.channels});
}

at::Tensor selective_scan_cpu(const at::Tensor& u, const at::Tensor& delta,
                              const at::Tensor& A, const at::Tensor& B,
                              const at::Tensor& C, const OptionalTensor& D,
                              const OptionalTensor& delta_bias,
                              bool delta_softplus, bool reverse) {
  const auto shape = check_selective_scan(u, delta, A, B, C, D, delta_bias,
                                          delta_softplus, reverse);
  auto in = plain_inputs(shape, u, delta, A, B, C, D, delta_bias);
  return forward(in, u);
}

at::Tensor bidirectional_scan_cpu(const at::Tensor& u, const at::Tensor& proj,
                                  const at::Tensor& dt_proj,
                                  const at::Tensor& dt_bias,
                                  const at::Tensor& A, const at::Tensor& D) {
  const auto shape = check_bidirectional_scan(u, proj, dt_proj, dt_bias, A, D);
  auto in = fused_inputs(shape, u, proj, dt_proj, dt_bias, A, D);
  return forward(in, u);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor,
           at::Tensor, at::Tensor>
selective_scan_backward_cpu(const at::Tensor& grad, const at::Tensor& u,
                            const at::Tensor& delta, const at::Tensor& A,
                            const at::Tensor& B, const at::Tensor& C,
                            const OptionalTensor& D,
                            const OptionalTensor& delta_bias,
                            bool delta_softplus, bool reverse) {
  const auto shape = check_selective_scan(u, delta, A, B, C, D, delta_bias,
                                          delta_softplus, reverse);
  check_alike("grad", grad, u);
  auto in = plain_inputs(shape, u, delta, A, B, C, D, delta_bias);
  auto grad_u = empty_like_layout(u), grad_delta = empty_like_layout(delta);
  auto grad_B = empty_like_layout(B), grad_C = empty_like_layout(C);
  const auto partials = backward(in, grad, grad_u, grad_delta);
  const auto rows = add_groups(partials.rows);
  finish_rows(rows, 0, grad_B);
  finish_rows(rows, shape.state, grad_C);
  const auto parameters = finish_parameters(shape, partials)[0];
  const auto parameter = [&](const OptionalTensor& given, int64_t place) {
    return given.has_value() ? parameters[place].clone()
                             : at::empty({0}, parameters.options());
  };
  return {grad_u,
          grad_delta,
          parameters.narrow(0, 0, shape.state).t().contiguous(),
          grad_B,
          grad_C,
          parameter(D, shape.state),
          parameter(delta_bias, shape.state + 1)};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor,
           at::Tensor>
bidirectional_scan_backward_cpu(const at::Tensor& grad, const at::Tensor& u,
                                const at::Tensor& proj,
                                const at::Tensor& dt_proj,
                                const at::Tensor& dt_bias, const at::Tensor& A,
                                const at::Tensor& D) {
  const auto shape = check_bidirectional_scan(u, proj, dt_proj, dt_bias, A, D);
  check_alike("grad", grad, u);
  auto in = fused_inputs(shape, u, proj, dt_proj, dt_bias, A, D);
  auto grad_u = empty_like_layout(u), grad_proj = empty_like_layout(proj);
  const auto partials = backward(in, grad, grad_u, at::Tensor());
  finish_rows(add_groups(partials.rows), 0, grad_proj);
  const auto parameters = finish_parameters(shape, partials);
  const auto rank = shape.rank, state = shape.state;
  return {grad_u,
          grad_proj,
          parameters.narrow(1, 0, rank).mT().contiguous(),
          parameters.select(1, rank + state + 1).clone(),
          parameters.narrow(1, rank, state).mT().contiguous(),
          parameters.select(1, rank + state).clone()};
}

std::string cpu_variant() { return cpu::current_variant().name; }

void set_cpu_variant(const std::string& name) {
  TORCH_CHECK_VALUE(cpu::set_variant(name),
                    "the CPU variant must be plain, avx2, avx512 or best, and "
                    "one that this machine runs, got ",
                    name);
}

}  // namespace

TORCH_LIBRARY_IMPL(selective_scan, CPU, m) {
  m.impl("selective_scan", &selective_scan_cpu);
  m.impl("selective_scan_backward", &selective_scan_backward_cpu);
  m.impl("bidirectional_scan", &bidirectional_scan_cpu);
  m.impl("bidirectional_scan_backward", &bidirectional_scan_backward_cpu);
}

TORCH_LIBRARY_IMPL(selective_scan, CompositeExplicitAutograd, m) {
  m.impl("cpu_variant", &cpu_variant);
  m.impl("set_cpu_variant", &set_cpu_variant);
}

}  // namespace selective_scan
