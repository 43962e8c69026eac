// The scans on CUDA: operands for the kernels, and the last sums.
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "../common/operands.h"
#include "bidirectional.h"
#include "composed_scan.h"
#include "host.h"
#include "plain_scan.h"

namespace selective_scan {
namespace {

template <typename T>
cuda::View<const T> input(const at::Tensor& x, bool reverse) {
  return cuda::walk(x.const_data_ptr<T>(), x.strides().data(), x.dim(),
                    x.size(-1), reverse);
}
template <typename T>
cuda::View<T> output(const at::Tensor& x, bool reverse) {
  return cuda::walk(x.mutable_data_ptr<T>(), x.strides().data(), x.dim(),
                    x.size(-1), reverse);
}

using PlainGradients =
    std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor,
               at::Tensor, at::Tensor>;

// y or, where there is a gradient of y, those of the arguments.
PlainGradients run_plain(const OptionalTensor& grad, const at::Tensor& u,
                         const at::Tensor& delta, const at::Tensor& A,
                         const at::Tensor& B, const at::Tensor& C,
                         const OptionalTensor& D,
                         const OptionalTensor& delta_bias, bool softplus,
                         bool reverse) {
  const auto shape = check_selective_scan(u, delta, A, B, C, D, delta_bias,
                                          softplus, reverse);
  const bool backward = grad.has_value();
  if (backward) check_alike("grad", *grad, u);
  const c10::cuda::CUDAGuard guard(u.device());
  const auto y = empty_like_layout(u);  // or the gradient of u
  const auto options = A.options();
  const int64_t state = shape.state;
  at::Tensor grad_delta, rows, parameters;
  if (backward) {
    grad_delta = empty_like_layout(delta);
    parameters = at::zeros({shape.batch, shape.channels, state + 2}, options);
  }
  const auto rates = A.contiguous();
  const auto skip = contiguous(D), bias = contiguous(delta_bias);
  if (u.numel() > 0) {
    SCAN_DISPATCH(u, [&] {
      using P = State<scalar_t>;
      cuda::PlainScan<scalar_t, P> o{};
      o.batch = shape.batch;
      o.channels = shape.channels;
      o.length = shape.length;
      o.state = state;
      o.groups = shape.groups;
      o.softplus = softplus;
      o.u = input<scalar_t>(u, reverse);
      o.delta = input<scalar_t>(delta, reverse);
      o.B = input<scalar_t>(B, reverse);
      o.C = input<scalar_t>(C, reverse);
      o.A = rates.const_data_ptr<P>();
      o.D = optional_data<P>(skip);
      o.bias = optional_data<P>(bias);
      int64_t chunks = 0, blocks = 0;
      cuda::with_layout(o, [&](auto layout) {
        chunks = layout.chunks(o);
        blocks = layout.blocks(o);
      });
      at::Tensor carries;
      if (chunks > 1) {
        carries = at::zeros({2, o.batch, chunks, state, o.channels}, options);
        o.carries = carries.mutable_data_ptr<P>();
      }
      if (backward) {
        rows = at::empty({blocks, o.batch, o.groups, 2 * state, o.length},
                         options);
        // A block of channels fills the rows of its own group alone.
        if (o.groups > 1) rows.zero_();
        o.rows = output<P>(rows.flatten(0, 2), reverse);
        o.parameters = parameters.mutable_data_ptr<P>();
        o.grad = input<scalar_t>(*grad, reverse);
        o.grad_u = output<scalar_t>(y, reverse);
        o.grad_delta = output<scalar_t>(grad_delta, reverse);
      } else {
        o.y = output<scalar_t>(y, reverse);
      }
      cuda::launch_plain_scan(o, backward);
    });
  }
  if (!backward) return {y, {}, {}, {}, {}, {}, {}};
  if (u.numel() == 0) {
    rows = at::zeros({1, shape.batch, shape.groups, 2 * state, shape.length},
                     options);
  }
  const auto row_sums = rows.sum(0), sums = parameters.sum(0);
  const auto part = [&](bool wanted, int64_t k) {
    return wanted ? sums.select(1, k).contiguous() : at::empty({0}, options);
  };
  return {y,
          grad_delta,
          sums.narrow(1, 0, state).contiguous(),
          empty_like_layout(B).copy_(row_sums.narrow(2, 0, state)),
          empty_like_layout(C).copy_(row_sums.narrow(2, state, state)),
          part(D.has_value(), state),
          part(delta_bias.has_value(), state + 1)};
}

at::Tensor selective_scan_cuda(const at::Tensor& u, const at::Tensor& delta,
                               const at::Tensor& A, const at::Tensor& B,
                               const at::Tensor& C, const OptionalTensor& D,
                               const OptionalTensor& delta_bias,
                               bool delta_softplus, bool reverse) {
  return std::get<0>(run_plain(std::nullopt, u, delta, A, B, C, D, delta_bias,
                               delta_softplus, reverse));
}

PlainGradients selective_scan_backward_cuda(
    const at::Tensor& grad, const at::Tensor& u, const at::Tensor& delta,
    const at::Tensor& A, const at::Tensor& B, const at::Tensor& C,
    const OptionalTensor& D, const OptionalTensor& delta_bias,
    bool delta_softplus, bool reverse) {
  return run_plain(grad, u, delta, A, B, C, D, delta_bias, delta_softplus,
                   reverse);
}

int narrow(int64_t value) { return static_cast<int>(value); }

// The plan of the kernels for one state; without threads where they do not
// take the scan: more states, float64, sizes that 32 bits do not hold.
cuda::Plan plan_bidirectional(const ScanShape& shape, const at::Tensor& u,
                              bool backward) {
  const int64_t rows = shape.directions * (shape.rank + 6) * shape.length;
  const int64_t weights = shape.directions * shape.channels * shape.rank;
  if (shape.state != 1 || u.scalar_type() == at::kDouble ||
      shape.batch * shape.directions >= 65535 || rows > kLargestInt ||
      weights > kLargestInt || shape.channels * shape.length > kLargestInt) {
    return {};
  }
  const auto plan = cuda::make_plan(
      shape.batch, narrow(shape.channels), narrow(shape.length),
      narrow(shape.rank), narrow(shape.directions), backward,
      {device_attribute(cudaDevAttrMultiProcessorCount),
       shared_memory_of_block()});
  return plan.chunks <= 65535 ? plan : cuda::Plan{};
}

bool even_batch(const at::Tensor& x) {
  const auto address = reinterpret_cast<uintptr_t>(x.const_data_ptr());
  return x.stride(0) % 2 == 0 && address % (2 * x.element_size()) == 0;
}

// Two neighbouring channels can be read at once.
bool paired_channels(const at::Tensor& x) {
  return channels_last(x) && x.size(1) % 2 == 0 && x.stride(2) % 2 == 0 &&
         even_batch(x) && has_short_offsets(x);
}

bool paired_rows(const at::Tensor& proj) {
  return proj.stride(2) == 1 && proj.size(2) % 2 == 0 &&
         proj.stride(1) % 2 == 0 && proj.stride(3) % 2 == 0 &&
         even_batch(proj);
}

template <typename T>
cuda::Rows<T> rows_of(const at::Tensor& x, T* data) {
  return {data, x.stride(0), narrow(x.stride(1)), narrow(x.stride(2)),
          narrow(x.stride(3))};
}

// y or, where there is a gradient of y, those of the arguments.
BidirectionalGradients run_bidirectional(
    const ScanShape& shape, const cuda::Plan& plan, const OptionalTensor& grad,
    const at::Tensor& u, const at::Tensor& proj, const at::Tensor& dt_proj,
    const at::Tensor& dt_bias, const at::Tensor& A, const at::Tensor& D) {
  const bool last = paired_channels(u), backward = grad.has_value();
  const auto in_place = [&](const at::Tensor& x) {
    if (last) return paired_channels(x) ? x : empty_like_layout(u).copy_(x);
    return x.stride(2) == 1 && has_short_offsets(x) ? x : x.contiguous();
  };
  const auto x = in_place(u), gy = backward ? in_place(*grad) : x;
  const auto rows = has_short_offsets(proj) ? proj : proj.contiguous();
  const auto weight = dt_proj.contiguous(), bias = dt_bias.contiguous();
  const auto rates = A.contiguous(), skip = D.contiguous();
  const auto y = last ? empty_like_layout(u) : at::empty(u.sizes(), u.options());
  at::Tensor grad_proj, grad_weight, grad_bias, grad_A, grad_D;
  SCAN_DISPATCH_FLOAT(u, [&] {
    cuda::Bidirectional<scalar_t> g{};
    static_cast<cuda::Plan&>(g) = plan;
    g.batch = narrow(shape.batch);
    g.channels = narrow(shape.channels);
    g.length = narrow(shape.length);
    g.rank = narrow(shape.rank);
    g.directions = narrow(shape.directions);
    g.channels_last = last;
    g.u = x.const_data_ptr<scalar_t>();
    g.u_batch = x.stride(0);
    g.u_lead = narrow(x.stride(last ? 2 : 1));
    g.y = y.mutable_data_ptr<scalar_t>();
    g.proj = rows_of(rows, rows.const_data_ptr<scalar_t>());
    g.paired_rows = paired_rows(rows);
    g.weight = weight.const_data_ptr<float>();
    g.bias = bias.const_data_ptr<float>();
    g.A = rates.const_data_ptr<float>();
    g.D = skip.const_data_ptr<float>();
    if (backward) {
      const auto like = [](const at::Tensor& parameter, at::Tensor& gradient) {
        gradient = at::empty(parameter.sizes(), parameter.options());
        return gradient.mutable_data_ptr<float>();
      };
      g.grad = gy.const_data_ptr<scalar_t>();
      g.grad_batch = gy.stride(0);
      g.grad_lead = narrow(gy.stride(last ? 2 : 1));
      grad_proj = empty_like_layout(proj);
      g.grad_proj =
          rows_of(grad_proj, grad_proj.mutable_data_ptr<scalar_t>());
      g.grad_weight = like(weight, grad_weight);
      g.grad_bias = like(bias, grad_bias);
      g.grad_A = like(rates, grad_A);
      g.grad_D = like(skip, grad_D);
    }
    const auto workspace = at::empty(
        {cuda::set_workspace(g, backward, nullptr)}, A.options());
    cuda::set_workspace(g, backward, workspace.mutable_data_ptr<float>());
    cuda::launch_bidirectional(g, backward);
  });
  const bool in_layout = channels_last(u) == channels_last(y);
  return {in_layout ? y : empty_like_layout(u).copy_(y),
          grad_proj, grad_weight, grad_bias, grad_A, grad_D};
}

at::Tensor bidirectional_scan_cuda(const at::Tensor& u, const at::Tensor& proj,
                                   const at::Tensor& dt_proj,
                                   const at::Tensor& dt_bias,
                                   const at::Tensor& A, const at::Tensor& D) {
  const auto shape = check_bidirectional_scan(u, proj, dt_proj, dt_bias, A, D);
  const c10::cuda::CUDAGuard guard(u.device());
  if (u.numel() == 0) return empty_like_layout(u);
  if (const auto plan = plan_bidirectional(shape, u, false); plan.threads > 0) {
    return std::get<0>(run_bidirectional(shape, plan, std::nullopt, u, proj,
                                         dt_proj, dt_bias, A, D));
  }
  return composed_scan(selective_scan_cuda, u, proj, dt_proj, dt_bias, A, D);
}

BidirectionalGradients bidirectional_scan_backward_cuda(
    const at::Tensor& grad, const at::Tensor& u, const at::Tensor& proj,
    const at::Tensor& dt_proj, const at::Tensor& dt_bias, const at::Tensor& A,
    const at::Tensor& D) {
  const auto shape = check_bidirectional_scan(u, proj, dt_proj, dt_bias, A, D);
  check_alike("grad", grad, u);
  const c10::cuda::CUDAGuard guard(u.device());
  if (u.numel() > 0) {
    const auto plan = plan_bidirectional(shape, u, true);
    if (plan.threads > 0) {
      return run_bidirectional(shape, plan, grad, u, proj, dt_proj, dt_bias, A,
                               D);
    }
  }
  return composed_backward(selective_scan_backward_cuda, grad, u, proj,
                           dt_proj, dt_bias, A, D);
}

}  // namespace

TORCH_LIBRARY_IMPL(selective_scan, CUDA, m) {
  m.impl("selective_scan", &selective_scan_cuda);
  m.impl("selective_scan_backward", &selective_scan_backward_cuda);
  m.impl("bidirectional_scan", &bidirectional_scan_cuda);
  m.impl("bidirectional_scan_backward", &bidirectional_scan_backward_cuda);
}

}  // namespace selective_scan
