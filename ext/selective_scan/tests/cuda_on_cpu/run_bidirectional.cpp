// A plain C interface to the kernels of the bidirectional scan with one state,
// run as their launchers run them.
#include "cuda_on_cpu.h"

// After the definitions that stand in for CUDA's.
#include "../../csrc/cuda/bidirectional_backward.cuh"
#include "../../csrc/cuda/bidirectional_forward.cuh"
#include "../../csrc/cuda/bidirectional_totals.cuh"

namespace {

using namespace selective_scan::cuda;
using cuda_on_cpu::Tensor;

float* shared() { return static_cast<float*>(cuda_on_cpu::shared_memory()); }

template <typename T, typename Block>
void run(Bidirectional<T> g, const Plan& plan, Block block) {
  const dim3 grid{static_cast<unsigned>(plan.blocks),
                  static_cast<unsigned>(plan.chunks),
                  static_cast<unsigned>(g.batch)};
  for (const bool summing : {true, false}) {
    if (summing && plan.chunks == 1) continue;
    g.summing = summing;
    cuda_on_cpu::launch(grid, plan.threads, plan.shared, [&] { block(g); });
  }
}

// Sizes: batch, channels, length, rank, directions, channels last,
// multiprocessors, bytes of shared memory, paired rows. Tensors: u, proj,
// dt_proj, dt_bias, A, D, grad, then those written: y and the gradients of the
// first six. Returns the chunks of the forward plan, 0 where it finds none.
template <typename T>
int run_type(const int64_t* sizes, const Tensor* t) {
  const auto size = [&](int i) { return static_cast<int>(sizes[i]); };
  const auto stride = [&](int i, int dimension) {
    return static_cast<int>(t[i].strides[dimension]);
  };
  const bool channels_last = sizes[5] != 0;
  const Device device{size(6), size(7)};
  Bidirectional<T> g{};
  g.batch = size(0);
  g.channels = size(1);
  g.length = size(2);
  g.rank = size(3);
  g.directions = size(4);
  g.paired_rows = sizes[8] != 0;
  g.u = t[0];
  g.u_batch = stride(0, 0);
  g.u_lead = stride(0, channels_last ? 2 : 1);
  g.proj = t[1];
  g.proj_batch = stride(1, 0);
  g.proj_set = stride(1, 1);
  g.proj_row = stride(1, 2);
  g.proj_token = stride(1, 3);
  g.weight = t[2];
  g.bias = t[3];
  g.A = t[4];
  g.D = t[5];
  g.grad = t[6];
  g.grad_batch = stride(6, 0);
  g.grad_lead = stride(6, channels_last ? 2 : 1);
  g.y = t[7];
  g.grad_u = t[8];
  int chunks = 0;
  for (const bool backward : {false, true}) {
    const Plan plan = make_plan(g.batch, g.channels, g.length, g.rank,
                                g.directions, backward, device);
    if (plan.threads == 0) return 0;
    if (!backward) chunks = plan.chunks;
    const Workspace space =
        make_workspace(plan, g.batch, g.length, g.directions, backward);
    std::vector<float> memory(space.total() + 4, NAN);
    use_plan(g, plan, space, memory.data());
    if (!backward) {
      run(g, plan, [&](const Bidirectional<T>& x) {
        channels_last ? forward_block<T, true>(x, shared())
                      : forward_block<T, false>(x, shared());
      });
      continue;
    }
    run(g, plan, [&](const Bidirectional<T>& x) {
      channels_last ? backward_block<T, true>(x, shared())
                    : backward_block<T, false>(x, shared());
    });
    Totals<T> totals = make_totals(g, plan);
    totals.proj = t[9];
    totals.weight = t[10];
    totals.bias = t[11];
    totals.A = t[12];
    totals.D = t[13];
    cuda_on_cpu::launch(totals_grid(totals), kTotalThreads,
                        kTotalThreads * sizeof(float),
                        [&] { totals_block(totals, shared()); });
  }
  return chunks;
}

}  // namespace

// Type: 0 for float32, 1 for float16, 2 for bfloat16.
extern "C" int run_bidirectional(int type, const int64_t* sizes,
                                 const Tensor* tensors) {
  if (type == 1) return run_type<__half>(sizes, tensors);
  if (type == 2) return run_type<__nv_bfloat16>(sizes, tensors);
  return run_type<float>(sizes, tensors);
}
