// The operators on CUDA: operands for the kernels, and the last sums.
#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "../common/operands.h"
#include "bidirectional_cuda.h"
#include "launch.h"

namespace selective_scan {
namespace {

template <typename T>
using State = at::opmath_type<T>;
template <typename T>
using Operands = cuda::Operands<T, State<T>>;

template <typename T>
void set_common(Operands<T>& o, const ScanShape& shape, const at::Tensor& u,
                const at::Tensor& A) {
  o.shape = shape;
  o.u = u.const_data_ptr<T>();
  o.u_strides = channel_strides(u);
  o.A = A.const_data_ptr<State<T>>();
}

template <typename T>
Operands<T> plain_operands(const ScanShape& shape, const at::Tensor& u,
                           const at::Tensor& delta, const at::Tensor& A,
                           const at::Tensor& B, const at::Tensor& C,
                           const OptionalTensor& D,
                           const OptionalTensor& delta_bias) {
  Operands<T> o;
  set_common(o, shape, u, A);
  o.delta = delta.const_data_ptr<T>();
  o.delta_strides = channel_strides(delta);
  o.B = B.const_data_ptr<T>();
  o.C = C.const_data_ptr<T>();
  o.B_strides = row_strides(B);
  o.C_strides = row_strides(C);
  o.D = optional_data<State<T>>(D);
  o.bias = optional_data<State<T>>(delta_bias);
  return o;
}

template <typename T>
Operands<T> fused_operands(const ScanShape& shape, const at::Tensor& u,
                           const at::Tensor& proj, const at::Tensor& dt_proj,
                           const at::Tensor& dt_bias, const at::Tensor& A,
                           const at::Tensor& D) {
  Operands<T> o;
  set_common(o, shape, u, A);
  o.dt = proj.const_data_ptr<T>();
  o.B = o.dt + shape.rank * proj.stride(2);
  o.C = o.B + shape.state * proj.stride(2);
  o.dt_strides = o.B_strides = o.C_strides = row_strides(proj);
  o.dt_proj = dt_proj.const_data_ptr<State<T>>();
  o.bias = dt_bias.const_data_ptr<State<T>>();
  o.D = D.const_data_ptr<State<T>>();
  return o;
}

// `slots` kinds of values that enter each chunk, where there is more than one.
template <typename T>
at::Tensor set_carries(Operands<T>& o, int64_t slots,
                       const at::TensorOptions& options) {
  const ScanShape& shape = o.shape;
  const int64_t chunks = cuda::choose_grid<State<T>>(shape).chunks;
  if (chunks < 2) return {};
  auto carries = at::zeros(
      {slots, shape.batch, chunks, shape.state, shape.channels}, options);
  o.carries = carries.mutable_data_ptr<State<T>>();
  return carries;
}

template <typename T>
void forward(Operands<T> o, const at::Tensor& A, const at::Tensor& y) {
  const auto carries = set_carries(o, o.shape.directions, A.options());
  o.y = y.mutable_data_ptr<T>();
  o.y_strides = channel_strides(y);
  C10_CUDA_CHECK((cuda::launch_forward<T, State<T>>(
      o, c10::cuda::getCurrentCUDAStream())));
}

struct Sums {
  at::Tensor rows;        // (batch, sets, rows, length)
  at::Tensor parameters;  // (directions, channels, rank + state + 2)
};

Sums empty_sums(const ScanShape& shape, const at::TensorOptions& options) {
  return {at::zeros({shape.batch, shape.sets(), shape.rank + 2 * shape.state,
                     shape.length},
                    options),
          at::zeros(
              {shape.directions, shape.channels, shape.rank + shape.state + 2},
              options)};
}

template <typename T>
Sums backward(Operands<T> o, const at::Tensor& A, const at::Tensor& grad,
              const at::Tensor& grad_u, const at::Tensor& grad_delta) {
  const ScanShape& shape = o.shape;
  const auto options = A.options();
  const auto carries = set_carries(o, 2 * shape.directions, options);
  o.grad = grad.const_data_ptr<T>();
  o.grad_strides = channel_strides(grad);
  const int64_t blocks = cuda::choose_grid<State<T>>(shape).blocks;
  auto rows = at::empty({blocks, shape.batch, shape.sets(),
                         shape.rank + 2 * shape.state, shape.length},
                        options);
  // With groups, a block of channels writes the rows of its own alone.
  if (shape.groups > 1) rows.zero_();
  auto parameters = at::zeros({shape.batch, shape.directions, shape.channels,
                               shape.rank + shape.state + 2},
                              options);
  cuda::Gradients<T, State<T>> g;
  g.u = grad_u.mutable_data_ptr<T>();
  g.u_strides = channel_strides(grad_u);
  if (grad_delta.defined()) {
    g.delta = grad_delta.mutable_data_ptr<T>();
    g.delta_strides = channel_strides(grad_delta);
  }
  g.rows = rows.mutable_data_ptr<State<T>>();
  g.parameters = parameters.mutable_data_ptr<State<T>>();
  C10_CUDA_CHECK((cuda::launch_backward<T, State<T>>(
      o, g, c10::cuda::getCurrentCUDAStream())));
  return {rows.sum(0), parameters.sum(0)};
}

#define SCAN_DISPATCH(tensor, ...)                                          \
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16,                 \
                                  (tensor).scalar_type(), "selective_scan", \
                                  __VA_ARGS__)

at::Tensor selective_scan_cuda(const at::Tensor& u, const at::Tensor& delta,
                               const at::Tensor& A, const at::Tensor& B,
                               const at::Tensor& C, const OptionalTensor& D,
                               const OptionalTensor& delta_bias,
                               bool delta_softplus, bool reverse) {
  const auto shape = check_selective_scan(u, delta, A, B, C, D, delta_bias,
                                          delta_softplus, reverse);
  const c10::cuda::CUDAGuard guard(u.device());
  auto y = empty_like_layout(u);
  if (y.numel() == 0) return y;
  const auto uc = with_unit_stride(u), deltac = with_unit_stride(delta);
  const auto Ac = A.contiguous();
  const auto Dc = contiguous(D), bias = contiguous(delta_bias);
  SCAN_DISPATCH(u, [&] {
    forward(plain_operands<scalar_t>(shape, uc, deltac, Ac, B, C, Dc, bias),
            Ac, y);
  });
  return y;
}

at::Tensor bidirectional_scan_cuda(const at::Tensor& u, const at::Tensor& proj,
                                   const at::Tensor& dt_proj,
                                   const at::Tensor& dt_bias,
                                   const at::Tensor& A, const at::Tensor& D) {
  const auto shape = check_bidirectional_scan(u, proj, dt_proj, dt_bias, A, D);
  const c10::cuda::CUDAGuard guard(u.device());
  if (u.numel() == 0) return empty_like_layout(u);
  if (cuda::takes_bidirectional(shape, u)) {
    return cuda::bidirectional_forward(shape, u, proj, dt_proj, dt_bias, A, D);
  }
  const auto y = empty_like_layout(u);
  const auto uc = with_unit_stride(u);
  const auto weight = dt_proj.contiguous(), bias = dt_bias.contiguous();
  const auto Ac = A.contiguous(), Dc = D.contiguous();
  SCAN_DISPATCH(u, [&] {
    forward(fused_operands<scalar_t>(shape, uc, proj, weight, bias, Ac, Dc),
            Ac, y);
  });
  return y;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor,
           at::Tensor, at::Tensor>
selective_scan_backward_cuda(const at::Tensor& grad, const at::Tensor& u,
                             const at::Tensor& delta, const at::Tensor& A,
                             const at::Tensor& B, const at::Tensor& C,
                             const OptionalTensor& D,
                             const OptionalTensor& delta_bias,
                             bool delta_softplus, bool reverse) {
  const auto shape = check_selective_scan(u, delta, A, B, C, D, delta_bias,
                                          delta_softplus, reverse);
  check_alike("grad", grad, u);
  const c10::cuda::CUDAGuard guard(u.device());
  auto grad_u = empty_like_layout(u), grad_delta = empty_like_layout(delta);
  auto sums = empty_sums(shape, A.options());
  if (u.numel() > 0) {
    const auto uc = with_unit_stride(u), deltac = with_unit_stride(delta);
    const auto gc = with_unit_stride(grad), Ac = A.contiguous();
    const auto Dc = contiguous(D), bias = contiguous(delta_bias);
    SCAN_DISPATCH(u, [&] {
      sums = backward(
          plain_operands<scalar_t>(shape, uc, deltac, Ac, B, C, Dc, bias), Ac,
          gc, grad_u, grad_delta);
    });
  }
  const int64_t state = shape.state;
  const auto parameters = sums.parameters[0];
  const auto none = at::empty({0}, parameters.options());
  return {grad_u,
          grad_delta,
          parameters.narrow(1, 0, state).contiguous(),
          empty_like_layout(B).copy_(sums.rows.narrow(2, 0, state)),
          empty_like_layout(C).copy_(sums.rows.narrow(2, state, state)),
          D.has_value() ? parameters.select(1, state).contiguous() : none,
          delta_bias.has_value() ? parameters.select(1, state + 1).contiguous()
                                 : at::empty_like(none)};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor,
           at::Tensor>
bidirectional_scan_backward_cuda(const at::Tensor& grad, const at::Tensor& u,
                                 const at::Tensor& proj,
                                 const at::Tensor& dt_proj,
                                 const at::Tensor& dt_bias,
                                 const at::Tensor& A, const at::Tensor& D) {
  const auto shape = check_bidirectional_scan(u, proj, dt_proj, dt_bias, A, D);
  check_alike("grad", grad, u);
  const c10::cuda::CUDAGuard guard(u.device());
  if (u.numel() > 0 && cuda::takes_bidirectional(shape, u)) {
    return cuda::bidirectional_backward(shape, grad, u, proj, dt_proj, dt_bias,
                                        A, D);
  }
  auto grad_u = empty_like_layout(u);
  auto sums = empty_sums(shape, A.options());
  if (u.numel() > 0) {
    const auto uc = with_unit_stride(u), gc = with_unit_stride(grad);
    const auto weight = dt_proj.contiguous(), bias = dt_bias.contiguous();
    const auto Ac = A.contiguous(), Dc = D.contiguous();
    SCAN_DISPATCH(u, [&] {
      sums = backward(
          fused_operands<scalar_t>(shape, uc, proj, weight, bias, Ac, Dc), Ac,
          gc, grad_u, at::Tensor());
    });
  }
  const auto& parameters = sums.parameters;
  const int64_t rank = shape.rank, state = shape.state;
  return {grad_u,
          empty_like_layout(proj).copy_(sums.rows),
          parameters.narrow(2, 0, rank).contiguous(),
          parameters.select(2, rank + state + 1).contiguous(),
          parameters.narrow(2, rank, state).contiguous(),
          parameters.select(2, rank + state).contiguous()};
}

}  // namespace

TORCH_LIBRARY_IMPL(selective_scan, CUDA, m) {
  m.impl("selective_scan", &selective_scan_cuda);
  m.impl("selective_scan_backward", &selective_scan_backward_cuda);
  m.impl("bidirectional_scan", &bidirectional_scan_cuda);
  m.impl("bidirectional_scan_backward", &bidirectional_scan_backward_cuda);
}

}  // namespace selective_scan
