// A plain C interface to the kernels of the plain scan, run as their launcher
// runs them.
#include "cuda_on_cpu.h"

// After the definitions that stand in for CUDA's.
#include "../../csrc/cuda/plain_scan.cuh"

namespace {

using namespace selective_scan::cuda;
using cuda_on_cpu::Tensor;

template <typename T, typename P>
void run(const int64_t* sizes, const Tensor* t) {
  PlainScan<T, P> o{};
  o.batch = sizes[0];
  o.channels = sizes[1];
  o.length = sizes[2];
  o.state = sizes[3];
  o.groups = sizes[4];
  o.softplus = sizes[5] != 0;
  const bool reverse = sizes[6] != 0;
  const auto view = [&](auto& to, int i, int dims = 3) {
    to = walk<std::remove_pointer_t<decltype(to.data)>>(
        t[i], t[i].strides, dims, o.length, reverse);
  };
  View<T> y;
  view(o.u, 0);
  view(o.delta, 1);
  o.A = t[2];
  view(o.B, 3, 4);
  view(o.C, 4, 4);
  o.D = t[5];
  o.bias = t[6];
  view(o.grad, 7);
  view(y, 8);
  view(o.grad_u, 9);
  view(o.grad_delta, 10);
  o.parameters = t[12];
  with_layout(o, [&](auto layout) {
    using L = decltype(layout);
    const auto blocks = static_cast<unsigned>(o.batch * L::blocks(o));
    const int64_t sums = o.batch * o.groups * 2 * o.state * o.length;
    // A block writes the rows of its own group alone.
    std::vector<P> rows(L::blocks(o) * sums, o.groups == 1 ? NAN : 0);
    const int64_t strides[] = {2 * o.state * o.length, o.length, 1};
    o.rows = walk(rows.data(), strides, 3, o.length, reverse);
    const auto launch = [&](auto kernel) {
      cuda_on_cpu::launch({blocks}, kThreads, sizeof(P) * L::kShared,
                          [&] { kernel(o); });
    };
    for (const bool backward : {false, true}) {
      std::vector<P> carries(2 * o.batch * L::chunks(o) * o.state *
                             o.channels);
      o.carries = carries.data();
      o.y = backward ? View<T>() : y;
      if (!backward || L::chunks(o) > 1) launch(plain_forward<T, P, L>);
      if (backward) launch(plain_backward<T, P, L>);
    }
    P* const total = t[11];
    for (size_t i = 0; i < rows.size(); ++i) total[i % sums] += rows[i];
  });
}

}  // namespace

// Type: 0 for float32, 1 for float64, 2 for bfloat16. Sizes: batch, channels,
// length, state, groups, softplus, reverse. Tensors: u, delta, A, B, C, D, bias, grad,
// then those written: y, grad_u, grad_delta, and the sums of the gradients of
// the rows and, for each batch element, of the parameters.
extern "C" void run_plain(int type, const int64_t* sizes,
                          const Tensor* tensors) {
  if (type == 0) run<float, float>(sizes, tensors);
  if (type == 1) run<double, double>(sizes, tensors);
  if (type == 2) run<c10::BFloat16, float>(sizes, tensors);
}
