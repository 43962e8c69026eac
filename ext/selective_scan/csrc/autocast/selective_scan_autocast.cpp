// Under autocast u, delta, B, C and proj keep the type they come with (the
// widest of theirs where they differ); parameters stay float32.
#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/library.h>

#include "../common/operands.h"

namespace selective_scan {
namespace {

at::ScalarType widest(at::TensorList tensors) {
  auto type = tensors.front().scalar_type();
  for (const auto& tensor : tensors) {
    type = at::promote_types(type, tensor.scalar_type());
  }
  return type;
}

OptionalTensor to(const OptionalTensor& tensor, at::ScalarType type) {
  return tensor.has_value() ? OptionalTensor(tensor->to(type)) : std::nullopt;
}

at::Tensor selective_scan_autocast(
    const at::Tensor& u, const at::Tensor& delta, const at::Tensor& A,
    const at::Tensor& B, const at::Tensor& C, const OptionalTensor& D,
    const OptionalTensor& delta_bias, bool delta_softplus, bool reverse) {
  const c10::impl::ExcludeDispatchKeyGuard guard(
      c10::autocast_dispatch_keyset);
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("selective_scan::selective_scan", "")
          .typed<decltype(selective_scan_autocast)>();
  const auto type = widest({u, delta, B, C});
  const auto state = state_type(type);
  return op.call(u.to(type), delta.to(type), A.to(state), B.to(type),
                 C.to(type), to(D, state), to(delta_bias, state),
                 delta_softplus, reverse);
}

at::Tensor bidirectional_scan_autocast(
    const at::Tensor& u, const at::Tensor& proj, const at::Tensor& dt_proj,
    const at::Tensor& dt_bias, const at::Tensor& A, const at::Tensor& D) {
  const c10::impl::ExcludeDispatchKeyGuard guard(
      c10::autocast_dispatch_keyset);
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("selective_scan::bidirectional_scan", "")
          .typed<decltype(bidirectional_scan_autocast)>();
  const auto type = widest({u, proj});
  const auto state = state_type(type);
  return op.call(u.to(type), proj.to(type), dt_proj.to(state),
                 dt_bias.to(state), A.to(state), D.to(state));
}

}  // namespace

TORCH_LIBRARY_IMPL(selective_scan, AutocastCPU, m) {
  m.impl("selective_scan", &selective_scan_autocast);
  m.impl("bidirectional_scan", &bidirectional_scan_autocast);
}

TORCH_LIBRARY_IMPL(selective_scan, AutocastCUDA, m) {
  m.impl("selective_scan", &selective_scan_autocast);
  m.impl("bidirectional_scan", &bidirectional_scan_autocast);
}

}  // namespace selective_scan
