// composed_scan.h over the operators of the plain scan, on any device.
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include "../../csrc/cuda/composed_scan.h"

namespace {

using namespace selective_scan;
using at::Tensor;
using Gradients =
    std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

template <typename Function>
auto find(const char* name) {
  const auto found = c10::Dispatcher::singleton().findSchemaOrThrow(name, "");
  const auto typed = found.typed<Function>();
  return [typed](auto&&... arguments) { return typed.call(arguments...); };
}

Tensor forward(const Tensor& u, const Tensor& proj, const Tensor& dt_proj,
               const Tensor& dt_bias, const Tensor& A, const Tensor& D) {
  const auto scan =
      find<Tensor(const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                  const Tensor&, const OptionalTensor&, const OptionalTensor&,
                  bool, bool)>("selective_scan::selective_scan");
  return composed_scan(scan, u, proj, dt_proj, dt_bias, A, D);
}

BidirectionalGradients backward(const Tensor& grad, const Tensor& u,
                                const Tensor& proj, const Tensor& dt_proj,
                                const Tensor& dt_bias, const Tensor& A,
                                const Tensor& D) {
  const auto scan =
      find<Gradients(const Tensor&, const Tensor&, const Tensor&,
                     const Tensor&, const Tensor&, const Tensor&,
                     const OptionalTensor&, const OptionalTensor&, bool,
                     bool)>("selective_scan::selective_scan_backward");
  return composed_backward(scan, grad, u, proj, dt_proj, dt_bias, A, D);
}

}  // namespace

TORCH_LIBRARY(composed_scan, m) {
  m.def("forward", &forward);
  m.def("backward", &backward);
}
