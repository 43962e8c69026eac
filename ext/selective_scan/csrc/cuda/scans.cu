// selective_scan and bidirectional_scan on CUDA.
#include <ATen/ops/matmul.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>

#include "bidirectional_backward.cuh"
#include "bidirectional_forward.cuh"
#include "plain_scan.cuh"

namespace selective_scan::cuda {
namespace {

using at::Tensor;
using PlainGradients =
    std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;
using BidirectionalGradients =
    std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

int narrow(int64_t value) { return static_cast<int>(value); }

// y or, where there is a gradient of y, those of the arguments.
PlainGradients run_plain(const OptionalTensor& grad, const Tensor& u,
                         const Tensor& delta, const Tensor& A, const Tensor& B,
                         const Tensor& C, const OptionalTensor& D,
                         const OptionalTensor& delta_bias, bool softplus,
                         bool reverse) {
  const auto shape = check_selective_scan(u, delta, A, B, C, D, delta_bias,
                                          softplus, reverse);
  const bool backward = grad.has_value();
  if (backward) check_alike("grad", *grad, u);
  const c10::cuda::CUDAGuard guard(u.device());
  const auto options = A.options();
  const int64_t batch = shape.batch, state = shape.state;
  const auto y = empty_like_layout(u);  // or the gradient of u
  Tensor grad_delta, rows, parameters;
  const auto rates = A.contiguous();
  const auto skip = contiguous(D), bias = contiguous(delta_bias);
  SCAN_DISPATCH(u, [&] {
    using P = State<scalar_t>;
    PlainScan<scalar_t, P> o{};
    std::vector<Tensor> copies;
    const auto input = [&](const Tensor& x) {
      copies.push_back(with_short_offsets(x));
      return walk<const scalar_t>(copies.back(), reverse);
    };
    o.batch = narrow(batch);
    o.channels = narrow(shape.channels);
    o.length = narrow(shape.length);
    o.state = narrow(state);
    o.groups = narrow(shape.groups);
    o.softplus = softplus;
    o.u = input(u);
    o.delta = input(delta);
    o.B = input(B);
    o.C = input(C);
    o.A = rates.const_data_ptr<P>();
    o.D = optional_data<P>(skip);
    o.bias = optional_data<P>(bias);
    with_layout<P>(shape.length, [&](auto layout) {
      using L = decltype(layout);
      const int64_t blocks =
          ceil_div(shape.channels / shape.groups, L::kChannels);
      o.chunks = narrow(ceil_div(shape.length, L::kChunk));
      Tensor carries;
      if (o.chunks > 1) {
        carries =
            at::zeros({2, batch, o.chunks, state, shape.channels}, options);
        o.carries = carries.mutable_data_ptr<P>();
      }
      if (backward) {
        grad_delta = empty_like_layout(delta);
        parameters = at::zeros({batch, shape.channels, state + 2}, options);
        rows = at::empty(
            {blocks, batch, shape.groups, 2 * state, shape.length}, options);
        o.grad = input(*grad);
        o.grad_u = walk<scalar_t>(y, reverse);
        o.grad_delta = walk<scalar_t>(grad_delta, reverse);
        o.rows = walk<P>(rows.flatten(0, 2), reverse);
        o.parameters = parameters.mutable_data_ptr<P>();
      } else {
        o.y = walk<scalar_t>(y, reverse);
      }
      if (u.numel() == 0) return;
      const dim3 grid(o.batch, blocks, o.groups);
      const int bytes = sizeof(P) * L::kShared;
      if (!backward || o.chunks > 1) {
        launch<plain_forward<scalar_t, P, L>>(grid, kThreads, bytes, o);
      }
      if (backward) {
        launch<plain_backward<scalar_t, P, L>>(grid, kThreads, bytes, o);
      }
    });
  });
  if (!backward) return {y, {}, {}, {}, {}, {}, {}};
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

// The bidirectional scan with more states, in float64 or of a size that its
// kernels do not take: delta in memory, and a plain scan for each direction.
// 16-bit inputs are widened, so that delta is not rounded.
BidirectionalGradients run_composed(const OptionalTensor& grad,
                                    const Tensor& u, const Tensor& proj,
                                    const Tensor& dt_proj,
                                    const Tensor& dt_bias, const Tensor& A,
                                    const Tensor& D) {
  const int64_t rank = dt_proj.size(2), state = A.size(2);
  const auto type = A.scalar_type();
  const auto x = u.to(type), rows = proj.to(type);
  const auto gy = grad.has_value() ? OptionalTensor(grad->to(type)) : grad;
  const auto grad_proj = empty_like_layout(proj);
  Tensor sum;
  std::vector<Tensor> weights, biases, rates, skips;
  for (int64_t k = 0; k < A.size(0); ++k) {
    const auto row = [&](const Tensor& all, int64_t first, int64_t count) {
      return all.select(1, k).narrow(1, first, count);
    };
    const auto dt = row(rows, 0, rank);
    const auto [gu, gdelta, gA, gB, gC, gD, gbias] =
        run_plain(gy, x, at::matmul(dt_proj[k], dt), A[k],
                  row(rows, rank, state).unsqueeze(1),
                  row(rows, rank + state, state).unsqueeze(1), D[k],
                  dt_bias[k], /*softplus=*/true, /*reverse=*/k == 1);
    sum = k == 0 ? gu : sum.add_(gu);
    if (!gy.has_value()) continue;
    row(grad_proj, 0, rank).copy_(at::matmul(dt_proj[k].t(), gdelta));
    row(grad_proj, rank, state).copy_(gB.squeeze(1));
    row(grad_proj, rank + state, state).copy_(gC.squeeze(1));
    weights.push_back(at::matmul(gdelta, dt.transpose(1, 2)).sum(0));
    biases.push_back(gbias);
    rates.push_back(gA);
    skips.push_back(gD);
  }
  if (type != u.scalar_type()) sum = empty_like_layout(u).copy_(sum);
  if (!gy.has_value()) return {sum, {}, {}, {}, {}, {}};
  return {sum,
          grad_proj,
          at::stack(weights),
          at::stack(biases),
          at::stack(rates),
          at::stack(skips)};
}

// Where there are several chunks, a first pass writes their sums.
template <auto kKernel, typename T>
void launch_passes(Bidirectional<T> g) {
  const dim3 grid(g.blocks, g.chunks, g.batch);
  for (const bool summing : {true, false}) {
    if (summing && g.chunks == 1) continue;
    g.summing = summing;
    launch<kKernel>(grid, g.threads, g.shared, g);
  }
}

// y or, where there is a gradient of y, those of the arguments.
BidirectionalGradients run_bidirectional(const OptionalTensor& grad,
                                         const Tensor& u, const Tensor& proj,
                                         const Tensor& dt_proj,
                                         const Tensor& dt_bias,
                                         const Tensor& A, const Tensor& D) {
  const auto shape = check_bidirectional_scan(u, proj, dt_proj, dt_bias, A, D);
  const bool backward = grad.has_value();
  if (backward) check_alike("grad", *grad, u);
  const c10::cuda::CUDAGuard guard(u.device());
  Plan plan{};
  // Grids are limited, and offsets have 32 bits.
  if (shape.state == 1 && u.scalar_type() != at::kDouble && u.numel() > 0 &&
      shape.batch * shape.directions < 65535 &&
      shape.channels * shape.length <= kLargestInt &&
      shape.length * (shape.rank + 6) <= kLargestInt &&
      dt_proj.numel() <= kLargestInt) {
    plan = make_plan(shape.batch, narrow(shape.channels), narrow(shape.length),
                     narrow(shape.rank), narrow(shape.directions), backward,
                     {device_attribute(cudaDevAttrMultiProcessorCount),
                      shared_memory_of_block()});
  }
  if (plan.threads == 0 || plan.chunks > 65535) {
    return run_composed(grad, u, proj, dt_proj, dt_bias, A, D);
  }
  const auto is_last = [](const Tensor& x) {
    return is_paired(x, 1) && has_short_offsets(x);
  };
  const bool last = is_last(u);
  const auto in_place = [&](const Tensor& x) {
    if (last) return is_last(x) ? x : empty_like_layout(u).copy_(x);
    return x.stride(2) == 1 && has_short_offsets(x) ? x : x.contiguous();
  };
  const auto x = in_place(u), gy = backward ? in_place(*grad) : x;
  const auto y =
      last ? empty_like_layout(u) : at::empty(u.sizes(), u.options());
  const auto rows = with_short_offsets(proj);
  const auto weight = dt_proj.contiguous(), bias = dt_bias.contiguous();
  const auto rates = A.contiguous(), skip = D.contiguous();
  Tensor grad_proj, grad_weight, grad_bias, grad_A, grad_D;
  SCAN_DISPATCH_FLOAT(u, [&] {
    Bidirectional<scalar_t> g{};
    static_cast<Plan&>(g) = plan;
    g.batch = narrow(shape.batch);
    g.channels = narrow(shape.channels);
    g.length = narrow(shape.length);
    g.rank = narrow(shape.rank);
    g.directions = narrow(shape.directions);
    g.u = view_of<const scalar_t>(x);
    g.y = view_of<scalar_t>(y);
    g.proj = view_of<const scalar_t>(rows);
    g.paired_rows = is_paired(rows, 2);
    g.weight = weight.const_data_ptr<float>();
    g.bias = bias.const_data_ptr<float>();
    g.A = rates.const_data_ptr<float>();
    g.D = skip.const_data_ptr<float>();
    std::vector<Tensor> workspace;
    const auto floats = [&](int64_t size) {
      workspace.push_back(at::empty({size}, A.options()));
      return workspace.back().mutable_data_ptr<float>();
    };
    const int64_t chunks = shape.batch * g.chunks;
    const int64_t channels = g.padded_channels();
    if (g.chunks > 1) {
      g.sums = floats((backward ? 4 : 2) * g.directions * chunks * channels);
    }
    if (!backward) {
      return last ? launch_passes<bidirectional_forward<scalar_t, true>>(g)
                  : launch_passes<bidirectional_forward<scalar_t, false>>(g);
    }
    const auto gradient = [](const Tensor& parameter, Tensor& to) {
      to = at::empty(parameter.sizes(), parameter.options());
      return to.mutable_data_ptr<float>();
    };
    g.grad = view_of<const scalar_t>(gy);
    g.row_sums = floats(int64_t{g.blocks} * g.batch * g.directions * g.length *
                        g.slots);
    g.parameter_sums = floats(chunks * g.directions * channels * g.slots);
    g.D_sums = floats(chunks * channels);
    grad_proj = empty_like_layout(proj);
    g.grad_proj = view_of<scalar_t>(grad_proj);
    g.grad_weight = gradient(weight, grad_weight);
    g.grad_bias = gradient(bias, grad_bias);
    g.grad_A = gradient(rates, grad_A);
    g.grad_D = gradient(skip, grad_D);
    last ? launch_passes<bidirectional_backward<scalar_t, true>>(g)
         : launch_passes<bidirectional_backward<scalar_t, false>>(g);
    const int64_t row_blocks = ceil_div(g.length * g.slots, kTotalThreads);
    const int64_t parameter_blocks =
        ceil_div(channels * (g.directions * g.slots + 1), kColumns);
    const dim3 grid(std::max(row_blocks, parameter_blocks),
                    g.batch * g.directions + 1);
    launch<bidirectional_totals<scalar_t>>(grid, kTotalThreads,
                                           4 * kTotalThreads, g);
  });
  const bool in_layout = channels_last(u) == channels_last(y);
  const auto result = in_layout ? y : empty_like_layout(u).copy_(y);
  return {result, grad_proj, grad_weight, grad_bias, grad_A, grad_D};
}

}  // namespace

TORCH_LIBRARY_IMPL(selective_scan, CUDA, m) {
  using Plain = Operator<run_plain>;
  using Bidirectional = Operator<run_bidirectional>;
  m.impl("selective_scan", &Plain::forward);
  m.impl("selective_scan_backward", &Plain::backward);
  m.impl("bidirectional_scan", &Bidirectional::forward);
  m.impl("bidirectional_scan_backward", &Bidirectional::backward);
}

}  // namespace selective_scan::cuda
