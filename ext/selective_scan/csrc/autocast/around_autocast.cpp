// Under autocast the operators around the scan run in the type that they are
// given, the widest of x's and z's; parameters stay float32.
#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/library.h>

#include "../common/map_operands.h"

namespace selective_scan {
namespace {

at::Tensor wavelet_conv2d_autocast(const at::Tensor& x,
                                   const at::Tensor& weight) {
  const c10::impl::ExcludeDispatchKeyGuard guard(
      c10::autocast_dispatch_keyset);
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("selective_scan::wavelet_conv2d", "")
                             .typed<decltype(wavelet_conv2d_autocast)>();
  return op.call(x, weight.to(state_type(x.scalar_type())));
}

at::Tensor gated_layer_norm_autocast(const at::Tensor& x, const at::Tensor& z,
                                     const at::Tensor& weight,
                                     const at::Tensor& bias, double eps) {
  const c10::impl::ExcludeDispatchKeyGuard guard(
      c10::autocast_dispatch_keyset);
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("selective_scan::gated_layer_norm", "")
          .typed<decltype(gated_layer_norm_autocast)>();
  const auto type = at::promote_types(x.scalar_type(), z.scalar_type());
  const auto state = state_type(type);
  return op.call(x.to(type), z.to(type), weight.to(state), bias.to(state),
                 eps);
}

}  // namespace

TORCH_LIBRARY_IMPL(selective_scan, AutocastCPU, m) {
  m.impl("wavelet_conv2d", &wavelet_conv2d_autocast);
  m.impl("gated_layer_norm", &gated_layer_norm_autocast);
}

TORCH_LIBRARY_IMPL(selective_scan, AutocastCUDA, m) {
  m.impl("wavelet_conv2d", &wavelet_conv2d_autocast);
  m.impl("gated_layer_norm", &gated_layer_norm_autocast);
}

}  // namespace selective_scan
