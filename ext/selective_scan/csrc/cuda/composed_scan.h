// The bidirectional scan with more states, in float64 or of a size that its
// kernels do not take: delta in memory, and a plain scan for each direction.
// 16-bit inputs are widened, so that delta is not rounded.
#pragma once

#include <ATen/ops/empty_like.h>
#include <ATen/ops/matmul.h>

#include <tuple>

#include "../common/operands.h"

namespace selective_scan {

using BidirectionalGradients = std::tuple<at::Tensor, at::Tensor, at::Tensor,
                                          at::Tensor, at::Tensor, at::Tensor>;

template <typename Scan>
at::Tensor composed_scan(const Scan& scan, const at::Tensor& u,
                         const at::Tensor& proj, const at::Tensor& dt_proj,
                         const at::Tensor& dt_bias, const at::Tensor& A,
                         const at::Tensor& D) {
  const int64_t rank = dt_proj.size(2), state = A.size(2);
  const auto x = u.to(A.scalar_type()), rows = proj.to(A.scalar_type());
  at::Tensor y;
  for (int64_t k = 0; k < A.size(0); ++k) {
    const auto row = [&](int64_t first, int64_t count) {
      return rows.select(1, k).narrow(1, first, count);
    };
    const auto delta = at::matmul(dt_proj[k], row(0, rank));
    const auto part =
        scan(x, delta, A[k], row(rank, state).unsqueeze(1),
             row(rank + state, state).unsqueeze(1), D[k], dt_bias[k],
             /*delta_softplus=*/true, /*reverse=*/k == 1);
    y = k == 0 ? part : y.add_(part);
  }
  if (y.scalar_type() == u.scalar_type()) return y;
  return empty_like_layout(u).copy_(y);
}

template <typename Backward>
BidirectionalGradients composed_backward(
    const Backward& backward, const at::Tensor& grad, const at::Tensor& u,
    const at::Tensor& proj, const at::Tensor& dt_proj,
    const at::Tensor& dt_bias, const at::Tensor& A, const at::Tensor& D) {
  const int64_t rank = dt_proj.size(2), state = A.size(2);
  const auto type = A.scalar_type();
  const auto x = u.to(type), rows = proj.to(type), gy = grad.to(type);
  auto grad_u = empty_like_layout(u), grad_proj = empty_like_layout(proj);
  const auto like = [](const at::Tensor& parameter) {
    return at::empty(parameter.sizes(), parameter.options());
  };
  auto grad_weight = like(dt_proj), grad_bias = like(dt_bias);
  auto grad_A = like(A), grad_D = like(D);
  at::Tensor sum;
  for (int64_t k = 0; k < A.size(0); ++k) {
    const auto row = [&](const at::Tensor& all, int64_t first, int64_t count) {
      return all.select(1, k).narrow(1, first, count);
    };
    const auto dt = row(rows, 0, rank);
    const auto [gu, gdelta, gA, gB, gC, gD, gbias] =
        backward(gy, x, at::matmul(dt_proj[k], dt), A[k],
                 row(rows, rank, state).unsqueeze(1),
                 row(rows, rank + state, state).unsqueeze(1), D[k], dt_bias[k],
                 /*delta_softplus=*/true, /*reverse=*/k == 1);
    sum = k == 0 ? gu : sum.add_(gu);
    row(grad_proj, 0, rank).copy_(at::matmul(dt_proj[k].t(), gdelta));
    row(grad_proj, rank, state).copy_(gB.squeeze(1));
    row(grad_proj, rank + state, state).copy_(gC.squeeze(1));
    grad_weight[k].copy_(at::matmul(gdelta, dt.transpose(1, 2)).sum(0));
    grad_bias[k].copy_(gbias);
    grad_A[k].copy_(gA);
    grad_D[k].copy_(gD);
  }
  grad_u.copy_(sum);
  return {grad_u, grad_proj, grad_weight, grad_bias, grad_A, grad_D};
}

}  // namespace selective_scan
