#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <cmath>
#include <vector>

#include "../common/operands.h"

namespace selective_scan {
namespace {

template <typename T>
struct Operands {
  using P = at::opmath_type<T>;
  ScanShape shape;
  const T *u = nullptr, *delta = nullptr, *dt = nullptr, *B = nullptr,
          *C = nullptr, *grad = nullptr;
  ChannelStrides u_strides, delta_strides, grad_strides;
  RowStrides dt_strides, B_strides, C_strides;
  const P *A = nullptr, *D = nullptr, *bias = nullptr, *dt_proj = nullptr;

  P pre(int64_t k, int64_t b, int64_t c, int64_t t) const {
    P sum = bias ? bias[shape.parameter(k, c)] : P(0);
    if (delta) return sum + P(delta[delta_strides.at(b, c, t)]);
    for (int64_t r = 0; r < shape.rank; ++r)
      sum += dt_proj[shape.parameter(k, c) * shape.rank + r] *
             P(dt[dt_strides.at(b, k, r, t)]);
    return sum;
  }
  P step(P x) const {
    if (!shape.softplus) return x;
    return std::max(x, P(0)) + std::log1p(std::exp(-std::abs(x)));
  }
};

template <typename T>
void forward(const Operands<T>& o, T* y, ChannelStrides ys) {
  using P = at::opmath_type<T>;
  const auto& s = o.shape;
  at::parallel_for(0, s.batch * s.channels, 1, [&](int64_t i0, int64_t i1) {
    std::vector<P> h(s.state), sum(s.length);
    for (auto i = i0; i < i1; ++i) {
      const auto b = i / s.channels, c = i % s.channels;
      std::fill(sum.begin(), sum.end(), P(0));
      for (int64_t k = 0; k < s.directions; ++k) {
        std::fill(h.begin(), h.end(), P(0));
        const auto p = s.parameter(k, c), set = s.set(k, c);
        for (int64_t j = 0; j < s.length; ++j) {
          const auto t = s.token(k, j);
          const P u = o.u[o.u_strides.at(b, c, t)];
          const P d = o.step(o.pre(k, b, c, t));
          P out = o.D ? o.D[p] * u : P(0);
          for (int64_t n = 0; n < s.state; ++n) {
            h[n] = std::exp(d * o.A[p * s.state + n]) * h[n] +
                   d * u * P(o.B[o.B_strides.at(b, set, n, t)]);
            out += P(o.C[o.C_strides.at(b, set, n, t)]) * h[n];
          }
          sum[t] += out;
        }
      }
      for (int64_t t = 0; t < s.length; ++t) y[ys.at(b, c, t)] = T(sum[t]);
    }
  });
}

// Gradients in the state's type, dense: d* like (batch, channels, length),
// drows like (batch, sets, rows, length) with rows dt, B, C.
template <typename P>
struct Gradients {
  P *u, *delta, *rows, *A, *D, *bias, *dt_proj;
};

template <typename T>
void backward(const Operands<T>& o, Gradients<at::opmath_type<T>> g) {
  using P = at::opmath_type<T>;
  const auto& s = o.shape;
  const auto N = s.state, L = s.length;
  const auto rows = s.rank + 2 * N;
  std::vector<P> h((L + 1) * N), gh(N);
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t c = 0; c < s.channels; ++c)
      for (int64_t k = 0; k < s.directions; ++k) {
        const auto p = s.parameter(k, c), set = s.set(k, c);
        std::fill(h.begin(), h.begin() + N, P(0));
        for (int64_t j = 0; j < L; ++j) {
          const auto t = s.token(k, j);
          const P u = o.u[o.u_strides.at(b, c, t)];
          const P d = o.step(o.pre(k, b, c, t));
          for (int64_t n = 0; n < N; ++n)
            h[(j + 1) * N + n] = std::exp(d * o.A[p * N + n]) * h[j * N + n] +
                                 d * u * P(o.B[o.B_strides.at(b, set, n, t)]);
        }
        std::fill(gh.begin(), gh.end(), P(0));
        P* grows = g.rows + (b * s.sets() + set) * rows * L;
        for (int64_t j = L - 1; j >= 0; --j) {
          const auto t = s.token(k, j);
          const P u = o.u[o.u_strides.at(b, c, t)];
          const P x = o.pre(k, b, c, t), d = o.step(x);
          const P gy = o.grad[o.grad_strides.at(b, c, t)];
          P gdu = 0, gd = 0;
          for (int64_t n = 0; n < N; ++n) {
            const P A = o.A[p * N + n], a = std::exp(d * A);
            gh[n] += P(o.C[o.C_strides.at(b, set, n, t)]) * gy;
            grows[(s.rank + n) * L + t] += gh[n] * d * u;
            grows[(s.rank + N + n) * L + t] += gy * h[(j + 1) * N + n];
            gdu += gh[n] * P(o.B[o.B_strides.at(b, set, n, t)]);
            const P ga = gh[n] * h[j * N + n] * a;
            gd += ga * A;
            g.A[p * N + n] += ga * d;
            gh[n] *= a;
          }
          gd += gdu * u;
          const auto i = (b * s.channels + c) * L + t;
          g.u[i] += gdu * d + (o.D ? o.D[p] * gy : P(0));
          if (o.D) g.D[p] += gy * u;
          if (s.softplus) gd *= P(1) / (P(1) + std::exp(-x));
          if (o.bias) g.bias[p] += gd;
          if (o.delta) g.delta[i] = gd;
          for (int64_t r = 0; r < s.rank; ++r) {
            g.dt_proj[p * s.rank + r] +=
                gd * P(o.dt[o.dt_strides.at(b, k, r, t)]);
            grows[r * L + t] += gd * o.dt_proj[p * s.rank + r];
          }
        }
      }
}

template <typename T>
Operands<T> plain_operands(const ScanShape& shape, const at::Tensor& u,
                           const at::Tensor& delta, const at::Tensor& A,
                           const at::Tensor& B, const at::Tensor& C,
                           const OptionalTensor& D,
                           const OptionalTensor& bias) {
  using P = at::opmath_type<T>;
  Operands<T> o;
  o.shape = shape;
  o.u = u.const_data_ptr<T>();
  o.delta = delta.const_data_ptr<T>();
  o.B = B.const_data_ptr<T>();
  o.C = C.const_data_ptr<T>();
  o.u_strides = channel_strides(u);
  o.delta_strides = channel_strides(delta);
  o.B_strides = row_strides(B);
  o.C_strides = row_strides(C);
  o.A = A.const_data_ptr<P>();
  o.D = optional_data<P>(D);
  o.bias = optional_data<P>(bias);
  return o;
}

template <typename T>
Operands<T> fused_operands(const ScanShape& shape, const at::Tensor& u,
                           const at::Tensor& proj, const at::Tensor& dt_proj,
                           const at::Tensor& dt_bias, const at::Tensor& A,
                           const at::Tensor& D) {
  using P = at::opmath_type<T>;
  Operands<T> o;
  o.shape = shape;
  o.u = u.const_data_ptr<T>();
  o.u_strides = channel_strides(u);
  o.dt_strides = o.B_strides = o.C_strides = row_strides(proj);
  o.dt = proj.const_data_ptr<T>();
  o.B = o.dt + shape.rank * proj.stride(2);
  o.C = o.B + shape.state * proj.stride(2);
  o.dt_proj = dt_proj.const_data_ptr<P>();
  o.bias = dt_bias.const_data_ptr<P>();
  o.A = A.const_data_ptr<P>();
  o.D = D.const_data_ptr<P>();
  return o;
}

at::Tensor selective_scan_cpu(const at::Tensor& u, const at::Tensor& delta,
                              const at::Tensor& A, const at::Tensor& B,
                              const at::Tensor& C, const OptionalTensor& D,
                              const OptionalTensor& delta_bias,
                              bool delta_softplus, bool reverse) {
  const auto shape = check_selective_scan(u, delta, A, B, C, D, delta_bias,
                                          delta_softplus, reverse);
  auto y = empty_like_layout(u);
  if (y.numel() == 0) return y;
  const auto Ac = A.contiguous();
  const auto Dc = contiguous(D), bias = contiguous(delta_bias);
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, u.scalar_type(), "selective_scan", [&] {
        forward(plain_operands<scalar_t>(shape, u, delta, Ac, B, C, Dc, bias),
                y.mutable_data_ptr<scalar_t>(), channel_strides(y));
      });
  return y;
}

at::Tensor bidirectional_scan_cpu(const at::Tensor& u, const at::Tensor& proj,
                                  const at::Tensor& dt_proj,
                                  const at::Tensor& dt_bias,
                                  const at::Tensor& A, const at::Tensor& D) {
  const auto shape = check_bidirectional_scan(u, proj, dt_proj, dt_bias, A, D);
  auto y = empty_like_layout(u);
  if (y.numel() == 0) return y;
  const auto Wc = dt_proj.contiguous(), bias = dt_bias.contiguous();
  const auto Ac = A.contiguous(), Dc = D.contiguous();
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, u.scalar_type(), "bidirectional_scan", [&] {
        forward(fused_operands<scalar_t>(shape, u, proj, Wc, bias, Ac, Dc),
                y.mutable_data_ptr<scalar_t>(), channel_strides(y));
      });
  return y;
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
  const auto Ac = A.contiguous();
  const auto Dc = contiguous(D), bias = contiguous(delta_bias);
  const auto options = A.options();
  auto gu = at::zeros(u.sizes(), options), gdelta = at::zeros_like(gu);
  auto rows = at::zeros(
      {shape.batch, shape.groups, 2 * shape.state, shape.length}, options);
  auto gA = at::zeros(A.sizes(), options);
  auto gD = at::zeros({D.has_value() ? shape.channels : 0}, options);
  auto gbias =
      at::zeros({delta_bias.has_value() ? shape.channels : 0}, options);
  if (u.numel() > 0)
    AT_DISPATCH_FLOATING_TYPES_AND2(
        at::kHalf, at::kBFloat16, u.scalar_type(), "selective_scan", [&] {
          using P = at::opmath_type<scalar_t>;
          auto o =
              plain_operands<scalar_t>(shape, u, delta, Ac, B, C, Dc, bias);
          o.grad = grad.const_data_ptr<scalar_t>();
          o.grad_strides = channel_strides(grad);
          backward(o, {gu.mutable_data_ptr<P>(), gdelta.mutable_data_ptr<P>(),
                       rows.mutable_data_ptr<P>(), gA.mutable_data_ptr<P>(),
                       gD.mutable_data_ptr<P>(), gbias.mutable_data_ptr<P>(),
                       nullptr});
        });
  return {empty_like_layout(u).copy_(gu),
          empty_like_layout(delta).copy_(gdelta),
          gA,
          empty_like_layout(B).copy_(rows.narrow(2, 0, shape.state)),
          empty_like_layout(C).copy_(
              rows.narrow(2, shape.state, shape.state)),
          gD,
          gbias};
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
  const auto Wc = dt_proj.contiguous(), bias = dt_bias.contiguous();
  const auto Ac = A.contiguous(), Dc = D.contiguous();
  const auto options = A.options();
  auto gu = at::zeros(u.sizes(), options), rows = at::zeros(proj.sizes(), options);
  auto gW = at::zeros(dt_proj.sizes(), options);
  auto gbias = at::zeros(dt_bias.sizes(), options);
  auto gA = at::zeros(A.sizes(), options), gD = at::zeros(D.sizes(), options);
  if (u.numel() > 0)
    AT_DISPATCH_FLOATING_TYPES_AND2(
        at::kHalf, at::kBFloat16, u.scalar_type(), "bidirectional_scan", [&] {
          using P = at::opmath_type<scalar_t>;
          auto o = fused_operands<scalar_t>(shape, u, proj, Wc, bias, Ac, Dc);
          o.grad = grad.const_data_ptr<scalar_t>();
          o.grad_strides = channel_strides(grad);
          backward(o, {gu.mutable_data_ptr<P>(), nullptr,
                       rows.mutable_data_ptr<P>(), gA.mutable_data_ptr<P>(),
                       gD.mutable_data_ptr<P>(), gbias.mutable_data_ptr<P>(),
                       gW.mutable_data_ptr<P>()});
        });
  return {empty_like_layout(u).copy_(gu), empty_like_layout(proj).copy_(rows),
          gW, gbias, gA, gD};
}

}  // namespace

TORCH_LIBRARY_IMPL(selective_scan, CPU, m) {
  m.impl("selective_scan", &selective_scan_cpu);
  m.impl("selective_scan_backward", &selective_scan_backward_cpu);
  m.impl("bidirectional_scan", &bidirectional_scan_cpu);
  m.impl("bidirectional_scan_backward", &bidirectional_scan_backward_cpu);
}

}  // namespace selective_scan
