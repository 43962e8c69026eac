// The operators on the CPU: operands for the kernels, threads, final sums.
#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <string>

#include "../common/operands.h"
#include "kernels.h"
#include "scratch.h"
#include "work_stealing.h"

namespace selective_scan {
namespace {

using cpu::BackwardPlan;
using cpu::Gradients;
using cpu::Kernels;
using cpu::Operands;

cpu::Storage storage_of(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kDouble:
      return cpu::Storage::kDouble;
    case at::kHalf:
      return cpu::Storage::kHalf;
    case at::kBFloat16:
      return cpu::Storage::kBFloat16;
    default:
      return cpu::Storage::kFloat;
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
  const Kernels& kernels = cpu::kernels(storage_of(u));
  const size_t bytes = kernels.forward_scratch(operands.shape);
  const int64_t tasks =
      count_blocks(operands.shape, cpu::kBlock) * operands.shape.batch;
  share_tasks(tasks, 1, [&](int64_t begin, int64_t end) {
    kernels.forward(operands, begin, end, scratch_memory(bytes));
  });
  return y;
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
  partials.plan = cpu::plan_backward(shape);
  const BackwardPlan& plan = partials.plan;
  const auto options = grad.options().dtype(state_type(grad.scalar_type()));
  partials.rows = at::zeros(
      {plan.block_groups, shape.batch, shape.sets(), plan.rows, plan.columns},
      options);
  partials.parameters =
      at::zeros({plan.batch_groups, plan.blocks, shape.directions,
                 plan.parameters, cpu::kBlock},
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
  const Kernels& kernels = cpu::kernels(storage_of(grad));
  const size_t bytes = kernels.backward_scratch(shape);
  share_tasks(plan.block_groups * plan.batch_groups, 1,
              [&](int64_t begin, int64_t end) {
                kernels.backward(operands, gradients, plan, begin, end,
                                 scratch_memory(bytes));
              });
  return partials;
}

// Sum the rows over block groups, in order, into a tensor of `count` rows.
void finish_rows(const ScanShape& shape, const Partials& partials,
                 int64_t first, int64_t count, const at::Tensor& out) {
  if (out.numel() == 0) return;
  const BackwardPlan& plan = partials.plan;
  const RowStrides strides = row_strides(out);
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, out.scalar_type(), "selective_scan", [&] {
        using S = at::opmath_type<scalar_t>;
        const S* partial = partials.rows.const_data_ptr<S>();
        scalar_t* result = out.mutable_data_ptr<scalar_t>();
        const int64_t group =
            shape.batch * shape.sets() * plan.rows * plan.columns;
        at::parallel_for(
            0, shape.batch * shape.sets(), 1, [&](int64_t begin, int64_t end) {
              constexpr int64_t run = 64;
              S sum[run];
              for (int64_t i = begin; i < end; ++i) {
                const int64_t b = i / shape.sets(), s = i % shape.sets();
                for (int64_t r = 0; r < count; ++r) {
                  const S* row =
                      partial + (i * plan.rows + first + r) * plan.columns;
                  for (int64_t t0 = 0; t0 < shape.length; t0 += run) {
                    const int64_t n = smaller(run, shape.length - t0);
                    for (int64_t t = 0; t < n; ++t) sum[t] = row[t0 + t];
                    for (int64_t g = 1; g < plan.block_groups; ++g) {
                      const S* more = row + g * group + t0;
                      for (int64_t t = 0; t < n; ++t) sum[t] += more[t];
                    }
                    scalar_t* to = result + strides.at(b, s, r, t0);
                    for (int64_t t = 0; t < n; ++t) {
                      to[t * strides.token] = static_cast<scalar_t>(sum[t]);
                    }
                  }
                }
              }
            });
      });
}

// Sum the parameters over batch groups: (directions, channels, parameters).
at::Tensor finish_parameters(const ScanShape& shape,
                             const Partials& partials) {
  const BackwardPlan& plan = partials.plan;
  auto out = at::zeros({shape.directions, shape.channels, plan.parameters},
                       partials.parameters.options());
  if (out.numel() == 0) return out;
  AT_DISPATCH_FLOATING_TYPES(out.scalar_type(), "selective_scan", [&] {
    const scalar_t* partial = partials.parameters.const_data_ptr<scalar_t>();
    scalar_t* result = out.mutable_data_ptr<scalar_t>();
    const int64_t size = plan.parameters * cpu::kBlock;
    at::parallel_for(0, plan.blocks, 4, [&](int64_t begin, int64_t end) {
      for (int64_t index = begin; index < end; ++index) {
        const ChannelBlock block = channel_block(shape, index, cpu::kBlock);
        for (int64_t k = 0; k < shape.directions; ++k) {
          for (int64_t p = 0; p < plan.parameters; ++p) {
            scalar_t sum[cpu::kBlock] = {};
            for (int64_t g = 0; g < plan.batch_groups; ++g) {
              const scalar_t* from =
                  partial +
                  ((g * plan.blocks + index) * shape.directions + k) * size +
                  p * cpu::kBlock;
              for (int64_t c = 0; c < cpu::kBlock; ++c) sum[c] += from[c];
            }
            for (int64_t c = 0; c < block.width; ++c) {
              result[shape.parameter(k, block.first + c) * plan.parameters +
                     p] = sum[c];
            }
          }
        }
      }
    });
  });
  return out;
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
  check_grad(grad, u);
  auto in = plain_inputs(shape, u, delta, A, B, C, D, delta_bias);
  auto grad_u = empty_like_layout(u), grad_delta = empty_like_layout(delta);
  auto grad_B = empty_like_layout(B), grad_C = empty_like_layout(C);
  const auto partials = backward(in, grad, grad_u, grad_delta);
  finish_rows(shape, partials, 0, shape.state, grad_B);
  finish_rows(shape, partials, shape.state, shape.state, grad_C);
  const auto parameters = finish_parameters(shape, partials)[0];
  const auto none = at::empty({0}, parameters.options());
  return {
      grad_u,
      grad_delta,
      parameters.narrow(1, 0, shape.state).contiguous(),
      grad_B,
      grad_C,
      D.has_value() ? parameters.select(1, shape.state).contiguous() : none,
      delta_bias.has_value()
          ? parameters.select(1, shape.state + 1).contiguous()
          : at::empty_like(none)};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor,
           at::Tensor>
bidirectional_scan_backward_cpu(const at::Tensor& grad, const at::Tensor& u,
                                const at::Tensor& proj,
                                const at::Tensor& dt_proj,
                                const at::Tensor& dt_bias, const at::Tensor& A,
                                const at::Tensor& D) {
  const auto shape = check_bidirectional_scan(u, proj, dt_proj, dt_bias, A, D);
  check_grad(grad, u);
  auto in = fused_inputs(shape, u, proj, dt_proj, dt_bias, A, D);
  auto grad_u = empty_like_layout(u), grad_proj = empty_like_layout(proj);
  const auto partials = backward(in, grad, grad_u, at::Tensor());
  finish_rows(shape, partials, 0, partials.plan.rows, grad_proj);
  const auto parameters = finish_parameters(shape, partials);
  const auto rank = shape.rank, state = shape.state;
  return {grad_u,
          grad_proj,
          parameters.narrow(2, 0, rank).contiguous(),
          parameters.select(2, rank + state + 1).contiguous(),
          parameters.narrow(2, rank, state).contiguous(),
          parameters.select(2, rank + state).contiguous()};
}

std::string cpu_variant() { return cpu::variant_name(cpu::current_variant()); }

void set_cpu_variant(const std::string& name) {
  const auto best = cpu::best_variant();
  for (const auto variant :
       {cpu::Variant::kPlain, cpu::Variant::kAvx2, cpu::Variant::kAvx512}) {
    if (name == cpu::variant_name(variant)) {
      TORCH_CHECK_VALUE(variant <= best, "this machine runs at most ",
                        cpu::variant_name(best), ", got ", name);
      cpu::set_variant(variant);
      return;
    }
  }
  TORCH_CHECK_VALUE(name == "best",
                    "the CPU variant must be plain, avx2, avx512 or best, "
                    "got ",
                    name);
  cpu::set_variant(best);
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
