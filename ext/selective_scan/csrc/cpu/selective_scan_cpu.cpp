// The operators on the CPU: operands for the kernels, threads, final sums.
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

  Inputs(const ScanShape& shape, const at::Tensor& u, const at::Tensor& A,
         const OptionalTensor& D, const OptionalTensor& bias) {
    operands.shape = shape;
    operands.u = keep(with_unit_stride(u), operands.u_strides);
    operands.A = keep(A);
    operands.D = keep(D);
    operands.bias = keep(bias);
  }
  const void* keep(const OptionalTensor& parameter) {
    if (!parameter.has_value()) return nullptr;
    owners.push_back(parameter->contiguous());
    return owners.back().const_data_ptr();
  }
  const void* keep(const at::Tensor& tensor, ChannelStrides& strides) {
    owners.push_back(tensor);
    strides = channel_strides(tensor);
    return tensor.const_data_ptr();
  }
};

Inputs plain_inputs(const ScanShape& shape, const at::Tensor& u,
                    const at::Tensor& delta, const at::Tensor& A,
                    const at::Tensor& B, const at::Tensor& C,
                    const OptionalTensor& D,
                    const OptionalTensor& delta_bias) {
  Inputs in(shape, u, A, D, delta_bias);
  Operands& o = in.operands;
  o.delta = in.keep(with_unit_stride(delta), o.delta_strides);
  o.B = B.const_data_ptr();
  o.B_strides = row_strides(B);
  o.C = C.const_data_ptr();
  o.C_strides = row_strides(C);
  return in;
}

Inputs fused_inputs(const ScanShape& shape, const at::Tensor& u,
                    const at::Tensor& proj, const at::Tensor& dt_proj,
                    const at::Tensor& dt_bias, const at::Tensor& A,
                    const at::Tensor& D) {
  Inputs in(shape, u, A, D, dt_bias);
  Operands& o = in.operands;
  const auto* rows = static_cast<const char*>(proj.const_data_ptr());
  const auto row_bytes =
      proj.stride(2) * static_cast<int64_t>(proj.element_size());
  o.dt = rows;
  o.B = rows + shape.rank * row_bytes;
  o.C = rows + (shape.rank + shape.state) * row_bytes;
  o.dt_strides = o.B_strides = o.C_strides = row_strides(proj);
  o.dt_proj = in.keep(dt_proj);
  return in;
}

at::Tensor forward(Inputs& in, const at::Tensor& u) {
  auto y = empty_like_layout(u);
  if (y.numel() == 0) return y;
  Operands& operands = in.operands;
  operands.y = y.mutable_data_ptr();
  operands.y_strides = channel_strides(y);
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
  Operands& operands = in.operands;
  operands.grad = in.keep(with_unit_stride(grad), operands.grad_strides);
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

// Give the sums of rows from the first on to `out`.
void finish_rows(const at::Tensor& sum, int64_t first, const at::Tensor& out) {
  out.copy_(sum.narrow(2, first, out.size(2)).narrow(3, 0, out.size(3)));
}

// Sum parameters over batch groups: (directions, parameters, channels).
at::Tensor finish_parameters(const ScanShape& shape,
                             const Partials& partials) {
  const auto sum = partials.parameters.sum(0);
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
  const auto rows = partials.rows.sum(0);
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
  finish_rows(partials.rows.sum(0), 0, grad_proj);
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
