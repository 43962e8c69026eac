// The operators on the CPU: operands for the kernels, threads, final sums.
// Kernels know float32 and float64; what has 16 bits is converted.
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

#include "../common/operands.h"
#include "kernels.h"
#include "work_stealing.h"

namespace selective_scan {
namespace {

const cpu::ScanKernels& kernels_for(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kDouble ? cpu::plain_double_kernels()
                                             : cpu::current_variant().scan;
}

template <typename Memory>
cpu::View<Memory> view_of(const at::Tensor& x, Memory* data) {
  return {data, x.stride(0), x.dim() == 4 ? x.stride(1) : 0, x.stride(-2),
          x.stride(-1)};
}

// Operands with what they point into, u first.
struct Inputs : cpu::Operands {
  std::vector<at::Tensor> owners;

  cpu::View<const void> keep(const at::Tensor& x) {
    const auto wide = x.to(state_type(x.scalar_type()));
    owners.push_back(x.dim() == 3 ? with_unit_stride(wide) : wide);
    return view_of(owners.back(), owners.back().const_data_ptr());
  }
  const void* parameter(const OptionalTensor& tensor) {
    if (!tensor.has_value()) return nullptr;
    owners.push_back(tensor->contiguous());
    return owners.back().const_data_ptr();
  }
};

Inputs plain_inputs(const ScanShape& shape, const at::Tensor& u,
                    const at::Tensor& delta, const at::Tensor& A,
                    const at::Tensor& B, const at::Tensor& C,
                    const OptionalTensor& D,
                    const OptionalTensor& delta_bias) {
  Inputs in;
  in.shape = shape;
  in.u = in.keep(u);
  in.delta = in.keep(delta);
  in.B = in.keep(B);
  in.C = in.keep(C);
  in.A = in.parameter(A);
  in.D = in.parameter(D);
  in.bias = in.parameter(delta_bias);
  return in;
}

Inputs fused_inputs(const ScanShape& shape, const at::Tensor& u,
                    const at::Tensor& proj, const at::Tensor& dt_proj,
                    const at::Tensor& dt_bias, const at::Tensor& A,
                    const at::Tensor& D) {
  Inputs in;
  in.shape = shape;
  in.u = in.keep(u);
  in.dt = in.B = in.C = in.keep(proj);
  const auto* rows = static_cast<const char*>(in.dt.data);
  const auto row_bytes =
      in.dt.row * static_cast<int64_t>(in.owners.back().element_size());
  in.B.data = rows + shape.rank * row_bytes;
  in.C.data = rows + (shape.rank + shape.state) * row_bytes;
  in.dt_proj = in.parameter(dt_proj);
  in.A = in.parameter(A);
  in.D = in.parameter(D);
  in.bias = in.parameter(dt_bias);
  return in;
}

// A result in the dtype and layout of an input.
at::Tensor shaped_as(const at::Tensor& input, const at::Tensor& result) {
  return result.scalar_type() == input.scalar_type()
             ? result
             : empty_like_layout(input).copy_(result);
}

at::Tensor forward(Inputs in, const at::Tensor& u) {
  const auto y = empty_like_layout(in.owners.front());
  if (y.numel() > 0) {
    in.y = view_of(y, y.mutable_data_ptr());
    const auto& kernels = kernels_for(y);
    const int64_t blocks = in.shape.groups * cpu::blocks_per_group(in.shape);
    share_tasks(blocks * in.shape.batch, 1, [&](int64_t begin, int64_t end) {
      kernels.forward(in, begin, end);
    });
  }
  return shaped_as(u, y);
}

struct GradientSums {
  at::Tensor u, delta;
  at::Tensor rows;        // (batch, sets, rows, length)
  at::Tensor parameters;  // (directions, parameters, channels)
};

GradientSums backward(Inputs in, const at::Tensor& grad) {
  const ScanShape& shape = in.shape;
  cpu::Gradients gradients;
  // Enough tasks for many threads, yet each worth the sums that it adds.
  const int64_t steps = shape.batch * shape.channels * shape.length;
  const int64_t tasks = std::clamp<int64_t>(steps / 8192, 1, 64);
  const auto at_most = [](int64_t count, int64_t most) {
    return std::max<int64_t>(1, std::min(count, most));
  };
  gradients.blocks = shape.groups * cpu::blocks_per_group(shape);
  gradients.batch_groups = at_most(ceil_div(tasks, 4), shape.batch);
  gradients.block_groups =
      at_most(ceil_div(tasks, gradients.batch_groups), gradients.blocks);

  GradientSums sums;
  sums.u = empty_like_layout(in.owners.front());
  const auto options = sums.u.options();
  const auto rows = at::zeros({gradients.block_groups, shape.batch,
                               shape.sets(), in.rows(), in.padded_length()},
                              options);
  const auto parameters =
      at::zeros({gradients.batch_groups, shape.directions, in.parameters(),
                 gradients.blocks, cpu::kBlock},
                options);
  gradients.u = view_of(sums.u, sums.u.mutable_data_ptr());
  if (shape.rank == 0) {
    sums.delta = empty_like_layout(in.owners[1]);
    gradients.delta = view_of(sums.delta, sums.delta.mutable_data_ptr());
  }
  if (sums.u.numel() > 0) {
    in.grad = in.keep(grad);
    gradients.rows = rows.mutable_data_ptr();
    gradients.parameters = parameters.mutable_data_ptr();
    const auto& kernels = kernels_for(sums.u);
    share_tasks(gradients.block_groups * gradients.batch_groups, 1,
                [&](int64_t begin, int64_t end) {
                  kernels.backward(in, gradients, begin, end);
                });
  }
  sums.rows = rows.sum(0).narrow(3, 0, shape.length);
  // The last block of a group may be wider than what is left of its channels.
  const int64_t padded = cpu::blocks_per_group(shape) * cpu::kBlock;
  sums.parameters =
      parameters.sum(0)
          .view({shape.directions, in.parameters(), shape.groups, padded})
          .narrow(3, 0, shape.channels / shape.groups)
          .flatten(2);
  return sums;
}

at::Tensor selective_scan_cpu(const at::Tensor& u, const at::Tensor& delta,
                              const at::Tensor& A, const at::Tensor& B,
                              const at::Tensor& C, const OptionalTensor& D,
                              const OptionalTensor& delta_bias,
                              bool delta_softplus, bool reverse) {
  const auto shape = check_selective_scan(u, delta, A, B, C, D, delta_bias,
                                          delta_softplus, reverse);
  return forward(plain_inputs(shape, u, delta, A, B, C, D, delta_bias), u);
}

at::Tensor bidirectional_scan_cpu(const at::Tensor& u, const at::Tensor& proj,
                                  const at::Tensor& dt_proj,
                                  const at::Tensor& dt_bias,
                                  const at::Tensor& A, const at::Tensor& D) {
  const auto shape = check_bidirectional_scan(u, proj, dt_proj, dt_bias, A, D);
  return forward(fused_inputs(shape, u, proj, dt_proj, dt_bias, A, D), u);
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
  const auto sums =
      backward(plain_inputs(shape, u, delta, A, B, C, D, delta_bias), grad);
  const auto parameters = sums.parameters[0];
  const auto parameter = [&](const OptionalTensor& given, int64_t place) {
    return given.has_value() ? parameters[place].clone()
                             : at::empty({0}, parameters.options());
  };
  const int64_t state = shape.state;
  return {shaped_as(u, sums.u),
          shaped_as(delta, sums.delta),
          parameters.narrow(0, 0, state).t().contiguous(),
          empty_like_layout(B).copy_(sums.rows.narrow(2, 0, state)),
          empty_like_layout(C).copy_(sums.rows.narrow(2, state, state)),
          parameter(D, state),
          parameter(delta_bias, state + 1)};
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
  const auto sums =
      backward(fused_inputs(shape, u, proj, dt_proj, dt_bias, A, D), grad);
  const auto& parameters = sums.parameters;
  const auto rank = shape.rank, state = shape.state;
  return {shaped_as(u, sums.u),
          empty_like_layout(proj).copy_(sums.rows),
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
