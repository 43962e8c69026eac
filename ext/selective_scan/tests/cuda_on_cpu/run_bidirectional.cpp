// A plain C interface to the kernels of the bidirectional scan with one state,
// run as their launcher runs them.
#include "cuda_on_cpu.h"

// After the definitions that stand in for CUDA's.
#include "../../csrc/cuda/bidirectional_backward.cuh"
#include "../../csrc/cuda/bidirectional_forward.cuh"

namespace {

using namespace selective_scan::cuda;
using cuda_on_cpu::Tensor;

template <typename T>
Rows<T> rows(const Tensor& t) {
  const auto stride = [&](int k) { return static_cast<int>(t.strides[k]); };
  return {t, t.strides[0], stride(1), stride(2), stride(3)};
}

template <typename T>
int run(const int64_t* sizes, const Tensor* t) {
  const auto size = [&](int i) { return static_cast<int>(sizes[i]); };
  int chunks = 0;
  for (const bool backward : {false, true}) {
    Bidirectional<T> g{};
    g.batch = size(0);
    g.channels = size(1);
    g.length = size(2);
    g.rank = size(3);
    g.directions = size(4);
    g.channels_last = sizes[5] != 0;
    g.paired_rows = sizes[8] != 0;
    const int lead = g.channels_last ? 2 : 1;
    g.u = t[0];
    g.u_batch = t[0].strides[0];
    g.u_lead = static_cast<int>(t[0].strides[lead]);
    g.proj = rows<const T>(t[1]);
    g.weight = t[2];
    g.bias = t[3];
    g.A = t[4];
    g.D = t[5];
    g.grad = t[6];
    g.grad_batch = t[6].strides[0];
    g.grad_lead = static_cast<int>(t[6].strides[lead]);
    g.y = t[backward ? 8 : 7];
    g.grad_proj = rows<T>(t[9]);
    g.grad_weight = t[10];
    g.grad_bias = t[11];
    g.grad_A = t[12];
    g.grad_D = t[13];
    static_cast<Plan&>(g) =
        make_plan(g.batch, g.channels, g.length, g.rank, g.directions,
                  backward, {size(6), size(7)});
    if (g.threads == 0) return 0;
    if (!backward) chunks = g.chunks;
    std::vector<float> memory(set_workspace(g, backward, nullptr) + 4, NAN);
    set_workspace(g, backward, memory.data());
    const auto kernels = [&](auto forward, auto reverse) {
      return [=, &g] { backward ? reverse(g) : forward(g); };
    };
    const std::function<void()> kernel =
        g.channels_last ? kernels(bidirectional_forward<T, true>,
                                  bidirectional_backward<T, true>)
                        : kernels(bidirectional_forward<T, false>,
                                  bidirectional_backward<T, false>);
    for (const bool summing : {true, false}) {
      if (summing && g.chunks == 1) continue;
      g.summing = summing;
      cuda_on_cpu::launch({static_cast<unsigned>(g.blocks),
                           static_cast<unsigned>(g.chunks),
                           static_cast<unsigned>(g.batch)},
                          g.threads, g.shared, kernel);
    }
    if (!backward) continue;
    cuda_on_cpu::launch(totals_grid(g), kTotalThreads,
                        kTotalThreads * sizeof(float),
                        [&] { bidirectional_totals(g); });
  }
  return chunks;
}

}  // namespace

// Type: 0 for float32, 2 for bfloat16, 3 for float16. Sizes: batch, channels,
// length, rank, directions, channels last, multiprocessors, bytes of shared
// memory, paired rows. Tensors: u, proj, dt_proj, dt_bias, A, D, grad, then
// those written: y and the gradients of the first six. Returns the chunks of
// the forward plan, 0 where it finds none.
extern "C" int run_bidirectional(int type, const int64_t* sizes,
                                 const Tensor* tensors) {
  if (type == 2) return run<c10::BFloat16>(sizes, tensors);
  if (type == 3) return run<c10::Half>(sizes, tensors);
  return run<float>(sizes, tensors);
}
