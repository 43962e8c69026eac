#include "bidirectional_cuda.h"

#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <limits>

#include "bidirectional_launch.h"

namespace selective_scan::cuda {
namespace {

constexpr int64_t kLargest = std::numeric_limits<int>::max();

int narrow(int64_t value) { return static_cast<int>(value); }

Device current_device() {
  int index = 0;
  Device device{};
  C10_CUDA_CHECK(cudaGetDevice(&index));
  C10_CUDA_CHECK(cudaDeviceGetAttribute(
      &device.multiprocessors, cudaDevAttrMultiProcessorCount, index));
  C10_CUDA_CHECK(cudaDeviceGetAttribute(
      &device.shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, index));
  return device;
}

// Offsets inside one batch element fit 32 bits.
bool near(const at::Tensor& tensor) {
  int64_t reach = 0;
  for (int64_t k = 1; k < tensor.dim(); ++k) {
    reach += tensor.stride(k) * tensor.size(k);
  }
  return reach <= kLargest;
}

bool even_batch(const at::Tensor& tensor) {
  const auto address = reinterpret_cast<uintptr_t>(tensor.const_data_ptr());
  return tensor.stride(0) % 2 == 0 &&
         address % (2 * tensor.element_size()) == 0;
}

// Two neighbouring channels can be read at once.
bool paired_channels(const at::Tensor& x) {
  return channels_last(x) && x.size(1) % 2 == 0 && x.stride(2) % 2 == 0 &&
         even_batch(x) && near(x);
}

bool paired_rows(const at::Tensor& proj) {
  return proj.stride(2) == 1 && proj.size(2) % 2 == 0 &&
         proj.stride(1) % 2 == 0 && proj.stride(3) % 2 == 0 &&
         even_batch(proj);
}

at::Tensor with_dense_tokens(const at::Tensor& x) {
  return x.stride(2) == 1 && near(x) ? x : x.contiguous();
}

// Operands that the kernels read in place, and their layout.
struct Inputs {
  Inputs(const at::Tensor& given_u, const at::Tensor& given_proj,
         const at::Tensor& given_weight, const at::Tensor& given_bias,
         const at::Tensor& given_A, const at::Tensor& given_D)
      : last(paired_channels(given_u)),
        u(last ? given_u : with_dense_tokens(given_u)),
        proj(near(given_proj) ? given_proj : given_proj.contiguous()),
        weight(given_weight.contiguous()),
        bias(given_bias.contiguous()),
        A(given_A.contiguous()),
        D(given_D.contiguous()) {}

  template <typename T>
  Bidirectional<T> operands(const ScanShape& shape) const {
    Bidirectional<T> g{};
    g.batch = narrow(shape.batch);
    g.channels = narrow(shape.channels);
    g.length = narrow(shape.length);
    g.rank = narrow(shape.rank);
    g.directions = narrow(shape.directions);
    g.u = static_cast<const T*>(u.const_data_ptr());
    g.u_batch = u.stride(0);
    g.u_lead = narrow(u.stride(last ? 2 : 1));
    g.proj = static_cast<const T*>(proj.const_data_ptr());
    g.proj_batch = proj.stride(0);
    g.proj_set = narrow(proj.stride(1));
    g.proj_row = narrow(proj.stride(2));
    g.proj_token = narrow(proj.stride(3));
    g.paired_rows = paired_rows(proj);
    g.weight = weight.const_data_ptr<float>();
    g.bias = bias.const_data_ptr<float>();
    g.A = A.const_data_ptr<float>();
    g.D = D.const_data_ptr<float>();
    return g;
  }

  // A dense tensor as the kernels write it.
  at::Tensor result() const {
    return last ? empty_like_layout(u) : at::empty(u.sizes(), u.options());
  }

  const bool last;
  const at::Tensor u, proj, weight, bias, A, D;
};

// The result in the layout that the operator promises.
at::Tensor in_layout_of(const at::Tensor& u, const at::Tensor& result) {
  if (channels_last(u) == channels_last(result)) return result;
  return empty_like_layout(u).copy_(result);
}

Plan plan_for(const ScanShape& shape, bool backward, const Device& device) {
  return make_plan(shape.batch, narrow(shape.channels), narrow(shape.length),
                   narrow(shape.rank), narrow(shape.directions), backward,
                   device);
}

// Sets the plan's sizes and the workspace, which lives as long as it is
// returned to.
template <typename T>
at::Tensor set_plan(Bidirectional<T>& g, const Plan& plan, bool backward,
                    const at::TensorOptions& options) {
  const Workspace space =
      make_workspace(plan, g.batch, g.length, g.directions, backward);
  if (space.total() == 0) {
    use_plan(g, plan, space, nullptr);
    return {};
  }
  auto memory = at::empty({space.total()}, options);
  use_plan(g, plan, space, memory.mutable_data_ptr<float>());
  return memory;
}

template <typename Function>
void with_type(at::ScalarType type, const Function& function) {
  if (type == at::kHalf) return function(__half());
  if (type == at::kBFloat16) return function(__nv_bfloat16());
  function(float());
}

}  // namespace

bool takes_bidirectional(const ScanShape& shape, const at::Tensor& u) {
  if (shape.state != 1 || u.scalar_type() == at::kDouble) return false;
  const int64_t rows = shape.directions * (shape.rank + 6) * shape.length;
  const int64_t weights = shape.directions * shape.channels * shape.rank;
  if (shape.batch * shape.directions >= 65535 || rows > kLargest ||
      weights > kLargest || shape.channels * shape.length > kLargest) {
    return false;
  }
  const Device device = current_device();
  for (const bool backward : {false, true}) {
    const Plan plan = plan_for(shape, backward, device);
    if (plan.threads == 0 || plan.chunks > 65535) return false;
  }
  return true;
}

at::Tensor bidirectional_forward(const ScanShape& shape, const at::Tensor& u,
                                 const at::Tensor& proj,
                                 const at::Tensor& dt_proj,
                                 const at::Tensor& dt_bias,
                                 const at::Tensor& A, const at::Tensor& D) {
  const Inputs inputs(u, proj, dt_proj, dt_bias, A, D);
  const auto y = inputs.result();
  const Device device = current_device();
  const Plan plan = plan_for(shape, false, device);
  with_type(u.scalar_type(), [&](auto type) {
    using T = decltype(type);
    auto g = inputs.operands<T>(shape);
    const auto workspace = set_plan(g, plan, false, A.options());
    g.y = static_cast<T*>(y.mutable_data_ptr());
    C10_CUDA_CHECK(
        launch_bidirectional_forward<T>(g, plan, inputs.last, device.shared,
                                        c10::cuda::getCurrentCUDAStream()));
  });
  return in_layout_of(u, y);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor,
           at::Tensor>
bidirectional_backward(const ScanShape& shape, const at::Tensor& grad,
                       const at::Tensor& u, const at::Tensor& proj,
                       const at::Tensor& dt_proj, const at::Tensor& dt_bias,
                       const at::Tensor& A, const at::Tensor& D) {
  const Inputs inputs(u, proj, dt_proj, dt_bias, A, D);
  const auto grad_y = !inputs.last            ? with_dense_tokens(grad)
                      : paired_channels(grad) ? grad
                                              : inputs.result().copy_(grad);
  const auto grad_u = inputs.result();
  const auto grad_proj = empty_like_layout(proj);
  const auto grad_weight = at::empty_like(inputs.weight);
  const auto grad_bias = at::empty_like(inputs.bias);
  const auto grad_A = at::empty_like(inputs.A);
  const auto grad_D = at::empty_like(inputs.D);
  const Device device = current_device();
  const Plan plan = plan_for(shape, true, device);
  with_type(u.scalar_type(), [&](auto type) {
    using T = decltype(type);
    const auto stream = c10::cuda::getCurrentCUDAStream();
    auto g = inputs.operands<T>(shape);
    const auto workspace = set_plan(g, plan, true, A.options());
    g.grad = static_cast<const T*>(grad_y.const_data_ptr());
    g.grad_batch = grad_y.stride(0);
    g.grad_lead = narrow(grad_y.stride(inputs.last ? 2 : 1));
    g.grad_u = static_cast<T*>(grad_u.mutable_data_ptr());
    C10_CUDA_CHECK(launch_bidirectional_backward<T>(g, plan, inputs.last,
                                                    device.shared, stream));
    auto totals = make_totals(g, plan);
    totals.proj = static_cast<T*>(grad_proj.mutable_data_ptr());
    totals.proj_batch = grad_proj.stride(0);
    totals.proj_set = narrow(grad_proj.stride(1));
    totals.proj_row = narrow(grad_proj.stride(2));
    totals.proj_token = narrow(grad_proj.stride(3));
    totals.weight = grad_weight.mutable_data_ptr<float>();
    totals.bias = grad_bias.mutable_data_ptr<float>();
    totals.A = grad_A.mutable_data_ptr<float>();
    totals.D = grad_D.mutable_data_ptr<float>();
    C10_CUDA_CHECK(launch_bidirectional_totals<T>(totals, stream));
  });
  return {in_layout_of(u, grad_u),
          grad_proj,
          grad_weight,
          grad_bias,
          grad_A,
          grad_D};
}

}  // namespace selective_scan::cuda
